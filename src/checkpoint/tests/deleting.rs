//! What the registry deletes, and when.

use super::*;
use crate::base::error::ErrorKind;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::latest;
use crate::checkpoint::restore::load;
use crate::checkpoint::save::save;

#[test]
fn the_registry_deletes_what_nobody_needs() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(8));
    let mut state = State::new(&fs, "a", 0..=63, 8);
    let shared = Arc::new(store(&fs));
    let registry = Registry::open(Arc::<DirStore>::clone(&shared), 2).unwrap();
    assert_eq!(registry.base(), None);
    let mut saved = Vec::new();
    let mut models = Vec::new();
    for id in 1..=5 {
        state.churn(rng, 800);
        let set = state.capture();
        let one = registry.save(&job(id, vec![state.part(&set)])).unwrap();
        assert_eq!(registry.save(&job(id, vec![])).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(registry.sweep().unwrap_err().kind(), ErrorKind::Busy);
        registry.confirm(&one).unwrap();
        registry.confirm(&one).unwrap();
        registry.sweep().unwrap();
        saved.push(one);
        models.push(state.model.clone());
        let kept = registry.retained();
        assert_eq!(kept, (id.saturating_sub(1).max(1)..=id).collect::<Vec<_>>());
        let mut names: Vec<_> = kept
            .iter()
            .flat_map(|&id| &saved[id as usize - 1].envelope.objects)
            .map(|object| ObjectName::Shared(object.name.clone()))
            .collect();
        names.sort();
        names.dedup();
        let mut expected: Vec<_> = kept.iter().map(|&id| ObjectName::Checkpoint(id)).collect();
        expected.extend(names);
        let listed: Vec<_> = shared.list().unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(listed, expected, "after {id}");
    }
    assert!(saved.iter().any(|saved| saved.files_reused > 0));
    // Notices that come late, twice, or to strangers.
    registry.confirm(&saved[0]).unwrap();
    registry.abort(5).unwrap();
    registry.abort(77).unwrap();
    let stranger = Saved { id: 77, ..saved[4].clone() };
    assert_eq!(registry.confirm(&stranger).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(registry.retained(), [4, 5]);
    // An aborted checkpoint takes with it only what it alone has.
    state.churn(rng, 500);
    let set = state.capture();
    let before = shared.list().unwrap();
    let aborted = registry.save(&job(6, vec![state.part(&set)])).unwrap();
    assert!(aborted.files_new > 0);
    registry.abort(6).unwrap();
    registry.abort(6).unwrap();
    assert_eq!(shared.list().unwrap(), before);
    // After a restart: as before, and strays are gone.
    save(&*shared, &job(7, vec![]), None).unwrap();
    shared.put_new(&stray(), &mut std::iter::empty()).unwrap();
    let reopened = Registry::open(Arc::<DirStore>::clone(&shared), 2).unwrap();
    assert_eq!(reopened.retained(), [5, 7]);
    assert!(!shared.list().unwrap().iter().any(|stored| stored.name == stray()));
    restored(&fs, &saved[4], 0..=63, "r5", &models[4]);
}

fn stray() -> ObjectName {
    ObjectName::parse("shared/stray").unwrap()
}

#[test]
fn a_base_is_safe_while_somebody_builds_on_it() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(9));
    let mut state = State::new(&fs, "a", 0..=63, 9);
    let registry = Registry::open(Arc::new(store(&fs)), 1).unwrap();
    state.churn(rng, 1500);
    let set_1 = state.capture();
    let saved_1 = registry.save(&job(1, vec![state.part(&set_1)])).unwrap();
    registry.confirm(&saved_1).unwrap();
    // 2 and 3 are under way, both on 1; 3 shares nothing with it, and is confirmed first.
    let model_2 = state.model.clone();
    let base_2 = registry.begin(2).unwrap();
    state.churn(rng, 1500);
    for family in &state.families {
        state.db.compact_range(family, ..).unwrap();
    }
    let set_3 = state.capture();
    let saved_3 = registry.save(&job(3, vec![state.part(&set_3)])).unwrap();
    assert_eq!(saved_3.files_reused, 0);
    registry.confirm(&saved_3).unwrap();
    assert_eq!(load(&store(&fs), 1).unwrap_err().kind(), ErrorKind::NotFound);
    let saved_2 = save(&store(&fs), &job(2, vec![state.part(&set_1)]), base_2.as_ref()).unwrap();
    assert_eq!(saved_2.files_new, 0);
    restored(&fs, &saved_2, 0..=63, "r2", &model_2);
    // Confirmed late, it is at once the oldest.
    registry.confirm(&saved_2).unwrap();
    assert_eq!(registry.retained(), [3]);
    assert_eq!(objects(&store(&fs)), saved_3.envelope.objects.len());
    restored(&fs, &saved_3, 0..=63, "r3", &state.model);
}

#[test]
fn a_crash_while_deleting_is_finished_later() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(10));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 10);
    let mut models = Vec::new();
    for id in 1..=3 {
        state.churn(rng, 600);
        let set = state.capture();
        let base = latest(&store(&fs)).unwrap().map(|id| load(&store(&fs), id).unwrap());
        save(&store(&fs), &job(id, vec![state.part(&set)]), base.as_ref()).unwrap();
        models.push(state.model.clone());
    }
    for n in 0.. {
        let image = memory.crash_image(Keep::All, 0);
        let target = Arc::new(store(&disk(&image)));
        image.crash_after(Some(image.ops() + n));
        let done = Registry::open(target, 1).is_ok();
        for (i, keep) in KEEPS.into_iter().enumerate() {
            let after = disk(&image.crash_image(keep, n * 3 + i as u64));
            let target = store(&after);
            // Whatever is listed is whole.
            for stored in target.list().unwrap() {
                if let ObjectName::Checkpoint(id) = stored.name {
                    let saved = load(&target, id).unwrap();
                    restored(&after, &saved, 0..=63, &format!("r{id}"), &models[id as usize - 1]);
                }
            }
            let registry = Registry::open(Arc::new(target), 1).unwrap();
            assert_eq!(registry.retained(), [3]);
            let kept = registry.base().unwrap().envelope.objects.len();
            assert_eq!(objects(&store(&after)), kept);
        }
        if done {
            break;
        }
    }
}
