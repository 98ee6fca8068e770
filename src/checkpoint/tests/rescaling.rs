//! Parts that are divided and joined, each clipped to the key groups it owns.

use super::*;
use crate::base::error::ErrorKind;
use crate::checkpoint::save::save;

#[test]
fn two_become_three_become_one() {
    for seed in 0..6 {
        let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(seed));
        let store = store(&fs);
        let mut states =
            vec![State::new(&fs, "a0", 0..=31, seed), State::new(&fs, "a1", 32..=63, seed + 100)];
        let mut base: Option<Saved> = None;
        let steps: [&[RangeInclusive<u16>]; 4] =
            [&[0..=20, 21..=42, 43..=63], &[0..=63], &[0..=9, 10..=63], &[5..=12, 40..=40]];
        for (round, ranges) in steps.into_iter().enumerate() {
            for state in &mut states {
                state.churn(rng, 1500);
            }
            let sets: Vec<FileSet> = states.iter().map(State::capture).collect();
            let parts = states.iter().zip(&sets).map(|(state, set)| state.part(set)).rev();
            let id = round as u64 + 1;
            let saved = save(&store, &job(id, parts.collect()), base.as_ref()).unwrap();
            let tables: usize = sets.iter().map(|set| set.tables().count()).sum();
            assert!(saved.envelope.objects.len() <= tables);
            assert_eq!(saved.files_new + saved.files_reused, saved.envelope.objects.len());
            verify(&store, &saved).unwrap();
            let mut model = Model::new();
            states.iter().for_each(|state| model.extend(state.model.clone()));
            states = ranges
                .iter()
                .enumerate()
                .map(|(i, range)| {
                    restored(&fs, &saved, range.clone(), &format!("{id}-{i}"), &model)
                })
                .collect();
            // Before anything is written, a checkpoint of the rescaled job needs no table more.
            let sets: Vec<FileSet> = states.iter().map(State::capture).collect();
            let parts = states.iter().zip(&sets).map(|(state, set)| state.part(set));
            let at_once = save(&store, &job(100 + id, parts.collect()), Some(&saved)).unwrap();
            assert_eq!(at_once.files_new, 0, "one object may be several tables");
            base = Some(at_once);
        }
        for mut state in states {
            state.churn(rng, 1000);
            for family in &state.families {
                state.db.compact_range(family, ..).unwrap();
            }
            state.check();
        }
    }
}

/// One part deletes a range that reaches into groups which it does not own, with a sequence number
/// far above those of the part that owns them.
#[test]
fn a_range_delete_ends_at_its_clip() {
    let fs = disk(&MemFs::new());
    let (mut low, mut high) =
        (State::new(&fs, "low", 32..=63, 1), State::new(&fs, "high", 0..=31, 2));
    for group in 0..GROUPS {
        let state = if group < 32 { &mut high } else { &mut low };
        state.db.put(&state.families[0], &key(group, 1), b"kept").unwrap();
        state.model.insert((0, key(group, 1)), b"kept".to_vec());
    }
    for n in 0..1000 {
        high.db.put(&high.families[1], &key(0, 0), &[n as u8]).unwrap();
    }
    high.db.delete_range(&high.families[0], &key(8, 0), &key(60, 0)).unwrap();
    high.model.retain(|(f, k), _| *f != 0 || *k < key(8, 0));
    high.model.insert((1, key(0, 0)), vec![999u32 as u8]);
    let sets = (low.capture(), high.capture());
    assert!(sets.0.seqno() < sets.1.seqno());
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![low.part(&sets.0), high.part(&sets.1)]), None).unwrap();
    let mut model = low.model.clone();
    model.extend(high.model.clone());
    for (i, groups) in [0..=63, 20..=40, 32..=63, 0..=31].into_iter().enumerate() {
        let state = restored(&fs, &saved, groups, &format!("r{i}"), &model);
        for family in &state.families {
            state.db.compact_range(family, ..).unwrap();
        }
        state.check();
        // And once more, through a checkpoint of the clipped database.
        let set = state.capture();
        let id = 10 + i as u64;
        let saved = save(&store, &job(id, vec![state.part(&set)]), Some(&saved)).unwrap();
        restored(&fs, &saved, state.groups.clone(), &format!("s{i}"), &state.model);
    }
}

#[test]
fn only_the_tables_inside_the_clip_are_needed() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(11));
    let mut state = State::new(&fs, "a", 0..=63, 11);
    state.churn(rng, 8000);
    for family in &state.families {
        state.db.compact_range(family, ..).unwrap();
    }
    let set = state.capture();
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    let inside: Vec<_> = set
        .tables()
        .filter(|table| *table.bounds.start < *key(4, 0))
        .map(|table| table.digest)
        .collect();
    for object in &saved.envelope.objects {
        if !inside.contains(&object.digest) {
            store.delete(&ObjectName::Shared(object.name.clone())).unwrap();
        }
    }
    assert!(inside.len() < objects(&store) + 1 && objects(&store) < saved.files_new / 2);
    restored(&fs, &saved, 0..=3, "r", &state.model);
    let all = restore(&store, &saved, 0..=63, Path::new("s"), options(), env(&fs, 1));
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Corruption);
}
