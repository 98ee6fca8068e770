//! The locks, atomics, channels and threads of the engine, in one place so that a model checker can
//! stand in: `tests/check` builds the engine with another file instead of this one.

pub use crossbeam_channel::{Receiver, Select, Sender, bounded, unbounded};
pub use parking_lot::{Condvar, Mutex, MutexGuard, RawMutex, RwLock, lock_api};
pub use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub use std::sync::{Arc, OnceLock, Weak};
pub use std::thread::{Builder as ThreadBuilder, JoinHandle, scope, yield_now};
pub use std::thread_local;
