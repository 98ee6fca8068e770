//! Writes tables, front to back.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::base::error::{Error, Result};
use crate::base::id::FileId;
use crate::base::key::{InternalKey, KeyRange, SEQNO_MAX, SeqNo, ValueKind, successor};
use crate::base::limits::KEY_BYTES_MAX;
use crate::fs::WritableFile;
use crate::iter::range_del::RangeTombstone;
use crate::table::Properties;
use crate::table::TableMeta;
use crate::table::TableOptions;
use crate::table::block_builder::BlockBuilder;
use crate::table::compression::{Codec, Compressor};
use crate::table::filter::{FilterBuilder, key_hash};
use crate::table::format::{BlockHandle, FOOTER_BYTES, Footer, PACKED_RAW_BYTES_MAX, put_block};
use crate::table::index::{BEHIND_ALL, put_index_value, separator_bytes_max, shortest_separator};

/// The file is appended to in pieces of this size, or a multiple of it: whole pages, and whole subtrees
/// of the digest, of which no chunk is hashed alone.
const APPEND_BYTES: usize = 128 << 10;

/// Longest value, whatever the options say: merging may make longer ones than callers may write.
const VALUE_BYTES_CEILING: usize = 1 << 30;

/// Writes one table: entries in order, range tombstones at any time, then [`finish`](Self::finish).
/// Dropping it unfinished leaves a file that no reader accepts.
pub struct TableBuilder {
    out: Output,
    options: TableOptions,
    compressor: Compressor,
    block: BlockBuilder,
    index: BlockBuilder,
    filter: FilterBuilder,
    tombstones: Vec<RangeTombstone>,
    properties: Properties,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    last_trailer: u64,
    last_hash: u64,
    separator: Vec<u8>,
    separator_bytes: u64,
    block_times: Times,
    table_times: Times,
}

/// The file, its length so far, its digest and its checksum.
struct Output {
    file: Box<dyn WritableFile>,
    path: PathBuf,
    id: FileId,
    buffer: Vec<u8>,
    appended: u64,
    digest: blake3::Hasher,
    checksum: Xxh3,
}

impl Output {
    fn offset(&self) -> u64 {
        self.appended + self.buffer.len() as u64
    }

    /// Appends the first `len` bytes of the buffer.
    fn append_buffer(&mut self, len: usize) -> Result<()> {
        let bytes = &self.buffer[..len];
        self.digest.update(bytes);
        self.checksum.update(bytes);
        self.file.append(bytes).map_err(|e| e.in_file(&self.path))?;
        self.appended += len as u64;
        self.buffer.drain(..len);
        Ok(())
    }

    /// Writes a block and its trailer.
    fn block(&mut self, codec: Codec, stored: &[u8], raw_len: usize) -> Result<BlockHandle> {
        let size = |len: usize| {
            u32::try_from(len).map_err(|_| Error::invalid("block too long").in_file(&self.path))
        };
        let (len, raw_len) = (size(stored.len())?, size(raw_len)?);
        let handle = BlockHandle { offset: self.offset(), len };
        put_block(&mut self.buffer, &self.id, handle.offset, codec, stored, raw_len);
        if self.buffer.len() >= APPEND_BYTES {
            self.append_buffer(self.buffer.len() / APPEND_BYTES * APPEND_BYTES)?;
        }
        Ok(handle)
    }

    fn packed_block(&mut self, compressor: &mut Compressor, raw: &[u8]) -> Result<BlockHandle> {
        if raw.len() > PACKED_RAW_BYTES_MAX {
            return self.block(Codec::None, raw, raw.len());
        }
        let (codec, stored) = compressor.compress(raw);
        self.block(codec, stored, raw.len())
    }
}

/// Least and greatest timestamp of puts and operands; nothing once one of them had none.
#[derive(Clone, Copy, Default)]
struct Times {
    range: Option<(i64, i64)>,
    incomplete: bool,
}

impl Times {
    fn add(&mut self, time: Option<i64>) {
        match time {
            Some(t) => {
                let (min, max) = self.range.unwrap_or((t, t));
                self.range = Some((min.min(t), max.max(t)));
            }
            None => self.incomplete = true,
        }
    }

    fn get(&self) -> Option<(i64, i64)> {
        self.range.filter(|_| !self.incomplete)
    }
}

impl TableBuilder {
    /// Begins the table `id` in a new file. The path is only for messages.
    ///
    /// # Errors
    /// `Unsupported` if the codec is not part of this build; `InvalidArgument` for a bad option.
    pub fn new(
        file: Box<dyn WritableFile>,
        path: &Path,
        id: FileId,
        options: TableOptions,
    ) -> Result<TableBuilder> {
        if options.key_group_bytes > 2 {
            return Err(Error::invalid("a key group has 0, 1 or 2 bytes").in_file(path));
        }
        let compressor = Compressor::new(options.codec, options.zstd_level);
        let timestamp_extractor = options.timestamp.as_ref().map(|t| t.name().to_owned());
        Ok(TableBuilder {
            out: Output {
                file,
                path: path.to_owned(),
                id,
                buffer: Vec::with_capacity(APPEND_BYTES + options.block_bytes),
                appended: 0,
                digest: blake3::Hasher::new(),
                checksum: Xxh3::new(),
            },
            compressor: compressor.map_err(|e| e.in_file(path))?,
            block: BlockBuilder::new(options.restart_interval),
            index: BlockBuilder::new(options.restart_interval),
            filter: FilterBuilder::new(options.filter_bits_per_key),
            tombstones: Vec::new(),
            properties: Properties {
                key_group_bytes: options.key_group_bytes,
                timestamp_extractor,
                ..Properties::default()
            },
            first_key: Vec::new(),
            last_key: Vec::new(),
            last_trailer: 0,
            last_hash: 0,
            separator: Vec::new(),
            separator_bytes: 0,
            block_times: Times::default(),
            table_times: Times::default(),
            options,
        })
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// `InvalidArgument` if key or value is too long; those of the file. After an error the table
    /// cannot be finished; drop it.
    ///
    /// # Panics
    /// If the entry does not come after the one before, or is a range tombstone.
    pub fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        let value_max = self.options.value_bytes_max.clamp(VALUE_BYTES_CEILING, 3 << 30);
        if key.user_key.len() > KEY_BYTES_MAX || value.len() > value_max {
            return Err(Error::invalid("key or value too long").in_file(&self.out.path));
        }
        assert!(key.kind != ValueKind::RangeDelete, "range tombstones go their own way");
        assert!(key.seqno <= SEQNO_MAX, "a sequence number has 56 bits");
        let first = self.properties.entries == 0;
        let trailer = key.trailer();
        let keys = self.last_key.as_slice().cmp(key.user_key);
        let new_key = first || keys.is_lt();
        let in_order = new_key || keys.is_eq() && trailer < self.last_trailer;
        assert!(in_order, "entries must be added in order");

        if !self.block.is_empty() && self.block.bytes_with(key, value) > self.options.block_bytes {
            self.cut_block(Some(key.user_key))?;
        }
        self.block.add(key, value);
        if new_key {
            self.last_hash = key_hash(key.user_key);
            self.filter.add(self.last_hash);
            self.last_key.clear();
            self.last_key.extend_from_slice(key.user_key);
        }
        if first {
            self.first_key = self.last_key.clone();
        }
        self.last_trailer = trailer;
        self.count(key, value);
        Ok(())
    }

    fn count(&mut self, key: InternalKey<'_>, value: &[u8]) {
        let properties = &mut self.properties;
        properties.entries += 1;
        properties.deletes += u64::from(key.kind == ValueKind::Delete);
        properties.merges += u64::from(key.kind == ValueKind::Merge);
        properties.raw_key_bytes += key.user_key.len() as u64 + 8;
        properties.raw_value_bytes += value.len() as u64;
        properties.count_in_group(key, self.last_hash, value);
        self.count_seqno(key.seqno);
        if let Some(extractor) = &self.options.timestamp
            && key.kind != ValueKind::Delete
        {
            let time = extractor.timestamp(key.user_key, value);
            self.block_times.add(time);
            self.table_times.add(time);
        }
    }

    fn count_seqno(&mut self, seqno: SeqNo) {
        let nothing_yet = self.properties.entries + self.tombstones.len() as u64 <= 1;
        let properties = &mut self.properties;
        properties.seqno_min = if nothing_yet { seqno } else { properties.seqno_min.min(seqno) };
        properties.seqno_max = properties.seqno_max.max(seqno);
    }

    /// Adds a range tombstone, at any time and in any order. One that covers nothing is left out.
    ///
    /// # Errors
    /// `InvalidArgument` if a bound is too long.
    pub fn add_range_tombstone(&mut self, tombstone: &RangeTombstone) -> Result<()> {
        // An end may be the successor of the longest key.
        if tombstone.start.len() > KEY_BYTES_MAX || tombstone.end.len() > KEY_BYTES_MAX + 1 {
            return Err(Error::invalid("bound of a range too long").in_file(&self.out.path));
        }
        assert!(tombstone.seqno <= SEQNO_MAX, "a sequence number has 56 bits");
        if tombstone.start < tombstone.end {
            self.tombstones.push(tombstone.clone());
            self.count_seqno(tombstone.seqno);
        }
        Ok(())
    }

    /// Entries so far, range tombstones not included.
    #[cfg(test)]
    pub fn entries(&self) -> u64 {
        self.properties.entries
    }

    /// About the length of the file if it were finished now, before the open block is packed.
    pub fn estimated_bytes(&self) -> u64 {
        let tombstones =
            self.tombstones.iter().map(|t| t.start.len() + t.end.len() + 16).sum::<usize>();
        let open = self.block.bytes() + self.index.bytes() + self.filter.bytes() + tombstones;
        self.out.offset() + (open + FOOTER_BYTES) as u64
    }

    /// Writes the open block; `next` is the user key that follows, if one does.
    fn cut_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let handle = self.out.packed_block(&mut self.compressor, self.block.finish())?;
        self.block.clear();
        let (seqno, kind) = match next {
            // Versions of one key on both sides: the separator is the last entry itself.
            Some(next) if next == self.last_key => {
                self.separator.clone_from(&self.last_key);
                InternalKey::unpack(self.last_trailer).expect("a trailer that was packed")
            }
            Some(next) => {
                shortest_separator(&self.last_key, next, &mut self.separator);
                BEHIND_ALL
            }
            None => {
                self.separator.clone_from(&self.last_key);
                BEHIND_ALL
            }
        };
        self.separator_bytes += self.separator.len() as u64;
        let mut value = Vec::with_capacity(40);
        put_index_value(&mut value, handle, self.block_times.get());
        self.index.add(InternalKey::new(&self.separator, seqno, kind), &value);
        self.block_times = Times::default();
        self.properties.data_blocks += 1;
        Ok(())
    }

    /// Writes what is left, and syncs the file. The directory is the caller's to sync.
    ///
    /// # Errors
    /// Those of the file; `InvalidArgument` if the keys are too long for one index.
    pub fn finish(mut self) -> Result<TableMeta> {
        if !self.block.is_empty() {
            self.cut_block(None)?;
        }
        self.properties.bounds = self.bounds();
        (self.properties.ts_min, self.properties.ts_max) = self.table_times.get().unzip();
        let filter = match self.filter.finish() {
            Some(filter) => Some(self.out.block(Codec::None, &filter, filter.len())?),
            None => None,
        };
        let range_tombstones = self.write_range_tombstones()?;
        let properties = self.properties.encode();
        let properties = self.out.packed_block(&mut self.compressor, &properties)?;
        let index = self.out.packed_block(&mut self.compressor, self.index.finish())?;
        let footer = Footer { id: self.out.id, filter, range_tombstones, properties, index };
        let footer = footer.encode(self.out.offset());
        self.out.buffer.extend_from_slice(&footer);
        if self.separator_bytes > separator_bytes_max(self.out.offset()) {
            return Err(Error::invalid("keys too long for one table").in_file(&self.out.path));
        }
        self.out.append_buffer(self.out.buffer.len())?;
        self.out.file.sync().map_err(|e| e.in_file(&self.out.path))?;
        Ok(TableMeta {
            id: self.out.id,
            len: self.out.appended,
            digest: *self.out.digest.finalize().as_bytes(),
            checksum: self.out.checksum.digest128(),
            bounds: self.properties.bounds.clone(),
            properties: self.properties,
        })
    }

    fn bounds(&self) -> KeyRange {
        let points = (self.properties.entries > 0)
            .then(|| (self.first_key.clone(), successor(&self.last_key)));
        let ranges = self.tombstones.iter().map(|t| (t.start.clone(), t.end.clone()));
        let all = points.into_iter().chain(ranges);
        let span = all.reduce(|(s1, e1), (s2, e2)| (s1.min(s2), e1.max(e2)));
        let (start, end) = span.unwrap_or_default();
        KeyRange { start, end: Some(end) }
    }

    fn write_range_tombstones(&mut self) -> Result<Option<BlockHandle>> {
        if self.tombstones.is_empty() {
            return Ok(None);
        }
        // One start and sequence number: the widest says it all.
        let order = |a: &RangeTombstone, b: &RangeTombstone| {
            let newest_first = b.seqno.cmp(&a.seqno);
            a.start.cmp(&b.start).then(newest_first).then_with(|| b.end.cmp(&a.end))
        };
        self.tombstones.sort_by(order);
        self.tombstones.dedup_by(|b, a| a.start == b.start && a.seqno == b.seqno);
        self.properties.range_deletes = self.tombstones.len() as u64;
        let mut block = BlockBuilder::new(self.options.restart_interval);
        for t in &self.tombstones {
            block.add(InternalKey::new(&t.start, t.seqno, ValueKind::RangeDelete), &t.end);
        }
        self.out.packed_block(&mut self.compressor, block.finish()).map(Some)
    }
}
