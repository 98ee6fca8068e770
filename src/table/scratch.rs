//! Buffers for a block that is read, looked at, and given up: each thread keeps two.

use std::cell::Cell;
use std::mem::take;

use crate::table::lz4;

/// A longer one is not kept.
pub const KEPT_BYTES: usize = size_of::<lz4::Raw>();

thread_local! {
    static KEPT: Cell<[Buffer; 2]> = const { Cell::new([Buffer(Vec::new()), Buffer(Vec::new())]) };
}

/// A buffer for a block as it is stored, and one for what it unpacks to. They are in the processor's
/// cache, while memory for a block of its own was just given up by one that nobody wanted.
pub struct Scratch {
    pub stored: Buffer,
    pub raw: Buffer,
}

impl Scratch {
    /// This thread's, which are there again when they are dropped. Empty ones if they are in use: whom a
    /// value in them is lent to may read another.
    pub fn take() -> Scratch {
        let [stored, raw] = KEPT.try_with(Cell::take).unwrap_or_default();
        Scratch { stored, raw }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut buffers = [take(&mut self.stored), take(&mut self.raw)];
        for buffer in &mut buffers {
            if buffer.0.len() > KEPT_BYTES {
                *buffer = Buffer::default();
            }
        }
        // Not at the end of the thread.
        let _ = KEPT.try_with(|kept| kept.set(buffers));
    }
}

/// Bytes to be written over.
#[derive(Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// The first `len` bytes, whatever they are.
    #[inline]
    pub fn first(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        &mut self.0[..len]
    }

    /// The first bytes, as many as there may be of a block of LZ4, whatever they are.
    #[inline]
    pub fn first_of_lz4(&mut self) -> &mut lz4::Raw {
        let all = self.first(size_of::<lz4::Raw>()).first_chunk_mut();
        all.expect("as long as it was made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_not_lent_again() {
        let mut outer = Scratch::take();
        outer.raw.first(10).fill(1);
        {
            let mut within = Scratch::take();
            within.raw.first(20).fill(2);
        }
        assert_eq!(*outer.raw.first(10), [1; 10]);
        drop(outer);
        let mut again = Scratch::take();
        assert_eq!(*again.raw.first(12), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0], "the outer ones");
    }
}
