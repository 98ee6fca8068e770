//! Cursors over versions of keys, and what the versions of one key mean together.
//!
//! The question this folder answers: *given several sorted sources, what does a reader see?*

pub mod range_del;

use crate::base::error::Result;
use crate::base::key::InternalKey;

/// A lending cursor over [`InternalKey`]s in their order, used by memtables, blocks, tables, levels
/// and merges alike.
///
/// Forward, it visits every version. Backward, it steps from user key to user key: `prev`, `last`
/// and `seek_for_prev` stop at the *newest version* of a user key, and within a key one always goes
/// forward. So one resolver serves both directions.
///
/// After an error the position is undefined until the next seek.
pub trait InternalIterator {
    /// To the first entry at or after `target`.
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()>;
    /// To the newest version of the greatest user key at or before `user_key`.
    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()>;
    /// To the first entry.
    fn first(&mut self) -> Result<()>;
    /// To the newest version of the last user key.
    fn last(&mut self) -> Result<()>;
    /// To the next entry. The cursor must stand on one.
    fn next(&mut self) -> Result<()>;
    /// To the newest version of the greatest user key before the current *user key*. The cursor must
    /// stand on an entry.
    fn prev(&mut self) -> Result<()>;
    /// The entry under the cursor; `None` off either end.
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])>;
}
