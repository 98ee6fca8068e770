//! Channels, of a lock and a condition: as much of them as the engine uses.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Mutex;
#[cfg(feature = "shuttle")]
use super::{ARRIVAL, GATE};

struct Channel<T> {
    state: Mutex<State<T>>,
    capacity: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receivers: usize,
}

/// Something happened to a channel.
#[cfg(feature = "shuttle")]
fn tell() {
    drop(GATE.lock());
    ARRIVAL.notify_all();
}

/// In the kernels that loom checks nobody waits for a channel.
#[cfg(feature = "loom")]
fn tell() {}

/// Waits until `ready` has an answer; asks again whenever something happened to a channel.
#[cfg(feature = "shuttle")]
pub fn wait_for<R>(mut ready: impl FnMut() -> Option<R>) -> R {
    let mut gate = GATE.lock();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        ARRIVAL.wait(&mut gate);
    }
}

pub struct Sender<T>(Arc<Channel<T>>);
pub struct Receiver<T>(Arc<Channel<T>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    Empty,
    Disconnected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendError<T>(pub T);

pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), senders: 1, receivers: 1 };
    let channel = Arc::new(Channel { state: Mutex::new(state), capacity });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Sender<T> {
    /// Never waits: the engine sends without waiting, or without bounds.
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state.lock();
        if state.receivers == 0 || state.queue.len() >= self.0.capacity {
            return Err(SendError(item));
        }
        state.queue.push_back(item);
        drop(state);
        tell();
        Ok(())
    }

    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        assert!(self.0.capacity == usize::MAX, "the engine waits for no receiver");
        self.try_send(item)
    }
}

impl<T> Receiver<T> {
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut state = self.0.state.lock();
        match state.queue.pop_front() {
            Some(item) => Ok(item),
            None if state.senders == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// There is something to receive, or the end.
    pub fn is_ready(&self) -> bool {
        let state = self.0.state.lock();
        !state.queue.is_empty() || state.senders == 0
    }

    #[cfg(feature = "shuttle")]
    pub fn recv(&self) -> Result<T, TryRecvError> {
        wait_for(|| match self.try_recv() {
            Err(TryRecvError::Empty) => None,
            outcome => Some(outcome),
        })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.state.lock().senders += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.senders -= 1;
        let last = state.senders == 0;
        drop(state);
        if last {
            tell();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.state.lock().receivers -= 1;
    }
}

/// Waits until one of several channels is ready, as crossbeam's does.
#[cfg(feature = "shuttle")]
#[derive(Default)]
pub struct Select<'a>(Vec<Box<dyn Fn() -> bool + 'a>>);

#[cfg(feature = "shuttle")]
impl<'a> Select<'a> {
    pub fn new() -> Select<'a> {
        Select::default()
    }

    pub fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
        self.0.push(Box::new(|| receiver.is_ready()));
        self.0.len() - 1
    }

    pub fn ready(&mut self) -> usize {
        wait_for(|| self.0.iter().position(|is_ready| is_ready()))
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}
