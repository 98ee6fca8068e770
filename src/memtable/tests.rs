use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use quickcheck::{Arbitrary, Gen, TestResult, quickcheck};

use super::*;
use crate::base::key::SEQNO_MAX;
use crate::base::rng::Rng;
use crate::cache::budget::MemoryBudget;
use crate::iter::InternalIterator;

const OPTIONS: MemTableOptions = MemTableOptions { bytes_max: 64 << 20, keys_hint: 0 };

fn new(budget: &MemoryBudget) -> (MemTableWriter, Arc<MemTable>, Arc<ReadPins>) {
    let pins: Arc<ReadPins> = Arc::default();
    let (writer, table) = MemTable::new(OPTIONS, &pins, budget.reserve(0));
    (writer, table, pins)
}

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

fn place_of(cursor: &MemTableIterator) -> Option<Place> {
    cursor.entry().map(|(key, _)| (key.user_key.to_vec(), Reverse(key.seqno)))
}

type Place = (Vec<u8>, Reverse<SeqNo>);

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

fn is_deleted(cursor: &MemTableIterator) -> bool {
    cursor.entry().is_some_and(|(key, _)| key.kind == ValueKind::Delete)
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

/// The keys from `start` to `end` that are alive, as a scan over nothing else finds them.
fn alive(cursor: &mut MemTableIterator, start: &[u8], end: &[u8], at: SeqNo) -> Vec<Place> {
    let mut seen = Vec::new();
    cursor.seek(InternalKey::seek(start, SEQNO_MAX)).unwrap();
    while let Some(place) = place_of(cursor).filter(|(key, _)| **key < *end) {
        let deleted = is_deleted(cursor);
        cursor.skip(&place.0).unwrap();
        if deleted {
            cursor.pass_deleted(Some(end), at).unwrap();
        } else {
            seen.push(place);
        }
    }
    seen
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
    places: &mut Vec<(Vec<u8>, SeqNo, super::Place)>,
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

/// A writer and readers at once. Version `v` of key `k` has a sequence number that both tell, so that
/// readers know what they must find at any published one.
#[test]
fn readers_beside_the_writer() {
    const KEYS: u64 = if cfg!(miri) { 20 } else { 3000 };
    const ROUNDS: u64 = if cfg!(miri) { 3 } else { 30 };
    fn key(k: u64) -> [u8; 8] {
        k.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
    }
    fn newest(k: u64, at: SeqNo) -> Option<SeqNo> {
        let round = at.checked_sub(k + 1)? / KEYS;
        Some(round * KEYS + k + 1)
    }
    fn check(k: u64, at: SeqNo, found: Found<'_>) {
        assert_eq!(Some(found.seqno), newest(k, at));
        assert_eq!(found.value, vec![k as u8; found.seqno as usize % 100]);
    }
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (table, visible, pins) = (&table, &visible, &pins);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                let mut at = 0;
                while at < KEYS * ROUNDS {
                    at = visible.load(Ordering::Acquire);
                    for _ in 0..100 {
                        let k = rng.below(KEYS);
                        let mut copy = ValueCopy::new();
                        let key = key(k);
                        match table.peek(&key, at, &mut copy) {
                            Peek::Absent => assert_eq!(newest(k, at), None),
                            Peek::Newest(found) => check(k, at, found),
                            Peek::Unclear => {
                                let pin = pins.pin(visible);
                                let found = table.versions(&key, &pin).next();
                                assert_eq!(found.is_some(), newest(k, pin.seqno()).is_some());
                                found.inspect(|found| check(k, pin.seqno(), *found));
                            }
                        }
                    }
                    if rng.below(4) > 0 {
                        continue;
                    }
                    let pin = pins.pin(visible);
                    at = pin.seqno();
                    let mut cursor = table.cursor(pin.clone(), false);
                    cursor.first().unwrap();
                    let mut seen = 0;
                    let mut last: Option<(Vec<u8>, Reverse<SeqNo>)> = None;
                    while let Some((key, _)) = cursor.entry() {
                        let place = (key.user_key.to_vec(), Reverse(key.seqno));
                        assert!(last.as_ref().is_none_or(|last| *last < place));
                        assert!(key.seqno <= at);
                        seen += u64::from(last.is_none_or(|(last, _)| last != place.0));
                        last = Some(place);
                        cursor.next().unwrap();
                    }
                    assert_eq!(seen, at.min(KEYS));
                    let mut keys = 0;
                    cursor.last().unwrap();
                    while let Some((key, _)) = cursor.entry() {
                        keys += u64::from(table.versions(key.user_key, &pin).next().is_some());
                        cursor.prev().unwrap();
                    }
                    assert_eq!(keys, at.min(KEYS));
                }
            });
        }
        for seqno in 1..=KEYS * ROUNDS {
            let k = (seqno - 1) % KEYS;
            let value = vec![k as u8; seqno as usize % 100];
            let held = pins.try_hold();
            let overwrite = held.as_ref().map(|held| held.overwrite());
            let key = key(k);
            let version = InternalKey::new(&key, seqno, ValueKind::Put);
            writer.insert(version, &value, overwrite);
            visible.store(seqno, Ordering::Release);
        }
    });
}

/// All keys are written and deleted in turns, while others scan. What a scan sees is told by its
/// sequence number.
#[test]
fn scans_beside_deletes() {
    const KEYS: u64 = if cfg!(miri) { 12 } else { 600 };
    const ROUNDS: u64 = if cfg!(miri) { 4 } else { 40 };
    fn is_alive(k: u64, at: SeqNo) -> bool {
        // The number of writes of this key: it is written by every KEYS-th.
        (at + KEYS - 1 - k) / KEYS % 2 == 1
    }
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (table, visible, pins) = (&table, &visible, &pins);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                let mut old: Vec<ReadPin> = Vec::new();
                let mut at = 0;
                while at < KEYS * ROUNDS {
                    let pin = pins.pin(visible);
                    at = pin.seqno();
                    if rng.below(8) == 0 {
                        old.push(pin.clone());
                    }
                    if rng.below(8) == 0 {
                        old.clear();
                    }
                    let older = old.last().filter(|_| rng.below(4) == 0).cloned();
                    let pin = older.unwrap_or(pin);
                    let seen = pin.seqno();
                    let (start, end) = (rng.below(KEYS), rng.below(KEYS));
                    let mut cursor = table.cursor(pin, rng.below(2) == 0);
                    let found = alive(&mut cursor, &start.to_be_bytes(), &end.to_be_bytes(), seen);
                    let found: Vec<Vec<u8>> = found.into_iter().map(|(key, _)| key).collect();
                    let wanted = (start..end).filter(|k| is_alive(*k, seen));
                    assert_eq!(found, wanted.map(|k| k.to_be_bytes().to_vec()).collect::<Vec<_>>());
                }
            });
        }
        for seqno in 1..=KEYS * ROUNDS {
            let kind = match (seqno - 1) / KEYS % 2 {
                0 => ValueKind::Put,
                _ => ValueKind::Delete,
            };
            let held = pins.try_hold();
            let overwrite = held.as_ref().map(|held| held.overwrite());
            let key = ((seqno - 1) % KEYS).to_be_bytes();
            writer.insert(InternalKey::new(&key, seqno, kind), b"", overwrite);
            visible.store(seqno, Ordering::Release);
        }
    });
}

/// A queue: what was taken out at its front is passed again by nobody.
#[test]
fn what_was_deleted_is_passed_once() {
    const MANY: u64 = if cfg!(miri) { 30 } else { 5000 };
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    let mut seqno = 0;
    let mut write = |key: u64, kind| {
        seqno += 1;
        let key = key.to_be_bytes();
        let held = pins.try_hold();
        let overwrite = held.as_ref().map(|held| held.overwrite());
        writer.insert(InternalKey::new(&key, seqno, kind), b"", overwrite);
        visible.store(seqno, Ordering::Release);
    };
    (0..MANY).for_each(|key| write(key, ValueKind::Put));
    for round in 0..3 * MANY / 10 {
        let pin = pins.pin(&visible);
        let at = pin.seqno();
        let mut cursor = table.cursor(pin, false);
        cursor.first().unwrap();
        let mut steps = 0;
        while is_deleted(&cursor) {
            let key = place_of(&cursor).unwrap().0;
            cursor.skip(&key).unwrap();
            steps += 1;
            cursor.pass_deleted(None, at).unwrap();
        }
        assert!(steps <= 1, "passed at once");
        let head = place_of(&cursor).unwrap().0;
        assert_eq!(head, (round * 10).to_be_bytes());
        for key in round * 10..round * 10 + 10 {
            write(key, ValueKind::Delete);
            write(key + MANY, ValueKind::Put);
        }
    }
    let order = table.order.lock();
    let kept: usize = order.runs().iter().map(|run| run.heads().len()).sum();
    assert!(kept < 3 * MANY as usize, "{kept} heads of {MANY} keys");
}

/// Keys that were deleted before anybody asked for the order, or since, are not in it for long.
#[test]
fn what_was_deleted_is_forgotten() {
    const MANY: u64 = if cfg!(miri) { 30 } else { 1000 };
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table, pins) = new(&budget);
    let visible = AtomicU64::new(0);
    let mut seqno = 0;
    let mut write_all = |keys: std::ops::Range<u64>, kind| {
        for key in keys {
            seqno += 1;
            let held = pins.try_hold();
            let overwrite = held.as_ref().map(|held| held.overwrite());
            writer.insert(InternalKey::new(&key.to_be_bytes(), seqno, kind), b"", overwrite);
            visible.store(seqno, Ordering::Release);
        }
    };
    let open = |alone| {
        drop(table.cursor(pins.pin(&visible), alone));
        table.order.lock().runs().iter().map(|run| run.heads().len() as u64).sum::<u64>()
    };
    write_all(0..MANY, ValueKind::Put);
    write_all(0..MANY, ValueKind::Delete);
    assert_eq!(open(true), 0);
    assert_eq!(table.glance(b"", &pins.pin(&visible), true), Glance::Nothing);
    write_all(0..MANY, ValueKind::Put);
    assert_eq!(open(true), MANY);
    let older = pins.pin(&visible);
    write_all(0..MANY, ValueKind::Delete);
    assert_eq!((open(false), open(true)), (MANY, MANY), "the pin needs them");
    drop(older);
    write_all(MANY..3 * MANY, ValueKind::Put);
    write_all(MANY..3 * MANY, ValueKind::Delete);
    assert_eq!((open(false), open(true)), (3 * MANY, 0));
}

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
}

/// What lies under a range tombstone is not joined with what lies over it.
#[test]
fn operands_are_not_joined_over_a_range_tombstone() {
    let over = ListOp::DeleteRange(0, 1);
    let append = ListOp::Append(0, 3);
    let list = [append.clone(), over.clone(), append.clone(), append.clone(), over, append];
    assert_eq!(joined_operands_are_the_same(list.to_vec()), 5);
}
