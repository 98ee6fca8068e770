//! A disk in memory that can lose its power.
//!
//! Two states are kept: what a reader sees now, and what is durable. A file is append-only, so its
//! durable part is a prefix (`synced`); behind it lie the appends that no sync has covered, and zeros
//! that were reserved. Names have a durable table and an ordered list of changes that no [`Fs::sync_dir`]
//! has covered yet. [`image`] makes a new disk from the durable state and a part of the rest; [`trace`]
//! records what happens to a disk and lets it happen again: one run can lose its power everywhere.

pub mod image;
pub mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, Range};
use std::path::Path;

use crate::base::bytes::Bytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Arc, AtomicU64, Mutex, Ordering};
#[cfg(any(test, feature = "testing"))]
use crate::fs::FailedSync;
use crate::fs::memory::trace::{Effect, Recording};
use crate::fs::{FileLock, Fs, Listed, ReadableFile, WritableFile};

/// A disk in memory. A clone is the same disk.
#[derive(Clone)]
pub struct MemFs {
    disk: Arc<Disk>,
}

/// Stands for "no limit" in the two limits below.
const NEVER: u64 = u64::MAX;

/// What an empty disk without a limit says about its free space.
const FREE_SPACE: u64 = 1 << 50;

type Names = BTreeMap<Arc<Path>, Arc<Node>>;

struct Disk {
    tree: Mutex<Tree>,
    ops: AtomicU64,
    ops_max: AtomicU64,
    capacity: AtomicU64,
    /// Counts what waits for a sync: appends and name changes, in one order.
    clock: AtomicU64,
    recording: Mutex<Option<Recording>>,
}

/// All that is known by name. Locked before any [`Node`].
#[derive(Default)]
struct Tree {
    now: Names,
    durable: Names,
    /// Not synced name changes, oldest first. Replayed over `durable` they give `now`.
    pending: Vec<Change>,
    /// Directories are durable at once: [`Fs::create_dir`] promises it.
    dirs: BTreeSet<Arc<Path>>,
    locked: BTreeSet<Arc<Path>>,
    created: u64,
}

/// One name change: a creation or link sets, a removal unsets, a rename does both.
#[derive(Clone)]
struct Change {
    time: u64,
    unset: Option<Arc<Path>>,
    set: Option<(Arc<Path>, Arc<Node>)>,
}

/// One file, whatever its names.
struct Node {
    id: u64,
    content: Mutex<Content>,
}

#[derive(Clone, Default)]
struct Content {
    /// At least `len` bytes: a crash image shares the longer bytes of its disk.
    data: Arc<Vec<u8>>,
    /// Length of the file: what was appended, and zeros that were reserved.
    len: usize,
    /// Where the next append goes.
    end: usize,
    /// This prefix of what was appended is durable, but for the parts in `lost`.
    synced: usize,
    /// The length that is durable.
    synced_len: usize,
    /// The appends behind `synced`: when, and where each ends.
    appends: Vec<(u64, usize)>,
    /// The lengths that were reserved, or given back to, since the last sync: when, and what length.
    lengths: Vec<(u64, usize)>,
    /// What a failed sync covered: never written, whatever later syncs say.
    lost: Vec<Range<usize>>,
}

impl Content {
    /// A file that holds the first `len` bytes of `data`, all of them durable.
    fn durable(data: Arc<Vec<u8>>, len: usize) -> Content {
        let (end, synced, synced_len) = (len, len, len);
        Content { data, len, end, synced, synced_len, ..Content::default() }
    }

    fn append(&mut self, time: u64, bytes: &[u8]) {
        let data = Arc::make_mut(&mut self.data);
        data.truncate(self.len);
        let end = self.end + bytes.len();
        let over = bytes.len().min(self.len - self.end);
        data[self.end..self.end + over].copy_from_slice(&bytes[..over]);
        data.extend_from_slice(&bytes[over..]);
        (self.len, self.end) = (data.len(), end);
        self.appends.push((time, end));
    }

    fn reserve(&mut self, time: u64, len: usize) {
        let data = Arc::make_mut(&mut self.data);
        data.truncate(self.end);
        data.resize(len.max(self.end), 0);
        self.len = data.len();
        self.lengths.push((time, self.len));
    }

    fn sync(&mut self) {
        (self.synced, self.synced_len) = (self.end, self.len);
        self.appends.clear();
        self.lengths.clear();
    }

    /// Bytes that appends of `bytes` more would add to the file's length.
    fn growth(&self, bytes: usize) -> u64 {
        (self.end + bytes).saturating_sub(self.len) as u64
    }
}

impl Change {
    fn apply(&self, names: &mut Names) {
        if let Some(path) = &self.unset {
            names.remove(path);
        }
        if let Some((path, node)) = &self.set {
            names.insert(path.clone(), node.clone());
        }
    }
}

impl Tree {
    fn node(&self, operation: &str, path: &Path) -> Result<&Arc<Node>> {
        self.now.get(path).ok_or_else(|| missing(operation, path))
    }

    fn check_dir(&self, operation: &str, dir: &Path) -> Result<()> {
        match is_root(dir) || self.dirs.contains(dir) {
            true => Ok(()),
            false => Err(missing(operation, dir)),
        }
    }

    fn check_new(&self, operation: &str, path: &Path) -> Result<()> {
        self.check_dir(operation, parent(path))?;
        match self.now.contains_key(path) || self.dirs.contains(path) {
            true => Err(Error::invalid(format!("{operation}: the name exists")).in_file(path)),
            false => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    fn sync_dir(&mut self, dir: &Path) {
        self.settle(dir, self.pending.len());
        self.pending.retain(|change| change.unset.is_some() || change.set.is_some());
    }

    /// Makes the changes of one directory durable, as far as they are among the `end` oldest. Of a
    /// rename between two directories: syncing the new one may leave the old name behind; syncing
    /// the old one brings the new name with it, and what came before it there, so that the file
    /// never has no name.
    fn settle(&mut self, dir: &Path, end: usize) {
        for i in 0..end {
            let change = self.pending[i].clone();
            let set_dir = change.set.as_ref().map(|(path, _)| parent(path));
            if change.unset.as_ref().is_some_and(|path| parent(path) == dir) {
                if let Some(other) = set_dir.filter(|other| *other != dir) {
                    self.settle(other, i);
                }
                change.apply(&mut self.durable);
                self.pending[i] = Change { unset: None, set: None, ..change };
            } else if set_dir == Some(dir) {
                let set = Change { unset: None, set: self.pending[i].set.take(), ..change };
                set.apply(&mut self.durable);
            }
        }
    }

    /// The file at `path` is this one from now on and after a crash, whatever it was.
    fn place(&mut self, path: &Path, node: &Arc<Node>) {
        for change in &mut self.pending {
            change.unset.take_if(|unset| **unset == *path);
            change.set.take_if(|(set, _)| **set == *path);
        }
        self.durable.insert(path.into(), node.clone());
        self.now.insert(path.into(), node.clone());
    }

    fn add_dirs(&mut self, dir: &Path) {
        for dir in dir.ancestors().filter(|dir| !is_root(dir)) {
            self.dirs.insert(dir.into());
        }
    }

    fn new_node(&mut self, content: Content) -> Arc<Node> {
        self.created += 1;
        Arc::new(Node { id: self.created, content: Mutex::new(content) })
    }

    /// Bytes of all files that have a name, each file once.
    fn total_bytes(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let files = self.now.values().filter(|node| seen.insert(node.id));
        files.map(|node| node.content.lock().len as u64).sum()
    }
}

impl Disk {
    fn new(tree: Tree) -> Disk {
        Disk {
            tree: Mutex::new(tree),
            ops: AtomicU64::new(0),
            ops_max: AtomicU64::new(NEVER),
            capacity: AtomicU64::new(NEVER),
            clock: AtomicU64::new(0),
            recording: Mutex::default(),
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn append(&self, node: &Node, bytes: &[u8]) {
        node.content.lock().append(self.tick(), bytes);
        self.note(|| Effect::Append { node: node.id, bytes: Arc::new(bytes.to_vec()) });
    }

    fn reserve(&self, node: &Node, len: usize) {
        node.content.lock().reserve(self.tick(), len);
        self.note(|| Effect::Reserve { node: node.id, len });
    }

    fn sync(&self, node: &Node) {
        node.content.lock().sync();
        self.note(|| Effect::Sync { node: node.id });
    }

    /// Changes a name now; the change is durable when the directory is synced.
    fn change(&self, tree: &mut Tree, unset: Option<&Path>, set: Option<(&Path, Arc<Node>)>) {
        let set = set.map(|(path, node)| (Arc::from(path), node));
        tree.change(Change { time: self.tick(), unset: unset.map(Arc::from), set });
    }

    /// Records an effect, if effects are recorded.
    fn note(&self, effect: impl FnOnce() -> Effect) {
        if let Some(recording) = &mut *self.recording.lock() {
            recording.effects.push(effect());
        }
    }

    /// Counts a mutating operation, or fails it if the disk has crashed.
    fn count(&self, operation: &str, path: &Path) -> Result<()> {
        let max = self.ops_max.load(Ordering::SeqCst);
        let counted = self
            .ops
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |ops| (ops < max).then_some(ops + 1));
        match counted {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Io, format!("{operation}: crashed")).in_file(path)),
        }
    }
}

impl Default for MemFs {
    fn default() -> MemFs {
        MemFs::new()
    }
}

impl MemFs {
    /// An empty disk without limits. Its one directory is the root (`/` or the empty path).
    pub fn new() -> MemFs {
        MemFs { disk: Arc::new(Disk::new(Tree::default())) }
    }

    /// Bytes that fit on the disk; `None` for no limit. An append beyond writes what fits and fails
    /// with `NoSpace`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.capacity.store(bytes.unwrap_or(NEVER), Ordering::SeqCst);
    }

    /// Bytes of all files that have a name, a file with two names once.
    pub fn total_bytes(&self) -> u64 {
        self.disk.tree.lock().total_bytes()
    }

    /// Mutating operations so far, successful or not: creations, appends, reservations, syncs,
    /// renames, links, removals. Those that failed by [`crash_after`](MemFs::crash_after) are not counted.
    pub fn ops(&self) -> u64 {
        self.disk.ops.load(Ordering::SeqCst)
    }

    /// Lets [`ops`](MemFs::ops) reach `n`: the operation after that and all later mutating ones fail
    /// with `Io` ("crashed") and do nothing. Reads go on. `None` lifts it.
    pub fn crash_after(&self, n: Option<u64>) {
        self.disk.ops_max.store(n.unwrap_or(NEVER), Ordering::SeqCst);
    }

    /// Test helper: xors one byte of a stored file, under all its names and for open readers.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn corrupt(&self, path: &Path, offset: u64, xor: u8) {
        let node = self.stored(path);
        let mut content = node.content.lock();
        assert!(offset < content.len as u64, "{}: no byte at {offset}", path.display());
        Arc::make_mut(&mut content.data)[offset as usize] ^= xor;
    }

    /// Test helper: cuts a stored file to `len` bytes.
    ///
    /// # Panics
    /// If the file is absent or shorter.
    pub fn truncate(&self, path: &Path, len: u64) {
        let node = self.stored(path);
        let mut content = node.content.lock();
        assert!(len <= content.len as u64, "{}: shorter than {len}", path.display());
        let (len, content) = (len as usize, &mut *content);
        content.len = len;
        for bound in [&mut content.end, &mut content.synced, &mut content.synced_len] {
            *bound = len.min(*bound);
        }
    }

    /// Test helper: the bytes of a stored file.
    ///
    /// # Panics
    /// If there is none.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let node = self.stored(path);
        let content = node.content.lock();
        content.data[..content.len].to_vec()
    }

    /// Test helper: stores a file with its directories, in place of what is there, durably, without
    /// counting as an operation and without being recorded.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        let len = bytes.len();
        let mut tree = self.disk.tree.lock();
        let data = Arc::new(bytes.to_vec());
        let node = tree.new_node(Content::durable(data, len));
        tree.add_dirs(parent(path));
        tree.place(path, &node);
    }

    fn stored(&self, path: &Path) -> Arc<Node> {
        let tree = self.disk.tree.lock();
        let node = tree.now.get(path);
        node.unwrap_or_else(|| panic!("{}: no such file", path.display())).clone()
    }
}

impl Fs for MemFs {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        self.disk.count("create", path)?;
        let mut tree = self.disk.tree.lock();
        tree.check_new("create", path)?;
        let node = tree.new_node(Content::default());
        self.disk.change(&mut tree, None, Some((path, node.clone())));
        self.disk.note(|| Effect::Create { path: path.into(), node: node.id });
        Ok(Box::new(MemWriter { disk: self.disk.clone(), node, path: path.into() }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadableFile>> {
        let node = self.disk.tree.lock().node("open", path)?.clone();
        let len = node.content.lock().len as u64;
        Ok(Arc::new(MemReader { node, path: path.into(), len }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk.count("remove", path)?;
        let mut tree = self.disk.tree.lock();
        tree.node("remove", path)?;
        self.disk.change(&mut tree, Some(path), None);
        self.disk.note(|| Effect::Remove { path: path.into() });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.count("rename", from)?;
        let mut tree = self.disk.tree.lock();
        let node = tree.node("rename", from)?.clone();
        tree.check_dir("rename", parent(to))?;
        let same = tree.now.get(to).is_some_and(|target| target.id == node.id);
        if !same {
            self.disk.change(&mut tree, Some(from), Some((to, node)));
            self.disk.note(|| Effect::Rename { from: from.into(), to: to.into() });
        }
        Ok(()) // POSIX: two names of one file both stay
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.count("link", to)?;
        let mut tree = self.disk.tree.lock();
        let node = tree.node("link", from)?.clone();
        tree.check_new("link", to)?;
        self.disk.change(&mut tree, None, Some((to, node)));
        self.disk.note(|| Effect::Link { from: from.into(), to: to.into() });
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<Listed>> {
        let tree = self.disk.tree.lock();
        tree.check_dir("list", dir)?;
        let below = tree.now.range::<Path, _>((Bound::Included(dir), Bound::Unbounded));
        let mut listed: Vec<Listed> = below
            .take_while(|(path, _)| path.starts_with(dir))
            .filter(|(path, _)| parent(path) == dir)
            .map(|(path, node)| Listed {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                len: node.content.lock().len as u64,
            })
            .collect();
        listed.sort();
        Ok(listed)
    }

    fn create_dir(&self, dir: &Path) -> Result<()> {
        self.disk.count("create directory", dir)?;
        let mut tree = self.disk.tree.lock();
        match dir.ancestors().find(|dir| tree.now.contains_key(*dir)) {
            Some(file) => Err(Error::new(ErrorKind::Io, "create directory: a file").in_file(file)),
            None => {
                tree.add_dirs(dir);
                self.disk.note(|| Effect::CreateDir { dir: dir.into() });
                Ok(())
            }
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.disk.count("sync directory", dir)?;
        let mut tree = self.disk.tree.lock();
        tree.check_dir("sync directory", dir)?;
        tree.sync_dir(dir);
        self.disk.note(|| Effect::SyncDir { dir: dir.into() });
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.disk.count("sync", path)?;
        let node = self.disk.tree.lock().node("sync", path)?.clone();
        self.disk.sync(&node);
        Ok(())
    }

    fn free_space(&self, dir: &Path) -> Result<u64> {
        let tree = self.disk.tree.lock();
        tree.check_dir("free space", dir)?;
        Ok(match self.disk.capacity.load(Ordering::SeqCst) {
            NEVER => FREE_SPACE,
            capacity => capacity.saturating_sub(tree.total_bytes()),
        })
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn FileLock>> {
        let mut tree = self.disk.tree.lock();
        tree.check_dir("lock", dir)?;
        let dir: Arc<Path> = dir.into();
        match tree.locked.insert(dir.clone()) {
            true => {
                self.disk.note(|| Effect::Lock { dir: dir.clone() });
                Ok(Box::new(MemLock { disk: self.disk.clone(), dir }))
            }
            false => Err(Error::busy("the directory is locked by another handle").in_file(&dir)),
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn fail_sync(&self, path: &Path, left: FailedSync) {
        if let Ok(node) = self.disk.tree.lock().node("sync", path) {
            self.disk.fail_sync(node, left);
        }
    }
}

struct MemWriter {
    disk: Arc<Disk>,
    node: Arc<Node>,
    path: Arc<Path>,
}

impl WritableFile for MemWriter {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.disk.count("append", &self.path)?;
        let capacity = self.disk.capacity.load(Ordering::SeqCst);
        if capacity == NEVER {
            self.disk.append(&self.node, data);
            return Ok(());
        }
        let tree = self.disk.tree.lock(); // held, so that two appends cannot share the last bytes
        let free = capacity.saturating_sub(tree.total_bytes());
        let lacks = self.node.content.lock().growth(data.len()).saturating_sub(free);
        let fits = data.len() - lacks as usize;
        self.disk.append(&self.node, &data[..fits]);
        match fits == data.len() {
            true => Ok(()),
            false => Err(Error::io("append", &self.path, io::ErrorKind::StorageFull.into())),
        }
    }

    fn reserve(&mut self, len: u64) -> Result<()> {
        self.disk.count("reserve", &self.path)?;
        let no_space = || Error::io("reserve", &self.path, io::ErrorKind::StorageFull.into());
        let len = usize::try_from(len).map_err(|_| no_space())?;
        let tree = self.disk.tree.lock();
        let capacity = self.disk.capacity.load(Ordering::SeqCst);
        if capacity != NEVER {
            let free = capacity.saturating_sub(tree.total_bytes());
            if len.saturating_sub(self.node.content.lock().len) as u64 > free {
                return Err(no_space());
            }
        }
        self.disk.reserve(&self.node, len);
        Ok(())
    }

    fn begin_sync(&mut self) {} // any part of what was appended may be durable at any time

    fn sync(&mut self) -> Result<()> {
        self.disk.count("sync", &self.path)?;
        self.disk.sync(&self.node);
        Ok(())
    }

    #[cfg(any(test, feature = "testing"))]
    fn fail_sync(&mut self, left: FailedSync) {
        self.disk.fail_sync(&self.node, left);
    }
}

struct MemReader {
    node: Arc<Node>,
    path: Arc<Path>,
    len: u64,
}

impl ReadableFile for MemReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let content = self.node.content.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match start.checked_add(len) {
            Some(end) if end <= content.len => {
                Ok(Bytes::shared(content.data.clone()).slice(start..end))
            }
            _ => Err(Error::corruption("the file ends early").at(offset).in_file(&self.path)),
        }
    }
}

struct MemLock {
    disk: Arc<Disk>,
    dir: Arc<Path>,
}

impl FileLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.disk.tree.lock().locked.remove(&self.dir);
    }
}

fn is_root(dir: &Path) -> bool {
    dir.parent().is_none()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cold]
fn missing(operation: &str, path: &Path) -> Error {
    Error::io(operation, path, io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests;
