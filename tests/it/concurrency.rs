//! Real threads, tiny memtables: writers of all kinds beside readers, snapshots and checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alluvium::{
    Background, ColumnFamily, ColumnFamilyOptions, Db, Env, ErrorKind, Fs, MemFs, MemoryBudget,
    Options, Update, WriteBatch, WriteOptions, Writer,
};

use crate::basic::small;

const WRITERS: u64 = 4;
const ROUNDS: u64 = 1500;
const COUNTERS: u64 = 5;

fn open(fs: &MemFs, seed: u64, log: bool) -> Db {
    let options = Options { log, immutables_max: 2, l0_stop_depth: 8, ..Options::default() };
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(4 << 20), seed)
        .with_background(Background::Threads(2));
    Db::open(Path::new("db"), options, env).unwrap()
}

fn families(db: &Db) -> (ColumnFamily, ColumnFamily) {
    let tiny = || ColumnFamilyOptions { memtable_bytes_max: 8 << 10, ..small() };
    (db.column_family("a", tiny()).unwrap(), db.column_family("b", tiny()).unwrap())
}

fn number(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}

fn counter_key(i: u64) -> Vec<u8> {
    [b"counter-".as_slice(), &i.to_be_bytes()].concat()
}

/// Each round: a pair of equal values in both families, in one batch; a counter everybody counts; and
/// some churn.
fn write(db: &Db, families: &(ColumnFamily, ColumnFamily), writer: u64, log: bool) {
    let pair = [b"pair-".as_slice(), &writer.to_be_bytes()].concat();
    for round in 1..=ROUNDS {
        let mut batch = WriteBatch::new();
        batch.put(&families.0, &pair, &round.to_le_bytes());
        batch.put(&families.1, &pair, &round.to_le_bytes());
        batch.put(&families.0, &[b"churn".as_slice(), &round.to_be_bytes()].concat(), &[7; 40]);
        let sync = log && round % 16 == 0;
        db.write(&batch, WriteOptions { sync }).unwrap();
        db.update(&families.0, &counter_key(round % COUNTERS), |old, out| {
            out.extend_from_slice(&(number(old) + 1).to_le_bytes());
            Update::Put
        })
        .unwrap();
        if round % 50 == 0 {
            let start = [b"churn".as_slice(), &(round - 40).to_be_bytes()].concat();
            let end = [b"churn".as_slice(), &round.to_be_bytes()].concat();
            db.delete_range(&families.0, &start, &end).unwrap();
        }
    }
}

/// Pairs are equal in every snapshot, and never go back; counters never go back.
fn read(db: &Db, families: &(ColumnFamily, ColumnFamily), done: &AtomicBool) -> u64 {
    let mut reader = db.reader(&families.0).unwrap();
    let mut seen = [0u64; WRITERS as usize];
    let mut counted = 0;
    let mut reads = 0;
    while !done.load(Ordering::Acquire) {
        let snapshot = db.snapshot();
        for writer in 0..WRITERS {
            let pair = [b"pair-".as_slice(), &writer.to_be_bytes()].concat();
            let a = number(db.get_at(&families.0, &snapshot, &pair).unwrap().as_deref());
            let b = number(db.get_at(&families.1, &snapshot, &pair).unwrap().as_deref());
            assert_eq!(a, b, "half a batch");
            assert!(a >= seen[writer as usize], "time goes back");
            seen[writer as usize] = a;
        }
        let now = reader.get_with(&counter_key(1), number).unwrap();
        assert!(now >= counted, "a counter goes back");
        counted = now;
        let mut scan = db.scan_prefix(&families.0, b"counter-").unwrap();
        let mut keys = 0;
        while scan.next().unwrap() {
            keys += 1;
        }
        assert!(keys <= COUNTERS);
        reads += 1;
    }
    reads
}

fn run(log: bool) {
    let fs = MemFs::new();
    let db = open(&fs, 1, log);
    let families_of = families(&db);
    let done = AtomicBool::new(false);
    let checkpoints = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (db, families, done, checkpoints) = (&db, &families_of, &done, &checkpoints);
        let readers = [(); 2].map(|()| scope.spawn(move || read(db, families, done)));
        let checkpointer = scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                let first = db.checkpoint().unwrap();
                let second = db.checkpoint().unwrap();
                let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
                assert!(first.seqno() <= second.seqno());
                checkpoints.fetch_add(1, Ordering::Relaxed);
                if log {
                    db.sync_wal().unwrap();
                }
                db.compact_range(&families.1, ..).unwrap();
            }
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(db, families, writer, log)))
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        checkpointer.join().unwrap();
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert!(checkpoints.load(Ordering::Relaxed) > 0);
    let total = |db: &Db, family: &ColumnFamily| {
        (0..COUNTERS).map(|i| number(db.get(family, &counter_key(i)).unwrap().as_deref())).sum()
    };
    let counted: u64 = total(&db, &families_of.0);
    assert_eq!(counted, WRITERS * ROUNDS, "an update was lost");
    db.wait_idle().unwrap();
    db.verify().unwrap();
    let stats = db.stats();
    assert!(stats.flushes > 10 && stats.compactions > 0, "{stats:?}");
    db.close().unwrap();
    let db = open(&fs, 2, log);
    let (a, _) = families(&db);
    assert_eq!(total(&db, &a), counted);
    db.close().unwrap();
    let live = fs.list(Path::new("db")).unwrap();
    let names: Vec<_> = live.iter().map(|listed| listed.name.as_str()).collect();
    assert!(
        names.iter().filter(|name| name.ends_with(".sst")).count() < 40,
        "left over: {names:?}"
    );
}

#[test]
fn threads_with_a_log_agree() {
    run(true);
}

#[test]
fn threads_without_a_log_agree() {
    run(false);
}

/// Counts upwards until the database refuses; returns how far it came.
fn count(writer: &Writer, name: u8, begun: &AtomicU64) -> u64 {
    for n in 0u64.. {
        match writer.put(&[&[name][..], &n.to_be_bytes()].concat(), &[7; 40]) {
            Ok(()) => begun.fetch_max(n, Ordering::Relaxed),
            Err(e) => {
                // Busy: it waited for a flush, and nobody flushes any more.
                assert!(matches!(e.kind(), ErrorKind::Halted | ErrorKind::Busy), "{e}");
                return n;
            }
        };
    }
    unreachable!("it ends")
}

/// The database ends amid somebody's writes: what was acknowledged is there afterwards, and no more.
#[test]
fn a_database_ends_amid_writes() {
    for (log, in_order) in [(false, true), (true, true), (true, false)] {
        let fs = MemFs::new();
        let db = open(&fs, 3, log);
        let family = families(&db).0;
        let writer = db.writer(&family).unwrap();
        let begun = AtomicU64::new(0);
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let counting = [1, 2].map(|name| {
                let (writer, begun) = (writer.clone(), &begun);
                scope.spawn(move || count(&writer, name, begun))
            });
            while begun.load(Ordering::Relaxed) < 500 {
                std::thread::yield_now();
            }
            match in_order {
                true => db.close().unwrap(),
                false => drop(db),
            }
            counting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let db = open(&fs, 4, log);
        let family = families(&db).0;
        for (name, count) in [1, 2].into_iter().zip(counts) {
            let mut scan = db.scan_prefix(&family, &[name]).unwrap();
            let mut found = 0;
            while scan.next().unwrap() {
                found += 1;
            }
            assert_eq!(found, count, "log {log}, in order {in_order}");
        }
    }
}
