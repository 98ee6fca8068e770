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

/// Masked CRC-32 of the parts, bound to the file with this identity and to an offset in it.
pub fn checksum_at(file: &[u8; 16], offset: u64, parts: &[&[u8]]) -> u32 {
    if Canary::ChecksumsAreUnbound.is_planted() {
        return checksum(parts);
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(file);
    hasher.update(&offset.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    mask(hasher.finalize())
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
}
