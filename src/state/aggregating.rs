//! An accumulator for each key, and what is computed from it.

use crate::Update;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::cell::Cell;
use crate::state::change::merge_values;
use crate::state::change::rewrite;
use crate::state::meta::in_state;
use crate::state::serializer::Serializer;
use crate::state::snapshot::StateSnapshot;

/// How values are aggregated: Flink's `AggregateFunction`.
///
/// ```
/// struct Mean;
///
/// impl alluvium::AggregateFunction for Mean {
///     type Input = f64;
///     type Accumulator = (f64, u64);
///     type Output = f64;
///
///     fn create_accumulator(&self) -> (f64, u64) {
///         (0.0, 0)
///     }
///     fn add(&self, accumulator: &mut (f64, u64), value: &f64) {
///         *accumulator = (accumulator.0 + value, accumulator.1 + 1);
///     }
///     fn get_result(&self, accumulator: (f64, u64)) -> f64 {
///         accumulator.0 / accumulator.1 as f64
///     }
///     fn merge(&self, accumulator: &mut (f64, u64), other: (f64, u64)) {
///         *accumulator = (accumulator.0 + other.0, accumulator.1 + other.1);
///     }
/// }
/// ```
pub trait AggregateFunction: Send + Sync + 'static {
    /// What is added.
    type Input;
    /// What is stored.
    type Accumulator: 'static;
    /// What is read.
    type Output;

    /// An accumulator to which nothing was added.
    fn create_accumulator(&self) -> Self::Accumulator;

    /// Adds a value to an accumulator.
    fn add(&self, accumulator: &mut Self::Accumulator, value: &Self::Input);

    /// What an accumulator amounts to.
    fn get_result(&self, accumulator: Self::Accumulator) -> Self::Output;

    /// Adds all that was added to `other`.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: Self::Accumulator);
}

/// For each key and namespace, an accumulator to which values are added: Flink's `AggregatingState`.
/// The accumulator is stored, not the result.
///
/// All calls concern the backend's current key and this handle's current namespace. They return
/// `InvalidArgument` if there is no current key or namespace, or the backend is closed; otherwise
/// the errors of the database.
pub struct AggregatingState<A: AggregateFunction, N = ()> {
    pub(in crate::state) cell: Cell<N>,
    serializer: Arc<dyn Serializer<Value = A::Accumulator>>,
    function: Arc<A>,
}

impl<A: AggregateFunction, N: 'static> AggregatingState<A, N> {
    pub(in crate::state) fn new(
        cell: Cell<N>,
        serializer: Arc<dyn Serializer<Value = A::Accumulator>>,
        function: Arc<A>,
    ) -> AggregatingState<A, N> {
        AggregatingState { cell, serializer, function }
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
    pub fn at<K: 'static>(&self, snapshot: &StateSnapshot<K>) -> Result<AggregatingState<A, N>> {
        let cell = self.cell.at(snapshot.view())?;
        let (serializer, function) = (Arc::clone(&self.serializer), Arc::clone(&self.function));
        Ok(AggregatingState::new(cell, serializer, function))
    }

    /// Goes to another namespace, which stays current, whatever the key, until the next call: Flink's
    /// `setCurrentNamespace`. Serializes it; touches no data.
    pub fn set_current_namespace(&mut self, namespace: &N) {
        self.cell.set_namespace(namespace);
    }

    /// The result, or `None` if nothing was added: Flink's `get()`. One lookup.
    #[inline]
    pub fn get(&mut self) -> Result<Option<A::Output>> {
        let serializer = &*self.serializer;
        let accumulator =
            self.cell.read(|bytes| bytes.map(|b| serializer.decode(b)).transpose())?;
        Ok(accumulator.map(|accumulator| self.function.get_result(accumulator)))
    }

    /// Adds a value to the accumulator, which is created if there is none: Flink's `add(IN)`. One
    /// read-modify-write.
    ///
    /// The function may be called again, with the same values, if the database reorganises its memory
    /// just then.
    #[inline]
    pub fn add(&mut self, value: &A::Input) -> Result<()> {
        let (serializer, function) = (&*self.serializer, &*self.function);
        let add = |old: Option<A::Accumulator>, out: &mut Vec<u8>| {
            let mut accumulator = old.unwrap_or_else(|| function.create_accumulator());
            function.add(&mut accumulator, value);
            serializer.encode(&accumulator, out);
            Update::Put
        };
        rewrite(serializer, add, |f| self.cell.update(f))
            .map_err(|e| in_state(self.cell.name(), &e))
    }

    /// Merges the accumulators of the current key in these namespaces, in their order, and then the one
    /// in `target`, to one in `target`, all or nothing: Flink's `mergeNamespaces`, for windows that
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
        let function = &*self.function;
        let merge = |mut merged: A::Accumulator, other: A::Accumulator| {
            function.merge(&mut merged, other);
            merged
        };
        merge_values(&mut self.cell, &*self.serializer, target, sources, merge)
    }

    /// Removes the accumulator: Flink's `clear()`. One write; no error if there is none.
    #[inline]
    pub fn clear(&mut self) -> Result<()> {
        self.cell.delete()
    }
}
