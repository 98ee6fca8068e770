//! Checkpoints: how long the caller stands still, what is new in them, how fast one is back.

use crate::data::{KEY_GROUPS, Random, key, record, version};
use crate::engine::Engine;
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter, once};

pub const STEPS: &[&str] = &["checkpoint", "restore", "rescale", "reopen-clean"];

const CHECKPOINTS: usize = 5;

/// Records, and checkpoints of them.
pub struct Checkpoints {
    store: Store,
    n: u32,
    changes: usize,
    versions: Vec<u32>,
}

impl Checkpoints {
    pub fn new(place: Place) -> Checkpoints {
        let n = place.size(200_000, 1_000_000);
        Checkpoints {
            store: Store::new(&place, 128 << 20),
            n,
            changes: place.size(20_000, 100_000) as usize,
            versions: vec![0; n as usize],
        }
    }

    /// Some changes and a checkpoint, several times. `blocking` is the median in ms until the caller
    /// goes on; `ms` the median until all files are there; `increment` the median of new MB.
    fn checkpoint(&mut self) -> Option<Measure> {
        self.store.fresh();
        let engine = self.store.engine();
        for i in Random::new(15).permutation(self.n) {
            engine.put(&key(i), &record(i, 0));
        }
        engine.settle();
        let mut random = Random::new(16);
        let (mut blocking, mut whole, mut new) = (Vec::new(), Vec::new(), Vec::new());
        let mut full = 0.0;
        let meter = Meter::begin();
        for round in 0..=CHECKPOINTS {
            for i in random.uniform(self.n, self.changes) {
                self.versions[i as usize] += 1;
                engine.put(&key(i), &record(i, self.versions[i as usize]));
            }
            let into = self.store.root.join(format!("checkpoint-{round}"));
            let (took, finish) = once(|| engine.checkpoint(&into));
            let (rest, made) = once(finish?);
            full = made.bytes as f64 / 1e6;
            if round > 0 {
                blocking.push(took.as_secs_f64() * 1e3);
                whole.push((took + rest).as_secs_f64() * 1e3);
                new.push(made.bytes_new as f64 / 1e6);
            }
        }
        let mut measured = meter.end();
        measured.0.retain(|(name, _)| name == "memory" || name == "others");
        let measured = measured.with("blocking", median(blocking)).with("ms", median(whole));
        Some(measured.with("increment", median(new)).with("full", full))
    }

    /// A store out of the last checkpoint; `ms` until the first read.
    fn restore(&self, parts: u16) -> Option<Measure> {
        let from = self.store.root.join(format!("checkpoint-{CHECKPOINTS}"));
        let to = self.store.root.join(format!("restored-{parts}"));
        let last = KEY_GROUPS / parts - 1;
        let meter = Meter::begin();
        let (took, engine) = once(|| {
            let engine = self.store.kind.restore(&from, 0..=last, &to, &self.store.setup)?;
            engine.get(&key(0), &mut |_| {});
            Some(engine)
        });
        let engine = engine?;
        let mut measured = meter.end();
        self.check(&*engine, last);
        drop(engine);
        std::fs::remove_dir_all(&to).expect("the directory is there");
        measured.0.retain(|(name, _)| name == "memory" || name == "others");
        Some(measured.with("ms", took.as_secs_f64() * 1e3))
    }

    fn check(&self, engine: &dyn Engine, last: u16) {
        for (i, wanted) in (0..).zip(&self.versions) {
            let key = key(i);
            let is_ours = u16::from_be_bytes([key[0], key[1]]) <= last;
            engine.get(&key, &mut |value| match is_ours {
                true => assert_eq!(version(value, i), *wanted),
                false => assert!(value.is_none(), "a key of another instance"),
            });
        }
    }

    fn reopen(&mut self) -> Measure {
        self.store.close();
        let meter = Meter::begin();
        let (took, ()) = once(|| {
            self.store.open();
            self.store.engine().get(&key(0), &mut |value| assert!(value.is_some()));
        });
        let mut measured = meter.end();
        self.store.verify(&self.versions);
        measured.0.retain(|(name, _)| name == "memory" || name == "others");
        measured.with("ms", took.as_secs_f64() * 1e3)
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

impl Group for Checkpoints {
    fn step(&mut self, name: &str) -> Option<Measure> {
        if !self.store.kind.reopens() {
            return None;
        }
        match name {
            "checkpoint" => self.checkpoint(),
            "restore" => self.restore(1),
            "rescale" => self.restore(2),
            "reopen-clean" => Some(self.reopen()),
            _ => unreachable!("{name}"),
        }
    }
}
