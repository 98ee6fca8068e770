//! Read pins: what keeps a version from being overwritten where it is.
//!
//! A version may be overwritten in place when nobody can see it any more the moment the new one is
//! published. Who wants to go on seeing what is visible now registers a [`ReadPin`]; the writer
//! overwrites only under the lock of the register, and only versions newer than every pin in it; by the
//! same rule one takes another's place among the versions. So
//! a pin is taken either before an overwrite, which then leaves alone all that the pin sees, or after
//! its publication.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::base::biased_mutex::{BiasedMutex, OwnerGuard, try_lock_biased};
use crate::base::key::SeqNo;
use crate::base::sync::{Arc, AtomicU64, Ordering};

/// The register of all read pins of a database. A leaf lock.
#[derive(Default)]
pub struct ReadPins(BiasedMutex<Register>);

/// What the lock of [`ReadPins`] guards.
pub type Register = Vec<Held>;

/// ReadPins of one sequence number, ascending in the register.
#[derive(Clone, Copy)]
pub struct Held {
    seqno: SeqNo,
    pins: usize,
}

impl ReadPins {
    /// ReadPins what is visible now. Waits for a writer that is overwriting until it has published. One
    /// short lock.
    pub fn pin(self: &Arc<Self>, visible: &AtomicU64) -> ReadPin {
        let mut held = self.0.lock();
        let seqno = visible.load(Ordering::Acquire);
        match held.last_mut() {
            Some(last) if last.seqno == seqno => last.pins += 1,
            last => {
                debug_assert!(last.is_none_or(|last| last.seqno < seqno), "published in order");
                held.push(Held { seqno, pins: 1 });
            }
        }
        ReadPin { seqno, pins: Arc::clone(self) }
    }

    /// Keeps all pins as they are, unless somebody is just taking or letting go of one. It must be held
    /// until what was overwritten is published.
    #[inline]
    pub fn try_hold(&self) -> Option<HeldPins<'_, impl Deref<Target = Register>>> {
        Some(HeldPins { held: self.0.try_lock()?, pins: self })
    }

    /// Likewise, if the register's lock is biased to this thread.
    #[inline(always)]
    pub fn try_hold_biased(&self) -> Option<HeldPins<'_, OwnerGuard<'_, Register>>> {
        Some(HeldPins { held: try_lock_biased(&self.0)?, pins: self })
    }
}

/// Everything visible at one sequence number stays as it is while this lives.
pub struct ReadPin {
    seqno: SeqNo,
    pins: Arc<ReadPins>,
}

impl ReadPin {
    /// The sequence number that is pinned.
    #[inline]
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// The least number that is pinned, which will never be less. One short lock.
    pub(super) fn oldest(&self) -> SeqNo {
        self.pins.0.lock().first().expect("this one is there").seqno
    }

    /// The right to look at versions up to this number in a memtable whose writer asks `pins`.
    #[inline]
    pub(super) fn hold(&self, pins: &Arc<ReadPins>) -> Hold<'_> {
        assert!(Arc::ptr_eq(&self.pins, pins), "a pin of another database");
        Hold { at: self.seqno, pin: PhantomData }
    }
}

impl Clone for ReadPin {
    fn clone(&self) -> ReadPin {
        let mut held = self.pins.0.lock();
        let at = held.partition_point(|held| held.seqno < self.seqno);
        held[at].pins += 1;
        ReadPin { seqno: self.seqno, pins: Arc::clone(&self.pins) }
    }
}

impl Drop for ReadPin {
    fn drop(&mut self) {
        let mut held = self.pins.0.lock();
        let at = held.partition_point(|held| held.seqno < self.seqno);
        held[at].pins -= 1;
        if held[at].pins == 0 {
            held.remove(at);
        }
    }
}

impl fmt::Debug for ReadPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadPin({})", self.seqno)
    }
}

/// The register, in which no pin comes or goes as long as this is there.
pub struct HeldPins<'a, G> {
    held: G,
    pins: &'a ReadPins,
}

impl<G: Deref<Target = Register>> HeldPins<'_, G> {
    /// The right to overwrite.
    #[inline(always)]
    pub fn overwrite(&self) -> Overwrite<'_> {
        // No operation has the number 0: what no pin sees is greater.
        let newest = self.held.last().map_or(0, |held| held.seqno);
        Overwrite { newest, pins: self.pins }
    }
}

/// The right to overwrite versions that no pin sees; no pin comes or goes in its lifetime.
#[derive(Clone, Copy)]
pub struct Overwrite<'a> {
    /// What the newest pin sees; 0 without one.
    newest: SeqNo,
    pins: &'a ReadPins,
}

impl Overwrite<'_> {
    /// # Panics
    /// If these are not the pins that it locks.
    #[inline]
    pub(super) fn check(&self, pins: &Arc<ReadPins>) {
        assert!(std::ptr::eq(self.pins, &**pins), "the lock of another database");
    }

    /// May the version with this number be overwritten by a later one?
    #[inline]
    pub(super) fn allows(&self, seqno: SeqNo) -> bool {
        self.newest < seqno
    }
}

/// The right to look at versions up to a sequence number: they are not overwritten during `'a`.
#[derive(Clone, Copy)]
pub(super) struct Hold<'a> {
    at: SeqNo,
    pin: PhantomData<&'a ReadPin>,
}

impl<'a> Hold<'a> {
    /// In a table that nobody writes to any more: [`MemTable::frozen`](super::MemTable::frozen) sees
    /// to that.
    #[inline]
    pub(super) fn frozen(at: SeqNo) -> Hold<'a> {
        Hold { at, pin: PhantomData }
    }

    /// Of a cursor, which was checked when it was made: by the pin's register, or, without a pin, for
    /// being of a frozen table.
    #[inline]
    pub(super) fn checked(pin: &'a Option<ReadPin>, at: SeqNo) -> Hold<'a> {
        debug_assert!(pin.as_ref().is_none_or(|pin| pin.seqno == at));
        Hold { at, pin: PhantomData }
    }

    #[inline]
    pub(super) fn at(self) -> SeqNo {
        self.at
    }
}
