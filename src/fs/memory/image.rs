//! What a power cut leaves: a new disk from the durable state and a part of what waited for a sync.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::fs::memory::{Change, Content, Disk, MemFs, Names, Node, Tree};

/// What outlives a power cut, of that which no sync has covered. *Effects* are the appends and the
/// name changes, in the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing. A file whose name was never synced is gone; a name whose removal was never synced is
    /// back.
    Nothing,
    /// Everything, as after the death of the process alone.
    All,
    /// Of each file a random prefix of its bytes, at times with zeros or garbage in its last sector;
    /// each name change kept or dropped at random, a rename as a whole.
    Torn,
    /// The first so many effects: a file system with an ordered journal.
    Prefix,
    /// All name changes, and of each file a random prefix of its bytes.
    Bytes,
    /// All name changes; each sector of each file is new, zero or garbage, and the length of the file
    /// may have grown before its bytes: delayed allocation.
    Sectors,
    /// All bytes; each name change on its own kept or dropped, and the two halves of a rename too
    /// (the target is always the old file or the new one).
    Names,
    /// Sectors as in [`Sectors`](Keep::Sectors), names as in [`Names`](Keep::Names).
    Any,
    /// Exactly these effects, one bit each, the oldest lowest; all from the 65th on.
    Subset(u64),
}

/// Files are torn within sectors of this size.
pub const SECTOR_BYTES: usize = 512;

/// Which of the effects, by their time, are kept where the choice is by effect.
struct Kept(BTreeSet<u64>);

impl Kept {
    fn new(times: &[u64], keep: Keep, rng: &mut Rng) -> Kept {
        let prefix = rng.below(times.len() as u64 + 1) as usize;
        let kept = |i: usize| match keep {
            Keep::Prefix => i < prefix,
            Keep::Subset(mask) => i >= 64 || mask >> i & 1 == 1,
            _ => false,
        };
        Kept((0..times.len()).filter(|i| kept(*i)).map(|i| times[i]).collect())
    }
}

impl Content {
    /// The file after a power cut.
    fn survivor(&self, keep: Keep, kept: &Kept, rng: &mut Rng) -> Content {
        let unsynced = self.end - self.synced;
        let mut some = || self.synced + rng.below(unsynced as u64 + 1) as usize;
        let last_kept = || self.appends.iter().rfind(|(time, _)| kept.0.contains(time));
        let end = match keep {
            Keep::Nothing => self.synced,
            Keep::All | Keep::Names => self.end,
            Keep::Torn | Keep::Bytes => some(),
            Keep::Sectors | Keep::Any => some().max(some()),
            Keep::Prefix | Keep::Subset(_) => last_kept().map_or(self.synced, |(_, end)| *end),
        };
        let len = end.min(self.end).max(self.surviving_len(keep, kept, rng));
        let mut image = Content::durable(self.data.clone(), len);
        if keep == Keep::All {
            return image;
        }
        if end < len {
            // Reserved: zero, where nothing that was appended has survived.
            let data = Arc::make_mut(&mut image.data);
            data.truncate(end);
            data.resize(len, 0);
        }
        self.lose(&mut image, keep, rng);
        match keep {
            Keep::Subset(_) => {
                let mut start = self.synced;
                for (time, stop) in &self.appends {
                    if !kept.0.contains(time) && start < end {
                        Arc::make_mut(&mut image.data)[start..end.min(*stop)].fill(0);
                    }
                    start = *stop;
                }
            }
            Keep::Torn if end > self.synced => {
                let sector = (end - 1) / SECTOR_BYTES * SECTOR_BYTES;
                image.tear(self.synced.max(sector), len.min(sector + SECTOR_BYTES), rng);
            }
            Keep::Sectors | Keep::Any => {
                let mut start = self.synced;
                while start < end {
                    let stop = len.min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
                    image.tear(start, stop, rng);
                    start = stop;
                }
            }
            _ => {}
        }
        image
    }

    /// The length that was reserved or given back to, after a power cut.
    fn surviving_len(&self, keep: Keep, kept: &Kept, rng: &mut Rng) -> usize {
        let Some((_, last)) = self.lengths.last() else { return self.synced_len };
        let any = rng.below(self.lengths.len() as u64 + 1).checked_sub(1);
        let last_kept = || self.lengths.iter().rfind(|(time, _)| kept.0.contains(time));
        match keep {
            Keep::Nothing => self.synced_len,
            Keep::All | Keep::Names => *last,
            Keep::Prefix | Keep::Subset(_) => last_kept().map_or(self.synced_len, |(_, len)| *len),
            Keep::Torn | Keep::Bytes | Keep::Sectors | Keep::Any => {
                any.map_or(self.synced_len, |i| self.lengths[i as usize].1)
            }
        }
    }

    /// What failed syncs covered was never written; it may be, unless nothing is kept.
    fn lose(&self, image: &mut Content, keep: Keep, rng: &mut Rng) {
        for lost in &self.lost {
            let part = lost.start.min(image.len)..lost.end.min(image.len);
            if !part.is_empty() && (keep == Keep::Nothing || rng.below(2) == 0) {
                Arc::make_mut(&mut image.data)[part].fill(0);
            }
        }
    }

    /// Zeros or garbage in half of all cases.
    fn tear(&mut self, start: usize, end: usize, rng: &mut Rng) {
        match rng.below(4) {
            0 => Arc::make_mut(&mut self.data)[start..end].fill(0),
            1 => Arc::make_mut(&mut self.data)[start..end]
                .fill_with(|| rng.next_u64().to_le_bytes()[0]),
            _ => {}
        }
    }
}

impl Change {
    /// Does as much of the change as is kept.
    fn survive(&self, keep: Keep, kept: &Kept, names: &mut Names, rng: &mut Rng) {
        let (unset, set) = match keep {
            Keep::Nothing => (false, false),
            Keep::All | Keep::Bytes | Keep::Sectors => (true, true),
            Keep::Torn => {
                let whole = rng.below(2) == 0;
                (whole, whole)
            }
            Keep::Names | Keep::Any => (rng.below(2) == 0, rng.below(2) == 0),
            Keep::Prefix | Keep::Subset(_) => {
                let whole = kept.0.contains(&self.time);
                (whole, whole)
            }
        };
        if let Some(path) = self.unset.as_ref().filter(|_| unset) {
            names.remove(path);
        }
        if let Some((path, node)) = self.set.as_ref().filter(|_| set) {
            names.insert(path.clone(), node.clone());
        }
    }
}

impl Tree {
    /// Times of all effects that no sync has covered, ascending.
    fn waiting(&self) -> Vec<u64> {
        let set = self.pending.iter().filter_map(|change| change.set.as_ref());
        let nodes = self.durable.values().chain(set.map(|(_, node)| node));
        let nodes: BTreeMap<u64, &Arc<Node>> = nodes.map(|node| (node.id, node)).collect();
        let mut times: Vec<u64> = self.pending.iter().map(|change| change.time).collect();
        for node in nodes.values() {
            let content = node.content.lock();
            times.extend(content.appends.iter().chain(&content.lengths).map(|(time, _)| time));
        }
        times.sort_unstable();
        times
    }
}

impl MemFs {
    /// A new disk, as it would be found after a power cut now: no locks, no limits, everything on it
    /// durable, [`ops`](MemFs::ops) at zero. The same seed gives the same image of the same history.
    /// This disk goes on untouched. Costs a few allocations per file, and a copy of the files that
    /// are torn.
    pub fn crash_image(&self, keep: Keep, seed: u64) -> MemFs {
        let rng = &mut Rng::new(seed);
        let tree = self.disk.tree.lock();
        let kept = match keep {
            Keep::Prefix | Keep::Subset(_) => Kept::new(&tree.waiting(), keep, rng),
            _ => Kept(BTreeSet::new()),
        };
        let mut names = tree.durable.clone();
        for change in &tree.pending {
            change.survive(keep, &kept, &mut names, rng);
        }
        let mut image = Tree { dirs: tree.dirs.clone(), ..Tree::default() };
        let mut nodes: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
        for node in names.values_mut() {
            let survivor = nodes.entry(node.id).or_insert_with(|| {
                let content = node.content.lock().survivor(keep, &kept, rng);
                image.new_node(content)
            });
            *node = survivor.clone();
        }
        image.durable = names.clone();
        image.now = names;
        MemFs { disk: Arc::new(Disk::new(image)) }
    }

    /// Appends and name changes that no sync has covered: [`Keep::Subset`] chooses among them.
    pub fn pending(&self) -> usize {
        self.disk.tree.lock().waiting().len()
    }

    /// A hash of all names and of what they hold now. Reads everything.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let tree = self.disk.tree.lock();
        for (path, node) in &tree.now {
            let content = node.content.lock();
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(&(content.len as u64).to_le_bytes());
            hash.update(&content.data[..content.len]);
        }
        hash.digest()
    }
}
