//! A damaged database, as far as something can be proved of it, in a new directory.
//!
//! 1. The state is what a manifest tells up to its end or its first damage; the log is read up to the
//!    first place that cannot be trusted: `evidence.rs`.
//! 2. Of each family the sound blocks of all its tables are merged as a compaction to the last level
//!    would. A block that cannot be read hides all its keys, in every table that is not newer: an older
//!    version below it may have been overwritten or deleted by what is lost.
//! 3. The log's batches follow, whole, in their order.
//!
//! What comes out has sequence numbers of its own. Merge operands are taken along as they are.

mod evidence;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::id::FamilyId;
use crate::base::key::{KeyRange, SEQNO_MAX, SeqNo, ValueKind};
use crate::base::limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX};
use crate::base::sync::{Arc, unbounded};
use crate::batch::{BatchReader, Op, WriteBatch};
use crate::compaction::below::Below;
use crate::compaction::iter::{CompactionIterator, Rules};
use crate::db::Db;
use crate::db::column_family::ColumnFamily;
use crate::db::options::{ColumnFamilyOptions, Env, Options, WriteOptions};
use crate::db::salvage::evidence::{Evidence, SoundLog};
use crate::iter::merging::MergingIterator;
use crate::iter::range_del::{RangeTombstone, RangeTombstones};
use crate::iter::resolve::MergeOperator;
use crate::log::LogReader;
use crate::table::salvage::SoundEntries;
use crate::version::file::{TableFile, TableOpener};
use crate::version::meta::FileMeta;
use crate::version::names::FileName;

/// Entries are written in batches of about so many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// What [`Db::salvage`] has written, and what it could not.
#[derive(Clone, Debug, Default)]
pub struct Salvaged {
    /// The result holds every write up to this sequence number, in all families.
    pub seqno: SeqNo,
    /// Why it may hold something else besides, or lack something before. Empty: the result *is* the
    /// database as it was at [`seqno`](Salvaged::seqno), with nothing missing and nothing newer.
    pub doubts: Vec<String>,
    /// What was not used, each with its file and offset.
    pub dropped: Vec<Error>,
    /// Keys, by family, of which nothing is taken along unless it is newer than what is lost.
    pub lost: Vec<(String, KeyRange)>,
    /// Tables that were looked at.
    pub tables: u64,
    /// Versions of keys that were taken from tables.
    pub entries: u64,
    /// Batches that were taken from the log.
    pub batches: u64,
}

impl Db {
    /// Writes into the new directory `out` what can be proved of the database in `dir`, which is not
    /// open and is not written to, and perhaps only up to sequence number `upto`.
    ///
    /// Everything that is taken along passed its checksum at the place it was written for. Of the
    /// log, that is its beginning up to the first damage or gap, never what stands behind; of the
    /// tables, every block that can be read; of one whose footer, index, filter, properties or range
    /// tombstones cannot be read, nothing. Where a block is lost, so are its keys, with all older
    /// versions of them: no older value comes back, and no delete is undone.
    ///
    /// *What is proved*: if [`Salvaged::doubts`] is empty, the result is a prefix of the history:
    /// exactly the database at [`Salvaged::seqno`]. That is so if every table is sound and none holds
    /// anything newer than the end of the log that is left. Else the doubts say what may be missing
    /// or be newer than the rest; each single key then still has a value that it had, except for
    /// values that were derived from lost ones by whoever wrote them. The proof is by checksums: it
    /// tells damage, not forgery. A log that was cut by a power failure is whole, as it is for `open`.
    ///
    /// Merge operators and filters are not needed: operands are kept, and the family is to be opened
    /// with the operator that it was written with. With `dir` open elsewhere: `Busy`.
    ///
    /// The result was closed in order and can be opened with the log on or off; if this call fails it
    /// cannot be opened at all. Costs two passes over the tables and one over the log.
    ///
    /// # Errors
    /// `InvalidArgument`: there are files in `out`. `NotFound`, `Busy`: as for [`Db::open`]. `Corruption`:
    /// no manifest can be read, so that nobody knows which table belongs to which family.
    /// `Unsupported`: a newer build wrote the manifest or the log. Those of reading and writing. A table
    /// that another build could read counts as lost, and [`Salvaged::dropped`] says so.
    pub fn salvage(dir: &Path, out: &Path, upto: Option<SeqNo>, env: Env) -> Result<Salvaged> {
        let fs = Arc::clone(env.fs());
        let mut evidence = Evidence::collect(&fs, dir)?;
        let log = evidence.read_log()?;
        fs.create_dir(out)?;
        if !fs.list(out)?.is_empty() {
            return Err(Error::invalid("a new directory is needed").in_file(out));
        }
        // Without a log, what is not finished is refused when it is opened.
        let value_bytes_max = BATCH_BYTES_MAX / 2;
        let options = Options { log: false, value_bytes_max, ..Options::default() };
        let salvage = Salvage {
            db: Db::open(out, options, env)?,
            evidence,
            upto: upto.unwrap_or(SEQNO_MAX),
            batch: WriteBatch::new(),
            families: BTreeMap::new(),
            newest: 0,
            found: Salvaged::default(),
        };
        salvage.run(log)
    }
}

struct Salvage {
    db: Db,
    evidence: Evidence,
    upto: SeqNo,
    /// Not written yet.
    batch: WriteBatch,
    families: BTreeMap<FamilyId, Family>,
    /// The greatest sequence number that was taken along.
    newest: SeqNo,
    found: Salvaged,
}

/// A family on its way.
struct Family {
    handle: ColumnFamily,
    name: String,
    flushed: SeqNo,
    lost: Vec<KeyRange>,
    /// The same, to be searched.
    hidden: RangeTombstones,
    /// Keys in lost ranges that something newer than what is lost has decided.
    decided: BTreeSet<Vec<u8>>,
    /// Merge operands whose keys are lost.
    baseless: u64,
}

impl Family {
    /// Is nothing known of what this key was?
    fn is_lost(&self, key: &[u8]) -> bool {
        self.hidden.cover(key, SEQNO_MAX) > 0 && !self.decided.contains(key)
    }

    fn decide(&mut self, key: &[u8]) {
        if self.is_lost(key) {
            self.decided.insert(key.to_vec());
        }
    }
}

impl Salvage {
    fn run(mut self, log: SoundLog) -> Result<Salvaged> {
        self.create_families()?;
        let ids: Vec<FamilyId> = self.families.keys().copied().collect();
        for id in ids {
            self.copy_tables(id)?;
        }
        let complete = self.replay(log)?;
        self.judge(complete);
        let Salvage { db, families, evidence, mut found, .. } = self;
        for family in families.into_values() {
            if family.baseless > 0 {
                let (name, count) = (&family.name, family.baseless);
                let text =
                    format!("family {name:?}: {count} merge operands of lost values left out");
                found.doubts.push(text);
            }
            found.lost.extend(family.lost.into_iter().map(|range| (family.name.clone(), range)));
        }
        found.dropped = evidence.dropped;
        db.close()?;
        Ok(found)
    }

    fn create_families(&mut self) -> Result<()> {
        for (&id, family) in &self.evidence.state.families {
            let record = &family.record;
            let mut options = ColumnFamilyOptions::decode(&record.options)?;
            let operator = record.merge_operator.clone();
            options.merge_operator = operator.map(|name| Arc::new(Named(name)) as Arc<_>);
            let handle = self.db.column_family(&record.name, options)?;
            let family = Family {
                handle,
                name: record.name.clone(),
                flushed: record.flushed_seqno,
                lost: Vec::new(),
                hidden: RangeTombstones::default(),
                decided: BTreeSet::new(),
                baseless: 0,
            };
            self.families.insert(id, family);
        }
        Ok(())
    }

    /// Writes what the tables of a family hold.
    fn copy_tables(&mut self, id: FamilyId) -> Result<()> {
        let opener = self.opener();
        let levels = &self.evidence.state.families[&id].levels;
        let metas: Vec<Arc<FileMeta>> =
            levels.iter().flat_map(|files| files.iter().cloned()).collect();
        let (mut inputs, mut tombstones, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for meta in &metas {
            let file = TableFile::new(Arc::clone(meta), Arc::clone(&opener));
            let unreadable = match file.table() {
                Ok(table) => {
                    let clipped = table.range_tombstones().clip(&meta.bounds);
                    let wanted = clipped.tombstones().filter(|t| t.seqno <= self.upto);
                    tombstones.extend(wanted);
                    let (table, bounds) = (Arc::clone(table), meta.bounds.clone());
                    let unreadable = table.unreadable();
                    inputs.push(SoundEntries::new(table, bounds, self.upto));
                    unreadable
                }
                Err(e) => vec![(meta.bounds.clone(), e)],
            };
            self.judge_table(id, meta, unreadable.len());
            for (range, e) in unreadable {
                lost.push(self.lose(id, meta, &range, e));
            }
        }
        let family = self.families.get_mut(&id).expect("it was created");
        tombstones.extend(lost.iter().cloned());
        family.hidden = RangeTombstones::new(lost);
        let tombstones = Arc::new(RangeTombstones::new(tombstones));
        let nothing = Below::ranges(Vec::new());
        let rules = Rules { snapshots: Vec::new(), below: nothing, operator: None, filter: None };
        let mut iter = CompactionIterator::new(MergingIterator::new(inputs), tombstones, rules);
        while iter.step()? {
            let versions: Vec<_> = iter.versions().collect();
            self.add_key(id, iter.key(), &versions)?;
        }
        self.write()
    }

    /// What follows from a table for the whole.
    fn judge_table(&mut self, id: FamilyId, meta: &FileMeta, unreadable: usize) {
        let name = FileName::Table(meta.number);
        self.found.tables += 1;
        self.newest = self.newest.max(meta.seqno_max.min(self.upto));
        if meta.seqno_max > self.upto {
            let newest = meta.seqno_max;
            let text =
                format!("{name} holds writes up to {newest}; what they replaced may be gone");
            self.found.doubts.push(text);
        }
        if unreadable > 0 {
            let family = &self.families[&id].name;
            let text = format!("{name} of family {family:?} lacks keys in {unreadable} places");
            self.found.doubts.push(text);
        }
    }

    /// Keys of a table that cannot be read: what hides all that is not newer than anything in it.
    fn lose(
        &mut self,
        id: FamilyId,
        meta: &FileMeta,
        range: &KeyRange,
        e: Error,
    ) -> RangeTombstone {
        self.evidence.dropped.push(e);
        let range = range.intersect(&meta.bounds);
        let seqno = (meta.seqno_max + 1).min(SEQNO_MAX);
        let (start, end) = (range.start.clone(), range.end.clone());
        let end = end.unwrap_or_else(|| vec![0xff; KEY_BYTES_MAX + 1]);
        self.families.get_mut(&id).expect("it was created").lost.push(range);
        RangeTombstone { start, end, seqno }
    }

    /// What is left of a key's versions in tables, newest first.
    fn add_key(
        &mut self,
        id: FamilyId,
        key: &[u8],
        versions: &[(SeqNo, ValueKind, &[u8])],
    ) -> Result<()> {
        let family = self.families.get_mut(&id).expect("it was created");
        let has_base = versions.last().is_some_and(|(_, kind, _)| *kind == ValueKind::Put);
        if family.is_lost(key) && !has_base {
            family.baseless += versions.len() as u64;
            return Ok(());
        }
        family.decide(key);
        for (_, kind, value) in versions.iter().rev() {
            match kind {
                ValueKind::Merge => self.batch.merge(&family.handle, key, value),
                ValueKind::Put => self.batch.put(&family.handle, key, value),
                _ => self.batch.delete(&family.handle, key),
            }
        }
        self.found.entries += versions.len() as u64;
        if self.batch.bytes() > WRITE_BYTES { self.write() } else { Ok(()) }
    }

    /// Applies the log's batches. Returns up to where nothing is missing of any family.
    fn replay(&mut self, log: SoundLog) -> Result<SeqNo> {
        let mut last = 0;
        let mut is_whole = log.is_whole;
        let mut reader = log.reader;
        while let Some((place, payload)) = reader.as_mut().map_or(Ok(None), |log| log.next())? {
            match self.replay_batch(payload, place.offset) {
                Ok(Some(seqno)) => last = seqno,
                Ok(None) => break, // beyond what is wanted
                Err(e) => {
                    let path = self.evidence.path(FileName::Log(place.segment));
                    self.evidence.drop_or_fail(e.in_file(&path))?;
                    is_whole = false;
                    break;
                }
            }
        }
        // What a crash leaves is no damage; it is told all the same.
        let torn = reader.as_ref().and_then(LogReader::torn).cloned();
        self.evidence.dropped.extend(torn);
        let flushed = self.families.values().map(|family| family.flushed);
        let complete = if is_whole { SEQNO_MAX } else { flushed.min().unwrap_or(0).max(last) };
        Ok(complete.min(self.upto))
    }

    /// One batch, whole. Returns its last sequence number; `None` if that is beyond what is wanted.
    fn replay_batch(&mut self, payload: &[u8], base: u64) -> Result<Option<SeqNo>> {
        let reader = BatchReader::of_log(payload, base)?;
        let first = reader.seqno();
        let last = first.saturating_add(u64::from(reader.count()).saturating_sub(1));
        if last > self.upto {
            return Ok(None);
        }
        let ops = reader.ops().collect::<Result<Vec<Op<'_>>>>()?;
        let next_family = self.evidence.state.header.next_family;
        if let Some(op) = ops
            .iter()
            .find(|op| op.family.0 >= next_family && !self.families.contains_key(&op.family))
        {
            let text = format!("an operation on family {}, which is not known", op.family);
            return Err(Error::corruption(text).at(base));
        }
        for (seqno, op) in (first..).zip(&ops) {
            self.replay_op(seqno, op);
        }
        self.found.batches += 1;
        self.newest = self.newest.max(last);
        self.write().map(|()| Some(last))
    }

    fn replay_op(&mut self, seqno: SeqNo, op: &Op<'_>) {
        // A family that is not there was dropped; what is flushed is in a table.
        let family = self.families.get_mut(&op.family);
        let Some(family) = family.filter(|family| seqno > family.flushed) else { return };
        match op.kind {
            ValueKind::Merge if family.is_lost(op.key) => family.baseless += 1,
            ValueKind::Merge => self.batch.merge(&family.handle, op.key, op.value),
            ValueKind::RangeDelete => self.batch.delete_range(&family.handle, op.key, op.value),
            ValueKind::Delete => {
                family.decide(op.key);
                self.batch.delete(&family.handle, op.key);
            }
            ValueKind::Put => {
                family.decide(op.key);
                self.batch.put(&family.handle, op.key, op.value);
            }
        }
    }

    fn write(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.db.write(&self.batch, WriteOptions::default())?;
            self.batch.clear();
        }
        Ok(())
    }

    /// Is what was taken along a prefix?
    fn judge(&mut self, complete: SeqNo) {
        self.found.seqno = self.newest.min(complete);
        if self.newest > complete {
            let (newest, seqno) = (self.newest, self.found.seqno);
            self.found.doubts.push(format!(
                "some families hold writes up to {newest}, others only those up to {seqno}"
            ));
        }
    }

    fn opener(&self) -> Arc<TableOpener> {
        let env = self.db.env();
        Arc::new(TableOpener {
            fs: Arc::clone(&self.evidence.fs),
            dir: self.evidence.dir.clone(),
            cache: Arc::clone(&env.cache),
            budget: env.budget.clone(),
            value_bytes_max: BATCH_BYTES_MAX / 2,
            sweeper: unbounded().0, // nothing becomes obsolete here
        })
    }
}

/// Stands for the operator that a family needs, so that operands are kept as they are.
struct Named(String);

impl MergeOperator for Named {
    fn name(&self) -> &str {
        &self.0
    }

    fn merge(
        &self,
        _key: &[u8],
        _base: Option<&[u8]>,
        _operands: &[&[u8]],
        _out: &mut Vec<u8>,
    ) -> Result<()> {
        Err(Error::incompatible(format!("merge operator {:?} is not known here", self.0)))
    }
}
