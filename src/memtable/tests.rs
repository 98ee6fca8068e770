use std::cmp::Reverse;
use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, TestResult, quickcheck};

use super::*;
use crate::base::key::SEQNO_MAX;
use crate::base::rng::Rng;
use crate::cache::budget::MemoryBudget;
use crate::iter::InternalIterator;

const OPTIONS: MemTableOptions = MemTableOptions { bytes_max: 64 << 20, keys_hint: 0 };

fn new(budget: &MemoryBudget) -> (MemTableWriter, Arc<MemTable>) {
    MemTable::new(OPTIONS, budget.reserve(0))
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
    Get(Key, u8),
    /// Opens a cursor, which is looked at when everything has been written.
    Open,
    Seek(Key, u8),
    SeekForPrev(Key),
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Op {
        let key = Key::arbitrary(g);
        match u8::arbitrary(g) % 16 {
            0..=9 => Op::Insert(key, u8::arbitrary(g), u16::arbitrary(g) % 900),
            10..=12 => Op::Get(key, u8::arbitrary(g)),
            13 => Op::Open,
            14 => Op::Seek(key, u8::arbitrary(g)),
            _ => Op::SeekForPrev(key),
        }
    }
}

fn entry_of(cursor: &MemTableIterator) -> Option<(Vec<u8>, Reverse<SeqNo>)> {
    cursor.entry().map(|(key, _)| (key.user_key.to_vec(), Reverse(key.seqno)))
}

fn newest_before(
    oracle: &Oracle,
    key: &[u8],
    inclusive: bool,
) -> Option<(Vec<u8>, Reverse<SeqNo>)> {
    let bound = if inclusive { Reverse(0) } else { Reverse(SeqNo::MAX) };
    let (last, _) = oracle.range(..(key.to_vec(), bound)).next_back()?;
    let (newest, _) = oracle.range((last.0.clone(), Reverse(SeqNo::MAX))..).next()?;
    Some(newest.clone())
}

/// Walks both ways; versions above `at` may be there or not, everything else must agree.
fn check_cursor(cursor: &mut MemTableIterator, oracle: &Oracle, now: &Oracle, at: SeqNo) {
    let mut seen = Vec::new();
    let mut last = None;
    cursor.first().unwrap();
    while let Some((key, value)) = cursor.entry() {
        let place = (key.user_key.to_vec(), Reverse(key.seqno));
        assert!(last.as_ref().is_none_or(|last| *last < place), "out of order");
        assert_eq!(now[&place], (key.kind, value.to_vec()));
        if key.seqno <= at {
            seen.push(place.clone());
        }
        last = Some(place);
        cursor.next().unwrap();
    }
    assert!(seen.iter().eq(oracle.keys()));
    let mut keys: Vec<_> = oracle.keys().map(|(key, _)| key.clone()).collect();
    keys.dedup();
    cursor.first().unwrap();
    for key in &keys {
        assert_eq!(cursor.entry().map(|(found, _)| found.user_key), Some(&key[..]));
        cursor.skip(key).unwrap();
    }
    assert!(cursor.entry().is_none());
    cursor.last().unwrap();
    for key in keys.iter().rev() {
        let (found, _) = cursor.entry().expect("a key is missing");
        let newest = oracle_versions(now, key, SEQNO_MAX).next().unwrap();
        assert_eq!((found.user_key, found.seqno), (&key[..], newest.seqno));
        cursor.prev().unwrap();
    }
    assert!(cursor.entry().is_none());
}

fn agrees_with_a_map(ops: Vec<Op>, freeze: bool) -> TestResult {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table) = new(&budget);
    let mut oracle = Oracle::new();
    let mut cursors = Vec::new();
    let mut seqno = 0;
    for op in ops {
        match op {
            Op::Insert(Key(key), kind, len) => {
                seqno += 1 + u64::from(kind % 2);
                let kind = ValueKind::from_byte(kind % 3 + 1).unwrap();
                let value = vec![seqno as u8; usize::from(len)];
                writer.insert(InternalKey::new(&key, seqno, kind), &value);
                assert_eq!(writer.newest(&key), Some((seqno, kind)));
                oracle.insert((key, Reverse(seqno)), (kind, value));
            }
            Op::Get(Key(key), back) => {
                let at = seqno.saturating_sub(u64::from(back));
                assert_eq!(table.get(&key, at), oracle_versions(&oracle, &key, at).next());
                assert!(table.versions(&key, at).eq(oracle_versions(&oracle, &key, at)));
            }
            Op::Open => cursors.push((table.cursor(), oracle.clone(), seqno)),
            Op::Seek(Key(key), back) => {
                let at = seqno.saturating_sub(u64::from(back));
                let mut cursor = table.cursor();
                cursor.seek(InternalKey::seek(&key, at)).unwrap();
                let mut expected = oracle.range((key, Reverse(at))..).map(|(place, _)| place);
                for _ in 0..5 {
                    let next = expected.next();
                    assert_eq!(entry_of(&cursor).as_ref(), next);
                    let Some((key, _)) = next else { break };
                    let mut back = table.cursor();
                    back.seek(InternalKey::seek(key, 0)).unwrap();
                    if back.entry().is_some() {
                        back.prev().unwrap();
                        assert_eq!(entry_of(&back), newest_before(&oracle, key, true));
                    }
                    cursor.next().unwrap();
                }
            }
            Op::SeekForPrev(Key(key)) => {
                let mut cursor = table.cursor();
                cursor.seek_for_prev(&key).unwrap();
                let mut expected = newest_before(&oracle, &key, true);
                assert_eq!(entry_of(&cursor), expected);
                while let Some((key, _)) = expected {
                    cursor.prev().unwrap();
                    expected = newest_before(&oracle, &key, false);
                    assert_eq!(entry_of(&cursor), expected);
                }
            }
        }
    }
    assert_eq!(table.entries(), oracle.len());
    assert_eq!(table.seqno_max(), oracle.keys().map(|(_, Reverse(s))| *s).max());
    assert_eq!(table.seqno_min(), oracle.keys().map(|(_, Reverse(s))| *s).min());
    if freeze {
        assert!(Arc::ptr_eq(&writer.freeze(), &table));
    }
    cursors.push((table.cursor(), oracle.clone(), seqno));
    for (mut cursor, then, at) in cursors {
        check_cursor(&mut cursor, &then, &oracle, at);
    }
    assert_eq!(budget.used(), table.bytes());
    drop(table);
    TestResult::passed()
}

quickcheck! {
    fn few_operations(ops: Vec<Op>, freeze: bool) -> TestResult {
        agrees_with_a_map(ops, freeze)
    }
}

#[test]
fn many_operations() {
    let mut g = Gen::new(if cfg!(miri) { 100 } else { 1500 });
    for round in 0..if cfg!(miri) { 1 } else { 30 } {
        let ops = (0..g.size()).map(|_| Op::arbitrary(&mut g)).collect();
        agrees_with_a_map(ops, round % 2 == 0);
    }
}

#[test]
fn many_keys_and_splits() {
    let many = if cfg!(miri) { 300 } else { 50_000u64 };
    let budget = MemoryBudget::new(1 << 30);
    for keys_hint in [0, 1000, 1 << 20] {
        let (mut writer, table) =
            MemTable::new(MemTableOptions { keys_hint, ..OPTIONS }, budget.reserve(0));
        let key = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        for i in 0..many {
            writer.insert(InternalKey::new(&key(i), i + 1, ValueKind::Put), &i.to_le_bytes());
            if i % 997 == 0 {
                let mut cursor = table.cursor();
                cursor.last().unwrap();
                assert!(cursor.entry().is_some());
            }
        }
        for i in 0..many {
            let found = table.get(&key(i), SEQNO_MAX).unwrap();
            assert_eq!((found.seqno, found.value), (i + 1, &i.to_le_bytes()[..]));
            assert_eq!(table.get(&key(i), i), None);
            assert_eq!(table.get(&key(i + many), SEQNO_MAX), None);
        }
        assert_eq!((table.keys(), table.entries()), (many as usize, many as usize));
        let table = writer.freeze();
        let mut cursor = table.cursor();
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
    let (mut writer, table) = new(&budget);
    let giant = vec![9; if cfg!(miri) { 9000 } else { 32 << 20 }];
    writer.insert(InternalKey::new(b"b", 1, ValueKind::Put), &giant);
    writer.insert(InternalKey::new(b"a", 2, ValueKind::Put), b"small");
    writer.insert(InternalKey::new(b"b", 3, ValueKind::Put), &giant[1..]);
    assert!(writer.is_full() || cfg!(miri));
    assert!(table.get(b"b", 3).unwrap().value == &giant[1..]);
    assert!(table.get(b"b", 2).unwrap().value == giant);
    let mut cursor = table.cursor();
    cursor.seek(InternalKey::seek(b"a", SEQNO_MAX)).unwrap();
    cursor.next().unwrap();
    cursor.next().unwrap();
    assert!(cursor.entry().unwrap().1 == giant);
    assert!(budget.used() >= 2 * giant.len() && budget.used() < 3 * giant.len() + (1 << 20));
    drop((writer, table, cursor));
    assert_eq!(budget.used(), 0);
}

#[test]
fn range_tombstones_count_and_cover() {
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table) = new(&budget);
    assert!(table.is_empty() && !writer.is_full() && table.range_tombstones().is_empty());
    writer.insert(InternalKey::new(b"c", 4, ValueKind::RangeDelete), b"c");
    assert!(table.is_empty() && table.seqno_max().is_none(), "an empty range is nothing");
    writer.insert(InternalKey::new(b"c", 5, ValueKind::RangeDelete), b"f");
    assert!(!table.is_empty() && table.has_range_tombstones());
    assert_eq!((table.seqno_min(), table.seqno_max()), (Some(5), Some(5)));
    let first = table.range_tombstones();
    assert!(Arc::ptr_eq(&first, &table.range_tombstones()));
    writer.insert(InternalKey::new(b"e", 9, ValueKind::RangeDelete), b"h");
    let second = table.range_tombstones();
    assert_eq!((first.cover(b"e", 20), second.cover(b"e", 20)), (5, 9));
    assert_eq!((second.cover(b"e", 8), second.cover(b"b", 20)), (5, 0));
    assert_eq!((table.entries(), table.keys()), (2, 0));
    assert_eq!(table.get(b"c", SEQNO_MAX), None);
    assert_eq!(budget.used(), table.bytes());
    let mut cursor = table.cursor();
    cursor.first().unwrap();
    assert!(cursor.entry().is_none());
}

#[test]
#[should_panic(expected = "versions of a key come in order")]
fn versions_come_in_order() {
    let (mut writer, _) = new(&MemoryBudget::new(1 << 30));
    writer.insert(InternalKey::new(b"k", 2, ValueKind::Put), b"");
    writer.insert(InternalKey::new(b"k", 2, ValueKind::Put), b"");
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
    let budget = MemoryBudget::new(1 << 30);
    let (mut writer, table) = new(&budget);
    let visible = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (table, visible) = (&table, &visible);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                let mut at = 0;
                while at < KEYS * ROUNDS {
                    at = visible.load(Ordering::Acquire);
                    for _ in 0..100 {
                        let k = rng.below(KEYS);
                        let found = table.get(&key(k), at);
                        assert_eq!(found.map(|f| f.seqno), newest(k, at));
                        if let Some(found) = found {
                            assert_eq!(found.value, vec![k as u8; found.seqno as usize % 100]);
                        }
                    }
                    if rng.below(4) > 0 {
                        continue;
                    }
                    let mut cursor = table.cursor();
                    cursor.first().unwrap();
                    let mut seen = 0;
                    let mut last: Option<(Vec<u8>, Reverse<SeqNo>)> = None;
                    while let Some((key, _)) = cursor.entry() {
                        let place = (key.user_key.to_vec(), Reverse(key.seqno));
                        assert!(last.as_ref().is_none_or(|last| *last < place));
                        seen += u64::from(key.seqno <= at);
                        last = Some(place);
                        cursor.next().unwrap();
                    }
                    assert_eq!(seen, at);
                    let mut keys = 0;
                    cursor.last().unwrap();
                    while let Some((key, _)) = cursor.entry() {
                        keys += u64::from(table.get(key.user_key, at).is_some());
                        cursor.prev().unwrap();
                    }
                    assert_eq!(keys, at.min(KEYS));
                }
            });
        }
        for seqno in 1..=KEYS * ROUNDS {
            let k = (seqno - 1) % KEYS;
            let value = vec![k as u8; seqno as usize % 100];
            writer.insert(InternalKey::new(&key(k), seqno, ValueKind::Put), &value);
            visible.store(seqno, Ordering::Release);
        }
    });
}
