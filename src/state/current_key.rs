//! The current key of a backend, which its handles copy without a lock.
//!
//! A *sequence lock*: the version is odd while the key is being written. Whoever copies does it again if
//! the version was odd, or is another one afterwards. As a rule one task uses a backend and its handles,
//! so that nobody copies twice and there is no locked instruction; but handles can be sent to other
//! threads, and then see one key or the other.
//!
//! Source: H. Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", MSPC 2012.

use crate::base::sync::AtomicU64;
use crate::base::sync::Mutex;
use crate::base::sync::Ordering;
use crate::base::sync::fence;
use crate::base::sync::yield_now;

/// No key has been set.
pub const NO_KEY: u64 = 0;
/// What a handle has seen that has seen none: no version is equal to it.
pub const UNSEEN: u64 = u64::MAX - 1;
/// The backend is gone.
pub const CLOSED: u64 = u64::MAX;

/// Words of a key that is copied without a lock: with group and length, nearly all are.
const WORDS: usize = 8;
pub const WORD_BYTES: usize = 8;

/// Key group and key, as every composite key begins.
pub struct CurrentKey {
    /// [`NO_KEY`], [`CLOSED`], or a number that every new key makes greater.
    version: AtomicU64,
    bytes: AtomicU64,
    words: [AtomicU64; WORDS],
    /// The key, if it has too many bytes for the words.
    long: Mutex<Vec<u8>>,
}

impl CurrentKey {
    /// None.
    pub fn new() -> CurrentKey {
        CurrentKey {
            version: AtomicU64::new(NO_KEY),
            bytes: AtomicU64::new(0),
            words: [const { AtomicU64::new(0) }; WORDS],
            long: Mutex::new(Vec::new()),
        }
    }

    /// Its version. What was stored before that was set is seen.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Another key: the first `bytes` of these words. Only the owner calls this and the following two,
    /// one at a time.
    #[inline]
    pub fn set(&self, padded: &[[u8; WORD_BYTES]], bytes: usize) {
        let version = self.version.load(Ordering::Relaxed) | 1;
        self.version.store(version, Ordering::Relaxed);
        fence(Ordering::Release); // whoever sees any of the stores below sees the one above
        self.bytes.store(bytes as u64, Ordering::Relaxed);
        if padded.len() <= WORDS {
            for (word, bytes) in self.words.iter().zip(padded) {
                word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
            }
        } else {
            self.set_long(&padded.as_flattened()[..bytes]);
        }
        self.version.store(version + 1, Ordering::Release);
    }

    #[cold]
    fn set_long(&self, key: &[u8]) {
        let mut long = self.long.lock();
        long.clear();
        long.extend_from_slice(key);
    }

    /// No key from now on, and for good unless it is [`reopened`](CurrentKey::reopen).
    pub fn close(&self) {
        self.version.store(CLOSED, Ordering::Release);
    }

    /// The key is there again, if there was one, with another version than ever before: of the
    /// `times`th time that this is called.
    pub fn reopen(&self, times: u64) {
        let version = match self.bytes.load(Ordering::Relaxed) {
            0 => NO_KEY,
            _ => times << 48, // greater than any number of keys
        };
        self.version.store(version, Ordering::Release);
    }

    /// Puts the key in place of what is in `out`, and returns its version. Without a key, `out` is empty.
    #[inline]
    pub fn copy(&self, out: &mut Vec<u8>) -> u64 {
        let version = self.version();
        let words = self.words();
        if version.is_multiple_of(2) && words <= WORDS {
            let bytes = self.bytes.load(Ordering::Relaxed) as usize;
            out.clear();
            for word in &self.words[..words] {
                out.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
            out.truncate(bytes);
            fence(Ordering::Acquire); // if any load above saw a newer key, the one below does
            if self.version.load(Ordering::Relaxed) == version {
                return version;
            }
        }
        self.copy_slowly(out)
    }

    /// Words of the key.
    #[inline]
    fn words(&self) -> usize {
        (self.bytes.load(Ordering::Relaxed) as usize).div_ceil(WORD_BYTES)
    }

    /// The key is long, there is none, or it is being written.
    #[cold]
    fn copy_slowly(&self, out: &mut Vec<u8>) -> u64 {
        loop {
            let version = self.version();
            out.clear();
            if version == CLOSED || version == NO_KEY {
                return version;
            }
            match self.words() {
                words @ ..=WORDS => {
                    let words = self.words[..words].iter();
                    out.extend(words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()));
                    out.truncate(self.bytes.load(Ordering::Relaxed) as usize);
                }
                _ => out.extend_from_slice(&self.long.lock()),
            }
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                return version;
            }
            yield_now(); // to whoever is writing it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::scope;

    fn set(current: &CurrentKey, key: &[u8]) {
        let padded = [key, &[0xee; WORD_BYTES]].concat();
        current.set(&padded.as_chunks().0[..key.len().div_ceil(WORD_BYTES)], key.len());
    }
    use quickcheck::quickcheck;

    quickcheck! {
        fn what_was_set_is_copied(keys: Vec<Vec<u8>>) -> bool {
            let (current, mut copy) = (CurrentKey::new(), vec![1, 2, 3]);
            assert_eq!((current.copy(&mut copy), copy.len()), (NO_KEY, 0));
            let mut seen = NO_KEY;
            keys.iter().filter(|key| !key.is_empty()).all(|key| {
                set(&current, key);
                let before = std::mem::replace(&mut seen, current.copy(&mut copy));
                copy == *key && seen > before && current.version() == seen
            })
        }
    }

    #[test]
    fn closed_and_opened_again() {
        let (current, mut copy) = (CurrentKey::new(), Vec::new());
        current.close();
        assert_eq!(current.copy(&mut copy), CLOSED);
        current.reopen(1);
        assert_eq!(current.copy(&mut copy), NO_KEY);
        for key in [&b"short"[..], &[7; 100]] {
            set(&current, key);
            let before = current.version();
            current.close();
            assert_eq!((current.copy(&mut copy), copy.len()), (CLOSED, 0));
            current.reopen(2);
            assert!(current.copy(&mut copy) != before && copy == key);
        }
    }

    /// Keys of one byte again and again, of all lengths: a copy that is torn has two of them.
    #[test]
    fn no_copy_is_of_two_keys() {
        const KEYS: u64 = if cfg!(miri) { 200 } else { 100_000 };
        let key = |i: u64| vec![i as u8; 2 + (i % 75) as usize];
        let current = CurrentKey::new();
        set(&current, &key(0));
        scope(|scope| {
            scope.spawn(|| (1..=KEYS).for_each(|i| set(&current, &key(i))));
            let (mut copy, mut seen) = (Vec::new(), NO_KEY);
            while seen < 2 * (KEYS + 1) {
                let version = current.copy(&mut copy);
                assert!(version >= seen, "back from {seen} to {version}");
                assert_eq!(copy, key(version / 2 - 1));
                seen = version;
            }
        });
    }
}
