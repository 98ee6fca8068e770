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
//! may have room for those that follow. It is not looked at without being held. When it is full, and no
//! pin sees it, what it holds moves into a larger entry, which takes its place among the versions.
//!
//! An [`Offset`] names an entry: chunk number above, distance in the chunk in units of 8 bytes below.
//! Chunks grow with the arena, so that an eighth of it at most is allocated and not yet used; an entry
//! bigger than half a chunk gets one of its own.
//!
//! # Claims
//!
//! Every block of `unsafe` names the claims that it rests on.
//!
//! 1. *One writer.* Bytes of a chunk are written by `ArenaWriter::write`, of which
//!    [`push`](ArenaWriter::push) and [`push_joined`](ArenaWriter::push_joined) make use, and by
//!    [`ArenaWriter::overwrite`] only; links also as atomics, by readers too. There is one `ArenaWriter` per
//!    arena, it is not `Clone`, and all of these take it by `&mut`.
//! 2. *Published when complete.* An entry and its chunk's address are written before its offset
//!    leaves `write`. The offset reaches another thread through a Release store and an Acquire load (a
//!    slot of the index, the link of an entry, a chunk's `used`) or through a lock, or by way of an
//!    entry that did. So whoever has an offset sees the whole entry.
//! 3. *Never changed, but for these.* After that, key, pads, `older` and `shape` are never written;
//!    trailer, link and value length are atomics and never accessed otherwise; the words of a value
//!    with room to grow are written as atomics, by `overwrite` alone. Bytes not yet written
//!    are never read: no reference covers them.
//! 4. *Never moved, never freed early.* A chunk stays where it is until its `Arena` is dropped, and
//!    what is lent from it borrows the `Arena`.
//! 5. *Offsets are not invented.* An `Offset` comes out of `write`, or out of a place where one was put
//!    in. This module and [`Entry`] alone make one of a number: of a field where one was put, without its
//!    mark; and [`Slot`](super::offset::Slot) of one that it was given. It, and an entry that it led to, is
//!    used only with the arena that it came from: a memtable has one arena, and an offset leaves the
//!    memtable in a [`Place`](super::Place), which says of which memtable it is.
//! 6. *In bounds, aligned.* Chunks are aligned to 64 bytes, entries and values to 8. `write` checks
//!    that an entry ends inside its chunk, with its value grown to the words of its shape; a value
//!    length beyond these is never stored.
//! 7. *Held values stand still.* A reference to a value that may be written is made in
//!    [`Entry::version`] only, of a version that its [`Hold`](super::read_pins::Hold) covers, and lives no
//!    longer. `overwrite` takes an [`Overwrite`], and refuses a version that a pin sees. No pin is taken or let go while an `Overwrite` is held, and
//!    both happen under one lock: so no such reference is alive while a value is written, and what a
//!    pin allows to see was written before. Of a table that is frozen the writer is gone.
//!
//! A torn copy is not unsafe, but wrong: it is used only if the trailer is the same before and after.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};

use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::sync::{Arc, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use crate::memtable::entry::{Entry, is_operand};
use crate::memtable::header::{ENTRY_HEADER, Header, KEY_LEN_BITS, value_at};
use crate::memtable::offset::{CHUNKS_MAX, LEFT, OLDEST, Offset, Position, UNIT, WITHIN_BITS};
use crate::memtable::read_pins::Overwrite;
use crate::memtable::value_copy::{self, JOINED_WORDS_MAX, OPERAND_WORDS_MAX, WORDS_MAX};

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
        // SAFETY: the offset was made by `write` for an entry inside this chunk (5, 6), which is complete (2)
        // and stays as long as the arena (4).
        unsafe { Entry::at(chunk.add(offset.within())) }
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
    /// Merge operands are joined to those that have this number or a later one;
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
                let before = older.map(|offset| self.arena.entry(offset));
                operand_words(value.len(), before)
            }
            _ => None,
        };
        self.write(key, None, value, words.unwrap_or(0), Offset::raw(older), first)
    }

    /// Appends an entry of the operand `newest`, the newest version of a key, and of one behind it: in the
    /// order of the versions it takes the place of the former. `None`, and nothing was done, if they must
    /// stay apart, or would not have twice the room that the former has. They have up to
    /// [`JOINED_WORDS_MAX`], so that up to half of that is in one entry whatever the operands' lengths. Copies
    /// what the former holds, up to half a KiB.
    ///
    /// # Panics
    /// As for [`push`](ArenaWriter::push).
    pub fn push_joined(
        &mut self,
        key: InternalKey<'_>,
        value: &[u8],
        newest: Entry<'_>,
        first: Offset,
        overwrite: Overwrite<'_>,
    ) -> Option<Offset> {
        debug_assert!(newest.has_key(key.user_key) && newest.seqno() < key.seqno);
        debug_assert!(newest.is_first() || newest.link() == Some(first));
        if !is_operand(key.trailer()) || !is_operand(newest.trailer()) {
            return None;
        }
        let (len, room) = (newest.value_len(), newest.words().len());
        let words = grown(room, len + value.len(), JOINED_WORDS_MAX);
        // Operands that were not to be joined when they came have no words, and stay if they are not empty.
        let fits = len <= room * UNIT && (2 * room..=JOINED_WORDS_MAX).contains(&words);
        if !fits || newest.seqno() < self.join_from || !overwrite.allows(newest.seqno()) {
            return None;
        }
        let older = newest.header().older;
        let older = if newest.is_first() { OLDEST } else { older };
        Some(self.write(key, Some(newest), value, words, older, Some(first)))
    }

    /// Writes an entry whose value is that of `before`, and `value` behind it.
    #[inline(always)]
    fn write(
        &mut self,
        key: InternalKey<'_>,
        before: Option<Entry<'_>>,
        value: &[u8],
        words: usize,
        older: u32,
        first: Option<Offset>,
    ) -> Offset {
        let before_len = before.map_or(0, |before| before.value_len());
        let (key_len, value_len) = (key.user_key.len(), before_len + value.len());
        assert!(key_len < 1 << KEY_LEN_BITS && value_len < 1 << 30, "too long for a memtable");
        let copied = before.map(|before| &before.words()[..before_len.div_ceil(UNIT)]);
        let bytes = value_at(key_len) + value_len.div_ceil(UNIT).max(words) * UNIT;
        let (number, within) = self.room(bytes);
        let chunk = self.arena.chunk(number).expect("room made the chunk");
        let header = Header {
            trailer: AtomicU64::new(key.trailer()),
            older,
            link: AtomicU32::new(Offset::raw(first)),
            shape: (words as u32) << KEY_LEN_BITS | key_len as u32,
            value_len: AtomicU32::new(value_len as u32),
        };
        debug_assert_eq!(header.bytes(), bytes);
        let used = within + bytes;
        // SAFETY: `room` found `bytes` free bytes at `within`, aligned (6), not yet published, so no
        // one else looks at them (1, 3), and header, key and value fit (`bytes`), of which `before` has
        // another entry's words. The last word of the value, and all that it may grow to, is made whole
        // first. `used` publishes them (2).
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
            let to = at.add(value_at(key_len));
            for (i, word) in copied.into_iter().flatten().enumerate() {
                to.cast::<u64>().add(i).write(word.load(Ordering::Relaxed));
            }
            ptr::copy_nonoverlapping(value.as_ptr(), to.add(before_len).as_ptr(), value.len());
            let header = chunk.cast::<ChunkHeader>().as_ref();
            header.used.store(used as u64, Ordering::Release);
        }
        self.used += bytes;
        Offset::new(number, within)
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
        let [from, to] = [old, trailer].map(is_operand);
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
        let words = entry.words(); // ours to store to (1), under no other reference (7)
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

/// How many words a merge operand gets that is not joined: four times those of the one before it, if that
/// is full. So long lists are in few pieces.
fn operand_words(len: usize, before: Option<Entry<'_>>) -> Option<usize> {
    let full = |entry: &Entry<'_>| {
        is_operand(entry.trailer()) && entry.value_len() + len > entry.header().words() * UNIT
    };
    let words = before
        .filter(full)
        .map_or(len.div_ceil(UNIT), |before| grown(before.words().len(), len, OPERAND_WORDS_MAX));
    (words <= OPERAND_WORDS_MAX).then_some(words)
}

/// Four times as many words, but at most `max`, and enough for `len` bytes in any case.
fn grown(words: usize, len: usize, max: usize) -> usize {
    (4 * words).min(max).max(len.div_ceil(UNIT))
}

fn chunk_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, CHUNK_ALIGN).expect("chunks are far smaller than isize::MAX")
}

#[cfg(test)]
mod tests;
