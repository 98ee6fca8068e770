//! States of one value: plain, reduced, aggregated.

use super::*;

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
