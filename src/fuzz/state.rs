//! Targets of keyed state: keys of timers, and values that expire.

use crate::compaction::filter::{CompactionFilter, Decision, EntryKind};
use crate::fuzz::parts::expected;
use crate::state::key::KeyShape;
use crate::state::list::Elements;
use crate::state::meta::StateKind;
use crate::state::ttl::cleanup::{LastAccess, TtlFilter};
use crate::state::ttl::time_of;
use crate::table::TimestampExtractor;

/// F6.2. What is accepted is what would be written, and in the order of time.
pub(super) fn timer(bytes: &[u8]) {
    let [shape, bytes @ ..] = bytes else { return };
    let width = |bits: u8| (bits > 0).then(|| usize::from(bits - 1) * 4);
    let shape = KeyShape { key: width(shape & 3), namespace: width(shape >> 2 & 3) };
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
