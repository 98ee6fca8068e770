//! Writers that are written together: who waits for whom, and what each is told.

use super::*;
use crate::base::error::{ErrorKind, Result};
use crate::base::key::SeqNo;
use crate::batch::WriteBatch;
use crate::db::commit::Group;
use crate::db::options::WriteOptions;
use crate::db::update::Update;
use crate::db::write_queue::Ticket;
use crate::fs::memory::image::Keep;

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
