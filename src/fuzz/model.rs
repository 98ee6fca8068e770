//! A program of operations, made of arbitrary bytes, run on a database in memory and on ordered maps.
//! Everything that a reader can see must be equal, at every moment, after every crash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::error::{ErrorKind, Result};
use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::batch::WriteBatch;
use crate::cache::budget::MemoryBudget;
use crate::db::Db;
use crate::db::column_family::ColumnFamily;
use crate::db::file_set::PendingCheckpoint;
use crate::db::import::{ImportFamily, ImportSource, ImportTable};
use crate::db::options::{ColumnFamilyOptions, Env, Options, WriteOptions};
use crate::db::scan::Scan;
use crate::db::snapshot::Snapshot;
use crate::db::update::Update;
use crate::fs::memory::{Keep, MemFs};
use crate::iter::resolve::MergeOperator;

const OPS_MAX: usize = 300;
const FAMILIES: [&str; 2] = ["left", "right"];

/// Appends operands with a comma before each: the order of merges shows.
struct Comma;

impl MergeOperator for Comma {
    fn name(&self) -> &str {
        "fuzz.comma"
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(base.unwrap_or_default());
        operands.iter().for_each(|operand| append(out, operand));
        Ok(())
    }
}

fn append(out: &mut Vec<u8>, operand: &[u8]) {
    out.push(b',');
    out.extend_from_slice(operand);
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type State = [Map; 2];

/// One operation on the maps.
#[derive(Clone)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl Change {
    fn apply(&self, map: &mut Map) {
        match self {
            Change::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Change::Delete(key) => drop(map.remove(key)),
            Change::Merge(key, operand) => append(map.entry(key.clone()).or_default(), operand),
            Change::DeleteRange(start, end) if start < end => {
                map.retain(|key, _| key < start || key >= end);
            }
            Change::DeleteRange(..) => {}
        }
    }

    fn add_to(&self, batch: &mut WriteBatch, family: &ColumnFamily) {
        match self {
            Change::Put(key, value) => batch.put(family, key, value),
            Change::Delete(key) => batch.delete(family, key),
            Change::Merge(key, operand) => batch.merge(family, key, operand),
            Change::DeleteRange(start, end) => batch.delete_range(family, start, end),
        }
    }
}

/// The bytes of the program, taken from the front; zeros behind their end.
struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// One of few keys of few groups, so that operations meet.
    fn key(&mut self) -> Vec<u8> {
        let byte = self.byte();
        let mut key = vec![0, byte >> 5, byte & 0x1f];
        if byte.is_multiple_of(7) {
            key.resize(3 + usize::from(byte) / 7, b'x');
        }
        key
    }

    fn value(&mut self, number: u32) -> Vec<u8> {
        let len = match self.byte() {
            byte @ ..200 => usize::from(byte % 20),
            byte => usize::from(byte) * 10,
        };
        let mut value = number.to_string().into_bytes();
        value.resize(value.len() + len, b'.');
        value
    }

    fn change(&mut self, number: u32) -> Change {
        match self.byte() % 8 {
            0..=3 => Change::Put(self.key(), self.value(number)),
            4 => Change::Delete(self.key()),
            5 | 6 => Change::Merge(self.key(), self.value(number)),
            _ => Change::DeleteRange(self.key(), self.key()),
        }
    }
}

struct Machine {
    fs: MemFs,
    log: bool,
    epochs: u64,
    db: Option<Db>,
    families: Vec<ColumnFamily>,
    now: State,
    /// What a power cut may bring back: the last state that is durable, and all since.
    possible: Vec<State>,
    snapshots: Vec<(Snapshot, State)>,
    scans: Vec<(Scan, Map)>,
    checkpoints: Vec<(PendingCheckpoint, State)>,
    imports: usize,
    number: u32,
}

/// Runs the program to its end, or until a database without a log was stopped uncleanly.
pub(super) fn run(bytes: &[u8]) {
    let mut program = Program(bytes);
    let fs = MemFs::new();
    let mut machine = Machine {
        fs,
        log: program.byte() % 4 != 0,
        epochs: 0,
        db: None,
        families: Vec::new(),
        now: State::default(),
        possible: vec![State::default()],
        snapshots: Vec::new(),
        scans: Vec::new(),
        checkpoints: Vec::new(),
        imports: 0,
        number: 0,
    };
    machine.open();
    for _ in 0..OPS_MAX {
        if program.0.is_empty() || !machine.step(&mut program) {
            break;
        }
    }
    machine.finish();
}

fn dir() -> &'static Path {
    Path::new("db")
}

fn family_options() -> ColumnFamilyOptions {
    ColumnFamilyOptions {
        memtable_bytes_max: 8 << 10,
        block_bytes: 256,
        restart_interval: 3,
        key_group_bytes: 2,
        l0_depth_trigger: 2,
        level_bytes_base: 8 << 10,
        level_multiplier: 2,
        file_bytes: 4 << 10,
        merge_operator: Some(Arc::new(Comma)),
        ..ColumnFamilyOptions::default()
    }
}

impl Machine {
    fn options(&self) -> Options {
        Options { log: self.log, log_segment_bytes: 4 << 10, ..Options::default() }
    }

    fn env(&mut self) -> Env {
        self.epochs += 1;
        Env::simulated(Arc::new(self.fs.clone()), MemoryBudget::new(1 << 20), self.epochs)
    }

    fn open(&mut self) {
        let env = self.env();
        let db = Db::open(dir(), self.options(), env).expect("an intact directory");
        let open = |name| db.column_family(name, family_options()).expect("the same options");
        self.families = FAMILIES.into_iter().map(open).collect();
        self.db = Some(db);
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    /// One operation; `false` if the program cannot go on.
    fn step(&mut self, program: &mut Program<'_>) -> bool {
        match program.byte() % 32 {
            0..=11 => self.change(program),
            12 | 13 => self.batch(program),
            14 => self.update(program),
            15 | 16 => self.get(program),
            17 => self.scan(program),
            18 => self.hold(program),
            19 => self.release(program),
            20 => self.flush(program),
            21 | 22 => drop(self.db().step(u64::from(program.byte())).expect("a background step")),
            23 => self.compact(program),
            24 => self.sync(),
            25 => self.checkpoint(),
            26 => self.import(program),
            27 => self.db().verify().expect("sound tables"),
            28 => self.check(),
            29 => self.close(),
            30 => return self.kill(),
            _ => return self.crash(program),
        }
        true
    }

    fn wrote(&mut self, sync: bool) {
        if sync {
            self.possible.clear();
        }
        self.possible.push(self.now.clone());
    }

    fn change(&mut self, program: &mut Program<'_>) {
        self.number += 1;
        let which = usize::from(program.byte() % 2);
        let change = program.change(self.number);
        let (db, family) = (self.db(), &self.families[which]);
        let written = match &change {
            Change::Put(key, value) => db.put(family, key, value),
            Change::Delete(key) => db.delete(family, key),
            Change::Merge(key, operand) => db.merge(family, key, operand),
            Change::DeleteRange(start, end) => db.delete_range(family, start, end),
        };
        written.expect("a write");
        change.apply(&mut self.now[which]);
        self.wrote(false);
    }

    fn batch(&mut self, program: &mut Program<'_>) {
        let mut batch = WriteBatch::new();
        let shape = program.byte();
        for _ in 0..shape % 6 {
            self.number += 1;
            let which = usize::from(program.byte() % 2);
            let change = program.change(self.number);
            change.add_to(&mut batch, &self.families[which]);
            change.apply(&mut self.now[which]);
        }
        let sync = self.log && shape >= 0xc0;
        self.db().write(&batch, WriteOptions { sync }).expect("a batch");
        self.wrote(sync && !batch.is_empty());
    }

    fn update(&mut self, program: &mut Program<'_>) {
        self.number += 1;
        let which = usize::from(program.byte() % 2);
        let (key, value) = (program.key(), program.value(self.number));
        let old = self.now[which].get(&key).cloned();
        let outcome = match value.len() % 3 {
            0 => Update::Keep,
            1 => Update::Delete,
            _ => Update::Put,
        };
        let updated = self.db().update(&self.families[which], &key, |found, out| {
            assert_eq!(found, old.as_deref(), "what an update reads");
            out.extend_from_slice(&value);
            outcome
        });
        updated.expect("an update");
        match outcome {
            Update::Keep => return,
            Update::Delete => drop(self.now[which].remove(&key)),
            Update::Put => drop(self.now[which].insert(key, value)),
        }
        self.wrote(false);
    }

    fn get(&self, program: &mut Program<'_>) {
        let which = usize::from(program.byte() % 2);
        let (family, key) = (&self.families[which], program.key());
        let found = self.db().get(family, &key).expect("a read");
        assert_eq!(found.as_ref(), self.now[which].get(&key), "now, {key:?}");
        for (snapshot, state) in &self.snapshots {
            let found = self.db().get_at(family, snapshot, &key).expect("a read");
            assert_eq!(found.as_ref(), state[which].get(&key), "snapshot, {key:?}");
        }
    }

    fn scan(&self, program: &mut Program<'_>) {
        let which = usize::from(program.byte() % 2);
        let (start, end) = (program.key(), program.key());
        let range = KeyRange::new(start.clone(), Some(end.clone()));
        let snapshot = match self.snapshots.len() {
            0 => None,
            n => self.snapshots.get(usize::from(program.byte()) % (n + 1)),
        };
        let map = &snapshot.map_or(&self.now, |(_, state)| state)[which];
        let within = |(key, _): &(&Vec<u8>, &Vec<u8>)| (&start..&end).contains(key);
        let want: Map = map.iter().filter(within).map(|(k, v)| (k.clone(), v.clone())).collect();
        let snapshot = snapshot.map(|(snapshot, _)| snapshot);
        let scan = self.db().scan_range(&self.families[which], range, snapshot);
        drain(&mut scan.expect("a scan"), &want);
    }

    /// Something that later operations must not change.
    fn hold(&mut self, program: &mut Program<'_>) {
        match program.byte() % 3 {
            0 if self.scans.len() < 4 => {
                let which = usize::from(program.byte() % 2);
                let scan = self.db().scan(&self.families[which], ..).expect("a scan");
                self.scans.push((scan, self.now[which].clone()));
            }
            1 | 2 if self.snapshots.len() < 4 => {
                self.snapshots.push((self.db().snapshot(), self.now.clone()));
            }
            _ => {}
        }
    }

    fn release(&mut self, program: &mut Program<'_>) {
        let choice = usize::from(program.byte());
        if !self.scans.is_empty() {
            let (mut scan, want) = self.scans.remove(choice % self.scans.len());
            drain(&mut scan, &want);
        } else if !self.snapshots.is_empty() {
            self.snapshots.remove(choice % self.snapshots.len());
        }
    }

    fn flush(&mut self, program: &mut Program<'_>) {
        match usize::from(program.byte() % 3) {
            2 => {
                self.db().flush_all().expect("a flush");
                self.possible = vec![self.now.clone()];
            }
            which => self.db().flush(&self.families[which]).expect("a flush"),
        }
    }

    fn compact(&mut self, program: &mut Program<'_>) {
        let family = &self.families[usize::from(program.byte() % 2)];
        let (start, end) = (program.key(), program.key());
        self.db().compact_range(family, &start[..]..&end[..]).expect("a compaction");
    }

    fn sync(&mut self) {
        match self.db().sync_wal() {
            Ok(()) => self.possible = vec![self.now.clone()],
            Err(e) => assert!(!self.log && e.kind() == ErrorKind::InvalidArgument, "{e}"),
        }
    }

    fn checkpoint(&mut self) {
        if self.checkpoints.len() < 3 {
            self.checkpoints
                .push((self.db().checkpoint().expect("a checkpoint"), self.now.clone()));
        }
    }

    /// Completes the oldest checkpoint and restores it elsewhere, cut at a key group.
    fn import(&mut self, program: &mut Program<'_>) {
        let cut = program.byte() % 8;
        if self.checkpoints.is_empty() {
            return;
        }
        let (pending, state) = self.checkpoints.remove(0);
        let set = pending.wait().expect("a file set");
        let families: Vec<ImportFamily> = set
            .families()
            .iter()
            .map(|family| ImportFamily {
                name: family.name().to_owned(),
                merge_operator: family.merge_operator().map(str::to_owned),
                options: family.options().to_vec(),
                tables: set
                    .tables_of(family)
                    .map(|t| ImportTable { level: t.level, meta: t.meta, path: t.path })
                    .collect(),
            })
            .collect();
        let clip = KeyRange::new([0, cut], None::<[u8; 2]>);
        let source = ImportSource { seqno: set.seqno(), clip, families };
        self.imports += 1;
        let dir = PathBuf::from(format!("restored-{}", self.imports));
        let (env, options) = (self.env(), self.options());
        let db = Db::import(&dir, options, env, &[source]).expect("an import");
        for (name, map) in FAMILIES.into_iter().zip(&state) {
            let family = db.column_family(name, family_options()).expect("it is there");
            let want: Map = map.clone().split_off(&[0, cut][..]);
            drain(&mut db.scan(&family, ..).expect("a scan"), &want);
        }
        db.verify().expect("sound tables");
    }

    fn check(&self) {
        for (family, map) in self.families.iter().zip(&self.now) {
            drain(&mut self.db().scan(family, ..).expect("a scan"), map);
        }
        for (snapshot, state) in &self.snapshots {
            for (family, map) in self.families.iter().zip(state) {
                let scan = self.db().scan_range(family, KeyRange::all(), Some(snapshot));
                drain(&mut scan.expect("a scan"), map);
            }
        }
    }

    /// What is held sees at the end what it saw at the beginning; then it is gone.
    fn let_go(&mut self) {
        self.check();
        for (mut scan, want) in self.scans.drain(..) {
            drain(&mut scan, &want);
        }
        self.snapshots.clear();
        self.checkpoints.clear();
    }

    fn close(&mut self) {
        self.let_go();
        self.db.take().expect("open").close().expect("a close");
        self.possible = vec![self.now.clone()];
        self.open();
        self.check();
    }

    /// The process dies; what it wrote is in the system's memory.
    fn kill(&mut self) -> bool {
        self.let_go();
        self.db = None;
        self.reopen(vec![self.now.clone()])
    }

    /// The power is cut.
    fn crash(&mut self, program: &mut Program<'_>) -> bool {
        let choice = program.byte();
        let keep = [Keep::Nothing, Keep::Torn, Keep::All][usize::from(choice % 3)];
        let image = self.fs.crash_image(keep, u64::from(choice));
        self.let_go();
        self.db = None;
        self.fs = image;
        let possible = match keep {
            Keep::All => vec![self.now.clone()],
            _ => std::mem::take(&mut self.possible),
        };
        self.reopen(possible)
    }

    /// Opens after an unclean stop and finds one of the possible states.
    fn reopen(&mut self, possible: Vec<State>) -> bool {
        if !self.log {
            let env = self.env();
            let refused = Db::open(dir(), self.options(), env).expect_err("not closed");
            assert_eq!(refused.kind(), ErrorKind::Halted, "{refused}");
            return false;
        }
        self.open();
        let found: Vec<Map> = self
            .families
            .iter()
            .map(|family| {
                let mut scan = self.db().scan(family, ..).expect("a scan");
                let mut map = Map::new();
                while scan.next().expect("a step") {
                    map.insert(scan.key().to_vec(), scan.value().to_vec());
                }
                map
            })
            .collect();
        let state = possible.into_iter().rev().find(|state| state[..] == found[..]);
        self.now = state.expect("a state that was, and not one before the last sync");
        self.possible = vec![self.now.clone()];
        self.check();
        true
    }

    fn finish(mut self) {
        if self.db.is_none() {
            return;
        }
        self.db().wait_idle().expect("background work");
        self.let_go();
        self.db().verify().expect("sound tables");
        self.close();
    }
}

/// A scan shows exactly these, forward and then backward.
fn drain(scan: &mut Scan, want: &Map) {
    for (key, value) in want {
        assert!(scan.next().expect("a step"), "the scan ends before {key:?}");
        assert_eq!((scan.key(), scan.value()), (&**key, &**value));
    }
    assert!(!scan.next().expect("a step"), "the scan goes on");
    for (key, value) in want.iter().rev() {
        assert!(scan.prev().expect("a step"), "the scan ends behind {key:?}");
        assert_eq!((scan.key(), scan.value()), (&**key, &**value));
    }
    assert!(!scan.prev().expect("a step"), "the scan goes on");
}
