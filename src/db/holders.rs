//! Memtables that are flushed and still in memory, and who holds them there.
//!
//! A scan, and a reader between two reads, hold the memtables that they began with. No flush frees
//! those: a writer that would wait for memory must be told so instead.

use std::collections::BTreeMap;
use std::ops::Deref;

use crate::base::id::FamilyId;
use crate::base::sync::{Arc, AtomicUsize, Mutex, Ordering, Weak};
use crate::db::column_family::Family;
use crate::memtable::MemTable;

/// What holds memtables for longer than a call.
#[derive(Clone, Copy, Debug)]
pub(in crate::db) enum Holder {
    /// A [`Reader`](crate::db::Reader) that was not released since its last read.
    Reader,
    /// A [`Scan`](crate::db::scan::Scan).
    Scan,
}

/// How many hold something of a family, by [`Holder`]: for messages.
#[derive(Default)]
pub(in crate::db) struct HolderCounts([AtomicUsize; 2]);

impl HolderCounts {
    fn get(&self) -> [usize; 2] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// A family of which something is held until this is dropped.
pub(in crate::db) struct Held {
    family: Arc<Family>,
    holder: Holder,
}

impl Held {
    /// Counts a holder of the memtables that the family has now.
    #[inline]
    pub fn new(family: Arc<Family>, holder: Holder) -> Held {
        family.holders.0[holder as usize].fetch_add(1, Ordering::Relaxed);
        Held { family, holder }
    }
}

impl Deref for Held {
    type Target = Arc<Family>;
    #[inline]
    fn deref(&self) -> &Arc<Family> {
        &self.family
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        self.family.holders.0[self.holder as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Memtables of a database that tables have replaced, with their families. A leaf lock.
#[derive(Default)]
pub(in crate::db) struct Holders(Mutex<Vec<(Weak<Family>, Weak<MemTable>)>>);

impl Holders {
    /// A table has replaced this memtable: it is in memory only for those who hold it.
    pub fn flushed(&self, family: &Arc<Family>, table: &Arc<MemTable>) {
        let mut flushed = self.0.lock();
        flushed.retain(|(_, table)| table.strong_count() > 0);
        flushed.push((Arc::downgrade(family), Arc::downgrade(table)));
    }

    /// Says who holds flushed memtables, if letting go of them would free at least `wanted` bytes.
    /// What a read under way holds will be free without anybody's doing, and does not count.
    pub fn blame(&self, wanted: usize) -> Option<String> {
        let mut held: BTreeMap<FamilyId, (Arc<Family>, usize)> = BTreeMap::new();
        for (family, table) in &*self.0.lock() {
            // Who holds something of a family holds the family.
            if let (Some(family), Some(table)) = (family.upgrade(), table.upgrade())
                && family.holders.get() != [0, 0]
            {
                held.entry(family.id).or_insert_with(|| (family, 0)).1 += table.bytes();
            }
        }
        if held.values().map(|(_, bytes)| bytes).sum::<usize>() < wanted.max(1) {
            return None;
        }
        let say = |(family, bytes): &(Arc<Family>, usize)| {
            let [readers, scans] = family.holders.get();
            format!(
                "{bytes} bytes of flushed memtables of family {:?}, held by {scans} open scans \
                 and {readers} resting readers",
                family.name
            )
        };
        Some(held.values().map(say).collect::<Vec<_>>().join("; "))
    }
}
