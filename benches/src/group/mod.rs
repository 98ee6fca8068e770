//! What is timed: groups of workloads that share a store. In each group the steps follow one another,
//! each on what those before have left. Every value that is read is checked to be the key's, and the
//! versions that a loop read are compared with those that it should have read.

mod checkpoint;
mod fill;
mod list;
mod log;
mod map;
mod rmw;
pub mod scale;
mod value;
mod window;
mod ycsb;

use std::fs;
use std::path::{Path, PathBuf};

use crate::data;
use crate::engine::{Engine, Kind, Log, Setup};
use crate::meter::{Measure, bytes_on_disk};

pub use log::write_and_wait;

/// A group in the making, on one engine.
pub trait Group {
    /// Does a step. `None` if the engine cannot, or if nothing is timed.
    fn step(&mut self, name: &str) -> Option<Measure>;
}

/// Name, steps, and what makes a group.
pub struct GroupKind {
    /// Name on the command line.
    pub name: &'static str,
    /// The steps in order.
    pub steps: &'static [&'static str],
    /// What it is about.
    pub about: &'static str,
    begin: fn(Place) -> Box<dyn Group>,
}

impl GroupKind {
    /// The group of this name.
    pub fn named(name: &str) -> Option<&'static GroupKind> {
        GROUPS.iter().chain(SCALE).find(|group| group.name == name)
    }

    /// Begins the group in a directory.
    pub fn begin(&self, kind: Kind, dir: &Path, full: bool) -> Box<dyn Group> {
        (self.begin)(Place { kind, dir: dir.to_owned(), full })
    }
}

/// The groups of a quick and of a full run.
pub const GROUPS: &[GroupKind] = &[
    GroupKind {
        name: "value",
        steps: value::STEPS,
        about: "keyed values of 8 bytes, in one memtable, then in tables; then with a time to live",
        begin: |place| Box::new(value::Values::new(place)),
    },
    GroupKind {
        name: "map",
        steps: map::STEPS,
        about: "maps of 10 entries",
        begin: |place| Box::new(map::Maps::new(place)),
    },
    GroupKind {
        name: "list",
        steps: list::STEPS,
        about: "lists of 100 elements, appended to in turns",
        begin: |place| Box::new(list::Lists::new(place)),
    },
    GroupKind {
        name: "rmw",
        steps: rmw::STEPS,
        about: "read-modify-write beyond memory, zipfian, with and without checkpoints",
        begin: |place| Box::new(rmw::Counters::new(place)),
    },
    GroupKind {
        name: "fill",
        steps: fill::STEPS,
        about: "loading and overwriting records of 100 bytes, until all is settled",
        begin: |place| Box::new(fill::Fill::new(place)),
    },
    GroupKind {
        name: "ycsb",
        steps: ycsb::STEPS,
        about: "records of 100 bytes, several times the memory",
        begin: |place| Box::new(ycsb::Ycsb::new(place)),
    },
    GroupKind {
        name: "window",
        steps: window::STEPS,
        about: "windows that fill, fire and vanish; timers",
        begin: |place| Box::new(window::Windows::new(place)),
    },
    GroupKind {
        name: "log",
        steps: log::STEPS,
        about: "writes to the log, and what a killed process leaves",
        begin: |place| Box::new(log::Logged::new(place)),
    },
    GroupKind {
        name: "checkpoint",
        steps: checkpoint::STEPS,
        about: "checkpoints, restore, rescale, reopening",
        begin: |place| Box::new(checkpoint::Checkpoints::new(place)),
    },
];

/// The groups of `run --scale`: one a size.
pub const SCALE: &[GroupKind] = &[
    GroupKind {
        name: "scale-1m",
        steps: scale::STEPS[0],
        about: "2^20 records of 100 bytes",
        begin: |place| Box::new(scale::Scale::new(place, 1 << 20)),
    },
    GroupKind {
        name: "scale-16m",
        steps: scale::STEPS[1],
        about: "2^24 records",
        begin: |place| Box::new(scale::Scale::new(place, 1 << 24)),
    },
    GroupKind {
        name: "scale-64m",
        steps: scale::STEPS[2],
        about: "2^26 records",
        begin: |place| Box::new(scale::Scale::new(place, 1 << 26)),
    },
];

/// Where a group runs, and with whom.
pub struct Place {
    kind: Kind,
    dir: PathBuf,
    full: bool,
}

impl Place {
    /// The first number in a quick run, the second in a full one.
    fn size(&self, quick: u32, full: u32) -> u32 {
        if self.full { full } else { quick }
    }
}

/// The store of a group: opened, reopened, thrown away.
struct Store {
    kind: Kind,
    root: PathBuf,
    count: u32,
    setup: Setup,
    engine: Option<Box<dyn Engine>>,
}

impl Store {
    fn new(place: &Place, memory: usize) -> Store {
        let setup = Setup { memory, log: Log::Off, lists: false, ttl: false };
        Store { kind: place.kind, root: place.dir.clone(), count: 0, setup, engine: None }
    }

    fn engine(&self) -> &dyn Engine {
        self.engine.as_deref().expect("the store is open")
    }

    /// Where the store is.
    fn dir(&self) -> PathBuf {
        self.root.join(format!("store-{}", self.count))
    }

    /// Lets the next store drop what has expired.
    fn with_ttl(&mut self) {
        self.setup.ttl = true;
    }

    /// A new, empty store instead of the one before.
    fn fresh(&mut self) {
        self.remove();
        self.count += 1;
        self.open();
    }

    /// Lets go of the store and removes it.
    fn remove(&mut self) {
        self.engine = None;
        let _ = fs::remove_dir_all(self.dir());
    }

    fn open(&mut self) {
        fs::create_dir_all(&self.root).expect("a directory");
        self.engine = Some(self.kind.open(&self.dir(), &self.setup));
    }

    fn close(&mut self) {
        self.engine.take().expect("the store is open").close();
    }

    /// Adds write amplification and space after so many records were put.
    fn amplified(&self, took: Measure, records: usize) -> Measure {
        let bytes = (records * (data::KEY_BYTES + data::RECORD_BYTES)) as f64;
        let written = took.get("written").expect("bytes") * 1e6;
        let space = bytes_on_disk(&self.dir()) as f64;
        took.with("wa", written / bytes).with("space", space / bytes)
    }

    /// Reads `key(i)` for all numbers below `n`, or an eighth of them if there are very many, and
    /// compares the versions. Not timed.
    fn verify(&self, versions: &[u32]) {
        let step = if versions.len() > 250_000 { 8 } else { 1 };
        for (i, wanted) in (0..).zip(versions).step_by(step) {
            self.engine().get(&data::key(i), &mut |value| {
                assert_eq!(data::version(value, i), *wanted, "{}: key {i}", self.kind);
            });
        }
    }
}

/// The sum that a loop over these keys must read.
fn sum_of(versions: &[u32], keys: &[u32]) -> u64 {
    keys.iter().map(|&i| u64::from(versions[i as usize])).sum()
}
