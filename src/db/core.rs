//! What all parts of a database share. DESIGN.md, *Locks and orderings*, says which lock protects what, and which
//! comes before which.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{FamilyId, FileNumber};
use crate::base::key::SeqNo;
use crate::base::sync::{
    Arc, AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, OnceLock, Ordering, Receiver, RwLock,
};
use crate::cache::budget::Member;
use crate::db::background::{Signals, Versions};
use crate::db::column_family::{ColumnFamily, Family};
use crate::db::commit::Commit;
use crate::db::holders::Holders;
use crate::db::options::{Env, Options};
use crate::db::snapshot::SnapshotList;
use crate::db::stats::{Counters, Event};
use crate::db::wal::Segments;
use crate::fs::FileLock;
use crate::memtable::ReadPins;
use crate::version::kept::KeptMemTables;
use crate::version::manifest::ManifestWriter;
use crate::version::names::FileNumbers;

/// Something the next writer must look at before it goes on.
pub(in crate::db) mod attention {
    /// Writes have stopped.
    pub const HALTED: u32 = 1;
    /// A family has too many memtables or level-0 tables.
    pub const STALL: u32 = 2;
    /// Memory is short: the largest memtable is to be rotated.
    pub const ROTATE: u32 = 4;
}

/// A database, as its own parts see it.
pub(in crate::db) struct Core {
    /// Constant.
    pub dir: PathBuf,
    /// Constant.
    pub options: Options,
    /// Constant.
    pub env: Env,
    /// Random, of this opening. Constant.
    pub instance: u64,
    /// Gives out the file numbers of this epoch.
    pub numbers: Arc<FileNumbers>,
    /// The last sequence number that readers see: one Release store a group, one Acquire load a read.
    pub visible: AtomicU64,
    /// Bits of [`attention`].
    pub attention: AtomicU32,
    pub commit: Commit,
    pub manifest: Mutex<ManifestWriter>,
    pub versions: Mutex<Versions>,
    /// Signalled, with `versions`, when a job has ended or a checkpoint is complete.
    pub progress: Condvar,
    pub families: RwLock<BTreeMap<FamilyId, Arc<Family>>>,
    pub snapshots: Arc<SnapshotList>,
    /// What must not be overwritten in place.
    pub read_pins: Arc<ReadPins>,
    pub holders: Holders,
    /// Flushed memtables that are the cache of their files.
    pub kept: Arc<KeptMemTables>,
    pub segments: Arc<Segments>,
    pub counters: Counters,
    /// The budget's wish that this database give memory back.
    pub pressure: Receiver<()>,
    /// Memory of this database's memtables.
    pub member: Member,
    /// Numbers of tables whose last reference is gone.
    pub sweep: Receiver<FileNumber>,
    /// Held while such tables are removed. No other lock is taken under it.
    pub sweeping: Mutex<()>,
    /// Set once, by the first failure that stops writes.
    pub halt: OnceLock<Error>,
    pub signals: Signals,
    /// No compaction is wanted for now.
    pub paused: AtomicBool,
    /// Background work is to end.
    pub stopping: AtomicBool,
    /// Held for as long as the database is open; readers may outlive that.
    pub lock: Mutex<Option<Box<dyn FileLock>>>,
}

impl Core {
    /// The last sequence number that readers may see.
    #[inline]
    pub fn visible(&self) -> SeqNo {
        self.visible.load(Ordering::Acquire)
    }

    /// Stops writes for good because of `cause`, and returns the error that all later writes get.
    #[cold]
    pub fn halt(&self, cause: &Error) -> Error {
        let first = self.halt.get().is_none();
        let _ = self.halt.set(cause.clone());
        self.attention.fetch_or(attention::HALTED, Ordering::Release);
        // Under the lock, so that a waiter either sees the halt or is woken by it.
        let pending = std::mem::take(&mut self.versions.lock().checkpoints);
        let halted = self.halted();
        pending.iter().for_each(|pending| pending.fail(&halted));
        self.progress.notify_all();
        if first {
            self.tell(&Event::Halted(cause.clone()));
        }
        halted
    }

    /// The error of a halted database.
    #[cold]
    pub fn halted(&self) -> Error {
        let cause = self.halt.get().expect("halted");
        Error::because(ErrorKind::Halted, "an earlier failure stopped writes", cause)
    }

    /// `Halted` if writes have stopped.
    pub fn check_halted(&self) -> Result<()> {
        if self.halt.get().is_some() { Err(self.halted()) } else { Ok(()) }
    }

    /// Tells the listener.
    pub fn tell(&self, event: &Event) {
        if let Some(listener) = &self.env.listener {
            listener(event);
        }
    }

    /// Refuses handles of other databases and of dropped families.
    #[inline]
    pub fn check(&self, family: &ColumnFamily) -> Result<()> {
        if family.0.instance != self.instance || family.0.is_dropped() {
            return Err(foreign(family));
        }
        Ok(())
    }

    /// The family with this number.
    pub fn family(&self, id: FamilyId) -> Option<Arc<Family>> {
        self.families.read().get(&id).cloned()
    }

    /// All families, by number.
    pub fn all_families(&self) -> Vec<Arc<Family>> {
        self.families.read().values().cloned().collect()
    }

    /// Are jobs run by the callers?
    pub fn is_inline(&self) -> bool {
        self.env.background == crate::db::options::Background::Inline
    }
}

#[cold]
fn foreign(family: &ColumnFamily) -> Error {
    match family.0.is_dropped() {
        true => Error::not_found(format!("column family {:?} was dropped", family.name())),
        false => {
            Error::invalid(format!("column family {:?} is of another database", family.name()))
        }
    }
}
