//! The small parts, each as far as the public interface reaches it alone: criterion shows which one moved
//! when a workload did. `cargo bench`.
//!
//! | bench | what it exercises |
//! |---|---|
//! | memtable | hash index and arena: put, get, absent, overwrite |
//! | order | sorted runs of a memtable that is scanned |
//! | filter | a table asked for a key that it does not have |
//! | block | a table asked for a key that it has, with all blocks in the cache |
//! | checksum | every byte of a table read and checked |
//! | merge | a scan over four overlapping tables and a memtable |

#![allow(missing_docs)] // criterion's macros make public functions

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Background, ColumnFamily, ColumnFamilyOptions, Db, Env, MemFs, MemoryBudget, Options,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const KEYS: u64 = 100_000;

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&i.to_be_bytes());
    key
}

fn open() -> (Db, ColumnFamily) {
    let env = Env::new(MemoryBudget::new(1 << 30));
    let env = env.with_fs(Arc::new(MemFs::new())).with_background(Background::Inline);
    let options = Options { log: false, ..Options::default() };
    let db = Db::open(Path::new("kernels"), options, env).expect("open");
    let family = db.column_family("state", ColumnFamilyOptions::default()).expect("a family");
    (db, family)
}

fn fill(db: &Db, family: &ColumnFamily, from: u64, step: usize) {
    for i in (from..KEYS).step_by(step) {
        db.put(family, &key(i), &[7; 100]).expect("put");
    }
}

/// Numbers below [`KEYS`] in an order of their own, again and again.
fn next(i: &mut u64) -> u64 {
    *i = (*i + 61_803) % KEYS;
    *i
}

fn memtable(c: &mut Criterion) {
    let (db, family) = open();
    fill(&db, &family, 0, 1);
    let mut i = 0;
    c.bench_function("memtable/get", |b| {
        b.iter(|| db.get_with(&family, &key(next(&mut i)), |value| value.is_some()));
    });
    c.bench_function("memtable/absent", |b| {
        b.iter(|| db.get_with(&family, &key(next(&mut i) + KEYS), |value| value.is_some()));
    });
    c.bench_function("memtable/overwrite", |b| {
        b.iter(|| db.put(&family, &key(next(&mut i)), &[8; 100]));
    });
}

fn tables(c: &mut Criterion) {
    let (db, family) = open();
    fill(&db, &family, 0, 1);
    let mut group = c.benchmark_group("order");
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("scan", |b| b.iter(|| scan(&db, &family)));
    group.finish();
    db.flush_all().expect("flush");
    let mut i = 0;
    c.bench_function("filter/absent", |b| {
        b.iter(|| db.get_with(&family, &key(next(&mut i) + KEYS), |value| value.is_some()));
    });
    c.bench_function("block/get", |b| {
        b.iter(|| db.get_with(&family, &key(next(&mut i)), |value| value.is_some()));
    });
    let bytes = db.stats().flush_bytes;
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("verify", |b| b.iter(|| db.verify()));
    group.finish();
}

fn merge(c: &mut Criterion) {
    let (db, family) = open();
    db.pause_compactions(true);
    for from in 0..5 {
        fill(&db, &family, from, 5);
        if from < 4 {
            db.flush_all().expect("flush");
        }
    }
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("scan", |b| b.iter(|| scan(&db, &family)));
    group.finish();
}

fn scan(db: &Db, family: &ColumnFamily) {
    let mut cursor = db.scan(family, ..).expect("scan");
    let mut entries = 0;
    while cursor.next().expect("a step") {
        entries += 1;
    }
    assert_eq!(entries, KEYS);
}

criterion_group!(kernels, memtable, tables, merge);
criterion_main!(kernels);
