//! Lists and maps.

use super::*;

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
