//! The locks, atomics and channels of the engine, in one place so that a model checker can stand in.

pub use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub use std::sync::{Arc, OnceLock, Weak};
