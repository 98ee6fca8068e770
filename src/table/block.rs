//! Entry blocks, unpacked: searched, and walked by a
//! [`BlockCursor`](crate::table::block_cursor::BlockCursor).
//!
//! [`Block::check`] proves that a block is *sound*: that every entry decodes, that keys strictly ascend, that
//! shared prefixes are as long as they can be and that the restarts are entries which share nothing. Most
//! blocks are read for a few of their entries and are not checked as a whole: a cursor proves of those on
//! its way that they are in order. Nothing relies on soundness for its safety.

use std::cmp::Ordering;
use std::hint::black_box;

use crate::base::bytes::Bytes;
use crate::base::canary::Canary;
use crate::base::coding::read_varint;
use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, ValueKind, head};
use crate::base::limits::KEY_BYTES_MAX;
use crate::cache::block_cache::Cached;
use crate::table::block_builder::seqno_bytes;
use crate::table::block_key::Key;
use crate::table::lookup::{Lookup, Visit};

/// What the entries of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Versions of keys.
    Data,
    /// Separators and handles.
    Index,
    /// Range tombstones.
    RangeTombstones,
}

impl Content {
    fn allows(self, kind: ValueKind) -> bool {
        match self {
            Content::Data => kind != ValueKind::RangeDelete,
            Content::Index => true,
            Content::RangeTombstones => kind == ValueKind::RangeDelete,
        }
    }
}

/// An entry block in memory. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct Block {
    pub(super) bytes: Bytes,
    entries_len: usize,
    pub(super) restarts: usize,
    offset: u64,
    sound: bool,
}

/// More restarts than this are not touched before a search.
const TOUCHED_MAX: usize = 32;

/// Where the parts of one entry are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) shared: usize,
    /// Where the key's tail begins, behind the stamp.
    pub(super) tail: usize,
    /// Where the key's tail ends, and the sequence number begins.
    pub(super) seqno: usize,
    pub(super) value: usize,
    pub(super) next: usize,
    /// Length of the sequence number, and kind.
    pub(super) stamp: u8,
}

/// The entry at `at`; `None` if there is none that ends within `entries`.
#[inline]
pub(super) fn entry_at(entries: &[u8], at: usize) -> Option<Entry> {
    if let Some(entry) = short_entry(entries, at) {
        return Some(entry);
    }
    // As numbers: what comes back through memory would make the usual entry go there too.
    let [shared, tail, seqno, value, next, stamp] = long_entry(entries, at)?;
    Some(Entry { shared, tail, seqno, value, next, stamp: stamp as u8 })
}

/// The same, if all its lengths take one byte.
#[inline(always)]
pub(super) fn short_entry(entries: &[u8], at: usize) -> Option<Entry> {
    let &[shared, unshared, value_len, stamp] = entries.get(at..)?.first_chunk::<4>()?;
    if u32::from_le_bytes([shared, unshared, value_len, stamp]) & 0x8080_8080 != 0 {
        return None;
    }
    // No sum of such lengths overflows.
    let tail = at + 4;
    let seqno = tail + usize::from(unshared);
    let value = seqno + usize::from(stamp >> 4);
    let next = value + usize::from(value_len);
    let entry = Entry { shared: shared.into(), tail, seqno, value, next, stamp };
    (next <= entries.len()).then_some(entry)
}

/// The parts of an entry whose lengths may take more than a byte.
#[inline(never)]
fn long_entry(entries: &[u8], at: usize) -> Option<[usize; 6]> {
    let mut tail = at;
    let mut length = || {
        let (value, len) = read_varint(entries.get(tail..)?)?;
        tail += len;
        usize::try_from(value).ok()
    };
    let (shared, unshared, value_len) = (length()?, length()?, length()?);
    let stamp = *entries.get(tail)?;
    tail += 1;
    let seqno = tail.checked_add(unshared)?;
    let value = seqno.checked_add(usize::from(stamp >> 4))?;
    let next = value.checked_add(value_len)?;
    let is_one = next <= entries.len() && stamp < 0x80;
    is_one.then_some([shared, tail, seqno, value, next, stamp.into()])
}

/// Sequence number and kind, as [`InternalKey::trailer`] has them.
#[inline]
pub(super) fn trailer_of(entries: &[u8], entry: Entry) -> u64 {
    match entries.get(entry.seqno..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => trailer_in(*bytes, entry.stamp),
        None => {
            let bytes = entries[entry.seqno..entry.value].iter().rev();
            let seqno = bytes.fold(0, |seqno, &byte| seqno << 8 | u64::from(byte));
            seqno << 8 | u64::from(entry.stamp & 0xf)
        }
    }
}

/// The same, of an entry with this stamp whose sequence number these bytes begin with.
#[inline(always)]
pub(super) fn trailer_in(bytes: [u8; 8], stamp: u8) -> u64 {
    let bits = stamp >> 4 << 3;
    let seqno = u64::from_le_bytes(bytes) & ((1 << bits) - 1);
    seqno << 8 | u64::from(stamp & 0xf)
}

/// Order of internal keys: user key ascending, trailer descending.
#[inline]
pub fn compare(a_key: &[u8], a_trailer: u64, b_key: &[u8], b_trailer: u64) -> Ordering {
    a_key.cmp(b_key).then_with(|| b_trailer.cmp(&a_trailer))
}

impl Cached for Block {
    /// The restarts are at its end, the count of its owners at the other.
    #[inline]
    fn look_ahead(&self) {
        self.bytes.look_at_owner();
        black_box(self.bytes.get(self.entries_len).copied());
    }
}

impl Block {
    /// Takes the unpacked block that stands at `offset` of its file, without a copy. Nothing is known of its
    /// entries.
    ///
    /// # Errors
    /// `Corruption` at `offset`, since the bytes need not be those of the file, if it is too short for its
    /// restarts.
    pub fn new(bytes: Bytes, offset: u64) -> Result<Block> {
        let BlockParts { entries, restarts, .. } = BlockParts::split(&bytes, offset)?;
        let (entries_len, restarts) = (entries.len(), restarts.len());
        Ok(Block { bytes, entries_len, restarts, offset, sound: false })
    }

    /// The same, [checked](Block::check).
    ///
    /// # Errors
    /// `Corruption` at `offset`.
    pub fn parse(
        bytes: Bytes,
        offset: u64,
        content: Content,
        fits: impl FnOnce((&[u8], u64), (&[u8], u64)) -> bool,
    ) -> Result<Block> {
        let mut block = Block::new(bytes, offset)?;
        block.check(content, fits)?;
        Ok(block)
    }

    /// Checks all of it, if that has not been done: about 5 ns an entry. `fits` is asked whether the first
    /// and the last entry (user key and trailer) may be in this block; a block without entries is not asked
    /// about.
    ///
    /// # Errors
    /// `Corruption` at its offset.
    pub fn check(
        &mut self,
        content: Content,
        fits: impl FnOnce((&[u8], u64), (&[u8], u64)) -> bool,
    ) -> Result<()> {
        if !self.sound {
            self.prove(content, fits)?;
            self.sound = true;
        }
        Ok(())
    }

    fn prove(
        &self,
        content: Content,
        fits: impl FnOnce((&[u8], u64), (&[u8], u64)) -> bool,
    ) -> Result<()> {
        let entries = self.entries();
        let mut key = Key::new();
        let mut last_trailer = 0;
        let (mut at, mut restart) = (0, 0);
        let nth = |i| if i < self.restarts { self.restart(i) } else { Ok(usize::MAX) };
        let mut restart_at = nth(0)?;
        while at < entries.len() {
            let entry = entry_at(entries, at).ok_or_else(|| self.wrong("entry cut short"))?;
            let trailer = trailer_of(entries, entry);
            let tail = &entries[entry.tail..entry.seqno];
            let ascends = if restart_at == at {
                restart += 1;
                restart_at = nth(restart)?;
                let order = compare(key.get(), last_trailer, tail, trailer);
                entry.shared == 0 && (at == 0 || order == Ordering::Less)
            } else if entry.shared == key.len && at > 0 {
                !tail.is_empty() || trailer < last_trailer
            } else {
                // The first byte that is not shared must be greater: this says that keys ascend and
                // that no more could have been shared, which searching relies on.
                at > 0
                    && entry.shared < key.len
                    && tail.first().is_some_and(|&first| first > key.get()[entry.shared])
            };
            let kind = InternalKey::unpack(trailer).map(|(_, kind)| kind);
            if !ascends || !kind.is_some_and(|kind| content.allows(kind)) {
                return Err(self.wrong("entry out of order or of no known kind"));
            }
            if seqno_bytes(trailer >> 8) != entry.value - entry.seqno {
                return Err(self.wrong("sequence number longer than it is"));
            }
            if entry.shared + tail.len() > KEY_BYTES_MAX {
                return Err(self.wrong("key too long"));
            }
            key.replace_tail(entry.shared, entries, entry.tail, tail.len());
            last_trailer = trailer;
            at = entry.next;
        }
        if restart != self.restarts {
            return Err(self.wrong("a restart is no entry"));
        }
        if let Some(first) = entry_at(entries, 0) {
            let first = (&entries[first.tail..first.seqno], trailer_of(entries, first));
            if !fits(first, (key.get(), last_trailer)) {
                return Err(self.wrong("entries outside their separators"));
            }
        }
        Ok(())
    }

    #[cold]
    pub(super) fn wrong(&self, text: &str) -> Error {
        Error::corruption(text).at(self.offset)
    }

    #[inline]
    pub(super) fn entries(&self) -> &[u8] {
        &self.bytes[..self.entries_len]
    }

    #[inline]
    pub(super) fn restart(&self, i: usize) -> Result<usize> {
        match self.bytes[self.entries_len + 4 * i..].first_chunk::<4>() {
            Some(bytes) => Ok(u32::from_le_bytes(*bytes) as usize),
            None => Err(self.wrong("restart out of bounds")),
        }
    }

    /// Has all of it been checked?
    #[inline]
    pub fn is_sound(&self) -> bool {
        self.sound
    }

    /// Has it no entry?
    pub fn is_empty(&self) -> bool {
        self.entries_len == 0
    }

    /// The same, keeping no more than its own bytes in memory.
    pub fn alone(&self) -> Block {
        Block { bytes: self.bytes.alone(), ..*self }
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of::<Block>()
    }

    #[inline]
    fn parts(&self) -> BlockParts<'_> {
        let (entries, restarts) = self.bytes.split_at(self.entries_len);
        let (restarts, _) = restarts[..4 * self.restarts].as_chunks::<4>();
        BlockParts { entries, restarts, offset: self.offset }
    }

    /// The number of restarts whose entries fulfil `holds`, which must be a prefix of them.
    #[inline]
    pub(super) fn partition_restarts(&self, holds: impl Fn(&[u8], Entry) -> bool) -> Result<usize> {
        self.parts().partition_restarts(holds)
    }

    /// The offset of the last restart before the place of `key` and `trailer`, or of the first.
    #[inline]
    pub(super) fn restart_before(&self, key: &[u8], trailer: u64) -> Result<usize> {
        Ok(self.parts().restart_before(key, trailer)?.0)
    }

    /// Looks for a key: lends its versions, newest first, until `visit` says `false`. Returns `true` if
    /// the block ended among versions of the key, so that the next may have more.
    pub fn get(&self, lookup: &mut Lookup<'_>, visit: &mut Visit<'_>) -> Result<bool> {
        self.parts().get(lookup, visit)
    }
}

/// The parts of an unpacked entry block, wherever its bytes are. Nothing is known of what they hold.
#[derive(Clone, Copy)]
pub(super) struct BlockParts<'a> {
    entries: &'a [u8],
    restarts: &'a [[u8; 4]],
    offset: u64,
}

impl<'a> BlockParts<'a> {
    /// Takes the block that stands at `offset` of its file apart.
    pub(super) fn split(bytes: &'a [u8], offset: u64) -> Result<BlockParts<'a>> {
        let wrong = |text: &str| Error::corruption(text).at(offset);
        let Some((rest, count)) = bytes.split_last_chunk::<4>() else {
            return Err(wrong("block too short for its restart count"));
        };
        let restarts = u32::from_le_bytes(*count) as usize;
        let mut entries_len = restarts.checked_mul(4).and_then(|len| rest.len().checked_sub(len));
        if Canary::BlockLengthWraps.is_planted() {
            entries_len = Some(rest.len().wrapping_sub(restarts * 4));
        }
        let Some(entries_len) = entries_len else {
            return Err(wrong("block too short for its restarts"));
        };
        let (entries, restarts) = rest.split_at(entries_len);
        Ok(BlockParts { entries, restarts: restarts.as_chunks().0, offset })
    }

    #[cold]
    fn wrong(&self, text: &str) -> Error {
        Error::corruption(text).at(self.offset)
    }

    /// Looks at the entries of all restarts, if they are few: their lines are then on their way
    /// together, while a search waits for one after the other. Nothing is made of what is there.
    #[inline]
    fn touch_restarts(&self) {
        let BlockParts { entries, restarts, .. } = *self;
        if (3..=TOUCHED_MAX).contains(&restarts.len()) {
            let first = |restart: &[u8; 4]| entries.get(u32::from_le_bytes(*restart) as usize);
            black_box(restarts.iter().filter_map(first).fold(0, |all, byte| all | byte));
        }
    }

    /// The number of restarts whose entries fulfil `holds`, which must be a prefix of them.
    #[inline]
    fn partition_restarts(&self, holds: impl Fn(&[u8], Entry) -> bool) -> Result<usize> {
        let BlockParts { entries, restarts, .. } = *self;
        let (mut low, mut high) = (0, restarts.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = entry_at(entries, u32::from_le_bytes(restarts[middle]) as usize);
            let entry = entry.ok_or_else(|| self.wrong("entry cut short"))?;
            if holds(&entries[entry.tail..entry.seqno], entry) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The offset of the last restart before the place of `key` and `trailer`, or of the first; and how many
    /// bytes both have in common, as far as the search has come to know, with zeros behind the restart's.
    #[inline(always)]
    fn restart_before(&self, key: &[u8], trailer: u64) -> Result<(usize, usize)> {
        let BlockParts { restarts, .. } = *self;
        self.touch_restarts();
        let wanted = head(key);
        let (mut low, mut high, mut differ) = (0, restarts.len(), u128::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = u32::from_le_bytes(restarts[middle]) as usize;
            match self.head_at(at) {
                Some(head) if head > wanted => high = middle,
                Some(head) if head < wanted => (low, differ) = (middle + 1, head ^ wanted),
                _ if self.is_before(at, key, trailer)? => (low, differ) = (middle + 1, u128::MAX),
                _ => high = middle,
            }
        }
        let before = low.saturating_sub(1);
        let at = self.restarts.get(before).map(|restart| u32::from_le_bytes(*restart) as usize);
        // Where they differ is a byte of the key, since that is the greater one.
        let same = (differ.leading_zeros() / 8) as usize;
        Ok((at.unwrap_or(self.entries.len()), same))
    }

    /// The [`head`] of the key of a restart, if its lengths are said by one byte each.
    #[inline]
    fn head_at(&self, at: usize) -> Option<u128> {
        let [shared, unshared, value_len, stamp, key @ ..] =
            self.entries.get(at..)?.first_chunk::<{ 4 + 16 }>()?;
        if (shared | unshared | value_len | stamp) >= 0x80 {
            return None;
        }
        let head = u128::from_be_bytes(*key);
        match unshared {
            16.. => Some(head),
            1.. => Some(head & u128::MAX << (8 * (16 - unshared))), // what is behind the key is not of it
            0 => None,
        }
    }

    /// Is the entry of a restart before the place of `key` and `trailer`?
    #[inline(never)]
    fn is_before(&self, at: usize, key: &[u8], trailer: u64) -> Result<bool> {
        let entry = entry_at(self.entries, at).ok_or_else(|| self.wrong("entry cut short"))?;
        let of_restart = &self.entries[entry.tail..entry.seqno];
        Ok(compare(of_restart, trailer_of(self.entries, entry), key, trailer) == Ordering::Less)
    }

    /// As [`Block::get`].
    #[inline(always)]
    pub(super) fn get(&self, lookup: &mut Lookup<'_>, visit: &mut Visit<'_>) -> Result<bool> {
        let target = lookup.target();
        let (at, same) = self.restart_before(target.user_key, target.trailer())?;
        match entry_at(self.entries, at) {
            Some(restart) if same > 0 => {
                lookup.begin(restart.next, same.min(restart.seqno - restart.tail));
            }
            _ => lookup.begin(at, 0),
        }
        lookup.finish(self.entries, visit).map_err(|e| e.at(self.offset))
    }
}

#[cfg(test)]
mod tests;
