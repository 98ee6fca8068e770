//! Keeps the page cache from hiding the disk: by a limit to the memory of a process, where the
//! machine lets this one set it, and otherwise by dropping the pages of a store before each step.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Advice, fadvise};

/// What is done about the page cache.
#[derive(Clone, Copy, Debug)]
pub enum PageCache {
    /// Nothing: it may keep all that was written.
    Free,
    /// Each process has a cgroup of its own with so many bytes for its memory and its pages.
    Limited(usize),
    /// It was not limited; before each step a store's pages are dropped.
    Dropped,
}

impl PageCache {
    /// [`PageCache::Limited`] if that can be done here.
    pub fn limited(bytes: usize) -> PageCache {
        match Cgroup::new(bytes) {
            Ok(_) => PageCache::Limited(bytes),
            Err(error) => {
                eprintln!("no cgroup with a limit of memory: {error}");
                PageCache::Dropped
            }
        }
    }
}

impl fmt::Display for PageCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageCache::Free => f.write_str("not limited"),
            PageCache::Limited(bytes) => {
                write!(f, "a cgroup allows each engine {} MiB, pages included", bytes >> 20)
            }
            PageCache::Dropped => f.write_str("not limited, dropped before each step"),
        }
    }
}

/// A cgroup below this process's own, with a limit of memory. It goes with its owner, which must
/// have outlived the processes in it.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one.
    pub fn new(bytes: usize) -> io::Result<Cgroup> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let (own, limit) = own_cgroup()?;
        let dir = own.join(format!("alluvium-bench-{}-{number}", std::process::id()));
        fs::create_dir(&dir)?;
        let cgroup = Cgroup(dir);
        // Without the memory controller there is no such file.
        fs::metadata(cgroup.0.join(limit))?;
        fs::write(cgroup.0.join(limit), bytes.to_string())?;
        Ok(cgroup)
    }

    /// Takes a process in.
    pub fn enter(&self, process: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), process.to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The directory of this process's cgroup for memory, and the file of its limit: in version 1 of
/// cgroups if memory is controlled there, otherwise in version 2.
fn own_cgroup() -> io::Result<(PathBuf, &'static str)> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let find = |kind: &str, controller: &str| {
        let mount =
            mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|mount| {
                mount[2] == kind
                    && (kind == "cgroup2" || mount[3].split(',').any(|o| o == controller))
            })?;
        let path = cgroups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|c| c == controller).then_some(path)
        })?;
        Some(Path::new(mount[1]).join(path.trim_start_matches('/')))
    };
    let first = find("cgroup", "memory").map(|dir| (dir, "memory.limit_in_bytes"));
    let found = first.or_else(|| Some((find("cgroup2", "")?, "memory.max")));
    found.ok_or_else(|| io::Error::other("no cgroups are mounted"))
}

/// Drops the clean pages of all files below a directory.
pub fn drop_pages(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            drop_pages(&path);
        } else if let Ok(file) = fs::File::open(&path) {
            fadvise(&file, 0, None, Advice::DontNeed).expect("advice");
        }
    }
}
