//! A value for each key.

use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::cell::Cell;
use crate::state::change::modify;
use crate::state::meta::in_state;
use crate::state::serializer::Serializer;
use crate::state::snapshot::StateSnapshot;

/// One value for each key and namespace: Flink's `ValueState`.
///
/// All calls concern the backend's current key and this handle's current namespace. They return
/// `InvalidArgument` if there is no current key or namespace, or the backend is closed; otherwise
/// the errors of the database.
///
/// Flink's `update(null)` is [`clear`](ValueState::clear). Where a null is to be a value, the type of
/// the value is an `Option`.
pub struct ValueState<V, N = ()> {
    pub(in crate::state) cell: Cell<N>,
    pub(in crate::state) serializer: Arc<dyn Serializer<Value = V>>,
    default: Option<Arc<dyn Fn() -> V + Send + Sync>>,
    buffer: Vec<u8>,
}

impl<V: 'static, N: 'static> ValueState<V, N> {
    pub(in crate::state) fn new(
        cell: Cell<N>,
        serializer: Arc<dyn Serializer<Value = V>>,
    ) -> ValueState<V, N> {
        ValueState { cell, serializer, default: None, buffer: Vec::new() }
    }

    /// The same handle with a default value, made anew for each read that finds none: Flink's default
    /// value of the descriptor. It is not stored, so that each handle may have its own. Ignored
    /// where values expire, as in Flink.
    pub fn with_default(mut self, default: impl Fn() -> V + Send + Sync + 'static) -> Self {
        self.default = Some(Arc::new(default));
        self
    }

    /// The state's name.
    pub fn name(&self) -> &str {
        self.cell.name()
    }

    /// The same state as a snapshot shows it, under the snapshot's current key: a handle that cannot
    /// write.
    ///
    /// # Errors
    /// `InvalidArgument`: a snapshot of another backend, or from before a rollback. `Incompatible`: the
    /// state was migrated since.
    pub fn at<K: 'static>(&self, snapshot: &StateSnapshot<K>) -> Result<ValueState<V, N>> {
        let cell = self.cell.at(snapshot.view())?;
        let state = ValueState::new(cell, Arc::clone(&self.serializer));
        Ok(ValueState { default: self.default.clone(), ..state })
    }

    /// Goes to another namespace, which stays current, whatever the key, until the next call: Flink's
    /// `setCurrentNamespace`. Serializes it; touches no data.
    pub fn set_current_namespace(&mut self, namespace: &N) {
        self.cell.set_namespace(namespace);
    }

    /// The value, or else the default, or `None` if there is none of these either: Flink's `value()`.
    /// One lookup; allocates what decoding the value allocates.
    #[inline]
    pub fn value(&mut self) -> Result<Option<V>> {
        let serializer = &*self.serializer;
        let value = self.cell.read(|bytes| bytes.map(|b| serializer.decode(b)).transpose())?;
        let default = self.default.as_ref().filter(|_| self.cell.ttl().is_none());
        Ok(value.or_else(|| default.map(|default| default())))
    }

    /// Sets the value: Flink's `update(T)`. One write, reads nothing.
    #[inline]
    pub fn update(&mut self, value: &V) -> Result<()> {
        self.buffer.clear();
        self.serializer.encode(value, &mut self.buffer);
        self.cell.put(&self.buffer)
    }

    /// Replaces the value (not the default) by what `f` makes of it, where `None` is no value:
    /// `value()` and `update(T)` or `clear()` in one step, for less than the two.
    ///
    /// `f` may be called again, with the same value, if the database reorganises its memory just
    /// then. It must not write to the database.
    ///
    /// ```
    /// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
    /// # let env = alluvium::Env::new(alluvium::MemoryBudget::new(64 << 20)).with_fs(fs);
    /// # let options = alluvium::BackendOptions::new(128, alluvium::KeyGroupRange::new(0, 127)?);
    /// # let dir = std::path::Path::new("state");
    /// # let mut backend = alluvium::StateBackend::<String>::open(dir, options, env)?;
    /// # backend.set_current_key(&"N328AA".into())?;
    /// let mut count = backend.value_state::<u64>("count")?;
    /// count.update_with(|n| Some(n.unwrap_or(0) + 1))?;
    /// # assert_eq!(count.value()?, Some(1));
    /// # Ok::<(), alluvium::Error>(())
    /// ```
    #[inline]
    pub fn update_with(&mut self, f: impl FnMut(Option<V>) -> Option<V>) -> Result<()> {
        modify(&*self.serializer, f, |f| self.cell.update(f))
            .map_err(|e| in_state(self.cell.name(), &e))
    }

    /// Removes the value: Flink's `clear()`. One write; no error if there is none.
    #[inline]
    pub fn clear(&mut self) -> Result<()> {
        self.cell.delete()
    }
}
