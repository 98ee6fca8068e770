//! Flushes, compactions, checkpoints; saving, restoring, rescaling.

use std::ops::RangeInclusive;

use crate::base::error::Result;
use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::checkpoint::restore::{latest, load, restore, verify};
use crate::checkpoint::save::{JobCheckpoint, PartInput, Saved, save};
use crate::checkpoint::store::DirStore;
use crate::db::Db;
use crate::db::column_family::ColumnFamily;
use crate::db::file_set::{FileSet, PendingCheckpoint};
use crate::db::import::{ImportFamily, ImportSource};
use crate::fs::Fs;
use crate::fuzz::model::machine::{Machine, remove};
use crate::fuzz::model::op::KEY_GROUPS;
use crate::fuzz::model::plain::{Map, NAMES, State, clipped};
use crate::state::key_group::KeyGroupRange;
use crate::state::rescale::key_group_ranges;

/// Checkpoints that are kept in the store.
const SAVED_MAX: usize = 3;

/// Everything: the key groups of all keys.
pub(super) const ALL: RangeInclusive<u16> = 0..=KEY_GROUPS - 1;

impl Machine {
    pub(super) fn flush(&mut self, place: usize) {
        let Some(family) = self.family(place) else { return };
        let before = self.before();
        if self.tolerate(before, self.db().flush(&family)).is_some() {
            self.flushed(place);
        }
    }

    /// A table makes a commit durable, and all before it: with a log there are no holes.
    fn flushed(&mut self, place: usize) {
        self.durable_to(self.last_commit[place]);
    }

    pub(super) fn flush_all(&mut self) {
        let before = self.before();
        if self.tolerate(before, self.db().flush_all()).is_some() {
            self.durable_to(self.commits);
        }
    }

    pub(super) fn compact(&mut self, place: usize, start: &[u8], end: &[u8]) {
        let Some(family) = self.family(place) else { return };
        let before = self.before();
        let done = match start <= end {
            true => self.db().compact_range(&family, start..end),
            false => self.db().compact_range(&family, ..),
        };
        if self.tolerate(before, done).is_some() {
            self.flushed(place);
        }
        // Nothing here ever expires.
        let before = self.before();
        self.tolerate(before, self.db().drop_expired(&family));
    }

    pub(super) fn step(&mut self, choice: u8, steps: u8) {
        for i in 0..u64::from(steps) {
            let before = self.before();
            self.db().wake();
            self.tolerate(before, self.db().step(u64::from(choice) + i));
        }
    }

    pub(super) fn sync_wal(&mut self) {
        if !self.config.options.log {
            self.db().sync_wal().expect_err("there is no log");
            return;
        }
        let before = self.before();
        if self.tolerate(before, self.db().sync_wal()).is_some() {
            self.durable_to(self.commits);
        }
    }

    pub(super) fn checkpoint(&mut self) {
        let before = self.before();
        if let Some(pending) = self.tolerate(before, self.db().checkpoint()) {
            self.checkpoints.push((pending, self.commits, self.now.clone()));
        }
    }

    /// The files of a checkpoint that was begun.
    fn complete(&mut self, choice: u8) -> Option<(FileSet, State)> {
        let (pending, commit, state) = remove(&mut self.checkpoints, choice)?;
        let set = self.wait(pending)?;
        self.durable_to(commit.max(self.possible[0].0));
        Some((set, state))
    }

    fn wait(&self, pending: PendingCheckpoint) -> Option<FileSet> {
        let (before, seqno, complete) = (self.before(), pending.seqno(), pending.is_complete());
        let set = self.tolerate(before, pending.wait());
        assert!(!complete || set.is_some() || self.is_halted(), "what is complete stays so");
        set.inspect(|set| assert_eq!(set.seqno(), seqno))
    }

    /// Completes a checkpoint and opens its files elsewhere: all, cut at a key group, in two halves.
    pub(super) fn import(&mut self, choice: u8, cut: u8) {
        let Some((set, state)) = self.complete(choice) else { return };
        let cut = vec![0, cut];
        let (low, high) =
            (KeyRange::new([], Some(cut.clone())), KeyRange::new(cut, None::<Vec<u8>>));
        for clips in [vec![KeyRange::all()], vec![high.clone()], vec![low, high]] {
            let wanted = match &clips[..] {
                [clip] => clipped(&state, clip),
                _ => state.clone(),
            };
            let before = self.before();
            let sources: Result<Vec<_>> =
                clips.iter().map(|clip| source(&set, clip.clone())).collect();
            let Some(sources) = self.tolerate_read(before, sources) else { return };
            let (dir, (env, _)) = (self.new_dir(), self.env_beside());
            let before = self.before();
            let opened = Db::import(&dir, self.config.options.clone(), env, &sources);
            if let Some(db) = self.tolerate_beside(before, opened) {
                self.judge(&db, &wanted);
            }
        }
    }

    /// Compares another database with what it should hold, before and after it was compacted.
    fn judge(&self, db: &Db, wanted: &State) {
        let before = self.before();
        let outcome = self.try_judge(db, wanted);
        self.tolerate_beside(before, outcome);
    }

    fn try_judge(&self, db: &Db, wanted: &State) -> Result<()> {
        let names = NAMES.iter().zip(wanted).filter(|(_, content)| content.is_some());
        let mut expected: Vec<&str> = names.map(|(name, _)| *name).collect();
        let mut found = db.column_families();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "families of a restored database");
        for (place, content) in wanted.iter().enumerate() {
            let Some(content) = content else { continue };
            let family = db.column_family(NAMES[place], self.config.family(place, 1 << 20))?;
            same(db, &family, &content.map)?;
            db.compact_range(&family, ..)?;
            same(db, &family, &content.map)?;
        }
        db.verify()
    }

    pub(super) fn store(&self) -> Result<DirStore> {
        let fs = match self.config.linked {
            true => Arc::clone(&self.fs),
            false => Arc::new(self.faults.clone()) as Arc<dyn Fs>,
        };
        DirStore::open(fs, self.disk.root.join("store"))
    }

    /// Puts a completed checkpoint into the store, on top of the newest one there.
    pub(super) fn save(&mut self, choice: u8) {
        let Some((set, state)) = self.complete(choice) else { return };
        let part = PartInput { first_group: *ALL.start(), last_group: *ALL.end(), set: &set };
        if let Some(saved) = self.put(vec![part]) {
            self.saved.push((saved, state));
        }
        if self.saved.len() > SAVED_MAX {
            self.saved.remove(0);
        }
    }

    fn put(&mut self, parts: Vec<PartInput<'_>>) -> Option<Saved> {
        self.checkpoint_ids += 1;
        let job = JobCheckpoint {
            id: self.checkpoint_ids,
            max_parallelism: u32::from(KEY_GROUPS),
            parts,
            operator_state: vec![("operator".to_owned(), vec![1])],
            user: self.checkpoint_ids.to_le_bytes().to_vec(),
        };
        let base = self.saved.last().map(|(saved, _)| saved.clone());
        let before = self.before();
        let saved = self.store().and_then(|store| save(&store, &job, base.as_ref()));
        self.tolerate_beside(before, saved)
    }

    /// Restores key groups of a saved checkpoint beside the database, or goes on with them.
    pub(super) fn restore(&mut self, choice: u8, groups: RangeInclusive<u16>, go_on: bool) {
        if self.saved.is_empty() {
            return;
        }
        let (saved, state) = self.saved[usize::from(choice) % self.saved.len()].clone();
        let before = self.before();
        let checked = self.store().and_then(|store| {
            assert_eq!(latest(&store)?.map(|id| id >= saved.id), Some(true));
            assert_eq!(load(&store, saved.id)?.identity, saved.identity);
            verify(&store, &saved)
        });
        self.tolerate_beside(before, checked);
        let wanted = clipped(&state, &key_range(&groups));
        let (dir, (env, halted)) = (self.new_dir(), self.env_beside());
        let before = self.before();
        let options = self.config.options.clone();
        let restored = self
            .store()
            .and_then(|store| restore(&store, &saved, groups, &dir, options.clone(), env));
        let Some(db) = self.tolerate_beside(before, restored) else { return };
        match go_on {
            false => self.judge(&db, &wanted),
            true => {
                self.let_go();
                self.dir = dir;
                self.adopt(db, halted, &wanted);
            }
        }
    }

    /// One database becomes many, and they become one again: nobody notices.
    pub(super) fn rescale(&mut self, parallelism: u32) {
        self.let_go();
        self.checkpoint();
        if self.checkpoints.is_empty() {
            return; // writes have stopped
        }
        self.save(0);
        let newest = self.saved.last().cloned();
        let Some((saved, state)) = newest.filter(|(saved, _)| saved.id == self.checkpoint_ids)
        else {
            return;
        };
        let ranges = key_group_ranges(u32::from(KEY_GROUPS), parallelism).expect("within bounds");
        let mut parts = Vec::new();
        for range in &ranges {
            let Some(part) = self.restore_part(&saved, *range) else { return };
            parts.push((*range, part));
        }
        let mut sets = Vec::new();
        for (range, db) in &parts {
            let before = self.before();
            let set = db.checkpoint().and_then(PendingCheckpoint::wait);
            let Some(set) = self.tolerate_beside(before, set) else { return };
            sets.push((*range, set));
        }
        let inputs = sets.iter().map(|(range, set)| PartInput {
            first_group: range.start(),
            last_group: range.end(),
            set,
        });
        let inputs = inputs.collect();
        let Some(joined) = self.put(inputs) else { return };
        self.saved.push((joined, state));
        self.restore(self.saved.len() as u8 - 1, ALL, true);
    }

    fn restore_part(&mut self, saved: &Saved, range: KeyGroupRange) -> Option<Db> {
        let (dir, (env, _)) = (self.new_dir(), self.env_beside());
        let (before, options) = (self.before(), self.config.options.clone());
        let groups = range.start()..=range.end();
        let db = self.store().and_then(|store| restore(&store, saved, groups, &dir, options, env));
        self.tolerate_beside(before, db)
    }
}

/// The keys of these groups.
fn key_range(groups: &RangeInclusive<u16>) -> KeyRange {
    KeyRange::new(groups.start().to_be_bytes(), Some((groups.end() + 1).to_be_bytes()))
}

/// A file set as another database imports it.
fn source(set: &FileSet, clip: KeyRange) -> Result<ImportSource> {
    let families = set.families().iter().map(|family| ImportFamily::of(set, family));
    Ok(ImportSource { seqno: set.seqno(), clip, families: families.collect::<Result<_>>()? })
}

/// A family shows exactly these, forward and backward.
fn same(db: &Db, family: &ColumnFamily, map: &Map) -> Result<()> {
    let mut scan = db.scan(family, ..)?;
    for (key, value) in map {
        assert!(scan.next()?, "{key:?} is missing");
        assert_eq!((scan.key(), scan.value()), (&**key, &**value));
    }
    assert!(!scan.next()?, "{:?} should not be there", scan.key());
    for (key, value) in map.iter().rev() {
        assert!(scan.prev()?, "{key:?} is missing backwards");
        assert_eq!((scan.key(), scan.value()), (&**key, &**value));
    }
    assert!(!scan.prev()?, "{:?} should not be there", scan.key());
    Ok(())
}
