//! What is saved is what is restored, and nothing is put that is there already.

use super::*;
use crate::base::bytes::Bytes;
use crate::base::error::ErrorKind;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::latest;
use crate::checkpoint::restore::load;
use crate::checkpoint::save::save;
use crate::checkpoint::store::SharedName;

#[test]
fn what_is_saved_is_restored() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(1));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 1);
    state.churn(rng, 5000);
    let set = state.capture();
    let store = store(&fs);
    assert_eq!(latest(&store).unwrap(), None);
    let saved = save(&store, &job(4, vec![state.part(&set)]), None).unwrap();
    assert_eq!((saved.files_new, saved.files_reused), (set.tables().count(), 0));
    assert_eq!((saved.bytes_new, saved.bytes_total), (set.bytes(), set.bytes()));
    assert_eq!(latest(&store).unwrap(), Some(4));
    let loaded = load(&store, 4).unwrap();
    assert_eq!((&loaded.envelope, loaded.identity), (&saved.envelope, saved.identity));
    assert_eq!(loaded.envelope.user, b"offset 3");
    assert_eq!((loaded.files_new, loaded.files_reused), (0, saved.files_new));
    verify(&store, &loaded).unwrap();
    // The files of both are linked, or, from another disk's view, copied.
    restored(&fs, &loaded, 0..=63, "linked", &state.model);
    let other = disk(&memory);
    let copied = DirStore::open(Arc::clone(&other), "store").unwrap();
    let db = restore(&copied, &loaded, 0..=63, Path::new("copied"), options(), env(&fs, 77));
    let mut copied = State::with(db.unwrap(), 0..=63, state.model.clone());
    copied.check();
    copied.churn(rng, 2000);
    copied.db.compact_range(&copied.families[0], ..).unwrap();
    copied.check();
    assert_eq!(load(&store, 5).unwrap_err().kind(), ErrorKind::NotFound);
    let taken = save(&store, &job(4, vec![]), None).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::InvalidArgument);
    verify(&store, &saved).unwrap();
}

#[test]
fn only_what_the_base_lacks_is_put() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(2));
    let mut state = State::new(&fs, "a", 0..=63, 2);
    let store = store(&fs);
    state.churn(rng, 5000);
    let set = state.capture();
    let first = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    // Nothing changed: nothing is put.
    let same = save(&store, &job(2, vec![state.part(&set)]), Some(&first)).unwrap();
    assert_eq!((same.files_new, same.bytes_new), (0, 0));
    assert_eq!((same.files_reused, same.bytes_total), (first.files_new, set.bytes()));
    // One table more.
    state.db.put(&state.families[0], &key(3, 3), b"x").unwrap();
    state.model.insert((0, key(3, 3)), b"x".to_vec());
    let set = state.capture();
    let third = save(&store, &job(3, vec![state.part(&set)]), Some(&same)).unwrap();
    assert_eq!((third.files_new, third.files_reused), (1, first.files_new));
    let new: u64 = third.bytes_total - first.bytes_total;
    assert_eq!((third.bytes_new, third.bytes_total), (new, set.bytes()));
    assert_eq!(objects(&store), first.files_new + 1);
    // Without a base everything is put again, beside what is there and under other names.
    let full = save(&store, &job(4, vec![state.part(&set)]), None).unwrap();
    assert_eq!((full.files_new, full.files_reused), (set.tables().count(), 0));
    let names = |saved: &Saved| -> Vec<_> {
        saved.envelope.objects.iter().map(|object| object.name.clone()).collect()
    };
    assert!(names(&full).iter().all(|name| !names(&third).contains(name)));
    // A database that was restored shares the tables it was made of.
    let state = restored(&fs, &third, 0..=63, "b", &state.model);
    let set = state.capture();
    let again = save(&store, &job(5, vec![state.part(&set)]), Some(&third)).unwrap();
    assert_eq!((again.files_new, again.files_reused), (0, third.envelope.objects.len()));
    restored(&fs, &again, 0..=63, "c", &state.model);
}

#[test]
fn a_table_for_which_all_names_are_taken_is_refused() {
    let fs = disk(&MemFs::new());
    let state = State::new(&fs, "a", 0..=63, 3);
    state.db.put(&state.families[0], &key(1, 1), b"x").unwrap();
    let (set, store) = (state.capture(), store(&fs));
    let first = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    let taken = &first.envelope.objects[0].name;
    for n in 2..=1000 {
        let name = ObjectName::Shared(SharedName::new(&format!("{taken}.{n}")).unwrap());
        store.put_new(&name, &mut std::iter::once(Ok(Bytes::from(vec![1])))).unwrap();
    }
    let refused = save(&store, &job(2, vec![state.part(&set)]), None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert_eq!((objects(&store), latest(&store).unwrap()), (1000, Some(1)));
    verify(&store, &first).unwrap();
}

#[test]
fn checkpoints_overlap_with_writes_and_each_other() {
    for seed in 0..8 {
        let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(seed));
        let mut state = State::new(&fs, "a", 0..=63, seed);
        let registry = Registry::open(Arc::new(store(&fs)), 2).unwrap();
        state.churn(rng, 1500);
        let first = (state.db.checkpoint().unwrap(), state.model.clone());
        state.churn(rng, 700);
        let second = (state.db.checkpoint().unwrap(), state.model.clone());
        state.churn(rng, 700);
        // The second may well be complete before the first is asked for.
        let set_2 = second.0.wait().unwrap();
        let saved_2 = registry.save(&job(2, vec![state.part(&set_2)])).unwrap();
        state.churn(rng, 700);
        let set_1 = first.0.wait().unwrap();
        assert!(set_1.seqno() < set_2.seqno());
        // Neither is confirmed: the third shares nothing with either.
        let third = (state.capture(), state.model.clone());
        let saved_3 = registry.save(&job(3, vec![state.part(&third.0)])).unwrap();
        assert_eq!(saved_3.files_reused, 0);
        registry.confirm(&saved_2).unwrap();
        registry.confirm(&saved_3).unwrap();
        let base = registry.base();
        let saved_1 = save(&store(&fs), &job(9, vec![state.part(&set_1)]), base.as_ref()).unwrap();
        restored(&fs, &saved_1, 0..=63, "r1", &first.1);
        restored(&fs, &saved_2, 0..=63, "r2", &second.1);
        restored(&fs, &saved_3, 0..=63, "r3", &third.1);
        state.check();
    }
}
