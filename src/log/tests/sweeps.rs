//! The sweeps damage every byte, cut at every length and remove every file of small logs, and compare
//! with an oracle that knows every record and what each of them proves.

use std::ops::Range;

use super::*;
use crate::base::error::ErrorKind;
use crate::fs::memory::image::Keep;
use crate::log::format::{
    RECORD_HEADER_BYTES, RecordKind, SEGMENT_HEADER_BYTES, SegmentItem, decode_segment,
};

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
