//! YCSB's workloads, and reads of all kinds, on records that take several times the memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::data::{KEY_BYTES, Random, key, number_of, record, version};
use crate::engine::Scan;
use crate::group::{Group, Place, Store, sum_of};
use crate::meter::{Measure, Meter, measure};

pub const STEPS: &[&str] = &[
    "ycsb-load",
    "ycsb-c",
    "get-uniform",
    "get-absent",
    "scan-full",
    "scan-reverse",
    "ycsb-e",
    "ycsb-b",
    "ycsb-a",
    "ycsb-f",
    "ycsb-d",
    "readers2-writer1",
];

const SCAN_MAX: u32 = 100;

/// Records, and their versions. Record `n` and those behind are inserted by workloads D and E.
pub struct Ycsb {
    store: Store,
    n: u32,
    operations: usize,
    versions: Vec<u32>,
    random: Random,
}

/// One operation.
#[derive(Clone, Copy)]
enum Op {
    Read(u32),
    Update(u32),
    Modify(u32),
    Insert(u32),
    Scan(u32, u32),
}

impl Ycsb {
    pub fn new(place: Place) -> Ycsb {
        let n = place.size(400_000, 2_500_000);
        Ycsb {
            store: Store::new(&place, place.size(8 << 20, 32 << 20) as usize),
            n,
            operations: place.size(80_000, 500_000) as usize,
            versions: vec![0; n as usize],
            random: Random::new(9),
        }
    }

    fn load(&mut self) -> Measure {
        self.store.fresh();
        let order = self.random.permutation(self.n);
        let engine = self.store.engine();
        let mut meter = Meter::begin();
        meter.run(order.len(), |i| engine.put(&key(order[i]), &record(order[i], 0)));
        meter.settle(|| engine.settle());
        self.store.amplified(meter.end(), order.len())
    }

    fn get(&mut self, keys: &[u32]) -> Measure {
        let engine = self.store.engine();
        let mut sum = 0;
        let took = measure(keys.len(), |i| {
            let i = keys[i];
            engine.get(&key(i), &mut |value| sum += u64::from(version(value, i)));
        });
        assert_eq!(sum, sum_of(&self.versions, keys));
        took
    }

    /// Absent keys lie between those that are there.
    fn absent(&mut self) -> Measure {
        let keys = self.random.uniform(self.n, self.operations);
        let engine = self.store.engine();
        measure(keys.len(), |i| {
            let mut key = key(keys[i]);
            key[10] = 1;
            engine.get(&key, &mut |value| assert!(value.is_none()));
        })
    }

    fn scan(&mut self, scan: Scan<'_>) -> Option<Measure> {
        let engine = self.store.engine();
        let mut last: Option<[u8; KEY_BYTES]> = None;
        let (mut seen, mut sum, mut possible) = (0, 0, true);
        let ascending = matches!(scan, Scan::All);
        let mut meter = Meter::begin();
        meter.run(1, |_| {
            possible = engine.scan(scan, &mut |key, value| {
                sum += u64::from(version(Some(value), number_of(key)));
                assert!(last.is_none_or(|last| (last[..] < *key) == ascending));
                last = Some(key.try_into().expect("a key of ours"));
                seen += 1;
                true
            });
        });
        possible.then(|| {
            assert_eq!(seen, self.versions.len());
            assert_eq!(sum, self.versions.iter().map(|v| u64::from(*v)).sum::<u64>());
            meter.end_per(seen as f64)
        })
    }

    /// A workload of zipfian reads, and so many of a hundred operations of another kind.
    fn mix(&mut self, percent: u32, other: fn(u32) -> Op) -> Measure {
        let keys = self.random.zipfian(self.n, self.operations);
        let ops = keys.iter().map(|&i| match self.random.below(100) < percent {
            true => other(i),
            false => Op::Read(i),
        });
        let ops = ops.collect();
        self.run(ops).expect("no scans")
    }

    /// Workload D: reads of what was inserted last.
    fn latest(&mut self) -> Measure {
        let ranks = self.random.zipfian(self.n, self.operations);
        let mut next = self.versions.len() as u32;
        let ops = ranks.iter().map(|&rank| match self.random.below(100) < 5 {
            true => {
                next += 1;
                Op::Insert(next - 1)
            }
            // `zipfian` scatters the ranks; what counts is that few, new ones are read often.
            false => Op::Read(next - 1 - rank % (next / 100)),
        });
        let ops = ops.collect();
        self.run(ops).expect("no scans")
    }

    /// Workload E: short scans, few inserts.
    fn scans(&mut self) -> Option<Measure> {
        let keys = self.random.zipfian(self.n, self.operations / 10);
        let mut next = self.versions.len() as u32;
        let ops = keys.iter().map(|&i| match self.random.below(100) < 5 {
            true => {
                next += 1;
                Op::Insert(next - 1)
            }
            false => Op::Scan(i, 1 + self.random.below(SCAN_MAX)),
        });
        let ops = ops.collect();
        self.run(ops)
    }

    fn run(&mut self, ops: Vec<Op>) -> Option<Measure> {
        let (mut sum, mut wanted, mut possible) = (0u64, 0u64, true);
        let mut now = self.versions.clone();
        // What must be read is known before: the order of operations is.
        let ops: Vec<(Op, u32)> = ops
            .into_iter()
            .map(|op| {
                let version = match op {
                    Op::Read(i) => {
                        wanted += u64::from(now[i as usize]);
                        0
                    }
                    Op::Update(i) | Op::Modify(i) => {
                        now[i as usize] += 1;
                        now[i as usize]
                    }
                    Op::Insert(i) => {
                        assert_eq!(i as usize, now.len());
                        now.push(0);
                        0
                    }
                    Op::Scan(..) => 0,
                };
                (op, version)
            })
            .collect();
        let engine = self.store.engine();
        let took = measure(ops.len(), |i| match ops[i] {
            (Op::Read(i), _) => {
                engine.get(&key(i), &mut |value| sum += u64::from(version(value, i)));
            }
            (Op::Update(i) | Op::Insert(i), version) => engine.put(&key(i), &record(i, version)),
            (Op::Modify(i), new_version) => engine.update(&key(i), &mut |old, new| {
                assert_eq!(version(old, i), new_version - 1);
                new.extend_from_slice(&record(i, new_version));
            }),
            (Op::Scan(i, mut left), _) => {
                possible &= engine.scan(Scan::From(&key(i)), &mut |key, value| {
                    version(Some(value), number_of(key));
                    left -= 1;
                    left > 0
                });
            }
        });
        assert_eq!(sum, wanted);
        self.versions = now;
        self.store.engine().settle();
        possible.then_some(took)
    }

    /// Two threads read, this one too: it counts; one more writes the same keys as fast as it can.
    fn readers(&mut self) -> Measure {
        let keys = self.random.uniform(self.n, self.operations);
        let engine = self.store.engine();
        let (done, n) = (AtomicBool::new(false), self.n);
        let read = |half: usize| {
            let keys = &keys[half * keys.len() / 2..][..keys.len() / 2];
            measure(keys.len(), |i| {
                let i = keys[i];
                engine.get(&key(i), &mut |value| assert!(version(value, i) < 1_000_000));
            })
        };
        let (first, second, writes) = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (mut random, mut writes) = (Random::new(10), 0u64);
                while !done.load(Ordering::Relaxed) {
                    let i = random.below(n);
                    engine.put(&key(i), &record(i, 7));
                    writes += 1;
                }
                writes
            });
            let second = scope.spawn(|| read(1));
            let first = read(0);
            let second = second.join().expect("a reader");
            done.store(true, Ordering::Relaxed);
            (first, second, writer.join().expect("the writer"))
        });
        let rate = |measure: &Measure| measure.get("rate").expect("a rate");
        let rate_of_both = rate(&first) + rate(&second);
        let span = (keys.len() / 2) as f64 / rate(&first).min(rate(&second));
        let mut both = first;
        both.0.retain(|(name, _)| name != "rate");
        both.with("rate", rate_of_both).with("writes", writes as f64 / span)
    }
}

impl Group for Ycsb {
    fn step(&mut self, name: &str) -> Option<Measure> {
        if !self.store.kind.has_disk() {
            return None;
        }
        match name {
            "ycsb-load" => Some(self.load()),
            "ycsb-c" => {
                let keys = self.random.zipfian(self.n, self.operations);
                Some(self.get(&keys))
            }
            "get-uniform" => {
                let keys = self.random.uniform(self.n, self.operations);
                Some(self.get(&keys))
            }
            "get-absent" => Some(self.absent()),
            "scan-full" => self.scan(Scan::All),
            "scan-reverse" => self.scan(Scan::AllReverse),
            "ycsb-e" => self.scans(),
            "ycsb-b" => Some(self.mix(5, Op::Update)),
            "ycsb-a" => Some(self.mix(50, Op::Update)),
            "ycsb-f" => Some(self.mix(50, Op::Modify)),
            "ycsb-d" => Some(self.latest()),
            "readers2-writer1" => Some(self.readers()),
            _ => unreachable!("{name}"),
        }
    }
}
