//! The database as its edits describe it: plain data, no handles, no I/O. Replaying a manifest and
//! changing a running database are the same [`State::plan`] and [`State::commit`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::id::{FamilyId, FileNumber};
use crate::base::key::SeqNo;
use crate::base::limits::{FAMILIES_MAX, NAME_BYTES_MAX};
use crate::base::sync::Arc;
use crate::fs::Listed;
use crate::log::LogPosition;
use crate::version::edit::{CleanMarker, FamilyEdit, FamilyRecord, VersionEdit};
use crate::version::levels::{self, Levels};
use crate::version::meta::FileMeta;
use crate::version::names::FileName;

/// A snapshot's record is closed when its files' descriptions have about this many bytes.
const RECORD_BYTES: usize = 1 << 20;

/// Everything that the edits so far say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What concerns no single family.
    pub header: Header,
    /// The families.
    pub families: BTreeMap<FamilyId, Arc<FamilyState>>,
    /// Numbers of all live tables: one number, one file, in one place.
    tables: BTreeSet<FileNumber>,
}

/// What concerns no single family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The epoch; 0: nothing has been read yet.
    pub epoch: u32,
    /// The random number in the identities of files of this epoch.
    pub instance: u64,
    /// No sequence number up to this is given out again.
    pub last_seqno: SeqNo,
    /// No family gets a number below this.
    pub next_family: u32,
    /// Is the log on? `None`: never said.
    pub wal_mode: Option<bool>,
    /// The oldest log segment still needed.
    pub log_start: Option<FileNumber>,
    /// The log is durable up to here: recovery must find at least that much. Perhaps in a segment that
    /// is not needed any more.
    pub log_durable: LogPosition,
    /// Closed in order, if that was the last edit.
    pub clean: Option<CleanMarker>,
    /// Options of the layers above.
    pub options: Vec<u8>,
    /// A snapshot of several records has begun and its last one is to come.
    pub incomplete: bool,
}

impl Header {
    /// How far the log must reach: to where it is durable, unless nothing so old is needed any more.
    pub fn log_needed(&self) -> LogPosition {
        let needed = self.log_start.is_none_or(|start| self.log_durable.segment >= start);
        if needed { self.log_durable } else { LogPosition::default() }
    }

    /// How far the log is durable, for an edit that says everything: `None` if no edit has said so.
    pub fn log_durable_said(&self) -> Option<LogPosition> {
        Some(self.log_durable).filter(|durable| *durable != LogPosition::default())
    }
}

/// One family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyState {
    /// Its record, with the current flushed sequence number.
    pub record: FamilyRecord,
    /// Its files.
    pub levels: Levels<FileMeta>,
}

/// A checked change, ready to be committed to the state it was planned for.
#[derive(Debug)]
pub struct Plan {
    header: Header,
    families: BTreeMap<FamilyId, Option<Arc<FamilyState>>>,
    gone: Vec<FileNumber>,
    fresh: Vec<FileNumber>,
}

impl State {
    /// Checks that an edit fits the state (I2, I3, I7, I8: the order of levels; the log start and the
    /// flushed sequence numbers only grow; numbers are used once) and prepares it. Nothing changes.
    ///
    /// # Errors
    /// `Corruption` with what does not fit.
    pub fn plan(&self, edit: &VersionEdit) -> Result<Plan> {
        let mut plan = Plan {
            header: self.header.after(edit)?,
            families: BTreeMap::new(),
            gone: Vec::new(),
            fresh: Vec::new(),
        };
        for id in &edit.dropped {
            let family = self.families.get(id).ok_or_else(|| no_family(*id))?;
            if plan.families.insert(*id, None).is_some() || edit.families.contains_key(id) {
                return Err(Error::corruption(format!("family {id} is dropped and changed")));
            }
            plan.gone.extend(family.levels.iter().flat_map(|l| l.iter()).map(|f| f.number));
        }
        self.plan_created(edit, &mut plan)?;
        for (&id, family_edit) in &edit.families {
            let family = match plan.families.get(&id) {
                Some(created) => created.clone(),
                None => self.families.get(&id).cloned(),
            };
            let family = family.ok_or_else(|| no_family(id))?;
            let after = family.edited(family_edit, &mut plan)?;
            plan.families.insert(id, Some(Arc::new(after)));
        }
        self.check_numbers(&plan)?;
        Ok(plan)
    }

    /// Makes a planned change.
    pub fn commit(&mut self, plan: Plan) {
        self.header = plan.header;
        for (id, family) in plan.families {
            match family {
                Some(family) => self.families.insert(id, family),
                None => self.families.remove(&id),
            };
        }
        for number in &plan.gone {
            self.tables.remove(number);
        }
        self.tables.extend(plan.fresh);
    }

    /// Plans and commits.
    ///
    /// # Errors
    /// As [`plan`](State::plan); nothing has changed then.
    pub fn apply(&mut self, edit: &VersionEdit) -> Result<()> {
        let plan = self.plan(edit)?;
        self.commit(plan);
        Ok(())
    }

    /// The whole state as the edits that a new manifest begins with: the first says `snapshot`, all
    /// but the last say `more`.
    pub fn snapshot_edits(&self) -> Vec<VersionEdit> {
        let header = &self.header;
        let mut edits = vec![VersionEdit {
            snapshot: true,
            epoch: Some(header.epoch),
            instance: Some(header.instance),
            last_seqno: Some(header.last_seqno),
            next_family: Some(header.next_family),
            wal_mode: header.wal_mode,
            log_start: header.log_start,
            log_durable: header.log_durable_said(),
            clean: header.clean,
            options: (!header.options.is_empty()).then(|| header.options.clone()),
            created: self.families.values().map(|family| family.record.clone()).collect(),
            ..VersionEdit::default()
        }];
        let mut bytes = 0;
        for (&id, family) in &self.families {
            for (level, files) in family.levels.iter().enumerate() {
                for file in files.iter() {
                    if bytes > RECORD_BYTES {
                        bytes = 0;
                        edits.push(VersionEdit::default());
                    }
                    bytes += 200 + file.bounds.start.len();
                    bytes += file.bounds.end.as_ref().map_or(0, Vec::len);
                    let edit = edits.last_mut().expect("there is a first");
                    edit.family(id).added.push((level as u8, Arc::clone(file)));
                }
            }
        }
        let last = edits.len() - 1;
        edits[..last].iter_mut().for_each(|edit| edit.more = true);
        edits
    }

    /// All live tables with their family and level.
    pub fn tables(&self) -> impl Iterator<Item = (FamilyId, usize, &Arc<FileMeta>)> {
        self.families.iter().flat_map(|(&id, family)| {
            let levels = family.levels.iter().enumerate();
            levels.flat_map(move |(level, files)| files.iter().map(move |file| (id, level, file)))
        })
    }

    /// Checks, by a listing of the directory, that all live tables are there in full length.
    ///
    /// # Errors
    /// One `Corruption` that lists all that are not.
    pub fn check_files(&self, dir: &Path, listing: &[Listed]) -> Result<()> {
        let there: BTreeMap<&str, u64> =
            listing.iter().map(|listed| (listed.name.as_str(), listed.len)).collect();
        let mut faults = Vec::new();
        let mut first = None;
        for (_, _, file) in self.tables() {
            let name = FileName::Table(file.number).to_string();
            let fault = match there.get(name.as_str()) {
                Some(&len) if len == file.len => continue,
                Some(&len) => format!("{name} has {len} bytes, not {}", file.len),
                None => format!("{name} is missing"),
            };
            let len = there.get(name.as_str()).copied().unwrap_or(0);
            first.get_or_insert((dir.join(name), len.min(file.len)));
            faults.push(fault);
        }
        match first {
            None => Ok(()),
            Some((path, offset)) => {
                Err(Error::corruption(faults.join("; ")).at(offset).in_file(&path))
            }
        }
    }

    /// Names in the directory that nothing needs any more: ours, of an earlier epoch, and not live.
    /// Logs only when they are older than the log start. Files of this epoch are somebody's work, and
    /// names that are not ours are left alone.
    #[cfg(test)]
    pub fn obsolete_files(&self, listing: &[Listed]) -> Vec<String> {
        let obsolete = |listed: &&Listed| {
            let Some(name) = FileName::parse(&listed.name) else { return false };
            let earlier = name.number().is_some_and(|n| n.epoch() < self.header.epoch);
            earlier
                && match name {
                    FileName::Table(number) => !self.tables.contains(&number),
                    FileName::Log(number) => self.header.log_start.is_some_and(|s| number < s),
                    FileName::Manifest(_)
                    | FileName::CurrentTemporary(_)
                    | FileName::LogTemporary(_) => true,
                    FileName::Current => false,
                }
        };
        listing.iter().filter(obsolete).map(|listed| listed.name.clone()).collect()
    }

    /// Is this the number of a live table?
    pub fn has_table(&self, number: FileNumber) -> bool {
        self.tables.contains(&number)
    }

    fn plan_created(&self, edit: &VersionEdit, plan: &mut Plan) -> Result<()> {
        if edit.created.is_empty() {
            return Ok(());
        }
        let dropped = |id: &FamilyId| edit.dropped.contains(id);
        let there = self.families.iter().filter(|(id, _)| !dropped(id));
        let mut names: BTreeSet<&str> =
            there.map(|(_, family)| family.record.name.as_str()).collect();
        for record in &edit.created {
            if record.name.is_empty() || record.name.len() > NAME_BYTES_MAX {
                return Err(Error::corruption("a family's name has 1 to 255 bytes"));
            }
            if !names.insert(&record.name) || names.len() > FAMILIES_MAX {
                let text = format!("family {:?} exists, or there are too many", record.name);
                return Err(Error::corruption(text));
            }
            let family = FamilyState { record: record.clone(), levels: levels::empty() };
            plan.families.insert(record.id, Some(Arc::new(family)));
            plan.header.last_seqno = plan.header.last_seqno.max(record.flushed_seqno);
        }
        Ok(())
    }

    /// One number stands for one file in one place, and belongs to an epoch that has begun.
    fn check_numbers(&self, plan: &Plan) -> Result<()> {
        let mut fresh = BTreeSet::new();
        for number in &plan.fresh {
            if self.tables.contains(number) || !fresh.insert(*number) {
                return Err(Error::corruption(format!("file number {number} is used twice")));
            }
            if number.epoch() > plan.header.epoch {
                let text = format!("file {number} is of an epoch that has not begun");
                return Err(Error::corruption(text));
            }
        }
        Ok(())
    }
}

impl Header {
    /// The header after the edit, but for the flushed sequence numbers.
    ///
    /// # Errors
    /// `Corruption` if the edit does not fit.
    pub(super) fn after(&self, edit: &VersionEdit) -> Result<Header> {
        let mut header = self.clone();
        if edit.snapshot == (header.epoch > 0) {
            return Err(Error::corruption("a manifest has one snapshot, and begins with it"));
        }
        if edit.snapshot && (edit.epoch.is_none() || edit.instance.is_none()) {
            return Err(Error::corruption("a snapshot lacks epoch or instance"));
        }
        if edit.more && !edit.snapshot && !header.incomplete {
            return Err(Error::corruption("a change cannot go on in the next record"));
        }
        // A marker in a snapshot's first record outlives the snapshot's other records.
        if !header.incomplete || edit.clean.is_some() {
            header.clean = edit.clean;
        }
        header.incomplete = edit.more;
        if !edit.snapshot && (edit.epoch.is_some() || edit.instance.is_some()) {
            return Err(Error::corruption("only a snapshot begins an epoch"));
        }
        header.epoch = edit.epoch.unwrap_or(header.epoch);
        header.instance = edit.instance.unwrap_or(header.instance);
        header.wal_mode = edit.wal_mode.or(header.wal_mode);
        if let Some(options) = &edit.options {
            header.options.clone_from(options);
        }
        if let Some(seqno) = edit.last_seqno {
            grows("last sequence number", header.last_seqno, seqno)?;
            header.last_seqno = seqno;
        }
        if let Some(start) = edit.log_start {
            grows("log start", header.log_start.unwrap_or_default().0, start.0)?;
            header.log_start = Some(start);
        }
        header.log_durable = header.log_durable.max(edit.log_durable.unwrap_or_default());
        for record in &edit.created {
            grows("family number", u64::from(header.next_family), u64::from(record.id.0))?;
            let next = record.id.0.checked_add(1);
            header.next_family = next.ok_or_else(|| Error::corruption("no family number left"))?;
        }
        if let Some(next) = edit.next_family {
            grows("next family number", u64::from(header.next_family), u64::from(next))?;
            header.next_family = next;
        }
        Ok(header)
    }
}

impl FamilyState {
    fn edited(&self, edit: &FamilyEdit, plan: &mut Plan) -> Result<FamilyState> {
        let mut record = self.record.clone();
        edit.change(&mut record)?;
        plan.header.last_seqno = plan.header.last_seqno.max(record.flushed_seqno);
        for (_, file) in &edit.added {
            if file.seqno_max > record.flushed_seqno {
                return Err(Error::corruption(format!(
                    "file {} holds sequence number {}, but family {} is flushed up to {}",
                    file.number, file.seqno_max, record.id, record.flushed_seqno
                )));
            }
        }
        let mut fresh = Vec::new();
        let (levels, gone) = levels::edited(&self.levels, edit, |meta| {
            fresh.push(meta.number);
            Arc::clone(meta)
        })?;
        plan.fresh.append(&mut fresh);
        plan.gone.extend(gone.iter().map(|file| file.number));
        Ok(FamilyState { record, levels })
    }
}

impl FamilyEdit {
    /// Makes the changes to the family's record.
    ///
    /// # Errors
    /// `Corruption` if the flushed sequence number would shrink or the merge operator change.
    pub fn change(&self, record: &mut FamilyRecord) -> Result<()> {
        if let Some(seqno) = self.flushed_seqno {
            grows("flushed sequence number", record.flushed_seqno, seqno)?;
            record.flushed_seqno = seqno;
        }
        if let Some(options) = &self.options {
            record.options.clone_from(options);
        }
        if let Some(name) = &self.merge_operator {
            match &record.merge_operator {
                Some(old) if old != name => {
                    let text = format!("family {} has merge operator {old:?}", record.id);
                    return Err(Error::corruption(text));
                }
                _ => record.merge_operator = Some(name.clone()),
            }
        }
        if let Some(name) = &self.compaction_filter {
            record.compaction_filter = Some(name.clone());
        }
        Ok(())
    }
}

fn grows(what: &str, before: u64, after: u64) -> Result<()> {
    if after < before {
        return Err(Error::corruption(format!("{what} would shrink from {before} to {after}")));
    }
    Ok(())
}

#[cold]
#[track_caller]
fn no_family(id: FamilyId) -> Error {
    Error::corruption(format!("there is no family {id}"))
}
