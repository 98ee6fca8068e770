//! Tests of Flink's uploader and downloader. One thread uploads here and one downloads; what is kept is
//! that their errors are told as they are, and that a failure leaves nothing behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use alluvium::{
    Bytes, CheckpointStore, DirStore, Error, ErrorKind, FileSet, JobCheckpoint, ObjectName,
    PartInput, ReadableFile, Registry, Result, Saved, StateBackend, Stored, load_checkpoint,
    restore_checkpoint, save_checkpoint,
};

use crate::conformance::job::{Job, go, kind, with_log};

const STATES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A store that fails after a number of puts or gets of tables.
struct Failing {
    store: DirStore,
    puts: AtomicUsize,
    gets: AtomicUsize,
}

impl Failing {
    fn new(job: &Job, puts: usize, gets: usize) -> Failing {
        let store = DirStore::open(Arc::clone(job.env.fs()), "failing").unwrap();
        Failing { store, puts: AtomicUsize::new(puts), gets: AtomicUsize::new(gets) }
    }

    fn shared(&self) -> usize {
        let listed = self.store.list().unwrap().into_iter();
        listed.filter(|stored| matches!(stored.name, ObjectName::Shared(_))).count()
    }
}

/// Takes one off, or fails.
fn take(left: &AtomicUsize, name: &ObjectName) -> Result<()> {
    let table = matches!(name, ObjectName::Shared(_));
    let less = |left: usize| left.checked_sub(usize::from(table));
    match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::new(ErrorKind::Busy, "expected")),
    }
}

impl CheckpointStore for Failing {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        take(&self.puts, name)?;
        self.store.put_new(name, source)
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        take(&self.gets, name)?;
        self.store.get(name)
    }

    fn list(&self) -> Result<Vec<Stored>> {
        self.store.list()
    }

    fn list_is_complete(&self) -> bool {
        self.store.list_is_complete()
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.store.delete(name)
    }
}

/// A backend with six states, each of which comes to a table of its own.
fn backend(job: &Job) -> StateBackend<i32> {
    let mut backend = job.backend::<i32>();
    for name in STATES {
        let mut state = backend.value_state::<String>(name).unwrap();
        for key in 0..20 {
            go(&mut backend, key);
            state.update(&format!("{name} of {key}")).unwrap();
        }
    }
    backend
}

fn check(mut backend: StateBackend<i32>) {
    for name in STATES {
        let mut state = backend.value_state::<String>(name).unwrap();
        for key in 0..20 {
            go(&mut backend, key);
            assert_eq!(state.value().unwrap(), Some(format!("{name} of {key}")));
        }
    }
}

fn capture(backend: &StateBackend<i32>) -> FileSet {
    let set = backend.checkpoint().unwrap().wait().unwrap();
    assert!(set.tables().count() >= STATES.len());
    set
}

fn checkpoint(id: u64, set: &FileSet) -> JobCheckpoint<'_> {
    JobCheckpoint {
        id,
        max_parallelism: 10,
        parts: vec![PartInput { first_group: 0, last_group: 9, set }],
        operator_state: vec![],
        user: vec![],
    }
}

fn restore(store: &dyn CheckpointStore, saved: &Saved, job: &Job, dir: &Path) -> Result<()> {
    let (options, env) = (job.options(10, (0, 9)), job.env.clone());
    let db = restore_checkpoint(store, saved, 0..=9, dir, options.db.clone(), env)?;
    check(StateBackend::from_db(db, options)?);
    Ok(())
}

#[test]
fn test_multi_thread_upload_thread_pool_exception_rethrow() {
    with_log(|job| {
        let set = capture(&backend(job));
        for puts in [0, 2, 5] {
            let store = Failing::new(job, puts, 0);
            let failed = save_checkpoint(&store, &checkpoint(1, &set), None).unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Busy);
            assert!(failed.to_string().contains("expected"), "{failed}");
        }
    });
}

/// The last upload fails: what was uploaded before it goes, and so does what an earlier run has left.
#[test]
fn test_uploaded_sst_can_be_cleaned_up() {
    with_log(|job| {
        let set = capture(&backend(job));
        let tables = set.tables().count();
        let store = Failing::new(job, tables - 1, 0);
        assert!(save_checkpoint(&store, &checkpoint(1, &set), None).is_err());
        assert_eq!(store.shared(), 0, "deleted at once");
        // A process that died in the midst of it could not: the next one does.
        let whole = Failing::new(job, tables, tables);
        let saved = save_checkpoint(&whole, &checkpoint(1, &set), None).unwrap();
        whole.delete(&ObjectName::Checkpoint(saved.id)).unwrap();
        assert_eq!(whole.shared(), tables);
        let store: Arc<dyn CheckpointStore> = Arc::new(whole);
        Registry::open(Arc::clone(&store), 1).unwrap();
        assert!(store.list().unwrap().is_empty());
    });
}

#[test]
fn test_multi_thread_upload_correctly() {
    with_log(|job| {
        let set = capture(&backend(job));
        let store = Failing::new(job, usize::MAX, usize::MAX);
        let saved = save_checkpoint(&store, &checkpoint(1, &set), None).unwrap();
        assert_eq!(saved.files_new, set.tables().count());
        let read = |file: &dyn ReadableFile| file.read_at(0, file.len() as usize).unwrap();
        let tables: BTreeSet<Vec<u8>> = set
            .tables()
            .map(|table| read(&*job.env.fs().open(&table.path).unwrap()).to_vec())
            .collect();
        let objects = saved.envelope.objects.iter().map(|object| {
            read(&*store.get(&ObjectName::Shared(object.name.clone())).unwrap()).to_vec()
        });
        assert_eq!(objects.collect::<BTreeSet<_>>(), tables);
    });
}

#[test]
fn test_multi_thread_restore_thread_pool_exception_rethrow() {
    with_log(|job| {
        let set = capture(&backend(job));
        let store = Failing::new(job, usize::MAX, 0);
        let saved = save_checkpoint(&store, &checkpoint(1, &set), None).unwrap();
        for gets in [0, 2, 5] {
            store.gets.store(gets, Ordering::Relaxed);
            let failed = restore(&store, &saved, job, &job.dir()).unwrap_err();
            assert!(failed.to_string().contains("expected"), "{failed}");
        }
    });
}

/// Three parts with six tables or more each.
#[test]
fn test_multi_thread_restore_correctly() {
    with_log(|job| {
        let groups = [(0, 3), (4, 6), (7, 9)];
        let mut backends: Vec<_> = groups.map(|of| job.backend_of::<i32>(10, of)).into();
        for backend in &mut backends {
            for name in STATES {
                let mut state = backend.value_state::<String>(name).unwrap();
                for key in 0..20 {
                    if backend.set_current_key(&key).is_ok() {
                        state.update(&format!("{name} of {key}")).unwrap();
                    }
                }
            }
        }
        let saved = job.snapshot(&backends.iter().collect::<Vec<_>>());
        assert!(saved.envelope.objects.len() >= 3 * STATES.len());
        check(job.restore(&saved));
        let loaded = load_checkpoint(&job.store, saved.id).unwrap();
        restore(&job.store, &loaded, job, &job.dir()).unwrap();
    });
}

/// Nothing is left in the directory, others are not touched, and the same call succeeds when the store
/// is well again.
#[test]
fn test_multi_thread_cleanup_on_failure() {
    with_log(|job| {
        let set = capture(&backend(job));
        let store = Failing::new(job, usize::MAX, 5);
        let saved = save_checkpoint(&store, &checkpoint(1, &set), None).unwrap();
        let (other, dir) = (job.dir(), job.dir());
        restore(&job.store, &job.snapshot(&[&backend(job)]), job, &other).unwrap();
        let files = |dir: &Path| job.env.fs().list(dir).unwrap_or_default().len();
        let before = files(&other);
        assert_eq!(kind(restore(&store, &saved, job, &dir)), ErrorKind::Busy);
        assert_eq!((files(&dir), files(&other)), (0, before));
        store.gets.store(usize::MAX, Ordering::Relaxed);
        restore(&store, &saved, job, &dir).unwrap();
    });
}
