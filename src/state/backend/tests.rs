//! The semantics of each state, call by call, and of the backend around them.

use super::*;
use crate::AggregateFunction;
use crate::ColumnFamilyOptions;
use crate::ImportFamily;
use crate::ImportSource;
use crate::ListState;
use crate::MapState;
use crate::MemFs;
use crate::MemoryBudget;
use crate::ValueState;
use crate::base::error::ErrorKind;

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

#[test]
fn value_state() {
    let mut backend = backend();
    let mut state = backend.value_state::<String>("v").unwrap();
    assert_eq!(state.value().unwrap(), None);
    state.clear().unwrap();
    state.update(&"x".into()).unwrap();
    assert_eq!(state.value().unwrap().as_deref(), Some("x"));
    state.update(&String::new()).unwrap();
    assert_eq!(state.value().unwrap().as_deref(), Some(""), "an empty value is a value");
    go(&mut backend, "b");
    assert_eq!(state.value().unwrap(), None);
    state.update(&"y".into()).unwrap();
    go(&mut backend, "a");
    state.clear().unwrap();
    assert_eq!(state.value().unwrap(), None);
    go(&mut backend, "b");
    assert_eq!(state.value().unwrap().as_deref(), Some("y"));
}

#[test]
fn a_value_is_modified_in_one_step() {
    let mut backend = backend();
    let mut state = backend.value_state::<u64>("v").unwrap();
    let before = backend.db().snapshot().seqno();
    state.update_with(|old| old).unwrap();
    assert_eq!(backend.db().snapshot().seqno(), before, "nothing became of nothing: no write");
    state.update_with(|old| Some(old.unwrap_or(40) + 1)).unwrap();
    state.update_with(|old| Some(old.unwrap_or(40) + 1)).unwrap();
    assert_eq!(state.value().unwrap(), Some(42));
    state.update_with(|_| None).unwrap();
    assert_eq!(state.value().unwrap(), None);
}

#[test]
fn a_default_is_made_anew_and_never_stored() {
    let mut backend = backend();
    let mut state = backend.value_state::<u8>("v").unwrap().with_default(|| 42);
    assert_eq!(state.value().unwrap(), Some(42));
    assert!(all(backend.get_keys("v", &()).unwrap()).is_empty());
    state.update(&1).unwrap();
    assert_eq!(state.value().unwrap(), Some(1));
    state.clear().unwrap();
    assert_eq!(state.value().unwrap(), Some(42));
    state.update_with(|old| old.or(Some(3))).unwrap();
    assert_eq!(state.value().unwrap(), Some(3), "what is updated is the value, not the default");
    state.clear().unwrap();
    assert_eq!(backend.value_state::<u8>("v").unwrap().value().unwrap(), None);
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

#[test]
fn reducing_state() {
    let mut backend = backend();
    let mut state = backend.reducing_state::<String>("r", |a, b| format!("({a}+{b})")).unwrap();
    assert_eq!(state.get().unwrap(), None);
    state.add(&"1".into()).unwrap();
    assert_eq!(state.get().unwrap().unwrap(), "1", "the first value is not reduced");
    state.add(&"2".into()).unwrap();
    state.add(&"3".into()).unwrap();
    assert_eq!(state.get().unwrap().unwrap(), "((1+2)+3)");
    go(&mut backend, "b");
    assert_eq!(state.get().unwrap(), None);
    go(&mut backend, "a");
    state.clear().unwrap();
    assert_eq!(state.get().unwrap(), None);
    assert!(all(backend.get_keys("r", &()).unwrap()).is_empty());
    assert_eq!(kind(backend.value_state::<String>("r")), ErrorKind::Incompatible);
    assert_eq!(kind(backend.aggregating_state("r", Mean)), ErrorKind::Incompatible);
}

#[test]
fn aggregating_state() {
    let mut backend = backend();
    let mut state = backend.aggregating_state("a", Mean).unwrap();
    assert_eq!(state.get().unwrap(), None);
    state.add(&4).unwrap();
    state.add(&-1).unwrap();
    assert_eq!(state.get().unwrap(), Some(1.5));
    let mut again = backend.aggregating_state("a", Mean).unwrap();
    again.add(&6).unwrap();
    assert_eq!(state.get().unwrap(), Some(3.0), "the accumulator is stored, not the result");
    state.clear().unwrap();
    assert_eq!(state.get().unwrap(), None);
    assert!(all(backend.get_keys("a", &()).unwrap()).is_empty());
}

#[test]
fn lists_of_namespaces_are_merged() {
    let mut backend = backend();
    let mut state = backend.list_state_with_namespace::<u8, u32>("l").unwrap();
    let fill = |state: &mut ListState<u32, u8>, namespace: u8, elements: &[u32]| {
        state.set_current_namespace(&namespace);
        state.update(elements).unwrap();
    };
    let get = |state: &mut ListState<u32, u8>, namespace: u8| {
        state.set_current_namespace(&namespace);
        state.get().unwrap()
    };
    fill(&mut state, 1, &[10, 11]);
    fill(&mut state, 2, &[20]);
    fill(&mut state, 3, &[30, 31]);
    fill(&mut state, 9, &[90]);
    state.merge_namespaces(&1, &[3, 2, 3, 1, 7]).unwrap();
    assert_eq!(state.get().unwrap(), [90], "the current namespace stays");
    assert_eq!(get(&mut state, 1), [10, 11, 30, 31, 20], "the target first, then the sources");
    assert!(get(&mut state, 2).is_empty() && get(&mut state, 3).is_empty());
    state.merge_namespaces(&4, &[1]).unwrap();
    assert_eq!(get(&mut state, 4), [10, 11, 30, 31, 20]);
    let before = backend.db().snapshot().seqno();
    state.merge_namespaces(&4, &[]).unwrap();
    state.merge_namespaces(&4, &[4]).unwrap();
    state.merge_namespaces(&5, &[6, 7]).unwrap();
    assert_eq!(backend.db().snapshot().seqno(), before, "nothing to merge, nothing written");
    assert_eq!(all(backend.get_keys("l", &5u8).unwrap()), strings([]));
    go(&mut backend, "b");
    state.merge_namespaces(&4, &[9]).unwrap();
    assert!(state.get().unwrap().is_empty(), "the current key's namespaces only");
    go(&mut backend, "a");
    assert_eq!(get(&mut state, 9), [90]);
    // Longer than any operand, from parts of any size.
    let long: Vec<u32> = (0..700_000).collect();
    fill(&mut state, 2, &long);
    state.add(&7).unwrap();
    state.merge_namespaces(&3, &[2]).unwrap();
    let merged = get(&mut state, 3);
    assert!(merged.len() == long.len() + 1 && merged.starts_with(&long) && merged.ends_with(&[7]));
}

#[test]
fn values_of_namespaces_are_merged() {
    let mut backend = backend();
    let reduce = |a: String, b: &String| format!("({a}+{b})");
    let mut state = backend.reducing_state_with_namespace::<String, String>("r", reduce).unwrap();
    let mut mean = backend.aggregating_state_with_namespace::<u8, Mean>("a", Mean).unwrap();
    for (i, namespace) in strings(["1", "2", "3"]).iter().enumerate() {
        state.set_current_namespace(namespace);
        state.add(&format!("n{namespace}")).unwrap();
        mean.set_current_namespace(&(i as u8));
        mean.add(&(i as i64 * 3)).unwrap();
    }
    state.merge_namespaces(&"1".into(), &strings(["2", "3", "2", "4"])).unwrap();
    state.set_current_namespace(&"1".into());
    assert_eq!(state.get().unwrap().unwrap(), "((n2+n3)+n1)", "as the RocksDB backend does");
    assert_eq!(all(backend.get_keys_and_namespaces::<String>("r").unwrap()).len(), 1);
    state.merge_namespaces(&"1".into(), &strings(["1"])).unwrap();
    assert_eq!(state.get().unwrap().unwrap(), "((n2+n3)+n1)", "the target may be a source");
    state.merge_namespaces(&"1".into(), &strings(["5"])).unwrap();
    state.merge_namespaces(&"6".into(), &strings(["5"])).unwrap();
    assert_eq!(all(backend.get_keys_and_namespaces::<String>("r").unwrap()).len(), 1);
    mean.merge_namespaces(&7, &[0, 1, 2]).unwrap();
    assert_eq!(mean.get().unwrap(), None, "the current namespace stays");
    mean.set_current_namespace(&7);
    assert_eq!(mean.get().unwrap(), Some(3.0));
    assert_eq!(all(backend.get_keys_and_namespaces::<u8>("a").unwrap()), [("a".to_owned(), 7)]);
}

#[test]
fn elements_and_values_cannot_be_merged_without_a_key() {
    let mut backend = open(&env());
    let mut list = backend.list_state_with_namespace::<u8, u8>("l").unwrap();
    let mut sum = backend.reducing_state_with_namespace::<u8, u8>("r", |a, b| a + b).unwrap();
    assert_eq!(kind(list.merge_namespaces(&1, &[2])), ErrorKind::InvalidArgument);
    assert_eq!(kind(sum.merge_namespaces(&1, &[2])), ErrorKind::InvalidArgument);
    go(&mut backend, "a");
    list.merge_namespaces(&1, &[2]).unwrap();
    assert_eq!(kind(list.get()), ErrorKind::InvalidArgument, "still no current namespace");
    backend.close().unwrap();
    assert_eq!(kind(list.merge_namespaces(&1, &[2])), ErrorKind::InvalidArgument);
}

#[test]
fn a_function_is_applied_to_all_keys() {
    let mut backend = open(&env());
    let mut state = backend.list_state::<u32>("l").unwrap();
    for i in 0..100 {
        go(&mut backend, &i.to_string());
        state.add(&i).unwrap();
    }
    let mut visited = Vec::new();
    backend
        .apply_to_all_keys("l", &(), |key| {
            assert_eq!(state.get()?, [key.parse::<u32>().unwrap()]);
            visited.push(key.clone());
            if key.len() == 2 { state.clear() } else { state.add(&7) }
        })
        .unwrap();
    assert_eq!(visited.len(), 100);
    assert_eq!(backend.current_key().unwrap().as_ref(), visited.last());
    assert_eq!(backend.get_keys("l", &()).unwrap().count(), 10);
    let stop = || Error::invalid("enough");
    assert_eq!(kind(backend.apply_to_all_keys("l", &(), |_| Err(stop()))), stop().kind());
    backend.apply_to_all_keys("unknown", &(), |_| Err(stop())).unwrap();
}

#[test]
fn a_state_is_dropped_and_its_name_is_free() {
    let env = env();
    let mut backend = open(&env);
    go(&mut backend, "a");
    let mut state = backend.value_state::<u32>("s").unwrap();
    let mut other = backend.value_state::<u32>("t").unwrap();
    state.update(&1).unwrap();
    other.update(&2).unwrap();
    backend.drop_state("s").unwrap();
    assert_eq!(kind(state.update(&3)), ErrorKind::NotFound);
    assert_eq!(kind(backend.drop_state("s")), ErrorKind::NotFound);
    assert_eq!(backend.states().count(), 1);
    assert_eq!(backend.get_keys("s", &()).unwrap().count(), 0);
    let mut list = backend.list_state::<String>("s").unwrap();
    assert!(list.get().unwrap().is_empty());
    backend.drop_state("s").unwrap();
    backend.close().unwrap();
    drop((state, other, list));
    let mut backend = open(&env);
    go(&mut backend, "a");
    assert_eq!(all(backend.states().map(Ok)), [("t", StateKind::Value)]);
    assert_eq!(backend.value_state::<u32>("t").unwrap().value().unwrap(), Some(2));
}

#[test]
fn a_state_has_its_own_options() {
    let mut options = options();
    let own = ColumnFamilyOptions { memtable_bytes_max: 8 << 10, ..Default::default() };
    options.states.insert("small".into(), own);
    let mut backend = StateBackend::<u32>::open(Path::new(DIR), options, env()).unwrap();
    for name in ["small", "usual"] {
        let mut state = backend.list_state::<Vec<u8>>(name).unwrap();
        for key in 0..100 {
            backend.set_current_key(&key).unwrap();
            state.add(&vec![7; 500]).unwrap();
        }
        assert_eq!(state.get().unwrap(), [vec![7; 500]]);
    }
    backend.db().wait_idle().unwrap();
    let stats = backend.db().stats();
    let tables = |name: &str| {
        let family = stats.families.iter().find(|family| family.name == name).unwrap();
        family.files.iter().sum::<usize>()
    };
    assert!(tables("small") > 0 && tables("usual") == 0);
}

#[test]
fn list_state() {
    let mut backend = backend();
    let mut state = backend.list_state::<i64>("l").unwrap();
    assert_eq!(state.get().unwrap(), [0i64; 0]);
    state.add_all(&[]).unwrap();
    assert!(all(backend.get_keys("l", &()).unwrap()).is_empty(), "an absent list stays absent");
    state.add(&3).unwrap();
    state.add(&1).unwrap();
    state.add(&3).unwrap();
    assert_eq!(state.get().unwrap(), [3, 1, 3], "in the order of insertion, with duplicates");
    state.add_all(&[]).unwrap();
    state.add_all(&[7, 8]).unwrap();
    let mut copy = state.get().unwrap();
    copy.clear();
    assert_eq!(state.get().unwrap(), [3, 1, 3, 7, 8]);
    state.update(&[9]).unwrap();
    state.add(&10).unwrap();
    assert_eq!(state.get().unwrap(), [9, 10]);
    go(&mut backend, "b");
    assert!(state.get().unwrap().is_empty());
    go(&mut backend, "a");
    state.update(&[]).unwrap();
    assert!(state.get().unwrap().is_empty());
    assert!(all(backend.get_keys("l", &()).unwrap()).is_empty(), "no elements: no list");
    state.add(&5).unwrap();
    state.clear().unwrap();
    assert!(state.get().unwrap().is_empty());
    state.add(&6).unwrap();
    assert_eq!(state.get().unwrap(), [6], "nothing comes back");
}

#[test]
fn elements_without_bytes_are_counted() {
    let mut backend = backend();
    let mut state = backend.list_state::<()>("l").unwrap();
    state.add(&()).unwrap();
    state.add_all(&[(), ()]).unwrap();
    assert_eq!(state.get().unwrap().len(), 3);
}

#[test]
fn map_state() {
    let mut backend = backend();
    let mut state = backend.map_state::<i32, Option<String>>("m").unwrap();
    assert!(state.is_empty().unwrap());
    assert_eq!(state.get(&1).unwrap(), None);
    state.remove(&1).unwrap();
    state.put(&1, &None).unwrap();
    assert_eq!(state.get(&1).unwrap(), Some(None), "a null value is an entry");
    assert!(state.contains(&1).unwrap() && !state.contains(&2).unwrap());
    assert!(!state.is_empty().unwrap());
    let entries = [(5, Some("e".into())), (-3, None), (0, Some(String::new()))];
    state.put_all(entries.iter().map(|(k, v)| (k, v))).unwrap();
    state.put_all([]).unwrap();
    assert_eq!(all(state.keys().unwrap()), [-3, 0, 1, 5], "ascending");
    assert_eq!(all(state.values().unwrap())[3], Some("e".to_owned()));
    assert_eq!(all(state.iter().unwrap())[1], (0, Some(String::new())));
    state.update_with(&5, |old| old.map(|_| Some("f".into()))).unwrap();
    assert_eq!(state.get(&5).unwrap(), Some(Some("f".into())));
    state.update_with(&5, |_| None).unwrap();
    assert!(!state.contains(&5).unwrap());
    state.remove(&0).unwrap();
    go(&mut backend, "b");
    assert!(state.is_empty().unwrap());
    state.clear().unwrap();
    go(&mut backend, "a");
    assert_eq!(all(state.keys().unwrap()), [-3, 1]);
    state.clear().unwrap();
    assert!(state.is_empty().unwrap());
    assert!(all(state.iter().unwrap()).is_empty());
}

#[test]
fn map_keys_that_are_prefixes_of_each_other() {
    let mut backend = backend();
    let mut state = backend.map_state_with_namespace::<String, String, u8>("m").unwrap();
    for (i, key) in ["", "a", "ab", "b"].iter().enumerate() {
        for (j, namespace) in ["", "a", "ab", "b"].iter().enumerate() {
            go(&mut backend, key);
            state.set_current_namespace(&(*namespace).to_owned());
            for (k, user_key) in ["", "a", "ab", "b"].iter().enumerate() {
                state.put(&(*user_key).to_owned(), &((i * 16 + j * 4 + k) as u8)).unwrap();
            }
        }
    }
    for (i, key) in ["", "a", "ab", "b"].iter().enumerate() {
        for (j, namespace) in ["", "a", "ab", "b"].iter().enumerate() {
            go(&mut backend, key);
            state.set_current_namespace(&(*namespace).to_owned());
            let first = (i * 16 + j * 4) as u8;
            assert_eq!(all(state.values().unwrap()), [first, first + 1, first + 2, first + 3]);
            state.clear().unwrap();
            assert!(state.is_empty().unwrap());
        }
    }
}

#[test]
fn large_and_small_maps_are_cleared_and_nothing_else() {
    let mut backend = backend();
    let mut state = backend.map_state::<u32, u32>("m").unwrap();
    for (key, len) in [("a", 63), ("b", 64), ("c", 65), ("d", 300), ("e", 1)] {
        go(&mut backend, key);
        (0..len).for_each(|i| state.put(&i, &i).unwrap());
    }
    for key in ["a", "b", "c", "d"] {
        go(&mut backend, key);
        state.clear().unwrap();
        assert!(state.is_empty().unwrap(), "{key}");
        state.put(&7, &8).unwrap();
        assert_eq!(all(state.iter().unwrap()), [(7, 8)], "{key}");
    }
    go(&mut backend, "e");
    assert_eq!(all(state.iter().unwrap()), [(0, 0)]);
}

#[test]
fn a_map_may_be_changed_while_it_is_visited() {
    let mut backend = backend();
    let mut state = backend.map_state::<u32, u32>("m").unwrap();
    (0..300).for_each(|i| state.put(&i, &i).unwrap());
    let mut visited = 0;
    for key in state.keys().unwrap() {
        let key = key.unwrap();
        assert_eq!(key, visited, "none is left out, none is new");
        state.remove(&key).unwrap();
        state.put(&(key + 1000), &1).unwrap();
        visited += 1;
    }
    assert_eq!(visited, 300);
    assert_eq!(state.keys().unwrap().count(), 300);
}

#[test]
fn iterators_belong_to_the_cell_at_which_they_were_made() {
    let mut backend = backend();
    let mut state = backend.map_state::<u32, u32>("m").unwrap();
    state.put(&1, &1).unwrap();
    let (entries, keys, values) =
        (state.iter().unwrap(), state.keys().unwrap(), state.values().unwrap());
    go(&mut backend, "b");
    state.put(&2, &2).unwrap();
    assert_eq!((all(entries), all(keys), all(values)), (vec![(1, 1)], vec![1], vec![1]));
    assert_eq!(all(state.iter().unwrap()), [(2, 2)]);
    let mut iter = state.iter().unwrap();
    assert!(iter.next().is_some() && iter.next().is_none() && iter.next().is_none());
}

#[test]
fn namespaces_are_apart_and_each_handle_has_its_own() {
    let mut backend = backend();
    let mut one = backend.value_state_with_namespace::<(i64, i64), u8>("w").unwrap();
    assert_eq!(kind(one.value()), ErrorKind::InvalidArgument, "no namespace yet");
    assert_eq!(kind(one.update(&1)), ErrorKind::InvalidArgument);
    let mut two = backend.value_state_with_namespace::<(i64, i64), u8>("w").unwrap();
    one.set_current_namespace(&(0, 10));
    two.set_current_namespace(&(10, 20));
    one.update(&1).unwrap();
    two.update(&2).unwrap();
    assert_eq!((one.value().unwrap(), two.value().unwrap()), (Some(1), Some(2)));
    go(&mut backend, "b");
    assert_eq!(one.value().unwrap(), None, "the namespace stays when the key changes");
    one.update(&3).unwrap();
    go(&mut backend, "a");
    assert_eq!(one.value().unwrap(), Some(1));
    one.set_current_namespace(&(10, 20));
    assert_eq!(one.value().unwrap(), Some(2));
    let mut pairs = all(backend.get_keys_and_namespaces::<(i64, i64)>("w").unwrap());
    pairs.sort();
    let pair = |key: &str, namespace| (key.to_owned(), namespace);
    assert_eq!(pairs, [pair("a", (0, 10)), pair("a", (10, 20)), pair("b", (0, 10))]);
}

#[test]
fn without_a_key_there_is_no_cell() {
    let mut backend = open(&env());
    let mut value = backend.value_state::<u8>("v").unwrap();
    let mut list = backend.list_state::<u8>("l").unwrap();
    let mut map = backend.map_state::<u8, u8>("m").unwrap();
    assert_eq!(backend.current_key_group(), None);
    assert_eq!(backend.current_key().unwrap(), None);
    assert_eq!(kind(value.value()), ErrorKind::InvalidArgument);
    assert_eq!(kind(value.update_with(|_| Some(1))), ErrorKind::InvalidArgument);
    assert_eq!(kind(list.add(&1)), ErrorKind::InvalidArgument);
    assert_eq!(kind(list.add_all(&[])), ErrorKind::InvalidArgument);
    assert_eq!(kind(map.iter().map(drop)), ErrorKind::InvalidArgument);
    assert_eq!(kind(map.put_all([])), ErrorKind::InvalidArgument);
    go(&mut backend, "");
    assert_eq!(backend.current_key_group(), Some(94), "as Flink says of the empty string");
    value.update(&1).unwrap();
    assert_eq!(value.value().unwrap(), Some(1));
}

#[test]
fn a_key_of_another_instance_is_refused() {
    let options = BackendOptions::new(128, KeyGroupRange::new(82, 127).unwrap());
    let mut backend = StateBackend::<String>::open(Path::new(DIR), options, env()).unwrap();
    let mut state = backend.value_state::<u8>("v").unwrap();
    go(&mut backend, "abc"); // group 115
    let e = backend.set_current_key(&"a".into()).unwrap_err(); // group 81
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("81 is not in [82, 127]"), "{e}");
    assert_eq!(backend.current_key_group(), Some(115));
    state.update(&1).unwrap();
    assert_eq!(all(backend.get_keys("v", &()).unwrap()), ["abc"]);
}

#[test]
fn a_name_is_one_state() {
    let mut backend = backend();
    let mut first = backend.value_state::<u32>("s").unwrap();
    first.update(&5).unwrap();
    assert_eq!(kind(backend.list_state::<u32>("s")), ErrorKind::Incompatible);
    assert_eq!(kind(backend.map_state::<u32, u32>("s")), ErrorKind::Incompatible);
    assert_eq!(kind(backend.value_state::<i32>("s")), ErrorKind::Incompatible);
    let other = backend.value_state_with_namespace::<u8, u32>("s");
    assert_eq!(kind(other), ErrorKind::Incompatible);
    assert_eq!(backend.value_state::<u32>("s").unwrap().value().unwrap(), Some(5));
    for name in ["", "_meta", "_timer_state/event_x"] {
        assert_eq!(kind(backend.value_state::<u8>(name)), ErrorKind::InvalidArgument, "{name}");
    }
    assert!(backend.value_state::<u8>(&"n".repeat(256)).is_err());
    backend.value_state::<u8>("_other").unwrap();
    assert_eq!(
        all(backend.states().map(Ok)),
        [("_other", StateKind::Value), ("s", StateKind::Value)]
    );
}

#[test]
fn what_was_closed_opens_as_it_was_and_not_as_something_else() {
    let env = env();
    let mut backend = open(&env);
    go(&mut backend, "a");
    let mut list = backend.list_state::<String>("l").unwrap();
    let mut value = backend.value_state::<u8>("v").unwrap();
    list.add_all(&strings(["x", "y"])).unwrap();
    value.update(&1).unwrap();
    assert_eq!(value.value().unwrap(), Some(1));
    backend.close().unwrap();
    assert_eq!(kind(value.value()), ErrorKind::InvalidArgument, "closed");
    assert_eq!(kind(list.add(&String::new())), ErrorKind::InvalidArgument);
    drop((list, value));

    let dir = Path::new(DIR);
    let mut other = options();
    other.max_parallelism = 256;
    let opened = StateBackend::<String>::open(dir, other, env.clone());
    assert_eq!(kind(opened), ErrorKind::Incompatible);
    // What was refused was not closed either, and the log is off.
    let opened = StateBackend::<String>::open(dir, options(), env.clone());
    assert_eq!(kind(opened), ErrorKind::Halted);
}

#[test]
fn a_refused_database_can_be_opened_again() {
    let env = env();
    let dir = Path::new(DIR);
    let mut logged = options();
    logged.db.log = true;
    let open =
        |options: &BackendOptions| StateBackend::<String>::open(dir, options.clone(), env.clone());
    let mut backend = open(&logged).unwrap();
    go(&mut backend, "a");
    backend.list_state::<String>("l").unwrap().add(&"x".into()).unwrap();
    drop(backend);

    let more = BackendOptions { max_parallelism: 256, ..logged.clone() };
    let e = open(&more).unwrap_err();
    assert!(e.kind() == ErrorKind::Incompatible && e.to_string().contains("256"), "{e}");
    let opened = StateBackend::<u64>::open(dir, logged.clone(), env.clone());
    assert_eq!(kind(opened), ErrorKind::Incompatible, "another type of keys");
    let fewer = KeyGroupRange::new(0, 126).unwrap();
    let fewer = BackendOptions { key_groups: fewer, ..logged.clone() };
    assert_eq!(kind(open(&fewer)), ErrorKind::Incompatible, "state outside of the range");
    let none = BackendOptions { max_parallelism: 127, ..logged.clone() };
    assert_eq!(kind(open(&none)), ErrorKind::InvalidArgument);

    let mut backend = open(&logged).unwrap();
    assert_eq!(all(backend.states().map(Ok)), [("l", StateKind::List)]);
    assert_eq!(all(backend.get_keys("l", &()).unwrap()), ["a"], "not registered yet");
    assert_eq!(kind(backend.value_state::<String>("l")), ErrorKind::Incompatible);
    go(&mut backend, "a");
    assert_eq!(backend.list_state::<String>("l").unwrap().get().unwrap(), ["x"]);
}

#[test]
fn keys_are_listed_once_each() {
    let mut backend = backend();
    let mut map = backend.map_state_with_namespace::<String, u32, u8>("m").unwrap();
    let mut value = backend.value_state::<u8>("v").unwrap();
    for key in ["a", "b", "ab", ""] {
        go(&mut backend, key);
        value.update(&1).unwrap();
        for namespace in ["", "n", "nn"] {
            if key == "b" && namespace == "n" {
                continue;
            }
            map.set_current_namespace(&namespace.into());
            (0..5).for_each(|i| map.put(&i, &0).unwrap());
        }
    }
    go(&mut backend, "ab");
    value.clear().unwrap();
    let keys = |namespace: &str| {
        let mut keys = all(backend.get_keys("m", &namespace.to_owned()).unwrap());
        keys.sort();
        keys
    };
    assert_eq!(keys(""), ["", "a", "ab", "b"]);
    assert_eq!(keys("n"), ["", "a", "ab"]);
    assert_eq!(keys("nn"), ["", "a", "ab", "b"]);
    assert!(keys("o").is_empty() && keys("m").is_empty());
    let mut values = all(backend.get_keys("v", &()).unwrap());
    values.sort();
    assert_eq!(values, ["", "a", "b"]);
    assert_eq!(backend.get_keys_and_namespaces::<String>("m").unwrap().count(), 11);
    assert_eq!(backend.get_keys("unknown", &7u8).unwrap().count(), 0);
    assert_eq!(kind(backend.get_keys("m", &())), ErrorKind::Incompatible);
}

#[test]
fn keys_may_be_visited_while_state_changes() {
    let mut backend = backend();
    let mut state = backend.value_state::<u32>("v").unwrap();
    for i in 0..50 {
        go(&mut backend, &i.to_string());
        state.update(&i).unwrap();
    }
    let mut visited = 0;
    for key in backend.get_keys("v", &()).unwrap() {
        backend.set_current_key(&key.unwrap()).unwrap();
        state.clear().unwrap();
        go(&mut backend, &format!("new {visited}"));
        state.update(&0).unwrap();
        visited += 1;
    }
    assert_eq!((visited, backend.get_keys("v", &()).unwrap().count()), (50, 50));
}

#[test]
fn several_states_of_parts_become_their_union() {
    let env = env();
    let halves = [(0, 63), (64, 127)].map(|(a, b)| KeyGroupRange::new(a, b).unwrap());
    let mut sources = Vec::new();
    let mut open = Vec::new();
    for (i, groups) in halves.into_iter().enumerate() {
        let dir = format!("part {i}");
        let options = BackendOptions::new(128, groups);
        let mut backend = StateBackend::<i32>::open(Path::new(&dir), options, env.clone()).unwrap();
        let keys = (0..100).filter(|key: &i32| groups.contains(assign(key.java_hash(), 128)));
        let mut shared = backend.value_state::<i32>("both").unwrap();
        let mut own = backend.list_state::<i32>(&format!("only {i}")).unwrap();
        for key in keys {
            backend.set_current_key(&key).unwrap();
            shared.update(&key).unwrap();
            own.add(&key).unwrap();
        }
        let set = backend.checkpoint().unwrap().wait().unwrap();
        sources.push(ImportSource {
            seqno: set.seqno(),
            clip: groups.key_range(),
            families: families(&set),
        });
        open.push(backend);
    }
    let dir = Path::new("whole");
    let db = Db::import(dir, options().db, env.clone(), &sources).unwrap();
    drop(open);
    let mut backend = StateBackend::<i32>::from_db(db, options()).unwrap();
    let names: Vec<_> = backend.states().map(|(name, _)| name).collect();
    assert_eq!(names, ["both", "only 0", "only 1"]);
    let mut both = backend.value_state::<i32>("both").unwrap();
    let mut first = backend.list_state::<i32>("only 0").unwrap();
    for key in 0..100 {
        backend.set_current_key(&key).unwrap();
        assert_eq!(both.value().unwrap(), Some(key));
        let of_first = halves[0].contains(backend.current_key_group().unwrap());
        assert_eq!(first.get().unwrap(), if of_first { vec![key] } else { vec![] });
    }
    assert_eq!(kind(backend.list_state::<u8>("only 1")), ErrorKind::Incompatible);
    // Registered anew, the state is known to all groups: also to a part that never had it.
    let set = backend.checkpoint().unwrap().wait().unwrap();
    let source =
        ImportSource { seqno: set.seqno(), clip: halves[1].key_range(), families: families(&set) };
    let db = Db::import(Path::new("half"), options().db, env, &[source]).unwrap();
    let half = StateBackend::<i32>::from_db(db, BackendOptions::new(128, halves[1])).unwrap();
    let names: Vec<_> = half.states().map(|(name, _)| name).collect();
    assert_eq!(names, ["both", "only 0", "only 1"]);
}

fn families(set: &crate::FileSet) -> Vec<ImportFamily> {
    set.families().iter().map(|family| ImportFamily::of(set, family).unwrap()).collect()
}

#[test]
fn damaged_state_names_the_state() {
    let mut backend = backend();
    let mut state = backend.value_state::<u32>("count").unwrap();
    state.update(&1).unwrap();
    let family = backend
        .db()
        .column_family("count", backend.options.family("count", StateKind::Value))
        .unwrap();
    let mut scan = backend.db().scan(&family, ..).unwrap();
    assert!(scan.next().unwrap());
    backend.db().put(&family, scan.key(), b"long value").unwrap();
    for e in [state.value().map(drop), state.update_with(|_| None)] {
        let e = e.unwrap_err();
        assert!(e.kind() == ErrorKind::Corruption && e.to_string().contains("\"count\""), "{e}");
    }
}

#[test]
fn everything_can_be_sent_to_another_thread() {
    fn sent<T: Send>() {}
    sent::<StateBackend<String>>();
    sent::<ValueState<String, String>>();
    sent::<ListState<String>>();
    sent::<MapState<String, u64>>();
    sent::<crate::state::map::MapIter<(String, u64)>>();
    sent::<Keys<String>>();
}
