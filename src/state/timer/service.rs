//! The timer services of a backend, by name.

use crate::StateBackend;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::state::cell::Cell;
use crate::state::meta::StateKind;
use crate::state::registration::TIMERS;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;
use crate::state::serializer::UnitSerializer;
use crate::state::serializer::builtin;
use crate::state::timer::TimerQueue;
use crate::state::timer::TimerService;
use crate::state::timer::heads::Heads;

impl<K: 'static> StateBackend<K> {
    /// The timer service of this name, created if it does not exist: Flink's
    /// `getInternalTimerService`. Two queues, for event time and for processing time. Timers of a
    /// restored database are there again.
    ///
    /// The first time ever, this costs a manifest write and an entry a key group for each queue.
    ///
    /// # Errors
    /// `Incompatible`: the service has namespaces of another type. `InvalidArgument`: the name is
    /// empty or too long. Those of the database.
    pub fn timer_service<N: Builtin>(&mut self, name: &str) -> Result<TimerService<K, N>> {
        self.timer_service_with(name, builtin::<N>())
    }

    /// [`timer_service`](StateBackend::timer_service), with this serializer of namespaces.
    ///
    /// # Errors
    /// The same.
    pub fn timer_service_with<N: 'static>(
        &mut self,
        name: &str,
        namespaces: impl Serializer<Value = N>,
    ) -> Result<TimerService<K, N>> {
        if name.is_empty() {
            return Err(Error::invalid("a timer service needs a name"));
        }
        let namespaces: Arc<dyn Serializer<Value = N>> = Arc::new(namespaces);
        let event = self.timer_queue(format!("{TIMERS}event_{name}"), &namespaces)?;
        let processing = self.timer_queue(format!("{TIMERS}processing_{name}"), &namespaces)?;
        Ok(TimerService::new(event, processing))
    }

    fn timer_queue<N: 'static>(
        &mut self,
        name: String,
        namespaces: &Arc<dyn Serializer<Value = N>>,
    ) -> Result<TimerQueue<K, N>> {
        let none = Arc::new(UnitSerializer);
        let (cell, _) =
            self.open_state(&name, StateKind::Timers, Arc::clone(namespaces), None, none)?;
        let (groups, page) = (self.options.key_groups, self.options.timer_cache);
        let new = || Arc::new(Mutex::new(Heads::new(groups, page)));
        let heads = Arc::clone(self.timers.entry(name).or_insert_with(new));
        Ok(TimerQueue::new(cell, heads, Arc::clone(&self.keys)))
    }

    /// Goes to a key of which only the bytes are at hand. Its group must be one of the backend's.
    pub(in crate::state) fn set_current_key_bytes(&mut self, group: u16, key: &[u8]) {
        assert!(self.options.key_groups.contains(group), "a timer of another backend");
        self.current.set_key(group, |out| out.extend_from_slice(key));
        self.shared.0.set_key(&mut self.current);
    }

    /// Is this a cell of a state of this backend?
    pub(in crate::state) fn owns<N: 'static>(&self, cell: &Cell<N>) -> bool {
        cell.is_of(&self.shared.0)
    }
}
