//! F2: the bytes of a log segment.
//!
//! ```text
//! segment:  header 60 | record | record | ... | zeros to the end of the file, if it was preallocated
//!
//! header:   preamble 16 (F0) | file id 16 | number 8 | prev_number 8 | prev_end 8 | crc 4
//! record:   header_crc 4 | payload_crc 4 | payload_len 4 | kind 1 | zero 3
//!           | synced_segment 8 | synced_offset 8 | payload
//! ```
//! Little-endian. A segment's header keeps this layout in every version of the format, so that a build
//! can always tell a newer segment from a torn one.
//!
//! Both sums of a record are bound to the file's identity and to the record's offset, so that a record
//! found anywhere by [`durable_proof`] belongs where it stands. `synced` is what was known to be
//! durable when the record was written: the log-wide position up to which a sync had succeeded.

use std::ops::Range;

use crate::base::checksum::{FileSums, checksum};
use crate::base::coding::{Decoder, put_u32, put_u64};
use crate::base::error::{Error, Result};
use crate::base::format::{FileKind, Layout, field, put_preamble, read_preamble};
use crate::base::id::{FileId, FileNumber};
use crate::base::limits::BATCH_BYTES_MAX;
use crate::log::LogPosition;

/// Bytes of a segment's header; the first record follows.
pub const SEGMENT_HEADER_BYTES: usize = 60;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Longest payload: the largest batch, and room for what frames it.
pub const PAYLOAD_BYTES_MAX: usize = BATCH_BYTES_MAX + (64 << 10);
/// Longest segment that is read: a full segment and the largest record behind it fit well.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// A segment that has so many bytes takes no more records, whatever an option says. What is left up to
/// [`SEGMENT_BYTES_MAX`] is for the last one, and for space that was reserved ahead.
pub const SEGMENT_BYTES_FULL: u64 = 112 << 20;

/// F2.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F2.1",
        title: "Log segment header",
        fields: &[
            field("0", "16", "preamble", "F0, kind L (write-ahead log) or M (manifest)"),
            field("16", "16", "file_id", "identity of this file; bound into every checksum below"),
            field("32", "8", "number", "file number of this segment"),
            field("40", "8", "prev_number", "file number of the preceding segment; 0 = none"),
            field("48", "8", "prev_end", "where the log ends in the preceding segment; 0 if none"),
            field("56", "4", "crc", "masked CRC-32 of bytes 0 to 56"),
        ],
    },
    Layout {
        id: "F2.2",
        title: "Log record",
        fields: &[
            field("0", "4", "header_crc", "masked CRC-32 of (file_id, offset, bytes 4 to 32)"),
            field("4", "4", "payload_crc", "masked CRC-32 of (file_id, offset, payload)"),
            field("8", "4", "payload_len", "bytes of payload"),
            field("12", "1", "kind", "1 data, 2 seal, 3 close; the last two have no payload"),
            field("13", "3", "reserved", "zero"),
            field("16", "8", "synced_segment", "the log is durable up to here: segment"),
            field("24", "8", "synced_offset", "the log is durable up to here: offset"),
            field("32", "n", "payload", "data: a write batch (F1) or a version edit (F4)"),
        ],
    },
];

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Carries a payload.
    Data = 1,
    /// Written after a sync, only to say that it succeeded.
    Seal = 2,
    /// The writer closed the segment.
    Close = 3,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Data),
            2 => Some(RecordKind::Seal),
            3 => Some(RecordKind::Close),
            _ => None,
        }
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Identity of the file.
    pub id: FileId,
    /// Number of the file.
    pub number: FileNumber,
    /// Where the log ended before this segment; `None` in the first.
    pub prev: Option<LogPosition>,
}

impl SegmentHeader {
    /// Makes the sums of the segment's records.
    pub fn sums(&self) -> FileSums {
        FileSums::new(self.id.as_bytes())
    }

    /// Appends the header.
    pub fn encode_into(&self, kind: FileKind, out: &mut Vec<u8>) {
        let start = out.len();
        put_preamble(out, kind);
        out.extend_from_slice(self.id.as_bytes());
        put_u64(out, self.number.0);
        let prev = self.prev.unwrap_or_default();
        put_u64(out, prev.segment.0);
        put_u64(out, prev.offset);
        let crc = checksum(&[&out[start..]]);
        put_u32(out, crc);
    }

    /// Reads the header at the front of `bytes`. Call [`is_header_intact`] first to tell a torn header
    /// from one that is whole and says something unacceptable.
    ///
    /// # Errors
    /// `Unsupported` for a newer format, `Corruption` with the offset for anything else.
    pub fn decode(bytes: &[u8], kind: FileKind) -> Result<SegmentHeader> {
        if !is_header_intact(bytes) {
            return Err(Error::corruption("segment header is torn or damaged").at(0));
        }
        let mut d = Decoder::new(bytes);
        read_preamble(&mut d, kind)?;
        let id = FileId::from_bytes(d.fixed()?);
        let number = FileNumber(d.u64()?);
        let link = d.clone();
        let prev = LogPosition::new(FileNumber(d.u64()?), d.u64()?);
        let prev = match prev {
            LogPosition { segment: FileNumber(0), offset: 0 } => None,
            LogPosition { segment, .. } if segment.0 == 0 || segment >= number => {
                return Err(link.error("the preceding segment is not older than this one"));
            }
            _ => Some(prev),
        };
        Ok(SegmentHeader { id, number, prev })
    }
}

/// Do `bytes` begin with a segment header that is all there and undamaged?
pub fn is_header_intact(bytes: &[u8]) -> bool {
    match bytes.get(..SEGMENT_HEADER_BYTES).and_then(|header| header.split_last_chunk::<4>()) {
        Some((covered, crc)) => checksum(&[covered]) == u32::from_le_bytes(*crc),
        None => false,
    }
}

/// Appends a record that will stand at `offset` of the file of `sums`; the payload is the parts in order.
///
/// # Panics
/// If the payload exceeds [`PAYLOAD_BYTES_MAX`].
pub fn put_record(
    out: &mut Vec<u8>,
    sums: &FileSums,
    offset: u64,
    kind: RecordKind,
    synced: LogPosition,
    parts: &[&[u8]],
) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    assert!(len <= PAYLOAD_BYTES_MAX, "payload too long");
    let payload_crc = sums.at(offset, parts);
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&payload_crc.to_le_bytes());
    header[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    header[12] = kind as u8;
    header[16..24].copy_from_slice(&synced.segment.0.to_le_bytes());
    header[24..].copy_from_slice(&synced.offset.to_le_bytes());
    let header_crc = sums.at(offset, &[&header[4..]]);
    header[..4].copy_from_slice(&header_crc.to_le_bytes());
    out.reserve(RECORD_HEADER_BYTES + len);
    out.extend_from_slice(&header);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A record in the bytes of its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is for.
    pub kind: RecordKind,
    /// What was known to be durable when it was written.
    pub synced: LogPosition,
    /// Where its payload stands in the segment.
    pub payload: Range<usize>,
}

/// Why reading records stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The file ends, or only zeros follow.
    End,
    /// Bytes follow that are no record; what is wrong with them.
    Damage(&'static str),
}

/// A record's header, its fields in range; sums not checked.
struct RecordHeader {
    header_crc: u32,
    payload_crc: u32,
    len: usize,
    kind: RecordKind,
    synced: LogPosition,
}

impl RecordHeader {
    /// `None` if a field cannot be: decides most bytes that are no record without a checksum.
    fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<RecordHeader> {
        let kind = RecordKind::from_byte(bytes[12])?;
        if bytes[13..16] != [0; 3] {
            return None;
        }
        let mut d = Decoder::new(bytes);
        let (header_crc, payload_crc) = (d.u32().ok()?, d.u32().ok()?);
        let len = d.u32().ok()? as usize;
        if len > PAYLOAD_BYTES_MAX || (kind != RecordKind::Data && len != 0) {
            return None;
        }
        d.u32().ok()?;
        let synced = LogPosition::new(FileNumber(d.u64().ok()?), d.u64().ok()?);
        Some(RecordHeader { header_crc, payload_crc, len, kind, synced })
    }

    /// The header at `offset` of a segment, if one stands there that was written for that place. The
    /// payload may be damaged or missing.
    fn read(
        bytes: &[u8],
        offset: usize,
        segment: &SegmentHeader,
        sums: &FileSums,
    ) -> Option<RecordHeader> {
        let raw = bytes.get(offset..)?.first_chunk::<RECORD_HEADER_BYTES>()?;
        let header = RecordHeader::decode(raw)?;
        let here = LogPosition::new(segment.number, offset as u64);
        let crc = sums.at(offset as u64, &[&raw[4..]]);
        (crc == header.header_crc && header.synced <= here).then_some(header)
    }
}

/// The record at `offset` of a segment, both sums checked, by the segment's [`sums`](SegmentHeader::sums).
///
/// # Errors
/// Why there is none.
pub fn read_record(
    bytes: &[u8],
    offset: usize,
    segment: &SegmentHeader,
    sums: &FileSums,
) -> std::result::Result<Record, Stop> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some(header) = RecordHeader::read(bytes, offset, segment, sums) else {
        return Err(if is_zero(rest) {
            Stop::End
        } else if rest.len() < RECORD_HEADER_BYTES {
            Stop::Damage("record header is cut short")
        } else {
            Stop::Damage("record header does not match its checksum")
        });
    };
    let start = offset + RECORD_HEADER_BYTES;
    let Some(payload) = bytes.get(start..start + header.len) else {
        return Err(Stop::Damage("payload is cut short"));
    };
    if sums.at(offset as u64, &[payload]) != header.payload_crc {
        return Err(Stop::Damage("payload does not match its checksum"));
    }
    let payload = start..start + header.len;
    Ok(Record { kind: header.kind, synced: header.synced, payload })
}

/// Are these bytes reserved and never written? Looks at 64 at a time.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

/// The record at `offset` of bytes that [`read_record`] has accepted before: nothing is summed again.
pub fn reread_record(bytes: &[u8], offset: usize) -> Option<Record> {
    let raw = bytes.get(offset..)?.first_chunk::<RECORD_HEADER_BYTES>()?;
    let header = RecordHeader::decode(raw)?;
    let start = offset + RECORD_HEADER_BYTES;
    let payload = start..start.checked_add(header.len)?;
    (payload.end <= bytes.len()).then_some(Record {
        kind: header.kind,
        synced: header.synced,
        payload,
    })
}

/// The furthest position that any record header at or after `from` proves durable, whatever lies
/// between: looks at every byte. Cost: a few instructions a byte, a checksum only where all else fits.
pub fn durable_proof(bytes: &[u8], from: usize, segment: &SegmentHeader) -> Option<LogPosition> {
    let sums = segment.sums();
    let mut furthest = None;
    let mut offset = from;
    while offset < bytes.len() {
        match RecordHeader::read(bytes, offset, segment, &sums) {
            Some(header) => {
                furthest = furthest.max(Some(header.synced));
                offset += RECORD_HEADER_BYTES;
            }
            None => offset += 1,
        }
    }
    furthest
}

/// One piece of a segment, for people and for fuzzing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentItem {
    /// The header, intact.
    Header(SegmentHeader),
    /// An intact record at this offset.
    Record(usize, Record),
    /// Zeros to the end of the file: preallocated and never written.
    Zeros(Range<usize>),
    /// Bytes that are nothing, up to the next intact record or the end; why.
    Damage(Range<usize>, String),
}

/// Everything in the bytes of one segment, in order and without a gap. Goes on behind damage, as
/// recovery never does. Never panics, whatever the bytes; allocates nothing that their length does not
/// justify.
pub fn decode_segment(bytes: &[u8], kind: FileKind) -> Vec<SegmentItem> {
    let header = match SegmentHeader::decode(bytes, kind) {
        Ok(header) => header,
        Err(e) => return vec![SegmentItem::Damage(0..bytes.len(), e.to_string())],
    };
    let sums = header.sums();
    let mut items = vec![SegmentItem::Header(header)];
    let mut offset = SEGMENT_HEADER_BYTES;
    while offset < bytes.len() {
        match read_record(bytes, offset, &header, &sums) {
            Ok(record) => {
                let end = record.payload.end;
                items.push(SegmentItem::Record(offset, record));
                offset = end;
            }
            Err(Stop::End) => {
                items.push(SegmentItem::Zeros(offset..bytes.len()));
                break;
            }
            Err(Stop::Damage(why)) => {
                let end = next_record(bytes, offset + 1, &header, &sums);
                items.push(SegmentItem::Damage(offset..end, why.to_owned()));
                offset = end;
            }
        }
    }
    items
}

/// Where the next intact record begins, or the end of the bytes.
fn next_record(bytes: &[u8], from: usize, header: &SegmentHeader, sums: &FileSums) -> usize {
    (from..bytes.len())
        .find(|&offset| {
            RecordHeader::read(bytes, offset, header, sums).is_some()
                && read_record(bytes, offset, header, sums).is_ok()
        })
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn header() -> SegmentHeader {
        let number = FileNumber::new(2, 3);
        let prev = Some(LogPosition::new(FileNumber::new(1, 9), 0x1122));
        SegmentHeader { id: FileId::new(0x0807_0605_0403_0201, number), number, prev }
    }

    #[test]
    fn pinned() {
        let mut out = Vec::new();
        header().encode_into(FileKind::Log, &mut out);
        assert_eq!(out.len(), SEGMENT_HEADER_BYTES);
        let synced = LogPosition::new(FileNumber::new(1, 9), 0x1122);
        let at = out.len() as u64;
        put_record(&mut out, &header().sums(), at, RecordKind::Data, synced, &[b"ab", b"c"]);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        let want = concat!(
            "89414c564c0d0a1a0000000000000000", // preamble
            "01020304050607080300000002000000", // file id
            "0300000002000000",                 // number
            "0900000001000000",                 // prev_number
            "2211000000000000",                 // prev_end
            "29b1c111",                         // crc
            "2f9b3b43",                         // header_crc
            "b871a2dd",                         // payload_crc
            "0300000001000000",                 // payload_len, kind, zero
            "0900000001000000",                 // synced_segment
            "2211000000000000",                 // synced_offset
            "616263",                           // payload
        );
        assert_eq!(hex, want);
    }

    #[test]
    fn layouts_add_up() {
        for layout in LAYOUTS {
            let mut next = 0usize;
            for field in layout.fields {
                assert_eq!(field.offset.parse(), Ok(next), "{}", field.name);
                next += field.size.parse().unwrap_or(0);
            }
        }
    }

    #[test]
    fn headers_that_are_whole_but_wrong_are_refused_with_their_place() {
        let mut own = header();
        own.prev = Some(LogPosition::new(own.number, 60));
        let mut bytes = Vec::new();
        own.encode_into(FileKind::Log, &mut bytes);
        assert_eq!(SegmentHeader::decode(&bytes, FileKind::Log).unwrap_err().offset(), Some(40));
        let mut bytes = Vec::new();
        header().encode_into(FileKind::Log, &mut bytes);
        assert_eq!(SegmentHeader::decode(&bytes, FileKind::Log).unwrap(), header());
        assert!(SegmentHeader::decode(&bytes, FileKind::Manifest).is_err());
        for i in 0..bytes.len() {
            assert!(!is_header_intact(&bytes[..i]));
            bytes[i] ^= 0x10;
            assert!(!is_header_intact(&bytes), "byte {i}");
            bytes[i] ^= 0x10;
        }
    }

    quickcheck! {
        fn records_round_trip(payloads: Vec<Vec<u8>>, zeros: u8) -> bool {
            let header = header();
            let mut out = Vec::new();
            header.encode_into(FileKind::Log, &mut out);
            for payload in &payloads {
                let at = out.len() as u64;
                let synced = LogPosition::new(header.number, at);
                put_record(&mut out, &header.sums(), at, RecordKind::Data, synced, &[payload]);
            }
            let end = out.len();
            out.resize(end + usize::from(zeros), 0);
            let items = decode_segment(&out, FileKind::Log);
            let records: Vec<_> = items
                .iter()
                .filter_map(|item| match item {
                    SegmentItem::Record(at, r) => {
                        assert_eq!(reread_record(&out, *at).as_ref(), Some(r));
                        Some(out[r.payload.clone()].to_vec())
                    }
                    _ => None,
                })
                .collect();
            records == payloads
                && items.iter().all(|item| !matches!(item, SegmentItem::Damage(..)))
                && items.len() == 1 + payloads.len() + usize::from(zeros > 0)
        }

        fn any_bytes_decode(bytes: Vec<u8>, behind_a_header: bool) -> bool {
            let mut all = Vec::new();
            if behind_a_header {
                header().encode_into(FileKind::Log, &mut all);
            }
            all.extend_from_slice(&bytes);
            let _ = durable_proof(&all, 0, &header());
            // The pieces cover all bytes without a gap.
            let mut next = 0;
            for item in decode_segment(&all, FileKind::Log) {
                let range = match item {
                    SegmentItem::Header(_) => 0..SEGMENT_HEADER_BYTES,
                    SegmentItem::Record(at, record) => at..record.payload.end,
                    SegmentItem::Zeros(range) | SegmentItem::Damage(range, _) => range,
                };
                assert_eq!(range.start, next);
                next = range.end;
            }
            next == all.len()
        }
    }

    #[test]
    fn goes_on_behind_damage() {
        let header = header();
        let mut out = Vec::new();
        header.encode_into(FileKind::Log, &mut out);
        let mut starts = Vec::new();
        for payload in [b"one", b"two", b"six"] {
            starts.push(out.len());
            let at = out.len() as u64;
            let synced = LogPosition::new(header.number, at);
            put_record(&mut out, &header.sums(), at, RecordKind::Data, synced, &[payload]);
        }
        out[starts[1]] ^= 1;
        let items = decode_segment(&out, FileKind::Log);
        let damage = SegmentItem::Damage(
            starts[1]..starts[2],
            "record header does not match its checksum".to_owned(),
        );
        assert_eq!(items.len(), 4);
        assert_eq!(items[2], damage);
        let proof = durable_proof(&out, starts[1], &header);
        assert_eq!(proof, Some(LogPosition::new(header.number, starts[2] as u64)));
    }
}
