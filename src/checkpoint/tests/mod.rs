//! Checkpoints of real databases, on a disk that crashes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::ColumnFamily;
use crate::ColumnFamilyOptions;
use crate::Db;
use crate::Env;
use crate::FileSet;
use crate::Fs;
use crate::Keep;
use crate::MemFs;
use crate::MemoryBudget;
use crate::MergeOperator;
use crate::Options;
use crate::base::error::Result;
use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::checkpoint::restore::restore;
use crate::checkpoint::restore::verify;
use crate::checkpoint::save::JobCheckpoint;
use crate::checkpoint::save::PartInput;
use crate::checkpoint::save::Saved;
use crate::checkpoint::store::CheckpointStore;
use crate::checkpoint::store::DirStore;
use crate::checkpoint::store::ObjectName;

mod crashes;
mod damage;
mod deleting;
mod rescaling;
mod saving;
mod stores;

const GROUPS: u16 = 64;
const FAMILIES: [&str; 3] = ["value", "list", "timer"];

/// What the families hold, key by key.
type Model = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

struct Append;

impl MergeOperator for Append {
    fn name(&self) -> &str {
        "append"
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(base.unwrap_or_default());
        operands.iter().for_each(|operand| out.extend_from_slice(operand));
        Ok(())
    }
}

fn options() -> Options {
    Options { log: false, ..Options::default() }
}

fn env(fs: &Arc<dyn Fs>, seed: u64) -> Env {
    Env::simulated(Arc::clone(fs), MemoryBudget::new(64 << 20), seed)
}

fn disk(fs: &MemFs) -> Arc<dyn Fs> {
    Arc::new(fs.clone())
}

fn store(fs: &Arc<dyn Fs>) -> DirStore {
    DirStore::open(Arc::clone(fs), "store").unwrap()
}

fn key(group: u16, n: u64) -> Vec<u8> {
    [&group.to_be_bytes()[..], &n.to_be_bytes()[6..]].concat()
}

/// A database with its families and what it should hold.
struct State {
    db: Db,
    families: Vec<ColumnFamily>,
    groups: RangeInclusive<u16>,
    model: Model,
}

impl State {
    fn new(fs: &Arc<dyn Fs>, dir: &str, groups: RangeInclusive<u16>, seed: u64) -> State {
        let db = Db::open(Path::new(dir), options(), env(fs, seed)).unwrap();
        State::with(db, groups, Model::new())
    }

    fn with(db: Db, groups: RangeInclusive<u16>, model: Model) -> State {
        let family = |name: &&str| {
            let options = ColumnFamilyOptions {
                memtable_bytes_max: 16 << 10,
                block_bytes: 256,
                file_bytes: 2 << 10,
                l0_depth_trigger: 3,
                level_bytes_base: 16 << 10,
                merge_operator: Some(Arc::new(Append)),
                ..ColumnFamilyOptions::default()
            };
            db.column_family(name, options).unwrap()
        };
        let families = FAMILIES.iter().map(family).collect();
        State { db, families, groups, model }
    }

    /// Writes a random mixture of everything, with steps of the background in between.
    fn churn(&mut self, rng: &mut Rng, writes: usize) {
        let width = u64::from(*self.groups.end() - *self.groups.start()) + 1;
        for _ in 0..writes {
            let f = rng.below(3) as usize;
            let family = &self.families[f];
            let group = self.groups.start() + rng.below(width) as u16;
            let k = key(group, rng.below(8));
            let value = rng.next_u64().to_le_bytes();
            match rng.below(20) {
                0..9 => {
                    self.db.put(family, &k, &value).unwrap();
                    self.model.insert((f, k), value.to_vec());
                }
                9..14 => {
                    self.db.merge(family, &k, &value[..3]).unwrap();
                    self.model.entry((f, k)).or_default().extend_from_slice(&value[..3]);
                }
                14..18 => {
                    self.db.delete(family, &k).unwrap();
                    self.model.remove(&(f, k));
                }
                18 => {
                    let end = key(group, rng.below(10));
                    self.db.delete_range(family, &k, &end).unwrap();
                    self.model.retain(|(g, key), _| *g != f || *key < k || *key >= end);
                }
                _ => drop(self.db.step(rng.next_u64()).unwrap()),
            }
        }
    }

    fn capture(&self) -> FileSet {
        self.db.checkpoint().unwrap().wait().unwrap()
    }

    fn part<'a>(&self, set: &'a FileSet) -> PartInput<'a> {
        PartInput { first_group: *self.groups.start(), last_group: *self.groups.end(), set }
    }

    #[track_caller]
    fn check(&self) {
        let mut seen = Model::new();
        for (f, family) in self.families.iter().enumerate() {
            let mut scan = self.db.scan(family, ..).unwrap();
            while scan.next().unwrap() {
                let (key, value) = (scan.key().to_vec(), scan.value().to_vec());
                let got = self.db.get(family, &key).unwrap();
                assert_eq!(got.as_deref(), Some(&value[..]), "get differs from scan");
                seen.insert((f, key), value);
            }
        }
        assert!(seen == self.model, "{} keys instead of {}", seen.len(), self.model.len());
        self.db.verify().unwrap();
    }
}

fn job<'a>(id: u64, parts: Vec<PartInput<'a>>) -> JobCheckpoint<'a> {
    JobCheckpoint {
        id,
        max_parallelism: GROUPS.into(),
        parts,
        operator_state: vec![("buffer".into(), vec![7])],
        user: b"offset 3".to_vec(),
    }
}

/// The part of a model in these groups.
fn clip(model: &Model, groups: &RangeInclusive<u16>) -> Model {
    let inside = |key: &[u8]| groups.contains(&u16::from_be_bytes([key[0], key[1]]));
    model.iter().filter(|((_, key), _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Restores, compares with the model, and goes on working with it.
fn restored(
    fs: &Arc<dyn Fs>,
    saved: &Saved,
    groups: RangeInclusive<u16>,
    dir: &str,
    model: &Model,
) -> State {
    let seed = saved.id * 1000 + dir.bytes().map(u64::from).sum::<u64>();
    let store = store(fs);
    let db = restore(&store, saved, groups.clone(), Path::new(dir), options(), env(fs, seed));
    let state = State::with(db.unwrap(), groups.clone(), clip(model, &groups));
    state.check();
    let names = fs.list(Path::new(dir)).unwrap();
    assert!(names.iter().all(|listed| !listed.name.starts_with("restore-")), "{names:?}");
    state
}

fn objects(store: &dyn CheckpointStore) -> usize {
    let shared = |name: &ObjectName| matches!(name, ObjectName::Shared(_));
    store.list().unwrap().iter().filter(|stored| shared(&stored.name)).count()
}

const KEEPS: [Keep; 3] = [Keep::Nothing, Keep::All, Keep::Torn];
