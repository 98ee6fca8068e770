//! State with a time to live: `TtlStateTestBase` and `RocksDBTtlStateTestBase`, each test for all eight
//! contexts, and the tables of what was run on Flink 2.3.0. (Heap-only clean-up, full-snapshot
//! transformers and queryable state have no counterpart.)

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alluvium::{
    AggregateFunction, AggregatingState, BackendOptions, Clock, Env, ErrorKind, ListState,
    MapState, ReducingState, Result, StateBackend, TtlConfig, TtlUpdate, TtlVisibility, ValueState,
};

use super::job::backend_options;
use super::timers::{env, range, restore};

const TTL: i64 = 100;
const NAME: &str = "state";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Value,
    ListOfFixedLength,
    ListOfVariableLength,
    MapAllEntries,
    MapPerElement,
    MapPerNullElement,
    Aggregating,
    Reducing,
}

use Kind::*;

const KINDS: [Kind; 8] = [
    Value,
    ListOfFixedLength,
    ListOfVariableLength,
    MapAllEntries,
    MapPerElement,
    MapPerNullElement,
    Aggregating,
    Reducing,
];

const MERGING: [Kind; 4] = [ListOfFixedLength, ListOfVariableLength, Aggregating, Reducing];

struct Sum;

impl AggregateFunction for Sum {
    type Input = u32;
    type Accumulator = u64;
    type Output = String;

    fn create_accumulator(&self) -> u64 {
        3
    }
    fn add(&self, accumulator: &mut u64, value: &u32) {
        *accumulator += u64::from(*value);
    }
    fn get_result(&self, accumulator: u64) -> String {
        accumulator.to_string()
    }
    fn merge(&self, accumulator: &mut u64, other: u64) {
        *accumulator += other - 3;
    }
}

enum State {
    Value(ValueState<String, u8>),
    Fixed(ListState<u32, u8>),
    Variable(ListState<String, u8>),
    Map(MapState<u32, String, u8>),
    Nulls(MapState<u32, Option<String>, u8>),
    Aggregating(AggregatingState<Sum, u8>),
    Reducing(ReducingState<u32, u8>),
}

/// A backend with one state in one of the contexts.
struct Context {
    kind: Kind,
    clock: Arc<AtomicI64>,
    env: Env,
    options: BackendOptions,
    backend: StateBackend<String>,
    state: State,
    restores: usize,
}

fn open(kind: Kind, backend: &mut StateBackend<String>) -> Result<State> {
    Ok(match kind {
        Value => State::Value(backend.value_state_with_namespace(NAME)?),
        ListOfFixedLength => State::Fixed(backend.list_state_with_namespace(NAME)?),
        ListOfVariableLength => State::Variable(backend.list_state_with_namespace(NAME)?),
        MapAllEntries | MapPerElement => State::Map(backend.map_state_with_namespace(NAME)?),
        MapPerNullElement => State::Nulls(backend.map_state_with_namespace(NAME)?),
        Aggregating => State::Aggregating(backend.aggregating_state_with_namespace(NAME, Sum)?),
        Reducing => {
            State::Reducing(backend.reducing_state_with_namespace(NAME, |a: u32, b| a + b)?)
        }
    })
}

fn config() -> TtlConfig {
    TtlConfig::new(TTL).unwrap()
}

fn relaxed() -> TtlConfig {
    config().with_visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp)
}

impl Context {
    fn new(kind: Kind, config: TtlConfig) -> Context {
        let (env, clock) = (env(), Arc::new(AtomicI64::new(0)));
        let mut options = backend_options(10, range(0, 9));
        let shown = Arc::clone(&clock);
        options.clock = Some(Clock::new(move || shown.load(Ordering::Relaxed)));
        options.ttl.insert(NAME.to_owned(), config);
        let dir = std::path::Path::new("ttl");
        let mut backend = StateBackend::open(dir, options.clone(), env.clone()).unwrap();
        let state = open(kind, &mut backend).unwrap();
        let mut context = Context { kind, clock, env, options, backend, state, restores: 0 };
        context.go("key", 1);
        context
    }

    fn at(&mut self, time: i64) -> &mut Context {
        self.clock.store(time, Ordering::Relaxed);
        self
    }

    /// Key and namespace.
    fn go(&mut self, key: &str, namespace: u8) -> &mut Context {
        self.backend.set_current_key(&key.to_owned()).unwrap();
        match &mut self.state {
            State::Value(state) => state.set_current_namespace(&namespace),
            State::Fixed(state) => state.set_current_namespace(&namespace),
            State::Variable(state) => state.set_current_namespace(&namespace),
            State::Map(state) => state.set_current_namespace(&namespace),
            State::Nulls(state) => state.set_current_namespace(&namespace),
            State::Aggregating(state) => state.set_current_namespace(&namespace),
            State::Reducing(state) => state.set_current_namespace(&namespace),
        }
        self
    }

    fn update(&mut self, n: u32) -> &mut Context {
        let text = n.to_string();
        let one = self.kind != MapAllEntries;
        match &mut self.state {
            State::Value(state) => state.update(&text),
            State::Fixed(state) => state.update(&[n, n + 1]),
            State::Variable(state) => state.update(&[text, "x".repeat(n as usize)]),
            State::Map(state) if one => state.put(&7, &text),
            State::Map(state) => state.put_all([(&n, &text), (&(n + 100), &text)]),
            State::Nulls(state) => state.put(&7, &None),
            State::Aggregating(state) => state.add(&n),
            State::Reducing(state) => state.add(&n),
        }
        .unwrap();
        self
    }

    fn get(&mut self) -> Vec<String> {
        let one = self.kind != MapAllEntries;
        match &mut self.state {
            State::Value(state) => state.value().unwrap().into_iter().collect(),
            State::Fixed(state) => state.get().unwrap().iter().map(u32::to_string).collect(),
            State::Variable(state) => state.get().unwrap(),
            State::Map(state) if one => state.get(&7).unwrap().into_iter().collect(),
            State::Map(state) => {
                let entries = state.iter().unwrap().map(Result::unwrap);
                entries.map(|(key, value)| format!("{key}={value}")).collect()
            }
            State::Nulls(state) => {
                state.get(&7).unwrap().iter().map(|value| format!("{value:?}")).collect()
            }
            State::Aggregating(state) => state.get().unwrap().into_iter().collect(),
            State::Reducing(state) => state.get().unwrap().iter().map(u32::to_string).collect(),
        }
    }

    /// What `get` returns after one update.
    fn after(&self, n: u32) -> Vec<String> {
        let text = n.to_string();
        match self.kind {
            ListOfFixedLength => vec![text, (n + 1).to_string()],
            ListOfVariableLength => vec![text, "x".repeat(n as usize)],
            MapAllEntries => vec![format!("{n}={n}"), format!("{}={n}", n + 100)],
            MapPerNullElement => vec!["None".to_owned()],
            Aggregating => vec![(n + 3).to_string()],
            Value | MapPerElement | Reducing => vec![text],
        }
    }

    /// What `get` returns after two updates, of which the second refreshed what it did not replace.
    fn after_both(&self, first: u32, second: u32) -> Vec<String> {
        match self.kind {
            Aggregating | Reducing => self.after(first + second),
            _ => self.after(second),
        }
    }

    /// Is nothing of the state stored any more?
    fn is_gone(&self) -> bool {
        self.backend.get_keys_and_namespaces::<u8>(NAME).unwrap().count() == 0
    }

    fn restore(&mut self) -> &mut Context {
        let options = self.options.clone();
        self.restore_with(options)
    }

    /// Goes on as another backend, from a checkpoint, with the same key and namespace.
    fn restore_with(&mut self, options: BackendOptions) -> &mut Context {
        let set = self.backend.checkpoint().unwrap().wait().unwrap();
        self.restores += 1;
        let dir = format!("restored {}", self.restores);
        self.backend = restore(&self.env, &dir, &set, options.clone());
        self.options = options;
        self.state = open(self.kind, &mut self.backend).unwrap();
        self.go("key", 1)
    }

    fn clean_up(&mut self) -> &mut Context {
        self.backend.db().flush_all().unwrap();
        self.backend.drop_expired().unwrap();
        self
    }
}

#[test]
fn test_non_existent_value() {
    for kind in KINDS {
        assert!(Context::new(kind, config()).get().is_empty(), "{kind:?}");
    }
}

#[test]
fn test_value_set_null() {
    let mut context = Context::new(Value, relaxed());
    context.update(5);
    let State::Value(state) = &mut context.state else { unreachable!() };
    state.clear().unwrap();
    assert!(context.get().is_empty());
}

#[test]
fn test_exact_expiration_on_write() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).update(5).restore();
        assert_eq!(c.at(20).get(), c.after(5), "{kind:?}");
        c.restore().at(50).update(7).restore();
        assert_eq!(c.at(120).get(), c.after_both(5, 7), "{kind:?}");
        c.restore().at(170).update(6).restore();
        assert_eq!(c.at(220).get(), c.after(6), "{kind:?}: what had expired is not added to");
        c.restore().at(300);
        assert!(c.get().is_empty() && c.is_gone(), "{kind:?}");
    }
}

#[test]
fn test_relaxed_expiration_on_write() {
    for kind in KINDS {
        let mut c = Context::new(kind, relaxed());
        c.at(0).update(5).restore();
        assert_eq!(c.at(120).get(), c.after(5), "{kind:?}: once more");
        assert!(c.is_gone() && c.get().is_empty(), "{kind:?}");
    }
}

#[test]
fn test_exact_expiration_on_read() {
    for kind in KINDS {
        let mut c = Context::new(kind, config().with_update(TtlUpdate::OnReadAndWrite));
        c.at(0).update(5).restore();
        assert_eq!(c.at(50).get(), c.after(5), "{kind:?}");
        c.restore();
        assert_eq!(c.at(120).get(), c.after(5), "{kind:?}: reading made it live longer");
        c.restore();
        assert!(c.at(250).get().is_empty() && c.is_gone(), "{kind:?}");
    }
}

#[test]
fn test_relaxed_expiration_on_read() {
    for kind in KINDS {
        let mut c = Context::new(kind, relaxed().with_update(TtlUpdate::OnReadAndWrite));
        c.at(0).update(5).restore();
        assert_eq!(c.at(50).get(), c.after(5), "{kind:?}");
        c.restore();
        assert_eq!(c.at(170).get(), c.after(5), "{kind:?}: once more");
        assert!(c.get().is_empty() && c.is_gone(), "{kind:?}");
    }
}

#[test]
fn test_expiration_timestamp_overflow() {
    for kind in KINDS {
        let mut c = Context::new(kind, TtlConfig::new(i64::MAX).unwrap());
        c.at(10).update(5).restore();
        assert_eq!(c.at(50).get(), c.after(5), "{kind:?}");
    }
}

#[test]
fn test_merge_namespaces() {
    for kind in MERGING {
        let mut c = Context::new(kind, config());
        // One expired, two unexpired, and one in the target at the end.
        c.at(0).go("key", 1).update(1);
        c.at(120).go("key", 2).update(20).go("key", 3).update(30);
        c.restore().at(150).go("key", 4).update(40);
        c.at(230).go("key", 4);
        let (target, sources) = (4, [1, 2, 3]);
        // Now those of 120 have expired too, if the time to live is 100: at 210 they have not.
        c.at(210);
        match &mut c.state {
            State::Fixed(state) => state.merge_namespaces(&target, &sources),
            State::Variable(state) => state.merge_namespaces(&target, &sources),
            State::Aggregating(state) => state.merge_namespaces(&target, &sources),
            State::Reducing(state) => state.merge_namespaces(&target, &sources),
            _ => unreachable!(),
        }
        .unwrap();
        let mut got = c.restore().go("key", 4).get();
        got.sort();
        let mut want = match kind {
            Aggregating | Reducing => c.after(90),
            _ => [c.after(20), c.after(30), c.after(40)].concat(),
        };
        want.sort();
        assert_eq!(got, want, "{kind:?}");
    }
}

#[test]
fn test_multiple_keys() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).go("k1", 1).update(5);
        c.at(50).go("k2", 1).update(6).restore();
        assert_eq!(c.at(60).go("k1", 1).get(), c.after(5), "{kind:?}");
        assert_eq!(c.go("k2", 1).get(), c.after(6), "{kind:?}");
        assert!(c.at(120).go("k1", 1).get().is_empty(), "{kind:?}");
        assert_eq!(c.go("k2", 1).get(), c.after(6), "{kind:?}");
        assert!(c.restore().at(180).go("k2", 1).get().is_empty(), "{kind:?}");
    }
}

#[test]
fn test_multiple_namespaces() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).go("key", 1).update(5);
        c.at(50).go("key", 2).update(6).restore();
        assert!(c.at(120).go("key", 1).get().is_empty(), "{kind:?}");
        assert_eq!(c.go("key", 2).get(), c.after(6), "{kind:?}");
        assert!(c.restore().at(180).go("key", 2).get().is_empty(), "{kind:?}");
    }
}

#[test]
fn test_snapshot_change_restore() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).go("k1", 1).update(5);
        c.at(50).go("k1", 1).update(7);
        c.at(100).go("k2", 1).update(6);
        let set = c.backend.checkpoint().unwrap().wait().unwrap();
        c.at(140).go("k1", 1).update(8);
        c.at(170).go("k2", 1).update(9);
        c.backend = restore(&c.env, "from before", &set, c.options.clone());
        c.state = open(kind, &mut c.backend).unwrap();
        assert!(c.at(180).go("k1", 1).get().is_empty(), "{kind:?}: with the old time");
        assert_eq!(c.go("k2", 1).get(), c.after(6), "{kind:?}");
    }
}

/// Despite its name, it succeeds in Flink 2.x: the times are dropped, and what had expired is back.
#[test]
fn test_restore_ttl_and_register_non_ttl_state_compat_failure() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).update(5);
        let mut options = c.options.clone();
        options.ttl.clear();
        c.at(500).restore_with(options);
        assert_eq!(c.get(), c.after(5), "{kind:?}");
        c.update(6);
        assert!(!c.at(5000).get().is_empty(), "{kind:?}: nothing expires any more");
    }
}

#[test]
fn ttl_can_be_switched_on_for_restored_state() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        let with_ttl = c.options.clone();
        let mut without = c.options.clone();
        without.ttl.clear();
        c.restore_with(without).at(1000).update(5);
        c.at(2000).restore_with(with_ttl);
        assert_eq!(c.at(2099).get(), c.after(5), "{kind:?}: written when it was migrated");
        assert!(c.at(2100).get().is_empty(), "{kind:?}");
    }
}

#[test]
fn another_ttl_needs_no_migration_and_may_bring_back_what_had_expired() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).update(5);
        let mut options = c.options.clone();
        options.ttl.insert(NAME.to_owned(), TtlConfig::new(1000).unwrap());
        assert_eq!(c.at(500).restore_with(options).get(), c.after(5), "{kind:?}");
        assert!(c.at(1000).get().is_empty(), "{kind:?}");
    }
}

#[test]
fn test_compact_filter() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).clean_up().update(5).clean_up();
        assert_eq!(c.at(50).clean_up().get(), c.after(5), "{kind:?}");
        c.update(7);
        let want = match kind {
            MapAllEntries => vec!["5=5".into(), "7=7".into(), "105=5".into(), "107=7".into()],
            _ => c.after_both(5, 7),
        };
        assert_eq!(c.at(80).clean_up().get(), want, "{kind:?}");
        assert_eq!(c.at(120).clean_up().get(), c.after_both(5, 7), "{kind:?}");
        c.at(170).clean_up();
        assert!(c.is_gone(), "{kind:?}: nobody has read it");
        assert!(c.get().is_empty(), "{kind:?}");
    }
}

#[test]
fn test_compact_filter_with_snapshot() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).update(5).clean_up().restore();
        c.at(50).update(7).restore();
        assert_eq!(c.at(120).clean_up().get(), c.after_both(5, 7), "{kind:?}");
        c.restore().at(170).clean_up();
        assert!(c.is_gone(), "{kind:?}");
    }
}

#[test]
fn test_compact_filter_with_snapshot_and_rescaling_after_restore() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(0).update(5).clean_up();
        c.at(50).update(7);
        let set = c.backend.checkpoint().unwrap().wait().unwrap();
        c.at(120);
        // "key" belongs to one of the two halves.
        for (i, groups) in [range(0, 4), range(5, 9)].into_iter().enumerate() {
            let mut options = c.options.clone();
            options.key_groups = groups;
            c.backend = restore(&c.env, &format!("half {i}"), &set, options);
            c.state = open(kind, &mut c.backend).unwrap();
            if c.backend.set_current_key(&"key".to_owned()).is_ok() {
                assert_eq!(c.go("key", 1).clean_up().get(), c.after_both(5, 7), "{kind:?}");
                c.at(170).clean_up();
            }
            assert!(c.is_gone(), "{kind:?}");
            c.at(120);
        }
    }
}

#[test]
fn no_clean_up_in_the_background_if_it_is_switched_off() {
    for kind in KINDS {
        let mut c = Context::new(kind, config().without_cleanup_in_background());
        c.at(0).update(5);
        c.at(170).clean_up();
        assert!(!c.is_gone(), "{kind:?}");
        assert!(c.get().is_empty() && c.is_gone(), "{kind:?}: read");
    }
}

#[test]
fn ttl_is_positive_and_needs_a_clock() {
    for ttl in [0, -1] {
        assert_eq!(TtlConfig::new(ttl).err().map(|e| e.kind()), Some(ErrorKind::InvalidArgument));
    }
    let mut options = backend_options(10, range(0, 9));
    options.ttl.insert(NAME.to_owned(), config());
    let opened = StateBackend::<String>::open(std::path::Path::new("s"), options, env());
    assert_eq!(opened.err().map(|e| e.kind()), Some(ErrorKind::InvalidArgument));
}

/// The four modes, in the order of the tables.
fn modes() -> [TtlConfig; 4] {
    let read = TtlUpdate::OnReadAndWrite;
    [config(), relaxed(), config().with_update(read), relaxed().with_update(read)]
}

#[test]
fn values_as_run_on_flink() {
    let table: [[bool; 5]; 4] = [
        [true, false, false, false, false],
        [true, true, false, false, false],
        [true, true, true, false, false],
        [true, true, true, true, false],
    ];
    for (mode, want) in modes().into_iter().zip(table) {
        let mut c = Context::new(Value, mode);
        c.at(0).update(1);
        let got = [60, 120, 120, 300, 300].map(|time| !c.at(time).get().is_empty());
        assert_eq!(got, want);
    }
}

#[test]
fn lists_as_run_on_flink() {
    let (none, all, rest): (&[u32], &[u32], &[u32]) = (&[], &[1, 2, 3, 4], &[2, 3, 4]);
    let table = [
        [rest, rest, none, none, none, none],
        [all, all, all, none, none, none],
        [rest, rest, rest, rest, none, none],
        [all, rest, rest, rest, rest, none],
    ];
    for (i, (mode, want)) in modes().into_iter().zip(table).enumerate() {
        let mut c = Context::new(ListOfFixedLength, mode);
        let State::Fixed(list) = &mut c.state else { unreachable!() };
        list.add(&1).unwrap();
        c.clock.store(50, Ordering::Relaxed);
        list.add_all(&[2, 3, 4]).unwrap();
        let times = [120, 140, 170, 170, 400, 400];
        for (time, want) in times.into_iter().zip(want) {
            let want: Vec<String> = want.iter().map(u32::to_string).collect();
            assert_eq!(c.at(time).get(), want, "mode {i} at {time}");
        }
    }
}

#[test]
fn maps_as_run_on_flink() {
    // contains a@120, keys@120, isEmpty@155, keys@155, keys@500.
    let table: [(bool, &str, bool, &str, &str); 4] = [
        (false, "b", false, "", ""),
        (true, "b", false, "b", ""),
        (true, "ab", false, "ab", ""),
        (true, "ab", false, "ab", "ab"),
    ];
    let mut options = backend_options(10, range(0, 9));
    for (i, (mode, want)) in modes().into_iter().zip(table).enumerate() {
        let clock = Arc::new(AtomicI64::new(0));
        let shown = Arc::clone(&clock);
        options.clock = Some(Clock::new(move || shown.load(Ordering::Relaxed)));
        options.ttl.insert(NAME.to_owned(), mode);
        let dir = std::path::Path::new("map");
        let mut backend = StateBackend::<u8>::open(dir, options.clone(), env()).unwrap();
        let mut map = backend.map_state::<String, u32>(NAME).unwrap();
        let at = |time| clock.store(time, Ordering::Relaxed);
        backend.set_current_key(&1).unwrap();
        map.put(&"a".into(), &1).unwrap();
        at(50);
        map.put(&"b".into(), &2).unwrap();
        at(60);
        assert_eq!(map.get(&"a".into()).unwrap(), Some(1));
        at(120);
        let contains = map.contains(&"a".into()).unwrap();
        let mut keys = |time| {
            at(time);
            let keys: Vec<String> = map.keys().unwrap().map(Result::unwrap).collect();
            (keys.concat(), map.is_empty().unwrap())
        };
        let (keys_120, _) = keys(120);
        at(155);
        let (keys_155, empty_after) = keys(155);
        assert_eq!((contains, &*keys_120, &*keys_155), (want.0, want.1, want.3), "mode {i}");
        if want.3.is_empty() {
            assert!(empty_after, "mode {i}: removed by the visit");
        }
        assert_eq!(keys(500).0, want.4, "mode {i}");
    }
}

#[test]
fn is_empty_looks_at_what_is_stored() {
    let mut c = Context::new(MapPerElement, config());
    c.update(5).at(200);
    let State::Map(map) = &mut c.state else { unreachable!() };
    assert!(!map.is_empty().unwrap());
    assert_eq!(map.keys().unwrap().count(), 0);
    assert!(map.is_empty().unwrap());
}

#[test]
fn add_to_an_expired_accumulator() {
    for (mode, want) in [(config(), 5), (relaxed(), 8)] {
        let mut c = Context::new(Reducing, mode);
        c.at(0).update(3);
        c.at(200).update(5);
        assert_eq!(c.get(), [want.to_string()]);
    }
}

#[test]
fn defaults_are_ignored() {
    let c = Context::new(Value, config());
    let State::Value(state) = c.state else { unreachable!() };
    let mut state = state.with_default(|| "default".to_owned());
    assert_eq!(state.value().unwrap(), None);
}

#[test]
fn the_time_of_a_backend_never_goes_back() {
    for kind in KINDS {
        let mut c = Context::new(kind, config());
        c.at(100).update(5);
        assert_eq!(c.at(0).get(), c.after(5), "{kind:?}");
        c.at(200);
        assert!(c.get().is_empty(), "{kind:?}");
        c.at(0).update(6);
        assert_eq!(c.at(250).get(), c.after(6), "{kind:?}: written at 200");
    }
}

/// `StateBackendTestBase`: a read after an update.
#[test]
fn test_value_state_work_with_ttl() {
    let mut c = Context::new(Value, TtlConfig::new(1000).unwrap());
    for n in 0..3 {
        c.update(n);
        assert_eq!(c.get(), c.after(n));
    }
}

/// Two cells, one of which has expired and is cleaned up before a checkpoint: after a restore it is
/// not there, although the clock of the new backend shows an earlier time.
fn with_snapshot_cleanup(cells: [(&str, u8); 2]) {
    for kind in KINDS {
        let [(k1, n1), (k2, n2)] = cells;
        let mut c = Context::new(kind, config());
        c.at(0).go(k1, n1).update(5);
        c.at(50).go(k2, n2).update(6);
        c.at(120).clean_up().at(60).restore();
        assert!(c.go(k1, n1).get().is_empty(), "{kind:?}");
        assert_eq!(c.go(k2, n2).get(), c.after(6), "{kind:?}");
        let pairs = c.backend.get_keys_and_namespaces::<u8>(NAME).unwrap();
        let pairs: Vec<_> = pairs.map(Result::unwrap).collect();
        assert_eq!(pairs, [(k2.to_owned(), n2)], "{kind:?}");
    }
}

#[test]
fn test_multiple_keys_with_snapshot_cleanup() {
    with_snapshot_cleanup([("k1", 1), ("k2", 1)]);
}

#[test]
fn test_multiple_namespaces_with_snapshot_cleanup() {
    with_snapshot_cleanup([("key", 1), ("key", 2)]);
}
