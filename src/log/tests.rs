//! Crashes, damage and epochs.
//!
//! The sweeps damage every byte, cut at every length and remove every file of small logs, and compare
//! with an oracle that knows every record and what each of them proves.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::{FileId, FileNumber};
use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::fs::Fs;
use crate::fs::fault::{Effect, Fault, FaultFs, Op};
use crate::fs::memory::MemFs;
use crate::fs::memory::image::Keep;
use crate::log::format::{
    PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordKind, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES,
    SegmentItem, decode_segment,
};
use crate::log::{LogPosition, LogReader, LogWriter, SegmentFile};
use quickcheck::quickcheck;

const DIR: &str = "/db";

fn path(number: FileNumber) -> PathBuf {
    Path::new(DIR).join(format!("{number}.log"))
}

fn disk() -> MemFs {
    let fs = MemFs::new();
    fs.create_dir(Path::new(DIR)).unwrap();
    fs
}

fn shared(fs: &MemFs) -> Arc<dyn Fs> {
    Arc::new(fs.clone())
}

fn create(
    fs: &Arc<dyn Fs>,
    number: FileNumber,
    prev: Option<LogPosition>,
    synced: LogPosition,
) -> Result<LogWriter> {
    let id = FileId::new(77, number);
    LogWriter::create(fs, Path::new(DIR), &path(number), FileKind::Log, id, number, prev, synced)
}

fn segments(fs: &dyn Fs) -> Vec<SegmentFile> {
    fs.list(Path::new(DIR))
        .unwrap()
        .into_iter()
        .map(|listed| {
            let number = FileNumber::parse(listed.name.strip_suffix(".log").unwrap()).unwrap();
            SegmentFile { number, path: path(number), len: listed.len }
        })
        .collect()
}

fn open(fs: &Arc<dyn Fs>, from: Option<LogPosition>) -> Result<LogReader> {
    LogReader::open(fs, FileKind::Log, segments(&**fs), from)
}

fn drain(reader: &mut LogReader) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some((_, payload)) = reader.next().unwrap() {
        all.push(payload.to_vec());
    }
    all
}

/// Where a log ends, and its payloads.
fn replay(fs: &MemFs) -> Result<(Option<LogPosition>, Vec<Vec<u8>>)> {
    let mut reader = open(&shared(fs), None)?;
    let all = drain(&mut reader);
    assert_eq!(reader.records(), all.len() as u64);
    Ok((reader.end(), all))
}

fn payload(n: u8) -> Vec<u8> {
    vec![n; usize::from(n) % 7 * 5]
}

/// Every way in which an epoch can go from one segment to the next.
fn small_log() -> MemFs {
    written_small_log().0
}

fn written_small_log() -> (MemFs, LogWriter) {
    let fs = disk();
    let shared = shared(&fs);
    let number = |n| FileNumber::new(1, n);
    let mut one = create(&shared, number(1), None, LogPosition::default()).unwrap();
    one.append(&payload(0)).unwrap();
    one.sync().unwrap();
    one.append(&payload(1)).unwrap();
    one.append(&payload(2)).unwrap();
    // A rotation without a sync.
    let mut two = create(&shared, number(2), Some(one.position()), one.synced()).unwrap();
    two.append(&payload(3)).unwrap();
    two.sync().unwrap();
    assert_eq!(two.synced(), one.synced(), "nobody has synced the first segment");
    shared.sync_file(one.path()).unwrap();
    two.predecessors_are_durable();
    two.append_parts(&[&payload(4)[..3], &payload(4)[3..]]).unwrap();
    two.sync().unwrap();
    two.append(&payload(5)).unwrap();
    // A rotation that closes.
    let end = two.close().unwrap();
    let mut three = create(&shared, number(4), Some(end), end).unwrap();
    three.append(&payload(6)).unwrap();
    three.append(&payload(8)).unwrap();
    three.sync().unwrap();
    three.append(&payload(9)).unwrap();
    (fs, three)
}

/// Continues the small log over two crashes: junk behind an accepted end, a segment behind it that
/// recovery ignored, a torn segment, and a segment of the third epoch.
fn log_of_three_epochs() -> MemFs {
    let (fs, mut last) = written_small_log();
    let number = last.number();
    last.append(b"lost").unwrap();
    let lost = FileNumber::new(1, 5);
    let mut lost = create(&shared(&fs), lost, Some(last.position()), last.synced()).unwrap();
    lost.append(b"lost as well").unwrap();
    let torn = fs.read(last.path()).len() - RECORD_HEADER_BYTES - b"lost".len() - 1;
    fs.corrupt(last.path(), torn as u64, 1); // the record before

    let fs = fs.crash_image(Keep::All, 0);
    let shared = shared(&fs);
    let reader = open(&shared, None).unwrap();
    assert!(reader.torn().is_some() && !reader.closed());
    reader.make_durable(Path::new(DIR)).unwrap();
    let end = reader.end().unwrap();
    assert_eq!(end.segment, number);
    let mut two = create(&shared, FileNumber::new(2, 1), Some(end), end).unwrap();
    two.append(&payload(10)).unwrap();
    two.append(&payload(11)).unwrap();
    let torn = FileNumber::new(2, 2);
    drop(two);
    fs.write(&path(torn), &[0x89, b'A', b'L']);

    let reader = open(&shared, None).unwrap();
    reader.make_durable(Path::new(DIR)).unwrap();
    let end = reader.end().unwrap();
    assert_eq!(end.segment, FileNumber::new(2, 1));
    let mut three = create(&shared, FileNumber::new(3, 1), Some(end), end).unwrap();
    three.append(&payload(12)).unwrap();
    three.sync().unwrap();
    three.append(&payload(13)).unwrap();
    fs
}

/// What stands where in an undamaged log, and what it proves.
struct Model {
    /// Data records of the log, in order: where they begin, and their payloads.
    records: Vec<(LogPosition, Vec<u8>)>,
    /// Everything in the log, headers too: the smallest units of damage.
    units: Vec<(FileNumber, Range<usize>)>,
    /// These bytes, if they are undamaged, prove that the log was durable up to that position.
    proofs: Vec<(FileNumber, Range<usize>, LogPosition)>,
}

impl Model {
    /// `ends`: the segments of the log and where each ends, if not at the end of the file.
    fn new(fs: &MemFs, ends: &[(FileNumber, Option<usize>)]) -> Model {
        let mut model = Model { records: Vec::new(), units: Vec::new(), proofs: Vec::new() };
        for &(number, end) in ends {
            let bytes = fs.read(&path(number));
            let end = end.unwrap_or(bytes.len());
            for item in decode_segment(&bytes, FileKind::Log) {
                match item {
                    SegmentItem::Header(header) => {
                        let place = 0..SEGMENT_HEADER_BYTES;
                        model.units.push((number, place.clone()));
                        if let Some(mut prev) = header.prev {
                            if prev.segment.epoch() == number.epoch() {
                                prev.offset = SEGMENT_HEADER_BYTES as u64;
                            }
                            model.proofs.push((number, place, prev));
                        }
                    }
                    SegmentItem::Record(at, record) if record.payload.end <= end => {
                        model.units.push((number, at..record.payload.end));
                        let head = at..at + RECORD_HEADER_BYTES;
                        model.proofs.push((number, head.clone(), record.synced));
                        // Whatever stands behind a header proves the header.
                        let header = LogPosition::new(number, SEGMENT_HEADER_BYTES as u64);
                        model.proofs.push((number, head, header));
                        if record.kind == RecordKind::Data {
                            let at = LogPosition::new(number, at as u64);
                            model.records.push((at, bytes[record.payload].to_vec()));
                        }
                    }
                    _ => {}
                }
            }
        }
        model
    }

    /// The log after some bytes of a file were damaged (`at`), or are gone from there on.
    fn judge(&self, file: FileNumber, at: Range<usize>, got: Result<Vec<Vec<u8>>>, what: &str) {
        let touches = |range: &Range<usize>| range.start < at.end && at.start < range.end;
        let unit = self.units.iter().find(|(f, range)| *f == file && touches(range));
        let Some((_, unit)) = unit else {
            let all: Vec<_> = self.records.iter().map(|(_, payload)| payload.clone()).collect();
            assert_eq!(got.unwrap(), all, "{what}: no harm done");
            return;
        };
        let damage = LogPosition::new(file, unit.start as u64);
        let proved = self
            .proofs
            .iter()
            .filter(|(f, range, _)| *f != file || !touches(range))
            .any(|(.., proved)| *proved > damage);
        if proved {
            let e = got.expect_err(what);
            assert_eq!(e.kind(), ErrorKind::Corruption, "{what}: {e}");
            assert_eq!(e.path(), Some(path(file).as_path()), "{what}: {e}");
            assert_eq!(e.offset(), Some(damage.offset), "{what}: {e}");
        } else {
            let prefix: Vec<_> = self
                .records
                .iter()
                .take_while(|(position, _)| *position < damage)
                .map(|(_, payload)| payload.clone())
                .collect();
            assert_eq!(got.unwrap(), prefix, "{what}");
        }
    }
}

fn sweep(fs: &MemFs, ends: &[(FileNumber, Option<usize>)], want: &[u8]) {
    let model = Model::new(fs, ends);
    let want: Vec<_> = want.iter().map(|&n| payload(n)).collect();
    assert_eq!(replay(fs).unwrap().1, want);
    assert_eq!(model.records.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>(), want);
    let payloads = |fs: &MemFs| replay(fs).map(|(_, all)| all);
    for segment in segments(fs) {
        let good = fs.read(&segment.path);
        for at in 0..good.len() {
            for pattern in [good[at] ^ 0x01, good[at] ^ 0x80, 0x00, 0xff] {
                if pattern != good[at] {
                    let mut bad = good.clone();
                    bad[at] = pattern;
                    fs.write(&segment.path, &bad);
                    let what = format!("{} byte {at} = {pattern:#04x}", segment.number);
                    model.judge(segment.number, at..at + 1, payloads(fs), &what);
                }
            }
            fs.write(&segment.path, &good[..at]);
            let what = format!("{} cut to {at}", segment.number);
            model.judge(segment.number, at..usize::MAX, payloads(fs), &what);
        }
        for start in (0..good.len()).step_by(64) {
            let mut bad = good.clone();
            let end = (start + 64).min(good.len());
            bad[start..end].fill(0);
            fs.write(&segment.path, &bad);
            let what = format!("{} zeros at {start}", segment.number);
            model.judge(segment.number, start..end, payloads(fs), &what);
        }
        for tail in [&[0; 100][..], &[0xa5; 7], &[0, 0, 1]] {
            fs.write(&segment.path, &[&good[..], tail].concat());
            assert_eq!(payloads(fs).unwrap(), want, "{} with a tail", segment.number);
        }
        fs.write(&segment.path, &good);
        fs.remove(&segment.path).unwrap();
        let what = format!("{} removed", segment.number);
        model.judge(segment.number, 0..usize::MAX, payloads(fs), &what);
        fs.write(&segment.path, &good);
    }
}

#[test]
fn every_byte_and_every_length_of_one_epoch() {
    let ends = [1, 2, 4].map(|n| (FileNumber::new(1, n), None));
    sweep(&small_log(), &ends, &[0, 1, 2, 3, 4, 5, 6, 8, 9]);
}

#[test]
fn every_byte_and_every_length_of_three_epochs() {
    let fs = log_of_three_epochs();
    let (one, two) = (FileNumber::new(1, 4), FileNumber::new(2, 1));
    let lost = 2 * RECORD_HEADER_BYTES + payload(9).len() + b"lost".len();
    let cut = fs.read(&path(one)).len() - lost;
    let ends = [
        (FileNumber::new(1, 1), None),
        (FileNumber::new(1, 2), None),
        (one, Some(cut)),
        (two, None),
        (FileNumber::new(3, 1), None),
    ];
    sweep(&fs, &ends, &[0, 1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13]);
}

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
    fs.corrupt(log.path(), place + RECORD_HEADER_BYTES as u64, 1);
    for payload in [vec![1; 600], vec![2; 40]] {
        assert_eq!(*reader.next().unwrap().unwrap().1, payload);
    }
    let e = reader.next().unwrap_err();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(place)), "{e}");
    assert_eq!(e.path(), Some(log.path()));
    assert!(reader.next().unwrap().is_none(), "nothing follows an error");
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

/// A database reduced to its log: it appends, syncs and rotates, the power or the process dies at any
/// operation, also during recovery, and it comes back.
struct Machine {
    fs: MemFs,
    rng: Rng,
    /// All payloads that may be in the log, in order.
    history: Vec<Vec<u8>>,
    /// So many of them must be.
    durable: usize,
    appended: u64,
    epoch: u32,
    /// Where the log starts, once one was created.
    from: Option<LogPosition>,
    /// Segments that were left without a sync.
    unsynced: Vec<PathBuf>,
}

impl Machine {
    /// Recovers, then works until something fails. `Err` is what a real caller would have seen.
    fn live(&mut self, steps: u64) -> Result<()> {
        let fs = shared(&self.fs);
        self.epoch += 1;
        self.unsynced.clear();
        let mut reader = open(&fs, self.from).expect("a crash is never corruption");
        let got = drain(&mut reader);
        assert!(got.len() >= self.durable, "lost {} of {}", got.len(), self.durable);
        assert_eq!(got, self.history[..got.len()]);
        reader.make_durable(Path::new(DIR))?;
        self.history.truncate(got.len());
        self.durable = got.len();
        let synced = reader.end().unwrap_or_default();
        let mut counter = 1;
        let mut number = FileNumber::new(self.epoch, counter);
        let mut writer = self.begin(&fs, number, reader.end(), synced)?;
        self.from.get_or_insert(LogPosition::new(number, 0));
        for _ in 0..steps {
            match self.rng.below(10) {
                0..=5 => {
                    self.appended += 1;
                    let len =
                        self.rng.below(if self.appended.is_multiple_of(8) { 900 } else { 60 });
                    let mut payload = self.appended.to_le_bytes().to_vec();
                    payload.resize(8 + len as usize, self.appended as u8);
                    let full = self.rng.below(16) == 0;
                    if full {
                        let room = self.rng.below(payload.len() as u64 + 32);
                        self.fs.set_capacity(Some(self.fs.total_bytes() + room));
                    }
                    let done = writer.append(&payload);
                    self.fs.set_capacity(None);
                    match done {
                        Err(e) if e.kind() == ErrorKind::NoSpace => {
                            self.unsynced.push(writer.path().to_owned());
                            counter += 1;
                            number = FileNumber::new(self.epoch, counter);
                            let (prev, synced) = (writer.position(), writer.synced());
                            writer = self.begin(&fs, number, Some(prev), synced)?;
                        }
                        done => {
                            self.history.push(payload);
                            done?;
                        }
                    }
                }
                6 | 7 => {
                    for path in self.unsynced.drain(..) {
                        fs.sync_file(&path)?;
                    }
                    writer.predecessors_are_durable();
                    let all = self.history.len();
                    writer.sync()?;
                    self.durable = all;
                }
                8 => {
                    let synced = writer.synced();
                    self.unsynced.push(writer.path().to_owned());
                    let prev = writer.position();
                    counter += 1 + self.rng.below(2) as u32;
                    number = FileNumber::new(self.epoch, counter);
                    writer = self.begin(&fs, number, Some(prev), synced)?;
                }
                _ => {
                    for path in self.unsynced.drain(..) {
                        fs.sync_file(&path)?;
                    }
                    writer.predecessors_are_durable();
                    let all = self.history.len();
                    let prev = writer.close()?;
                    self.durable = all;
                    counter += 1;
                    number = FileNumber::new(self.epoch, counter);
                    writer = self.begin(&fs, number, Some(prev), prev)?;
                }
            }
        }
        Ok(())
    }

    /// A segment that reserves space, or does not.
    fn begin(
        &mut self,
        fs: &Arc<dyn Fs>,
        number: FileNumber,
        prev: Option<LogPosition>,
        synced: LogPosition,
    ) -> Result<LogWriter> {
        let mut writer = create(fs, number, prev, synced)?;
        writer.reserve_up_to(self.rng.below(2) * 3000);
        Ok(writer)
    }
}

fn many_lives(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut machine = Machine {
        fs: disk(),
        rng: Rng::new(seed ^ 1),
        history: Vec::new(),
        durable: 0,
        appended: 0,
        epoch: 0,
        from: None,
        unsynced: Vec::new(),
    };
    for _ in 0..6 {
        if rng.below(3) > 0 {
            machine.fs.crash_after(Some(machine.fs.ops() + rng.below(40)));
        }
        let steps = rng.below(30);
        let _ = machine.live(steps);
        // The process dies alone (the disk goes on, unsynced as it is), or the power goes.
        machine.fs.crash_after(None);
        let kept = [None, Some(Keep::Nothing), Some(Keep::Torn), Some(Keep::Sectors)];
        if let Some(keep) = kept[rng.below(4) as usize] {
            machine.fs = machine.fs.crash_image(keep, rng.next_u64());
        }
    }
    let _ = machine.live(0);
}

quickcheck! {
    fn no_crash_loses_what_was_synced_or_is_taken_for_corruption(seed: u64) -> bool {
        (0..10).for_each(|n| many_lives(seed.wrapping_add(n)));
        true
    }
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
