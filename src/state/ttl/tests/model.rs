//! The model of state that expires: random programs with a clock, on as many backends as there are
//! instances, interleaved with flushes, compactions, snapshots, checkpoints, restores at another
//! parallelism, reopenings, and with the time to live switched off and on; against plain collections.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::Db;
use crate::Env;
use crate::KeyGroupRange;
use crate::ListState;
use crate::MapState;
use crate::MemFs;
use crate::MemoryBudget;
use crate::PendingCheckpoint;
use crate::ReducingState;
use crate::Snapshot;
use crate::StateBackend;
use crate::ValueState;
use crate::state::key_group::assign;
use crate::state::key_group::operator_index;
use crate::state::rescale::key_group_ranges;
use crate::state::rescale::shares;
use crate::state::tests::source;
use quickcheck::QuickCheck;

const PARALLELISMS: [u32; 5] = [1, 2, 3, 7, 128];
const TTL: i64 = 100;
const KEYS: u64 = 12;
const STATES: [&str; 4] = ["value", "list", "map", "sum"];

/// What to do, key, and a number with some meaning for it.
type Op = (u8, u8, u8);

type Dated = (i64, u32);

/// What is stored, expired or not: each with its time.
#[derive(Clone, Default)]
struct Oracle {
    value: BTreeMap<u64, Dated>,
    list: BTreeMap<u64, Vec<Dated>>,
    map: BTreeMap<u64, BTreeMap<u8, Dated>>,
    sum: BTreeMap<u64, Dated>,
}

/// Keys and values as they are stored.
type Raw = Vec<(Vec<u8>, Vec<u8>)>;

struct Instance {
    groups: KeyGroupRange,
    dir: PathBuf,
    backend: StateBackend<u64>,
    value: ValueState<u32>,
    list: ListState<u32>,
    map: MapState<u8, u32>,
    sum: ReducingState<u32>,
    /// A view of the past, and all that was stored then.
    snapshot: Option<(Snapshot, Raw)>,
}

type Checkpoint = (Vec<(KeyGroupRange, PendingCheckpoint)>, Oracle, bool);

struct Job {
    env: Env,
    now: Arc<Mutex<i64>>,
    config: TtlConfig,
    /// Is the time to live on?
    on: bool,
    instances: Vec<Instance>,
    dirs: usize,
    oracle: Oracle,
    checkpoint: Option<Checkpoint>,
}

impl Instance {
    fn new(groups: KeyGroupRange, dir: PathBuf, mut backend: StateBackend<u64>) -> Instance {
        Instance {
            groups,
            dir,
            value: backend.value_state("value").unwrap(),
            list: backend.list_state("list").unwrap(),
            map: backend.map_state("map").unwrap(),
            sum: backend.reducing_state("sum", |a: u32, b| a.wrapping_add(*b)).unwrap(),
            backend,
            snapshot: None,
        }
    }

    fn family(&self, name: &str) -> ColumnFamily {
        let kind = self.backend.states().find(|(state, _)| *state == name).unwrap().1;
        self.backend.family(name, kind).unwrap()
    }

    /// Everything that is stored of all states, expired or not.
    fn raw(&self, at: Option<&Snapshot>) -> Raw {
        let mut all = Vec::new();
        for name in STATES {
            let range = self.groups.key_range();
            let mut scan = self.backend.db().scan_range(&self.family(name), range, at).unwrap();
            while scan.next().unwrap() {
                all.push(([name.as_bytes(), scan.key()].concat(), scan.value().to_vec()));
            }
        }
        all
    }
}

impl Job {
    fn start(parallelism: u32, update: TtlUpdate) -> Job {
        let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(64 << 20), 11);
        let mut job = Job {
            env,
            now: Arc::new(Mutex::new(0)),
            config: TtlConfig::new(TTL).unwrap().with_update(update),
            on: true,
            instances: Vec::new(),
            dirs: 0,
            oracle: Oracle::default(),
            checkpoint: None,
        };
        for groups in key_group_ranges(GROUPS, parallelism).unwrap() {
            let dir = job.dir();
            let options = job.options(groups);
            let backend = StateBackend::open(&dir, options, job.env.clone()).unwrap();
            job.instances.push(Instance::new(groups, dir, backend));
        }
        job
    }

    fn dir(&mut self) -> PathBuf {
        self.dirs += 1;
        PathBuf::from(format!("backend {}", self.dirs))
    }

    fn options(&self, groups: KeyGroupRange) -> BackendOptions {
        let mut options = BackendOptions::new(GROUPS, groups);
        small(&mut options);
        options.clock = Some(clock(&self.now));
        if self.on {
            let ttl = STATES.map(|name| (name.to_owned(), self.config.clone()));
            options.ttl = ttl.into();
        }
        options
    }

    fn now(&self) -> i64 {
        *self.now.lock()
    }

    fn lives(&self, dated: &Dated) -> bool {
        !self.on || dated.0 + TTL > self.now()
    }

    /// A read: what it shows, and what it leaves.
    fn read(&self, dated: &mut Option<Dated>) -> Option<u32> {
        *dated = dated.filter(|dated| self.lives(dated));
        let shown = (*dated)?.1;
        if self.on && self.config.update == TtlUpdate::OnReadAndWrite {
            *dated = Some((self.now(), shown));
        }
        Some(shown)
    }

    fn at(&mut self, key: u64) -> &mut Instance {
        let group = assign(key.java_hash(), GROUPS);
        let index = operator_index(GROUPS, self.instances.len() as u32, group);
        let instance = &mut self.instances[index as usize];
        instance.backend.set_current_key(&key).unwrap();
        instance
    }

    fn apply(&mut self, op: Op) {
        let (what, key, n) = op;
        let key = u64::from(key) % KEYS;
        match what % 24 {
            0 | 1 => *self.now.lock() += i64::from(n % 64),
            2..=4 => self.value(what % 24, key, n),
            5..=8 => self.list(what % 24, key, n),
            9..=13 => self.map(what % 24, key, n),
            14..=16 => self.sum(what % 24, key, n),
            what => self.manage(what, n),
        }
    }

    fn value(&mut self, what: u8, key: u64, n: u8) {
        let (now, n) = (self.now(), u32::from(n));
        let mut stored = self.oracle.value.remove(&key);
        match what {
            2 => {
                self.at(key).value.update(&n).unwrap();
                stored = Some((now, n));
            }
            3 => {
                self.at(key).value.update_with(|old| Some(old.unwrap_or(7) + n)).unwrap();
                let old = stored.filter(|dated| self.lives(dated)).map_or(7, |dated| dated.1);
                stored = Some((now, old + n));
            }
            _ => {
                let got = self.at(key).value.value().unwrap();
                assert_eq!(got, self.read(&mut stored));
            }
        }
        stored.map(|stored| self.oracle.value.insert(key, stored));
    }

    fn list(&mut self, what: u8, key: u64, n: u8) {
        let (now, n) = (self.now(), u32::from(n));
        let mut stored = self.oracle.list.remove(&key).unwrap_or_default();
        match what {
            5 | 6 => {
                self.at(key).list.add_all(&[n, n + 1]).unwrap();
                stored.extend([(now, n), (now, n + 1)]);
            }
            7 => {
                self.at(key).list.update(&[n]).unwrap();
                stored = vec![(now, n)];
            }
            _ => {
                let got = self.at(key).list.get().unwrap();
                let alive: Vec<Dated> = stored.iter().filter(|d| self.lives(d)).copied().collect();
                assert!(got.iter().eq(alive.iter().map(|dated| &dated.1)), "{got:?} {alive:?}");
                if self.on && self.config.update == TtlUpdate::OnReadAndWrite {
                    stored = alive.iter().map(|dated| (now, dated.1)).collect();
                } else if alive.is_empty() {
                    stored = alive;
                }
            }
        }
        if !stored.is_empty() {
            self.oracle.list.insert(key, stored);
        }
    }

    fn map(&mut self, what: u8, key: u64, n: u8) {
        let (now, user_key, n) = (self.now(), n % 5, u32::from(n));
        let mut stored = self.oracle.map.remove(&key).unwrap_or_default();
        match what {
            9 | 10 => {
                self.at(key).map.put(&user_key, &n).unwrap();
                stored.insert(user_key, (now, n));
            }
            11 => {
                self.at(key).map.remove(&user_key).unwrap();
                stored.remove(&user_key);
            }
            12 => {
                let got = self.at(key).map.get(&user_key).unwrap();
                let mut entry = stored.remove(&user_key);
                assert_eq!(got, self.read(&mut entry));
                entry.map(|entry| stored.insert(user_key, entry));
            }
            _ => {
                let got: Vec<_> = self.at(key).map.iter().unwrap().map(Result::unwrap).collect();
                let mut want = Vec::new();
                for (user_key, dated) in std::mem::take(&mut stored) {
                    let mut entry = Some(dated);
                    want.extend(self.read(&mut entry).map(|value| (user_key, value)));
                    entry.map(|entry| stored.insert(user_key, entry));
                }
                assert_eq!(got, want);
            }
        }
        if !stored.is_empty() {
            self.oracle.map.insert(key, stored);
        }
    }

    fn sum(&mut self, what: u8, key: u64, n: u8) {
        let (now, n) = (self.now(), u32::from(n));
        let mut stored = self.oracle.sum.remove(&key);
        if what < 16 {
            self.at(key).sum.add(&n).unwrap();
            let old = stored.filter(|dated| self.lives(dated)).map_or(0, |dated| dated.1);
            stored = Some((now, old + n));
        } else {
            let got = self.at(key).sum.get().unwrap();
            assert_eq!(got, self.read(&mut stored));
        }
        stored.map(|stored| self.oracle.sum.insert(key, stored));
    }

    fn manage(&mut self, what: u8, n: u8) {
        let index = usize::from(n) % self.instances.len();
        let instance = &mut self.instances[index];
        match what {
            17 => instance.backend.db().flush_all().unwrap(),
            18 => {
                instance.backend.db().flush_all().unwrap();
                instance.backend.drop_expired().unwrap();
            }
            19 => {
                let name = STATES[usize::from(n) % STATES.len()];
                instance.backend.db().compact_range(&instance.family(name), ..).unwrap();
            }
            20 => {
                if let Some((snapshot, then)) = instance.snapshot.take() {
                    let same = instance.raw(Some(&snapshot)) == then;
                    assert!(same, "no clean-up may be seen by a snapshot");
                }
                let now = instance.raw(None);
                instance.snapshot = Some((instance.backend.db().snapshot(), now));
            }
            21 if n.is_multiple_of(3) => {
                let pending = |i: &Instance| (i.groups, i.backend.checkpoint().unwrap());
                let pending = self.instances.iter().map(pending).collect();
                self.checkpoint = Some((pending, self.oracle.clone(), self.on));
            }
            21 if n % 3 == 1 => {
                self.restore(PARALLELISMS[usize::from(n / 3) % PARALLELISMS.len()]);
            }
            21 => self.reopen(index),
            22 if n.is_multiple_of(4) => self.switch(),
            _ => {
                for i in 0..u64::from(n % 8) {
                    instance.backend.db().step(u64::from(n) + i).unwrap();
                }
            }
        }
    }

    fn restore(&mut self, parallelism: u32) {
        if self.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.2 != self.on) {
            self.manage(21, 0);
        }
        let (pending, oracle, _) = self.checkpoint.take().unwrap();
        let wait = |(groups, p): (_, PendingCheckpoint)| (groups, p.wait().unwrap());
        let parts: Vec<_> = pending.into_iter().map(wait).collect();
        let ranges: Vec<_> = parts.iter().map(|(groups, _)| *groups).collect();
        let mut instances = Vec::new();
        for groups in key_group_ranges(GROUPS, parallelism).unwrap() {
            let shares = shares(&ranges, groups).unwrap();
            let sources: Vec<_> =
                shares.iter().map(|share| source(&parts[share.part].1, share.groups)).collect();
            let (dir, options) = (self.dir(), self.options(groups));
            let db = Db::import(&dir, options.db.clone(), self.env.clone(), &sources).unwrap();
            let backend = StateBackend::from_db(db, options).unwrap();
            instances.push(Instance::new(groups, dir, backend));
        }
        self.instances = instances;
        self.oracle = oracle;
    }

    fn reopen(&mut self, index: usize) {
        self.checkpoint = None;
        let Instance { groups, dir, backend, .. } = self.instances.remove(index);
        backend.close().unwrap();
        let options = self.options(groups);
        let backend = StateBackend::open(&dir, options, self.env.clone()).unwrap();
        self.instances.insert(index, Instance::new(groups, dir, backend));
    }

    /// Switches the time to live off, or on again.
    fn switch(&mut self) {
        let expired = self.clone_expired();
        self.on = !self.on;
        (0..self.instances.len()).for_each(|index| self.reopen(index));
        self.resync(&expired);
    }

    /// What had expired: it may have been cleaned up, or not.
    fn clone_expired(&self) -> Oracle {
        let gone = |dated: &Dated| !self.lives(dated);
        let mut all = self.oracle.clone();
        all.value.retain(|_, dated| gone(dated));
        all.sum.retain(|_, dated| gone(dated));
        all.list.values_mut().for_each(|list| list.retain(gone));
        all.map.values_mut().for_each(|map| map.retain(|_, dated| gone(dated)));
        all
    }

    /// After switching: everything that had not expired is there, and nothing that never was. From now
    /// on the times are those of the switch.
    fn resync(&mut self, expired: &Oracle) {
        let now = self.now();
        let before = std::mem::take(&mut self.oracle);
        for key in 0..KEYS {
            let optional = |expired: Option<&Dated>, got: Option<u32>, was: Option<&Dated>| {
                let vanished = got.is_none() && expired.is_some();
                assert!(vanished || got == was.map(|dated| dated.1), "{got:?} of {was:?}");
            };
            let value = self.at(key).value.value().unwrap();
            optional(expired.value.get(&key), value, before.value.get(&key));
            value.map(|value| self.oracle.value.insert(key, (now, value)));
            let sum = self.at(key).sum.get().unwrap();
            optional(expired.sum.get(&key), sum, before.sum.get(&key));
            sum.map(|sum| self.oracle.sum.insert(key, (now, sum)));

            let list = self.at(key).list.get().unwrap();
            // From the back: what has expired stands in front, and may look like what has not.
            let mut rest = list.iter().rev().peekable();
            let gone = expired.list.get(&key).cloned().unwrap_or_default();
            for dated in before.list.get(&key).into_iter().flatten().rev() {
                if rest.next_if(|got| **got == dated.1).is_none() {
                    assert!(gone.contains(dated), "an element is missing");
                }
            }
            assert!(rest.next().is_none(), "an element too many");
            if !list.is_empty() {
                self.oracle.list.insert(key, list.into_iter().map(|value| (now, value)).collect());
            }

            let map: BTreeMap<u8, u32> =
                self.at(key).map.iter().unwrap().map(Result::unwrap).collect();
            for user_key in 0..5 {
                let entry =
                    |all: &Oracle| all.map.get(&key).and_then(|m| m.get(&user_key)).copied();
                optional(
                    entry(expired).as_ref(),
                    map.get(&user_key).copied(),
                    entry(&before).as_ref(),
                );
            }
            if !map.is_empty() {
                self.oracle.map.insert(key, map.into_iter().map(|(k, v)| (k, (now, v))).collect());
            }
        }
    }

    /// Reads everything.
    fn check(&mut self) {
        for key in 0..KEYS {
            self.value(4, key, 0);
            self.list(8, key, 0);
            self.map(13, key, 0);
            self.sum(16, key, 0);
        }
    }
}

#[test]
fn of_two_elements_that_look_alike_the_older_one_has_expired() {
    let mut job = Job::start(1, TtlUpdate::OnCreateAndWrite);
    let appends_waits_and_switches =
        [(125, 188, 0), (0, 0, 55), (65, 0, 0), (0, 0, 45), (77, 128, 0), (22, 0, 1), (22, 0, 0)];
    appends_waits_and_switches.into_iter().for_each(|op| job.apply(op));
}

#[test]
fn state_expires_like_plain_collections() {
    fn program(parallelism: u8, on_read: bool, ops: Vec<Op>) -> bool {
        let update = if on_read { TtlUpdate::OnReadAndWrite } else { TtlUpdate::OnCreateAndWrite };
        let start = PARALLELISMS[usize::from(parallelism) % 4];
        let mut job = Job::start(start, update);
        ops.into_iter().for_each(|op| job.apply(op));
        job.check();
        job.restore(PARALLELISMS[usize::from(parallelism / 4) % PARALLELISMS.len()]);
        job.check();
        *job.now.lock() += TTL;
        for index in 0..job.instances.len() {
            job.manage(18, index as u8);
        }
        job.check();
        true
    }
    QuickCheck::new().tests(60).quickcheck(program as fn(u8, bool, Vec<Op>) -> bool);
}

#[test]
fn from_every_parallelism_to_every_other() {
    for old in PARALLELISMS {
        for new in PARALLELISMS {
            let mut job = Job::start(old, TtlUpdate::OnCreateAndWrite);
            for key in 0..KEYS as u8 {
                [2, 5, 9, 14].into_iter().for_each(|what| job.apply((what, key, key)));
            }
            job.apply((0, 0, 60));
            for key in 0..KEYS as u8 / 2 {
                [3, 6, 10, 15].into_iter().for_each(|what| job.apply((what, key, 1)));
            }
            job.manage(21, 0);
            job.apply((0, 0, 50));
            job.restore(new);
            job.check();
            assert_eq!(job.oracle.value.len() as u64, KEYS / 2, "the other half has expired");
        }
    }
}
