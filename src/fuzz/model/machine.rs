//! The database beside its plain maps: what is open and held, and how writes are judged.

use std::path::PathBuf;
use std::rc::Rc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::FamilyId;
use crate::base::sync::{Arc, AtomicBool, Ordering};
use crate::batch::WriteBatch;
use crate::checkpoint::save::Saved;
use crate::db::column_family::ColumnFamily;
use crate::db::file_set::PendingCheckpoint;
use crate::db::options::{Background, WriteOptions};
use crate::db::snapshot::Snapshot;
use crate::db::update::Update;
use crate::db::{Db, Reader, Writer};
use crate::fs::Fs;
use crate::fs::fault::FaultFs;
use crate::fs::memory::MemFs;
use crate::fuzz::model::config::Config;
use crate::fuzz::model::op::Op;
use crate::fuzz::model::plain::{Change, Content, FAMILIES, Map, NAMES, State, Verb};
use crate::fuzz::model::reads::HeldScan;

/// Most snapshots, scans, readers, checkpoints: each.
const HELD_MAX: usize = 4;

/// Where a machine keeps its files.
pub struct Disk {
    pub(super) fs: Arc<dyn Fs>,
    /// What can lose its power; `None` on a real disk, where a power cut is the death of the process.
    pub(super) memory: Option<MemFs>,
    /// All directories are below this one.
    pub(super) root: PathBuf,
}

impl Disk {
    /// An empty disk in memory.
    pub fn memory() -> Disk {
        let memory = MemFs::new();
        Disk { fs: Arc::new(memory.clone()), memory: Some(memory), root: PathBuf::new() }
    }

    /// A directory of a file system.
    pub fn real(fs: Arc<dyn Fs>, root: PathBuf) -> Disk {
        Disk { fs, memory: None, root }
    }
}

/// A reader, and the family that it reads.
pub(super) struct HeldReader {
    pub reader: Reader,
    pub id: FamilyId,
}

/// A database, what it should hold, and what is held of it.
pub struct Machine {
    pub(super) config: Config,
    pub(super) background: Background,
    pub(super) disk: Disk,
    /// The disk with faults: what the database sees.
    pub(super) faults: FaultFs,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) openings: u64,
    /// What had happened when this database was opened.
    pub(super) opened: Before,
    pub(super) dirs: u32,
    pub(super) dir: PathBuf,
    pub(super) db: Option<Db>,
    pub(super) families: [Option<ColumnFamily>; FAMILIES],
    /// The last dropped family of each name.
    pub(super) dropped: [Option<ColumnFamily>; FAMILIES],
    /// What dropped families held at their end.
    pub(super) gone: Vec<Content>,
    pub(super) now: State,
    /// Commits so far, and the last one of each family.
    pub(super) commits: u64,
    pub(super) last_commit: [u64; FAMILIES],
    /// What a power cut may bring back: each commit's state, from the last one known to be durable.
    pub(super) possible: Vec<(u64, State)>,
    /// What is there or not after a failure that left it open.
    pub(super) unknown: Vec<State>,
    pub(super) snapshots: Vec<(Snapshot, State)>,
    pub(super) scans: Vec<HeldScan>,
    pub(super) readers: Vec<HeldReader>,
    pub(super) checkpoints: Vec<(PendingCheckpoint, u64, State)>,
    pub(super) saved: Vec<(Saved, State)>,
    pub(super) checkpoint_ids: u64,
    /// Told by the database that writes have stopped.
    pub(super) halted: Arc<AtomicBool>,
    /// The disk is full, or refuses every change from some moment on.
    pub(super) out_of_order: bool,
    /// It was so at some time since the database was opened.
    pub(super) was_out_of_order: bool,
    pub(super) paused: bool,
    transcript: Vec<String>,
}

/// What had happened before a call.
#[derive(Clone, Copy, Default)]
pub(super) struct Before {
    struck: u64,
    halted: bool,
}

impl Machine {
    /// An open, empty database. Background work is done by the caller.
    pub fn new(config: Config, disk: Disk) -> Machine {
        Machine::with_background(config, disk, Background::Inline)
    }

    /// An open, empty database.
    pub fn with_background(config: Config, disk: Disk, background: Background) -> Machine {
        let faults = FaultFs::new(Arc::clone(&disk.fs));
        let mut machine = Machine {
            config,
            background,
            fs: Arc::new(faults.clone()),
            faults,
            dir: disk.root.join("db"),
            disk,
            openings: 0,
            opened: Before::default(),
            dirs: 0,
            db: None,
            families: Default::default(),
            dropped: Default::default(),
            gone: Vec::new(),
            now: State::default(),
            commits: 0,
            last_commit: [0; FAMILIES],
            possible: vec![(0, State::default())],
            unknown: Vec::new(),
            snapshots: Vec::new(),
            scans: Vec::new(),
            readers: Vec::new(),
            checkpoints: Vec::new(),
            saved: Vec::new(),
            checkpoint_ids: 0,
            halted: Arc::default(),
            out_of_order: false,
            was_out_of_order: false,
            paused: false,
            transcript: Vec::new(),
        };
        machine.begin();
        machine
    }

    /// Does one operation and compares what it shows.
    pub fn run(&mut self, op: &Op) {
        match op {
            Op::Write(change) => self.write(change),
            Op::Batch { changes, sync } => self.batch(changes, *sync),
            Op::Update { family, key, value, how } => self.update(*family, key, value, *how),
            Op::Get { family, key } => self.get(*family, key),
            Op::MultiGet { family, keys } => {
                for found in self.multi_get(*family, keys) {
                    self.note("multi_get", found.as_deref());
                }
            }
            Op::GetOperands { family, key } => self.get_operands(*family, key),
            Op::OpenReader { family } => self.open_reader(*family),
            Op::Read { reader, key, then } => self.read(*reader, key, *then),
            Op::TakeSnapshot if self.snapshots.len() < HELD_MAX => {
                self.snapshots.push((self.db().snapshot(), self.now.clone()));
            }
            Op::TakeSnapshot => {}
            Op::DropSnapshot { snapshot } => drop(remove(&mut self.snapshots, *snapshot)),
            Op::OpenScan { family, start, end, how, snapshot } if self.scans.len() < HELD_MAX => {
                self.open_scan(*family, start, end, *how, *snapshot);
            }
            Op::OpenScan { .. } => {}
            Op::MoveScan { scan, how, key } => self.move_scan(*scan, *how, key),
            Op::DropScan { scan } => drop(remove(&mut self.scans, *scan)),
            Op::CheckAll => self.check(),
            Op::CreateFamily { family } => self.create(*family),
            Op::DropFamily { family } => self.drop_family(*family),
            Op::Flush { family } => self.flush(*family),
            Op::FlushAll => self.flush_all(),
            Op::Compact { family, start, end } => self.compact(*family, start, end),
            Op::Step { choice, steps } => self.step(*choice, *steps),
            Op::WaitIdle => {
                let before = self.before();
                self.tolerate(before, self.db().wait_idle());
            }
            Op::PauseCompactions { pause } => {
                self.db().pause_compactions(*pause);
                self.paused = *pause;
            }
            Op::SyncWal => self.sync_wal(),
            Op::Look { family, start, end } => self.look(*family, start, end),
            Op::Verify => self.verify(),
            Op::BeginCheckpoint if self.checkpoints.len() < HELD_MAX => self.checkpoint(),
            Op::BeginCheckpoint => {}
            Op::DropCheckpoint { checkpoint } => drop(remove(&mut self.checkpoints, *checkpoint)),
            Op::Import { checkpoint, cut } => self.import(*checkpoint, *cut),
            Op::Save { checkpoint } => self.save(*checkpoint),
            Op::ForgetSaved => self.saved.clear(),
            Op::Restore { saved, first, last, go_on } => {
                self.restore(*saved, *first..=*last, *go_on);
            }
            Op::Rescale { parallelism } => self.rescale(u32::from(*parallelism)),
            Op::LetGo => self.let_go(),
            Op::Close { change_log, fault } => self.close(*change_log, fault.as_ref()),
            Op::Kill { fault } => self.kill(fault.as_ref()),
            Op::PowerCut { keep, seed, fault } => self.power_cut(*keep, *seed, fault.as_ref()),
            Op::PlanFault(fault) => self.faults.plan(fault.clone()),
            Op::FillDisk { bytes } => self.fill_disk(*bytes),
            Op::LosePower { after } => self.lose_power(*after),
            Op::Repair => self.repair(),
        }
    }

    /// What was seen, one line for each answer.
    pub fn transcript(&self) -> &[String] {
        &self.transcript
    }

    /// The database.
    pub fn database(&self) -> &Db {
        self.db()
    }

    /// Handles on its families.
    pub fn families(&self) -> impl Iterator<Item = &ColumnFamily> {
        self.families.iter().flatten()
    }

    /// Adds a line to the transcript.
    pub(super) fn note(&mut self, what: &str, bytes: Option<&[u8]>) {
        let shown = bytes.map(|bytes| bytes.escape_ascii().to_string());
        self.transcript.push(format!("{what} {shown:?}"));
    }

    pub(super) fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    /// A directory that was never used.
    pub(super) fn new_dir(&mut self) -> PathBuf {
        self.dirs += 1;
        self.disk.root.join(format!("restored-{}", self.dirs))
    }

    pub(super) fn before(&self) -> Before {
        Before { struck: self.faults.struck(), halted: self.is_halted() }
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Has a fault struck since?
    pub(super) fn struck_since(&self, before: Before) -> bool {
        self.faults.struck() > before.struck
    }

    /// The outcome of a call that may fail if a fault struck during it, or writes had stopped before.
    pub(super) fn tolerate<T>(&self, before: Before, outcome: Result<T>) -> Option<T> {
        outcome.inspect_err(|error| self.excuse(before, error)).ok()
    }

    /// The outcome of a read: only a fault that struck during it is an excuse.
    pub(super) fn tolerate_read<T>(&self, before: Before, outcome: Result<T>) -> Option<T> {
        let struck = self.struck_since(before);
        outcome.inspect_err(|error| assert!(struck, "a read failed for nothing: {error}")).ok()
    }

    fn excuse(&self, before: Before, error: &Error) {
        let excused = match error.kind() {
            ErrorKind::Halted | ErrorKind::Busy => true,
            ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::CommitUnknown => true,
            ErrorKind::Corruption => self.struck_since(before),
            _ => false,
        };
        // A seal that could not be written behind a sync is reported by the next call.
        let late = matches!(error.kind(), ErrorKind::CommitUnknown | ErrorKind::NoSpace);
        let cause = self.struck_since(before) || before.halted || self.out_of_order || self.paused;
        // Who holds flushed memtables may be what stands in the way.
        let holds = !self.scans.is_empty() || !self.readers.is_empty();
        let cause = cause || holds && error.kind() == ErrorKind::Busy;
        let cause = cause || late && (self.struck_since(self.opened) || self.was_out_of_order);
        assert!(excused && cause, "failed for nothing: {error}");
    }

    /// What the family with this number holds, or held when it was dropped.
    pub(super) fn map_of(&self, id: FamilyId) -> Rc<Map> {
        let all = self.now.iter().flatten().chain(&self.gone);
        let content = all.into_iter().find(|content| content.id == id);
        Rc::clone(&content.expect("a family that was").map)
    }

    /// The map of a live family as `state` has it: empty if the family is younger.
    pub(super) fn map_at(&self, state: &State, family: usize) -> Rc<Map> {
        let id = self.families[family].as_ref().map(ColumnFamily::id);
        let content = state[family].as_ref().filter(|content| Some(content.id) == id);
        content.map(|content| Rc::clone(&content.map)).unwrap_or_default()
    }

    /// The handle, if there is such a family; else the last one that was dropped is refused.
    pub(super) fn family(&self, family: usize) -> Option<ColumnFamily> {
        if let (None, Some(dropped)) = (&self.families[family], &self.dropped[family]) {
            let refused = [
                self.db().put(dropped, b"key", b"value"),
                self.db().get(dropped, b"key").map(drop),
                self.db().scan(dropped, ..).map(drop),
                self.db().flush(dropped),
                self.db().update(dropped, b"key", |_, _| Update::Keep),
                self.db().drop_column_family(dropped),
            ];
            for outcome in refused {
                let error = outcome.expect_err("the family was dropped");
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            }
        }
        self.families[family].clone()
    }

    /// A commit has happened.
    fn committed(&mut self, families: impl Iterator<Item = usize>, durable: bool) {
        self.commits += 1;
        families.for_each(|family| self.last_commit[family] = self.commits);
        self.possible.push((self.commits, self.now.clone()));
        if durable {
            self.durable_to(self.commits);
        }
    }

    /// Everything up to this commit survives a power cut.
    pub(super) fn durable_to(&mut self, commit: u64) {
        self.possible.retain(|(number, _)| *number >= commit);
        assert!(!self.possible.is_empty(), "the last commit is always possible");
    }

    /// Judges a write: `new` is the state that it makes.
    fn wrote(
        &mut self,
        before: Before,
        outcome: Result<()>,
        new: State,
        families: &[usize],
        sync: bool,
    ) {
        match outcome {
            Ok(()) => {
                assert!(!before.halted, "a halted database takes a write");
                self.now = new;
                let sync = sync || self.config.options.sync;
                self.committed(families.iter().copied(), sync);
            }
            Err(error) => {
                self.note(&format!("{:?}", error.kind()), None);
                self.excuse(before, &error);
                if error.kind() == ErrorKind::CommitUnknown {
                    self.unknown.push(new);
                }
                let kinds = [ErrorKind::CommitUnknown, ErrorKind::Halted];
                let is_final = kinds.contains(&error.kind());
                assert!(!is_final || self.is_halted(), "nobody knows, and writes go on: {error}");
            }
        }
    }

    fn write(&mut self, change: &Change) {
        let Some(family) = self.family(change.family) else { return };
        let before = self.before();
        let writer = self.writer(&family);
        let outcome = match (&change.verb, writer) {
            (Verb::Put(key, value), None) => self.db().put(&family, key, value),
            (Verb::Put(key, value), Some(writer)) => writer.put(key, value),
            (Verb::Delete(key), None) => self.db().delete(&family, key),
            (Verb::Delete(key), Some(writer)) => writer.delete(key),
            (Verb::Merge(key, operand), None) => self.db().merge(&family, key, operand),
            (Verb::Merge(key, operand), Some(writer)) => writer.merge(key, operand),
            (Verb::DeleteRange(start, end), _) => self.db().delete_range(&family, start, end),
        };
        if change.verb.is_nothing() {
            return outcome.expect("nothing to do");
        }
        let new = changed(&self.now, std::slice::from_ref(change));
        self.wrote(before, outcome, new, &[change.family], false);
    }

    /// A writer of a live family, for every other commit.
    fn writer(&self, family: &ColumnFamily) -> Option<Writer> {
        (self.commits % 2 == 1).then(|| self.db().writer(family).expect("a live family"))
    }

    fn batch(&mut self, changes: &[Change], sync: bool) {
        let mut batch = WriteBatch::new();
        let mut made = Vec::new();
        for change in changes {
            if let Some(family) = self.family(change.family) {
                change.verb.add_to(&mut batch, &family);
                made.push(change.clone());
            }
        }
        let sync = sync && self.config.options.log;
        let before = self.before();
        let outcome = self.db().write(&batch, WriteOptions { sync }).map(drop);
        if batch.is_empty() {
            self.tolerate(before, outcome);
            return;
        }
        let written = made.iter().filter(|change| !change.verb.is_nothing());
        let families: Vec<usize> = written.map(|change| change.family).collect();
        let new = changed(&self.now, &made);
        self.wrote(before, outcome, new, &families, sync);
    }

    fn update(&mut self, place: usize, key: &[u8], value: &[u8], how: u8) {
        let Some(family) = self.family(place) else { return };
        let old = self.map_at(&self.now, place).get(key).cloned();
        let update = [Update::Put, Update::Delete, Update::Keep][usize::from(how) % 3];
        let before = self.before();
        let mut called = 0;
        let change = |found: Option<&[u8]>, out: &mut Vec<u8>| {
            assert_eq!(found, old.as_deref(), "what an update reads");
            called += 1;
            out.extend_from_slice(value);
            update
        };
        let outcome = match self.writer(&family) {
            None => self.db().update(&family, key, change),
            Some(writer) => writer.update(key, change),
        };
        let again = called > 1 && self.background == Background::Inline;
        assert!((called > 0 || outcome.is_err()) && !again, "called {called} times");
        let verb = match update {
            Update::Put => Verb::Put(key.to_vec(), value.to_vec()),
            Update::Delete => Verb::Delete(key.to_vec()),
            Update::Keep => {
                self.tolerate(before, outcome);
                return;
            }
        };
        let new = changed(&self.now, &[Change { family: place, verb }]);
        self.wrote(before, outcome, new, &[place], false);
    }

    /// Opens a family, and creates it if there is none.
    pub(super) fn create(&mut self, family: usize) {
        let options = self.config.family(family, self.openings);
        let before = self.before();
        match self.db().column_family(NAMES[family], options) {
            Ok(handle) => {
                if let Some(content) = &self.now[family] {
                    assert_eq!(handle.id(), content.id, "the family that was there");
                } else {
                    let known = |content: &&Content| content.id == handle.id();
                    assert!(self.gone.iter().find(known).is_none(), "a number is used again");
                    self.appeared(family, handle.id());
                }
                assert_eq!(handle.name(), NAMES[family]);
                self.families[family] = Some(handle);
            }
            Err(error) => {
                self.excuse(before, &error);
                if self.now[family].is_none() && left_open(before, &error) {
                    // Perhaps it is there: empty, whatever else the crash leaves.
                    let content = Content { id: FamilyId(u32::MAX), map: Rc::default() };
                    let with = |(_, state): &(u64, State)| {
                        let mut state = state.clone();
                        state[family] = Some(content.clone());
                        state
                    };
                    self.unknown.extend(self.possible.iter().map(with));
                }
            }
        }
    }

    /// A family was created: durably, whatever becomes of the writes before.
    pub(super) fn appeared(&mut self, family: usize, id: FamilyId) {
        let content = Content { id, map: Rc::default() };
        for (_, state) in &mut self.possible {
            state[family] = Some(content.clone());
        }
        self.now[family] = Some(content);
    }

    fn drop_family(&mut self, place: usize) {
        let Some(family) = self.family(place) else { return };
        let before = self.before();
        let mut new = self.now.clone();
        let content = new[place].take().expect("a live family");
        match self.db().drop_column_family(&family) {
            Ok(()) => {
                self.now = new;
                self.gone.push(content);
                self.dropped[place] = self.families[place].take();
                // A drop is durable, and everything before it too.
                self.committed(std::iter::empty(), true);
            }
            Err(error) => {
                self.excuse(before, &error);
                if left_open(before, &error) {
                    self.unknown.push(new);
                }
            }
        }
    }
}

/// Is it open whether an edit that failed like this has happened?
fn left_open(before: Before, error: &Error) -> bool {
    !before.halted && error.kind() == ErrorKind::Halted
}

/// The state after these changes.
fn changed(state: &State, changes: &[Change]) -> State {
    let mut state = state.clone();
    for change in changes {
        let content = state[change.family].as_mut().expect("a live family");
        change.verb.apply(Rc::make_mut(&mut content.map));
    }
    state
}

pub(super) fn remove<T>(list: &mut Vec<T>, choice: u8) -> Option<T> {
    let count = list.len();
    (count > 0).then(|| list.swap_remove(usize::from(choice) % count))
}
