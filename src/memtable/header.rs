//! What an entry of an arena begins with.

use crate::base::sync::{AtomicU32, AtomicU64, Ordering};
use crate::memtable::offset::UNIT;

/// Bytes of the header.
pub(super) const ENTRY_HEADER: usize = size_of::<Header>();
/// Bits of the shape that are the length of the key.
pub(super) const KEY_LEN_BITS: u32 = 24;

/// What an entry begins with.
#[repr(C)]
pub(super) struct Header {
    /// Sequence number and kind; the arena's `BUSY` while the value is being overwritten.
    pub trailer: AtomicU64,
    /// The version before; 0 if this is the first one, [`OLDEST`](super::offset::OLDEST) if it has taken its place.
    pub older: u32,
    /// In the first version of a key: the newest one, 0 as long as it is alone, and perhaps [`LEFT`](super::offset::LEFT).
    /// In others: the first.
    pub link: AtomicU32,
    /// Length of the key; above, how many words the value may grow to: 0 if it never changes.
    pub shape: u32,
    /// Length of the value.
    pub value_len: AtomicU32,
}

impl Header {
    /// Length of the key, which follows the header.
    #[inline]
    pub fn key_len(&self) -> usize {
        (self.shape & ((1 << KEY_LEN_BITS) - 1)) as usize
    }

    /// Words that the value may take when it is overwritten, 0 if it must not be.
    #[inline]
    pub fn words(&self) -> usize {
        (self.shape >> KEY_LEN_BITS) as usize
    }

    /// Where in the entry its value begins.
    #[inline]
    pub fn value_at(&self) -> usize {
        value_at(self.key_len())
    }

    /// Bytes of the whole entry, however long its value is at the moment.
    #[inline]
    pub fn bytes(&self) -> usize {
        let value = match self.words() {
            0 => (self.value_len.load(Ordering::Relaxed) as usize).next_multiple_of(UNIT),
            words => words * UNIT,
        };
        self.value_at() + value
    }
}

/// Where in an entry its value begins.
#[inline]
pub(super) fn value_at(key_len: usize) -> usize {
    (ENTRY_HEADER + key_len).next_multiple_of(UNIT)
}
