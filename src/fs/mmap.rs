//! Table files as memory. The one file of this folder with `unsafe`.
//!
//! Claims:
//! 1. *The file behind a mapping is never changed or cut while the mapping lives.* Only table files
//!    are mapped, by their name's ending. The engine opens a table after it was written and synced,
//!    never opens it for writing again, and removes only its name, which leaves the mapping whole.
//! 2. *Nobody else changes or cuts it either.* Whoever calls [`DiskFs::mapped`] promises it.
//!
//! A medium that fails under a mapping kills the process by a signal instead of returning an error:
//! that is the price, and why `pread` is the default.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

use crate::base::bytes::Bytes;
use crate::base::error::{Error, Result};
use crate::base::sync::Arc;
use crate::fs::ReadableFile;
use crate::fs::disk::{DiskFs, ends_early};

impl DiskFs {
    /// Table files (`*.sst`) are read through mappings, all others with `pread`. Reading a table then
    /// costs no copy and no memory of the budget.
    ///
    /// # Safety
    /// As long as any database opened through this file system, or any bytes read from it, are
    /// alive, nobody but the engine changes or cuts the files of its directories.
    pub unsafe fn mapped() -> DiskFs {
        DiskFs { mapped: true }
    }
}

/// Whether a file of this name is never written again once it can be opened (claim 1).
pub(super) fn is_mapped(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

/// Maps all `len` bytes of a file; `len` is not zero.
pub(super) fn open(file: &File, path: &Path, len: u64) -> Result<Arc<dyn ReadableFile>> {
    let too_long = |_| Error::unsupported("longer than the address space").in_file(path);
    let len = usize::try_from(len).map_err(too_long)?;
    // SAFETY: claims 1 and 2.
    let mapping: Mmap =
        unsafe { MmapOptions::new().len(len).map(file) }.map_err(|e| Error::io("map", path, e))?;
    Ok(Arc::new(MappedFile { bytes: Bytes::shared(Arc::new(mapping)), path: path.into() }))
}

struct MappedFile {
    bytes: Bytes,
    path: Arc<Path>,
}

impl ReadableFile for MappedFile {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match start.checked_add(len) {
            Some(end) if end <= self.bytes.len() => Ok(self.bytes.slice(start..end)),
            _ => Err(ends_early(&self.path, offset)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::fs::Fs;
    use crate::fs::tests::{TempDir, put};

    pub fn mapped() -> DiskFs {
        // SAFETY: claim 2 holds, the temporary directories of the tests are theirs alone.
        unsafe { DiskFs::mapped() }
    }

    #[test]
    fn only_tables_are_mapped() {
        assert!(is_mapped(Path::new("db/000001-000002.sst")));
        let others = ["db.sst/000001-000002.log", "CURRENT", "sst", ".sst", "a.sst.tmp"];
        assert!(others.iter().all(|name| !is_mapped(Path::new(name))));
    }

    #[test]
    fn windows_share_the_mapping() {
        let dir = TempDir::new();
        let (fs, path) = (mapped(), dir.0.join("1.sst"));
        put(&fs, &path, b"abcdef");
        let file = fs.open(&path).unwrap();
        let (all, part) = (file.read_at(0, 6).unwrap(), file.read_at(2, 2).unwrap());
        assert_eq!(part.as_ptr(), all[2..].as_ptr());
        drop((file, all));
        assert_eq!(&*part, b"cd");
    }
}
