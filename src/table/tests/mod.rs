//! Whole tables: round trips, pinned bytes, damage.

use std::path::Path;

use quickcheck::{Arbitrary, Gen};

use crate::base::error::Result;
use crate::base::id::{FileId, FileNumber};
use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::iter::range_del::RangeTombstone;
use crate::iter::{InternalIterator, Version};
use crate::table::Block;
use crate::table::Codec;
use crate::table::Table;
use crate::table::TableBuilder;
use crate::table::TableIterator;
use crate::table::TableMeta;
use crate::table::TableOptions;
use crate::table::filter::key_hash;

mod caches;
mod damage;
mod round_trips;

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

fn go_on(mut iter: TableIterator) -> Result<Vec<Version>> {
    let mut list = Vec::new();
    while let Some((key, value)) = iter.entry() {
        list.push((key.user_key.to_vec(), key.seqno, key.kind, value.to_vec()));
        iter.next()?;
    }
    Ok(list)
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

fn tiny(codec: Codec) -> TableOptions {
    TableOptions { block_bytes: 100, restart_interval: 3, codec, ..TableOptions::default() }
}
