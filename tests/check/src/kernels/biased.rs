//! The lock that is biased to its usual thread.

use loom::cell::UnsafeCell;

use crate::base::biased_mutex::BiasedMutex;
use crate::base::sync::{Arc, Weakened, spawn};
use crate::kernels::Kernel;

pub const KERNELS: &[Kernel] = &[
    Kernel {
        name: "biased lock: the owner and another are never in together",
        run: || owner_and_others(1),
        preemptions: 3,
        needs: &[Weakened::Fence, Weakened::Release, Weakened::Acquire],
    },
    Kernel {
        name: "biased lock: the owner and two others are never in together",
        run: || owner_and_others(2),
        preemptions: 2,
        needs: &[Weakened::Fence],
    },
    Kernel {
        name: "biased lock: a late owner passes nobody, whoever is the next",
        run: next_owner,
        preemptions: 2,
        needs: &[Weakened::Fence],
    },
    Kernel {
        name: "biased lock: who only tries does not wait and is not in with another",
        run: tried,
        preemptions: 3,
        needs: &[Weakened::Fence],
    },
];

/// The value is loom's cell: two that are in together, or one that does not see what was done under
/// the lock before, are noticed.
type Lock = Arc<BiasedMutex<UnsafeCell<u64>>>;

fn add(lock: &Lock) {
    // SAFETY: loom says if it is not.
    lock.lock().with_mut(|value| unsafe { *value += 1 });
}

fn value(lock: &Lock) -> u64 {
    // SAFETY: as for `add`.
    lock.lock().with(|value| unsafe { *value })
}

/// A lock that this thread owns.
fn owned() -> Lock {
    let lock: Lock = Arc::new(BiasedMutex::new(UnsafeCell::new(0)));
    (0..2).for_each(|_| add(&lock));
    lock
}

fn owner_and_others(others: u64) {
    let lock = owned();
    let other = |_| {
        let lock = Arc::clone(&lock);
        spawn(move || add(&lock))
    };
    let threads: Vec<_> = (0..others).map(other).collect();
    add(&lock);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(value(&lock), 3 + others);
}

/// Another takes it so often that it becomes the owner, while the first still is, or thinks so.
fn next_owner() {
    let lock = owned();
    let other = Arc::clone(&lock);
    let thread = spawn(move || (0..5).for_each(|_| add(&other)));
    add(&lock);
    thread.join().unwrap();
    assert_eq!(value(&lock), 8);
}

fn tried() {
    let lock = owned();
    let other = Arc::clone(&lock);
    let thread = spawn(move || match other.try_lock() {
        // SAFETY: as for `add`.
        Some(value) => value.with_mut(|value| unsafe { *value += 1 }),
        None => {}
    });
    add(&lock);
    thread.join().unwrap();
    assert!([3, 4].contains(&value(&lock)));
}
