//! F4.2: what the database knows of a table file without opening it.

use crate::base::coding::{Decoder, put_field, put_number};
use crate::base::error::{Error, Result};
use crate::base::format::{Layout, field};
use crate::base::id::{FileId, FileNumber};
use crate::base::key::{KeyRange, SEQNO_MAX, SeqNo};
use crate::base::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX};

/// A table file's description in the manifest and in checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// Its number here; hence its name.
    pub number: FileNumber,
    /// Its identity since it was written, perhaps by another database.
    pub id: FileId,
    /// Length in bytes.
    pub len: u64,
    /// BLAKE3 of all its bytes: the name of what it holds.
    pub digest: [u8; 32],
    /// XXH3-128 of all its bytes: shows damage, several times as fast.
    pub checksum: u128,
    /// The user keys for which the file is asked. Points and range tombstones outside do not exist.
    pub bounds: KeyRange,
    /// Are the bounds narrower than what the file holds?
    pub clipped: bool,
    /// Least sequence number in the file, range tombstones included, clipped or not.
    pub seqno_min: SeqNo,
    /// Greatest sequence number in the file, range tombstones included, clipped or not.
    pub seqno_max: SeqNo,
    /// Point entries of all kinds.
    pub entries: u64,
    /// Entries that are deletes.
    pub deletes: u64,
    /// Range tombstones.
    pub range_deletes: u64,
    /// Least and greatest timestamp of its values, if the family extracts timestamps.
    pub timestamps: Option<(i64, i64)>,
    /// Name of the extractor that the timestamps are from.
    pub timestamp_extractor: Option<String>,
}

mod tag {
    pub const NUMBER: u32 = 1;
    pub const ID: u32 = 2;
    pub const LEN: u32 = 3;
    pub const DIGEST: u32 = 4;
    pub const START: u32 = 5;
    pub const END: u32 = 6;
    pub const CLIPPED: u32 = 7;
    pub const SEQNO_MIN: u32 = 8;
    pub const SEQNO_MAX: u32 = 9;
    pub const ENTRIES: u32 = 10;
    pub const DELETES: u32 = 11;
    pub const RANGE_DELETES: u32 = 12;
    pub const TIMESTAMPS: u32 = 13;
    pub const TIMESTAMP_EXTRACTOR: u32 = 14;
    pub const CHECKSUM: u32 = 15;
    /// The last one that this build knows.
    pub const LAST: u32 = CHECKSUM;
}

/// F4.2 as a table.
pub const LAYOUTS: &[Layout] = &[Layout {
    id: "F4.2",
    title: "File meta: fields (tag·2 + must-understand, length, payload), tags ascending",
    fields: &[
        field("tag 1!", "v", "number", "file number; the name is derived from it"),
        field("tag 2!", "16", "id", "identity bound into the file's checksums"),
        field("tag 3!", "v", "len", "file length in bytes, at least 1"),
        field("tag 4!", "32", "digest", "BLAKE3 of all bytes of the file"),
        field("tag 5!", "n", "bounds.start", "first user key for which the file is asked"),
        field("tag 6!", "n", "bounds.end", "first user key after the bounds; absent: no end"),
        field("tag 7!", "0", "clipped", "present if the bounds are narrower than the content"),
        field("tag 8!", "v", "seqno_min", "least sequence number in the file"),
        field("tag 9!", "v", "seqno_max", "greatest sequence number in the file"),
        field("tag 10", "v", "entries", "point entries of all kinds"),
        field("tag 11", "v", "deletes", "entries that are deletes; absent: none"),
        field("tag 12!", "v", "range_deletes", "range tombstones; absent: none"),
        field("tag 13", "16", "timestamps", "least and greatest timestamp, two i64"),
        field("tag 14", "n", "timestamp_extractor", "name of what the timestamps are from"),
        field("tag 15!", "16", "checksum", "XXH3-128 of all bytes of the file"),
        field("tag 32!", "-", "ingest_seqno", "reserved: one sequence number for all entries"),
        field("tag 33!", "-", "blobs", "reserved: references to blob files"),
        field("tag 34!", "-", "dictionary", "reserved: compression dictionary id"),
        field("tag 35", "-", "prefix_counts", "reserved: entries per key group"),
    ],
}];

impl FileMeta {
    /// Deletes and range tombstones.
    pub fn tombstones(&self) -> u64 {
        self.deletes.saturating_add(self.range_deletes)
    }

    /// Digest and checksum.
    pub fn sums(&self) -> (&[u8; 32], u128) {
        (&self.digest, self.checksum)
    }

    /// The same file, asked only for keys of `range` any more; `None` if none of its keys is there.
    #[cfg(test)]
    pub fn clip(&self, range: &KeyRange) -> Option<FileMeta> {
        let bounds = self.bounds.intersect(range);
        let clipped = self.clipped || bounds != self.bounds;
        (!bounds.is_empty()).then(|| FileMeta { bounds, clipped, ..self.clone() })
    }

    /// Appends the stored form to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        put_number(out, tag::NUMBER, true, self.number.0);
        put_field(out, tag::ID, true, self.id.as_bytes());
        put_number(out, tag::LEN, true, self.len);
        put_field(out, tag::DIGEST, true, &self.digest);
        put_field(out, tag::START, true, &self.bounds.start);
        if let Some(end) = &self.bounds.end {
            put_field(out, tag::END, true, end);
        }
        if self.clipped {
            put_field(out, tag::CLIPPED, true, &[]);
        }
        put_number(out, tag::SEQNO_MIN, true, self.seqno_min);
        put_number(out, tag::SEQNO_MAX, true, self.seqno_max);
        put_number(out, tag::ENTRIES, false, self.entries);
        if self.deletes > 0 {
            put_number(out, tag::DELETES, false, self.deletes);
        }
        if self.range_deletes > 0 {
            put_number(out, tag::RANGE_DELETES, true, self.range_deletes);
        }
        if let Some((least, greatest)) = self.timestamps {
            let both = [least.to_le_bytes(), greatest.to_le_bytes()].concat();
            put_field(out, tag::TIMESTAMPS, false, &both);
        }
        if let Some(name) = &self.timestamp_extractor {
            put_field(out, tag::TIMESTAMP_EXTRACTOR, false, name.as_bytes());
        }
        put_field(out, tag::CHECKSUM, true, &self.checksum.to_le_bytes());
    }

    /// Reads the stored form: all that is left in `d`.
    ///
    /// # Errors
    /// `Corruption` if it is none, lacks a field or has numbers out of range; `Unsupported` if a field
    /// must be understood and is not.
    pub fn decode(d: Decoder<'_>) -> Result<FileMeta> {
        let start = d.clone();
        let missing = |name: &str| start.error(&format!("file meta lacks its {name}"));
        let (mut number, mut id, mut len) = (None, None, None);
        let (mut digest, mut checksum) = (None, None);
        let (mut from, mut end, mut clipped) = (None, None, false);
        let (mut seqno_min, mut seqno_max) = (None, None);
        let (mut entries, mut deletes, mut range_deletes, mut timestamps) = (0, 0, 0, None);
        let mut timestamp_extractor = None;
        let mut fields = Fields::new(d, tag::LAST, &[]);
        while let Some((tag, must, mut d)) = fields.next()? {
            match tag {
                tag::NUMBER => number = Some(read_file_number(&mut d)?),
                tag::ID => id = Some(FileId::from_bytes(d.fixed()?)),
                tag::LEN => len = Some(d.varint()?),
                tag::DIGEST => digest = Some(d.fixed()?),
                tag::START => from = Some(read_key(&mut d)?),
                tag::END => end = Some(read_key(&mut d)?),
                tag::CLIPPED => clipped = true,
                tag::SEQNO_MIN => seqno_min = Some(read_seqno(&mut d)?),
                tag::SEQNO_MAX => seqno_max = Some(read_seqno(&mut d)?),
                tag::ENTRIES => entries = d.varint()?,
                tag::DELETES => deletes = d.varint()?,
                tag::RANGE_DELETES => range_deletes = d.varint()?,
                tag::TIMESTAMPS => timestamps = Some((d.u64()? as i64, d.u64()? as i64)),
                tag::TIMESTAMP_EXTRACTOR => timestamp_extractor = Some(read_name(&mut d)?),
                tag::CHECKSUM => checksum = Some(u128::from_le_bytes(d.fixed()?)),
                _ => {
                    unknown(tag, must, &d, "file meta")?;
                    continue;
                }
            }
            d.finish()?;
        }
        let meta = FileMeta {
            number: number.ok_or_else(|| missing("number"))?,
            id: id.ok_or_else(|| missing("id"))?,
            len: len.ok_or_else(|| missing("length"))?,
            digest: digest.ok_or_else(|| missing("digest"))?,
            checksum: checksum.ok_or_else(|| missing("checksum"))?,
            bounds: KeyRange { start: from.ok_or_else(|| missing("bounds"))?, end },
            clipped,
            seqno_min: seqno_min.ok_or_else(|| missing("least sequence number"))?,
            seqno_max: seqno_max.ok_or_else(|| missing("greatest sequence number"))?,
            entries,
            deletes,
            range_deletes,
            timestamps,
            timestamp_extractor,
        };
        if meta.bounds.is_empty()
            || meta.len == 0
            || meta.seqno_min > meta.seqno_max
            || meta.timestamps.is_some_and(|(least, greatest)| least > greatest)
        {
            return Err(start.error("file meta contradicts itself"));
        }
        Ok(meta)
    }
}

/// A file number; none has epoch or counter zero.
pub(super) fn read_file_number(d: &mut Decoder<'_>) -> Result<FileNumber> {
    let before = d.clone();
    let number = FileNumber(d.varint()?);
    if number.epoch() == 0 || number.counter() == 0 {
        return Err(before.error("bad file number"));
    }
    Ok(number)
}

/// Where the log begins: a file number, or counter 0 of an epoch in which nothing was logged yet.
pub(super) fn read_log_start(d: &mut Decoder<'_>) -> Result<FileNumber> {
    let before = d.clone();
    let number = FileNumber(d.varint()?);
    if number.epoch() == 0 { Err(before.error("bad log start")) } else { Ok(number) }
}

/// A sequence number in its range.
pub(super) fn read_seqno(d: &mut Decoder<'_>) -> Result<SeqNo> {
    let before = d.clone();
    let seqno = d.varint()?;
    if seqno > SEQNO_MAX { Err(before.error("sequence number exceeds 56 bits")) } else { Ok(seqno) }
}

/// A name: of at most as many bytes as any other.
fn read_name(d: &mut Decoder<'_>) -> Result<String> {
    let bytes = d.bytes(d.rest().len())?;
    let name = std::str::from_utf8(bytes).ok().filter(|name| name.len() <= NAME_BYTES_MAX);
    name.map(str::to_owned).ok_or_else(|| d.error("no name"))
}

/// A bound: the longest key and the zero byte that makes it exclusive.
fn read_key(d: &mut Decoder<'_>) -> Result<Vec<u8>> {
    if d.rest().len() > KEY_BYTES_MAX + 1 {
        return Err(d.error("a bound is longer than a key may be"));
    }
    let len = d.rest().len();
    Ok(d.bytes(len)?.to_vec())
}

/// Reads the fields of one structure: tags ascending; those up to `known` once, unless in `lists`.
pub(super) struct Fields<'a> {
    d: Decoder<'a>,
    last: u32,
    known: u32,
    lists: &'static [u32],
}

impl<'a> Fields<'a> {
    /// All that is left in `d`. This build knows the tags up to `known`; those in `lists` may repeat,
    /// and so may tags that are not known yet.
    pub(super) fn new(d: Decoder<'a>, known: u32, lists: &'static [u32]) -> Fields<'a> {
        Fields { d, last: 0, known, lists }
    }

    /// The next field: tag, must-understand, payload.
    pub(super) fn next(&mut self) -> Result<Option<(u32, bool, Decoder<'a>)>> {
        if self.d.is_empty() {
            return Ok(None);
        }
        let before = self.d.clone();
        let (tag, must, payload) = self.d.field()?;
        let once = tag <= self.known && !self.lists.contains(&tag);
        if tag < self.last || (tag == self.last && once) {
            return Err(before.error("fields out of order"));
        }
        self.last = tag;
        Ok(Some((tag, must, payload)))
    }
}

/// An unknown field is skipped, unless it must be understood.
pub(super) fn unknown(tag: u32, must: bool, d: &Decoder<'_>, what: &str) -> Result<()> {
    if !must {
        return Ok(());
    }
    let text = format!("{what} has field {tag}, which this build does not know");
    Err(Error::unsupported(text).at(d.offset()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::{Arbitrary, Gen, quickcheck};

    impl Arbitrary for FileMeta {
        fn arbitrary(g: &mut Gen) -> FileMeta {
            let (a, b) = (u64::arbitrary(g) & SEQNO_MAX, u64::arbitrary(g) & SEQNO_MAX);
            let (t, u) = (i64::arbitrary(g), i64::arbitrary(g));
            let start = Vec::<u8>::arbitrary(g);
            let end = Option::<Vec<u8>>::arbitrary(g).map(|tail| {
                let mut end = start.clone();
                end.push(0);
                end.extend(tail);
                end
            });
            let mut id = [0; 16];
            id.fill_with(|| u8::arbitrary(g));
            let mut digest = [0; 32];
            digest.fill_with(|| u8::arbitrary(g));
            FileMeta {
                number: FileNumber::new(u32::arbitrary(g).max(1), u32::arbitrary(g).max(1)),
                id: FileId::from_bytes(id),
                len: u64::arbitrary(g).max(1),
                digest,
                checksum: u128::arbitrary(g),
                bounds: KeyRange { start, end },
                clipped: bool::arbitrary(g),
                seqno_min: a.min(b),
                seqno_max: a.max(b),
                entries: u64::arbitrary(g),
                deletes: u64::arbitrary(g),
                range_deletes: u64::arbitrary(g),
                timestamps: bool::arbitrary(g).then_some((t.min(u), t.max(u))),
                timestamp_extractor: bool::arbitrary(g).then(|| "last access".to_owned()),
            }
        }
    }

    fn encode(meta: &FileMeta) -> Vec<u8> {
        let mut out = Vec::new();
        meta.encode_into(&mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<FileMeta> {
        FileMeta::decode(Decoder::new(bytes))
    }

    quickcheck! {
        fn round_trips(meta: FileMeta) -> bool {
            decode(&encode(&meta)).unwrap() == meta
        }

        fn unknown_optional_fields_are_skipped(meta: FileMeta, tag: u32, payload: Vec<u8>) -> bool {
            let mut out = encode(&meta);
            let tag = tag.max(tag::LAST + 1);
            put_field(&mut out, tag, false, &payload);
            put_field(&mut out, tag, false, &payload);
            decode(&out).unwrap() == meta
        }

        fn unknown_fields_that_matter_are_refused(meta: FileMeta, tag: u32) -> bool {
            let mut out = encode(&meta);
            put_field(&mut out, tag.max(tag::LAST + 1), true, b"?");
            decode(&out).unwrap_err().kind() == ErrorKind::Unsupported
        }

        fn decoding_anything_returns(meta: FileMeta, at: usize, byte: u8, cut: usize) -> bool {
            let mut out = encode(&meta);
            let at = at % out.len();
            out[at] = byte;
            out.truncate(out.len() - cut % 4);
            decode(&out).map_or(true, |meta| decode(&encode(&meta)).unwrap() == meta)
        }
    }

    /// A small plain file.
    pub fn meta(number: FileNumber, range: (&[u8], &[u8]), seqnos: (SeqNo, SeqNo)) -> FileMeta {
        FileMeta {
            number,
            id: FileId::new(9, number),
            len: 100,
            digest: [7; 32],
            checksum: 8,
            bounds: KeyRange::new(range.0, Some(range.1)),
            clipped: false,
            seqno_min: seqnos.0,
            seqno_max: seqnos.1,
            entries: 3,
            deletes: 0,
            range_deletes: 0,
            timestamps: None,
            timestamp_extractor: None,
        }
    }

    #[test]
    fn pinned() {
        let mut meta = meta(FileNumber::new(1, 2), (b"a", b"b"), (1, 300));
        meta.range_deletes = 1;
        let mut want = b"\x03\x05\x82\x80\x80\x80\x10\x05\x10".to_vec();
        want.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
        want.extend_from_slice(b"\x07\x01\x64\x09\x20");
        want.extend_from_slice(&[7; 32]);
        want.extend_from_slice(
            b"\x0b\x01a\x0d\x01b\x11\x01\x01\x13\x02\xac\x02\x14\x01\x03\x19\x01\x01\x1f\x10\x08",
        );
        want.extend_from_slice(&[0; 15]);
        assert_eq!(encode(&meta), want);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let good = meta(FileNumber::new(1, 2), (b"a", b"b"), (1, 300));
        let spoils: [fn(&mut FileMeta); 9] = [
            |m| m.number = FileNumber(2),
            |m| m.number = FileNumber::new(1, 0),
            |m| m.len = 0,
            |m| m.seqno_min = 301,
            |m| m.seqno_max = SEQNO_MAX + 1,
            |m| m.bounds.end = Some(b"a".to_vec()),
            |m| m.timestamps = Some((2, 1)),
            |m| m.bounds.start = vec![b'a'; KEY_BYTES_MAX + 2],
            |m| m.timestamp_extractor = Some("a".repeat(NAME_BYTES_MAX + 1)),
        ];
        for (i, spoil) in spoils.iter().enumerate() {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(decode(&encode(&bad)).unwrap_err().kind(), ErrorKind::Corruption, "{i}");
        }
        let twice = [encode(&good), encode(&good)].concat();
        assert_eq!(decode(&twice).unwrap_err().kind(), ErrorKind::Corruption);
        assert_eq!(decode(&[]).unwrap_err().kind(), ErrorKind::Corruption);
    }
}
