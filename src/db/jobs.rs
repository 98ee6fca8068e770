//! Background jobs: what is picked, run in steps, and installed.
//!
//! A job goes through four hands: *picked* and claimed under the `versions` lock, *stepped* under no
//! lock, *recorded* in the manifest under the manifest lock, *installed* under the `versions` lock.

use crate::base::canary::Canary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::FileNumber;
use crate::base::key::{SEQNO_MAX, SeqNo};
use crate::base::sync::{Arc, MutexGuard};
use crate::compaction::below::Below;
use crate::compaction::busy::{Busy, ClaimId};
use crate::compaction::expired::{Expired, Rewritten, pick_dropped, pick_rewritten};
use crate::compaction::flush::FlushJob;
use crate::compaction::iter::Rules;
use crate::compaction::job::{CompactionJob, Progress};
use crate::compaction::output::OutputOptions;
use crate::compaction::parts::Run;
use crate::compaction::picker::{Compaction, PickerOptions, Reason, pick};
use crate::db::background::Versions;
use crate::db::column_family::Family;
use crate::db::core::Core;
use crate::db::options::ColumnFamilyOptions;
use crate::db::stats::{Event, add};
use crate::db::super_version::{Immutable, SuperVersion};
use crate::log::LogPosition;
use crate::version::edit::{FamilyEdit, VersionEdit};
use crate::version::file::TableFile;
use crate::version::levels::Described;
use crate::version::names::FileName;
use crate::version::set::Installed;
use crate::version::version::Version;

/// A compaction of at least so many bytes for each is done in parts, at the same time.
const PART_BYTES: u64 = 4 << 20;
/// A flush of memtables of at least so many bytes for each, too. In a table there is less of them.
const FLUSH_PART_BYTES: u64 = 1 << 20;

/// A unit of background work, run in steps so that anything may happen in between.
pub(in crate::db) enum Job {
    Flush {
        family: Arc<Family>,
        memtables: Vec<Immutable>,
        job: Box<FlushJob>,
    },
    /// Claimed; its first step opens the inputs, or moves the one input without opening it.
    Claimed {
        family: Arc<Family>,
        claim: ClaimId,
        compaction: Option<Box<Compaction<TableFile>>>,
    },
    Compact {
        family: Arc<Family>,
        claim: ClaimId,
        begun: SeqNo,
        /// What had expired when its filter was made, if it runs because of that.
        until: Option<i64>,
        job: Box<CompactionJob>,
    },
}

impl Job {
    pub fn is_flush(&self) -> bool {
        matches!(self, Job::Flush { .. })
    }

    /// Numbers of the files it has created.
    pub fn created(&self) -> Vec<FileNumber> {
        match self {
            Job::Flush { job, .. } => job.created(),
            Job::Compact { job, .. } => job.created(),
            Job::Claimed { .. } => Vec::new(),
        }
    }

    /// Does the parts of a large job at the same time, a compaction as long as it is wanted. The next steps
    /// do what is left.
    pub fn run_parts(
        &mut self,
        core: &Core,
        entries: usize,
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<()> {
        let run: Run<'_> = &|count, work| core.env.in_parallel(count, work);
        match self {
            Job::Flush { job, .. } => job.run_parts(entries, run),
            Job::Compact { job, .. } => job.run_parts(entries, wanted, run),
            Job::Claimed { .. } => Ok(()),
        }
    }

    /// Handles about `entries` entries; `true` when the job is done and installed.
    pub fn step(&mut self, core: &Core, entries: usize) -> Result<bool> {
        match self {
            Job::Flush { family, memtables, job } => match job.step(entries)? {
                Progress::More => return Ok(false),
                Progress::Done(edit) => core.finish_flush(family, memtables, edit)?,
            },
            Job::Compact { family, claim, begun, until, job } => match job.step(entries)? {
                Progress::More => return Ok(false),
                Progress::Done(edit) => {
                    core.finish_compaction(family, *claim, *begun, *until, job, edit)?;
                }
            },
            Job::Claimed { family, claim, compaction } => {
                let compaction = compaction.take().expect("a claimed job is begun once");
                if let Some(edit) = compaction.dropped() {
                    core.finish_drop(family, *claim, &compaction, edit)?;
                } else if let Some(edit) = compaction.moved() {
                    core.finish_move(family, *claim, &compaction, edit)?;
                } else {
                    *self = core.begin(Arc::clone(family), *claim, *compaction)?;
                    return Ok(false);
                }
            }
        }
        core.signals.work();
        Ok(true)
    }
}

impl Core {
    /// The next flush, claimed: the oldest memtables of a family that has any waiting, up to the next
    /// pending checkpoint that needs the family.
    pub fn pick_flush(&self) -> Option<Job> {
        let families = self.all_families();
        let mut versions = self.versions.lock();
        if self.check_halted().is_err() {
            return None;
        }
        for family in families {
            // Asked under the lock: whoever drops a family waits for its jobs under it.
            if family.is_dropped() || versions.flushing.contains(&family.id) {
                continue;
            }
            let memtables = flushable(&versions, &family);
            if !memtables.is_empty() {
                versions.flushing.push(family.id);
                versions.jobs += 1;
                drop(versions);
                let job = Box::new(self.flush_job(&family, &memtables));
                return Some(Job::Flush { family, memtables, job });
            }
        }
        None
    }

    /// A flush of these memtables, oldest first.
    pub fn flush_job(&self, family: &Family, memtables: &[Immutable]) -> FlushJob {
        let tables: Vec<_> = memtables.iter().map(|m| Arc::clone(&m.table)).collect();
        let snapshots = self.snapshots.seqnos();
        let operator = family.options().merge_operator.clone();
        let rules = || Rules {
            snapshots: snapshots.clone(),
            below: Below::unknown(),
            operator: operator.clone(),
            filter: None,
        };
        let bytes = tables.iter().map(|table| table.bytes() as u64).sum();
        let parts = self.env.parts(bytes, FLUSH_PART_BYTES);
        FlushJob::new(&tables, rules, &self.output_options(family, 0), parts)
    }

    fn output_options(&self, family: &Family, level: usize) -> OutputOptions {
        let options = family.options();
        let numbers = Arc::clone(&self.numbers);
        OutputOptions {
            fs: Arc::clone(self.env.fs()),
            dir: self.dir.clone(),
            instance: self.instance,
            numbers: Arc::new(move || numbers.next()),
            table: options.table_options(level, self.options.value_bytes_max),
            file_bytes: options.file_bytes,
            overlap_bytes_max: options
                .picker_options(self.options.l0_stop_depth)
                .overlap_bytes_max(),
        }
    }

    /// The next compaction of any family, claimed.
    pub fn pick_compaction(&self) -> Option<Job> {
        if self.compactions_paused() || self.check_halted().is_err() {
            return None;
        }
        let snapshots = self.snapshots.seqnos();
        for family in self.all_families() {
            let expired = expired(&family.options(), &snapshots); // asks the caller's clock: no lock
            let picker = family.options().picker_options(self.options.l0_stop_depth);
            let mut versions = self.versions.lock();
            let Versions { set, busy, rewritten, .. } = &mut *versions;
            let Some(live) = set.family(family.id) else { continue };
            if family.is_dropped() {
                continue;
            }
            let version = Arc::clone(&live.version);
            let busy = busy.entry(family.id).or_default();
            let expired = expired.as_ref();
            let compaction = choose(&picker, &version, busy, &snapshots, expired, rewritten);
            if let Some(compaction) = compaction {
                return Some(self.claim(versions, family, compaction));
            }
        }
        None
    }

    /// Claims a plan, and makes a job of it.
    pub fn claim(
        &self,
        mut versions: MutexGuard<'_, Versions>,
        family: Arc<Family>,
        compaction: Compaction<TableFile>,
    ) -> Job {
        let claim = versions.busy.entry(family.id).or_default().claim(&compaction);
        versions.jobs += 1;
        drop(versions);
        Job::Claimed { family, claim, compaction: Some(Box::new(compaction)) }
    }

    fn begin(
        &self,
        family: Arc<Family>,
        claim: ClaimId,
        compaction: Compaction<TableFile>,
    ) -> Result<Job> {
        let options = family.options();
        let output = self.output_options(&family, compaction.output_level);
        // Everything in the inputs was visible before this; what is taken later sees all of it.
        let (snapshots, begun) = self.snapshots.seqnos_and_visible(&self.visible);
        // Before the filter is made, which asks the clock too: what expires in between is no rewrite's.
        let until = expired(&options, &[]).map(|expired| expired.until);
        let until = until.filter(|_| compaction.reason == Reason::Expired);
        let rules = || Rules {
            snapshots: snapshots.clone(),
            below: Below::unknown(),
            operator: options.merge_operator.clone(),
            filter: options.compaction_filter.as_ref().map(|factory| factory.create()),
        };
        let down = compaction.output_level > compaction.level;
        let parts = if down { self.env.parts(compaction.bytes(), PART_BYTES) } else { 1 };
        let job = Box::new(CompactionJob::new(compaction, rules, &output, parts)?);
        Ok(Job::Compact { family, claim, begun, until, job })
    }

    /// Claims are given back; memtables may be flushed again.
    pub fn release(&self, job: &Job) {
        let mut versions = self.versions.lock();
        match job {
            Job::Flush { family, .. } => versions.flushing.retain(|id| *id != family.id),
            Job::Compact { family, claim, .. } | Job::Claimed { family, claim, .. } => {
                if let Some(busy) = versions.busy.get_mut(&family.id) {
                    busy.release(*claim);
                }
            }
        }
    }
}

/// The next compaction of a family: first what costs nothing, last what can wait.
fn choose(
    picker: &PickerOptions,
    version: &Version,
    busy: &Busy,
    snapshots: &[SeqNo],
    expired: Option<&Expired>,
    done: &Rewritten,
) -> Option<Compaction<TableFile>> {
    let oldest = snapshots.first().copied().unwrap_or(SEQNO_MAX);
    let dropped = expired.and_then(|e| pick_dropped(&version.levels, busy, e));
    let rewritten = || pick_rewritten(&version.levels, picker, busy, expired?, done);
    let due = || pick(&version.levels, picker, busy, oldest, version.asked());
    dropped.or_else(due).or_else(rewritten)
}

/// What has expired in a family by now, given the numbers of all snapshots, ascending.
pub(in crate::db) fn expired(
    options: &ColumnFamilyOptions,
    snapshots: &[SeqNo],
) -> Option<Expired> {
    let until = options.compaction_filter.as_ref()?.expired_until()?;
    let extractor = options.timestamp.as_ref()?.name().to_owned();
    Some(Expired { until, extractor, newest_snapshot: snapshots.last().copied() })
}

/// A family's memtables that one flush may take, oldest first: none from the other side of a pending
/// checkpoint than the oldest.
fn flushable(versions: &Versions, family: &Family) -> Vec<Immutable> {
    let now = family.cell.load();
    let pending = versions.checkpoints.iter().filter_map(|pending| pending.needs(family.id));
    let limit = pending.min().filter(|_| !Canary::FlushTakesLater.is_planted());
    let limit = limit.unwrap_or(SeqNo::MAX);
    now.immutables.iter().rev().take_while(|immutable| immutable.upto <= limit).cloned().collect()
}

impl Core {
    /// Installs a flush: the tables replace the memtables for every reader at once, slots of pending
    /// checkpoints are filled, and log segments that are no longer needed go.
    fn finish_flush(
        &self,
        family: &Arc<Family>,
        memtables: &[Immutable],
        mut edit: FamilyEdit,
    ) -> Result<()> {
        let flushed = memtables.last().expect("a flush has memtables").upto;
        edit.flushed_seqno = Some(flushed);
        let log_durable = self.sync_log_for(family, flushed)?;
        let bytes = edit.added.iter().map(|(_, meta)| meta.len).sum();
        let numbers: Vec<_> = edit.added.iter().map(|(_, meta)| meta.number).collect();
        let mut whole = VersionEdit { log_durable, ..VersionEdit::default() };
        whole.families.insert(family.id, edit);
        self.apply(&mut whole, |versions| {
            versions.flushing.retain(|id| *id != family.id);
            // Before anybody sees the tables: who waits for the flush finds it counted.
            add(&self.counters.flushes, 1);
            add(&self.counters.flush_bytes, bytes);
        })?;
        if let [alone] = memtables {
            let now = family.cell.load();
            let flushed = |file: &&Arc<TableFile>| numbers.contains(&file.meta().number);
            let files: Vec<_> = now.version.levels[0].iter().filter(flushed).collect();
            self.kept.keep(&alone.table, &files);
        }
        let (family, memtables) = (family.name.clone(), memtables.len());
        self.tell(&Event::Flushed { family, memtables, bytes });
        Ok(())
    }

    /// A table must not make a commit durable while an older one, in another family, is only in the
    /// log's unsynced tail: a power cut would leave a hole. Syncs the segments by name, since the
    /// commit lock is not for background work, and returns up to where: the log itself does not say
    /// so, and damage there must not look like a tear, which would leave the same hole.
    fn sync_log_for(&self, family: &Family, flushed: SeqNo) -> Result<Option<LogPosition>> {
        if !self.options.log {
            return Ok(None);
        }
        let older = |other: &Arc<Family>| {
            let oldest = other.cell.load().unflushed_min(0);
            other.id != family.id && oldest.is_some_and(|oldest| oldest <= flushed)
        };
        if !self.families.read().values().any(older) {
            return Ok(None);
        }
        let end = self.segments.end();
        let (closed, open) = self.segments.list();
        for number in closed.iter().map(|segment| segment.number).chain([open]) {
            let path = self.dir.join(FileName::Log(number).to_string());
            if let Err(e) = self.env.fs.sync_file(&path)
                && !self.segments.is_gone(number)
            {
                let failed = "the log could not be synced before a flush";
                return Err(Error::because(ErrorKind::CommitUnknown, failed, &e));
            }
        }
        Ok(Some(end))
    }

    fn finish_compaction(
        &self,
        family: &Arc<Family>,
        claim: ClaimId,
        begun: SeqNo,
        until: Option<i64>,
        job: &CompactionJob,
        edit: FamilyEdit,
    ) -> Result<()> {
        let bytes_written = edit.added.iter().map(|(_, meta)| meta.len).sum();
        let compaction = job.compaction();
        let (level, output_level) = (compaction.level, compaction.output_level);
        let reason = format!("{:?}", compaction.reason);
        let bytes_read = compaction.bytes();
        let mut whole = VersionEdit::default();
        whole.families.insert(family.id, edit);
        let added: Vec<_> =
            whole.families[&family.id].added.iter().map(|(_, m)| m.number).collect();
        let release = |versions: &mut Versions| {
            versions.busy.get_mut(&family.id).expect("claimed").release(claim);
            for (_, input) in compaction.files() {
                versions.rewritten.remove(&input.meta().number);
            }
            versions
                .rewritten
                .extend(until.into_iter().flat_map(|until| added.iter().map(move |n| (*n, until))));
        };
        // A snapshot that was taken while a filter worked would see values go. None is taken while
        // the outcome is installed; if one was before, the outcome is thrown away.
        let held = (job.counts().filtered > 0).then(|| self.snapshots.hold());
        if held.as_ref().is_some_and(|list| list.newest() >= Some(begun)) {
            drop(held);
            let mut versions = self.versions.lock();
            release(&mut versions);
            if compaction.reason == Reason::Scans
                && let Some(live) = versions.set.family(family.id)
            {
                live.version.forget_asked();
            }
            drop(versions);
            job.created().iter().for_each(|number| self.remove_table(*number));
            return Ok(());
        }
        self.apply(&mut whole, release)?;
        drop(held);
        add(&self.counters.compactions, 1);
        add(&self.counters.compaction_bytes_read, bytes_read);
        add(&self.counters.compaction_bytes_written, bytes_written);
        let family = family.name.clone();
        self.tell(&Event::Compacted {
            family,
            reason,
            level,
            output_level,
            bytes_read,
            bytes_written,
        });
        Ok(())
    }

    /// Takes tables out of which everything has expired. None of them was read.
    fn finish_drop(
        &self,
        family: &Arc<Family>,
        claim: ClaimId,
        compaction: &Compaction<TableFile>,
        edit: FamilyEdit,
    ) -> Result<()> {
        let release = |versions: &mut Versions| {
            versions.busy.get_mut(&family.id).expect("claimed").release(claim);
        };
        // As after a filter: a snapshot that was taken since would see values go.
        let held = self.snapshots.hold();
        let least = compaction.files().map(|(_, file)| file.meta().seqno_min).min();
        if held.newest() >= least {
            drop(held);
            release(&mut self.versions.lock());
            return Ok(());
        }
        let mut whole = VersionEdit::default();
        whole.families.insert(family.id, edit);
        self.apply(&mut whole, release)?;
        drop(held);
        add(&self.counters.drops, compaction.files().count() as u64);
        add(&self.counters.bytes_dropped, compaction.bytes());
        self.tell(&Event::Dropped {
            family: family.name.clone(),
            tables: compaction.files().count(),
            bytes: compaction.bytes(),
        });
        Ok(())
    }

    fn finish_move(
        &self,
        family: &Arc<Family>,
        claim: ClaimId,
        compaction: &Compaction<TableFile>,
        edit: FamilyEdit,
    ) -> Result<()> {
        let mut whole = VersionEdit::default();
        whole.families.insert(family.id, edit);
        self.apply(&mut whole, |versions| {
            versions.busy.get_mut(&family.id).expect("claimed").release(claim);
        })?;
        add(&self.counters.moves, 1);
        self.tell(&Event::Compacted {
            family: family.name.clone(),
            reason: format!("{:?}", compaction.reason),
            level: compaction.level,
            output_level: compaction.output_level,
            bytes_read: 0,
            bytes_written: 0,
        });
        Ok(())
    }

    /// Records an edit, then installs it: the one way in which the set of live files changes.
    /// `claimed` frees what the job had claimed, at the moment of installation.
    ///
    /// # Errors
    /// `NoSpace`: nothing happened. `Halted`: writes have stopped, or it is unknown whether the edit will be there after a
    /// reopen; its files must stay.
    pub fn apply(&self, edit: &mut VersionEdit, claimed: impl FnOnce(&mut Versions)) -> Result<()> {
        let mut manifest = self.manifest.lock();
        self.check_halted()?;
        let dead_segments = self.dead_segments(edit);
        manifest.append(edit)?;
        let mut versions = self.versions.lock();
        claimed(&mut versions);
        let installed = versions.set.install(edit);
        self.publish(&mut versions, &installed);
        self.update_stall_locked(&versions);
        drop(versions);
        drop(manifest);
        self.progress.notify_all();
        drop(installed); // may close files
        self.segments.forget(&dead_segments);
        for number in dead_segments {
            let _ = self.env.fs.remove(&self.dir.join(FileName::Log(number).to_string()));
        }
        Ok(())
    }

    /// Puts new versions into the families' cells, without the memtables that they replace, and
    /// captures them for the checkpoints that waited for them.
    fn publish(&self, versions: &mut Versions, installed: &Installed) {
        for (id, live) in &installed.changed {
            let Some(family) = self.family(*id) else { continue };
            let flushed = live.record.flushed_seqno;
            for replaced in family.cell.load().immutables.iter().filter(|i| i.upto <= flushed) {
                self.holders.flushed(&family, &replaced.table);
            }
            let without_flushed = |old: &SuperVersion, version: &Arc<Version>| SuperVersion {
                mem: Arc::clone(&old.mem),
                immutables: old.immutables.iter().filter(|i| i.upto > flushed).cloned().collect(),
                version: Arc::clone(version),
            };
            if Canary::MemtablesGoFirst.is_planted() {
                family.cell.update(|old| without_flushed(old, &old.version));
            }
            family.cell.update(|old| without_flushed(old, &live.version));
            versions
                .checkpoints
                .retain(|pending| !pending.fill(&live.record, &live.version, flushed));
        }
    }

    /// Closed log segments that nothing needs once `edit` has happened; says in the edit where the
    /// log begins without them.
    fn dead_segments(&self, edit: &mut VersionEdit) -> Vec<FileNumber> {
        // First the segments, then what is in memory: a segment is closed after all of it was applied.
        let (closed, open) = self.segments.list();
        let unflushed = |family: &Arc<Family>| {
            let flushed = edit.families.get(&family.id).and_then(|edit| edit.flushed_seqno);
            family.cell.load().unflushed_min(flushed.unwrap_or(0))
        };
        let oldest = self.families.read().values().filter_map(unflushed).min();
        let needed = |seqno: SeqNo| oldest.is_some_and(|oldest| oldest <= seqno);
        let dead = closed.partition_point(|s| s.number < open && !needed(s.last_seqno));
        if dead > 0 {
            edit.log_start = Some(closed.get(dead).map_or(open, |segment| segment.number));
        }
        closed[..dead].iter().map(|segment| segment.number).collect()
    }
}

/// Is this an outcome after which the files of an edit must be kept?
pub(in crate::db) fn keeps_files(error: &Error) -> bool {
    error.kind() == ErrorKind::Halted
}
