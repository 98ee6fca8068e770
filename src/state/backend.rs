//! The backend: one database, a current key, and states by name.

use std::fmt;
use std::path::Path;

use crate::ColumnFamily;
use crate::ColumnFamilyOptions;
use crate::Db;
use crate::Env;
use crate::Options;
use crate::PendingCheckpoint;
use crate::Scan;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::cell::Cell;
use crate::state::cell::Shared;
use crate::state::key_group::JavaHash;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::PREFIX_BYTES;
use crate::state::key_group::assign;
use crate::state::key_group::check_max_parallelism;
use crate::state::key_group::key_group_range;
use crate::state::keys::Keys;
use crate::state::keys::KeysAndNamespaces;
use crate::state::list::ListAppend;
use crate::state::list::ListState;
use crate::state::map::MapState;
use crate::state::meta::BackendRecord;
use crate::state::meta::META;
use crate::state::meta::Meta;
use crate::state::meta::StateKind;
use crate::state::meta::StateRecord;
use crate::state::meta::in_state;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;
use crate::state::serializer::builtin;
use crate::state::value::ValueState;

/// Memtable of the metadata: a few entries, written once.
const META_MEMTABLE_BYTES: usize = 256 << 10;

/// Names that begin like this are kept for timers, as in Flink.
const TIMERS: &str = "_timer_state/";

/// What a backend is for, and how its database is set up.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// Number of key groups of the job: the most instances it can ever have. Fixed for good.
    pub max_parallelism: u32,
    /// The groups whose keys this backend takes.
    pub key_groups: KeyGroupRange,
    /// Of the database. The log is off by default: what a crash loses, a checkpoint gives back.
    pub db: Options,
    /// Of every state's column family; the backend adds the merge operator.
    pub family: ColumnFamilyOptions,
}

impl BackendOptions {
    /// The defaults for these key groups.
    pub fn new(max_parallelism: u32, key_groups: KeyGroupRange) -> BackendOptions {
        let key_group_bytes = PREFIX_BYTES as u8;
        BackendOptions {
            max_parallelism,
            key_groups,
            db: Options { log: false, ..Options::default() },
            family: ColumnFamilyOptions { key_group_bytes, ..ColumnFamilyOptions::default() },
        }
    }

    /// The defaults for operator instance `index` of `parallelism`.
    ///
    /// # Errors
    /// `InvalidArgument` as [`key_group_range`](crate::key_group_range).
    pub fn for_instance(
        max_parallelism: u32,
        parallelism: u32,
        index: u32,
    ) -> Result<BackendOptions> {
        let key_groups = key_group_range(max_parallelism, parallelism, index)?;
        Ok(BackendOptions::new(max_parallelism, key_groups))
    }

    fn check(&self) -> Result<()> {
        check_max_parallelism(self.max_parallelism)?;
        if u32::from(self.key_groups.end()) >= self.max_parallelism {
            return Err(Error::invalid(format!(
                "key groups {} of only {}",
                self.key_groups, self.max_parallelism
            )));
        }
        Ok(())
    }

    fn family(&self, kind: StateKind) -> ColumnFamilyOptions {
        let mut options = self.family.clone();
        if kind == StateKind::List {
            options.merge_operator = Some(Arc::new(ListAppend));
        }
        options
    }
}

/// The keyed state of one operator instance: Flink's keyed state backend.
///
/// Records are processed one by one: set the current key, then read and write the states, each of
/// which shows its value for that key. State is divided into *key groups*; a backend takes the keys
/// of a range of them.
///
/// Each state is a column family of one [`Db`]; serializers turn keys, namespaces and values into
/// bytes. A *namespace* divides the state of a key further, for windows say; most states have only
/// the void namespace `()`. Handles are independent of each other: two handles of one state show the
/// same data, but each has its own current namespace (in Flink they share it).
///
/// A backend and its handles may be sent to another thread, together: the current key belongs to the
/// backend, so one task uses them. After the backend is closed or dropped, its handles return errors;
/// drop them too, since they keep memory and the directory.
///
/// ```
/// use alluvium::{BackendOptions, Env, KeyGroupRange, MemoryBudget, StateBackend};
/// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
/// # let env = Env::new(MemoryBudget::new(64 << 20)).with_fs(fs);
/// # let dir = std::path::Path::new("state");
/// let options = BackendOptions::new(128, KeyGroupRange::new(0, 127)?);
/// let mut backend = StateBackend::<String>::open(dir, options, env)?;
/// let mut delay = backend.value_state::<i32>("delay")?;
/// let mut legs = backend.list_state::<String>("legs")?;
/// let mut by_month = backend.map_state::<u8, u64>("by month")?;
///
/// backend.set_current_key(&"N328AA".into())?;
/// delay.update(&-4)?;
/// legs.add(&"JFK-LAX".into())?;
/// by_month.update_with(&1, |n| Some(n.unwrap_or(0) + 1))?;
///
/// backend.set_current_key(&"N532UA".into())?;
/// assert_eq!(delay.value()?, None);
/// # backend.set_current_key(&"N328AA".into())?;
/// # assert_eq!(legs.get()?, ["JFK-LAX"]);
/// # assert_eq!(by_month.iter()?.collect::<Result<Vec<_>, _>>()?, [(1, 1)]);
/// backend.close()?;
/// # Ok::<(), alluvium::Error>(())
/// ```
///
/// | Flink | alluvium |
/// |---|---|
/// | `setCurrentKey` | [`set_current_key`](StateBackend::set_current_key) |
/// | `getPartitionedState(descriptor)` | [`value_state`](StateBackend::value_state), [`list_state`](StateBackend::list_state), [`map_state`](StateBackend::map_state) |
/// | `getPartitionedState(namespace, …)` | the same `…_with_namespace`, and `set_current_namespace` of the handle |
/// | `getKeys`, `getKeysAndNamespaces` | [`get_keys`](StateBackend::get_keys), [`get_keys_and_namespaces`](StateBackend::get_keys_and_namespaces) |
/// | `snapshot` | [`checkpoint`](StateBackend::checkpoint) |
/// | restore | [`from_db`](StateBackend::from_db) |
/// | `dispose` | [`close`](StateBackend::close) |
pub struct StateBackend<K> {
    db: Arc<Db>,
    shared: Owner,
    meta: Meta,
    keys: Arc<dyn Serializer<Value = K>>,
    options: BackendOptions,
    current_group: Option<u16>,
}

/// Tells the handles when the backend goes.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<K: Builtin + JavaHash> StateBackend<K> {
    /// Opens the backend in `dir`, or creates it. A directory with the log off opens only after
    /// [`close`](StateBackend::close).
    ///
    /// # Errors
    /// Those of [`Db::open`] and of [`from_db`](StateBackend::from_db).
    pub fn open(dir: &Path, options: BackendOptions, env: Env) -> Result<StateBackend<K>> {
        StateBackend::open_with(dir, options, env, builtin::<K>())
    }

    /// The backend on a database that was restored, or is new: it must hold the state of the groups
    /// in `options.key_groups`, and no other. (`options.db` does not matter any more.)
    ///
    /// All states in it are there, and are part of the next checkpoint, whether they are asked for or
    /// not. Costs a few writes for what is new in it, and reads the metadata.
    ///
    /// # Errors
    /// `Incompatible`: it was written with another max parallelism, key serializer or range of key
    /// groups. `InvalidArgument`: key groups over the max parallelism. Those of the database.
    pub fn from_db(db: Db, options: BackendOptions) -> Result<StateBackend<K>> {
        StateBackend::from_db_with(db, options, builtin::<K>())
    }
}

impl<K: JavaHash + 'static> StateBackend<K> {
    /// [`open`](StateBackend::open), with a serializer of keys.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(
        dir: &Path,
        options: BackendOptions,
        env: Env,
        keys: impl Serializer<Value = K>,
    ) -> Result<StateBackend<K>> {
        options.check()?;
        let db = Db::open(dir, options.db.clone(), env)?;
        StateBackend::from_db_with(db, options, keys)
    }

    /// [`from_db`](StateBackend::from_db), with a serializer of keys. Equal keys must have equal
    /// bytes.
    ///
    /// # Errors
    /// The same.
    pub fn from_db_with(
        db: Db,
        options: BackendOptions,
        keys: impl Serializer<Value = K>,
    ) -> Result<StateBackend<K>> {
        options.check()?;
        let mut meta_family = options.family.clone();
        meta_family.memtable_bytes_max = META_MEMTABLE_BYTES;
        let meta_family = db.column_family(META, meta_family)?;
        let record =
            BackendRecord { max_parallelism: options.max_parallelism, key: keys.identity() };
        let meta = Meta::open(&db, meta_family, options.key_groups, &record)?;
        for (name, state) in meta.states() {
            // Gives compaction the merge operator, although nobody has asked for the state yet.
            db.column_family(name, options.family(state.kind))?;
        }
        let db = Arc::new(db);
        let shared = Owner(Arc::new(Shared::new(&db, keys.fixed_len())));
        Ok(StateBackend { db, shared, meta, keys: Arc::new(keys), options, current_group: None })
    }

    /// Makes `key` the current key of all states: Flink's `setCurrentKey`. Computes its key group;
    /// touches no data.
    ///
    /// # Errors
    /// `InvalidArgument` if the group of this key is not one of the backend's; the current key is
    /// then what it was. Most likely the records were not partitioned by this key.
    #[inline]
    pub fn set_current_key(&mut self, key: &K) -> Result<()> {
        let group = assign(key.java_hash(), self.options.max_parallelism);
        if !self.options.key_groups.contains(group) {
            return Err(self.foreign(group));
        }
        self.shared.0.set_key(group, |out| self.keys.encode(key, out));
        self.current_group = Some(group);
        Ok(())
    }
}

impl<K: 'static> StateBackend<K> {
    #[cold]
    fn foreign(&self, group: u16) -> Error {
        let range = self.options.key_groups;
        Error::invalid(format!("key group {group} is not in {range}: was the stream partitioned?"))
    }

    /// The key group of the current key: Flink's `getCurrentKeyGroupIndex`.
    pub fn current_key_group(&self) -> Option<u16> {
        self.current_group
    }

    /// The groups whose keys this backend takes: Flink's `getKeyGroupRange`.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.options.key_groups
    }

    /// Number of key groups of the job: Flink's `getNumberOfKeyGroups`.
    pub fn max_parallelism(&self) -> u32 {
        self.options.max_parallelism
    }

    /// The value state of this name, created if it does not exist: Flink's `getState`.
    ///
    /// The first time ever, this costs a manifest write and an entry a key group; else little. Ask
    /// once, and keep the handle.
    ///
    /// # Errors
    /// `Incompatible`: the name belongs to a state of another type, or with other serializers, now or
    /// in the checkpoint that was restored. `InvalidArgument`: a name that is empty, too long or
    /// reserved. Those of the database.
    pub fn value_state<V: Builtin>(&mut self, name: &str) -> Result<ValueState<V>> {
        self.value_state_with_namespace(name)
    }

    /// [`value_state`](StateBackend::value_state) with namespaces. Set one before the first use.
    ///
    /// # Errors
    /// The same.
    pub fn value_state_with_namespace<N: Builtin, V: Builtin>(
        &mut self,
        name: &str,
    ) -> Result<ValueState<V, N>> {
        self.value_state_with(name, builtin::<N>(), builtin::<V>())
    }

    /// [`value_state`](StateBackend::value_state) with these serializers.
    ///
    /// # Errors
    /// The same.
    pub fn value_state_with<N: 'static, V: 'static>(
        &mut self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
        values: impl Serializer<Value = V>,
    ) -> Result<ValueState<V, N>> {
        let record = StateRecord {
            kind: StateKind::Value,
            namespace: namespaces.identity(),
            user_key: String::new(),
            value: values.identity(),
        };
        let cell = self.register(name, record, Box::new(namespaces))?;
        Ok(ValueState::new(cell, Box::new(values)))
    }

    /// The list state of this name, created if it does not exist: Flink's `getListState`. See
    /// [`value_state`](StateBackend::value_state) for cost and errors.
    pub fn list_state<T: Builtin>(&mut self, name: &str) -> Result<ListState<T>> {
        self.list_state_with_namespace(name)
    }

    /// [`list_state`](StateBackend::list_state) with namespaces. Set one before the first use.
    pub fn list_state_with_namespace<N: Builtin, T: Builtin>(
        &mut self,
        name: &str,
    ) -> Result<ListState<T, N>> {
        self.list_state_with(name, builtin::<N>(), builtin::<T>())
    }

    /// [`list_state`](StateBackend::list_state) with these serializers.
    pub fn list_state_with<N: 'static, T: 'static>(
        &mut self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
        elements: impl Serializer<Value = T>,
    ) -> Result<ListState<T, N>> {
        let record = StateRecord {
            kind: StateKind::List,
            namespace: namespaces.identity(),
            user_key: String::new(),
            value: elements.identity(),
        };
        let cell = self.register(name, record, Box::new(namespaces))?;
        Ok(ListState::new(cell, Box::new(elements)))
    }

    /// The map state of this name, created if it does not exist: Flink's `getMapState`. See
    /// [`value_state`](StateBackend::value_state) for cost and errors.
    pub fn map_state<UK, UV>(&mut self, name: &str) -> Result<MapState<UK, UV>>
    where
        UK: Builtin,
        UV: Builtin,
    {
        self.map_state_with_namespace(name)
    }

    /// [`map_state`](StateBackend::map_state) with namespaces. Set one before the first use.
    pub fn map_state_with_namespace<N, UK, UV>(&mut self, name: &str) -> Result<MapState<UK, UV, N>>
    where
        N: Builtin,
        UK: Builtin,
        UV: Builtin,
    {
        self.map_state_with(name, builtin::<N>(), builtin::<UK>(), builtin::<UV>())
    }

    /// [`map_state`](StateBackend::map_state) with these serializers. That of user keys also decides
    /// the order in which the map is visited.
    pub fn map_state_with<N: 'static, UK: 'static, UV: 'static>(
        &mut self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
        user_keys: impl Serializer<Value = UK>,
        values: impl Serializer<Value = UV>,
    ) -> Result<MapState<UK, UV, N>> {
        let record = StateRecord {
            kind: StateKind::Map,
            namespace: namespaces.identity(),
            user_key: user_keys.identity(),
            value: values.identity(),
        };
        let cell = self.register(name, record, Box::new(namespaces))?;
        Ok(MapState::new(cell, Arc::new(user_keys), Arc::new(values)))
    }

    fn register<N: 'static>(
        &mut self,
        name: &str,
        record: StateRecord,
        namespaces: Box<dyn Serializer<Value = N>>,
    ) -> Result<Cell<N>> {
        if name.is_empty() || name == META || name.starts_with(TIMERS) {
            return Err(Error::invalid(format!("no name for a state: {name:?}")));
        }
        if let Some(known) = self.meta.state(name) {
            known.check(name, &record)?; // before the family changes
        }
        let family = self.db.column_family(name, self.options.family(record.kind))?;
        self.meta.register(&self.db, name, &record)?;
        Cell::new(Arc::clone(&self.shared.0), family, self.keys.fixed_len(), namespaces)
    }

    /// Name and type of every state, by name: also of those that came with a restored database and
    /// that nobody has asked for.
    pub fn states(&self) -> impl Iterator<Item = (&str, StateKind)> {
        self.meta.states().map(|(name, record)| (name, record.kind))
    }

    /// The keys that have state called `name` in `namespace`, each once, by key group: Flink's
    /// `getKeys`. None if there is no such state. The iterator borrows nothing: the current key may
    /// be changed in the loop.
    ///
    /// # Errors
    /// `Incompatible` if the state's namespaces are of another type. Those of the database.
    pub fn get_keys<N: Builtin>(&self, name: &str, namespace: &N) -> Result<Keys<K>> {
        let namespaces = builtin::<N>();
        let scan = self.scan(name, &namespaces)?;
        Ok(Keys::new(scan, Arc::clone(&self.keys), &namespaces, namespace))
    }

    /// The keys that have state called `name`, with each namespace in which they have it, by key
    /// group: Flink's `getKeysAndNamespaces`. None if there is no such state.
    ///
    /// # Errors
    /// `Incompatible` if the state's namespaces are of another type. Those of the database.
    pub fn get_keys_and_namespaces<N: Builtin>(
        &self,
        name: &str,
    ) -> Result<KeysAndNamespaces<K, N>> {
        let namespaces = builtin::<N>();
        let scan = self.scan(name, &namespaces)?;
        Ok(KeysAndNamespaces::new(scan, Arc::clone(&self.keys), Box::new(namespaces)))
    }

    fn scan<N: 'static>(
        &self,
        name: &str,
        namespaces: &impl Serializer<Value = N>,
    ) -> Result<Option<Scan>> {
        let Some(record) = self.meta.state(name) else { return Ok(None) };
        let wanted = StateRecord { namespace: namespaces.identity(), ..record.clone() };
        record.check(name, &wanted)?;
        let family = self.family(name, record.kind)?;
        let range = self.options.key_groups.key_range();
        let scan = self.db.scan_range(&family, range, None);
        scan.map(Some).map_err(|e| in_state(name, &e))
    }

    fn family(&self, name: &str, kind: StateKind) -> Result<ColumnFamily> {
        self.db.column_family(name, self.options.family(kind))
    }

    /// Begins a checkpoint of all states: fixes them as they are now and returns at once, whatever
    /// their size. This is the synchronous part of Flink's `snapshot`; complete it with
    /// [`PendingCheckpoint::wait`], on this thread or another, and save the files.
    ///
    /// # Errors
    /// `Halted` if the database has stopped.
    pub fn checkpoint(&self) -> Result<PendingCheckpoint> {
        self.db.checkpoint()
    }

    /// The database, for flushes, statistics and the like. What is written to the families of states
    /// here, the states show.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Closes the database in order, so that the directory can be opened again. Handles return errors
    /// from now on.
    ///
    /// # Errors
    /// `Busy` if another thread is using a handle at this moment; the directory is then as after a
    /// crash. Those of [`Db::close`].
    pub fn close(self) -> Result<()> {
        self.close_at(0)
    }

    /// [`close`](StateBackend::close), recording the id of the checkpoint that the state equals.
    ///
    /// # Errors
    /// The same.
    pub fn close_at(self, checkpoint_id: u64) -> Result<()> {
        drop(self.shared);
        let db = Arc::into_inner(self.db);
        let db = db.ok_or_else(|| Error::busy("a state is in use on another thread"))?;
        db.close_at(checkpoint_id)
    }
}

impl<K> fmt::Debug for StateBackend<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (groups, all) = (self.options.key_groups, self.options.max_parallelism);
        write!(f, "StateBackend({}, {groups} of {all})", self.db.path().display())
    }
}

#[cfg(test)]
mod tests;
