//! One value for each key, made of all that were added.

use crate::Update;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::cell::Cell;
use crate::state::change::merge_values;
use crate::state::change::rewrite;
use crate::state::meta::in_state;
use crate::state::serializer::Serializer;
use crate::state::snapshot::StateSnapshot;

/// Makes one value of what was reduced so far and a new one.
type Reduce<V> = Arc<dyn Fn(V, &V) -> V + Send + Sync>;

/// For each key and namespace, one value made of all that were added: Flink's `ReducingState`.
///
/// All calls concern the backend's current key and this handle's current namespace. They return
/// `InvalidArgument` if there is no current key or namespace, or the backend is closed; otherwise
/// the errors of the database.
pub struct ReducingState<V, N = ()> {
    pub(in crate::state) cell: Cell<N>,
    serializer: Arc<dyn Serializer<Value = V>>,
    reduce: Reduce<V>,
}

impl<V: 'static, N: 'static> ReducingState<V, N> {
    pub(in crate::state) fn new(
        cell: Cell<N>,
        serializer: Arc<dyn Serializer<Value = V>>,
        reduce: Reduce<V>,
    ) -> ReducingState<V, N> {
        ReducingState { cell, serializer, reduce }
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
    pub fn at<K: 'static>(&self, snapshot: &StateSnapshot<K>) -> Result<ReducingState<V, N>> {
        let cell = self.cell.at(snapshot.view())?;
        let (serializer, reduce) = (Arc::clone(&self.serializer), Arc::clone(&self.reduce));
        Ok(ReducingState::new(cell, serializer, reduce))
    }

    /// Goes to another namespace, which stays current, whatever the key, until the next call: Flink's
    /// `setCurrentNamespace`. Serializes it; touches no data.
    pub fn set_current_namespace(&mut self, namespace: &N) {
        self.cell.set_namespace(namespace);
    }

    /// The reduced value, or `None` if nothing was added: Flink's `get()`. One lookup.
    #[inline]
    pub fn get(&mut self) -> Result<Option<V>> {
        let serializer = &*self.serializer;
        self.cell.read(|bytes| bytes.map(|bytes| serializer.decode(bytes)).transpose())
    }

    /// Adds a value: Flink's `add(T)`. The first one is stored as it is; with any other the function
    /// is called, what was reduced so far being its first argument. One read-modify-write.
    ///
    /// The function may be called again, with the same values, if the database reorganises its memory
    /// just then.
    #[inline]
    pub fn add(&mut self, value: &V) -> Result<()> {
        let (serializer, reduce) = (&*self.serializer, &*self.reduce);
        let add = |old: Option<V>, out: &mut Vec<u8>| {
            match old {
                Some(old) => serializer.encode(&reduce(old, value), out),
                None => serializer.encode(value, out),
            }
            Update::Put
        };
        rewrite(serializer, add, |f| self.cell.update(f))
            .map_err(|e| in_state(self.cell.name(), &e))
    }

    /// Reduces the values of the current key in these namespaces, in their order, and then the one in
    /// `target`, to one value in `target`, all or nothing: Flink's `mergeNamespaces`, for windows that
    /// become one. The current namespace stays. Flink does not promise the order, so the function
    /// should not depend on it. Reads all of them; one write.
    pub fn merge_namespaces<'a>(
        &mut self,
        target: &N,
        sources: impl IntoIterator<Item = &'a N>,
    ) -> Result<()>
    where
        N: 'a,
    {
        let reduce = Arc::clone(&self.reduce);
        let merge = |merged: V, value: V| reduce(merged, &value);
        merge_values(&mut self.cell, &*self.serializer, target, sources, merge)
    }

    /// Removes the value: Flink's `clear()`. One write; no error if there is none.
    #[inline]
    pub fn clear(&mut self) -> Result<()> {
        self.cell.delete()
    }
}
