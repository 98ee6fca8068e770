//! `StateBackendTestBase`: the basics and the five types of state.

use alluvium::{
    AggregateFunction, AggregatingState, ErrorKind, ListState, MapState, ReducingState,
};

use crate::conformance::job::{Job, all, entries, go, kind, sorted, strings, with_log};

#[test]
fn test_get_keys() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state_with_namespace::<String, i32>("get-keys").unwrap();
        for key in 0..2000 {
            state.set_current_namespace(&if key < 1000 { "ns1" } else { "ns2" }.to_owned());
            go(&mut backend, key);
            state.update(&(key * 2)).unwrap();
        }
        let keys =
            |namespace: &str| sorted(backend.get_keys("get-keys", &namespace.to_owned()).unwrap());
        assert!(keys("ns1").into_iter().eq(0..1000));
        assert!(keys("ns2").into_iter().eq(1000..2000));
    });
}

#[test]
fn test_get_keys_and_namespaces() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state_with_namespace::<String, i32>("s").unwrap();
        for namespace in strings(["ns1", "ns2"]) {
            state.set_current_namespace(&namespace);
            for key in 0..1000 {
                go(&mut backend, key);
                state.update(&(key * 2)).unwrap();
            }
        }
        let check = |backend: &alluvium::StateBackend<i32>| {
            let pairs = sorted(backend.get_keys_and_namespaces::<String>("s").unwrap());
            let want = (0..1000).flat_map(|key| ["ns1", "ns2"].map(|ns| (key, ns.to_owned())));
            assert!(pairs.into_iter().eq(want));
        };
        check(&backend);
        check(&job.round_trip(backend));
    });
}

#[test]
fn test_num_state_entries() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state::<String>("id").unwrap();
        assert_eq!(entries(&backend), 0);
        for (key, value, want) in
            [(0, Some("a"), 1), (0, Some("b"), 1), (42, Some("c"), 2), (0, None, 1), (42, None, 0)]
        {
            go(&mut backend, key);
            match value {
                Some(value) => state.update(&value.into()).unwrap(),
                None => state.clear().unwrap(),
            }
            assert_eq!(entries(&backend), want);
        }
    });
}

/// A namespace cannot be null here, but it can be missing.
#[test]
fn test_require_non_null_namespace() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state_with_namespace::<i32, String>("id").unwrap();
        go(&mut backend, 1);
        assert_eq!(kind(state.value()), ErrorKind::InvalidArgument);
        assert_eq!(kind(state.update(&"x".into())), ErrorKind::InvalidArgument);
        assert_eq!(kind(state.clear()), ErrorKind::InvalidArgument);
    });
}

/// A backend without states is checkpointed, and restored as one.
#[test]
fn test_empty_state_checkpointing() {
    with_log(|job| {
        let backend = job.backend::<i32>();
        let backend = job.round_trip(backend);
        assert_eq!((backend.states().count(), entries(&backend)), (0, 0));
    });
}

#[test]
fn test_value_state() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state::<String>("id").unwrap();
        let mut write = |backend: &mut _, values: &[(i32, &str)]| {
            for (key, value) in values {
                go(backend, *key);
                state.update(&(*value).into()).unwrap();
                assert_eq!(state.value().unwrap().as_deref(), Some(*value));
            }
        };
        write(&mut backend, &[(1, "1"), (2, "2")]);
        let first = job.snapshot(&[&backend]);
        let view = backend.snapshot();
        write(&mut backend, &[(1, "u1"), (2, "u2"), (3, "u3")]);
        let second = job.snapshot_on(&[&backend], Some(&first));
        let check = |backend: &mut alluvium::StateBackend<i32>, want: [Option<&str>; 3]| {
            let mut state = backend.value_state::<String>("id").unwrap();
            for (key, want) in (1..).zip(want) {
                go(backend, key);
                assert_eq!(state.value().unwrap().as_deref(), want);
            }
        };
        // The view stands for Flink's serialized query: it has a current key of its own.
        let mut then = state.at(&view).unwrap();
        let mut view = view;
        for (key, want) in (1..).zip([Some("1"), Some("2"), None]) {
            view.set_current_key(&key).unwrap();
            assert_eq!(then.value().unwrap().as_deref(), want);
        }
        check(&mut backend, [Some("u1"), Some("u2"), Some("u3")]);
        drop((then, view, state, backend));
        check(&mut job.restore(&first), [Some("1"), Some("2"), None]);
        check(&mut job.restore(&second), [Some("u1"), Some("u2"), Some("u3")]);
    });
}

/// Reads of another key through a view, on another thread, neither see nor disturb the current key.
#[test]
fn test_value_state_race() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state_with_namespace::<i32, String>("id").unwrap();
        state.set_current_namespace(&1);
        go(&mut backend, 1);
        assert_eq!(state.value().unwrap(), None);
        state.update(&"1".into()).unwrap();
        go(&mut backend, 2);
        state.set_current_namespace(&2);
        state.update(&"2".into()).unwrap();
        let mut view = backend.snapshot();
        let mut then = state.at(&view).unwrap();
        let reader = move || {
            for _ in 0..1000 {
                then.set_current_namespace(&1);
                view.set_current_key(&1).unwrap();
                assert_eq!(then.value().unwrap().as_deref(), Some("1"));
                view.set_current_key(&3).unwrap();
                assert_eq!(then.value().unwrap(), None);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(reader);
            for i in 0..1000 {
                assert_eq!(state.value().unwrap().as_deref(), Some("2"));
                if i % 100 == 0 {
                    state.update(&"2".into()).unwrap();
                }
            }
        });
    });
}

#[test]
fn test_multiple_value_states() {
    with_log(|job| {
        let mut backend = job.backend_of::<i32>(1, (0, 0));
        let mut text = backend.value_state::<String>("a").unwrap();
        let mut number = backend.value_state::<i32>("b").unwrap();
        go(&mut backend, 1);
        assert_eq!((text.value().unwrap(), number.value().unwrap()), (None, None));
        text.update(&"1".into()).unwrap();
        assert_eq!(number.value().unwrap(), None);
        number.update(&13).unwrap();
        assert_eq!(text.value().unwrap().as_deref(), Some("1"));
        drop((text, number));
        let mut backend = job.round_trip(backend);
        go(&mut backend, 1);
        let text = backend.value_state::<String>("a").unwrap().value().unwrap();
        let number = backend.value_state::<i32>("b").unwrap().value().unwrap();
        assert_eq!((text.as_deref(), number), (Some("1"), Some(13)));
    });
}

/// `update(null)` is `clear` here.
#[test]
fn test_value_state_null_update() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state::<i64>("id").unwrap().with_default(|| 42);
        go(&mut backend, 1);
        assert_eq!(state.value().unwrap(), Some(42));
        assert_eq!(entries(&backend), 0);
        state.update(&1).unwrap();
        assert_eq!(state.value().unwrap(), Some(1));
        go(&mut backend, 2);
        assert_eq!(state.value().unwrap(), Some(42));
        go(&mut backend, 1);
        state.clear().unwrap();
        assert_eq!(state.value().unwrap(), Some(42));
        state.update(&17).unwrap();
        assert_eq!(state.value().unwrap(), Some(17));
        state.update_with(|_| None).unwrap();
        assert_eq!(state.value().unwrap(), Some(42));
        drop(state);
        job.round_trip(backend).value_state::<i64>("id").unwrap();
    });
}

#[test]
fn test_value_state_null_as_default_value() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state::<String>("id").unwrap();
        go(&mut backend, 1);
        assert_eq!(state.value().unwrap(), None);
        state.update(&"Ciao".into()).unwrap();
        assert_eq!(state.value().unwrap().as_deref(), Some("Ciao"));
        state.clear().unwrap();
        assert_eq!(state.value().unwrap(), None);
    });
}

#[test]
fn test_value_state_default_value() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let hello = || "Hello".to_owned();
        let mut state = backend.value_state::<String>("id").unwrap().with_default(hello);
        go(&mut backend, 1);
        assert_eq!(state.value().unwrap(), Some(hello()));
        state.update(&"Ciao".into()).unwrap();
        assert_eq!(state.value().unwrap().as_deref(), Some("Ciao"));
        state.clear().unwrap();
        assert_eq!(state.value().unwrap(), Some(hello()));
        drop(state);
        let mut backend = job.round_trip(backend);
        go(&mut backend, 1);
        let mut plain = backend.value_state::<String>("id").unwrap();
        assert_eq!(plain.value().unwrap(), None, "the default is not data");
        assert_eq!(plain.with_default(hello).value().unwrap(), Some(hello()));
    });
}

#[test]
fn test_copy_default_value() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let state = backend.value_state::<Vec<u8>>("id").unwrap();
        let mut state = state.with_default(|| vec![1, 2]);
        go(&mut backend, 1);
        let mut first = state.value().unwrap().unwrap();
        first.push(3);
        go(&mut backend, 2);
        assert_eq!(state.value().unwrap(), Some(vec![1, 2]));
    });
}

#[test]
fn test_list_state() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.list_state::<String>("id").unwrap();
        go(&mut backend, 1);
        assert!(state.get().unwrap().is_empty());
        state.add(&"1".into()).unwrap();
        go(&mut backend, 2);
        state.update(&strings(["2"])).unwrap();
        let first = job.snapshot(&[&backend]);
        for (key, value) in [(1, "u1"), (2, "u2"), (3, "u3")] {
            go(&mut backend, key);
            state.add(&value.into()).unwrap();
        }
        let second = job.snapshot_on(&[&backend], Some(&first));
        let check = |backend: &mut alluvium::StateBackend<i32>, want: [&str; 3]| {
            let mut state = backend.list_state::<String>("id").unwrap();
            for (key, want) in (1..).zip(want) {
                go(backend, key);
                assert_eq!(state.get().unwrap().join(","), want);
            }
        };
        check(&mut backend, ["1,u1", "2,u2", "u3"]);
        drop((state, backend));
        check(&mut job.restore(&first), ["1", "2", ""]);
        check(&mut job.restore(&second), ["1,u1", "2,u2", "u3"]);
    });
}

#[test]
fn test_list_state_apis() {
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let mut state = backend.list_state::<i64>("id").unwrap();
        go(&mut backend, "g");
        assert!(state.get().unwrap().is_empty());
        state.add_all(&[]).unwrap();
        assert!(state.get().unwrap().is_empty());
        state.add_all(&[3, 4]).unwrap();
        assert_eq!(state.get().unwrap(), [3, 4]);
        assert_eq!(state.get().unwrap(), [3, 4]);
        go(&mut backend, "def");
        state.add(&17).unwrap();
        state.add(&11).unwrap();
        assert_eq!(state.get().unwrap(), [17, 11]);
        state.update(&[]).unwrap();
        assert!(state.get().unwrap().is_empty());
        state.update(&[10, 16]).unwrap();
        assert_eq!(state.get().unwrap(), [10, 16]);
        state.add_all(&[5, 6]).unwrap();
        state.add_all(&[]).unwrap();
        assert_eq!(state.get().unwrap(), [10, 16, 5, 6]);
        state.update(&[1, 2]).unwrap();
        assert_eq!(state.get().unwrap(), [1, 2]);
        go(&mut backend, "abc");
        assert!(state.get().unwrap().is_empty());
        go(&mut backend, "g");
        state.clear().unwrap();
        state.update(&[1, 2]).unwrap();
        [3, 2, 1].iter().for_each(|element| state.add(element).unwrap());
        assert_eq!(state.get().unwrap(), [1, 2, 3, 2, 1]);
        state.update(&[5, 6]).unwrap();
        assert_eq!(state.get().unwrap(), [5, 6]);
        state.clear().unwrap();
        go(&mut backend, "def");
        state.clear().unwrap();
        assert_eq!(entries(&backend), 0);
    });
}

/// Elements by namespace.
type Spread = &'static [(i32, &'static [i64])];

/// What the keys of the merging tests have.
const SPREAD: [(&str, Spread); 5] = [
    ("abc", &[(1, &[33, 55]), (2, &[22, 11]), (3, &[44])]),
    ("def", &[(1, &[11, 44]), (3, &[22, 55, 33])]),
    ("ghi", &[]),
    ("jkl", &[(1, &[11, 22, 33, 44, 55])]),
    ("mno", &[(3, &[11, 22, 33, 44, 55])]),
];

/// Spreads the elements, merges namespaces 2 and 3 into 1, and hands each key to `check`.
fn merging(
    backend: &mut alluvium::StateBackend<String>,
    mut add: impl FnMut(i32, i64),
    mut merge: impl FnMut(),
    mut check: impl FnMut(bool),
) {
    for (key, namespaces) in SPREAD {
        go(backend, key);
        for (namespace, elements) in namespaces {
            elements.iter().for_each(|element| add(*namespace, *element));
        }
    }
    for (key, _) in SPREAD {
        go(backend, key);
        merge();
        check(key == "ghi");
    }
    assert_eq!(entries(backend), 0, "the sources were removed");
}

#[test]
fn test_list_state_merging() {
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let state = backend.list_state_with_namespace::<i32, i64>("id").unwrap();
        let state = std::cell::RefCell::new(state);
        merging(
            &mut backend,
            |namespace, element| {
                let mut state = state.borrow_mut();
                state.set_current_namespace(&namespace);
                state.add(&element).unwrap();
            },
            || state.borrow_mut().merge_namespaces(&1, &[2, 3]).unwrap(),
            |empty| {
                let mut state = state.borrow_mut();
                state.set_current_namespace(&1);
                let mut list = state.get().unwrap();
                list.sort();
                assert_eq!(list, if empty { vec![] } else { vec![11, 22, 33, 44, 55] });
                state.clear().unwrap();
            },
        );
    });
}

#[test]
fn test_list_state_default_value() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.list_state::<String>("id").unwrap();
        go(&mut backend, 1);
        assert!(state.get().unwrap().is_empty());
        state.update(&strings(["Ciao", "Bello"])).unwrap();
        assert_eq!(state.get().unwrap(), ["Ciao", "Bello"]);
        state.clear().unwrap();
        assert!(state.get().unwrap().is_empty());
    });
}

fn join(a: String, b: &String) -> String {
    format!("{a},{b}")
}

#[test]
fn test_reducing_state() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.reducing_state("id", join).unwrap();
        for (key, value) in [(1, "1"), (2, "2")] {
            go(&mut backend, key);
            assert_eq!(state.get().unwrap(), None);
            state.add(&value.into()).unwrap();
        }
        let first = job.snapshot(&[&backend]);
        for (key, value) in [(1, "u1"), (2, "u2"), (3, "u3")] {
            go(&mut backend, key);
            state.add(&value.into()).unwrap();
        }
        let second = job.snapshot_on(&[&backend], Some(&first));
        let check = |backend: &mut alluvium::StateBackend<i32>, want: [Option<&str>; 3]| {
            let mut state = backend.reducing_state("id", join).unwrap();
            for (key, want) in (1..).zip(want) {
                go(backend, key);
                assert_eq!(state.get().unwrap().as_deref(), want);
            }
        };
        let later = [Some("1,u1"), Some("2,u2"), Some("u3")];
        check(&mut backend, later);
        drop((state, backend));
        check(&mut job.restore(&first), [Some("1"), Some("2"), None]);
        check(&mut job.restore(&second), later);
    });
}

#[test]
fn test_reducing_state_add_and_get() {
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let mut state = backend.reducing_state::<i64>("id", |a, b| a + b).unwrap();
        add_and_get(&mut backend, &mut state, ReducingState::add, ReducingState::get, |s| {
            s.clear()
        });
    });
}

/// The program of the add-and-get tests: sums.
fn add_and_get<S>(
    backend: &mut alluvium::StateBackend<String>,
    state: &mut S,
    add: impl Fn(&mut S, &i64) -> alluvium::Result<()>,
    get: impl Fn(&mut S) -> alluvium::Result<Option<i64>>,
    clear: impl Fn(&mut S) -> alluvium::Result<()>,
) {
    go(backend, "abc");
    assert_eq!(get(state).unwrap(), None);
    go(backend, "def");
    assert_eq!(get(state).unwrap(), None);
    add(state, &17).unwrap();
    add(state, &11).unwrap();
    assert_eq!(get(state).unwrap(), Some(28));
    go(backend, "abc");
    assert_eq!(get(state).unwrap(), None);
    go(backend, "g");
    assert_eq!(get(state).unwrap(), None);
    add(state, &1).unwrap();
    add(state, &2).unwrap();
    go(backend, "def");
    assert_eq!(get(state).unwrap(), Some(28));
    clear(state).unwrap();
    assert_eq!(get(state).unwrap(), None);
    go(backend, "g");
    [3, 2, 1].iter().for_each(|value| add(state, value).unwrap());
    go(backend, "def");
    assert_eq!(get(state).unwrap(), None);
    go(backend, "g");
    assert_eq!(get(state).unwrap(), Some(9));
    clear(state).unwrap();
    assert_eq!(entries(backend), 0);
}

#[test]
fn test_reducing_state_merging() {
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let sum = |a: i64, b: &i64| a + b;
        let state = backend.reducing_state_with_namespace::<i32, i64>("id", sum).unwrap();
        let state = std::cell::RefCell::new(state);
        merging(
            &mut backend,
            |namespace, element| {
                let mut state = state.borrow_mut();
                state.set_current_namespace(&namespace);
                state.add(&element).unwrap();
            },
            || state.borrow_mut().merge_namespaces(&1, &[2, 3]).unwrap(),
            |empty| {
                let mut state = state.borrow_mut();
                state.set_current_namespace(&1);
                assert_eq!(state.get().unwrap(), (!empty).then_some(165));
                state.clear().unwrap();
            },
        );
    });
}

#[test]
fn test_reducing_state_default_value() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.reducing_state("id", join).unwrap();
        go(&mut backend, 1);
        assert_eq!(state.get().unwrap(), None);
        state.add(&"Ciao".into()).unwrap();
        assert_eq!(state.get().unwrap().as_deref(), Some("Ciao"));
        state.clear().unwrap();
        assert_eq!(state.get().unwrap(), None);
    });
}

/// A sum whose accumulator is changed in place.
struct MutableSum;

impl AggregateFunction for MutableSum {
    type Input = i64;
    type Accumulator = Option<i64>;
    type Output = i64;

    fn create_accumulator(&self) -> Option<i64> {
        Some(0)
    }
    fn add(&self, accumulator: &mut Option<i64>, value: &i64) {
        *accumulator.as_mut().expect("a sum") += value;
    }
    fn get_result(&self, accumulator: Option<i64>) -> i64 {
        accumulator.expect("a sum")
    }
    fn merge(&self, accumulator: &mut Option<i64>, other: Option<i64>) {
        *accumulator.as_mut().expect("a sum") += other.expect("a sum");
    }
}

/// A sum whose accumulator is replaced.
struct ImmutableSum;

impl AggregateFunction for ImmutableSum {
    type Input = i64;
    type Accumulator = i64;
    type Output = i64;

    fn create_accumulator(&self) -> i64 {
        0
    }
    fn add(&self, accumulator: &mut i64, value: &i64) {
        *accumulator = i64::wrapping_add(*accumulator, *value);
    }
    fn get_result(&self, accumulator: i64) -> i64 {
        accumulator
    }
    fn merge(&self, accumulator: &mut i64, other: i64) {
        *accumulator = i64::wrapping_add(*accumulator, other);
    }
}

fn aggregating_add_and_get<A>(function: impl Fn() -> A)
where
    A: AggregateFunction<Input = i64, Output = i64, Accumulator: alluvium::Builtin>,
{
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let mut state = backend.aggregating_state("id", function()).unwrap();
        let (add, get) = (AggregatingState::add, AggregatingState::get);
        add_and_get(&mut backend, &mut state, add, get, |state| state.clear());
    });
}

fn aggregating_merging<A>(function: impl Fn() -> A)
where
    A: AggregateFunction<Input = i64, Output = i64, Accumulator: alluvium::Builtin>,
{
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let state = backend.aggregating_state_with_namespace::<i32, A>("id", function()).unwrap();
        let state = std::cell::RefCell::new(state);
        merging(
            &mut backend,
            |namespace, element| {
                let mut state = state.borrow_mut();
                state.set_current_namespace(&namespace);
                state.add(&element).unwrap();
            },
            || state.borrow_mut().merge_namespaces(&1, &[2, 3]).unwrap(),
            |empty| {
                let mut state = state.borrow_mut();
                state.set_current_namespace(&1);
                assert_eq!(state.get().unwrap(), (!empty).then_some(165));
                state.clear().unwrap();
            },
        );
    });
}

#[test]
fn test_aggregating_state_add_and_get_with_mutable_accumulator() {
    aggregating_add_and_get(|| MutableSum);
}

#[test]
fn test_aggregating_state_merging_with_mutable_accumulator() {
    aggregating_merging(|| MutableSum);
}

#[test]
fn test_aggregating_state_add_and_get_with_immutable_accumulator() {
    aggregating_add_and_get(|| ImmutableSum);
}

#[test]
fn test_aggregating_state_merging_with_immutable_accumulator() {
    aggregating_merging(|| ImmutableSum);
}

type Map = MapState<i32, String>;

fn entries_of(state: &mut Map) -> Vec<(i32, String)> {
    all(state.iter().unwrap())
}

fn pairs<const N: usize>(pairs: [(i32, &str); N]) -> Vec<(i32, String)> {
    pairs.map(|(key, value)| (key, value.to_owned())).to_vec()
}

#[test]
fn test_map_state() {
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let mut state: Map = backend.map_state("id").unwrap();
        go(&mut backend, "1");
        assert_eq!(state.get(&1).unwrap(), None);
        state.put(&1, &"1".into()).unwrap();
        go(&mut backend, "2");
        assert_eq!(state.get(&2).unwrap(), None);
        assert!(!state.contains(&2).unwrap());
        state.put(&2, &"2".into()).unwrap();
        // A key of which another is a prefix.
        go(&mut backend, "11");
        state.put(&11, &"11".into()).unwrap();
        go(&mut backend, "1");
        assert!(state.contains(&1).unwrap());
        assert_eq!(entries_of(&mut state), pairs([(1, "1")]));
        let first = job.snapshot(&[&backend]);
        state.put(&1, &"101".into()).unwrap();
        go(&mut backend, "2");
        state.put(&102, &"102".into()).unwrap();
        go(&mut backend, "3");
        let more = pairs([(103, "103"), (1031, "1031"), (1032, "1032")]);
        state.put_all(more.iter().map(|(key, value)| (key, value))).unwrap();
        let second = job.snapshot_on(&[&backend], Some(&first));
        assert_eq!(state.keys().unwrap().count(), 3);
        assert_eq!(state.values().unwrap().count(), 3);
        go(&mut backend, "1");
        state.clear().unwrap();
        assert!(state.is_empty().unwrap());
        go(&mut backend, "2");
        state.remove(&102).unwrap();
        assert!(!state.contains(&102).unwrap());
        assert_eq!(entries_of(&mut state), pairs([(2, "2")]));
        go(&mut backend, "3");
        for entry in state.iter().unwrap() {
            let (key, value) = entry.unwrap();
            match value.len() {
                4 => state.put(&key, &format!("{value}_updated")).unwrap(),
                _ => state.remove(&key).unwrap(),
            }
        }
        let updated = pairs([(1031, "1031_updated"), (1032, "1032_updated")]);
        assert_eq!(entries_of(&mut state), updated);
        drop((state, backend));
        let check = |mut backend: alluvium::StateBackend<String>, want: [Vec<_>; 4]| {
            let mut state: Map = backend.map_state("id").unwrap();
            for (key, want) in ["1", "2", "3", "11"].into_iter().zip(want) {
                go(&mut backend, key);
                assert_eq!(entries_of(&mut state), want, "{key}");
            }
        };
        let eleven = || pairs([(11, "11")]);
        check(job.restore(&first), [pairs([(1, "1")]), pairs([(2, "2")]), vec![], eleven()]);
        let two = pairs([(2, "2"), (102, "102")]);
        check(job.restore(&second), [pairs([(1, "101")]), two, more, eleven()]);
    });
}

#[test]
fn test_map_state_is_empty() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.map_state::<i32, i64>("id").unwrap();
        go(&mut backend, 1);
        assert!(state.is_empty().unwrap());
        for i in 0..1024 {
            state.put(&i, &i64::from(i * 2)).unwrap();
            assert!(!state.is_empty().unwrap());
        }
        for i in 0..1024 {
            assert!(!state.is_empty().unwrap());
            state.remove(&i).unwrap();
        }
        assert!(state.is_empty().unwrap());
    });
}

#[test]
fn test_map_state_iterator_arbitrary_access() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.map_state::<i32, i64>("id").unwrap();
        go(&mut backend, 1);
        for i in 0..4096 {
            state.put(&i, &i64::from(i * 2)).unwrap();
        }
        let (mut visited, mut left) = (0, 0);
        for entry in state.iter().unwrap() {
            let (key, value) = entry.unwrap();
            assert_eq!((key, value), (visited, i64::from(visited * 2)));
            visited += 1;
            match (key * 7 + key / 128) % 3 {
                0 => left += 1,
                1 => state.remove(&key).unwrap(),
                _ => {
                    state.remove(&key).unwrap();
                    state.remove(&key).unwrap();
                }
            }
        }
        assert_eq!(visited, 4096);
        assert_eq!(state.keys().unwrap().count(), left);
    });
}

#[test]
fn test_map_state_entry_compare() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut a: Map = backend.map_state("a").unwrap();
        let mut b: Map = backend.map_state("b").unwrap();
        go(&mut backend, 1);
        for state in [&mut a, &mut b] {
            state.put(&5, &"x".into()).unwrap();
        }
        assert_eq!(entries_of(&mut a), entries_of(&mut b));
        assert_eq!(entries_of(&mut a), pairs([(5, "x")]));
        b.put(&5, &"y".into()).unwrap();
        assert_ne!(entries_of(&mut a), entries_of(&mut b));
    });
}

#[test]
fn test_map_state_default_value() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state: Map = backend.map_state("id").unwrap();
        go(&mut backend, 1);
        assert!(entries_of(&mut state).is_empty());
        state.put(&1, &"Ciao".into()).unwrap();
        state.put(&2, &"Bello".into()).unwrap();
        assert_eq!(state.get(&1).unwrap().as_deref(), Some("Ciao"));
        assert_eq!(state.get(&2).unwrap().as_deref(), Some("Bello"));
        state.clear().unwrap();
        assert!(entries_of(&mut state).is_empty());
    });
}

fn two_user_keys(job: &Job, namespaces: &[&str], keys: i32) -> alluvium::StateBackend<i32> {
    let mut backend = job.backend::<i32>();
    let mut state = backend.map_state_with_namespace::<String, String, i32>("map").unwrap();
    for namespace in namespaces {
        state.set_current_namespace(&(*namespace).into());
        for key in 0..keys {
            go(&mut backend, key);
            state.put(&"he".into(), &(key * 2)).unwrap();
            state.put(&"ho".into(), &(key * 2)).unwrap();
        }
    }
    backend
}

#[test]
fn test_map_state_get_keys() {
    with_log(|job| {
        let backend = two_user_keys(job, &["ns1", "ns2"], 300);
        for namespace in strings(["ns1", "ns2"]) {
            let keys = sorted(backend.get_keys("map", &namespace).unwrap());
            assert!(keys.into_iter().eq(0..300));
        }
    });
}

#[test]
fn test_map_state_get_keys_and_namespaces() {
    with_log(|job| {
        let backend = two_user_keys(job, &["ns1", "ns2"], 300);
        let pairs = sorted(backend.get_keys_and_namespaces::<String>("map").unwrap());
        let want = (0..300).flat_map(|key| ["ns1", "ns2"].map(|ns| (key, ns.to_owned())));
        assert!(pairs.into_iter().eq(want));
    });
}

#[test]
fn test_concurrent_modification_with_apply_to_all_keys() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state: ListState<String> = backend.list_state("list").unwrap();
        let hello = |key: &i32| format!("Hello{key}");
        for key in 0..100 {
            go(&mut backend, key);
            state.add(&hello(&key)).unwrap();
        }
        let mut read = 0;
        let apply = |backend: &mut alluvium::StateBackend<i32>, f: &mut dyn FnMut(&i32)| {
            backend
                .apply_to_all_keys("list", &(), |key| {
                    f(key);
                    Ok(())
                })
                .unwrap();
        };
        apply(&mut backend, &mut |key| {
            read += 1;
            assert_eq!(state.get().unwrap(), [hello(key)]);
        });
        assert_eq!(read, 100);
        apply(&mut backend, &mut |_| state.clear().unwrap());
        apply(&mut backend, &mut |_| panic!("the keys are gone"));
        for key in 0..100 {
            go(&mut backend, key);
            state.add(&hello(&key)).unwrap();
        }
        apply(&mut backend, &mut |key| {
            state.add(&hello(key)).unwrap();
            state.clear().unwrap();
            state.add(&format!("Hello_{key}")).unwrap();
        });
        apply(&mut backend, &mut |key| {
            assert_eq!(state.get().unwrap(), [format!("Hello_{key}")]);
        });
    });
}

#[test]
fn test_apply_to_all_keys_lambda_function() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut state = backend.list_state::<i32>("list").unwrap();
        for key in 0..100 {
            go(&mut backend, key);
            state.add(&key).unwrap();
        }
        let mut sum = 0;
        let add = |key: &i32| {
            sum += state.get()?[0];
            assert_eq!(state.get()?, [*key]);
            Ok(())
        };
        backend.apply_to_all_keys("list", &(), add).unwrap();
        assert_eq!(sum, (0..100).sum::<i32>());
        assert_eq!(backend.current_key().unwrap().map(|key| key < 100), Some(true));
    });
}

/// What was written may be changed by whoever wrote it: the state has its bytes.
#[test]
fn test_is_safe_to_reuse_state() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        let mut value = backend.value_state::<String>("value").unwrap();
        let mut list = backend.list_state::<String>("list").unwrap();
        go(&mut backend, 1);
        let mut text = "before".to_owned();
        value.update(&text).unwrap();
        list.add(&text).unwrap();
        text.push_str(", and changed");
        list.add(&text).unwrap();
        assert_eq!(value.value().unwrap().as_deref(), Some("before"));
        assert_eq!(list.get().unwrap(), ["before", "before, and changed"]);
        let mut read = value.value().unwrap().unwrap();
        read.clear();
        assert_eq!(value.value().unwrap().as_deref(), Some("before"), "a copy");
    });
}
