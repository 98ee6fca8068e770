//! Crashes at every operation of saving and restoring.

use super::*;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::load;
use crate::checkpoint::save::save;

#[test]
fn a_crash_while_saving_leaves_all_or_nothing() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(5));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 5);
    state.churn(rng, 1500);
    let (set_1, model_1) = (state.capture(), state.model.clone());
    let first = save(&store(&fs), &job(1, vec![state.part(&set_1)]), None).unwrap();
    state.churn(rng, 300);
    let set = state.capture();
    drop(store(&fs));
    let mut seen = [0; 2];
    for n in 0.. {
        // Every attempt on a disk of its own: the tables of the set are read from the first one.
        let image = memory.crash_image(Keep::All, 0);
        let store_of = |memory: &MemFs| store(&disk(memory));
        let target = store_of(&image);
        image.crash_after(Some(image.ops() + n));
        let saved = save(&target, &job(2, vec![state.part(&set)]), Some(&first));
        let acknowledged = saved.is_ok();
        for (i, keep) in KEEPS.into_iter().enumerate() {
            let after = image.crash_image(keep, n * 3 + i as u64);
            let fs = disk(&after);
            let target = store_of(&after);
            target.remove_leftovers().unwrap();
            let there = load(&target, 2);
            match &there {
                Ok(there) => {
                    let denied = |e: &Error| e.kind() != ErrorKind::CommitUnknown;
                    assert!(!saved.as_ref().err().is_some_and(denied));
                    verify(&target, there).unwrap();
                    restored(&fs, there, 0..=63, "r2", &state.model);
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::NotFound);
                    assert!(!acknowledged);
                }
            }
            seen[usize::from(there.is_ok())] += 1;
            // The first is as good as ever; the registry finds the newest, and clears the rest away.
            restored(&fs, &first, 0..=63, "r1", &model_1);
            let registry = Registry::open(Arc::new(target), 1).unwrap();
            let kept = registry.base().unwrap();
            assert_eq!(kept.id, if there.is_ok() { 2 } else { 1 });
            let target = store_of(&after);
            assert_eq!(objects(&target), kept.envelope.objects.len());
            verify(&target, &kept).unwrap();
        }
        if acknowledged {
            break;
        }
    }
    assert!(seen[0] > 10 && seen[1] > 3, "{seen:?}");
}

#[test]
fn a_crash_while_restoring_leaves_all_or_nothing() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(6));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 6);
    state.churn(rng, 1200);
    let set = state.capture();
    let saved = save(&store(&fs), &job(1, vec![state.part(&set)]), None).unwrap();
    let groups = 3..=50;
    let model = clip(&state.model, &groups);
    let dir = Path::new("target");
    for copy in [false, true] {
        let mut seen = [0; 2];
        for n in 0.. {
            let image = memory.crash_image(Keep::All, 0);
            let fs = disk(&image);
            let source = if copy { store(&disk(&image)) } else { store(&fs) };
            let limit = image.ops() + n;
            image.crash_after(Some(limit));
            let target = restore(&source, &saved, groups.clone(), dir, options(), env(&fs, 1));
            let finished = image.ops() < limit && target.is_ok();
            drop(target);
            for (i, keep) in KEEPS.into_iter().enumerate() {
                let fs = disk(&image.crash_image(keep, n * 3 + i as u64));
                let source = store(&fs);
                verify(&source, &saved).unwrap();
                let names = fs.list(dir).unwrap_or_default();
                let made = names.iter().any(|listed| listed.name == "CURRENT");
                seen[usize::from(made)] += 1;
                if !made {
                    restored(&fs, &saved, groups.clone(), "target", &model);
                    continue;
                }
                // It is not closed, and the log is off; but its files are whole.
                let error = Db::open(dir, options(), env(&fs, 2)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Halted, "{error}");
                let again = restore(&source, &saved, groups.clone(), dir, options(), env(&fs, 3));
                assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidArgument);
                restored(&fs, &saved, groups.clone(), "elsewhere", &model);
            }
            if finished {
                break;
            }
        }
        assert!(seen[0] > 10 && seen[1] > 3, "{seen:?}");
    }
}

/// All that comes before `CURRENT` is done beside the comparison: a crash at any of it leaves nothing that
/// is taken for a database.
#[test]
fn a_crash_while_a_damaged_checkpoint_is_restored_leaves_no_database() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(6));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 6);
    state.churn(rng, 300);
    let set = state.capture();
    let saved = save(&store(&fs), &job(1, vec![state.part(&set)]), None).unwrap();
    let damaged = Path::new("store/shared").join(saved.envelope.objects[0].name.as_str());
    let (dir, mut named) = (Path::new("target"), 0);
    for n in 0.. {
        let image = memory.crash_image(Keep::All, 0);
        let good = image.read(&damaged);
        let bad: Vec<u8> = good.iter().enumerate().map(|(i, b)| b ^ u8::from(i == 7)).collect();
        image.write(&damaged, &bad);
        let fs = disk(&image);
        let source = store(&fs);
        let limit = image.ops() + n;
        image.crash_after(Some(limit));
        let refused = restore(&source, &saved, 0..=63, dir, options(), env(&fs, 1));
        let finished = image.ops() < limit;
        assert!(refused.is_err_and(|e| e.kind() == ErrorKind::Corruption || !finished));
        for (i, keep) in KEEPS.into_iter().enumerate() {
            let after = image.crash_image(keep, n * 3 + i as u64);
            let fs = disk(&after);
            let names = fs.list(dir).unwrap_or_default();
            assert!(names.iter().all(|listed| listed.name != "CURRENT"), "{names:?}");
            named += usize::from(names.iter().any(|listed| listed.name.ends_with(".sst")));
            assert!(!finished || keep != Keep::All || names.is_empty(), "{names:?}");
            after.write(&damaged, &good);
            restored(&fs, &saved, 0..=63, "target", &state.model);
        }
        if finished {
            break;
        }
    }
    assert!(named > 3, "no crash was between the links and the end");
}

#[test]
fn with_the_log_on_a_restored_database_survives_a_crash() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(7));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 7);
    state.churn(rng, 2000);
    let set = state.capture();
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    let (dir, logged) = (Path::new("target"), Options { log: true, ..Options::default() });
    let db = restore(&store, &saved, 0..=63, dir, logged.clone(), env(&fs, 8)).unwrap();
    for keep in KEEPS {
        let fs = disk(&memory.crash_image(keep, 1));
        let db = Db::open(dir, logged.clone(), env(&fs, 9)).unwrap();
        State::with(db, 0..=63, state.model.clone()).check();
    }
    drop(db);
}
