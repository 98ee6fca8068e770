//! Many keys, giant values, range tombstones, and versions out of order, by example.

use super::*;

#[test]
fn many_keys_and_splits() {
    let many = if cfg!(miri) { 100 } else { 50_000u64 };
    let budget = MemoryBudget::new(1 << 30);
    for keys_hint in [0, if cfg!(miri) { 50 } else { 1000 }, if cfg!(miri) { 200 } else { 1 << 20 }]
    {
        let options = MemTableOptions { keys_hint, ..OPTIONS };
        let pins: Arc<ReadPins> = Arc::default();
        let (mut writer, table) = MemTable::new(options, &pins, budget.reserve(0));
        let visible = AtomicU64::new(0);
        let key = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        for i in 0..many {
            let key = key(i);
            writer.insert(InternalKey::new(&key, i + 1, ValueKind::Put), &i.to_le_bytes(), None);
            visible.store(i + 1, Ordering::Release);
            if i % 997 == 0 {
                let mut cursor = table.cursor(pins.pin(&visible), false);
                cursor.last().unwrap();
                assert!(cursor.entry().is_some());
            }
        }
        let mut copy = ValueCopy::new();
        for i in 0..many {
            let value = &i.to_le_bytes()[..];
            let found = Found { seqno: i + 1, kind: ValueKind::Put, value };
            assert_eq!(table.peek(&key(i), many, &mut copy), Peek::Newest(found));
            assert_eq!(table.peek(&key(i), i, &mut copy), Peek::Unclear);
            assert_eq!(table.peek(&key(i + many), many, &mut copy), Peek::Absent);
        }
        assert_eq!((table.keys(), table.entries()), (many as usize, many as usize));
        let table = writer.freeze();
        let mut cursor = table.frozen_cursor();
        cursor.first().unwrap();
        let mut count = 0;
        let mut last = None;
        while let Some((key, _)) = cursor.entry() {
            let key = key.user_key.to_vec();
            assert!(last.is_none_or(|last| last < key));
            last = Some(key);
            count += 1;
            cursor.next().unwrap();
        }
        assert_eq!(count, many);
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn giant_values() {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let giant = vec![9; if cfg!(miri) { 9000 } else { 32 << 20 }];
    let held = pins.try_hold();
    let overwrite = held.as_ref().map(|held| held.overwrite());
    writer.insert(InternalKey::new(b"b", 1, ValueKind::Put), &giant, overwrite);
    writer.insert(InternalKey::new(b"a", 2, ValueKind::Put), b"small", overwrite);
    writer.insert(InternalKey::new(b"b", 3, ValueKind::Put), &giant[1..], overwrite);
    drop(held);
    assert!(writer.is_full() || cfg!(miri));
    let table = {
        drop(table);
        writer.freeze()
    };
    let value = |at| table.frozen_versions(b"b", at).next().unwrap().value;
    assert!(value(3) == &giant[1..] && value(2) == giant);
    let mut cursor = table.frozen_cursor();
    cursor.seek(InternalKey::seek(b"a", SEQNO_MAX)).unwrap();
    cursor.next().unwrap();
    cursor.next().unwrap();
    assert!(cursor.entry().unwrap().1 == giant);
    assert!(budget.used() >= 2 * giant.len() && budget.used() < 3 * giant.len() + (1 << 20));
    drop((table, cursor));
    assert_eq!(budget.used(), 0);
}

#[test]
fn range_tombstones_count_and_cover() {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    assert!(table.is_empty() && !writer.is_full() && table.range_tombstones().is_empty());
    writer.insert(InternalKey::new(b"c", 4, ValueKind::RangeDelete), b"c", None);
    assert!(table.is_empty() && table.seqno_max().is_none(), "an empty range is nothing");
    writer.insert(InternalKey::new(b"c", 5, ValueKind::RangeDelete), b"f", None);
    assert!(!table.is_empty() && table.has_range_tombstones());
    assert_eq!((table.seqno_min(), table.seqno_max()), (Some(5), Some(5)));
    let first = table.range_tombstones();
    assert!(Arc::ptr_eq(&first, &table.range_tombstones()));
    writer.insert(InternalKey::new(b"e", 9, ValueKind::RangeDelete), b"h", None);
    let second = table.range_tombstones();
    assert_eq!((first.cover(b"e", 20), second.cover(b"e", 20)), (5, 9));
    assert_eq!((second.cover(b"e", 8), second.cover(b"b", 20)), (5, 0));
    assert_eq!((table.entries(), table.keys()), (2, 0));
    assert_eq!(table.newest(b"c"), None);
    assert_eq!(budget.used(), table.bytes());
    let mut cursor = table.cursor(pins.pin(&AtomicU64::new(9)), false);
    cursor.first().unwrap();
    assert!(cursor.entry().is_none());
}

#[test]
#[should_panic(expected = "versions of a key come in order")]
fn versions_come_in_order() {
    let (mut writer, _, pins) = new(&MemoryBudget::new(1 << 30));
    let held = pins.try_hold();
    let overwrite = held.as_ref().map(|held| held.overwrite());
    writer.insert(InternalKey::new(b"k", 2, ValueKind::Put), b"", overwrite);
    writer.insert(InternalKey::new(b"k", 2, ValueKind::Put), b"", overwrite);
}
