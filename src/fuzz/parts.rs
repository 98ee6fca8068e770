//! Targets that need no file system: one structure each.

use crate::base::bytes::Bytes;
use crate::base::coding::Decoder;
use crate::base::error::{Error, ErrorKind};
use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo, ValueKind};
use crate::batch::{BatchReader, WriteBatch};
use crate::checkpoint::format::Envelope;
use crate::fuzz::repair;
use crate::state::evolution::SerializerSnapshot;
use crate::state::meta::{BackendRecord, StateRecord};
use crate::state::operator_snapshot::{OperatorMode, OperatorSnapshot, redistribute};
use crate::table::block::{Block, Content, compare};
use crate::table::block_cursor::{Before, BlockCursor};
use crate::table::lookup::Lookup;
use crate::version::current;
use crate::version::edit::VersionEdit;
use crate::version::state::State;

/// Keys of a block that are looked up one by one.
const LOOKUPS_MAX: usize = 40;

/// A refusal must be one that tells what to do about bad bytes.
pub(super) fn expected(e: &Error) {
    let kind = e.kind();
    assert!(matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported), "{e}");
    assert!(e.offset().is_some() || kind == ErrorKind::Unsupported, "no offset: {e}");
}

/// F1. What is accepted is what would be written.
pub(super) fn batch(bytes: &[u8]) {
    let reader = match BatchReader::new(bytes, 0) {
        Ok(reader) => reader,
        Err(e) => return expected(&e),
    };
    let (seqno, count) = (reader.seqno(), reader.count());
    let mut again = WriteBatch::new();
    for op in reader.ops() {
        match op {
            Ok(op) => match op.kind {
                ValueKind::Put => again.put(op.family, op.key, op.value),
                ValueKind::Delete => again.delete(op.family, op.key),
                ValueKind::Merge => again.merge(op.family, op.key, op.value),
                ValueKind::RangeDelete => again.delete_range(op.family, op.key, op.value),
            },
            Err(e) => return expected(&e),
        }
    }
    assert_eq!(again.count(), u64::from(count));
    again.set_seqno(seqno);
    assert_eq!(again.as_bytes(), bytes, "one batch, one encoding");
}

/// F3.2. What is accepted is sorted, and all ways through it agree.
pub(super) fn block(bytes: &[u8]) {
    for content in [Content::Data, Content::Index, Content::RangeTombstones] {
        match Block::parse(Bytes::from(bytes), 7, content, |_, _| true) {
            Ok(block) => walk(&block),
            Err(e) => expected(&e),
        }
    }
}

type Entry = (Vec<u8>, SeqNo, ValueKind, Vec<u8>);

fn walk(block: &Block) {
    let mut entries: Vec<Entry> = Vec::new();
    let mut cursor = BlockCursor::new();
    let mut more = cursor.first(block).expect("parsed");
    while more {
        let (key, value) = cursor.entry(block).expect("there is more");
        if let Some((last, seqno, kind, _)) = entries.last() {
            let last = InternalKey::new(last, *seqno, *kind).trailer();
            let order = compare(&entries[entries.len() - 1].0, last, key.user_key, key.trailer());
            assert!(order.is_lt(), "entries ascend");
        }
        entries.push((key.user_key.to_vec(), key.seqno, key.kind, value.to_vec()));
        more = cursor.next(block).expect("parsed");
    }
    assert_eq!(entries.is_empty(), block.is_empty());
    let stride = entries.len() / LOOKUPS_MAX + 1;
    for (key, seqno, kind, value) in entries.iter().step_by(stride) {
        let found = cursor.seek(block, InternalKey::new(key, *seqno, *kind)).expect("parsed");
        assert!(found && cursor.entry(block).expect("found").1 == value, "an entry is found");
        let mut versions = 0;
        let mut count = |_: SeqNo, _: ValueKind, _: &[u8]| {
            versions += 1;
            true
        };
        block.get(&mut Lookup::new(key, SEQNO_MAX), &mut count).expect("parsed");
        let mut seqnos: Vec<_> =
            entries.iter().filter(|entry| entry.0 == *key).map(|entry| entry.1).collect();
        seqnos.dedup(); // of two at one number only the first is lent
        assert_eq!(versions, seqnos.len());
        let before = cursor.before(block, Some(key)).expect("parsed");
        let want = entries.iter().rev().find(|entry| entry.0 < *key);
        assert_eq!(before == Before::Nothing, want.is_none());
        if let Some(want) = want {
            let (found, _) = cursor.entry(block).expect("not nothing");
            assert_eq!(found.user_key, want.0);
        }
    }
    let mut keys: Vec<&[u8]> = entries.iter().map(|entry| &*entry.0).collect();
    keys.dedup();
    let mut found = cursor.before(block, None).expect("parsed");
    for key in keys.iter().rev().take(LOOKUPS_MAX) {
        assert!(found != Before::Nothing && cursor.last_user_key() == *key, "keys descend");
        found = match cursor.prev(block).expect("parsed") {
            Some(found) => found,
            None => cursor.before(block, Some(key)).expect("parsed"),
        };
    }
    assert!(found == Before::Nothing || keys.len() > LOOKUPS_MAX, "no key before the first");
}

/// F4.3.
pub(super) fn current(bytes: &[u8]) {
    for bytes in [bytes, &repair::current(bytes)] {
        match current::decode(bytes) {
            Ok(number) => assert_eq!(current::decode(&current::encode(number)).unwrap(), number),
            Err(e) => expected(&e),
        }
    }
}

/// F4.1 and F4.2, and the rules by which an edit fits a database.
pub(super) fn edit(bytes: &[u8]) {
    let edit = match VersionEdit::decode(Decoder::new(bytes)) {
        Ok(edit) => edit,
        Err(e) => return expected(&e),
    };
    let encoded = edit.encode();
    let again = VersionEdit::decode(Decoder::new(&encoded)).expect("our own encoding");
    assert_eq!(again, edit, "one edit, one encoding");
    let mut state = State::default();
    if state.apply(&edit).is_ok() && !state.header.incomplete {
        let mut copy = State::default();
        for edit in state.snapshot_edits() {
            copy.apply(&edit).expect("a snapshot of a state is accepted");
        }
        assert_eq!(copy, state, "a snapshot is the state");
        let _ = state.apply(&edit);
    }
}

/// F5.
pub(super) fn envelope(bytes: &[u8]) {
    for bytes in [bytes, &repair::envelope(bytes)] {
        match Envelope::decode(bytes) {
            Ok((envelope, _)) => {
                let (encoded, digest) = envelope.encode().expect("what was accepted");
                assert_eq!(Envelope::decode(&encoded).expect("our own"), (envelope, digest));
            }
            Err(e) => expected(&e),
        }
    }
}

/// F6.4 to F6.9. What is accepted comes back, and operator state is dealt out without loss.
pub(super) fn state(bytes: &[u8]) {
    let d = || Decoder::new(bytes);
    match StateRecord::decode(d()) {
        Ok(it) => assert_eq!(StateRecord::decode(Decoder::new(&it.encode())).unwrap(), it),
        Err(e) => expected(&e),
    }
    match BackendRecord::decode(d()) {
        Ok(it) => assert_eq!(BackendRecord::decode(Decoder::new(&it.encode())).unwrap(), it),
        Err(e) => expected(&e),
    }
    match SerializerSnapshot::decode(d()) {
        Ok(it) => {
            assert_eq!(SerializerSnapshot::decode(Decoder::new(&it.encode())).unwrap(), it);
            let _ = (it.parts::<1>("list"), it.parts::<2>("tuple2"));
        }
        Err(e) => expected(&e),
    }
    match OperatorSnapshot::decode_all(bytes) {
        Ok(instances) => {
            let encoded = OperatorSnapshot::encode_all(&instances);
            assert_eq!(OperatorSnapshot::decode_all(&encoded).expect("our own"), instances);
            deal(&instances);
        }
        Err(e) => expected(&e),
    }
}

fn deal(old: &[OperatorSnapshot]) {
    /// Instances that would take longer than the rest of the target.
    const INSTANCES_MAX: usize = 64;
    let elements = |instances: &[OperatorSnapshot]| {
        let states = instances.iter().flat_map(OperatorSnapshot::states);
        let split = states.filter(|(_, mode, _)| *mode == OperatorMode::Split);
        split.map(|(_, _, elements)| elements).sum::<usize>()
    };
    if old.len() > INSTANCES_MAX {
        return;
    }
    for parallelism in [1, 2, 3, old.len().max(1)] {
        match redistribute(old, parallelism) {
            Ok(new) => {
                assert_eq!(new.len(), parallelism);
                assert_eq!(elements(&new), elements(old), "each element goes to one instance");
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Incompatible, "{e}"),
        }
    }
}
