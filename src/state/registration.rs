//! States by name: how a handle comes to be.
//!
//! Each kind of state has three methods: with built-in serializers and the void namespace, with
//! built-in serializers and namespaces, and with serializers of the caller's.

use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::aggregating::AggregateFunction;
use crate::state::aggregating::AggregatingState;
use crate::state::backend::StateBackend;
use crate::state::cell::Cell;
use crate::state::list::ListState;
use crate::state::map::MapState;
use crate::state::meta::META;
use crate::state::meta::StateKind;
use crate::state::meta::StateRecord;
use crate::state::reducing::ReducingState;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;
use crate::state::serializer::builtin;
use crate::state::value::ValueState;

/// Names that begin like this are kept for timers, as in Flink.
const TIMERS: &str = "_timer_state/";

impl<K: 'static> StateBackend<K> {
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
        let (cell, values) = self.register(name, StateKind::Value, namespaces, values)?;
        Ok(ValueState::new(cell, values))
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
        let (cell, elements) = self.register(name, StateKind::List, namespaces, elements)?;
        Ok(ListState::new(cell, elements))
    }

    /// The reducing state of this name, created if it does not exist: Flink's `getReducingState`. See
    /// [`value_state`](StateBackend::value_state) for cost and errors.
    ///
    /// `reduce` makes one value of what was reduced so far and a new one. It is not stored: give the
    /// same again after a restore.
    pub fn reducing_state<V: Builtin>(
        &mut self,
        name: &str,
        reduce: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> Result<ReducingState<V>> {
        self.reducing_state_with_namespace(name, reduce)
    }

    /// [`reducing_state`](StateBackend::reducing_state) with namespaces. Set one before the first
    /// use.
    pub fn reducing_state_with_namespace<N: Builtin, V: Builtin>(
        &mut self,
        name: &str,
        reduce: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> Result<ReducingState<V, N>> {
        self.reducing_state_with(name, builtin::<N>(), builtin::<V>(), reduce)
    }

    /// [`reducing_state`](StateBackend::reducing_state) with these serializers.
    pub fn reducing_state_with<N: 'static, V: 'static>(
        &mut self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
        values: impl Serializer<Value = V>,
        reduce: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> Result<ReducingState<V, N>> {
        let (cell, values) = self.register(name, StateKind::Reducing, namespaces, values)?;
        Ok(ReducingState::new(cell, values, Arc::new(reduce)))
    }

    /// The aggregating state of this name, created if it does not exist: Flink's
    /// `getAggregatingState`. See [`value_state`](StateBackend::value_state) for cost and errors.
    ///
    /// `function` is not stored: give the same again after a restore.
    pub fn aggregating_state<A>(&mut self, name: &str, function: A) -> Result<AggregatingState<A>>
    where
        A: AggregateFunction<Accumulator: Builtin>,
    {
        self.aggregating_state_with_namespace(name, function)
    }

    /// [`aggregating_state`](StateBackend::aggregating_state) with namespaces. Set one before the
    /// first use.
    pub fn aggregating_state_with_namespace<N, A>(
        &mut self,
        name: &str,
        function: A,
    ) -> Result<AggregatingState<A, N>>
    where
        N: Builtin,
        A: AggregateFunction<Accumulator: Builtin>,
    {
        self.aggregating_state_with(name, builtin::<N>(), builtin::<A::Accumulator>(), function)
    }

    /// [`aggregating_state`](StateBackend::aggregating_state) with these serializers.
    pub fn aggregating_state_with<N: 'static, A: AggregateFunction>(
        &mut self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
        accumulators: impl Serializer<Value = A::Accumulator>,
        function: A,
    ) -> Result<AggregatingState<A, N>> {
        let kind = StateKind::Aggregating;
        let (cell, accumulators) = self.register(name, kind, namespaces, accumulators)?;
        Ok(AggregatingState::new(cell, accumulators, Arc::new(function)))
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
        let cell = self.open_state(name, record, Arc::new(namespaces))?;
        Ok(MapState::new(cell, Arc::new(user_keys), Arc::new(values)))
    }

    fn register<N: 'static, V: 'static>(
        &mut self,
        name: &str,
        kind: StateKind,
        namespaces: impl Serializer<Value = N>,
        values: impl Serializer<Value = V>,
    ) -> Result<(Cell<N>, Arc<dyn Serializer<Value = V>>)> {
        let record = StateRecord {
            kind,
            namespace: namespaces.identity(),
            user_key: String::new(),
            value: values.identity(),
        };
        let cell = self.open_state(name, record, Arc::new(namespaces))?;
        Ok((cell, Arc::new(values)))
    }

    fn open_state<N: 'static>(
        &mut self,
        name: &str,
        record: StateRecord,
        namespaces: Arc<dyn Serializer<Value = N>>,
    ) -> Result<Cell<N>> {
        if name.is_empty() || name == META || name.starts_with(TIMERS) {
            return Err(Error::invalid(format!("no name for a state: {name:?}")));
        }
        if let Some(known) = self.meta.state(name) {
            known.check(name, &record)?; // before the family changes
        }
        let family = self.db.column_family(name, self.options.family(name, record.kind))?;
        self.meta.register(&self.db, name, &record)?;
        Cell::new(Arc::clone(&self.shared.0), family, self.keys.fixed_len(), namespaces)
    }
}
