//! `MapState`: ten entries a map, one prefix a map.

use crate::data::{self, Random, entry, long, version};
use crate::engine::{Engine, Scan};
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter, measure};

pub const STEPS: &[&str] = &[
    "map-add-settled",
    "map-add",
    "map-get",
    "map-contains",
    "map-iterate",
    "map-is-empty",
    "map-update",
    "map-remove",
    "map-put-all",
    "scan-prefix10",
    "map-emptied",
];

const ENTRIES: u32 = 10;

/// Maps; entries are numbered through: entry `e` is user key `e % 10` of map `e / 10`.
pub struct Maps {
    store: Store,
    maps: u32,
    order: Vec<u32>,
    other: Vec<u32>,
    /// Version of an entry; `None` once it is removed.
    versions: Vec<Option<u32>>,
    emptied: u32,
}

fn key(e: u32) -> [u8; data::ENTRY_BYTES] {
    entry(e / ENTRIES, e % ENTRIES)
}

fn version_of(value: Option<&[u8]>, e: u32) -> u64 {
    u64::from(version(value, e))
}

impl Maps {
    pub fn new(place: Place) -> Maps {
        let maps = place.size(20_000, 50_000);
        let mut random = Random::new(2);
        Maps {
            store: Store::new(&place, 192 << 20),
            maps,
            order: random.permutation(maps * ENTRIES),
            other: random.permutation(maps * ENTRIES),
            versions: vec![Some(0); (maps * ENTRIES) as usize],
            emptied: place.size(2000, 5000),
        }
    }

    fn add(&mut self, settled: bool) -> Measure {
        self.store.fresh();
        let engine = self.store.engine();
        let mut meter = Meter::begin();
        meter.run(self.order.len(), |i| {
            let e = self.order[i];
            engine.put(&key(e), &long(e, 0));
        });
        if settled {
            meter.settle(|| engine.settle());
        }
        meter.end()
    }

    fn get(&self) -> Measure {
        let engine = self.store.engine();
        let mut sum = 0;
        let took = measure(self.other.len(), |i| {
            let e = self.other[i];
            engine.get(&key(e), &mut |value| sum += version_of(value, e));
        });
        assert_eq!(sum, 0, "nothing was updated yet");
        took
    }

    /// Every other entry that is asked for is not there.
    fn contains(&self) -> Measure {
        let engine = self.store.engine();
        let mut there = 0;
        let took = measure(self.other.len(), |i| {
            let e = self.other[i];
            let absent = i as u32 % 2 * ENTRIES;
            engine.get(&entry(e / ENTRIES, e % ENTRIES + absent), &mut |value| {
                there += usize::from(value.is_some());
            });
        });
        assert_eq!(there, self.other.len().div_ceil(2));
        took
    }

    /// All entries of as many maps as there are, or as there is patience for; counts entries.
    fn iterate(&self) -> Option<Measure> {
        let engine = self.store.engine();
        let mut sum = 0;
        let (mut seen, mut possible) = (0, true);
        let mut meter = Meter::begin();
        let done = meter.run_patiently(self.maps as usize, |i| {
            let map = self.other[i] / ENTRIES;
            possible &= engine.scan(Scan::Prefix(&data::key(map)), &mut |key, value| {
                let user_key = u32::from(key[data::ENTRY_BYTES - 1]);
                sum += version_of(Some(value), map * ENTRIES + user_key);
                seen += 1;
                true
            });
        });
        if !possible {
            return None;
        }
        let range = |map: u32| (map * ENTRIES..(map + 1) * ENTRIES).map(|e| e as usize);
        let maps = self.other[..done].iter().map(|e| e / ENTRIES);
        let wanted = maps.flat_map(range).filter_map(|e| self.versions[e]);
        let (count, total) = wanted.fold((0, 0), |(count, sum), v| (count + 1, sum + u64::from(v)));
        assert_eq!((seen, sum), (count, total));
        Some(meter.end_per(f64::from(seen) / done as f64))
    }

    fn is_empty(engine: &dyn Engine, map: u32) -> Option<bool> {
        Some(!engine.has_prefix(&data::key(map))?)
    }

    fn is_empty_of_full(&self) -> Option<Measure> {
        let engine = self.store.engine();
        Maps::is_empty(engine, 0)?;
        let mut meter = Meter::begin();
        meter.run_patiently(self.maps as usize, |i| {
            assert_eq!(Maps::is_empty(engine, self.other[i] / ENTRIES), Some(false));
        });
        Some(meter.end())
    }

    fn update(&mut self) -> Measure {
        let engine = self.store.engine();
        let took = measure(self.order.len(), |i| {
            let e = self.order[i];
            engine.put(&key(e), &long(e, 1));
        });
        self.versions.fill(Some(1));
        self.verify();
        took
    }

    /// Removes half of all entries.
    fn remove(&mut self) -> Measure {
        let engine = self.store.engine();
        let removed = &self.other[..self.other.len() / 2];
        let took = measure(removed.len(), |i| engine.delete(&key(removed[i])));
        removed.iter().for_each(|&e| self.versions[e as usize] = None);
        self.verify();
        took
    }

    /// Gives all maps all their entries, a map at a time; counts entries.
    fn put_all(&mut self) -> Measure {
        let engine = self.store.engine();
        let maps = Random::new(3).permutation(self.maps);
        let mut meter = Meter::begin();
        meter.run(maps.len(), |i| {
            let first = maps[i] * ENTRIES;
            let entries: [_; ENTRIES as usize] = std::array::from_fn(|i| {
                let e = first + i as u32;
                (key(e), long(e, 2))
            });
            engine.put_all(&mut entries.iter().map(|(key, value)| (&key[..], &value[..])));
        });
        self.versions.fill(Some(2));
        self.verify();
        meter.end_per(f64::from(ENTRIES))
    }

    /// Maps from which every entry was removed, one by one.
    fn emptied(&mut self) -> Option<Measure> {
        self.store.fresh();
        let engine = self.store.engine();
        Maps::is_empty(engine, 0)?;
        for e in 0..self.emptied * ENTRIES {
            engine.put(&key(e), &long(e, 0));
        }
        for e in 0..self.emptied * ENTRIES {
            engine.delete(&key(e));
        }
        let maps = Random::new(4).uniform(self.emptied, 200);
        let mut meter = Meter::begin();
        meter.run_patiently(maps.len(), |i| {
            assert_eq!(Maps::is_empty(engine, maps[i]), Some(true));
        });
        let took = meter.end();
        let micros = 1e6 / took.get("rate").expect("a rate");
        Some(took.with("micros", micros))
    }

    fn verify(&self) {
        for (e, wanted) in (0..).zip(&self.versions) {
            self.store.engine().get(&key(e), &mut |value| {
                assert_eq!(value.map(|value| version(Some(value), e)), *wanted, "entry {e}");
            });
        }
    }
}

impl Group for Maps {
    fn step(&mut self, name: &str) -> Option<Measure> {
        match name {
            "map-add-settled" => self.store.kind.has_disk().then(|| self.add(true)),
            "map-add" => Some(self.add(false)),
            "map-get" => Some(self.get()),
            "map-contains" => Some(self.contains()),
            "map-iterate" => self.iterate(),
            "map-is-empty" => self.is_empty_of_full(),
            "map-update" => Some(self.update()),
            "map-remove" => Some(self.remove()),
            "map-put-all" => Some(self.put_all()),
            "scan-prefix10" => self.store.engine().settle().and_then(|_| self.iterate()),
            "map-emptied" => self.emptied(),
            _ => unreachable!("{name}"),
        }
    }
}
