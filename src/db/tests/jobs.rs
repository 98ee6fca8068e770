//! Jobs of the background beside drops, halts and closes.

use super::*;
use crate::base::error::{Error, ErrorKind};
use crate::db::jobs::Job;
use crate::fs::memory::image::Keep;

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
