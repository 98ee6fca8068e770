//! The judge: opens a disk as it is after a power cut, and compares what it finds with what was
//! promised at that moment.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    CheckpointStore, Db, DirStore, ErrorKind, Fs, Keep, MemFs, ObjectName, Registry, WriteBatch,
    WriteOptions,
};
use alluvium_report::Rng;

use crate::model::{Check, History, Phase, Promise, State, ensure};
use crate::ops::{GROUPS, Workload, Write, family_options};
use crate::read::{Families, read, same};
use crate::world::{DIR, RETAINED, STORE, all_families, env};

/// A moment of a life, and what is known about it.
pub struct Judge<'a> {
    pub workload: &'static Workload,
    pub seed: u64,
    pub history: &'a History,
    pub promise: &'a Promise,
}

/// What a disk held.
#[derive(Debug, PartialEq)]
pub enum Found {
    State(State),
    /// The log was off, and the database was not closed.
    Refused,
}

impl Judge<'_> {
    /// Judges a disk that nothing has happened to since the power cut. It is changed.
    pub fn judge(&self, disk: &MemFs, keep: Keep, dice: u64) -> Check<Found> {
        let promise = self.promise;
        let found = self.found(disk, keep, dice)?;
        // Before the store, in which a registry then keeps the newest checkpoints only.
        if let Some((dir, at, done)) = &promise.restoring {
            self.restored(disk, dir, *at, *done)?;
        }
        if !promise.saved.is_empty() || !promise.saving.is_empty() {
            self.store(disk)?;
        }
        Ok(found)
    }

    /// Judges a disk whose recovery was cut short: what it had `shown` before is still there.
    pub fn judge_again(&self, disk: &MemFs, shown: Option<&Found>, dice: u64) -> Check {
        // An opening has begun: it may have used up the mark of a close.
        let promise = Promise { phase: Phase::Opening, ..self.promise.clone() };
        let found = Judge { promise: &promise, ..*self }.found(disk, Keep::Nothing, dice)?;
        let Some(first) = shown else { return Ok(()) };
        match (first, &found) {
            (Found::State(first), Found::State(found)) => {
                // A family that was being created may be lost; its commits cannot be.
                same(found, first, "recovered again")?;
                let lost = first.keys().find(|name| !found.contains_key(*name));
                ensure!(lost.is_none(), "recovered again: {lost:?} is gone");
            }
            (_, Found::Refused) => {}
            (Found::Refused, Found::State(_)) => return Err("refused first, opened later".into()),
        }
        Ok(())
    }

    pub fn open(&self, disk: &MemFs, seed: u64) -> alluvium::Result<Db> {
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let options = self.workload.options(self.seed, self.promise.log);
        Db::open(Path::new(DIR), options, env(fs, Rng::of(self.seed, seed | 1 << 60).next_u64()))
    }

    fn found(&self, disk: &MemFs, keep: Keep, dice: u64) -> Check<Found> {
        match self.workload.is_keyed() {
            true => crate::keyed::judge(self, disk, keep, dice),
            false => self.database(disk, keep, dice),
        }
    }

    fn database(&self, disk: &MemFs, keep: Keep, dice: u64) -> Check<Found> {
        let promise = self.promise;
        let db = match self.open(disk, dice << 2) {
            Ok(db) => db,
            Err(e) => {
                ensure!(!promise.log && e.kind() == ErrorKind::Halted, "open: {e}");
                ensure!(promise.phase != Phase::Closed, "closed in order, and refused: {e}");
                return Ok(Found::Refused);
            }
        };
        let least = match promise.log {
            // A database with the log off opens only if it was closed, with everything in it.
            false => promise.acked,
            true if keep == Keep::All => promise.acked,
            true => promise.durable,
        };
        let unclean = !promise.log && promise.phase == Phase::Open && promise.at > 0;
        ensure!(!unclean, "the log is off, nothing was closed, and it opens");
        let mut families = all_families(&db, self.seed).map_err(|e| format!("families: {e}"))?;
        let found = read(&db, &families, None)?;
        let at = self.history.find(&found, promise, least)?;
        db.verify().map_err(|e| format!("verify: {e}"))?;
        let state = self.live_on(&db, &mut families, found.clone(), at, dice)?;
        self.rest(disk, &db, &families)?;
        drop(families);
        db.close().map_err(|e| format!("close: {e}"))?;
        let db = self.open(disk, dice << 2 | 1).map_err(|e| format!("open again: {e}"))?;
        let families = all_families(&db, self.seed).map_err(|e| format!("families again: {e}"))?;
        let again = read(&db, &families, None)?;
        same(&again, &state, "opened again")?;
        ensure!(again.len() == state.len(), "opened again: families differ");
        Ok(Found::State(found))
    }

    /// Life goes on: more operations, beside a snapshot of what was found.
    fn live_on(
        &self,
        db: &Db,
        families: &mut Families,
        found: State,
        at: usize,
        dice: u64,
    ) -> Check<State> {
        let failed = |what: &str, e: alluvium::Error| format!("afterwards, {what}: {e}");
        let rng = &mut Rng::of(dice, at as u64);
        let mut state = found.clone();
        let snapshot = db.snapshot();
        if !families.contains_key("a") {
            let options = family_options(self.seed, "a");
            let family = db.column_family("a", options).map_err(|e| failed("create", e))?;
            families.insert("a".to_owned(), family);
            state.insert("a".to_owned(), Default::default());
        }
        let names: Vec<String> = families.keys().cloned().collect();
        for i in 0..3 {
            let mut batch = WriteBatch::new();
            for j in 0..4 {
                let number = 1_000_000 + i * 10 + j;
                let Write { family, change } = Write::new(rng, number, 200);
                let name = &names[family as usize % names.len()];
                crate::world::add(&mut batch, &families[name], &change);
                change.apply(state.get_mut(name).expect("a family"));
            }
            let sync = self.promise.log && rng.below(3) == 0;
            db.write(&batch, WriteOptions { sync }).map_err(|e| failed("write", e))?;
            db.step(rng.next_u64()).map_err(|e| failed("step", e))?;
        }
        db.flush(&families[&names[0]]).map_err(|e| failed("flush", e))?;
        same(&read(db, families, None)?, &state, "afterwards")?;
        let mut then = read(db, families, Some(&snapshot))?;
        then.retain(|name, _| found.contains_key(name));
        same(&then, &found, "the snapshot of what was found")?;
        drop(snapshot);
        Ok(state)
    }

    /// At rest, every file is one that something refers to.
    fn rest(&self, disk: &MemFs, db: &Db, families: &Families) -> Check {
        let failed = |e: alluvium::Error| format!("at rest: {e}");
        // An edit after the last flush, so that dead log segments are removed.
        let (first, _) = families.iter().next().expect("a family");
        db.put(&families[first], b"\0\0rest", b"1").map_err(failed)?;
        db.delete(&families[first], b"\0\0rest").map_err(failed)?;
        db.flush_all().map_err(failed)?;
        db.wait_idle().map_err(failed)?;
        let set = db.checkpoint().and_then(|pending| pending.wait()).map_err(failed)?;
        db.wait_idle().map_err(failed)?;
        let mut wanted: BTreeSet<String> = set
            .tables()
            .map(|table| table.path.file_name().expect("a file").to_string_lossy().into_owned())
            .collect();
        wanted.insert("CURRENT".to_owned());
        let listing = disk.list(Path::new(DIR)).map_err(failed)?;
        let (mut logs, mut manifests) = (0, 0);
        for listed in &listing {
            match listed.name.rsplit('.').next() {
                Some("log") => logs += 1,
                Some("manifest") => manifests += 1,
                _ => ensure!(
                    wanted.remove(&listed.name),
                    "an orphan: {} of {listing:?}",
                    listed.name
                ),
            }
        }
        ensure!(wanted.is_empty(), "missing: {wanted:?}");
        ensure!(logs == usize::from(self.promise.log), "{logs} log segments: {listing:?}");
        ensure!(manifests == 1, "{manifests} manifests: {listing:?}");
        Ok(())
    }

    /// The store holds the checkpoints that it must, whole, and nothing that none of them names.
    pub fn store(&self, disk: &MemFs) -> Check {
        let failed = |what: &str, e: alluvium::Error| format!("store, {what}: {e}");
        let promise = self.promise;
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let store = DirStore::open(fs.clone(), STORE).map_err(|e| failed("open", e))?;
        let store = Arc::new(store);
        let ids = |store: &DirStore| -> Check<Vec<u64>> {
            let listed = store.list().map_err(|e| failed("list", e))?;
            Ok(listed
                .into_iter()
                .filter_map(|stored| match stored.name {
                    ObjectName::Checkpoint(id) => Some(id),
                    ObjectName::Shared(_) => None,
                })
                .collect())
        };
        let found = ids(&store)?;
        let lost = promise.saved.keys().find(|id| !found.contains(id));
        ensure!(lost.is_none(), "checkpoint {lost:?} is gone: {found:?}");
        for id in &found {
            let at = promise.saved.get(id).or_else(|| promise.saving.get(id));
            let at = *at.ok_or_else(|| format!("checkpoint {id} was given up, and is there"))?;
            let saved = alluvium::load_checkpoint(&*store, *id).map_err(|e| failed("load", e))?;
            alluvium::verify_checkpoint(&*store, &saved).map_err(|e| failed("verify", e))?;
            ensure!(saved.envelope.user == at.to_le_bytes(), "checkpoint {id} is another's");
        }
        if let Some(id) = found.last() {
            let at = promise.saved.get(id).or_else(|| promise.saving.get(id)).expect("checked");
            self.restore(&fs, &store, *id, "judged", *at)?;
        }
        // Opened again, the registry keeps the newest, and removes what nothing names.
        store.remove_leftovers().map_err(|e| failed("leftovers", e))?;
        let shared: Arc<dyn CheckpointStore> = store.clone();
        let registry = Registry::open(shared, RETAINED).map_err(|e| failed("registry", e))?;
        let kept: Vec<u64> = found[found.len().saturating_sub(RETAINED)..].to_vec();
        ensure!(registry.retained() == kept, "the registry keeps {:?}", registry.retained());
        let mut named = BTreeSet::new();
        for id in &kept {
            let saved = alluvium::load_checkpoint(&*store, *id).map_err(|e| failed("load", e))?;
            alluvium::verify_checkpoint(&*store, &saved).map_err(|e| failed("verify", e))?;
            named.extend(saved.envelope.objects.into_iter().map(|object| object.name));
        }
        for dir in ["checkpoints", "shared"] {
            for listed in fs.list(&Path::new(STORE).join(dir)).map_err(|e| failed("list", e))? {
                let known = match ObjectName::parse(&format!("{dir}/{}", listed.name)) {
                    Some(ObjectName::Checkpoint(id)) => kept.contains(&id),
                    Some(ObjectName::Shared(name)) => named.contains(&name),
                    None => false,
                };
                ensure!(known, "the store has an orphan: {dir}/{}", listed.name);
            }
        }
        Ok(())
    }

    fn restore(
        &self,
        fs: &Arc<dyn Fs>,
        store: &Arc<DirStore>,
        id: u64,
        dir: &str,
        at: usize,
    ) -> Check {
        let failed = |e: alluvium::Error| format!("restoring checkpoint {id}: {e}");
        let saved = alluvium::load_checkpoint(&**store, id).map_err(failed)?;
        let options = self.workload.options(self.seed, self.promise.log);
        let (path, groups) = (Path::new(dir), 0..=GROUPS - 1);
        let env = env(fs.clone(), Rng::of(self.seed, id).next_u64());
        let db = alluvium::restore_checkpoint(&**store, &saved, groups, path, options, env);
        self.compare(&db.map_err(failed)?, at, "restored")
    }

    fn compare(&self, db: &Db, at: usize, what: &str) -> Check {
        let families = all_families(db, self.seed).map_err(|e| format!("{what}: {e}"))?;
        let wanted = &self.history.states[at];
        let found = read(db, &families, None)?;
        same(&found, wanted, what)?;
        let lost = wanted.keys().find(|name| !found.contains_key(*name));
        ensure!(lost.is_none(), "{what}: family {lost:?} is gone");
        db.verify().map_err(|e| format!("{what}: {e}"))
    }

    /// A directory to which a checkpoint was being restored holds all of it, or no database.
    fn restored(&self, disk: &MemFs, dir: &str, at: usize, done: bool) -> Check {
        let mut options = self.workload.options(self.seed, self.promise.log);
        options.create_if_missing = false;
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        match Db::open(Path::new(dir), options, env(fs, Rng::of(self.seed, 77).next_u64())) {
            Ok(db) => self.compare(&db, at, "what was restored"),
            Err(e) if e.kind() == ErrorKind::Halted => {
                ensure!(!done && !self.promise.log, "what was restored: {e}");
                Ok(())
            }
            // No database: nothing yet, or tables without CURRENT. The directory can be used again.
            Err(e) => {
                let absent = matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corruption);
                ensure!(!done && absent, "what was restored: {e}");
                let saved = self.promise.saved.iter().find(|(_, saved)| **saved == at);
                let Some((&id, _)) = saved else { return Ok(()) };
                let fs: Arc<dyn Fs> = Arc::new(disk.clone());
                let store = DirStore::open(fs.clone(), STORE);
                let store = Arc::new(store.map_err(|e| format!("store: {e}"))?);
                self.restore(&fs, &store, id, dir, at)
            }
        }
    }
}
