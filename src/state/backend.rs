//! The backend: one database, a current key, and states by name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::Db;
use crate::Env;
use crate::PendingCheckpoint;
use crate::Scan;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::state::batch::StateBatch;

use crate::state::cell::Shared;
use crate::state::evolution::resolve_fixed;
use crate::state::key::KeyBuilder;
use crate::state::key::KeyShape;
use crate::state::key::group_of;
use crate::state::key_group::JavaHash;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::assign;
use crate::state::keys::Keys;
use crate::state::keys::KeysAndNamespaces;
use crate::state::meta::BackendRecord;
use crate::state::meta::META;
use crate::state::meta::Meta;
use crate::state::meta::StateKind;
use crate::state::meta::in_state;
use crate::state::options::BackendOptions;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;
use crate::state::serializer::builtin;
use crate::state::snapshot::StateSnapshot;
use crate::state::timer::heads::Heads;
use crate::state::ttl::Time;
use crate::state::ttl::states::look_step;

/// Memtable of the metadata: a few entries, written once.
const META_MEMTABLE_BYTES: usize = 256 << 10;

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
/// | `getPartitionedState(descriptor)` | [`value_state`](StateBackend::value_state), [`list_state`](StateBackend::list_state), [`reducing_state`](StateBackend::reducing_state), [`aggregating_state`](StateBackend::aggregating_state), [`map_state`](StateBackend::map_state) |
/// | `getPartitionedState(namespace, …)` | the same `…_with_namespace`, and `set_current_namespace` of the handle |
/// | `getCurrentKey` | [`current_key`](StateBackend::current_key) |
/// | `applyToAllKeys` | [`apply_to_all_keys`](StateBackend::apply_to_all_keys) |
/// | `getInternalTimerService` | [`timer_service`](StateBackend::timer_service) |
/// | `getKeys`, `getKeysAndNamespaces` | [`get_keys`](StateBackend::get_keys), [`get_keys_and_namespaces`](StateBackend::get_keys_and_namespaces) |
/// | `snapshot` | [`checkpoint`](StateBackend::checkpoint) |
/// | – | [`snapshot`](StateBackend::snapshot), [`batch`](StateBackend::batch), [`rollback`](StateBackend::rollback) |
/// | restore | [`from_db`](StateBackend::from_db) |
/// | `dispose` | [`close`](StateBackend::close) |
pub struct StateBackend<K> {
    pub(in crate::state) db: Arc<Db>,
    pub(in crate::state) shared: Owner,
    pub(in crate::state) meta: Meta,
    pub(in crate::state) keys: Arc<dyn Serializer<Value = K>>,
    pub(in crate::state) options: BackendOptions,
    /// Composes the current key.
    pub(in crate::state) current: KeyBuilder,
    /// What is held in memory of each queue of timers, by name.
    pub(in crate::state) timers: BTreeMap<String, Arc<Mutex<Heads>>>,
    /// For states whose values expire.
    pub(in crate::state) time: Option<Arc<Time>>,
    /// After what span of it background work is to look for what has expired.
    pub(in crate::state) look_step: Option<i64>,
}

/// Tells the handles when the backend goes.
pub(in crate::state) struct Owner(pub(in crate::state) Arc<Shared>);

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
    /// `Incompatible`: it was written with another max parallelism or range of key groups, or by a
    /// serializer of keys that this one cannot take over from, or only after a migration, which keys
    /// cannot have. `Halted`: the process died in the midst of a migration. `InvalidArgument`: key
    /// groups over the max parallelism. Those of the database.
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
        let keys: Arc<dyn Serializer<Value = K>> = Arc::new(keys);
        let (meta, keys) = attach(&db, &options, keys)?;
        let db = Arc::new(db);
        let shared = Owner(Arc::new(Shared::new(&Arc::downgrade(&db))));
        let current = KeyBuilder::new(KeyShape { key: keys.fixed_len(), namespace: Some(0) });
        let timers = BTreeMap::new();
        let time = options.clock.clone().map(|clock| Arc::new(Time::new(clock)));
        let look_step = look_step(options.ttl.values());
        let backend =
            StateBackend { db, shared, meta, keys, options, current, timers, time, look_step };
        backend.open_families()?;
        Ok(backend)
    }

    /// Makes each key that has state called `name` in `namespace` the current key and calls `f` with
    /// it: Flink's `applyToAllKeys`. The handles that `f` uses keep their own current namespaces.
    ///
    /// All keys are collected first, so that `f` may add and remove state of any of them; a key whose
    /// state `f` removed before its turn comes is visited all the same. The last key visited stays
    /// the current one, as in Flink.
    ///
    /// ```
    /// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
    /// # let env = alluvium::Env::new(alluvium::MemoryBudget::new(64 << 20)).with_fs(fs);
    /// # let options = alluvium::BackendOptions::new(128, alluvium::KeyGroupRange::new(0, 127)?);
    /// # let dir = std::path::Path::new("state");
    /// # let mut backend = alluvium::StateBackend::<u32>::open(dir, options, env)?;
    /// let mut count = backend.value_state::<u64>("count")?;
    /// # backend.set_current_key(&7)?;
    /// # count.update(&5)?;
    /// backend.apply_to_all_keys("count", &(), |_key| count.clear())?;
    /// # assert_eq!(count.value()?, None);
    /// # Ok::<(), alluvium::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get_keys`](StateBackend::get_keys), and the first of `f`.
    pub fn apply_to_all_keys<N: Builtin>(
        &mut self,
        name: &str,
        namespace: &N,
        mut f: impl FnMut(&K) -> Result<()>,
    ) -> Result<()> {
        let keys: Vec<K> = self.get_keys(name, namespace)?.collect::<Result<_>>()?;
        for key in &keys {
            self.set_current_key(key)?;
            f(key)?;
        }
        Ok(())
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
        self.current.set_key(group, |out| self.keys.encode(key, out));
        self.shared.0.set_key(&mut self.current);
        Ok(())
    }
}

impl<K: 'static> StateBackend<K> {
    /// Gives compaction what the values of each state need, although nobody has asked for it yet.
    pub(in crate::state) fn open_families(&self) -> Result<()> {
        for (name, forms) in self.meta.states().iter() {
            self.family(name, forms[0].record.kind)?;
        }
        Ok(())
    }

    #[cold]
    fn foreign(&self, group: u16) -> Error {
        let range = self.options.key_groups;
        Error::invalid(format!("key group {group} is not in {range}: was the stream partitioned?"))
    }

    /// The current key, decoded from its bytes: Flink's `getCurrentKey`.
    ///
    /// # Errors
    /// `Corruption` if the serializer of keys does not read what it wrote.
    pub fn current_key(&self) -> Result<Option<K>> {
        if !self.current.has_key() {
            return Ok(None);
        }
        let key = self.current.shape().parse_cell(self.current.key_prefix())?.key;
        self.keys.decode(key).map(Some)
    }

    /// The key group of the current key: Flink's `getCurrentKeyGroupIndex`.
    pub fn current_key_group(&self) -> Option<u16> {
        self.current.has_key().then(|| group_of(self.current.key_prefix()))
    }

    /// The groups whose keys this backend takes: Flink's `getKeyGroupRange`.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.options.key_groups
    }

    /// Number of key groups of the job: Flink's `getNumberOfKeyGroups`.
    pub fn max_parallelism(&self) -> u32 {
        self.options.max_parallelism
    }

    /// Name and type of every state, by name: also of those that came with a restored database and
    /// that nobody has asked for.
    pub fn states(&self) -> impl Iterator<Item = (&str, StateKind)> {
        let states = self.meta.states().iter();
        states.map(|(name, forms)| (name.as_str(), forms[0].record.kind))
    }

    /// The keys that have state called `name` in `namespace`, each once, by key group: Flink's
    /// `getKeys`. None if there is no such state. The iterator borrows nothing: the current key may
    /// be changed in the loop.
    ///
    /// # Errors
    /// `Incompatible` if the state's namespaces are of another type. Those of the database.
    pub fn get_keys<N: Builtin>(&self, name: &str, namespace: &N) -> Result<Keys<K>> {
        self.get_keys_with(name, builtin::<N>(), namespace)
    }

    /// [`get_keys`](StateBackend::get_keys), with a serializer of namespaces.
    ///
    /// # Errors
    /// The same.
    pub fn get_keys_with<N: 'static>(
        &self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
        namespace: &N,
    ) -> Result<Keys<K>> {
        let (scan, namespaces) = self.scan(name, namespaces)?;
        Ok(Keys::new(scan, Arc::clone(&self.keys), &*namespaces, namespace))
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
        self.get_keys_and_namespaces_with(name, builtin::<N>())
    }

    /// [`get_keys_and_namespaces`](StateBackend::get_keys_and_namespaces), with a serializer of
    /// namespaces.
    ///
    /// # Errors
    /// The same.
    pub fn get_keys_and_namespaces_with<N: 'static>(
        &self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
    ) -> Result<KeysAndNamespaces<K, N>> {
        let (scan, namespaces) = self.scan(name, namespaces)?;
        Ok(KeysAndNamespaces::new(scan, Arc::clone(&self.keys), namespaces))
    }

    fn scan<N: 'static>(
        &self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
    ) -> Result<(Option<Scan>, Arc<dyn Serializer<Value = N>>)> {
        let namespaces: Arc<dyn Serializer<Value = N>> = Arc::new(namespaces);
        let forms = self.meta.forms(name);
        let Some(form) = forms.first().filter(|form| form.record.kind != StateKind::Timers) else {
            return Ok((None, namespaces));
        };
        let stored = forms.iter().map(|form| &form.record.namespace);
        let namespaces = resolve_fixed("namespace serializer", namespaces, stored)
            .map_err(|e| in_state(name, &e))?;
        let family = self.family(name, form.record.kind)?;
        let range = self.options.key_groups.key_range();
        let scan = self.db.scan_range(&family, range, None).map_err(|e| in_state(name, &e))?;
        Ok((Some(scan), namespaces))
    }

    /// Removes the state called `name` with everything in it, for the cost of a manifest write and a
    /// delete a key group. Its handles return `NotFound` from now on; the name is free again.
    ///
    /// # Errors
    /// `NotFound` if there is no such state. Those of the database: call it again.
    pub fn drop_state(&mut self, name: &str) -> Result<()> {
        let kind = match self.meta.forms(name).first() {
            Some(form) => form.record.kind,
            None => return Err(Error::not_found(format!("state {name:?}"))),
        };
        // In this order: metadata without its family is a state that is empty, while a family without
        // metadata would give its old content to the next state of that name.
        self.db.drop_column_family(&self.family(name, kind)?)?;
        self.meta.remove(&self.db, name)
    }

    /// Begins a checkpoint of all states: fixes them as they are now and returns at once, whatever
    /// their size. This is the synchronous part of Flink's `snapshot`; complete it with
    /// [`PendingCheckpoint::wait`], on this thread or another, and save the files. Background work then
    /// [looks for what has expired](StateBackend::look_for_expired).
    ///
    /// # Errors
    /// `Halted` if the database has stopped, or a migration has failed half-way.
    pub fn checkpoint(&self) -> Result<PendingCheckpoint> {
        self.meta.check()?;
        let pending = self.db.checkpoint()?;
        self.look_for_expired();
        Ok(pending)
    }

    /// A read-only view of all states as they are now; costs two short locks and a few copies,
    /// whatever the size of the state.
    pub fn snapshot(&self) -> StateSnapshot<K> {
        let states = self.meta.states().iter().map(|(name, forms)| {
            let family = self.family(name, forms[0].record.kind);
            (name.clone(), family.expect("a state has its family"))
        });
        let families = Arc::new(states.collect());
        StateSnapshot::new(self, families)
    }

    /// An empty batch for writes of any states.
    pub fn batch(&self) -> StateBatch {
        StateBatch::new(Arc::clone(&self.shared.0))
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

/// Reads the metadata of a database, checks and completes it.
pub(in crate::state) fn attach<K: 'static>(
    db: &Db,
    options: &BackendOptions,
    keys: Arc<dyn Serializer<Value = K>>,
) -> Result<(Meta, Arc<dyn Serializer<Value = K>>)> {
    let mut meta_family = options.family.clone();
    meta_family.memtable_bytes_max = META_MEMTABLE_BYTES;
    let meta_family = db.column_family(META, meta_family)?;
    let mut meta = Meta::open(db, meta_family, options.key_groups)?;
    let keys = resolve_fixed("key serializer", keys, meta.keys())?;
    let max_parallelism = options.max_parallelism;
    meta.set_backend(db, BackendRecord { max_parallelism, key: keys.snapshot() })?;
    Ok((meta, keys))
}

impl<K> fmt::Debug for StateBackend<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (groups, all) = (self.options.key_groups, self.options.max_parallelism);
        write!(f, "StateBackend({}, {groups} of {all})", self.db.path().display())
    }
}

#[cfg(test)]
mod tests;
