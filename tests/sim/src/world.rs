//! A database that lives: operations are done on it and on the model, and what it promises is written
//! down with the moment from which on it holds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alluvium::{
    CheckpointStore, ColumnFamily, ColumnFamilyOptions, CompactionFilter, CompactionFilterFactory,
    Db, Decision, DirStore, EntryKind, Env, Error, ErrorKind, FaultFs, Fs, JobCheckpoint, MemFs,
    MemoryBudget, Options, PartInput, PendingCheckpoint, Registry, Snapshot, Update, WriteBatch,
    WriteOptions,
};
use alluvium_report::Rng;

use crate::model::{Check, History, Phase, State, ensure};
use crate::ops::{Change, FAMILIES, GROUPS, Kind, Op, Workload, Write, family_options};
use crate::read::{Families, Trouble, read, same};

pub const DIR: &str = "db";
pub const STORE: &str = "store";
/// Checkpoints that the registry keeps.
pub const RETAINED: usize = 2;
/// Memory of a simulated database; small enough that the budget is felt at times.
const BUDGET_BYTES: usize = 4 << 20;
/// Steps after which background work without faults must have come to an end.
const STEPS_MAX: usize = 20_000;
/// In a small life the kernel writes everything back when more effects than these wait for a sync, so
/// that there are few enough for all their subsets to be tried.
const WAITING_MAX: usize = 3;
/// It flushes when there are more segments of the log than these, since all of them may go at once.
const SEGMENTS_MAX: usize = 3;
/// Writes end and nothing is pending: so many keys are put to see that writers go on.
const LIVENESS_PUTS: u64 = 3;

pub fn env(fs: Arc<dyn Fs>, seed: u64) -> Env {
    Env::simulated(fs, MemoryBudget::new(BUDGET_BYTES), seed)
}

/// A filter that keeps everything and panics at its n-th decision.
struct Panics(Arc<AtomicI64>);

impl CompactionFilterFactory for Panics {
    fn name(&self) -> &str {
        "sim.panics"
    }

    fn create(&self) -> Box<dyn CompactionFilter> {
        Box::new(Panics(Arc::clone(&self.0)))
    }
}

impl CompactionFilter for Panics {
    fn decide(&mut self, _: &[u8], _: EntryKind, _: &[u8], _: &mut Vec<u8>) -> Decision {
        assert_ne!(self.0.fetch_sub(1, Ordering::SeqCst), 0, "planned panic");
        Decision::Keep
    }
}

/// What makes operations fail.
#[derive(Default)]
pub struct Faults {
    /// The file system that fails.
    pub fs: Option<FaultFs>,
    /// Decisions of compaction filters until one panics.
    pub panic: Option<Arc<AtomicI64>>,
    /// The disk was full at some time.
    pub full: bool,
    /// The store fails.
    pub store: Option<Arc<crate::store::FaultStore>>,
}

impl Faults {
    /// Has anything failed? Then operations may fail.
    pub fn struck(&self) -> bool {
        let panicked = |left: &Arc<AtomicI64>| left.load(Ordering::SeqCst) < 0;
        self.full
            || self.fs.as_ref().is_some_and(|fs| fs.struck() > 0)
            || self.panic.as_ref().is_some_and(panicked)
            || self.store.as_ref().is_some_and(|store| store.struck() > 0)
    }
}

pub struct World {
    pub workload: &'static Workload,
    pub seed: u64,
    pub disk: MemFs,
    pub fs: Arc<dyn Fs>,
    pub history: History,
    pub faults: Faults,
    /// Writes have stopped, until the next opening.
    pub halted: bool,
    /// The directory is refused for good: the log was off.
    pub refused: bool,
    pub db: Option<Db>,
    pub families: Families,
    pub model_ops: u64,
    log: bool,
    openings: u64,
    snapshots: Vec<(Snapshot, Arc<State>)>,
    checkpoints: Vec<(PendingCheckpoint, usize)>,
    store: Option<Arc<dyn CheckpointStore>>,
    registry: Option<Registry>,
    last_checkpoint: u64,
    /// Checkpoints that could not be given up yet.
    given_up: BTreeSet<u64>,
    restored: u64,
}

impl World {
    /// A database on `fs`, which is `disk` or something that ends there.
    pub fn new(
        workload: &'static Workload,
        seed: u64,
        disk: MemFs,
        fs: Arc<dyn Fs>,
        faults: Faults,
    ) -> World {
        let log = workload.log(seed);
        World {
            workload,
            seed,
            disk,
            fs,
            history: History::new(log),
            faults,
            halted: false,
            refused: false,
            db: None,
            families: Families::new(),
            model_ops: 0,
            log,
            openings: 0,
            snapshots: Vec::new(),
            checkpoints: Vec::new(),
            store: None,
            registry: None,
            last_checkpoint: 0,
            given_up: BTreeSet::new(),
            restored: 0,
        }
    }

    pub fn options(&self) -> Options {
        self.workload.options(self.seed, self.log)
    }

    fn family_options(&self, name: &str) -> ColumnFamilyOptions {
        let mut options = family_options(self.seed, name);
        if let Some(panic) = &self.faults.panic {
            options.compaction_filter = Some(Arc::new(Panics(Arc::clone(panic))));
        }
        options
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn promise(&mut self, change: impl FnOnce(&mut crate::model::Promise)) {
        self.history.promise(self.disk.recorded_len(), change);
    }

    /// An error is a contradiction, unless something was made to fail.
    fn excuse(&mut self, what: &str, error: &Error) -> Check {
        ensure!(self.faults.struck(), "{what}: {error}");
        ensure!(error.kind() != ErrorKind::InvalidArgument, "{what}: {error}");
        self.halted |= matches!(error.kind(), ErrorKind::Halted | ErrorKind::CommitUnknown);
        Ok(())
    }

    /// Does one operation.
    pub fn run(&mut self, op: &Op) -> Check {
        self.model_ops += 1;
        if self.refused {
            return Ok(());
        }
        if self.db.is_none() {
            return self.open();
        }
        if self.workload.micro {
            self.keep_small()?;
        }
        match op.kind {
            Kind::Write | Kind::Batch => self.write(op),
            Kind::Update => self.update(op),
            Kind::Check => self.check(),
            Kind::Snapshot => self.snapshot(),
            Kind::DropSnapshot => {
                remove(&mut self.snapshots, op.choice);
                Ok(())
            }
            Kind::Flush => self.flush(op),
            Kind::FlushAll => self.flush_all(),
            Kind::Compact => self.compact(op),
            Kind::Create => self.create("c"),
            Kind::Drop => self.drop_family(),
            Kind::Step => self.step(op),
            Kind::SyncWal => self.sync_wal(),
            Kind::Close => self.close().and_then(|()| self.open()),
            Kind::Abandon => self.abandon().and_then(|()| self.open()),
            Kind::SwitchLog => {
                self.close()?;
                if self.history.now().phase == Phase::Closed {
                    self.log = !self.log;
                }
                self.open()
            }
            Kind::Begin => self.begin_checkpoint(),
            Kind::Save => self.save(op),
            Kind::GiveUp => {
                remove(&mut self.checkpoints, op.choice);
                Ok(())
            }
            Kind::Restore => self.restore(),
            Kind::Registry => self.reopen_registry(),
        }
    }

    /// Few effects wait for a sync, and few segments can be removed, when an operation of a small life
    /// begins.
    fn keep_small(&mut self) -> Check {
        let files = self.disk.list(Path::new(DIR)).unwrap_or_default();
        if files.iter().filter(|file| file.name.ends_with(".log")).count() > SEGMENTS_MAX {
            self.flush_all()?;
        }
        if self.disk.pending() > WAITING_MAX {
            self.write_back();
        }
        Ok(())
    }

    /// The kernel makes durable what nobody has synced, as it may do at any time.
    fn write_back(&self) {
        let stores = [Path::new(STORE).join("checkpoints"), Path::new(STORE).join("shared")];
        let restored = (1..=self.restored).map(|n| format!("restored-{n}").into());
        for dir in [DIR.into()].into_iter().chain(stores).chain(restored) {
            let Ok(files) = self.disk.list(&dir) else { continue }; // not there yet, or any more
            files
                .iter()
                .for_each(|file| self.disk.sync_file(&dir.join(&file.name)).expect("it is there"));
            self.disk.sync_dir(&dir).expect("it is there");
        }
    }

    /// Opens the database, compares it with the model, and makes the families that it needs.
    pub fn open(&mut self) -> Check {
        let (log, last) = (self.log, self.history.now().phase);
        self.promise(|p| (p.phase, p.log) = (Phase::Opening, log));
        self.openings += 1;
        let env = env(self.fs.clone(), Rng::of(self.seed, self.openings << 20).next_u64());
        let db = match Db::open(Path::new(DIR), self.options(), env) {
            Ok(db) => db,
            Err(e) => {
                if !self.log && e.kind() == ErrorKind::Halted && last != Phase::Closed {
                    self.refused = true;
                    return Ok(());
                }
                return self.excuse("open", &e);
            }
        };
        self.halted = false;
        self.db = Some(db);
        let now = self.history.now().clone();
        let mut found = BTreeSet::new();
        for name in self.db().column_families() {
            match self.db().column_family(&name, self.family_options(&name)) {
                Ok(family) => drop(self.families.insert(name.clone(), family)),
                Err(e) => return self.lost(&e),
            }
            found.insert(name);
        }
        let state = match read(self.db(), &self.families, None) {
            Ok(state) => state,
            Err(Trouble::Refused(e)) => return self.lost(&e),
            Err(Trouble::Wrong(text)) => return Err(text),
        };
        let at =
            self.history.find(&state, &now, now.acked).map_err(|e| format!("reopened: {e}"))?;
        self.history.states.truncate(at + 1);
        self.promise(|p| {
            (p.phase, p.families, p.changing) = (Phase::Open, found, None);
            (p.issued, p.acked, p.durable) = (at, at, at);
        });
        for name in &FAMILIES[..2] {
            if self.db.is_some() && !self.families.contains_key(*name) {
                self.create(name)?;
            }
        }
        Ok(())
    }

    /// What was opened cannot be used: it is given up, and opened again later.
    fn lost(&mut self, error: &Error) -> Check {
        self.let_go();
        self.db = None;
        self.excuse("what was opened", error)
    }

    fn let_go(&mut self) {
        self.snapshots.clear();
        self.checkpoints.clear();
        self.families.clear();
    }

    /// The process dies and is born again; the disk stays as it is.
    pub fn abandon(&mut self) -> Check {
        self.let_go();
        self.db = None;
        Ok(())
    }

    pub fn close(&mut self) -> Check {
        self.let_go();
        self.promise(|p| p.phase = Phase::Closing);
        let Some(db) = self.db.take() else { return Ok(()) };
        match db.close() {
            Ok(()) => {
                ensure!(!self.halted, "a halted database was closed in order");
                self.promise(|p| (p.phase, p.durable) = (Phase::Closed, p.acked));
                Ok(())
            }
            Err(e) => self.excuse("close", &e),
        }
    }

    fn create(&mut self, name: &str) -> Check {
        // Halted, it may or may not exist; and then nothing else is begun.
        if self.halted || self.families.contains_key(name) {
            return Ok(());
        }
        self.promise(|p| p.changing = Some(name.to_owned()));
        match self.db().column_family(name, self.family_options(name)) {
            Ok(family) => {
                ensure!(!self.halted, "a halted database has a new family");
                self.families.insert(name.to_owned(), family);
                self.promise(|p| {
                    p.changing = None;
                    p.families.insert(name.to_owned());
                });
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::NoSpace => {
                self.promise(|p| p.changing = None);
                self.excuse("create family", &e)
            }
            Err(e) => {
                self.excuse("create family", &e)?;
                // Whether it exists shows at the next opening.
                ensure!(self.halted, "a family may exist or not, and writes go on: {e}");
                Ok(())
            }
        }
    }

    fn drop_family(&mut self) -> Check {
        let family = self.families.get("c").filter(|_| !self.halted);
        let Some(family) = family.cloned() else { return Ok(()) };
        let mut next = State::clone(self.history.current());
        next.remove("c");
        let before = self.history.now().issued;
        self.history.states.push(Arc::new(next));
        let issued = self.history.states.len() - 1;
        self.promise(|p| {
            p.families.remove("c");
            (p.changing, p.issued) = (Some("c".to_owned()), issued);
        });
        match self.db().drop_column_family(&family) {
            Ok(()) => {
                ensure!(!self.halted, "a halted database has dropped a family");
                self.families.remove("c");
                // Its handles are refused from now on; one of the same name is another.
                for (_, state) in &mut self.snapshots {
                    Arc::make_mut(state).remove("c");
                }
                self.promise(|p| {
                    (p.changing, p.acked, p.durable) = (None, issued, issued);
                });
                Ok(())
            }
            Err(e) => {
                self.excuse("drop family", &e)?;
                if !self.halted {
                    self.history.states.pop();
                    self.promise(|p| {
                        (p.changing, p.issued) = (None, before);
                        p.families.insert("c".to_owned());
                    });
                }
                Ok(())
            }
        }
    }

    fn family_names(&self) -> Vec<String> {
        self.families.keys().cloned().collect()
    }

    fn chosen(&self, choice: u64) -> Option<String> {
        let names = self.family_names();
        (!names.is_empty()).then(|| names[(choice % names.len() as u64) as usize].clone())
    }

    fn write(&mut self, op: &Op) -> Check {
        let mut next = State::clone(self.history.current());
        let mut writes = Vec::new();
        for Write { family, change } in &op.writes {
            let Some(name) = self.chosen(*family) else { return Ok(()) };
            change.apply(next.entry(name.clone()).or_default());
            writes.push((name, change));
        }
        let sync = self.log && op.choice.is_multiple_of(5);
        let durable = self.log && (sync || self.options().sync);
        let single = op.kind == Kind::Write && !sync;
        let families = self.families.clone();
        let acts = op.writes.iter().any(|write| !write.change.is_empty());
        self.commit(next, acts, durable, move |db| match writes.first() {
            Some((name, change)) if single => {
                let family = &families[name];
                match change {
                    Change::Put(key, value) => db.put(family, key, value),
                    Change::Delete(key) => db.delete(family, key),
                    Change::DeleteRange(start, end) => db.delete_range(family, start, end),
                    Change::Merge(key, operand) => db.merge(family, key, operand),
                }
            }
            _ => {
                let mut batch = WriteBatch::new();
                for (name, change) in &writes {
                    add(&mut batch, &families[name], change);
                }
                db.write(&batch, WriteOptions { sync: sync && !batch.is_empty() }).map(drop)
            }
        })
    }

    fn commit(
        &mut self,
        next: State,
        acts: bool,
        durable: bool,
        call: impl FnOnce(&Db) -> alluvium::Result<()>,
    ) -> Check {
        let before = self.history.now().issued;
        self.history.states.push(Arc::new(next));
        let issued = self.history.states.len() - 1;
        self.promise(|p| p.issued = issued);
        match call(self.db()) {
            Ok(()) if acts => {
                ensure!(!self.halted, "a halted database takes a write");
                self.promise(|p| {
                    p.acked = issued;
                    if durable {
                        p.durable = issued;
                    }
                });
                Ok(())
            }
            Ok(()) => {
                self.history.states.pop();
                self.promise(|p| p.issued = before);
                Ok(())
            }
            Err(e) => {
                if e.kind() != ErrorKind::CommitUnknown {
                    self.history.states.pop();
                    self.promise(|p| p.issued = before);
                }
                self.excuse("write", &e)
            }
        }
    }

    fn update(&mut self, op: &Op) -> Check {
        let Some(name) = self.chosen(op.choice >> 8) else { return Ok(()) };
        let mut rng = Rng::of(op.choice, 1);
        let key = crate::ops::key(&mut rng);
        let value = crate::ops::value(&mut rng, op.number, self.workload.values_max);
        let mut next = State::clone(self.history.current());
        let map = next.entry(name.clone()).or_default();
        let old = map.get(&key).cloned();
        let outcome = rng.pick(&[Update::Keep, Update::Delete, Update::Put, Update::Put]);
        match outcome {
            Update::Keep => {}
            Update::Delete => drop(map.remove(&key)),
            Update::Put => drop(map.insert(key.clone(), value.clone())),
        }
        let family = self.families[&name].clone();
        let mut seen = None;
        let durable = self.options().sync;
        let read = &mut seen;
        let acts = outcome != Update::Keep;
        self.commit(next, acts, durable, |db| {
            db.update(&family, &key, |found, out| {
                *read = Some(found.map(<[u8]>::to_vec));
                out.extend_from_slice(&value);
                outcome
            })
        })?;
        ensure!(seen.is_none() || seen == Some(old), "an update of {key:?} reads {seen:?}");
        Ok(())
    }

    /// Everything that can be read is what the model says.
    pub fn check(&mut self) -> Check {
        let env = env(self.fs.clone(), 0);
        let second = Db::open(Path::new(DIR), self.options(), env).map(drop);
        let kind = second.as_ref().map_err(Error::kind);
        ensure!(kind == Err(ErrorKind::Busy), "a directory is opened twice: {second:?}");
        let mut views = vec![(None, self.history.current().clone())];
        views.extend(self.snapshots.iter().map(|(s, state)| (Some(s), state.clone())));
        let mut refused = None;
        for (snapshot, state) in views {
            match read(self.db(), &self.families, snapshot) {
                Ok(found) => {
                    same(&found, &state, if snapshot.is_some() { "snapshot" } else { "now" })?
                }
                Err(Trouble::Refused(e)) => refused = Some(e),
                Err(Trouble::Wrong(text)) => return Err(text),
            }
        }
        refused.map_or(Ok(()), |e| self.excuse("read", &e))
    }

    fn snapshot(&mut self) -> Check {
        if self.snapshots.len() < 3 {
            self.snapshots.push((self.db().snapshot(), self.history.current().clone()));
        }
        Ok(())
    }

    /// The last commit that touched this family, which a flush of it makes durable, with all before.
    fn last_of(&self, name: &str) -> usize {
        let states = &self.history.states[..=self.history.now().acked];
        let now = states.last().and_then(|state| state.get(name));
        states.iter().rposition(|state| state.get(name) != now).map_or(0, |before| before + 1)
    }

    fn flush(&mut self, op: &Op) -> Check {
        let Some(name) = self.chosen(op.choice) else { return Ok(()) };
        match self.db().flush(&self.families[&name]) {
            Ok(()) => {
                ensure!(!self.halted, "a halted database flushes");
                let last = self.last_of(&name);
                self.promise(|p| p.durable = p.durable.max(last));
                Ok(())
            }
            Err(e) => self.excuse("flush", &e),
        }
    }

    fn flush_all(&mut self) -> Check {
        match self.db().flush_all() {
            Ok(()) => {
                ensure!(!self.halted, "a halted database flushes");
                self.promise(|p| p.durable = p.acked);
                Ok(())
            }
            Err(e) => self.excuse("flush all", &e),
        }
    }

    fn compact(&mut self, op: &Op) -> Check {
        let Some(name) = self.chosen(op.choice) else { return Ok(()) };
        let mut rng = Rng::of(op.choice, 2);
        let (a, b) = (crate::ops::key(&mut rng), crate::ops::key(&mut rng));
        let family = &self.families[&name];
        let done = match rng.below(3) {
            0 => self.db().compact_range(family, ..),
            _ => self.db().compact_range(family, a.min(b.clone()).as_slice()..b.as_slice()),
        };
        done.or_else(|e| self.excuse("compact", &e))
    }

    fn step(&mut self, op: &Op) -> Check {
        for i in 0..=op.choice % 4 {
            if let Err(e) = self.db().step(op.choice >> 8 >> i) {
                return self.excuse("step", &e);
            }
        }
        Ok(())
    }

    fn sync_wal(&mut self) -> Check {
        match self.db().sync_wal() {
            Ok(()) => {
                ensure!(!self.halted, "a halted database syncs");
                self.promise(|p| p.durable = p.acked);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::InvalidArgument && !self.log => Ok(()),
            Err(e) => self.excuse("sync", &e),
        }
    }

    fn begin_checkpoint(&mut self) -> Check {
        if self.checkpoints.len() >= 2 {
            return Ok(());
        }
        match self.db().checkpoint() {
            Ok(pending) => self.checkpoints.push((pending, self.history.now().acked)),
            Err(e) => self.excuse("begin checkpoint", &e)?,
        }
        Ok(())
    }

    fn open_store(&mut self) -> Check<bool> {
        if self.registry.is_some() {
            return Ok(true);
        }
        let store = match DirStore::open(self.fs.clone(), STORE) {
            Ok(store) => Arc::new(store),
            Err(e) => return self.excuse("open store", &e).map(|()| false),
        };
        let store: Arc<dyn CheckpointStore> = match &self.faults.store {
            Some(faulty) => {
                faulty.set(store);
                faulty.clone()
            }
            None => store,
        };
        match Registry::open(store.clone(), RETAINED) {
            Ok(registry) => (self.store, self.registry) = (Some(store), Some(registry)),
            Err(e) => return self.excuse("open registry", &e).map(|()| false),
        }
        Ok(true)
    }

    fn save(&mut self, op: &Op) -> Check {
        if !self.open_store()? {
            return Ok(());
        }
        while let Some(&id) = self.given_up.first() {
            // Perhaps it is deleted only with the next one that goes.
            if let Err(e) = self.registry.as_ref().expect("opened").abort(id) {
                return self.excuse_store("abort again", &e);
            }
            self.given_up.remove(&id);
        }
        let Some((pending, at)) = remove(&mut self.checkpoints, op.choice) else { return Ok(()) };
        let set = match pending.wait() {
            Ok(set) => set,
            Err(e) => return self.excuse("wait for checkpoint", &e),
        };
        self.promise(|p| p.durable = p.durable.max(at));
        self.last_checkpoint += 1;
        let id = self.last_checkpoint;
        let part = PartInput { first_group: 0, last_group: GROUPS - 1, set: &set };
        let job = JobCheckpoint {
            id,
            max_parallelism: u32::from(GROUPS),
            parts: vec![part],
            operator_state: vec![("op".into(), id.to_le_bytes().to_vec())],
            user: at.to_le_bytes().to_vec(),
        };
        self.promise(|p| {
            p.saving.insert(id, at);
        });
        let registry = self.registry.as_ref().expect("opened");
        let saved = match registry.save(&job) {
            Ok(saved) => saved,
            Err(e) if e.kind() == ErrorKind::CommitUnknown => {
                let unknown = self.excuse_store("save", &e);
                return unknown.and_then(|()| self.resolve(id, at));
            }
            Err(e) => {
                self.promise(|p| {
                    p.saving.remove(&id);
                });
                return self.excuse_store("save", &e);
            }
        };
        match op.choice >> 8 & 3 {
            0 => self.abort(id),
            _ => self.confirm(&saved, at),
        }
    }

    /// Gives up a checkpoint that is in the store.
    fn abort(&mut self, id: u64) -> Check {
        match self.registry.as_ref().expect("opened").abort(id) {
            Ok(()) => {
                // Where lists may be old, it may go later.
                if self.store.as_ref().expect("opened").list_is_complete() {
                    self.promise(|p| {
                        p.saving.remove(&id);
                    });
                }
                Ok(())
            }
            Err(e) => {
                self.given_up.insert(id);
                self.excuse_store("abort", &e)
            }
        }
    }

    fn confirm(&mut self, saved: &alluvium::Saved, at: usize) -> Check {
        self.promise(|p| {
            p.saving.remove(&saved.id);
            p.saved.insert(saved.id, at);
            // What is beyond the number to be kept may go from now on.
            while p.saved.len() > RETAINED {
                p.saving.extend(p.saved.pop_first());
            }
        });
        match self.registry.as_ref().expect("opened").confirm(saved) {
            Ok(()) => {
                // Where lists may be old, what is given up goes later.
                if self.store.as_ref().expect("opened").list_is_complete() {
                    let given_up = self.given_up.clone();
                    self.promise(|p| p.saving.retain(|id, _| given_up.contains(id)));
                }
                Ok(())
            }
            Err(e) => self.excuse_store("confirm", &e),
        }
    }

    /// Nobody knows whether a checkpoint was saved: the store is asked.
    fn resolve(&mut self, id: u64, at: usize) -> Check {
        let store = self.store.clone().expect("opened");
        match alluvium::load_checkpoint(&*store, id) {
            Ok(saved) => self.confirm(&saved, at),
            Err(e) if e.kind() == ErrorKind::NotFound => self.abort(id),
            Err(e) => {
                self.registry = None;
                self.excuse_store("load", &e)
            }
        }
    }

    /// As [`excuse`](World::excuse); but what happens in a store does not halt the database.
    fn excuse_store(&mut self, what: &str, error: &Error) -> Check {
        let halted = self.halted;
        self.excuse(what, error)?;
        self.halted = halted;
        Ok(())
    }

    fn restore(&mut self) -> Check {
        let Some((&id, &at)) = self.history.now().saved.last_key_value() else { return Ok(()) };
        let Some(store) = self.store.clone() else { return Ok(()) };
        self.restored += 1;
        let dir = format!("restored-{}", self.restored);
        self.promise(|p| p.restoring = Some((dir.clone(), at, false)));
        let groups = 0..=GROUPS - 1;
        let env = env(self.fs.clone(), Rng::of(self.seed, self.restored << 40).next_u64());
        let restored = alluvium::load_checkpoint(&*store, id).and_then(|saved| {
            let path = Path::new(&dir);
            alluvium::restore_checkpoint(&*store, &saved, groups, path, self.options(), env)
        });
        let db = match restored {
            Ok(db) => db,
            Err(e) => return self.excuse_store("restore", &e),
        };
        let found = match all_families(&db, self.seed).map_err(Trouble::from) {
            Ok(families) => read(&db, &families, None),
            Err(e) => Err(e),
        };
        match found {
            Ok(found) => same(&found, &self.history.states[at], "restored")?,
            Err(Trouble::Refused(e)) => return self.excuse_store("restored", &e),
            Err(Trouble::Wrong(text)) => return Err(text),
        }
        match db.close() {
            Ok(()) => {
                self.promise(|p| p.restoring = Some((dir.clone(), at, true)));
                Ok(())
            }
            Err(e) => self.excuse_store("close what was restored", &e),
        }
    }

    fn reopen_registry(&mut self) -> Check {
        // One that is given up and still there would be taken for a confirmed one.
        if self.history.now().saving.is_empty() {
            self.registry = None;
            self.open_store()?;
        }
        Ok(())
    }

    /// Without faults, background work comes to an end, and writers go on.
    pub fn come_to_rest(&mut self) -> Check {
        if self.db.is_none() && !self.refused {
            self.open()?;
        }
        if self.db.is_none() || self.halted {
            return Ok(());
        }
        let mut steps = 0;
        loop {
            match self.db().step(steps as u64) {
                Ok(true) => steps += 1,
                Ok(false) => break,
                Err(e) => return self.excuse("step at rest", &e),
            }
            ensure!(steps < STEPS_MAX, "background work does not end");
        }
        for i in 0..LIVENESS_PUTS {
            let mut next = State::clone(self.history.current());
            let (key, value) = (vec![0, i as u8, b'z'], vec![b'z'; 10]);
            next.entry("a".to_owned()).or_default().insert(key.clone(), value.clone());
            let Some(family) = self.families.get("a").cloned() else { return Ok(()) };
            let before = self.history.now().acked;
            let durable = self.options().sync;
            let mut outcome = Ok(());
            self.commit(next, true, durable, |db| {
                outcome = db.put(&family, &key, &value);
                outcome.clone()
            })?;
            let stuck = self.history.now().acked == before && !self.halted;
            ensure!(!stuck, "nothing fails any more, and writers do not go on: {outcome:?}");
        }
        self.check()
    }
}

/// All families of a database, by name.
pub fn all_families(db: &Db, seed: u64) -> alluvium::Result<Families> {
    let mut families = Families::new();
    for name in db.column_families() {
        let family = db.column_family(&name, family_options(seed, &name))?;
        families.insert(name, family);
    }
    Ok(families)
}

pub fn add(batch: &mut WriteBatch, family: &ColumnFamily, change: &Change) {
    match change {
        Change::Put(key, value) => batch.put(family, key, value),
        Change::Delete(key) => batch.delete(family, key),
        Change::DeleteRange(start, end) => batch.delete_range(family, start, end),
        Change::Merge(key, operand) => batch.merge(family, key, operand),
    }
}

fn remove<T>(list: &mut Vec<T>, choice: u64) -> Option<T> {
    let count = list.len();
    (count > 0).then(|| list.remove((choice % count as u64) as usize))
}
