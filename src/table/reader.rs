//! Open tables: what is resident, how a key is found, and how all of it is checked.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::base::bytes::Bytes;
use crate::base::canary::Canary;
use crate::base::error::{Error, Result};
use crate::base::id::FileId;
use crate::base::key::{InternalKey, KeyRange, SEQNO_MAX, SeqNo, ValueKind, successor};
use crate::base::limits::DECODE_BYTES_MAX;
use crate::base::sync::Arc;
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::{MemoryBudget, Reservation};
use crate::cache::row_cache::{RowCopy, RowKey};
use crate::fs::ReadableFile;
use crate::iter::range_del::{RangeTombstone, RangeTombstones};
use crate::table::Block;
use crate::table::KeyGroupCount;
use crate::table::Properties;
use crate::table::TableIterator;
use crate::table::block::{BlockParts, Content};
use crate::table::block_cursor::BlockCursor;
use crate::table::compression::Codec;
use crate::table::filter::{Filter, key_hash};
use crate::table::format::{BlockHandle, FOOTER_BYTES, Footer, check_block, open_block};
use crate::table::index::Index;
use crate::table::lookup::{Lookup, Visit};
use crate::table::lz4;
use crate::table::scratch::Scratch;

/// What a block may be larger than its one value: the key, twice, and lengths.
const BLOCK_SLACK_BYTES: usize = 1 << 20;

/// A whole-file pass reads pieces of this size.
const PASS_BYTES: usize = 256 << 10;

/// An open table. Index, filter, range tombstones and properties are resident and charged to the
/// budget; data blocks come through the cache. Dropping it takes its blocks out of the cache.
pub struct Table {
    file: Arc<dyn ReadableFile>,
    path: PathBuf,
    len: u64,
    footer: Footer,
    raw_max: usize,
    index: Index,
    filter: Option<Filter>,
    tombstones: Arc<RangeTombstones>,
    properties: Properties,
    cache: Arc<BlockCache<Block>>,
    owner: u64,
    _resident: Reservation,
}

impl Table {
    /// Opens the table `id`: reads and checks everything but the data blocks. The path is only for
    /// messages. `value_bytes_max` bounds what a packed block may unfold to.
    ///
    /// # Errors
    /// `Corruption`, naming the file and an offset in it, if anything is not what was written, or if
    /// the file is another table's; `Unsupported` for a newer format or a missing codec.
    pub fn open(
        file: Arc<dyn ReadableFile>,
        path: &Path,
        id: FileId,
        cache: &Arc<BlockCache<Block>>,
        budget: &MemoryBudget,
        value_bytes_max: usize,
    ) -> Result<Arc<Table>> {
        let raw_max = value_bytes_max.saturating_add(BLOCK_SLACK_BYTES).max(DECODE_BYTES_MAX);
        let parts = Parts::read(&*file, &id, raw_max).map_err(|e| e.in_file(path))?;
        let mut resident = parts.index.memory_bytes() + parts.tombstones.memory_bytes();
        resident += parts.filter.as_ref().map_or(0, Filter::bytes) + size_of::<Table>();
        resident += parts.properties.key_groups.len() * size_of::<KeyGroupCount>();
        Ok(Arc::new(Table {
            len: file.len(),
            file,
            path: path.to_owned(),
            footer: parts.footer,
            raw_max,
            index: parts.index,
            filter: parts.filter,
            tombstones: Arc::new(parts.tombstones),
            properties: parts.properties,
            cache: cache.clone(),
            owner: cache.next_owner(),
            _resident: budget.reserve(resident),
        }))
    }

    /// Lends the versions of `key` at or below `at`, newest first, until `visit` says `false`. Range
    /// tombstones and the [filter](Table::may_contain) are the caller's to ask. The cached rows are asked
    /// first, then blocks; a block that is cached costs no allocation and no copy. `hash`: the key's
    /// [`key_hash`].
    ///
    /// # Errors
    /// Those of reading; `Corruption` and `Unsupported` as for [`open`](Table::open).
    pub fn get(&self, key: &[u8], hash: u64, at: SeqNo, visit: &mut Visit<'_>) -> Result<()> {
        debug_assert_eq!(hash, key_hash(key));
        let row = RowKey { owner: self.owner, hash, user_key: key };
        let older_than = match self.cache.rows().is_empty() {
            true => at,
            false => match self.get_in_row(row, at, visit) {
                Some(older_than) => older_than,
                None => return Ok(()),
            },
        };
        self.get_in_blocks(row, older_than, visit)
    }

    /// The same, in the cached row alone. Where to go on, if there may be more.
    #[inline(never)] // the copy's place is on the stack only meanwhile
    fn get_in_row(&self, row: RowKey<'_>, at: SeqNo, visit: &mut Visit<'_>) -> Option<SeqNo> {
        let mut copy = RowCopy::new();
        let Some((trailer, value)) = self.cache.rows().get(row, &mut copy) else {
            return Some(at);
        };
        let (seqno, kind) = InternalKey::unpack(trailer).expect("as it was entered");
        if seqno > at {
            return Some(at);
        }
        // It is the newest version, so older ones are all there is behind it.
        visit(seqno, kind, value).then(|| seqno.checked_sub(1)).flatten()
    }

    /// The same, past filter and rows. What had to be read becomes a row, if it is the newest version
    /// and all there is to say.
    fn get_in_blocks(&self, row: RowKey<'_>, at: SeqNo, visit: &mut Visit<'_>) -> Result<()> {
        let mut lookup = Lookup::new(row.user_key, at);
        let mut i = self.index.seek(lookup.target());
        let mut newest = at >= self.properties.seqno_max || Canary::OldVersionIsCached.is_planted();
        while i < self.index.len() {
            let may_go_on = match self.cached_block(i) {
                Some(block) => block.get(&mut lookup, visit),
                None => self.get_uncached(i, newest.then_some(row), &mut lookup, visit),
            };
            let may_go_on = may_go_on.map_err(|e| e.in_file(&self.path))?;
            if !may_go_on || !self.index.separator_is(i, row.user_key) {
                return Ok(());
            }
            newest = false;
            i += 1;
        }
        Ok(())
    }

    /// Looks into block `i`, which is not in the cache. If it is likely to be read again it is entered.
    /// Otherwise no more of it is unpacked than leads to the key, and what is found becomes the `row`: if
    /// there is to be one, and if it says all.
    #[inline(never)] // what it needs would be at hand for each get
    fn get_uncached(
        &self,
        i: usize,
        mut row: Option<RowKey<'_>>,
        lookup: &mut Lookup<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<bool> {
        let handle = self.index.handle(i);
        let mut scratch = Scratch::take();
        let stored = scratch.stored.first(handle.stored_bytes());
        self.file.read_into(handle.offset, stored)?;
        let block = check_block(stored, &self.footer.id, handle.offset, self.raw_max)?;
        let charge = block.raw_len + size_of::<Block>();
        if self.cache.wants(self.owner, handle.offset, charge) {
            let block = self.data_block(i, Bytes::from(block.unpack(&mut scratch.raw)?))?;
            return self.cache.insert(self.owner, handle.offset, block, charge).get(lookup, visit);
        }
        let visit: &mut Visit<'_> = &mut |seqno, kind, value| {
            if let Some(row) = row.take()
                && matches!(kind, ValueKind::Put | ValueKind::Delete)
            {
                let trailer = InternalKey::new(row.user_key, seqno, kind).trailer();
                self.cache.rows().insert(row, trailer, value);
            }
            visit(seqno, kind, value)
        };
        if block.codec == Codec::Lz4 && block.raw_len <= lz4::RAW_BYTES_MAX {
            let raw = scratch.raw.first_of_lz4();
            return lookup.unpack(block, raw, visit);
        }
        BlockParts::split(block.unpack(&mut scratch.raw)?, handle.offset)?.get(lookup, visit)
    }

    /// What the filter says of a key with this [`key_hash`]: `false` if no version of it is in the table.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(hash))
    }

    /// A cursor that owns a share of the table. Without `fill_cache` it reads ahead in large pieces
    /// and leaves no block in the cache: for flushes, compactions and checks.
    pub fn iter(self: &Arc<Table>, fill_cache: bool) -> TableIterator {
        TableIterator::new(self.clone(), fill_cache)
    }

    /// The range tombstones.
    pub fn range_tombstones(&self) -> &Arc<RangeTombstones> {
        &self.tombstones
    }

    /// Counts and ranges, as stored.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// All user keys and ranges of range tombstones, half-open.
    pub fn bounds(&self) -> &KeyRange {
        &self.properties.bounds
    }

    /// Length of the file in bytes.
    #[cfg(test)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// About how many bytes of the file belong to keys below `key`. Reads nothing.
    pub fn approximate_offset(&self, key: &[u8]) -> u64 {
        match self.index.seek(InternalKey::seek(key, SEQNO_MAX)) {
            i if i < self.index.len() => self.index.handle(i).offset,
            _ => self.footer.data_end(),
        }
    }

    /// A key that has about `part` of `parts` of the data blocks before it, if there are so many. Reads
    /// nothing.
    pub fn cut(&self, part: usize, parts: usize) -> Option<Vec<u8>> {
        let before = (self.index.len() * part / parts).checked_sub(1)?;
        Some(self.index.separator(before))
    }

    /// The resident index.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Where the data blocks end.
    pub(super) fn data_end(&self) -> u64 {
        self.footer.data_end()
    }

    /// Block `i`, from the cache or the file; a block that was read stays in the cache.
    #[inline]
    pub(super) fn block(&self, i: usize) -> Result<Block> {
        match self.cached_block(i) {
            Some(block) => Ok(block),
            None => self.enter_block(i).map_err(|e| e.in_file(&self.path)),
        }
    }

    /// Block `i` from the file, by way of buffers that the thread keeps, into the cache.
    fn enter_block(&self, i: usize) -> Result<Block> {
        let handle = self.index.handle(i);
        let mut scratch = Scratch::take();
        let stored = scratch.stored.first(handle.stored_bytes());
        self.file.read_into(handle.offset, stored)?;
        let block = check_block(stored, &self.footer.id, handle.offset, self.raw_max)?;
        let block = self.data_block(i, Bytes::from(block.unpack(&mut scratch.raw)?))?;
        let charge = block.memory_bytes();
        Ok(self.cache.insert(self.owner, handle.offset, block, charge))
    }

    /// Block `i` from the file, past the cache, with all that it holds checked. What passes is in order with
    /// all other blocks, since it lies between its separators.
    pub(super) fn read_block(&self, i: usize) -> Result<Block> {
        let handle = self.index.handle(i);
        let mut block =
            self.open_block(i, self.read(handle.offset, handle.stored_bytes())?, None)?;
        let fits = |first: (&[u8], u64), last: (&[u8], u64)| self.index.fits(i, first, last);
        block.check(Content::Data, fits).map_err(|e| e.in_file(&self.path))?;
        Ok(block)
    }

    /// Leaves block `i` in the cache if nothing has to make room for it.
    pub(super) fn keep_if_room(&self, i: usize, block: &Block) {
        let offset = self.index.handle(i).offset;
        if self.cache.has_room(block.memory_bytes()) {
            let block = block.alone();
            let charge = block.memory_bytes();
            self.cache.insert(self.owner, offset, block, charge);
        }
    }

    /// Block `i` if it is in the cache.
    pub(super) fn cached_block(&self, i: usize) -> Option<Block> {
        self.cache.get(self.owner, self.index.handle(i).offset)
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.file.read_at(offset, len).map_err(|e| e.in_file(&self.path))
    }

    /// The same, over the memory of `old` if that is free.
    pub(super) fn read_over(&self, old: Option<Bytes>, offset: u64, len: usize) -> Result<Bytes> {
        self.file.read_over(old, offset, len).map_err(|e| e.in_file(&self.path))
    }

    /// Unpacks data block `i`, which was read from its handle, over the memory of `old` if that is free.
    /// Nothing is known of its entries.
    pub(super) fn open_block(&self, i: usize, stored: Bytes, old: Option<Block>) -> Result<Block> {
        let handle = self.index.handle(i);
        check_block(&stored, &self.footer.id, handle.offset, self.raw_max)
            .and_then(|block| match block.codec {
                Codec::None => Ok(stored.slice(0..block.raw_len)),
                _ => block.unpack_over(old.map(|old| old.bytes)),
            })
            .and_then(|raw| self.data_block(i, raw))
            .map_err(|e| e.in_file(&self.path))
    }

    /// The same, unpacked already.
    fn data_block(&self, i: usize, raw: Bytes) -> Result<Block> {
        let offset = self.index.handle(i).offset;
        match Block::new(raw, offset)? {
            block if block.is_empty() => Err(self.wrong("data block without entries", offset)),
            block => Ok(block),
        }
    }

    #[cold]
    fn wrong(&self, text: &str, offset: u64) -> Error {
        Error::corruption(text).at(offset).in_file(&self.path)
    }

    /// Reads every byte from the file, cache or not, and checks all that can be checked: the digest
    /// and the checksum of the file if they are given, every checksum, the order of all entries and blocks, that
    /// the filter lets every key pass, counts, ranges and key groups.
    ///
    /// # Errors
    /// `Corruption`, naming the file and an offset in it; those of reading.
    pub fn verify(&self, sums: Option<(&[u8; 32], u128)>) -> Result<()> {
        let (mut digest, mut checksum) = (blake3::Hasher::new(), Xxh3::new());
        let mut offset = 0;
        while offset < self.len {
            let piece = self.read(offset, (self.len - offset).min(PASS_BYTES as u64) as usize)?;
            digest.update(&piece);
            checksum.update(&piece);
            offset += piece.len() as u64;
        }
        let found = (digest.finalize(), checksum.digest128());
        if sums.is_some_and(|sums| (found.0.as_bytes(), found.1) != sums) {
            return Err(self.wrong("digest or checksum of the file differs", 0));
        }
        let again = Parts::read(&*self.file, &self.footer.id, self.raw_max);
        let again = again.map_err(|e| e.in_file(&self.path))?;
        if again.footer != self.footer || again.properties != self.properties {
            return Err(self.wrong("footer or properties changed", self.footer.properties.offset));
        }
        let mut census = Census::new(self);
        for i in 0..self.index.len() {
            let block = self.read_block(i)?;
            census.add_block(i, &block)?;
        }
        census.finish()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.cache.remove_owner(self.owner);
    }
}

impl Properties {
    /// Reads the properties of the table `id`, and nothing else of it.
    ///
    /// # Errors
    /// `Corruption` with an offset; those of reading.
    pub fn read(file: &dyn ReadableFile, id: &FileId) -> Result<Properties> {
        let footer = read_footer(file, id)?;
        read_properties(file, id, &footer, DECODE_BYTES_MAX)
    }
}

fn read_footer(file: &dyn ReadableFile, id: &FileId) -> Result<Footer> {
    let Some(offset) = file.len().checked_sub(FOOTER_BYTES as u64) else {
        return Err(Error::corruption("file too short for a table").at(file.len()));
    };
    Footer::decode(&file.read_at(offset, FOOTER_BYTES)?, offset, id)
}

fn read_properties(
    file: &dyn ReadableFile,
    id: &FileId,
    footer: &Footer,
    raw_max: usize,
) -> Result<Properties> {
    let handle = footer.properties;
    let stored = file.read_at(handle.offset, handle.stored_bytes())?;
    let raw = open_block(stored, id, handle.offset, raw_max)?;
    Properties::decode(&raw, 0)
        .map_err(|e| Error::new(e.kind(), format!("properties: {e}")).at(handle.offset))
}

/// What stands behind the data blocks.
struct Parts {
    footer: Footer,
    index: Index,
    filter: Option<Filter>,
    tombstones: RangeTombstones,
    properties: Properties,
}

impl Parts {
    fn read(file: &dyn ReadableFile, id: &FileId, raw_max: usize) -> Result<Parts> {
        let footer = read_footer(file, id)?;
        let open = |handle: BlockHandle| {
            let stored = file.read_at(handle.offset, handle.stored_bytes())?;
            open_block(stored, id, handle.offset, raw_max)
        };
        let at = footer.index.offset;
        let block = Block::parse(open(footer.index)?, at, Content::Index, |_, _| true)?;
        let index = Index::parse(&block, at, footer.data_end(), file.len())?;
        let at = footer.properties.offset;
        let properties = read_properties(file, id, &footer, raw_max)?;
        let filter = match footer.filter {
            Some(handle) => Filter::parse(&open(handle)?).map_err(|e| e.at(handle.offset))?,
            None => None,
        };
        let tombstones = match footer.range_tombstones {
            Some(handle) => read_range_tombstones(open(handle)?, handle.offset)?,
            None => Vec::new(),
        };
        if properties.range_deletes != tombstones.len() as u64
            || properties.data_blocks != index.len() as u64
            || properties.key_group_bytes > 2
        {
            return Err(Error::corruption("properties and contents disagree").at(at));
        }
        let tombstones = RangeTombstones::new(tombstones);
        Ok(Parts { footer, index, filter, tombstones, properties })
    }
}

fn read_range_tombstones(raw: Bytes, offset: u64) -> Result<Vec<RangeTombstone>> {
    let block = Block::parse(raw, offset, Content::RangeTombstones, |_, _| true)?;
    let mut list = Vec::new();
    let mut cursor = BlockCursor::new();
    let mut more = cursor.first(&block)?;
    while let Some((key, end)) = cursor.entry(&block).filter(|_| more) {
        if key.user_key >= end {
            return Err(Error::corruption("range tombstone covers nothing").at(offset));
        }
        let (start, end) = (key.user_key.to_vec(), end.to_vec());
        list.push(RangeTombstone { start, end, seqno: key.seqno });
        more = cursor.next(&block)?;
    }
    Ok(list)
}

/// Counts a table's entries anew, to be compared with what its properties say.
struct Census<'a> {
    table: &'a Table,
    found: Properties,
    seqnos: Option<(SeqNo, SeqNo)>,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
}

impl<'a> Census<'a> {
    fn new(table: &'a Table) -> Census<'a> {
        Census {
            table,
            found: Properties {
                key_group_bytes: table.properties.key_group_bytes,
                ..Properties::default()
            },
            seqnos: table.tombstones.seqno_bounds(),
            first_key: Vec::new(),
            last_key: Vec::new(),
        }
    }

    fn add_block(&mut self, i: usize, block: &Block) -> Result<()> {
        let offset = self.table.index.handle(i).offset;
        let wrong = |text: &str| self.table.wrong(text, offset);
        let mut cursor = BlockCursor::new();
        let mut more = cursor.first(block).map_err(|e| e.in_file(&self.table.path))?;
        while let Some((key, value)) = cursor.entry(block).filter(|_| more) {
            let hash = key_hash(key.user_key);
            if !self.table.may_contain(hash) {
                return Err(wrong("the filter denies a key that is here"));
            }
            if self.found.entries == 0 {
                self.first_key = key.user_key.to_vec();
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(key.user_key);
            count(&mut self.found, &mut self.seqnos, key, hash, value);
            more = cursor.next(block).map_err(|e| e.in_file(&self.table.path))?;
        }
        self.found.data_blocks += 1;
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let stored = &self.table.properties;
        let points = (self.found.entries > 0)
            .then(|| KeyRange { start: self.first_key, end: Some(successor(&self.last_key)) });
        let ranges = self.table.tombstones.span();
        let bounds = match (points, ranges) {
            (Some(a), Some(b)) => KeyRange { start: a.start.min(b.start), end: a.end.max(b.end) },
            (a, b) => a.or(b).unwrap_or(KeyRange { start: Vec::new(), end: Some(Vec::new()) }),
        };
        let (seqno_min, seqno_max) = self.seqnos.unwrap_or_default();
        let found = Properties {
            range_deletes: stored.range_deletes,
            seqno_min,
            seqno_max,
            ts_min: stored.ts_min,
            ts_max: stored.ts_max,
            timestamp_extractor: stored.timestamp_extractor.clone(),
            bounds,
            ..self.found
        };
        if found != *stored {
            let offset = self.table.footer.properties.offset;
            return Err(self.table.wrong("properties and contents disagree", offset));
        }
        Ok(())
    }
}

fn count(
    found: &mut Properties,
    seqnos: &mut Option<(SeqNo, SeqNo)>,
    key: InternalKey<'_>,
    hash: u64,
    value: &[u8],
) {
    found.entries += 1;
    found.deletes += u64::from(key.kind == ValueKind::Delete);
    found.merges += u64::from(key.kind == ValueKind::Merge);
    found.raw_key_bytes += key.user_key.len() as u64 + 8;
    found.raw_value_bytes += value.len() as u64;
    let (min, max) = seqnos.unwrap_or((key.seqno, key.seqno));
    *seqnos = Some((min.min(key.seqno), max.max(key.seqno)));
    found.count_in_group(key, hash, value);
}
