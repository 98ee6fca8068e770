//! What was written is read, each way there is, and the bytes are pinned.

use quickcheck::quickcheck;

use super::*;
use crate::base::error::ErrorKind;
use crate::base::key::{KeyRange, SEQNO_MAX, successor};
use crate::iter::VecIterator;
use crate::iter::range_del::RangeTombstones;
use crate::table::KeyGroupCount;
use crate::table::TimestampExtractor;

#[derive(Clone, Debug)]
struct Shape(TableOptions);

impl Arbitrary for Shape {
    fn arbitrary(g: &mut Gen) -> Shape {
        let codecs: Vec<_> = Codec::ALL.into_iter().filter(|c| c.is_compiled_in()).collect();
        Shape(TableOptions {
            block_bytes: *g.choose(&[64, 100, 256, 1024, 4096]).unwrap(),
            restart_interval: usize::from(u8::arbitrary(g) % 32) + 1,
            codec: *g.choose(&codecs).unwrap(),
            filter_bits_per_key: *g.choose(&[0, 1, 10]).unwrap(),
            key_group_bytes: *g.choose(&[0, 1, 2]).unwrap(),
            timestamp: bool::arbitrary(g).then(|| Arc::new(FirstByte) as _),
            ..TableOptions::default()
        })
    }
}

/// A value's first byte is its timestamp; the empty value has none.
struct FirstByte;

impl TimestampExtractor for FirstByte {
    fn name(&self) -> &str {
        "first byte"
    }
    fn timestamp(&self, _: &[u8], value: &[u8]) -> Option<i64> {
        value.first().map(|&byte| i64::from(byte) - 100)
    }
}

fn tombstones(rng: &mut Rng, count: u64) -> Vec<RangeTombstone> {
    let mut list = Vec::new();
    for i in 0..count {
        let (a, b) = (rng.below(40) as u8, rng.below(40) as u8);
        let (start, end) = (vec![a.min(b), 1], vec![a.max(b), 2]);
        list.push(RangeTombstone { start, end, seqno: 100 + i });
    }
    list
}

fn bounds(list: &[Version], dels: &[RangeTombstone]) -> KeyRange {
    let points = list.iter().map(|v| (v.0.clone(), successor(&v.0)));
    let all = points.chain(dels.iter().map(|d| (d.start.clone(), d.end.clone())));
    let (start, end) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
    KeyRange { start, end: Some(end) }
}

fn walks_alike(table: &Arc<Table>, list: &[Version], seed: u64) -> bool {
    let mut rng = Rng::new(seed);
    let mut oracle = VecIterator::new(list.to_vec());
    let mut iter = table.iter(rng.below(2) == 0);
    for _ in 0..200 {
        let mut key = match list.len() as u64 {
            0 => Vec::new(),
            n => list[rng.below(n) as usize].0.clone(),
        };
        match rng.below(4) {
            0 => key.push(b'a'),
            1 => drop(key.pop()),
            _ => {}
        }
        let at = rng.below(45);
        let both: &mut [&mut dyn InternalIterator] = &mut [&mut oracle, &mut iter];
        let step = rng.below(14);
        let times = if step < 5 { 1 } else { 1 + rng.below(10) };
        for _ in 0..times {
            let on_entry = both[0].is_on_entry();
            for cursor in &mut *both {
                match step {
                    0 => cursor.first(),
                    1 => cursor.last(),
                    2 => cursor.seek_for_prev(&key),
                    3 | 4 => cursor.seek(InternalKey::seek(&key, at)),
                    5..8 if on_entry => cursor.prev(),
                    8..10 if on_entry => cursor.next_user_key(),
                    _ if on_entry => cursor.next(),
                    _ => Ok(()),
                }
                .unwrap();
            }
            if both[0].entry() != both[1].entry() || both[1].is_on_entry() != both[0].is_on_entry()
            {
                return false;
            }
        }
    }
    true
}

quickcheck! {
    fn tables_are_sorted_lists(versions: Versions, shape: Shape, seed: u64) -> bool {
        let list = versions.0;
        let mut rng = Rng::new(seed);
        let count = rng.below(6);
        let dels = tombstones(&mut rng, count);
        let fs = MemFs::new();
        let meta = write(&fs, path(), id(1), &list, &dels, &shape.0);
        let table = open(&fs).unwrap();
        assert_eq!(table.properties(), &meta.properties);
        assert_eq!(meta.bounds, bounds(&list, &dels));
        assert_eq!(**table.range_tombstones(), RangeTombstones::new(dels.clone()));
        let seqnos = || list.iter().map(|v| v.1).chain(dels.iter().map(|d| d.seqno));
        assert_eq!(meta.properties.seqno_min, seqnos().min().unwrap_or(0));
        assert_eq!(meta.properties.seqno_max, seqnos().max().unwrap_or(0));
        table.verify(Some((&meta.digest, meta.checksum))).unwrap();
        table.verify(None).unwrap();
        for sums in [(&[0; 32], meta.checksum), (&meta.digest, 0)] {
            assert_eq!(table.verify(Some(sums)).unwrap_err().kind(), ErrorKind::Corruption);
        }

        assert_eq!(scan(&table, false).unwrap(), list);
        assert_eq!(scan(&table, true).unwrap(), list);
        assert_eq!(scan_back(&table).unwrap(), newest_backward(&list));
        // Once with all blocks in the cache, and once with rows instead of most of them.
        let budget = MemoryBudget::new(4 << 10);
        let cache = BlockCache::<Block>::new(&budget, 4 << 10);
        let file = fs.open(path()).unwrap();
        let rows =
            Table::open(file, path(), id(1), &cache, &MemoryBudget::new(0), VALUE_BYTES_MAX).unwrap();
        for v in list.iter().chain(&list) {
            for (key, at) in [(v.0.clone(), v.1), (v.0.clone(), SEQNO_MAX), (successor(&v.0), 20)] {
                let mine = |v: &&Version| v.0 == key && v.1 <= at;
                let want: Vec<_> = list.iter().filter(mine).cloned().collect();
                assert_eq!(get(&table, &key, at).unwrap(), want);
                assert_eq!(get(&rows, &key, at).unwrap(), want);
            }
        }
        walks_alike(&table, &list, seed)
    }

    fn timestamps_are_kept_only_if_all_have_one(versions: Versions) -> bool {
        let options = TableOptions { timestamp: Some(Arc::new(FirstByte)), ..tiny(Codec::None) };
        let fs = MemFs::new();
        let meta = write(&fs, path(), id(1), &versions.0, &[], &options);
        let valued = || versions.0.iter().filter(|v| v.2 != ValueKind::Delete);
        let all = valued().all(|v| !v.3.is_empty());
        let times = || valued().filter_map(|v| v.3.first()).map(|&byte| i64::from(byte) - 100);
        let table = open(&fs).unwrap();
        let index = table.index();
        let blocks = (0..index.len()).filter_map(|i| index.timestamps(i));
        let least = blocks.map(|(min, _)| min).min();
        meta.properties.timestamp_extractor.as_deref() == Some("first byte")
            && meta.properties.ts_min == times().min().filter(|_| all)
            && meta.properties.ts_max == times().max().filter(|_| all)
            && (!all || least == meta.properties.ts_min)
    }

    fn key_groups_add_up(versions: Versions, split: usize, shape: Shape) -> bool {
        let options = TableOptions { key_group_bytes: 2, ..shape.0 };
        let sum = |parts: &[&[Version]]| {
            let mut all: Vec<KeyGroupCount> = Vec::new();
            for part in parts {
                let fs = MemFs::new();
                all.extend(write(&fs, path(), id(1), part, &[], &options).properties.key_groups);
            }
            all.sort_by_key(|count| count.group);
            all.dedup_by(|b, a| {
                let same = a.group == b.group;
                if same {
                    a.entries += b.entries;
                    a.hash = a.hash.wrapping_add(b.hash);
                }
                same
            });
            all
        };
        let list = &versions.0;
        let (a, b) = list.split_at(split % (list.len() + 1));
        let whole = sum(&[list]);
        let mut other = list.clone();
        // Keys without a group are not counted.
        let counted = other.iter_mut().rfind(|version| version.0.len() >= 2);
        let changed = counted.map(|version| version.3.push(1)).is_some();
        whole == sum(&[a, b]) && (whole != sum(&[&other])) == changed
    }
}

#[test]
fn pinned() {
    let fs = MemFs::new();
    let list = [
        (b"\0\x05a".to_vec(), 2, ValueKind::Put, b"one".to_vec()),
        (b"\0\x05b".to_vec(), 1, ValueKind::Delete, Vec::new()),
    ];
    let dels = [RangeTombstone { start: b"m".to_vec(), end: b"p".to_vec(), seqno: 3 }];
    let meta = write(&fs, path(), id(1), &list, &dels, &TableOptions::default());
    let hex: String = fs.read(path()).iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<_> = hex.as_bytes().chunks(64).map(|c| str::from_utf8(c).unwrap()).collect();
    assert_eq!(lines, PINNED, "{lines:#?}");
    assert_eq!(meta.len, fs.read(path()).len() as u64);
}

const PINNED: &[&str] = &[
    "00030312000561026f6e6502010011620100000000010000000119000000b79c",
    "175a010106000000000000000000000000000200000000000000000005000000",
    "0000020000000040000000000000010000000400000004000100080000000000",
    "000000100000002000000148000000fea1271d000101146d0370000000000100",
    "0000010f0000005f5980500201020401010601000801010a01160c01030e0101",
    "10020103160102180a05026f2959305ea0563e1a060300056101700130000000",
    "d86797a900030201000562001900000000010000000111000000591da26e3412",
    "0000000000000100000000000000220000000000000048000000730000000000",
    "00000f0000008b0000000000000030000000c40000000000000011000000917f",
    "732889414c56540d0a1a0000000000000000",
];

#[test]
fn an_empty_table_is_a_table() {
    let fs = MemFs::new();
    let meta = write(&fs, path(), id(1), &[], &[], &TableOptions::default());
    assert!(meta.bounds.is_empty());
    let table = open(&fs).unwrap();
    table.verify(Some((&meta.digest, meta.checksum))).unwrap();
    assert!(scan(&table, true).unwrap().is_empty() && scan_back(&table).unwrap().is_empty());
    assert!(get(&table, b"x", 5).unwrap().is_empty());
    let mut iter = table.iter(true);
    iter.seek_for_prev(b"x").unwrap();
    assert!(iter.entry().is_none());
    assert_eq!(table.approximate_offset(b"x"), 0);
}

#[test]
#[should_panic(expected = "in order")]
fn entries_out_of_order_are_a_bug() {
    let fs = MemFs::new();
    let file = fs.create(path()).unwrap();
    let mut builder = TableBuilder::new(file, path(), id(1), TableOptions::default()).unwrap();
    builder.add(InternalKey::new(b"b", 1, ValueKind::Put), b"").unwrap();
    builder.add(InternalKey::new(b"b", 1, ValueKind::Put), b"").unwrap();
}

#[test]
fn large_values_and_long_keys() {
    let fs = MemFs::new();
    let list: Vec<Version> = (0..6u8)
        .map(|i| (vec![i; 60_000], 5, ValueKind::Put, vec![i; 300_000 + usize::from(i)]))
        .collect();
    for codec in Codec::ALL.into_iter().filter(|codec| codec.is_compiled_in()) {
        let path = format!("/{}.sst", codec.name());
        let path = Path::new(&path);
        let meta = write(&fs, path, id(1), &list, &[], &tiny(codec));
        let table = open_as(&fs, path, id(1)).unwrap();
        assert_eq!(scan(&table, false).unwrap(), list);
        assert_eq!(scan_back(&table).unwrap(), newest_backward(&list));
        table.verify(Some((&meta.digest, meta.checksum))).unwrap();
    }
    let file = fs.create(path()).unwrap();
    let mut builder = TableBuilder::new(file, path(), id(1), TableOptions::default()).unwrap();
    let e = builder.add(InternalKey::new(&vec![0; (64 << 10) + 1], 1, ValueKind::Put), b"");
    assert_eq!(e.unwrap_err().kind(), ErrorKind::InvalidArgument);
}
