//! Namespaces: apart, and merged.

use super::*;
use crate::ListState;

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
