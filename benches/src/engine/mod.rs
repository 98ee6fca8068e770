//! What is compared: one trait, one file an engine.
//!
//! All engines get the same memory, the same durability and the same codec: [`Setup`]. What an engine
//! cannot do the same way is said in its file and in `README.md`. Failures panic: nothing is expected
//! to fail here.

mod alluvium;
#[cfg(feature = "cobble")]
mod cobble;
#[cfg(feature = "fjall")]
mod fjall;
mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Instant;

/// Receives a value, or `None`.
pub type Visit<'a> = &'a mut dyn FnMut(Option<&[u8]>);
/// Receives an entry; says whether to go on.
pub type VisitEntry<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;
/// Makes a new value of the old one, in an empty buffer.
pub type Change<'a> = &'a mut dyn FnMut(Option<&[u8]>, &mut Vec<u8>);
/// Reads a key.
pub type Get<'a> = &'a dyn Fn(&[u8], Visit<'_>);

/// What happens to a write besides the memtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Nothing: durability is the checkpoint, as in Flink.
    Off,
    /// It is in a log that survives the process.
    On,
    /// It is on stable storage when the call returns.
    Synced,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Bytes for memtables, block cache and indexes together.
    pub memory: usize,
    /// What is logged.
    pub log: Log,
    /// Values are lists that are appended to.
    pub lists: bool,
    /// Values begin with the time of their last access (`ttl`): what has expired is to be dropped behind
    /// the scenes, if the engine has a way to.
    pub ttl: bool,
}

/// Bytes at which a memtable is flushed, if `Setup::memory` allows it: Flink's default for RocksDB.
pub const MEMTABLE_BYTES: usize = 64 << 20;

/// What an ordered read visits, ascending unless it says otherwise.
#[derive(Clone, Copy, Debug)]
pub enum Scan<'a> {
    /// Everything.
    All,
    /// Everything, descending.
    AllReverse,
    /// The keys that begin with this.
    Prefix(&'a [u8]),
    /// The keys from this one on.
    From(&'a [u8]),
}

/// What is left to do of a checkpoint when the caller can write again; may be done on any thread.
pub type Finish<'a> = Box<dyn FnOnce() -> Checkpoint + Send + 'a>;

/// A finished checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    /// Bytes of the files that the checkpoint before did not have.
    pub bytes_new: u64,
    /// Bytes of all its files.
    pub bytes: u64,
}

/// An open store of byte strings.
pub trait Engine: Send + Sync {
    /// Gives a key a value.
    fn put(&self, key: &[u8], value: &[u8]);

    /// Deletes a key.
    fn delete(&self, key: &[u8]);

    /// Gives several keys values as one write.
    fn put_all(&self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>);

    /// Lends the value of a key.
    fn get(&self, key: &[u8], visit: Visit<'_>);

    /// Reads a value and writes what becomes of it, in the engine's best way for one writer.
    fn update(&self, key: &[u8], change: Change<'_>) {
        let mut new = Vec::with_capacity(64);
        self.get(key, &mut |old| change(old, &mut new));
        self.put(key, &new);
    }

    /// Lends the values of several keys with their places, in any order.
    fn multi_get(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) {
        for (i, key) in keys.iter().enumerate() {
            self.get(key, &mut |value| visit(i, value));
        }
    }

    /// Appends to the list under a key.
    fn append(&self, key: &[u8], element: &[u8]) {
        self.update(key, &mut |old, new| {
            new.extend_from_slice(old.unwrap_or_default());
            new.extend_from_slice(element);
        });
    }

    /// Visits entries in order. `false` if there is no such order.
    fn scan(&self, scan: Scan<'_>, visit: VisitEntry<'_>) -> bool;

    /// Does a key begin with `prefix`, in the engine's best way? `None` if there is no order.
    fn has_prefix(&self, prefix: &[u8]) -> Option<bool> {
        let mut found = false;
        let visit = &mut |_: &[u8], _: &[u8]| {
            found = true;
            false
        };
        self.scan(Scan::Prefix(prefix), visit).then_some(found)
    }

    /// Lends a reader of the store as it is now, whatever is written meanwhile. `false` if there is
    /// none.
    fn snapshot(&self, _f: &mut dyn FnMut(Get<'_>)) -> bool {
        false
    }

    /// Writes everything in memory to tables and waits for all compactions that are due. When they
    /// were done; `None` if it has no tables.
    fn settle(&self) -> Option<Instant>;

    /// Merges all tables down to one sorted run.
    fn compact(&self) {}

    /// Begins a checkpoint in a directory that does not exist yet. What comes after the call is in
    /// no checkpoint.
    fn checkpoint<'a>(&'a self, _into: &'a Path) -> Option<Finish<'a>> {
        None
    }

    /// Closes the store so that it can be opened again with everything.
    fn close(self: Box<Self>);
}

/// Who can take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// alluvium.
    Alluvium,
    /// RocksDB with what Flink sets.
    RocksDb,
    /// RocksDB with what helps point reads.
    RocksDbTuned,
    /// fjall 3.
    Fjall,
    /// Cobble 0.5 with what its Flink backend sets.
    Cobble,
    /// redb, a copy-on-write B+ tree.
    Redb,
    /// The standard library's hash map behind a lock: the limit of point access.
    Hash,
    /// The standard library's tree behind a lock.
    BTree,
}

impl Kind {
    /// All, built in or not.
    pub const ALL: [Kind; 8] = [
        Kind::Alluvium,
        Kind::RocksDb,
        Kind::RocksDbTuned,
        Kind::Fjall,
        Kind::Cobble,
        Kind::Redb,
        Kind::Hash,
        Kind::BTree,
    ];

    /// Is it in this build?
    pub fn is_built(self) -> bool {
        match self {
            Kind::Alluvium | Kind::Hash | Kind::BTree => true,
            Kind::RocksDb | Kind::RocksDbTuned => cfg!(feature = "rocksdb"),
            Kind::Fjall => cfg!(feature = "fjall"),
            Kind::Cobble => cfg!(feature = "cobble"),
            Kind::Redb => cfg!(feature = "redb"),
        }
    }

    /// Does it keep anything on disk?
    pub fn has_disk(self) -> bool {
        !matches!(self, Kind::Hash | Kind::BTree)
    }

    /// Is it a log-structured merge tree other than alluvium?
    pub fn is_lsm_peer(self) -> bool {
        matches!(self, Kind::RocksDb | Kind::RocksDbTuned | Kind::Fjall | Kind::Cobble)
    }

    /// Can it be closed, and opened again, in the way all others can?
    pub fn reopens(self) -> bool {
        self.has_disk() && self != Kind::Cobble
    }

    /// The engine of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.to_string() == name)
    }

    /// Opens the store in a directory, or creates it.
    pub fn open(self, dir: &Path, setup: &Setup) -> Box<dyn Engine> {
        match self {
            Kind::Alluvium => Box::new(alluvium::Alluvium::open(dir, setup)),
            #[cfg(feature = "rocksdb")]
            Kind::RocksDb => Box::new(rocksdb::Rocks::open(dir, setup, false)),
            #[cfg(feature = "rocksdb")]
            Kind::RocksDbTuned => Box::new(rocksdb::Rocks::open(dir, setup, true)),
            #[cfg(feature = "fjall")]
            Kind::Fjall => Box::new(fjall::Fjall::open(dir, setup)),
            #[cfg(feature = "cobble")]
            Kind::Cobble => Box::new(cobble::Cobble::open(dir, setup)),
            #[cfg(feature = "redb")]
            Kind::Redb => Box::new(redb::Redb::open(dir, setup)),
            Kind::Hash => Box::new(memory::Hash::default()),
            Kind::BTree => Box::new(memory::BTree::default()),
            #[allow(unreachable_patterns)]
            other => panic!("{other} is not in this build: --features peers"),
        }
    }

    /// Makes a store in `dir` out of the key groups in `groups` of a checkpoint made by
    /// [`Engine::checkpoint`]; `None` if the engine has no checkpoints.
    pub fn restore(
        self,
        from: &Path,
        groups: RangeInclusive<u16>,
        dir: &Path,
        setup: &Setup,
    ) -> Option<Box<dyn Engine>> {
        match self {
            Kind::Alluvium => Some(Box::new(alluvium::Alluvium::restore(from, groups, dir, setup))),
            #[cfg(feature = "rocksdb")]
            Kind::RocksDb | Kind::RocksDbTuned => {
                let tuned = self == Kind::RocksDbTuned;
                Some(Box::new(rocksdb::Rocks::restore(from, groups, dir, setup, tuned)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Alluvium => "alluvium",
            Kind::RocksDb => "rocksdb",
            Kind::RocksDbTuned => "rocksdb-tuned",
            Kind::Fjall => "fjall",
            Kind::Cobble => "cobble",
            Kind::Redb => "redb",
            Kind::Hash => "hash",
            Kind::BTree => "btree",
        })
    }
}
