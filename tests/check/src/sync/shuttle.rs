//! Over shuttle: before each access the scheduler may let another thread go on. All accesses are
//! taken to be sequentially consistent.

use std::cell::UnsafeCell;
use std::sync::atomic;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::shuttle::sync as checked;
pub use ::shuttle::sync::MutexGuard as CheckedGuard;
pub use ::shuttle::thread::{scope, yield_now};

::shuttle::lazy_static! {
    /// Whoever waits for a channel waits here: so one can wait for several.
    pub static ref GATE: Mutex<()> = Mutex::new(());
    pub static ref ARRIVAL: Condvar = Condvar::new();
}

/// Here the threads may change.
fn point() {
    ::shuttle::thread::sleep(Duration::ZERO);
}

pub fn fence(_order: Ordering) {
    point();
}

#[derive(Default)]
pub struct Mutex<T: ?Sized>(checked::Mutex<T>);

/// `None` only while it waits for a condition.
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    held: Option<checked::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(checked::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        MutexGuard { lock: self, held: Some(held) }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { lock: self, held: Some(held) })
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T: ?Sized> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("not waiting")
    }
}

impl<T: ?Sized> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("not waiting")
    }
}

#[derive(Default)]
pub struct RwLock<T: ?Sized>(checked::RwLock<T>);

impl<T> RwLock<T> {
    pub const fn new(value: T) -> RwLock<T> {
        RwLock(checked::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    pub fn read(&self) -> checked::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn write(&self) -> checked::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub struct Condvar(checked::Condvar);

/// Whether a wait has ended by itself.
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub const fn new() -> Condvar {
        Condvar(checked::Condvar::new())
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("not waiting");
        let held = self.0.wait(held).unwrap_or_else(|poisoned| poisoned.into_inner());
        guard.held = Some(held);
    }

    /// Time does not pass: who waits for what nobody announces waits for ever, and is found.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult(false)
    }

    /// Who waits for others to come, and goes on without them, looks a few times.
    pub fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        _: Duration,
    ) -> WaitTimeoutResult {
        for _ in 0..3 {
            if !condition(guard) {
                return WaitTimeoutResult(false);
            }
            guard.held = None;
            yield_now();
            guard.held = guard.lock.lock().held.take();
        }
        WaitTimeoutResult(condition(guard))
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

/// Atomics as large as they are: the arena lays them out by hand.
macro_rules! atomics {
    ($($name:ident: $value:ty, { $($rmw:ident)* })*) => {$(
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name(atomic::$name);

        impl $name {
            pub const fn new(value: $value) -> $name {
                $name(atomic::$name::new(value))
            }

            pub fn get_mut(&mut self) -> &mut $value {
                self.0.get_mut()
            }

            pub fn load(&self, _: Ordering) -> $value {
                point();
                self.0.load(Ordering::SeqCst)
            }

            pub fn store(&self, value: $value, _: Ordering) {
                point();
                self.0.store(value, Ordering::SeqCst);
            }

            pub fn swap(&self, value: $value, _: Ordering) -> $value {
                point();
                self.0.swap(value, Ordering::SeqCst)
            }

            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                _: Ordering,
                _: Ordering,
            ) -> Result<$value, $value> {
                point();
                self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            }

            pub fn fetch_update(
                &self,
                _: Ordering,
                _: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                point();
                self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change)
            }

            $(
                pub fn $rmw(&self, value: $value, _: Ordering) -> $value {
                    point();
                    self.0.$rmw(value, Ordering::SeqCst)
                }
            )*
        }
    )*};
}

atomics! {
    AtomicBool: bool, { fetch_or fetch_and }
    AtomicU32: u32, { fetch_add fetch_sub fetch_or fetch_and fetch_max }
    AtomicU64: u64, { fetch_add fetch_sub fetch_or fetch_and fetch_max }
    AtomicUsize: usize, { fetch_add fetch_sub fetch_or fetch_and fetch_max }
}

#[repr(transparent)]
pub struct AtomicPtr<T>(atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub const fn new(value: *mut T) -> AtomicPtr<T> {
        AtomicPtr(atomic::AtomicPtr::new(value))
    }

    pub fn load(&self, _: Ordering) -> *mut T {
        point();
        self.0.load(Ordering::SeqCst)
    }

    pub fn store(&self, value: *mut T, _: Ordering) {
        point();
        self.0.store(value, Ordering::SeqCst);
    }
}

/// A cell that is written once. It takes as many steps if it is set as if it is not: one that stands
/// in a `static` outlives a schedule, and the next has to go on as if it were the first.
pub struct OnceLock<T>(UnsafeCell<Option<T>>);

// SAFETY: one thread at a time, and what is set stays.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> OnceLock<T> {
    pub const fn new() -> OnceLock<T> {
        OnceLock(UnsafeCell::new(None))
    }

    pub fn get(&self) -> Option<&T> {
        point();
        // SAFETY: as for `Sync`.
        unsafe { (*self.0.get()).as_ref() }
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        if self.get().is_some() {
            return Err(value);
        }
        // SAFETY: nobody refers to what is not there.
        unsafe { *self.0.get() = Some(value) };
        Ok(())
    }

    pub fn take(&mut self) -> Option<T> {
        self.0.get_mut().take()
    }

    pub fn into_inner(self) -> Option<T> {
        self.0.into_inner()
    }

    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        match self.get() {
            Some(value) => value,
            None => {
                let value = init();
                // SAFETY: as for `set`; another may have set it while `init` ran.
                unsafe { (*self.0.get()).get_or_insert(value) }
            }
        }
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

impl<T> std::fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnceLock")
    }
}

/// A thread that can be asked whether it has ended.
pub struct JoinHandle<T> {
    handle: ::shuttle::thread::JoinHandle<T>,
    is_finished: std::sync::Arc<atomic::AtomicBool>,
}

impl<T> JoinHandle<T> {
    pub fn is_finished(&self) -> bool {
        point();
        self.is_finished.load(Ordering::SeqCst)
    }

    pub fn join(self) -> std::thread::Result<T> {
        self.handle.join()
    }
}

pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let is_finished = std::sync::Arc::new(atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&is_finished);
    let handle = ::shuttle::thread::spawn(move || {
        let outcome = work();
        flag.store(true, Ordering::SeqCst);
        outcome
    });
    JoinHandle { handle, is_finished }
}

/// Threads have no names here.
pub struct ThreadBuilder;

impl ThreadBuilder {
    pub fn new() -> ThreadBuilder {
        ThreadBuilder
    }

    pub fn name(self, _: String) -> ThreadBuilder {
        self
    }

    pub fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<JoinHandle<T>> {
        Ok(spawn(work))
    }
}
