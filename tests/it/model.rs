//! Random programs over everything the engine can do, against plain maps.
//!
//! One generator, nothing switched off: writes of every kind over two families, snapshots and scans
//! that stay open across flushes, compactions and further writes, updates, checkpoints that are
//! completed later and opened clipped, clean reopening and power cuts. Options are random too, and
//! background work is done step by step in an order that the program decides.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Codec, ColumnFamily, ColumnFamilyOptions, Db, Env, ErrorKind, FileSet, ImportFamily,
    ImportSource, ImportTable, Keep, KeyRange, MemFs, MemoryBudget, Options, PendingCheckpoint,
    Scan, Snapshot, Update, WriteBatch, WriteOptions,
};
use quickcheck::{Arbitrary, Gen, QuickCheck, TestResult};

use crate::basic::Comma;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// What the two families hold.
type State = [Map; 2];

/// A key of a small alphabet: many collisions, common prefixes, runs of 0x00 and 0xff.
#[derive(Clone, Debug)]
struct Key(Vec<u8>);

impl Arbitrary for Key {
    fn arbitrary(g: &mut Gen) -> Key {
        let len = 1 + usize::arbitrary(g) % 3;
        let letter = |g: &mut Gen| *g.choose(&[0x00, b'a', b'b', 0xff]).unwrap();
        Key((0..len).map(|_| letter(g)).collect())
    }
}

#[derive(Clone, Debug)]
enum Write {
    Put(bool, Key, u8),
    Delete(bool, Key),
    DeleteRange(bool, Key, Key),
    Merge(bool, Key, u8),
}

impl Arbitrary for Write {
    fn arbitrary(g: &mut Gen) -> Write {
        let (family, key) = (bool::arbitrary(g), Key::arbitrary(g));
        match u8::arbitrary(g) % 10 {
            0..=4 => Write::Put(family, key, u8::arbitrary(g)),
            5 | 6 => Write::Delete(family, key),
            7 => Write::DeleteRange(family, key, Key::arbitrary(g)),
            _ => Write::Merge(family, key, u8::arbitrary(g) % 26),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(Write, bool),
    Batch(Vec<Write>, bool),
    Update(bool, Key, u8),
    Get(bool, Key),
    TakeSnapshot,
    DropSnapshot(u8),
    ReadSnapshot(u8, bool, Key),
    OpenScan(bool, Key, Option<Key>, Option<u8>),
    MoveScan(u8, u8, Key),
    DropScan(u8),
    CheckAll,
    Flush(bool),
    FlushAll,
    Compact(bool, Key, Key),
    Step(u8),
    Idle,
    Sync,
    BeginCheckpoint,
    EndCheckpoint(u8),
    DropCheckpoint(u8),
    Reopen,
    Crash(u8),
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Op {
        let n = u8::arbitrary(g);
        match u8::arbitrary(g) % 64 {
            0..=23 => Op::Write(Write::arbitrary(g), n < 20),
            24..=27 => Op::Batch((0..n % 6).map(|_| Write::arbitrary(g)).collect(), n < 40),
            28..=30 => Op::Update(bool::arbitrary(g), Key::arbitrary(g), n),
            31..=33 => Op::Get(bool::arbitrary(g), Key::arbitrary(g)),
            34 | 35 => Op::TakeSnapshot,
            36 => Op::DropSnapshot(n),
            37 | 38 => Op::ReadSnapshot(n, bool::arbitrary(g), Key::arbitrary(g)),
            39 | 40 => {
                let end = (n % 3 > 0).then(|| Key::arbitrary(g));
                Op::OpenScan(bool::arbitrary(g), Key::arbitrary(g), end, (n % 2 == 0).then_some(n))
            }
            41..=46 => Op::MoveScan(n, u8::arbitrary(g), Key::arbitrary(g)),
            47 => Op::DropScan(n),
            48 => Op::CheckAll,
            49 | 50 => Op::Flush(bool::arbitrary(g)),
            51 => Op::FlushAll,
            52 => Op::Compact(bool::arbitrary(g), Key::arbitrary(g), Key::arbitrary(g)),
            53..=56 => Op::Step(n),
            57 => Op::Idle,
            58 => Op::Sync,
            59 => Op::BeginCheckpoint,
            60 => Op::EndCheckpoint(n),
            61 => Op::DropCheckpoint(n),
            62 => Op::Reopen,
            _ => Op::Crash(n),
        }
    }
}

#[derive(Clone, Debug)]
struct Program {
    options: u64,
    ops: Vec<Op>,
}

impl Arbitrary for Program {
    fn arbitrary(g: &mut Gen) -> Program {
        let len = 20 + usize::arbitrary(g) % 180;
        Program { options: u64::arbitrary(g), ops: (0..len).map(|_| Op::arbitrary(g)).collect() }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Program>> {
        let options = self.options;
        Box::new(self.ops.shrink().map(move |ops| Program { options, ops }))
    }
}

/// Options drawn from the bits of a number: every axis that changes what is on disk.
fn family_options(bits: u64) -> ColumnFamilyOptions {
    let pick = |shift: u32, values: &[usize]| values[(bits >> shift) as usize % values.len()];
    let codecs = [Codec::None, if cfg!(feature = "zstd") { Codec::Zstd } else { Codec::None }];
    ColumnFamilyOptions {
        memtable_bytes_max: pick(0, &[4 << 10, 5 << 10, 16 << 10, 1 << 20]),
        block_bytes: pick(3, &[64, 128, 1024]),
        restart_interval: pick(5, &[1, 3, 16]),
        codecs: [codecs[(bits >> 7) as usize % 2]; alluvium::limits::LEVELS],
        filter_bits_per_key: pick(8, &[0, 1, 10]) as u32,
        key_group_bytes: pick(10, &[0, 2]) as u8,
        l0_depth_trigger: pick(11, &[1, 2, 4]),
        level_bytes_base: pick(13, &[512, 4096, 1 << 20]) as u64,
        level_multiplier: pick(15, &[2, 10]) as u64,
        file_bytes: pick(16, &[512, 1024, 1 << 20]) as u64,
        merge_operator: Some(Arc::new(Comma)),
        ..ColumnFamilyOptions::default()
    }
}

fn apply(state: &mut State, write: &Write) {
    match write {
        Write::Put(family, key, n) => {
            state[usize::from(*family)].insert(key.0.clone(), value(*n));
        }
        Write::Delete(family, key) => {
            state[usize::from(*family)].remove(&key.0);
        }
        Write::DeleteRange(family, start, end) => {
            state[usize::from(*family)].retain(|key, _| *key < start.0 || *key >= end.0);
        }
        Write::Merge(family, key, n) => {
            let operand = vec![b'a' + n];
            match state[usize::from(*family)].entry(key.0.clone()) {
                std::collections::btree_map::Entry::Vacant(v) => drop(v.insert(operand)),
                std::collections::btree_map::Entry::Occupied(mut o) => {
                    o.get_mut().push(b',');
                    o.get_mut().extend(operand);
                }
            }
        }
    }
}

/// Values of many lengths.
fn value(n: u8) -> Vec<u8> {
    vec![n; usize::from(n % 32) * usize::from(1 + n % 7)]
}

struct HeldScan {
    scan: Scan,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// -1: before the first; len: behind the last.
    place: isize,
}

struct Run {
    fs: MemFs,
    options: Options,
    family_bits: u64,
    db: Option<Db>,
    families: Vec<ColumnFamily>,
    state: State,
    /// States after each commit since the last one known to be durable, that one first.
    since_durable: Vec<State>,
    snapshots: Vec<(Snapshot, State)>,
    scans: Vec<HeldScan>,
    pending: Vec<(PendingCheckpoint, State)>,
    imports: u32,
    opens: u64,
}

const DIR: &str = "db";

impl Run {
    fn new(bits: u64) -> Run {
        let options = Options {
            log: !bits.is_multiple_of(4),
            log_segment_bytes: if bits % 8 < 4 { 512 } else { 1 << 20 },
            immutables_max: 1 + (bits >> 20) as usize % 3,
            l0_stop_depth: 4 + (bits >> 22) as usize % 9,
            ..Options::default()
        };
        let mut run = Run {
            fs: MemFs::new(),
            options,
            family_bits: bits >> 24,
            db: None,
            families: Vec::new(),
            state: State::default(),
            since_durable: vec![State::default()],
            snapshots: Vec::new(),
            scans: Vec::new(),
            pending: Vec::new(),
            imports: 0,
            opens: 0,
        };
        run.open().expect("a new database opens");
        run
    }

    fn env(&mut self) -> Env {
        self.opens += 1;
        let budget =
            MemoryBudget::new(if self.opens.is_multiple_of(2) { 1 << 20 } else { 64 << 20 });
        Env::simulated(Arc::new(self.fs.clone()), budget, self.opens)
    }

    fn open(&mut self) -> alluvium::Result<()> {
        let env = self.env();
        let db = Db::open(Path::new(DIR), self.options.clone(), env)?;
        self.families = open_families(&db, self.family_bits);
        self.db = Some(db);
        Ok(())
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn family(&self, second: bool) -> &ColumnFamily {
        &self.families[usize::from(second)]
    }

    fn committed(&mut self, durable: bool) {
        if durable {
            self.since_durable.clear();
        }
        self.since_durable.push(self.state.clone());
    }

    fn write(&mut self, writes: &[Write], sync: bool, single: bool) {
        let sync = sync && self.options.log;
        if let ([write], true, false) = (writes, single, sync) {
            let db = self.db();
            match write {
                Write::Put(f, key, n) => db.put(self.family(*f), &key.0, &value(*n)),
                Write::Delete(f, key) => db.delete(self.family(*f), &key.0),
                Write::DeleteRange(f, a, b) => db.delete_range(self.family(*f), &a.0, &b.0),
                Write::Merge(f, key, n) => db.merge(self.family(*f), &key.0, &[b'a' + n]),
            }
            .unwrap();
        } else {
            let mut batch = WriteBatch::new();
            for write in writes {
                match write {
                    Write::Put(f, key, n) => batch.put(self.family(*f), &key.0, &value(*n)),
                    Write::Delete(f, key) => batch.delete(self.family(*f), &key.0),
                    Write::DeleteRange(f, a, b) => {
                        batch.delete_range(self.family(*f), &a.0, &b.0);
                    }
                    Write::Merge(f, key, n) => batch.merge(self.family(*f), &key.0, &[b'a' + n]),
                }
            }
            self.db().write(&batch, WriteOptions { sync }).unwrap();
            if batch.is_empty() {
                return;
            }
        }
        writes.iter().for_each(|write| apply(&mut self.state, write));
        self.committed(sync);
    }

    fn check_all(&self) {
        for (i, family) in self.families.iter().enumerate() {
            let mut scan = self.db().scan(family, ..).unwrap();
            same_both_ways(&mut scan, &self.state[i]);
            let keys: Vec<&[u8]> = self.state[i].keys().map(Vec::as_slice).collect();
            let mut seen = 0;
            self.db()
                .multi_get(family, &keys, |i2, found| {
                    assert_eq!(found, Some(self.state[i][keys[i2]].as_slice()));
                    seen += 1;
                })
                .unwrap();
            assert_eq!(seen, keys.len());
        }
    }

    fn let_go(&mut self) {
        self.snapshots.clear();
        self.scans.clear();
        self.pending.clear();
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Write(write, sync) => self.write(std::slice::from_ref(write), *sync, true),
            Op::Batch(writes, sync) => self.write(writes, *sync, false),
            Op::Update(family, key, n) => self.update(*family, key, *n),
            Op::Get(family, key) => {
                let found = self.db().get(self.family(*family), &key.0).unwrap();
                assert_eq!(found.as_ref(), self.state[usize::from(*family)].get(&key.0));
            }
            Op::TakeSnapshot => self.snapshots.push((self.db().snapshot(), self.state.clone())),
            Op::DropSnapshot(i) => drop(remove(&mut self.snapshots, *i)),
            Op::ReadSnapshot(i, family, key) => self.read_snapshot(*i, *family, key),
            Op::OpenScan(family, start, end, snapshot) => {
                self.open_scan(*family, start, end.as_ref(), *snapshot);
            }
            Op::MoveScan(i, how, key) => {
                let count = self.scans.len();
                if count > 0 {
                    self.scans[usize::from(*i) % count].go(*how, &key.0);
                }
            }
            Op::DropScan(i) => drop(remove(&mut self.scans, *i)),
            Op::CheckAll => self.check_all(),
            Op::Flush(family) => self.db().flush(self.family(*family)).unwrap(),
            Op::FlushAll => {
                self.db().flush_all().unwrap();
                // Tables are durable, with or without a log.
                self.since_durable = vec![self.state.clone()];
            }
            Op::Compact(family, a, b) => {
                self.db().compact_range(self.family(*family), &a.0[..]..&b.0[..]).unwrap();
            }
            Op::Step(n) => {
                for choice in 0..u64::from(n % 8) {
                    self.db().step(choice + u64::from(*n)).unwrap();
                }
            }
            Op::Idle => self.db().wait_idle().unwrap(),
            Op::Sync => {
                if self.options.log {
                    self.db().sync_wal().unwrap();
                    self.since_durable = vec![self.state.clone()];
                } else {
                    let refused = self.db().sync_wal().unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
                }
            }
            Op::BeginCheckpoint => {
                self.pending.push((self.db().checkpoint().unwrap(), self.state.clone()));
            }
            Op::EndCheckpoint(i) => {
                if let Some((pending, state)) = remove(&mut self.pending, *i) {
                    let set = pending.wait().unwrap();
                    self.import(&set, &state);
                }
            }
            Op::DropCheckpoint(i) => drop(remove(&mut self.pending, *i)),
            Op::Reopen => {
                self.let_go();
                self.db.take().unwrap().close().unwrap();
                self.since_durable = vec![self.state.clone()];
                self.open().unwrap();
                self.check_all();
            }
            Op::Crash(n) => self.crash(*n),
        }
    }

    fn update(&mut self, family: bool, key: &Key, n: u8) {
        let old = self.state[usize::from(family)].get(&key.0).cloned();
        let expected = old.clone();
        self.db()
            .update(self.family(family), &key.0, |found, out| {
                assert_eq!(found, expected.as_deref());
                match n % 3 {
                    0 => Update::Keep,
                    1 => Update::Delete,
                    _ => {
                        out.extend_from_slice(found.unwrap_or_default());
                        out.truncate(100);
                        out.push(n);
                        Update::Put
                    }
                }
            })
            .unwrap();
        match n % 3 {
            0 => return,
            1 => drop(self.state[usize::from(family)].remove(&key.0)),
            _ => {
                let mut new = old.unwrap_or_default();
                new.truncate(100);
                new.push(n);
                self.state[usize::from(family)].insert(key.0.clone(), new);
            }
        }
        self.committed(false);
    }

    fn read_snapshot(&self, i: u8, family: bool, key: &Key) {
        if self.snapshots.is_empty() {
            return;
        }
        let (snapshot, state) = &self.snapshots[usize::from(i) % self.snapshots.len()];
        let map = &state[usize::from(family)];
        let handle = self.family(family);
        assert_eq!(self.db().get_at(handle, snapshot, &key.0).unwrap().as_ref(), map.get(&key.0));
        let mut scan = self.db().scan_range(handle, KeyRange::all(), Some(snapshot)).unwrap();
        same_both_ways(&mut scan, map);
    }

    fn open_scan(&mut self, family: bool, start: &Key, end: Option<&Key>, snapshot: Option<u8>) {
        let range = KeyRange::new(start.0.clone(), end.map(|end| end.0.clone()));
        let held = snapshot.filter(|_| !self.snapshots.is_empty());
        let held = held.map(|i| &self.snapshots[usize::from(i) % self.snapshots.len()]);
        let state = held.map_or(&self.state, |(_, state)| state);
        let inside = state[usize::from(family)].iter().filter(|(key, _)| range.contains(key));
        let entries = inside.map(|(k, v)| (k.clone(), v.clone())).collect();
        let snapshot = held.map(|(snapshot, _)| snapshot);
        let scan = self.db().scan_range(self.family(family), range, snapshot).unwrap();
        self.scans.push(HeldScan { scan, entries, place: -1 });
    }

    /// The power fails (or, with an odd number, only the process dies).
    fn crash(&mut self, n: u8) {
        self.let_go();
        let keep = match n % 4 {
            0 => Keep::Nothing,
            1 | 3 => Keep::All,
            _ => Keep::Torn,
        };
        let image = self.fs.crash_image(keep, u64::from(n));
        drop(self.db.take());
        self.fs = image;
        if let Err(refused) = self.open() {
            assert!(!self.options.log, "a log refuses nothing after a power cut: {refused}");
            assert_eq!(refused.kind(), ErrorKind::Halted);
            // What a caller does then: begin anew, from a checkpoint or from nothing.
            self.fs = MemFs::new();
            self.state = State::default();
            self.since_durable = vec![State::default()];
            self.open().unwrap();
            return;
        }
        let found: Vec<Map> = self.families.iter().map(|f| read(self.db(), f)).collect();
        let found: State = found.try_into().unwrap();
        if keep == Keep::All {
            assert_eq!(found, self.state, "a dead process loses nothing");
        }
        let known = self.since_durable.contains(&found);
        assert!(known, "{keep:?}: recovered something that never was, or lost what was durable");
        self.state = found;
        // What was shown must survive the next crash.
        self.since_durable = vec![self.state.clone()];
        self.check_all();
    }

    /// Opens a captured file set as one database, and as two clipped ones.
    fn import(&mut self, set: &FileSet, state: &State) {
        let cut = b"a".to_vec();
        let clips = [
            vec![KeyRange::all()],
            vec![
                KeyRange::new(vec![], Some(cut.clone())),
                KeyRange::new(cut.clone(), None::<Vec<u8>>),
            ],
        ];
        for clips in clips {
            self.imports += 1;
            let dir = format!("import-{}", self.imports);
            let whole: Vec<_> = clips.iter().map(|clip| source(set, clip.clone())).collect();
            self.check_import(&dir, &whole, state);
            if clips.len() > 1 {
                let part = source(set, clips[1].clone());
                let mut half = state.clone();
                half.iter_mut().for_each(|map| map.retain(|key, _| *key >= cut));
                self.check_import(&format!("{dir}-half"), &[part], &half);
            }
        }
    }

    fn check_import(&mut self, dir: &str, sources: &[ImportSource], state: &State) {
        let env = self.env();
        let db = Db::import(Path::new(dir), self.options.clone(), env, sources).unwrap();
        let families = open_families(&db, self.family_bits.rotate_left(7));
        for (family, map) in families.iter().zip(state) {
            same_both_ways(&mut db.scan(family, ..).unwrap(), map);
            db.compact_range(family, ..).unwrap();
            same_both_ways(&mut db.scan(family, ..).unwrap(), map);
        }
        db.verify().unwrap();
    }
}

fn open_families(db: &Db, bits: u64) -> Vec<ColumnFamily> {
    let open = |name: &str, bits| db.column_family(name, family_options(bits)).unwrap();
    vec![open("first", bits), open("second", bits.rotate_left(11))]
}

fn source(set: &FileSet, clip: KeyRange) -> ImportSource {
    let families = set.families().iter().map(|family| ImportFamily {
        name: family.name().to_owned(),
        merge_operator: family.merge_operator().map(str::to_owned),
        options: family.options().to_vec(),
        tables: set
            .tables_of(family)
            .map(|table| ImportTable { level: table.level, meta: table.meta, path: table.path })
            .collect(),
    });
    ImportSource { seqno: set.seqno(), clip, families: families.collect() }
}

fn remove<T>(list: &mut Vec<T>, i: u8) -> Option<T> {
    let count = list.len();
    (count > 0).then(|| list.swap_remove(usize::from(i) % count))
}

pub fn read(db: &Db, family: &ColumnFamily) -> Map {
    let mut scan = db.scan(family, ..).unwrap();
    let mut map = Map::new();
    while scan.next().unwrap() {
        map.insert(scan.key().to_vec(), scan.value().to_vec());
    }
    map
}

fn same_both_ways(scan: &mut Scan, map: &Map) {
    for (key, value) in map {
        assert!(scan.next().unwrap(), "{key:?} is missing");
        assert_eq!((scan.key(), scan.value()), (key.as_slice(), value.as_slice()));
    }
    assert!(!scan.next().unwrap(), "{:?} should not be there", scan.key());
    for (key, value) in map.iter().rev() {
        assert!(scan.prev().unwrap(), "{key:?} is missing backwards");
        assert_eq!((scan.key(), scan.value()), (key.as_slice(), value.as_slice()));
    }
    assert!(!scan.prev().unwrap(), "{:?} should not be there", scan.key());
}

impl HeldScan {
    fn go(&mut self, how: u8, key: &[u8]) {
        let len = self.entries.len() as isize;
        let found = match how % 6 {
            0 => {
                self.place = 0;
                self.scan.first()
            }
            1 => {
                self.place = len - 1;
                self.scan.last()
            }
            2 => {
                self.place = self.entries.partition_point(|(k, _)| k.as_slice() < key) as isize;
                self.scan.seek(key)
            }
            3 => {
                self.place =
                    self.entries.partition_point(|(k, _)| k.as_slice() <= key) as isize - 1;
                self.scan.seek_for_prev(key)
            }
            4 => {
                self.place = (self.place + 1).min(len);
                self.scan.next()
            }
            _ => {
                self.place = (self.place - 1).max(-1);
                self.scan.prev()
            }
        };
        let expected = usize::try_from(self.place).ok().and_then(|i| self.entries.get(i));
        let expected = expected.map(|(k, v)| (k.as_slice(), v.as_slice()));
        assert_eq!((found.unwrap(), self.scan.entry()), (expected.is_some(), expected));
    }
}

fn holds(program: Program) -> TestResult {
    let mut run = Run::new(program.options);
    for op in &program.ops {
        run.run(op);
    }
    run.check_all();
    TestResult::passed()
}

#[test]
fn programs_do_what_plain_maps_do() {
    let tests = std::env::var("ALLUVIUM_PROGRAMS").ok().and_then(|n| n.parse().ok());
    let seed = std::env::var("ALLUVIUM_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let random = Gen::from_size_and_seed(200, seed);
    let mut check = QuickCheck::new().rng(random).tests(tests.unwrap_or(400));
    check.quickcheck(holds as fn(Program) -> TestResult);
}
