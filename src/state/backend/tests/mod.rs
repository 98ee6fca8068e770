//! The semantics of each state, call by call, and of the backend around them.

use super::*;
use crate::AggregateFunction;
use crate::MemFs;
use crate::MemoryBudget;
use crate::base::error::ErrorKind;

mod collections;
mod keys;
mod namespaces;
mod states;
mod values;

const DIR: &str = "state";

fn env() -> Env {
    Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(16 << 20), 7)
}

fn options() -> BackendOptions {
    BackendOptions::new(128, KeyGroupRange::new(0, 127).unwrap())
}

fn open(env: &Env) -> StateBackend<String> {
    StateBackend::open(Path::new(DIR), options(), env.clone()).unwrap()
}

/// A backend on which "a" is the current key.
fn backend() -> StateBackend<String> {
    let mut backend = open(&env());
    go(&mut backend, "a");
    backend
}

fn go(backend: &mut StateBackend<String>, key: &str) {
    backend.set_current_key(&key.to_owned()).unwrap();
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

fn all<T>(items: impl Iterator<Item = Result<T>>) -> Vec<T> {
    items.collect::<Result<_>>().unwrap()
}

fn strings<const N: usize>(strings: [&str; N]) -> Vec<String> {
    strings.map(str::to_owned).to_vec()
}

/// Adds numbers, and counts them.
struct Mean;

impl AggregateFunction for Mean {
    type Input = i64;
    type Accumulator = (i64, u32);
    type Output = f64;

    fn create_accumulator(&self) -> (i64, u32) {
        (0, 0)
    }
    fn add(&self, accumulator: &mut (i64, u32), value: &i64) {
        *accumulator = (accumulator.0 + value, accumulator.1 + 1);
    }
    fn get_result(&self, accumulator: (i64, u32)) -> f64 {
        assert!(accumulator.1 > 0, "the result of nothing is not asked for");
        accumulator.0 as f64 / f64::from(accumulator.1)
    }
    fn merge(&self, accumulator: &mut (i64, u32), other: (i64, u32)) {
        *accumulator = (accumulator.0 + other.0, accumulator.1 + other.1);
    }
}
