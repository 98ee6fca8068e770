//! The newest writes, in memory.
//!
//! The question this folder answers: *what was written to a key since the last flush, and in which
//! order do the keys come?*
//!
//! Entries are appended to an [arena](arena). A hash [index](index) leads from a key to its newest
//! version, which leads to the older ones: a `get` costs two cache misses, whatever the size.
//! [Order](order) is made when somebody asks for it. One [`MemTableWriter`] writes; readers of points
//! take no lock, and cursors take one only while they are opened.
//!
//! A short value that nobody can see any more is overwritten where it is, so that keys which are
//! written again and again take no more memory. Who needs what is visible to stay has a [`ReadPin`].
//!
//! What a reader finds is complete up to every sequence number that was published (by a Release store
//! after its insertion, and an Acquire load before the call) and may hold newer versions, which the
//! reader leaves aside by its own sequence number.

mod arena;
mod cursor;
mod entry;
mod header;
mod index;
mod offset;
mod order;
mod read_pins;
#[cfg(test)]
mod tests;
mod value_copy;
mod writer;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo, ValueKind};
use crate::base::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::cache::budget::Reservation;
use crate::iter::range_del::{RangeTombstone, RangeTombstones};
use crate::iter::resolve::{Resolver, Step};
use crate::memtable::arena::Arena;
use crate::memtable::cursor::At;
use crate::memtable::entry::Entry;
use crate::memtable::index::Index;
use crate::memtable::offset::Offset;
use crate::memtable::order::{Forget, Order};
use crate::memtable::read_pins::Hold;

pub use crate::memtable::cursor::MemTableIterator;
pub use crate::memtable::read_pins::{Overwrite, ReadPin, ReadPins};
pub use crate::memtable::value_copy::ValueCopy;
pub use crate::memtable::writer::{MemTableWriter, Place};

/// How a memtable is made.
#[derive(Clone, Copy, Debug)]
pub struct MemTableOptions {
    /// Bytes used from which the table counts as full. It may grow beyond by any one batch. At most
    /// [`BYTES_MAX`].
    pub bytes_max: usize,
    /// Distinct keys to expect, such as [`MemTable::keys`] of the table before: spares the index its
    /// growth. 0 if unknown. Costs 4 bytes for 288 keys until they come.
    pub keys_hint: usize,
}

/// Largest [`MemTableOptions::bytes_max`]: what a table can hold in any case, less the largest batch.
pub const BYTES_MAX: usize = 1 << 30;

/// What the index takes for a key, about.
const INDEX_BYTES_PER_KEY: usize = 16;

/// What was written to one column family since the last flush: the readers' half.
pub struct MemTable {
    /// No other table has it.
    number: u64,
    arena: Arc<Arena>,
    index: Index,
    /// The pins that its writer respects.
    pins: Arc<ReadPins>,
    bytes_max: usize,
    counts: Counts,
    frozen: AtomicBool,
    order: Mutex<Order>,
    ranges: Mutex<Ranges>,
    space: Mutex<Reservation>,
}

/// Written at every insertion: on a cache line of their own.
#[repr(align(64))]
struct Counts {
    entries: AtomicUsize,
    keys: AtomicUsize,
    ranges: AtomicUsize,
    bytes: AtomicUsize,
    /// `SeqNo::MAX` as long as there is none.
    seqno_min: AtomicU64,
    seqno_max: AtomicU64,
    /// Deletes of point keys.
    deletes: AtomicUsize,
    /// Keys that cursors have taken out of the order.
    left: AtomicUsize,
}

#[derive(Default)]
struct Ranges {
    list: Vec<RangeTombstone>,
    /// The first `viewed` of the list, in fragments.
    view: Option<Arc<RangeTombstones>>,
    viewed: usize,
}

/// A version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// When it was written.
    pub seqno: SeqNo,
    /// What it does; never `RangeDelete`.
    pub kind: ValueKind,
    /// Value or operand; empty for a `Delete`.
    pub value: &'a [u8],
}

impl<'a> Found<'a> {
    #[inline]
    fn new(trailer: u64, value: &'a [u8]) -> Found<'a> {
        let (seqno, kind) = InternalKey::unpack(trailer).expect("pushed with a kind");
        Found { seqno, kind, value }
    }

    /// The value that a put gives its key.
    #[inline]
    pub fn put(&self) -> Option<&'a [u8]> {
        (self.kind == ValueKind::Put).then_some(self.value)
    }
}

/// What a look at a key without a pin finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek<'a> {
    /// No version at all: whatever the key has is older than this table.
    Absent,
    /// The newest version, which is the one to see.
    Newest(Found<'a>),
    /// A newer one than asked for, one that is being overwritten, or a merge operand: look again with a
    /// pin.
    Unclear,
}

/// What a [glance](MemTable::glance) at the keys with a prefix finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// There is no key.
    Nothing,
    /// The newest visible version of one is a put.
    Put,
    /// There are keys, perhaps with values.
    Unclear,
}

#[inline(always)]
fn hash(key: &[u8]) -> u32 {
    xxh3_64(key) as u32
}

impl MemTable {
    /// An empty memtable and its writer, which overwrites nothing that one of `pins` sees. All memory
    /// it takes is charged to `space`.
    pub fn new(
        options: MemTableOptions,
        pins: &Arc<ReadPins>,
        space: Reservation,
    ) -> (MemTableWriter, Arc<MemTable>) {
        assert!(options.bytes_max <= BYTES_MAX, "bytes_max exceeds what a memtable can hold");
        static NUMBERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let (arena_writer, arena) = Arena::new();
        let (index_writer, index) = Index::new(options.keys_hint);
        let charged = space.bytes();
        let table = Arc::new(MemTable {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            arena,
            index,
            pins: Arc::clone(pins),
            bytes_max: options.bytes_max,
            counts: Counts {
                entries: AtomicUsize::new(0),
                keys: AtomicUsize::new(0),
                ranges: AtomicUsize::new(0),
                bytes: AtomicUsize::new(charged),
                seqno_min: AtomicU64::new(SeqNo::MAX),
                seqno_max: AtomicU64::new(0),
                deletes: AtomicUsize::new(0),
                left: AtomicUsize::new(0),
            },
            frozen: AtomicBool::new(false),
            order: Mutex::default(),
            ranges: Mutex::default(),
            space: Mutex::new(space),
        });
        (MemTableWriter::new(Arc::clone(&table), arena_writer, index_writer), table)
    }

    /// No other table has it.
    #[inline]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The newest version of `key`, if it is at or below `at`. Takes no lock and needs no pin: a short
    /// value is copied. Two cache misses.
    #[inline]
    pub fn peek<'c>(&'c self, key: &[u8], at: SeqNo, copy: &'c mut ValueCopy) -> Peek<'c> {
        match self.find(key) {
            None => Peek::Absent,
            Some(entry) => match entry.peek(at, copy) {
                Some(found) => Peek::Newest(found),
                None => Peek::Unclear,
            },
        }
    }

    /// The versions of `key` that are visible at `pin`, newest first. Two cache misses, and one for
    /// each version, newer ones too.
    ///
    /// # Panics
    /// If the pin is not of this table's [`ReadPins`].
    #[inline]
    pub fn versions<'a>(&'a self, key: &[u8], pin: &'a ReadPin) -> Versions<'a> {
        self.held_versions(key, pin.hold(&self.pins))
    }

    /// The versions of `key` at or below `at`, newest first, in a frozen table: needs no pin.
    ///
    /// # Panics
    /// If the table is not frozen.
    #[inline]
    pub fn frozen_versions(&self, key: &[u8], at: SeqNo) -> Versions<'_> {
        self.held_versions(key, self.frozen(at))
    }

    #[inline]
    fn held_versions<'a>(&'a self, key: &[u8], hold: Hold<'a>) -> Versions<'a> {
        Versions { arena: &self.arena, next: self.find(key), hold }
    }

    /// No writer is left.
    #[inline]
    fn frozen(&self, at: SeqNo) -> Hold<'_> {
        assert!(self.frozen.load(Ordering::Acquire), "without a pin only frozen tables are read");
        Hold::frozen(at)
    }

    /// Sequence number of the newest version of `key`, [`SEQNO_MAX`] while it is being overwritten.
    /// Range tombstones are not considered.
    #[inline]
    pub fn newest(&self, key: &[u8]) -> Option<SeqNo> {
        self.find(key).map(|entry| entry.seqno())
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.index.find(hash(key), |offset| {
            let entry = self.arena.entry(offset);
            entry.has_key(key).then_some(entry)
        })
    }

    /// Fetches what looking for these keys needs, all at once: two misses for all of them. They should
    /// be at most some dozens.
    pub fn look_ahead(&self, keys: &[&[u8]]) {
        keys.iter().for_each(|key| self.index.prefetch(hash(key)));
        for key in keys {
            self.index.find(hash(key), |offset| {
                self.arena.entry(offset).prefetch::<2>();
                None::<()>
            });
        }
    }

    /// A cursor over the versions of all point keys that are visible at `pin`, standing nowhere. Puts
    /// into order what was written since the last one was opened: 30–100 ns for each new key. Waits
    /// for others who do.
    ///
    /// `alone`: there is nothing older than this table, and never will be. Then keys that every pin sees
    /// deleted are forgotten: cursors need not show their versions.
    ///
    /// # Panics
    /// If the pin is not of this table's [`ReadPins`].
    pub fn cursor(self: &Arc<Self>, pin: ReadPin, alone: bool) -> MemTableIterator {
        pin.hold(&self.pins);
        let forget = self.forgettable(&pin, alone);
        self.cursor_of(Some(pin), forget)
    }

    /// A cursor over all versions of all point keys of a frozen table: needs no pin.
    ///
    /// # Panics
    /// If the table is not frozen.
    pub fn frozen_cursor(self: &Arc<Self>) -> MemTableIterator {
        self.frozen(SEQNO_MAX);
        self.cursor_of(None, None)
    }

    /// Keys that cut a frozen table into `parts` ranges of about as many keys, ascending; fewer if there
    /// are few keys. Puts the keys into order.
    ///
    /// # Panics
    /// If the table is not frozen.
    pub fn cuts(self: &Arc<Self>, parts: usize) -> Vec<Vec<u8>> {
        if parts < 2 { Vec::new() } else { self.frozen_cursor().cuts(parts) }
    }

    fn cursor_of(
        self: &Arc<Self>,
        pin: Option<ReadPin>,
        forget: Option<Forget>,
    ) -> MemTableIterator {
        self.with_order(forget, |order| MemTableIterator::new(Arc::clone(self), pin, order))
    }

    /// Which deleted keys may be forgotten as long as this pin is there.
    #[inline]
    fn forgettable(&self, pin: &ReadPin, alone: bool) -> Option<Forget> {
        let deletes = self.counts.deletes.load(Ordering::Relaxed);
        if !alone || deletes == 0 {
            return None;
        }
        let deletes = deletes.saturating_sub(self.counts.left.load(Ordering::Relaxed));
        // What all pins see, later ones will see too.
        Some(Forget { upto: pin.oldest(), deletes })
    }

    /// Shows the order of all that was written so far.
    #[inline]
    fn with_order<R>(&self, forget: Option<Forget>, f: impl FnOnce(&Order) -> R) -> R {
        let mut order = self.order.lock();
        let before = order.bytes();
        order.catch_up(&self.arena, self.frozen.load(Ordering::Acquire), forget);
        let shown = f(&order);
        let after = order.bytes();
        self.recharge(before, after);
        shown
    }

    /// What is there of keys that begin with `prefix`, visible at `pin`? Only the first such key of each
    /// run is looked at. Puts into order, and forgets, as [`cursor`](MemTable::cursor) does.
    ///
    /// # Panics
    /// If the pin is not of this table's [`ReadPins`].
    pub fn glance(&self, prefix: &[u8], pin: &ReadPin, alone: bool) -> Glance {
        let hold = pin.hold(&self.pins);
        let mut glance = Glance::Nothing;
        self.with_order(self.forgettable(pin, alone), |order| {
            for run in order.runs() {
                let at = run.lower_bound(&self.arena, prefix);
                let Some(head) = run.heads().get(run.over_gaps(at)) else { continue };
                if !self.arena.entry(head.offset).key().starts_with(prefix) {
                    continue;
                }
                glance = Glance::Unclear;
                let newest = self.newest_at(head.offset, hold.at());
                let found = newest.and_then(|newest| self.arena.entry(newest.offset).version(hold));
                if found.is_some_and(|found| found.kind == ValueKind::Put) {
                    return Glance::Put;
                }
            }
            glance
        })
    }

    /// The newest version at or below `at` of the key whose first version is `first`, if the key has
    /// not left the order.
    #[inline(always)]
    fn newest_at(&self, first: Offset, at: SeqNo) -> Option<At> {
        let mut entry = self.arena.entry(first);
        let mut offset = entry.newest(first)?;
        if offset != first {
            entry = self.arena.entry(offset);
        }
        loop {
            let trailer = entry.trailer();
            if trailer >> 8 <= at {
                return Some(At { offset, trailer });
            }
            offset = entry.older()?;
            entry = self.arena.entry(offset);
        }
    }

    /// Is there a range tombstone? One load.
    #[inline]
    pub fn has_range_tombstones(&self) -> bool {
        self.counts.ranges.load(Ordering::Acquire) > 0
    }

    /// All range tombstones so far, of all sequence numbers. Cut into fragments by the first who asks
    /// after a new one came: O(n log n) then, else a lock and a pointer.
    pub fn range_tombstones(&self) -> Arc<RangeTombstones> {
        if !self.has_range_tombstones() {
            return RangeTombstones::empty();
        }
        let mut ranges = self.ranges.lock();
        let Ranges { list, view, viewed } = &mut *ranges;
        match view {
            Some(view) if *viewed == list.len() => Arc::clone(view),
            _ => {
                let new = Arc::new(RangeTombstones::new(list.clone()));
                let before = view.as_ref().map_or(0, |view| view.memory_bytes());
                self.recharge(before, new.memory_bytes());
                *viewed = list.len();
                *view = Some(Arc::clone(&new));
                new
            }
        }
    }

    /// Holds neither a version nor a range tombstone.
    pub fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// Entries that were appended for point keys, those whose place another has taken too, and range
    /// tombstones.
    pub fn entries(&self) -> usize {
        self.counts.entries.load(Ordering::Acquire)
    }

    /// Distinct point keys.
    pub fn keys(&self) -> usize {
        self.counts.keys.load(Ordering::Relaxed)
    }

    /// Bytes charged to the budget.
    pub fn bytes(&self) -> usize {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// The least sequence number written to the table, if it is not empty.
    pub fn seqno_min(&self) -> Option<SeqNo> {
        (!self.is_empty()).then(|| self.counts.seqno_min.load(Ordering::Acquire))
    }

    /// The greatest sequence number in the table, if it is not empty.
    pub fn seqno_max(&self) -> Option<SeqNo> {
        (!self.is_empty()).then(|| self.counts.seqno_max.load(Ordering::Acquire))
    }

    /// It has been flushed and stays as a cache: its bytes are no longer those of a memtable.
    ///
    /// # Panics
    /// If it is not frozen.
    pub fn retire(&self) {
        self.space.lock().retire();
    }

    fn recharge(&self, before: usize, after: usize) {
        if before == after {
            return;
        }
        let mut space = self.space.lock();
        match after.checked_sub(before) {
            Some(more) => space.grow(more),
            None => space.shrink(before - after),
        }
        self.counts.bytes.store(space.bytes(), Ordering::Relaxed);
    }
}

/// The versions of one key, newest first.
pub struct Versions<'a> {
    arena: &'a Arena,
    next: Option<Entry<'a>>,
    hold: Hold<'a>,
}

impl Versions<'_> {
    /// Feeds them to the resolver until it knows the answer; a plain value is lent to `found`.
    /// [`Step::More`] if they are not enough.
    #[inline]
    pub fn resolve(self, resolver: &mut Resolver, found: &mut dyn FnMut(&[u8])) -> Step {
        for version in self {
            match resolver.push(version.seqno, version.kind, version.value) {
                Step::More => {}
                Step::Value => {
                    found(version.value);
                    return Step::Value;
                }
                step => return step,
            }
        }
        Step::More
    }
}

impl<'a> Iterator for Versions<'a> {
    type Item = Found<'a>;

    #[inline]
    fn next(&mut self) -> Option<Found<'a>> {
        while let Some(entry) = self.next {
            self.next = entry.older().map(|offset| self.arena.entry(offset));
            // What is older than an operand is looked at next.
            if let Some(older) = self.next.filter(|_| entry.kind() == Some(ValueKind::Merge)) {
                older.prefetch::<4>();
            }
            let version = entry.version(self.hold);
            if version.is_some() {
                return version;
            }
        }
        None
    }
}
