//! Whole tables: round trips, pinned bytes, damage.

use std::path::Path;

use quickcheck::{Arbitrary, Gen, quickcheck};

use crate::base::error::{ErrorKind, Result};
use crate::base::id::{FileId, FileNumber};
use crate::base::key::{InternalKey, KeyRange, SEQNO_MAX, SeqNo, ValueKind, successor};
use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::iter::range_del::{RangeTombstone, RangeTombstones};
use crate::iter::{InternalIterator, VecIterator, Version};
use crate::table::Block;
use crate::table::Codec;
use crate::table::KeyGroupCount;
use crate::table::Table;
use crate::table::TableBuilder;
use crate::table::TableIterator;
use crate::table::TableMeta;
use crate::table::TableOptions;
use crate::table::TimestampExtractor;
use crate::table::filter::key_hash;
use crate::table::format::{BLOCK_TRAILER_BYTES, FOOTER_BYTES, Footer, put_block};

/// Sorted versions of keys that have much in common, without duplicates.
#[derive(Clone, Debug)]
pub struct Versions(pub Vec<Version>);

impl Arbitrary for Versions {
    fn arbitrary(g: &mut Gen) -> Versions {
        let mut rng = Rng::new(u64::arbitrary(g));
        let count = rng.below(3 * g.size() as u64 + 1);
        let spread = 1 + rng.below(40);
        let mut list = Vec::new();
        for _ in 0..count {
            let mut key = Vec::new();
            for _ in 0..rng.below(4).min(1) * 2 {
                key.push(rng.below(3) as u8);
            }
            if rng.below(10) == 0 {
                key.extend_from_slice(&[b'p'; 150]);
            }
            for _ in 0..rng.below(5) {
                key.push(b"\0ab\xff"[rng.below(4) as usize]);
            }
            let kind = ValueKind::from_byte(1 + rng.below(3) as u8).unwrap();
            let value_len = if rng.below(20) == 0 { 300 } else { rng.below(20) };
            let value = vec![rng.below(256) as u8; value_len as usize];
            list.push((key, rng.below(spread), kind, value));
        }
        list.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        list.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1));
        Versions(list)
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Versions>> {
        let list = self.0.clone();
        let halves = [list[..list.len() / 2].to_vec(), list[list.len() / 2..].to_vec()];
        let shorter = move |n: &Vec<Version>| n.len() < list.len();
        let list = self.0.clone();
        let without = (0..list.len()).map(move |i| {
            let mut list = list.clone();
            list.remove(i);
            list
        });
        Box::new(halves.into_iter().filter(shorter).chain(without).map(Versions))
    }
}

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

const ID: u64 = 0x1234;

fn id(n: u64) -> FileId {
    FileId::new(ID, FileNumber(n))
}

fn path() -> &'static Path {
    Path::new("/t.sst")
}

fn write(
    fs: &MemFs,
    path: &Path,
    id: FileId,
    list: &[Version],
    dels: &[RangeTombstone],
    options: &TableOptions,
) -> TableMeta {
    let file = fs.create(path).unwrap();
    let mut builder = TableBuilder::new(file, path, id, options.clone()).unwrap();
    let mut dels = dels.iter();
    for (key, seqno, kind, value) in list {
        builder.add(InternalKey::new(key, *seqno, *kind), value).unwrap();
        if let Some(del) = dels.next() {
            builder.add_range_tombstone(del).unwrap();
        }
    }
    dels.for_each(|del| builder.add_range_tombstone(del).unwrap());
    assert_eq!(builder.entries(), list.len() as u64);
    let meta = builder.finish().unwrap();
    let bytes = fs.read(path);
    assert_eq!(meta.len, bytes.len() as u64);
    assert_eq!(meta.digest, *blake3::hash(&bytes).as_bytes());
    assert_eq!(meta.checksum, xxhash_rust::xxh3::xxh3_128(&bytes));
    meta
}

fn open_as(fs: &MemFs, path: &Path, id: FileId) -> Result<Arc<Table>> {
    let budget = MemoryBudget::new(8 << 20);
    let cache = BlockCache::<Block>::new(&budget, 4 << 20);
    Table::open(fs.open(path)?, path, id, &cache, &budget, VALUE_BYTES_MAX)
}

fn open(fs: &MemFs) -> Result<Arc<Table>> {
    open_as(fs, path(), id(1))
}

fn get(table: &Table, key: &[u8], at: SeqNo) -> Result<Vec<Version>> {
    let mut got = Vec::new();
    table.get(key, key_hash(key), at, &mut |seqno, kind, value| {
        got.push((key.to_vec(), seqno, kind, value.to_vec()));
        true
    })?;
    Ok(got)
}

fn scan(table: &Arc<Table>, fill_cache: bool) -> Result<Vec<Version>> {
    let mut iter = table.iter(fill_cache);
    iter.first()?;
    go_on(iter)
}

fn scan_from(table: &Arc<Table>, target: &Version) -> Result<Vec<Version>> {
    let mut iter = table.iter(true);
    iter.seek(InternalKey::new(&target.0, target.1, target.2))?;
    go_on(iter)
}

fn go_on(mut iter: TableIterator) -> Result<Vec<Version>> {
    let mut list = Vec::new();
    while let Some((key, value)) = iter.entry() {
        list.push((key.user_key.to_vec(), key.seqno, key.kind, value.to_vec()));
        iter.next()?;
    }
    Ok(list)
}

fn is_sorted(list: &[Version]) -> bool {
    list.is_sorted_by(|a, b| InternalKey::new(&a.0, a.1, a.2) < InternalKey::new(&b.0, b.1, b.2))
}

fn scan_back(table: &Arc<Table>) -> Result<Vec<Version>> {
    let mut iter = table.iter(true);
    let mut list = Vec::new();
    iter.last()?;
    while let Some((key, value)) = iter.entry() {
        list.push((key.user_key.to_vec(), key.seqno, key.kind, value.to_vec()));
        iter.prev()?;
    }
    Ok(list)
}

fn newest_backward(list: &[Version]) -> Vec<Version> {
    let mut newest = list.to_vec();
    newest.dedup_by(|b, a| a.0 == b.0);
    newest.reverse();
    newest
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

fn tiny(codec: Codec) -> TableOptions {
    TableOptions { block_bytes: 100, restart_interval: 3, codec, ..TableOptions::default() }
}

/// A small table with every kind of block, and a key whose versions span blocks.
fn small() -> (Vec<Version>, Vec<RangeTombstone>) {
    let mut list = Vec::new();
    for i in 0..4u8 {
        list.push((vec![0, i, b'k'], 40 + u64::from(i), ValueKind::Put, vec![i; 12]));
    }
    for seqno in (1..8).rev() {
        list.push((b"hot".to_vec(), seqno, ValueKind::Merge, b"aaaaaaaaaaaaaaaaaaaa".to_vec()));
    }
    list.push((b"zoo".to_vec(), 9, ValueKind::Delete, Vec::new()));
    let del = RangeTombstone { start: b"a".to_vec(), end: b"c".to_vec(), seqno: 50 };
    (list, vec![del])
}

/// Everything that can be asked of a table.
fn answers(table: &Arc<Table>, list: &[Version]) -> Result<Vec<Vec<Version>>> {
    let mut all = vec![scan(table, true)?, scan_back(table)?, scan(table, false)?];
    for v in list {
        all.push(get(table, &v.0, v.1)?);
    }
    let mut iter = table.iter(true);
    for v in list {
        iter.seek_for_prev(&v.0)?;
        all.push(
            iter.entry()
                .map(|(k, v)| (k.user_key.to_vec(), k.seqno, k.kind, v.to_vec()))
                .into_iter()
                .collect(),
        );
    }
    Ok(all)
}

/// Every answer of a damaged table must be right or a refusal that names the place. `true` if the
/// damage was found.
fn judge(fs: &MemFs, list: &[Version], want: &[Vec<Version>], len: u64, what: &str) -> bool {
    let check = |e: crate::base::error::Error| {
        let known = matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Unsupported);
        assert!(known, "{what}: {e}");
        assert_eq!(e.path(), Some(path()), "{what}: {e}");
        assert!(e.offset().is_some_and(|offset| offset <= len), "{what}: {e}");
    };
    let table = match open(fs) {
        Ok(table) => table,
        Err(e) => {
            check(e);
            return true;
        }
    };
    match answers(&table, list) {
        Ok(got) => assert_eq!(got, want, "{what}"),
        Err(e) => check(e),
    }
    match table.verify(None) {
        Ok(()) => false,
        Err(e) => {
            check(e);
            true
        }
    }
}

#[test]
fn no_changed_byte_passes() {
    for codec in Codec::ALL.into_iter().filter(|codec| codec.is_compiled_in()) {
        let (list, dels) = small();
        let fs = MemFs::new();
        let meta = write(&fs, path(), id(1), &list, &dels, &tiny(codec));
        assert!(meta.properties.data_blocks > 2);
        let want = answers(&open(&fs).unwrap(), &list).unwrap();
        let good = fs.read(path());
        for (at, &byte) in good.iter().enumerate() {
            for bad in [byte ^ 0x01, byte ^ 0x80, 0, 0xff] {
                if bad == byte {
                    continue;
                }
                let what = format!("{codec:?}, byte {at} = {bad:#04x}");
                fs.corrupt(path(), at as u64, byte ^ bad);
                assert!(judge(&fs, &list, &want, meta.len, &what), "{what}: not found");
                fs.corrupt(path(), at as u64, byte ^ bad);
            }
        }
        assert!(!judge(&fs, &list, &want, meta.len, "whole"));
        for len in 0..good.len() {
            fs.write(path(), &good[..len]);
            let what = format!("{codec:?}, cut to {len}");
            assert!(judge(&fs, &list, &want, meta.len, &what), "{what}: not found");
        }
        fs.write(path(), &[&good[..], &[0]].concat());
        assert!(judge(&fs, &list, &want, meta.len + 1, "a byte more"));
    }
}

/// The blocks of a table file: offset and stored length.
fn blocks(table: &Table, footer: &Footer) -> Vec<(u64, u32)> {
    let index = table.index();
    let data = (0..index.len()).map(|i| index.handle(i));
    data.chain(footer.parts().into_iter().flatten()).map(|h| (h.offset, h.len)).collect()
}

#[test]
fn forged_checksums_cause_no_panic() {
    for codec in Codec::ALL.into_iter().filter(|codec| codec.is_compiled_in()) {
        let (list, dels) = small();
        let fs = MemFs::new();
        write(&fs, path(), id(1), &list, &dels, &tiny(codec));
        let good = fs.read(path());
        let footer_at = good.len() - FOOTER_BYTES;
        let footer = Footer::decode(&good[footer_at..], footer_at as u64, &id(1)).unwrap();
        let table = open(&fs).unwrap();
        for (offset, len) in blocks(&table, &footer) {
            let (start, len) = (offset as usize, len as usize);
            for at in start..start + len + 5 {
                for value in [good[at] ^ 1, good[at] ^ 0x80, 0, 1, 0x7f, 0xff] {
                    let mut bytes = good.clone();
                    bytes[at] = value;
                    let stored = bytes[start..start + len].to_vec();
                    let raw_len = &bytes[start + len + 1..start + len + 5];
                    let raw_len = u32::from_le_bytes(raw_len.try_into().unwrap());
                    let mut block = Vec::new();
                    let Some(codec) = Codec::from_byte(bytes[start + len]) else { continue };
                    put_block(&mut block, &id(1), offset, codec, &stored, raw_len);
                    bytes[start..start + len + BLOCK_TRAILER_BYTES].copy_from_slice(&block);
                    fs.write(path(), &bytes);
                    if let Ok(table) = open(&fs) {
                        let _ = answers(&table, &list);
                        for fill_cache in [false, true] {
                            // What cannot be in order is refused on the way.
                            if let Ok(list) = scan(&table, fill_cache) {
                                let is_data = |v: &Version| v.2 != ValueKind::RangeDelete;
                                assert!(is_sorted(&list) && list.iter().all(is_data));
                            }
                        }
                        for target in [&list[1], &list[list.len() / 2]] {
                            if let Ok(found) = scan_from(&table, target) {
                                let at = |v: &Version| {
                                    InternalKey::new(&v.0, v.1, v.2)
                                        >= InternalKey::new(&target.0, target.1, target.2)
                                };
                                assert!(is_sorted(&found) && found.first().is_none_or(at));
                            }
                        }
                        let _ = table.verify(None);
                        table.approximate_offset(b"hot");
                    }
                }
            }
        }
    }
}

#[test]
fn swapped_files_and_blocks_are_found_out() {
    let (list, dels) = small();
    let other = Path::new("/u.sst");
    let fs = MemFs::new();
    write(&fs, path(), id(1), &list, &dels, &tiny(Codec::None));
    write(&fs, other, id(2), &list, &dels, &tiny(Codec::None));
    let (one, two) = (fs.read(path()), fs.read(other));
    for (path, id) in [(path(), id(2)), (other, id(1))] {
        let e = open_as(&fs, path, id).err().unwrap();
        assert_eq!((e.kind(), e.path()), (ErrorKind::Corruption, Some(path)));
        assert!(e.to_string().contains("another file's identity"), "{e}");
    }
    // A block from the same offset of the other file, which is sound there.
    let table = open(&fs).unwrap();
    for i in 0..table.index().len() {
        let handle = table.index().handle(i);
        let range = handle.offset as usize..handle.end().unwrap() as usize;
        let mut mixed = one.clone();
        mixed[range.clone()].copy_from_slice(&two[range]);
        fs.write(path(), &mixed);
        let e = open(&fs).unwrap().verify(None).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(handle.offset)));
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

#[test]
fn read_errors_surface() {
    let (list, dels) = small();
    let fs = MemFs::new();
    let meta = write(&fs, path(), id(1), &list, &dels, &tiny(Codec::None));
    let table = open(&fs).unwrap();
    fs.truncate(path(), 1);
    assert!(scan(&table, true).is_err() && scan_back(&table).is_err());
    assert!(list.iter().all(|v| get(&table, &v.0, v.1).is_err()));
    assert!(table.verify(Some((&meta.digest, meta.checksum))).is_err());
}

#[test]
fn write_errors_surface() {
    let (list, _) = small();
    for ops in 1..4 {
        let fs = MemFs::new();
        let file = fs.create(path()).unwrap();
        fs.crash_after(Some(ops));
        let mut builder = TableBuilder::new(file, path(), id(1), tiny(Codec::None)).unwrap();
        for (key, seqno, kind, value) in &list {
            builder.add(InternalKey::new(key, *seqno, *kind), value).unwrap();
        }
        match builder.finish() {
            Ok(_) => assert_eq!(ops, 3),
            Err(e) => assert_eq!((e.kind(), e.path()), (ErrorKind::Io, Some(path()))),
        }
    }
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
