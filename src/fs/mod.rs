//! The only door to the system: append, positioned read, rename, link.
//!
//! The question this folder answers: *what may the engine ask of a file system, and what does it get
//! promised?* A file is written once, from front to back, by the handle that created it, and never
//! opened for writing again. Nothing is durable until it was synced: a file's bytes by its own `sync`
//! (or [`Fs::sync_file`]), its name by [`Fs::sync_dir`] of its directory.

pub mod disk;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
pub mod memory;
mod mmap;

use std::path::Path;

use crate::base::bytes::Bytes;
use crate::base::error::Result;
use crate::base::sync::Arc;

/// A file system. Three real ones: the disk, crashable memory, and a fault injector over either.
pub trait Fs: Send + Sync + 'static {
    /// Creates a new file for appending. `InvalidArgument` if the name exists: names are never
    /// used twice.
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadableFile>>;
    /// Removes a name. The bytes live on for those who have the file open.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Renames, replacing what is there: after a crash either the old or the new file is there.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Gives a file a second name: a hard link, or a copy that is synced where there are none.
    fn link(&self, from: &Path, to: &Path) -> Result<()>;
    /// Names and lengths of all *files* in a directory, sorted by name. `NotFound` if it is absent.
    fn list(&self, dir: &Path) -> Result<Vec<Listed>>;
    /// Creates a directory and those above it; no error if it exists. The directories themselves are
    /// durable when this returns.
    fn create_dir(&self, dir: &Path) -> Result<()>;
    /// Makes creations, renames and removals of names in this directory durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Makes the bytes of a closed file durable.
    fn sync_file(&self, path: &Path) -> Result<()>;
    /// Bytes that can still be written below this directory, as far as the system knows.
    fn free_space(&self, dir: &Path) -> Result<u64>;
    /// Takes the directory for this handle alone until the lock is dropped. `Busy` if another handle
    /// has it, in this process or another. Does not depend on any file inside the directory.
    fn lock(&self, dir: &Path) -> Result<Box<dyn FileLock>>;
    /// What a failed [`sync_file`](Fs::sync_file) leaves behind; see [`WritableFile::fail_sync`].
    #[cfg(any(test, feature = "testing"))]
    fn fail_sync(&self, _path: &Path, _left: FailedSync) {}
}

/// A file name and its length in bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Name without directory.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
}

/// A file being written. Dropping it promises nothing.
pub trait WritableFile: Send {
    /// Appends all of `data` to memory that the kernel owns: it survives the process, not the power.
    /// After an error the end of the file is unknown.
    fn append(&mut self, data: &[u8]) -> Result<()>;
    /// Makes the file `len` bytes long, zeros behind what was appended: appends up to there need no
    /// more space, and no system call each where the system allows a mapping of what is allocated. A
    /// `len` below the end of what was appended gives back what was reserved. Costs a few system calls.
    ///
    /// The length is durable with the next [`sync`](WritableFile::sync). Until then a crash may leave
    /// any length in between, and what it leaves behind the appended bytes is zero.
    ///
    /// `NoSpace` if there is not as much; appends may go on. After another error they may not.
    fn reserve(&mut self, len: u64) -> Result<()>;
    /// Lets the device begin with what was appended, so that the next [`sync`](WritableFile::sync) has less to
    /// wait for. Only a wish, which promises nothing. What goes wrong is said by the next sync of this file by
    /// the same owner, and perhaps by no other: it must not be left to [`Fs::sync_file`].
    fn begin_sync(&mut self);
    /// Makes everything appended durable. A failed sync is final: the file must not be used again.
    fn sync(&mut self) -> Result<()>;
    /// What a failed sync leaves behind, where that can be simulated. The fault injector calls this
    /// in place of the sync that it makes fail.
    #[cfg(any(test, feature = "testing"))]
    fn fail_sync(&mut self, _left: FailedSync) {}
}

/// What a failed sync has done to the bytes that it was to make durable. They are readable in any
/// case, until the power goes.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSync {
    /// Nothing, and the system takes them for written: a later sync succeeds, and does nothing either
    /// (Rebello et al., *Can Applications Recover from fsync Failures?*, 2020).
    Dropped,
    /// All of it: only the answer was an error.
    Written,
    /// A random half of the sectors, by this seed, is durable; the rest as `Dropped`.
    Half(u64),
}

/// A file open for positioned reads.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait ReadableFile: Send + Sync {
    /// Length in bytes when it was opened.
    fn len(&self) -> u64;
    /// Exactly `len` bytes from `offset`; `Corruption` if the file ends before. The caller has
    /// checked `len` against [`len`](ReadableFile::len), so that no foreign number is allocated.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;
    /// As [`read_at`](ReadableFile::read_at), over the memory of `old` where bytes are copied and it is free.
    fn read_over(&self, old: Option<Bytes>, offset: u64, len: usize) -> Result<Bytes> {
        drop(old);
        self.read_at(offset, len)
    }
    /// Fills `buffer` with the bytes from `offset`, as [`read_at`](ReadableFile::read_at) returns them:
    /// for who keeps a buffer.
    fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        buffer.copy_from_slice(&self.read_at(offset, buffer.len())?);
        Ok(())
    }
}

/// Holds a directory; dropping it lets go.
pub trait FileLock: Send + Sync {}

#[cfg(test)]
mod tests;
