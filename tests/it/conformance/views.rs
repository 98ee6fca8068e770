//! What alluvium has beyond Flink: snapshots of state, batches of several states, rollback.

use alluvium::{ErrorKind, StateBackend};

use crate::conformance::job::{Job, Log, all, entries, go, kind, sorted, with_log};

#[test]
fn a_snapshot_shows_all_states_as_they_were() {
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let mut value = backend.value_state_with_namespace::<u8, u32>("value").unwrap();
        let mut list = backend.list_state::<u32>("list").unwrap();
        let mut map = backend.map_state::<u32, u32>("map").unwrap();
        let mut sum = backend.reducing_state::<u32>("sum", |a, b| a + b).unwrap();
        let mut round = |backend: &mut StateBackend<String>, n: u32| {
            for key in ["a", "b", "ab"] {
                go(backend, key);
                value.set_current_namespace(&(n as u8));
                value.update(&n).unwrap();
                list.add(&n).unwrap();
                map.put(&n, &n).unwrap();
                sum.add(&n).unwrap();
            }
            (
                value.at(&backend.snapshot()).unwrap(),
                list.at(&backend.snapshot()).unwrap(),
                map.at(&backend.snapshot()).unwrap(),
                sum.at(&backend.snapshot()).unwrap(),
            )
        };
        let mut views = Vec::new();
        for n in 1..=4 {
            round(&mut backend, n);
            let mut view = backend.snapshot();
            view.set_current_key(&"ab".into()).unwrap();
            views.push((n, view));
            if n == 2 {
                backend.db().flush_all().unwrap();
            }
        }
        let late = backend.value_state::<u8>("late").unwrap();
        for (n, view) in &views {
            let numbers: Vec<u32> = (1..=*n).collect();
            let mut then = list.at(view).unwrap();
            assert_eq!(then.get().unwrap(), numbers);
            assert_eq!(kind(then.add(&1)), ErrorKind::InvalidArgument);
            assert_eq!(kind(then.clear()), ErrorKind::InvalidArgument);
            let mut then = map.at(view).unwrap();
            assert_eq!(all(then.keys().unwrap()), numbers);
            assert_eq!(then.get(n).unwrap(), Some(*n));
            assert_eq!(kind(then.clear()), ErrorKind::InvalidArgument);
            let mut then = value.at(view).unwrap();
            then.set_current_namespace(&(*n as u8));
            assert_eq!(then.value().unwrap(), Some(*n));
            then.set_current_namespace(&(*n as u8 + 1));
            assert_eq!(then.value().unwrap(), None);
            assert_eq!(kind(then.update_with(|_| None)), ErrorKind::InvalidArgument);
            assert_eq!(sum.at(view).unwrap().get().unwrap(), Some(numbers.iter().sum()));
            assert_eq!(late.at(view).unwrap().value().unwrap(), None);
            assert_eq!(sorted(view.get_keys("list", &()).unwrap()), ["a", "ab", "b"]);
            let pairs = view.get_keys_and_namespaces::<u8>("value").unwrap();
            assert_eq!(pairs.count(), numbers.len() * 3);
            assert_eq!(view.states().count(), 4, "as of then");
        }
        let clone = views[0].1.clone();
        assert_eq!(kind(list.at(&clone).unwrap().get()), ErrorKind::InvalidArgument, "no key yet");
        let other = Job::new(Log::Off).backend::<String>();
        assert!(list.at(&other.snapshot()).is_err());
        backend.close().unwrap();
        let mut closed = list.at(&views[0].1).map(|mut list| list.get().map(drop));
        assert!(!matches!(closed.as_mut(), Ok(Ok(()))), "the backend is closed");
    });
}

#[test]
fn a_batch_takes_effect_at_once() {
    with_log(|job| {
        let mut backend = job.backend::<String>();
        let mut value = backend.value_state::<u32>("value").unwrap();
        let mut list = backend.list_state::<u32>("list").unwrap();
        let mut map = backend.map_state::<u32, u32>("map").unwrap();
        let mut sum = backend.reducing_state::<u32>("sum", |a, b| a + b).unwrap();
        go(&mut backend, "a");
        map.put(&1, &1).unwrap();
        sum.add(&5).unwrap();
        let mut batch = backend.batch();
        batch.update(&mut value, &7).unwrap();
        batch.add(&mut list, &1).unwrap();
        batch.add(&mut list, &2).unwrap();
        batch.put(&mut map, &2, &2).unwrap();
        batch.clear(&mut map).unwrap();
        batch.put(&mut map, &3, &3).unwrap();
        batch.clear(&mut sum).unwrap();
        go(&mut backend, "b");
        batch.update(&mut value, &8).unwrap();
        batch.put(&mut map, &4, &4).unwrap();
        batch.remove(&mut map, &4).unwrap();
        assert_eq!(batch.len(), 10);
        assert_eq!(value.value().unwrap(), None, "not yet");
        let before = backend.db().snapshot().seqno();
        batch.commit().unwrap();
        assert_eq!(backend.db().snapshot().seqno(), before + 10);
        assert!(batch.is_empty());
        assert_eq!((value.value().unwrap(), map.is_empty().unwrap()), (Some(8), true));
        go(&mut backend, "a");
        assert_eq!((value.value().unwrap(), list.get().unwrap()), (Some(7), vec![1, 2]));
        assert_eq!(all(map.iter().unwrap()), [(3, 3)], "in the order of the batch");
        assert_eq!(sum.get().unwrap(), None);
        batch.clear(&mut value).unwrap();
        batch.clear(&mut list).unwrap();
        batch.commit().unwrap();
        assert!(value.value().unwrap().is_none() && list.get().unwrap().is_empty());
        let mut then = value.at(&backend.snapshot()).unwrap();
        assert_eq!(kind(batch.update(&mut then, &1)), ErrorKind::InvalidArgument);
        let mut other = job.backend::<String>();
        go(&mut other, "a");
        let mut foreign = other.value_state::<u32>("value").unwrap();
        assert_eq!(kind(batch.update(&mut foreign, &1)), ErrorKind::InvalidArgument);
        batch.update(&mut value, &1).unwrap();
        backend.close().unwrap();
        assert_eq!(kind(batch.commit()), ErrorKind::InvalidArgument);
    });
}

#[test]
fn rollback_returns_all_states_under_the_same_handles() {
    with_log(|job| {
        let dir = job.dir();
        let options = job.options(10, (0, 9));
        let open = || StateBackend::<String>::open(&dir, options.clone(), job.env.clone()).unwrap();
        let mut backend = open();
        let mut value = backend.value_state::<u32>("value").unwrap();
        let mut list = backend.list_state::<u32>("list").unwrap();
        go(&mut backend, "a");
        value.update(&1).unwrap();
        list.add_all(&[1, 2]).unwrap();
        let set = backend.checkpoint().unwrap().wait().unwrap();
        let saved = job.snapshot(&[&backend]);
        let view = backend.snapshot();
        let mut late = backend.map_state::<u32, u32>("late").unwrap();
        for round in 0..3 {
            value.update(&2).unwrap();
            list.add(&3).unwrap();
            late.put(&1, &1).unwrap();
            if round == 1 {
                backend.db().flush_all().unwrap();
            }
        }
        let mut backend = backend.rollback(&set).unwrap();
        let view_after = backend.snapshot();
        view_after.clone().set_current_key(&"a".into()).unwrap();
        assert!(value.at(&view_after).is_ok(), "although the handle was not used since");
        drop(view_after);
        assert_eq!(value.value().unwrap(), Some(1), "the current key stays");
        assert_eq!(list.get().unwrap(), [1, 2]);
        assert!(late.is_empty().unwrap(), "a state that was not there is empty");
        assert!(value.at(&view).is_err(), "snapshots of before are gone");
        let names: Vec<_> = backend.states().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["late", "list", "value"]);
        value.update(&5).unwrap();
        late.put(&2, &2).unwrap();
        go(&mut backend, "b");
        assert_eq!(value.value().unwrap(), None);
        list.add(&9).unwrap();
        assert_eq!(entries(&backend), 4);
        // To a checkpoint in a store; twice, as often as one likes.
        for _ in 0..2 {
            backend = backend
                .rollback_with(|dir, options, env| {
                    alluvium::restore_checkpoint(&job.store, &saved, 0..=9, dir, options, env)
                })
                .unwrap();
            assert!(list.get().unwrap().is_empty(), "of the current key");
            go(&mut backend, "a");
            assert_eq!((value.value().unwrap(), list.get().unwrap()), (Some(1), vec![1, 2]));
            list.add(&7).unwrap();
            assert_eq!(entries(&backend), 2);
            go(&mut backend, "b");
        }
        backend.close().unwrap();
        drop((value, list, late));
        let mut backend = open();
        go(&mut backend, "a");
        let mut list = backend.list_state::<u32>("list").unwrap();
        assert_eq!(list.get().unwrap(), [1, 2, 7], "it was in place");
        let names = job.env.fs().list(&dir).unwrap();
        assert!(names.iter().all(|file| !file.name.starts_with("restore-")), "{names:?}");
        let foreign = Job::new(Log::Off);
        let other = foreign.backend::<String>();
        let set = other.checkpoint().unwrap().wait().unwrap();
        assert_eq!(kind(backend.rollback(&set)), ErrorKind::InvalidArgument);
        assert_eq!(kind(list.get()), ErrorKind::InvalidArgument, "closed");
    });
}
