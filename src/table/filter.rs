//! The filter: says "not here" for nearly every user key that is not, and never for one that is.
//!
//! A blocked Bloom filter: a key's bits all lie in one line of 64 bytes, so that a probe costs one
//! cache miss. The upper half of the hash chooses the line, the lower half the bits.

use xxhash_rust::xxh3::xxh3_64;

use crate::base::error::{Error, Result};
use crate::base::limits::DECODE_BYTES_MAX;

const HASH_XXH3: u8 = 1;
const FORM_LINES: u8 = 1;
const HEADER_BYTES: usize = 8;
const LINE_BYTES: usize = 64;
const LINES_MAX: usize = DECODE_BYTES_MAX / LINE_BYTES - 1;

/// The hash of a user key, as filters and key-group hashes use it.
#[inline]
pub fn key_hash(user_key: &[u8]) -> u64 {
    xxh3_64(user_key)
}

/// The line of a hash among so many (Lemire's multiply-shift instead of a remainder).
#[inline]
fn line_of(hash: u64, lines: usize) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

/// The bits of a hash in its line, each 0..512.
#[inline]
fn bits_of(hash: u64, probes: u8) -> impl Iterator<Item = usize> {
    let mut state = hash as u32;
    (0..probes).map(move |_| {
        let bit = state >> 23;
        state = state.wrapping_mul(0x9e37_79b9);
        bit as usize
    })
}

/// Collects key hashes and makes a filter of them.
pub struct FilterBuilder {
    bits_per_key: u32,
    hashes: Vec<u64>,
}

impl FilterBuilder {
    /// A filter with so many bits for each key; 0: none at all.
    pub fn new(bits_per_key: u32) -> FilterBuilder {
        FilterBuilder { bits_per_key, hashes: Vec::new() }
    }

    /// Adds the hash of a user key. One key should be added once.
    #[inline]
    pub fn add(&mut self, hash: u64) {
        if self.bits_per_key > 0 {
            self.hashes.push(hash);
        }
    }

    /// Bytes of the filter block if it were finished now.
    pub fn bytes(&self) -> usize {
        if self.hashes.is_empty() { 0 } else { HEADER_BYTES + self.lines() * LINE_BYTES }
    }

    fn lines(&self) -> usize {
        let bits = self.hashes.len() as u64 * u64::from(self.bits_per_key);
        bits.div_ceil(8 * LINE_BYTES as u64).clamp(1, LINES_MAX as u64) as usize
    }

    /// The filter block; `None` if there is nothing to filter.
    pub fn finish(&self) -> Option<Vec<u8>> {
        if self.hashes.is_empty() {
            return None;
        }
        let lines = self.lines();
        // ln 2 probes for each bit of a key are best; one line instead of the whole filter wants less.
        let probes = (self.bits_per_key * 62 / 100).clamp(1, 12) as u8;
        let mut out = vec![0; HEADER_BYTES + lines * LINE_BYTES];
        out[..3].copy_from_slice(&[HASH_XXH3, FORM_LINES, probes]);
        for &hash in &self.hashes {
            let line = &mut out[HEADER_BYTES + line_of(hash, lines) * LINE_BYTES..][..LINE_BYTES];
            for bit in bits_of(hash, probes) {
                line[bit / 8] |= 1 << (bit % 8);
            }
        }
        Some(out)
    }
}

#[repr(align(64))]
#[derive(Clone)]
struct Line([u8; LINE_BYTES]);

/// A filter in memory, each line on a cache line of its own.
pub struct Filter {
    probes: u8,
    lines: Vec<Line>,
}

impl Filter {
    /// Reads a filter block. `None` if it is of a kind that this build does not know: then every key
    /// may be there.
    pub fn parse(block: &[u8]) -> Result<Option<Filter>> {
        let Some((header, lines)) = block.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Error::corruption("filter cut short"));
        };
        let [hash, form, probes, reserved @ ..] = *header;
        if hash != HASH_XXH3 || form != FORM_LINES {
            return Ok(None);
        }
        let (lines, rest) = lines.as_chunks::<LINE_BYTES>();
        let sound = !lines.is_empty() && rest.is_empty() && probes > 0 && reserved == [0; 5];
        if !sound || lines.len() > u32::MAX as usize {
            return Err(Error::corruption("bad filter header or length"));
        }
        Ok(Some(Filter { probes, lines: lines.iter().map(|line| Line(*line)).collect() }))
    }

    /// May a user key with this hash be in the table? One cache miss, which overlaps with those of other
    /// filters that are asked next: all bits are looked at, so no branch waits for the line.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let line = &self.lines[line_of(hash, self.lines.len())].0;
        let set = bits_of(hash, self.probes).map(|bit| line[bit / 8] >> (bit % 8));
        set.fold(1, |all, bit| all & bit) != 0
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn build(keys: &[Vec<u8>], bits: u32) -> Filter {
        let mut builder = FilterBuilder::new(bits);
        keys.iter().for_each(|key| builder.add(key_hash(key)));
        let block = builder.finish().unwrap();
        assert_eq!(block.len(), builder.bytes());
        Filter::parse(&block).unwrap().unwrap()
    }

    quickcheck! {
        fn no_false_negatives(keys: Vec<Vec<u8>>, bits: u8) -> bool {
            if keys.is_empty() {
                return FilterBuilder::new(10).finish().is_none();
            }
            let filter = build(&keys, u32::from(bits % 24) + 1);
            keys.iter().all(|key| filter.may_contain(key_hash(key)))
        }

        fn parsing_anything_returns(bytes: Vec<u8>, hash: u64) -> bool {
            if let Ok(Some(filter)) = Filter::parse(&bytes) {
                filter.may_contain(hash);
            }
            true
        }
    }

    #[test]
    fn few_false_positives_at_ten_bits() {
        for count in [100u32, 10_000, 100_000] {
            let keys: Vec<_> = (0..count).map(|i| i.to_be_bytes().to_vec()).collect();
            let filter = build(&keys, 10);
            let absent = (count..count + 100_000).map(|i| key_hash(&i.to_be_bytes()));
            let passed = absent.filter(|&hash| filter.may_contain(hash)).count();
            assert!(passed < 2_000, "{passed} of 100000 passed a filter of {count} keys");
        }
    }

    #[test]
    fn pinned() {
        let mut builder = FilterBuilder::new(10);
        builder.add(key_hash(b"key"));
        let block = builder.finish().unwrap();
        assert_eq!(block[..8], [1, 1, 6, 0, 0, 0, 0, 0]);
        let set: Vec<_> = (0..512).filter(|bit| block[8 + bit / 8] & 1 << (bit % 8) != 0).collect();
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2, "xxh3-64 of nothing, in every library");
        assert_eq!(set, [85, 149, 163, 207, 314, 320]);
    }

    #[test]
    fn unknown_kinds_are_ignored_and_bad_ones_refused() {
        let mut builder = FilterBuilder::new(10);
        builder.add(1);
        let good = builder.finish().unwrap();
        for (at, value, known) in [(0, 2, false), (1, 9, false), (2, 0, true), (3, 1, true)] {
            let mut other = good.clone();
            other[at] = value;
            match Filter::parse(&other) {
                Ok(filter) => assert!(!known && filter.is_none()),
                Err(_) => assert!(known),
            }
        }
        assert!(Filter::parse(&good[..good.len() - 1]).is_err());
        assert!(Filter::parse(&good[..8]).is_err());
    }
}
