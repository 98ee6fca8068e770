//! Memtables that stay in memory after their flush, each as the cache of the files that it became.
//!
//! A checkpoint empties the memtable; what is hot must not leave memory with it. A point read that comes
//! to such a file asks the memtable instead: it holds every version that the file holds, so the answer
//! is the same. (What a flush drops, nobody can see: `compaction::iter`.) The file owns the memtable:
//! when a compaction has replaced the file and its last reader is gone, so is the memtable. Until then
//! it may go at any time, and is the first of all caches to go: blocks and rows hold what was read.

use std::collections::VecDeque;

use crate::base::sync::{Arc, AtomicUsize, Mutex, Ordering, Weak};
use crate::cache::budget::{MemoryBudget, Reclaim};
use crate::memtable::MemTable;
use crate::version::file::TableFile;
use crate::version::levels::Described;

/// The kept memtables of a database, oldest first.
pub struct KeptMemTables {
    budget: MemoryBudget,
    list: Mutex<VecDeque<Kept>>,
    bytes: AtomicUsize,
}

struct Kept {
    files: Vec<Weak<TableFile>>,
    bytes: usize,
}

impl KeptMemTables {
    /// None yet. They will give way to whatever else needs memory of the budget.
    pub fn new(budget: &MemoryBudget) -> Arc<KeptMemTables> {
        let kept = Arc::new(KeptMemTables {
            budget: budget.clone(),
            list: Mutex::default(),
            bytes: AtomicUsize::new(0),
        });
        let cache: Weak<dyn Reclaim> = Arc::downgrade(&kept) as Weak<dyn Reclaim>;
        budget.add_cache(cache);
        kept
    }

    /// Bytes of all that are kept. Those of one whose files were compacted away count until the next is
    /// kept.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keeps `memtable`, all of whose entries are in `files` and nothing else is: if half of the budget
    /// is free all the same, and if it has no range tombstones, which readers take from tables. Its
    /// bytes are no longer those of a memtable. O(kept).
    ///
    /// # Panics
    /// If a file holds what is not in it, as far as sequence numbers tell, or shows less than it holds.
    pub fn keep(&self, memtable: &Arc<MemTable>, files: &[&Arc<TableFile>]) {
        let no_room = self.budget.used() > self.budget.limit() / 2;
        if files.is_empty() || no_room || memtable.has_range_tombstones() {
            return;
        }
        let (oldest, newest) = (memtable.seqno_min(), memtable.seqno_max());
        for meta in files.iter().map(|file| file.meta()) {
            let inside = oldest <= Some(meta.seqno_min) && Some(meta.seqno_max) <= newest;
            assert!(inside && !meta.clipped, "a memtable is kept for what was flushed of it");
        }
        memtable.retire();
        files.iter().for_each(|file| file.keep(Arc::clone(memtable)));
        let bytes = memtable.bytes();
        let mut list = self.list.lock();
        list.retain(|kept| {
            let alive = kept.files.iter().any(|file| file.strong_count() > 0);
            if !alive {
                self.bytes.fetch_sub(kept.bytes, Ordering::Relaxed);
            }
            alive
        });
        list.push_back(Kept {
            files: files.iter().map(|file| Arc::downgrade(file)).collect(),
            bytes,
        });
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Reclaim for KeptMemTables {
    fn reclaimable(&self) -> usize {
        self.bytes()
    }

    fn goes_first(&self) -> bool {
        true
    }

    fn reclaim_one(&self) -> bool {
        let Some(oldest) = self.list.lock().pop_front() else { return false };
        self.bytes.fetch_sub(oldest.bytes, Ordering::Relaxed);
        // The last of them drops it, here or where it is being read.
        oldest.files.iter().filter_map(Weak::upgrade).for_each(|file| file.let_go());
        true
    }
}

#[cfg(test)]
mod tests;
