//! A place in an entry block, which moves forward and back.

use std::cmp::Ordering;

use crate::base::error::Result;
use crate::base::key::{InternalKey, ValueKind};
use crate::base::limits::KEY_BYTES_MAX;
use crate::table::block::{Block, Entry, compare, entry_at, short_entry, trailer_in, trailer_of};
use crate::table::block_key::Key;
use crate::table::lookup::reach;

/// What [`BlockCursor::before`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// No entry of this block has a smaller user key.
    Nothing,
    /// The cursor stands on the newest version of the preceding user key.
    Newest,
    /// The cursor stands on the first entry of the block: earlier blocks may have newer versions of
    /// its user key.
    Unsure,
}

/// A place in a block. The block itself is handed in with every call, always the same until the next
/// `first`, `seek` or `before`. Nothing has to be known of its entries to go forward: each step proves of
/// the entry it leads to that it follows the last one. To go back it must be sound. The key is rebuilt in
/// one buffer that is used again and again.
#[derive(Debug)]
pub struct BlockCursor {
    key: Key,
    kind: ValueKind,
    /// With the sequence number, or more than any before the first entry.
    trailer: u64,
    value: (usize, usize),
    next: usize,
    on_entry: bool,
    trail: Trail,
}

/// Going back: the user keys up to the one under the cursor, from the last restart at which one
/// begins that is smaller. Entries can only be decoded forward: each stretch between two restarts
/// is, once.
#[derive(Debug, Default)]
struct Trail {
    /// Where the stretch of the first key begins, as a number of the block's restarts.
    restart: usize,
    /// Keys were left out in front.
    cut: bool,
    /// The newest version of each user key, and where its key begins in `keys`. Empty: the cursor did
    /// not come from behind.
    stops: Vec<(usize, Entry)>,
    keys: Vec<u8>,
}

/// Bytes of keys that a trail may have: a small hostile block could unfold to anything.
pub(super) const TRAIL_BYTES_MAX: usize = 4 * KEY_BYTES_MAX;

impl Trail {
    fn clear(&mut self) {
        self.stops.clear();
    }

    fn last_key(&self) -> &[u8] {
        self.stops.last().map_or(&[], |&(start, _)| &self.keys[start..])
    }

    fn pop(&mut self) {
        if let Some((start, _)) = self.stops.pop() {
            self.keys.truncate(start);
        }
    }

    fn push(&mut self, key: &[u8], entry: Entry) {
        self.stops.push((self.keys.len(), entry));
        self.keys.extend_from_slice(key);
    }

    /// Follows the stretch of a restart, up to the first user key that is not below `end`.
    fn follow(&mut self, block: &Block, restart: usize, end: Option<&[u8]>) -> Result<()> {
        (self.restart, self.cut) = (restart, false);
        self.stops.clear();
        self.keys.clear();
        let entries = block.entries();
        let behind = restart + 1;
        let stop = if behind < block.restarts { block.restart(behind)? } else { entries.len() };
        let mut at = block.restart(restart)?;
        while at < stop || self.stops.is_empty() {
            let start = self.stops.last().map_or(0, |&(start, _)| start);
            let key_len = self.keys.len() - start;
            let entry = entry_at(entries, at).filter(|entry| entry.shared <= key_len);
            let entry = entry.ok_or_else(|| block.wrong("entry cut short"))?;
            let tail = &entries[entry.tail..entry.seqno];
            at = entry.next;
            if entry.shared == key_len && tail.is_empty() && !self.stops.is_empty() {
                continue; // an older version
            }
            let front = start..start + entry.shared;
            if end.is_some_and(|end| !is_below(&self.keys[front.clone()], tail, end)) {
                break;
            }
            self.cut |= self.keys.len() > TRAIL_BYTES_MAX;
            if self.cut {
                // From here on only the last one is kept.
                self.stops.clear();
                self.keys.truncate(front.end);
                self.keys.drain(..front.start);
            } else {
                self.keys.extend_from_within(front);
            }
            self.stops.push((self.keys.len() - entry.shared, entry));
            self.keys.extend_from_slice(tail);
        }
        Ok(())
    }
}

/// Is the key that is `front`, then `tail`, below `key`?
fn is_below(front: &[u8], tail: &[u8], key: &[u8]) -> bool {
    match key.split_at_checked(front.len()) {
        Some((key_front, key_tail)) => (front, tail) < (key_front, key_tail),
        None => front < key,
    }
}

impl BlockCursor {
    /// A cursor that stands nowhere.
    pub fn new() -> BlockCursor {
        BlockCursor {
            key: Key::new(),
            kind: ValueKind::Delete,
            trailer: u64::MAX,
            value: (0, 0),
            next: 0,
            on_entry: false,
            trail: Trail::default(),
        }
    }

    /// Leaves the block.
    pub fn clear(&mut self) {
        self.on_entry = false;
        self.trail.clear();
    }

    /// The user key that it stands on, or stood on before it came to the end of the block.
    #[inline]
    pub fn last_user_key(&self) -> &[u8] {
        self.key.get()
    }

    /// The same, and the trailer of the version that it stands on or stood on.
    pub fn last_key(&self) -> (&[u8], u64) {
        (self.key.get(), self.trailer)
    }

    /// Bytes of keys that it keeps on its way back.
    #[cfg(test)]
    pub(super) fn trail_bytes(&self) -> usize {
        self.trail.keys.len()
    }

    /// Does it stand on an entry?
    #[inline]
    pub fn is_on_entry(&self) -> bool {
        self.on_entry
    }

    /// The key of the entry under the cursor.
    #[inline]
    pub fn key(&self) -> Option<InternalKey<'_>> {
        if !self.on_entry {
            return None;
        }
        let seqno = self.trailer >> 8;
        Some(InternalKey { user_key: self.key.get(), seqno, kind: self.kind })
    }

    /// The entry under the cursor.
    #[inline]
    pub fn entry<'a>(&'a self, block: &'a Block) -> Option<(InternalKey<'a>, &'a [u8])> {
        Some((self.key()?, &block.bytes[self.value.0..self.value.1]))
    }

    /// The value of the entry under the cursor.
    #[inline]
    pub fn value<'a>(&self, block: &'a Block) -> Option<&'a [u8]> {
        self.on_entry.then(|| &block.bytes[self.value.0..self.value.1])
    }

    /// To the next entry; `false` at the end of the block.
    ///
    /// # Errors
    /// As of `first` and `next_user_key`: `Corruption` if what comes next is no entry, or one that does not
    /// follow the last.
    #[inline]
    pub fn next(&mut self, block: &Block) -> Result<bool> {
        self.step(block, false)
    }

    /// To the first entry of another user key; `false` if this block has none.
    #[inline]
    pub fn next_user_key(&mut self, block: &Block) -> Result<bool> {
        self.step(block, true)
    }

    #[inline(always)]
    fn step(&mut self, block: &Block, over_versions: bool) -> Result<bool> {
        self.clear();
        let entries = block.entries();
        // Most entries are short, and begin a key that is greater in the first byte that is not shared. No
        // key becomes too long by a short tail behind what a byte counts.
        if let Some(entry) = short_entry(entries, self.next)
            && let Some(seqno) = entries.get(entry.seqno..).and_then(|rest| rest.first_chunk())
            && let Some(kind) = ValueKind::from_byte(entry.stamp & 0xf)
            && self.key.go_to_greater(entries, entry)
        {
            self.trailer = trailer_in(*seqno, entry.stamp);
            self.kind = kind;
            self.value = (entry.value, entry.next);
            self.next = entry.next;
            self.on_entry = true;
            return Ok(true);
        }
        self.step_any(block, over_versions)
    }

    /// A step to whatever comes next.
    #[inline(never)]
    fn step_any(&mut self, block: &Block, over_versions: bool) -> Result<bool> {
        let entries = block.entries();
        while self.next < entries.len() {
            let entry = entry_at(entries, self.next).filter(|entry| entry.shared <= self.key.len);
            let entry = entry.ok_or_else(|| block.wrong("entry cut short"))?;
            let tail = &entries[entry.tail..entry.seqno];
            self.next = entry.next;
            // A restart shares nothing, though it may be another version of the same key.
            if over_versions
                && (entry.shared == self.key.len && tail.is_empty()
                    || entry.shared == 0 && tail == self.key.get())
            {
                continue;
            }
            let trailer = trailer_of(entries, entry);
            if !self.is_followed_by(entry.shared, tail, trailer) {
                return Err(block.wrong("entry out of order, or its key too long"));
            }
            self.key.replace_tail(entry.shared, entries, entry.tail, tail.len());
            self.stand_on(block, entry, trailer)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Does an entry, which shares no more than there is, follow the last one? One that is no restart shares
    /// as much as it can, which searching relies on.
    #[inline]
    fn is_followed_by(&self, shared: usize, tail: &[u8], trailer: u64) -> bool {
        let key = self.key.get();
        let follows = match (key.get(shared), tail.first()) {
            (Some(last), Some(first)) if last < first => true,
            (Some(_), Some(_)) | (None, None) if shared == 0 => {
                compare(key, self.trailer, tail, trailer) == Ordering::Less
            }
            (None, Some(_)) => true,
            (None, None) => trailer < self.trailer,
            (Some(_), _) => false,
        };
        follows && shared + tail.len() <= KEY_BYTES_MAX
    }

    /// On an entry whose key has been rebuilt.
    #[inline]
    fn stand_on(&mut self, block: &Block, entry: Entry, trailer: u64) -> Result<()> {
        self.trailer = trailer;
        let unpacked = InternalKey::unpack(trailer);
        self.kind = unpacked.ok_or_else(|| block.wrong("no known kind"))?.1;
        self.value = (entry.value, entry.next);
        self.next = entry.next;
        self.on_entry = true;
        Ok(())
    }

    fn restart_at(&mut self, offset: usize) {
        self.clear();
        self.key.len = 0;
        self.trailer = u64::MAX;
        self.next = offset;
    }

    /// To the first entry; `false` if there is none.
    pub fn first(&mut self, block: &Block) -> Result<bool> {
        self.restart_at(0);
        self.next(block)
    }

    /// To the first entry at or after `target`; `false` if there is none.
    ///
    /// Only the key found is rebuilt, as in [`Block::get`]: it begins with what the entry before has in
    /// common with the target.
    pub fn seek(&mut self, block: &Block, target: InternalKey<'_>) -> Result<bool> {
        let (key, trailer) = (target.user_key, target.trailer());
        let entries = block.entries();
        self.restart_at(block.restart_before(key, trailer)?);
        let mut matched = 0;
        while let Some((entry, is_key)) = reach(key, entries, &mut self.next, &mut matched) {
            let found = trailer_of(entries, entry);
            if is_key && found > trailer {
                self.next = entry.next;
                continue;
            }
            self.key.set(&key[..entry.shared]);
            let tail_len = entry.seqno - entry.tail;
            self.key.replace_tail(entry.shared, entries, entry.tail, tail_len);
            self.stand_on(block, entry, found)?;
            return Ok(true);
        }
        if self.next < entries.len() {
            return Err(block.wrong("entry cut short"));
        }
        Ok(false)
    }

    /// To the newest version, as far as this block shows it, of the greatest user key below `key`
    /// (`None`: of the greatest user key).
    pub fn before(&mut self, block: &Block, key: Option<&[u8]>) -> Result<Before> {
        let below = |k: &[u8]| key.is_none_or(|key| k < key);
        let restarts = block.partition_restarts(|k, _| below(k))?;
        self.clear();
        let Some(restart) = restarts.checked_sub(1) else { return Ok(Before::Nothing) };
        // The last entry below `key` is in the stretch of this restart.
        self.trail.follow(block, restart, key)?;
        self.stop_at_last(block)
    }

    /// To the newest version, as far as this block shows it, of the preceding user key, if the
    /// cursor came from behind. Otherwise, or at the block's first user key, it stays where it is:
    /// [`before`](Self::before) knows more.
    pub fn prev(&mut self, block: &Block) -> Result<Option<Before>> {
        if self.trail.stops.len() < 2 {
            return Ok(None);
        }
        self.trail.pop();
        self.stop_at_last(block).map(Some)
    }

    /// To where the trail ends. Follows more of it if that is its beginning.
    fn stop_at_last(&mut self, block: &Block) -> Result<Before> {
        self.on_entry = false;
        while let [(_, first)] = *self.trail.stops
            && !self.trail.cut
            && let Some(restart) = self.trail.restart.checked_sub(1)
        {
            // Its newest version may lie in the stretch before.
            self.key.set(&self.trail.keys);
            self.trail.follow(block, restart, None)?;
            if self.trail.last_key() != self.key.get() {
                self.trail.push(self.key.get(), first);
            }
        }
        let Some(&(_, entry)) = self.trail.stops.last() else {
            return Err(block.wrong("restarts out of order"));
        };
        self.key.set(self.trail.last_key());
        self.stand_on(block, entry, trailer_of(block.entries(), entry))?;
        let sure = self.trail.stops.len() > 1 || self.trail.cut;
        Ok(if sure { Before::Newest } else { Before::Unsure })
    }
}

impl Default for BlockCursor {
    fn default() -> BlockCursor {
        BlockCursor::new()
    }
}
