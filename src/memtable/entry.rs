//! An entry of the [arena](super::arena), as readers look at it.
//!
//! The claims that its `unsafe` blocks name are the arena's.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use crate::base::key::{SeqNo, ValueKind, equal};
use crate::base::sync::{AtomicU64, Ordering, fence};
use crate::memtable::Found;
use crate::memtable::arena::Arena;
use crate::memtable::header::{ENTRY_HEADER, Header};
use crate::memtable::offset::{LEFT, OLDEST, Offset, UNIT};
use crate::memtable::read_pins::Hold;
use crate::memtable::value_copy::ValueCopy;

const LINE_BYTES: usize = 64;

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
    /// # Safety
    /// A complete entry of an arena begins there, and stays for `'a`.
    #[inline(always)]
    pub(super) unsafe fn at(at: NonNull<u8>) -> Entry<'a> {
        Entry { at, arena: PhantomData }
    }

    #[inline]
    pub(super) fn header(&self) -> &'a Header {
        // SAFETY: a complete entry begins here (2, 5), aligned (6), alive for 'a (4); what still
        // changes of it is atomic (3).
        unsafe { self.at.cast::<Header>().as_ref() }
    }

    /// Asks for the first lines of the entry, for they will be looked at soon.
    #[inline(always)]
    pub fn prefetch<const LINES: usize>(&self) {
        for line in 0..LINES {
            prefetch(self.at.as_ptr().wrapping_add(line * LINE_BYTES));
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
        if trailer >> 8 > at || is_operand(trailer) {
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
        if count > header.words() || is_operand(trailer) {
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
        Offset::from_raw(self.header().older & !OLDEST)
    }

    /// Is it the first version of its key? Nothing is older; but that may be so of others, too.
    #[inline]
    pub fn is_first(&self) -> bool {
        self.header().older == 0
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

    /// The words that its value may take, to be loaded; [`ArenaWriter::overwrite`](super::arena::ArenaWriter::overwrite)
    /// alone may store to them.
    #[inline]
    pub(super) fn words(&self) -> &'a [AtomicU64] {
        let header = self.header();
        // SAFETY: inside the chunk and aligned (6), alive (4), and written by `overwrite` alone, as atomics,
        // when there is no other reference (3, 7).
        unsafe {
            let from = self.at.add(header.value_at()).cast::<AtomicU64>();
            slice::from_raw_parts(from.as_ptr(), header.words())
        }
    }

    /// Bytes of its value.
    #[inline]
    pub(super) fn value_len(&self) -> usize {
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
        debug_assert!(self.is_first() && !self.has_left());
        self.header().link.store(Offset::raw(Some(newest)), Ordering::Release);
    }

    /// Points the first version of a key to the newest one, the one after a delete; `false` if the
    /// key has left the order because of that.
    #[must_use]
    pub fn set_newest_after_delete(&self, newest: Offset) -> bool {
        debug_assert!(self.is_first());
        let set = |old: u32| (old & LEFT == 0).then_some(Offset::raw(Some(newest)));
        self.header().link.fetch_update(Ordering::Release, Ordering::Relaxed, set).is_ok()
    }

    /// Has the key whose first version this is left the order?
    #[inline]
    pub fn has_left(&self) -> bool {
        self.header().link.load(Ordering::Relaxed) & LEFT != 0
    }
}

/// Is it the trailer of a merge operand?
#[inline(always)]
pub(super) fn is_operand(trailer: u64) -> bool {
    trailer as u8 == ValueKind::Merge as u8
}
