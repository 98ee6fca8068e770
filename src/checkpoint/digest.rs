//! The BLAKE3 digests of stored files, by several threads at once.
//!
//! BLAKE3 is a binary tree: the halves of a file are digested apart, and their values joined. The
//! digest is the one of a single pass. The parts of all files are one list of work, so that no thread
//! waits for another at the end of each file.

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
use crate::base::sync::Arc;
use crate::base::sync::Mutex;

/// What one thread digests at a time. A power of two of at least 1 KiB.
const PART_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 512 << 10 };

/// What is read at a time: it should still be in the processor's cache when it is digested, and come
/// from memory that the allocator has at hand.
const READ_BYTES: u64 = 64 << 10;

/// The digests of whole files, in their order.
///
/// # Errors
/// For each file, those of reading it.
pub fn digests(env: &Env, files: &[Arc<dyn ReadableFile>]) -> Vec<Result<Hash>> {
    let mut parts = Vec::new();
    for (i, file) in files.iter().enumerate() {
        cut(0, file.len(), &mut |offset, len| parts.push((i, offset, len)));
    }
    let values: Vec<Mutex<Option<Result<Hasher>>>> =
        parts.iter().map(|_| Mutex::default()).collect();
    env.in_parallel(parts.len(), |n| {
        let (i, offset, len) = parts[n];
        *values[n].lock() = Some(read_part(&*files[i], offset, len));
    });
    let mut values = values.into_iter().map(|value| value.into_inner().expect("all were done"));
    files.iter().map(|file| whole(file.len(), &mut values)).collect()
}

/// The digest of a file of so many bytes from its parts, all of which are taken.
fn whole(len: u64, parts: &mut impl Iterator<Item = Result<Hasher>>) -> Result<Hash> {
    if len <= PART_BYTES {
        return parts.next().expect("cut the same way").map(|part| part.finalize());
    }
    let left = left_subtree_len(len);
    let (left, right) = (join(left, parts), join(len - left, parts));
    Ok(merge_subtrees_root(&left?, &right?, Mode::Hash))
}

/// Gives the parts of a subtree of so many bytes in order: offset and length.
fn cut(offset: u64, len: u64, out: &mut impl FnMut(u64, u64)) {
    if len <= PART_BYTES {
        return out(offset, len);
    }
    let left = left_subtree_len(len);
    cut(offset, left, out);
    cut(offset + left, len - left, out);
}

/// The value of a subtree of so many bytes from its parts, all of which are taken.
fn join(len: u64, parts: &mut impl Iterator<Item = Result<Hasher>>) -> Result<ChainingValue> {
    if len <= PART_BYTES {
        return parts.next().expect("cut the same way").map(|part| part.finalize_non_root());
    }
    let left = left_subtree_len(len);
    let (left, right) = (join(left, parts), join(len - left, parts));
    Ok(merge_subtrees_non_root(&left?, &right?, Mode::Hash))
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
    use crate::base::bytes::Bytes;
    use crate::base::error::Error;
    use crate::base::error::ErrorKind;
    use std::path::Path;

    #[test]
    fn the_digests_are_those_of_one_pass() {
        let fs = MemFs::new();
        let inline = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(1), 1);
        let threads = inline.clone().with_background(Background::Threads(3));
        let part = PART_BYTES as usize;
        let around = |n: usize| [n - 1, n, n + 1];
        let lengths = [1, 2, 3, 4, 7, 8, 13].into_iter().flat_map(|parts| around(parts * part));
        let lengths: Vec<usize> = [0, 1, 1023, 1024, 1025].into_iter().chain(lengths).collect();
        let bytes = |len: usize| (0..len).map(|i| ((i * i) >> 3) as u8).collect::<Vec<u8>>();
        let file = |&len: &usize| {
            let path = format!("{len}");
            fs.write(Path::new(&path), &bytes(len));
            fs.open(Path::new(&path)).unwrap()
        };
        let files: Vec<_> = lengths.iter().map(file).collect();
        for env in [&inline, &threads] {
            let found = digests(env, &files);
            assert_eq!(found.len(), lengths.len());
            for (found, &len) in found.into_iter().zip(&lengths) {
                assert_eq!(found.unwrap(), blake3::hash(&bytes(len)), "{len} bytes");
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_fails_alone() {
        let fs = MemFs::new();
        let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(1), 1);
        let bytes = vec![7; 3 * PART_BYTES as usize];
        let file = |name: &str| {
            fs.write(Path::new(name), &bytes);
            fs.open(Path::new(name)).unwrap()
        };
        let files = [file("a"), Arc::new(Short(file("b"))), file("c")];
        let found = digests(&env, &files);
        assert_eq!(*found[0].as_ref().unwrap(), blake3::hash(&bytes));
        assert_eq!(found[1].as_ref().unwrap_err().kind(), ErrorKind::Corruption);
        assert_eq!(*found[2].as_ref().unwrap(), blake3::hash(&bytes));
    }

    /// A file that ends before it should.
    struct Short(Arc<dyn ReadableFile>);

    impl ReadableFile for Short {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
            match offset < PART_BYTES {
                true => self.0.read_at(offset, len),
                false => Err(Error::corruption("the end")),
            }
        }
    }
}
