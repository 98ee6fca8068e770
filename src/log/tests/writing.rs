//! A writer on a disk that is full or fails, and what it reserves.

use super::*;
use crate::base::error::{Error, ErrorKind};
use crate::fs::fault::{Effect, Fault, FaultFs, Op};
use crate::fs::memory::image::Keep;
use crate::log::format::{PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

#[test]
fn a_full_disk_abandons_the_segment_and_the_log_goes_on() {
    let fs = disk();
    let shared = shared(&fs);
    let mut one = create(&shared, FileNumber::new(1, 1), None, LogPosition::default()).unwrap();
    one.append(b"kept").unwrap();
    fs.set_capacity(Some(fs.total_bytes() + 40));
    let e = one.append(b"does not fit at all").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NoSpace);
    for again in [one.append(b"x").map(|_| ()), one.sync()] {
        let e = again.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Halted);
        assert_eq!(e.cause().map(Error::kind), Some(ErrorKind::NoSpace));
    }
    assert!(create(&shared, FileNumber::new(1, 2), Some(one.position()), one.synced()).is_err());
    fs.set_capacity(None);
    let mut two =
        create(&shared, FileNumber::new(1, 3), Some(one.position()), one.synced()).unwrap();
    two.append(b"goes on").unwrap();
    let [kept, goes_on] = [b"kept".to_vec(), b"goes on".to_vec()];
    assert_eq!(replay(&fs).unwrap().1, [kept.clone(), goes_on]);
    // The first segment was never synced: a power cut ends the log there, and refuses nothing.
    two.sync().unwrap();
    let after = replay(&fs.crash_image(Keep::Nothing, 0)).unwrap();
    assert_eq!(after, (Some(LogPosition::new(FileNumber::new(1, 1), 60)), vec![]));
    shared.sync_file(one.path()).unwrap();
    two.predecessors_are_durable();
    two.append(b"more").unwrap();
    two.sync().unwrap();
    assert_eq!(replay(&fs.crash_image(Keep::Nothing, 0)).unwrap().1.len(), 3);
    fs.truncate(one.path(), 80);
    let e = replay(&fs).unwrap_err();
    assert_eq!((e.path(), e.offset()), (Some(one.path()), Some(60)));
}

#[test]
fn errors_of_each_operation() {
    for (op, effect) in [
        (Op::Append, Effect::Io),
        (Op::Append, Effect::Short),
        (Op::Sync, Effect::Io),
        (Op::Sync, Effect::NoSpace),
    ] {
        let fs = disk();
        let fault = FaultFs::new(shared(&fs));
        let faulty: Arc<dyn Fs> = Arc::new(fault.clone());
        let number = FileNumber::new(1, 1);
        let mut writer = create(&faulty, number, None, LogPosition::default()).unwrap();
        writer.append(b"good").unwrap();
        writer.sync().unwrap();
        let (end, synced) = (writer.position(), writer.synced());
        fault.plan(Fault::new(op, 0).effect(effect));
        let e = writer.append(b"bad").and_then(|_| writer.sync()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io, "{op:?} {effect:?}");
        assert_eq!(writer.append(b"x").unwrap_err().kind(), ErrorKind::Halted);
        assert_eq!(writer.synced(), synced);
        assert!(op != Op::Append || writer.position() == end);
        assert_eq!(writer.close().unwrap_err().kind(), ErrorKind::Halted);
    }
}

#[test]
fn a_lost_seal_is_reported_by_the_next_call() {
    for (effect, kind) in [(Effect::NoSpace, ErrorKind::NoSpace), (Effect::Short, ErrorKind::Io)] {
        let fs = disk();
        let fault = FaultFs::new(shared(&fs));
        let faulty: Arc<dyn Fs> = Arc::new(fault.clone());
        let number = FileNumber::new(1, 1);
        let mut writer = create(&faulty, number, None, LogPosition::default()).unwrap();
        let end = writer.append(b"good").unwrap();
        fault.plan(Fault::new(Op::Append, 0).effect(effect));
        writer.sync().unwrap();
        assert_eq!((writer.synced(), writer.position()), (end, end));
        assert_eq!(writer.append(b"x").unwrap_err().kind(), kind);
        assert_eq!(writer.append(b"x").unwrap_err().kind(), ErrorKind::Halted);
        assert_eq!(replay(&fs).unwrap().1, [b"good"]);
    }
}

#[test]
fn whatever_a_file_system_answers_is_an_error_of_writing() {
    for op in [Op::Append, Op::Sync, Op::Reserve] {
        let fault = FaultFs::new(shared(&disk()));
        let faulty: Arc<dyn Fs> = Arc::new(fault.clone());
        let number = FileNumber::new(1, 1);
        let mut log = create(&faulty, number, None, LogPosition::default()).unwrap();
        log.reserve_up_to(1 << 20);
        fault.plan(Fault::new(op, 0).effect(Effect::Strange));
        let e = log.append(b"one").and_then(|_| log.sync()).unwrap_err();
        assert_eq!((fault.struck(), e.kind()), (1, ErrorKind::Io), "{op:?}: {e}");
        assert_eq!(e.cause().map(Error::kind), Some(ErrorKind::Busy));
        assert_eq!(e.path(), Some(log.path()));
        assert_eq!(log.append(b"two").unwrap_err().kind(), ErrorKind::Halted);
    }
}

#[test]
fn a_failed_create_leaves_nothing_that_counts() {
    for op in [Op::Create, Op::Append, Op::Sync, Op::SyncDir] {
        for remove_fails in [false, true] {
            let fs = disk();
            let fault = FaultFs::new(shared(&fs));
            let faulty: Arc<dyn Fs> = Arc::new(fault.clone());
            let number = |n| FileNumber::new(1, n);
            let mut one = create(&faulty, number(1), None, LogPosition::default()).unwrap();
            one.append(b"one").unwrap();
            let end = one.close().unwrap();
            fault.plan(Fault::new(op, 0).effect(Effect::Short));
            if remove_fails {
                fault.plan(Fault::new(Op::Remove, 0));
            }
            assert!(create(&faulty, number(2), Some(end), end).is_err());
            assert_eq!(replay(&fs).unwrap().1, [b"one"]);
            let mut three = create(&faulty, number(3), Some(end), end).unwrap();
            three.append(b"two").unwrap();
            assert_eq!(replay(&fs).unwrap().1, [b"one", b"two"], "{op:?}");
        }
    }
}

#[test]
fn a_payload_that_is_too_long_changes_nothing() {
    let fs = disk();
    let mut writer =
        create(&shared(&fs), FileNumber::new(1, 1), None, LogPosition::default()).unwrap();
    let part = vec![0; PAYLOAD_BYTES_MAX / 2 + 1];
    let e = writer.append_parts(&[&part, &part]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    writer.append(b"fits").unwrap();
    assert_eq!(replay(&fs).unwrap().1, [b"fits"]);
}

#[test]
fn a_log_reserves_ahead_and_gives_back() {
    let fs = disk();
    let shared = shared(&fs);
    let number = FileNumber::new(1, 1);
    let mut log = create(&shared, number, None, LogPosition::default()).unwrap();
    log.reserve_up_to(10_000);
    let len = |fs: &MemFs| fs.list(Path::new(DIR)).unwrap()[0].len;
    assert_eq!(len(&fs), SEGMENT_HEADER_BYTES as u64);
    let mut payloads = Vec::new();
    let mut append = |log: &mut LogWriter, bytes: usize| {
        payloads.push(vec![payloads.len() as u8; bytes]);
        log.append(payloads.last().unwrap()).unwrap();
        assert_eq!(replay(&fs).unwrap().1, payloads, "zeros are the end");
        len(&fs)
    };
    assert_eq!(append(&mut log, 100), 4096);
    assert_eq!(append(&mut log, 8000), 10_000, "no more than it may");
    // What is reserved is enough for a record and for the seal behind it.
    fs.set_capacity(Some(fs.total_bytes()));
    let room = 10_000 - log.position().offset as usize - 2 * RECORD_HEADER_BYTES;
    assert_eq!(append(&mut log, room), 10_000);
    log.sync().unwrap();
    log.sync().unwrap();
    fs.set_capacity(None);
    assert!(append(&mut log, 50) < 10_100, "the last record goes over the end");
    let end = log.close().unwrap();
    assert_eq!(len(&fs), end.offset);
    let mut next = create(&shared, FileNumber::new(1, 2), Some(end), end).unwrap();
    next.reserve_up_to(10_000);
    next.append(b"x").unwrap();
    let end = next.close().unwrap();
    assert_eq!(fs.list(Path::new(DIR)).unwrap()[1].len, end.offset, "what is not needed goes back");
}
