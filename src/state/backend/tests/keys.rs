//! The current key, and walks over all keys.

use super::*;

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
