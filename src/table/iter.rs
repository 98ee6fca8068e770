//! A cursor over a table: a place in the index, and a place in the block there.

use std::mem;

use crate::base::bytes::Bytes;
use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, SEQNO_MAX};
use crate::base::sync::Arc;
use crate::iter::InternalIterator;
use crate::table::Block;
use crate::table::Table;
use crate::table::block::{Before, BlockCursor};
use crate::table::format::BlockHandle;

/// A cursor that leaves the cache alone reads so much at once.
const READ_AHEAD_BYTES: u64 = 256 << 10;

/// A cursor over the entries of a [`Table`], of which it owns a share.
pub struct TableIterator {
    table: Arc<Table>,
    fill_cache: bool,
    block: Option<(usize, Arc<Block>)>,
    cursor: BlockCursor,
    key: Vec<u8>,
    ahead: Option<(u64, Bytes)>,
}

impl TableIterator {
    pub(super) fn new(table: Arc<Table>, fill_cache: bool) -> TableIterator {
        TableIterator {
            table,
            fill_cache,
            block: None,
            cursor: BlockCursor::new(),
            key: Vec::new(),
            ahead: None,
        }
    }

    /// Goes to block `i`, without a place in it. `false`, and off the table, if there is none.
    fn enter(&mut self, i: usize) -> Result<bool> {
        self.cursor.clear();
        if self.block.as_ref().is_some_and(|(here, _)| *here == i) {
            return Ok(true);
        }
        let backward = self.block.take().is_some_and(|(here, _)| i < here);
        if i >= self.table.index().len() {
            return Ok(false);
        }
        let block = if self.fill_cache {
            self.table.block(i, true)?
        } else if let Some(block) = self.table.cached_block(i) {
            block
        } else {
            let handle = self.table.index().handle(i);
            let stored = self.read_ahead(handle, backward)?;
            self.table.parse_block(i, stored)?
        };
        self.block = Some((i, block));
        Ok(true)
    }

    fn read_ahead(&mut self, handle: BlockHandle, backward: bool) -> Result<Bytes> {
        let len = handle.stored_bytes();
        if let Some((start, bytes)) = &self.ahead
            && let Some(skip) = handle.offset.checked_sub(*start)
            && skip + len as u64 <= bytes.len() as u64
        {
            let skip = skip as usize;
            return Ok(bytes.slice(skip..skip + len));
        }
        if backward {
            return self.table.read(handle.offset, len);
        }
        self.ahead = None;
        let rest = self.table.data_end() - handle.offset;
        let bytes = self.table.read(handle.offset, len.max(rest.min(READ_AHEAD_BYTES) as usize))?;
        let stored = bytes.slice(0..len);
        self.ahead = Some((handle.offset, bytes));
        Ok(stored)
    }

    /// Runs a step of the cursor in the current block.
    #[inline]
    fn in_block<T>(
        &mut self,
        step: impl FnOnce(&mut BlockCursor, &Block) -> Result<T>,
    ) -> Result<Option<T>> {
        match &self.block {
            None => Ok(None),
            Some((_, block)) => match step(&mut self.cursor, block) {
                Ok(done) => Ok(Some(done)),
                Err(e) => {
                    self.cursor.clear();
                    Err(e.in_file(self.table.path()))
                }
            },
        }
    }

    /// To the first entry of block `i`, or off the table if there is no such block.
    fn first_of(&mut self, i: usize) -> Result<()> {
        if self.enter(i)? {
            self.in_block(|cursor, block| cursor.first(block))?;
        }
        Ok(())
    }

    /// To the newest version of the greatest user key below `key` (`None`: of the greatest), which is
    /// not behind block `i`.
    fn before(&mut self, i: usize, key: Option<&[u8]>) -> Result<()> {
        let mut next = i.checked_add(1);
        while let Some(i) = next.and_then(|next| next.checked_sub(1)) {
            if !self.enter(i)? {
                return Ok(());
            }
            match self.in_block(|cursor, block| cursor.before(block, key))? {
                Some(Before::Nothing) => next = Some(i),
                Some(Before::Unsure) => return self.newest_version(),
                Some(Before::Newest) | None => return Ok(()),
            }
        }
        self.block = None;
        self.cursor.clear();
        Ok(())
    }

    /// To the newest version of the user key under the cursor.
    fn newest_version(&mut self) -> Result<()> {
        let mut key = mem::take(&mut self.key);
        key.clear();
        if let Some((entry, _)) = self.entry() {
            key.extend_from_slice(entry.user_key);
        }
        let done = self.seek(InternalKey::seek(&key, SEQNO_MAX));
        self.key = key;
        done
    }
}

impl InternalIterator for TableIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let i = self.table.index().seek(target);
        if self.enter(i)?
            && self.in_block(|cursor, block| cursor.seek(block, target))? == Some(false)
        {
            // The separator is at or above the target, but all entries are below.
            self.first_of(i + 1)?;
        }
        Ok(())
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        self.seek(InternalKey::seek(user_key, SEQNO_MAX))?;
        match self.entry() {
            Some((key, _)) if key.user_key == user_key => Ok(()),
            _ => {
                let blocks = self.table.index().len();
                let here = self.table.index().seek(InternalKey::seek(user_key, SEQNO_MAX));
                match blocks.checked_sub(1) {
                    Some(last) => self.before(here.min(last), Some(user_key)),
                    None => Ok(()),
                }
            }
        }
    }

    fn first(&mut self) -> Result<()> {
        self.first_of(0)
    }

    fn last(&mut self) -> Result<()> {
        match self.table.index().len().checked_sub(1) {
            Some(last) => self.before(last, None),
            None => Ok(()),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        assert!(self.entry().is_some(), "next needs an entry to start from");
        if self.in_block(|cursor, block| cursor.next(block))? == Some(false)
            && let Some((i, _)) = self.block
        {
            self.first_of(i + 1)?;
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let mut key = mem::take(&mut self.key);
        key.clear();
        let (entry, _) = self.entry().expect("prev needs an entry to start from");
        key.extend_from_slice(entry.user_key);
        let i = self.block.as_ref().map_or(0, |(i, _)| *i);
        let done = self.before(i, Some(&key)).and_then(|()| match self.entry() {
            // Only a file that changed under us gets here; without this it could go on for ever.
            Some((now, _)) if now.user_key >= key.as_slice() => {
                let offset = self.table.index().handle(i).offset;
                let e = Error::corruption("going back leads forward").at(offset);
                Err(e.in_file(self.table.path()))
            }
            _ => Ok(()),
        });
        if self.key.capacity() < key.capacity() {
            self.key = key;
        }
        done
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        let (_, block) = self.block.as_ref()?;
        self.cursor.entry(block)
    }
}
