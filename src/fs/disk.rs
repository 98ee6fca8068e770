//! The machine's own file system.
#![allow(clippy::disallowed_methods, reason = "this file is the door that all others go through")]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as IoKind};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, fadvise, fallocate};
use rustix::io::Errno;

use crate::base::bytes::Bytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Arc, Mutex};
use crate::fs::mmap;
use crate::fs::{FileLock, Fs, Listed, ReadableFile, WritableFile};

/// The machine's own file system. Files are read with `pread`; see [`DiskFs::mapped`] for the other
/// way.
#[derive(Clone, Debug, Default)]
pub struct DiskFs {
    /// Whether table files are mapped.
    pub(super) mapped: bool,
}

impl DiskFs {
    /// Every file is read with `pread`.
    pub fn new() -> DiskFs {
        DiskFs::default()
    }
}

impl Fs for DiskFs {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        // A shared mapping for writing needs reading too.
        match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
            Ok(file) => Ok(Box::new(DiskWriter::new(file, path))),
            Err(e) => Err(creation("create", path, e)),
        }
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadableFile>> {
        let failed = |e| Error::io("open", path, e);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::Io, "open: not a file").in_file(path));
        }
        if self.mapped && mmap::is_mapped(path) && metadata.len() > 0 {
            return mmap::open(&file, path, metadata.len());
        }
        Ok(Arc::new(DiskReader { file, path: path.into(), len: metadata.len() }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|e| Error::io("remove", path, e))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        match fs::hard_link(from, to) {
            Ok(()) => Ok(()),
            Err(e) if is_unlinkable(&e) => copy(from, to),
            Err(e) => Err(creation("link", to, e)),
        }
    }

    fn list(&self, dir: &Path) -> Result<Vec<Listed>> {
        let failed = |e| Error::io("list", dir, e);
        let mut listed = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == IoKind::NotFound => continue, // removed meanwhile
                Err(e) => return Err(failed(e)),
            };
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                listed.push(Listed { name, len: metadata.len() });
            }
        }
        listed.sort();
        Ok(listed)
    }

    fn create_dir(&self, dir: &Path) -> Result<()> {
        let absent = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let created: Vec<&Path> = dir.ancestors().take_while(absent).collect();
        fs::create_dir_all(dir).map_err(|e| Error::io("create directory", dir, e))?;
        created.iter().try_for_each(|dir| self.sync_dir(parent(dir)))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let synced = File::open(or_here(dir)).and_then(|file| file.sync_all());
        synced.map_err(|e| Error::io("sync directory", dir, e))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|e| Error::io("sync", path, e))
    }

    fn free_space(&self, dir: &Path) -> Result<u64> {
        let found = rustix::io::retry_on_intr(|| rustix::fs::statvfs(or_here(dir)));
        let space = found.map_err(|e| Error::io("free space", dir, e.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn FileLock>> {
        let failed = |e| Error::io("lock", dir, e);
        let file = File::open(or_here(dir)).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_dir() {
            return Err(Error::new(ErrorKind::Io, "lock: not a directory").in_file(dir));
        }
        let held = Registered::insert((metadata.dev(), metadata.ino()), dir)?;
        let flock = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        match rustix::io::retry_on_intr(flock) {
            Ok(()) => Ok(Box::new(DirLock { file, _registered: held })),
            Err(Errno::WOULDBLOCK) => {
                Err(Error::busy("the directory is locked by another process").in_file(dir))
            }
            Err(e) => Err(failed(e.into())),
        }
    }
}

struct DiskWriter {
    file: File,
    path: Arc<Path>,
    /// Where the next append goes.
    end: u64,
    /// What is reserved, where it can be mapped.
    window: Option<mmap::Window>,
    /// The window has huge pages, of which a sync writes all.
    huge: bool,
    /// As many appends go by a call, although there is a window.
    by_call: u8,
    /// Where the last sync found the end.
    synced: u64,
    /// Up to here the system was told to write.
    begun: u64,
    failed: bool,
}

/// A sync leaves the mapped page read-only, and the next store to it costs a fault, which is more than
/// a call. Where every record is synced, two appends follow each sync: its seal and the next record.
const CALLS_AFTER_SYNC: u8 = 2;

/// A window of this length gets huge pages if half as much was written since the last sync: two faults each
/// 4 MiB instead of a thousand, which are more work than all else of an unsynced append. But the system
/// takes a huge page for written as a whole, so they are not for files that are synced often.
const HUGE_BYTES: u64 = 2 << 20;

const PAGE_BYTES: u64 = 4 << 10;

impl DiskWriter {
    /// Writes an empty file.
    fn new(file: File, path: &Path) -> DiskWriter {
        DiskWriter {
            file,
            path: path.into(),
            end: 0,
            window: None,
            huge: false,
            by_call: 0,
            synced: 0,
            begun: 0,
            failed: false,
        }
    }

    /// After a failed sync the kernel may report the next one as good although the bytes are gone:
    /// it is not asked again.
    fn attempt(
        &mut self,
        operation: &str,
        f: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<()> {
        if self.failed {
            let text = format!("{operation}: an earlier append or sync of this file failed");
            return Err(Error::new(ErrorKind::Io, text).in_file(&self.path));
        }
        f(&mut self.file).map_err(|e| {
            self.failed = true;
            Error::io(operation, &self.path, e)
        })
    }
}

impl WritableFile for DiskWriter {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        let end = self.end;
        let by_call = self.by_call > 0 || self.failed;
        self.by_call = self.by_call.saturating_sub(1);
        let window = self.window.as_mut().filter(|_| !by_call);
        if !window.is_some_and(|window| window.write(end, data)) {
            self.attempt("append", |file| file.write_all_at(data, end))?; // goes on after EINTR
        }
        self.end += data.len() as u64;
        Ok(())
    }

    fn reserve(&mut self, len: u64) -> Result<()> {
        self.window = None; // before the file is cut
        let end = self.end;
        if len <= end {
            return self.attempt("give back", |file| file.set_len(end));
        }
        if self.failed || !mmap::is_reservable(&self.file) {
            return Ok(()); // each append finds out for itself
        }
        let allocate = || fallocate(&self.file, FallocateFlags::empty(), end, len - end);
        match rustix::io::retry_on_intr(allocate) {
            Ok(()) => {
                self.huge = len - end >= HUGE_BYTES && end - self.synced >= HUGE_BYTES / 2;
                self.window = mmap::Window::map(&self.file, end..len, self.huge).ok();
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(e) => return Err(Error::io("reserve", &self.path, e.into())),
        }
        Ok(())
    }

    /// `sync_file_range` would be the call for it, which `rustix` does not have. The system begins to write
    /// dirty pages that it is told to let go of; clean ones it does let go of. An error is kept for this
    /// descriptor, which has been open since the file is there.
    fn begin_sync(&mut self) {
        if self.failed || self.huge {
            return; // a huge page is written as a whole, and again when more is written to it
        }
        // Whole pages only: the last one is about to change.
        let end = self.end / PAGE_BYTES * PAGE_BYTES;
        let begun = self.begun.max(self.synced / PAGE_BYTES * PAGE_BYTES);
        if let Some(len) = end.checked_sub(begun).and_then(NonZeroU64::new) {
            let _ = fadvise(&self.file, begun, Some(len), Advice::DontNeed);
            self.begun = end;
        }
    }

    fn sync(&mut self) -> Result<()> {
        if self.huge {
            self.window = None; // until more is reserved
        }
        self.by_call = CALLS_AFTER_SYNC;
        self.synced = self.end;
        self.attempt("sync", |file| file.sync_data()) // the length counts as data
    }
}

struct DiskReader {
    file: File,
    path: Arc<Path>,
    len: u64,
}

impl DiskReader {
    fn check(&self, offset: u64, len: usize) -> Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(ends_early(&self.path, offset)),
        }
    }
}

impl ReadableFile for DiskReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.check(offset, len)?;
        Bytes::filled(len, |buffer| self.read_into(offset, buffer))
    }

    fn read_over(&self, old: Option<Bytes>, offset: u64, len: usize) -> Result<Bytes> {
        self.check(offset, len)?;
        Bytes::filled_over(old, len, |buffer| self.read_into(offset, buffer))
    }

    /// By the system call itself: the C library's would be a cancellation point.
    fn read_into(&self, offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        self.check(offset, buffer.len())?;
        let mut at = offset;
        while !buffer.is_empty() {
            match rustix::io::pread(&self.file, &mut *buffer, at) {
                Ok(0) => return Err(ends_early(&self.path, offset)),
                Ok(n) => {
                    buffer = &mut buffer[n..];
                    at += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::io("read", &self.path, e.into()).at(offset)),
            }
        }
        Ok(())
    }
}

/// Dropped in this order: the file's lock goes first, so that whoever finds the registry free finds
/// the lock free too.
struct DirLock {
    file: File,
    _registered: Registered,
}

impl FileLock for DirLock {}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process between its fork and its exec has the file too.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Directories locked by this process, as (device, inode). Some network file systems turn `flock`
/// into a lock of the whole process, which would let a second handle in.
static LOCKED: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

struct Registered((u64, u64));

impl Registered {
    fn insert(id: (u64, u64), dir: &Path) -> Result<Registered> {
        match LOCKED.lock().insert(id) {
            true => Ok(Registered(id)),
            false => Err(Error::busy("the directory is locked by another handle").in_file(dir)),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        LOCKED.lock().remove(&self.0);
    }
}

/// A copy in place of a hard link, durable but for its name. Nothing is left behind if it fails.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(|e| Error::io("link by copy", from, e))?;
    let target = OpenOptions::new().write(true).create_new(true).open(to);
    let mut target = target.map_err(|e| creation("link by copy", to, e))?;
    io::copy(&mut source, &mut target).and_then(|_| target.sync_all()).map_err(|e| {
        let _ = fs::remove_file(to); // the copy's failure is the one to tell
        Error::io("link by copy", to, e)
    })
}

fn is_unlinkable(e: &io::Error) -> bool {
    let kinds = [IoKind::CrossesDevices, IoKind::TooManyLinks, IoKind::Unsupported];
    kinds.contains(&e.kind()) || e.kind() == IoKind::PermissionDenied
}

fn creation(operation: &str, path: &Path, e: io::Error) -> Error {
    match e.kind() {
        IoKind::AlreadyExists => {
            Error::invalid(format!("{operation}: the name exists")).in_file(path)
        }
        _ => Error::io(operation, path, e),
    }
}

#[cold]
pub(super) fn ends_early(path: &Path, offset: u64) -> Error {
    Error::corruption("the file ends early").at(offset).in_file(path)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// The system's name for the empty path.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::{TempDir, get, put};

    #[test]
    fn a_file_cut_behind_our_back_is_corruption() {
        let dir = TempDir::new();
        let (fs, path) = (DiskFs::new(), dir.0.join("1.sst"));
        put(&fs, &path, &[7; 100]);
        let file = fs.open(&path).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(50).unwrap();
        let e = file.read_at(40, 20).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ErrorKind::Corruption, Some(40)));
        assert_eq!(&*file.read_at(40, 10).unwrap(), [7; 10]);
    }

    #[test]
    fn a_second_process_finds_the_lock() {
        let dir = TempDir::new();
        let fs = DiskFs::new();
        // Another process is what another open of the directory is to `flock`.
        let other = File::open(&dir.0).unwrap();
        rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        let e = fs.lock(&dir.0).map(drop).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Busy);
        assert!(e.to_string().contains("another process"));
        drop(other);
        let lock = fs.lock(&dir.0).unwrap();
        let by_another_name = dir.0.join("..").join(dir.0.file_name().unwrap());
        let e = DiskFs::new().lock(&by_another_name).map(drop).unwrap_err();
        assert!(e.to_string().contains("another handle"));
        drop(lock);
        assert!(fs.lock(&by_another_name).is_ok());
    }

    #[test]
    fn a_lock_that_is_let_go_is_free_although_a_child_has_the_file() {
        let dir = TempDir::new();
        let file = File::open(&dir.0).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        // What a child process inherits is what a duplicate is to `flock`.
        let _inherited = file.try_clone().unwrap();
        let id = (u64::MAX, u64::MAX);
        drop(DirLock { file, _registered: Registered::insert(id, &dir.0).unwrap() });
        assert!(DiskFs::new().lock(&dir.0).is_ok());
    }

    #[test]
    fn a_writer_that_failed_stays_failed() {
        let dir = TempDir::new();
        let path = dir.0.join("1.log");
        put(&DiskFs::new(), &path, b"");
        let file = File::open(&path).unwrap(); // not for writing: appends fail
        let mut writer = DiskWriter::new(file, &path);
        writer.append(b"x").unwrap_err();
        let e = writer.sync().unwrap_err();
        assert!(e.to_string().contains("an earlier append or sync"), "{e}");
    }

    #[test]
    fn a_full_device_is_no_space() {
        let full = Path::new("/dev/full");
        let Ok(file) = OpenOptions::new().write(true).open(full) else { return };
        let mut writer = DiskWriter::new(file, full);
        assert_eq!(writer.append(b"x").unwrap_err().kind(), ErrorKind::NoSpace);
    }

    #[test]
    fn a_copy_stands_in_for_a_link() {
        let dir = TempDir::new();
        let (from, to) = (dir.0.join("a"), dir.0.join("b"));
        put(&DiskFs::new(), &from, &[3; 5000]);
        copy(&from, &to).unwrap();
        assert_eq!(get(&DiskFs::new(), &to), [3; 5000]);
        assert_eq!(copy(&from, &to).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(get(&DiskFs::new(), &to), [3; 5000]);
    }
}
