//! Timers: what is to be done for which key, and when.
//!
//! A queue of timers is a column family whose keys begin with the key group and the time (F6.2), with
//! no values: registering is a put, deleting a delete, and the order of keys is that of time. The
//! first timers of each key group are held in memory; see [`heads`]. A checkpoint needs nothing
//! special: timers are data like any other, and belong to their key groups.

pub(in crate::state) mod heads;
mod held;
mod service;
mod tournament;

use crate::Scan;
use crate::StateBackend;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::state::cell::Cell;
use crate::state::key::KeyShape;
use crate::state::key::TimerKey;
use crate::state::key::group_of;
use crate::state::key::put_timer_head;
use crate::state::key_group::PREFIX_BYTES;
use crate::state::meta::in_state;
use crate::state::serializer::Serializer;
use crate::state::snapshot::StateSnapshot;
use crate::state::timer::heads::Heads;
use crate::state::timer::heads::Store;

/// A timer: Flink's `InternalTimer`. Timers are equal if all three parts are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer<K, N = ()> {
    /// When it fires, in milliseconds since 1970; may be negative.
    pub time: i64,
    /// The key that was current when it was registered.
    pub key: K,
    /// Whatever it was registered with: a window, say.
    pub namespace: N,
}

/// A set of timers in the order of their times: Flink's `KeyGroupedInternalPriorityQueue`, one for
/// each kind of time of a [`TimerService`].
///
/// Timers of equal times come in the order of the bytes of their key, then of their namespace (with
/// lengths before parts of variable width), whatever their key groups.
///
/// Besides the errors named, all calls return those of the database, and `InvalidArgument` after the
/// backend is closed.
pub struct TimerQueue<K, N = ()> {
    cell: Cell<N>,
    heads: Arc<Mutex<Heads>>,
    keys: Arc<dyn Serializer<Value = K>>,
    namespaces: Arc<dyn Serializer<Value = N>>,
    /// The key of the timer that is looked at.
    buffer: Vec<u8>,
}

impl<K: 'static, N: 'static> TimerQueue<K, N> {
    pub(in crate::state) fn new(
        cell: Cell<N>,
        heads: Arc<Mutex<Heads>>,
        keys: Arc<dyn Serializer<Value = K>>,
    ) -> TimerQueue<K, N> {
        let namespaces = cell.namespaces();
        TimerQueue { cell, heads, keys, namespaces, buffer: Vec::new() }
    }

    /// Registers a timer of the current key: Flink's `add`. A timer that is there already stays as it
    /// is. `false` means that the head of the queue is certainly as before.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is set.
    pub fn add(&mut self, time: i64, namespace: &N) -> Result<bool> {
        self.change(time, namespace, Heads::add)
    }

    /// Deletes a timer of the current key, if it is there: Flink's `remove`. `false` means that the
    /// head of the queue is certainly as before.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is set.
    pub fn remove(&mut self, time: i64, namespace: &N) -> Result<bool> {
        self.change(time, namespace, Heads::remove)
    }

    fn change(
        &mut self,
        time: i64,
        namespace: &N,
        change: impl FnOnce(&mut Heads, Store<'_>, &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let TimerQueue { cell, heads, buffer, .. } = self;
        cell.set_namespace(namespace);
        cell.with(|db, family, builder| {
            let (group, rest) = builder.cell().split_at(PREFIX_BYTES);
            buffer.clear();
            put_timer_head(group_of(group), time, buffer);
            buffer.extend_from_slice(rest);
            change(&mut heads.lock(), Store { db, family }, buffer)
        })
    }

    /// The first timer: Flink's `peek`. Reads the store only where what is held in memory has come to
    /// an end: at most one seek for each of as many timers.
    pub fn peek(&mut self) -> Result<Option<Timer<K, N>>> {
        if self.find_head(i64::MAX)? { self.decode_head().map(Some) } else { Ok(None) }
    }

    /// Removes and returns the first timer: Flink's `poll`. The current key does not change. As
    /// [`peek`](TimerQueue::peek), and one write.
    pub fn poll(&mut self) -> Result<Option<Timer<K, N>>> {
        self.poll_until(i64::MAX)
    }

    /// Removes and returns the first timer if its time is not after `time`. As
    /// [`poll`](TimerQueue::poll); without such a timer as [`peek`](TimerQueue::peek).
    pub fn poll_until(&mut self, time: i64) -> Result<Option<Timer<K, N>>> {
        if !self.find_head(time)? {
            return Ok(None);
        }
        let timer = self.decode_head()?;
        self.delete_head()?;
        Ok(Some(timer))
    }

    /// Is there no timer? Flink's `isEmpty`. As [`peek`](TimerQueue::peek).
    pub fn is_empty(&mut self) -> Result<bool> {
        Ok(!self.find_head(i64::MAX)?)
    }

    /// Number of timers: Flink's `size`. Visits all of them.
    #[allow(clippy::len_without_is_empty)] // it takes `&mut`
    pub fn len(&mut self) -> Result<usize> {
        let mut count = 0;
        self.iter()?.try_for_each(|timer| timer.map(|_| count += 1))?;
        Ok(count)
    }

    /// All timers, by key group and then by time, as they are now: whatever is registered or deleted
    /// later, the iterator does not see. Flink's `iterator`, which promises no order.
    pub fn iter(&mut self) -> Result<TimerIter<K, N>> {
        let range = self.heads.lock().key_groups().key_range();
        self.scan(range)
    }

    /// All timers as a snapshot of the backend shows them, in the same order.
    ///
    /// # Errors
    /// `InvalidArgument`: a snapshot of another backend, or from before a rollback.
    pub fn iter_at(&self, snapshot: &StateSnapshot<K>) -> Result<TimerIter<K, N>> {
        let range = snapshot.key_groups().key_range();
        Ok(self.visit(self.cell.scan_view(snapshot.view(), range)?))
    }

    /// The timers of one key group, by time: Flink's `getSubsetForKeyGroup`. None if the group is not
    /// one of the backend's.
    pub fn key_group(&mut self, group: u16) -> Result<TimerIter<K, N>> {
        self.scan(KeyRange::prefix(&group.to_be_bytes()))
    }

    fn scan(&mut self, range: KeyRange) -> Result<TimerIter<K, N>> {
        Ok(self.visit(self.cell.store(|db, family| db.scan_range(family, range, None))?))
    }

    fn visit(&self, scan: Scan) -> TimerIter<K, N> {
        let shape = self.cell.shape();
        let (keys, namespaces) = (Arc::clone(&self.keys), Arc::clone(&self.namespaces));
        let name = self.cell.name().to_owned();
        TimerIter { scan: Some(scan), shape, keys, namespaces, name }
    }

    /// Puts the key of the first timer into the buffer, if there is one and it is not after `time`.
    fn find_head(&mut self, time: i64) -> Result<bool> {
        let TimerQueue { cell, heads, buffer, .. } = self;
        let latest = (time ^ i64::MIN) as u64;
        cell.store(|db, family| {
            let mut heads = heads.lock();
            let Some((timer, group)) = heads.head(Store { db, family })? else { return Ok(false) };
            if timer.flipped_time() > latest {
                return Ok(false);
            }
            buffer.clear();
            buffer.extend_from_slice(&group.to_be_bytes());
            timer.put(buffer);
            Ok(true)
        })
    }

    /// Deletes the timer that [`find_head`](TimerQueue::find_head) found.
    fn delete_head(&mut self) -> Result<()> {
        let TimerQueue { cell, heads, buffer, .. } = self;
        cell.store(|db, family| heads.lock().remove(Store { db, family }, buffer)).map(drop)
    }

    /// The timer that [`find_head`](TimerQueue::find_head) found.
    fn decode_head(&self) -> Result<Timer<K, N>> {
        let timer = self.cell.shape().parse_timer(&self.buffer);
        timer.and_then(|timer| self.decode(&timer)).map_err(|e| in_state(self.cell.name(), &e))
    }

    fn decode(&self, timer: &TimerKey<'_>) -> Result<Timer<K, N>> {
        decode(timer, &*self.keys, &*self.namespaces)
    }
}

fn decode<K: 'static, N: 'static>(
    timer: &TimerKey<'_>,
    keys: &dyn Serializer<Value = K>,
    namespaces: &dyn Serializer<Value = N>,
) -> Result<Timer<K, N>> {
    let (key, namespace) = (keys.decode(timer.key)?, namespaces.decode(timer.namespace)?);
    Ok(Timer { time: timer.time, key, namespace })
}

/// Visits timers, as they were when it was made. Borrows nothing; keeps what it may yet show from
/// being removed, so drop it when done. After an error it ends.
pub struct TimerIter<K, N> {
    /// `None` after the end.
    scan: Option<Scan>,
    shape: KeyShape,
    keys: Arc<dyn Serializer<Value = K>>,
    namespaces: Arc<dyn Serializer<Value = N>>,
    name: String,
}

impl<K: 'static, N: 'static> TimerIter<K, N> {
    fn step(&self, scan: &mut Scan) -> Result<Option<Timer<K, N>>> {
        if !scan.next()? {
            return Ok(None);
        }
        let timer = self.shape.parse_timer(scan.key());
        let timer = timer.and_then(|timer| decode(&timer, &*self.keys, &*self.namespaces));
        timer.map(Some).map_err(|e| in_state(&self.name, &e))
    }
}

impl<K: 'static, N: 'static> Iterator for TimerIter<K, N> {
    type Item = Result<Timer<K, N>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut scan = self.scan.take()?;
        let item = self.step(&mut scan).transpose()?;
        if item.is_ok() {
            self.scan = Some(scan);
        }
        Some(item)
    }
}

impl<K: 'static, N: 'static> std::iter::FusedIterator for TimerIter<K, N> {}

/// Two queues of timers under one name, one for event time and one for processing time: Flink's
/// `InternalTimerService`. Several handles of one name are one service.
///
/// Timers belong to the backend's current key. They fire where the caller asks for them: after
/// [`advance_watermark`](TimerService::advance_watermark), in a loop. So the loop may stop at any
/// timer and go on later (Flink's `tryAdvanceWatermark`), and what it registers or deletes counts at
/// once. The time itself is not part of a checkpoint: after a restore it is `i64::MIN`, as in Flink.
///
/// ```
/// # use alluvium::{BackendOptions, Env, KeyGroupRange, MemoryBudget, StateBackend};
/// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
/// # let env = Env::new(MemoryBudget::new(64 << 20)).with_fs(fs);
/// # let dir = std::path::Path::new("state");
/// # let options = BackendOptions::new(128, KeyGroupRange::new(0, 127)?);
/// # let mut backend = StateBackend::<String>::open(dir, options, env)?;
/// let mut delay = backend.value_state::<i64>("delay")?;
/// let mut timers = backend.timer_service::<()>("user-timers")?;
/// backend.set_current_key(&"N328AA".into())?;
/// delay.update(&7)?;
/// timers.register_event_time_timer(&(), 1_000)?;
///
/// timers.advance_watermark(1_500);
/// while let Some(timer) = timers.next_event_time_timer(&mut backend)? {
///     assert_eq!((timer.time, &*timer.key), (1_000, "N328AA"));
///     assert_eq!(delay.value()?, Some(7)); // its key is the current one
///     timers.register_event_time_timer(&(), timer.time + 1_000)?;
/// }
/// # assert_eq!(timers.event_time().peek()?.map(|timer| timer.time), Some(2_000));
/// # Ok::<(), alluvium::Error>(())
/// ```
///
/// | Flink | alluvium |
/// |---|---|
/// | `registerEventTimeTimer(namespace, time)` | the same, in snake case; so are the other three |
/// | `advanceWatermark`, `onEventTime` | [`advance_watermark`](TimerService::advance_watermark), [`next_event_time_timer`](TimerService::next_event_time_timer) |
/// | `onProcessingTime` | [`advance_processing_time`](TimerService::advance_processing_time), [`next_processing_time_timer`](TimerService::next_processing_time_timer) |
/// | the one timer set in the `ProcessingTimeService` | [`next_processing_time`](TimerService::next_processing_time) |
/// | `forEachEventTimeTimer`, `numEventTimeTimers(namespace)` | [`event_time`](TimerService::event_time)`.iter()` |
/// | `numEventTimeTimers()` | the same, in snake case |
pub struct TimerService<K, N = ()> {
    event: TimerQueue<K, N>,
    processing: TimerQueue<K, N>,
}

impl<K: 'static, N: 'static> TimerService<K, N> {
    pub(in crate::state) fn new(
        event: TimerQueue<K, N>,
        processing: TimerQueue<K, N>,
    ) -> TimerService<K, N> {
        TimerService { event, processing }
    }

    /// Registers a timer of the current key. One write, and nothing if it is known to be there.
    ///
    /// # Errors
    /// `InvalidArgument` if no key is set. Those of the database.
    pub fn register_event_time_timer(&mut self, namespace: &N, time: i64) -> Result<()> {
        self.event.add(time, namespace).map(drop)
    }

    /// Deletes a timer of the current key; no error if there is none.
    ///
    /// # Errors
    /// As [`register_event_time_timer`](TimerService::register_event_time_timer).
    pub fn delete_event_time_timer(&mut self, namespace: &N, time: i64) -> Result<()> {
        self.event.remove(time, namespace).map(drop)
    }

    /// [`register_event_time_timer`](TimerService::register_event_time_timer), of processing time.
    ///
    /// # Errors
    /// The same.
    pub fn register_processing_time_timer(&mut self, namespace: &N, time: i64) -> Result<()> {
        self.processing.add(time, namespace).map(drop)
    }

    /// [`delete_event_time_timer`](TimerService::delete_event_time_timer), of processing time.
    ///
    /// # Errors
    /// The same.
    pub fn delete_processing_time_timer(&mut self, namespace: &N, time: i64) -> Result<()> {
        self.processing.remove(time, namespace).map(drop)
    }

    /// The watermark: what [`advance_watermark`](TimerService::advance_watermark) said last;
    /// `i64::MIN` at first.
    pub fn current_watermark(&self) -> i64 {
        self.event.heads.lock().now
    }

    /// Event time has come to `watermark`: timers up to it, and at it, are due. A watermark below the
    /// current one is taken as it is, as in Flink: whoever sends them sees to it that they grow.
    pub fn advance_watermark(&mut self, watermark: i64) {
        self.event.heads.lock().now = watermark;
    }

    /// Removes the first timer that is due, makes its key the backend's current key, and returns it;
    /// `None` if none is due. Call it until then: also timers registered meanwhile are returned. Costs
    /// what [`TimerQueue::poll`] does: one write.
    ///
    /// # Errors
    /// `InvalidArgument` if the service is another backend's. Those of the database; the current key
    /// may then have changed.
    pub fn next_event_time_timer(
        &mut self,
        backend: &mut StateBackend<K>,
    ) -> Result<Option<Timer<K, N>>> {
        fire(&mut self.event, backend)
    }

    /// What [`advance_processing_time`](TimerService::advance_processing_time) said last; `i64::MIN`
    /// at first.
    pub fn current_processing_time(&self) -> i64 {
        self.processing.heads.lock().now
    }

    /// The clock shows `now`: timers of processing time up to it, and at it, are due.
    pub fn advance_processing_time(&mut self, now: i64) {
        self.processing.heads.lock().now = now;
    }

    /// [`next_event_time_timer`](TimerService::next_event_time_timer), of processing time.
    ///
    /// # Errors
    /// The same.
    pub fn next_processing_time_timer(
        &mut self,
        backend: &mut StateBackend<K>,
    ) -> Result<Option<Timer<K, N>>> {
        fire(&mut self.processing, backend)
    }

    /// When the clock must be looked at next, if any timer of processing time is registered. Ask
    /// after a restore, too: timers may have become due meanwhile.
    ///
    /// # Errors
    /// Those of the database.
    pub fn next_processing_time(&mut self) -> Result<Option<i64>> {
        Ok(self.processing.peek()?.map(|timer| timer.time))
    }

    /// Number of timers of event time. Visits all of them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn num_event_time_timers(&mut self) -> Result<usize> {
        self.event.len()
    }

    /// Number of timers of processing time. Visits all of them.
    ///
    /// # Errors
    /// Those of the database.
    pub fn num_processing_time_timers(&mut self) -> Result<usize> {
        self.processing.len()
    }

    /// The timers of event time.
    pub fn event_time(&mut self) -> &mut TimerQueue<K, N> {
        &mut self.event
    }

    /// The timers of processing time.
    pub fn processing_time(&mut self) -> &mut TimerQueue<K, N> {
        &mut self.processing
    }
}

/// Sets the key, then removes the timer, as in Flink. When none is due any more, the task has a moment
/// for what has expired.
fn fire<K: 'static, N: 'static>(
    queue: &mut TimerQueue<K, N>,
    backend: &mut StateBackend<K>,
) -> Result<Option<Timer<K, N>>> {
    if !backend.owns(&queue.cell) {
        return Err(Error::invalid("the timer service is of another backend"));
    }
    let now = queue.heads.lock().now;
    if !queue.find_head(now)? {
        backend.look_for_expired();
        return Ok(None);
    }
    let parts = queue.cell.shape().parse_timer(&queue.buffer);
    let timer = parts.and_then(|parts| {
        let timer = queue.decode(&parts)?;
        backend.set_current_key_bytes(parts.group, parts.key);
        Ok(timer)
    });
    let timer = timer.map_err(|e| in_state(queue.cell.name(), &e))?;
    queue.delete_head()?;
    Ok(Some(timer))
}

#[cfg(test)]
mod tests;
