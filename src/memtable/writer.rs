//! The writing half of a memtable.

use crate::base::canary::Canary;
use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::sync::{Arc, Ordering};
use crate::iter::range_del::RangeTombstone;
use crate::memtable::arena::{Arena, ArenaWriter};
use crate::memtable::entry::Entry;
use crate::memtable::index::IndexWriter;
use crate::memtable::offset::Offset;
use crate::memtable::read_pins::Overwrite;
use crate::memtable::value_copy::ValueCopy;
use crate::memtable::{Found, INDEX_BYTES_PER_KEY, MemTable, hash};

/// The one who writes to a memtable.
pub struct MemTableWriter {
    table: Arc<MemTable>,
    arena: ArenaWriter,
    index: IndexWriter,
    /// Bytes of arena and index that are charged.
    charged: usize,
    /// Has more been charged since somebody asked?
    grown: bool,
    range_bytes: usize,
    joins_operands: bool,
}

/// Where the newest version of a key was found, and when it had been written.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// In which table: its number.
    table: u64,
    /// How many entries that had.
    entries: usize,
    offset: Offset,
    seqno: SeqNo,
}

impl MemTableWriter {
    pub(super) fn new(
        table: Arc<MemTable>,
        arena: ArenaWriter,
        index: IndexWriter,
    ) -> MemTableWriter {
        let mut writer = MemTableWriter {
            table,
            arena,
            index,
            charged: 0,
            grown: false,
            range_bytes: 0,
            joins_operands: false,
        };
        writer.charge();
        writer
    }

    /// Adds a version of a key, or a range tombstone (kind `RangeDelete`: from the key to the value).
    /// A range tombstone over an empty range is nothing, and not added. One or two cache misses.
    ///
    /// A put or delete replaces the newest version where it is, if `overwrite` allows it and the value
    /// fits. `false` then: the table has neither more entries nor more bytes.
    ///
    /// # Panics
    /// If the key has a version with this sequence number or a greater one, or if the table would
    /// exceed what it can hold: see [`BYTES_MAX`](super::BYTES_MAX). If `overwrite` is not of the
    /// table's [`ReadPins`](super::ReadPins).
    #[inline(always)]
    pub fn insert(
        &mut self,
        key: InternalKey<'_>,
        value: &[u8],
        overwrite: Option<Overwrite<'_>>,
    ) -> bool {
        if key.kind == ValueKind::RangeDelete {
            self.insert_range(key, value);
            return true;
        }
        let table = &*self.table;
        let hash = hash(key.user_key);
        let found = table.index.find(hash, |offset| {
            let entry = table.arena.entry(offset);
            // The lines of a short value, which is likely overwritten, come along with the key's.
            entry.prefetch::<3>();
            entry.has_key(key.user_key).then_some((offset, entry))
        });
        if let Some((newest, entry)) = found
            && overwrite_in_place(&mut self.arena, table, newest, entry, key, value, overwrite)
        {
            return false;
        }
        self.push(key, value, hash, found.map(|(newest, _)| newest), overwrite);
        true
    }

    /// Asks for what an [`insert`](MemTableWriter::insert) of this key looks at first, and does not wait for it:
    /// a hash of the key, and a look at the directory.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        self.table.index.prefetch(hash(key));
    }

    /// Appends a version, behind the newest one if there is one, or in its place.
    #[inline(never)]
    fn push(
        &mut self,
        key: InternalKey<'_>,
        value: &[u8],
        hash: u32,
        newest: Option<Offset>,
        overwrite: Option<Overwrite<'_>>,
    ) {
        let table = &*self.table;
        match newest {
            Some(newest) => {
                let entry = table.arena.entry(newest);
                let first = first_version(entry, newest);
                let deleted = entry.is_delete();
                if deleted && table.arena.entry(first).has_left() {
                    let offset = self.arena.push(key, value, None, None);
                    table.index.point(hash, newest, offset);
                } else {
                    let arena = &mut self.arena;
                    let joined = overwrite.and_then(|overwrite| {
                        arena.push_joined(key, value, entry, first, overwrite)
                    });
                    let mut offset =
                        joined.unwrap_or_else(|| arena.push(key, value, Some(newest), Some(first)));
                    let first = table.arena.entry(first);
                    if !deleted {
                        first.set_newest(offset);
                    } else if !first.set_newest_after_delete(offset) {
                        // A cursor was faster. What was pushed is never found.
                        offset = self.arena.push(key, value, None, None);
                    }
                    table.index.point(hash, newest, offset);
                }
            }
            None => {
                let offset = self.arena.push(key, value, None, None);
                self.index.insert(&table.index, hash, offset);
                table.counts.keys.store(self.index.keys(), Ordering::Relaxed);
            }
        }
        if key.kind == ValueKind::Delete {
            count_delete(table);
        }
        self.count(key.seqno);
        self.charge();
    }

    /// The newest version of `key`, and the place it is at, or `Some(None)` if the table knows nothing of
    /// the key. `None`: look elsewhere, since a range tombstone, a merge operand or a long value, which
    /// is not looked at, has a say in what the key has. A short value is copied.
    #[inline(always)]
    pub fn peek<'c>(
        &self,
        key: &[u8],
        copy: &'c mut ValueCopy,
    ) -> Option<Option<(Place, Found<'c>)>> {
        let table = &*self.table;
        if table.has_range_tombstones() {
            return None;
        }
        let newest = table.index.find(hash(key), |offset| {
            let entry = table.arena.entry(offset);
            entry.prefetch::<3>();
            entry.has_key(key).then_some((offset, entry))
        });
        let Some((offset, entry)) = newest else { return Some(None) };
        let found = entry.peek_short(copy)?;
        let entries = table.counts.entries.load(Ordering::Relaxed);
        let place = Place { table: table.number, entries, offset, seqno: found.seqno };
        Some(Some((place, found)))
    }

    /// Replaces what was found at `place`, if that is still what the key has in this table: `None` if
    /// not. `Some(false)`: it is, but it cannot be overwritten. In both cases nothing was done.
    #[inline(always)]
    pub fn overwrite_at(
        &mut self,
        place: &Place,
        key: InternalKey<'_>,
        value: &[u8],
        overwrite: Overwrite<'_>,
    ) -> Option<bool> {
        let entry = entry_at(&self.table, place, key.user_key)?;
        let (arena, table) = (&mut self.arena, &*self.table);
        Some(overwrite_in_place(arena, table, place.offset, entry, key, value, Some(overwrite)))
    }

    /// Is what was found at `place` still what `key` has in this table?
    #[inline]
    pub fn stands(&self, place: &Place, key: &[u8]) -> bool {
        entry_at(&self.table, place, key).is_some()
    }

    #[cold]
    fn insert_range(&mut self, key: InternalKey<'_>, end: &[u8]) {
        if end <= key.user_key {
            return;
        }
        let tombstone =
            RangeTombstone { start: key.user_key.to_vec(), end: end.to_vec(), seqno: key.seqno };
        let mut ranges = self.table.ranges.lock();
        let before = ranges.list.capacity();
        ranges.list.push(tombstone);
        let more = (ranges.list.capacity() - before) * size_of::<RangeTombstone>();
        self.range_bytes += more + key.user_key.len() + end.len();
        self.table.counts.ranges.store(ranges.list.len(), Ordering::Release);
        drop(ranges);
        if !Canary::OperandsJoinOverRange.is_planted() {
            self.join_operands(self.joins_operands);
        }
        self.count(key.seqno);
        self.charge();
    }

    /// Sequence numbers first: who sees the entry counted sees them.
    #[inline]
    fn count(&mut self, seqno: SeqNo) {
        self.note(seqno);
        let counts = &self.table.counts;
        let entries = counts.entries.load(Ordering::Relaxed);
        counts.entries.store(entries + 1, Ordering::Release);
    }

    #[inline]
    fn note(&mut self, seqno: SeqNo) {
        let counts = &self.table.counts;
        if seqno > counts.seqno_max.load(Ordering::Relaxed) {
            counts.seqno_max.store(seqno, Ordering::Release);
        }
        if seqno < counts.seqno_min.load(Ordering::Relaxed) {
            counts.seqno_min.store(seqno, Ordering::Release);
        }
    }

    #[inline]
    fn charge(&mut self) {
        let fixed = size_of::<MemTable>() + size_of::<Arena>();
        let now = fixed + self.arena.allocated() + self.index.bytes() + self.range_bytes;
        if now != self.charged {
            let before = std::mem::replace(&mut self.charged, now);
            self.table.recharge(before, now);
            self.grown = true;
        }
    }

    /// Has the table taken memory since this was last asked?
    #[inline]
    pub fn has_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    /// As [`MemTable::newest`].
    #[cfg(test)]
    #[inline]
    pub fn newest(&self, key: &[u8]) -> Option<SeqNo> {
        self.table.newest(key)
    }

    /// From now on merge operands of a key are joined where nobody needs them apart: because their
    /// operator [`concatenates`](crate::iter::resolve::MergeOperator::concatenates), or not.
    ///
    /// A range tombstone is no version of any key, and yet lies between versions of many: operands on
    /// both sides of one stay apart.
    pub fn join_operands(&mut self, join: bool) {
        self.joins_operands = join;
        let newest_range = self.table.ranges.lock().list.last().map_or(0, |range| range.seqno);
        self.arena.join_from = if join { newest_range } else { SeqNo::MAX };
    }

    /// The readers' half.
    pub fn table(&self) -> &Arc<MemTable> {
        &self.table
    }

    /// Have `bytes_max` bytes been used? Counts entries and their share of the index, not what was
    /// allocated ahead: an empty table is never full.
    #[inline]
    pub fn is_full(&self) -> bool {
        let used = self.arena.used() + self.index.keys() * INDEX_BYTES_PER_KEY + self.range_bytes;
        used >= self.table.bytes_max.max(1)
    }

    /// Ends writing. Pointer work: the order of the keys is made by the first cursor, once for all.
    pub fn freeze(self) -> Arc<MemTable> {
        self.table.space.lock().freeze();
        self.table.frozen.store(true, Ordering::Release);
        self.table
    }
}

/// The entry at `place`, if it is still what `key` has in `table`.
#[inline(always)]
fn entry_at<'t>(table: &'t MemTable, place: &Place, key: &[u8]) -> Option<Entry<'t>> {
    let entries = table.counts.entries.load(Ordering::Relaxed);
    if place.table != table.number || place.entries != entries {
        return None;
    }
    // No entry, and no range tombstone, has come since: at most was this one overwritten.
    let entry = table.arena.entry(place.offset);
    (entry.seqno() == place.seqno && entry.has_key(key)).then_some(entry)
}

/// Makes the newest version of a key the new one, if it may.
#[inline(always)]
fn overwrite_in_place(
    arena: &mut ArenaWriter,
    table: &MemTable,
    place: Offset,
    newest: Entry<'_>,
    key: InternalKey<'_>,
    value: &[u8],
    overwrite: Option<Overwrite<'_>>,
) -> bool {
    assert!(newest.seqno() < key.seqno, "versions of a key come in order");
    let Some(overwrite) = overwrite else { return false };
    overwrite.check(&table.pins);
    if newest.is_delete() && table.arena.entry(first_version(newest, place)).has_left() {
        return false;
    }
    let done = arena.overwrite(newest, key.trailer(), value, overwrite);
    if done && key.seqno > table.counts.seqno_max.load(Ordering::Relaxed) {
        table.counts.seqno_max.store(key.seqno, Ordering::Release);
    }
    if done && key.kind == ValueKind::Delete {
        count_delete(table);
    }
    done
}

#[inline]
fn count_delete(table: &MemTable) {
    let deletes = table.counts.deletes.load(Ordering::Relaxed);
    table.counts.deletes.store(deletes + 1, Ordering::Relaxed);
}

#[inline]
fn first_version(entry: Entry<'_>, offset: Offset) -> Offset {
    match entry.is_first() {
        true => offset,
        false => entry.link().expect("an overwrite knows the first version"),
    }
}
