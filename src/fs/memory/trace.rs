//! What happened to a disk, effect by effect, and the disk at any moment of it.
//!
//! A workload is run once, recorded, and judged at every moment: [`Replay`] lets the effects happen
//! again, one by one, to a disk of its own, of which [`MemFs::crash_image`] makes as many images as
//! are wanted. A replay costs what the effects cost in memory, and nothing of what the engine did.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

#[cfg(any(test, feature = "testing"))]
use crate::base::rng::Rng;
use crate::base::sync::{Arc, Mutex, MutexGuard, Ordering};
#[cfg(any(test, feature = "testing"))]
use crate::fs::FailedSync;
#[cfg(any(test, feature = "testing"))]
use crate::fs::memory::image::SECTOR_BYTES;
use crate::fs::memory::{Change, Content, Disk, MemFs, Names, Node, Tree};

/// One thing that happened to a disk. A node is a file, whatever its names.
#[derive(Clone, PartialEq, Eq)]
pub enum Effect {
    /// A file was created.
    Create {
        /// Its name.
        path: Arc<Path>,
        /// Its number.
        node: u64,
    },
    /// Bytes were appended.
    Append {
        /// To this file.
        node: u64,
        /// These.
        bytes: Arc<Vec<u8>>,
    },
    /// A file was made this long, or as long as what was appended.
    Reserve {
        /// This one.
        node: u64,
        /// In bytes.
        len: usize,
    },
    /// A file was synced.
    Sync {
        /// This one.
        node: u64,
    },
    /// A sync failed, and left what it covered in these places undone for good.
    Lose {
        /// Of this file.
        node: u64,
        /// The rest is durable: the sync has failed in part.
        rest_durable: bool,
        /// From and to.
        lost: Vec<(usize, usize)>,
    },
    /// A name was removed.
    Remove {
        /// This one.
        path: Arc<Path>,
    },
    /// A name was changed.
    Rename {
        /// From.
        from: Arc<Path>,
        /// To.
        to: Arc<Path>,
    },
    /// A file got a second name.
    Link {
        /// The first.
        from: Arc<Path>,
        /// The second.
        to: Arc<Path>,
    },
    /// A directory was created; durable at once.
    CreateDir {
        /// This one.
        dir: Arc<Path>,
    },
    /// A directory was synced.
    SyncDir {
        /// This one.
        dir: Arc<Path>,
    },
    /// A directory was locked. Changes nothing.
    Lock {
        /// This one.
        dir: Arc<Path>,
    },
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Create { path, node } => write!(f, "create {} = {node}", path.display()),
            Effect::Append { node, bytes } => write!(f, "append {node} {} bytes", bytes.len()),
            Effect::Reserve { node, len } => write!(f, "reserve {node} {len} bytes"),
            Effect::Sync { node } => write!(f, "sync {node}"),
            Effect::Lose { node, rest_durable, lost } => {
                write!(f, "failed sync {node} {lost:?} (rest durable: {rest_durable})")
            }
            Effect::Remove { path } => write!(f, "remove {}", path.display()),
            Effect::Rename { from, to } => {
                write!(f, "rename {} {}", from.display(), to.display())
            }
            Effect::Link { from, to } => write!(f, "link {} {}", from.display(), to.display()),
            Effect::CreateDir { dir } => write!(f, "create directory {}", dir.display()),
            Effect::SyncDir { dir } => write!(f, "sync directory {}", dir.display()),
            Effect::Lock { dir } => write!(f, "lock {}", dir.display()),
        }
    }
}

/// A disk, and what happened to it from some moment on.
#[derive(Clone)]
pub struct Recording {
    start: MemFs,
    pub(in crate::fs::memory) effects: Vec<Effect>,
}

impl Recording {
    /// What happened, in order.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// A hash of all of it: runs that are the same have the same.
    pub fn hash(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for effect in &self.effects {
            hash.update(format!("{effect:?}").as_bytes());
            if let Effect::Append { bytes, .. } = effect {
                hash.update(bytes);
            }
        }
        hash.digest()
    }

    /// The disk at its beginning, and what is to happen to it.
    pub fn replay(&self) -> Replay<'_> {
        let disk = self.start.fork();
        let nodes = disk.nodes();
        Replay { disk, nodes, effects: self.effects.iter(), point: 0 }
    }
}

/// A disk to which a recording happens again.
pub struct Replay<'a> {
    disk: MemFs,
    nodes: BTreeMap<u64, Arc<Node>>,
    effects: std::slice::Iter<'a, Effect>,
    point: usize,
}

impl Replay<'_> {
    /// Effects that have happened so far.
    pub fn point(&self) -> usize {
        self.point
    }

    /// The disk at this moment.
    pub fn disk(&self) -> &MemFs {
        &self.disk
    }

    /// Lets the next effect happen; `false` if that was all.
    pub fn step(&mut self) -> bool {
        let Some(effect) = self.effects.next() else { return false };
        self.point += 1;
        let disk = &self.disk.disk;
        let mut tree = disk.tree.lock();
        let named = |tree: &Tree, path: &Path| Arc::clone(&tree.now[path]);
        match effect {
            Effect::Create { path, node } => {
                let created = tree.new_node(Content::default());
                assert_eq!(created.id, *node, "a recording is replayed on the disk it began on");
                self.nodes.insert(*node, created.clone());
                disk.change(&mut tree, None, Some((path, created)));
            }
            Effect::Append { node, bytes } => self.file(*node).append(disk.tick(), bytes),
            Effect::Reserve { node, len } => self.file(*node).reserve(disk.tick(), *len),
            Effect::Sync { node } => self.file(*node).sync(),
            Effect::Lose { node, rest_durable, lost } => {
                self.file(*node).fail_sync(*rest_durable, lost);
            }
            Effect::Remove { path } => disk.change(&mut tree, Some(path), None),
            Effect::Rename { from, to } => {
                let node = named(&tree, from);
                disk.change(&mut tree, Some(from), Some((to, node)));
            }
            Effect::Link { from, to } => {
                let node = named(&tree, from);
                disk.change(&mut tree, None, Some((to, node)));
            }
            Effect::CreateDir { dir } => tree.add_dirs(dir),
            Effect::SyncDir { dir } => tree.sync_dir(dir),
            Effect::Lock { .. } => {}
        }
        true
    }

    /// # Panics
    /// If the file had no name when the recording began.
    fn file(&self, node: u64) -> MutexGuard<'_, Content> {
        self.nodes.get(&node).expect("a file with a name").content.lock()
    }

    /// Lets everything happen up to this point, or to the end.
    pub fn seek(&mut self, point: usize) {
        while self.point < point && self.step() {}
    }
}

impl Content {
    pub(in crate::fs::memory) fn fail_sync(&mut self, rest_durable: bool, lost: &[(usize, usize)]) {
        self.lost.extend(lost.iter().map(|(start, end)| *start..*end));
        if rest_durable {
            self.sync();
        }
    }
}

impl Disk {
    /// A sync that fails.
    #[cfg(any(test, feature = "testing"))]
    pub(in crate::fs::memory) fn fail_sync(&self, node: &Node, left: FailedSync) {
        let mut content = node.content.lock();
        let (start, end) = (content.synced, content.end);
        let lost = match left {
            FailedSync::Dropped => vec![(start, end)],
            FailedSync::Written => Vec::new(),
            FailedSync::Half(seed) => {
                let rng = &mut Rng::new(seed);
                let sectors = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
                let sectors = sectors.filter(|_| rng.below(2) == 0).map(|i| i * SECTOR_BYTES);
                sectors.map(|at| (at.max(start), (at + SECTOR_BYTES).min(end))).collect()
            }
        };
        let rest_durable = left != FailedSync::Dropped;
        content.fail_sync(rest_durable, &lost);
        drop(content);
        self.note(|| Effect::Lose { node: node.id, rest_durable, lost });
    }
}

impl MemFs {
    /// Records what happens to this disk from now on, until [`recorded`](MemFs::recorded).
    ///
    /// A file that has no name now, and is still being written, must not be written any more.
    pub fn record(&self) {
        let start = self.fork();
        *self.disk.recording.lock() = Some(Recording { start, effects: Vec::new() });
    }

    /// How many effects were recorded so far; 0 if none are recorded.
    pub fn recorded_len(&self) -> usize {
        self.disk.recording.lock().as_ref().map_or(0, |recording| recording.effects.len())
    }

    /// Ends a recording and returns it.
    ///
    /// # Panics
    /// If nothing was recorded.
    pub fn recorded(&self) -> Recording {
        self.disk.recording.lock().take().expect("record was called")
    }

    /// Another disk in the same state, with everything that waits for a sync. No locks, no limits.
    pub fn fork(&self) -> MemFs {
        let tree = self.disk.tree.lock();
        let mut copies: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
        let mut copy = |node: &Arc<Node>| {
            let same = || {
                let content = Mutex::new(node.content.lock().clone());
                Arc::new(Node { id: node.id, content })
            };
            copies.entry(node.id).or_insert_with(same).clone()
        };
        let mut names = |names: &Names| -> Names {
            names.iter().map(|(path, node)| (path.clone(), copy(node))).collect()
        };
        let (now, durable) = (names(&tree.now), names(&tree.durable));
        let pending = tree.pending.iter().map(|change| Change {
            set: change.set.as_ref().map(|(path, node)| (path.clone(), copy(node))),
            ..change.clone()
        });
        let pending = pending.collect();
        let (dirs, created) = (tree.dirs.clone(), tree.created);
        let disk = Disk::new(Tree { now, durable, pending, dirs, created, ..Tree::default() });
        disk.clock.store(self.disk.tick(), Ordering::SeqCst);
        MemFs { disk: Arc::new(disk) }
    }

    fn nodes(&self) -> BTreeMap<u64, Arc<Node>> {
        let tree = self.disk.tree.lock();
        let set = tree.pending.iter().filter_map(|change| change.set.as_ref());
        let set = set.map(|(_, node)| node);
        let all = tree.now.values().chain(tree.durable.values()).chain(set);
        all.map(|node| (node.id, node.clone())).collect()
    }
}
