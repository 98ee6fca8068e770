//! The name of an entry of an arena, and the places of the index where such names are kept.

use std::num::NonZeroU32;

use crate::base::sync::{AtomicU64, Ordering};

/// Most chunks of an arena. With chunks as they grow, good for at least 2 GiB of entries.
pub(super) const CHUNKS_MAX: usize = 256;
/// Bits of an offset that say where in its chunk an entry is, in units of 8 bytes.
pub(super) const WITHIN_BITS: u32 = 22;
/// Entries begin at multiples of so many bytes.
pub(super) const UNIT: usize = 8;

/// Marks the link of a first version whose key has left the order. Above all offsets.
pub(super) const LEFT: u32 = 1 << 31;
/// Marks the oldest version of a key that is not its first one: it has taken the place of that. Above all
/// offsets, too.
pub(super) const OLDEST: u32 = 1 << 31;
const _: () = assert!(CHUNKS_MAX as u64 * (1 << WITHIN_BITS) <= LEFT as u64 && LEFT == OLDEST);

/// Names an entry of one arena. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offset(NonZeroU32);

impl Offset {
    pub(super) fn new(chunk: usize, within: usize) -> Offset {
        debug_assert!(chunk < CHUNKS_MAX && within.is_multiple_of(UNIT) && within > 0);
        let raw = (chunk as u32) << WITHIN_BITS | (within / UNIT) as u32;
        Offset(NonZeroU32::new(raw).expect("a chunk begins with its header"))
    }

    pub(super) fn from_raw(raw: u32) -> Option<Offset> {
        NonZeroU32::new(raw).map(Offset)
    }

    #[inline]
    pub(super) fn raw(offset: Option<Offset>) -> u32 {
        offset.map_or(0, |offset| offset.0.get())
    }

    #[inline]
    pub(super) fn chunk(self) -> usize {
        (self.0.get() >> WITHIN_BITS) as usize
    }

    #[inline]
    pub(super) fn within(self) -> usize {
        (self.0.get() & ((1 << WITHIN_BITS) - 1)) as usize * UNIT
    }
}

/// One place of the hash index: the hash of a key above, the offset of its newest entry below.
pub struct Slot(AtomicU64);

impl Slot {
    /// A free slot.
    #[inline]
    pub const fn empty() -> Slot {
        Slot(AtomicU64::new(0))
    }

    /// The entry, if the slot is taken by one of a key with this hash.
    #[inline]
    pub fn load(&self, hash: u32) -> Option<Offset> {
        let word = self.0.load(Ordering::Acquire);
        if (word >> 32) as u32 != hash {
            return None;
        }
        Offset::from_raw(word as u32)
    }

    /// Hash and entry, if the slot is taken.
    pub fn both(&self) -> Option<(u32, Offset)> {
        let word = self.0.load(Ordering::Acquire);
        Some(((word >> 32) as u32, Offset::from_raw(word as u32)?))
    }

    /// Publishes an entry.
    #[inline]
    pub fn store(&self, hash: u32, offset: Offset) {
        let word = u64::from(hash) << 32 | u64::from(offset.0.get());
        self.0.store(word, Ordering::Release);
    }
}

/// How far a walk over the entries of an arena has come. The default is the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The ordinary chunk that was being filled, and how much of it was seen.
    pub(super) open: usize,
    pub(super) within: usize,
    /// The first chunk not looked at.
    pub(super) unseen: usize,
}

impl Default for Position {
    fn default() -> Position {
        Position { open: 0, within: 0, unseen: 1 }
    }
}
