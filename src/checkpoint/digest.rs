//! The BLAKE3 digest of a stored file, by several threads at once.
//!
//! BLAKE3 is a binary tree: the halves of a file are digested apart, and their values joined. The
//! digest is the one of a single pass.

use blake3::Hash;
use blake3::Hasher;
use blake3::hazmat::ChainingValue;
use blake3::hazmat::HasherExt;
use blake3::hazmat::Mode;
use blake3::hazmat::left_subtree_len;
use blake3::hazmat::merge_subtrees_non_root;
use blake3::hazmat::merge_subtrees_root;

use crate::Env;
use crate::ReadableFile;
use crate::base::error::Result;
use crate::base::sync::Mutex;

/// What one thread digests at a time. A power of two of at least 1 KiB.
const PART_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 512 << 10 };

/// What is read at a time: it should still be in the processor's cache when it is digested.
const READ_BYTES: u64 = 128 << 10;

/// The digest of a whole file.
///
/// # Errors
/// Those of reading it.
pub fn digest(env: &Env, file: &dyn ReadableFile) -> Result<Hash> {
    if file.len() <= PART_BYTES {
        return Ok(read_part(file, 0, file.len())?.finalize());
    }
    let mut parts = Vec::new();
    cut(0, file.len(), &mut parts);
    let values: Vec<Mutex<Option<Result<ChainingValue>>>> =
        parts.iter().map(|_| Mutex::default()).collect();
    env.in_parallel(parts.len(), |i| {
        let (offset, len) = parts[i];
        let value = read_part(file, offset, len).map(|hasher| hasher.finalize_non_root());
        *values[i].lock() = Some(value);
    });
    let mut values = values.into_iter().map(|value| value.into_inner().expect("all were done"));
    let left = left_subtree_len(file.len());
    let (left, right) = (join(left, &mut values)?, join(file.len() - left, &mut values)?);
    Ok(merge_subtrees_root(&left, &right, Mode::Hash))
}

/// The parts of a subtree of so many bytes, in order: offset and length.
fn cut(offset: u64, len: u64, out: &mut Vec<(u64, u64)>) {
    if len <= PART_BYTES {
        return out.push((offset, len));
    }
    let left = left_subtree_len(len);
    cut(offset, left, out);
    cut(offset + left, len - left, out);
}

/// The value of a subtree of so many bytes from those of its parts.
fn join(
    len: u64,
    parts: &mut impl Iterator<Item = Result<ChainingValue>>,
) -> Result<ChainingValue> {
    if len <= PART_BYTES {
        return parts.next().expect("cut the same way");
    }
    let left = left_subtree_len(len);
    let (left, right) = (join(left, parts)?, join(len - left, parts)?);
    Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

fn read_part(file: &dyn ReadableFile, mut offset: u64, len: u64) -> Result<Hasher> {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    let end = offset + len;
    while offset < end {
        let len = READ_BYTES.min(end - offset);
        hasher.update(&file.read_at(offset, len as usize)?);
        offset += len;
    }
    Ok(hasher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Background;
    use crate::Fs;
    use crate::MemFs;
    use crate::MemoryBudget;
    use std::path::Path;

    #[test]
    fn the_digest_is_that_of_one_pass() {
        let fs = MemFs::new();
        let inline =
            Env::simulated(crate::base::sync::Arc::new(fs.clone()), MemoryBudget::new(1), 1);
        let threads = inline.clone().with_background(Background::Threads(3));
        let part = PART_BYTES as usize;
        let around = |n: usize| [n - 1, n, n + 1];
        let lengths = [1, 2, 3, 4, 7, 8, 13].into_iter().flat_map(|parts| around(parts * part));
        for len in [0, 1, 1023, 1024, 1025].into_iter().chain(lengths) {
            let bytes: Vec<u8> = (0..len).map(|i| ((i * i) >> 3) as u8).collect();
            let path = format!("{len}");
            fs.write(Path::new(&path), &bytes);
            let file = fs.open(Path::new(&path)).unwrap();
            for env in [&inline, &threads] {
                assert_eq!(digest(env, &*file).unwrap(), blake3::hash(&bytes), "{len} bytes");
            }
        }
    }
}
