//! What a reader is told, refuses, and takes for the end of the log.

use super::*;
use crate::base::error::ErrorKind;
use crate::fs::fault::{Fault, FaultFs, Op};
use crate::fs::memory::image::Keep;
use crate::log::format::{RECORD_HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES};

#[test]
fn positions_say_what_they_say() {
    let fs = disk();
    let number = FileNumber::new(1, 1);
    let mut writer = create(&shared(&fs), number, None, LogPosition::default()).unwrap();
    let header = LogPosition::new(number, SEGMENT_HEADER_BYTES as u64);
    assert_eq!((writer.position(), writer.synced(), writer.number()), (header, header, number));
    let end = writer.append(b"abc").unwrap();
    assert_eq!((end, writer.position()), (LogPosition::new(number, 95), end));
    assert_eq!(writer.synced(), header);
    writer.sync().unwrap();
    assert_eq!((writer.synced(), writer.position().offset), (end, 95 + 32), "a seal follows");
    let ops = fs.ops();
    writer.sync().unwrap();
    assert_eq!(fs.ops(), ops, "nothing to sync, no I/O");
    let end = writer.close().unwrap();
    assert_eq!(end.offset, 95 + 64);
    let reader = open(&shared(&fs), None).unwrap();
    assert!(reader.closed() && reader.torn().is_none());
    assert_eq!((reader.end(), reader.records()), (Some(end), 1));
    let mut from = open(&shared(&fs), Some(LogPosition::new(number, 61))).unwrap();
    assert!(from.next().unwrap().is_none(), "the record begins before");
    assert_eq!(end.to_string(), "000001-000001@159");
}

#[test]
fn reading_starts_where_it_is_told() {
    let fs = small_log();
    let from = |n| Some(LogPosition::new(FileNumber::new(1, n), 0));
    let rest = |n| open(&shared(&fs), from(n)).map(|mut reader| drain(&mut reader));
    assert_eq!(rest(1).unwrap(), replay(&fs).unwrap().1);
    assert_eq!(rest(2).unwrap(), [3, 4, 5, 6, 8, 9].map(payload));
    assert_eq!(rest(4).unwrap(), [6, 8, 9].map(payload));
    for (n, missing) in [(3, 3), (5, 5)] {
        let e = rest(n).unwrap_err();
        assert_eq!(e.path(), Some(path(FileNumber::new(1, missing)).as_path()), "{e}");
    }
    fs.remove(&path(FileNumber::new(1, 1))).unwrap();
    assert_eq!(rest(2).unwrap().len(), 6, "what is not needed may be gone");
    assert!(rest(1).is_err() && replay(&fs).is_err(), "what is needed may not");
    fs.remove(&path(FileNumber::new(1, 2))).unwrap();
    fs.truncate(&path(FileNumber::new(1, 4)), 9); // nobody can say what it followed
    assert_eq!(rest(2).unwrap_err().path(), Some(&*path(FileNumber::new(1, 2))));
    let fs = disk();
    assert!(replay(&fs).unwrap().0.is_none());
    assert!(open(&shared(&fs), from(1)).is_err(), "a segment that is named must exist");
}

#[test]
fn foreign_and_misplaced_segments_are_refused() {
    let fs = small_log();
    let [one, two] = [1, 2].map(|n| path(FileNumber::new(1, n)));
    let (first, second) = (fs.read(&one), fs.read(&two));
    fs.write(&one, &second);
    fs.write(&two, &first);
    assert_eq!(replay(&fs).unwrap_err().offset(), Some(32));
    fs.write(&two, &second);
    // The same number and shape, written by another database.
    let other = disk();
    let number = FileNumber::new(1, 1);
    let id = FileId::new(78, number);
    let dir = Path::new(DIR);
    let synced = LogPosition::default();
    let mut foreign =
        LogWriter::create(&shared(&other), dir, &one, FileKind::Log, id, number, None, synced)
            .unwrap();
    foreign.append(b"foreign").unwrap();
    fs.write(&one, &other.read(&one));
    let e = replay(&fs).unwrap_err();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(16)));
    let e = LogReader::open(&shared(&small_log()), FileKind::Manifest, segments(&fs), None);
    assert_eq!(e.err().map(|e| e.kind()), Some(ErrorKind::Corruption), "a log is no manifest");
}

#[test]
fn a_torn_first_segment_is_an_empty_log() {
    for len in 0..=SEGMENT_HEADER_BYTES {
        let fs = disk();
        let shared = shared(&fs);
        let one = FileNumber::new(1, 1);
        drop(create(&shared, one, None, LogPosition::default()).unwrap());
        fs.truncate(&path(one), len as u64);
        let reader = open(&shared, Some(LogPosition::new(one, 0))).unwrap();
        let whole = len == SEGMENT_HEADER_BYTES;
        let end = LogPosition::new(one, if whole { len as u64 } else { 0 });
        assert_eq!(reader.end(), Some(end));
        reader.make_durable(Path::new(DIR)).unwrap();
        let mut two = create(&shared, FileNumber::new(2, 1), reader.end(), end).unwrap();
        two.append(b"x").unwrap();
        for from in [None, Some(LogPosition::new(one, 0))] {
            assert_eq!(drain(&mut open(&shared, from).unwrap()), [b"x"]);
        }
    }
}

/// Beyond the first bytes a log is read twice: checked when it is opened, yielded later.
#[test]
fn what_changes_between_two_readings_is_refused() {
    let fs = disk();
    let (one, two) = (FileNumber::new(1, 1), FileNumber::new(1, 2));
    let mut log = create(&shared(&fs), one, None, LogPosition::default()).unwrap();
    log.append(&[1; 600]).unwrap();
    let end = log.close().unwrap();
    let mut log = create(&shared(&fs), two, Some(end), end).unwrap();
    log.append(&[2; 40]).unwrap();
    let place = log.position().offset;
    log.append(&[3; 40]).unwrap();
    let mut reader = open(&shared(&fs), None).unwrap();
    let mut by_many = reader.clone();
    fs.corrupt(log.path(), place + RECORD_HEADER_BYTES as u64, 1);
    for payload in [vec![1; 600], vec![2; 40]] {
        assert_eq!(*reader.next().unwrap().unwrap().1, payload);
    }
    let e = reader.next().unwrap_err();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(place)), "{e}");
    assert_eq!(e.path(), Some(log.path()));
    assert!(reader.next().unwrap().is_none(), "nothing follows an error");
    assert_eq!(by_many.next_some(4).unwrap().count(), 1, "all of one segment");
    let again = by_many.next_some(4).err().and_then(|e| e.offset());
    assert_eq!(again, Some(place), "nor comes what was before it in one call");
    assert_eq!(by_many.next_some(4).unwrap().count(), 0);
}

#[test]
fn a_segment_longer_than_any_that_is_written_is_not_read() {
    let fs = small_log();
    let path = path(FileNumber::new(1, 4));
    let mut bytes = fs.read(&path);
    bytes.resize(SEGMENT_BYTES_MAX as usize + 1, 0);
    fs.write(&path, &bytes);
    let e = replay(&fs).unwrap_err();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(SEGMENT_BYTES_MAX)), "{e}");
    assert_eq!(e.path(), Some(&*path));
}

#[test]
fn errors_of_reading_are_not_the_end_of_the_log() {
    for op in [Op::Open, Op::Read] {
        for skip in 0.. {
            let fault = FaultFs::new(shared(&small_log()));
            let faulty: Arc<dyn Fs> = Arc::new(fault.clone());
            fault.plan(Fault::new(op, skip));
            let all = open(&faulty, None).and_then(|mut reader| {
                let mut n = 0;
                while reader.next()?.is_some() {
                    n += 1;
                }
                Ok(n)
            });
            if fault.struck() == 0 {
                assert_eq!(all.unwrap(), 9);
                break;
            }
            assert_eq!(all.unwrap_err().kind(), ErrorKind::Io, "{op:?} {skip}");
        }
    }
}

/// A tail that was reserved and never written is the end of the log, whatever else is in the log; what
/// is damaged in front of it is refused if it had been durable.
#[test]
fn zeros_hide_no_damage() {
    let fs = disk();
    let shared = shared(&fs);
    let number = FileNumber::new(1, 1);
    let mut log = create(&shared, number, None, LogPosition::default()).unwrap();
    log.reserve_up_to(10_000);
    let mut ends = Vec::new();
    for byte in 0..5u8 {
        ends.push(log.append(&[byte; 40]).unwrap().offset);
        if byte == 3 {
            log.sync().unwrap();
        }
    }
    let whole = fs.read(&path(number));
    for offset in 0..whole.len() as u64 {
        fs.corrupt(&path(number), offset, 0x40);
        let found = replay(&fs);
        let count = found.as_ref().map(|(_, payloads)| payloads.len());
        match offset {
            // The fifth record proves that four had been synced, and the seal behind the fourth too.
            _ if offset < ends[3] => assert_eq!(found.unwrap_err().kind(), ErrorKind::Corruption),
            _ if offset < ends[4] => assert_eq!(count.unwrap(), 4, "{offset}"),
            _ => assert_eq!(count.unwrap(), 5, "{offset}: damage in zeros"),
        }
        fs.corrupt(&path(number), offset, 0x40);
    }
}

#[test]
fn what_is_not_proved_is_yielded_again() {
    let fs = disk();
    let shared = shared(&fs);
    let numbers = [FileNumber::new(1, 1), FileNumber::new(1, 2)];
    let mut log = create(&shared, numbers[0], None, LogPosition::default()).unwrap();
    let header = LogPosition::new(numbers[0], SEGMENT_HEADER_BYTES as u64);
    log.append(b"one").unwrap();
    let reader = open(&shared, None).unwrap();
    // The record says so: the log begins with this segment.
    assert_eq!((reader.is_proved(), reader.proved_end()), (false, Some(header)));
    let proved = log.append(b"two").unwrap();
    log.sync().unwrap();
    log.append(b"three").unwrap();
    let (prev, synced) = (log.position(), log.synced());
    let mut log = create(&shared, numbers[1], Some(prev), synced).unwrap();
    log.append(b"four").unwrap();
    let mut reader = open(&shared, None).unwrap();
    assert_eq!(drain(&mut reader), [&b"one"[..], b"two", b"three", b"four"]);
    assert_eq!((reader.is_proved(), reader.proved_end()), (false, Some(proved)));
    let behind = prev.offset - proved.offset + log.position().offset;
    assert_eq!(reader.bytes_behind(proved), behind);
    reader.cut(proved);
    assert_eq!(drain(&mut reader), [&b"three"[..], b"four"]);
    assert_eq!((reader.end(), reader.segments().len()), (Some(proved), 1));
    // Written again in a new epoch, they are what the log ends with; what they were before is junk.
    let mut again = create(&shared, FileNumber::new(2, 1), reader.end(), proved).unwrap();
    again.append(b"three").unwrap();
    again.sync().unwrap();
    assert_eq!(replay(&fs).unwrap().1, [&b"one"[..], b"two", b"three"]);
    let after = replay(&fs.crash_image(Keep::Nothing, 0)).unwrap();
    assert_eq!(after.1, [&b"one"[..], b"two", b"three"]);
}
