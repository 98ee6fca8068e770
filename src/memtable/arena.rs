//! Where entries live: chunks to which one writer appends, under the eyes of any number of readers.
//!
//! ```text
//! chunk  used u64 │ own u64 │ entry │ entry │ … │ not written yet
//! entry  trailer u64 │ older u32 │ link u32 │ shape u32 │ value_len u32 │ key │ pad │ value │ pad
//! shape  words that the value may grow to u8 │ key_len u24
//! ```
//!
//! The value begins at a multiple of 8 bytes. A short value of a put may be replaced where it is, by
//! one that fits into the words it has: its entry then becomes the newer version. The writer does so
//! only when nobody holds the older one (see [`ReadPins`](super::read_pins::ReadPins)); who looks without holding
//! it copies the words, and looks again at the trailer: a sequence lock for each entry. A merge operand
//! may have room for those that follow. It is not looked at without being held.
//!
//! An [`Offset`] names an entry: chunk number above, distance in the chunk in units of 8 bytes below.
//! Chunks grow with the arena, so that an eighth of it at most is allocated and not yet used; an entry
//! bigger than half a chunk gets one of its own.
//!
//! # Claims
//!
//! Every block of `unsafe` names the claims that it rests on.
//!
//! 1. *One writer.* Bytes of a chunk are written through [`ArenaWriter::push`] and
//!    [`ArenaWriter::overwrite`] only. There is one `ArenaWriter` per arena, it is not `Clone`, and
//!    both take it by `&mut`.
//! 2. *Published when complete.* An entry and its chunk's address are written before its offset
//!    leaves `push`. The offset reaches another thread through a Release store and an Acquire load (a
//!    slot of the index, the link of an entry, a chunk's `used`) or through a lock, or by way of an
//!    entry that did. So whoever has an offset sees the whole entry.
//! 3. *Never changed, but for these.* After that, key, pads, `older` and `shape` are never written;
//!    trailer, link and value length are atomics and never accessed otherwise; the words of a value
//!    with room to grow are written as atomics, by `overwrite` alone. Bytes not yet written
//!    are never read: no reference covers them.
//! 4. *Never moved, never freed early.* A chunk stays where it is until its `Arena` is dropped, and
//!    what is lent from it borrows the `Arena`.
//! 5. *Offsets are not invented.* An `Offset` comes out of `push`, or out of a place where one was put
//!    in. This module alone makes one of a number, and [`Slot`](super::offset::Slot) of one that it was
//!    given. It, and an entry that it led to, is used only with the arena that it came from: a memtable
//!    has one arena, and an offset leaves the memtable in a [`Place`](super::Place), which says of which
//!    memtable it is.
//! 6. *In bounds, aligned.* Chunks are aligned to 64 bytes, entries and values to 8. `push` checks
//!    that an entry ends inside its chunk, with its value grown to the words of its shape; a value
//!    length beyond these is never stored.
//! 7. *Held values stand still.* A reference to a value is made in [`Entry::version`] only, of a
//!    version that its [`Hold`] covers, and lives no longer. `overwrite` takes an [`Overwrite`], and
//!    refuses a version that a pin sees. No pin is taken or let go while an `Overwrite` is held, and
//!    both happen under one lock: so no such reference is alive while a value is written, and what a
//!    pin allows to see was written before. Of a table that is frozen the writer is gone.
//!
//! A torn copy is not unsafe, but wrong: it is used only if the trailer is the same before and after.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use crate::base::key::{InternalKey, SeqNo, ValueKind, equal};
use crate::base::sync::{Arc, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use crate::memtable::Found;
use crate::memtable::header::{ENTRY_HEADER, Header, KEY_LEN_BITS, value_at};
use crate::memtable::offset::{CHUNKS_MAX, LEFT, Offset, Position, UNIT, WITHIN_BITS};
use crate::memtable::read_pins::{Hold, Overwrite};
use crate::memtable::value_copy::{self, OPERAND_WORDS_MAX, ValueCopy, WORDS_MAX};

const CHUNK_BYTES_MIN: usize = if cfg!(test) { 512 } else { 4 << 10 };
const CHUNK_BYTES_MAX: usize = UNIT << WITHIN_BITS;
const CHUNK_ALIGN: usize = 64;
const CHUNK_HEADER: usize = size_of::<ChunkHeader>();

/// The trailer of an entry that is being overwritten: newer than anything.
const BUSY: u64 = u64::MAX;

#[repr(C)]
struct ChunkHeader {
    /// Bytes from the chunk's beginning that entries have taken.
    used: AtomicU64,
    /// Bytes allocated; the low bit says that the chunk was made for one entry alone.
    layout: usize,
}

impl ChunkHeader {
    fn bytes(&self) -> usize {
        self.layout & !1
    }

    fn is_single(&self) -> bool {
        self.layout & 1 == 1
    }
}

/// The chunks, for readers.
pub struct Arena {
    chunks: [AtomicPtr<u8>; CHUNKS_MAX],
}

impl Arena {
    /// An empty arena and the only one who may write to it. Allocates no chunk yet.
    pub fn new() -> (ArenaWriter, Arc<Arena>) {
        let chunks = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS_MAX];
        let arena = Arc::new(Arena { chunks });
        let writer = ArenaWriter {
            arena: Arc::clone(&arena),
            chunk: 0,
            within: 0,
            end: 0,
            chunks: 0,
            allocated: 0,
            used: 0,
            join_from: SeqNo::MAX,
        };
        (writer, arena)
    }

    #[inline]
    fn chunk(&self, number: usize) -> Option<NonNull<u8>> {
        NonNull::new(self.chunks.get(number)?.load(Ordering::Acquire))
    }

    fn chunk_header(&self, number: usize) -> Option<&ChunkHeader> {
        // SAFETY: the header is written before the address is published (2), aligned (6), lives as
        // long as the arena (4), and only its atomic changes.
        self.chunk(number).map(|chunk| unsafe { chunk.cast::<ChunkHeader>().as_ref() })
    }

    /// The entry at an offset. One cache miss if it is cold.
    #[inline(always)]
    pub fn entry(&self, offset: Offset) -> Entry<'_> {
        let chunk = self.chunk(offset.chunk()).expect("the chunk of an offset exists");
        debug_assert!(
            (offset.within() as u64)
                < self.chunk_header(offset.chunk()).unwrap().used.load(Ordering::Acquire)
        );
        // SAFETY: 5, 6: the offset was made by `push` for an entry inside this chunk.
        Entry { at: unsafe { chunk.add(offset.within()) }, arena: PhantomData }
    }

    /// Takes the key whose first version is `first` out of the order for good, if it has no version any
    /// more: its newest is a delete, written at `upto` or before. The caller knows that all pins see what
    /// was written up to `upto`, holds one of them, and that nothing lies under it. Returns whether the key
    /// has left the order, now or before.
    ///
    /// When the key is written again, that will be its first version.
    #[inline]
    pub fn leave(&self, first: Offset, upto: SeqNo) -> bool {
        let entry = self.entry(first);
        let to = &entry.header().link;
        let link = to.load(Ordering::Acquire);
        let newest = Offset::from_raw(link & !LEFT).map_or(entry, |newest| self.entry(newest));
        let mark = || to.compare_exchange(link, link | LEFT, Ordering::Relaxed, Ordering::Relaxed);
        let deleted = newest.is_delete() && newest.seqno() <= upto;
        entry.has_left() || deleted && (mark().is_ok() || entry.has_left())
    }

    /// Visits all entries that were pushed since the last walk with the same position, each once.
    /// Sequential reads.
    pub fn walk<'a>(&'a self, from: &mut Position, mut visit: impl FnMut(Offset, Entry<'a>)) {
        loop {
            self.walk_chunk(from, &mut visit);
            let Some(header) = self.chunk_header(from.unseen) else { return };
            // A later chunk exists. The writer has left the open one for good if it is an ordinary one:
            // what was pushed there meanwhile, first.
            if header.is_single() {
                let mut one = Position { open: from.unseen, within: 0, unseen: 0 };
                self.walk_chunk(&mut one, &mut visit);
                if one.within == 0 {
                    return; // its entry is on its way
                }
            } else {
                self.walk_chunk(from, &mut visit);
                (from.open, from.within) = (from.unseen, 0);
            }
            from.unseen += 1;
        }
    }

    fn walk_chunk<'a>(&'a self, from: &mut Position, visit: &mut impl FnMut(Offset, Entry<'a>)) {
        let Some(header) = self.chunk_header(from.open) else { return };
        let used = header.used.load(Ordering::Acquire) as usize;
        let mut within = from.within.max(CHUNK_HEADER);
        while within < used {
            let offset = Offset::new(from.open, within);
            let entry = self.entry(offset);
            visit(offset, entry);
            within += entry.header().bytes();
            from.within = within;
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for number in 0..CHUNKS_MAX {
            let Some(header) = self.chunk_header(number) else { return };
            let layout = chunk_layout(header.bytes());
            let chunk = self.chunk(number).expect("looked at just now");
            // SAFETY: allocated with this layout; nothing lent from it is alive (4).
            unsafe { dealloc(chunk.as_ptr(), layout) };
        }
    }
}

/// Asks for the line at an address, for it will be looked at soon.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    // SAFETY: a hint; it reads nothing and cannot fault. Every x86-64 has it (4).
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast())
    };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// A version of a key, in place.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    at: NonNull<u8>,
    arena: PhantomData<&'a Arena>,
}

impl<'a> Entry<'a> {
    #[inline]
    fn header(&self) -> &'a Header {
        // SAFETY: a complete entry begins here (2, 5), aligned (6), alive for 'a (4); what still
        // changes of it is atomic (3).
        unsafe { self.at.cast::<Header>().as_ref() }
    }

    /// Asks for the first lines of the entry, for they will be looked at soon.
    #[inline(always)]
    pub fn prefetch<const LINES: usize>(&self) {
        for line in 0..LINES {
            prefetch(self.at.as_ptr().wrapping_add(line * CHUNK_ALIGN));
        }
    }

    /// Is it of this key?
    #[inline(always)]
    pub fn has_key(&self, key: &[u8]) -> bool {
        equal(self.key(), key)
    }

    /// The user key.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        let len = self.header().key_len();
        // SAFETY: the key follows the header, complete (2), inside the chunk (6), unchanged (3) and
        // alive (4) for 'a.
        unsafe { slice::from_raw_parts(self.at.add(ENTRY_HEADER).as_ptr(), len) }
    }

    /// The version, if `hold` covers it.
    #[inline]
    pub fn version<'h>(&self, hold: Hold<'h>) -> Option<Found<'h>>
    where
        'a: 'h,
    {
        let trailer = self.trailer();
        if trailer >> 8 > hold.at() {
            return None;
        }
        let header = self.header();
        let len = header.value_len.load(Ordering::Relaxed) as usize;
        // SAFETY: the value lies there, complete (2), inside the chunk (6), alive for 'a (4), and
        // written by no one during 'h (3, 7): the trailer says that `hold` covers it.
        let value = unsafe { slice::from_raw_parts(self.at.add(header.value_at()).as_ptr(), len) };
        Some(Found::new(trailer, value))
    }

    /// The version, without a hold, if it is at or below `at`, nobody overwrites it meanwhile, and it is
    /// no merge operand. A value that may be overwritten is copied.
    #[inline]
    pub fn peek<'c>(&self, at: SeqNo, copy: &'c mut ValueCopy) -> Option<Found<'c>>
    where
        'a: 'c,
    {
        let header = self.header();
        let trailer = header.trailer.load(Ordering::Acquire);
        if trailer >> 8 > at || trailer as u8 == ValueKind::Merge as u8 {
            return None;
        }
        let len = header.value_len.load(Ordering::Relaxed) as usize;
        // SAFETY: inside the chunk (6).
        let from = unsafe { self.at.add(header.value_at()) };
        if header.words() == 0 {
            // SAFETY: as in `version`; without words it is never written (3).
            let value = unsafe { slice::from_raw_parts(from.as_ptr(), len) };
            return Some(Found::new(trailer, value));
        }
        let count = len.div_ceil(UNIT);
        // SAFETY: `count` words are inside the chunk and aligned (6), alive (4), and written by
        // atomics only (3).
        let words = unsafe { slice::from_raw_parts(from.cast::<AtomicU64>().as_ptr(), count) };
        let value = copy.fill(words, len);
        // Had one of these words been stored by an overwrite, then so had BUSY before it.
        fence(Ordering::Acquire);
        if header.trailer.load(Ordering::Relaxed) != trailer {
            return None;
        }
        Some(Found::new(trailer, value))
    }

    /// The version, for the one writer. `None` if it is a merge operand, or has a value that is not
    /// short enough to be copied.
    #[inline(always)]
    pub fn peek_short<'c>(&self, copy: &'c mut ValueCopy) -> Option<Found<'c>> {
        let header = self.header();
        let trailer = header.trailer.load(Ordering::Relaxed);
        let len = self.value_len();
        let count = len.div_ceil(UNIT);
        if count > header.words() || trailer as u8 == ValueKind::Merge as u8 {
            return None;
        }
        // SAFETY: as in `peek` (3, 4, 6).
        let words = unsafe {
            let from = self.at.add(header.value_at()).cast::<AtomicU64>();
            slice::from_raw_parts(from.as_ptr(), count)
        };
        Some(Found::new(trailer, copy.fill(words, len)))
    }

    /// Sequence number and kind in one word; beyond all others while it is being overwritten.
    #[inline]
    pub fn trailer(&self) -> u64 {
        self.header().trailer.load(Ordering::Acquire)
    }

    /// When it was written.
    #[inline]
    pub fn seqno(&self) -> SeqNo {
        self.trailer() >> 8
    }

    /// The version before this one.
    #[inline]
    pub fn older(&self) -> Option<Offset> {
        Offset::from_raw(self.header().older)
    }

    /// What it does; `None` while it is being overwritten.
    #[inline]
    pub fn kind(&self) -> Option<ValueKind> {
        ValueKind::from_byte(self.trailer() as u8)
    }

    /// Is it a delete?
    #[inline]
    pub fn is_delete(&self) -> bool {
        self.kind() == Some(ValueKind::Delete)
    }

    /// Bytes of its value.
    #[inline]
    fn value_len(&self) -> usize {
        self.header().value_len.load(Ordering::Relaxed) as usize
    }

    /// Of the first version of a key: the newest, `None` if there is no other. Of others: the first.
    #[inline]
    pub fn link(&self) -> Option<Offset> {
        Offset::from_raw(self.header().link.load(Ordering::Acquire) & !LEFT)
    }

    /// Of the first version of a key, which is at `own`: the newest; `None` if the key has left the order.
    #[inline]
    pub fn newest(&self, own: Offset) -> Option<Offset> {
        let link = self.header().link.load(Ordering::Acquire);
        if link & LEFT != 0 { None } else { Some(Offset::from_raw(link).unwrap_or(own)) }
    }

    /// Points the first version of a key to the newest one, which is not the one after a delete.
    #[inline]
    pub fn set_newest(&self, newest: Offset) {
        debug_assert!(self.older().is_none() && !self.has_left());
        self.header().link.store(Offset::raw(Some(newest)), Ordering::Release);
    }

    /// Points the first version of a key to the newest one, the one after a delete; `false` if the
    /// key has left the order because of that.
    #[must_use]
    pub fn set_newest_after_delete(&self, newest: Offset) -> bool {
        debug_assert!(self.older().is_none());
        let set = |old: u32| (old & LEFT == 0).then_some(Offset::raw(Some(newest)));
        self.header().link.fetch_update(Ordering::Release, Ordering::Relaxed, set).is_ok()
    }

    /// Has the key whose first version this is left the order?
    #[inline]
    pub fn has_left(&self) -> bool {
        self.header().link.load(Ordering::Relaxed) & LEFT != 0
    }
}

/// The one who appends.
pub struct ArenaWriter {
    arena: Arc<Arena>,
    /// The chunk being filled, the next free byte in it, and its end.
    chunk: usize,
    within: usize,
    end: usize,
    chunks: usize,
    allocated: usize,
    used: usize,
    /// Merge operands are joined, where they are, to those that have this number or a later one;
    /// `SeqNo::MAX`: to none.
    pub join_from: SeqNo,
}

impl ArenaWriter {
    /// Appends an entry behind the version `older` of the same key, with a link to the first version.
    /// Two `None`: the first version.
    ///
    /// # Panics
    /// If the arena is full: see [`CHUNKS_MAX`].
    pub fn push(
        &mut self,
        key: InternalKey<'_>,
        value: &[u8],
        older: Option<Offset>,
        first: Option<Offset>,
    ) -> Offset {
        let words = match key.kind {
            // A put is what a put overwrites.
            ValueKind::Put => Some(value.len().div_ceil(UNIT)).filter(|&words| words <= WORDS_MAX),
            ValueKind::Merge if self.join_from < SeqNo::MAX => {
                self.operand_words(value.len(), older)
            }
            _ => None,
        };
        let (words, key_len, value_len) = (words.unwrap_or(0), key.user_key.len(), value.len());
        assert!(key_len < 1 << KEY_LEN_BITS && value_len < 1 << 30, "too long for a memtable");
        let bytes = value_at(key_len) + value_len.div_ceil(UNIT).max(words) * UNIT;
        let (number, within) = self.room(bytes);
        let chunk = self.arena.chunk(number).expect("room made the chunk");
        let header = Header {
            trailer: AtomicU64::new(key.trailer()),
            older: Offset::raw(older),
            link: AtomicU32::new(Offset::raw(first)),
            shape: (words as u32) << KEY_LEN_BITS | key_len as u32,
            value_len: AtomicU32::new(value_len as u32),
        };
        debug_assert_eq!(header.bytes(), bytes);
        let used = within + bytes;
        // SAFETY: `room` found `bytes` free bytes at `within`, aligned (6), not yet published, so no
        // one else looks at them (1, 3), and header, key and value fit (`bytes`). The last word of the
        // value, and all that it may grow to, is made whole before. `used` publishes them (2).
        unsafe {
            let at = chunk.add(within);
            at.cast::<Header>().write(header);
            ptr::copy_nonoverlapping(key.user_key.as_ptr(), at.add(ENTRY_HEADER).as_ptr(), key_len);
            let last = value_at(key_len) + value_len.saturating_sub(1) / UNIT * UNIT;
            if last + UNIT == bytes {
                at.add(last).cast::<u64>().write(0);
            } else if last < bytes {
                ptr::write_bytes(at.add(last).as_ptr(), 0, bytes - last);
            }
            let to = at.add(value_at(key_len)).as_ptr();
            ptr::copy_nonoverlapping(value.as_ptr(), to, value_len);
            let header = chunk.cast::<ChunkHeader>().as_ref();
            header.used.store(used as u64, Ordering::Release);
        }
        self.used += bytes;
        Offset::new(number, within)
    }

    /// How many words a merge operand gets: four times those of the one before it, if that is full. So a
    /// list is in few pieces, four for a hundred elements of nine bytes.
    fn operand_words(&self, len: usize, before: Option<Offset>) -> Option<usize> {
        let full = |entry: &Entry<'_>| {
            let room = entry.header().words() * UNIT;
            entry.kind() == Some(ValueKind::Merge) && entry.value_len() + len > room
        };
        let before = before.map(|offset| self.arena.entry(offset)).filter(full);
        let words = before.map_or(0, |entry| 4 * entry.header().words());
        let words = words.min(OPERAND_WORDS_MAX).max(len.div_ceil(UNIT));
        (words <= OPERAND_WORDS_MAX).then_some(words)
    }

    /// Makes `entry`, a version in this arena, the one of `trailer` and `value`, if it has the room
    /// and `overwrite` allows it. Operands are only joined to operands.
    #[inline(always)]
    pub fn overwrite(
        &mut self,
        entry: Entry<'_>,
        trailer: u64,
        value: &[u8],
        overwrite: Overwrite<'_>,
    ) -> bool {
        let header = entry.header();
        let (words, len) = (header.words(), entry.value_len());
        let old = header.trailer.load(Ordering::Relaxed);
        let [from, to] = [old, trailer].map(|trailer| trailer as u8 == ValueKind::Merge as u8);
        // What has no words is never written. What has no value needs none.
        let fits = match (from, to) {
            (false, false) => value.len() <= words * UNIT && (words > 0 || len == 0),
            (true, true) => old >> 8 >= self.join_from && len + value.len() <= words * UNIT,
            _ => false,
        };
        if !fits || !overwrite.allows(old >> 8) {
            return false;
        }
        header.trailer.store(BUSY, Ordering::Relaxed);
        // Who sees one of the words below, and fences, sees BUSY or what comes after it.
        fence(Ordering::Release);
        let words = self.words(&entry);
        let len = if to {
            value_copy::store_behind(words, len, value);
            len + value.len()
        } else {
            value_copy::store(words, value);
            value.len()
        };
        header.value_len.store(len as u32, Ordering::Relaxed);
        header.trailer.store(trailer, Ordering::Release);
        true
    }

    /// The words of a value that no pin sees, to be written.
    #[inline]
    fn words<'a>(&'a self, entry: &Entry<'a>) -> &'a [AtomicU64] {
        let header = entry.header();
        // SAFETY: all words that the entry has, inside the chunk and aligned (6), alive (4), ours to
        // write (1), under no other reference (7), and read by others as atomics only (3).
        unsafe {
            let from = entry.at.add(header.value_at()).cast::<AtomicU64>();
            slice::from_raw_parts(from.as_ptr(), header.words())
        }
    }

    /// Bytes of all chunks.
    pub fn allocated(&self) -> usize {
        self.allocated
    }

    /// Bytes of all entries.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Finds room for an entry: chunk number and distance.
    #[inline]
    fn room(&mut self, bytes: usize) -> (usize, usize) {
        if bytes > self.end - self.within {
            return self.new_room(bytes);
        }
        let within = self.within;
        self.within += bytes;
        (self.chunk, within)
    }

    #[cold]
    fn new_room(&mut self, bytes: usize) -> (usize, usize) {
        let size = (self.allocated / 8).next_multiple_of(CHUNK_BYTES_MIN);
        let size = size.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        if self.chunks == 0 {
            // An ordinary one, even before a giant: a walk begins there.
            self.add_chunk(size, false);
            (self.within, self.end) = (CHUNK_HEADER, size);
            return self.room(bytes);
        }
        if bytes > size / 2 {
            return (self.add_chunk(CHUNK_HEADER + bytes, true), CHUNK_HEADER);
        }
        self.chunk = self.add_chunk(size, false);
        (self.within, self.end) = (CHUNK_HEADER + bytes, size);
        (self.chunk, CHUNK_HEADER)
    }

    fn add_chunk(&mut self, bytes: usize, single: bool) -> usize {
        let number = self.chunks;
        assert!(number < CHUNKS_MAX, "a memtable of {} bytes is full", self.allocated);
        let layout = chunk_layout(bytes);
        let header = ChunkHeader {
            used: AtomicU64::new(CHUNK_HEADER as u64),
            layout: bytes | usize::from(single),
        };
        // SAFETY: the layout is not empty; the header fits and is aligned (6); nobody else knows the
        // chunk yet (1).
        let chunk = unsafe {
            let chunk = alloc(layout);
            if chunk.is_null() {
                handle_alloc_error(layout);
            }
            chunk.cast::<ChunkHeader>().write(header);
            chunk
        };
        self.arena.chunks[number].store(chunk, Ordering::Release);
        self.chunks += 1;
        self.allocated += bytes;
        number
    }
}

fn chunk_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, CHUNK_ALIGN).expect("chunks are far smaller than isize::MAX")
}

#[cfg(test)]
mod tests;
