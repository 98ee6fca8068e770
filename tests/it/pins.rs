//! Memory that readers hold: writers are told at once, and by whom.

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Background, ColumnFamily, ColumnFamilyOptions, Db, Env, ErrorKind, MemFs, MemoryBudget, Options,
};

const LIMIT: usize = 1 << 20;

/// A database whose stalled writers wait for ever, unless there is nothing to wait for.
fn open(background: Background) -> (Db, ColumnFamily) {
    let options = Options {
        log: false,
        stall_ms_max: u64::MAX,
        memtables_bytes_min: 0,
        ..Options::default()
    };
    let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(LIMIT), 1)
        .with_background(background);
    let db = Db::open(Path::new("db"), options, env).unwrap();
    let family = db.column_family("held", ColumnFamilyOptions::default()).unwrap();
    (db, family)
}

/// Writes until the budget has so many bytes more; the memtable is not flushed meanwhile.
fn grow(db: &Db, family: &ColumnFamily, bytes: usize) {
    let until = db.stats().memory_used + bytes;
    let flushes = db.stats().flushes;
    let mut n = 0u32;
    while db.stats().memory_used < until {
        db.put(family, &n.to_be_bytes(), &[7; 100]).unwrap();
        n += 1;
    }
    assert_eq!(db.stats().flushes, flushes, "memory was short too early");
}

/// Writes until that is refused, which must be before a memtable is worth a flush.
fn busy(db: &Db, family: &ColumnFamily) -> String {
    let flushes = db.stats().flushes;
    let mut puts = (0..2_000u32).map(|n| db.put(family, &n.to_be_bytes(), &[7; 100]));
    let error = puts.find_map(Result::err).expect("there is no memory");
    assert_eq!(db.stats().flushes, flushes, "a flush frees nothing that is held");
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    error.to_string()
}

/// Nearly all there is, each too small beside those before to be flushed for want of memory; their
/// order takes another sixth.
const SHARES: [usize; 3] = [LIMIT / 20 * 8, LIMIT / 20 * 6, LIMIT / 20 * 2];

const MODES: [Background; 2] = [Background::Inline, Background::Threads(1)];

#[test]
fn open_scans_that_hold_all_memory_are_named() {
    for mode in MODES {
        let (db, family) = open(mode);
        let mut scans = Vec::new();
        for share in SHARES {
            grow(&db, &family, share);
            scans.push(db.scan(&family, ..).unwrap());
            db.flush(&family).unwrap();
        }
        let text = busy(&db, &family);
        assert!(text.contains("family \"held\"") && text.contains("3 open scans"), "{text}");
        // Reads go on, and what is held is seen.
        assert!(db.get(&family, &[0; 4]).unwrap().is_some() && scans[0].next().unwrap());
        scans[1].refresh().unwrap();
        db.put(&family, b"key", b"value").unwrap();
        scans.clear();
        db.put(&family, b"key", b"value").unwrap();
        db.close().unwrap();
    }
}

#[test]
fn a_resting_reader_that_holds_all_memory_is_named() {
    for mode in MODES {
        let (db, family) = open(mode);
        let mut readers = Vec::new();
        for share in SHARES {
            grow(&db, &family, share);
            let mut reader = db.reader(&family).unwrap();
            reader.get_with(&[0; 4], |value| assert!(value.is_some())).unwrap();
            readers.push(reader);
            db.flush(&family).unwrap();
        }
        let text = busy(&db, &family);
        assert!(text.contains("3 resting readers"), "{text}");
        readers[0].release();
        db.put(&family, b"key", b"value").unwrap();
        // A read looks for newer memtables, and lets go of the old ones.
        readers[1].get_with(b"key", |value| assert_eq!(value, Some(&b"value"[..]))).unwrap();
        db.close().unwrap();
    }
}

/// Memory that is short for other reasons than what is held is nobody's fault: writers go on.
#[test]
fn who_holds_little_is_not_to_blame() {
    let (db, family) = open(Background::Inline);
    let other = db.column_family("other", ColumnFamilyOptions::default()).unwrap();
    db.put(&other, b"key", b"value").unwrap();
    let _scan = db.scan(&other, ..).unwrap();
    db.flush(&other).unwrap();
    for n in 0..20_000u32 {
        db.put(&family, &n.to_be_bytes(), &[7; 100]).unwrap();
        if n % 64 == 0 {
            db.step(0).unwrap();
        }
    }
    assert!(db.stats().flushes > 1, "memory was short");
}
