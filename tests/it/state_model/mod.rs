//! The model of state: random programs over all types of state, with several keys and namespaces,
//! timers, a clock and state that expires, batches, snapshots and operator state, on as many backends
//! as there are instances, interleaved with flushes, compactions, checkpoints, rollbacks, restores at
//! another parallelism and reopenings, against plain collections; with the log off, buffered and synced,
//! and with options that are drawn for each program: they show in nothing that is read.
//!
//! `ALLUVIUM_STATE_PROGRAMS` sets the number of programs, and has every parallelism meet every other;
//! an ordinary run is short. `ALLUVIUM_SEED` draws other ones.

mod expiring;
mod timers;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use alluvium::{
    AggregateFunction, AggregatingState, BackendOptions, Clock, Codec, FileSet, JavaHash,
    JobCheckpoint, ListState, MapState, OperatorSnapshot, OperatorState, PartInput,
    PendingCheckpoint, ReducingState, Result, StateBackend, StateSnapshot, ValueState,
    assign_key_group, key_group_ranges, operator_index, redistribute_operator_state,
    restore_checkpoint, save_checkpoint,
};
use alluvium_report::Part;
use quickcheck::{Gen, QuickCheck};

use crate::conformance::job::{Job, LOGS, Log};
use crate::model::setting;

const GROUPS: u32 = 128;
const PARALLELISMS: [u32; 5] = [1, 2, 3, 7, 128];
const PROGRAMS: u64 = 10;
const KEYS: [&str; 8] = ["", "a", "ab", "abc", "b", "ü", "N328AA", "N532UA"];
const NAMESPACES: [&str; 3] = ["", "n", "nn"];
const USER_KEYS: [&str; 6] = ["", "a", "ab", "abc", "b", "c"];

/// What to do, key, namespace, and a number with some meaning for it.
type Op = (u8, u8, u8, u16);

/// Operations of all programs so far.
static MODEL_OPS: AtomicU64 = AtomicU64::new(0);

/// Many parallelisms are slow: they come rarely.
fn parallelism(n: u16) -> u32 {
    if n.is_multiple_of(61) { 128 } else { PARALLELISMS[usize::from(n) % 4] }
}

/// How a program's backends are set up.
#[derive(Clone, Copy, Debug)]
struct Setting(u64);

impl Setting {
    /// A number below `bound`, another one for each place.
    fn draw(self, place: u64, bound: u64) -> u64 {
        let mixed = (self.0 ^ place << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) % bound
    }

    fn choose<T: Copy>(self, place: u64, among: &[T]) -> T {
        among[self.draw(place, among.len() as u64) as usize]
    }

    fn log(self) -> Log {
        self.choose(1, &LOGS)
    }

    fn expires_on_read(self) -> bool {
        self.choose(2, &[false, true])
    }

    fn apply(self, options: &mut BackendOptions) {
        let family = &mut options.family;
        family.memtable_bytes_max = self.choose(3, &[4 << 10, 4 << 10, 64 << 10]);
        family.block_bytes = self.choose(4, &[64, 128, 4096]);
        family.restart_interval = self.choose(5, &[1, 4, 16]);
        family.codecs = [self.choose(6, &[Codec::None, Codec::Zstd]); 7];
        family.filter_bits_per_key = self.choose(7, &[0, 10]);
        family.l0_depth_trigger = self.choose(8, &[1, 2, 4]);
        family.level_bytes_base = self.choose(9, &[1 << 10, 4 << 10, 64 << 10]);
        family.file_bytes = self.choose(10, &[512, 1 << 10, 64 << 10]);
        options.timer_cache = self.choose(11, &[1, 2, 128]);
        options.db.log_segment_bytes = self.choose(12, &[1 << 10, 64 << 20]);
        options.family.l0_scan_bytes = self.choose(13, &[0, 64, 1 << 10]);
    }
}

/// The largest of the numbers that were added, and how many there were.
struct Largest;

impl AggregateFunction for Largest {
    type Input = u16;
    type Accumulator = (u16, u64);
    type Output = (u16, u64);

    fn create_accumulator(&self) -> (u16, u64) {
        (0, 0)
    }
    fn add(&self, accumulator: &mut (u16, u64), value: &u16) {
        *accumulator = (accumulator.0.max(*value), accumulator.1 + 1);
    }
    fn get_result(&self, accumulator: (u16, u64)) -> (u16, u64) {
        accumulator
    }
    fn merge(&self, accumulator: &mut (u16, u64), other: (u16, u64)) {
        *accumulator = (accumulator.0.max(other.0), accumulator.1 + other.1);
    }
}

type Cell = (String, String);

/// All states as plain collections.
#[derive(Clone, Default)]
struct Oracle {
    count: BTreeMap<String, u64>,
    text: BTreeMap<Cell, String>,
    list: BTreeMap<String, Vec<String>>,
    window: BTreeMap<Cell, Vec<u32>>,
    sum: BTreeMap<Cell, u64>,
    largest: BTreeMap<String, (u16, u64)>,
    map: BTreeMap<String, BTreeMap<String, u64>>,
    nested: BTreeMap<Cell, BTreeMap<String, Option<u16>>>,
    expiring: expiring::Oracle,
    timers: timers::Oracle,
    /// Elements of the split list of all instances, sorted.
    split: Vec<u16>,
    rules: BTreeMap<u16, String>,
}

/// The handles of one operator instance, or of a snapshot of it.
struct Handles {
    count: ValueState<u64>,
    text: ValueState<String, String>,
    list: ListState<String>,
    window: ListState<u32, String>,
    sum: ReducingState<u64, String>,
    largest: AggregatingState<Largest>,
    map: MapState<String, u64>,
    nested: MapState<String, Option<u16>, String>,
    expiring: expiring::Handles,
}

impl Handles {
    fn new(backend: &mut StateBackend<String>) -> Handles {
        Handles {
            count: backend.value_state("count").unwrap(),
            text: backend.value_state_with_namespace("text").unwrap(),
            list: backend.list_state("list").unwrap(),
            window: backend.list_state_with_namespace("window").unwrap(),
            sum: backend.reducing_state_with_namespace("sum", |a, b| a + b).unwrap(),
            largest: backend.aggregating_state("largest", Largest).unwrap(),
            map: backend.map_state("map").unwrap(),
            nested: backend.map_state_with_namespace("nested").unwrap(),
            expiring: expiring::Handles::new(backend),
        }
    }

    fn at(&self, view: &StateSnapshot<String>) -> Handles {
        Handles {
            count: self.count.at(view).unwrap(),
            text: self.text.at(view).unwrap(),
            list: self.list.at(view).unwrap(),
            window: self.window.at(view).unwrap(),
            sum: self.sum.at(view).unwrap(),
            largest: self.largest.at(view).unwrap(),
            map: self.map.at(view).unwrap(),
            nested: self.nested.at(view).unwrap(),
            expiring: self.expiring.at(view),
        }
    }

    /// Compares every cell of the current key.
    fn check(&mut self, key: &str, oracle: &Oracle) {
        assert_eq!(self.count.value().unwrap(), oracle.count.get(key).copied());
        assert_eq!(self.list.get().unwrap(), or_empty(oracle.list.get(key)));
        assert_eq!(self.largest.get().unwrap(), oracle.largest.get(key).copied());
        let map: BTreeMap<_, _> = all(self.map.iter().unwrap()).into_iter().collect();
        assert_eq!(map, or_empty(oracle.map.get(key)));
        assert_eq!(self.map.is_empty().unwrap(), map.is_empty());
        for user_key in USER_KEYS.map(str::to_owned) {
            assert_eq!(self.map.get(&user_key).unwrap(), map.get(&user_key).copied());
        }
        for namespace in NAMESPACES.map(str::to_owned) {
            self.text.set_current_namespace(&namespace);
            self.window.set_current_namespace(&namespace);
            self.sum.set_current_namespace(&namespace);
            self.nested.set_current_namespace(&namespace);
            let cell = (key.to_owned(), namespace);
            assert_eq!(self.text.value().unwrap(), oracle.text.get(&cell).cloned());
            assert_eq!(self.window.get().unwrap(), or_empty(oracle.window.get(&cell)));
            assert_eq!(self.sum.get().unwrap(), oracle.sum.get(&cell).copied());
            let nested: BTreeMap<_, _> = all(self.nested.iter().unwrap()).into_iter().collect();
            assert_eq!(nested, or_empty(oracle.nested.get(&cell)));
        }
    }
}

/// One operator instance.
struct Instance {
    options: BackendOptions,
    dir: PathBuf,
    backend: Option<StateBackend<String>>,
    states: Handles,
    timers: timers::Handles,
    operator: OperatorState,
}

impl Instance {
    fn new(
        options: BackendOptions,
        dir: PathBuf,
        mut backend: StateBackend<String>,
        operator: OperatorState,
    ) -> Instance {
        let states = Handles::new(&mut backend);
        let timers = backend.timer_service("timers").unwrap();
        Instance { options, dir, backend: Some(backend), states, timers, operator }
    }

    fn backend(&self) -> &StateBackend<String> {
        self.backend.as_ref().expect("it is open")
    }
}

/// A snapshot of an instance, and its handles.
type View = (StateSnapshot<String>, Handles);

/// What was there at one moment, to be restored.
struct Moment {
    pending: Vec<PendingCheckpoint>,
    operator: Vec<OperatorSnapshot>,
    oracle: Oracle,
}

struct Program {
    setting: Setting,
    job: Job,
    clock: Arc<AtomicI64>,
    instances: Vec<Instance>,
    oracle: Oracle,
    checkpoint: Option<Moment>,
    checkpoints: u64,
    /// A snapshot of every instance, and what was there then.
    views: Option<(Vec<View>, Oracle)>,
}

impl Program {
    fn start(setting: Setting, parallelism: u32) -> Program {
        let mut oracle = Oracle::default();
        oracle.expiring.on_read = setting.expires_on_read();
        let mut program = Program {
            setting,
            job: Job::new(setting.log()),
            clock: Arc::new(AtomicI64::new(0)),
            instances: Vec::new(),
            oracle,
            checkpoint: None,
            checkpoints: 0,
            views: None,
        };
        for groups in key_group_ranges(GROUPS, parallelism).unwrap() {
            let (dir, options) = (program.job.dir(), program.options(groups));
            let env = program.job.env.clone();
            let backend = StateBackend::open(&dir, options.clone(), env).unwrap();
            let instance = Instance::new(options, dir, backend, OperatorState::new());
            program.instances.push(instance);
        }
        program.prepare_operators();
        program
    }

    fn options(&self, groups: alluvium::KeyGroupRange) -> BackendOptions {
        let mut options = self.job.options(GROUPS, (groups.start(), groups.end()));
        self.setting.apply(&mut options);
        let clock = Arc::clone(&self.clock);
        options.clock = Some(Clock::new(move || clock.load(Ordering::Relaxed)));
        self.oracle.expiring.configure(&mut options);
        options
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Every instance notes its number, for the union of all.
    fn prepare_operators(&mut self) {
        for (i, instance) in self.instances.iter_mut().enumerate() {
            let mut union = instance.operator.union_list_state::<u32>("who").unwrap();
            union.update(&[i as u32]);
        }
    }

    /// The instance of a key, with the key set.
    fn at(&mut self, key: &str) -> &mut Instance {
        let group = assign_key_group(key.java_hash(), GROUPS);
        let index = operator_index(GROUPS, self.instances.len() as u32, group);
        let instance = &mut self.instances[index as usize];
        let backend = instance.backend.as_mut().expect("it is open");
        backend.set_current_key(&key.to_owned()).unwrap();
        instance
    }

    fn apply(&mut self, op: Op) {
        MODEL_OPS.fetch_add(1, Ordering::Relaxed);
        let (what, key, namespace, n) = op;
        let key = KEYS[usize::from(key) % KEYS.len()].to_owned();
        let namespace = NAMESPACES[usize::from(namespace) % NAMESPACES.len()].to_owned();
        match what % 64 {
            0..=3 => self.change_count(what % 64, key, n),
            4..=5 => self.change_text(what % 64, key, namespace, n),
            6..=9 => self.change_list(what % 64, key, n),
            10..=12 => self.change_window(what % 64, key, namespace, n),
            13..=15 => self.change_sum(what % 64, key, namespace, n),
            16..=17 => self.change_largest(what % 64, key, n),
            18..=22 => self.change_map(what % 64, key, n),
            23..=25 => self.change_nested(what % 64, key, namespace, n),
            26..=27 => self.change_several(what % 64, key, namespace, n),
            28..=29 => self.change_operators(what % 64, n),
            30..=39 => self.manage(what % 64, n),
            40..=49 => self.change_expiring(what % 64 - 40, key, n),
            50 => self.read_expiring(&key),
            51 | 52 => drop(self.clock.fetch_add((n % 64).into(), Ordering::Relaxed)),
            53..=58 => self.change_timers(what % 64 - 53, key, namespace, n),
            _ => self.fire(n),
        }
    }

    fn change_count(&mut self, what: u8, key: String, n: u16) {
        let value = u64::from(n);
        let state = &mut self.at(&key).states.count;
        match what {
            0 => state.update(&value).unwrap(),
            1 => state.clear().unwrap(),
            _ => state.update_with(|old| Some(old.unwrap_or(0) + value)).unwrap(),
        }
        let got = state.value().unwrap();
        match what {
            0 => drop(self.oracle.count.insert(key.clone(), value)),
            1 => drop(self.oracle.count.remove(&key)),
            _ => *self.oracle.count.entry(key.clone()).or_default() += value,
        }
        assert_eq!(got, self.oracle.count.get(&key).copied());
    }

    fn change_text(&mut self, what: u8, key: String, namespace: String, n: u16) {
        let value = "x".repeat(usize::from(n % 100));
        let state = &mut self.at(&key).states.text;
        state.set_current_namespace(&namespace);
        let cell = (key.clone(), namespace.clone());
        if what == 4 && n.is_multiple_of(2) {
            state.clear().unwrap();
            self.oracle.text.remove(&cell);
        } else {
            state.update(&value).unwrap();
            self.oracle.text.insert(cell, value);
        }
    }

    fn change_list(&mut self, what: u8, key: String, n: u16) {
        let elements: Vec<String> = (0..n % 4).map(|i| format!("{n} {i}")).collect();
        let state = &mut self.at(&key).states.list;
        match what {
            6 => state.update(&elements).unwrap(),
            7 => state.add_all(&elements).unwrap(),
            _ => state.add(&n.to_string()).unwrap(),
        }
        let got = state.get().unwrap();
        let list = self.oracle.list.entry(key).or_default();
        match what {
            6 => *list = elements,
            7 => list.extend(elements),
            _ => list.push(n.to_string()),
        }
        assert_eq!(got, *list);
        self.oracle.list.retain(|_, list| !list.is_empty());
    }

    fn change_window(&mut self, what: u8, key: String, namespace: String, n: u16) {
        let sources = some_namespaces(n);
        let state = &mut self.at(&key).states.window;
        state.set_current_namespace(&namespace);
        let cell = |namespace: &String| (key.clone(), namespace.clone());
        match what {
            10 if n.is_multiple_of(3) => {
                state.clear().unwrap();
                self.oracle.window.remove(&cell(&namespace));
            }
            11 => {
                state.merge_namespaces(&namespace, &sources).unwrap();
                for source in sources.iter().filter(|source| **source != namespace) {
                    if let Some(moved) = self.oracle.window.remove(&cell(source)) {
                        self.oracle.window.entry(cell(&namespace)).or_default().extend(moved);
                    }
                }
            }
            _ => {
                state.add(&u32::from(n)).unwrap();
                self.oracle.window.entry(cell(&namespace)).or_default().push(n.into());
            }
        }
    }

    fn change_sum(&mut self, what: u8, key: String, namespace: String, n: u16) {
        let sources = some_namespaces(n);
        let state = &mut self.at(&key).states.sum;
        state.set_current_namespace(&namespace);
        let cell = |namespace: &String| (key.clone(), namespace.clone());
        match what {
            13 if n.is_multiple_of(5) => {
                state.clear().unwrap();
                self.oracle.sum.remove(&cell(&namespace));
            }
            14 => {
                state.merge_namespaces(&namespace, &sources).unwrap();
                let taken: Vec<u64> =
                    sources.iter().filter_map(|s| self.oracle.sum.remove(&cell(s))).collect();
                if !taken.is_empty() {
                    *self.oracle.sum.entry(cell(&namespace)).or_default() +=
                        taken.iter().sum::<u64>();
                }
            }
            _ => {
                state.add(&n.into()).unwrap();
                *self.oracle.sum.entry(cell(&namespace)).or_default() += u64::from(n);
            }
        }
    }

    fn change_largest(&mut self, what: u8, key: String, n: u16) {
        let state = &mut self.at(&key).states.largest;
        if what == 16 && n.is_multiple_of(4) {
            state.clear().unwrap();
            self.oracle.largest.remove(&key);
        } else {
            state.add(&n).unwrap();
            let (largest, count) = self.oracle.largest.entry(key).or_default();
            (*largest, *count) = ((*largest).max(n), *count + 1);
        }
    }

    fn change_map(&mut self, what: u8, key: String, n: u16) {
        let user_key = USER_KEYS[usize::from(n) % USER_KEYS.len()].to_owned();
        let many: BTreeMap<String, u64> =
            (0..n % 120).map(|i| (format!("a{i}"), u64::from(n))).collect();
        let state = &mut self.at(&key).states.map;
        match what {
            18 => state.put_all(&many).unwrap(),
            19 => state.clear().unwrap(),
            20 => state.remove(&user_key).unwrap(),
            _ => state.put(&user_key, &n.into()).unwrap(),
        }
        let got = all(state.iter().unwrap());
        let map = self.oracle.map.entry(key).or_default();
        match what {
            18 => map.extend(many),
            19 => map.clear(),
            20 => drop(map.remove(&user_key)),
            _ => drop(map.insert(user_key, n.into())),
        }
        assert!(got.iter().map(|(k, v)| (k, v)).eq(map.iter()), "{got:?}");
        self.oracle.map.retain(|_, map| !map.is_empty());
    }

    fn change_nested(&mut self, what: u8, key: String, namespace: String, n: u16) {
        let user_key = USER_KEYS[usize::from(n) % USER_KEYS.len()].to_owned();
        let value = (!n.is_multiple_of(3)).then_some(n);
        let state = &mut self.at(&key).states.nested;
        state.set_current_namespace(&namespace);
        match what {
            23 => state.clear().unwrap(),
            24 => state.update_with(&user_key, |old| old.is_none().then_some(value)).unwrap(),
            _ => state.put(&user_key, &value).unwrap(),
        }
        let cell = self.oracle.nested.entry((key, namespace)).or_default();
        match what {
            23 => cell.clear(),
            24 if cell.remove(&user_key).is_some() => {}
            _ => drop(cell.insert(user_key, value)),
        }
        self.oracle.nested.retain(|_, map| !map.is_empty());
    }

    /// A batch over several states; every other one is given up.
    fn change_several(&mut self, what: u8, key: String, namespace: String, n: u16) {
        let instance = self.at(&key);
        let mut batch = instance.backend().batch();
        let states = &mut instance.states;
        let user_key = USER_KEYS[usize::from(n) % USER_KEYS.len()].to_owned();
        states.window.set_current_namespace(&namespace);
        batch.update(&mut states.count, &n.into()).unwrap();
        batch.add(&mut states.list, &"batch".into()).unwrap();
        batch.add(&mut states.list, &n.to_string()).unwrap();
        if n.is_multiple_of(7) {
            batch.clear(&mut states.map).unwrap();
        }
        batch.put(&mut states.map, &user_key, &n.into()).unwrap();
        batch.remove(&mut states.map, &"c".into()).unwrap();
        batch.clear(&mut states.window).unwrap();
        batch.clear(&mut states.largest).unwrap();
        expiring::collect(&mut batch, &mut states.expiring, n);
        if what == 26 {
            return;
        }
        // What expires is as old as when it was collected.
        let then = self.clock.fetch_add((n % 3).into(), Ordering::Relaxed);
        batch.commit().unwrap();
        self.oracle.expiring.collected(&key, n, then);
        self.oracle.count.insert(key.clone(), n.into());
        let list = self.oracle.list.entry(key.clone()).or_default();
        list.extend(["batch".to_owned(), n.to_string()]);
        let map = self.oracle.map.entry(key.clone()).or_default();
        if n.is_multiple_of(7) {
            map.clear();
        }
        map.insert(user_key, n.into());
        map.remove("c");
        self.oracle.map.retain(|_, map| !map.is_empty());
        self.oracle.largest.remove(&key);
        self.oracle.window.remove(&(key, namespace));
    }

    fn change_operators(&mut self, what: u8, n: u16) {
        let index = usize::from(n) % self.instances.len();
        if what == 28 {
            let operator = &mut self.instances[index].operator;
            operator.list_state::<u16>("split").unwrap().add(&n);
            self.oracle.split.push(n);
            self.oracle.split.sort();
            return;
        }
        for instance in &mut self.instances {
            let mut rules = instance.operator.broadcast_state::<u16, String>("rules").unwrap();
            match n.is_multiple_of(3) {
                true => rules.remove(&(n % 16)),
                false => rules.put(&(n % 16), &n.to_string()),
            }
        }
        match n.is_multiple_of(3) {
            true => drop(self.oracle.rules.remove(&(n % 16))),
            false => drop(self.oracle.rules.insert(n % 16, n.to_string())),
        }
    }

    fn manage(&mut self, what: u8, n: u16) {
        let index = usize::from(n) % self.instances.len();
        let instance = &self.instances[index];
        let db = instance.backend().db();
        match what {
            30 if n.is_multiple_of(4) => {
                db.flush_all().unwrap();
                instance.backend().drop_expired().unwrap();
            }
            30 => db.flush_all().unwrap(),
            31 => {
                // Those that expire are compacted by themselves: they have a filter.
                for name in db.column_families().into_iter().filter(|n| !n.starts_with("ttl")) {
                    let mut family = instance.options.family.clone();
                    if name == "list" || name == "window" {
                        family.merge_operator = Some(Arc::new(alluvium::ListAppend));
                    }
                    let family = db.column_family(&name, family).unwrap();
                    db.compact_range(&family, ..).unwrap();
                }
            }
            32 => {
                for i in 0..u64::from(n % 8) {
                    db.step(u64::from(n) + i).unwrap();
                }
            }
            33 | 34 => self.begin_checkpoint(),
            35 => self.restore(parallelism(n)),
            36 => self.take_views(),
            37 => self.check_views(),
            38 => self.roll_back(),
            _ => self.reopen(index),
        }
    }

    fn begin_checkpoint(&mut self) {
        let pending = self.instances.iter().map(|i| i.backend().checkpoint().unwrap()).collect();
        let operator = self.instances.iter().map(|i| i.operator.snapshot()).collect();
        let oracle = self.oracle.clone();
        self.checkpoint = Some(Moment { pending, operator, oracle });
    }

    fn take_views(&mut self) {
        let view = |instance: &Instance| {
            let view = instance.backend().snapshot();
            let states = instance.states.at(&view);
            (view, states)
        };
        self.views = Some((self.instances.iter().map(view).collect(), self.oracle.clone()));
    }

    /// Whatever was written since, the views show what was there.
    fn check_views(&mut self) {
        let Some((views, oracle)) = &mut self.views else { return };
        for key in KEYS {
            let group = assign_key_group(key.java_hash(), GROUPS);
            let index = operator_index(GROUPS, views.len() as u32, group);
            let (view, states) = &mut views[index as usize];
            view.set_current_key(&key.to_owned()).unwrap();
            states.check(key, oracle);
            // It shows what has not expired by now, and reading changes nothing.
            let mut copy = oracle.expiring.clone();
            states.expiring.check(key, &mut copy, self.clock.load(Ordering::Relaxed));
        }
        for ((view, _), instance) in views.iter().zip(&mut self.instances) {
            let event = instance.timers.event_time().iter_at(view).unwrap();
            let processing = instance.timers.processing_time().iter_at(view).unwrap();
            oracle.timers.check(view.key_groups(), event, processing);
        }
        let keys = views.iter().flat_map(|(view, _)| all(view.get_keys("list", &()).unwrap()));
        let mut keys: Vec<String> = keys.collect();
        keys.sort();
        assert!(keys.iter().eq(oracle.list.keys()));
    }

    /// All instances return to the last checkpoint, in place.
    fn roll_back(&mut self) {
        self.views = None;
        if self.checkpoint.is_none() {
            self.begin_checkpoint();
        }
        let moment = self.checkpoint.take().unwrap();
        for (instance, pending) in self.instances.iter_mut().zip(moment.pending) {
            let set = pending.wait().unwrap();
            let backend = instance.backend.take().expect("it is open");
            let mut backend = backend.rollback(&set).unwrap();
            instance.timers = backend.timer_service("timers").unwrap();
            instance.backend = Some(backend);
        }
        for (instance, operator) in self.instances.iter_mut().zip(moment.operator) {
            instance.operator = OperatorState::restore(operator);
        }
        self.oracle = moment.oracle;
        self.check();
    }

    /// Everything is gone but the last checkpoint; if there is none, one is made now.
    fn restore(&mut self, parallelism: u32) {
        self.views = None;
        if self.checkpoint.is_none() {
            self.begin_checkpoint();
        }
        let moment = self.checkpoint.take().unwrap();
        let sets: Vec<FileSet> = moment.pending.into_iter().map(|p| p.wait().unwrap()).collect();
        let parts = self.instances.iter().zip(&sets).map(|(instance, set)| {
            let groups = instance.options.key_groups;
            PartInput { first_group: groups.start(), last_group: groups.end(), set }
        });
        self.checkpoints += 1;
        let job = JobCheckpoint {
            id: self.checkpoints,
            max_parallelism: GROUPS,
            parts: parts.collect(),
            operator_state: vec![("op".into(), OperatorSnapshot::encode_all(&moment.operator))],
            user: vec![],
        };
        let saved = save_checkpoint(&self.job.store, &job, None).unwrap();
        let instances = self.instances.len();
        self.instances.clear();
        let bytes = &saved.envelope.operator_state[0].1;
        let operators = OperatorSnapshot::decode_all(bytes).unwrap();
        let operators = redistribute_operator_state(&operators, parallelism as usize).unwrap();
        let ranges = key_group_ranges(GROUPS, parallelism).unwrap();
        for (groups, operator) in ranges.into_iter().zip(operators) {
            let (dir, options) = (self.job.dir(), self.options(groups));
            let wanted = groups.start()..=groups.end();
            let (db, env) = (options.db.clone(), self.job.env.clone());
            let db = restore_checkpoint(&self.job.store, &saved, wanted, &dir, db, env).unwrap();
            let backend = StateBackend::from_db(db, options.clone()).unwrap();
            let mut operator = OperatorState::restore(operator);
            let who = operator.union_list_state::<u32>("who").unwrap().get().unwrap();
            assert!(who.into_iter().eq(0..instances as u32), "the union of all");
            self.instances.push(Instance::new(options, dir, backend, operator));
        }
        self.prepare_operators();
        self.oracle = moment.oracle;
        self.check();
    }

    /// Closes an instance in order and opens it again. A checkpoint that is pending is given up.
    fn reopen(&mut self, index: usize) {
        (self.checkpoint, self.views) = (None, None);
        let Instance { options, dir, backend, operator, .. } = self.instances.remove(index);
        backend.expect("it is open").close().unwrap();
        let backend = StateBackend::open(&dir, options.clone(), self.job.env.clone()).unwrap();
        self.instances.insert(index, Instance::new(options, dir, backend, operator));
    }

    /// Compares every cell of every state, the keys, and operator state.
    fn check(&mut self) {
        KEYS.iter().for_each(|key| self.read_expiring(key));
        let oracle = std::mem::take(&mut self.oracle);
        for key in KEYS {
            self.at(key).states.check(key, &oracle);
        }
        for instance in &mut self.instances {
            let event = instance.timers.event_time().iter().unwrap();
            let processing = instance.timers.processing_time().iter().unwrap();
            oracle.timers.check(instance.options.key_groups, event, processing);
        }
        let list = |b: &StateBackend<String>| all(b.get_keys("list", &()).unwrap());
        assert!(self.keys(list).iter().eq(oracle.list.keys()));
        let nested = |b: &StateBackend<String>| all(b.get_keys("nested", &"n".to_owned()).unwrap());
        let in_namespace = oracle.nested.keys().filter(|(_, n)| n == "n").map(|(key, _)| key);
        assert!(self.keys(nested).iter().eq(in_namespace));
        let pairs = |b: &StateBackend<String>| all(b.get_keys_and_namespaces("nested").unwrap());
        assert!(self.keys(pairs).iter().eq(oracle.nested.keys()));
        let pairs = |b: &StateBackend<String>| all(b.get_keys_and_namespaces("sum").unwrap());
        assert!(self.keys(pairs).iter().eq(oracle.sum.keys()));
        let mut split = Vec::new();
        for instance in &mut self.instances {
            split.extend(instance.operator.list_state::<u16>("split").unwrap().get().unwrap());
            let rules = instance.operator.broadcast_state::<u16, String>("rules").unwrap();
            assert!(rules.entries().unwrap().into_iter().eq(oracle.rules.clone()));
        }
        split.sort();
        assert_eq!(split, oracle.split);
        self.oracle = oracle;
    }

    fn keys<T: Ord>(&self, of: impl Fn(&StateBackend<String>) -> Vec<T>) -> Vec<T> {
        let mut keys: Vec<T> = self.instances.iter().flat_map(|i| of(i.backend())).collect();
        keys.sort();
        keys
    }
}

/// Up to three namespaces, which may repeat.
fn some_namespaces(n: u16) -> Vec<String> {
    let n = usize::from(n);
    let some = [n % 3, n / 3 % 3, n / 9 % 3].map(|i| NAMESPACES[i].to_owned());
    some[..n / 27 % 4].to_vec()
}

fn all<T>(items: impl Iterator<Item = Result<T>>) -> Vec<T> {
    items.collect::<Result<_>>().unwrap()
}

fn or_empty<T: Clone + Default + Debug>(found: Option<&T>) -> T {
    found.cloned().unwrap_or_default()
}

fn programs_asked_for() -> Option<u64> {
    std::env::var("ALLUVIUM_STATE_PROGRAMS").ok().map(|n| n.parse().unwrap())
}

#[test]
fn states_are_plain_collections() {
    fn program(setting: u64, instances: u16, ops: Vec<Op>) -> bool {
        let mut program = Program::start(Setting(setting), parallelism(instances));
        ops.into_iter().for_each(|op| program.apply(op));
        program.check();
        program.check_views();
        program.restore(parallelism(instances / 4));
        // Everything expires, and every timer fires.
        program.clock.fetch_add(expiring::TTL, Ordering::Relaxed);
        (0..program.instances.len() as u16).for_each(|i| program.manage(30, 4 * i));
        program.check();
        true
    }
    let tests = programs_asked_for().unwrap_or(PROGRAMS);
    let mut part = Part::begin("state");
    let random = Gen::from_size_and_seed(100, setting("ALLUVIUM_SEED", 1));
    let mut check = QuickCheck::new().rng(random).tests(tests);
    check.quickcheck(program as fn(u64, u16, Vec<Op>) -> bool);
    part.count("model_ops", MODEL_OPS.load(Ordering::Relaxed));
    part.count("state_programs", tests);
    println!("{tests} programs, {} operations", part.counted("model_ops"));
    part.finish().expect("target/ can be written");
}

#[test]
fn from_every_parallelism_to_every_other() {
    for (i, old) in PARALLELISMS.into_iter().enumerate() {
        for (j, new) in PARALLELISMS.into_iter().enumerate() {
            let wide = old.max(new) == 128 && old.min(new) != 1;
            if wide && programs_asked_for().is_none() {
                continue;
            }
            let mut program = Program::start(Setting((5 * i + j) as u64), old);
            // Every kind of write to every key, several times, with a flush now and then.
            for round in 0..4u16 {
                for (key, _) in KEYS.iter().enumerate() {
                    for what in [3, 5, 9, 12, 15, 17, 18, 21, 25, 28, 29, 40, 43, 45, 48, 54] {
                        let n = 100 + round * 7 + key as u16;
                        program.apply((what, key as u8, round as u8, n));
                    }
                }
                program.manage([30, 32, 31, 30][usize::from(round)], round);
                program.apply((51, 0, 0, 30));
            }
            program.manage(33, 0);
            program.apply((0, 1, 0, 9)); // after the checkpoint, hence not in it
            program.apply((54, 1, 0, 9));
            program.restore(new);
            program.apply((9, 1, 0, 9));
            program.check();
            program.restore(old);
            (512..512 + old as u16).for_each(|n| program.fire(n));
            program.check();
        }
    }
}

/// The map's memtable fills up and is frozen before the checkpoint, and only another state is written
/// in between.
#[test]
fn a_checkpoint_waits_for_a_memtable_that_was_frozen_before_it() {
    let small = (0..).map(Setting).find(|s| {
        s.log() == Log::Off && {
            let mut options = Job::new(Log::Off).options(GROUPS, (0, 127));
            s.apply(&mut options);
            options.family.memtable_bytes_max == 4 << 10
        }
    });
    let mut program = Program::start(small.expect("there is one"), 1);
    program.apply((18, 0, 0, 74));
    program.apply((0, 0, 0, 1));
    program.restore(2);
}
