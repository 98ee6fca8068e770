//! Writes tables.

use std::path::Path;

use crate::base::error::Result;
use crate::base::id::FileId;
use crate::base::key::InternalKey;
use crate::fs::WritableFile;
use crate::iter::range_del::RangeTombstone;
use crate::table::TableMeta;
use crate::table::TableOptions;

/// Writes one table, entries in order.
pub struct TableBuilder;

impl TableBuilder {
    /// Begins.
    pub fn new(
        _file: Box<dyn WritableFile>,
        _path: &Path,
        _id: FileId,
        _options: TableOptions,
    ) -> Result<TableBuilder> {
        todo!()
    }
    /// Adds an entry.
    pub fn add(&mut self, _key: InternalKey<'_>, _value: &[u8]) -> Result<()> {
        todo!()
    }
    /// Adds a range tombstone.
    pub fn add_range_tombstone(&mut self, _tombstone: &RangeTombstone) -> Result<()> {
        todo!()
    }
    /// Entries so far.
    pub fn entries(&self) -> u64 {
        todo!()
    }
    /// About the length of the file if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        todo!()
    }
    /// Neither entries nor range tombstones?
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Finishes and syncs.
    pub fn finish(self) -> Result<TableMeta> {
        todo!()
    }
}
