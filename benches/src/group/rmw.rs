//! Counters beyond memory, zipfian: what an aggregation over a large key space does.

use std::thread;
use std::time::{Duration, Instant};

use crate::data::{KEY_BYTES, LONG_BYTES, Random, key, long, version};
use crate::engine::Engine;
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter, measure, once};

pub const STEPS: &[&str] = &["rmw-load", "rmw-zipf-big", "rmw-timed", "rmw-checkpoint"];

/// A checkpoint is taken so often, in the quick run too: each costs the same, whatever lies between.
const EVERY: Duration = Duration::from_secs(5);

/// Counters; and how often they are counted.
pub struct Counters {
    store: Store,
    n: u32,
    operations: usize,
    /// How long without checkpoints, and with them.
    spans: [Duration; 2],
    versions: Vec<u32>,
    random: Random,
}

impl Counters {
    pub fn new(place: Place) -> Counters {
        let n = place.size(500_000, 4_000_000);
        Counters {
            store: Store::new(&place, place.size(6 << 20, 40 << 20) as usize),
            n,
            operations: place.size(100_000, 1_000_000) as usize,
            spans: [place.size(2, 15), place.size(12, 15)].map(|s| Duration::from_secs(s.into())),
            versions: vec![0; n as usize],
            random: Random::new(6),
        }
    }

    fn load(&mut self) -> Measure {
        self.store.fresh();
        let order = self.random.permutation(self.n);
        let engine = self.store.engine();
        let mut meter = Meter::begin();
        meter.run(order.len(), |i| engine.put(&key(order[i]), &long(order[i], 0)));
        meter.settle(|| engine.settle());
        let bytes = order.len() * (KEY_BYTES + LONG_BYTES);
        let took = meter.end();
        let written = took.get("written").expect("bytes") * 1e6;
        took.with("wa", written / bytes as f64)
    }

    fn count(&mut self) -> Measure {
        let keys = self.random.zipfian(self.n, self.operations);
        let engine = self.store.engine();
        let took = measure(keys.len(), |i| self.one(engine, keys[i]));
        keys.iter().for_each(|&i| self.versions[i as usize] += 1);
        self.store.verify(&self.versions);
        self.store.engine().settle();
        took
    }

    #[inline]
    fn one(&self, engine: &dyn Engine, i: u32) {
        engine.update(&key(i), &mut |old, new| {
            new.extend_from_slice(&long(i, version(old, i) + 1));
        });
    }

    /// As many as there is time for; a checkpoint now and then, which another thread finishes.
    fn timed(&mut self, checkpoints: bool) -> Option<Measure> {
        let keys = self.random.zipfian(self.n, self.operations);
        let mut counts = vec![0; keys.len()];
        let engine = self.store.engine();
        let places: Vec<_> = (0..1000).map(|i| self.store.root.join(format!("at-{i}"))).collect();
        let (begin, mut made, mut blocking) = (Instant::now(), 0, Duration::ZERO);
        let mut possible = true;
        let measured = thread::scope(|scope| {
            let mut meter = Meter::begin();
            meter.run_for(usize::MAX, self.spans[usize::from(checkpoints)], |i| {
                let at = i % keys.len();
                counts[at] += 1;
                self.one(engine, keys[at]);
                let due = checkpoints && i % 256 == 0 && possible;
                if due && begin.elapsed() >= EVERY * (made + 1) {
                    let (took, finish) = once(|| engine.checkpoint(&places[made as usize]));
                    made += 1;
                    blocking = blocking.max(took);
                    match finish {
                        Some(finish) => drop(scope.spawn(finish)),
                        None => possible = false,
                    }
                }
            });
            meter.end()
        });
        for (&i, count) in keys.iter().zip(counts) {
            self.versions[i as usize] += count;
        }
        self.store.verify(&self.versions);
        for place in &places[..made as usize] {
            let _ = std::fs::remove_dir_all(place);
        }
        possible.then(|| measured.with("blocking", blocking.as_secs_f64() * 1e3))
    }
}

impl Group for Counters {
    fn step(&mut self, name: &str) -> Option<Measure> {
        match name {
            _ if !self.store.kind.has_disk() => None,
            "rmw-load" => Some(self.load()),
            "rmw-zipf-big" => Some(self.count()),
            "rmw-timed" => self.timed(false),
            "rmw-checkpoint" => self.timed(true),
            _ => unreachable!("{name}"),
        }
    }
}
