//! What an operation costs as the state grows: the same operations, the same number of them and the
//! same memory for stores of 1, 16 and 64 M records.
//!
//! Records are loaded in a random order: every new table overlaps all that are there.

use std::collections::HashMap;

use crate::data::{KEY_BYTES, Random, key, number_of, record, scatter, version};
use crate::engine::Scan;
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter, measure};

macro_rules! steps {
    ($size:literal) => {
        &[
            concat!("load-", $size),
            concat!("get-", $size),
            concat!("absent-", $size),
            concat!("zipf-get-", $size),
            concat!("scan10-", $size),
            concat!("zipf-rmw-", $size),
            concat!("overwrite-", $size),
        ]
    };
}

/// The sizes, as the names of steps end.
pub const SIZES: [&str; 3] = ["1m", "16m", "64m"];
/// The steps of each size.
pub const STEPS: [&[&str]; 3] = [steps!("1m"), steps!("16m"), steps!("64m")];

/// What is shown: its name, the step without its size, the number.
pub const SHOWN: &[(&str, &str, &str)] = &[
    ("load, settled", "load", "settled"),
    ("uniform get", "get", "rate"),
    ("absent get", "absent", "rate"),
    ("zipfian get", "zipf-get", "rate"),
    ("scan of 10", "scan10", "rate"),
    ("zipfian read-modify-write", "zipf-rmw", "rate"),
    ("overwrite, settled", "overwrite", "settled"),
    ("load: write amplification", "load", "wa"),
    ("load: space, bytes a byte", "load", "space"),
    ("load: peak memory, MB", "load", "memory"),
];

/// Memory at every size.
pub const MEMORY: usize = 64 << 20;
/// What a process may use besides, of its own and in the page cache, where that can be limited.
pub const BESIDES: usize = 512 << 20;

const READS: usize = 20_000;
/// Fewer than reads: each begins in every level.
const SCANS: usize = 4000;
/// More than fits into memtables.
const OVERWRITES_MIN: u32 = 1 << 20;
/// Of so many records one is overwritten. What fewer cost is what the load has left to do in the upper
/// levels, which hold about a tenth of all.
const OVERWRITTEN_OF: u32 = 8;
/// The version that overwriting makes, the first time: above all that updates make.
const OVERWRITTEN: u32 = 1 << 31;

/// Records, and the versions of those that were updated.
pub struct Scale {
    store: Store,
    n: u32,
    versions: HashMap<u32, u32>,
    /// How often some were overwritten.
    overwritten: u32,
    random: Random,
}

impl Scale {
    pub fn new(place: Place, n: u32) -> Scale {
        let store = Store::new(&place, MEMORY);
        Scale { store, n, versions: HashMap::new(), overwritten: 0, random: Random::new(11) }
    }

    fn load(&mut self) -> Measure {
        self.store.fresh();
        self.versions.clear();
        self.overwritten = 0;
        let (engine, n) = (self.store.engine(), self.n);
        let mut meter = Meter::begin();
        meter.run(n as usize, |i| {
            let i = scatter(i as u32, n, 5);
            engine.put(&key(i), &record(i, 0));
        });
        meter.settle(|| engine.settle());
        self.store.amplified(meter.end(), n as usize)
    }

    fn get(&self, keys: &[u32]) -> Measure {
        let engine = self.store.engine();
        measure(keys.len(), |i| {
            let i = keys[i];
            engine.get(&key(i), &mut |value| assert_eq!(version(value, i), 0));
        })
    }

    /// Absent keys lie between those that are there.
    fn absent(&self, keys: &[u32]) -> Measure {
        let engine = self.store.engine();
        measure(keys.len(), |i| {
            let mut key = key(keys[i]);
            key[10] = 1;
            engine.get(&key, &mut |value| assert!(value.is_none()));
        })
    }

    fn scan(&self, keys: &[u32]) -> Option<Measure> {
        let engine = self.store.engine();
        let mut possible = true;
        let took = measure(keys.len(), |i| {
            let (from, mut last, mut left) = (key(keys[i]), None, 10);
            possible &= engine.scan(Scan::From(&from), &mut |key, value| {
                let key: [u8; KEY_BYTES] = key.try_into().expect("a key of ours");
                assert_eq!(version(Some(value), number_of(&key)), 0);
                assert!(last.map_or(key == from, |last| last < key), "from this key on, in order");
                last = Some(key);
                left -= 1;
                left > 0
            });
        });
        possible.then_some(took)
    }

    fn modify(&mut self, keys: &[u32]) -> Measure {
        assert_eq!(self.overwritten, 0, "records are overwritten last");
        let next = keys.iter().map(|&i| {
            let version = self.versions.entry(i).or_default();
            *version += 1;
            *version
        });
        let versions: Vec<u32> = next.collect();
        let engine = self.store.engine();
        let took = measure(keys.len(), |at| {
            let (i, new_version) = (keys[at], versions[at]);
            engine.update(&key(i), &mut |old, new| {
                assert_eq!(version(old, i), new_version - 1);
                new.extend_from_slice(&record(i, new_version));
            });
        });
        engine.settle();
        let written = self.versions.iter().take(READS / 4);
        written.for_each(|(&i, &wanted)| {
            engine.get(&key(i), &mut |value| assert_eq!(version(value, i), wanted));
        });
        took
    }

    fn overwrite(&mut self) -> Measure {
        let (engine, n) = (self.store.engine(), self.n);
        let new_version = OVERWRITTEN + self.overwritten;
        let count = (n / OVERWRITTEN_OF).max(OVERWRITES_MIN.min(n));
        let nth = |i: u32| scatter(i, n, 6);
        let mut meter = Meter::begin();
        meter.run(count as usize, |i| {
            let i = nth(i as u32);
            engine.put(&key(i), &record(i, new_version));
        });
        meter.settle(|| engine.settle());
        let took = meter.end();
        self.overwritten += 1;
        self.random.uniform(count, READS / 4).into_iter().map(nth).for_each(|i| {
            engine.get(&key(i), &mut |value| assert_eq!(version(value, i), new_version));
        });
        took
    }
}

impl Group for Scale {
    fn step(&mut self, name: &str) -> Option<Measure> {
        if !self.store.kind.has_disk() {
            return None;
        }
        let (operation, _) = name.rsplit_once('-').expect("a step of this group");
        let keys = match operation {
            "load" | "overwrite" => Vec::new(),
            "zipf-get" | "zipf-rmw" => self.random.zipfian(self.n, READS),
            "scan10" => self.random.uniform(self.n, SCANS),
            _ => self.random.uniform(self.n, READS),
        };
        match operation {
            "load" => Some(self.load()),
            "get" | "zipf-get" => Some(self.get(&keys)),
            "absent" => Some(self.absent(&keys)),
            "scan10" => self.scan(&keys),
            "zipf-rmw" => Some(self.modify(&keys)),
            "overwrite" => Some(self.overwrite()),
            _ => unreachable!("{name}"),
        }
    }
}
