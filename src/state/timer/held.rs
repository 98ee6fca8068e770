//! A timer in memory: what follows the key group in its key, in a form that compares quickly.

use std::cmp::Ordering;
use std::fmt;

use crate::base::error::Error;
use crate::base::error::Result;

/// Bytes of the time at the beginning.
const TIME_BYTES: usize = 8;
/// Key and namespace lie in place up to this length: no allocation, and no miss when they are compared.
const IN_PLACE_MAX: usize = 22;

/// The bytes of a timer behind its key group: time, key and namespace. Their order is that of firing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldTimer {
    time: u64,
    rest: Rest,
}

/// Key and namespace, as one sequence of bytes.
#[derive(Clone)]
enum Rest {
    InPlace { len: u8, bytes: [u8; IN_PLACE_MAX] },
    Boxed(Box<[u8]>),
}

impl HeldTimer {
    /// Before all timers, or the first.
    pub const LEAST: HeldTimer =
        HeldTimer { time: 0, rest: Rest::InPlace { len: 0, bytes: [0; IN_PLACE_MAX] } };

    /// # Errors
    /// `Corruption` if the bytes end within the time.
    #[inline]
    pub fn new(bytes: &[u8]) -> Result<HeldTimer> {
        let Some((time, rest)) = bytes.split_first_chunk::<TIME_BYTES>() else {
            return Err(Error::corruption(format!("a timer of {} bytes", bytes.len())).at(0));
        };
        let rest = match u8::try_from(rest.len()) {
            Ok(len) if rest.len() <= IN_PLACE_MAX => {
                let mut bytes = [0; IN_PLACE_MAX];
                bytes[..rest.len()].copy_from_slice(rest);
                Rest::InPlace { len, bytes }
            }
            _ => Rest::Boxed(rest.into()),
        };
        Ok(HeldTimer { time: u64::from_be_bytes(*time), rest })
    }

    /// Its time, with the sign bit flipped: the order of these numbers is that of the times.
    #[inline]
    pub fn flipped_time(&self) -> u64 {
        self.time
    }

    /// Appends its bytes.
    #[inline]
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(self.rest.bytes());
    }
}

impl fmt::Debug for HeldTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x} {:x?}", self.time, self.rest.bytes())
    }
}

impl Rest {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Rest::InPlace { len, bytes } => &bytes[..usize::from(*len)],
            Rest::Boxed(bytes) => bytes,
        }
    }
}

impl PartialEq for Rest {
    #[inline]
    fn eq(&self, other: &Rest) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Rest {}

impl PartialOrd for Rest {
    #[inline]
    fn partial_cmp(&self, other: &Rest) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rest {
    #[inline]
    fn cmp(&self, other: &Rest) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn it_is_its_bytes_and_sorts_like_them(a: Vec<u8>, b: Vec<u8>, shared: usize) -> bool {
            let long = |bytes: &[u8]| [&[0; TIME_BYTES][bytes.len().min(TIME_BYTES)..], bytes].concat();
            let (a, mut b) = (long(&a), long(&b));
            let shared = shared % a.len().min(b.len());
            b[..shared].copy_from_slice(&a[..shared]);
            let (x, y) = (HeldTimer::new(&a).unwrap(), HeldTimer::new(&b).unwrap());
            let mut again = Vec::new();
            x.put(&mut again);
            again == a && x.cmp(&y) == a.cmp(&b) && (x == y) == (a == b) && HeldTimer::LEAST <= x
        }
    }

    #[test]
    fn around_the_length_that_lies_in_place() {
        for len in TIME_BYTES..TIME_BYTES + 2 * IN_PLACE_MAX {
            let (bytes, mut again) = (vec![9; len], Vec::new());
            HeldTimer::new(&bytes).unwrap().put(&mut again);
            assert_eq!(again, bytes);
        }
        assert!(HeldTimer::new(&[0; TIME_BYTES - 1]).is_err());
        assert_eq!(size_of::<HeldTimer>(), 32);
    }
}
