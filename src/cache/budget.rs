//! One memory limit shared by everything that holds memory: memtables, cached blocks, pinned indexes.
//!
//! Whoever holds memory holds a [`Reservation`] of its size. Reserving never fails and never waits;
//! what happens above a limit is *pressure*:
//!
//! 1. above the limit, caches give memory back, flushed memtables first, then the largest cache, until
//!    they are empty;
//! 2. above the write share, or if emptying the caches did not help, the database with the most
//!    memory in live memtables is asked to flush, through the channel that it registered.
//!
//! So `used` may be above the limit for a while, but never unnoticed.

use std::fmt;

use crate::base::sync::{Arc, AtomicUsize, Mutex, Ordering, RwLock, Sender, Weak};

/// One limit for the memory of any number of databases. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct MemoryBudget(Arc<Shared>);

struct Shared {
    limit: usize,
    /// Bytes of all live reservations.
    used: AtomicUsize,
    /// The part of `used` that memtables hold, and the part of that in memtables still written to.
    write_used: AtomicUsize,
    write_live: AtomicUsize,
    write_limit: AtomicUsize,
    // Leaf locks, neither held while the other is taken.
    members: Mutex<Vec<Arc<MemberState>>>,
    caches: RwLock<Vec<Weak<dyn Reclaim>>>,
}

/// A cache that can give memory back. Dropping values must not reserve memory.
pub(crate) trait Reclaim: Send + Sync {
    /// Bytes that it could give back, or fewer: the cache that says most is asked first.
    fn reclaimable(&self) -> usize;
    /// Gives back one entry; false if there was none.
    fn reclaim_one(&self) -> bool;
    /// Is it asked before all that do not go first, as long as it has something?
    fn goes_first(&self) -> bool {
        false
    }
}

impl MemoryBudget {
    /// A budget of `limit_bytes`, half of it for memtables.
    pub fn new(limit_bytes: usize) -> MemoryBudget {
        MemoryBudget(Arc::new(Shared {
            limit: limit_bytes,
            used: AtomicUsize::new(0),
            write_used: AtomicUsize::new(0),
            write_live: AtomicUsize::new(0),
            write_limit: AtomicUsize::new(limit_bytes / 2),
            members: Mutex::new(Vec::new()),
            caches: RwLock::new(Vec::new()),
        }))
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes of all live reservations: exactly their sum.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes held by memtables, those still written to and those being flushed.
    pub fn write_used(&self) -> usize {
        self.0.write_used.load(Ordering::Relaxed)
    }

    /// Bytes of memtables above which a flush is asked for.
    pub fn write_limit(&self) -> usize {
        self.0.write_limit.load(Ordering::Relaxed)
    }

    /// Sets the part of the limit above which memtables are flushed, from 0 to 1. Default: 1/2.
    ///
    /// # Panics
    /// If `share` is not in 0..=1.
    pub fn set_write_share(&self, share: f64) {
        assert!((0.0..=1.0).contains(&share), "the write share is a part of the limit");
        // Floats lose the last bits of huge limits, which nobody can tell from the limit itself.
        let bytes = (self.0.limit as f64 * share) as usize;
        self.0.write_limit.store(bytes, Ordering::Relaxed);
    }

    /// Reserves `bytes`. Never fails; may exceed the limit, which then causes pressure.
    pub fn reserve(&self, bytes: usize) -> Reservation {
        let mut reservation =
            Reservation { budget: self.clone(), owner: None, frozen: false, bytes: 0 };
        reservation.grow(bytes);
        reservation
    }

    /// Enters a database. It is never asked to flush while its live memtables hold no more than
    /// `minimum` bytes. A request arrives as one message on `signal`; make it a channel of capacity
    /// one, since requests that find it full are dropped.
    pub fn join(&self, minimum: usize, signal: Sender<()>) -> Member {
        let state = Arc::new(MemberState {
            minimum,
            used: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            signal,
        });
        self.0.members.lock().push(Arc::clone(&state));
        Member { budget: self.clone(), state }
    }

    /// Is more reserved than the limit, after the caches gave what they could?
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.limit() && {
            self.reclaim();
            self.used() > self.limit()
        }
    }

    /// Registers a cache, to be asked whenever the limit is exceeded.
    pub(crate) fn add_cache(&self, cache: Weak<dyn Reclaim>) {
        let mut caches = self.0.caches.write();
        caches.retain(|cache| cache.strong_count() > 0);
        caches.push(cache);
    }

    /// Takes entries from the largest cache until the limit is kept or all caches are empty.
    pub(crate) fn reclaim(&self) {
        while self.used() > self.limit() {
            let largest = {
                let caches = self.0.caches.read();
                let alive = caches.iter().filter_map(Weak::upgrade);
                alive.max_by_key(|cache| {
                    let bytes = cache.reclaimable();
                    (cache.goes_first() && bytes > 0, bytes)
                })
            };
            if !largest.is_some_and(|cache| cache.reclaim_one()) {
                return;
            }
        }
    }

    /// What to do after more was reserved.
    fn relieve(&self) {
        if self.used() > self.limit() {
            self.reclaim();
        }
        if self.wants_flush() {
            self.ask_for_flush();
        }
    }

    /// Would a flush of what is in live memtables relieve the budget? Above the limit, which other memory
    /// may keep it at for good, only if that is worth a table: otherwise every write would make one.
    pub(crate) fn wants_flush(&self) -> bool {
        let (write_used, write_limit) = (self.write_used(), self.write_limit());
        let live = self.0.write_live.load(Ordering::Relaxed);
        // Memory of frozen memtables is on its way out.
        let full = write_used > write_limit && (live >= write_limit || live == write_used);
        full || self.used() > self.limit() && live >= write_limit / 4 && live > 0
    }

    #[cold]
    fn ask_for_flush(&self) {
        let members = self.0.members.lock();
        let above = |m: &MemberState| m.live.load(Ordering::Relaxed).saturating_sub(m.minimum);
        if let Some(most) = members.iter().max_by_key(|m| above(m)).filter(|m| above(m) > 0) {
            // Full: a request is on its way. Disconnected: the database is closing.
            let _ = most.signal.try_send(());
        }
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBudget({} of {} bytes)", self.used(), self.limit())
    }
}

struct MemberState {
    minimum: usize,
    used: AtomicUsize,
    live: AtomicUsize,
    signal: Sender<()>,
}

/// A database that takes part in a budget. Dropping it leaves; its reservations stay counted until
/// they are dropped.
pub struct Member {
    budget: MemoryBudget,
    state: Arc<MemberState>,
}

impl Member {
    /// Reserves `bytes` for a memtable: like [`MemoryBudget::reserve`], but counted as write memory
    /// of this database.
    pub fn reserve(&self, bytes: usize) -> Reservation {
        let owner = Some(Arc::clone(&self.state));
        let mut reservation =
            Reservation { budget: self.budget.clone(), owner, frozen: false, bytes: 0 };
        reservation.grow(bytes);
        reservation
    }

    /// Bytes held by memtables of this database.
    pub fn used(&self) -> usize {
        self.state.used.load(Ordering::Relaxed)
    }

    /// Bytes that this database may always use for memtables.
    pub fn minimum(&self) -> usize {
        self.state.minimum
    }

    /// The budget taken part in.
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.budget.0.members.lock().retain(|m| !Arc::ptr_eq(m, &self.state));
    }
}

/// A number of bytes taken from a budget; given back when dropped.
pub struct Reservation {
    budget: MemoryBudget,
    owner: Option<Arc<MemberState>>,
    frozen: bool,
    bytes: usize,
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The budget that the bytes are taken from.
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// Takes `bytes` more. Never fails; above a limit it causes pressure, which may evict cached
    /// blocks but never waits. Must not be called with a lock of a cache held.
    pub fn grow(&mut self, bytes: usize) {
        self.grow_quietly(bytes);
        self.budget.relieve();
    }

    /// Takes `bytes` more and leaves the pressure to the caller.
    pub(crate) fn grow_quietly(&mut self, bytes: usize) {
        self.bytes += bytes;
        let shared = &*self.budget.0;
        shared.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(owner) = &self.owner {
            shared.write_used.fetch_add(bytes, Ordering::Relaxed);
            owner.used.fetch_add(bytes, Ordering::Relaxed);
            if !self.frozen {
                shared.write_live.fetch_add(bytes, Ordering::Relaxed);
                owner.live.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Gives `bytes` back.
    ///
    /// # Panics
    /// If fewer are held.
    pub fn shrink(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "more bytes given back than taken");
        self.bytes -= bytes;
        let shared = &*self.budget.0;
        shared.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(owner) = &self.owner {
            shared.write_used.fetch_sub(bytes, Ordering::Relaxed);
            owner.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.shrink_live(bytes);
    }

    /// Marks the memtable as no longer written to: its bytes stay counted, but another flush is not
    /// asked for on their account.
    pub fn freeze(&mut self) {
        self.shrink_live(self.bytes);
        self.frozen = true;
    }

    /// The memtable has been flushed and stays as a cache: its bytes stay counted, but not as those of
    /// memtables.
    ///
    /// # Panics
    /// If it is not frozen.
    pub fn retire(&mut self) {
        assert!(self.frozen, "a memtable is frozen before it is flushed");
        if let Some(owner) = self.owner.take() {
            self.budget.0.write_used.fetch_sub(self.bytes, Ordering::Relaxed);
            owner.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }

    fn shrink_live(&self, bytes: usize) {
        if let (Some(owner), false) = (&self.owner, self.frozen) {
            self.budget.0.write_live.fetch_sub(bytes, Ordering::Relaxed);
            owner.live.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::bounded;
    use quickcheck::quickcheck;

    quickcheck! {
        fn used_is_the_sum_of_live_reservations(ops: Vec<(u8, u16, u8)>) -> bool {
            let budget = MemoryBudget::new(1000);
            let (signal, _requests) = bounded(1);
            let member = budget.join(10, signal);
            let mut held: Vec<Reservation> = Vec::new();
            ops.into_iter().all(|(op, bytes, which)| {
                let (bytes, which) = (usize::from(bytes), usize::from(which));
                let at = which % held.len().max(1);
                match op % 6 {
                    0 => held.push(budget.reserve(bytes)),
                    1 => held.push(member.reserve(bytes)),
                    _ if held.is_empty() => {}
                    2 => held[at].grow(bytes),
                    3 => { let held = &mut held[at]; held.shrink(bytes.min(held.bytes())) }
                    4 => held[at].freeze(),
                    _ => drop(held.swap_remove(at)),
                }
                let sum = |f: &dyn Fn(&&Reservation) -> bool| -> usize {
                    held.iter().filter(f).map(Reservation::bytes).sum()
                };
                budget.used() == sum(&|_| true)
                    && budget.write_used() == sum(&|r| r.owner.is_some())
                    && member.used() == budget.write_used()
                    && member.state.live.load(Ordering::Relaxed)
                        == sum(&|r| r.owner.is_some() && !r.frozen)
                    && budget.0.write_live.load(Ordering::Relaxed)
                        == member.state.live.load(Ordering::Relaxed)
            })
        }
    }

    #[test]
    fn the_largest_member_is_asked_once() {
        let budget = MemoryBudget::new(1000);
        budget.set_write_share(0.2);
        assert_eq!(budget.write_limit(), 200);
        let (signal_a, asked_a) = bounded(1);
        let (signal_b, asked_b) = bounded(1);
        let (a, b) = (budget.join(50, signal_a), budget.join(150, signal_b));
        let mut of_a = a.reserve(90);
        let mut of_b = b.reserve(110);
        assert!(asked_a.is_empty() && asked_b.is_empty(), "200 is not above the share");
        of_b.grow(10);
        assert!(asked_b.is_empty(), "b is within its minimum");
        assert!(asked_a.try_recv().is_ok(), "a holds most above its minimum");
        of_b.grow(10);
        of_b.grow(10);
        assert_eq!(asked_a.len(), 1, "one request at a time");
        asked_a.try_recv().unwrap();
        of_a.freeze();
        of_b.grow(100);
        assert!(asked_a.is_empty(), "what is being flushed is not asked for again");
        assert!(asked_b.try_recv().is_ok());
        drop(b);
        of_b.grow(100);
        assert!(asked_b.is_empty(), "gone");
        assert_eq!((budget.used(), budget.write_used()), (430, 430));
        drop((of_a, of_b));
        assert_eq!((budget.used(), budget.write_used(), a.used()), (0, 0, 0));
    }

    #[test]
    fn beside_frozen_memtables_one_is_asked_for_that_is_worth_a_table() {
        let budget = MemoryBudget::new(1000);
        let (signal, asked) = bounded(1);
        let member = budget.join(0, signal);
        let mut first = member.reserve(501);
        assert!(asked.try_recv().is_ok(), "over the share, and nothing is on its way out");
        first.freeze();
        let mut second = member.reserve(120);
        second.grow(300);
        assert!(asked.is_empty(), "what is frozen will be free");
        let other = budget.reserve(100);
        assert!(asked.try_recv().is_ok(), "over the limit");
        drop(other);
        second.shrink(301);
        let _other = budget.reserve(500);
        assert!(asked.is_empty(), "119 bytes are not worth a table");
    }

    #[test]
    fn other_memory_over_the_limit_makes_memtables_flush() {
        let budget = MemoryBudget::new(100);
        let (signal, asked) = bounded(1);
        let member = budget.join(0, signal);
        let _memtable = member.reserve(40);
        assert!(asked.is_empty() && !budget.is_exceeded());
        let _pinned = budget.reserve(70);
        assert!(budget.is_exceeded());
        assert!(asked.try_recv().is_ok());
    }

    #[test]
    fn other_memory_over_the_limit_makes_no_small_tables() {
        let budget = MemoryBudget::new(100);
        let (signal, asked) = bounded(1);
        let member = budget.join(0, signal);
        let _pinned = budget.reserve(101);
        let mut memtable = member.reserve(11);
        assert!(budget.is_exceeded() && asked.is_empty() && !budget.wants_flush());
        memtable.grow(1);
        assert!(asked.try_recv().is_ok() && budget.wants_flush(), "a quarter of the share");
        memtable.freeze();
        assert!(!budget.wants_flush(), "a request that came late is of no use");
    }

    #[test]
    #[should_panic(expected = "more bytes given back than taken")]
    fn giving_back_too_much_panics() {
        MemoryBudget::new(10).reserve(3).shrink(4);
    }
}
