//! The small structures that readers use beside a writer, in every order that the language allows.

mod biased;
mod cache;
mod memtable;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::model::Builder;

use crate::base::sync::{TOO_FEW, WEAKENED, Weakened, begin};

/// A structure with a few threads around it.
pub struct Kernel {
    pub name: &'static str,
    pub run: fn(),
    /// Orders with more switches between threads that could go on are left out.
    pub preemptions: usize,
    /// Without these, the check must fail.
    pub needs: &'static [Weakened],
}

/// What must fail, since its order is wrong on purpose.
pub struct Mistake {
    pub name: &'static str,
    pub run: fn(),
    pub preemptions: usize,
}

pub fn kernels() -> Vec<Kernel> {
    let mut all = biased::KERNELS.to_vec();
    all.extend_from_slice(memtable::KERNELS);
    all.extend_from_slice(crate::db::kernels::KERNELS);
    all.extend_from_slice(cache::KERNELS);
    all
}

pub fn mistakes() -> Vec<Mistake> {
    let mut all = memtable::MISTAKES.to_vec();
    all.extend_from_slice(crate::db::kernels::MISTAKES);
    all
}

impl Clone for Kernel {
    fn clone(&self) -> Kernel {
        Kernel { ..*self }
    }
}

impl Clone for Mistake {
    fn clone(&self) -> Mistake {
        Mistake { ..*self }
    }
}

/// Runs something in all its orders; how many there were, or what was wrong.
pub fn check(run: fn(), preemptions: usize, weakened: Option<Weakened>) -> Result<u64, String> {
    let mut atomics = 64;
    loop {
        match check_with(atomics, run, preemptions, weakened) {
            Err(text) if text.contains(TOO_FEW) => atomics *= 2,
            outcome => return outcome,
        }
    }
}

fn check_with(
    atomics: usize,
    run: fn(),
    preemptions: usize,
    weakened: Option<Weakened>,
) -> Result<u64, String> {
    let orders = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&orders);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 100_000;
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            begin(atomics);
            WEAKENED.set(weakened);
            run();
        });
    }));
    WEAKENED.set(None);
    match outcome {
        Ok(()) => Ok(orders.load(Ordering::Relaxed)),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            Err(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
        }
    }
}
