//! Loading: what the caller sees, and what it takes until flushes and compactions are done.

use crate::data::{Random, key, record};
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter};

pub const STEPS: &[&str] = &["fill-random", "overwrite-random", "fill-seq"];

/// Records.
pub struct Fill {
    store: Store,
    n: u32,
    versions: Vec<u32>,
}

impl Fill {
    pub fn new(place: Place) -> Fill {
        let n = place.size(300_000, 1_600_000);
        let memory = place.size(18 << 20, 96 << 20) as usize;
        Fill { store: Store::new(&place, memory), n, versions: vec![0; n as usize] }
    }

    fn fill(&mut self, order: &[u32], version: u32) -> Measure {
        let engine = self.store.engine();
        let mut meter = Meter::begin();
        meter.run(order.len(), |i| engine.put(&key(order[i]), &record(order[i], version)));
        meter.settle(|| engine.settle());
        let took = self.store.amplified(meter.end(), order.len());
        order.iter().for_each(|&i| self.versions[i as usize] = version);
        self.store.verify(&self.versions);
        took
    }
}

impl Group for Fill {
    fn step(&mut self, name: &str) -> Option<Measure> {
        if !self.store.kind.has_disk() {
            return None;
        }
        match name {
            "fill-random" => {
                self.store.fresh();
                Some(self.fill(&Random::new(7).permutation(self.n), 0))
            }
            "overwrite-random" => Some(self.fill(&Random::new(8).permutation(self.n), 1)),
            "fill-seq" => {
                self.store.fresh();
                self.versions.fill(0);
                let mut order: Vec<u32> = (0..self.n).collect();
                order.sort_by_key(|&i| key(i));
                Some(self.fill(&order, 0))
            }
            _ => unreachable!("{name}"),
        }
    }
}
