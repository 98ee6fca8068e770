//! F3: the picture of a table file: footer, handles, block trailers.
//!
//! ```text
//! ┌──────────────────────────┐ 0
//! │ data block 0             │  entries in key order; each block is followed by its trailer
//! │ …                        │
//! │ data block n             │
//! ├──────────────────────────┤
//! │ filter block             │  optional: which user keys are here
//! │ range tombstone block    │  optional: start → end
//! │ properties block         │  tag-length-value
//! │ index block              │  separator → handle of a data block
//! ├──────────────────────────┤ len − 84
//! │ footer                   │  identity, four handles, checksum, preamble
//! └──────────────────────────┘ len
//!
//! a block in the file       stored bytes ‖ codec u8 ‖ raw length u32 ‖ checksum u32
//! an entry block, unpacked  entries ‖ restart offsets u32 × n ‖ n u32
//! an entry                  shared v ‖ unshared v ‖ value length v ‖ stamp u8 ‖ key tail ‖ seqno ‖ value
//! ```
//! The parts lie side by side without a gap, and every byte is under a checksum that is bound to the
//! file's identity and to the place of the block. A handle of zeros stands for "there is none".

use crate::base::bytes::Bytes;
use crate::base::canary::Canary;
use crate::base::checksum::checksum_at;
use crate::base::coding::{Decoder, put_u32, put_u64};
use crate::base::error::{Error, Result};
use crate::base::format::{FileKind, Layout, PREAMBLE_BYTES, field, put_preamble, read_preamble};
use crate::base::id::FileId;
use crate::base::limits::DECODE_BYTES_MAX;
use crate::table::compression::{Codec, decompress, unpack};
use crate::table::scratch::Buffer;

/// Bytes of a block's trailer.
pub const BLOCK_TRAILER_BYTES: usize = 9;

/// A block that is longer is never packed, so that what one unfolds to is, with the header of an
/// allocation, at most [`DECODE_BYTES_MAX`].
pub const PACKED_RAW_BYTES_MAX: usize = DECODE_BYTES_MAX - 64;

/// Bytes of the footer, the preamble included.
pub const FOOTER_BYTES: usize = 16 + 4 * HANDLE_BYTES + 4 + PREAMBLE_BYTES;

const HANDLE_BYTES: usize = 12;

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BlockHandle {
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Stored bytes, without the trailer.
    pub len: u32,
}

impl BlockHandle {
    /// The offset after its trailer; `None` if there is no such number.
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.len))?.checked_add(BLOCK_TRAILER_BYTES as u64)
    }

    /// Bytes that it takes in the file.
    pub fn stored_bytes(&self) -> usize {
        self.len as usize + BLOCK_TRAILER_BYTES
    }

    fn put(this: Option<BlockHandle>, out: &mut Vec<u8>) {
        let handle = this.unwrap_or_default();
        put_u64(out, handle.offset);
        put_u32(out, handle.len);
    }

    fn read(d: &mut Decoder<'_>) -> Result<Option<BlockHandle>> {
        let handle = BlockHandle { offset: d.u64()?, len: d.u32()? };
        Ok((handle != BlockHandle::default()).then_some(handle))
    }
}

/// Appends `stored` and its trailer to `out`, as the block at `offset` of the file.
pub fn put_block(
    out: &mut Vec<u8>,
    id: &FileId,
    offset: u64,
    codec: Codec,
    stored: &[u8],
    raw_len: u32,
) {
    let mut trailer = [0; 5];
    trailer[0] = codec as u8;
    trailer[1..].copy_from_slice(&raw_len.to_le_bytes());
    let crc = checksum_at(id.as_bytes(), offset, &[stored, &trailer]);
    out.extend_from_slice(stored);
    out.extend_from_slice(&trailer);
    put_u32(out, crc);
}

/// The codec's number and the unpacked length, as a stored block's trailer says, unchecked.
pub fn packing(stored: &[u8]) -> Option<(u8, u32)> {
    let [codec, raw_len @ ..] = *stored.split_last_chunk::<4>()?.0.last_chunk::<5>()?;
    Some((codec, u32::from_le_bytes(raw_len)))
}

/// A stored block whose checksum is right, without its trailer.
#[derive(Clone, Copy)]
pub struct StoredBlock<'a> {
    /// How it is packed.
    pub codec: Codec,
    /// Its bytes.
    pub packed: &'a [u8],
    /// How many it unpacks to, within limits. As many as `packed` has, if it is not packed.
    pub raw_len: usize,
    /// Where it stands in its file.
    pub offset: u64,
}

impl<'a> StoredBlock<'a> {
    /// Its unpacked bytes, in `buffer` if it was packed.
    ///
    /// # Errors
    /// `Corruption` at its offset; `Unsupported` if the codec is not part of this build.
    pub fn unpack(&self, buffer: &'a mut Buffer) -> Result<&'a [u8]> {
        if self.codec == Codec::None {
            return Ok(self.packed);
        }
        let raw = buffer.first(self.raw_len);
        unpack(self.codec, self.packed, raw).map_err(|e| e.at(self.offset))?;
        Ok(raw)
    }

    /// Its unpacked bytes, over the memory of `old` if that is free.
    ///
    /// # Errors
    /// Those of [`unpack`](StoredBlock::unpack).
    pub fn unpack_over(&self, old: Option<Bytes>) -> Result<Bytes> {
        let fill = |raw: &mut [u8]| unpack(self.codec, self.packed, raw);
        Bytes::filled_over(old, self.raw_len, fill).map_err(|e| e.at(self.offset))
    }
}

/// Checks a block that was read, trailer included, from `offset`, against its checksum and limits: it
/// claims no more than `raw_max` and [`PACKED_RAW_BYTES_MAX`] bytes.
///
/// # Errors
/// `Corruption` at `offset`; `Unsupported` for an unknown codec.
pub fn check_block<'a>(
    stored: &'a [u8],
    id: &FileId,
    offset: u64,
    raw_max: usize,
) -> Result<StoredBlock<'a>> {
    let wrong = |text: &str| Error::corruption(text).at(offset);
    let Some((body, crc)) = stored.split_last_chunk::<4>() else {
        return Err(wrong("block cut short"));
    };
    if checksum_at(id.as_bytes(), offset, &[body]) != u32::from_le_bytes(*crc) {
        return Err(wrong("block checksum differs"));
    }
    let Some((packed, trailer)) = body.split_last_chunk::<5>() else {
        return Err(wrong("block cut short"));
    };
    let [byte, raw_len @ ..] = *trailer;
    let raw_len = u32::from_le_bytes(raw_len) as usize;
    let Some(codec) = Codec::from_byte(byte) else {
        let text = format!("codec number {byte} is not known");
        return Err(Error::unsupported(text).at(offset));
    };
    if codec == Codec::None && packed.len() != raw_len {
        return Err(wrong("block length differs"));
    }
    let trusted = codec == Codec::None || Canary::UnpackedLengthIsTrusted.is_planted();
    if raw_len > raw_max.min(PACKED_RAW_BYTES_MAX) && !trusted {
        return Err(wrong("block claims more bytes than allowed"));
    }
    Ok(StoredBlock { codec, packed, raw_len, offset })
}

/// Checks and unpacks a block that was read, trailer included, from `offset`. Without a copy if it
/// was not packed. No more than `raw_max` and [`PACKED_RAW_BYTES_MAX`] bytes are allocated.
///
/// # Errors
/// `Corruption` at `offset`; `Unsupported` if the codec is not part of this build.
pub fn open_block(stored: Bytes, id: &FileId, offset: u64, raw_max: usize) -> Result<Bytes> {
    let StoredBlock { codec, packed, raw_len, .. } = check_block(&stored, id, offset, raw_max)?;
    if codec == Codec::None {
        return Ok(stored.slice(0..raw_len));
    }
    decompress(codec, packed, raw_len).map_err(|e| e.at(offset))
}

/// The end of a table file: whose it is, and where its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Identity of the file.
    pub id: FileId,
    /// The filter block.
    pub filter: Option<BlockHandle>,
    /// The block of range tombstones.
    pub range_tombstones: Option<BlockHandle>,
    /// The block of properties.
    pub properties: BlockHandle,
    /// The index block.
    pub index: BlockHandle,
}

impl Footer {
    /// The footer of a file in which it begins at `offset`.
    pub fn encode(&self, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(self.id.as_bytes());
        BlockHandle::put(self.filter, &mut out);
        BlockHandle::put(self.range_tombstones, &mut out);
        BlockHandle::put(Some(self.properties), &mut out);
        BlockHandle::put(Some(self.index), &mut out);
        let mut preamble = Vec::with_capacity(PREAMBLE_BYTES);
        put_preamble(&mut preamble, FileKind::Table);
        let crc = checksum_at(self.id.as_bytes(), offset, &[&out, &preamble]);
        put_u32(&mut out, crc);
        out.extend_from_slice(&preamble);
        assert_eq!(out.len(), FOOTER_BYTES);
        out
    }

    /// Reads the footer of file `id`, found at `offset`, and checks that the parts of the file lie
    /// side by side from its beginning to the footer.
    ///
    /// # Errors
    /// `Unsupported` for a newer format; `Corruption` for anything else that is not right, another
    /// file's identity included.
    pub fn decode(bytes: &[u8], offset: u64, id: &FileId) -> Result<Footer> {
        let Some((head, preamble)) = bytes.split_last_chunk::<PREAMBLE_BYTES>() else {
            return Err(Error::corruption("footer cut short").at(offset));
        };
        let mut d = Decoder::with_base(preamble, offset + head.len() as u64);
        read_preamble(&mut d, FileKind::Table)?;
        let Some((body, crc)) = head.split_last_chunk::<4>() else {
            return Err(Error::corruption("footer cut short").at(offset));
        };
        let mut d = Decoder::with_base(body, offset);
        let found = FileId::from_bytes(d.fixed()?);
        if found != *id {
            let text = format!("another file's identity: {found}, expected {id}");
            return Err(Error::corruption(text).at(offset));
        }
        if checksum_at(id.as_bytes(), offset, &[body, preamble]) != u32::from_le_bytes(*crc) {
            return Err(Error::corruption("footer checksum differs").at(offset));
        }
        let filter = BlockHandle::read(&mut d)?;
        let range_tombstones = BlockHandle::read(&mut d)?;
        let properties = BlockHandle::read(&mut d)?.unwrap_or_default();
        let index = BlockHandle::read(&mut d)?.unwrap_or_default();
        d.finish()?;
        let footer = Footer { id: *id, filter, range_tombstones, properties, index };
        let mut next = offset;
        for part in footer.parts().into_iter().rev().flatten() {
            if part.end() != Some(next) {
                return Err(Error::corruption("parts do not lie side by side").at(offset));
            }
            next = part.offset;
        }
        Ok(footer)
    }

    /// Where the data blocks end.
    pub fn data_end(&self) -> u64 {
        self.parts().into_iter().flatten().next().map_or(0, |part| part.offset)
    }

    /// The parts behind the data blocks, in the order of the file.
    pub fn parts(&self) -> [Option<BlockHandle>; 4] {
        [self.filter, self.range_tombstones, Some(self.properties), Some(self.index)]
    }
}

/// F3.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F3",
        title: "Table: footer (the last 84 bytes)",
        fields: &[
            field("0", "16", "id", "identity of the file"),
            field("16", "12", "filter", "handle: offset u64, stored length u32; zeros: none"),
            field("28", "12", "range tombstones", "handle; zeros: none"),
            field("40", "12", "properties", "handle"),
            field("52", "12", "index", "handle"),
            field(
                "64",
                "4",
                "checksum",
                "of all other bytes of the footer, bound to id and offset",
            ),
            field("68", "16", "preamble", "F0, kind T"),
        ],
    },
    Layout {
        id: "F3.1",
        title: "Table: block in the file",
        fields: &[
            field("0", "n", "stored", "the block, packed by its codec"),
            field("", "1", "codec", "1 none, 2 lz4, 3 zstd"),
            field("", "4", "raw length", "bytes when unpacked"),
            field("", "4", "checksum", "of all before it, bound to id and offset"),
        ],
    },
    Layout {
        id: "F3.2",
        title: "Table: entry block (data, index, range tombstones), unpacked",
        fields: &[
            field("0", "n", "entries", "F3.3, by key ascending, then sequence number descending"),
            field("", "4 × n", "restarts", "offsets of entries that share nothing"),
            field("", "4", "restart count", "n"),
        ],
    },
    Layout {
        id: "F3.3",
        title: "Table: entry",
        fields: &[
            field("0", "v", "shared", "bytes of the user key that the entry before has as well"),
            field("", "v", "unshared", "bytes of the user key that follow here"),
            field("", "v", "value length", ""),
            field("", "1", "stamp", "kind in the low four bits, above it m, from 0 to 7"),
            field("", "n", "key tail", "the unshared bytes"),
            field("", "m", "sequence number", "without the zeros at its end"),
            field("", "n", "value", "data: the value; index: F3.4; range tombstones: the end key"),
        ],
    },
    Layout {
        id: "F3.4",
        title: "Table: value of an index entry",
        fields: &[
            field("0", "v", "offset", "of the data block whose entries are all ≤ this entry's key"),
            field("", "v", "length", "stored bytes of the block"),
            field("", "n", "fields", "tag-length-value; tag 1: least, greatest timestamp i64"),
        ],
    },
    Layout {
        id: "F3.5",
        title: "Table: filter block (never packed)",
        fields: &[
            field("0", "1", "hash", "1: xxh3-64 of the user key; another: the filter is ignored"),
            field("1", "1", "form", "1: 64-byte lines; another: the filter is ignored"),
            field("2", "1", "probes", "bits of a line for each key"),
            field("3", "5", "reserved", "zero"),
            field("8", "64 × n", "lines", "bit i is bit i mod 8 of byte i / 8"),
        ],
    },
    Layout {
        id: "F3.6",
        title: "Table: properties (tag-length-value, tags ascending)",
        fields: &[
            field("1", "v", "entries", "numbers are varints"),
            field("2", "v", "deletes", ""),
            field("3", "v", "merges", ""),
            field("4", "v", "range deletes", ""),
            field("5", "v", "raw key bytes", "user keys and trailers"),
            field("6", "v", "raw value bytes", ""),
            field("7", "v", "data blocks", ""),
            field(
                "8",
                "v v",
                "sequence numbers",
                "least, greatest; of entries and range tombstones",
            ),
            field("9", "8 8", "timestamps", "least, greatest (i64); only if every value has one"),
            field("10", "n", "timestamp extractor", "its name"),
            field("11", "1", "key group bytes", "length of the key prefix that is the group"),
            field("12", "n", "key groups", "group v, entries v, hash u64, group ascending"),
            field("13", "n n", "bounds", "first key, first key after (length-prefixed); half-open"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use crate::base::id::FileNumber;

    fn footer() -> (Footer, u64) {
        let at = |offset, len| BlockHandle { offset, len };
        let footer = Footer {
            id: FileId::new(7, FileNumber::new(1, 2)),
            filter: Some(at(100, 72)),
            range_tombstones: None,
            properties: at(181, 10),
            index: at(200, 30),
        };
        (footer, 239)
    }

    #[test]
    fn footers_round_trip_and_notice_every_change() {
        let (footer, offset) = footer();
        let bytes = footer.encode(offset);
        assert_eq!(Footer::decode(&bytes, offset, &footer.id).unwrap(), footer);
        assert_eq!(footer.data_end(), 100);
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[i] ^= 1 << bit;
                let e = Footer::decode(&bad, offset, &footer.id).unwrap_err();
                assert!(matches!(e.kind(), ErrorKind::Corruption | ErrorKind::Unsupported));
                assert!(e.offset().is_some_and(|at| at >= offset));
            }
            assert!(Footer::decode(&bytes[..i], offset, &footer.id).is_err());
        }
        assert!(Footer::decode(&bytes, offset + 1, &footer.id).is_err());
        let other = FileId::new(7, FileNumber::new(1, 3));
        let e = Footer::decode(&bytes, offset, &other).unwrap_err();
        assert!(e.to_string().contains("another file's identity"), "{e}");
    }

    #[test]
    fn blocks_are_bound_to_their_place() {
        let id = FileId::new(1, FileNumber(2));
        let mut out = Vec::new();
        put_block(&mut out, &id, 40, Codec::None, b"hello", 5);
        let open = |bytes: &[u8], id: &FileId, offset| {
            open_block(Bytes::from(bytes), id, offset, 1 << 20).map_err(|e| e.kind())
        };
        assert_eq!(&*open(&out, &id, 40).unwrap(), b"hello");
        assert!(open(&out, &id, 41).is_err());
        assert!(open(&out, &FileId::new(1, FileNumber(3)), 40).is_err());
        for i in 0..out.len() {
            let mut bad = out.clone();
            bad[i] ^= 1;
            assert!(open(&bad, &id, 40).is_err());
            assert!(open(&out[..i], &id, 40).is_err());
        }
    }

    #[test]
    fn a_forged_length_allocates_nothing() {
        let id = FileId::new(1, FileNumber(2));
        for (codec, stored, raw_len) in
            [(Codec::None, 4, u32::MAX), (Codec::Lz4, 4, u32::MAX), (Codec::Zstd, 9, 1 << 30)]
        {
            let mut out = Vec::new();
            put_block(&mut out, &id, 0, codec, &[0; 9][..stored], raw_len);
            let e = open_block(Bytes::from(out), &id, 0, 1 << 20).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corruption);
        }
        // Whatever the caller would take: so long a block was never packed.
        let mut out = Vec::new();
        put_block(&mut out, &id, 0, Codec::Zstd, &[0; 9], PACKED_RAW_BYTES_MAX as u32 + 1);
        let e = open_block(Bytes::from(out), &id, 0, usize::MAX).unwrap_err();
        assert!(e.to_string().contains("more bytes than allowed"), "{e}");
    }
}
