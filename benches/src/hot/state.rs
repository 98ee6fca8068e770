//! The hot paths of keyed state: what the typed interface adds to the engine's own.

use std::path::Path;

use alluvium::{BackendOptions, Env, KeyGroupRange, StateBackend, ValueState};

use super::{KEYS, order};

/// What can be counted: going to a key; that and one access; and one more access under the same key.
pub const PATHS: &[&str] = &[
    "state-set-key",
    "state-get",
    "state-get-again",
    "state-get-text",
    "state-update",
    "state-update-again",
    "state-rmw",
];

type Backend = StateBackend<u64>;

/// Sets up a path and runs it once.
pub fn run(path: &str, env: Env) {
    let groups = KeyGroupRange::new(0, 127).expect("a range");
    let options = BackendOptions::new(128, groups);
    let mut backend = Backend::open(Path::new("hot"), options, env).expect("open");
    let mut count = backend.value_state::<u64>("count").expect("a state");
    let mut text = backend.value_state::<String>("text").expect("a state");
    for i in (0..KEYS).map(|i| u64::from(i * 7919 % KEYS)) {
        backend.set_current_key(&i).expect("its own key");
        count.update(&i).expect("update");
        text.update(&format!("the text of the state of {i:08}")).expect("update");
    }
    match path {
        "state-set-key" => counted_set_key(&mut backend),
        "state-get" => counted_get(&mut backend, &mut count),
        "state-get-again" => counted_get_again(&mut count),
        "state-get-text" => counted_get_text(&mut backend, &mut text),
        "state-update" => counted_update(&mut backend, &mut count),
        "state-update-again" => counted_update_again(&mut count),
        "state-rmw" => counted_rmw(&mut backend, &mut count),
        _ => panic!("{path}: none of {PATHS:?}"),
    }
}

fn go(backend: &mut Backend, i: u32) -> u64 {
    let key = u64::from(i);
    backend.set_current_key(&key).expect("its own key");
    key
}

#[inline(never)]
fn counted_set_key(backend: &mut Backend) {
    for i in order() {
        go(backend, i);
    }
}

#[inline(never)]
fn counted_get(backend: &mut Backend, count: &mut ValueState<u64>) {
    for i in order() {
        let key = go(backend, i);
        assert_eq!(count.value().expect("get"), Some(key));
    }
}

#[inline(never)]
fn counted_get_again(count: &mut ValueState<u64>) {
    for _ in order() {
        assert!(count.value().expect("get").is_some());
    }
}

#[inline(never)]
fn counted_get_text(backend: &mut Backend, text: &mut ValueState<String>) {
    for i in order() {
        go(backend, i);
        assert_eq!(text.value().expect("get").map_or(0, |text| text.len()), 33);
    }
}

#[inline(never)]
fn counted_update(backend: &mut Backend, count: &mut ValueState<u64>) {
    for i in order() {
        let key = go(backend, i);
        count.update(&(key + 1)).expect("update");
    }
}

#[inline(never)]
fn counted_update_again(count: &mut ValueState<u64>) {
    for i in order() {
        count.update(&u64::from(i)).expect("update");
    }
}

#[inline(never)]
fn counted_rmw(backend: &mut Backend, count: &mut ValueState<u64>) {
    for i in order() {
        go(backend, i);
        count.update_with(|n| Some(n.unwrap_or(0) + 1)).expect("update");
    }
}
