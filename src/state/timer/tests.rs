//! The model of timers: random programs on as many backends as there are instances, interleaved with
//! flushes, compactions, snapshots, checkpoints, restores at another parallelism and reopenings,
//! against a plain set. And what reading costs, in seeks and keys, not in time.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::BackendOptions;
use crate::Db;
use crate::Env;
use crate::JavaHash;
use crate::KeyGroupRange;
use crate::MemFs;
use crate::MemoryBudget;
use crate::PendingCheckpoint;
use crate::Snapshot;
use crate::state::key_group::assign;
use crate::state::key_group::operator_index;
use crate::state::rescale::key_group_ranges;
use crate::state::rescale::shares;
use crate::state::tests::source;
use quickcheck::QuickCheck;

const GROUPS: u32 = 128;
const PARALLELISMS: [u32; 5] = [1, 2, 3, 7, 128];

/// What to do, key, time, and a number with some meaning for it.
type Op = (u8, u8, i8, u8);

/// In the order of firing: keys of variable width come by length first.
type Entry = (i64, (usize, String), u8);

struct Instance {
    groups: KeyGroupRange,
    dir: PathBuf,
    timers: TimerService<String, u8>,
    backend: StateBackend<String>,
    /// A view of the past, and the timers then.
    snapshot: Option<(Snapshot, BTreeSet<Entry>)>,
}

struct Job {
    env: Env,
    instances: Vec<Instance>,
    dirs: usize,
    oracle: BTreeSet<Entry>,
    checkpoint: Option<Checkpoint>,
}

/// Of each instance, and the timers then.
type Checkpoint = (Vec<(KeyGroupRange, PendingCheckpoint)>, BTreeSet<Entry>);

fn options(groups: KeyGroupRange) -> BackendOptions {
    let mut options = BackendOptions::new(GROUPS, groups);
    options.timer_cache = 2;
    options.family.memtable_bytes_max = 4 << 10;
    options.family.block_bytes = 128;
    options.family.l0_depth_trigger = 2;
    options.family.level_bytes_base = 4 << 10;
    options.family.file_bytes = 1 << 10;
    options
}

fn entry(timer: Timer<String, u8>) -> Entry {
    (timer.time, (timer.key.len(), timer.key), timer.namespace)
}

fn group(entry: &Entry) -> u16 {
    assign(entry.1.1.java_hash(), GROUPS)
}

fn within(all: &BTreeSet<Entry>, groups: KeyGroupRange) -> BTreeSet<Entry> {
    all.iter().filter(|entry| groups.contains(group(entry))).cloned().collect()
}

impl Instance {
    fn new(groups: KeyGroupRange, dir: PathBuf, mut backend: StateBackend<String>) -> Instance {
        let timers = backend.timer_service("t").unwrap();
        Instance { groups, dir, timers, backend, snapshot: None }
    }

    /// The timers of event time as of the snapshot.
    fn at_snapshot(&self, snapshot: &Snapshot) -> BTreeSet<Entry> {
        let queue = &self.timers.event;
        let range = self.groups.key_range();
        let scan = queue.cell.store(|db, family| db.scan_range(family, range, Some(snapshot)));
        let timers = TimerIter {
            scan: Some(scan.unwrap()),
            shape: queue.cell.shape(),
            keys: Arc::clone(&queue.keys),
            namespaces: Arc::clone(&queue.namespaces),
            name: String::new(),
        };
        timers.map(|timer| entry(timer.unwrap())).collect()
    }
}

impl Job {
    fn start(parallelism: u32) -> Job {
        let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(64 << 20), 11);
        let (instances, oracle) = (Vec::new(), BTreeSet::new());
        let mut job = Job { env, instances, dirs: 0, oracle, checkpoint: None };
        for groups in key_group_ranges(GROUPS, parallelism).unwrap() {
            let dir = job.dir();
            let backend = StateBackend::open(&dir, options(groups), job.env.clone()).unwrap();
            job.instances.push(Instance::new(groups, dir, backend));
        }
        job
    }

    fn dir(&mut self) -> PathBuf {
        self.dirs += 1;
        PathBuf::from(format!("backend {}", self.dirs))
    }

    fn at(&mut self, key: &String) -> &mut Instance {
        let group = assign(key.java_hash(), GROUPS);
        let index = operator_index(GROUPS, self.instances.len() as u32, group);
        let instance = &mut self.instances[index as usize];
        instance.backend.set_current_key(key).unwrap();
        instance
    }

    fn apply(&mut self, op: Op) {
        let (what, key, time, n) = op;
        let key = "x".repeat(usize::from(key % 3)) + &(key % 13).to_string();
        let time = if n == 99 { i64::from(time) << 56 } else { i64::from(time) };
        let entry = (time, (key.len(), key), n % 2);
        match what % 16 {
            0..=5 => self.register(entry),
            6 => (0..40).for_each(|i| self.register((time + i, entry.1.clone(), n % 2))),
            7 | 8 => self.delete(entry),
            9 | 10 => self.advance(n, time),
            11 => self.poll(n),
            _ => self.manage(what % 16, n),
        }
    }

    fn register(&mut self, entry: Entry) {
        let instance = self.at(&entry.1.1);
        let groups = instance.groups;
        let changed = instance.timers.event_time().add(entry.0, &entry.2).unwrap();
        let new = self.oracle.insert(entry.clone());
        let is_head = within(&self.oracle, groups).first() == Some(&entry);
        assert_eq!(changed, new && is_head, "has the head changed?");
    }

    fn delete(&mut self, entry: Entry) {
        let instance = self.at(&entry.1.1);
        let groups = instance.groups;
        let changed = instance.timers.event_time().remove(entry.0, &entry.2).unwrap();
        let was_head = within(&self.oracle, groups).first() == Some(&entry);
        self.oracle.remove(&entry);
        assert_eq!(changed, was_head, "has the head changed?");
    }

    /// Fires what is due on one instance; each timer of an even namespace registers another one.
    fn advance(&mut self, n: u8, watermark: i64) {
        let index = usize::from(n) % self.instances.len();
        let Instance { groups, timers, backend, .. } = &mut self.instances[index];
        timers.advance_watermark(watermark);
        let mut last = None;
        while let Some(timer) = timers.next_event_time_timer(backend).unwrap() {
            let group = backend.current_key_group().unwrap();
            let fired = entry(timer);
            assert_eq!(within(&self.oracle, *groups).first(), Some(&fired));
            assert_eq!(assign(fired.1.1.java_hash(), GROUPS), group, "its key is the current one");
            self.oracle.remove(&fired);
            if fired.2 == 0 && last != Some(fired.0) {
                last = Some(fired.0);
                let next = (fired.0 + i64::from(n % 5), fired.1.clone(), 1);
                timers.register_event_time_timer(&1, next.0).unwrap();
                self.oracle.insert(next);
            }
        }
        let rest = within(&self.oracle, *groups);
        assert!(rest.first().is_none_or(|first| first.0 > watermark), "all that was due fired");
    }

    fn poll(&mut self, n: u8) {
        let index = usize::from(n) % self.instances.len();
        let Instance { groups, timers, .. } = &mut self.instances[index];
        for _ in 0..n % 64 {
            let first = within(&self.oracle, *groups).first().cloned();
            assert_eq!(timers.event_time().peek().unwrap().map(entry), first);
            assert_eq!(timers.event_time().poll().unwrap().map(entry), first);
            let Some(first) = first else { return };
            self.oracle.remove(&first);
        }
    }

    fn manage(&mut self, what: u8, n: u8) {
        let index = usize::from(n) % self.instances.len();
        let instance = &mut self.instances[index];
        match what {
            12 if n.is_multiple_of(2) => instance.backend.db().flush_all().unwrap(),
            12 => {
                let queue = instance.timers.event_time();
                queue.cell.store(|db, family| db.compact_range(family, ..)).unwrap();
            }
            13 => {
                if let Some((snapshot, then)) = instance.snapshot.take() {
                    assert_eq!(instance.at_snapshot(&snapshot), then, "the past does not change");
                }
                let now = within(&self.oracle, instance.groups);
                instance.snapshot = Some((instance.backend.db().snapshot(), now));
            }
            14 if n.is_multiple_of(4) => {
                let pending = |i: &Instance| (i.groups, i.backend.checkpoint().unwrap());
                let pending = self.instances.iter().map(pending).collect();
                self.checkpoint = Some((pending, self.oracle.clone()));
            }
            14 if n % 4 == 1 => {
                self.restore(PARALLELISMS[usize::from(n / 4) % PARALLELISMS.len()]);
            }
            14 => self.reopen(index),
            _ => {
                for i in 0..u64::from(n % 8) {
                    instance.backend.db().step(u64::from(n) + i).unwrap();
                }
            }
        }
    }

    fn restore(&mut self, parallelism: u32) {
        if self.checkpoint.is_none() {
            self.manage(14, 0);
        }
        let (pending, oracle) = self.checkpoint.take().unwrap();
        let wait = |(groups, p): (_, PendingCheckpoint)| (groups, p.wait().unwrap());
        let parts: Vec<_> = pending.into_iter().map(wait).collect();
        let ranges: Vec<_> = parts.iter().map(|(groups, _)| *groups).collect();
        let mut instances = Vec::new();
        for groups in key_group_ranges(GROUPS, parallelism).unwrap() {
            let shares = shares(&ranges, groups).unwrap();
            let sources: Vec<_> =
                shares.iter().map(|share| source(&parts[share.part].1, share.groups)).collect();
            let dir = self.dir();
            let options = options(groups);
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
        let backend = StateBackend::open(&dir, options(groups), self.env.clone()).unwrap();
        self.instances.insert(index, Instance::new(groups, dir, backend));
    }

    fn check(&mut self) {
        for Instance { groups, timers, .. } in &mut self.instances {
            let want = within(&self.oracle, *groups);
            let got: Vec<_> = timers.event_time().iter().unwrap().map(|t| t.unwrap()).collect();
            assert_eq!(timers.num_event_time_timers().unwrap(), got.len());
            assert_eq!(got.into_iter().map(entry).collect::<BTreeSet<_>>(), want);
            let mut by_group: BTreeMap<u16, BTreeSet<Entry>> = BTreeMap::new();
            for entry in &want {
                by_group.entry(group(entry)).or_default().insert(entry.clone());
            }
            for (group, want) in by_group {
                let got = timers.event_time().key_group(group).unwrap();
                assert_eq!(got.map(|t| entry(t.unwrap())).collect::<BTreeSet<_>>(), want);
            }
        }
    }
}

#[test]
fn a_queue_is_a_sorted_set() {
    fn program(parallelism: u8, ops: Vec<Op>) -> bool {
        // Most programs on few instances: they do more.
        let start = PARALLELISMS[usize::from(parallelism) % PARALLELISMS.len()];
        let mut job = Job::start(start);
        ops.into_iter().for_each(|op| job.apply(op));
        job.check();
        job.restore(PARALLELISMS[usize::from(parallelism / 8) % PARALLELISMS.len()]);
        job.check();
        job.poll(63);
        true
    }
    QuickCheck::new().tests(60).quickcheck(program as fn(u8, Vec<Op>) -> bool);
}

#[test]
fn from_every_parallelism_to_every_other() {
    for old in PARALLELISMS {
        for new in PARALLELISMS {
            let mut job = Job::start(old);
            for key in 0..39 {
                job.apply((0, key, key as i8 - 20, key));
            }
            job.advance(0, -5);
            job.manage(14, 0);
            job.apply((6, 1, 3, 0)); // after the checkpoint, hence not in it
            job.restore(new);
            job.check();
            (0..new as u8).for_each(|i| job.advance(i, 100));
            assert!(job.oracle.is_empty());
        }
    }
}

fn one_backend(cache: usize) -> (StateBackend<u64>, TimerService<u64>) {
    open(cache, Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(256 << 20), 3))
}

fn open(cache: usize, env: Env) -> (StateBackend<u64>, TimerService<u64>) {
    let mut options = BackendOptions::new(GROUPS, KeyGroupRange::new(0, 127).unwrap());
    options.timer_cache = cache;
    let mut backend = StateBackend::open(std::path::Path::new("timers"), options, env).unwrap();
    let timers = backend.timer_service("t").unwrap();
    (backend, timers)
}

/// Seeks, and keys that cursors came by, while `f` runs.
fn cost(backend: &mut StateBackend<u64>, f: impl FnOnce(&mut StateBackend<u64>)) -> (u64, u64) {
    let before = backend.db().stats();
    f(backend);
    let after = backend.db().stats();
    (after.seeks - before.seeks, after.keys_visited - before.keys_visited)
}

#[test]
fn a_front_that_fired_is_not_passed_again() {
    const FIRED: i64 = 1_000_000;
    let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(256 << 20), 3);
    let (mut backend, mut timers) = open(128, env.clone());
    backend.set_current_key(&5).unwrap();
    timers.register_event_time_timer(&(), 0).unwrap();
    let (seeks, keys) = cost(&mut backend, |backend| {
        timers.advance_watermark(FIRED);
        while let Some(timer) = timers.next_event_time_timer(backend).unwrap() {
            if timer.time < FIRED {
                timers.register_event_time_timer(&(), timer.time + 1).unwrap();
            }
        }
    });
    assert!(seeks <= 128 && keys <= 128, "{seeks} seeks and {keys} keys for a million timers");
    // Late ones are added to what is held, and nothing is read for them.
    let (seeks, keys) = cost(&mut backend, |backend| {
        for round in 0..100 {
            for time in round..round + 10 {
                timers.register_event_time_timer(&(), time).unwrap();
            }
            for time in round..round + 10 {
                let timer = timers.next_event_time_timer(backend).unwrap();
                assert_eq!(timer.map(|timer| timer.time), Some(time), "late timers fire");
            }
        }
    });
    assert!(seeks <= 1 && keys <= 1, "{seeks} seeks and {keys} keys for late timers");
    assert_eq!(timers.next_event_time_timer(&mut backend).unwrap(), None);
    // What fired does not pile up on disk: who opens the backend anew finds the head quickly, too.
    timers.register_event_time_timer(&(), FIRED + 7).unwrap();
    drop(timers);
    backend.close().unwrap();
    let (mut backend, mut timers) = open(128, env);
    let (seeks, keys) = cost(&mut backend, |_| {
        assert_eq!(timers.event_time().peek().unwrap().map(|timer| timer.time), Some(FIRED + 7));
    });
    assert!(seeks <= 128 && keys < 4 * 16 * 128, "{seeks} seeks and {keys} keys for the first one");
}

#[test]
fn polling_many_groups_costs_a_seek_a_page() {
    let (mut backend, mut timers) = one_backend(32);
    const TIMERS: u64 = 100_000;
    for key in 0..TIMERS {
        backend.set_current_key(&key).unwrap();
        timers.register_event_time_timer(&(), (key.wrapping_mul(0x9e37) % 7919) as i64).unwrap();
    }
    let (seeks, keys) = cost(&mut backend, |backend| {
        timers.advance_watermark(i64::MAX);
        let mut last = i64::MIN;
        for _ in 0..TIMERS {
            let timer = timers.next_event_time_timer(backend).unwrap().unwrap();
            assert!(timer.time >= last, "in the order of time");
            last = timer.time;
        }
    });
    let pages = TIMERS / 32 + 128;
    assert!(seeks <= pages && keys <= TIMERS + 2 * pages, "{seeks} seeks, {keys} keys");
}

#[test]
fn the_past_still_has_what_fired() {
    let (mut backend, mut timers) = one_backend(1);
    backend.set_current_key(&9).unwrap();
    for time in 0..100 {
        timers.register_event_time_timer(&(), time).unwrap();
    }
    let before = backend.db().snapshot();
    for _ in 0..90 {
        timers.event_time().poll().unwrap().unwrap();
    }
    timers.register_event_time_timer(&(), 3).unwrap();
    let queue = timers.event_time();
    queue.cell.store(|db, family| db.compact_range(family, ..)).unwrap();
    let count = |at: Option<&Snapshot>| {
        let range = KeyRange::new([], None::<Vec<u8>>);
        let scan = queue.cell.store(|db, family| db.scan_range(family, range, at));
        let mut scan = scan.unwrap();
        std::iter::from_fn(|| scan.next().unwrap().then_some(())).count()
    };
    assert_eq!((count(Some(&before)), count(None)), (100, 11));
    assert_eq!(queue.peek().unwrap().unwrap().time, 3, "registered below what fired");
}

#[test]
fn handles_of_one_name_are_one_service() {
    let (mut backend, mut a) = one_backend(128);
    let mut b = backend.timer_service::<()>("t").unwrap();
    let mut other = backend.timer_service::<()>("u").unwrap();
    backend.set_current_key(&1).unwrap();
    a.register_event_time_timer(&(), 10).unwrap();
    assert_eq!(b.event_time().peek().unwrap().map(|t| t.time), Some(10));
    b.register_event_time_timer(&(), 5).unwrap();
    b.advance_watermark(7);
    assert_eq!(a.current_watermark(), 7);
    assert_eq!(a.next_event_time_timer(&mut backend).unwrap().map(|t| t.time), Some(5));
    assert!(other.event_time().is_empty().unwrap() && b.processing_time().is_empty().unwrap());
    let kind = |e: Error| e.kind();
    let wrong = backend.timer_service::<u8>("t").err().map(kind);
    assert_eq!(wrong, Some(crate::ErrorKind::Incompatible));
    assert_eq!(
        backend.timer_service::<()>("").err().map(kind),
        Some(crate::ErrorKind::InvalidArgument)
    );
    let (mut stranger, _) = one_backend(128);
    assert!(a.next_event_time_timer(&mut stranger).is_err());
    backend.close().unwrap();
    assert_eq!(a.event_time().peek().err().map(kind), Some(crate::ErrorKind::InvalidArgument));
}
