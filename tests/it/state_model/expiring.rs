//! The part of the model whose state expires: a value, a list, a map and a sum with a time to live.

use std::collections::BTreeMap;

use alluvium::{
    BackendOptions, ListState, MapState, ReducingState, StateBackend, StateBatch, StateSnapshot,
    TtlConfig, TtlUpdate, ValueState,
};

use super::{Program, all};

/// In units of the model's clock.
pub const TTL: i64 = 100;
const NAMES: [&str; 4] = ["ttl value", "ttl list", "ttl map", "ttl sum"];
const USER_KEYS: u16 = 5;

type Dated = (i64, u32);

/// What is stored, expired or not, each with its time; and how reads look at it.
#[derive(Clone, Default)]
pub struct Oracle {
    pub on_read: bool,
    value: BTreeMap<String, Dated>,
    list: BTreeMap<String, Vec<Dated>>,
    map: BTreeMap<String, BTreeMap<u8, Dated>>,
    sum: BTreeMap<String, Dated>,
}

/// The handles of one operator instance, or of a snapshot of it.
pub struct Handles {
    value: ValueState<u32>,
    list: ListState<u32>,
    map: MapState<u8, u32>,
    sum: ReducingState<u32>,
}

impl Handles {
    pub fn new(backend: &mut StateBackend<String>) -> Handles {
        let [value, list, map, sum] = NAMES;
        Handles {
            value: backend.value_state(value).unwrap(),
            list: backend.list_state(list).unwrap(),
            map: backend.map_state(map).unwrap(),
            sum: backend.reducing_state(sum, |a: u32, b| a.wrapping_add(*b)).unwrap(),
        }
    }

    pub fn at(&self, view: &StateSnapshot<String>) -> Handles {
        Handles {
            value: self.value.at(view).unwrap(),
            list: self.list.at(view).unwrap(),
            map: self.map.at(view).unwrap(),
            sum: self.sum.at(view).unwrap(),
        }
    }

    /// Compares what is shown of the current key, and does with the model what reading does.
    pub fn check(&mut self, key: &str, oracle: &mut Oracle, now: i64) {
        let mut value = oracle.value.remove(key);
        assert_eq!(self.value.value().unwrap(), oracle.read(&mut value, now));
        value.map(|value| oracle.value.insert(key.to_owned(), value));

        let mut sum = oracle.sum.remove(key);
        assert_eq!(self.sum.get().unwrap(), oracle.read(&mut sum, now));
        sum.map(|sum| oracle.sum.insert(key.to_owned(), sum));

        let list = oracle.list.remove(key).unwrap_or_default();
        let alive: Vec<Dated> = list.iter().filter(|dated| lives(dated, now)).copied().collect();
        assert!(self.list.get().unwrap().iter().eq(alive.iter().map(|dated| &dated.1)));
        let list = match oracle.on_read {
            true => alive.into_iter().map(|dated| (now, dated.1)).collect(),
            false if alive.is_empty() => alive,
            false => list,
        };
        if !list.is_empty() {
            oracle.list.insert(key.to_owned(), list);
        }

        let got = all(self.map.iter().unwrap());
        let mut want = Vec::new();
        for (user_key, dated) in oracle.map.remove(key).unwrap_or_default() {
            let mut entry = Some(dated);
            want.extend(oracle.read(&mut entry, now).map(|value| (user_key, value)));
            let left = entry.map(|entry| (user_key, entry));
            oracle.map.entry(key.to_owned()).or_default().extend(left);
        }
        assert_eq!(got, want);
    }
}

fn lives(dated: &Dated, now: i64) -> bool {
    dated.0 + TTL > now
}

impl Oracle {
    /// A read: what it shows, and what it leaves.
    fn read(&self, dated: &mut Option<Dated>, now: i64) -> Option<u32> {
        *dated = dated.filter(|dated| lives(dated, now));
        let shown = (*dated)?.1;
        if self.on_read {
            *dated = Some((now, shown));
        }
        Some(shown)
    }

    pub fn configure(&self, options: &mut BackendOptions) {
        let update = match self.on_read {
            true => TtlUpdate::OnReadAndWrite,
            false => TtlUpdate::OnCreateAndWrite,
        };
        let config = TtlConfig::new(TTL).unwrap().with_update(update);
        options.ttl = NAMES.map(|name| (name.to_owned(), config.clone())).into();
    }
}

impl Program {
    pub fn change_expiring(&mut self, what: u8, key: String, n: u16) {
        let (now, user_key, value) = (self.now(), (n % USER_KEYS) as u8, u32::from(n));
        let states = &mut self.at(&key).states.expiring;
        match what {
            0 => states.value.update(&value).unwrap(),
            1 => states.value.update_with(|old| Some(old.unwrap_or(7) + value)).unwrap(),
            2 => states.value.clear().unwrap(),
            3 => states.list.add_all(&[value, value + 1]).unwrap(),
            4 => states.list.update(&[value]).unwrap(),
            5 | 6 => states.map.put(&user_key, &value).unwrap(),
            7 => states.map.remove(&user_key).unwrap(),
            _ => states.sum.add(&value).unwrap(),
        }
        let oracle = &mut self.oracle.expiring;
        let alive = |dated: Option<&Dated>| dated.filter(|dated| lives(dated, now)).map(|d| d.1);
        match what {
            0 => drop(oracle.value.insert(key, (now, value))),
            1 => {
                let old = alive(oracle.value.get(&key)).unwrap_or(7);
                oracle.value.insert(key, (now, old + value));
            }
            2 => drop(oracle.value.remove(&key)),
            3 => {
                oracle.list.entry(key).or_default().extend([(now, value), (now, value + 1)]);
            }
            4 => drop(oracle.list.insert(key, vec![(now, value)])),
            5 | 6 => drop(oracle.map.entry(key).or_default().insert(user_key, (now, value))),
            7 => drop(oracle.map.entry(key).or_default().remove(&user_key)),
            _ => {
                let old = alive(oracle.sum.get(&key)).unwrap_or(0);
                oracle.sum.insert(key, (now, old.wrapping_add(value)));
            }
        }
    }

    /// Reads the expiring state of a key: some of it goes, some of it lives longer.
    pub fn read_expiring(&mut self, key: &str) {
        let now = self.now();
        let mut oracle = std::mem::take(&mut self.oracle.expiring);
        self.at(key).states.expiring.check(key, &mut oracle, now);
        self.oracle.expiring = oracle;
    }
}

impl Oracle {
    /// What [`collect`] does, at the time at which it was collected.
    pub fn collected(&mut self, key: &str, n: u16, then: i64) {
        let (key, n) = (key.to_owned(), u32::from(n));
        self.value.insert(key.clone(), (then, n));
        self.list.entry(key.clone()).or_default().push((then, n));
        let map = self.map.entry(key.clone()).or_default();
        map.clear();
        map.insert(1, (then, n));
        self.sum.remove(&key);
    }
}

/// Puts writes of all these states into a batch.
pub fn collect(batch: &mut StateBatch, states: &mut Handles, n: u16) {
    let n = u32::from(n);
    batch.update(&mut states.value, &n).unwrap();
    batch.add(&mut states.list, &n).unwrap();
    batch.clear(&mut states.map).unwrap();
    batch.put(&mut states.map, &1, &n).unwrap();
    batch.clear(&mut states.sum).unwrap();
}
