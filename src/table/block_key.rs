//! The key under a block's cursor, in a buffer that the thread keeps for the next one.

use std::cell::Cell;
use std::mem;

use crate::table::block::Entry;

/// A key that is rebuilt from entry to entry.
#[derive(Debug)]
pub(super) struct Key {
    /// What is behind the key is left over from earlier ones.
    bytes: Vec<u8>,
    pub(super) len: usize,
}

/// Most tails are no longer than this: so many bytes are copied at once, whatever the length.
const TAIL_BYTES: usize = 16;

/// So many buffers of keys, none of them longer, a thread keeps for its next cursors.
const KEPT_KEYS: usize = 8;
const KEPT_BYTES: usize = 1 << 10;

thread_local! {
    static KEPT: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

impl Drop for Key {
    fn drop(&mut self) {
        if self.bytes.len() > KEPT_BYTES {
            return;
        }
        // Not at the end of the thread.
        let _ = KEPT.try_with(|kept| {
            let mut keys = kept.take();
            if keys.len() < KEPT_KEYS {
                keys.push(mem::take(&mut self.bytes));
            }
            kept.set(keys);
        });
    }
}

impl Key {
    pub(super) fn new() -> Key {
        let kept = KEPT.try_with(|kept| {
            let mut keys = kept.take();
            let key = keys.pop();
            kept.set(keys);
            key
        });
        let bytes = kept.ok().flatten().unwrap_or_else(|| vec![0; 4 * TAIL_BYTES]);
        Key { bytes, len: 0 }
    }

    #[inline]
    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn set(&mut self, key: &[u8]) {
        self.len = 0;
        self.replace_tail(0, key, 0, key.len());
    }

    /// Keeps the first `shared` bytes; `source[at..at + len]` comes behind them.
    #[inline]
    pub(super) fn replace_tail(&mut self, shared: usize, source: &[u8], at: usize, len: usize) {
        debug_assert!(shared <= self.len);
        self.len = shared + len;
        if len <= TAIL_BYTES
            && let Some(from) = source.get(at..).and_then(|rest| rest.first_chunk::<TAIL_BYTES>())
            && let Some(to) = self.bytes.get_mut(shared..shared + TAIL_BYTES)
        {
            to.copy_from_slice(from);
            return;
        }
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len + TAIL_BYTES, 0);
        }
        self.bytes[shared..self.len].copy_from_slice(&source[at..at + len]);
    }

    /// The same for the tail of an entry, if that is short, more bytes are behind it, and its first byte is
    /// greater than the one whose place it takes: then the entry is of a later key. `false`, and nothing is
    /// done, if not.
    #[inline(always)]
    pub(super) fn go_to_greater(&mut self, entries: &[u8], entry: Entry) -> bool {
        let len = entry.seqno - entry.tail;
        if let Some(from) = entries.get(entry.tail..).and_then(|rest| rest.first_chunk())
            && let Some(to) = self.bytes.get_mut(entry.shared..entry.shared + TAIL_BYTES)
            && (1..=TAIL_BYTES).contains(&len)
            && entry.shared < self.len
            && to[0] < from[0]
        {
            let from: &[u8; TAIL_BYTES] = from;
            to.copy_from_slice(from);
            self.len = entry.shared + len;
            return true;
        }
        false
    }
}
