//! Copies of short values that may be overwritten meanwhile: the words of a sequence lock.
//!
//! # Claims
//!
//! 1. *What is lent was written.* `fill` writes as many words of the copy as it is given, before it
//!    lends no more bytes than these have.
//! 2. *The instructions are the loop.* They copy each aligned word of the atomic side to or from the
//!    same place of the other, within both, some words twice; opaque to the compiler, they are to the
//!    rest of the program what the loop of Relaxed loads or stores is. The processor does not tear
//!    aligned words.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::slice;

use crate::base::sync::{AtomicU64, Ordering};

/// Longest value that can be overwritten where it is, in words of 8 bytes. Readers copy such values:
/// longer ones are better lent.
pub const WORDS_MAX: usize = 32;

/// Most words to which merge operands are joined.
pub const OPERAND_WORDS_MAX: usize = 255;

/// Most words of an operand into which those before it are copied.
pub const JOINED_WORDS_MAX: usize = 128;

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
        let (from, to) = (words.as_ptr().cast(), self.0.as_mut_ptr().cast());
        // SAFETY: 2, and there is room for all the words.
        if !unsafe { copy_wide(from, to, size_of_val(words)) } {
            for (to, word) in self.0.iter_mut().zip(words) {
                to.write(word.load(Ordering::Relaxed));
            }
        }
        // SAFETY: 1.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), len) }
    }
}

/// Copies 32 bytes or more, by the instructions that `memcpy` would use; `false`: nothing was done.
///
/// A reader has two reasons: it is a fourth of the instructions, all of which wait for the value's
/// line; and who then reads the copy in another width than it was stored in waits until the stores
/// are done. A writer's stores wait for the line in a queue of a few dozen places.
///
/// # Safety
/// Both sides hold `bytes` bytes; the atomic side is aligned to words, and `bytes` is a multiple of
/// their size.
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
#[inline(always)]
unsafe fn copy_wide(from: *const u8, to: *mut u8, bytes: usize) -> bool {
    if bytes < 32 || !std::arch::is_x86_feature_detected!("avx") {
        return false;
    }
    // SAFETY: 2. Up to the last 32 bytes in steps of 32, then these.
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
            from = in(reg) from,
            to = in(reg) to,
            at = inout(reg) 0usize => _,
            last = in(reg) bytes - 32,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
    true
}

/// Word by word, then.
#[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
unsafe fn copy_wide(_: *const u8, _: *mut u8, _: usize) -> bool {
    false
}

/// Stores a value, each word Relaxed; the last word is filled up with zeros.
///
/// # Panics
/// If the value needs more words than there are.
#[inline(always)]
pub fn store(words: &[AtomicU64], value: &[u8]) {
    let (whole, rest) = value.as_chunks::<WORD>();
    let to = &words[..whole.len()];
    let (from, first) = (value.as_ptr(), to.as_ptr().cast_mut().cast());
    // SAFETY: 2, and there are words for all whole ones. They are atomics: a shared reference will do.
    if !unsafe { copy_wide(from, first, size_of_val(to)) } {
        for (to, word) in to.iter().zip(whole) {
            to.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
    }
    if !rest.is_empty() {
        words[whole.len()].store(filled_up(rest), Ordering::Relaxed);
    }
}

/// The word of fewer than 8 bytes, and zeros behind them. No call, as copying them would be.
#[inline(always)]
fn filled_up(bytes: &[u8]) -> u64 {
    let word = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => {
            let [first, last] = [first, last].map(|half| u64::from(u32::from_le_bytes(*half)));
            first | last << ((bytes.len() - size_of::<u32>()) * 8)
        }
        _ => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    word.to_le()
}

/// Stores bytes behind the first `from` bytes, which stay, each word Relaxed; the last word is filled up
/// with zeros.
///
/// # Panics
/// If both together need more words than there are.
pub fn store_behind(words: &[AtomicU64], from: usize, mut bytes: &[u8]) {
    let within = from % WORD;
    if within > 0 {
        let word = &words[from / WORD];
        let mut joined = word.load(Ordering::Relaxed).to_ne_bytes();
        let count = bytes.len().min(WORD - within);
        joined[within..within + count].copy_from_slice(&bytes[..count]);
        word.store(u64::from_ne_bytes(joined), Ordering::Relaxed);
        bytes = &bytes[count..];
    }
    store(&words[from.div_ceil(WORD)..], bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_filled_up() {
        for len in 0..WORD {
            let bytes: Vec<u8> = (0xa1..).take(len).collect();
            let mut word = [0; WORD];
            word[..len].copy_from_slice(&bytes);
            assert_eq!(filled_up(&bytes).to_ne_bytes(), word);
        }
    }

    #[test]
    fn appended_is_behind() {
        const LENS: usize = if cfg!(miri) { 18 } else { 40 };
        for (len, more) in (0..LENS).flat_map(|len| (0..LENS).map(move |more| (len, more))) {
            let words = [const { AtomicU64::new(0) }; 10];
            let bytes: Vec<u8> = (1..=len + more).map(|i| i as u8).collect();
            store(&words, &bytes[..len]);
            store_behind(&words, len, &bytes[len..]);
            assert_eq!(ValueCopy::new().fill(&words, bytes.len()), bytes);
        }
    }

    #[test]
    fn copies_are_what_was_stored() {
        let words = [const { AtomicU64::new(0) }; WORDS_MAX];
        for len in (0..=WORDS_MAX * WORD).step_by(if cfg!(miri) { 5 } else { 1 }) {
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
