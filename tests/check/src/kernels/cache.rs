//! The block cache and the budget, between two threads that want more than there is room for.

use crate::base::sync::{Arc, spawn};
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::kernels::Kernel;

pub const KERNELS: &[Kernel] = &[
    Kernel { name: "cache: one block is entered once", run: enter, preemptions: 2, needs: &[] },
    Kernel { name: "cache: no byte is counted twice", run: evict, preemptions: 2, needs: &[] },
];

/// Both read the same block: they get the same value, and it is charged once.
fn enter() {
    let budget = MemoryBudget::new(1 << 10);
    let cache: Arc<BlockCache<Arc<u64>>> = BlockCache::new(&budget, 100);
    let other = Arc::clone(&cache);
    let thread = spawn(move || other.insert(1, 0, Arc::new(1), 40));
    let mine = cache.insert(1, 0, Arc::new(2), 40);
    let theirs = thread.join().unwrap();
    assert!(Arc::ptr_eq(&mine, &theirs));
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.entries, budget.used()), (40, 1, 40));
}

/// Room for one of two blocks, while memory is reserved elsewhere and let go.
fn evict() {
    let budget = MemoryBudget::new(60);
    let cache: Arc<BlockCache<Arc<u64>>> = BlockCache::new(&budget, 50);
    let (other, memory) = (Arc::clone(&cache), budget.clone());
    let thread = spawn(move || {
        other.insert(1, 0, Arc::new(1), 40);
        drop(memory.reserve(30));
    });
    cache.insert(2, 0, Arc::new(2), 30);
    thread.join().unwrap();
    let stats = cache.stats();
    assert!(stats.bytes <= 50 && stats.bytes == budget.used(), "{stats:?}");
    cache.remove_owner(1);
    cache.remove_owner(2);
    assert_eq!((cache.stats().bytes, budget.used()), (0, 0));
    // What was claimed for entries is free again: there is room for the largest.
    cache.insert(3, 0, Arc::new(3), 50);
    assert_eq!(cache.stats().bytes, 50);
}
