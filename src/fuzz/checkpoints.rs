//! The life of checkpoints, with a store whose answers get lost and whose lists are old, and with
//! messages that come twice, late or never.
//!
//! After every step each envelope in the store names only what is there; at the end the store holds
//! what its envelopes name and nothing else, and each restores to what was there when it was saved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::base::bytes::Bytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Arc, Mutex};
use crate::cache::budget::MemoryBudget;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::{load, restore, verify};
use crate::checkpoint::save::{JobCheckpoint, PartInput, Saved};
use crate::checkpoint::store::{CheckpointStore, DirStore, ObjectName, Stored};
use crate::db::Db;
use crate::db::column_family::ColumnFamily;
use crate::db::options::{ColumnFamilyOptions, Env, Options};
use crate::fs::memory::MemFs;
use crate::fs::{Fs, ReadableFile};

const GROUPS: u16 = 4;
const RETAINED: usize = 2;
const OPS_MAX: usize = 120;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is not done.
    Before,
    /// It is done, and the answer is lost.
    Lost,
    /// It is done, the answer is lost, and it is sent again.
    Repeated,
}

struct Flaky {
    inner: DirStore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What happens to the request after so many more.
    fate: Option<(u8, Fate)>,
    /// Lists do not show envelopes from this one on; and it is not said that they show all.
    stale: Option<u64>,
}

impl Flaky {
    fn fate(&self) -> Option<Fate> {
        let mut state = self.state.lock();
        match &mut state.fate {
            Some((0, fate)) => {
                let fate = *fate;
                state.fate = None;
                Some(fate)
            }
            Some((turns, _)) => {
                *turns -= 1;
                None
            }
            None => None,
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Io, "connection reset")
}

impl CheckpointStore for Flaky {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        match self.fate() {
            None => self.inner.put_new(name, source),
            Some(Fate::Before) => Err(lost()),
            Some(Fate::Lost) => self.inner.put_new(name, source).and_then(|()| Err(lost())),
            Some(Fate::Repeated) => {
                self.inner.put_new(name, source)?;
                self.inner.put_new(name, &mut std::iter::empty())
            }
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        match self.fate() {
            Some(Fate::Before | Fate::Lost) => Err(lost()),
            _ => self.inner.get(name),
        }
    }

    fn list(&self) -> Result<Vec<Stored>> {
        if self.fate().is_some() {
            return Err(lost());
        }
        let mut all = self.inner.list()?;
        if let Some(from) = self.state.lock().stale {
            all.retain(|stored| !matches!(stored.name, ObjectName::Checkpoint(id) if id >= from));
        }
        Ok(all)
    }

    fn list_is_complete(&self) -> bool {
        self.state.lock().stale.is_none()
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        match self.fate() {
            None => self.inner.delete(name),
            Some(Fate::Before) => Err(lost()),
            Some(Fate::Lost) => self.inner.delete(name).and_then(|()| Err(lost())),
            Some(Fate::Repeated) => self.inner.delete(name).and_then(|()| self.inner.delete(name)),
        }
    }
}

struct Life {
    fs: Arc<dyn Fs>,
    store: Arc<Flaky>,
    db: Db,
    family: ColumnFamily,
    model: Model,
    registry: Option<Registry>,
    /// What each checkpoint holds that was ever tried.
    attempted: BTreeMap<u64, Model>,
    /// Saved, and neither confirmed nor aborted.
    saved: BTreeMap<u64, Saved>,
    /// Perhaps saved.
    unknown: BTreeSet<u64>,
    confirmed: Vec<Saved>,
    restored: u64,
}

/// Any bytes are a program: three for each step.
///
/// # Panics
/// If a checkpoint is lost, or is another than was saved, or something is left over.
pub(super) fn run(bytes: &[u8]) {
    let mut life = Life::new();
    for op in bytes.as_chunks().0.iter().take(OPS_MAX) {
        life.apply(*op);
        life.check();
    }
    life.end();
}

impl Life {
    fn new() -> Life {
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let inner = DirStore::open(Arc::clone(&fs), "store").expect("a good disk");
        let env = Env::simulated(Arc::clone(&fs), MemoryBudget::new(8 << 20), 1);
        let options = Options { log: false, ..Options::default() };
        let db = Db::open("db".as_ref(), options, env).expect("a good disk");
        let options = ColumnFamilyOptions {
            memtable_bytes_max: 4 << 10,
            block_bytes: 128,
            l0_depth_trigger: 2,
            key_group_bytes: 2,
            ..ColumnFamilyOptions::default()
        };
        let family = db.column_family("family", options).expect("a good disk");
        let mut life = Life {
            store: Arc::new(Flaky { inner, state: Mutex::default() }),
            fs,
            db,
            family,
            model: Model::new(),
            registry: None,
            attempted: BTreeMap::new(),
            saved: BTreeMap::new(),
            unknown: BTreeSet::new(),
            confirmed: Vec::new(),
            restored: 0,
        };
        life.open_registry();
        life
    }

    fn open_registry(&mut self) {
        self.registry = None;
        if let Ok(registry) = Registry::open(Arc::<Flaky>::clone(&self.store), RETAINED) {
            // A new coordinator knows of nothing that was under way.
            self.saved.clear();
            self.unknown.clear();
            self.registry = Some(registry);
        }
    }

    fn apply(&mut self, [what, a, b]: [u8; 3]) {
        match what % 16 {
            0..=3 => {
                let key = vec![0, a % GROUPS as u8, a / 16];
                match b % 5 {
                    0 => {
                        self.db.delete(&self.family, &key).expect("a good disk");
                        self.model.remove(&key);
                    }
                    _ => {
                        let value = vec![b; usize::from(b) * 8];
                        self.db.put(&self.family, &key, &value).expect("a good disk");
                        self.model.insert(key, value);
                    }
                }
            }
            4 => self.db.flush_all().expect("a good disk"),
            5 => drop(self.db.step(a.into()).expect("a good disk")),
            6..=8 => self.save(),
            9 | 10 => self.confirm(a, b),
            11 => self.abort(a),
            12 => {
                let fate = [Fate::Before, Fate::Lost, Fate::Repeated][usize::from(a) % 3];
                self.store.state.lock().fate = Some((b % 12, fate));
            }
            13 => {
                let newest = self.attempted.len() as u64;
                let stale = newest.saturating_sub(u64::from(b % 4));
                self.store.state.lock().stale = (a % 2 == 0).then_some(stale);
            }
            14 => self.open_registry(),
            _ => {
                if let Some(registry) = &self.registry {
                    let _ = registry.sweep();
                }
            }
        }
    }

    fn save(&mut self) {
        let Some(registry) = &self.registry else { return };
        let set = self.db.checkpoint().and_then(|pending| pending.wait()).expect("a good disk");
        let id = self.attempted.len() as u64 + 1;
        self.attempted.insert(id, self.model.clone());
        let part = PartInput { first_group: 0, last_group: GROUPS - 1, set: &set };
        let job = JobCheckpoint {
            id,
            max_parallelism: GROUPS.into(),
            parts: vec![part],
            operator_state: Vec::new(),
            user: id.to_le_bytes().to_vec(),
        };
        match registry.save(&job) {
            Ok(saved) => drop(self.saved.insert(id, saved)),
            Err(e) if e.kind() == ErrorKind::CommitUnknown => drop(self.unknown.insert(id)),
            Err(_) => {}
        }
    }

    /// Confirms what was saved, or once more what was confirmed long ago.
    fn confirm(&mut self, which: u8, again: u8) {
        let Some(registry) = &self.registry else { return };
        if let (Some(old), true) = (self.confirmed.first(), again.is_multiple_of(4)) {
            let _ = registry.confirm(old);
            return;
        }
        let at = usize::from(which) % self.saved.len().max(1);
        let Some(&id) = self.saved.keys().nth(at) else { return };
        let saved = self.saved.remove(&id).expect("just seen");
        let newest = self.confirmed.last().map_or(0, |saved| saved.id);
        match registry.confirm(&saved) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::InvalidArgument => panic!("{e}"),
            Err(_) => {} // of deleting: it is confirmed
        }
        if id > newest {
            self.confirmed.push(saved);
        }
    }

    fn abort(&mut self, which: u8) {
        let Some(registry) = &self.registry else { return };
        let ids: Vec<u64> = self.saved.keys().chain(&self.unknown).copied().collect();
        let Some(&id) = ids.get(usize::from(which) % ids.len().max(1)) else { return };
        // Whoever has begun to give it up goes on with that.
        self.saved.remove(&id);
        match registry.abort(id) {
            Ok(()) => self.unknown.remove(&id),
            Err(_) => self.unknown.insert(id),
        };
    }

    fn ids(&self) -> Vec<u64> {
        let listed = self.store.inner.list().expect("a good disk");
        let id = |stored: Stored| match stored.name {
            ObjectName::Checkpoint(id) => Some(id),
            ObjectName::Shared(_) => None,
        };
        listed.into_iter().filter_map(id).collect()
    }

    /// Every checkpoint in the store is whole, and the newest that was confirmed is there, unless as
    /// many newer ones are as are kept.
    fn check(&self) {
        let ids = self.ids();
        for &id in &ids {
            let saved = load(&self.store.inner, id).expect("it is listed");
            verify(&self.store.inner, &saved).unwrap_or_else(|e| panic!("checkpoint {id}: {e}"));
        }
        let Some(newest) = self.confirmed.last() else { return };
        let newer = ids.iter().filter(|id| **id > newest.id).count();
        let there = ids.contains(&newest.id) || newer >= RETAINED;
        assert!(there, "checkpoint {} was confirmed, and is gone", newest.id);
    }

    fn end(mut self) {
        *self.store.state.lock() = State::default();
        self.open_registry();
        let registry = self.registry.as_ref().expect("nothing fails any more");
        registry.sweep().expect("nothing fails any more");
        let (ids, mut named) = (self.ids(), BTreeSet::new());
        assert_eq!(registry.retained(), ids);
        for &id in &ids {
            let saved = load(&self.store.inner, id).expect("it is listed");
            self.restored += 1;
            let dir = PathBuf::from(format!("restored-{}", self.restored));
            let env = Env::simulated(Arc::clone(&self.fs), MemoryBudget::new(8 << 20), id);
            let options = Options { log: false, ..Options::default() };
            let groups = 0..=GROUPS - 1;
            let db = restore(&self.store.inner, &saved, groups, &dir, options, env);
            let db = db.unwrap_or_else(|e| panic!("checkpoint {id}: {e}"));
            let family = db.column_family("family", ColumnFamilyOptions::default());
            let mut scan = family.and_then(|family| db.scan(&family, ..)).expect("it is whole");
            let mut found = Model::new();
            while scan.next().expect("it is whole") {
                found.insert(scan.key().to_vec(), scan.value().to_vec());
            }
            assert_eq!(found, self.attempted[&id], "checkpoint {id} is another");
            named.extend(saved.envelope.objects.into_iter().map(|object| object.name));
        }
        let objects = self.store.inner.list().expect("a good disk").len() - ids.len();
        assert_eq!(objects, named.len(), "objects that nothing names");
    }
}
