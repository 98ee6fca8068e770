//! Moments between two steps, held still: what threads would meet only by chance.

use std::path::Path;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::{FamilyId, FileId, FileNumber};
use crate::base::key::SeqNo;
use crate::base::limits::{FAMILIES_MAX, LEVELS};
use crate::base::sync::{Arc, Mutex};
use crate::batch::WriteBatch;
use crate::cache::budget::MemoryBudget;
use crate::compaction::filter::{CompactionFilter, CompactionFilterFactory, Decision, EntryKind};
use crate::db::Db;
use crate::db::column_family::ColumnFamily;
use crate::db::commit::Group;
use crate::db::jobs::Job;
use crate::db::options::{Background, ColumnFamilyOptions, Env, Options, WriteOptions};
use crate::db::update::Update;
use crate::db::write_queue::Ticket;

use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::fs::memory::image::Keep;
use crate::log::{LogPosition, LogWriter};
use crate::table::{Codec, TimestampExtractor};
use crate::version::current;
use crate::version::edit::{FamilyRecord, VersionEdit};
use crate::version::manifest::{Recovered, recover};
use crate::version::names::FileName;

fn open(fs: &MemFs, seed: u64) -> Db {
    let options =
        Options { log_segment_bytes: 512, log_segments_max: usize::MAX, ..Options::default() };
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), seed);
    Db::open(Path::new("db"), options, env).unwrap()
}

fn family(db: &Db, name: &str) -> ColumnFamily {
    let options = ColumnFamilyOptions { l0_depth_trigger: 1, ..ColumnFamilyOptions::default() };
    db.column_family(name, options).unwrap()
}

/// Writes enough for several log segments.
fn fill(db: &Db, family: &ColumnFamily) {
    for n in 0..40u32 {
        db.put(family, &n.to_be_bytes(), &[7; 50]).unwrap();
    }
}

/// Numbers of tables that lie in the directory.
fn tables(fs: &MemFs) -> usize {
    let listed = fs.list(Path::new("db")).unwrap();
    listed.iter().filter(|file| file.name.ends_with(".sst")).count()
}

fn live(db: &Db) -> usize {
    db.stats().families.iter().flat_map(|family| family.files).sum()
}

/// A frozen memtable that waits to be flushed.
fn rotate(db: &Db, family: &ColumnFamily) {
    let mut state = db.core.stand_still().unwrap();
    db.core.rotate(&mut state, |writer| writer.family.id == family.id());
}

/// Lets writers queue up behind somebody who stands still, and then go on. Returns what each got:
/// `count` puts in a batch, to a family that is there or not, synced or not.
fn group(db: &Db, writers: &[(&ColumnFamily, u8, bool)]) -> Vec<Result<SeqNo>> {
    std::thread::scope(|scope| {
        let standing = db.core.commit.state.lock();
        let mut threads = Vec::new();
        for (i, (family, count, sync)) in writers.iter().enumerate() {
            let mut batch = WriteBatch::new();
            (0..*count).for_each(|n| batch.put(*family, &[i as u8, n], &[i as u8]));
            threads.push(scope.spawn(move || db.write(&batch, WriteOptions { sync: *sync })));
            while db.core.commit.queue.len() <= i {
                std::thread::yield_now();
            }
        }
        drop(standing);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Nothing but the writer looks at the budget here, as when the background is busy with a flush.
#[test]
fn a_writer_keeps_to_the_budget_by_itself() {
    let budget = MemoryBudget::new(1 << 20);
    let env = Env::simulated(Arc::new(MemFs::new()), budget.clone(), 1);
    let options = Options { log: false, memtables_bytes_min: 0, ..Options::default() };
    let db = Db::open(Path::new("db"), options, env).unwrap();
    let a = family(&db, "a");
    for n in 0..5000u32 {
        db.put(&a, &n.to_be_bytes(), &[7; 1000]).unwrap();
        let used = budget.used();
        assert!(used <= (1 << 20) + (1 << 17), "{used} bytes after {n} puts");
    }
    assert!(db.stats().flushes >= 5);
}

#[test]
fn when_nothing_is_to_be_done_nothing_superfluous_is_there() {
    let fs = MemFs::new();
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), 1);
    let env = env.with_background(Background::Threads(2));
    let db = Db::open(Path::new("db"), Options::default(), env).unwrap();
    let a = family(&db, "a");
    for _ in 0..50 {
        fill(&db, &a);
        db.flush(&a).unwrap();
        db.wait_idle().unwrap();
        assert_eq!(tables(&fs), live(&db));
    }
}

/// Three tables that overlap, above a larger one into which they are not merged for what they bring.
fn deep(db: &Db, name: &str, l0_scan_bytes: u64) -> ColumnFamily {
    let options = ColumnFamilyOptions {
        l0_depth_trigger: 10,
        l0_scan_bytes,
        codecs: [Codec::None; LEVELS],
        ..ColumnFamilyOptions::default()
    };
    let family = db.column_family(name, options).unwrap();
    for (round, keys) in [400, 20, 30, 25u32].into_iter().enumerate() {
        (0..keys).for_each(|n| db.put(&family, &n.to_be_bytes(), &[round as u8; 50]).unwrap());
        db.flush(&family).unwrap();
        if round == 0 {
            db.compact_range(&family, ..).unwrap();
        }
    }
    db.wait_idle().unwrap();
    family
}

#[test]
fn level_0_is_merged_when_scans_have_paid_for_it_and_not_before() {
    let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(64 << 20), 1);
    let env = env.with_background(Background::Threads(2));
    let db = Db::open(Path::new("db"), Options::default(), env).unwrap();
    let scan = |family: &ColumnFamily| {
        let mut scan = db.scan(family, ..).unwrap();
        let mut seen = Vec::new();
        while scan.next().unwrap() {
            seen.push((scan.key().to_vec(), scan.value()[0]));
        }
        seen
    };
    let level0 = |name: &str| {
        let stats = db.stats();
        let family = stats.families.into_iter().find(|family| family.name == name).unwrap();
        (family.files[0], family.bytes[0])
    };
    let of = |name: &str| {
        db.wait_idle().unwrap();
        level0(name)
    };
    for (name, scan_bytes) in [("never", 0), ("little", 100), ("much", 1 << 20)] {
        let family = deep(&db, name, scan_bytes);
        let (tables, bytes) = of(name);
        assert_eq!(tables, 3);
        // Each asks two runs more than one.
        let enough = bytes.div_ceil(2 * scan_bytes.max(1));
        let all: Vec<_> = (0..400u32)
            .map(|n| {
                (
                    n.to_be_bytes().to_vec(),
                    if n < 25 {
                        3
                    } else if n < 30 {
                        2
                    } else {
                        0
                    },
                )
            })
            .collect();
        for scans in 1..=enough.min(100) {
            assert_eq!(of(name), (3, bytes), "{name}: {scans} of {enough}");
            assert_eq!(scan(&family), all);
        }
        if scan_bytes == 0 {
            assert_eq!(of(name).0, 3);
            continue;
        }
        // It is woken by the scan: nobody waits for it to be idle.
        while level0(name).0 != 1 {
            std::thread::yield_now();
        }
        assert_eq!(scan(&family), all);
    }
}

#[test]
fn each_writer_of_a_group_gets_its_own_outcome() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let (a, gone) = (family(&db, "a"), family(&db, "gone"));
    db.put(&gone, b"key", b"value").unwrap();
    db.drop_column_family(&gone).unwrap();
    let (before, first) = (db.stats(), db.snapshot().seqno());
    let writers = [(&a, 3, false), (&gone, 2, false), (&a, 1, false), (&a, 2, false)];
    let outcomes = group(&db, &writers);
    assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    let last: Vec<u64> =
        outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).copied().collect();
    assert_eq!(last, [first + 3, first + 4, first + 6], "the last number of each batch");
    let after = db.stats();
    assert_eq!((after.groups, after.log_syncs), (before.groups + 1, before.log_syncs));
    for (writer, count) in [(0u8, 3u8), (2, 1), (3, 2)] {
        let found = |n| db.get(&a, &[writer, n]).unwrap();
        assert!((0..count).all(|n| found(n) == Some(vec![writer])));
    }
}

/// Those behind a leader that syncs are synced too; nobody waits for a sync that neither he nor his
/// leader has asked for.
#[test]
fn one_writer_that_asks_makes_all_before_him_durable() {
    for asks in 0..3 {
        let fs = MemFs::new();
        let db = open(&fs, 1);
        let a = family(&db, "a");
        let before = db.stats();
        let writers: Vec<_> = (0..3).map(|i| (&a, 2, i == asks)).collect();
        assert!(group(&db, &writers).iter().all(Result::is_ok));
        let (after, groups) = (db.stats(), 1 + u64::from(asks > 0));
        assert_eq!((after.groups - before.groups, after.log_syncs - before.log_syncs), (groups, 1));
        let db = open(&fs.crash_image(Keep::Nothing, 0), 2);
        let a = family(&db, "a");
        assert!((0..3).all(|i| db.get(&a, &[i, 1]).unwrap().is_some()), "writer {asks} asked");
    }
}

/// Makes this thread lead a line of which it is the only one so far, with a put of its own.
fn head(db: &Db, family: &ColumnFamily, sync: bool) -> Arc<Ticket> {
    let mut batch = WriteBatch::new();
    batch.put(family, b"head", b"");
    let ticket = Arc::new(Ticket::new(batch, sync, None));
    assert!(db.core.commit.queue.join(&ticket).is_none(), "the first leads");
    ticket
}

fn wait_for_line(db: &Db, len: usize) {
    while db.core.commit.queue.len() < len {
        std::thread::yield_now();
    }
}

const SYNC: WriteOptions = WriteOptions { sync: true };

#[test]
fn writers_join_a_line_though_the_lock_is_free() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    let own = head(&db, &a, true);
    let before = db.stats();
    std::thread::scope(|scope| {
        let writer = |n: u8| {
            let (db, a) = (&db, &a);
            scope.spawn(move || {
                let mut batch = WriteBatch::new();
                batch.put(a, &[n], &[n]);
                db.write(&batch, WriteOptions { sync: n.is_multiple_of(2) }).unwrap()
            })
        };
        let threads: Vec<_> = (0..5).map(writer).collect();
        wait_for_line(&db, 6);
        assert!(db.core.commit.state.try_lock().is_some());
        db.core.lead();
        let last = own.wait().unwrap().unwrap().unwrap();
        let mut numbers: Vec<SeqNo> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (last + 1..=last + 5).collect::<Vec<_>>(), "behind it");
    });
    let after = db.stats();
    assert_eq!((after.groups - before.groups, after.log_syncs - before.log_syncs), (1, 1));
    // Six are expected again. One alone waits for them a moment, and is then alone as before.
    assert!(db.core.commit.queue.is_busy());
    let mut batch = WriteBatch::new();
    batch.put(&a, b"alone", b"");
    db.write(&batch, SYNC).unwrap();
    assert!(!db.core.commit.queue.is_busy());
}

/// The next group leads itself: its writers came while the one before was on its way.
#[test]
fn who_comes_meanwhile_is_the_next_group() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    let own = head(&db, &a, true);
    let before = db.stats();
    let (db, a) = (&db, &a);
    std::thread::scope(|scope| {
        let tickets = db.core.commit.queue.take();
        let put = |n: u8| {
            let mut batch = WriteBatch::new();
            batch.put(a, &[n], &[n]);
            db.write(&batch, SYNC).unwrap()
        };
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || put(n))).collect();
        wait_for_line(db, 4);
        drop(Group { core: &db.core, tickets, outcomes: vec![Ok(Some(7))] });
        assert_eq!(own.wait().unwrap().unwrap(), Some(7));
        threads.into_iter().for_each(|thread| assert!(thread.join().unwrap() > 0));
    });
    let after = db.stats();
    assert_eq!((after.groups - before.groups, after.log_syncs - before.log_syncs), (1, 1));
}

/// Who is served comes back to the line at once, and is still one: a leader that waits for more than there
/// are waits in vain.
#[test]
fn nobody_is_expected_twice() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    let writers = 4u8;
    std::thread::scope(|scope| {
        let write = |n: u8| {
            let (db, a) = (&db, &a);
            scope.spawn(move || {
                let mut batch = WriteBatch::new();
                batch.put(a, &[n], &[n]);
                (0..100).map(|_| db.write(&batch, SYNC)).for_each(|done| assert!(done.is_ok()));
            })
        };
        let standing = db.core.commit.state.lock();
        let threads: Vec<_> = (0..writers).map(write).collect();
        wait_for_line(&db, 4);
        drop(standing);
        let mut most = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            most = most.max(db.core.commit.queue.expected());
            std::thread::yield_now();
        }
        assert!(most <= usize::from(writers), "{most} of {writers}");
    });
}

#[test]
fn a_leader_that_unwinds_leaves_nobody_asleep() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    let own = head(&db, &a, false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3u8)
            .map(|n| {
                let (db, a) = (&db, &a);
                scope.spawn(move || db.put(a, &[n], b""))
            })
            .collect();
        wait_for_line(&db, 4);
        let mut tickets = db.core.commit.queue.take();
        let behind = tickets.split_off(3); // it stays in the line
        assert_eq!(behind.len(), 1);
        drop(Group { core: &db.core, tickets, outcomes: Vec::new() });
        behind[0].finish(Ok(Some(1)));
        let outcomes = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(outcomes.filter(|outcome| outcome.is_ok()).count(), 1);
    });
    assert_eq!(own.wait().unwrap().unwrap_err().kind(), ErrorKind::Halted);
    assert_eq!(db.put(&a, b"key", b"value").unwrap_err().kind(), ErrorKind::Halted);
}

/// Updates join groups too: those of one key go one after another, those of several keys together.
#[test]
fn updates_join_groups_and_none_is_lost() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    let count = |db: &Db, n: u8| db.get(&a, &[n]).unwrap().map_or(0, |value| value[0]);
    for keys in [1u8, 4] {
        let before = (count(&db, 0), db.stats());
        std::thread::scope(|scope| {
            let standing = db.core.commit.state.lock();
            for n in 0..4 {
                let (db, a) = (&db, &a);
                scope.spawn(move || {
                    let add = |old: Option<&[u8]>, new: &mut Vec<u8>| {
                        new.push(old.map_or(0, |old| old[0]) + 1);
                        Update::Put
                    };
                    db.core.update(a, &[n % keys], true, add).unwrap();
                });
                wait_for_line(db, usize::from(n) + 1);
            }
            drop(standing);
        });
        let after = db.stats();
        let syncs = after.log_syncs - before.1.log_syncs;
        match keys {
            1 => assert!(count(&db, 0) == 4 && syncs == 4, "{syncs} syncs"),
            _ => assert!((0..4).all(|n| count(&db, n) == 1 + 4 * u8::from(n == 0)) && syncs == 1),
        }
    }
}

/// A drop that is under way may still fail: until it has happened, its family's part of the log stays.
#[test]
fn a_flush_beside_a_drop_leaves_the_log_of_the_dropped() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let (a, b) = (family(&db, "a"), family(&db, "b"));
    db.put(&a, b"key", b"value").unwrap();
    fill(&db, &b);
    db.sync_wal().unwrap();
    a.0.set_dropped(true);
    db.flush(&b).unwrap();
    a.0.set_dropped(false); // it failed
    let db = open(&fs.crash_image(Keep::Nothing, 0), 2);
    assert_eq!(db.get(&family(&db, "a"), b"key").unwrap().unwrap(), b"value");
    // Had it not failed, the log would go with the next flush.
    let (a, b) = (family(&db, "a"), family(&db, "b"));
    fill(&db, &b);
    let closed = || db.core.segments.list().0.len();
    let before = closed();
    db.drop_column_family(&a).unwrap();
    db.flush(&b).unwrap();
    assert!(closed() < before && closed() <= 1, "{} closed segments of {before}", closed());
}

#[test]
fn no_job_begins_for_a_family_that_is_being_dropped() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    db.pause_compactions(true);
    for _ in 0..2 {
        fill(&db, &a);
        db.flush(&a).unwrap();
    }
    fill(&db, &a);
    rotate(&db, &a);
    db.pause_compactions(false);
    a.0.set_dropped(true);
    assert!(db.core.pick_flush().is_none() && db.core.pick_compaction().is_none());
    assert!(!db.step(0).unwrap());
    // Who waits for a flush of it, or for a compaction, is not left waiting.
    db.core.flush(std::slice::from_ref(&a.0)).unwrap();
    let refused = db.core.compact_range(&a.0, &Default::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    // Nor who waits for what nothing brings about.
    let refused = db.core.drive(|_| None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
    a.0.set_dropped(false);
    let (flush, compaction) = (db.core.pick_flush(), db.core.pick_compaction());
    assert!(flush.is_some() && compaction.is_some(), "what was skipped is picked now");
    flush.into_iter().chain(compaction).for_each(|job| db.core.abandon(job, None));
}

/// A drop waits for the jobs that have begun, whatever they are at.
#[test]
fn a_drop_waits_for_the_jobs_that_have_begun() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let (a, b) = (family(&db, "a"), family(&db, "b"));
    fill(&db, &b);
    db.pause_compactions(true);
    for _ in 0..2 {
        fill(&db, &a);
        db.flush(&a).unwrap();
    }
    fill(&db, &a);
    rotate(&db, &a);
    db.pause_compactions(false);
    for job in [db.core.pick_flush().unwrap(), db.core.pick_compaction().unwrap()] {
        db.core.signals.begin(job);
    }
    db.drop_column_family(&a).unwrap();
    let versions = db.core.versions.lock();
    assert!(versions.flushing.is_empty() && versions.busy.values().all(|busy| busy.is_empty()));
    drop(versions);
    drop(a);
    db.wait_idle().unwrap();
    db.verify().unwrap();
    while db.step(0).unwrap() {}
    assert_eq!(tables(&fs), live(&db), "what the dropped family had is gone");
}

#[test]
fn no_job_begins_or_ends_after_a_halt() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let a = family(&db, "a");
    fill(&db, &a);
    rotate(&db, &a);
    let mut job = db.core.pick_flush().unwrap();
    fill(&db, &a);
    rotate(&db, &a);
    db.core.halt(&Error::new(ErrorKind::Io, "the disk is gone"));
    let ended = loop {
        match job.step(&db.core, 16) {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Halted);
    assert_eq!(live(&db), 0, "an edit was recorded after the halt");
    db.core.abandon(job, None);
    assert!(db.core.pick_flush().is_none() && db.core.pick_compaction().is_none());
    assert_eq!(db.step(0).unwrap_err().kind(), ErrorKind::Halted);
    // Reads go on, and the log has it all.
    assert!(db.get(&a, &[0; 4]).unwrap().is_some());
    drop(db);
    let db = open(&fs, 2);
    assert!(db.get(&family(&db, "a"), &[0; 4]).unwrap().is_some());
}

/// Jobs that a close cuts off leave nothing behind, and nothing is lost with them.
#[test]
fn jobs_that_a_close_cuts_off_leave_nothing() {
    for closed in [true, false] {
        let fs = MemFs::new();
        let db = open(&fs, 1);
        let a = family(&db, "a");
        db.pause_compactions(true);
        for round in 0..60u8 {
            for n in 0..40u8 {
                db.put(&a, &[n, round], &[round; 50]).unwrap();
            }
            if round == 20 || round == 40 {
                db.flush(&a).unwrap();
            }
        }
        rotate(&db, &a);
        db.pause_compactions(false);
        // A flush and a compaction that have begun to write.
        let mut begun = 0;
        for mut job in [db.core.pick_flush().unwrap(), db.core.pick_compaction().unwrap()] {
            while job.created().is_empty() {
                assert!(!job.step(&db.core, 4).unwrap(), "cut off before its end");
            }
            assert!(matches!(job, Job::Flush { .. } | Job::Compact { .. }));
            begun += job.created().len();
            db.core.signals.begin(job);
        }
        assert_eq!(tables(&fs), live(&db) + begun);
        match closed {
            true => db.close().unwrap(),
            false => drop(db),
        }
        assert_eq!(tables(&fs), if closed { 3 } else { 2 }, "what was half-written is gone");
        let db = open(&fs, 2);
        let a = family(&db, "a");
        assert!((0..60).all(|round| db.get(&a, &[39, round]).unwrap().is_some()));
        db.verify().unwrap();
    }
}

/// Who took the memtable before it was rotated, and looked up what is visible after, has not read what
/// the next memtable held by then: although nothing was written since.
#[test]
fn an_update_of_what_was_read_in_an_older_memtable_begins_again() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let family = family(&db, "a");
    db.put(&family, b"key", b"old").unwrap();
    let before = family.0.cell.load();
    rotate(&db, &family);
    db.put(&family, b"key", b"new").unwrap();
    let at = db.core.visible();
    let now = family.0.cell.load();
    let mut state = db.core.stand_still().unwrap();
    assert!(!state.is_unchanged(family.id(), b"key", &before.mem, at));
    assert!(state.is_unchanged(family.id(), b"key", &now.mem, at));
}

/// The usual writer need not look below a memtable that knows nothing of a key: if there is nothing,
/// and only then.
#[test]
fn what_the_memtable_knows_nothing_of_is_absent_only_if_nothing_is_older() {
    let db = open(&MemFs::new(), 1);
    let family = family(&db, "a");
    let get = |key: &[u8]| db.get(&family, key).unwrap();
    let alone = || {
        let cell = &family.0.cell;
        assert_eq!(cell.is_memory_alone(), cell.load().has_nothing_older());
        cell.is_memory_alone()
    };
    fill(&db, &family); // the lock is biased now
    let absent = 1000u32.to_be_bytes();
    assert!(alone() && get(&absent).is_none() && get(&[0; 4]).is_some());
    rotate(&db, &family);
    assert!(!alone() && get(&absent).is_none() && get(&[0; 4]).is_some(), "in a frozen one");
    db.flush_all().unwrap();
    assert!(!alone() && get(&absent).is_none() && get(&[0; 4]).is_some(), "in a table");
    db.delete_range(&family, &[0; 4], &[1]).unwrap();
    assert_eq!(get(&[0; 4]), None, "deleted by a range");
    db.compact_range(&family, ..).unwrap();
    assert!(alone() && get(&[0; 4]).is_none(), "all tables are gone");
}

/// A number at the beginning of the value, which has expired up to what the test says.
struct Expiry(Arc<Mutex<i64>>);

impl Expiry {
    fn of(value: &[u8]) -> Option<i64> {
        value.first_chunk().map(|bytes| i64::from_be_bytes(*bytes))
    }
}

impl TimestampExtractor for Expiry {
    fn name(&self) -> &str {
        "expiry"
    }

    fn timestamp(&self, _: &[u8], value: &[u8]) -> Option<i64> {
        Expiry::of(value)
    }
}

struct ExpiryFilter(i64);

impl CompactionFilter for ExpiryFilter {
    fn decide(&mut self, _: &[u8], _: EntryKind, value: &[u8], _: &mut Vec<u8>) -> Decision {
        match Expiry::of(value).is_some_and(|time| time <= self.0) {
            true => Decision::Remove,
            false => Decision::Keep,
        }
    }
}

impl CompactionFilterFactory for Expiry {
    fn name(&self) -> &str {
        "expiry"
    }

    fn expired_until(&self) -> Option<i64> {
        Some(*self.0.lock())
    }

    fn create(&self) -> Box<dyn CompactionFilter> {
        Box::new(ExpiryFilter(*self.0.lock()))
    }
}

/// What expires while a table is being rewritten is not removed by that: it is looked for again.
#[test]
fn what_expires_during_a_rewrite_is_rewritten_once_more() {
    let db = open(&MemFs::new(), 1);
    let until = Arc::new(Mutex::new(-1));
    let expiry = Arc::new(Expiry(Arc::clone(&until)));
    let options = ColumnFamilyOptions {
        timestamp: Some(Arc::clone(&expiry) as _),
        compaction_filter: Some(expiry),
        ..ColumnFamilyOptions::default()
    };
    let a = db.column_family("a", options).unwrap();
    for time in 0..100i64 {
        db.put(&a, &time.to_be_bytes(), &time.to_be_bytes()).unwrap();
    }
    db.flush(&a).unwrap();
    db.wait_idle().unwrap();
    let left = || {
        let mut scan = db.scan(&a, ..).unwrap();
        std::iter::from_fn(|| scan.next().unwrap().then_some(())).count()
    };
    db.pause_compactions(true);
    *until.lock() = 29;
    db.pause_compactions(false);
    let mut lefts = vec![left()];
    while let Some(mut job) = db.core.pick_compaction() {
        while !job.step(&db.core, 10).unwrap() {
            // Once its filter is made.
            if matches!(job, Job::Compact { .. }) {
                *until.lock() = 59;
            }
        }
        lefts.push(left());
    }
    lefts.dedup();
    assert_eq!(lefts, [100, 70, 40]);
    // Somebody drops the family between two rounds.
    a.0.set_dropped(true);
    let refused = db.core.drop_expired(&a.0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
}

#[test]
fn there_are_so_many_families_and_no_more() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    let created = (1..FAMILIES_MAX as u32).map(|id| FamilyRecord {
        id: FamilyId(id),
        name: id.to_string(),
        merge_operator: None,
        compaction_filter: None,
        options: a.0.options().encode(),
        flushed_seqno: 0,
    });
    let mut edit = VersionEdit { created: created.collect(), ..VersionEdit::default() };
    db.core.apply(&mut edit, |_| {}).unwrap();
    let create = |name: &str| db.column_family(name, ColumnFamilyOptions::default()).map(drop);
    assert_eq!(create("more").unwrap_err().kind(), ErrorKind::InvalidArgument);
    create("a").unwrap();
    db.drop_column_family(&a).unwrap();
    create("more").unwrap();
}

/// An edit that a build with other ideas, or somebody with a calculator, has written.
#[test]
fn a_salvage_leaves_out_edits_that_contradict_themselves() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    db.put(&family(&db, "a"), b"key", b"value").unwrap();
    db.close().unwrap();
    let (shared, dir): (Arc<dyn Fs>, _) = (Arc::new(fs.clone()), Path::new("db"));
    let Recovered { state, .. } = recover(&shared, dir, shared.list(dir).unwrap()).unwrap();
    let number = FileNumber::new(state.header.epoch, 1000);
    let path = dir.join(FileName::Manifest(number).to_string());
    let (id, kind) = (FileId::new(1, number), FileKind::Manifest);
    let synced = LogPosition::new(number, 0);
    let mut log = LogWriter::begin(&shared, &path, kind, id, number, None, synced).unwrap();
    for edit in state.snapshot_edits() {
        log.append(&edit.encode()).unwrap();
    }
    let place = log.position().offset;
    let forged = VersionEdit { dropped: vec![FamilyId(7)], ..VersionEdit::default() };
    log.append(&forged.encode()).unwrap();
    log.sync().unwrap();
    fs.write(&dir.join("CURRENT"), &current::encode(number));
    let env = || Env::simulated(Arc::clone(&shared), MemoryBudget::new(64 << 20), 1);
    let refused = Db::open(dir, Options::default(), env()).map(drop).unwrap_err();
    let saved = Db::salvage(dir, Path::new("out"), None, env()).unwrap();
    for e in [&refused, &saved.dropped[0]] {
        assert_eq!((e.kind(), e.path()), (ErrorKind::Corruption, Some(&*path)), "{e}");
        assert_eq!(e.offset(), Some(place), "{e}");
    }
    let db = Db::open(Path::new("out"), Options::default(), env()).unwrap();
    assert_eq!(db.get(&family(&db, "a"), b"key").unwrap().unwrap(), b"value");
}
