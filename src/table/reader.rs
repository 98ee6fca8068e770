//! Reads tables.

use std::path::Path;

use crate::base::error::Result;
use crate::base::id::FileId;
use crate::base::key::{KeyRange, SeqNo, ValueKind};
use crate::base::sync::Arc;
use crate::iter::range_del::RangeTombstones;
use crate::table::Properties;
use crate::table::TableIterator;

/// An open table.
pub struct Table;

impl Table {
    /// Lends the versions.
    pub fn get(
        &self,
        _key: &[u8],
        _at: SeqNo,
        _visit: &mut dyn FnMut(SeqNo, ValueKind, &[u8]) -> bool,
    ) -> Result<()> {
        todo!()
    }
    /// A cursor.
    pub fn iter(self: &Arc<Table>, _fill_cache: bool) -> TableIterator {
        todo!()
    }
    /// Range tombstones.
    pub fn range_tombstones(&self) -> &Arc<RangeTombstones> {
        todo!()
    }
    /// Properties.
    pub fn properties(&self) -> &Properties {
        todo!()
    }
    /// Bounds as when it was built.
    pub fn bounds(&self) -> &KeyRange {
        todo!()
    }
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        todo!()
    }
    /// Whose it is.
    pub fn id(&self) -> FileId {
        todo!()
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// Checks every byte.
    pub fn verify(&self, _digest: Option<&[u8; 32]>) -> Result<()> {
        todo!()
    }
    /// About where `key` would be.
    pub fn approximate_offset(&self, _key: &[u8]) -> u64 {
        todo!()
    }
}
