//! Targets of keyed state: cells and what is in them, keys of timers, and values that expire.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::ErrorKind;
use crate::compaction::filter::{CompactionFilter, Decision, EntryKind};
use crate::fuzz::parts::expected;
use crate::iter::resolve::MergeOperator;
use crate::state::evolution::{Compatibility, SerializerSnapshot};
use crate::state::key::{KeyBuilder, KeyShape};
use crate::state::list::{Elements, ListAppend, repack};
use crate::state::meta::StateKind;
use crate::state::postcard::PostcardSerializer;
use crate::state::serializer::{Builtin, Serializer, builtin};
use crate::state::ttl::cleanup::{LastAccess, TtlFilter};
use crate::state::ttl::time_of;
use crate::state::window::TimeWindow;
use crate::table::TimestampExtractor;

/// Which widths keys and namespaces have, by the first byte of an input.
fn shape(byte: u8) -> KeyShape {
    let width = |bits: u8| (bits > 0).then(|| usize::from(bits - 1) * 4);
    KeyShape { key: width(byte & 3), namespace: width(byte >> 2 & 3) }
}

/// F6.1, F6.3 and the values of built-in types: one meaning, one encoding.
pub(super) fn cell(bytes: &[u8]) {
    let [first, bytes @ ..] = bytes else { return };
    key(shape(*first), bytes);
    list(bytes);
    canonical::<(u64, i32, u8)>(bytes);
    canonical::<(i64, f64, f32)>(bytes);
    canonical::<(bool, char)>(bytes);
    canonical::<()>(bytes);
    canonical::<TimeWindow>(bytes);
    canonical::<String>(bytes);
    canonical::<(String, Option<u16>)>(bytes);
    canonical::<Vec<(u8, String)>>(bytes);
    canonical::<Vec<Option<Vec<u8>>>>(bytes);
    canonical::<Vec<()>>(bytes);
}

fn key(shape: KeyShape, bytes: &[u8]) {
    match shape.parse(bytes) {
        Ok(parsed) => {
            let mut builder = KeyBuilder::new(shape);
            builder.set_key(parsed.group, |out| out.extend_from_slice(parsed.key));
            builder.set_namespace(|out| out.extend_from_slice(parsed.namespace));
            let cell = builder.cell().to_vec();
            let again = builder.entry(|out| out.extend_from_slice(parsed.user_key));
            assert_eq!(again, bytes, "one cell, one key");
            assert!(builder.cell_range().contains(bytes) && builder.key_range().contains(bytes));
            assert_eq!(shape.parse_cell(bytes).is_ok(), cell == bytes);
        }
        Err(e) => expected(&e),
    }
}

fn canonical<T: Builtin>(bytes: &[u8]) {
    let serializer = builtin::<T>();
    match serializer.decode(bytes) {
        Ok(value) => {
            let mut again = Vec::new();
            serializer.encode(&value, &mut again);
            assert_eq!(again, bytes, "one value, one encoding: {}", serializer.name());
            assert!(serializer.fixed_len().is_none_or(|len| len == bytes.len()));
        }
        Err(e) => assert_eq!(e.kind(), ErrorKind::Corruption, "{e}"),
    }
}

/// However a list comes in operands, it is the same list.
fn list(bytes: &[u8]) {
    let elements: Result<Vec<&[u8]>, _> = Elements::new([bytes]).collect();
    let Ok(elements) = elements else { return };
    let copy = |element: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(element);
        Ok(())
    };
    let mut operands = Vec::new();
    repack(std::iter::once(bytes), copy, &mut operands).expect("elements were read");
    let parts: Vec<&[u8]> = operands.iter().map(Vec::as_slice).collect();
    let mut merged = Vec::new();
    ListAppend.merge(b"", None, &parts, &mut merged).expect("it only copies");
    assert_eq!(merged, bytes);
    let (older, newer) = bytes.split_at(bytes.len() - elements.last().map_or(0, |e| e.len()));
    let mut combined = Vec::new();
    if ListAppend.combine(b"", older, newer, &mut combined) {
        assert_eq!(combined, bytes);
    }
}

/// Values of types of serde. What is accepted is a value, which comes back from its own bytes.
pub(super) fn postcard(bytes: &[u8]) {
    returns::<(u32, Option<String>, BTreeMap<u8, Vec<i64>>)>(bytes);
    returns::<Vec<(bool, char, Vec<String>)>>(bytes);
    returns::<(i128, Option<Option<u64>>, [u16; 3])>(bytes);
    let serializer = PostcardSerializer::new("value", 2)
        .from_version(1, |old: (u32, String)| (old.0, vec![old.1]));
    let stored = SerializerSnapshot { version: 1, ..serializer.snapshot() };
    let Compatibility::AfterMigration(older) = serializer.compatibility(&stored) else {
        panic!("version 1 is migrated")
    };
    match older.decode(bytes) {
        Ok((number, texts)) => {
            let mut again = Vec::new();
            serializer.encode(&(number, texts), &mut again);
            assert_eq!(serializer.decode(&again).expect("our own").0, number);
        }
        Err(e) => assert_eq!(e.kind(), ErrorKind::Corruption, "{e}"),
    }
}

fn returns<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(bytes: &[u8]) {
    let serializer = PostcardSerializer::<T>::new("value", 1);
    match serializer.decode(bytes) {
        Ok(value) => {
            let mut again = Vec::new();
            serializer.encode(&value, &mut again);
            assert_eq!(serializer.decode(&again).expect("our own"), value);
            assert!(again.len() <= bytes.len(), "the shortest of its encodings");
        }
        Err(e) => assert_eq!(e.kind(), ErrorKind::Corruption, "{e}"),
    }
}

/// F6.2. What is accepted is what would be written, and in the order of time.
pub(super) fn timer(bytes: &[u8]) {
    let [first, bytes @ ..] = bytes else { return };
    let shape = shape(*first);
    match shape.parse_timer(bytes) {
        Ok(timer) => {
            let mut again = Vec::new();
            shape.put_timer(&timer, &mut again);
            assert_eq!(again, bytes, "one timer, one key");
        }
        Err(e) => expected(&e),
    }
}

/// F6.7. What a filter leaves has not expired, and it leaves all that has not.
pub(super) fn ttl(bytes: &[u8]) {
    let Some((until, value)) = bytes.split_first_chunk::<8>() else { return };
    let until = i64::from_be_bytes(*until);
    for kind in [StateKind::Value, StateKind::List] {
        let mut filter = TtlFilter { until: Some(until), kind };
        let last = |value: &[u8]| LastAccess(kind).timestamp(b"", value);
        let mut out = Vec::new();
        match filter.decide(b"", EntryKind::Value, value, &mut out) {
            Decision::Remove => assert!(last(value).is_some_and(|last| last <= until)),
            Decision::Replace => {
                assert!(kind == StateKind::List && out.len() < value.len());
                assert_eq!(last(&out), last(value), "the youngest element stays");
                assert!(elements(&out).eq(
                    elements(value).filter(|e| time_of(e) > Some(until) || time_of(e).is_none())
                ));
                let mut none = Vec::new();
                let again = filter.decide(b"", EntryKind::Value, &out, &mut none);
                assert_eq!(again, Decision::Keep, "nothing is left to be removed");
            }
            Decision::Keep => {
                let damaged = kind == StateKind::List && Elements::new([value]).any(|e| e.is_err());
                assert!(damaged || last(value).is_none_or(|last| last > until));
            }
        }
        let mut never = TtlFilter { until: None, kind };
        assert_eq!(never.decide(b"", EntryKind::Value, value, &mut Vec::new()), Decision::Keep);
    }
}

fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    Elements::new([list]).map_while(Result::ok)
}
