//! Tables: footer, properties, index, and every entry of every block.

use crate::base::bytes::Bytes;
use crate::base::coding::Decoder;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::id::FileId;
use crate::base::key::InternalKey;
use crate::base::key::ValueKind;
use crate::base::limits::BATCH_BYTES_MAX;
use crate::inspect::report::Range;
use crate::inspect::report::Report;
use crate::inspect::report::key;
use crate::inspect::report::value;
use crate::table::Block;
use crate::table::Codec;
use crate::table::Properties;
use crate::table::block::Content;
use crate::table::block_cursor::BlockCursor;
use crate::table::filter::Filter;
use crate::table::format::BlockHandle;
use crate::table::format::FOOTER_BYTES;
use crate::table::format::Footer;
use crate::table::format::open_block;
use crate::table::format::packing;
use crate::table::index::read_index_value;

/// Most bytes that a block unfolds to: what the largest permitted value needs.
const RAW_MAX: usize = BATCH_BYTES_MAX / 2 + (1 << 20);

/// Describes a table.
pub fn describe(report: &mut Report, bytes: &[u8]) -> Result<()> {
    let Some(offset) = bytes.len().checked_sub(FOOTER_BYTES) else {
        return Err(Error::corruption("file too short for a table").at(bytes.len() as u64));
    };
    let raw_footer = &bytes[offset..];
    let id = FileId::from_bytes(Decoder::with_base(raw_footer, offset as u64).fixed()?);
    let footer = Footer::decode(raw_footer, offset as u64, &id)?;
    report.line(0, format_args!("table, {} bytes, file id {id}", bytes.len()));
    let table = File { bytes, footer };
    match table.open(footer.properties) {
        Ok(raw) => match Properties::decode(&raw, footer.properties.offset) {
            Ok(properties) => describe_properties(report, &properties),
            Err(e) => report.damaged(1, e),
        },
        Err(e) => report.damaged(1, e),
    }
    describe_filter(report, &table);
    if let Some(handle) = footer.range_tombstones {
        report.line(1, format_args!("range tombstones {}", table.place(handle)));
        let described = table.block(handle, Content::RangeTombstones).and_then(|block| {
            each(&block, |k, end| {
                let (seqno, start, end) = (k.seqno, key(k.user_key), key(end));
                report.line(2, format_args!("{seqno} delete range [{start} .. {end})"));
                Ok(())
            })
        });
        if let Err(e) = described {
            report.damaged(2, e);
        }
    }
    report.line(1, format_args!("index {}", table.place(footer.index)));
    if let Err(e) = describe_data(report, &table) {
        report.damaged(1, e);
    }
    Ok(())
}

struct File<'a> {
    bytes: &'a [u8],
    footer: Footer,
}

impl File<'_> {
    /// A block with its trailer, as it is stored.
    fn stored(&self, handle: BlockHandle) -> Result<&[u8]> {
        let start = usize::try_from(handle.offset).ok();
        let end = handle.end().and_then(|end| usize::try_from(end).ok());
        let range = start.zip(end).and_then(|(start, end)| self.bytes.get(start..end));
        range.ok_or_else(|| Error::corruption("block beyond the end").at(handle.offset))
    }

    fn open(&self, handle: BlockHandle) -> Result<Bytes> {
        let stored = Bytes::from(self.stored(handle)?);
        open_block(stored, &self.footer.id, handle.offset, RAW_MAX)
    }

    fn block(&self, handle: BlockHandle, content: Content) -> Result<Block> {
        Block::parse(self.open(handle)?, handle.offset, content, |_, _| true)
    }

    /// Where a block is, and how it is packed.
    fn place(&self, handle: BlockHandle) -> String {
        let (offset, len) = (handle.offset, handle.len);
        let packed = match self.stored(handle).ok().and_then(packing) {
            Some((codec, raw_len)) => {
                let codec = Codec::from_byte(codec).map_or("unknown", Codec::name);
                format!(", codec {codec}, {raw_len} unpacked")
            }
            None => String::new(),
        };
        format!("@{offset} {len} bytes{packed}")
    }
}

fn describe_properties(report: &mut Report, p: &Properties) {
    report.line(1, format_args!("keys {}", Range(&p.bounds)));
    let (entries, deletes, merges, ranges) = (p.entries, p.deletes, p.merges, p.range_deletes);
    let text = format_args!(
        "{entries} entries ({deletes} deletes, {merges} merges), {ranges} range deletes, \
         {} data blocks",
        p.data_blocks
    );
    report.line(1, text);
    let (keys, values) = (p.raw_key_bytes, p.raw_value_bytes);
    let (min, max) = (p.seqno_min, p.seqno_max);
    let text = format_args!(
        "{keys} bytes of keys, {values} bytes of values, sequence numbers {min} to {max}"
    );
    report.line(1, text);
    if let (Some(min), Some(max)) = (p.ts_min, p.ts_max) {
        let name = p.timestamp_extractor.as_deref().unwrap_or("unnamed");
        report.line(1, format_args!("timestamps {min} to {max}, from {name:?}"));
    }
    for count in &p.key_groups {
        let (group, entries, hash) = (count.group, count.entries, count.hash);
        report.line(2, format_args!("key group {group}: {entries} entries, hash {hash:016x}"));
    }
}

fn describe_filter(report: &mut Report, table: &File<'_>) {
    let Some(handle) = table.footer.filter else { return };
    report.line(1, format_args!("filter {}", table.place(handle)));
    match table.open(handle).and_then(|raw| Filter::parse(&raw)) {
        Ok(Some(_)) => {}
        Ok(None) => report.line(2, format_args!("of a kind that this build ignores")),
        Err(e) => report.damaged(2, e.at(handle.offset)),
    }
}

/// The index, and the data blocks in its order. Stops at a handle that cannot be right, so that no
/// byte of the file is described twice.
fn describe_data(report: &mut Report, table: &File<'_>) -> Result<()> {
    let footer = &table.footer;
    let index = table.block(footer.index, Content::Index)?;
    let mut next = 0;
    let mut number = 0u64;
    each(&index, |separator, stored| {
        let (handle, timestamps) = read_index_value(stored)
            .map_err(|e| Error::new(e.kind(), format!("index: {e}")).at(footer.index.offset))?;
        let end = handle.end().filter(|&end| handle.offset == next && end <= footer.data_end());
        let Some(end) = end else {
            return Err(Error::corruption("data blocks do not lie side by side").at(next));
        };
        next = end;
        let (place, upto) = (table.place(handle), key(separator.user_key));
        report.line(1, format_args!("data block {number} {place}, up to {upto}"));
        if let Some((min, max)) = timestamps {
            report.line(2, format_args!("timestamps {min} to {max}"));
        }
        number += 1;
        let described = table.block(handle, Content::Data).and_then(|block| {
            each(&block, |k, v| {
                describe_entry(report, k, v);
                Ok(())
            })
        });
        if let Err(e) = described {
            report.damaged(2, e);
        }
        Ok(())
    })
}

fn describe_entry(report: &mut Report, k: InternalKey<'_>, v: &[u8]) {
    let (seqno, user_key, len) = (k.seqno, key(k.user_key), v.len());
    let what = match k.kind {
        ValueKind::Delete => return report.line(2, format_args!("{user_key} {seqno} delete")),
        ValueKind::Put => "put",
        ValueKind::Merge => "merge",
        ValueKind::RangeDelete => "delete range",
    };
    report.line(2, format_args!("{user_key} {seqno} {what}: {len} bytes, {}", value(v)));
}

/// Calls `visit` with the entries of a block, until it fails.
fn each(block: &Block, mut visit: impl FnMut(InternalKey<'_>, &[u8]) -> Result<()>) -> Result<()> {
    let mut cursor = BlockCursor::new();
    let mut more = cursor.first(block)?;
    while let Some((key, value)) = cursor.entry(block).filter(|_| more) {
        visit(key, value)?;
        more = cursor.next(block)?;
    }
    Ok(())
}
