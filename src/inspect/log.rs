//! Segments of the write-ahead log and of a manifest: their records, and what stands in these.

use std::ops::Range;

use crate::base::coding::Decoder;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::FileKind;
use crate::base::key::ValueKind;
use crate::batch::BatchReader;
use crate::batch::Op;
use crate::inspect::manifest;
use crate::inspect::report::Report;
use crate::inspect::report::key;
use crate::inspect::report::value;
use crate::log::LogPosition;
use crate::log::SegmentItem;
use crate::log::decode_segment;
use crate::log::format::Record;
use crate::log::format::RecordKind;
use crate::log::format::SegmentHeader;
use crate::log::format::durable_proof;
use crate::version::edit::VersionEdit;
use crate::version::names::FileName;

/// Describes a segment.
pub fn describe(
    report: &mut Report,
    bytes: &[u8],
    kind: FileKind,
    named: Option<FileName>,
) -> Result<()> {
    let header = SegmentHeader::decode(bytes, kind)?;
    let what = if kind == FileKind::Manifest { "manifest" } else { "log segment" };
    let (number, id) = (header.number, header.id);
    report.line(0, format_args!("{what} {number}, {} bytes, file id {id}", bytes.len()));
    match header.prev {
        Some(prev) => report.line(1, format_args!("the log before ends at {prev}")),
        None => report.line(1, format_args!("nothing before it")),
    }
    if named.and_then(FileName::number).is_some_and(|named| named != number) {
        let text = format!("the file is named for another number; it is {number}");
        report.damaged(1, Error::corruption(text).at(32));
    }
    for item in decode_segment(bytes, kind) {
        match item {
            SegmentItem::Header(_) => {}
            SegmentItem::Zeros(range) => {
                let (start, len) = (range.start, range.len());
                report.line(1, format_args!("@{start} {len} bytes of zeros to the end"));
            }
            SegmentItem::Record(at, record) => describe_record(report, bytes, kind, at, &record),
            SegmentItem::Damage(range, why) => match hole(bytes, &header, &range, &why) {
                Some(error) => report.damaged(1, error),
                None => {
                    let (start, len) = (range.start, range.len());
                    report.line(1, format_args!("@{start} {len} bytes of a torn tail: {why}"));
                }
            },
        }
    }
    Ok(())
}

/// Is a damaged stretch more than the torn tail that a crash may leave? Then what it is: something
/// follows it, or it had been durable.
pub fn hole(
    bytes: &[u8],
    header: &SegmentHeader,
    range: &Range<usize>,
    why: &str,
) -> Option<Error> {
    let here = LogPosition::new(header.number, range.start as u64);
    let proof = durable_proof(bytes, range.start, header).filter(|&proof| proof > here);
    let text = match proof {
        Some(proof) => format!("{why}, but the log had been durable up to {proof}"),
        None if range.end < bytes.len() => format!("{why}; intact records follow"),
        None => return None,
    };
    Some(Error::corruption(text).at(range.start as u64))
}

fn describe_record(report: &mut Report, bytes: &[u8], kind: FileKind, at: usize, record: &Record) {
    let synced = record.synced;
    match record.kind {
        RecordKind::Seal => report.line(1, format_args!("@{at} seal: durable up to {synced}")),
        RecordKind::Close => report.line(1, format_args!("@{at} close: durable up to {synced}")),
        RecordKind::Data => {
            let len = record.payload.len();
            let what = if kind == FileKind::Manifest { "edit" } else { "batch" };
            report.line(1, format_args!("@{at} {what} of {len} bytes, durable up to {synced}"));
            let payload = bytes.get(record.payload.clone()).unwrap_or_default();
            let start = record.payload.start as u64;
            let described = match kind {
                FileKind::Manifest => VersionEdit::decode(Decoder::with_base(payload, start))
                    .map(|edit| manifest::describe_edit(report, &edit)),
                _ => describe_batch(report, payload, start),
            };
            if let Err(e) = described {
                report.damaged(2, e);
            }
        }
    }
}

fn describe_batch(report: &mut Report, payload: &[u8], base: u64) -> Result<()> {
    let mut reader = BatchReader::of_log(payload, base)?;
    let mut seqno = reader.seqno();
    let last = seqno.saturating_add(u64::from(reader.count()).saturating_sub(1));
    report.line(2, format_args!("{} operations, {seqno} to {last}", reader.count()));
    while let Some(op) = reader.next() {
        describe_op(report, seqno, &op?);
        seqno += 1;
    }
    Ok(())
}

fn describe_op(report: &mut Report, seqno: u64, op: &Op<'_>) {
    let (family, k, v) = (op.family, key(op.key), value(op.value));
    let len = op.value.len();
    match op.kind {
        ValueKind::Delete => report.line(3, format_args!("{seqno} delete {k} in family {family}")),
        ValueKind::RangeDelete => {
            let end = key(op.value);
            report.line(3, format_args!("{seqno} delete range [{k} .. {end}) in family {family}"));
        }
        ValueKind::Put => {
            report.line(3, format_args!("{seqno} put {k} in family {family}: {len} bytes, {v}"));
        }
        ValueKind::Merge => {
            report.line(3, format_args!("{seqno} merge {k} in family {family}: {len} bytes, {v}"));
        }
    }
}
