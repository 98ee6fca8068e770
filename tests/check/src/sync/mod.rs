//! What stands in for `src/base/sync.rs`: the same names, made of what a model checker provides.

mod channel;
#[cfg(feature = "loom")]
mod loom;
#[cfg(feature = "loom")]
mod once;
#[cfg(feature = "shuttle")]
mod shuttle;

#[cfg(feature = "loom")]
pub use self::loom::*;
#[cfg(feature = "shuttle")]
pub use self::shuttle::*;
pub use channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
#[cfg(feature = "shuttle")]
pub use channel::{Select, wait_for};
#[cfg(feature = "loom")]
pub use once::OnceLock;
pub use std::sync::atomic::Ordering;
// Reference counts are taken to be right.
pub use std::sync::{Arc, Weak};

pub use parking_lot::lock_api;

/// A lock without a value.
pub struct RawMutex(Mutex<()>);

impl RawMutex {
    /// # Safety
    /// The guard goes before the lock does.
    unsafe fn for_good(guard: MutexGuard<'_, ()>) -> MutexGuard<'static, ()> {
        // SAFETY: only the lifetime changes.
        unsafe { std::mem::transmute(guard) }
    }
}

// SAFETY: it is the other lock.
unsafe impl lock_api::RawMutex for RawMutex {
    const INIT: RawMutex = RawMutex(Mutex::new(()));

    type Guard = MutexGuard<'static, ()>;

    fn lock(&self) -> MutexGuard<'static, ()> {
        // SAFETY: who locks keeps the lock until it is unlocked.
        unsafe { RawMutex::for_good(self.0.lock()) }
    }

    fn try_lock(&self) -> Option<MutexGuard<'static, ()>> {
        // SAFETY: as for `lock`.
        self.0.try_lock().map(|guard| unsafe { RawMutex::for_good(guard) })
    }

    unsafe fn unlock(&self, guard: MutexGuard<'static, ()>) {
        drop(guard);
    }

    fn is_locked(&self) -> bool {
        self.try_lock().is_none()
    }
}

#[cfg(feature = "loom")]
pub use ::loom::{thread::LocalKey, thread_local as checked_thread_local};
#[cfg(feature = "shuttle")]
pub use ::shuttle::{thread::LocalKey, thread_local as checked_thread_local};

pub use crate::thread_local_number as thread_local;

/// A number of each thread.
pub struct LocalNumber(pub &'static LocalKey<std::cell::Cell<u64>>);

impl LocalNumber {
    pub fn get(&self) -> u64 {
        self.0.with(std::cell::Cell::get)
    }

    pub fn set(&self, number: u64) {
        self.0.with(|cell| cell.set(number));
    }
}

/// As the standard library's, for a number.
#[macro_export]
macro_rules! thread_local_number {
    ($(#[$attr:meta])* static $name:ident: $type:ty = const $begin:block;) => {
        static $name: $crate::base::sync::LocalNumber = {
            $crate::base::sync::checked_thread_local! {
                static KEY: $type = $begin;
            }
            $crate::base::sync::LocalNumber(&KEY)
        };
    };
}

macro_rules! say_only_their_names {
    ($($name:ident)*) => {$(
        impl<T: ?Sized> std::fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

say_only_their_names! { Mutex RwLock }
