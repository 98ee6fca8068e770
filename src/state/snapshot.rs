//! Snapshots of state: read-only views, while the task writes on.

use std::collections::BTreeMap;

use crate::ColumnFamily;
use crate::Db;
use crate::Scan;
use crate::Snapshot;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::base::sync::Weak;
use crate::state::backend::StateBackend;
use crate::state::cell::Shared;
use crate::state::evolution::resolve_fixed;
use crate::state::key::KeyBuilder;
use crate::state::key_group::JavaHash;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::assign;
use crate::state::keys::Keys;
use crate::state::keys::KeysAndNamespaces;
use crate::state::meta::StateKind;
use crate::state::meta::States;
use crate::state::meta::in_state;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;
use crate::state::serializer::builtin;

/// All states of a backend as they were at one moment. Taken in microseconds, whatever their size;
/// readable from other threads while the task writes on.
///
/// Each state is read through a handle of the usual type, made of the backend's handle by its `at`:
/// it shows the snapshot, follows the snapshot's current key, and refuses to write. A clone of the
/// snapshot shows the same and has a current key of its own, for another thread. Timers are shown by
/// [`TimerQueue::iter_at`](crate::TimerQueue::iter_at). What has expired *by now* is not shown, nor
/// removed, and reading makes nothing live longer.
///
/// While it is held, the database keeps what it shows. After the backend is closed or rolled back,
/// the snapshot and its handles return errors.
///
/// ```
/// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
/// # let env = alluvium::Env::new(alluvium::MemoryBudget::new(64 << 20)).with_fs(fs);
/// # let options = alluvium::BackendOptions::new(128, alluvium::KeyGroupRange::new(0, 127)?);
/// # let dir = std::path::Path::new("state");
/// # let mut backend = alluvium::StateBackend::<String>::open(dir, options, env)?;
/// let mut count = backend.value_state::<u64>("count")?;
/// backend.set_current_key(&"N328AA".into())?;
/// count.update(&1)?;
///
/// let mut snapshot = backend.snapshot();
/// let mut count_then = count.at(&snapshot)?;
/// let reader = std::thread::spawn(move || {
///     for key in snapshot.get_keys("count", &())? {
///         snapshot.set_current_key(&key?)?;
///         assert_eq!(count_then.value()?, Some(1));
///     }
///     Ok::<(), alluvium::Error>(())
/// });
/// count.update(&2)?;
/// reader.join().unwrap()?;
/// # Ok::<(), alluvium::Error>(())
/// ```
pub struct StateSnapshot<K> {
    view: View,
    states: Arc<States>,
    keys: Arc<dyn Serializer<Value = K>>,
    families: Arc<BTreeMap<String, ColumnFamily>>,
    max_parallelism: u32,
    key_groups: KeyGroupRange,
    /// Composes the current key.
    current: KeyBuilder,
}

/// What a handle needs in order to show a snapshot.
#[derive(Clone)]
pub struct View {
    pub db: Weak<Db>,
    pub pinned: Arc<Snapshot>,
    pub shared: Arc<Shared>,
}

impl<K: 'static> Clone for StateSnapshot<K> {
    fn clone(&self) -> StateSnapshot<K> {
        let shared = Shared::new(&self.view.db);
        StateSnapshot {
            view: View { shared: Arc::new(shared), ..self.view.clone() },
            states: Arc::clone(&self.states),
            keys: Arc::clone(&self.keys),
            families: Arc::clone(&self.families),
            current: KeyBuilder::new(self.current.shape()),
            ..*self
        }
    }
}

impl<K: 'static> StateSnapshot<K> {
    pub(in crate::state) fn new(
        backend: &StateBackend<K>,
        families: Arc<BTreeMap<String, ColumnFamily>>,
    ) -> StateSnapshot<K> {
        let pinned = Arc::new(backend.db.snapshot());
        let (db, keys) = (Arc::downgrade(&backend.db), Arc::clone(&backend.keys));
        let shared = Arc::new(Shared::new(&db));
        StateSnapshot {
            view: View { db, pinned, shared },
            states: Arc::clone(backend.meta.states()),
            keys,
            families,
            max_parallelism: backend.max_parallelism(),
            key_groups: backend.key_groups(),
            current: KeyBuilder::new(backend.current.shape()),
        }
    }

    pub(in crate::state) fn view(&self) -> &View {
        &self.view
    }

    /// Makes `key` the current key of this snapshot's handles.
    ///
    /// # Errors
    /// `InvalidArgument` if the group of this key is not one of the backend's.
    pub fn set_current_key(&mut self, key: &K) -> Result<()>
    where
        K: JavaHash,
    {
        let group = assign(key.java_hash(), self.max_parallelism);
        if !self.key_groups.contains(group) {
            let range = self.key_groups;
            return Err(Error::invalid(format!("key group {group} is not in {range}")));
        }
        self.current.set_key(group, |out| self.keys.encode(key, out));
        self.view.shared.set_key(&mut self.current);
        Ok(())
    }

    /// The groups whose keys it has.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.key_groups
    }

    /// Name and type of every state, by name.
    pub fn states(&self) -> impl Iterator<Item = (&str, StateKind)> {
        self.states.iter().map(|(name, forms)| (name.as_str(), forms[0].record.kind))
    }

    /// As [`StateBackend::get_keys`](crate::StateBackend::get_keys), and with its errors.
    pub fn get_keys<N: Builtin>(&self, name: &str, namespace: &N) -> Result<Keys<K>> {
        let (scan, namespaces) = self.scan_with(name, builtin::<N>())?;
        Ok(Keys::new(scan, Arc::clone(&self.keys), &*namespaces, namespace))
    }

    /// As [`StateBackend::get_keys_and_namespaces`](crate::StateBackend::get_keys_and_namespaces),
    /// and with its errors.
    pub fn get_keys_and_namespaces<N: Builtin>(
        &self,
        name: &str,
    ) -> Result<KeysAndNamespaces<K, N>> {
        let (scan, namespaces) = self.scan_with(name, builtin::<N>())?;
        Ok(KeysAndNamespaces::new(scan, Arc::clone(&self.keys), namespaces))
    }

    /// All of a state, serialized: its keys are composite keys, which begin with the key group. `None`
    /// if there is no such state.
    ///
    /// # Errors
    /// Those of the database; `InvalidArgument` if it is closed.
    pub fn scan(&self, name: &str) -> Result<Option<Scan>> {
        let Some(family) = self.families.get(name) else { return Ok(None) };
        let db = self.view.shared.db()?;
        let range = self.key_groups.key_range();
        let scan = db.scan_range(family, range, Some(&self.view.pinned));
        scan.map(Some).map_err(|e| in_state(name, &e))
    }

    fn scan_with<N: 'static>(
        &self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
    ) -> Result<(Option<Scan>, Arc<dyn Serializer<Value = N>>)> {
        let namespaces: Arc<dyn Serializer<Value = N>> = Arc::new(namespaces);
        let forms = self.states.get(name).map_or(&[][..], Vec::as_slice);
        if forms.first().is_some_and(|form| form.record.kind == StateKind::Timers) {
            return Ok((None, namespaces));
        }
        let stored = forms.iter().map(|form| &form.record.namespace);
        let namespaces = resolve_fixed("namespace serializer", namespaces, stored)
            .map_err(|e| in_state(name, &e))?;
        Ok((self.scan(name)?, namespaces))
    }
}
