//! Copies of short values that may be overwritten meanwhile: the reader's half of a sequence lock.
//!
//! # Claims
//!
//! 1. *What is lent was written.* `fill` writes as many words of the copy as it is given, before it
//!    lends no more bytes than these have.
//! 2. *The instructions are the loop.* They load each aligned word of the source once and store it to
//!    the same place in the copy, within both; opaque to the compiler, they are to the rest of the
//!    program what the loop of Relaxed loads is. The processor does not tear aligned words.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::slice;

use crate::base::sync::{AtomicU64, Ordering};

/// Longest value that can be overwritten where it is, in words of 8 bytes. Readers copy such values:
/// longer ones are better lent.
pub const WORDS_MAX: usize = 32;

const WORD: usize = size_of::<u64>();

/// Where a reader copies a short value to: on its stack.
pub struct ValueCopy([MaybeUninit<u64>; WORDS_MAX]);

impl ValueCopy {
    /// Nothing yet.
    #[inline]
    pub fn new() -> ValueCopy {
        ValueCopy([const { MaybeUninit::uninit() }; WORDS_MAX])
    }

    /// Copies words, each loaded once and Relaxed, and lends the first `len` bytes. They may be a
    /// mixture of two values: the caller finds out.
    ///
    /// # Panics
    /// If there are more words than [`WORDS_MAX`], or fewer than `len` bytes need.
    #[inline]
    pub fn fill(&mut self, words: &[AtomicU64], len: usize) -> &[u8] {
        assert!(words.len() <= WORDS_MAX && len <= words.len() * WORD);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        let copied = self.fill_wide(words);
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let copied = false;
        if !copied {
            for (to, word) in self.0.iter_mut().zip(words) {
                to.write(word.load(Ordering::Relaxed));
            }
        }
        // SAFETY: 1.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), len) }
    }

    /// By the instructions that `memcpy` would use, for two reasons: it is a fourth of the
    /// instructions, all of which wait for the value's line; and who then reads the copy in another
    /// width than it was stored in waits until the stores are done. A get takes half the time.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    fn fill_wide(&mut self, words: &[AtomicU64]) -> bool {
        if words.len() < 4 || !std::arch::is_x86_feature_detected!("avx") {
            return false;
        }
        let last = words.len() * WORD - 32;
        // SAFETY: 2. Up to `last` in steps of 32 bytes, then the last 32; at least 32 are there.
        unsafe {
            std::arch::asm!(
                "2:",
                "vmovdqu ymm15, ymmword ptr [{from} + {at}]",
                "vmovdqu ymmword ptr [{to} + {at}], ymm15",
                "add {at}, 32",
                "cmp {at}, {last}",
                "jb 2b",
                "vmovdqu ymm15, ymmword ptr [{from} + {last}]",
                "vmovdqu ymmword ptr [{to} + {last}], ymm15",
                "vzeroupper",
                from = in(reg) words.as_ptr(),
                to = in(reg) self.0.as_mut_ptr(),
                at = inout(reg) 0usize => _,
                last = in(reg) last,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                options(nostack),
            );
        }
        true
    }
}

/// Stores a value word by word, Relaxed; the last word is filled up with zeros.
///
/// # Panics
/// If the value needs more words than there are.
#[inline]
pub fn store(words: &[AtomicU64], value: &[u8]) {
    let (whole, rest) = value.as_chunks::<WORD>();
    for (to, word) in words[..whole.len()].iter().zip(whole) {
        to.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_what_was_stored() {
        let words = [const { AtomicU64::new(0) }; WORDS_MAX];
        for len in 0..=WORDS_MAX * WORD {
            let value: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            store(&words, &value);
            let count = len.div_ceil(WORD);
            let mut copy = ValueCopy::new();
            assert_eq!(copy.fill(&words[..count], len), value);
            assert_eq!(words.get(count).map_or(0, |word| word.load(Ordering::Relaxed)) >> 56, 0);
            words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }
}
