//! Everything a reader of one family needs, in one immutable bundle.

use crate::base::canary::Canary;
use crate::base::key::SeqNo;
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Ordering, RwLock};
use crate::memtable::MemTable;
use crate::version::version::Version;

/// A frozen memtable on its way to a table.
#[derive(Clone)]
pub(in crate::db) struct Immutable {
    /// The memtable.
    pub table: Arc<MemTable>,
    /// It was rotated when this was the last sequence number given out: everything of the family at
    /// or below is in it or in something older.
    pub upto: SeqNo,
}

/// The memtable, the frozen ones (newest first) and the tables of one family. Never changed: a
/// rotation or an installed edit makes a new one.
pub(in crate::db) struct SuperVersion {
    pub mem: Arc<MemTable>,
    pub immutables: Vec<Immutable>,
    pub version: Arc<Version>,
}

impl SuperVersion {
    /// Is there nothing older than the memtable? Then it stays so: what comes later is newer.
    #[inline]
    pub fn is_memory_alone(&self) -> bool {
        self.has_nothing_older() || Canary::DeletesHideNothing.is_planted()
    }

    /// The same, for those who look for an older version of a key.
    #[inline]
    pub fn has_nothing_older(&self) -> bool {
        self.immutables.is_empty() && self.version.is_empty()
    }

    /// The smallest sequence number that is in no table yet, if there is one, once everything up to
    /// `flushed` is.
    pub fn unflushed_min(&self, flushed: SeqNo) -> Option<SeqNo> {
        let waiting = self.immutables.iter().rev().filter(|immutable| immutable.upto > flushed);
        let oldest = waiting.map(|immutable| &immutable.table);
        oldest.chain([&self.mem]).find_map(|mem| mem.seqno_min())
    }
}

/// The place where a family's current [`SuperVersion`] stands.
pub(in crate::db) struct Cell {
    current: RwLock<Arc<SuperVersion>>,
    generation: AtomicU64,
    /// Has the current one [nothing older](SuperVersion::has_nothing_older) than its memtable?
    memory_alone: AtomicBool,
}

impl Cell {
    pub fn new(first: SuperVersion) -> Cell {
        let memory_alone = AtomicBool::new(first.has_nothing_older());
        let current = RwLock::new(Arc::new(first));
        Cell { current, generation: AtomicU64::new(1), memory_alone }
    }

    /// The current bundle: a read lock and a reference count.
    #[inline]
    pub fn load(&self) -> Arc<SuperVersion> {
        Arc::clone(&self.current.read())
    }

    /// Counts the swaps, so that a holder of an old bundle can tell that it is old for the price of
    /// one load.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Is there nothing older than the memtable? For those who keep it from being rotated, by holding
    /// the commit lock: then it stays so. One load.
    #[inline]
    pub fn is_memory_alone(&self) -> bool {
        self.memory_alone.load(Ordering::Acquire)
    }

    /// Replaces the bundle by what `change` makes of it. Pointer work only.
    pub fn update(&self, change: impl FnOnce(&SuperVersion) -> SuperVersion) {
        let mut current = self.current.write();
        let new = Arc::new(change(&current));
        self.memory_alone.store(new.has_nothing_older(), Ordering::Release);
        let old = std::mem::replace(&mut *current, new);
        self.generation.fetch_add(1, Ordering::Release);
        drop(current);
        // The last reference may close files: not under the lock.
        drop(old);
    }
}
