//! `ValueState`: one key, one value. Sizes follow flink-benchmarks: everything fits one memtable. Then the
//! same with a time to live, in a store of its own: written as Flink's `TtlValueState` writes, the clock
//! read once an operation.

use crate::data::{self, Random, key, long, version};
use crate::group::{Group, Place, Store, sum_of};
use crate::meter::{Measure, Meter, bytes_on_disk, measure, once};
use crate::ttl;

pub const STEPS: &[&str] = &[
    "value-add-settled",
    "value-add",
    "value-get",
    "value-absent",
    "value-update",
    "rmw-hot",
    "rmw-zipf",
    "multi-get",
    "snapshot-get",
    "value-get-table",
    "value-absent-table",
    "ttl-update",
    "ttl-get",
    "ttl-expired",
];

const HOT: u32 = 1000;
const BATCH: usize = 32;
const SNAPSHOT_GETS: usize = 10;

/// Values, and the versions that they must have.
pub struct Values {
    store: Store,
    order: Vec<u32>,
    other: Vec<u32>,
    versions: Vec<u32>,
    random: Random,
}

impl Values {
    pub fn new(place: Place) -> Values {
        let n = place.size(200_000, 500_000);
        let mut random = Random::new(1);
        Values {
            store: Store::new(&place, 192 << 20),
            order: random.permutation(n),
            other: random.permutation(n),
            versions: vec![0; n as usize],
            random,
        }
    }

    fn n(&self) -> u32 {
        self.order.len() as u32
    }

    fn add(&mut self, settled: bool) -> Measure {
        self.store.fresh();
        let engine = self.store.engine();
        let mut meter = Meter::begin();
        meter.run(self.order.len(), |i| {
            let i = self.order[i];
            engine.put(&key(i), &long(i, 0));
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
            let i = self.other[i];
            engine.get(&key(i), &mut |value| sum += u64::from(version(value, i)));
        });
        assert_eq!(sum, sum_of(&self.versions, &self.other));
        took
    }

    /// Absent keys lie between those that are there.
    fn absent(&self) -> Measure {
        let engine = self.store.engine();
        measure(self.other.len(), |i| {
            let mut key = key(self.other[i]);
            key[10] = 1;
            engine.get(&key, &mut |value| assert!(value.is_none()));
        })
    }

    fn update(&mut self) -> Measure {
        let engine = self.store.engine();
        let took = measure(self.order.len(), |i| {
            let i = self.order[i];
            engine.put(&key(i), &long(i, 1));
        });
        self.versions.fill(1);
        self.store.verify(&self.versions);
        took
    }

    fn count(&mut self, keys: &[u32]) -> Measure {
        let engine = self.store.engine();
        let took = measure(keys.len(), |i| {
            let i = keys[i];
            engine.update(&key(i), &mut |old, new| {
                new.extend_from_slice(&long(i, version(old, i) + 1));
            });
        });
        keys.iter().for_each(|&i| self.versions[i as usize] += 1);
        self.store.verify(&self.versions);
        took
    }

    fn multi_get(&self) -> Measure {
        let engine = self.store.engine();
        let batches: Vec<&[u32]> = self.other.chunks_exact(BATCH).collect();
        let mut meter = Meter::begin();
        let mut sum = 0;
        meter.run(batches.len(), |i| {
            let numbers = batches[i];
            let keys: [[u8; data::KEY_BYTES]; BATCH] = std::array::from_fn(|i| key(numbers[i]));
            let keys: [&[u8]; BATCH] = std::array::from_fn(|i| &keys[i][..]);
            engine.multi_get(&keys, &mut |i, value| sum += u64::from(version(value, numbers[i])));
        });
        let read = &self.other[..batches.len() * BATCH];
        assert_eq!(sum, sum_of(&self.versions, read));
        meter.end_per(BATCH as f64)
    }

    /// A snapshot and ten reads, with a write between that they must not see.
    fn snapshots(&mut self) -> Option<Measure> {
        let engine = self.store.engine();
        let numbers: Vec<&[u32]> = self.other.chunks_exact(SNAPSHOT_GETS).take(20_000).collect();
        let mut possible = true;
        let mut sum = 0;
        let took = measure(numbers.len(), |i| {
            possible &= engine.snapshot(&mut |get| {
                for &i in numbers[i] {
                    get(&key(i), &mut |value| sum += u64::from(version(value, i)));
                }
            });
        });
        let read = &self.other[..numbers.len() * SNAPSHOT_GETS];
        possible.then(|| assert_eq!(sum, sum_of(&self.versions, read)))?;
        let changed = self.order[0];
        let old = self.versions[changed as usize];
        engine.snapshot(&mut |get| {
            engine.put(&key(changed), &long(changed, old + 1));
            get(&key(changed), &mut |value| assert_eq!(version(value, changed), old));
        });
        self.versions[changed as usize] += 1;
        Some(took)
    }
}

/// Values with a time to live.
impl Values {
    /// Each value anew with a new time, without a read.
    fn ttl_update(&mut self) -> Measure {
        self.store.with_ttl();
        self.store.fresh();
        let engine = self.store.engine();
        let put = |i: u32, version| {
            engine.put(&key(i), &ttl::stamped(ttl::now(), long(i, version)));
        };
        // In an order that neither the updates nor the reads have.
        (0..self.n()).for_each(|i| put(i, 0));
        let took = measure(self.order.len(), |i| put(self.order[i], 1));
        self.versions.fill(1);
        self.ttl_get();
        took
    }

    /// Reads each value, and what has expired as if it were not there; nothing has.
    fn ttl_get(&self) -> Measure {
        let engine = self.store.engine();
        let mut sum = 0;
        let took = measure(self.other.len(), |i| {
            let i = self.other[i];
            engine.get(&key(i), &mut |stored| {
                let now = ttl::now();
                let stored =
                    stored.filter(|stored| !ttl::is_expired(stored, ttl::expired_until(now)));
                let (time, value) = stored.and_then(ttl::parts).expect("it lives");
                assert!(time <= now);
                sum += u64::from(version(Some(value), i));
            });
        });
        assert_eq!(sum, sum_of(&self.versions, &self.other));
        took
    }

    /// Everything has expired: bytes on disk for each byte that was put, when flushes and compactions are
    /// done, and after one of everything. What is left of it has expired, too.
    fn ttl_expired(&self) -> Option<Measure> {
        ttl::skip(ttl::TTL_MS + 1);
        let engine = self.store.engine();
        let bytes = (self.order.len() * (data::KEY_BYTES + ttl::STAMPED_BYTES)) as f64;
        let space = || bytes_on_disk(&self.store.dir()) as f64 / bytes;
        let (took, settled) = once(|| engine.settle());
        let measure = Measure::default().with("settling", took.as_secs_f64() * 1e3);
        settled?;
        let measure = measure.with("space", space());
        engine.compact();
        for &i in &self.order {
            engine.get(&key(i), &mut |stored| {
                let until = ttl::expired_until(ttl::now());
                assert!(stored.is_none_or(|stored| ttl::is_expired(stored, until)), "key {i}");
            });
        }
        Some(measure.with("compacted", space()))
    }
}

impl Group for Values {
    fn step(&mut self, name: &str) -> Option<Measure> {
        let n = self.n();
        match name {
            "value-add-settled" if self.store.kind.has_disk() => Some(self.add(true)),
            "value-add-settled" => None,
            "value-add" => Some(self.add(false)),
            "value-get" => Some(self.get()),
            "value-absent" => Some(self.absent()),
            "value-update" => Some(self.update()),
            "rmw-hot" => {
                let keys = self.random.uniform(HOT, n as usize);
                Some(self.count(&keys))
            }
            "rmw-zipf" => {
                let keys = self.random.zipfian(n, n as usize);
                Some(self.count(&keys))
            }
            "multi-get" => Some(self.multi_get()),
            "snapshot-get" => self.snapshots(),
            "value-get-table" => {
                let (took, settled) = once(|| self.store.engine().settle());
                settled?;
                // What was flushed just now may be in memory as it was.
                self.store.engine().compact();
                Some(self.get().with("settling", took.as_secs_f64() * 1e3))
            }
            "value-absent-table" => self.store.kind.has_disk().then(|| self.absent()),
            "ttl-update" => Some(self.ttl_update()),
            "ttl-get" => Some(self.ttl_get()),
            "ttl-expired" => self.ttl_expired(),
            _ => unreachable!("{name}"),
        }
    }
}
