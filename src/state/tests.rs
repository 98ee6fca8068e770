//! The model of keyed state: random programs over all states, with several keys and namespaces, on
//! as many backends as there are instances, interleaved with flushes, compactions, checkpoints,
//! restores at another parallelism and reopenings, against plain maps.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use crate::BackendOptions;
use crate::Db;
use crate::Env;
use crate::FileSet;
use crate::ImportFamily;
use crate::ImportSource;
use crate::JavaHash;
use crate::ListState;
use crate::MapState;
use crate::MemFs;
use crate::MemoryBudget;
use crate::PendingCheckpoint;
use crate::StateBackend;
use crate::ValueState;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::assign;
use crate::state::key_group::operator_index;
use crate::state::rescale::key_group_ranges;
use crate::state::rescale::shares;
use quickcheck::QuickCheck;

const GROUPS: u32 = 16;
const PARALLELISMS: [u32; 4] = [1, 2, 3, 7];
const KEYS: [&str; 8] = ["", "a", "ab", "abc", "b", "ü", "N328AA", "N532UA"];
const NAMESPACES: [&str; 3] = ["", "n", "nn"];
const USER_KEYS: [&str; 6] = ["", "a", "ab", "abc", "b", "c"];

/// What to do, key, namespace, and a number with some meaning for it.
type Op = (u8, u8, u8, u16);

/// All states as plain maps.
#[derive(Clone, Default)]
struct Oracle {
    count: BTreeMap<String, u64>,
    text: BTreeMap<(String, String), String>,
    list: BTreeMap<String, Vec<String>>,
    window: BTreeMap<(String, u16), Vec<u32>>,
    map: BTreeMap<String, BTreeMap<String, u64>>,
    nested: BTreeMap<(String, String), BTreeMap<String, Option<u16>>>,
}

/// One operator instance.
struct Instance {
    groups: KeyGroupRange,
    dir: PathBuf,
    backend: StateBackend<String>,
    count: ValueState<u64>,
    text: ValueState<String, String>,
    list: ListState<String>,
    window: ListState<u32, u16>,
    map: MapState<String, u64>,
    nested: MapState<String, Option<u16>, String>,
}

impl Instance {
    fn new(groups: KeyGroupRange, dir: PathBuf, mut backend: StateBackend<String>) -> Instance {
        Instance {
            groups,
            dir,
            count: backend.value_state("count").unwrap(),
            text: backend.value_state_with_namespace("text").unwrap(),
            list: backend.list_state("list").unwrap(),
            window: backend.list_state_with_namespace("window").unwrap(),
            map: backend.map_state("map").unwrap(),
            nested: backend.map_state_with_namespace("nested").unwrap(),
            backend,
        }
    }
}

struct Job {
    env: Env,
    instances: Vec<Instance>,
    /// Directories made so far.
    dirs: usize,
    oracle: Oracle,
    /// A checkpoint, and what was there then.
    checkpoint: Option<(Vec<(KeyGroupRange, PendingCheckpoint)>, Oracle)>,
}

fn options(groups: KeyGroupRange) -> BackendOptions {
    let mut options = BackendOptions::new(GROUPS, groups);
    options.family.memtable_bytes_max = 4 << 10;
    options.family.block_bytes = 128;
    options.family.l0_depth_trigger = 2;
    options.family.level_bytes_base = 4 << 10;
    options.family.file_bytes = 1 << 10;
    options
}

impl Job {
    fn start(parallelism: u32) -> Job {
        let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(16 << 20), 11);
        let (instances, oracle) = (Vec::new(), Oracle::default());
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

    /// The instance of a key, with the key set.
    fn at(&mut self, key: &str) -> &mut Instance {
        let group = assign(key.java_hash(), GROUPS);
        let index = operator_index(GROUPS, self.instances.len() as u32, group);
        let instance = &mut self.instances[index as usize];
        instance.backend.set_current_key(&key.to_owned()).unwrap();
        instance
    }

    fn apply(&mut self, op: Op) {
        let (what, key, namespace, n) = op;
        let key = KEYS[usize::from(key) % KEYS.len()].to_owned();
        let namespace = NAMESPACES[usize::from(namespace) % NAMESPACES.len()].to_owned();
        match what % 28 {
            0..=3 => self.change_count(what % 28, key, n),
            4..=6 => self.change_text(what % 28, key, namespace, n),
            7..=10 => self.change_list(what % 28, key, n),
            11..=13 => self.change_window(what % 28, key, namespace.len() as u16, n),
            14..=18 => self.change_map(what % 28, key, n),
            19..=21 => self.change_nested(what % 28, key, namespace, n),
            _ => self.manage(what % 28, n),
        }
    }

    fn change_count(&mut self, what: u8, key: String, n: u16) {
        let value = u64::from(n);
        let state = &mut self.at(&key).count;
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
        let state = &mut self.at(&key).text;
        state.set_current_namespace(&namespace);
        let cell = (key.clone(), namespace.clone());
        if what == 4 {
            state.clear().unwrap();
            self.oracle.text.remove(&cell);
        } else {
            state.update(&value).unwrap();
            self.oracle.text.insert(cell, value);
        }
    }

    fn change_list(&mut self, what: u8, key: String, n: u16) {
        let elements: Vec<String> = (0..n % 4).map(|i| format!("{n} {i}")).collect();
        let state = &mut self.at(&key).list;
        match what {
            7 => state.update(&elements).unwrap(),
            8 => state.add_all(&elements).unwrap(),
            _ => state.add(&n.to_string()).unwrap(),
        }
        let got = state.get().unwrap();
        let list = self.oracle.list.entry(key).or_default();
        match what {
            7 => *list = elements,
            8 => list.extend(elements),
            _ => list.push(n.to_string()),
        }
        assert_eq!(got, *list);
        self.oracle.list.retain(|_, list| !list.is_empty());
    }

    fn change_window(&mut self, what: u8, key: String, namespace: u16, n: u16) {
        let state = &mut self.at(&key).window;
        state.set_current_namespace(&namespace);
        if what == 11 {
            state.clear().unwrap();
            self.oracle.window.remove(&(key, namespace));
        } else {
            state.add(&u32::from(n)).unwrap();
            self.oracle.window.entry((key, namespace)).or_default().push(n.into());
        }
    }

    fn change_map(&mut self, what: u8, key: String, n: u16) {
        let user_key = USER_KEYS[usize::from(n) % USER_KEYS.len()].to_owned();
        let many: BTreeMap<String, u64> =
            (0..n % 120).map(|i| (format!("a{i}"), u64::from(n))).collect();
        let state = &mut self.at(&key).map;
        match what {
            14 => state.put_all(&many).unwrap(),
            15 => state.clear().unwrap(),
            16 => state.remove(&user_key).unwrap(),
            _ => state.put(&user_key, &n.into()).unwrap(),
        }
        let got = all(state.iter().unwrap());
        let map = self.oracle.map.entry(key).or_default();
        match what {
            14 => map.extend(many),
            15 => map.clear(),
            16 => drop(map.remove(&user_key)),
            _ => drop(map.insert(user_key, n.into())),
        }
        assert!(got.iter().map(|(k, v)| (k, v)).eq(map.iter()), "{got:?}");
        self.oracle.map.retain(|_, map| !map.is_empty());
    }

    fn change_nested(&mut self, what: u8, key: String, namespace: String, n: u16) {
        let user_key = USER_KEYS[usize::from(n) % USER_KEYS.len()].to_owned();
        let value = (!n.is_multiple_of(3)).then_some(n);
        let state = &mut self.at(&key).nested;
        state.set_current_namespace(&namespace);
        match what {
            19 => state.clear().unwrap(),
            20 => state.update_with(&user_key, |old| old.is_none().then_some(value)).unwrap(),
            _ => state.put(&user_key, &value).unwrap(),
        }
        let cell = self.oracle.nested.entry((key, namespace)).or_default();
        match what {
            19 => cell.clear(),
            20 if cell.remove(&user_key).is_some() => {}
            _ => drop(cell.insert(user_key, value)),
        }
        self.oracle.nested.retain(|_, map| !map.is_empty());
    }

    fn manage(&mut self, what: u8, n: u16) {
        let index = usize::from(n) % self.instances.len();
        let db = self.instances[index].backend.db();
        match what {
            22 => db.flush_all().unwrap(),
            23 => {
                for name in db.column_families() {
                    let mut family = options(self.instances[index].groups).family;
                    if name == "list" || name == "window" {
                        family.merge_operator = Some(Arc::new(crate::ListAppend));
                    }
                    let family = db.column_family(&name, family).unwrap();
                    db.compact_range(&family, ..).unwrap();
                }
            }
            24 => {
                for i in 0..u64::from(n % 8) {
                    db.step(u64::from(n) + i).unwrap();
                }
            }
            25 => {
                let pending = |i: &Instance| (i.groups, i.backend.checkpoint().unwrap());
                let pending = self.instances.iter().map(pending).collect();
                self.checkpoint = Some((pending, self.oracle.clone()));
            }
            26 => self.restore(PARALLELISMS[usize::from(n) % PARALLELISMS.len()]),
            _ => self.reopen(index),
        }
    }

    /// Everything is gone but the last checkpoint; if there is none, one is made now.
    fn restore(&mut self, parallelism: u32) {
        if self.checkpoint.is_none() {
            self.manage(25, 0);
        }
        let (pending, oracle) = self.checkpoint.take().unwrap();
        let parts: Vec<_> = pending
            .into_iter()
            .map(|(groups, pending)| (groups, pending.wait().unwrap()))
            .collect();
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
        self.check();
    }

    /// Closes an instance in order and opens it again. A checkpoint that is pending is given up.
    fn reopen(&mut self, index: usize) {
        self.checkpoint = None;
        let Instance { groups, dir, backend, .. } = self.instances.remove(index);
        backend.close().unwrap();
        let backend = StateBackend::open(&dir, options(groups), self.env.clone()).unwrap();
        self.instances.insert(index, Instance::new(groups, dir, backend));
    }

    /// Compares every cell of every state, and the keys.
    fn check(&mut self) {
        let oracle = std::mem::take(&mut self.oracle);
        for key in KEYS.map(str::to_owned) {
            let instance = self.at(&key);
            assert_eq!(instance.count.value().unwrap(), oracle.count.get(&key).copied());
            assert_eq!(instance.list.get().unwrap(), or_empty(oracle.list.get(&key)));
            let map: BTreeMap<_, _> = all(instance.map.iter().unwrap()).into_iter().collect();
            assert_eq!(map, or_empty(oracle.map.get(&key)));
            assert_eq!(instance.map.is_empty().unwrap(), map.is_empty());
            for user_key in USER_KEYS.map(str::to_owned) {
                assert_eq!(instance.map.get(&user_key).unwrap(), map.get(&user_key).copied());
            }
            for namespace in NAMESPACES.map(str::to_owned) {
                instance.text.set_current_namespace(&namespace);
                instance.window.set_current_namespace(&(namespace.len() as u16));
                instance.nested.set_current_namespace(&namespace);
                let window = oracle.window.get(&(key.clone(), namespace.len() as u16));
                assert_eq!(instance.window.get().unwrap(), or_empty(window));
                let cell = (key.clone(), namespace);
                assert_eq!(instance.text.value().unwrap(), oracle.text.get(&cell).cloned());
                let nested: BTreeMap<_, _> =
                    all(instance.nested.iter().unwrap()).into_iter().collect();
                assert_eq!(nested, or_empty(oracle.nested.get(&cell)));
            }
        }
        let list = |b: &StateBackend<String>| all(b.get_keys("list", &()).unwrap());
        assert_eq!(self.keys(list), keys_of(oracle.list.keys()));
        let nested = |b: &StateBackend<String>| all(b.get_keys("nested", &"n".to_owned()).unwrap());
        let in_namespace = oracle.nested.keys().filter(|(_, n)| n == "n").map(|(key, _)| key);
        assert_eq!(self.keys(nested), keys_of(in_namespace));
        let pairs = |b: &StateBackend<String>| all(b.get_keys_and_namespaces("nested").unwrap());
        assert_eq!(self.keys(pairs), keys_of(oracle.nested.keys()));
        self.oracle = oracle;
    }

    fn keys<T: Ord>(&self, of: impl Fn(&StateBackend<String>) -> Vec<T>) -> Vec<T> {
        let mut keys: Vec<T> = self.instances.iter().flat_map(|i| of(&i.backend)).collect();
        keys.sort();
        keys
    }
}

fn keys_of<'a, T: Clone + 'a>(keys: impl Iterator<Item = &'a T>) -> Vec<T> {
    keys.cloned().collect()
}

fn all<T>(items: impl Iterator<Item = Result<T>>) -> Vec<T> {
    items.collect::<Result<_>>().unwrap()
}

fn or_empty<T: Clone + Default + Debug>(found: Option<&T>) -> T {
    found.cloned().unwrap_or_default()
}

pub(in crate::state) fn source(set: &FileSet, groups: KeyGroupRange) -> ImportSource {
    let families = set.families().iter().map(|family| ImportFamily::of(set, family).unwrap());
    ImportSource { seqno: set.seqno(), clip: groups.key_range(), families: families.collect() }
}

#[test]
fn states_are_plain_maps() {
    fn program(parallelism: u8, ops: Vec<Op>) -> bool {
        let mut job = Job::start(PARALLELISMS[usize::from(parallelism) % PARALLELISMS.len()]);
        ops.into_iter().for_each(|op| job.apply(op));
        job.check();
        job.restore(PARALLELISMS[usize::from(parallelism / 4) % PARALLELISMS.len()]);
        true
    }
    QuickCheck::new().tests(150).quickcheck(program as fn(u8, Vec<Op>) -> bool);
}

#[test]
fn from_every_parallelism_to_every_other() {
    for old in PARALLELISMS {
        for new in PARALLELISMS {
            let mut job = Job::start(old);
            // Every kind of write to every key, several times, with a flush now and then.
            for round in 0..4u16 {
                for (key, _) in KEYS.iter().enumerate() {
                    for what in [3, 5, 9, 12, 14, 17, 21] {
                        let n = 100 + round * 7 + key as u16;
                        job.apply((what, key as u8, round as u8, n));
                    }
                }
                job.manage([22, 24, 23, 22][usize::from(round)], round);
            }
            job.manage(25, 0);
            job.apply((0, 1, 0, 9)); // after the checkpoint, hence not in it
            job.restore(new);
            job.apply((9, 1, 0, 9));
            job.check();
            job.restore(old);
        }
    }
}

/// The map's memtable fills up and is frozen before the checkpoint, and only another state is written
/// in between.
#[test]
fn a_checkpoint_waits_for_a_memtable_that_was_frozen_before_it() {
    let mut job = Job::start(1);
    job.apply((14, 0, 0, 74));
    job.apply((0, 0, 0, 1));
    job.restore(2);
}
