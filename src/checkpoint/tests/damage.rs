//! What is damaged is neither saved nor restored.

use super::*;
use crate::base::error::ErrorKind;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::latest;
use crate::checkpoint::restore::load;
use crate::checkpoint::save::save;

#[test]
fn everything_wrong_is_told_and_nothing_is_restored() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(3));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 3);
    state.churn(rng, 5000);
    let set = state.capture();
    let linking = store(&fs);
    let saved = save(&linking, &job(1, vec![state.part(&set)]), None).unwrap();
    let path = |i: usize| Path::new("store/shared").join(saved.envelope.objects[i].name.as_str());
    assert!(saved.envelope.objects.len() > 4);
    let image = memory.crash_image(Keep::All, 0);
    image.corrupt(&path(0), 5, 1);
    image.truncate(&path(2), 17);
    let damaged = disk(&image);
    damaged.remove(&path(3)).unwrap();
    let (linking, copying) = (store(&damaged), store(&disk(&image)));
    let threads = || Env::new(MemoryBudget::new(64 << 20)).with_fs(Arc::clone(&damaged));
    let simulated = || env(&damaged, 9);
    let attempts = [(&linking, threads()), (&linking, simulated()), (&copying, simulated())];
    for (store, env) in attempts {
        let target = Path::new("target");
        let refused = restore(store, &saved, 0..=63, target, options(), env).unwrap_err();
        for error in [refused, verify(store, &saved).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Corruption);
            for (i, object) in saved.envelope.objects.iter().enumerate() {
                let told = error.to_string().contains(object.name.as_str());
                assert_eq!(told, matches!(i, 0 | 2 | 3), "{i}: {error}");
            }
        }
        assert_eq!(damaged.list(target).unwrap(), []);
    }
    for i in [0, 2, 3] {
        image.write(&path(i), &memory.read(&path(i)));
    }
    restored(&damaged, &saved, 0..=63, "target", &state.model);
    // There is a database now.
    let target = Path::new("target");
    let again = restore(&copying, &saved, 0..=63, target, options(), env(&damaged, 10));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let outside = restore(&copying, &saved, 0..=64, Path::new("x"), options(), env(&damaged, 11));
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::InvalidArgument);
    // A damaged envelope is a checkpoint that cannot be loaded, not one that is passed over.
    image.corrupt(Path::new("store/checkpoints/chk-1"), 40, 4);
    assert_eq!(latest(&copying).unwrap(), Some(1));
    assert_eq!(load(&copying, 1).unwrap_err().kind(), ErrorKind::Corruption);
    let registry = Registry::open(Arc::new(copying), 1);
    assert_eq!(registry.err().unwrap().kind(), ErrorKind::Corruption);
    assert_eq!(objects(&linking), saved.envelope.objects.len());
}

/// Tables that are linked are only compared with their checksums: that must show every byte.
#[test]
fn every_damaged_byte_of_a_linked_table_is_noticed() {
    let memory = MemFs::new();
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 5);
    state.churn(&mut Rng::new(5), 30);
    let set = state.capture();
    let store = store(&fs);
    let saved = save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
    for object in &saved.envelope.objects {
        let path = Path::new("store/shared").join(object.name.as_str());
        let good = memory.read(&path);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            memory.write(&path, &bad);
            let refused = restore(&store, &saved, 0..=63, Path::new("r"), options(), env(&fs, 6));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corruption, "{object:?} byte {at}");
        }
        memory.write(&path, &good);
    }
    restored(&fs, &saved, 0..=63, "r", &state.model);
}

#[test]
fn whoever_reads_all_compares_digest_and_checksum() {
    let memory = MemFs::new();
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 5);
    state.churn(&mut Rng::new(5), 300);
    let set = state.capture();
    let (linking, copying) = (store(&fs), store(&disk(&memory)));
    let saved = save(&linking, &job(1, vec![state.part(&set)]), None).unwrap();
    let (mut digest, mut checksum) = (saved.clone(), saved.clone());
    digest.envelope.objects[0].digest[31] ^= 1;
    checksum.envelope.objects[0].checksum ^= 1;
    let restore = |store: &DirStore, saved: &Saved, dir: &str| {
        restore(store, saved, 0..=63, Path::new(dir), options(), env(&fs, 6)).map(drop)
    };
    for wrong in [&digest, &checksum] {
        assert_eq!(verify(&linking, wrong).unwrap_err().kind(), ErrorKind::Corruption);
        let copied = restore(&copying, wrong, "copied");
        assert_eq!(copied.unwrap_err().kind(), ErrorKind::Corruption);
    }
    let linked = restore(&linking, &checksum, "linked");
    assert_eq!(linked.unwrap_err().kind(), ErrorKind::Corruption);
    restore(&linking, &digest, "linked").unwrap();
    verify(&copying, &saved).unwrap();
}

#[test]
fn a_table_that_changed_is_not_saved() {
    let (memory, rng) = (MemFs::new(), &mut Rng::new(4));
    let fs = disk(&memory);
    let mut state = State::new(&fs, "a", 0..=63, 4);
    state.churn(rng, 5000);
    let set = state.capture();
    let store = store(&fs);
    let last = set.tables().last().unwrap();
    type Damage = fn(&MemFs, &Path);
    let damages: [Damage; 3] = [
        |memory, path| memory.corrupt(path, 3, 1),
        |memory, path| memory.truncate(path, 100),
        |memory, path| memory.remove(path).unwrap(),
    ];
    for damage in damages {
        let whole = memory.read(&last.path);
        damage(&memory, &last.path);
        let error = save(&store, &job(1, vec![state.part(&set)]), None).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*last.path)));
        assert_eq!(store.list().unwrap(), []);
        memory.write(&last.path, &whole);
    }
    let overlap = vec![state.part(&set), state.part(&set)];
    let error = save(&store, &job(1, overlap), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(store.list().unwrap(), []);
    save(&store, &job(1, vec![state.part(&set)]), None).unwrap();
}
