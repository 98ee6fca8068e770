//! `StateBackendMigrationTestBase`, `StateSerializerProviderTest` and the tests of wrong serializers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use alluvium::serializer::{I32Serializer, StringSerializer, U64Serializer, VecSerializer};
use alluvium::{
    BackendOptions, Builtin, Clock, Compatibility, Error, ErrorKind, JavaHash, OperatorMode,
    OperatorSnapshot, OperatorState, Saved, Serializer, SerializerSnapshot, StateBackend,
    TtlConfig,
};

use crate::conformance::job::{Job, Log, all, go, kind, with_log};

/// Flink's `TestType`: a number and a text, in two versions; and what a serializer of it says of what
/// version 1 left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Version 1, which knows nothing but itself.
    V1,
    /// Version 2: the number comes first, and its bytes are flipped.
    V2,
    /// Version 1 under another name: reconfigured, it writes what version 1 did.
    Reconfigured,
    Incompatible,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TestType(i32, String);

impl TestType {
    fn new(number: i32) -> TestType {
        TestType(number, format!("text {number}"))
    }
}

impl JavaHash for TestType {
    fn java_hash(&self) -> i32 {
        self.0
    }
}

#[derive(Clone, Copy)]
struct TestSerializer(Says);

impl Serializer for TestSerializer {
    type Value = TestType;

    fn name(&self) -> &str {
        match self.0 {
            Says::Reconfigured => "test, to be reconfigured",
            Says::Incompatible => "test, incompatible",
            _ => "test",
        }
    }
    fn version(&self) -> u32 {
        if self.0 == Says::V2 { 2 } else { 1 }
    }
    fn fixed_len(&self) -> Option<usize> {
        None
    }
    fn encode(&self, value: &TestType, out: &mut Vec<u8>) {
        match self.0 {
            Says::V1 => {
                out.extend(value.0.to_le_bytes());
                out.extend(value.1.as_bytes());
            }
            Says::V2 => {
                out.push(2);
                out.extend((!value.0).to_be_bytes());
                out.extend(value.1.as_bytes());
            }
            Says::Reconfigured => panic!("it was to be reconfigured"),
            Says::Incompatible => out.push(0),
        }
    }
    fn decode(&self, bytes: &[u8]) -> Result<TestType, Error> {
        let bad = || Error::corruption("not of this version");
        let text = |bytes: &[u8]| StringSerializer.decode(bytes);
        match self.0 {
            Says::V1 => {
                let (number, rest) = bytes.split_first_chunk().ok_or_else(bad)?;
                Ok(TestType(i32::from_le_bytes(*number), text(rest)?))
            }
            Says::V2 => {
                let rest = bytes.strip_prefix(&[2]).ok_or_else(bad)?;
                let (number, rest) = rest.split_first_chunk().ok_or_else(bad)?;
                Ok(TestType(!i32::from_be_bytes(*number), text(rest)?))
            }
            Says::Reconfigured => panic!("it was to be reconfigured"),
            Says::Incompatible => Err(bad()),
        }
    }
    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<TestType> {
        let v1 = || Arc::new(TestSerializer(Says::V1));
        match (self.0, stored.version) {
            (Says::V2, 1) => Compatibility::AfterMigration(v1()),
            (Says::Reconfigured, 1) => Compatibility::Reconfigured(v1()),
            _ => Compatibility::if_equal(&self.snapshot(), stored),
        }
    }
}

const V1: TestSerializer = TestSerializer(Says::V1);
const V2: TestSerializer = TestSerializer(Says::V2);
const RECONFIGURED: TestSerializer = TestSerializer(Says::Reconfigured);
const INCOMPATIBLE: TestSerializer = TestSerializer(Says::Incompatible);
const VOID: alluvium::serializer::UnitSerializer = alluvium::serializer::UnitSerializer;

const STATE: &str = "state";

/// A checkpoint of a backend that `write` has filled for three keys.
fn written(job: &Job, write: impl Fn(&mut StateBackend<i32>, i32)) -> Saved {
    let mut backend = job.backend::<i32>();
    for key in 1..=3 {
        go(&mut backend, key);
        write(&mut backend, key);
    }
    job.snapshot(&[&backend])
}

/// Restores, lets `read` check each key twice, with another write and a round trip in between; and a
/// state that nobody asks for is carried on and read afterwards.
fn restored(
    job: &Job,
    saved: &Saved,
    mut read_and_write: impl FnMut(&mut StateBackend<i32>, i32, bool),
) {
    let mut backend = job.restore::<i32>(saved);
    for key in 1..=3 {
        go(&mut backend, key);
        read_and_write(&mut backend, key, false);
    }
    let mut backend = job.round_trip(backend);
    for key in 1..=3 {
        go(&mut backend, key);
        read_and_write(&mut backend, key, true);
    }
    let backend = job.round_trip(job.restore::<i32>(saved));
    let mut backend = job.round_trip(backend);
    for key in 1..=3 {
        go(&mut backend, key);
        read_and_write(&mut backend, key, false);
    }
}

fn write_value(backend: &mut StateBackend<i32>, key: i32) {
    let mut state = backend.value_state_with(STATE, VOID, V1).unwrap();
    state.update(&TestType::new(key)).unwrap();
}

fn value_upgrade(with: TestSerializer) {
    with_log(|job| {
        let saved = written(job, write_value);
        restored(job, &saved, |backend, key, again| {
            let mut state = backend.value_state_with(STATE, VOID, with).unwrap();
            let old = if again { key + 100 } else { key };
            assert_eq!(state.value().unwrap(), Some(TestType::new(old)));
            state.update(&TestType::new(key + 100)).unwrap();
            assert_eq!(state.value().unwrap(), Some(TestType::new(key + 100)));
        });
    });
}

#[test]
fn test_keyed_value_state_migration() {
    value_upgrade(V2);
}

#[test]
fn test_keyed_value_state_serializer_reconfiguration() {
    value_upgrade(RECONFIGURED);
}

#[test]
fn test_keyed_value_state_registration_fails_if_new_state_serializer_is_incompatible() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&written(job, write_value));
        for _ in 0..2 {
            let state = backend.value_state_with(STATE, VOID, INCOMPATIBLE);
            let e = state.err().unwrap();
            assert_eq!(e.kind(), ErrorKind::Incompatible);
            assert!(e.to_string().contains("\"state\"") && e.to_string().contains("test@1"), "{e}");
        }
        go(&mut backend, 1);
        let mut state = backend.value_state_with(STATE, VOID, V1).unwrap();
        assert_eq!(state.value().unwrap(), Some(TestType::new(1)), "nothing has changed");
    });
}

fn elements(key: i32) -> Vec<TestType> {
    (0..[3, 1, 2][key as usize - 1]).map(|i| TestType::new(key * 10 + i)).collect()
}

fn write_list(backend: &mut StateBackend<i32>, key: i32) {
    let mut state = backend.list_state_with(STATE, VOID, V1).unwrap();
    state.add_all(&elements(key)).unwrap();
}

fn list_upgrade(with: TestSerializer) {
    with_log(|job| {
        let saved = written(job, write_list);
        restored(job, &saved, |backend, key, again| {
            let mut state = backend.list_state_with(STATE, VOID, with).unwrap();
            let mut want = elements(key);
            want.extend(again.then(|| TestType::new(7)));
            assert_eq!(state.get().unwrap(), want);
            state.add(&TestType::new(7)).unwrap();
            want.push(TestType::new(7));
            assert_eq!(state.get().unwrap(), want);
        });
    });
}

#[test]
fn test_keyed_list_state_migration() {
    list_upgrade(V2);
}

#[test]
fn test_keyed_list_state_serializer_reconfiguration() {
    list_upgrade(RECONFIGURED);
}

#[test]
fn test_keyed_list_state_registration_fails_if_new_state_serializer_is_incompatible() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&written(job, write_list));
        let state = backend.list_state_with(STATE, VOID, INCOMPATIBLE);
        assert_eq!(kind(state), ErrorKind::Incompatible);
    });
}

fn write_map(backend: &mut StateBackend<i32>, key: i32) {
    let mut state = backend.map_state_with(STATE, VOID, I32Serializer, V1).unwrap();
    elements(key).iter().for_each(|element| state.put(&element.0, element).unwrap());
}

fn map_upgrade(with: TestSerializer) {
    with_log(|job| {
        let saved = written(job, write_map);
        restored(job, &saved, |backend, key, again| {
            let mut state = backend.map_state_with(STATE, VOID, I32Serializer, with).unwrap();
            let mut want: Vec<_> = elements(key).into_iter().map(|e| (e.0, e)).collect();
            want.extend(again.then(|| (1000, TestType::new(7))));
            assert_eq!(all(state.iter().unwrap()), want);
            state.put(&1000, &TestType::new(7)).unwrap();
            assert_eq!(state.get(&1000).unwrap(), Some(TestType::new(7)));
        });
    });
}

#[test]
fn test_keyed_map_state_as_is() {
    map_upgrade(V1);
}

#[test]
fn test_keyed_map_state_state_migration() {
    map_upgrade(V2);
}

#[test]
fn test_keyed_map_state_serializer_reconfiguration() {
    map_upgrade(RECONFIGURED);
}

#[test]
fn test_keyed_map_state_registration_fails_if_new_state_serializer_is_incompatible() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&written(job, write_map));
        let state = backend.map_state_with(STATE, VOID, I32Serializer, INCOMPATIBLE);
        assert_eq!(kind(state), ErrorKind::Incompatible);
    });
}

#[test]
fn a_map_does_not_migrate_its_user_keys() {
    with_log(|job| {
        let saved = written(job, |backend, key| {
            let mut state = backend.map_state_with(STATE, VOID, V1, I32Serializer).unwrap();
            state.put(&TestType::new(key), &key).unwrap();
        });
        let mut backend = job.restore::<i32>(&saved);
        for keys in [V2, INCOMPATIBLE] {
            let state = backend.map_state_with(STATE, VOID, keys, I32Serializer);
            assert_eq!(kind(state), ErrorKind::Incompatible);
        }
        go(&mut backend, 2);
        let mut state = backend.map_state_with(STATE, VOID, RECONFIGURED, I32Serializer).unwrap();
        assert_eq!(state.get(&TestType::new(2)).unwrap(), Some(2));
    });
}

/// Values of reducing and aggregating state migrate as those of value state.
#[test]
fn reducing_state_migrates() {
    with_log(|job| {
        let last = |_: TestType, value: &TestType| value.clone();
        let saved = written(job, |backend, key| {
            let mut state = backend.reducing_state_with(STATE, VOID, V1, last).unwrap();
            state.add(&TestType::new(key)).unwrap();
        });
        let mut backend = job.restore::<i32>(&saved);
        let mut state = backend.reducing_state_with(STATE, VOID, V2, last).unwrap();
        for key in 1..=3 {
            go(&mut backend, key);
            assert_eq!(state.get().unwrap(), Some(TestType::new(key)));
        }
        assert_eq!(kind(backend.value_state_with(STATE, VOID, V2)), ErrorKind::Incompatible);
    });
}

fn with_test_keys(job: &Job) -> Saved {
    let mut backend = job.backend_with(V1);
    let mut state = backend.value_state::<i32>(STATE).unwrap();
    for key in 1..=3 {
        backend.set_current_key(&TestType::new(key)).unwrap();
        state.update(&key).unwrap();
    }
    job.snapshot(&[&backend])
}

#[test]
fn test_state_backend_restore_fails_if_new_key_serializer_requires_migration() {
    with_log(|job| {
        let e = job.restore_with(&with_test_keys(job), V2).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Incompatible);
        assert!(e.to_string().contains("key serializer"), "{e}");
    });
}

#[test]
fn test_state_backend_restore_succeeds_if_new_key_serializer_requires_reconfiguration() {
    with_log(|job| {
        let mut backend = job.restore_with(&with_test_keys(job), RECONFIGURED).unwrap();
        let mut state = backend.value_state::<i32>(STATE).unwrap();
        for key in 1..=3 {
            backend.set_current_key(&TestType::new(key)).unwrap();
            assert_eq!(state.value().unwrap(), Some(key));
            state.update(&(key + 1)).unwrap();
        }
        let mut keys = all(backend.get_keys(STATE, &()).unwrap());
        keys.sort();
        assert_eq!(keys, [1, 2, 3].map(TestType::new));
        drop(state);
        job.restore_with(&job.snapshot(&[&backend]), V1).unwrap();
    });
}

#[test]
fn test_state_backend_restore_fails_if_new_key_serializer_is_incompatible() {
    with_log(|job| {
        let restored = job.restore_with(&with_test_keys(job), INCOMPATIBLE);
        assert_eq!(kind(restored), ErrorKind::Incompatible);
    });
}

fn with_test_namespaces(job: &Job) -> Saved {
    written(job, |backend, key| {
        let mut state = backend.value_state_with(STATE, V1, I32Serializer).unwrap();
        state.set_current_namespace(&TestType::new(5));
        state.update(&key).unwrap();
    })
}

#[test]
fn test_keyed_state_registration_fails_if_new_namespace_serializer_requires_migration() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&with_test_namespaces(job));
        let e = backend.value_state_with(STATE, V2, I32Serializer).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Incompatible);
        assert!(e.to_string().contains("namespace serializer"), "{e}");
        let keys = backend.get_keys_with(STATE, V2, &TestType::new(5));
        assert_eq!(kind(keys), ErrorKind::Incompatible);
    });
}

#[test]
fn test_keyed_state_registration_succeeds_if_new_namespace_serializer_requires_reconfiguration() {
    with_log(|job| {
        let saved = with_test_namespaces(job);
        restored(job, &saved, |backend, key, again| {
            let mut state = backend.value_state_with(STATE, RECONFIGURED, I32Serializer).unwrap();
            state.set_current_namespace(&TestType::new(5));
            assert_eq!(state.value().unwrap(), Some(if again { -key } else { key }));
            state.update(&-key).unwrap();
            let five = TestType::new(5);
            let keys = backend.get_keys_with(STATE, RECONFIGURED, &five).unwrap();
            assert_eq!(keys.count(), 3);
            let pairs = backend.get_keys_and_namespaces_with(STATE, RECONFIGURED).unwrap();
            assert!(all(pairs).iter().all(|(_, namespace)| *namespace == five));
        });
    });
}

#[test]
fn test_keyed_state_registration_fails_if_new_namespace_serializer_is_incompatible() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&with_test_namespaces(job));
        let state = backend.value_state_with(STATE, INCOMPATIBLE, I32Serializer);
        assert_eq!(kind(state), ErrorKind::Incompatible);
    });
}

/// As the state of one instance, in and out of its stored form.
fn stored(state: &OperatorState) -> OperatorSnapshot {
    let bytes = OperatorSnapshot::encode_all(&[state.snapshot()]);
    OperatorSnapshot::decode_all(&bytes).unwrap().remove(0)
}

fn operator_list(mode: OperatorMode, with: TestSerializer) -> Result<(), Error> {
    let mut old = OperatorState::new();
    let mut list = old.list_state_with("list", mode, V1)?;
    list.add_all(&[3, 1, 2].map(TestType::new));
    let mut new = OperatorState::restore(stored(&old));
    let mut list = new.list_state_with("list", mode, with)?;
    assert_eq!(list.get()?, [3, 1, 2].map(TestType::new), "elements keep their order");
    list.add(&TestType::new(9));
    let mut again = OperatorState::restore(stored(&new));
    let list = again.list_state_with("list", mode, with)?;
    assert_eq!(list.get()?, [3, 1, 2, 9].map(TestType::new));
    Ok(())
}

#[test]
fn test_operator_partitionable_list_state_migration() {
    operator_list(OperatorMode::Split, V2).unwrap();
}

#[test]
fn test_operator_partitionable_list_state_serializer_reconfiguration() {
    operator_list(OperatorMode::Split, RECONFIGURED).unwrap();
}

#[test]
fn test_operator_partitionable_list_state_fails_if_new_serializer_is_incompatible() {
    let refused = operator_list(OperatorMode::Split, INCOMPATIBLE);
    assert_eq!(kind(refused), ErrorKind::Incompatible);
}

#[test]
fn test_operator_union_list_state_migration() {
    operator_list(OperatorMode::Union, V2).unwrap();
}

#[test]
fn test_operator_union_list_state_serializer_reconfiguration() {
    operator_list(OperatorMode::Union, RECONFIGURED).unwrap();
}

#[test]
fn test_operator_union_list_state_fails_if_new_serializer_is_incompatible() {
    let refused = operator_list(OperatorMode::Union, INCOMPATIBLE);
    assert_eq!(kind(refused), ErrorKind::Incompatible);
}

fn broadcast(keys: TestSerializer, values: TestSerializer) -> Result<(), Error> {
    let mut old = OperatorState::new();
    let mut map = old.broadcast_state_with("map", V1, V1)?;
    for i in [3, 5, 1] {
        map.put(&TestType::new(i), &TestType::new(i * 10));
    }
    let mut new = OperatorState::restore(stored(&old));
    let mut map = new.broadcast_state_with("map", keys, values)?;
    map.put(&TestType::new(7), &TestType::new(70));
    for i in [3, 5, 1, 7] {
        assert_eq!(map.get(&TestType::new(i))?, Some(TestType::new(i * 10)));
    }
    let mut again = OperatorState::restore(stored(&new));
    let map = again.broadcast_state_with("map", keys, values)?;
    let mut entries = map.entries()?;
    entries.sort();
    assert_eq!(entries, [1, 3, 5, 7].map(|i| (TestType::new(i), TestType::new(i * 10))));
    Ok(())
}

#[test]
fn test_broadcast_state_value_migration() {
    broadcast(V1, V2).unwrap();
}

#[test]
fn test_broadcast_state_key_migration() {
    broadcast(V2, V1).unwrap();
    broadcast(V2, V2).unwrap();
}

#[test]
fn test_broadcast_state_value_serializer_reconfiguration() {
    broadcast(V1, RECONFIGURED).unwrap();
}

#[test]
fn test_broadcast_state_key_serializer_reconfiguration() {
    broadcast(RECONFIGURED, V1).unwrap();
}

#[test]
fn test_broadcast_state_registration_fails_if_new_value_serializer_is_incompatible() {
    assert_eq!(kind(broadcast(V1, INCOMPATIBLE)), ErrorKind::Incompatible);
}

#[test]
fn test_broadcast_state_registration_fails_if_new_key_serializer_is_incompatible() {
    assert_eq!(kind(broadcast(INCOMPATIBLE, V1)), ErrorKind::Incompatible);
}

#[test]
fn test_restore_with_wrong_key_serializer() {
    with_log(|job| {
        let saved = written(job, write_value);
        assert_eq!(kind(job.restore_of::<f64>(&saved, (0, 9))), ErrorKind::Incompatible);
    });
}

#[test]
fn test_value_state_restore_with_wrong_serializers() {
    with_log(|job| {
        let saved = written(job, |backend, _| {
            backend.value_state::<String>(STATE).unwrap().update(&"1".into()).unwrap();
        });
        let mut backend = job.restore::<i32>(&saved);
        assert_eq!(kind(backend.value_state::<f32>(STATE)), ErrorKind::Incompatible);
        assert_eq!(kind(backend.list_state::<String>(STATE)), ErrorKind::Incompatible, "its type");
    });
}

#[test]
fn test_list_state_restore_with_wrong_serializers() {
    with_log(|job| {
        let saved = written(job, |backend, _| {
            backend.list_state::<String>(STATE).unwrap().add(&"1".into()).unwrap();
        });
        let mut backend = job.restore::<i32>(&saved);
        assert_eq!(kind(backend.list_state::<f32>(STATE)), ErrorKind::Incompatible);
    });
}

#[test]
fn test_reducing_state_restore_with_wrong_serializers() {
    with_log(|job| {
        let saved = written(job, |backend, _| {
            let join = |a: String, b: &String| a + b;
            backend.reducing_state(STATE, join).unwrap().add(&"1".into()).unwrap();
        });
        let mut backend = job.restore::<i32>(&saved);
        let state = backend.reducing_state::<f32>(STATE, |a, b| a + b);
        assert_eq!(kind(state), ErrorKind::Incompatible);
    });
}

#[test]
fn test_map_state_restore_with_wrong_serializers() {
    with_log(|job| {
        let saved = written(job, |backend, _| {
            backend.map_state::<String, String>(STATE).unwrap();
        });
        let mut backend = job.restore::<i32>(&saved);
        assert_eq!(kind(backend.map_state::<f32, String>(STATE)), ErrorKind::Incompatible);
    });
}

/// Within one run, a state does not change its form under the handles that are in use.
#[test]
fn a_registered_state_is_not_migrated() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&written(job, write_value));
        go(&mut backend, 1);
        let mut state = backend.value_state_with(STATE, VOID, V1).unwrap();
        assert_eq!(kind(backend.value_state_with(STATE, VOID, V2)), ErrorKind::Incompatible);
        state.update(&TestType::new(8)).unwrap();
        let mut same = backend.value_state_with(STATE, VOID, RECONFIGURED).unwrap();
        assert_eq!(same.value().unwrap(), Some(TestType::new(8)));
    });
}

/// Parts of which one has migrated a state and the other has not become one.
#[test]
fn migrated_parts_and_others_are_joined() {
    with_log(|job| {
        let keys = 1..=40;
        let saved = {
            let mut backend = job.backend::<i32>();
            let mut state = backend.list_state_with(STATE, VOID, V1).unwrap();
            for key in keys.clone() {
                go(&mut backend, key);
                state.add(&TestType::new(key)).unwrap();
            }
            job.snapshot(&[&backend])
        };
        let mut low = job.restore_of::<i32>(&saved, (0, 4)).unwrap();
        let high = job.restore_of::<i32>(&saved, (5, 9)).unwrap();
        low.list_state_with(STATE, VOID, V2).unwrap();
        let saved = job.snapshot(&[&low, &high]);
        let mut backend = job.restore::<i32>(&saved);
        // Of two forms, one of which it does not know.
        assert_eq!(kind(backend.list_state_with(STATE, VOID, V1)), ErrorKind::Incompatible);
        for _ in 0..2 {
            let mut state = backend.list_state_with(STATE, VOID, V2).unwrap();
            for key in keys.clone() {
                go(&mut backend, key);
                assert_eq!(state.get().unwrap(), [TestType::new(key)]);
            }
            drop(state);
            backend = job.round_trip(backend);
        }
    });
}

/// A value that cannot be read refuses the migration before anything is written.
#[test]
fn a_migration_that_fails_changes_nothing() {
    static DAMAGED: AtomicBool = AtomicBool::new(true);

    /// Reads strings; writes their length. Refuses "bad" for as long as it is told so.
    struct Length;

    impl Serializer for Length {
        type Value = u64;
        fn name(&self) -> &str {
            "length"
        }
        fn fixed_len(&self) -> Option<usize> {
            Some(8)
        }
        fn encode(&self, value: &u64, out: &mut Vec<u8>) {
            U64Serializer.encode(value, out)
        }
        fn decode(&self, bytes: &[u8]) -> Result<u64, Error> {
            U64Serializer.decode(bytes)
        }
        fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<u64> {
            match stored.name.as_str() {
                "string" => Compatibility::AfterMigration(Arc::new(OfString)),
                _ => Compatibility::if_equal(&self.snapshot(), stored),
            }
        }
    }

    struct OfString;

    impl Serializer for OfString {
        type Value = u64;
        fn name(&self) -> &str {
            "string"
        }
        fn fixed_len(&self) -> Option<usize> {
            None
        }
        fn encode(&self, _: &u64, _: &mut Vec<u8>) {
            unreachable!("it only reads")
        }
        fn decode(&self, bytes: &[u8]) -> Result<u64, Error> {
            match bytes == b"bad" && DAMAGED.load(Ordering::Relaxed) {
                true => Err(Error::corruption("bad")),
                false => Ok(bytes.len() as u64),
            }
        }
    }

    with_log(|job| {
        DAMAGED.store(true, Ordering::Relaxed);
        let mut backend = job.backend::<i32>();
        let mut state = backend.value_state::<String>(STATE).unwrap();
        for key in 0..200 {
            go(&mut backend, key);
            state.update(&if key == 77 { "bad".into() } else { key.to_string() }).unwrap();
        }
        drop(state);
        let mut backend = job.round_trip(backend);
        let before = backend.db().snapshot().seqno();
        let refused = backend.value_state_with(STATE, VOID, Length);
        assert_eq!(kind(refused), ErrorKind::Corruption);
        assert_eq!(backend.db().snapshot().seqno(), before);
        DAMAGED.store(false, Ordering::Relaxed);
        let view = backend.snapshot();
        let mut state = backend.value_state_with(STATE, VOID, Length).unwrap();
        go(&mut backend, 77);
        assert_eq!(state.value().unwrap(), Some(3));
        assert_eq!(kind(state.at(&view)), ErrorKind::Incompatible, "the view shows strings");
        drop(view);
        assert!(state.at(&backend.snapshot()).is_ok());
    });
}

/// With the log on, a process that dies in the midst of a migration leaves a backend that is refused:
/// every state of the disk is either the old form, the new form, or marked.
#[test]
fn a_migration_that_is_cut_short_is_seen() {
    let job = Job::new(Log::Synced);
    let dir = job.dir();
    let options = job.options(10, (0, 9));
    let open = || StateBackend::<i32>::open(&dir, options.clone(), job.env.clone());
    let mut backend = open().unwrap();
    let mut state = backend.value_state_with(STATE, VOID, V1).unwrap();
    // Several batches for one key group.
    let large = TestType(1, "x".repeat(1 << 20));
    for key in 0..200 {
        go(&mut backend, key);
        if backend.current_key_group() == Some(3) {
            state.update(&large).unwrap();
        }
    }
    drop((state, backend));
    let mut backend = open().unwrap();
    backend.value_state_with(STATE, VOID, V2).unwrap();
    let mut backend = {
        drop(backend);
        open().unwrap()
    };
    let mut state = backend.value_state_with(STATE, VOID, V2).unwrap();
    let keys = all(backend.get_keys(STATE, &()).unwrap());
    assert!(keys.len() > 10);
    for key in &keys {
        go(&mut backend, *key);
        assert_eq!(state.value().unwrap().as_ref(), Some(&large));
    }
    // The mark itself: as the metadata of that group would be half-way.
    let meta = backend.db().column_family("_meta", options.family.clone()).unwrap();
    let key = [&[0, 3][..], STATE.as_bytes()].concat();
    let mut record = backend.db().get(&meta, &key).unwrap().unwrap();
    record.extend([5 << 1 | 1, 0]);
    backend.db().put(&meta, &key, &record).unwrap();
    drop((state, backend));
    let e = open().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Halted);
    assert!(e.to_string().contains("restore a checkpoint"), "{e}");
    assert!(job.env.fs().list(Path::new(&dir)).is_ok());
}

/// Composites say the worst of what their parts say.
#[test]
fn composites_follow_their_parts() {
    let list = |of: TestSerializer| VecSerializer(of);
    let snapshot = list(V1).snapshot();
    assert!(matches!(list(V1).compatibility(&snapshot), Compatibility::AsIs));
    let said = list(V2).compatibility(&snapshot);
    let Compatibility::AfterMigration(reader) = said else { panic!("{said:?}") };
    let values: Vec<TestType> = [1, 2, 3].map(TestType::new).to_vec();
    let mut bytes = Vec::new();
    list(V1).encode(&values, &mut bytes);
    assert_eq!(reader.decode(&bytes).unwrap(), values);
    let said = list(RECONFIGURED).compatibility(&snapshot);
    assert!(matches!(said, Compatibility::Reconfigured(_)), "{said:?}");
    assert!(matches!(list(INCOMPATIBLE).compatibility(&snapshot), Compatibility::Incompatible(_)));

    use alluvium::serializer::{OptionSerializer, PairSerializer};
    let of = |a, b| PairSerializer(OptionSerializer(a), b);
    let snapshot = of(V1, V1).snapshot();
    assert!(matches!(of(V1, V1).compatibility(&snapshot), Compatibility::AsIs));
    let said = of(RECONFIGURED, V2).compatibility(&snapshot);
    let Compatibility::AfterMigration(reader) = said else { panic!("{said:?}") };
    let pair = (Some(TestType::new(1)), TestType::new(2));
    let mut bytes = Vec::new();
    of(V1, V1).encode(&pair, &mut bytes);
    assert_eq!(reader.decode(&bytes).unwrap(), pair);
    let said = of(INCOMPATIBLE, V2).compatibility(&snapshot);
    assert!(matches!(said, Compatibility::Incompatible(_)), "{said:?}");
    // Another composite, or another number of parts.
    let said = list(V1).compatibility(&snapshot);
    assert!(matches!(said, Compatibility::Incompatible(_)), "{said:?}");
    let triple = alluvium::serializer::TripleSerializer(V1, V1, V1);
    assert!(matches!(triple.compatibility(&snapshot), Compatibility::Incompatible(_)));
}

/// A serializer that claims to read values of another width is not believed: composites and keys are
/// taken apart by it.
#[test]
fn a_width_does_not_change() {
    #[derive(Clone)]
    struct Liar(Option<usize>);

    impl Serializer for Liar {
        type Value = u32;
        fn name(&self) -> &str {
            "liar"
        }
        fn fixed_len(&self) -> Option<usize> {
            self.0
        }
        fn encode(&self, value: &u32, out: &mut Vec<u8>) {
            out.extend(value.to_be_bytes());
        }
        fn decode(&self, bytes: &[u8]) -> Result<u32, Error> {
            u32::decode_be(bytes)
        }
        fn compatibility(&self, _: &SerializerSnapshot) -> Compatibility<u32> {
            Compatibility::AsIs
        }
    }

    trait DecodeBe: Sized {
        fn decode_be(bytes: &[u8]) -> Result<Self, Error>;
    }

    impl DecodeBe for u32 {
        fn decode_be(bytes: &[u8]) -> Result<u32, Error> {
            <u32 as Builtin>::Serializer::default().decode(bytes)
        }
    }

    with_log(|job| {
        let saved = written(job, |backend, key| {
            let mut state = backend.value_state_with(STATE, Liar(Some(4)), Liar(None)).unwrap();
            state.set_current_namespace(&7);
            state.update(&(key as u32)).unwrap();
        });
        let mut backend = job.restore::<i32>(&saved);
        let state = backend.value_state_with(STATE, Liar(None), Liar(None));
        assert_eq!(kind(state), ErrorKind::Incompatible);
        let mut state = backend.value_state_with(STATE, Liar(Some(4)), Liar(None)).unwrap();
        go(&mut backend, 3);
        state.set_current_namespace(&7);
        assert_eq!(state.value().unwrap(), Some(3));
    });
}

const DAY: i64 = 86_400_000;

/// Options with a time to live of so many days, and a clock.
fn expiring(job: &Job, days: Option<i64>, now: &Arc<AtomicI64>) -> BackendOptions {
    let mut options = job.options(10, (0, 9));
    let now = Arc::clone(now);
    options.clock = Some(Clock::new(move || now.load(Ordering::Relaxed)));
    if let Some(days) = days {
        options.ttl.insert(STATE.to_owned(), TtlConfig::new(days * DAY).unwrap());
    }
    options
}

/// Values of version 1 under one time to live are read as version 2 under another, or under none, by
/// value, list and map; `gone` says when each has expired.
fn changing_ttl(before: Option<i64>, after: Option<i64>, gone: Option<i64>) {
    with_log(|job| {
        for state in 0..3 {
            let now = Arc::new(AtomicI64::new(0));
            let options = expiring(job, before, &now);
            let env = job.env.clone();
            let mut backend = StateBackend::<i32>::open(&job.dir(), options, env).unwrap();
            let write = [write_value, write_list, write_map][state];
            for key in 1..=3 {
                go(&mut backend, key);
                write(&mut backend, key);
            }
            let saved = job.snapshot(&[&backend]);
            now.store(DAY / 2, Ordering::Relaxed);
            let options = expiring(job, after, &now);
            let mut backend = job.restore_as::<i32>(&saved, options).unwrap();
            let read = |backend: &mut StateBackend<i32>, key: i32| -> Vec<TestType> {
                go(backend, key);
                match state {
                    0 => {
                        let mut state = backend.value_state_with(STATE, VOID, V2).unwrap();
                        state.value().unwrap().into_iter().collect()
                    }
                    1 => backend.list_state_with(STATE, VOID, V2).unwrap().get().unwrap(),
                    _ => {
                        let numbers = I32Serializer;
                        let mut state = backend.map_state_with(STATE, VOID, numbers, V2).unwrap();
                        all(state.values().unwrap())
                    }
                }
            };
            let want = |key: i32| match state {
                0 => vec![TestType::new(key)],
                _ => elements(key),
            };
            for key in 1..=3 {
                assert_eq!(read(&mut backend, key), want(key), "state {state}");
            }
            let mut backend = job
                .restore_as::<i32>(&job.snapshot(&[&backend]), expiring(job, after, &now))
                .unwrap();
            let Some(gone) = gone else {
                now.store(100 * DAY, Ordering::Relaxed);
                assert_eq!(read(&mut backend, 1), want(1), "nothing expires any more");
                continue;
            };
            now.store(gone - 1, Ordering::Relaxed);
            assert_eq!(read(&mut backend, 1), want(1), "state {state}");
            now.store(gone, Ordering::Relaxed);
            assert!(read(&mut backend, 2).is_empty(), "state {state}");
        }
    });
}

/// Longer lives from the old times on, which a migration of the values keeps.
#[test]
fn test_state_migration_after_changing_ttl() {
    changing_ttl(Some(1), Some(2), Some(2 * DAY));
}

/// They were written when they were migrated.
#[test]
fn test_state_migration_after_changing_ttl_from_disabling_to_enabling() {
    changing_ttl(None, Some(1), Some(DAY / 2 + DAY));
}

/// Fails in Flink's suite, and works in Flink 2.3.0.
#[test]
fn test_state_migration_after_changing_ttl_from_enabling_to_disabling() {
    changing_ttl(Some(1), None, None);
}
