//! What reading tables takes from the budget, keeps, and evicts.

use super::*;
use crate::base::key::SEQNO_MAX;

#[test]
fn memory_is_charged_and_given_back() {
    let fs = MemFs::new();
    let list: Vec<Version> =
        (0..2000u32).map(|i| (i.to_be_bytes().to_vec(), 1, ValueKind::Put, vec![7; 50])).collect();
    let options = TableOptions { block_bytes: 1024, ..TableOptions::default() };
    write(&fs, path(), id(1), &list, &[], &options);
    let budget = MemoryBudget::new(64 << 20);
    let cache = BlockCache::<Block>::new(&budget, 32 << 20);
    let before = budget.used();
    let table =
        Table::open(fs.open(path()).unwrap(), path(), id(1), &cache, &budget, 1 << 20).unwrap();
    assert!(budget.used() >= before + 2500, "index and filter");
    assert_eq!(scan(&table, false).unwrap(), list);
    assert_eq!(cache.stats().entries, 0, "a scan that leaves the cache alone");
    scan(&table, true).unwrap();
    assert_eq!(cache.stats().entries as u64, table.properties().data_blocks);
    let half = table.approximate_offset(&1000u32.to_be_bytes());
    assert!(half > table.len() / 3 && half < table.len() * 2 / 3);
    drop(table);
    assert_eq!(cache.stats().entries, 0);
    assert!(budget.used() <= before + 4096, "what the cache keeps for itself");
}

#[test]
fn hot_keys_of_many_blocks_stay_as_rows() {
    let fs = MemFs::new();
    let key = |i: u32| i.to_be_bytes().to_vec();
    let put = |i: u32| (key(i), u64::from(i) + 1, ValueKind::Put, vec![i as u8; 50]);
    let list: Vec<Version> = (0..4000).map(put).collect();
    write(
        &fs,
        path(),
        id(1),
        &list,
        &[],
        &TableOptions { block_bytes: 1024, ..Default::default() },
    );
    let budget = MemoryBudget::new(64 << 10);
    let cache = BlockCache::<Block>::new(&budget, 64 << 10);
    let (file, own) = (fs.open(path()).unwrap(), MemoryBudget::new(0));
    let table = Table::open(file, path(), id(1), &cache, &own, 1 << 20).unwrap();
    // Hot keys in each block, one after the other, so that a block is out again when its turn comes.
    let hot = || (0..4000).step_by(16);
    let all = || hot().for_each(|i| assert_eq!(get(&table, &key(i), SEQNO_MAX).unwrap(), [put(i)]));
    (0..4).for_each(|_| all());
    let before = cache.stats();
    all();
    let after = cache.stats();
    assert!(after.hits - before.hits >= 200, "{before:?} {after:?}");
    // A row is not shown to those who read as of a time before it.
    assert!(hot().all(|i| get(&table, &key(i), u64::from(i)).unwrap().is_empty()));
    assert!(budget.used() <= 64 << 10);
    drop(table);
    assert_eq!(cache.stats().entries, 0);
}

#[test]
fn a_long_scan_evicts_little() {
    let fs = MemFs::new();
    let key = |i: u32| i.to_be_bytes().to_vec();
    let list: Vec<Version> =
        (0..4000u32).map(|i| (key(i), 1, ValueKind::Put, vec![i as u8; 50])).collect();
    for codec in Codec::ALL.into_iter().filter(|codec| codec.is_compiled_in()) {
        let name = format!("/{}.sst", codec.name());
        let path = Path::new(&name);
        let options = TableOptions { block_bytes: 1024, codec, ..TableOptions::default() };
        write(&fs, path, id(1), &list, &[], &options);
        let budget = MemoryBudget::new(64 << 20);
        let cache = BlockCache::<Block>::new(&budget, 24 << 10);
        let file = fs.open(path).unwrap();
        let table = Table::open(file, path, id(1), &cache, &budget, 1 << 20).unwrap();
        let hot: Vec<u32> = (0..16).map(|i| i * 250).collect();
        for _ in 0..2 {
            assert!(hot.iter().all(|&i| get(&table, &key(i), 1).unwrap().len() == 1));
        }
        for _ in 0..4 {
            assert_eq!(scan(&table, true).unwrap(), list);
            assert_eq!(scan_back(&table).unwrap(), newest_backward(&list));
        }
        let before = cache.stats().hits;
        assert!(hot.iter().all(|&i| get(&table, &key(i), 1).unwrap().len() == 1));
        let hits = cache.stats().hits - before;
        assert!(hits >= 12, "{hits} of 16 hot blocks are left");
        assert!(cache.stats().bytes <= 24 << 10);
    }
}
