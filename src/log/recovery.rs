//! Decides where a log ends after a crash, or that it is damaged.
//!
//! What a crash can leave, and what the writer guarantees:
//! - A segment's header and name are durable before its first record is written, and before a later
//!   segment can name it. So a segment that a later header names, or that has bytes behind its header,
//!   once had a whole header.
//! - Anything behind the last sync may be missing, cut, zero or garbage, in any segment of the newest
//!   epoch.
//! - A segment's space is reserved ahead: what was never written, behind the last record, is zero.
//! - Every record carries the position up to which the log was durable when it was written.
//! - The first header of an epoch declares where recovery let the log end, which was durable by then.
//!
//! So: (1) the newest intact header and its links back give the segments of the log and where each of
//! them ends; what stands behind such an end, and segments that are not linked, are junk that an
//! earlier recovery, or a writer that ran out of space, left behind. (2) What an epoch's first header
//! declares must be there to the byte. (3) Within the newest epoch the log ends at the first place
//! that is short or damaged, unless anything later *proves* that a sync had covered it.

use crate::base::bytes::Bytes;
use crate::base::canary::Canary;
use crate::base::error::{Error, Result};
use crate::base::format::FileKind;
use crate::base::id::FileNumber;
use crate::base::sync::Arc;
use crate::fs::Fs;
use crate::log::format::{
    RecordKind, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, Stop, durable_proof,
    is_header_intact, is_zero, read_record,
};
use crate::log::{LogPosition, SegmentFile};

/// Bytes of accepted segments that are kept in memory between recovery and replay; beyond that a
/// segment is read a second time. Tests go both ways.
const KEPT_BYTES_MAX: u64 = if cfg!(test) { 500 } else { 128 << 20 };

/// The log as it is accepted.
pub struct Recovered {
    /// The segments in order.
    pub pieces: Vec<Piece>,
    /// Where the log ends; `None` if there is no segment at all.
    pub end: Option<LogPosition>,
    /// Is the last record a close record?
    pub closed: bool,
    /// Data records.
    pub records: u64,
    /// The log was durable up to here: what was accepted proves it.
    pub durable: LogPosition,
    /// What was cut off behind the end, if there was anything: a torn tail.
    pub torn: Option<Error>,
}

/// The accepted part of a segment.
#[derive(Clone)]
pub struct Piece {
    pub file: SegmentFile,
    pub header: SegmentHeader,
    /// Where the accepted records begin.
    pub start: u64,
    /// Where they end.
    pub end: u64,
    /// The file's bytes, if they were kept.
    pub bytes: Option<Bytes>,
}

/// A listed segment and what its header is like.
struct Segment {
    file: SegmentFile,
    head: Head,
}

enum Head {
    Intact(SegmentHeader),
    /// Not whole, and nothing behind it: a crash while the segment was created.
    Torn,
    /// Damaged, and something stands behind it: it had been durable.
    Damaged,
}

impl Segment {
    fn header(&self) -> Option<&SegmentHeader> {
        match &self.head {
            Head::Intact(header) => Some(header),
            _ => None,
        }
    }

    #[track_caller]
    fn corruption(&self, offset: u64, text: impl Into<String>) -> Error {
        Error::corruption(text).at(offset).in_file(&self.file.path)
    }
}

/// A segment of the chain, and where the next one says that it ends.
struct Link {
    index: usize,
    end: Option<u64>,
}

/// Finds the end of the log in `files`. Segments older than `from` are not looked at.
///
/// # Errors
/// `Corruption` with file and offset if something durable is damaged or missing; `Unsupported` if a
/// newer build wrote a segment; those of the file system.
pub fn recover(
    fs: &Arc<dyn Fs>,
    kind: FileKind,
    mut files: Vec<SegmentFile>,
    from: Option<LogPosition>,
) -> Result<Recovered> {
    files.sort_by_key(|file| file.number);
    let any = files.last().cloned();
    files.retain(|file| from.is_none_or(|from| file.number >= from.segment));
    let any = any.as_ref();
    let mut segments = Vec::with_capacity(files.len());
    for file in files {
        segments.push(read_head(fs, kind, file)?);
    }
    let Some(first) = segments.first() else {
        return match from {
            Some(from) => Err(missing_segment(any, from.segment)),
            None => Ok(nothing(None)),
        };
    };
    let newest = segments.iter().rposition(|segment| matches!(segment.head, Head::Intact(_)));
    let behind = newest.map_or(0, |newest| newest + 1);
    if let Some(bad) = segments[behind..].iter().find(|s| matches!(s.head, Head::Damaged)) {
        return Err(
            bad.corruption(0, "segment header is damaged; it was durable before its records")
        );
    }
    let Some(newest) = newest else {
        return match from {
            Some(from) if from.segment != first.file.number => {
                Err(missing_segment(any, from.segment))
            }
            _ => Ok(nothing(Some(LogPosition::new(first.file.number, 0)))),
        };
    };
    let chain = follow_links(&segments, newest, from, any)?;
    walk(fs, &segments, &chain, from)
}

fn nothing(end: Option<LogPosition>) -> Recovered {
    let durable = LogPosition::default();
    Recovered { pieces: Vec::new(), end, closed: false, records: 0, durable, torn: None }
}

/// The corruption "no such file", in the file that should be there: a sibling of another segment.
#[track_caller]
fn missing_segment(other: Option<&SegmentFile>, number: FileNumber) -> Error {
    let mut path = std::path::PathBuf::from(number.to_string());
    if let Some(other) = other {
        path.set_extension(other.path.extension().unwrap_or_default());
        path = other.path.with_file_name(path);
    }
    Error::corruption(format!("log segment {number} is missing")).at(0).in_file(&path)
}

fn read_head(fs: &Arc<dyn Fs>, kind: FileKind, file: SegmentFile) -> Result<Segment> {
    let opened = fs.open(&file.path)?;
    let len = opened.len().min(file.len).min(SEGMENT_HEADER_BYTES as u64) as usize;
    let bytes = opened.read_at(0, len)?;
    let head = if is_header_intact(&bytes) {
        let header = SegmentHeader::decode(&bytes, kind).map_err(|e| e.in_file(&file.path))?;
        if header.number != file.number {
            let text = format!("this is segment {}", header.number);
            return Err(Error::corruption(text).at(32).in_file(&file.path));
        }
        Head::Intact(header)
    } else {
        let all = load(fs, &file)?;
        let behind = all.get(SEGMENT_HEADER_BYTES..).unwrap_or_default();
        if is_zero(behind) { Head::Torn } else { Head::Damaged }
    };
    Ok(Segment { file, head })
}

/// The bytes of a segment, as far as it is listed.
pub fn load(fs: &Arc<dyn Fs>, file: &SegmentFile) -> Result<Bytes> {
    let opened = fs.open(&file.path)?;
    let len = opened.len().min(file.len);
    if len > SEGMENT_BYTES_MAX {
        let text = format!("log segment of {len} bytes; none is that long");
        return Err(Error::corruption(text).at(SEGMENT_BYTES_MAX).in_file(&file.path));
    }
    opened.read_at(0, len as usize).map_err(|e| e.in_file(&file.path))
}

/// The chain that ends with segment `newest`, oldest first.
fn follow_links(
    segments: &[Segment],
    newest: usize,
    from: Option<LogPosition>,
    any: Option<&SegmentFile>,
) -> Result<Vec<Link>> {
    let mut chain = Vec::new();
    let mut index = newest;
    let mut end = None;
    loop {
        let segment = &segments[index];
        let Some(header) = segment.header() else {
            return Err(
                segment.corruption(0, "segment header is damaged; a later segment needs it")
            );
        };
        chain.push(Link { index, end });
        if from.is_some_and(|from| from.segment == header.number) {
            break;
        }
        let prev = header.prev.unwrap_or_default();
        if prev.offset == 0 {
            // Nothing was accepted before. Right if nothing before is needed, or if what is needed was
            // created and nothing more.
            match from {
                Some(from) if from.segment != prev.segment => {
                    return Err(missing_segment(any, from.segment));
                }
                _ => break,
            }
        }
        if let Some(from) = from.filter(|from| prev.segment < from.segment) {
            return Err(missing_segment(any, from.segment));
        }
        let Ok(before) = segments.binary_search_by_key(&prev.segment, |s| s.file.number) else {
            return Err(missing_segment(any, prev.segment));
        };
        // Each opening of a database has an identity of its own; within one, it must not change.
        let opening = |h: &SegmentHeader| (h.number.epoch(), h.id.as_bytes()[..8].to_vec());
        let (this, other) = (opening(header), segments[before].header().map(opening));
        if other.is_some_and(|other| this.0 == other.0 && this.1 != other.1) {
            return Err(segments[before].corruption(16, "a segment of another database"));
        }
        (index, end) = (before, Some(prev.offset));
    }
    chain.reverse();
    Ok(chain)
}

/// Reads the chain from its front until it ends.
fn walk(
    fs: &Arc<dyn Fs>,
    segments: &[Segment],
    chain: &[Link],
    from: Option<LogPosition>,
) -> Result<Recovered> {
    let newest_epoch = chain.last().map_or(0, |link| segments[link.index].file.number.epoch());
    let mut found = nothing(None);
    let mut kept = 0u64;
    for link in chain {
        let segment = &segments[link.index];
        let header = *segment.header().expect("a link has a header");
        let bytes = load(fs, &segment.file)?;
        let scan = scan(&bytes, &header, link.end);
        found.end = Some(LogPosition::new(header.number, scan.end));
        found.records += scan.records;
        found.closed = scan.closed;
        // The first header of an epoch declares only what is durable.
        let declared = header.prev.filter(|prev| prev.segment.epoch() < header.number.epoch());
        found.durable = found.durable.max(scan.durable).max(declared.unwrap_or_default());
        kept += bytes.len() as u64;
        let start = from.filter(|f| f.segment == header.number).map_or(0, |f| f.offset);
        found.pieces.push(Piece {
            file: segment.file.clone(),
            header,
            start,
            end: scan.end,
            bytes: (kept <= KEPT_BYTES_MAX).then(|| bytes.clone()),
        });
        if link.end == Some(scan.end) {
            continue;
        }
        let why = match (scan.stop, link.end) {
            (Stop::Damage(why), _) => why,
            (Stop::End, Some(_)) => "segment is shorter than the next one says",
            (Stop::End, None) => "log ends",
        };
        if header.number.epoch() < newest_epoch {
            let text = format!("{why}; an earlier recovery had made it durable");
            return Err(segment.corruption(scan.end, text));
        }
        let end = LogPosition::new(header.number, scan.end);
        // Zeros prove nothing.
        let behind = if scan.stop == Stop::End && link.end.is_none() { &[][..] } else { &bytes };
        let proof = proof_behind(fs, segments, link.index, behind, end)?;
        if let Some(proof) = proof.filter(|_| !Canary::DamagedLogIsCut.is_planted()) {
            let text = format!("{why}, but the log had been durable up to {proof}");
            return Err(segment.corruption(scan.end, text));
        }
        let is_torn = link.end.is_some() || scan.stop != Stop::End;
        found.torn = is_torn.then(|| segment.corruption(scan.end, why));
        break;
    }
    Ok(found)
}

struct Scan {
    end: u64,
    stop: Stop,
    records: u64,
    closed: bool,
    durable: LogPosition,
}

/// Reads records from the front up to `limit`, or to the first place where there is none. Never
/// goes beyond the limit.
fn scan(bytes: &[u8], header: &SegmentHeader, limit: Option<u64>) -> Scan {
    let mut found = Scan {
        end: SEGMENT_HEADER_BYTES as u64,
        stop: Stop::End,
        records: 0,
        closed: false,
        durable: LogPosition::default(),
    };
    let sums = header.sums();
    while limit != Some(found.end) {
        match read_record(bytes, found.end as usize, header, &sums) {
            Ok(record) => {
                let end = record.payload.end as u64;
                if limit.is_some_and(|limit| end > limit) {
                    found.stop = Stop::Damage("no record ends where the next segment says");
                    break;
                }
                found.end = end;
                found.durable = found.durable.max(record.synced);
                found.records += u64::from(record.kind == RecordKind::Data);
                found.closed = record.kind == RecordKind::Close;
            }
            Err(stop) => {
                found.stop = stop;
                break;
            }
        }
    }
    found
}

/// A position beyond `end` that something behind `end` proves to have been durable.
fn proof_behind(
    fs: &Arc<dyn Fs>,
    segments: &[Segment],
    index: usize,
    bytes: &[u8],
    end: LogPosition,
) -> Result<Option<LogPosition>> {
    let beyond = |proof: Option<LogPosition>| proof.filter(|&proof| proof > end);
    let header = segments[index].header().expect("a link has a header");
    if let Some(proof) = beyond(durable_proof(bytes, end.offset as usize, header)) {
        return Ok(Some(proof));
    }
    for later in &segments[index + 1..] {
        if let Some(header) = later.header() {
            let bytes = load(fs, &later.file)?;
            if let Some(proof) = beyond(durable_proof(&bytes, SEGMENT_HEADER_BYTES, header)) {
                return Ok(Some(proof));
            }
        }
    }
    Ok(None)
}
