//! A cursor over a table: a place in the index, and a place in the block there.

use std::mem;

use crate::base::bytes::Bytes;
use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, SEQNO_MAX, ValueKind};
use crate::base::sync::Arc;
use crate::iter::InternalIterator;
use crate::table::Block;
use crate::table::Table;
use crate::table::block::Content;
use crate::table::block_cursor::{Before, BlockCursor};
use crate::table::format::BlockHandle;

/// A cursor that leaves the cache alone reads so much at once.
const READ_AHEAD_BYTES: u64 = 64 << 10;

/// One that is to fill the cache reads single blocks at first. When it has walked from block to block
/// so often, it reads pieces that grow from the one length to the other, and evicts nothing for them.
const WALKED_MIN: u32 = 6;
const WALK_BYTES: (u64, u64) = (32 << 10, 64 << 10);

/// A cursor over the entries of a [`Table`], of which it owns a share.
///
/// It proves of each entry that it steps to that it follows the last one, and of the first and the last on
/// its way through a block that they lie between its separators. Of a block in which it goes back it checks
/// all.
pub struct TableIterator {
    table: Arc<Table>,
    fill_cache: bool,
    block: Option<(usize, Block)>,
    cursor: BlockCursor,
    key: Vec<u8>,
    /// Blocks entered one after the other, in one direction.
    walked: u32,
    backward: bool,
    /// A piece of the file, and where it begins.
    ahead: Option<Box<(u64, Bytes)>>,
}

impl TableIterator {
    pub(super) fn new(table: Arc<Table>, fill_cache: bool) -> TableIterator {
        TableIterator {
            table,
            fill_cache,
            block: None,
            cursor: BlockCursor::new(),
            key: Vec::new(),
            walked: 0,
            backward: false,
            ahead: None,
        }
    }

    /// Goes to block `i`, without a place in it. `false`, and off the table, if there is none.
    fn enter(&mut self, i: usize) -> Result<bool> {
        self.cursor.clear();
        let here = self.block.as_ref().map(|(here, _)| *here);
        if here == Some(i) {
            return Ok(true);
        }
        let old = self.block.take();
        if i >= self.table.index().len() {
            return Ok(false);
        }
        let backward = here.is_some_and(|here| i < here);
        let neighbour = here.is_some_and(|here| here.abs_diff(i) == 1);
        self.walked = if neighbour && backward == self.backward { self.walked + 1 } else { 0 };
        self.backward = backward;
        let block = if self.fill_cache && self.walked < WALKED_MIN {
            self.table.block(i)?
        } else if let Some(block) = self.table.cached_block(i) {
            block
        } else {
            let stored = self.read_ahead(self.table.index().handle(i))?;
            let block = self.table.open_block(i, stored, old.map(|(_, block)| block))?;
            if self.fill_cache {
                self.table.keep_if_room(i, &block);
            }
            block
        };
        self.block = Some((i, block));
        Ok(true)
    }

    fn read_ahead(&mut self, handle: BlockHandle) -> Result<Bytes> {
        let len = handle.stored_bytes();
        if let Some((start, bytes)) = self.ahead.as_deref()
            && let Some(skip) = handle.offset.checked_sub(*start)
            && skip + len as u64 <= bytes.len() as u64
        {
            let skip = skip as usize;
            return Ok(bytes.slice(skip..skip + len));
        }
        let old = self.ahead.take().map(|ahead| ahead.1);
        let wanted = match self.fill_cache {
            true => {
                (WALK_BYTES.0 << self.walked.saturating_sub(WALKED_MIN).min(16)).min(WALK_BYTES.1)
            }
            false => READ_AHEAD_BYTES,
        };
        let wanted = wanted.max(len as u64);
        let end = handle.offset + len as u64;
        let (start, end) = match self.backward {
            true => (end.saturating_sub(wanted), end),
            false => (handle.offset, self.table.data_end().min(handle.offset + wanted).max(end)),
        };
        let bytes = self.table.read_over(old, start, (end - start) as usize)?;
        let skip = (handle.offset - start) as usize;
        let stored = bytes.slice(skip..skip + len);
        self.ahead = Some(Box::new((start, bytes)));
        Ok(stored)
    }

    /// Runs a step of the cursor in the current block.
    #[inline]
    fn in_block<T>(
        &mut self,
        step: impl FnOnce(&mut BlockCursor, &Block) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some((_, block)) = &self.block else { return Ok(None) };
        match step(&mut self.cursor, block) {
            Ok(_) if self.cursor.key().is_some_and(|key| key.kind == ValueKind::RangeDelete) => {
                Err(self.fail(block.wrong("range tombstone among the data")))
            }
            Ok(done) => Ok(Some(done)),
            Err(e) => Err(self.fail(e)),
        }
    }

    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.cursor.clear();
        error.in_file(self.table.path())
    }

    /// Proves that what the cursor stands on, or stood on last, belongs to its block.
    fn check_place(&mut self) -> Result<()> {
        if let Some((i, block)) = &self.block
            && !block.is_sound()
        {
            let key = self.cursor.last_key();
            if !self.table.index().fits(*i, key, key) {
                return Err(self.fail(block.wrong("entry outside its separators")));
            }
        }
        Ok(())
    }

    /// The same of what follows an entry that is known to be behind the separator of the block before.
    fn check_end(&mut self) -> Result<()> {
        if let Some((i, block)) = &self.block
            && !block.is_sound()
            && !self.table.index().ends_behind(*i, self.cursor.last_key())
        {
            return Err(self.fail(block.wrong("entry outside its separators")));
        }
        Ok(())
    }

    /// Checks all of the current block.
    fn check_block(&mut self) -> Result<()> {
        if let Some((i, block)) = &mut self.block {
            let index = self.table.index();
            let fits = |first: (&[u8], u64), last: (&[u8], u64)| index.fits(*i, first, last);
            if let Err(e) = block.check(Content::Data, fits) {
                return Err(self.fail(e));
            }
        }
        Ok(())
    }

    /// To the first entry of block `i`, or off the table if there is no such block.
    fn first_of(&mut self, i: usize) -> Result<()> {
        if self.enter(i)? {
            self.in_block(|cursor, block| cursor.first(block))?;
            self.check_place()?;
        }
        Ok(())
    }

    /// From the end of the current block to the next user key.
    #[inline(never)]
    fn next_user_key_behind(&mut self) -> Result<()> {
        while let Some((i, _)) = self.block {
            self.check_end()?;
            let key = self.cursor.last_user_key();
            // Only then the next block may have more versions of the key.
            let goes_on = self.table.index().separator_is(i, key).then(|| key.to_vec());
            self.first_of(i + 1)?;
            let Some(key) = goes_on else { return Ok(()) };
            if self.cursor.last_user_key() != key
                || self.in_block(|cursor, block| cursor.next_user_key(block))? != Some(false)
            {
                return Ok(());
            }
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
            self.check_block()?;
            match self.in_block(|cursor, block| cursor.before(block, key))? {
                Some(Before::Nothing) => next = Some(i),
                Some(Before::Unsure) => return self.newest_version(i),
                Some(Before::Newest) | None => return Ok(()),
            }
        }
        self.block = None;
        self.cursor.clear();
        Ok(())
    }

    /// From the first entry of block `i` to the newest version of its user key.
    fn newest_version(&mut self, i: usize) -> Result<()> {
        let table = &self.table;
        let begins_before = |key: &[u8]| i > 0 && table.index().separator_is(i - 1, key);
        let Some((entry, _)) = self.entry().filter(|(entry, _)| begins_before(entry.user_key))
        else {
            return Ok(());
        };
        let key = entry.user_key.to_vec();
        self.seek(InternalKey::seek(&key, SEQNO_MAX))?;
        match self.entry() {
            Some((entry, _)) if entry.user_key == key => Ok(()),
            // Only a file that changed under us gets here; without this it could go on for ever.
            _ => {
                let offset = self.table.index().handle(i).offset;
                let e = Error::corruption("going back leads forward").at(offset);
                Err(e.in_file(self.table.path()))
            }
        }
    }
}

impl InternalIterator for TableIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let i = self.table.index().seek(target);
        if !self.enter(i)? {
            return Ok(());
        }
        match self.in_block(|cursor, block| cursor.seek(block, target))? {
            // The separator is at or above the target, but all entries are below.
            Some(false) => self.first_of(i + 1),
            // It is at or behind the target, and that behind the separator before.
            _ => self.check_end(),
        }
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
        assert!(self.is_on_entry(), "next needs an entry to start from");
        if self.in_block(|cursor, block| cursor.next(block))? == Some(false)
            && let Some((i, _)) = self.block
        {
            self.check_end()?;
            self.first_of(i + 1)?;
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        assert!(self.is_on_entry(), "prev needs an entry to start from");
        let i = self.block.as_ref().map_or(0, |(i, _)| *i);
        match self.in_block(|cursor, block| cursor.prev(block))?.flatten() {
            Some(Before::Unsure) => return self.newest_version(i),
            Some(_) => return Ok(()),
            None => {}
        }
        let mut key = mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(self.cursor.last_user_key());
        let done = self.before(i, Some(&key));
        self.key = key;
        done
    }

    #[inline(never)]
    fn next_user_key(&mut self) -> Result<()> {
        assert!(self.is_on_entry(), "next needs an entry to start from");
        if self.in_block(|cursor, block| cursor.next_user_key(block))? == Some(false) {
            return self.next_user_key_behind();
        }
        Ok(())
    }

    #[inline]
    fn is_on_entry(&self) -> bool {
        self.cursor.is_on_entry()
    }

    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        self.cursor.key()
    }

    #[inline]
    fn value(&self) -> Option<&[u8]> {
        let (_, block) = self.block.as_ref()?;
        self.cursor.value(block)
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        let (_, block) = self.block.as_ref()?;
        self.cursor.entry(block)
    }
}
