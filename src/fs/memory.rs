//! A disk in memory that can lose its power.
//!
//! Two states are kept: what a reader sees now, and what is durable. A file is append-only, so its
//! durable part is a prefix (`synced`). Names have a durable table and an ordered list of changes
//! that no [`Fs::sync_dir`] has covered yet. [`MemFs::crash_image`] makes a new disk from the durable
//! state and, as [`Keep`] says, a part of the rest. Images share the bytes of files with the disk they
//! come from until one of the two writes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, Range};
use std::path::Path;

use crate::base::bytes::Bytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::rng::Rng;
use crate::base::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::fs::{FileLock, Fs, Listed, ReadableFile, WritableFile};

/// A disk in memory. A clone is the same disk.
#[derive(Clone)]
pub struct MemFs {
    disk: Arc<Disk>,
}

/// What outlives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Only synced bytes and synced names. A file whose name was never synced is gone; a name whose
    /// removal was never synced is back.
    Nothing,
    /// Everything, as after the death of the process alone.
    All,
    /// Of each file a random prefix of the bytes that were not synced, at times with zeros or garbage
    /// in its last sector; each name change kept or dropped at random, a rename as a whole.
    Torn,
}

/// Files are torn within sectors of this size.
const SECTOR_BYTES: usize = 512;

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
    len: usize,
    /// This prefix is durable, but for the parts in `lost`.
    synced: usize,
    /// What a failed sync covered: never written, whatever later syncs say.
    lost: Vec<Range<usize>>,
}

impl Content {
    fn append(&mut self, bytes: &[u8]) {
        let data = Arc::make_mut(&mut self.data);
        data.truncate(self.len);
        data.extend_from_slice(bytes);
        self.len = data.len();
    }

    /// The file after a power cut.
    fn survivor(&self, keep: Keep, rng: &mut Rng) -> Content {
        let len = match keep {
            Keep::Nothing => self.synced,
            Keep::All => self.len,
            Keep::Torn => self.synced + rng.below((self.len - self.synced) as u64 + 1) as usize,
        };
        let mut image = Content { data: self.data.clone(), len, synced: len, lost: Vec::new() };
        if keep == Keep::All {
            return image;
        }
        for lost in &self.lost {
            let part = lost.start.min(len)..lost.end.min(len);
            if !part.is_empty() && (keep == Keep::Nothing || rng.below(2) == 0) {
                Arc::make_mut(&mut image.data)[part].fill(0);
            }
        }
        if len > self.synced {
            let sector = (len - 1) / SECTOR_BYTES * SECTOR_BYTES;
            let torn = self.synced.max(sector)..len;
            match rng.below(4) {
                0 => Arc::make_mut(&mut image.data)[torn].fill(0),
                1 => Arc::make_mut(&mut image.data)[torn]
                    .fill_with(|| rng.next_u64().to_le_bytes()[0]),
                _ => {}
            }
        }
        image
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
                self.pending[i] = Change { unset: None, set: None };
            } else if set_dir == Some(dir) {
                let set = Change { unset: None, set: self.pending[i].set.take() };
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

    /// A new disk, as it would be found after a power cut now: no locks, no limits, everything on it
    /// durable, [`ops`](MemFs::ops) at zero. The same seed gives the same image of the same history.
    /// This disk goes on untouched. Costs a few allocations per file, and a copy of the files that
    /// are torn.
    pub fn crash_image(&self, keep: Keep, seed: u64) -> MemFs {
        let rng = &mut Rng::new(seed);
        let tree = self.disk.tree.lock();
        let mut names = tree.durable.clone();
        for change in &tree.pending {
            let kept = match keep {
                Keep::Nothing => false,
                Keep::All => true,
                Keep::Torn => rng.below(2) == 0,
            };
            if kept {
                change.apply(&mut names);
            }
        }
        let mut image = Tree { dirs: tree.dirs.clone(), ..Tree::default() };
        let mut nodes: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
        for node in names.values_mut() {
            let survivor = nodes.entry(node.id).or_insert_with(|| {
                let content = node.content.lock().survivor(keep, rng);
                image.new_node(content)
            });
            *node = survivor.clone();
        }
        image.durable = names.clone();
        image.now = names;
        MemFs { disk: Arc::new(Disk::new(image)) }
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

    /// Mutating operations so far, successful or not: creations, appends, syncs, renames, links,
    /// removals. Those that failed by [`crash_after`](MemFs::crash_after) are not counted.
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
        content.len = len as usize;
        content.synced = content.synced.min(content.len);
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

    /// Test helper: stores a file with its directories, in place of what is there, durably and
    /// without counting as an operation.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        let len = bytes.len();
        let mut tree = self.disk.tree.lock();
        let data = Arc::new(bytes.to_vec());
        let node = tree.new_node(Content { data, len, synced: len, lost: Vec::new() });
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
        let path: Arc<Path> = path.into();
        tree.change(Change { unset: None, set: Some((path.clone(), node.clone())) });
        Ok(Box::new(MemWriter { disk: self.disk.clone(), node, path }))
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
        tree.change(Change { unset: Some(path.into()), set: None });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.count("rename", from)?;
        let mut tree = self.disk.tree.lock();
        let node = tree.node("rename", from)?.clone();
        tree.check_dir("rename", parent(to))?;
        let same = tree.now.get(to).is_some_and(|target| target.id == node.id);
        if !same {
            tree.change(Change { unset: Some(from.into()), set: Some((to.into(), node)) });
        }
        Ok(()) // POSIX: two names of one file both stay
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.count("link", to)?;
        let mut tree = self.disk.tree.lock();
        let node = tree.node("link", from)?.clone();
        tree.check_new("link", to)?;
        tree.change(Change { unset: None, set: Some((to.into(), node)) });
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
                Ok(())
            }
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.disk.count("sync directory", dir)?;
        let mut tree = self.disk.tree.lock();
        tree.check_dir("sync directory", dir)?;
        tree.sync_dir(dir);
        Ok(())
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.disk.count("sync", path)?;
        let node = self.disk.tree.lock().node("sync", path)?.clone();
        node.sync();
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
            true => Ok(Box::new(MemLock { disk: self.disk.clone(), dir })),
            false => Err(Error::busy("the directory is locked by another handle").in_file(&dir)),
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn lose_unsynced(&self, path: &Path) {
        if let Ok(node) = self.disk.tree.lock().node("sync", path) {
            node.lose_unsynced();
        }
    }
}

impl Node {
    fn sync(&self) {
        let mut content = self.content.lock();
        content.synced = content.len;
    }

    #[cfg(any(test, feature = "testing"))]
    fn lose_unsynced(&self) {
        let mut content = self.content.lock();
        let unsynced = content.synced..content.len;
        content.lost.push(unsynced);
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
            self.node.content.lock().append(data);
            return Ok(());
        }
        let tree = self.disk.tree.lock(); // held, so that two appends cannot share the last bytes
        let free = capacity.saturating_sub(tree.total_bytes());
        let fits = data.len().min(usize::try_from(free).unwrap_or(usize::MAX));
        self.node.content.lock().append(&data[..fits]);
        match fits == data.len() {
            true => Ok(()),
            false => Err(Error::io("append", &self.path, io::ErrorKind::StorageFull.into())),
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.disk.count("sync", &self.path)?;
        self.node.sync();
        Ok(())
    }

    #[cfg(any(test, feature = "testing"))]
    fn lose_unsynced(&mut self) {
        self.node.lose_unsynced();
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
                let data: Arc<Vec<u8>> = content.data.clone();
                Ok(Bytes::shared(data).slice(start..end))
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
