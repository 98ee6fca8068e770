//! A cursor over a table.

use crate::base::error::Result;
use crate::base::key::InternalKey;
use crate::iter::InternalIterator;

/// A cursor over a table, which it owns a share of.
pub struct TableIterator;

impl InternalIterator for TableIterator {
    fn seek(&mut self, _target: InternalKey<'_>) -> Result<()> {
        todo!()
    }
    fn seek_for_prev(&mut self, _user_key: &[u8]) -> Result<()> {
        todo!()
    }
    fn first(&mut self) -> Result<()> {
        todo!()
    }
    fn last(&mut self) -> Result<()> {
        todo!()
    }
    fn next(&mut self) -> Result<()> {
        todo!()
    }
    fn prev(&mut self) -> Result<()> {
        todo!()
    }
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        todo!()
    }
}
