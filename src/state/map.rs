//! A map for each key.

use std::iter::FusedIterator;

use crate::ColumnFamily;
use crate::Scan;
use crate::WriteBatch;
use crate::WriteOptions;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::cell::Cell;
use crate::state::change::modify;
use crate::state::meta::in_state;
use crate::state::serializer::Serializer;
use crate::state::snapshot::StateSnapshot;
use crate::state::ttl::Toucher;

/// Up to this many entries are removed one by one; beyond it one range delete is cheaper, although
/// every later read of the state asks for range deletes.
const CLEAR_ONE_BY_ONE_MAX: usize = 64;

/// A map for each key and namespace: Flink's `MapState`. Each entry lies in the database by itself.
///
/// All calls concern the backend's current key and this handle's current namespace. They return
/// `InvalidArgument` if there is no current key or namespace, or the backend is closed; otherwise
/// the errors of the database.
///
/// A null user value of Flink is an `Option` as the type of the value: it is an entry like any other.
pub struct MapState<K, V, N = ()> {
    pub(in crate::state) cell: Cell<N>,
    pub(in crate::state) keys: Arc<dyn Serializer<Value = K>>,
    pub(in crate::state) values: Arc<dyn Serializer<Value = V>>,
    buffer: Vec<u8>,
    batch: WriteBatch,
}

impl<K: 'static, V: 'static, N: 'static> MapState<K, V, N> {
    pub(in crate::state) fn new(
        cell: Cell<N>,
        keys: Arc<dyn Serializer<Value = K>>,
        values: Arc<dyn Serializer<Value = V>>,
    ) -> MapState<K, V, N> {
        MapState { cell, keys, values, buffer: Vec::new(), batch: WriteBatch::new() }
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
    pub fn at<BK: 'static>(&self, snapshot: &StateSnapshot<BK>) -> Result<MapState<K, V, N>> {
        let cell = self.cell.at(snapshot.view())?;
        Ok(MapState::new(cell, Arc::clone(&self.keys), Arc::clone(&self.values)))
    }

    /// Goes to another namespace, which stays current, whatever the key, until the next call: Flink's
    /// `setCurrentNamespace`. Serializes it; touches no data.
    pub fn set_current_namespace(&mut self, namespace: &N) {
        self.cell.set_namespace(namespace);
    }

    /// The value of `key`, or `None`: Flink's `get(UK)`. One lookup.
    pub fn get(&mut self, key: &K) -> Result<Option<V>> {
        let (keys, values) = (&*self.keys, &*self.values);
        self.cell.read_entry(
            |out| keys.encode(key, out),
            |bytes| bytes.map(|bytes| values.decode(bytes)).transpose(),
        )
    }

    /// Gives `key` a value: Flink's `put(UK, UV)`. One write, reads nothing.
    pub fn put(&mut self, key: &K, value: &V) -> Result<()> {
        self.buffer.clear();
        self.values.encode(value, &mut self.buffer);
        let keys = &*self.keys;
        self.cell.put_entry(|out| keys.encode(key, out), &self.buffer)
    }

    /// Gives all these keys values, or none of them: Flink's `putAll`. One write.
    ///
    /// # Errors
    /// `InvalidArgument` besides, if all together exceed 128 MiB.
    pub fn put_all<'a>(&mut self, entries: impl IntoIterator<Item = (&'a K, &'a V)>) -> Result<()>
    where
        K: 'a,
        V: 'a,
    {
        let (keys, values) = (&*self.keys, &*self.values);
        let (buffer, batch) = (&mut self.buffer, &mut self.batch);
        batch.clear();
        self.cell.with(|db, family, builder| {
            for (key, value) in entries {
                buffer.clear();
                values.encode(value, buffer);
                batch.put(family, builder.entry(|out| keys.encode(key, out)), buffer);
            }
            if batch.is_empty() {
                return Ok(());
            }
            db.write(batch, WriteOptions::default()).map(drop)
        })
    }

    /// Replaces the value of `key` by what `f` makes of it, where `None` is no entry: `get` and `put`
    /// or `remove` in one step. See [`ValueState::update_with`](crate::ValueState::update_with).
    pub fn update_with(&mut self, key: &K, f: impl FnMut(Option<V>) -> Option<V>) -> Result<()> {
        let keys = &*self.keys;
        modify(&*self.values, f, |f| self.cell.update_entry(|out| keys.encode(key, out), f))
            .map_err(|e| in_state(self.cell.name(), &e))
    }

    /// Removes the entry of `key`: Flink's `remove(UK)`. One write; no error if there is none.
    pub fn remove(&mut self, key: &K) -> Result<()> {
        let keys = &*self.keys;
        self.cell.delete_entry(|out| keys.encode(key, out))
    }

    /// Is there an entry of `key`? Flink's `contains(UK)`. One lookup, decodes nothing.
    pub fn contains(&mut self, key: &K) -> Result<bool> {
        let keys = &*self.keys;
        self.cell.read_entry(|out| keys.encode(key, out), |bytes| Ok(bytes.is_some()))
    }

    /// Is the map empty? Flink's `isEmpty()`. Looks for the first entry, as a cursor does.
    pub fn is_empty(&mut self) -> Result<bool> {
        Ok(!self.cell.has_entries()?)
    }

    /// The entries in ascending order of their serialized keys: Flink's `entries()` and `iterator()`.
    ///
    /// The iterator shows the map of the key and namespace that are current *now*, as it is now,
    /// whatever becomes current or is written later. So the map may be changed in the loop; where
    /// Flink calls `iterator.remove()`, call [`remove`](MapState::remove). Drop it when done: it
    /// keeps what it may yet show from being removed from memory and disk.
    pub fn iter(&mut self) -> Result<MapIter<(K, V)>> {
        let (keys, values) = (Arc::clone(&self.keys), Arc::clone(&self.values));
        self.visit(move |key, value| Ok((keys.decode(key)?, values.decode(value)?)))
    }

    /// The keys in ascending order of their serialized form: Flink's `keys()`. As
    /// [`iter`](MapState::iter), but decodes no values.
    pub fn keys(&mut self) -> Result<MapIter<K>> {
        let keys = Arc::clone(&self.keys);
        self.visit(move |key, _| keys.decode(key))
    }

    /// The values in the order of their serialized keys: Flink's `values()`. As
    /// [`iter`](MapState::iter), but decodes no keys.
    pub fn values(&mut self) -> Result<MapIter<V>> {
        let values = Arc::clone(&self.values);
        self.visit(move |_, value| values.decode(value))
    }

    fn visit<T>(
        &mut self,
        decode: impl Fn(&[u8], &[u8]) -> Result<T> + Send + 'static,
    ) -> Result<MapIter<T>> {
        let (scan, prefix_len) = self.cell.scan()?;
        let (family, toucher) = (self.cell.family(), self.cell.toucher());
        Ok(MapIter { scan: Some(scan), prefix_len, family, decode: Box::new(decode), toucher })
    }

    /// Removes all entries, or none: Flink's `clear()`. Reads up to 65 keys; one write.
    pub fn clear(&mut self) -> Result<()> {
        let (mut scan, _) = self.cell.scan()?;
        self.batch.clear();
        let batch = &mut self.batch;
        self.cell.with(|db, family, builder| {
            while scan.next()? {
                if batch.count() == CLEAR_ONE_BY_ONE_MAX as u64 {
                    let range = builder.cell_range();
                    let end = range.end.expect("key groups are below 1 << 15");
                    return db.delete_range(family, &range.start, &end);
                }
                batch.delete(family, scan.key());
            }
            if batch.is_empty() {
                return Ok(());
            }
            db.write(batch, WriteOptions::default()).map(drop)
        })
    }
}

/// Turns the bytes of a user key and a value into what an iterator yields.
type Decode<T> = Box<dyn Fn(&[u8], &[u8]) -> Result<T> + Send>;

/// Visits a map: its entries, keys or values; the iterator of Flink's `entries`, `keys` and `values`. It belongs to the cell and the moment at which it was
/// made, and borrows nothing. After an error it ends.
pub struct MapIter<T> {
    /// `None` after the end.
    scan: Option<Scan>,
    /// Bytes of a composite key before the user key.
    prefix_len: usize,
    family: ColumnFamily,
    decode: Decode<T>,
    /// If entries expire.
    toucher: Option<Toucher>,
}

impl<T> MapIter<T> {
    fn step(&self, scan: &mut Scan) -> Result<Option<T>> {
        loop {
            if !scan.next()? {
                return Ok(None);
            }
            let Some(toucher) = &self.toucher else { break };
            let (key, value) = scan.entry().expect("a step leads to an entry");
            if toucher.read(key, value)? {
                break;
            }
        }
        let (key, value) = scan.entry().expect("a step leads to an entry");
        let decoded = (self.decode)(&key[self.prefix_len..], value);
        decoded.map(Some).map_err(|e| in_state(self.family.name(), &e))
    }
}

impl<T> Iterator for MapIter<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        let mut scan = self.scan.take()?;
        let item = self.step(&mut scan).transpose()?;
        if item.is_ok() {
            self.scan = Some(scan);
        }
        Some(item)
    }
}

impl<T> FusedIterator for MapIter<T> {}
