//! Which of the effects that may be lost each policy keeps, and what a failed sync does to them.

use std::collections::BTreeMap;

use super::*;
use crate::fs::memory::image::SECTOR_BYTES;
use crate::fs::tests::put;

#[test]
fn a_subset_of_effects_is_chosen_by_bits() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap(); // effect 0
    file.append(b"12").unwrap(); // 1
    file.append(b"34").unwrap(); // 2
    fs.link(&path("a"), &path("b")).unwrap(); // 3
    assert_eq!(fs.pending(), 4);
    let image = |mask| fs.crash_image(Keep::Subset(mask), 0);
    assert!(names(&image(0b0110)).is_empty());
    assert_eq!(image(0b0001).read(&path("a")), b"");
    assert_eq!(image(0b0011).read(&path("a")), b"12");
    assert_eq!(image(0b0101).read(&path("a")), b"\0\x0034", "a hole");
    assert_eq!(names(&image(0b1110)), ["b"]);
    assert_eq!(image(0b1110).read(&path("b")), b"1234");
    file.sync().unwrap();
    fs.sync_dir(dir()).unwrap();
    assert_eq!((fs.pending(), image(0).pending()), (0, 0));
    assert_eq!(names(&image(0)), ["a", "b"]);
}

#[test]
fn policies_leave_what_they_say() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    file.append(&[7; 1200]).unwrap();
    let images = |keep| SEEDS.map(move |seed| (seed, keep));
    let (mut lengths, mut sectors) = (BTreeMap::new(), 0);
    for (seed, keep) in images(Keep::Bytes) {
        let kept = fs.crash_image(keep, seed).read(&path("a"));
        assert!(kept.iter().all(|byte| *byte == 7));
        lengths.insert(kept.len(), ());
    }
    assert!(lengths.len() > 40, "many prefixes");
    for (seed, keep) in images(Keep::Sectors) {
        let kept = fs.crash_image(keep, seed).read(&path("a"));
        let first = &kept[..kept.len().min(SECTOR_BYTES)];
        let first_lost = first.iter().any(|byte| *byte != 7);
        sectors += usize::from(first_lost && kept.ends_with(&[7]));
    }
    assert!(sectors > 3, "later sectors survive earlier ones");
    for (seed, keep) in images(Keep::Prefix) {
        let image = fs.crash_image(keep, seed);
        let whole = names(&image).is_empty() || [0, 1200].contains(&image.read(&path("a")).len());
        assert!(whole);
    }
    // A rename in two halves: the target is the old file or the new one, the source may be gone.
    put(&fs, &path("new"), b"new");
    put(&fs, &path("current"), b"old");
    fs.sync_dir(dir()).unwrap();
    fs.rename(&path("new"), &path("current")).unwrap();
    let mut found = BTreeMap::new();
    for (seed, keep) in images(Keep::Names) {
        let image = fs.crash_image(keep, seed);
        found.insert((image.read(&path("current")), names(&image).len()), ());
    }
    let [old, new] = [b"old".to_vec(), b"new".to_vec()];
    let all = [(new.clone(), 2), (new, 3), (old.clone(), 2), (old, 3)];
    assert_eq!(found.into_keys().collect::<Vec<_>>(), all);
}

#[test]
fn a_sync_fails_in_three_ways() {
    let left = |left, by_path: bool| {
        let fs = disk();
        let mut file = fs.create(&path("a")).unwrap();
        fs.sync_dir(dir()).unwrap();
        file.append(&[1; 700]).unwrap();
        file.sync().unwrap();
        file.append(&[2; 20_000]).unwrap();
        match by_path {
            true => fs.fail_sync(&path("a"), left),
            false => file.fail_sync(left),
        }
        let at_once = fs.crash_image(Keep::Nothing, 0).read(&path("a"));
        file.append(&[3; 100]).unwrap();
        file.sync().unwrap();
        assert_eq!(fs.read(&path("a")).len(), 20_800, "the cache has all of it");
        (at_once, fs.crash_image(Keep::Nothing, 0).read(&path("a")))
    };
    for by_path in [false, true] {
        let (at_once, later) = left(FailedSync::Dropped, by_path);
        assert_eq!(at_once, [1; 700]);
        assert_eq!((later.len(), &later[700..20_700]), (20_800, &[0; 20_000][..]));
        let (at_once, _) = left(FailedSync::Written, by_path);
        assert_eq!((at_once.len(), &at_once[700..]), (20_700, &[2; 20_000][..]));
        let (at_once, later) = left(FailedSync::Half(7), by_path);
        let kept = at_once[700..].iter().filter(|byte| **byte == 2).count();
        assert!((5_000..15_000).contains(&kept), "{kept}");
        assert_eq!(at_once[..], later[..20_700]);
        assert_eq!(at_once[..700], [1; 700]);
    }
}
