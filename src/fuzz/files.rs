//! Targets that are whole files, read as the engine reads them: from a file system.

use std::path::Path;

use crate::base::error::{ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::{FileId, FileNumber};
use crate::base::key::InternalKey;
use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::sync::Arc;
use crate::batch::BatchReader;
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::fuzz::parts::{self, expected};
use crate::fuzz::repair;
use crate::inspect;
use crate::iter::InternalIterator;
use crate::log::format::{SegmentHeader, put_record};
use crate::log::{LogReader, SegmentFile, SegmentItem, decode_segment};
use crate::table::filter::key_hash;
use crate::table::format::FOOTER_BYTES;
use crate::table::reader::Table;
use crate::version::current;
use crate::version::manifest::recover;
use crate::version::names::FileName;

const DIR: &str = "db";

fn disk(name: FileName, bytes: &[u8]) -> (MemFs, Arc<dyn Fs>) {
    let fs = MemFs::new();
    fs.write(&Path::new(DIR).join(name.to_string()), bytes);
    (fs.clone(), Arc::new(fs))
}

/// The number in a segment's header, if it can be the number of a file.
pub(super) fn segment_number(bytes: &[u8]) -> FileNumber {
    let number = bytes.get(32..).and_then(|rest| rest.first_chunk::<8>());
    let number = number.map(|number| FileNumber(u64::from_le_bytes(*number)));
    let good = number.filter(|number| number.epoch() > 0 && number.counter() > 0);
    good.unwrap_or(FileNumber::new(1, 1))
}

/// F2 and, in its payloads, F1: a segment by itself, and as the whole log of a database.
pub(super) fn log(bytes: &[u8]) {
    for bytes in [bytes, &repair::segment(bytes)] {
        let items = segment(bytes, FileKind::Log);
        let number = segment_number(bytes);
        let (_, fs) = disk(FileName::Log(number), bytes);
        let path = Path::new(DIR).join(FileName::Log(number).to_string());
        let file = SegmentFile { number, path: path.clone(), len: bytes.len() as u64 };
        let mut log = match LogReader::open(&fs, FileKind::Log, vec![file], None) {
            Ok(log) => log,
            Err(e) => {
                assert!(e.path().is_some(), "{e}"); // its own, or that of one that should precede it
                expected(&e);
                continue;
            }
        };
        let mut records = 0;
        while let Some((place, payload)) = log.next().expect("checked before") {
            records += 1;
            assert!(place.offset < bytes.len() as u64);
            if let Ok(reader) = BatchReader::new(payload, place.offset) {
                reader.ops().filter_map(Result::err).for_each(|e| expected(&e));
            }
        }
        assert_eq!(records, log.records());
        assert!(records <= items, "{records} records of {items}");
        log.make_durable(Path::new(DIR)).expect("it is all there");
    }
}

/// Looks at a segment for people: no gap, and every record is what would be written there.
fn segment(bytes: &[u8], kind: FileKind) -> u64 {
    let mut header: Option<SegmentHeader> = None;
    let (mut end, mut records) = (0, 0);
    for item in decode_segment(bytes, kind) {
        match item {
            SegmentItem::Header(found) => {
                let mut encoded = Vec::new();
                found.encode_into(kind, &mut encoded);
                assert_eq!(encoded[16..56], bytes[16..56]); // another version has another preamble
                (header, end) = (Some(found), encoded.len());
            }
            SegmentItem::Record(at, record) => {
                assert_eq!(at, end, "a gap");
                let sums = header.expect("a header comes first").sums();
                let payload = &bytes[record.payload.clone()];
                let mut encoded = Vec::new();
                put_record(&mut encoded, &sums, at as u64, record.kind, record.synced, &[payload]);
                assert_eq!(encoded, bytes[at..record.payload.end], "one record, one encoding");
                end = record.payload.end;
                records += 1;
            }
            SegmentItem::Zeros(range) | SegmentItem::Damage(range, _) => {
                assert_eq!(range.start, end, "a gap");
                end = range.end;
            }
        }
    }
    assert_eq!(end, bytes.len());
    records
}

/// F2 with F4.1 in it, and the `CURRENT` that names it.
pub(super) fn manifest(bytes: &[u8]) {
    for bytes in [bytes, &repair::segment(bytes)] {
        segment(bytes, FileKind::Manifest);
        let number = segment_number(bytes);
        let (memory, fs) = disk(FileName::Manifest(number), bytes);
        let dir = Path::new(DIR);
        memory.write(&dir.join(FileName::Current.to_string()), &current::encode(number));
        let listing = fs.list(dir).expect("it is there");
        match recover(&fs, dir, listing) {
            Ok(recovered) => {
                assert_eq!(recovered.manifest, Some(number));
                assert!(recovered.epoch > recovered.state.header.epoch);
                if let Err(e) = recovered.check_files() {
                    expected(&e); // its tables are not here
                }
                for edit in recovered.state.snapshot_edits() {
                    parts::edit(&edit.encode());
                }
            }
            Err(e) => expected(&e),
        }
    }
}

/// F3: opens it, reads it in both directions and by key, verifies it.
pub(super) fn table(bytes: &[u8]) {
    for bytes in [bytes, &repair::table(bytes)] {
        let number = FileNumber::new(1, 1);
        let footer = bytes.len().checked_sub(FOOTER_BYTES).map(|at| &bytes[at..]);
        let id = footer.and_then(|footer| footer.first_chunk::<16>());
        let id = FileId::from_bytes(id.copied().unwrap_or_default());
        let (_, fs) = disk(FileName::Table(number), bytes);
        let path = Path::new(DIR).join(FileName::Table(number).to_string());
        let budget = MemoryBudget::new(1 << 20);
        let cache = BlockCache::new(&budget, 1 << 20);
        let file = fs.open(&path).expect("it is there");
        match Table::open(file, &path, id, &cache, &budget, VALUE_BYTES_MAX) {
            Ok(table) => read(&table),
            Err(e) => {
                assert_eq!(e.path(), Some(&*path), "{e}");
                expected(&e);
            }
        }
    }
}

/// What the command line shows of a file: it says something of whatever it is given.
pub(super) fn inspect(bytes: &[u8]) {
    match inspect::inspect(bytes, None) {
        Ok(report) => {
            assert!(report.lines().count() > 0);
            for e in report.damage() {
                let kind = e.kind();
                assert!(matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported), "{e}");
            }
        }
        Err(e) => expected(&e),
    }
}

fn read(table: &Arc<Table>) {
    let sound = table.verify(None);
    let forward = forward(table, sound.is_ok());
    let backward = backward(table);
    for e in [sound.as_ref().err(), forward.as_ref().err(), backward.as_ref().err()] {
        e.into_iter().for_each(expected);
    }
    if let (Ok(()), Ok(forward), Ok(backward)) = (sound, forward, backward) {
        assert_eq!(forward.len() as u64, table.properties().entries);
        let mut keys = forward;
        keys.dedup();
        keys.reverse();
        assert!(keys == backward, "both directions see the same keys");
    }
}

fn forward(table: &Arc<Table>, sound: bool) -> Result<Vec<Vec<u8>>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut iter = table.iter(true);
    iter.first()?;
    while let Some((key, _)) = iter.entry() {
        assert!(keys.last().is_none_or(|last| &**last <= key.user_key), "keys ascend");
        if keys.last().is_none_or(|last| last != key.user_key) && keys.len().is_multiple_of(16) {
            // What it finds is not asked: a hostile filter may deny the key.
            table.get(key.user_key, key_hash(key.user_key), key.seqno, &mut |_, _, _| false)?;
            let target = InternalKey::new(key.user_key, key.seqno, key.kind);
            let mut other = table.iter(false);
            other.seek(target)?;
            // Restarts that are none lead past it, and are for `verify` to find.
            let found = other.entry().map(|(found, _)| found);
            assert!(found == Some(target) || !sound, "an entry is found: {found:?}");
            table.approximate_offset(key.user_key);
        }
        keys.push(key.user_key.to_vec());
        iter.next()?;
    }
    Ok(keys)
}

fn backward(table: &Arc<Table>) -> Result<Vec<Vec<u8>>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut iter = table.iter(false);
    iter.last()?;
    while let Some((key, _)) = iter.entry() {
        assert!(keys.last().is_none_or(|last| &**last > key.user_key), "keys descend");
        keys.push(key.user_key.to_vec());
        iter.prev()?;
    }
    Ok(keys)
}
