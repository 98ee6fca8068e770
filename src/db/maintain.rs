//! Every-day calls: families, flush, compact, verify, close.

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::FamilyId;
use crate::base::key::KeyRange;
use crate::base::limits::{FAMILIES_MAX, LEVELS, NAME_BYTES_MAX};
use crate::base::sync::{Arc, Ordering};
use crate::compaction::expired::{pick_dropped, pick_rewritten};
use crate::compaction::job::Progress;
use crate::compaction::manual::{Next, RangeCompaction};
use crate::db::background::Versions;
use crate::db::column_family::{ColumnFamily, Family};
use crate::db::core::Core;
use crate::db::jobs::expired;
use crate::db::options::ColumnFamilyOptions;
use crate::db::stats::{FamilyStats, Stats, add};
use crate::db::super_version::{Cell, SuperVersion};
use crate::version::edit::{CleanMarker, FamilyEdit, FamilyRecord, VersionEdit};
use crate::version::levels::Described;

impl Core {
    /// Opens or creates a family.
    pub fn column_family(&self, name: &str, options: ColumnFamilyOptions) -> Result<ColumnFamily> {
        options.check()?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!("a family name of {} bytes", name.len())));
        }
        self.check_halted()?;
        // One creation at a time, and none beside a write: the number must be free when it is used.
        let mut state = self.stand_still()?;
        let existing = self.families.read().values().find(|family| family.name == name).cloned();
        if let Some(family) = existing {
            let join = options.concatenates();
            self.reopen_family(&family, options)?;
            if let Some(writer) = state.writer(family.id) {
                writer.mem.join_operands(join);
            }
            return Ok(ColumnFamily(family));
        }
        let id = {
            let versions = self.versions.lock();
            if versions.set.families().len() >= FAMILIES_MAX {
                return Err(Error::invalid(format!("more than {FAMILIES_MAX} families")));
            }
            FamilyId(versions.set.header().next_family)
        };
        let mut edit = VersionEdit { next_family: Some(id.0 + 1), ..VersionEdit::default() };
        edit.created.push(FamilyRecord {
            id,
            name: name.to_owned(),
            merge_operator: options.merge_operator.as_ref().map(|op| op.name().to_owned()),
            compaction_filter: options.compaction_filter.as_ref().map(|f| f.name().to_owned()),
            options: options.encode(),
            flushed_seqno: state.last_seqno,
        });
        self.apply(&mut edit, |_| {}).map_err(|e| self.edit_failed(e))?;
        let (mut mem, table) = self.new_memtable(options.memtable_bytes_max, 0);
        mem.join_operands(options.concatenates());
        let versions = self.versions.lock();
        let version = Arc::clone(&versions.set.family(id).expect("just created").version);
        let cell = Cell::new(SuperVersion { mem: table, immutables: Vec::new(), version });
        let family = Arc::new(Family::new(id, name.to_owned(), self.instance, options, cell));
        state.add_writer(Arc::clone(&family), mem);
        self.families.write().insert(id, Arc::clone(&family));
        Ok(ColumnFamily(family))
    }

    /// Gives an existing family its components and new options.
    fn reopen_family(&self, family: &Family, options: ColumnFamilyOptions) -> Result<()> {
        let record = {
            let versions = self.versions.lock();
            Arc::clone(&versions.set.family(family.id).expect("a family has a record").record)
        };
        let operator = options.merge_operator.as_ref().map(|operator| operator.name());
        match (record.merge_operator.as_deref(), operator) {
            (Some(recorded), given) if given != Some(recorded) => {
                return Err(Error::incompatible(format!(
                    "family {:?} was written with merge operator {recorded:?}, not {given:?}",
                    family.name
                )));
            }
            _ => {}
        }
        let filter = options.compaction_filter.as_ref().map(|filter| filter.name().to_owned());
        let encoded = options.encode();
        let new_operator = operator.filter(|_| record.merge_operator.is_none());
        let change = FamilyEdit {
            options: (encoded != record.options).then_some(encoded),
            merge_operator: new_operator.map(str::to_owned),
            compaction_filter: filter.filter(|f| Some(f) != record.compaction_filter.as_ref()),
            ..FamilyEdit::default()
        };
        if change != FamilyEdit::default() {
            let mut edit = VersionEdit::default();
            edit.families.insert(family.id, change);
            self.apply(&mut edit, |_| {}).map_err(|e| self.edit_failed(e))?;
        }
        family.set_options(options);
        self.signals.work(); // there may be more to do by these
        Ok(())
    }

    /// An edit that may or may not have happened stops writes; one that has not is just an error.
    fn edit_failed(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Halted { self.halt(&error) } else { error }
    }

    /// Drops a family.
    pub fn drop_family(&self, column_family: &ColumnFamily) -> Result<()> {
        let family = &column_family.0;
        let pending = |versions: &crate::db::background::Versions| {
            versions.checkpoints.iter().any(|pending| pending.needs(family.id).is_some())
        };
        loop {
            self.drive(|versions| (!pending(versions)).then_some(Ok(())))?;
            let mut state = self.stand_still()?;
            if pending(&self.versions.lock()) {
                continue; // a checkpoint began in between
            }
            self.check(column_family)?;
            let mut edit = VersionEdit { dropped: vec![family.id], ..VersionEdit::default() };
            // No job of the family begins from here on. Its part of the log stays until the drop has
            // happened; if it does not happen, the family goes on.
            family.set_dropped(true);
            let waited = self.wait_for_jobs(family).and_then(|()| match state.wal.as_mut() {
                // The drop is durable at once: nothing older may be lost after it.
                Some(wal) => wal.sync().inspect_err(|e| drop(self.halt(e))),
                None => Ok(()),
            });
            if let Err(error) = waited.and_then(|()| self.apply(&mut edit, |_| {})) {
                family.set_dropped(false);
                return Err(self.edit_failed(error));
            }
            self.families.write().remove(&family.id);
            state.writers[family.id.0 as usize] = None;
            return Ok(());
        }
    }

    /// Waits until no job works on a family that none will be begun for any more.
    fn wait_for_jobs(&self, family: &Family) -> Result<()> {
        self.drive(|versions| {
            let flushing = versions.flushing.contains(&family.id);
            let busy = versions.busy.get(&family.id).is_some_and(|busy| !busy.is_empty());
            (!flushing && !busy).then_some(Ok(()))
        })
    }

    /// Flushes these families and waits for it.
    pub fn flush(&self, families: &[Arc<Family>]) -> Result<()> {
        self.check_halted()?;
        let upto = {
            let mut state = self.stand_still()?;
            self.rotate(&mut state, |writer| families.iter().any(|f| f.id == writer.family.id));
            state.last_seqno
        };
        self.update_stall();
        self.drive(|_| {
            let waits = |family: &Arc<Family>| {
                let now = family.cell.load();
                !family.is_dropped() && now.immutables.iter().any(|waiting| waiting.upto <= upto)
            };
            (!families.iter().any(waits)).then_some(Ok(()))
        })
    }

    /// Compacts a range down to the deepest level in use.
    pub fn compact_range(&self, family: &Arc<Family>, range: &KeyRange) -> Result<()> {
        self.flush(std::slice::from_ref(family))?;
        let options = family.options().picker_options(self.options.l0_stop_depth);
        let levels = family.cell.load().version.levels.clone();
        let mut work = RangeCompaction::new(&levels, range.clone(), true);
        loop {
            self.check_halted()?;
            let mut versions = self.versions.lock();
            let live = versions.set.family(family.id).filter(|_| !family.is_dropped());
            let Some(live) = live else {
                return Err(Error::not_found(format!("column family {:?}", family.name)));
            };
            let version = Arc::clone(&live.version);
            let busy = versions.busy.entry(family.id).or_default();
            match work.next(&version.levels, &options, busy) {
                Next::Done => return Ok(()),
                Next::Run(compaction) => {
                    let job = self.claim(versions, Arc::clone(family), compaction);
                    self.run_here(job)?;
                }
                Next::Wait => {
                    let running = busy.len();
                    drop(versions);
                    self.drive(|versions| {
                        let now = versions.busy.get(&family.id).map_or(0, |busy| busy.len());
                        (now < running).then_some(Ok(()))
                    })?;
                }
            }
        }
    }

    /// Drops and rewrites what has expired, until nothing of it is to be done.
    pub fn drop_expired(&self, family: &Arc<Family>) -> Result<()> {
        loop {
            self.check_halted()?;
            let options = family.options();
            let Some(expired) = expired(&options, &self.snapshots.seqnos()) else { return Ok(()) };
            let mut versions = self.versions.lock();
            let Versions { set, busy, rewritten, .. } = &mut *versions;
            let Some(live) = set.family(family.id).filter(|_| !family.is_dropped()) else {
                return Err(Error::not_found(format!("column family {:?}", family.name)));
            };
            let (levels, busy) = (&live.version.levels, busy.entry(family.id).or_default());
            let picker = options.picker_options(self.options.l0_stop_depth);
            let part = || pick_rewritten(levels, &picker, busy, &expired, rewritten);
            let Some(compaction) = pick_dropped(levels, busy, &expired).or_else(part) else {
                return Ok(());
            };
            let job = self.claim(versions, Arc::clone(family), compaction);
            self.run_here(job)?;
        }
    }

    /// Waits until nothing is to be done, and what it made superfluous is removed.
    pub fn wait_idle(&self) -> Result<()> {
        if self.is_inline() {
            while self.step(0)? {}
            return Ok(());
        }
        loop {
            self.drive(|versions| {
                let busy = versions.busy.values().any(|busy| !busy.is_empty());
                let still = versions.flushing.is_empty() && !busy && versions.jobs == 0;
                still.then_some(Ok(()))
            })?;
            // What would be picked now is run here; nothing: idle.
            match self.pick_flush().or_else(|| self.pick_compaction()) {
                None => {
                    self.remove_obsolete();
                    return Ok(());
                }
                Some(job) => self.run_here(job)?,
            }
        }
    }

    /// Makes the log durable.
    pub fn sync_wal(&self) -> Result<()> {
        self.check_halted()?;
        let mut state = self.stand_still()?;
        let Some(wal) = state.wal.as_mut() else {
            return Err(Error::invalid("the log is off: there is nothing to sync"));
        };
        add(&self.counters.log_syncs, 1);
        wal.sync().inspect_err(|e| drop(self.halt(e)))
    }

    /// Reads and checks every table.
    pub fn verify(&self) -> Result<()> {
        for family in self.all_families() {
            let version = Arc::clone(&family.cell.load().version);
            version.check()?;
            for (_, file) in version.files() {
                file.table()?.verify(Some(file.meta().sums()))?;
            }
        }
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        let snapshots = self.snapshots.seqnos();
        let cache = self.env.cache.stats();
        let families = self.all_families();
        Stats {
            visible_seqno: self.visible(),
            snapshots: self.snapshots.count(),
            snapshot_oldest: snapshots.first().copied(),
            memory_used: self.env.budget.used(),
            memory_kept: self.kept.bytes(),
            memory_limit: self.env.budget.limit(),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            families: families.iter().map(|family| family_stats(family)).collect(),
            ..self.counters.snapshot()
        }
    }

    /// Flushes everything as one edit that says that the directory is complete. All threads have
    /// ended.
    pub fn close(&self, checkpoint_id: u64) -> Result<()> {
        self.check_halted()?;
        let mut state = self.stand_still()?;
        let last_seqno = state.last_seqno;
        self.rotate(&mut state, |_| true);
        let closed = Error::new(ErrorKind::Halted, "the database was closed");
        for pending in self.versions.lock().checkpoints.drain(..) {
            pending.fail(&closed);
        }
        let clean = CleanMarker { epoch: self.numbers.epoch(), last_seqno, checkpoint_id };
        let mut edit = VersionEdit {
            last_seqno: Some(last_seqno),
            clean: Some(clean),
            ..VersionEdit::default()
        };
        for family in self.all_families() {
            let now = family.cell.load();
            let memtables: Vec<_> = now.immutables.iter().rev().cloned().collect();
            let Some(last) = memtables.last() else { continue };
            let mut job = self.flush_job(&family, &memtables);
            let mut flushed = loop {
                if let Progress::Done(flushed) = job.step(usize::MAX >> 1)? {
                    break flushed;
                }
            };
            flushed.flushed_seqno = Some(last.upto);
            edit.families.insert(family.id, flushed);
        }
        if let Some(wal) = state.wal.as_mut() {
            wal.close()?;
        }
        self.apply(&mut edit, |_| {})?;
        self.remove_obsolete();
        self.refuse_writes(); // under the lock: nothing is committed that is not in the tables
        drop(state);
        self.let_go();
        Ok(())
    }

    /// The database is closed.
    fn refuse_writes(&self) {
        let _ = self.halt.set(Error::new(ErrorKind::Halted, "the database was closed"));
        self.attention.fetch_or(crate::db::core::attention::HALTED, Ordering::Release);
    }

    /// Lets go of the directory. Nothing is written any more, whoever still holds a part of this.
    pub fn let_go(&self) {
        self.refuse_writes();
        drop(self.commit.state.lock()); // whoever is writing has written
        // An edit that somebody is still writing is written; no other begins.
        let _manifest = self.manifest.lock();
        drop(self.lock.lock().take());
    }
}

fn family_stats(family: &Family) -> FamilyStats {
    let now = family.cell.load();
    let frozen: usize = now.immutables.iter().map(|immutable| immutable.table.bytes()).sum();
    let mut files = [0; LEVELS];
    let mut table_entries = 0;
    for (level, file) in now.version.files() {
        files[level] += 1;
        table_entries += file.meta().entries;
    }
    FamilyStats {
        name: family.name.clone(),
        memtable_bytes: now.mem.bytes() + frozen,
        immutables: now.immutables.len(),
        files,
        bytes: std::array::from_fn(|level| now.version.bytes(level)),
        table_entries,
    }
}
