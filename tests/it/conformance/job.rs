//! A job under test: backends on one file system in memory, and a store for their checkpoints.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use alluvium::{
    BackendOptions, Builtin, DirStore, Env, Error, ErrorKind, JavaHash, JobCheckpoint,
    KeyGroupRange, MemFs, MemoryBudget, Options, PartInput, Saved, Serializer, StateBackend,
    restore_checkpoint, save_checkpoint,
};

/// How the log of the databases is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Off,
    Buffered,
    Synced,
}

pub const LOGS: [Log; 3] = [Log::Off, Log::Buffered, Log::Synced];

impl Log {
    /// The log of this run of a test: the one that `ALLUVIUM_LOG` names, `off`, `buffered` or `synced`;
    /// else one that the name of the test decides, so that an ordinary run has some of each.
    pub fn of_this_run() -> Log {
        match std::env::var("ALLUVIUM_LOG").as_deref() {
            Ok("off") => Log::Off,
            Ok("buffered") => Log::Buffered,
            Ok("synced") => Log::Synced,
            Ok(other) => panic!("no kind of log: {other}"),
            Err(_) => {
                let thread = std::thread::current(); // libtest calls it by the test's name
                let bytes = thread.name().unwrap_or_default().bytes();
                LOGS[bytes.fold(7, |sum, byte| sum * 31 % 8191 + usize::from(byte)) % LOGS.len()]
            }
        }
    }

    pub fn options(self) -> Options {
        Options { log: self != Log::Off, sync: self == Log::Synced, ..Options::default() }
    }
}

/// Runs a test with the log of this run.
pub fn with_log(test: impl Fn(&Job)) {
    test(&Job::new(Log::of_this_run()));
}

/// Options of a backend with the log of this run.
pub fn backend_options(max_parallelism: u32, key_groups: KeyGroupRange) -> BackendOptions {
    let mut options = BackendOptions::new(max_parallelism, key_groups);
    options.db = Log::of_this_run().options();
    options
}

pub struct Job {
    log: Log,
    pub env: Env,
    pub store: DirStore,
    dirs: Cell<usize>,
    checkpoints: Cell<u64>,
}

impl Job {
    pub fn new(log: Log) -> Job {
        let fs = Arc::new(MemFs::new());
        let env = Env::simulated(fs.clone(), MemoryBudget::new(64 << 20), 3);
        let store = DirStore::open(fs, "store").unwrap();
        Job { log, env, store, dirs: Cell::new(0), checkpoints: Cell::new(0) }
    }

    pub fn dir(&self) -> PathBuf {
        self.dirs.set(self.dirs.get() + 1);
        PathBuf::from(format!("backend-{}", self.dirs.get()))
    }

    pub fn options(&self, max_parallelism: u32, groups: (u16, u16)) -> BackendOptions {
        let groups = KeyGroupRange::new(groups.0, groups.1).unwrap();
        let mut options = BackendOptions::new(max_parallelism, groups);
        options.db = self.log.options();
        options.family.memtable_bytes_max = 64 << 10;
        options
    }

    /// Flink's standard backend: ten key groups, all of them here.
    pub fn backend<K: Builtin + JavaHash>(&self) -> StateBackend<K> {
        self.backend_of(10, (0, 9))
    }

    pub fn backend_of<K: Builtin + JavaHash>(
        &self,
        max_parallelism: u32,
        groups: (u16, u16),
    ) -> StateBackend<K> {
        let options = self.options(max_parallelism, groups);
        StateBackend::open(&self.dir(), options, self.env.clone()).unwrap()
    }

    pub fn backend_with<K: JavaHash + 'static>(
        &self,
        keys: impl Serializer<Value = K>,
    ) -> StateBackend<K> {
        let options = self.options(10, (0, 9));
        StateBackend::open_with(&self.dir(), options, self.env.clone(), keys).unwrap()
    }

    /// A checkpoint of these instances, without a base.
    pub fn snapshot<K: 'static>(&self, instances: &[&StateBackend<K>]) -> Saved {
        self.snapshot_on(instances, None)
    }

    pub fn snapshot_on<K: 'static>(
        &self,
        instances: &[&StateBackend<K>],
        base: Option<&Saved>,
    ) -> Saved {
        let pending: Vec<_> = instances.iter().map(|i| i.checkpoint().unwrap()).collect();
        let sets: Vec<_> = pending.into_iter().map(|p| p.wait().unwrap()).collect();
        let part = |(instance, set)| {
            let groups = StateBackend::key_groups(instance);
            PartInput { first_group: groups.start(), last_group: groups.end(), set }
        };
        self.checkpoints.set(self.checkpoints.get() + 1);
        let job = JobCheckpoint {
            id: self.checkpoints.get(),
            max_parallelism: instances[0].max_parallelism(),
            parts: instances.iter().copied().zip(&sets).map(part).collect(),
            operator_state: Vec::new(),
            user: Vec::new(),
        };
        save_checkpoint(&self.store, &job, base).unwrap()
    }

    fn database(&self, saved: &Saved, options: &BackendOptions) -> alluvium::Db {
        let groups = options.key_groups.start()..=options.key_groups.end();
        let (dir, db) = (self.dir(), options.db.clone());
        restore_checkpoint(&self.store, saved, groups, &dir, db, self.env.clone()).unwrap()
    }

    /// The key groups of a checkpoint as an instance of their own.
    pub fn restore_of<K: Builtin + JavaHash>(
        &self,
        saved: &Saved,
        groups: (u16, u16),
    ) -> Result<StateBackend<K>, Error> {
        self.restore_as(saved, self.options(saved.envelope.max_parallelism, groups))
    }

    /// The same with other options.
    pub fn restore_as<K: Builtin + JavaHash>(
        &self,
        saved: &Saved,
        options: BackendOptions,
    ) -> Result<StateBackend<K>, Error> {
        StateBackend::from_db(self.database(saved, &options), options)
    }

    pub fn restore<K: Builtin + JavaHash>(&self, saved: &Saved) -> StateBackend<K> {
        self.restore_of(saved, (0, saved.envelope.max_parallelism as u16 - 1)).unwrap()
    }

    pub fn restore_with<K: JavaHash + 'static>(
        &self,
        saved: &Saved,
        keys: impl Serializer<Value = K>,
    ) -> Result<StateBackend<K>, Error> {
        let groups = (0, saved.envelope.max_parallelism as u16 - 1);
        let options = self.options(saved.envelope.max_parallelism, groups);
        StateBackend::from_db_with(self.database(saved, &options), options, keys)
    }

    /// Flink's round trip: a checkpoint, the end of the backend, a restore.
    pub fn round_trip<K: Builtin + JavaHash>(&self, backend: StateBackend<K>) -> StateBackend<K> {
        let saved = self.snapshot(&[&backend]);
        drop(backend);
        self.restore(&saved)
    }
}

/// Goes to a key.
pub fn go<K: JavaHash + 'static>(backend: &mut StateBackend<K>, key: impl Into<K>) {
    backend.set_current_key(&key.into()).unwrap();
}

/// Flink's `numKeyValueStateEntries`: all entries of all states.
pub fn entries<K: 'static>(backend: &StateBackend<K>) -> usize {
    let snapshot = backend.snapshot();
    let mut entries = 0;
    for (name, _) in backend.states() {
        let mut scan = snapshot.scan(name).unwrap().expect("a state that is listed");
        while scan.next().unwrap() {
            entries += 1;
        }
    }
    entries
}

pub fn all<T>(items: impl Iterator<Item = Result<T, Error>>) -> Vec<T> {
    items.collect::<Result<_, _>>().unwrap()
}

pub fn sorted<T: Ord>(items: impl Iterator<Item = Result<T, Error>>) -> Vec<T> {
    let mut items = all(items);
    items.sort();
    items
}

pub fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.err().expect("an error").kind()
}

pub fn strings<const N: usize>(strings: [&str; N]) -> Vec<String> {
    strings.map(str::to_owned).to_vec()
}
