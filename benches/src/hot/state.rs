//! The hot paths of keyed state: what the typed interface adds to the engine's own.

use std::path::Path;

use alluvium::{
    BackendOptions, Env, KeyGroupRange, ListState, MapState, StateBackend, TimerService, ValueState,
};

use super::{KEYS, order};

/// What can be counted: going to a key; that and one access; and one more access under the same key.
/// Of maps of ten entries: an access to one, a map, or an entry of those iterated or cleared.
pub const PATHS: &[&str] = &[
    "state-set-key",
    "state-get",
    "state-get-again",
    "state-get-text",
    "state-update",
    "state-update-again",
    "state-rmw",
    "state-map-get",
    "state-map-contains",
    "state-map-put",
    "state-map-is-empty",
    "state-map-iter",
    "state-map-clear",
    "state-list-add",
    "state-timer-add",
    "state-timer-poll",
];

/// Maps, of ten entries each.
const MAPS: u32 = KEYS / ENTRIES;
const ENTRIES: u32 = 10;

type Backend = StateBackend<u64>;
type Map = MapState<u64, u64>;
type Timers = TimerService<u64>;

/// Sets up a path and runs it once.
pub fn run(path: &str, env: Env) {
    let groups = KeyGroupRange::new(0, 127).expect("a range");
    let options = BackendOptions::new(128, groups);
    let mut backend = Backend::open(Path::new("hot"), options, env).expect("open");
    if path.starts_with("state-map-") {
        return run_map(path, &mut backend);
    }
    let mut list = backend.list_state::<u64>("list").expect("a state");
    let mut timers = backend.timer_service("timers").expect("a service");
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
        "state-list-add" => counted_list_add(&mut backend, &mut list),
        "state-timer-add" => counted_timer_add(&mut backend, &mut timers),
        "state-timer-poll" => {
            timer_add(&mut backend, &mut timers);
            timers.advance_watermark(i64::MAX);
            counted_timer_poll(&mut backend, &mut timers);
        }
        _ => panic!("{path}: none of {PATHS:?}"),
    }
}

fn run_map(path: &str, backend: &mut Backend) {
    let mut map = backend.map_state("map").expect("a state");
    for i in (0..KEYS).map(|i| i * 7919 % KEYS) {
        go(backend, i / ENTRIES);
        map.put(&user_key(i), &u64::from(i)).expect("put");
    }
    backend.set_current_key(&0).expect("its own key");
    assert!(!map.is_empty().expect("a look")); // the first scan makes the order
    match path {
        "state-map-get" => counted_map_get(backend, &mut map),
        "state-map-contains" => counted_map_contains(backend, &mut map),
        "state-map-put" => counted_map_put(backend, &mut map),
        "state-map-is-empty" => counted_map_is_empty(backend, &mut map),
        "state-map-iter" => counted_map_iter(backend, &mut map),
        "state-map-clear" => counted_map_clear(backend, &mut map),
        _ => panic!("{path}: none of {PATHS:?}"),
    }
}

fn user_key(i: u32) -> u64 {
    u64::from(i % ENTRIES)
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

#[inline(never)]
fn counted_map_get(backend: &mut Backend, map: &mut Map) {
    for i in order() {
        go(backend, i / ENTRIES);
        assert_eq!(map.get(&user_key(i)).expect("get"), Some(u64::from(i)));
    }
}

#[inline(never)]
fn counted_map_contains(backend: &mut Backend, map: &mut Map) {
    for i in order() {
        go(backend, i / ENTRIES);
        assert!(map.contains(&user_key(i)).expect("a look"));
    }
}

#[inline(never)]
fn counted_map_put(backend: &mut Backend, map: &mut Map) {
    for i in order() {
        go(backend, i / ENTRIES);
        map.put(&user_key(i), &u64::from(i + 1)).expect("put");
    }
}

#[inline(never)]
fn counted_map_is_empty(backend: &mut Backend, map: &mut Map) {
    for i in order() {
        go(backend, i % MAPS);
        assert!(!map.is_empty().expect("a look"));
    }
}

#[inline(never)]
fn counted_map_iter(backend: &mut Backend, map: &mut Map) {
    for i in order().filter(|i| *i < MAPS) {
        go(backend, i);
        assert_eq!(map.iter().expect("a scan").map(Result::unwrap).count(), ENTRIES as usize);
    }
}

#[inline(never)]
fn counted_map_clear(backend: &mut Backend, map: &mut Map) {
    for i in order().filter(|i| *i < MAPS) {
        go(backend, i);
        map.clear().expect("clear");
    }
}

#[inline(never)]
fn counted_list_add(backend: &mut Backend, list: &mut ListState<u64>) {
    for i in order() {
        let key = go(backend, i);
        list.add(&key).expect("add");
    }
}

fn timer_add(backend: &mut Backend, timers: &mut Timers) {
    for i in order() {
        go(backend, i);
        let time = i64::from(i * 4001 % KEYS);
        timers.register_event_time_timer(&(), time).expect("add");
    }
}

#[inline(never)]
fn counted_timer_add(backend: &mut Backend, timers: &mut Timers) {
    timer_add(backend, timers);
}

#[inline(never)]
fn counted_timer_poll(backend: &mut Backend, timers: &mut Timers) {
    for time in 0..KEYS {
        let timer = timers.next_event_time_timer(backend).expect("poll").expect("a timer");
        assert_eq!(timer.time, i64::from(time));
    }
}
