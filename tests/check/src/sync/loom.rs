//! Over loom: an access may see every value that the memory orders allow.
//!
//! loom's atomics are larger than those of the language, and cannot be made before a check begins; the
//! arena lays its own out by hand. So an atomic here is what it is in the engine, a word in memory,
//! and loom's is looked up by its address. loom wants to know that an atomic was made before it is
//! used: they are made ahead, by the first thread, and hold the difference to what the word held when
//! it was met first. The word itself always holds what was stored last: where it holds something else,
//! the memory was used anew, and gets another of loom's atomics.

use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::loom::sync as checked;
pub use ::loom::thread::{JoinHandle, spawn, yield_now};

/// What can be taken away from the engine's orderings, to see that a check notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakened {
    /// Stores publish nothing: `Release` is `Relaxed`.
    Release,
    /// Loads take nothing over: `Acquire` is `Relaxed`.
    Acquire,
    /// Fences do nothing.
    Fence,
}

impl Weakened {
    fn of(order: Ordering) -> Ordering {
        match (WEAKENED.get(), order) {
            (Some(Weakened::Release), Ordering::Release) => Ordering::Relaxed,
            (Some(Weakened::Release), Ordering::AcqRel) => Ordering::Acquire,
            (Some(Weakened::Acquire), Ordering::Acquire) => Ordering::Relaxed,
            (Some(Weakened::Acquire), Ordering::AcqRel) => Ordering::Release,
            _ => order,
        }
    }
}

std::thread_local! {
    pub static WEAKENED: Cell<Option<Weakened>> = const { Cell::new(None) };
    /// What loom has for the locks at these addresses.
    static LOCKS: RefCell<HashMap<(usize, &'static str), &'static dyn Any>> = RefCell::default();
    static WORDS: RefCell<HashMap<usize, Word>> = RefCell::default();
    /// Atomics that no address has yet.
    static UNUSED: RefCell<Vec<checked::atomic::AtomicU64>> = RefCell::default();
}

/// An atomic.
#[derive(Clone, Copy)]
struct Word {
    /// What the word held last.
    last: u64,
    /// What it held at first.
    first: u64,
    /// The difference to that.
    model: &'static checked::atomic::AtomicU64,
}

/// The first thread, at the beginning of each execution: so many atomics will do.
pub fn begin(atomics: usize) {
    LOCKS.with_borrow_mut(HashMap::clear);
    WORDS.with_borrow_mut(HashMap::clear);
    let unused = (0..atomics).map(|_| checked::atomic::AtomicU64::new(0)).collect();
    UNUSED.set(unused);
}

/// What a check says that needs more atomics than were made.
pub const TOO_FEW: &str = "too few atomics were made ahead";

/// The atomic at this address, where a word holds `now`.
fn word(at: usize, now: u64) -> Word {
    if let Some(word) = WORDS.with_borrow(|words| words.get(&at).copied())
        && word.last == now
    {
        return word;
    }
    let model = UNUSED.with_borrow_mut(Vec::pop).expect(TOO_FEW);
    let word = Word { last: now, first: now, model: Box::leak(Box::new(model)) };
    WORDS.with_borrow_mut(|words| words.insert(at, word));
    word
}

/// Notes what the word at this address holds now.
fn note(at: usize, now: u64) {
    WORDS.with_borrow_mut(|words| words.get_mut(&at).expect("looked up before").last = now);
}

/// What loom has for the lock at this address. It is leaked: a few words each.
fn known<M: 'static>(at: usize, make: impl FnOnce() -> M) -> &'static M {
    let key = (at, std::any::type_name::<M>());
    if let Some(model) = LOCKS.with_borrow(|known| known.get(&key).copied()) {
        return model.downcast_ref().expect("the type is part of the key");
    }
    let model: &'static M = Box::leak(Box::new(make()));
    LOCKS.with_borrow_mut(|known| known.insert(key, model));
    model
}

macro_rules! atomics {
    ($($name:ident: $value:ty, $to:expr, $from:expr, { $($rmw:ident)* })*) => {$(
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name(UnsafeCell<$value>);

        // SAFETY: loom runs one thread at a time.
        unsafe impl Sync for $name {}

        impl $name {
            pub const fn new(value: $value) -> $name {
                $name(UnsafeCell::new(value))
            }

            pub fn get_mut(&mut self) -> &mut $value {
                self.0.get_mut()
            }

            fn at(&self) -> usize {
                self as *const _ as usize
            }

            fn now(&self) -> $value {
                // SAFETY: one thread at a time.
                unsafe { *self.0.get() }
            }

            fn set(&self, value: $value) {
                // SAFETY: one thread at a time.
                unsafe { *self.0.get() = value };
                note(self.at(), ($to)(value));
            }

            pub fn load(&self, order: Ordering) -> $value {
                let word = word(self.at(), ($to)(self.now()));
                ($from)(word.model.load(Weakened::of(order)) ^ word.first)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                let word = word(self.at(), ($to)(self.now()));
                word.model.store(($to)(value) ^ word.first, Weakened::of(order));
                self.set(value);
            }

            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let word = word(self.at(), ($to)(self.now()));
                let (success, failure) = (Weakened::of(success), Weakened::of(failure));
                let (before, after) = (($to)(old) ^ word.first, ($to)(new) ^ word.first);
                match word.model.compare_exchange(before, after, success, failure) {
                    Ok(_) => {
                        self.set(new);
                        Ok(old)
                    }
                    Err(other) => Err(($from)(other ^ word.first)),
                }
            }

            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.change(order, |_| value)
            }

            /// In one step, of what was stored last.
            fn change(&self, order: Ordering, f: impl Fn($value) -> $value) -> $value {
                let mut old = self.now();
                loop {
                    match self.compare_exchange(old, f(old), order, Ordering::Relaxed) {
                        Ok(old) => return old,
                        Err(newer) => old = newer,
                    }
                }
            }

            pub fn fetch_update(
                &self,
                set_order: Ordering,
                load_order: Ordering,
                mut change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut now = self.load(load_order);
                while let Some(next) = change(now) {
                    match self.compare_exchange(now, next, set_order, load_order) {
                        Ok(old) => return Ok(old),
                        Err(newer) => now = newer,
                    }
                }
                Err(now)
            }

            $(
                pub fn $rmw(&self, value: $value, order: Ordering) -> $value {
                    self.change(order, |old| {
                        let word = std::sync::atomic::$name::new(old);
                        word.$rmw(value, Ordering::Relaxed);
                        word.into_inner()
                    })
                }
            )*
        }
    )*};
}

atomics! {
    AtomicBool: bool, u64::from, |word| word != 0, { fetch_or fetch_and }
    AtomicU32: u32, u64::from, |word| word as u32, { fetch_add fetch_sub fetch_or fetch_and }
    AtomicU64: u64, u64::from, |word| word, { fetch_add fetch_sub fetch_or fetch_and fetch_max }
    AtomicUsize: usize, |n| n as u64, |word| word as usize, { fetch_add fetch_sub }
}

#[repr(transparent)]
pub struct AtomicPtr<T>(AtomicUsize, PhantomData<fn() -> *mut T>);

impl<T> AtomicPtr<T> {
    pub const fn new(value: *mut T) -> AtomicPtr<T> {
        assert!(value.is_null(), "the engine begins without one");
        AtomicPtr(AtomicUsize::new(0), PhantomData)
    }

    pub fn load(&self, order: Ordering) -> *mut T {
        std::ptr::with_exposed_provenance_mut(self.0.load(order))
    }

    pub fn store(&self, value: *mut T, order: Ordering) {
        self.0.store(value.expose_provenance(), order);
    }
}

/// A fence, unless it is taken away.
pub fn fence(order: Ordering) {
    if WEAKENED.get() != Some(Weakened::Fence) {
        checked::atomic::fence(order);
    }
}

/// A lock: the data, under a lock that is never waited for, beside loom's.
#[derive(Default)]
pub struct Mutex<T: ?Sized> {
    place: u8,
    data: parking_lot::Mutex<T>,
}

/// Without data and model only while it waits for a condition.
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    /// The data first: nobody finds it locked while loom's lock is free.
    data: Option<parking_lot::MutexGuard<'a, T>>,
    model: Option<checked::MutexGuard<'static, ()>>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { place: 0, data: parking_lot::Mutex::new(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    fn model(&self) -> &'static checked::Mutex<()> {
        known(&self.place as *const u8 as usize, || checked::Mutex::new(()))
    }

    fn guard(&self, model: checked::MutexGuard<'static, ()>) -> MutexGuard<'_, T> {
        let data = self.data.try_lock().expect("loom's lock is held");
        MutexGuard { lock: self, data: Some(data), model: Some(model) }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.guard(self.model().lock().expect("never poisoned"))
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.model().try_lock().ok().map(|model| self.guard(model))
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.as_ref().expect("not waiting")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.as_mut().expect("not waiting")
    }
}

pub struct Condvar {
    place: u8,
}

impl Condvar {
    pub const fn new() -> Condvar {
        Condvar { place: 0 }
    }

    fn model(&self) -> &'static checked::Condvar {
        known(&self.place as *const u8 as usize, checked::Condvar::new)
    }

    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.data = None;
        let model = guard.model.take().expect("not waiting");
        guard.model = Some(self.model().wait(model).expect("never poisoned"));
        guard.data = guard.lock.data.try_lock();
    }

    /// Who waits for others to come, and goes on without them, looks once more.
    pub fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        _: Duration,
    ) -> bool {
        if condition(guard) {
            (guard.data, guard.model) = (None, None);
            let MutexGuard { data, model, .. } = guard.lock.lock();
            (guard.data, guard.model) = (data, model);
        }
        condition(guard)
    }

    pub fn notify_one(&self) {
        self.model().notify_one();
    }

    pub fn notify_all(&self) {
        self.model().notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

/// A lock for readers and a writer, likewise.
#[derive(Default)]
pub struct RwLock<T: ?Sized> {
    place: u8,
    data: parking_lot::RwLock<T>,
}

pub struct ReadGuard<'a, T: ?Sized> {
    data: parking_lot::RwLockReadGuard<'a, T>,
    _model: checked::RwLockReadGuard<'static, ()>,
}

pub struct WriteGuard<'a, T: ?Sized> {
    data: parking_lot::RwLockWriteGuard<'a, T>,
    _model: checked::RwLockWriteGuard<'static, ()>,
}

impl<T> RwLock<T> {
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { place: 0, data: parking_lot::RwLock::new(value) }
    }
}

impl<T: ?Sized> RwLock<T> {
    fn model(&self) -> &'static checked::RwLock<()> {
        known(&self.place as *const u8 as usize, || checked::RwLock::new(()))
    }

    pub fn read(&self) -> ReadGuard<'_, T> {
        let model = self.model().read().expect("never poisoned");
        ReadGuard { data: self.data.try_read().expect("loom's lock is held"), _model: model }
    }

    pub fn write(&self) -> WriteGuard<'_, T> {
        let model = self.model().write().expect("never poisoned");
        WriteGuard { data: self.data.try_write().expect("loom's lock is held"), _model: model }
    }
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}
