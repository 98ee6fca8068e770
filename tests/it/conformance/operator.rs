//! `OperatorStateBackendTest` and the redistribution of `StateAssignmentOperationTest`.

use alluvium::{
    BroadcastState, ErrorKind, JobCheckpoint, OperatorListState, OperatorMode, OperatorSnapshot,
    OperatorState, PartInput, load_checkpoint, redistribute_operator_state, save_checkpoint,
};

use crate::conformance::job::{kind, with_log};

fn round_trip(state: &OperatorState) -> OperatorState {
    let bytes = OperatorSnapshot::encode_all(&[state.snapshot()]);
    OperatorState::restore(OperatorSnapshot::decode_all(&bytes).unwrap().remove(0))
}

#[test]
fn test_register_states() {
    let mut state = OperatorState::new();
    let mut first: OperatorListState<String> = state.list_state("state1").unwrap();
    first.add(&"a".into());
    first.add(&"b".into());
    let mut second: OperatorListState<String> = state.list_state("state2").unwrap();
    second.add_all(&["c".into(), "d".into()]);
    let mut union: OperatorListState<String> = state.union_list_state("state3").unwrap();
    union.add(&"e".into());
    assert_eq!(first.get().unwrap(), ["a", "b"]);
    assert_eq!(second.get().unwrap(), ["c", "d"]);
    assert_eq!(union.get().unwrap(), ["e"]);
    let again: OperatorListState<String> = state.list_state("state1").unwrap();
    first.add(&"f".into());
    assert_eq!(again.get().unwrap(), ["a", "b", "f"], "all handles show one list");
    assert_eq!(kind(state.union_list_state::<String>("state1")), ErrorKind::Incompatible);
    assert_eq!(kind(state.list_state::<String>("state3")), ErrorKind::Incompatible);
    let mut restored = round_trip(&state);
    assert_eq!(kind(restored.union_list_state::<String>("state1")), ErrorKind::Incompatible);
    assert_eq!(restored.states().count(), 3);
    // In Flink a list and a map of one name overwrite each other in the snapshot.
    assert_eq!(kind(state.broadcast_state::<String, u8>("state1")), ErrorKind::Incompatible);
    state.broadcast_state::<String, u8>("map").unwrap();
    assert_eq!(kind(state.list_state::<u8>("map")), ErrorKind::Incompatible);
    assert_eq!(kind(state.list_state::<u8>("")), ErrorKind::InvalidArgument);
    union.update(&["x".into()]);
    assert_eq!(union.get().unwrap(), ["x"]);
    union.clear();
    assert!(union.get().unwrap().is_empty());
}

/// A backend without states is a snapshot without states.
#[test]
fn test_snapshot_empty() {
    let state = OperatorState::new();
    assert!(state.snapshot().is_empty());
    assert!(round_trip(&state).snapshot().is_empty());
}

#[test]
fn test_snapshot_broadcast_state_with_empty_operator_state() {
    let mut state = OperatorState::new();
    let mut map: BroadcastState<i32, i32> = state.broadcast_state("map").unwrap();
    (1..=3).for_each(|i| map.put(&i, &(i * 10)));
    for round in 0..3 {
        state = round_trip(&state);
        let mut map: BroadcastState<i32, i32> = state.broadcast_state("map").unwrap();
        let want: &[(i32, i32)] =
            [&[(1, 10), (2, 20), (3, 30)][..], &[(1, 10), (3, 30)], &[]][round];
        assert_eq!(map.entries().unwrap(), want);
        assert_eq!((map.len(), map.is_empty()), (want.len(), want.is_empty()));
        if round == 0 {
            map.remove(&2);
            map.remove(&9);
            assert!(!map.contains(&2) && map.contains(&3));
        } else {
            map.clear();
        }
    }
}

fn filled() -> OperatorState {
    let mut state = OperatorState::new();
    state.list_state::<i32>("list 1").unwrap().add_all(&[42, 4711]);
    state.list_state::<i32>("list 2").unwrap().add_all(&[7, 13, 23]);
    state.union_list_state::<i32>("union").unwrap().add_all(&[17, 18, 19, 20]);
    let mut map = state.broadcast_state::<String, i64>("map 1").unwrap();
    map.put_all([(&"a".to_owned(), &1), (&"b".to_owned(), &2)]);
    state.broadcast_state::<String, i64>("map 2").unwrap().put(&"c".into(), &3);
    state.broadcast_state::<String, i64>("map 3").unwrap();
    state
}

fn check(state: &mut OperatorState) {
    let list = |state: &mut OperatorState, name: &str| {
        state.list_state::<i32>(name).unwrap().get().unwrap()
    };
    assert_eq!(list(state, "list 1"), [42, 4711]);
    assert_eq!(list(state, "list 2"), [7, 13, 23]);
    let union = state.union_list_state::<i32>("union").unwrap();
    assert_eq!(union.get().unwrap(), [17, 18, 19, 20]);
    let entries = |state: &mut OperatorState, name: &str| {
        state.broadcast_state::<String, i64>(name).unwrap().entries().unwrap()
    };
    assert_eq!(entries(state, "map 1"), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(entries(state, "map 2"), [("c".to_owned(), 3)]);
    assert!(entries(state, "map 3").is_empty());
}

#[test]
fn test_snapshot_restore_sync() {
    let mut state = filled();
    check(&mut state);
    let mut restored = round_trip(&state);
    let modes: Vec<_> = restored.states().map(|(_, mode)| mode).collect();
    let count = |mode| modes.iter().filter(|m| **m == mode).count();
    assert_eq!((count(OperatorMode::Split), count(OperatorMode::Union)), (2, 1));
    assert_eq!(count(OperatorMode::Broadcast), 3, "before anybody asked for them");
    // What nobody asks for is carried on.
    restored = round_trip(&round_trip(&restored));
    check(&mut restored);
    assert_eq!(restored.states().count(), 6);
}

/// What is written and registered after the synchronous part is not in the snapshot.
#[test]
fn test_snapshot_restore_async() {
    let mut state = filled();
    let snapshot = state.snapshot();
    state.list_state::<i32>("list 1").unwrap().add(&77);
    state.list_state::<i32>("list 2").unwrap().clear();
    state.broadcast_state::<String, i64>("map 1").unwrap().put(&"z".into(), &9);
    state.broadcast_state::<String, i64>("map 2").unwrap().clear();
    state.list_state::<i32>("new").unwrap().add(&1);
    let encode = move || OperatorSnapshot::encode_all(&[snapshot]);
    let bytes = std::thread::scope(|scope| scope.spawn(encode).join().unwrap());
    let mut restored =
        OperatorState::restore(OperatorSnapshot::decode_all(&bytes).unwrap().remove(0));
    check(&mut restored);
    assert_eq!(restored.states().count(), 6);
}

/// Three instances, as in the run of Flink that the numbers below come from.
fn three() -> Vec<OperatorSnapshot> {
    let s: [&[i32]; 3] = [&[0, 1], &[100, 101, 102], &[200, 201, 202, 203]];
    (0..3)
        .map(|i| {
            let mut state = OperatorState::new();
            state.list_state::<i32>("s").unwrap().add_all(s[i]);
            state.list_state::<i32>("t").unwrap().add(&(i as i32 * 1000));
            state.union_list_state::<i32>("u").unwrap().add(&(i as i32));
            state.broadcast_state::<i32, i32>("b").unwrap().put(&(i as i32), &(i as i32));
            state.snapshot()
        })
        .collect()
}

fn lists(new: &[OperatorSnapshot], name: &str) -> Vec<Vec<i32>> {
    let list = |snapshot: &OperatorSnapshot| {
        let mut state = OperatorState::restore(snapshot.clone());
        let mode = state.states().find(|(n, _)| *n == name).unwrap().1;
        let serializer = alluvium::serializer::I32Serializer;
        state.list_state_with(name, mode, serializer).unwrap().get().unwrap()
    };
    new.iter().map(list).collect()
}

fn counts(new: &[OperatorSnapshot], name: &str) -> Vec<usize> {
    lists(new, name).iter().map(Vec::len).collect()
}

fn copies(new: &[OperatorSnapshot]) -> Vec<i32> {
    let copy = |snapshot: &OperatorSnapshot| {
        let mut state = OperatorState::restore(snapshot.clone());
        let entries = state.broadcast_state::<i32, i32>("b").unwrap().entries().unwrap();
        assert_eq!(entries.len(), 1, "a copy, not the union");
        entries[0].0
    };
    new.iter().map(copy).collect()
}

#[test]
fn test_repartition_split_distribute_states() {
    let old = three();
    for (parallelism, s, t) in [
        (1, &[9][..], &[3][..]),
        (2, &[5, 4], &[1, 2]),
        (3, &[2, 3, 4], &[1, 1, 1]),
        (4, &[3, 2, 2, 2], &[0, 1, 1, 1]),
        (5, &[2, 2, 2, 2, 1], &[1, 1, 0, 0, 1]),
    ] {
        let new = redistribute_operator_state(&old, parallelism).unwrap();
        assert_eq!(
            (counts(&new, "s"), counts(&new, "t")),
            (s.to_vec(), t.to_vec()),
            "{parallelism}"
        );
        let mut all = lists(&new, "s").concat();
        all.sort();
        assert_eq!(all, [0, 1, 100, 101, 102, 200, 201, 202, 203]);
    }
}

#[test]
fn test_repartition_union_state() {
    for parallelism in 1..=5 {
        let new = redistribute_operator_state(&three(), parallelism).unwrap();
        assert_eq!(lists(&new, "u"), vec![vec![0, 1, 2]; parallelism]);
    }
}

#[test]
fn test_repartition_broadcast_state() {
    for (parallelism, want) in
        [(1, &[0][..]), (2, &[0, 1]), (3, &[0, 1, 2]), (4, &[0, 1, 2, 0]), (5, &[0, 1, 2, 0, 1])]
    {
        let new = redistribute_operator_state(&three(), parallelism).unwrap();
        assert_eq!(copies(&new), want);
    }
}

/// Only the first instance reported: still a copy for each new one.
#[test]
fn test_repartition_broadcast_state_with_null_subtask_state() {
    let mut old = three();
    old[1] = OperatorSnapshot::default();
    old.truncate(2);
    for parallelism in 1..=3 {
        let new = redistribute_operator_state(&old, parallelism).unwrap();
        assert_eq!(copies(&new), vec![0; parallelism]);
    }
}

#[test]
fn test_repartition_broadcast_state_with_empty_subtask_state() {
    let mut old = three();
    let mut other = OperatorState::new();
    other.list_state::<i32>("s").unwrap();
    old[1] = other.snapshot();
    old.truncate(2);
    for parallelism in 1..=3 {
        let new = redistribute_operator_state(&old, parallelism).unwrap();
        assert_eq!(copies(&new), vec![0; parallelism]);
    }
}

#[test]
fn test_re_distribute_combined_partitionable_states() {
    let mut old = three();
    for parallelism in [5, 2, 2, 7, 1, 3] {
        old = redistribute_operator_state(&old, parallelism).unwrap();
        assert_eq!(old.len(), parallelism);
        assert_eq!(counts(&old, "s").iter().sum::<usize>(), 9);
        assert_eq!(counts(&old, "t").iter().sum::<usize>(), 3);
        assert!(copies(&old).iter().all(|copy| *copy < 3));
    }
    assert!(redistribute_operator_state(&[], 2).unwrap().iter().all(OperatorSnapshot::is_empty));
    let mut state = OperatorState::new();
    state.union_list_state::<i32>("s").unwrap();
    let clash = [three().remove(0), state.snapshot()];
    assert_eq!(kind(redistribute_operator_state(&clash, 3)), ErrorKind::Incompatible);
}

/// Operator state is part of the same envelope as keyed state.
#[test]
fn operator_state_is_in_the_envelope() {
    with_log(|job| {
        let backend = job.backend::<i32>();
        let set = backend.checkpoint().unwrap().wait().unwrap();
        let checkpoint = JobCheckpoint {
            id: 7,
            max_parallelism: 10,
            parts: vec![PartInput { first_group: 0, last_group: 9, set: &set }],
            operator_state: vec![("source".into(), OperatorSnapshot::encode_all(&three()))],
            user: vec![],
        };
        save_checkpoint(&job.store, &checkpoint, None).unwrap();
        let saved = load_checkpoint(&job.store, 7).unwrap();
        let (name, bytes) = &saved.envelope.operator_state[0];
        assert_eq!(name, "source");
        assert_eq!(OperatorSnapshot::decode_all(bytes).unwrap(), three());
    });
}

#[test]
fn damaged_operator_state_is_refused() {
    let bytes = OperatorSnapshot::encode_all(&three());
    for cut in 0..bytes.len() {
        assert_eq!(kind(OperatorSnapshot::decode_all(&bytes[..cut])), ErrorKind::Corruption);
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(kind(OperatorSnapshot::decode_all(&longer)), ErrorKind::Corruption);
    let newer = [&[9], &bytes[1..]].concat();
    assert_eq!(kind(OperatorSnapshot::decode_all(&newer)), ErrorKind::Unsupported);
}
