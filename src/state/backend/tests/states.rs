//! The states of a backend by name: made, opened again, refused, dropped, and joined from parts.

use super::*;
use crate::ColumnFamilyOptions;
use crate::ImportFamily;
use crate::ImportSource;
use crate::ListState;
use crate::MapState;
use crate::ValueState;

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
