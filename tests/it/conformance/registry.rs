//! `SharedStateRegistryTest`: objects of a store live by reference. Placeholders, savepoints, changelogs
//! and merged files have no counterpart; more is in the crate's tests of `Registry`.

use std::sync::Arc;

use alluvium::{
    CheckpointStore, DirStore, ErrorKind, JobCheckpoint, ObjectName, PartInput, Registry, Saved,
    StateBackend, load_checkpoint, verify_checkpoint,
};

use crate::conformance::job::{Job, go, kind, with_log};

/// A backend that is checkpointed through a registry that keeps one checkpoint.
struct Shared<'a> {
    job: &'a Job,
    store: Arc<dyn CheckpointStore>,
    registry: Registry,
    backend: StateBackend<i32>,
}

impl Shared<'_> {
    fn new(job: &Job) -> Shared<'_> {
        let store = DirStore::open(Arc::clone(job.env.fs()), "registry").unwrap();
        let store: Arc<dyn CheckpointStore> = Arc::new(store);
        let registry = Registry::open(Arc::clone(&store), 1).unwrap();
        Shared { job, store, registry, backend: job.backend() }
    }

    /// A new state of its own.
    fn write(&mut self, name: &str) {
        let mut state = self.backend.value_state::<String>(name).unwrap();
        go(&mut self.backend, 1);
        state.update(&name.to_owned()).unwrap();
    }

    fn save(&self, id: u64) -> Saved {
        let set = self.backend.checkpoint().unwrap().wait().unwrap();
        let job = JobCheckpoint {
            id,
            max_parallelism: 10,
            parts: vec![PartInput { first_group: 0, last_group: 9, set: &set }],
            operator_state: vec![],
            user: vec![],
        };
        self.registry.save(&job).unwrap()
    }

    fn objects(&self) -> usize {
        let listed = self.store.list().unwrap();
        listed.iter().filter(|stored| matches!(stored.name, ObjectName::Shared(_))).count()
    }

    fn checkpoints(&self) -> Vec<u64> {
        let listed = self.store.list().unwrap().into_iter();
        let mut ids: Vec<u64> = listed
            .filter_map(|stored| match stored.name {
                ObjectName::Checkpoint(id) => Some(id),
                _ => None,
            })
            .collect();
        ids.sort();
        ids
    }
}

/// What a checkpoint named is there as long as it is kept; then all of it goes that nobody else names.
#[test]
fn test_registry_normal() {
    with_log(|job| {
        let mut shared = Shared::new(job);
        shared.write("one");
        shared.write("two");
        let first = shared.save(1);
        shared.registry.confirm(&first).unwrap();
        assert_eq!(shared.objects(), first.envelope.objects.len());
        verify_checkpoint(&*shared.store, &first).unwrap();
        // Another job's state takes their place: nothing is shared.
        shared.backend = job.backend();
        shared.write("three");
        let second = shared.save(2);
        assert_eq!(second.files_reused, 0);
        shared.registry.confirm(&second).unwrap();
        assert_eq!((shared.objects(), shared.checkpoints()), (second.files_new, vec![2]));
        verify_checkpoint(&*shared.store, &second).unwrap();
    });
}

#[test]
fn test_unregister_with_unexisted_key() {
    with_log(|job| {
        let mut shared = Shared::new(job);
        shared.registry.abort(0).unwrap();
        shared.registry.abort(u64::MAX).unwrap();
        shared.write("one");
        let first = shared.save(1);
        shared.registry.confirm(&first).unwrap();
        shared.registry.abort(u64::MAX).unwrap();
        shared.registry.abort(1).unwrap();
        verify_checkpoint(&*shared.store, &first).unwrap();
    });
}

/// A checkpoint goes, and what a later one took over from it stays.
#[test]
fn test_unregister_non_initial_checkpoint() {
    with_log(|job| {
        let mut shared = Shared::new(job);
        shared.write("one");
        let first = shared.save(1);
        shared.registry.confirm(&first).unwrap();
        shared.write("two");
        let second = shared.save(2);
        assert!(second.files_reused > 0);
        shared.registry.confirm(&second).unwrap();
        assert_eq!((shared.checkpoints(), shared.registry.retained()), (vec![2], vec![2]));
        verify_checkpoint(&*shared.store, &second).unwrap();
        let again = kind(shared.registry.confirm(&Saved { id: 9, ..second.clone() }));
        assert_eq!(again, ErrorKind::InvalidArgument, "never announced");
    });
}

/// The same with a checkpoint of an earlier run, which a new registry found in the store.
#[test]
fn test_unregister_initial_checkpoint() {
    with_log(|job| {
        let mut shared = Shared::new(job);
        shared.write("one");
        let first = shared.save(1);
        shared.registry.confirm(&first).unwrap();
        shared.registry = Registry::open(Arc::clone(&shared.store), 1).unwrap();
        assert_eq!(shared.registry.retained(), [1]);
        shared.write("two");
        let second = shared.save(2);
        assert!(second.files_reused > 0, "it is a base like any other");
        shared.registry.abort(2).unwrap();
        verify_checkpoint(&*shared.store, &first).unwrap();
        let third = shared.save(3);
        shared.registry.confirm(&third).unwrap();
        assert_eq!(shared.checkpoints(), [3]);
        verify_checkpoint(&*shared.store, &third).unwrap();
    });
}

/// `RocksDBClaimSavepointThenCheckpointRestoreTest`: the first checkpoint after a restore shares the
/// files of what was restored; read again from the store, it names objects that are all there.
#[test]
fn test_first_checkpoint_survives_metadata_round_trip() {
    with_log(|job| {
        let mut shared = Shared::new(job);
        let mut state = shared.backend.value_state::<i32>("id").unwrap();
        for key in 0..1000 {
            go(&mut shared.backend, key);
            state.update(&key).unwrap();
        }
        let first = shared.save(1);
        shared.registry.confirm(&first).unwrap();
        let restore = |saved: &Saved| {
            let (options, env) = (job.options(10, (0, 9)), job.env.clone());
            let (dir, db) = (shared.job.dir(), options.db.clone());
            let db = alluvium::restore_checkpoint(&*shared.store, saved, 0..=9, &dir, db, env);
            StateBackend::<i32>::from_db(db.unwrap(), options).unwrap()
        };
        let restored = restore(&first);
        let (registry, store) = (Registry::open(shared.store.clone(), 1).unwrap(), &shared.store);
        let set = restored.checkpoint().unwrap().wait().unwrap();
        let part = PartInput { first_group: 0, last_group: 9, set: &set };
        let second = JobCheckpoint {
            id: 2,
            max_parallelism: 10,
            parts: vec![part],
            operator_state: vec![],
            user: vec![],
        };
        let second = registry.save(&second).unwrap();
        assert!(second.files_reused > 0);
        registry.confirm(&second).unwrap();
        let loaded = load_checkpoint(&**store, 2).unwrap();
        verify_checkpoint(&**store, &loaded).unwrap();
        let mut backend = restore(&loaded);
        let mut state = backend.value_state::<i32>("id").unwrap();
        for key in 0..1000 {
            go(&mut backend, key);
            assert_eq!(state.value().unwrap(), Some(key));
        }
    });
}
