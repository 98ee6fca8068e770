//! Checkpoints: the whole database at one sequence number, as a set of immutable files.
//!
//! The synchronous part rotates every memtable at one sequence number `S` and leaves a slot for each
//! family that has something to flush. The flush that brings a family up to `S` fills its slot with
//! the version it installs, under the `versions` lock: a flush never takes memtables from both sides
//! of a pending `S`, later flushes are not in that version yet, and compactions can only have
//! combined files that were. So no file of the set holds an entry above `S`; it is asserted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::base::error::{Error, Result};
use crate::base::id::{FamilyId, FileId, FileNumber};
use crate::base::key::{KeyRange, SeqNo};
use crate::base::sync::{Arc, Mutex};
use crate::db::census::Census;
use crate::db::core::Core;
use crate::db::stats::Event;
use crate::fs::Fs;
use crate::version::edit::FamilyRecord;
use crate::version::levels::Described;
use crate::version::meta::FileMeta;
use crate::version::names::FileName;
use crate::version::version::Version;

/// A checkpoint whose files are not complete yet.
pub(in crate::db) struct Pending {
    pub seqno: SeqNo,
    state: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// Families with memtables to flush, and up to where these reach.
    missing: BTreeMap<FamilyId, SeqNo>,
    captured: BTreeMap<FamilyId, Captured>,
    failure: Option<Error>,
}

struct Captured {
    record: FamilyRecord,
    version: Arc<Version>,
}

impl Pending {
    /// Does this checkpoint wait for flushes of the family, and up to where?
    pub fn needs(&self, family: FamilyId) -> Option<SeqNo> {
        self.state.lock().missing.get(&family).copied()
    }

    /// A flush has brought the family up to `flushed`: fills the slot if it was waiting for that.
    /// Returns whether nothing is missing any more.
    pub fn fill(&self, record: &FamilyRecord, version: &Arc<Version>, flushed: SeqNo) -> bool {
        let mut slots = self.state.lock();
        if slots.missing.get(&record.id).is_some_and(|upto| flushed >= *upto) {
            slots.missing.remove(&record.id);
            slots.capture(record, version, self.seqno);
        }
        slots.missing.is_empty()
    }

    /// Completes every slot with an error.
    pub fn fail(&self, error: &Error) {
        let mut slots = self.state.lock();
        slots.missing.clear();
        slots.captured.clear();
        slots.failure.get_or_insert_with(|| error.clone());
    }

    fn is_complete(&self) -> bool {
        self.state.lock().missing.is_empty()
    }
}

impl Slots {
    fn capture(&mut self, record: &FamilyRecord, version: &Arc<Version>, seqno: SeqNo) {
        let newest = version.files().map(|(_, file)| file.meta().seqno_max).max().unwrap_or(0);
        assert!(newest <= seqno, "a file set at {seqno} holds an entry at {newest}");
        let record = record.clone();
        self.captured.insert(record.id, Captured { record, version: Arc::clone(version) });
    }
}

impl Core {
    /// The synchronous part of a checkpoint: pointer work under the commit and versions locks.
    pub fn checkpoint(self: &Arc<Self>) -> Result<PendingCheckpoint> {
        self.check_halted()?;
        let mut state = self.stand_still()?;
        let seqno = state.last_seqno;
        self.rotate(&mut state, |_| true);
        let mut versions = self.versions.lock();
        let mut slots = Slots::default();
        for family in self.families.read().values() {
            let now = family.cell.load();
            match now.immutables.first() {
                None => {
                    let live = versions.set.family(family.id).expect("a family has a record");
                    slots.capture(&live.record, &now.version, seqno);
                }
                Some(newest) => drop(slots.missing.insert(family.id, newest.upto)),
            }
        }
        let pending = Arc::new(Pending { seqno, state: Mutex::new(slots) });
        if !pending.is_complete() {
            versions.checkpoints.push(Arc::clone(&pending));
        }
        self.update_stall_locked(&versions);
        drop(versions);
        drop(state);
        self.signals.work();
        Ok(PendingCheckpoint { core: Arc::clone(self), pending })
    }
}

/// A checkpoint that has been fixed and is being completed in the background.
///
/// Dropping it gives it up and frees what it pins.
pub struct PendingCheckpoint {
    core: Arc<Core>,
    pending: Arc<Pending>,
}

impl PendingCheckpoint {
    /// The checkpoint is the database as it was at this sequence number.
    pub fn seqno(&self) -> SeqNo {
        self.pending.seqno
    }

    /// Are all files there? Then [`wait`](PendingCheckpoint::wait) returns at once.
    pub fn is_complete(&self) -> bool {
        self.pending.is_complete()
    }

    /// Waits for the flushes that complete the set; runs them itself when no threads do.
    ///
    /// # Errors
    /// What stopped a flush.
    pub fn wait(self) -> Result<FileSet> {
        let pending = Arc::clone(&self.pending);
        self.core.drive(|_| pending.is_complete().then_some(Ok(())))?;
        let mut slots = self.pending.state.lock();
        if let Some(error) = &slots.failure {
            return Err(Error::because(error.kind(), "the checkpoint was given up", error));
        }
        let families = std::mem::take(&mut slots.captured).into_values();
        let families = families.map(|c| SetFamily { record: c.record, version: c.version });
        let set = FileSet {
            seqno: self.pending.seqno,
            families: families.collect(),
            fs: Arc::clone(self.core.env.fs()),
            dir: self.core.dir.clone(),
        };
        drop(slots);
        self.core.tell(&Event::Captured { seqno: set.seqno, files: set.tables().count() });
        Ok(set)
    }
}

impl Drop for PendingCheckpoint {
    fn drop(&mut self) {
        let mut versions = self.core.versions.lock();
        versions.checkpoints.retain(|pending| !Arc::ptr_eq(pending, &self.pending));
    }
}

impl fmt::Debug for PendingCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingCheckpoint({})", self.seqno())
    }
}

/// The database at one sequence number, as immutable files, which stay on disk while the set is held
/// and the database is open.
pub struct FileSet {
    seqno: SeqNo,
    families: Vec<SetFamily>,
    fs: Arc<dyn Fs>,
    dir: PathBuf,
}

/// One family of a [`FileSet`].
pub struct SetFamily {
    record: FamilyRecord,
    version: Arc<Version>,
}

/// One table of a [`FileSet`].
#[derive(Clone, Debug)]
pub struct SetTable {
    /// Level of the tree; within level 0, tables come newest first.
    pub level: u8,
    /// Its number in the database that captured it.
    pub number: FileNumber,
    /// Its identity for ever.
    pub id: FileId,
    /// Length in bytes.
    pub len: u64,
    /// BLAKE3 of all its bytes.
    pub digest: [u8; 32],
    /// XXH3-128 of all its bytes.
    pub checksum: u128,
    /// The keys for which it is asked.
    pub bounds: KeyRange,
    /// The whole description in its stored form (F4.2).
    pub meta: Vec<u8>,
    /// Where it lies.
    pub path: PathBuf,
}

impl FileSet {
    /// The set is the database as it was at this sequence number.
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// The families, in the order of their creation.
    pub fn families(&self) -> &[SetFamily] {
        &self.families
    }

    /// All tables of all families.
    pub fn tables(&self) -> impl Iterator<Item = SetTable> {
        self.families.iter().flat_map(|family| self.tables_of(family))
    }

    /// The tables of one family, level by level.
    pub fn tables_of<'a>(&'a self, family: &'a SetFamily) -> impl Iterator<Item = SetTable> + 'a {
        let levels = family.version.levels.iter().enumerate();
        levels.flat_map(move |(level, files)| {
            files.iter().map(move |file| self.table(level as u8, file.meta()))
        })
    }

    fn table(&self, level: u8, meta: &FileMeta) -> SetTable {
        let mut encoded = Vec::new();
        meta.encode_into(&mut encoded);
        SetTable {
            level,
            number: meta.number,
            id: meta.id,
            len: meta.len,
            digest: meta.digest,
            checksum: meta.checksum,
            bounds: meta.bounds.clone(),
            meta: encoded,
            path: self.dir.join(FileName::Table(meta.number).to_string()),
        }
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.tables().map(|table| table.len).sum()
    }

    /// The file system on which the tables lie.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }
}

impl SetFamily {
    /// Name of the family.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Name of the merge operator that its operands need.
    pub fn merge_operator(&self) -> Option<&str> {
        self.record.merge_operator.as_deref()
    }

    /// Its recorded options, opaque.
    pub fn options(&self) -> &[u8] {
        &self.record.options
    }

    /// What its tables hold of each key group, in the stored form (F4.4): counts and hashes that an
    /// import of parts of it is compared with. Empty if a table was written with
    /// [`key_group_bytes`](crate::ColumnFamilyOptions::key_group_bytes) of 0, which counts nothing.
    /// Opens tables that are not open yet.
    ///
    /// # Errors
    /// `Io` or `Corruption` from a table.
    pub fn census(&self) -> Result<Vec<u8>> {
        let mut census = Census::default();
        for (_, file) in self.version.files() {
            let table = file.table()?;
            census.add(table.path(), &file.meta().bounds, table.properties());
        }
        Ok(census.encode())
    }
}

impl fmt::Debug for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileSet({}, {} tables)", self.seqno, self.tables().count())
    }
}
