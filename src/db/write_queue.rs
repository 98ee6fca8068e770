//! Where writers wait that found another one at work.
//!
//! The writer at the front leads: it takes the commit lock, and the batches behind it along as one
//! group. All others sleep, each on its own ticket, until a leader wakes them with what became of
//! their batch, or to lead the next group. As long as somebody leads, newcomers join the line: a
//! group grows while the one before it is synced, and nobody who has just been served barges in.
//!
//! A group that is to be synced also waits a moment for those that met at the sync before: they were
//! woken just now and bring their next writes. Without that, the first to be back would sync alone,
//! and every other sync would be for one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::canary::Canary;
use crate::base::error::Result;
use crate::base::key::SeqNo;
use crate::base::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering};
use crate::batch::WriteBatch;
use crate::memtable::MemTable;

/// What became of a batch: its last sequence number, or `None` if what it was made from has changed.
pub(in crate::db) type Outcome = Result<Option<SeqNo>>;

/// A group holds no more than this, but for its first batch: those in it wait for all of it.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// How long a group waits for writers that came to the sync before. A fraction of what a sync takes,
/// and several times what a thread needs to wake up.
const PATIENCE: Duration = Duration::from_micros(150);

/// What a batch of one operation was made from: its key, as it was at a sequence number.
pub(in crate::db) struct Basis {
    pub mem: Arc<MemTable>,
    pub at: SeqNo,
}

/// A batch in the line.
pub(in crate::db) struct Ticket {
    pub batch: WriteBatch,
    pub sync: bool,
    pub basis: Option<Basis>,
    turn: Mutex<Turn>,
    woken: Condvar,
}

enum Turn {
    Waits,
    Leads,
    Done(Outcome),
}

impl Ticket {
    pub fn new(batch: WriteBatch, sync: bool, basis: Option<Basis>) -> Ticket {
        let turn = Mutex::new(Turn::Waits);
        Ticket { batch, sync, basis, turn, woken: Condvar::new() }
    }

    /// Sleeps until there is an outcome; `None`: until it is this writer's turn to lead.
    pub fn wait(&self) -> Option<Outcome> {
        let mut turn = self.turn.lock();
        loop {
            match std::mem::replace(&mut *turn, Turn::Waits) {
                Turn::Waits => self.woken.wait(&mut turn),
                Turn::Leads => return None,
                Turn::Done(outcome) => return Some(outcome),
            }
        }
    }

    fn wake(&self, with: Turn) {
        *self.turn.lock() = with;
        self.woken.notify_one();
    }

    /// Wakes the writer with its outcome.
    pub fn finish(&self, outcome: Outcome) {
        self.wake(Turn::Done(outcome));
    }
}

/// The line. Its lock is a leaf.
#[derive(Default)]
pub(in crate::db) struct WriteQueue {
    line: Mutex<Line>,
    /// As many have come as the leader waits for.
    complete: Condvar,
    /// Whether writers shall join; written under `line`. Who misses it takes the commit lock before
    /// the leader does: an order like any other.
    busy: AtomicBool,
}

#[derive(Default)]
struct Line {
    /// In the order they came. The leader's own is at the front until its group is taken.
    tickets: VecDeque<Arc<Ticket>>,
    led: bool,
    /// How many writers met at the last sync, if it was more than one.
    expected: usize,
}

impl WriteQueue {
    /// Is there a line to join?
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// How many the next leader that is to sync will wait for.
    #[cfg(test)]
    pub fn expected(&self) -> usize {
        self.line.lock().expected
    }

    /// How many wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.line.lock().tickets.len()
    }

    /// Joins the line and waits; `None`: this writer leads, and calls [`take`](WriteQueue::take) and
    /// [`pass_on`](WriteQueue::pass_on), whatever happens.
    pub fn join(&self, ticket: &Arc<Ticket>) -> Option<Outcome> {
        let leads = {
            let mut line = self.line.lock();
            line.tickets.push_back(Arc::clone(ticket));
            self.busy.store(true, Ordering::Relaxed);
            if line.tickets.len() == line.expected {
                self.complete.notify_one();
            }
            !std::mem::replace(&mut line.led, true)
        };
        if leads { None } else { ticket.wait() }
    }

    /// The leader, before it takes the commit lock: waits a moment for those who will want to sync.
    pub fn gather(&self) {
        let mut line = self.line.lock();
        if line.tickets.front().is_some_and(|leader| leader.sync) {
            let incomplete = |line: &mut Line| line.tickets.len() < line.expected;
            let _ = self.complete.wait_while_for(&mut line, incomplete, PATIENCE);
        }
    }

    /// The leader, with the commit lock: takes its group, which begins with its own ticket. Nobody
    /// waits for a sync that neither he nor the leader has asked for.
    pub fn take(&self) -> Vec<Arc<Ticket>> {
        let mut line = self.line.lock();
        let synced = line.tickets.front().is_some_and(|leader| leader.sync);
        let mut bytes = 0;
        let fits = |ticket: &&Arc<Ticket>| {
            bytes += ticket.batch.bytes();
            bytes <= GROUP_BYTES_MAX && (synced || !ticket.sync)
        };
        let count = line.tickets.iter().take_while(fits).count().max(1);
        line.tickets.drain(..count).collect()
    }

    /// The leader of `group`, when all of it is done: wakes the next leader, if anybody waits, and then
    /// those in the group, each with its outcome. In this order: the next group is written while they
    /// wake up; and who has been told comes back to the line, and would be counted twice below.
    pub fn pass_on(&self, group: &[Arc<Ticket>], outcomes: Vec<Outcome>) {
        let mut line = self.line.lock();
        let met = group.len() + line.tickets.len();
        if met <= 1 {
            line.expected = 0;
        } else if group.iter().any(|ticket| ticket.sync) {
            line.expected = met;
        }
        line.led = !line.tickets.is_empty();
        self.busy.store(line.led || line.expected > 1, Ordering::Relaxed);
        let next = line.tickets.front().cloned();
        drop(line);
        if let Some(next) = next.filter(|_| !Canary::NextLeaderSleeps.is_planted()) {
            next.wake(Turn::Leads);
        }
        assert_eq!(group.len(), outcomes.len());
        for (ticket, outcome) in group.iter().zip(outcomes) {
            ticket.finish(outcome);
        }
    }
}
