//! Writes of several states that take effect together.

use crate::WriteBatch;
use crate::WriteOptions;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::aggregating::AggregateFunction;
use crate::state::aggregating::AggregatingState;
use crate::state::cell::Cell;
use crate::state::cell::Shared;
use crate::state::list::ListState;
use crate::state::map::MapState;
use crate::state::reducing::ReducingState;
use crate::state::value::ValueState;

/// Collects writes of any states of one backend, to be written all or nothing: nobody sees, and no
/// checkpoint or crash keeps, some without the others. Each write goes to the key and namespace that
/// are current when it is collected; reads do not see it before [`commit`](StateBatch::commit).
///
/// What must read before it writes, such as adding to a reducing state, cannot be collected; nor can
/// timers, whose heads are held in memory. Where values expire, they are as old as when they were
/// collected.
///
/// ```
/// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
/// # let env = alluvium::Env::new(alluvium::MemoryBudget::new(64 << 20)).with_fs(fs);
/// # let options = alluvium::BackendOptions::new(128, alluvium::KeyGroupRange::new(0, 127)?);
/// # let dir = std::path::Path::new("state");
/// # let mut backend = alluvium::StateBackend::<String>::open(dir, options, env)?;
/// let mut balance = backend.value_state::<i64>("balance")?;
/// let mut booked = backend.list_state::<i64>("booked")?;
/// let mut batch = backend.batch();
/// for (key, amount) in [("from", -5), ("to", 5)] {
///     backend.set_current_key(&key.into())?;
///     batch.update(&mut balance, &amount)?;
///     batch.add(&mut booked, &amount)?;
/// }
/// batch.commit()?;
/// # assert_eq!(balance.value()?, Some(5));
/// # Ok::<(), alluvium::Error>(())
/// ```
pub struct StateBatch {
    shared: Arc<Shared>,
    batch: WriteBatch,
    buffer: Vec<u8>,
}

impl StateBatch {
    pub(in crate::state) fn new(shared: Arc<Shared>) -> StateBatch {
        StateBatch { shared, batch: WriteBatch::new(), buffer: Vec::new() }
    }

    /// Sets a value. This and all that follow serialize, and touch no data before the
    /// [`commit`](StateBatch::commit).
    ///
    /// # Errors
    /// `InvalidArgument`: no current key or namespace, or a handle of another backend. The same for
    /// all that follow.
    pub fn update<V: 'static, N: 'static>(
        &mut self,
        state: &mut ValueState<V, N>,
        value: &V,
    ) -> Result<()> {
        self.check(&state.cell)?;
        self.buffer.clear();
        state.serializer.encode(value, &mut self.buffer);
        let (batch, buffer) = (&mut self.batch, &self.buffer);
        state.cell.with(|_, family, builder| {
            batch.put(family, builder.cell(), buffer);
            Ok(())
        })
    }

    /// Appends an element to a list.
    ///
    /// # Errors
    /// The same.
    pub fn add<T: 'static, N: 'static>(
        &mut self,
        state: &mut ListState<T, N>,
        element: &T,
    ) -> Result<()> {
        self.check(&state.cell)?;
        self.buffer.clear();
        state.encode_into([element], &mut self.buffer);
        let (batch, buffer) = (&mut self.batch, &self.buffer);
        state.cell.with(|_, family, builder| {
            batch.merge(family, builder.cell(), buffer);
            Ok(())
        })
    }

    /// Gives a key of a map a value.
    ///
    /// # Errors
    /// The same.
    pub fn put<K: 'static, V: 'static, N: 'static>(
        &mut self,
        state: &mut MapState<K, V, N>,
        key: &K,
        value: &V,
    ) -> Result<()> {
        self.check(&state.cell)?;
        self.buffer.clear();
        state.values.encode(value, &mut self.buffer);
        let (batch, buffer, keys) = (&mut self.batch, &self.buffer, &*state.keys);
        state.cell.with(|_, family, builder| {
            batch.put(family, builder.entry(|out| keys.encode(key, out)), buffer);
            Ok(())
        })
    }

    /// Removes the entry of a key from a map.
    ///
    /// # Errors
    /// The same.
    pub fn remove<K: 'static, V: 'static, N: 'static>(
        &mut self,
        state: &mut MapState<K, V, N>,
        key: &K,
    ) -> Result<()> {
        self.check(&state.cell)?;
        let (batch, keys) = (&mut self.batch, &*state.keys);
        state.cell.with(|_, family, builder| {
            batch.delete(family, builder.entry(|out| keys.encode(key, out)));
            Ok(())
        })
    }

    /// Clears a state of any type; a map by a range delete, which all later reads of the state ask for
    /// until it is compacted away: clear a small map with [`MapState::clear`].
    ///
    /// # Errors
    /// The same.
    pub fn clear(&mut self, state: &mut impl Clear) -> Result<()> {
        state.clear_in(self)
    }

    /// Number of writes collected.
    pub fn len(&self) -> usize {
        self.batch.count() as usize
    }

    /// Has nothing been collected?
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Writes everything, all or nothing; then the batch is empty and can be used again.
    ///
    /// # Errors
    /// `InvalidArgument`: the backend is closed, or a limit is exceeded, such as 128 MiB in all.
    /// `NotFound`: a state was dropped. Those of writes. The batch stays as it is.
    pub fn commit(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.shared.db()?.write(&self.batch, WriteOptions::default())?;
            self.batch.clear();
        }
        Ok(())
    }

    fn check<N: 'static>(&self, cell: &Cell<N>) -> Result<()> {
        match cell.is_of(&self.shared) {
            true => Ok(()),
            false => Err(Error::invalid("a state of another backend, or of a snapshot")),
        }
    }

    fn delete_cell<N: 'static>(&mut self, cell: &mut Cell<N>) -> Result<()> {
        self.check(cell)?;
        let batch = &mut self.batch;
        cell.with(|_, family, builder| {
            batch.delete(family, builder.cell());
            Ok(())
        })
    }
}

/// A state that a [`StateBatch`] can clear.
pub trait Clear {
    /// Adds the clearing of the current cell to a batch: [`StateBatch::clear`].
    ///
    /// # Errors
    /// Those of [`StateBatch::update`].
    fn clear_in(&mut self, batch: &mut StateBatch) -> Result<()>;
}

impl<V: 'static, N: 'static> Clear for ValueState<V, N> {
    fn clear_in(&mut self, batch: &mut StateBatch) -> Result<()> {
        batch.delete_cell(&mut self.cell)
    }
}

impl<T: 'static, N: 'static> Clear for ListState<T, N> {
    fn clear_in(&mut self, batch: &mut StateBatch) -> Result<()> {
        batch.delete_cell(&mut self.cell)
    }
}

impl<V: 'static, N: 'static> Clear for ReducingState<V, N> {
    fn clear_in(&mut self, batch: &mut StateBatch) -> Result<()> {
        batch.delete_cell(&mut self.cell)
    }
}

impl<A: AggregateFunction, N: 'static> Clear for AggregatingState<A, N> {
    fn clear_in(&mut self, batch: &mut StateBatch) -> Result<()> {
        batch.delete_cell(&mut self.cell)
    }
}

impl<K: 'static, V: 'static, N: 'static> Clear for MapState<K, V, N> {
    fn clear_in(&mut self, batch: &mut StateBatch) -> Result<()> {
        batch.check(&self.cell)?;
        let batch = &mut batch.batch;
        self.cell.with(|_, family, builder| {
            let range = builder.cell_range();
            let end = range.end.expect("key groups are below 1 << 15");
            batch.delete_range(family, &range.start, &end);
            Ok(())
        })
    }
}
