//! Random operations on a memtable, compared with a map of all versions, with pins.

use std::collections::{BTreeMap, BTreeSet};

use quickcheck::{Arbitrary, Gen, TestResult, quickcheck};

use super::*;

/// The naive table: all versions in the order of internal keys.
type Oracle = BTreeMap<(Vec<u8>, Reverse<SeqNo>), (ValueKind, Vec<u8>)>;

fn oracle_versions<'a>(
    oracle: &'a Oracle,
    key: &[u8],
    at: SeqNo,
) -> impl Iterator<Item = Found<'a>> {
    let range = (key.to_vec(), Reverse(at))..=(key.to_vec(), Reverse(0));
    let found = |((_, Reverse(seqno)), (kind, value)): (&'a (Vec<u8>, _), &'a (_, Vec<u8>))| {
        Found { seqno: *seqno, kind: *kind, value }
    };
    oracle.range(range).map(found)
}

/// Short keys of few bytes, so that they meet, extend each other and tie in their heads.
#[derive(Clone, Debug)]
struct Key(Vec<u8>);

impl Arbitrary for Key {
    fn arbitrary(g: &mut Gen) -> Key {
        let long = usize::arbitrary(g) % 3;
        let mut key = vec![*g.choose(&[0, 1, 255]).unwrap(); [0, 14, 40][long]];
        for _ in 0..usize::arbitrary(g) % 4 {
            key.push(*g.choose(&[0, 1, 7, 254, 255]).unwrap());
        }
        Key(key)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Key, u8, u16),
    /// Looks at what is visible now, or at one of the pins.
    Get(Key, u8),
    Pin,
    Unpin(u8),
    /// Opens a cursor, which is looked at when everything has been written.
    Open,
    Seek(Key),
    SeekForPrev(Key),
    /// The writer looks, and keeps the place.
    Look(Key),
    /// Overwrites what was found at one of the places, perhaps long ago.
    Replace(u8, u16),
    /// Walks over what is alive from a key to another, as a scan with no other source.
    Pass(Key, Key, u8),
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Op {
        let key = Key::arbitrary(g);
        match u8::arbitrary(g) % 26 {
            0..=9 => Op::Insert(key, u8::arbitrary(g), u16::arbitrary(g) % 900),
            10..=14 => Op::Get(key, u8::arbitrary(g)),
            15 => Op::Pin,
            16 => Op::Unpin(u8::arbitrary(g)),
            17 => Op::Open,
            18 => Op::Seek(key),
            19..=20 => Op::Look(key),
            21..=22 => Op::Replace(u8::arbitrary(g), u16::arbitrary(g) % 90),
            23 => Op::SeekForPrev(key),
            _ => Op::Pass(key, Key::arbitrary(g), u8::arbitrary(g)),
        }
    }
}

/// What cursors show of keys whose newest version is a delete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deleted {
    All,
    /// Some may have left the order.
    Some,
}

impl Deleted {
    /// The newest version visible at `at` of each key, without those that may be missing.
    fn newest_at(self, oracle: &Oracle, at: SeqNo) -> Vec<Place> {
        let mut newest: Vec<Place> = Vec::new();
        for (key, Reverse(seqno)) in oracle.keys() {
            if *seqno <= at && newest.last().is_none_or(|(last, _)| last != key) {
                newest.push((key.clone(), Reverse(*seqno)));
            }
        }
        newest.retain(|place| self == Deleted::All || oracle[place].0 != ValueKind::Delete);
        newest
    }

    /// Where the cursor stands, or the next place that must be there.
    fn next(self, cursor: &mut MemTableIterator) -> Option<Place> {
        while self == Deleted::Some && is_deleted(cursor) {
            let key = place_of(cursor).unwrap().0;
            cursor.skip(&key).unwrap();
        }
        place_of(cursor)
    }

    fn prev(self, cursor: &mut MemTableIterator) -> Option<Place> {
        while self == Deleted::Some && is_deleted(cursor) {
            cursor.prev().unwrap();
        }
        place_of(cursor)
    }
}

/// Shows the newest version of each key first; older ones may have been overwritten.
fn check_versions<'a>(
    found: impl Iterator<Item = Found<'a>>,
    oracle: &Oracle,
    key: &[u8],
    at: SeqNo,
) {
    let mut expected = oracle_versions(oracle, key, at);
    let mut first = true;
    for version in found {
        let next = expected.find(|next| !first || next.seqno <= version.seqno);
        if first {
            assert_eq!(next, Some(version));
        } else if next != Some(version) {
            assert!(expected.any(|other| other == version), "a version out of nowhere");
        }
        first = false;
    }
    let left = |version: Found<'_>| version.kind == ValueKind::Delete;
    assert!(!first || expected.next().is_none_or(left), "a key is missing");
}

/// Walks both ways.
fn check_cursor(cursor: &mut MemTableIterator, oracle: &Oracle, at: SeqNo, deleted: Deleted) {
    let newest = deleted.newest_at(oracle, at);
    let mut seen: Vec<Place> = Vec::new();
    let mut last: Option<Place> = None;
    cursor.first().unwrap();
    while let Some((key, value)) = cursor.entry() {
        let place = (key.user_key.to_vec(), Reverse(key.seqno));
        assert!(key.seqno <= at && last.as_ref().is_none_or(|last| *last < place), "out of order");
        assert_eq!(oracle[&place], (key.kind, value.to_vec()));
        let optional = deleted == Deleted::Some && key.kind == ValueKind::Delete;
        if last.is_none_or(|(last, _)| last != place.0) && !optional {
            seen.push(place.clone());
        }
        last = Some(place);
        cursor.next().unwrap();
    }
    assert_eq!(seen, newest);
    cursor.first().unwrap();
    for place in &newest {
        assert_eq!(deleted.next(cursor).as_ref(), Some(place));
        cursor.skip(&place.0).unwrap();
    }
    assert_eq!(deleted.next(cursor), None);
    cursor.last().unwrap();
    for place in newest.iter().rev() {
        assert_eq!(deleted.prev(cursor).as_ref(), Some(place));
        cursor.prev().unwrap();
    }
    assert_eq!(deleted.prev(cursor), None);
}

fn check_get(table: &MemTable, oracle: &Oracle, key: &[u8], seqno: SeqNo, pin: Option<&ReadPin>) {
    let Some(pin) = pin else {
        let expected = oracle_versions(oracle, key, seqno).next();
        match table.peek(key, seqno, &mut ValueCopy::new()) {
            Peek::Absent => assert_eq!(expected, None),
            Peek::Newest(found) => assert_eq!(Some(found), expected),
            Peek::Unclear => assert_eq!(expected.unwrap().kind, ValueKind::Merge),
        }
        return;
    };
    check_versions(table.versions(key, pin), oracle, key, pin.seqno());
    match table.peek(key, pin.seqno(), &mut ValueCopy::new()) {
        Peek::Absent => assert_eq!(oracle_versions(oracle, key, SEQNO_MAX).next(), None),
        Peek::Newest(found) => {
            assert_eq!(Some(found), oracle_versions(oracle, key, SEQNO_MAX).next());
        }
        Peek::Unclear => {
            let newest = oracle_versions(oracle, key, SEQNO_MAX).next().unwrap();
            assert!(newest.seqno > pin.seqno() || newest.kind == ValueKind::Merge);
        }
    }
}

/// What the writer finds decides alone: a put or a delete, and no range tombstone.
fn check_look(
    writer: &MemTableWriter,
    oracle: &Oracle,
    key: &[u8],
    places: &mut Vec<(Vec<u8>, SeqNo, crate::memtable::Place)>,
) {
    let newest = oracle_versions(oracle, key, SEQNO_MAX).next();
    match writer.peek(key, &mut ValueCopy::new()) {
        Some(None) => assert_eq!(newest, None),
        Some(Some((place, found))) => {
            assert_eq!(Some(found), newest);
            assert!(found.kind != ValueKind::Merge && writer.stands(&place, key));
            places.push((key.to_vec(), found.seqno, place));
        }
        None => {
            assert!(newest.is_none_or(|newest| {
                newest.kind == ValueKind::Merge || newest.value.len() > 256
            }))
        }
    }
}

/// A glance says nothing wrong of the keys with a prefix.
fn check_glance(glance: Glance, oracle: &Oracle, prefix: &[u8], at: SeqNo) {
    let keys: BTreeSet<&[u8]> = oracle.keys().map(|(key, _)| &key[..]).collect();
    let newest = |key| oracle_versions(oracle, key, at).next();
    let kinds = keys.into_iter().filter(|key| key.starts_with(prefix)).filter_map(newest);
    let kinds: Vec<ValueKind> = kinds.map(|found| found.kind).collect();
    match glance {
        Glance::Put => assert!(kinds.contains(&ValueKind::Put)),
        Glance::Nothing => assert!(kinds.iter().all(|kind| *kind == ValueKind::Delete)),
        Glance::Unclear => {}
    }
}

/// `alone`: deleted keys are forgotten.
fn agrees_with_a_map(ops: Vec<Op>, freeze: bool, alone: bool) -> TestResult {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, register) = new(&budget);
    let mut oracle = Oracle::new();
    let mut cursors = Vec::new();
    let mut pins: Vec<ReadPin> = Vec::new();
    let visible = AtomicU64::new(0);
    let mut seqno = 0;
    let mut places = Vec::new();
    let mut deleted = if alone { Deleted::Some } else { Deleted::All };
    for op in ops {
        match op {
            Op::Insert(Key(key), kind, len) => {
                seqno += 1 + u64::from(kind % 2);
                let may = kind % 7 > 0;
                let kind = ValueKind::from_byte(kind % 3 + 1).unwrap();
                let value = vec![seqno as u8; usize::from(len) / if may { 9 } else { 1 }];
                let value = if kind == ValueKind::Delete { Vec::new() } else { value };
                let held = register.try_hold().filter(|_| may);
                let overwrite = held.as_ref().map(|held| held.overwrite());
                let version = InternalKey::new(&key, seqno, kind);
                writer.insert(version, &value, overwrite);
                assert_eq!(writer.newest(&key), Some(seqno));
                oracle.insert((key, Reverse(seqno)), (kind, value));
                visible.store(seqno, Ordering::Release);
            }
            Op::Look(Key(key)) => check_look(&writer, &oracle, &key, &mut places),
            Op::Replace(which, len) if !places.is_empty() => {
                let (key, found, place) = &places[usize::from(which) % places.len()];
                let newest = oracle_versions(&oracle, key, SEQNO_MAX).next().expect("found once");
                let stands = writer.stands(place, key);
                assert!(newest.seqno == *found || !stands, "it was overwritten");
                assert!(!writer.stands(place, &[&key[..], b"?"].concat()), "of another key");
                let held = register.try_hold().expect("nobody else is here");
                let value = vec![len as u8; usize::from(len)];
                let version = InternalKey::new(key, seqno + 1, ValueKind::Put);
                match writer.overwrite_at(place, version, &value, held.overwrite()) {
                    None => assert!(!stands),
                    Some(false) => assert!(stands),
                    Some(true) => {
                        assert!(stands && pins.iter().all(|pin| pin.seqno() < *found));
                        seqno += 1;
                        oracle.insert((key.clone(), Reverse(seqno)), (ValueKind::Put, value));
                        visible.store(seqno, Ordering::Release);
                    }
                }
            }
            Op::Replace(..) => {}
            Op::Get(Key(key), which) => {
                let pin = usize::from(which) % (pins.len() + 1);
                check_get(&table, &oracle, &key, seqno, pins.get(pin));
            }
            Op::Pin => pins.push(register.pin(&visible)),
            Op::Unpin(which) if !pins.is_empty() => {
                pins.remove(usize::from(which) % pins.len());
            }
            Op::Unpin(_) => {}
            Op::Open => cursors.push((table.cursor(register.pin(&visible), alone), seqno)),
            Op::Seek(Key(key)) => {
                let mut cursor = table.cursor(register.pin(&visible), alone);
                cursor.seek(InternalKey::seek(&key, SEQNO_MAX)).unwrap();
                let newest = deleted.newest_at(&oracle, seqno);
                let at = newest.partition_point(|(other, _)| *other < key);
                for place in newest[at..].iter().take(5) {
                    assert_eq!(deleted.next(&mut cursor).as_ref(), Some(place));
                    cursor.skip(&place.0).unwrap();
                }
            }
            Op::SeekForPrev(Key(key)) => {
                let mut cursor = table.cursor(register.pin(&visible), alone);
                cursor.seek_for_prev(&key).unwrap();
                let newest = deleted.newest_at(&oracle, seqno);
                let at = newest.partition_point(|(other, _)| *other <= key);
                for place in newest[..at].iter().rev() {
                    assert_eq!(deleted.prev(&mut cursor).as_ref(), Some(place));
                    cursor.prev().unwrap();
                }
                assert_eq!(deleted.prev(&mut cursor), None);
            }
            Op::Pass(Key(start), Key(end), which) => {
                let pin = pins.get(usize::from(which) % (pins.len() + 1)).cloned();
                let pin = pin.unwrap_or_else(|| register.pin(&visible));
                let at = pin.seqno();
                deleted = Deleted::Some;
                let mut expected = deleted.newest_at(&oracle, at);
                check_glance(table.glance(&start, &pin, alone), &oracle, &start, at);
                expected.retain(|(key, _)| start <= *key && *key < end);
                assert_eq!(alive(&mut table.cursor(pin, alone), &start, &end, at), expected);
            }
        }
    }
    assert!(table.entries() <= oracle.len());
    assert_eq!(table.seqno_max(), oracle.keys().map(|(_, Reverse(s))| *s).max());
    assert_eq!(table.seqno_min(), oracle.keys().map(|(_, Reverse(s))| *s).min());
    let mut now = table.cursor(register.pin(&visible), alone);
    check_cursor(&mut now, &oracle, seqno, deleted);
    if freeze {
        assert!(Arc::ptr_eq(&writer.freeze(), &table));
        check_cursor(&mut table.frozen_cursor(), &oracle, seqno, deleted);
        for (key, _) in oracle.keys() {
            check_versions(table.frozen_versions(key, seqno), &oracle, key, seqno);
        }
    }
    for (mut cursor, at) in cursors {
        check_cursor(&mut cursor, &oracle, at, deleted);
    }
    drop((now, pins));
    assert_eq!(budget.used(), table.bytes());
    drop(table);
    TestResult::passed()
}

quickcheck! {
    fn few_operations(ops: Vec<Op>, freeze: bool, alone: bool) -> TestResult {
        agrees_with_a_map(ops, freeze, alone)
    }
}

#[test]
fn many_operations() {
    let mut g = Gen::new(if cfg!(miri) { 60 } else { 1500 });
    for round in 0..if cfg!(miri) { 2 } else { 40 } {
        let ops = (0..g.size()).map(|_| Op::arbitrary(&mut g)).collect();
        agrees_with_a_map(ops, round % 2 == 0, round % 4 < 2);
    }
}
