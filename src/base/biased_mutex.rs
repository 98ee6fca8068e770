//! A lock for what one thread takes nearly always, and others seldom.
//!
//! A locked instruction does not begin before the loads ahead of it have ended: two of them around an
//! operation keep one operation's cache misses from overlapping the next one's. The thread to which
//! this lock is *biased* takes it with two plain stores. Whoever else wants it takes the bias away
//! first, which costs a system call (a microsecond or so), and from then on it is an ordinary lock,
//! until one thread has again taken it many times in a row; each time twice as many, up to a thousand, of
//! which the system call is a small part.
//!
//! ```text
//! the owner                      somebody else, who holds `shared`
//!   inside = true                  bias = nobody
//!   light fence                    heavy fence
//!   bias still mine? enter         inside? wait until the owner leaves
//! ```
//!
//! Of the two stores at least one is seen by the other side: that is what a fence on each side is for.
//! The *light* one keeps only the compiler from reordering; the *heavy* one makes every running thread
//! of the process pass a full fence, and so pays for both (`membarrier(2)`). Where the system has no
//! such call, the lock is never biased.
//!
//! Sources: Kawachiya, Koseki, Onodera, "Lock Reservation", OOPSLA 2002, for the bias; D. Dice, H.
//! Huang, M. Yang, "Asymmetric Dekker Synchronization", 2001, for the fences.
//!
//! # Claims
//!
//! The `unsafe impl` promises mutual exclusion, and that who locks sees what was done under the lock
//! before. Who is in, is in by `shared` or by the bias.
//!
//! 1. *A bias is taken by the one it is for.* `bias` becomes thread T's by T's own doing alone, at the
//!    end of T's hold of `shared`; it becomes nobody's under `shared`.
//! 2. *By `shared`, one is in alone.* `evict` made the bias nobody's and passed the heavy fence. So the
//!    one owner who may be in had stored `inside` before that fence, and is waited for; or looks at
//!    `bias` after it, finds it changed, and turns back. Nobody is biased until `shared` is let go (1).
//! 3. *By the bias, one is in alone.* Others would have to evict first (2). The owner itself finds
//!    `inside` set if it has forgotten a guard.
//! 4. *A seat is of one thread for good*, so that an owner who turns back late, when another is the
//!    owner already, clears nobody's `inside` but its own.
//! 5. *Sight.* From `shared` to `shared`: its own promise. From the bias to `shared`: `inside` is
//!    cleared with Release and seen cleared with Acquire. From `shared` to the bias: by one thread (1).
//! 6. *A thread's number is never given to another.*
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::base::sync::lock_api::RawMutex as _;
use crate::base::sync::{
    AtomicBool, AtomicU64, Condvar, Mutex, Ordering, RawMutex, lock_api, thread_local,
};

/// A value behind a lock that is biased to the thread that takes it most.
pub type BiasedMutex<T> = lock_api::Mutex<RawBiasedMutex, T>;
/// The right to the value of a [`BiasedMutex`].
pub type BiasedMutexGuard<'a, T> = lock_api::MutexGuard<'a, RawBiasedMutex, T>;

/// So many threads may be owners of one lock, one after the other, and again.
const SEATS: usize = 4;
const SEAT_BITS: u32 = SEATS.ilog2();
/// No thread has such a number, not even one that has none yet.
const NOBODY: u64 = u64::MAX;
/// Holds in a row that make a thread the owner, at first and at most.
const STREAK_MIN: u64 = if cfg!(any(test, loom, miri)) { 2 } else { 32 };
const STREAK_MAX: u64 = 1 << 10;

/// The lock without the value.
pub struct RawBiasedMutex {
    /// The owner's thread number, its seat in the low bits, or [`NOBODY`].
    bias: AtomicU64,
    seats: [Seat; SEATS],
    /// Taken by all but the owner.
    shared: RawMutex,
    /// The last owner whose bias was taken away. This and all that follows: under `shared`.
    evicted: AtomicU64,
    /// Who held `shared` last, and how often in a row; how often it takes to become the owner.
    last: AtomicU64,
    streak: AtomicU64,
    needed: AtomicU64,
    /// Where somebody waits for an evicted owner to leave.
    gate: Mutex<()>,
    left: Condvar,
}

/// Of one thread.
struct Seat {
    thread: AtomicU64,
    /// Written by its thread alone.
    inside: AtomicBool,
}

impl Seat {
    const fn new() -> Seat {
        Seat { thread: AtomicU64::new(0), inside: AtomicBool::new(false) }
    }
}

/// How the lock is held.
pub enum Hold {
    /// By the bias that was found.
    Owner(u64, NotSend),
    /// By `shared`.
    Shared(<RawMutex as lock_api::RawMutex>::Guard),
}

/// Keeps a guard on its thread.
pub type NotSend = std::marker::PhantomData<*const ()>;

thread_local! {
    /// 0: none yet.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// The number of this thread, 1 or greater: given when it is first asked for.
fn thread_number() -> u64 {
    static GIVEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    if NUMBER.get() == 0 {
        NUMBER.set(GIVEN.fetch_add(1, Ordering::Relaxed) + 1);
    }
    NUMBER.get()
}

impl RawBiasedMutex {
    const fn new() -> RawBiasedMutex {
        RawBiasedMutex {
            bias: AtomicU64::new(NOBODY),
            seats: [const { Seat::new() }; SEATS],
            shared: RawMutex::INIT,
            evicted: AtomicU64::new(0),
            last: AtomicU64::new(0),
            streak: AtomicU64::new(0),
            needed: AtomicU64::new(STREAK_MIN),
            gate: Mutex::new(()),
            left: Condvar::new(),
        }
    }

    #[inline]
    fn seat(&self, bias: u64) -> &Seat {
        &self.seats[bias as usize % SEATS]
    }

    /// Enters by the bias, if it is this thread's: `None` if it is not. `Some(None)`: this thread has
    /// the lock already.
    #[inline(always)]
    fn enter(&self) -> Option<Option<Hold>> {
        let bias = self.bias.load(Ordering::Relaxed);
        if bias >> SEAT_BITS != NUMBER.get() {
            return None;
        }
        let seat = self.seat(bias);
        if seat.inside.load(Ordering::Relaxed) {
            return Some(None);
        }
        seat.inside.store(true, Ordering::Relaxed);
        fences::light();
        if self.bias.load(Ordering::Relaxed) != bias {
            self.leave(bias);
            return None;
        }
        Some(Some(Hold::Owner(bias, NotSend::default())))
    }

    #[inline(always)]
    fn leave(&self, bias: u64) {
        self.seat(bias).inside.store(false, Ordering::Release);
        fences::light();
        if self.bias.load(Ordering::Relaxed) != bias {
            self.wake();
        }
    }

    /// Somebody may wait for this thread, which was the owner.
    #[cold]
    fn wake(&self) {
        drop(self.gate.lock());
        self.left.notify_all();
    }

    #[cold]
    fn lock_shared(&self) -> Hold {
        let shared = self.shared.lock();
        let seat = self.evict();
        if seat.inside.load(Ordering::Acquire) {
            let mut gate = self.gate.lock();
            while seat.inside.load(Ordering::Acquire) {
                self.left.wait(&mut gate);
            }
        }
        Hold::Shared(shared)
    }

    #[cold]
    fn try_lock_shared(&self) -> Option<Hold> {
        let shared = self.shared.try_lock()?;
        if self.evict().inside.load(Ordering::Acquire) {
            // SAFETY: locked above. That the bias is gone does no harm: `evicted` says who is in (2).
            unsafe { self.shared.unlock(shared) };
            return None;
        }
        Some(Hold::Shared(shared))
    }

    #[cold]
    fn unlock_shared(&self, shared: <RawMutex as lock_api::RawMutex>::Guard) {
        self.count_hold();
        // SAFETY: a hold of `shared` (2), which ends here.
        unsafe { self.shared.unlock(shared) };
    }

    /// With `shared`: takes the bias away, if there is one. The seat of the only one who may be in.
    fn evict(&self) -> &Seat {
        let bias = self.bias.load(Ordering::Relaxed);
        if bias != NOBODY {
            self.bias.store(NOBODY, Ordering::Relaxed);
            fences::heavy();
            self.evicted.store(bias, Ordering::Relaxed);
            let needed = self.needed.load(Ordering::Relaxed) * 2;
            self.needed.store(needed.min(STREAK_MAX), Ordering::Relaxed);
        }
        self.seat(self.evicted.load(Ordering::Relaxed))
    }

    /// At the end of a hold of `shared`: has this thread earned the bias?
    fn count_hold(&self) {
        let me = thread_number();
        let streak = match self.last.load(Ordering::Relaxed) == me {
            true => self.streak.load(Ordering::Relaxed) + 1,
            false => 1,
        };
        self.last.store(me, Ordering::Relaxed);
        self.streak.store(streak, Ordering::Relaxed);
        if streak < self.needed.load(Ordering::Relaxed) || !fences::are_there() {
            return;
        }
        self.streak.store(0, Ordering::Relaxed);
        let mine = |seat: &&Seat| [me, 0].contains(&seat.thread.load(Ordering::Relaxed));
        if let Some((place, seat)) = self.seats.iter().enumerate().find(|(_, seat)| mine(seat)) {
            seat.thread.store(me, Ordering::Relaxed);
            self.bias.store(me << SEAT_BITS | place as u64, Ordering::Relaxed);
        }
    }
}

// SAFETY: in alone: 2, 3; with sight of what was done: 5.
unsafe impl lock_api::RawMutex for RawBiasedMutex {
    const INIT: RawBiasedMutex = RawBiasedMutex::new();

    type Guard = Hold;

    /// # Panics
    /// If the owner has it already.
    #[inline]
    fn lock(&self) -> Hold {
        match self.enter() {
            Some(hold) => hold.expect("locked twice by one thread"),
            None => self.lock_shared(),
        }
    }

    #[inline(always)]
    fn try_lock(&self) -> Option<Hold> {
        self.enter().unwrap_or_else(|| self.try_lock_shared())
    }

    #[inline(always)]
    unsafe fn unlock(&self, hold: Hold) {
        match hold {
            Hold::Owner(bias, _) => self.leave(bias),
            Hold::Shared(shared) => self.unlock_shared(shared),
        }
    }

    fn is_locked(&self) -> bool {
        let inside = |seat: &Seat| seat.inside.load(Ordering::Relaxed);
        self.shared.is_locked() || self.seats.iter().any(inside)
    }
}

/// The right to the value of a [`BiasedMutex`] by the bias, known to be so.
pub struct OwnerGuard<'a, T> {
    mutex: &'a BiasedMutex<T>,
    bias: u64,
    on_its_thread: NotSend,
}

/// Takes the lock if it is biased to this thread, which has not taken it yet. Else nothing happens:
/// nobody's bias is taken away, and nobody is waited for.
#[inline(always)]
pub fn try_lock_biased<T>(mutex: &BiasedMutex<T>) -> Option<OwnerGuard<'_, T>> {
    // SAFETY: nothing is unlocked through it (2).
    match unsafe { mutex.raw() }.enter()?? {
        Hold::Owner(bias, on_its_thread) => Some(OwnerGuard { mutex, bias, on_its_thread }),
        Hold::Shared(_) => unreachable!("nobody enters by `shared`"),
    }
}

impl<T> Deref for OwnerGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: in, and alone (3).
        unsafe { &*self.mutex.data_ptr() }
    }
}

impl<T> DerefMut for OwnerGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: in, and alone (3).
        unsafe { &mut *self.mutex.data_ptr() }
    }
}

impl<T> Drop for OwnerGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: what was entered by the bias is left (3).
        unsafe { self.mutex.raw() }.leave(self.bias);
    }
}

/// The two sides of an asymmetric fence.
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
mod fences {
    use std::sync::OnceLock;
    use std::sync::atomic::{Ordering, compiler_fence};

    use rustix::thread::{MembarrierCommand, membarrier};

    /// Asks the system, once.
    pub fn are_there() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok())
    }

    #[inline]
    pub fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    pub fn heavy() {
        membarrier(MembarrierCommand::PrivateExpedited).expect("registered, and never fails then");
    }
}

/// Both sides pay, as model checkers understand it; elsewhere no lock is biased.
#[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
mod fences {
    use crate::base::sync::{Ordering, fence};

    pub fn are_there() -> bool {
        cfg!(any(loom, miri))
    }

    pub fn light() {
        fence(Ordering::SeqCst);
    }

    pub fn heavy() {
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner<T>(lock: &BiasedMutex<T>) -> Option<u64> {
        // SAFETY: nothing is unlocked through it (2).
        let bias = unsafe { lock.raw() }.bias.load(Ordering::Relaxed);
        (bias != NOBODY).then_some(bias >> SEAT_BITS)
    }

    fn take_often(lock: &BiasedMutex<u64>, times: u64) {
        (0..times).for_each(|_| *lock.lock() += 1);
    }

    #[test]
    fn who_takes_it_often_owns_it_until_somebody_else_does() {
        let lock = BiasedMutex::new(0);
        take_often(&lock, STREAK_MIN);
        assert_eq!(owner(&lock), Some(thread_number()), "no membarrier on this system?");
        take_often(&lock, 10);
        std::thread::scope(|scope| {
            scope.spawn(|| take_often(&lock, 1));
        });
        assert_eq!(owner(&lock), None);
        take_often(&lock, STREAK_MIN);
        assert_eq!(owner(&lock), None, "it takes twice as often the next time");
        take_often(&lock, STREAK_MIN);
        assert_eq!(owner(&lock), Some(thread_number()));
        assert_eq!(*lock.lock(), STREAK_MIN * 3 + 11);
    }

    #[test]
    fn the_owner_is_waited_for_and_not_passed() {
        let lock = BiasedMutex::new(0);
        take_often(&lock, 2 * STREAK_MIN);
        let mut held = lock.lock();
        assert!(lock.try_lock().is_none(), "twice by one thread");
        std::thread::scope(|scope| {
            let passing = scope.spawn(|| lock.try_lock().is_none());
            assert!(passing.join().unwrap());
            // Evicted by now or not: it waits.
            let waiter = scope.spawn(|| *lock.lock());
            while owner(&lock).is_some() {
                std::thread::yield_now();
            }
            *held = 77;
            assert!(lock.is_locked());
            drop(held);
            assert_eq!(waiter.join().unwrap(), 77);
        });
        assert!(!lock.is_locked() && lock.try_lock().is_some());
    }

    #[test]
    #[should_panic = "locked twice"]
    fn a_guard_that_was_forgotten_is_not_passed() {
        let lock = BiasedMutex::new(0);
        take_often(&lock, 2 * STREAK_MIN);
        std::mem::forget(lock.lock());
        let _twice = lock.lock();
    }

    /// More threads than seats, each for a while alone and then among others.
    #[test]
    fn nothing_is_lost_among_threads() {
        let (threads, rounds) = if cfg!(miri) { (3, 20) } else { (6, 3000) };
        let lock = BiasedMutex::new(0);
        let inside = AtomicU64::new(0);
        let enter = |value: &mut u64| {
            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
            *value += 1;
            inside.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (lock, enter) = (&lock, &enter);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let burst = if (round + thread) % 7 == 0 { 40 } else { 1 };
                        (0..burst).for_each(|_| enter(&mut lock.lock()));
                        if let Some(mut value) = lock.try_lock() {
                            enter(&mut value);
                            *value -= 1;
                        }
                    }
                });
            }
        });
        let bursts: u64 = (0..threads)
            .flat_map(|thread| (0..rounds).map(move |round| (round + thread) % 7 == 0))
            .map(|long| if long { 40 } else { 1 })
            .sum();
        assert_eq!(*lock.lock(), bursts);
    }
}
