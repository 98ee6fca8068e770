//! Trees of descriptions, against the conditions one by one.

use super::*;
use crate::base::key::KeyRange;
use crate::base::rng::Rng;
use crate::version::edit::FamilyEdit;
use crate::version::meta::tests::meta;
use quickcheck::quickcheck;

const NAME: &str = "time";

/// A tree of up to twenty files over 60 keys; newer ones above.
fn tree(rng: &mut Rng) -> Levels<FileMeta> {
    let mut edit = FamilyEdit::default();
    let mut counter = 0;
    for level in [6u8, 5, 4, 0, 0, 0] {
        let mut start = 0;
        while start < 60 {
            let end = start + 1 + rng.below(30);
            counter += 1;
            if rng.below(3) > 0 {
                let number = FileNumber::new(1, counter);
                let seqno = u64::from(counter) * 10;
                let range = ([start as u8], [end.min(60) as u8]);
                let mut file = meta(number, (&range.0, &range.1), (seqno, seqno + 9));
                let (a, b) = (rng.below(100) as i64, rng.below(100) as i64);
                file.timestamps = (rng.below(8) > 0).then_some((a.min(b), a.max(b)));
                file.deletes = u64::from(rng.below(6) == 0);
                let name = if rng.below(8) > 0 { NAME } else { "another" };
                file.timestamp_extractor = Some(name.to_owned());
                edit.added.push((level, Arc::new(file)));
            }
            start = end + rng.below(10);
        }
    }
    levels::edited(&levels::empty(), &edit, Arc::clone).expect("a tree").0
}

fn expired(rng: &mut Rng) -> Expired {
    let newest_snapshot = (rng.below(2) == 0).then(|| rng.below(150));
    Expired { until: rng.below(110) as i64, extractor: NAME.to_owned(), newest_snapshot }
}

/// What lies in levels below, or in level 0 behind it.
fn older<'a>(
    levels: &'a Levels<FileMeta>,
    level: usize,
    place: usize,
) -> impl Iterator<Item = &'a Arc<FileMeta>> {
    let bounds: &'a KeyRange = &levels[level][place].bounds;
    let beside = levels[level][place + 1..].iter().filter(move |_| level == 0);
    let deeper = levels[level + 1..].iter().flat_map(|files| files.iter());
    beside.chain(deeper).filter(move |file| file.bounds.overlaps(bounds))
}

quickcheck! {
    fn exactly_what_nobody_would_miss_is_dropped(seed: u64) -> bool {
        let mut rng = Rng::new(seed);
        let (levels, expired) = (tree(&mut rng), expired(&mut rng));
        let plan = pick_dropped(&levels, &Busy::new(), &expired);
        let gone: Vec<FileNumber> = plan
            .iter()
            .flat_map(|plan| plan.files().map(|(_, file)| file.number))
            .collect();
        if let Some(plan) = &plan {
            let edit = plan.dropped().expect("it has no outputs");
            levels::edited(&levels, &edit, Arc::clone).expect("the tree stays in order");
        }
        levels.iter().enumerate().all(|(level, files)| files.iter().enumerate().all(|(i, file)| {
            let ours = file.timestamp_extractor.as_deref() == Some(NAME);
            let all_expired = ours && file.timestamps.is_some_and(|(_, max)| max <= expired.until);
            let plain = file.deletes == 0 && file.range_deletes == 0;
            let unseen = expired.newest_snapshot.is_none_or(|s| s < file.seqno_min);
            let uncovers = older(&levels, level, i).any(|f| !gone.contains(&f.number));
            gone.contains(&file.number) == (all_expired && plain && unseen && !uncovers)
        }))
    }

    fn a_rewrite_is_worth_it_and_comes_to_an_end(seed: u64) -> bool {
        let mut rng = Rng::new(seed);
        let (mut levels, expired) = (tree(&mut rng), expired(&mut rng));
        let options = PickerOptions::default();
        for round in 0..200 {
            let plan = pick_rewritten(&levels, &options, &Busy::new(), &expired, &Rewritten::new());
            let Some(plan) = plan else { return true };
            assert!(plan.files().any(|(_, file)| expired.is_worth(file, &Rewritten::new(), 10)));
            // What a filter leaves of it.
            let mut edit = plan.removal();
            for (i, (_, file)) in plan.files().enumerate() {
                let mut file = (**file).clone();
                file.number = FileNumber::new(2 + round, 1 + i as u32);
                file.timestamps = file.timestamps.and_then(|(min, max)| {
                    (max > expired.until).then_some((min.max(expired.until + 1), max))
                });
                file.bounds = file.bounds.intersect(&plan.range);
                edit.added.push((plan.output_level as u8, Arc::new(file)));
            }
            // Outputs of one level are made disjoint.
            let mut next: Vec<u8> = Vec::new();
            edit.added.sort_by(|a, b| a.1.bounds.start.cmp(&b.1.bounds.start));
            edit.added.retain_mut(|(_, file)| {
                let file = Arc::make_mut(file);
                file.bounds.start = file.bounds.start.clone().max(next.clone());
                next = file.bounds.end.clone().unwrap_or_default().max(next.clone());
                !file.bounds.is_empty()
            });
            levels = levels::edited(&levels, &edit, Arc::clone).expect("a tree").0;
        }
        false
    }
}

#[test]
fn who_is_at_work_is_left_alone() {
    let file = |counter, timestamps| {
        let mut file = meta(FileNumber::new(1, counter), (b"a", b"m"), (1, 2));
        file.timestamps = Some(timestamps);
        file.timestamp_extractor = Some(NAME.to_owned());
        Arc::new(file)
    };
    let added = vec![(6, file(1, (0, 9)))];
    let edit = FamilyEdit { added, ..FamilyEdit::default() };
    let levels = levels::edited(&levels::empty(), &edit, Arc::clone).expect("a tree").0;
    let expired = Expired { until: 9, extractor: NAME.to_owned(), newest_snapshot: None };
    let mut busy = Busy::new();
    let plan = pick_dropped(&levels, &busy, &expired).expect("all of it has expired");
    let claim = busy.claim(&plan);
    assert!(pick_dropped(&levels, &busy, &expired).is_none());
    let options = PickerOptions::default();
    assert!(pick_rewritten(&levels, &options, &busy, &expired, &Rewritten::new()).is_none());
    busy.release(claim);
    let seen = Expired { newest_snapshot: Some(1), ..expired.clone() };
    assert!(pick_dropped(&levels, &busy, &seen).is_none());
    let early = Expired { until: 8, ..expired };
    assert!(pick_dropped(&levels, &busy, &early).is_none());
    let mut done = Rewritten::new();
    let plan = pick_rewritten(&levels, &options, &busy, &early, &done);
    assert!(plan.is_some(), "nine tenths have expired");
    done.insert(FileNumber::new(1, 1), 8);
    let again = pick_rewritten(&levels, &options, &busy, &early, &done);
    assert!(again.is_none(), "what stayed in a rewrite is no reason for another");
}
