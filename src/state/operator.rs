//! Operator state: what belongs to no key.
//!
//! It is small, lives in memory, and goes into the envelope of a checkpoint as a whole. A state is a
//! list, whose elements are dealt out anew when the parallelism changes, or of which every instance
//! gets all; or it is a map that is the same everywhere. [`OperatorSnapshot`] is what one instance
//! contributes to a checkpoint, and [`redistribute`](crate::state::operator_snapshot::redistribute)
//! makes what other instances begin with.
//!
//! Elements are kept in their serialized form: a snapshot shares them, and what nobody asks for is
//! carried on as it came.

use std::collections::BTreeMap;
use std::iter;

use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::state::evolution::Resolved;
use crate::state::evolution::resolve;
use crate::state::meta::in_state;
use crate::state::operator_snapshot::Chunk;
use crate::state::operator_snapshot::Content;
use crate::state::operator_snapshot::OperatorMode;
use crate::state::operator_snapshot::OperatorSnapshot;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;
use crate::state::serializer::builtin;

/// The content of a state, copied when it is changed while a snapshot shares it.
type Slot = Arc<Mutex<Arc<Content>>>;

/// The operator state of one instance: Flink's operator state backend.
///
/// ```
/// use alluvium::{OperatorSnapshot, OperatorState, redistribute_operator_state};
///
/// let mut operator = OperatorState::new();
/// let mut positions = operator.list_state::<(String, u64)>("positions")?;
/// positions.add(&("flights-0.csv".into(), 1200));
/// positions.add(&("flights-1.csv".into(), 3400));
/// let old = [operator.snapshot()];
///
/// // Into the envelope, and out of it.
/// let bytes = OperatorSnapshot::encode_all(&old);
/// let old = OperatorSnapshot::decode_all(&bytes)?;
///
/// let new = redistribute_operator_state(&old, 2)?;
/// let mut second = OperatorState::restore(new[1].clone());
/// let positions = second.list_state::<(String, u64)>("positions")?;
/// assert_eq!(positions.get()?, [("flights-1.csv".to_owned(), 3400)]);
/// # Ok::<(), alluvium::Error>(())
/// ```
#[derive(Default)]
pub struct OperatorState {
    states: BTreeMap<String, Slot>,
}

impl OperatorState {
    /// Without any state.
    pub fn new() -> OperatorState {
        OperatorState::default()
    }

    /// With the states of a snapshot: they are there, and are part of the next snapshot, whether they
    /// are asked for or not.
    pub fn restore(snapshot: OperatorSnapshot) -> OperatorState {
        let slot = |(name, content)| (name, Arc::new(Mutex::new(content)));
        OperatorState { states: snapshot.states.into_iter().map(slot).collect() }
    }

    /// What is in it now, for the cost of a pointer a state: Flink's `snapshot`. It may be encoded on
    /// another thread.
    pub fn snapshot(&self) -> OperatorSnapshot {
        let content = |(name, slot): (&String, &Slot)| (name.clone(), Arc::clone(&slot.lock()));
        OperatorSnapshot { states: self.states.iter().map(content).collect() }
    }

    /// Name and mode of every state, by name, whether it was asked for or not: Flink's
    /// `getRegisteredStateNames` and `getRegisteredBroadcastStateNames`.
    pub fn states(&self) -> impl Iterator<Item = (&str, OperatorMode)> {
        self.states.iter().map(|(name, slot)| (name.as_str(), slot.lock().mode()))
    }

    /// The list state of this name, whose elements are dealt out when the parallelism changes:
    /// Flink's `getListState`. Created if it does not exist.
    ///
    /// # Errors
    /// `Incompatible`: the name belongs to a state of another mode, or of a serializer that this one
    /// cannot take over from. `InvalidArgument`: an empty name. `Corruption`: an element cannot be
    /// read to be migrated.
    pub fn list_state<T: Builtin>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list_state_with(name, OperatorMode::Split, builtin::<T>())
    }

    /// The list state of this name, of which every instance gets all when it is restored: Flink's
    /// `getUnionListState`. As [`list_state`](OperatorState::list_state).
    pub fn union_list_state<T: Builtin>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list_state_with(name, OperatorMode::Union, builtin::<T>())
    }

    /// [`list_state`](OperatorState::list_state) of this mode, with a serializer.
    ///
    /// # Errors
    /// The same; `InvalidArgument` besides, if the mode is that of maps.
    pub fn list_state_with<T: 'static>(
        &mut self,
        name: &str,
        mode: OperatorMode,
        elements: impl Serializer<Value = T>,
    ) -> Result<OperatorListState<T>> {
        if mode == OperatorMode::Broadcast {
            return Err(Error::invalid("a list is not broadcast"));
        }
        let old = self.content(name, mode)?;
        let chunks = match old.as_deref() {
            Some(Content::List { chunks, .. }) => chunks.as_slice(),
            _ => &[],
        };
        let wanted: Arc<dyn Serializer<Value = T>> = Arc::new(elements);
        let Resolved { serializer, readers } =
            resolve("serializer", wanted, chunks.iter().map(|chunk| &chunk.value))
                .map_err(|e| in_state(name, &e))?;
        let mut elements = Vec::new();
        for (chunk, reader) in chunks.iter().zip(&readers) {
            for element in &chunk.elements {
                let element = convert(reader.as_deref(), &*serializer, element);
                elements.push(element.map_err(|e| in_state(name, &e))?);
            }
        }
        let chunks = vec![Chunk { value: serializer.snapshot(), elements }];
        let slot = self.set(name, Content::List { mode, chunks });
        Ok(OperatorListState { name: name.to_owned(), slot, serializer })
    }

    /// The broadcast state of this name, a map of which every instance has a copy: Flink's
    /// `getBroadcastState`. Created if it does not exist. See
    /// [`list_state`](OperatorState::list_state) for errors.
    ///
    /// Every instance must change it in the same way: nobody compares them.
    pub fn broadcast_state<K, V>(&mut self, name: &str) -> Result<BroadcastState<K, V>>
    where
        K: Builtin,
        V: Builtin,
    {
        self.broadcast_state_with(name, builtin::<K>(), builtin::<V>())
    }

    /// [`broadcast_state`](OperatorState::broadcast_state) with these serializers. Keys may be
    /// migrated too.
    ///
    /// # Errors
    /// The same.
    pub fn broadcast_state_with<K: 'static, V: 'static>(
        &mut self,
        name: &str,
        keys: impl Serializer<Value = K>,
        values: impl Serializer<Value = V>,
    ) -> Result<BroadcastState<K, V>> {
        let old = self.content(name, OperatorMode::Broadcast)?;
        let map = match old.as_deref() {
            Some(Content::Map { key, value, entries }) => Some((key, value, entries)),
            _ => None,
        };
        let wanted: Arc<dyn Serializer<Value = K>> = Arc::new(keys);
        let keys = resolve("key serializer", wanted, map.iter().map(|map| map.0))
            .map_err(|e| in_state(name, &e))?;
        let wanted: Arc<dyn Serializer<Value = V>> = Arc::new(values);
        let values = resolve("serializer", wanted, map.iter().map(|map| map.1))
            .map_err(|e| in_state(name, &e))?;
        let mut entries = BTreeMap::new();
        for (key, value) in map.iter().flat_map(|map| map.2) {
            let reader = keys.readers[0].as_deref();
            let key = convert(reader, &*keys.serializer, key).map_err(|e| in_state(name, &e))?;
            let reader = values.readers[0].as_deref();
            let value =
                convert(reader, &*values.serializer, value).map_err(|e| in_state(name, &e))?;
            entries.insert(key, value);
        }
        let (keys, values) = (keys.serializer, values.serializer);
        let (key, value) = (keys.snapshot(), values.snapshot());
        let slot = self.set(name, Content::Map { key, value, entries });
        Ok(BroadcastState { name: name.to_owned(), slot, keys, values })
    }

    /// What there is of a state, which must be of this mode.
    fn content(&self, name: &str, mode: OperatorMode) -> Result<Option<Arc<Content>>> {
        if name.is_empty() {
            return Err(Error::invalid("a state without a name"));
        }
        let Some(slot) = self.states.get(name) else { return Ok(None) };
        let content = Arc::clone(&slot.lock());
        match content.mode() {
            stored if stored == mode => Ok(Some(content)),
            stored => Err(Error::incompatible(format!(
                "operator state {name:?}: stored is {stored:?}, asked for is {mode:?}"
            ))),
        }
    }

    /// Gives a state this content, for all its handles.
    fn set(&mut self, name: &str, content: Content) -> Slot {
        let content = Arc::new(content);
        let slot = self.states.entry(name.to_owned());
        let slot = slot.or_insert_with(|| Arc::new(Mutex::new(Arc::clone(&content))));
        *slot.lock() = content;
        Arc::clone(slot)
    }
}

/// Bytes that one serializer wrote as another writes them; without a reader they are the same.
fn convert<V: 'static>(
    reader: Option<&dyn Serializer<Value = V>>,
    writer: &dyn Serializer<Value = V>,
    bytes: &[u8],
) -> Result<Vec<u8>> {
    match reader {
        None => Ok(bytes.to_vec()),
        Some(reader) => Ok(encoded(writer, &reader.decode(bytes)?)),
    }
}

fn encoded<V: 'static>(serializer: &dyn Serializer<Value = V>, value: &V) -> Vec<u8> {
    let mut bytes = Vec::new();
    serializer.encode(value, &mut bytes);
    bytes
}

/// A list of an operator instance: Flink's `ListState` of an operator. Cheap calls, none of which
/// touches a disk; all handles of one state show the same list.
pub struct OperatorListState<T> {
    name: String,
    slot: Slot,
    serializer: Arc<dyn Serializer<Value = T>>,
}

impl<T: 'static> OperatorListState<T> {
    /// The state's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The elements in their order; empty if there are none: Flink's `get()`.
    ///
    /// # Errors
    /// `Corruption` if an element cannot be read.
    pub fn get(&self) -> Result<Vec<T>> {
        let content = Arc::clone(&self.slot.lock());
        let Content::List { chunks, .. } = &*content else { unreachable!("the mode was checked") };
        let elements = chunks.iter().flat_map(|chunk| &chunk.elements);
        let decoded = elements.map(|element| self.serializer.decode(element));
        decoded.collect::<Result<_>>().map_err(|e| in_state(&self.name, &e))
    }

    /// Appends an element: Flink's `add(T)`.
    pub fn add(&mut self, element: &T) {
        self.add_all(iter::once(element));
    }

    /// Appends all elements: Flink's `addAll`.
    pub fn add_all<'a>(&mut self, elements: impl IntoIterator<Item = &'a T>) {
        let encoded: Vec<_> =
            elements.into_iter().map(|element| encoded(&*self.serializer, element)).collect();
        self.change(|list| list.extend(encoded));
    }

    /// Replaces the list: Flink's `update(List)`.
    pub fn update<'a>(&mut self, elements: impl IntoIterator<Item = &'a T>) {
        let encoded =
            elements.into_iter().map(|element| encoded(&*self.serializer, element)).collect();
        self.change(|list| *list = encoded);
    }

    /// Removes all elements: Flink's `clear()`.
    pub fn clear(&mut self) {
        self.change(Vec::clear);
    }

    fn change(&mut self, f: impl FnOnce(&mut Vec<Vec<u8>>)) {
        let mut content = self.slot.lock();
        match Arc::make_mut(&mut content) {
            Content::List { chunks, .. } => f(&mut chunks[0].elements), // since it was asked for
            Content::Map { .. } => unreachable!("the mode was checked"),
        }
    }
}

/// A map of which every operator instance has a copy: Flink's `BroadcastState`. Cheap calls, none of
/// which touches a disk; all handles of one state show the same map.
pub struct BroadcastState<K, V> {
    name: String,
    slot: Slot,
    keys: Arc<dyn Serializer<Value = K>>,
    values: Arc<dyn Serializer<Value = V>>,
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

impl<K: 'static, V: 'static> BroadcastState<K, V> {
    /// The state's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of `key`, or `None`: Flink's `get(K)`.
    ///
    /// # Errors
    /// `Corruption` if the value cannot be read.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let key = encoded(&*self.keys, key);
        let value = self
            .read(|entries| entries.get(&key).map(|value| self.values.decode(value)).transpose());
        value.map_err(|e| in_state(&self.name, &e))
    }

    /// Is there an entry of `key`? Flink's `contains(K)`.
    pub fn contains(&self, key: &K) -> bool {
        let key = encoded(&*self.keys, key);
        self.read(|entries| entries.contains_key(&key))
    }

    /// All entries, in ascending order of their serialized keys: Flink's `entries()`. A copy.
    ///
    /// # Errors
    /// `Corruption` if an entry cannot be read.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let decode = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            Ok((self.keys.decode(key)?, self.values.decode(value)?))
        };
        let entries = self.read(|entries| entries.iter().map(decode).collect::<Result<_>>());
        entries.map_err(|e| in_state(&self.name, &e))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.read(BTreeMap::len)
    }

    /// Is the map empty?
    pub fn is_empty(&self) -> bool {
        self.read(BTreeMap::is_empty)
    }

    /// Gives `key` a value: Flink's `put(K, V)`.
    pub fn put(&mut self, key: &K, value: &V) {
        self.put_all(iter::once((key, value)));
    }

    /// Gives all these keys values: Flink's `putAll`.
    pub fn put_all<'a>(&mut self, entries: impl IntoIterator<Item = (&'a K, &'a V)>)
    where
        K: 'a,
        V: 'a,
    {
        let encode = |(key, value)| (encoded(&*self.keys, key), encoded(&*self.values, value));
        let new: Vec<_> = entries.into_iter().map(encode).collect();
        self.change(|entries| entries.extend(new));
    }

    /// Removes the entry of `key`, if there is one: Flink's `remove(K)`.
    pub fn remove(&mut self, key: &K) {
        let key = encoded(&*self.keys, key);
        self.change(|entries| drop(entries.remove(&key)));
    }

    /// Removes all entries: Flink's `clear()`.
    pub fn clear(&mut self) {
        self.change(BTreeMap::clear);
    }

    fn read<R>(&self, f: impl FnOnce(&Entries) -> R) -> R {
        match &**self.slot.lock() {
            Content::Map { entries, .. } => f(entries),
            Content::List { .. } => unreachable!("the mode was checked"),
        }
    }

    fn change(&mut self, f: impl FnOnce(&mut Entries)) {
        let mut content = self.slot.lock();
        match Arc::make_mut(&mut content) {
            Content::Map { entries, .. } => f(entries),
            Content::List { .. } => unreachable!("the mode was checked"),
        }
    }
}
