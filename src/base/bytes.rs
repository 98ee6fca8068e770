//! Shared immutable bytes whose owner may be the heap or a mapping.

use std::fmt;
use std::hint::black_box;
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

/// Memory that is to be written over has room for a multiple of this.
const ROOM_BYTES: usize = 1 << 10;

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

    /// Looks at the owner's count, which a clone will change: its line is on its way then, and the caller
    /// may ask for others meanwhile. Nothing is made of what is there.
    #[inline]
    pub fn look_at_owner(&self) {
        if let Owner::Heap(owner) = &self.owner {
            black_box(Arc::strong_count(owner));
        }
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

    /// The same, written over the memory of `old` if that is on the heap, large enough and nobody else's:
    /// neither an allocation then, nor zeros. New memory has some room for a longer successor.
    ///
    /// # Errors
    /// What `fill` returns, which must write over all of what it is given.
    pub fn filled_over<E>(
        old: Option<Bytes>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if let Some(Bytes { owner: Owner::Heap(mut all), .. }) = old
            && let Some(buffer) = Arc::get_mut(&mut all).and_then(|all| all.get_mut(..len))
        {
            fill(buffer)?;
            return Ok(Bytes { owner: Owner::Heap(all), start: 0, len });
        }
        let room = len.checked_next_multiple_of(ROOM_BYTES).unwrap_or(len);
        let mut bytes = Bytes::filled(room, |all| fill(&mut all[..len]))?;
        bytes.len = len;
        Ok(bytes)
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
    fn only_what_is_nobody_elses_is_written_over() {
        let over = |old, byte, len| {
            let filled = Bytes::filled_over(old, len, |buffer| {
                buffer.fill(byte);
                Ok::<(), ()>(())
            });
            filled.unwrap()
        };
        let first = over(None, 1, 10);
        let place = first.as_ptr();
        let second = over(Some(first), 2, 12);
        assert_eq!((&*second, second.as_ptr()), (&[2; 12][..], place), "there was room");
        let window = second.slice(2..4);
        let third = over(Some(second), 3, 10);
        assert_eq!((&*window, &*third), (&[2; 2][..], &[3; 10][..]));
        assert_eq!(*over(Some(third), 4, ROOM_BYTES + 1), [4; ROOM_BYTES + 1]);
        let foreign = Bytes::shared(Arc::new(vec![5u8; 10]));
        assert_eq!(*over(Some(foreign), 6, 10), [6; 10]);
        assert_eq!(Bytes::filled_over(Some(window), 1, |_| Err("no")).unwrap_err(), "no");
    }

    #[test]
    #[should_panic(expected = "slice out of bounds")]
    fn slicing_past_the_end_panics() {
        Bytes::from(vec![1, 2, 3]).slice(1..3).slice(0..3);
    }
}
