//! What reading the database's code with fresh eyes brought up, one test each.

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Db, Env, ErrorKind, Fault, FaultEffect, FaultFs, FaultOp, Fs, ImportFamily, ImportSource, Keep,
    KeyRange, MemFs, MemoryBudget, Options, Update, WriteBatch, WriteOptions,
};

use crate::basic::small;

fn env(fs: impl Fs, seed: u64) -> Env {
    Env::simulated(Arc::new(fs), MemoryBudget::new(64 << 20), seed)
}

fn open(fs: impl Fs, seed: u64) -> Db {
    Db::open(Path::new("db"), Options::default(), env(fs, seed)).unwrap()
}

#[test]
fn a_checkpoint_takes_memtables_that_were_rotated_before_it() {
    let db = open(MemFs::new(), 1);
    let a = db.column_family("a", small()).unwrap();
    let b = db.column_family("b", small()).unwrap();
    // The last put fills the memtable of `a`, which is rotated; `b` goes on alone.
    let mut i = 0u32;
    while db.stats().families[0].immutables == 0 {
        db.put(&a, &i.to_be_bytes(), &[7; 100]).unwrap();
        i += 1;
    }
    db.put(&b, b"key", b"value").unwrap();
    let pending = db.checkpoint().unwrap();
    db.put(&a, b"later", b"value").unwrap();
    let set = pending.wait().unwrap();
    assert!(set.families().iter().all(|family| set.tables_of(family).count() == 1));
}

#[test]
fn a_flush_leaves_no_half_batch_behind() {
    let fs = MemFs::new();
    let db = open(fs.clone(), 1);
    let a = db.column_family("a", small()).unwrap();
    let b = db.column_family("b", small()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&a, b"key", b"value");
    batch.put(&b, b"key", b"value");
    db.write(&batch, WriteOptions::default()).unwrap();
    db.flush(&a).unwrap();
    let db = open(fs.crash_image(Keep::Nothing, 1), 2);
    let get = |name| {
        let family = db.column_family(name, small()).unwrap();
        db.get(&family, b"key").unwrap()
    };
    assert_eq!(get("a"), get("b"));
}

#[test]
fn opening_after_a_close_may_crash_anywhere() {
    for log in [true, false] {
        for n in 0.. {
            let fs = MemFs::new();
            let options = |log| Options { log, ..Options::default() };
            let db = Db::open(Path::new("db"), options(log), env(fs.clone(), 1)).unwrap();
            let a = db.column_family("a", small()).unwrap();
            db.put(&a, b"key", b"value").unwrap();
            db.close().unwrap();
            fs.crash_after(Some(fs.ops() + n));
            let done = Db::open(Path::new("db"), options(true), env(fs.clone(), 2)).is_ok();
            for keep in [Keep::Nothing, Keep::All, Keep::Torn] {
                let db = open(fs.crash_image(keep, n), 3);
                let a = db.column_family("a", small()).unwrap();
                assert_eq!(db.get(&a, b"key").unwrap().unwrap(), b"value");
            }
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_drop_that_fails_has_not_happened() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let db = open(fs.clone(), 1);
    let a = db.column_family("a", small()).unwrap();
    db.put(&a, b"key", b"value").unwrap();
    let fault = Fault::new(FaultOp::Append, 0).sticky().effect(FaultEffect::NoSpace);
    fs.plan(fault.suffix(".manifest"));
    assert_eq!(db.drop_column_family(&a).unwrap_err().kind(), ErrorKind::NoSpace);
    fs.clear();
    assert_eq!(db.get(&a, b"key").unwrap().unwrap(), b"value");
    db.flush(&a).unwrap();
    db.drop_column_family(&a).unwrap();
    assert_eq!(db.get(&a, b"key").unwrap_err().kind(), ErrorKind::NotFound);
    db.close().unwrap();
}

#[test]
fn a_failure_that_has_passed_is_not_reported_again() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    let db = open(fs.clone(), 1);
    let a = db.column_family("a", small()).unwrap();
    db.put(&a, b"key", b"value").unwrap();
    fs.plan(Fault::new(FaultOp::Append, 0).effect(FaultEffect::NoSpace).suffix(".sst"));
    assert_eq!(db.flush(&a).unwrap_err().kind(), ErrorKind::NoSpace);
    db.flush(&a).unwrap();
}

#[test]
fn a_seal_without_space_stops_nothing() {
    for sync in [true, false] {
        let fs = FaultFs::new(Arc::new(MemFs::new()));
        let db = open(fs.clone(), 1);
        let a = db.column_family("a", small()).unwrap();
        let mut batch = WriteBatch::new();
        batch.put(&a, b"key", b"value");
        fs.plan(Fault::new(FaultOp::Append, 1).effect(FaultEffect::NoSpace).suffix(".log"));
        db.write(&batch, WriteOptions { sync: true }).unwrap();
        assert_eq!(fs.struck(), 1, "the seal");
        if sync {
            db.sync_wal().unwrap();
        }
        db.put(&a, b"other", b"value").unwrap();
        drop(db);
        let db = open(fs, 2);
        let a = db.column_family("a", small()).unwrap();
        assert!(db.get(&a, b"key").unwrap().is_some() && db.get(&a, b"other").unwrap().is_some());
    }
}

#[test]
fn a_reader_does_not_hold_the_directory() {
    let fs = MemFs::new();
    let db = open(fs.clone(), 1);
    let a = db.column_family("a", small()).unwrap();
    db.put(&a, b"key", b"value").unwrap();
    let mut reader = db.reader(&a).unwrap();
    let pending = db.checkpoint().unwrap();
    drop(db);
    let again = open(fs, 2);
    reader.get_with(b"key", |value| assert_eq!(value, Some(&b"value"[..]))).unwrap();
    assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::Halted);
    drop(again);
}

#[test]
fn an_update_of_a_dropped_family_ends() {
    let db = open(MemFs::new(), 1);
    let a = db.column_family("a", small()).unwrap();
    let outcome = db.update(&a, b"key", |_, _| {
        let _ = db.drop_column_family(&a);
        Update::Put
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_import_refuses_short_tables() {
    let fs = MemFs::new();
    let db = open(fs.clone(), 1);
    let a = db.column_family("a", small()).unwrap();
    db.put(&a, b"key", b"value").unwrap();
    let set = db.checkpoint().unwrap().wait().unwrap();
    let family = &set.families()[0];
    let table = set.tables().next().unwrap();
    let of = ImportFamily::of(&set, family).unwrap();
    fs.truncate(&table.path, table.len - 1);
    let source = ImportSource {
        seqno: set.seqno(),
        clip: KeyRange::new(*b"", None::<&[u8]>),
        families: vec![ImportFamily { census: Vec::new(), ..of }],
    };
    let copy = Db::import(Path::new("copy"), Options::default(), env(fs, 2), &[source]);
    assert_eq!(copy.unwrap_err().kind(), ErrorKind::Corruption);
}
