//! CRC-32 of stored bytes, bound to the place where they belong.
//!
//! The polynomial is IEEE's (what zip and `crc32fast` compute), *not* Castagnoli's. A stored sum is
//! *masked*, so that the checksum of bytes that themselves contain checksums stays well behaved
//! (LevelDB's rule). A *context* (file identity and offset) goes in first, so that a block that is
//! intact but stands in the wrong file, or at the wrong place of the right one, does not pass.

use crate::base::canary::Canary;

const MASK_DELTA: u32 = 0xa282_ead8;

fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// Masked CRC-32 of the parts, in order.
pub fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    mask(hasher.finalize())
}

/// A piece up to this long is copied behind the offset: one short piece takes as long as a longer one.
const SHORT: usize = 40;

/// Makes the sums of what stands in one file: they have its identity in common.
#[derive(Clone, Debug)]
pub struct FileSums {
    behind_identity: crc32fast::Hasher,
}

impl FileSums {
    /// Sums bound to the file with this identity.
    pub fn new(file: &[u8; 16]) -> FileSums {
        let mut behind_identity = crc32fast::Hasher::new();
        behind_identity.update(file);
        FileSums { behind_identity }
    }

    /// Masked CRC-32 of the parts, bound to the file and to an offset in it.
    #[inline]
    pub fn at(&self, offset: u64, parts: &[&[u8]]) -> u32 {
        if Canary::ChecksumsAreUnbound.is_planted() {
            return checksum(parts);
        }
        let mut hasher = self.behind_identity.clone();
        let mut first = [0; 8 + SHORT];
        first[..8].copy_from_slice(&offset.to_le_bytes());
        if let [short] = parts
            && let Some(place) = first[8..].get_mut(..short.len())
        {
            place.copy_from_slice(short);
            hasher.update(&first[..8 + short.len()]);
            return mask(hasher.finalize());
        }
        hasher.update(&first[..8]);
        for part in parts {
            hasher.update(part);
        }
        mask(hasher.finalize())
    }
}

/// Masked CRC-32 of the parts, bound to the file with this identity and to an offset in it: of one
/// place alone, as [`FileSums::at`].
pub fn checksum_at(file: &[u8; 16], offset: u64, parts: &[&[u8]]) -> u32 {
    FileSums::new(file).at(offset, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned() {
        // CRC-32/IEEE of "123456789" is 0xcbf43926 in every catalogue.
        assert_eq!(checksum(&[b"123456789"]), mask(0xcbf4_3926));
        assert_eq!(checksum(&[b"1234", b"56789"]), checksum(&[b"123456789"]));
    }

    #[test]
    fn bound_to_its_place() {
        let here = checksum_at(&[1; 16], 4096, &[b"block"]);
        assert_ne!(here, checksum_at(&[1; 16], 0, &[b"block"]));
        assert_ne!(here, checksum_at(&[2; 16], 4096, &[b"block"]));
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..100).collect();
        for len in 0..bytes.len() {
            let (whole, cut) = (&bytes[..len], bytes[..len].split_at(len / 3));
            let sum = checksum_at(&[7; 16], 9, &[whole]);
            assert_eq!(sum, checksum_at(&[7; 16], 9, &[cut.0, cut.1]));
            assert_eq!(sum, checksum(&[&[7; 16], &[9, 0, 0, 0, 0, 0, 0, 0], whole]));
        }
    }
}
