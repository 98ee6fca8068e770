//! Makes the checksums of mutated bytes right again, so that mutations reach what lies behind them.
//! Bytes too broken for that are handed back as they are.

use crate::base::bytes::Bytes;
use crate::base::checksum::{checksum, checksum_at};
use crate::base::coding::Decoder;
use crate::base::format::PREAMBLE_BYTES;
use crate::base::id::FileId;
use crate::log::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::table::block::{Block, Content};
use crate::table::block_cursor::BlockCursor;
use crate::table::format::{BLOCK_TRAILER_BYTES, BlockHandle, FOOTER_BYTES, Footer, open_block};

const UNPACKED_MAX: usize = 1 << 20;

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// The checksum of `CURRENT`.
pub(super) fn current(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if let Some(at) = out.len().checked_sub(4) {
        let crc = checksum(&[&out[..at]]);
        put(&mut out, at, crc);
    }
    out
}

/// The digest of an envelope.
pub(super) fn envelope(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if let Some(at) = out.len().checked_sub(32) {
        let digest = *blake3::hash(&out[..at]).as_bytes();
        out[at..].copy_from_slice(&digest);
    }
    out
}

/// The checksums of a segment's header and of its records, as far as their lengths lead.
pub(super) fn segment(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let Some(id) = out.get(PREAMBLE_BYTES..).and_then(|rest| rest.first_chunk::<16>()).copied()
    else {
        return out;
    };
    if out.len() < SEGMENT_HEADER_BYTES {
        return out;
    }
    let crc = checksum(&[&out[..SEGMENT_HEADER_BYTES - 4]]);
    put(&mut out, SEGMENT_HEADER_BYTES - 4, crc);
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(header) =
        out.get(at..).and_then(|rest| rest.first_chunk::<RECORD_HEADER_BYTES>())
    {
        let mut d = Decoder::new(&header[8..]);
        let len = d.u32().map_or(0, |len| len as usize);
        let start = at + RECORD_HEADER_BYTES;
        let Some(payload) = out.get(start..start + len) else { break };
        let crc = checksum_at(&id, at as u64, &[payload]);
        put(&mut out, at + 4, crc);
        let crc = checksum_at(&id, at as u64, &[&out[at + 4..start]]);
        put(&mut out, at, crc);
        at = start + len;
    }
    out
}

/// The checksum of a block as it is stored at `offset`.
pub(super) fn stored_block(bytes: &[u8], id: &FileId, offset: u64) -> Vec<u8> {
    let mut out = bytes.to_vec();
    if let Some(at) = out.len().checked_sub(4) {
        let crc = checksum_at(id.as_bytes(), offset, &[&out[..at]]);
        put(&mut out, at, crc);
    }
    out
}

/// The checksums of a table: footer, the parts that it names, the blocks that the index names.
pub fn table(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let Some(at) = out.len().checked_sub(FOOTER_BYTES) else { return out };
    let crc_at = out.len() - PREAMBLE_BYTES - 4;
    let id: [u8; 16] = *out[at..].first_chunk().expect("a footer begins with it");
    let crc = checksum_at(&id, at as u64, &[&out[at..crc_at], &out[crc_at + 4..]]);
    put(&mut out, crc_at, crc);
    let id = FileId::from_bytes(id);
    let Ok(footer) = Footer::decode(&out[at..], at as u64, &id) else { return out };
    for part in footer.parts().into_iter().flatten() {
        block(&mut out, &id, part);
    }
    for handle in index_handles(&out, &id, footer.index).unwrap_or_default() {
        block(&mut out, &id, handle);
    }
    out
}

fn span(bytes: &[u8], handle: BlockHandle) -> Option<std::ops::Range<usize>> {
    let end = usize::try_from(handle.end()?).ok()?;
    (end <= bytes.len()).then_some(handle.offset as usize..end)
}

fn block(bytes: &mut [u8], id: &FileId, handle: BlockHandle) {
    if let Some(span) = span(bytes, handle) {
        let crc_at = span.end - 4;
        let covered = &bytes[span.start..crc_at];
        debug_assert!(covered.len() + 4 >= BLOCK_TRAILER_BYTES);
        let crc = checksum_at(id.as_bytes(), handle.offset, &[covered]);
        put(bytes, crc_at, crc);
    }
}

fn index_handles(bytes: &[u8], id: &FileId, index: BlockHandle) -> Option<Vec<BlockHandle>> {
    let stored = Bytes::from(&bytes[span(bytes, index)?]);
    let raw = open_block(stored, id, index.offset, UNPACKED_MAX).ok()?;
    let index = Block::parse(raw, index.offset, Content::Index, |_, _| true).ok()?;
    let mut handles = Vec::new();
    let mut cursor = BlockCursor::new();
    let mut more = cursor.first(&index).ok()?;
    while let Some((_, value)) = cursor.entry(&index).filter(|_| more) {
        let mut d = Decoder::new(value);
        handles.push(BlockHandle { offset: d.varint().ok()?, len: d.varint32().ok()? });
        more = cursor.next(&index).ok()?;
    }
    Some(handles)
}
