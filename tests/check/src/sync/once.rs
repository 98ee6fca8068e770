//! A cell that is written once, with the memory orders of the standard library's.

use std::cell::UnsafeCell;
use std::sync::atomic::Ordering;

use super::{AtomicBool, Mutex};

pub struct OnceLock<T> {
    is_set: AtomicBool,
    setting: Mutex<()>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is written once, under the lock, before `is_set`, and then only shared.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> OnceLock<T> {
    pub const fn new() -> OnceLock<T> {
        let is_set = AtomicBool::new(false);
        OnceLock { is_set, setting: Mutex::new(()), value: UnsafeCell::new(None) }
    }

    pub fn get(&self) -> Option<&T> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: written before it was set, and never again.
        unsafe { (*self.value.get()).as_ref() }
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        let _setting = self.setting.lock();
        if self.is_set.load(Ordering::Relaxed) {
            return Err(value);
        }
        // SAFETY: not yet set, and nobody else sets it.
        unsafe { *self.value.get() = Some(value) };
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }

    pub fn take(&mut self) -> Option<T> {
        *self.is_set.get_mut() = false;
        self.value.get_mut().take()
    }

    pub fn into_inner(mut self) -> Option<T> {
        self.take()
    }

    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            let _ = self.set(init());
        }
        self.get().expect("set just now, or by somebody else")
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
