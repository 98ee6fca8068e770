//! Snapshots: pinned sequence numbers, and the list of them that compactions respect.

use std::collections::BTreeMap;
use std::fmt;

use crate::base::key::SeqNo;
use crate::base::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::memtable::ReadPin;

/// All live snapshots of a database: sequence numbers and how many hold each.
#[derive(Default)]
pub(in crate::db) struct SnapshotList(Mutex<BTreeMap<SeqNo, usize>>);

impl SnapshotList {
    /// Holders what is visible now. The pin is taken *inside* the lock under which compactions read the
    /// list: a snapshot is either seen by a job, or newer than everything the job reads.
    pub fn take(self: &Arc<Self>, pin: impl FnOnce() -> ReadPin, instance: u64) -> Snapshot {
        let mut list = self.0.lock();
        let pin = pin();
        *list.entry(pin.seqno()).or_default() += 1;
        Snapshot { pin, instance, list: Arc::clone(self) }
    }

    /// The pinned numbers, ascending.
    pub fn seqnos(&self) -> Vec<SeqNo> {
        self.0.lock().keys().copied().collect()
    }

    /// The pinned numbers, and what is visible, as of one moment: whatever is taken later sees at
    /// least that.
    pub fn seqnos_and_visible(&self, visible: &AtomicU64) -> (Vec<SeqNo>, SeqNo) {
        let list = self.0.lock();
        (list.keys().copied().collect(), visible.load(Ordering::Acquire))
    }

    /// Keeps snapshots from being taken or dropped until the guard is dropped. Taken before any
    /// other lock of the background.
    pub fn hold(&self) -> Held<'_> {
        Held(self.0.lock())
    }

    /// How many snapshots are held.
    pub fn count(&self) -> usize {
        self.0.lock().values().sum()
    }
}

/// The list of snapshots, held still.
pub(in crate::db) struct Held<'a>(MutexGuard<'a, BTreeMap<SeqNo, usize>>);

impl Held<'_> {
    /// The newest live snapshot.
    pub fn newest(&self) -> Option<SeqNo> {
        self.0.keys().next_back().copied()
    }
}

/// A consistent view of the whole database, over all families, as of one moment.
///
/// Costs one short lock to take and to drop. While it is held, compactions keep every version it can
/// see; the oldest snapshot shows in [`Stats`](crate::Stats).
pub struct Snapshot {
    pin: ReadPin,
    instance: u64,
    list: Arc<SnapshotList>,
}

impl Snapshot {
    /// The sequence number of the last operation it sees.
    pub fn seqno(&self) -> SeqNo {
        self.pin.seqno()
    }

    /// What keeps its versions in memory as they are.
    #[inline]
    pub(in crate::db) fn pin(&self) -> &ReadPin {
        &self.pin
    }

    /// The opening of the database it belongs to.
    pub(in crate::db) fn instance(&self) -> u64 {
        self.instance
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut list = self.list.0.lock();
        let holders = list.get_mut(&self.seqno()).expect("a live snapshot is in the list");
        *holders -= 1;
        if *holders == 0 {
            list.remove(&self.seqno());
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({})", self.seqno())
    }
}
