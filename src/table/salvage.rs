//! What can still be read of a table that is damaged: its sound blocks.

use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, KeyRange, SeqNo, successor};
use crate::base::sync::Arc;
use crate::iter::InternalIterator;
use crate::table::Block;
use crate::table::Table;
use crate::table::block_cursor::BlockCursor;

impl Table {
    /// The keys whose block cannot be read, and why: reads every data block. No key of the table
    /// outside these ranges is missed by a [`SoundEntries`].
    pub fn unreadable(&self) -> Vec<(KeyRange, Error)> {
        let index = self.index();
        let unreadable = (0..index.len()).filter_map(|i| {
            let error = self.read_block(i).err()?;
            let start = if i == 0 { self.bounds().start.clone() } else { index.separator(i - 1) };
            Some((KeyRange { start, end: Some(successor(&index.separator(i))) }, error))
        });
        unreadable.collect()
    }
}

/// Steps through the entries of a table's sound blocks, and over blocks that cannot be read. Gives
/// only keys inside bounds, and versions up to a sequence number. Forward only.
pub struct SoundEntries {
    table: Arc<Table>,
    bounds: KeyRange,
    upto: SeqNo,
    /// The block behind the current one.
    next: usize,
    block: Option<Block>,
    cursor: BlockCursor,
}

impl SoundEntries {
    /// The entries of `table` with keys in `bounds` and sequence numbers up to `upto`. Stands on none
    /// until `first`.
    pub fn new(table: Arc<Table>, bounds: KeyRange, upto: SeqNo) -> SoundEntries {
        SoundEntries { table, bounds, upto, next: 0, block: None, cursor: BlockCursor::new() }
    }

    fn is_wanted(&self) -> bool {
        self.entry()
            .is_none_or(|(key, _)| key.seqno <= self.upto && self.bounds.contains(key.user_key))
    }

    /// To the next entry, wanted or not.
    fn step(&mut self) -> Result<()> {
        if let Some(block) = &self.block
            && self.cursor.next(block)?
        {
            return Ok(());
        }
        loop {
            self.block = None;
            self.cursor.clear();
            if self.next >= self.table.index().len() {
                return Ok(());
            }
            let block = self.table.read_block(self.next);
            self.next += 1;
            if let Ok(block) = block {
                self.cursor.first(&block)?;
                self.block = Some(block);
                return Ok(());
            }
        }
    }

    fn skip_unwanted(&mut self) -> Result<()> {
        while !self.is_wanted() {
            self.step()?;
        }
        Ok(())
    }
}

#[cold]
fn forward_only() -> Error {
    Error::invalid("sound entries are read forward, from the first")
}

impl InternalIterator for SoundEntries {
    fn seek(&mut self, _target: InternalKey<'_>) -> Result<()> {
        Err(forward_only())
    }

    fn seek_for_prev(&mut self, _user_key: &[u8]) -> Result<()> {
        Err(forward_only())
    }

    fn first(&mut self) -> Result<()> {
        (self.next, self.block) = (0, None);
        self.step()?;
        self.skip_unwanted()
    }

    fn last(&mut self) -> Result<()> {
        Err(forward_only())
    }

    fn next(&mut self) -> Result<()> {
        self.step()?;
        self.skip_unwanted()
    }

    fn prev(&mut self) -> Result<()> {
        Err(forward_only())
    }

    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        self.cursor.entry(self.block.as_ref()?)
    }
}
