//! What a power cut may take, and what the engine may ask of files that are no longer there: cases
//! that the model found.

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    ColumnFamilyOptions, Db, Env, ErrorKind, Fault, FaultFs, FaultOp, Fs, Keep, MemFs,
    MemoryBudget, Options, WriteBatch, WriteOptions,
};

fn open(fs: &MemFs, seed: u64) -> Db {
    let options = Options { log_segment_bytes: 1 << 10, ..Options::default() };
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), seed);
    Db::open(Path::new("db"), options, env).unwrap()
}

#[test]
fn a_sync_passes_by_segments_that_a_flush_has_made_superfluous() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
    for i in 0..50u8 {
        db.put(&a, &[i], &[i; 100]).unwrap(); // several segments, none of them synced
    }
    db.flush_all().unwrap();
    db.put(&a, b"later", b"1").unwrap();
    db.sync_wal().unwrap();
    drop(db);
    let db = open(&fs.crash_image(Keep::Nothing, 1), 2);
    let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
    assert_eq!(db.get(&a, b"later").unwrap().unwrap(), b"1");
    assert_eq!(db.get(&a, &[49]).unwrap().unwrap(), [49; 100]);
}

#[test]
fn a_flush_of_one_family_tears_no_batch_over_two() {
    for keep in [Keep::Nothing, Keep::Torn] {
        for seed in 0..20 {
            let fs = MemFs::new();
            let db = open(&fs, 1);
            let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
            let b = db.column_family("b", ColumnFamilyOptions::default()).unwrap();
            for i in 0..30u8 {
                let mut batch = WriteBatch::new();
                batch.put(&a, &[i], &[i; 50]);
                batch.put(&b, &[i], &[i; 50]);
                db.write(&batch, WriteOptions::default()).unwrap();
            }
            db.flush(&a).unwrap();
            let db = open(&fs.crash_image(keep, seed), 2);
            let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
            let b = db.column_family("b", ColumnFamilyOptions::default()).unwrap();
            for i in 0..30u8 {
                assert!(db.get(&a, &[i]).unwrap().is_some(), "{keep:?}: {i} was flushed");
                assert!(db.get(&b, &[i]).unwrap().is_some(), "{keep:?}: half of batch {i}");
            }
        }
    }
}

/// Found by the damage harness of the simulation: only the manifest knows that a flush of one family
/// had synced the log for the older commits of another.
#[test]
fn what_a_flush_had_synced_of_the_log_is_missed() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
    let b = db.column_family("b", ColumnFamilyOptions::default()).unwrap();
    db.put(&b, b"older", b"1").unwrap();
    db.put(&a, b"newer", b"2").unwrap();
    db.flush(&a).unwrap();
    let fs = fs.crash_image(Keep::All, 0);
    let log = fs.list(Path::new("db")).unwrap().into_iter().find(|f| f.name.ends_with(".log"));
    let log = Path::new("db").join(log.unwrap().name);
    fs.corrupt(&log, 60 + 32 + 3, 1); // the payload of the first record
    let options = Options { log_segment_bytes: 1 << 10, ..Options::default() };
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), 2);
    let e = Db::open(Path::new("db"), options, env).map(drop).unwrap_err();
    assert_eq!((e.kind(), e.path(), e.offset()), (ErrorKind::Corruption, Some(&*log), Some(60)));
}

#[test]
fn a_checkpoint_completes_though_the_last_write_was_to_another_family() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let options =
        || ColumnFamilyOptions { memtable_bytes_max: 4 << 10, ..ColumnFamilyOptions::default() };
    let a = db.column_family("a", options()).unwrap();
    let b = db.column_family("b", options()).unwrap();
    for i in 0..200u8 {
        db.put(&a, &[i], &[i; 50]).unwrap(); // several memtables, full and waiting
        db.put(&b, &[i], b"b").unwrap();
        let pending = db.checkpoint().unwrap();
        db.put(&a, &[i], &[i; 60]).unwrap();
        if i % 2 == 0 {
            drop(pending);
        } else {
            assert_eq!(pending.wait().unwrap().families().len(), 2);
        }
        db.put(&a, &[i], &[i; 70]).unwrap();
    }
    // A memtable of `a` was full, and is waiting, when `b` takes the last sequence number.
    let mut i = 0u32;
    while db.stats().families[0].immutables == 0 {
        db.put(&a, &i.to_le_bytes(), &[1; 50]).unwrap();
        i += 1;
    }
    let last = db.snapshot().seqno();
    db.put(&b, b"last", b"b").unwrap();
    let pending = db.checkpoint().unwrap();
    assert!(pending.seqno() > last);
    db.put(&a, b"behind", b"it").unwrap();
    db.flush_all().unwrap();
    assert_eq!(pending.wait().unwrap().seqno(), last + 1);
}

#[test]
fn what_is_shown_after_a_failed_sync_and_a_reopening_stays() {
    let fs = MemFs::new();
    let faults = FaultFs::new(Arc::new(fs.clone()));
    let open = |fs: Arc<dyn Fs>, seed| {
        let env = Env::simulated(fs, MemoryBudget::new(64 << 20), seed);
        Db::open(Path::new("db"), Options::default(), env)
    };
    let db = open(Arc::new(faults.clone()), 1).unwrap();
    let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
    let b = db.column_family("b", ColumnFamilyOptions::default()).unwrap();
    db.put(&a, b"before", b"1").unwrap();
    db.sync_wal().unwrap();
    db.put(&a, b"k", b"2").unwrap();
    db.put(&b, b"k", b"3").unwrap();
    // The pages are in memory, and the system takes them for written: no later sync writes them.
    faults.plan(Fault::new(FaultOp::Sync, 0));
    assert_eq!(db.sync_wal().unwrap_err().kind(), ErrorKind::CommitUnknown);
    drop(db);
    let shown = |db: &Db| {
        let get = |name, key| {
            let family = db.column_family(name, ColumnFamilyOptions::default()).unwrap();
            db.get(&family, key).unwrap()
        };
        [get("a", &b"before"[..]), get("a", b"k"), get("b", b"k")]
    };
    let db = open(Arc::new(fs.clone()), 2).unwrap();
    let before = shown(&db);
    assert_eq!(before, [Some(b"1".to_vec()), Some(b"2".to_vec()), Some(b"3".to_vec())]);
    let image = fs.crash_image(Keep::Nothing, 0);
    let db = open(Arc::new(image), 3).expect("what was recovered can be recovered again");
    assert_eq!(shown(&db), before);
}

/// A counter that is counted for ever fills no memtable; the log must not grow for ever either.
#[test]
fn a_log_that_outgrows_its_bound_is_flushed() {
    let fs = MemFs::new();
    let options = Options { log_segment_bytes: 1 << 10, log_segments_max: 3, ..Options::default() };
    let env = || Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 1);
    let db = Db::open(Path::new("db"), options.clone(), env()).unwrap();
    let hot = db.column_family("hot", ColumnFamilyOptions::default()).unwrap();
    let cold = db.column_family("cold", ColumnFamilyOptions::default()).unwrap();
    db.put(&cold, b"once", b"1").unwrap();
    let logs = || {
        let names = fs.list(Path::new("db")).unwrap().into_iter().map(|listed| listed.name);
        names.filter(|name| name.ends_with(".log")).count()
    };
    for i in 0..5000u64 {
        db.put(&hot, b"counter", &i.to_le_bytes()).unwrap();
        db.wait_idle().unwrap();
        assert!(logs() <= 3 + 2, "{} segments after {i} writes", logs());
    }
    assert!(db.stats().flushes < 400, "not a flush for every segment: {:?}", db.stats());
    drop(db);
    let db = Db::open(Path::new("db"), options, env()).unwrap();
    let hot = db.column_family("hot", ColumnFamilyOptions::default()).unwrap();
    let cold = db.column_family("cold", ColumnFamilyOptions::default()).unwrap();
    assert_eq!(db.get(&hot, b"counter").unwrap().unwrap(), 4999u64.to_le_bytes());
    assert_eq!(db.get(&cold, b"once").unwrap().unwrap(), b"1");
}

/// What a process wrote before it died is shown, and then outlives the power, however it was written:
/// a short tail of the log again to the log, a long one to tables.
#[test]
fn a_tail_that_no_sync_has_covered_is_made_durable_before_it_is_shown() {
    for (puts, flushed) in [(5u8, false), (200, true)] {
        let fs = MemFs::new();
        let db = open(&fs, 1);
        let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
        db.put(&a, b"first", b"synced").unwrap();
        db.sync_wal().unwrap();
        for i in 0..puts {
            db.put(&a, &[i], &[i; 20]).unwrap();
        }
        let fs = fs.crash_image(Keep::All, 0);
        let db = open(&fs, 2);
        let listed = fs.list(Path::new("db")).unwrap();
        let count = |ending: &str| listed.iter().filter(|l| l.name.ends_with(ending)).count();
        assert_eq!(
            (count(".sst") > 0, listed.iter().any(|l| l.name.contains("tmp"))),
            (flushed, false)
        );
        drop(db);
        for keep in [Keep::Nothing, Keep::All] {
            let db = open(&fs.crash_image(keep, 0), 3);
            let a = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
            assert_eq!(db.get(&a, b"first").unwrap().unwrap(), b"synced");
            assert!((0..puts).all(|i| db.get(&a, &[i]).unwrap().unwrap() == [i; 20]), "{keep:?}");
        }
    }
}
