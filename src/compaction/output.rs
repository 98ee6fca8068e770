//! Writes what survives into tables: where one output ends and the next begins.

use std::path::PathBuf;

use crate::base::canary::Canary;
use crate::base::error::Result;
use crate::base::id::FileId;
use crate::base::id::FileNumber;
use crate::base::key::InternalKey;
use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::compaction::iter::CompactionIterator;
use crate::fs::Fs;
use crate::iter::InternalIterator;
use crate::table::TableBuilder;
use crate::table::TableOptions;
use crate::version::meta::FileMeta;
use crate::version::names::FileName;

/// Where and how a job writes its tables.
#[derive(Clone)]
pub struct OutputOptions {
    /// The file system.
    pub fs: Arc<dyn Fs>,
    /// The database's directory.
    pub dir: PathBuf,
    /// The database instance, for the files' identities.
    pub instance: u64,
    /// Gives out file numbers, none twice.
    pub numbers: Arc<dyn Fn() -> FileNumber + Send + Sync>,
    /// How tables are written.
    pub table: TableOptions,
    /// A compaction's output ends at about this many bytes. A flush ignores it.
    pub file_bytes: u64,
    /// A compaction's output ends before it overlaps more than this in the next level.
    pub overlap_bytes_max: u64,
}

/// The tables of one job.
///
/// Outputs are cut only between user keys: the next output begins *at* the key where the last one was
/// cut. So each owns a half-open region; the regions are disjoint and cover the range that the job, or
/// its part, is about. Range tombstones are cut to the regions, and no output is larger than its region.
pub(super) struct Outputs {
    options: OutputOptions,
    /// Bounds and bytes of the files in the level below the outputs, in order.
    grandparents: std::vec::IntoIter<(KeyRange, u64)>,
    /// Bytes of those that the current output has passed.
    overlapped: u64,
    current: Option<(FileNumber, TableBuilder)>,
    /// First key of the current region.
    start: Vec<u8>,
    /// Where the last region ends.
    end: Option<Vec<u8>>,
    created: Vec<FileNumber>,
    finished: Vec<Arc<FileMeta>>,
}

impl Outputs {
    /// Outputs for the keys in `range`.
    pub(super) fn new(
        options: OutputOptions,
        grandparents: Vec<(KeyRange, u64)>,
        range: KeyRange,
    ) -> Outputs {
        Outputs {
            options,
            grandparents: grandparents.into_iter(),
            overlapped: 0,
            current: None,
            start: range.start,
            end: range.end,
            created: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Numbers of all files created so far, complete or not.
    pub(super) fn created(&self) -> &[FileNumber] {
        &self.created
    }

    /// Takes what survives of the iterator's current key.
    pub(super) fn add<I: InternalIterator>(&mut self, iter: &CompactionIterator<I>) -> Result<()> {
        let mut versions = iter.versions().peekable();
        if versions.peek().is_none() {
            return Ok(());
        }
        if self.ends_before(iter.key()) {
            self.cut(iter, Some(iter.key()))?;
        }
        let builder = self.open()?;
        versions.try_for_each(|(seqno, kind, value)| {
            builder.add(InternalKey::new(iter.key(), seqno, kind), value)
        })
    }

    /// Ends the last output, once the iterator is at its end, and makes all names durable.
    pub(super) fn finish<I: InternalIterator>(
        &mut self,
        iter: &CompactionIterator<I>,
    ) -> Result<Vec<Arc<FileMeta>>> {
        let end = self.end.take();
        self.cut(iter, end.as_deref())?;
        if !self.finished.is_empty() {
            self.options.fs.sync_dir(&self.options.dir)?;
        }
        Ok(std::mem::take(&mut self.finished))
    }

    /// Is the current output full, so that a new one should begin at `key`?
    fn ends_before(&mut self, key: &[u8]) -> bool {
        let passed = |range: &KeyRange| range.end.as_deref().is_some_and(|end| end <= key);
        while self.grandparents.as_slice().first().is_some_and(|(range, _)| passed(range)) {
            let bytes = self.grandparents.next().map_or(0, |(_, bytes)| bytes);
            self.overlapped += if self.current.is_some() { bytes } else { 0 };
        }
        self.current.as_ref().is_some_and(|(_, builder)| {
            builder.estimated_bytes() >= self.options.file_bytes
                || self.overlapped > self.options.overlap_bytes_max
        })
    }

    /// Ends the current region at `end`, with its range tombstones; writes no file if it is empty.
    fn cut<I: InternalIterator>(
        &mut self,
        iter: &CompactionIterator<I>,
        end: Option<&[u8]>,
    ) -> Result<()> {
        let mut start = std::mem::replace(&mut self.start, end.unwrap_or_default().to_vec());
        if Canary::RangeDeleteMissesFirstKey.is_planted() {
            start.push(0);
        }
        let tombstones = iter.tombstones(&KeyRange::new(start, end));
        self.overlapped = 0;
        if self.current.is_none() && tombstones.is_empty() {
            return Ok(());
        }
        let builder = self.open()?;
        tombstones
            .tombstones()
            .try_for_each(|tombstone| builder.add_range_tombstone(&tombstone))?;
        if let Some((number, builder)) = self.current.take() {
            let table = builder.finish()?;
            self.finished.push(Arc::new(FileMeta::from_table(&table, number)));
        }
        Ok(())
    }

    /// The current output, created if there is none. It stays where it is: a builder is kilobytes.
    fn open(&mut self) -> Result<&mut TableBuilder> {
        if self.current.is_none() {
            let number = (self.options.numbers)();
            let path = self.options.dir.join(FileName::Table(number).to_string());
            self.created.push(number);
            let file = self.options.fs.create(&path)?;
            let id = FileId::new(self.options.instance, number);
            let builder = TableBuilder::new(file, &path, id, self.options.table.clone())?;
            self.current = Some((number, builder));
        }
        let (_, builder) = self.current.as_mut().expect("created just now");
        Ok(builder)
    }
}
