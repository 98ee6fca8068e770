//! Shared immutable bytes whose owner may be the heap or a mapping.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Immutable bytes, cheap to clone and to slice. The owner lives as long as any slice of it.
///
/// Reading a file returns `Bytes`, so that a mapped file can hand out a window without a copy and a
/// positioned read a fresh block, and the layers above cannot tell the difference.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    start: usize,
    len: usize,
}

#[derive(Clone)]
enum Owner {
    Heap(Arc<[u8]>),
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl Bytes {
    /// Bytes owned by someone else, such as a memory mapping. The owner must always return the same
    /// slice.
    pub fn shared(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Bytes {
        let len = (*owner).as_ref().len();
        Bytes { owner: Owner::Shared(owner), start: 0, len }
    }

    /// The bytes themselves.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Heap(bytes) => bytes,
            Owner::Shared(owner) => (**owner).as_ref(),
        };
        &all[self.start..self.start + self.len]
    }

    /// The same bytes, copied if they are a window into more on the heap.
    pub fn alone(&self) -> Bytes {
        match &self.owner {
            Owner::Heap(all) if all.len() > self.len => Bytes::from(self.as_slice()),
            _ => self.clone(),
        }
    }

    /// A window into the same bytes, without a copy.
    ///
    /// # Panics
    /// If the range does not lie within these bytes.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len, "slice out of bounds");
        Bytes {
            owner: self.owner.clone(),
            start: self.start + range.start,
            len: range.end - range.start,
        }
    }
}

impl Bytes {
    /// Bytes that `fill` writes into a zeroed buffer of this length: one allocation, no copy.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn filled<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
        fill(Arc::get_mut(&mut bytes).expect("nobody else has it yet"))?;
        Ok(Bytes { owner: Owner::Heap(bytes), start: 0, len })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        let len = bytes.len();
        Bytes { owner: Owner::Heap(bytes.into()), start: 0, len }
    }
}

impl From<Arc<[u8]>> for Bytes {
    fn from(bytes: Arc<[u8]>) -> Bytes {
        let len = bytes.len();
        Bytes { owner: Owner::Heap(bytes), start: 0, len }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes { owner: Owner::Heap(bytes.into()), start: 0, len: bytes.len() }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_the_owner() {
        let all = Bytes::from(vec![1, 2, 3, 4, 5]);
        let part = all.slice(1..4);
        drop(all);
        assert_eq!(&*part, &[2, 3, 4]);
        assert_eq!(&*part.slice(2..3), &[4]);
        assert_eq!(&*part.alone(), &[2, 3, 4]);
        let foreign = Bytes::shared(Arc::new(vec![7u8, 8, 9]));
        assert_eq!(&*foreign.slice(1..3), &[8, 9]);
    }

    #[test]
    fn a_filled_buffer_is_what_was_written() {
        let filled = Bytes::filled(4, |buffer| {
            assert_eq!(buffer, [0; 4]);
            buffer[1] = 7;
            Ok::<(), ()>(())
        });
        assert_eq!(&*filled.unwrap(), &[0, 7, 0, 0]);
        assert_eq!(Bytes::filled(4, |_| Err("no")).unwrap_err(), "no");
    }

    #[test]
    #[should_panic(expected = "slice out of bounds")]
    fn slicing_past_the_end_panics() {
        Bytes::from(vec![1, 2, 3]).slice(1..3).slice(0..3);
    }
}
