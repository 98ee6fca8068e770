//! Memtables against naive models, and beside threads that read.

use std::cmp::Reverse;

use super::*;
use crate::base::key::SEQNO_MAX;
use crate::cache::budget::MemoryBudget;
use crate::iter::InternalIterator;

mod deletes;
mod examples;
mod map;
mod operands;
mod readers;

const OPTIONS: MemTableOptions = MemTableOptions { bytes_max: 64 << 20, keys_hint: 0 };

fn new(budget: &MemoryBudget) -> (MemTableWriter, Arc<MemTable>, Arc<ReadPins>) {
    let pins: Arc<ReadPins> = Arc::default();
    let (writer, table) = MemTable::new(OPTIONS, &pins, budget.reserve(0));
    (writer, table, pins)
}

fn place_of(cursor: &MemTableIterator) -> Option<Place> {
    cursor.entry().map(|(key, _)| (key.user_key.to_vec(), Reverse(key.seqno)))
}

type Place = (Vec<u8>, Reverse<SeqNo>);

fn is_deleted(cursor: &MemTableIterator) -> bool {
    cursor.entry().is_some_and(|(key, _)| key.kind == ValueKind::Delete)
}

/// The keys from `start` to `end` that are alive, as a scan over nothing else finds them.
fn alive(cursor: &mut MemTableIterator, start: &[u8], end: &[u8], at: SeqNo) -> Vec<Place> {
    let mut seen = Vec::new();
    cursor.seek(InternalKey::seek(start, SEQNO_MAX)).unwrap();
    while let Some(place) = place_of(cursor).filter(|(key, _)| **key < *end) {
        let deleted = is_deleted(cursor);
        cursor.skip(&place.0).unwrap();
        if deleted {
            cursor.pass_deleted(Some(end), at).unwrap();
        } else {
            seen.push(place);
        }
    }
    seen
}
