//! Bytes from any hand: the corpora of all fuzz targets with mutations, and golden tables that are
//! patched and given right checksums. Whatever they say, they decide no large allocation.
#![allow(clippy::disallowed_methods, reason = "reads the corpora")]

use std::path::Path;

use alluvium::{ErrorKind, fuzz};
use alluvium_report::Rng;

use crate::damage::is;
use crate::golden::{CLEAN, Files, Golden, disk, is_refusal, read_anything};

/// The inputs of a target, in the order of their names.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let listing = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = listing.map(|entry| entry.expect("a corpus").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a corpus")).collect()
}

/// Numbers that lengths, counts and offsets are often checked badly against.
const TRICKS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xffff, 1 << 16, (1 << 31) - 1, u32::MAX as u64, 1 << 63, u64::MAX];

/// Changes a few places, most of them to numbers that are too large; the length stays.
pub fn patch(rng: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..1 + rng.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        let room = bytes.len() - at;
        match rng.below(4) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64() as u8,
            _ => {
                let width = room.min([1, 2, 4, 8][rng.below(4) as usize]);
                let trick = TRICKS[rng.below(10) as usize].wrapping_add(rng.next_u64() % 3);
                bytes[at..at + width].copy_from_slice(&trick.to_le_bytes()[..width]);
            }
        }
    }
}

/// Mutation `n` of a target's corpus; the first are the inputs themselves.
pub fn input(target: &str, corpus: &[Vec<u8>], n: u64) -> Vec<u8> {
    let mut rng = Rng::of(n, target.len() as u64 * 31 + u64::from(target.as_bytes()[0]));
    let mut bytes = corpus[n as usize % corpus.len()].clone();
    if n as usize >= corpus.len() {
        patch(&mut rng, &mut bytes);
        if rng.below(4) == 0 {
            bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
        }
    }
    bytes
}

/// Hands an input to a target.
///
/// # Panics
/// If the engine does, or contradicts itself.
pub fn target(name: &str, bytes: &[u8]) {
    fuzz::target(name, bytes);
}

/// A golden database with a patched table whose checksums are right: what it says may be wrong now,
/// but the engine does not panic and stays within its memory. A value that has become an operand of a
/// family without a merge operator is `Incompatible`, as it is to be.
///
/// # Panics
/// If it does not.
pub fn patched_table(golden: &Golden, n: u64) {
    let mut files: Files = golden.part(CLEAN);
    let tables: Vec<String> = files.keys().filter(|file| is(file, "sst")).cloned().collect();
    let mut rng = Rng::of(n, 0x7461_626c);
    let table = &tables[rng.below(tables.len() as u64) as usize];
    let bytes = files.get_mut(table).expect("listed");
    patch(&mut rng, bytes);
    *bytes = fuzz::repair_table(bytes);
    if let Err(e) = read_anything(&disk(&files, "db"), false) {
        assert!(is_refusal(&e) || e.kind() == ErrorKind::Incompatible, "{e}");
    }
}
