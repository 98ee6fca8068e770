//! Compaction filters beside snapshots: what a filter removes may be gone for those who read now, and
//! never comes back, nor does what it had hidden; and no snapshot ever notices.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    ColumnFamily, CompactionFilter, CompactionFilterFactory, Db, Decision, EntryKind, KeyRange,
    MemFs, Options, Snapshot,
};
use alluvium_report::Rng;

use crate::case::{Case, FILTER};
use crate::crash::{Violation, caught};
use crate::model::{Check, Map, ensure};
use crate::ops::{family_options, key};
use crate::world::{DIR, env};

const OPS: u64 = 300;
const SNAPSHOTS_MAX: usize = 3;
/// Values that begin with this have expired.
const EXPIRED: u8 = b'x';

/// Removes what has expired.
struct Expired;

impl CompactionFilterFactory for Expired {
    fn name(&self) -> &str {
        "sim.expired"
    }

    fn create(&self) -> Box<dyn CompactionFilter> {
        Box::new(Expired)
    }
}

impl CompactionFilter for Expired {
    fn decide(&mut self, _: &[u8], _: EntryKind, value: &[u8], _: &mut Vec<u8>) -> Decision {
        match value.first() {
            Some(&EXPIRED) => Decision::Remove,
            _ => Decision::Keep,
        }
    }
}

struct Life {
    db: Db,
    family: ColumnFamily,
    /// What was written last; what has expired may be gone.
    model: Map,
    snapshots: Vec<(Snapshot, Map)>,
    number: u64,
}

/// One life.
pub fn run(seed: u64) -> Result<(), Violation> {
    caught(|| live(seed)).map_err(|text| Violation::new(&Case::other(FILTER, seed), text))
}

fn live(seed: u64) -> Check {
    let failed = |e: alluvium::Error| e.to_string();
    let mut rng = Rng::of(seed, 11);
    let env = env(Arc::new(MemFs::new()), seed);
    let db = Db::open(Path::new(DIR), Options::default(), env).map_err(failed)?;
    let mut options = family_options(seed, "a");
    options.compaction_filter = Some(Arc::new(Expired));
    let family = db.column_family("a", options).map_err(failed)?;
    let mut life = Life { db, family, model: Map::new(), snapshots: Vec::new(), number: 0 };
    for _ in 0..OPS {
        life.act(&mut rng).map_err(failed)?;
        if rng.below(10) == 0 {
            life.check()?;
        }
    }
    life.check()?;
    life.snapshots.clear();
    // What is under way now has begun beside snapshots, and keeps what they saw.
    life.db.wait_idle().map_err(failed)?;
    life.db.compact_range(&life.family, ..).map_err(failed)?;
    let found = life.read(None)?;
    let left = found.iter().find(|(_, value)| value.first() == Some(&EXPIRED));
    ensure!(left.is_none(), "expired, compacted, and still there: {left:?}");
    life.check()
}

impl Life {
    fn act(&mut self, rng: &mut Rng) -> alluvium::Result<()> {
        let (db, family) = (&self.db, &self.family);
        match rng.below(20) {
            0..=8 => {
                let key = key(rng);
                self.number += 1;
                let first = rng.pick(&[EXPIRED, b'a', b'a']) as char;
                let value = format!("{first}{}{}", self.number, ".".repeat(rng.below(40) as usize));
                db.put(family, &key, value.as_bytes())?;
                self.model.insert(key, value.into_bytes());
            }
            9 | 10 => {
                let key = key(rng);
                db.delete(family, &key)?;
                self.model.remove(&key);
            }
            11 if self.snapshots.len() < SNAPSHOTS_MAX => {
                let snapshot = db.snapshot();
                let seen = self.read(Some(&snapshot)).map_err(alluvium::Error::corruption)?;
                self.snapshots.push((snapshot, seen));
            }
            12 if !self.snapshots.is_empty() => {
                let oldest = rng.below(self.snapshots.len() as u64);
                drop(self.snapshots.swap_remove(oldest as usize));
            }
            13 | 14 => db.flush(family)?,
            15 => {
                let (a, b) = (key(rng), key(rng));
                db.compact_range(family, a.clone().min(b.clone()).as_slice()..a.max(b).as_slice())?;
            }
            _ => drop(db.step(rng.next_u64())?),
        }
        Ok(())
    }

    fn read(&self, snapshot: Option<&Snapshot>) -> Check<Map> {
        let failed = |e: alluvium::Error| e.to_string();
        let mut scan =
            self.db.scan_range(&self.family, KeyRange::all(), snapshot).map_err(failed)?;
        let mut found = BTreeMap::new();
        while scan.next().map_err(failed)? {
            found.insert(scan.key().to_vec(), scan.value().to_vec());
        }
        Ok(found)
    }

    fn check(&mut self) -> Check {
        let found = self.read(None)?;
        let unknown = found.iter().find(|(key, value)| self.model.get(*key) != Some(value));
        ensure!(unknown.is_none(), "nobody can see {unknown:?} any more");
        let missing = |(key, value): &(&Vec<u8>, &Vec<u8>)| {
            value.first() != Some(&EXPIRED) && !found.contains_key(*key)
        };
        let lost = self.model.iter().find(missing);
        ensure!(lost.is_none(), "lost: {lost:?}");
        self.model = found; // what is gone stays gone
        for (snapshot, seen) in &self.snapshots {
            let now = self.read(Some(snapshot))?;
            ensure!(now == *seen, "a snapshot sees {now:?} instead of {seen:?}");
        }
        Ok(())
    }
}
