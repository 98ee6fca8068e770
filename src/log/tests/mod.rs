//! Crashes, damage and epochs.

use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::base::format::FileKind;
use crate::base::id::{FileId, FileNumber};
use crate::base::sync::Arc;
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::log::{LogPosition, LogReader, LogWriter, SegmentFile};

mod lives;
mod reading;
mod sweeps;
mod writing;

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

/// All that is yielded, by one to four records at a time.
fn drain(reader: &mut LogReader) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let (before, most) = (all.len(), all.len() % 4 + 1);
        all.extend(reader.next_some(most).unwrap().map(|(_, payload)| payload.to_vec()));
        match all.len() - before {
            0 => return all,
            some => assert!(some <= most),
        }
    }
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
