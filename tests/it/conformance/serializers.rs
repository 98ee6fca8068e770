//! `StateBackendTestBase`: serializers of the caller's are used, and what they left in a checkpoint is
//! given back to them. What Kryo and POJO serializers register there, a serializer has in its
//! configuration here.

use std::sync::Arc;

use alluvium::serializer::{StringSerializer, UnitSerializer, VecSerializer};
use alluvium::{
    Builtin, Compatibility, Error, ErrorKind, Saved, Serializer, SerializerSnapshot, StateBackend,
};

use crate::conformance::job::{Job, go, with_log};

const STATE: &str = "state";
const TOLD: &str = "the serializer of the test was used";

/// A type whose own serializer cannot read.
#[derive(Clone, Debug, PartialEq)]
struct Unreadable;

#[derive(Clone, Copy, Default)]
struct UnreadableSerializer;

impl Serializer for UnreadableSerializer {
    type Value = Unreadable;

    fn name(&self) -> &str {
        "unreadable"
    }
    fn fixed_len(&self) -> Option<usize> {
        Some(1)
    }
    fn encode(&self, _: &Unreadable, out: &mut Vec<u8>) {
        out.push(7);
    }
    fn decode(&self, _: &[u8]) -> Result<Unreadable, Error> {
        Err(Error::corruption(TOLD))
    }
}

impl Builtin for Unreadable {
    type Serializer = UnreadableSerializer;
}

fn told<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.expect_err("it cannot be read");
    assert_eq!(error.kind(), ErrorKind::Corruption);
    let text = error.to_string();
    assert!(text.contains(TOLD) && text.contains(STATE), "{text}");
}

/// The serializer that belongs to the type.
#[test]
fn test_backend_uses_registered_kryo_default_serializer() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        go(&mut backend, 1);
        let mut state = backend.value_state::<Unreadable>(STATE).unwrap();
        state.update(&Unreadable).unwrap();
        told(state.value());
    });
}

#[test]
fn test_backend_uses_registered_kryo_default_serializer_using_get_or_create() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        go(&mut backend, 1);
        let mut state = backend.value_state_with_namespace::<u8, Unreadable>(STATE).unwrap();
        state.set_current_namespace(&1);
        state.update(&Unreadable).unwrap();
        told(state.value());
    });
}

/// A serializer that was given for this state.
#[test]
fn test_backend_uses_registered_kryo_serializer() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        go(&mut backend, 1);
        let mut state =
            backend.value_state_with(STATE, UnitSerializer, UnreadableSerializer).unwrap();
        state.update(&Unreadable).unwrap();
        told(state.value());
    });
}

#[test]
fn test_backend_uses_registered_kryo_serializer_using_get_or_create() {
    with_log(|job| {
        let mut backend = job.backend::<i32>();
        go(&mut backend, 1);
        let mut state =
            backend.value_state_with(STATE, StringSerializer, UnreadableSerializer).unwrap();
        state.set_current_namespace(&"namespace".to_owned());
        state.update(&Unreadable).unwrap();
        told(state.value());
    });
}

/// A value of one of several types, which is stored by the number under which the type is registered.
type Typed = (String, u8);

#[derive(Clone)]
struct Registered {
    types: Vec<String>,
    reads: bool,
}

impl Registered {
    fn new(types: &[&str]) -> Registered {
        Registered { types: types.iter().map(|name| (*name).to_owned()).collect(), reads: true }
    }

    fn only_writes(self) -> Registered {
        Registered { reads: false, ..self }
    }

    fn names() -> VecSerializer<StringSerializer> {
        VecSerializer(StringSerializer)
    }
}

impl Serializer for Registered {
    type Value = Typed;

    fn name(&self) -> &str {
        "registered"
    }
    fn config(&self) -> Vec<u8> {
        let mut config = Vec::new();
        Registered::names().encode(&self.types, &mut config);
        config
    }
    fn fixed_len(&self) -> Option<usize> {
        Some(2)
    }
    fn encode(&self, value: &Typed, out: &mut Vec<u8>) {
        let id = self.types.iter().position(|name| *name == value.0).expect("it is registered");
        out.extend([id as u8, value.1]);
    }
    fn decode(&self, bytes: &[u8]) -> Result<Typed, Error> {
        if !self.reads {
            return Err(Error::corruption(TOLD));
        }
        let &[id, value] = bytes else { return Err(Error::corruption("not two bytes")) };
        let name = self.types.get(usize::from(id));
        Ok((name.ok_or_else(|| Error::corruption("an unknown type"))?.clone(), value))
    }
    /// What was registered keeps its numbers, and what is new comes behind it.
    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<Typed> {
        let Ok(mut types) = Registered::names().decode(&stored.config) else {
            return Compatibility::if_equal(&self.snapshot(), stored);
        };
        if types == self.types {
            return Compatibility::AsIs;
        }
        let new = self.types.iter().filter(|name| !types.contains(name)).cloned();
        types.extend(new.collect::<Vec<_>>());
        Compatibility::Reconfigured(Arc::new(Registered { types, reads: self.reads }))
    }
}

fn open(backend: &mut StateBackend<i32>, with: &Registered) -> alluvium::ValueState<Typed> {
    backend.value_state_with(STATE, UnitSerializer, with.clone()).unwrap()
}

fn typed(name: &str, value: u8) -> Typed {
    (name.to_owned(), value)
}

/// A checkpoint with a value of type "a" under key 1, and one of the last type under key 2.
fn saved(job: &Job, types: &[&str]) -> Saved {
    let mut backend = job.backend::<i32>();
    let mut state = open(&mut backend, &Registered::new(types));
    for (key, name) in [(1, "a"), (2, types[types.len() - 1])] {
        go(&mut backend, key);
        state.update(&typed(name, key as u8)).unwrap();
    }
    job.snapshot(&[&backend])
}

/// More types are registered when the state is restored.
#[test]
fn test_kryo_registering_restore_resilience_with_registered_type() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&saved(job, &["a"]));
        let mut state = open(&mut backend, &Registered::new(&["b", "a"]));
        for key in [1, 2] {
            go(&mut backend, key);
            assert_eq!(state.value().unwrap(), Some(typed("a", key as u8)));
        }
        state.update(&typed("b", 9)).unwrap();
        let mut backend = job.round_trip(backend);
        let mut state = open(&mut backend, &Registered::new(&["b", "a"]));
        go(&mut backend, 2);
        assert_eq!(state.value().unwrap(), Some(typed("b", 9)));
    });
}

/// The state is restored with a serializer that only writes: that suffices for updates and another
/// checkpoint, and reading gives its error.
fn restores_unread(types: &[&str], after: &[&str]) {
    with_log(|job| {
        let only_writes = Registered::new(after).only_writes();
        let mut backend = job.restore::<i32>(&saved(job, types));
        let mut state = open(&mut backend, &only_writes);
        go(&mut backend, 1);
        state.update(&typed("a", 5)).unwrap();
        let again = job.snapshot(&[&backend]);
        let mut backend = job.restore::<i32>(&again);
        let mut state = open(&mut backend, &only_writes);
        go(&mut backend, 1);
        told(state.value());
        let mut backend = job.restore::<i32>(&again);
        let mut state = open(&mut backend, &Registered::new(after));
        go(&mut backend, 1);
        assert_eq!(state.value().unwrap(), Some(typed("a", 5)));
    });
}

#[test]
fn test_kryo_registering_restore_resilience_with_default_serializer() {
    restores_unread(&["a"], &["a"]);
}

#[test]
fn test_kryo_registering_restore_resilience_with_registered_serializer() {
    restores_unread(&["a"], &["b", "a"]);
}

/// The same types in another order: they keep their numbers.
#[test]
fn test_kryo_restore_resilience_with_different_registration_order() {
    with_log(|job| {
        let mut backend = job.restore::<i32>(&saved(job, &["a", "b"]));
        let mut state = open(&mut backend, &Registered::new(&["b", "a"]));
        for (key, want) in [(1, typed("a", 1)), (2, typed("b", 2))] {
            go(&mut backend, key);
            assert_eq!(state.value().unwrap(), Some(want));
        }
        state.update(&typed("a", 3)).unwrap();
        let mut scan = backend.snapshot().scan(STATE).unwrap().unwrap();
        while scan.next().unwrap() {
            assert_eq!(scan.value()[0], 0, "the number of \"a\" in both values now");
        }
        let mut backend = job.round_trip(backend);
        // Who asks in the old order has what is stored.
        let mut state = open(&mut backend, &Registered::new(&["a", "b"]));
        go(&mut backend, 2);
        assert_eq!(state.value().unwrap(), Some(typed("a", 3)));
    });
}

#[test]
fn test_pojo_restore_resilience_with_different_registration_order() {
    with_log(|job| {
        let order = ["c", "b", "a"];
        let mut backend = job.restore::<i32>(&saved(job, &["a", "b", "c"]));
        let mut state = open(&mut backend, &Registered::new(&order));
        go(&mut backend, 1);
        state.update(&typed("c", 8)).unwrap();
        let mut backend = job.round_trip(backend);
        let mut state = open(&mut backend, &Registered::new(&order));
        for (key, want) in [(1, typed("c", 8)), (2, typed("c", 2))] {
            go(&mut backend, key);
            assert_eq!(state.value().unwrap(), Some(want));
        }
    });
}
