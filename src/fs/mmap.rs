//! Table files as memory, and the log's reserved part. The one file of this folder with `unsafe`.
//!
//! Claims:
//! 1. *The file behind a mapping is never changed or cut while the mapping lives.* Only table files
//!    are mapped, by their name's ending. The engine opens a table after it was written and synced,
//!    never opens it for writing again, and removes only its name, which leaves the mapping whole.
//! 2. *Nobody else changes or cuts it either.* Whoever calls [`DiskFs::mapped`] promises it.
//! 3. *A window writes only inside its mapping.* Every write is checked against its bounds, and goes
//!    through a raw pointer: nobody in this process has a reference to the mapped bytes, and nothing is
//!    ever read through them. What another process does to the file is no concern of the language then.
//! 4. *What a window maps is allocated, and is part of the file while the window lives.* `reserve` has
//!    allocated it and made it part of the file, on a file system that does not allocate anew when it
//!    writes (see [`is_reservable`]). The writer that owns the window is the only one of this file; it
//!    drops the window before it cuts the file. So no store needs space, or hits the end.
//!
//! A medium that fails under a mapping, or somebody who cuts the log of an open database, kills the
//! process by a signal instead of returning an error: that is the price. For tables `pread` is
//! therefore the default. The log's window is written right behind what was written before, to pages
//! that are in memory; after such a death the log is recovered as after any other.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::{Mmap, MmapOptions, MmapRaw};

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

/// Whether a file, once allocated, can be written without more space: the file systems that are known
/// to write in place. Others copy on write, or are not known: ext2 to ext4, XFS, tmpfs are.
pub(super) fn is_reservable(file: &File) -> bool {
    const IN_PLACE: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];
    rustix::fs::fstatfs(file).is_ok_and(|found| IN_PLACE.contains(&(found.f_type as u64)))
}

/// A reserved part of a file that is being written, as memory.
pub(super) struct Window {
    mapping: MmapRaw,
    start: u64,
}

impl Window {
    /// Maps the bytes of `range`, which are allocated (claim 4); `huge`: by huge pages, if the system
    /// can.
    pub fn map(file: &File, range: Range<u64>, huge: bool) -> io::Result<Window> {
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mapping = MmapOptions::new().offset(range.start).len(len).map_raw(file)?;
        #[cfg(target_os = "linux")]
        if huge {
            let _ = mapping.advise(memmap2::Advice::HugePage); // it is only a wish
        }
        Ok(Window { mapping, start: range.start })
    }

    /// Writes `data` at `offset` of the file, if all of that lies inside.
    #[inline]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some(at) = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok())
        else {
            return false;
        };
        if at.checked_add(data.len()).is_none_or(|end| end > self.mapping.len()) {
            return false;
        }
        // SAFETY: claims 3 and 4.
        unsafe {
            let target = self.mapping.as_mut_ptr().add(at);
            std::ptr::copy_nonoverlapping(data.as_ptr(), target, data.len());
        }
        true
    }
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
    fn a_window_writes_inside_itself_alone() {
        let dir = TempDir::new();
        let path = dir.0.join("1.log");
        put(&DiskFs::new(), &path, &[b'.'; 9000]);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut window = Window::map(&file, 4100..8200, true).unwrap();
        assert!(
            window.write(4100, b"first") && window.write(8196, b"last") && window.write(8200, b"")
        );
        for (offset, data) in [(4099, b"xx"), (8199, b"xx"), (0, b"xx"), (u64::MAX, b"xx")] {
            assert!(!window.write(offset, data));
        }
        drop(window);
        let bytes = DiskFs::new().open(&path).unwrap().read_at(0, 9000).unwrap();
        assert_eq!((&bytes[4099..4106], &bytes[8195..8201]), (&b".first."[..], &b".last."[..]));
        assert_eq!(bytes.iter().filter(|byte| **byte != b'.').count(), 9);
    }

    /// The same over memory without a file, which Miri has.
    #[test]
    fn a_window_at_the_ends_of_its_memory() {
        let memory = MmapOptions::new().len(16).map_anon().unwrap();
        let mut window = Window { mapping: memory.into(), start: 4100 };
        assert!(window.write(4100, b"first") && window.write(4112, b"last"));
        assert!(!window.write(4099, b"x") && !window.write(4113, b"last"));
        let mapping = &window.mapping;
        // SAFETY: claim 3, and nobody writes any more.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.as_ptr(), mapping.len()) };
        assert_eq!(bytes, b"first\0\0\0\0\0\0\0last");
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
