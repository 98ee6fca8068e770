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
use crate::state::evolution::Resolved;
use crate::state::evolution::SerializerSnapshot;
use crate::state::evolution::resolve;
use crate::state::evolution::resolve_fixed;
use crate::state::list::ListState;
use crate::state::list::repack;
use crate::state::map::MapState;
use crate::state::meta::Form;
use crate::state::meta::META;
use crate::state::meta::StateKind;
use crate::state::meta::StateRecord;
use crate::state::meta::in_state;
use crate::state::meta::same_kind;
use crate::state::migration::check;
use crate::state::migration::migrate;
use crate::state::reducing::ReducingState;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;
use crate::state::serializer::builtin;
use crate::state::ttl::STAMPED;
use crate::state::ttl::Stamped;
use crate::state::ttl::Ttl;
use crate::state::ttl::Unstamping;
use crate::state::ttl::keep_time_of;
use crate::state::value::ValueState;

/// Names that begin like this are kept for timers, as in Flink.
pub(in crate::state) const TIMERS: &str = "_timer_state/";

impl<K: 'static> StateBackend<K> {
    /// The value state of this name, created if it does not exist: Flink's `getState`.
    ///
    /// The first time ever, this costs a manifest write and an entry a key group; else little, unless
    /// the serializer asks for a [migration](crate::Compatibility): then the whole state is written
    /// anew, here and now. Ask once, and keep the handle.
    ///
    /// # Errors
    /// `Incompatible`: the name belongs to a state of another type, or with serializers that these
    /// cannot take over from, now or in the checkpoint that was restored. `InvalidArgument`: a name
    /// that is empty, too long or reserved. `Corruption`: a value could not be read to be migrated;
    /// nothing has changed. Those of the database; if one comes in the midst of a migration, the
    /// backend takes no more checkpoints.
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
        let stored = self.forms(name, StateKind::Map)?;
        let user_keys: Arc<dyn Serializer<Value = UK>> = Arc::new(user_keys);
        let user_keys = {
            let stored = stored.iter().filter_map(|form| form.record.user_key.as_ref());
            resolve_fixed("user-key serializer", user_keys, stored)
                .map_err(|e| in_state(name, &e))?
        };
        let user_key = Some(user_keys.snapshot());
        let (cell, values) = self.open_state(
            name,
            StateKind::Map,
            Arc::new(namespaces),
            user_key,
            Arc::new(values),
        )?;
        Ok(MapState::new(cell, user_keys, values))
    }

    fn register<N: 'static, V: 'static>(
        &mut self,
        name: &str,
        kind: StateKind,
        namespaces: impl Serializer<Value = N>,
        values: impl Serializer<Value = V>,
    ) -> Result<(Cell<N>, Arc<dyn Serializer<Value = V>>)> {
        self.open_state(name, kind, Arc::new(namespaces), None, Arc::new(values))
    }

    /// What is stored of a state, which must be of this kind.
    fn forms(&self, name: &str, kind: StateKind) -> Result<&[Form]> {
        let for_timers = name.starts_with(TIMERS);
        if name.is_empty() || name == META || for_timers != (kind == StateKind::Timers) {
            return Err(Error::invalid(format!("no name for a state: {name:?}")));
        }
        let forms = self.meta.forms(name);
        for form in forms {
            same_kind(form.record.kind, kind).map_err(|e| in_state(name, &e))?;
        }
        Ok(forms)
    }

    /// The state as these serializers, or those that take their place, read and write it. All that
    /// may be refused is refused before anything is written.
    pub(in crate::state) fn open_state<N: 'static, V: 'static>(
        &mut self,
        name: &str,
        kind: StateKind,
        namespaces: Arc<dyn Serializer<Value = N>>,
        user_key: Option<SerializerSnapshot>,
        values: Arc<dyn Serializer<Value = V>>,
    ) -> Result<(Cell<N>, Arc<dyn Serializer<Value = V>>)> {
        let ttl = self.ttl(name, kind);
        let forms = self.forms(name, kind)?;
        let values = with_time(values, ttl.as_deref(), forms);
        let stored = forms.iter().map(|form| &form.record.namespace);
        let namespaces = resolve_fixed("namespace serializer", namespaces, stored)
            .map_err(|e| in_state(name, &e))?;
        let stored = forms.iter().map(|form| &form.record.value);
        let Resolved { serializer: values, readers } =
            resolve("serializer", values, stored).map_err(|e| in_state(name, &e))?;
        let since = self.meta.since(name);
        if since.is_some() && readers.iter().any(Option::is_some) {
            let text = format!("state {name:?} is in use; {} would change it", values.snapshot());
            return Err(Error::incompatible(text));
        }
        let record = StateRecord {
            kind,
            namespace: namespaces.snapshot(),
            user_key,
            value: values.snapshot(),
            migrating: false,
        };
        let mut family = self.family(name, kind)?;
        for (i, reader) in readers.iter().enumerate() {
            let Some(reader) = reader else { continue };
            let rewrite = |bytes: &[u8]| rewrite(kind, &**reader, &*values, bytes);
            let groups = &self.meta.forms(name)[i].groups;
            for &group in groups {
                check(&self.db, &family, group, &rewrite).map_err(|e| in_state(name, &e))?;
            }
        }
        for (i, reader) in readers.iter().enumerate() {
            let Some(reader) = reader else { continue };
            let rewrite = |bytes: &[u8]| rewrite(kind, &**reader, &*values, bytes);
            let migrated = self.meta.forms(name)[i].groups.iter().try_for_each(|&group| {
                migrate(&self.db, &family, group, &rewrite, |batch, done| {
                    let record = StateRecord { migrating: !done, ..record.clone() };
                    self.meta.put(batch, group, name, &record);
                })
            });
            if let Err(e) = migrated {
                self.meta.cut_short(name);
                return Err(in_state(name, &e));
            }
        }
        let migrated = readers.iter().any(Option::is_some);
        let since = match since {
            _ if migrated => self.db.snapshot().seqno(),
            Some(since) => since,
            None => 0,
        };
        self.meta.register(&self.db, name, &record, since)?;
        if ttl.is_some() {
            family = self.family(name, kind)?; // now that all values have a time
        }
        let shared = Arc::clone(&self.shared.0);
        let cell = Cell::new(shared, family, self.keys.fixed_len(), namespaces, since, ttl)?;
        Ok((cell, values))
    }
}

/// The serializer of values that may expire now, or did when they were stored.
fn with_time<V: 'static>(
    values: Arc<dyn Serializer<Value = V>>,
    ttl: Option<&Ttl>,
    stored: &[Form],
) -> Arc<dyn Serializer<Value = V>> {
    match ttl {
        Some(ttl) => Arc::new(Stamped::new(values, Arc::clone(ttl.time()))),
        None if stored.iter().any(|form| form.record.value.name == STAMPED) => {
            Arc::new(Unstamping(values))
        }
        None => values,
    }
}

/// A stored value, read by one serializer and written by another.
fn rewrite<V: 'static>(
    kind: StateKind,
    reader: &dyn Serializer<Value = V>,
    writer: &dyn Serializer<Value = V>,
    bytes: &[u8],
) -> Result<Vec<Vec<u8>>> {
    let keep_time = reader.name() == STAMPED && writer.name() == STAMPED;
    let one = |bytes: &[u8], out: &mut Vec<u8>| {
        writer.encode(&reader.decode(bytes)?, out);
        if keep_time {
            keep_time_of(bytes, out);
        }
        Ok(())
    };
    let mut values = Vec::new();
    match kind {
        StateKind::List => repack(std::iter::once(bytes), one, &mut values)?,
        _ => {
            let mut value = Vec::new();
            one(bytes, &mut value)?;
            values.push(value);
        }
    }
    Ok(values)
}
