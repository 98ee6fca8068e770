//! Rows: found as they were entered or not at all, and which of them stay.

use super::*;
use crate::base::sync::{Arc, Weak};
use quickcheck::quickcheck;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

fn cache(limit: usize, capacity: usize) -> (MemoryBudget, Arc<RowCache>) {
    let budget = MemoryBudget::new(limit);
    let cache = Arc::new(RowCache::new(&budget, capacity));
    let weak: Weak<RowCache> = Arc::downgrade(&cache);
    budget.add_cache(weak);
    (budget, cache)
}

fn key(owner: u64, user_key: &[u8]) -> RowKey<'_> {
    RowKey { owner, hash: xxh3_64(user_key), user_key }
}

fn value_of(trailer: u64, len: usize) -> Vec<u8> {
    trailer.to_le_bytes().repeat(len.div_ceil(8))[..len].to_vec()
}

/// Every row is in the index once, and nothing else is.
fn check(cache: &RowCache, budget: &MemoryBudget, others: usize) {
    let (mut segments, mut index) = (0, 0);
    for shard in &cache.shards {
        let shard = shard.lock();
        let mut rows = 0;
        for &i in &shard.order {
            let segment = shard.segment(i);
            let mut at = 0;
            while at < segment.len {
                let head = segment.head(at);
                shard.slot_of(head.hash, place_of(i, at));
                rows += 1;
                at += head.size();
            }
            assert_eq!(at, segment.len);
        }
        let slots = shard.index.iter().filter(|slot| slot.place != NOWHERE).count();
        assert_eq!((rows, slots), (shard.rows, shard.rows));
        assert_eq!(shard.order.len() + shard.free.len(), shard.segments.len());
        segments += shard.order.len() * SEGMENT_BYTES;
        index += (shard.index.len() - 16) * size_of::<Slot>();
    }
    assert_eq!(cache.bytes(), segments);
    assert_eq!(budget.used(), segments + index + others);
}

quickcheck! {
    fn finds_what_was_entered_or_nothing(
        ops: Vec<(u8, u8, u8)>, capacity: u8, limit: u8
    ) -> bool {
        let (capacity, limit) = (usize::from(capacity) << 10, usize::from(limit) << 10);
        let (budget, cache) = cache(limit, capacity);
        let mut other = budget.reserve(0);
        let mut entered: BTreeMap<(u64, Vec<u8>), u64> = BTreeMap::new();
        let mut copy = RowCopy::new();
        for (i, (op, a, b)) in (1..).zip(ops.repeat(8)) {
            let (owner, user_key) = (u64::from(a % 3), vec![b; usize::from(b % 40)]);
            let row = key(owner, &user_key);
            let there = cache.get(row, &mut copy).map(|(trailer, value)| {
                assert_eq!(value, value_of(trailer, value.len()));
                trailer
            });
            if there.is_some() {
                assert_eq!(there, entered.get(&(owner, user_key.clone())).copied());
            }
            match op % 8 {
                0 => other.grow(usize::from(a) << 8),
                1 => other.shrink(other.bytes().min(usize::from(b) << 8)),
                2 => drop(cache.reclaim_one()),
                _ => {
                    cache.insert(row, i, &value_of(i, usize::from(a) * 2));
                    if there.is_none() {
                        entered.insert((owner, user_key), i);
                    }
                }
            }
            assert!(cache.bytes() <= capacity);
            assert!(budget.used() <= limit.max(other.bytes()));
        }
        check(&cache, &budget, other.bytes());
        while cache.reclaim_one() {}
        check(&cache, &budget, other.bytes());
        cache.bytes() == 0
    }
}

#[test]
fn rows_that_were_asked_for_outlive_those_that_were_not() {
    let (budget, cache) = cache(usize::MAX, 64 * SEGMENT_BYTES);
    let mut copy = RowCopy::new();
    let keys: Vec<[u8; 8]> = (0..20_000_u64).map(u64::to_be_bytes).collect();
    let (hot, cold) = keys.split_at(50);
    for user_key in hot {
        cache.insert(key(1, user_key), 7, &value_of(7, 60));
    }
    for (i, user_key) in cold.iter().enumerate() {
        cache.insert(key(1, user_key), 8, &value_of(8, 60));
        cache.get(key(1, &hot[i % hot.len()]), &mut copy);
    }
    check(&cache, &budget, 0);
    let held = |keys: &[[u8; 8]]| {
        let found =
            |user_key: &&[u8; 8]| cache.get(key(1, *user_key), &mut RowCopy::new()).is_some();
        keys.iter().filter(found).count()
    };
    assert_eq!(held(hot), hot.len());
    // All the rest of the memory is used: a row takes 96 bytes.
    let most = 64 * SEGMENT_BYTES / 96;
    let rest = held(cold);
    assert!((most * 3 / 4..most).contains(&(rest + hot.len())), "{rest} of {most}");
}

#[test]
fn a_row_as_large_as_a_block_is_not_kept() {
    let (_, cache) = cache(usize::MAX, 64 * SEGMENT_BYTES);
    let mut copy = RowCopy::new();
    cache.insert(key(1, b"large"), 7, &[1; ROW_BYTES_MAX]);
    cache.insert(key(1, b"small"), 7, &[1; ROW_BYTES_MAX - HEAD_BYTES - 5]);
    assert!(cache.get(key(1, b"large"), &mut copy).is_none());
    assert_eq!(cache.get(key(1, b"small"), &mut copy).unwrap().1.len(), 483);
    assert!(cache.get(key(2, b"small"), &mut copy).is_none());
    assert_eq!(cache.hits(), 1);
}
