//! Operands that are joined in a memtable, against a map of lists and beside readers.

use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;

#[derive(Clone, Debug)]
enum ListOp {
    Append(u8, u8),
    Put(u8, u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Pin,
    Unpin(u8),
}

impl Arbitrary for ListOp {
    fn arbitrary(g: &mut Gen) -> ListOp {
        let (key, len) = (u8::arbitrary(g) % 3, u8::arbitrary(g) % 12);
        match u8::arbitrary(g) % 40 {
            0 => ListOp::Put(key, len),
            1 => ListOp::Delete(key),
            9 => ListOp::DeleteRange(key, key + 1 + len % 2),
            2..=4 => ListOp::Pin,
            5..=8 => ListOp::Unpin(u8::arbitrary(g)),
            _ => ListOp::Append(key, len),
        }
    }
}

/// The value that versions, newest first, are concatenated to, those below `cover` being deleted.
fn concatenated<'a>(versions: impl Iterator<Item = Found<'a>>, cover: SeqNo) -> Option<Vec<u8>> {
    let mut parts = Vec::new();
    for Found { kind, value, seqno } in versions {
        if kind == ValueKind::Delete || seqno < cover {
            break;
        }
        parts.push(value);
        if kind == ValueKind::Put {
            break;
        }
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.concat())
}

/// Operands that are joined are read as those that are not, at every pin.
fn joined_operands_are_the_same(ops: Vec<ListOp>) -> usize {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, register) = new(&budget);
    writer.join_operands(true);
    let visible = AtomicU64::new(0);
    let mut model: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let mut pins = Vec::new();
    let mut seqno = 0;
    let check = |pin: &ReadPin, model: &BTreeMap<u8, Vec<u8>>| {
        let mut cursor = table.cursor(pin.clone(), false);
        for key in 0..3 {
            let wanted = model.get(&key);
            let cover = table.range_tombstones().cover(&[key], pin.seqno());
            assert_eq!(concatenated(table.versions(&[key], pin), cover).as_ref(), wanted);
            cursor.seek(InternalKey::seek(&[key], SEQNO_MAX)).unwrap();
            let mut versions = Vec::new();
            while let Some((at, value)) = cursor.entry().filter(|(at, _)| at.user_key == [key]) {
                versions.push((at.seqno, at.kind, value.to_vec()));
                cursor.next().unwrap();
            }
            let versions = versions.iter().map(|v| Found { seqno: v.0, kind: v.1, value: &v.2 });
            assert_eq!(concatenated(versions, cover).as_ref(), wanted);
        }
    };
    for op in ops {
        seqno += 1;
        let value = |len| vec![seqno as u8; usize::from(len)];
        let (key, kind, value) = match op {
            ListOp::Append(key, len) => (key, ValueKind::Merge, value(len)),
            ListOp::Put(key, len) => (key, ValueKind::Put, value(len)),
            ListOp::Delete(key) => (key, ValueKind::Delete, Vec::new()),
            ListOp::DeleteRange(start, end) => (start, ValueKind::RangeDelete, vec![end]),
            ListOp::Pin => {
                pins.push((register.pin(&visible), model.clone()));
                continue;
            }
            ListOp::Unpin(which) => {
                if !pins.is_empty() {
                    pins.swap_remove(usize::from(which) % pins.len());
                }
                continue;
            }
        };
        let held = register.try_hold();
        let overwrite = held.as_ref().map(|held| held.overwrite());
        writer.insert(InternalKey::new(&[key], seqno, kind), &value, overwrite);
        visible.store(seqno, Ordering::Release);
        drop(held);
        match kind {
            ValueKind::Delete => drop(model.remove(&key)),
            ValueKind::Put => drop(model.insert(key, value)),
            ValueKind::RangeDelete => model.retain(|other, _| !(key..value[0]).contains(other)),
            ValueKind::Merge => model.entry(key).or_default().extend(value),
        }
        if seqno % 5 == 0 {
            pins.iter().for_each(|(pin, model)| check(pin, model));
        }
    }
    check(&register.pin(&visible), &model);
    pins.iter().for_each(|(pin, model)| check(pin, model));
    table.entries()
}

quickcheck! {
    fn operands_joined(ops: Vec<ListOp>) -> bool {
        joined_operands_are_the_same(ops);
        true
    }
}

#[test]
fn many_operands_are_few_versions() {
    let many = if cfg!(miri) { 50 } else { 3000 };
    let entries = joined_operands_are_the_same(vec![ListOp::Append(0, 9); many]);
    assert!(entries < 8 + many * 9 / 1500, "{entries} versions");
    let mut g = Gen::new(if cfg!(miri) { 60 } else { 2000 });
    for _ in 0..if cfg!(miri) { 1 } else { 20 } {
        joined_operands_are_the_same((0..g.size()).map(|_| ListOp::arbitrary(&mut g)).collect());
    }
}

/// Readers see the lists at their sequence numbers, whole, while they grow.
#[test]
fn readers_beside_a_writer_that_appends() {
    const KEYS: u64 = 5;
    const MANY: u64 = if cfg!(miri) { 60 } else { 20_000 };
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    writer.join_operands(true);
    let visible = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut at = 0;
                while at < MANY {
                    let pin = pins.pin(&visible);
                    at = pin.seqno();
                    for k in 0..KEYS {
                        let found = concatenated(table.versions(&[k as u8], &pin), 0);
                        let wanted = (1..=at).filter(|seqno| seqno % KEYS == k);
                        let wanted = wanted.map(|seqno| seqno as u8).collect::<Vec<u8>>();
                        assert_eq!(found.unwrap_or_default(), wanted);
                        let mut copy = ValueCopy::new();
                        let peeked = table.peek(&[k as u8], at, &mut copy);
                        assert!(matches!(peeked, Peek::Absent | Peek::Unclear));
                    }
                }
            });
        }
        for seqno in 1..=MANY {
            let held = pins.try_hold();
            let overwrite = held.as_ref().map(|held| held.overwrite());
            let key = [(seqno % KEYS) as u8];
            let version = InternalKey::new(&key, seqno, ValueKind::Merge);
            writer.insert(version, &[seqno as u8], overwrite);
            visible.store(seqno, Ordering::Release);
        }
    });
    assert!(cfg!(miri) || table.entries() < MANY as usize, "nothing was joined");
}

/// What lies under a range tombstone is not joined with what lies over it.
#[test]
fn operands_are_not_joined_over_a_range_tombstone() {
    let over = ListOp::DeleteRange(0, 1);
    let append = ListOp::Append(0, 3);
    let list = [append.clone(), over.clone(), append.clone(), append.clone(), over, append];
    assert_eq!(joined_operands_are_the_same(list.to_vec()), 5);
}

/// Appends `many` elements of `len` bytes to a list, nobody looking.
fn append(
    writer: &mut MemTableWriter,
    pins: &ReadPins,
    key: &[u8],
    seqno: &mut SeqNo,
    (many, len): (usize, usize),
) {
    for _ in 0..many {
        *seqno += 1;
        let held = pins.try_hold();
        let overwrite = held.as_ref().map(|held| held.overwrite());
        let version = InternalKey::new(key, *seqno, ValueKind::Merge);
        writer.insert(version, &vec![*seqno as u8; len], overwrite);
    }
}

/// However many entries it was in, up to half a KiB, or to a KiB of elements of nine bytes; behind a pin there
/// is another one, and a long list has several.
#[test]
fn a_list_is_one_version() {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    writer.join_operands(true);
    let visible = AtomicU64::new(0);
    let mut seqno = 0;
    let lists = [1, 8, 9, 20, 40, 100, 300].map(|len| (512 / len, len));
    for (i, list) in lists.into_iter().chain([1, 2, 8, 29, 113].map(|many| (many, 9))).enumerate() {
        let [before, key] = [b'a', b'b'].map(|first| [first, i as u8]);
        append(&mut writer, &pins, &before, &mut seqno, list);
        append(&mut writer, &pins, &key, &mut seqno, list);
        visible.store(seqno, Ordering::Release);
        let pin = pins.pin(&visible);
        let versions: Vec<_> = table.versions(&key, &pin).collect();
        let elements = (seqno - list.0 as u64 + 1..=seqno).map(|at| vec![at as u8; list.1]);
        let value = elements.collect::<Vec<_>>().concat();
        assert_eq!(versions, [Found { seqno, kind: ValueKind::Merge, value: &value }], "{list:?}");
        // The order leads there, too, in both directions.
        let mut cursor = table.cursor(pin.clone(), false);
        cursor.seek(InternalKey::seek(&key, SEQNO_MAX)).unwrap();
        let (found, lent) = cursor.entry().unwrap();
        assert_eq!((found.user_key, found.seqno, lent), (&key[..], seqno, &*value));
        cursor.next().unwrap();
        assert!(cursor.entry().is_none());
        cursor.seek_for_prev(&[b'b', i as u8]).unwrap();
        assert_eq!(cursor.entry().map(|(found, lent)| (found.seqno, lent)), Some((seqno, &*value)));
        // What a pin sees stays where it is, and what comes later is joined behind it.
        append(&mut writer, &pins, &key, &mut seqno, (3, list.1));
        visible.store(seqno, Ordering::Release);
        let later = pins.pin(&visible);
        assert_eq!(table.versions(&key, &later).next().unwrap().value.len(), 3 * list.1);
        assert_eq!(table.versions(&key, &pin).collect::<Vec<_>>(), versions);
    }
    append(&mut writer, &pins, b"c", &mut seqno, (1000, 9));
    visible.store(seqno, Ordering::Release);
    let pin = pins.pin(&visible);
    let pieces = table.versions(b"c", &pin).count();
    assert!((4..=6).contains(&pieces), "{pieces}");
    assert_eq!(concatenated(table.versions(b"c", &pin), 0).unwrap().len(), 9000);
    drop(pin);
    // A flush sees as many.
    let frozen = writer.freeze();
    assert_eq!(frozen.frozen_versions(b"c", SEQNO_MAX).count(), pieces);
    let mut cursor = frozen.frozen_cursor();
    cursor.seek(InternalKey::seek(b"c", SEQNO_MAX)).unwrap();
    for _ in 0..pieces {
        assert_eq!(cursor.entry().unwrap().0.user_key, b"c");
        cursor.next().unwrap();
    }
    assert!(cursor.entry().is_none());
}

/// They have no room, and are not moved to where there is some.
#[test]
fn what_came_before_operands_were_joined_stays_apart() {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let mut seqno = 0;
    append(&mut writer, &pins, b"k", &mut seqno, (3, 9));
    writer.join_operands(true);
    append(&mut writer, &pins, b"k", &mut seqno, (20, 9));
    let visible = AtomicU64::new(seqno);
    let pin = pins.pin(&visible);
    assert_eq!(table.versions(b"k", &pin).count(), 4);
    assert_eq!(concatenated(table.versions(b"k", &pin), 0).unwrap().len(), 23 * 9);
}
