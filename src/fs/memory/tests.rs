//! What a power cut leaves, by example and against a naive model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;
use crate::base::rng::Rng;
use crate::fs::memory::image::{Keep, SECTOR_BYTES};
use crate::fs::tests::{get, put};

const SEEDS: Range<u64> = 0..64;

fn dir() -> &'static Path {
    Path::new("d")
}

fn path(name: &str) -> PathBuf {
    dir().join(name)
}

fn disk() -> MemFs {
    let fs = MemFs::new();
    fs.create_dir(dir()).unwrap();
    fs
}

fn names(fs: &MemFs) -> Vec<String> {
    fs.list(dir()).unwrap().into_iter().map(|file| file.name).collect()
}

/// Whether some torn image satisfies each of these, and each torn image one of them.
fn torn(fs: &MemFs, outcomes: &[&dyn Fn(&MemFs) -> bool]) {
    let images: Vec<MemFs> = SEEDS.map(|seed| fs.crash_image(Keep::Torn, seed)).collect();
    for (i, outcome) in outcomes.iter().enumerate() {
        assert!(images.iter().any(outcome), "outcome {i} never comes");
    }
    for (seed, image) in images.iter().enumerate() {
        let names = names(image);
        assert!(outcomes.iter().any(|outcome| outcome(image)), "seed {seed}: {names:?}");
    }
}

#[test]
fn a_synced_file_needs_a_synced_name() {
    let fs = disk();
    put(&fs, &path("a"), b"1");
    assert!(names(&fs.crash_image(Keep::Nothing, 0)).is_empty());
    assert_eq!(get(&fs.crash_image(Keep::All, 0), &path("a")), b"1");
    torn(&fs, &[&|image| names(image).is_empty(), &|image| names(image) == ["a"]]);
    fs.sync_dir(dir()).unwrap();
    assert_eq!(get(&fs.crash_image(Keep::Nothing, 0), &path("a")), b"1");
}

#[test]
fn a_synced_name_needs_synced_bytes() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    fs.sync_dir(dir()).unwrap();
    file.append(b"12").unwrap();
    assert_eq!(fs.crash_image(Keep::Nothing, 0).read(&path("a")), b"");
    file.sync().unwrap();
    file.append(b"34").unwrap();
    assert_eq!(fs.crash_image(Keep::Nothing, 0).read(&path("a")), b"12");
    assert_eq!(fs.crash_image(Keep::All, 0).read(&path("a")), b"1234");
    torn(
        &fs,
        &[
            &|image| image.read(&path("a")) == b"12",
            &|image| image.read(&path("a")) == b"123",
            &|image| image.read(&path("a")) == b"1234",
            &|image| image.read(&path("a")) == b"12\0",
            &|image| image.read(&path("a")).starts_with(b"12"), // garbage
        ],
    );
}

#[test]
fn only_the_last_sector_is_garbage() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    fs.sync_dir(dir()).unwrap();
    let bytes: Vec<u8> = (0..3000u32).map(|i| (i / 7) as u8).collect();
    file.append(&bytes).unwrap();
    let mut garbage = 0;
    for seed in SEEDS {
        let kept = fs.crash_image(Keep::Torn, seed).read(&path("a"));
        let whole = kept.len().saturating_sub(1) / SECTOR_BYTES * SECTOR_BYTES;
        assert_eq!(kept[..whole], bytes[..whole]);
        garbage += usize::from(kept != bytes[..kept.len()]);
    }
    assert!((10..54).contains(&garbage), "{garbage} of 64");
}

#[test]
fn a_removed_name_may_come_back() {
    let fs = disk();
    put(&fs, &path("a"), b"1");
    fs.sync_dir(dir()).unwrap();
    fs.remove(&path("a")).unwrap();
    assert_eq!(fs.crash_image(Keep::Nothing, 0).read(&path("a")), b"1");
    torn(&fs, &[&|image| names(image).is_empty(), &|image| names(image) == ["a"]]);
    fs.sync_dir(dir()).unwrap();
    assert!(names(&fs.crash_image(Keep::Nothing, 0)).is_empty());
}

#[test]
fn a_rename_happens_or_does_not() {
    let fs = disk();
    put(&fs, &path("current"), b"old");
    put(&fs, &path("new"), b"new");
    fs.sync_dir(dir()).unwrap();
    fs.rename(&path("new"), &path("current")).unwrap();
    let old = |image: &MemFs| {
        names(image) == ["current", "new"] && image.read(&path("current")) == b"old"
    };
    let new = |image: &MemFs| names(image) == ["current"] && image.read(&path("current")) == b"new";
    assert!(old(&fs.crash_image(Keep::Nothing, 0)));
    assert!(new(&fs.crash_image(Keep::All, 0)));
    torn(&fs, &[&old, &new]);
    fs.sync_dir(dir()).unwrap();
    assert!(new(&fs.crash_image(Keep::Nothing, 0)));
}

#[test]
fn a_rename_across_directories_never_loses_the_file() {
    let (a, b) = (PathBuf::from("x/a"), PathBuf::from("y/b"));
    let has = |fs: &MemFs, path: &Path| fs.open(path).is_ok();
    for synced in ["x", "y"] {
        let fs = MemFs::new();
        fs.create_dir(Path::new("x")).unwrap();
        fs.create_dir(Path::new("y")).unwrap();
        put(&fs, &a, b"1");
        fs.sync_dir(Path::new("x")).unwrap();
        put(&fs, &b, b"old");
        fs.rename(&b, &PathBuf::from("y/c")).unwrap();
        fs.rename(&a, &b).unwrap();
        fs.sync_dir(Path::new(synced)).unwrap();
        for seed in SEEDS {
            let image = fs.crash_image(Keep::Torn, seed);
            assert_eq!(image.read(&b), b"1");
            assert!(synced == "y" || !has(&image, &a));
        }
        let image = fs.crash_image(Keep::Nothing, 0);
        assert_eq!((has(&image, &a), has(&image, &b)), (synced == "y", true));
        assert_eq!(image.read(Path::new("y/c")), b"old");
    }
}

#[test]
fn links_are_one_file_after_the_crash_too() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    file.append(&[7; 1000]).unwrap();
    fs.link(&path("a"), &path("b")).unwrap();
    fs.sync_dir(dir()).unwrap();
    assert_eq!(fs.total_bytes(), 1000);
    for seed in SEEDS {
        let image = fs.crash_image(Keep::Torn, seed);
        assert_eq!(image.read(&path("a")), image.read(&path("b")));
        assert_eq!(image.total_bytes(), image.read(&path("a")).len() as u64);
    }
}

#[test]
fn images_are_disks_of_their_own() {
    let fs = disk();
    let _lock = fs.lock(dir()).unwrap();
    let mut file = fs.create(&path("a")).unwrap();
    file.append(b"12").unwrap();
    fs.crash_after(Some(fs.ops()));
    let image = fs.crash_image(Keep::All, 0);
    assert_eq!(image.ops(), 0);
    drop(image.lock(dir()).unwrap());
    image.corrupt(&path("a"), 0, 0xff);
    put(&image, &path("b"), b"");
    assert_eq!(fs.read(&path("a")), b"12");
    assert_eq!(names(&fs), ["a"]);
    fs.crash_after(None);
    file.append(b"34").unwrap();
    assert_eq!(image.read(&path("a")), b"\xce2");
    let again = image.crash_image(Keep::Nothing, 0);
    assert_eq!(again.read(&path("a")), b"\xce2", "what outlived a crash is durable");
    assert_eq!(names(&again), ["a"]);
}

#[test]
fn a_shorter_image_can_be_written_on() {
    let fs = disk();
    put(&fs, &path("a"), b"12");
    fs.sync_dir(dir()).unwrap();
    let mut file = fs.create(&path("b")).unwrap();
    file.append(b"1").unwrap();
    file.sync().unwrap();
    fs.sync_dir(dir()).unwrap();
    file.append(b"lost").unwrap();
    let image = fs.crash_image(Keep::Nothing, 0);
    image.rename(&path("b"), &path("c")).unwrap();
    image.disk.tree.lock().now[&*path("c")].content.lock().append(0, b"2");
    assert_eq!(image.read(&path("c")), b"12");
    assert_eq!(fs.read(&path("b")), b"1lost");
}

#[test]
fn operations_after_the_crash_fail() {
    let run = |fs: &MemFs| -> Result<()> {
        let mut file = fs.create(&path("a"))?;
        file.append(b"1")?;
        file.sync()?;
        fs.sync_file(&path("a"))?;
        fs.link(&path("a"), &path("b"))?;
        fs.rename(&path("b"), &path("c"))?;
        fs.remove(&path("a"))?;
        fs.sync_dir(dir())
    };
    let fs = disk();
    let before = fs.ops();
    run(&fs).unwrap();
    let all = fs.ops();
    assert_eq!(all - before, 8);
    for n in before..all {
        let fs = disk();
        fs.crash_after(Some(n));
        let e = run(&fs).unwrap_err();
        assert_eq!((e.kind(), fs.ops()), (ErrorKind::Io, n));
        assert!(e.to_string().contains("crashed"));
        run(&fs).unwrap_err();
        assert!(fs.list(dir()).is_ok(), "reads go on");
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_recovers() {
    let fs = disk();
    fs.set_capacity(Some(10));
    put(&fs, &path("a"), b"123456");
    assert_eq!(fs.free_space(dir()).unwrap(), 4);
    let mut file = fs.create(&path("b")).unwrap();
    assert_eq!(file.append(b"12345").unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!((fs.read(&path("b")), fs.free_space(dir()).unwrap()), (b"1234".to_vec(), 0));
    fs.remove(&path("a")).unwrap();
    file.append(b"567890").unwrap();
    assert_eq!(file.append(b"1").unwrap_err().kind(), ErrorKind::NoSpace);
    fs.set_capacity(None);
    file.append(b"1").unwrap();
}

#[test]
fn reserved_space_is_taken_from_a_full_disk_at_once() {
    let fs = disk();
    fs.set_capacity(Some(100));
    let mut file = fs.create(&path("a")).unwrap();
    file.append(b"1234").unwrap();
    assert_eq!(file.reserve(101).unwrap_err().kind(), ErrorKind::NoSpace);
    file.reserve(90).unwrap();
    assert_eq!(fs.free_space(dir()).unwrap(), 10);
    put(&fs, &path("b"), &[7; 10]);
    file.append(&[8; 86]).unwrap();
    assert_eq!(file.append(&[9]).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(fs.read(&path("a")), [&b"1234"[..], &[8; 86]].concat());
}

#[test]
fn a_crash_leaves_zeros_or_any_sectors_of_what_was_reserved() {
    let fs = disk();
    let mut file = fs.create(&path("a")).unwrap();
    fs.sync_dir(dir()).unwrap();
    file.append(&[1; 100]).unwrap();
    file.sync().unwrap();
    file.reserve(8 * SECTOR_BYTES as u64).unwrap();
    let read = |keep, seed| fs.crash_image(keep, seed).read(&path("a"));
    let lengths = |keep| {
        let mut lengths: Vec<usize> = SEEDS.map(|seed| read(keep, seed).len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    };
    assert_eq!(read(Keep::Nothing, 0).len(), 100);
    for keep in [Keep::Torn, Keep::Bytes, Keep::Sectors, Keep::Prefix] {
        assert_eq!(lengths(keep), [100, 8 * SECTOR_BYTES], "{keep:?}");
    }
    file.sync().unwrap();
    file.append(&[2; 2 * SECTOR_BYTES]).unwrap();
    assert_eq!(lengths(Keep::Any), [8 * SECTOR_BYTES], "the length is durable");
    let tail = |bytes: &[u8]| bytes[3 * SECTOR_BYTES..].iter().all(|byte| *byte == 0);
    let images: Vec<Vec<u8>> = SEEDS.map(|seed| read(Keep::Sectors, seed)).collect();
    assert!(images.iter().all(|bytes| bytes[..100] == [1; 100] && tail(bytes)));
    let later_alone = |bytes: &Vec<u8>| bytes[100..512] == [0; 412] && bytes[512..600] == [2; 88];
    assert!(images.iter().any(later_alone), "sectors survive in any order");
    let nothing = [&[1; 100][..], &[0; 8 * SECTOR_BYTES - 100]].concat();
    assert_eq!(read(Keep::Nothing, 0), nothing);
    // Given back, but not yet for certain.
    file.reserve(0).unwrap();
    assert_eq!(fs.read(&path("a")).len(), 100 + 2 * SECTOR_BYTES);
    assert_eq!(read(Keep::Nothing, 0), nothing);
    file.sync().unwrap();
    assert_eq!(read(Keep::Nothing, 0).len(), 100 + 2 * SECTOR_BYTES);
}

#[test]
fn the_helpers_write_durably() {
    let fs = MemFs::new();
    fs.write(&path("a"), b"123");
    fs.write(&path("a"), b"1234");
    put(&fs, &path("b"), b"old");
    fs.write(&path("b"), b"new");
    assert_eq!(fs.ops(), 3);
    let reader = fs.open(&path("a")).unwrap();
    fs.corrupt(&path("a"), 0, 1);
    fs.truncate(&path("a"), 2);
    assert_eq!(&*reader.read_at(0, 2).unwrap(), b"02");
    assert_eq!(reader.read_at(0, 3).unwrap_err().kind(), ErrorKind::Corruption);
    for keep in [Keep::Nothing, Keep::All, Keep::Torn] {
        let image = fs.crash_image(keep, 0);
        assert_eq!((image.read(&path("a")), image.read(&path("b"))), (b"02".into(), b"new".into()));
    }
}

/// Names of the model: two directories, so that renames cross.
const NAMES: [&str; 6] = ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c"];

#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Append(usize, u16),
    Sync(usize),
    Remove(usize),
    Rename(usize, usize),
    Link(usize, usize),
    SyncDir(usize),
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Step {
        let (a, b) = (usize::arbitrary(g) % NAMES.len(), usize::arbitrary(g) % NAMES.len());
        match u8::arbitrary(g) % 10 {
            0..3 => Step::Create(a),
            3..5 => Step::Append(a, u16::arbitrary(g) % 1500),
            5 => Step::Sync(a),
            6 => Step::Remove(a),
            7 => Step::Rename(a, b),
            8 => Step::Link(a, b),
            _ => Step::SyncDir(a),
        }
    }
}

/// The naive model: a table of names, and of each name all that it has been since its directory was
/// last synced.
#[derive(Default)]
struct Model {
    now: [Option<usize>; NAMES.len()],
    been: [Vec<Option<usize>>; NAMES.len()],
    files: Vec<ModelFile>,
}

#[derive(Default)]
struct ModelFile {
    bytes: Vec<u8>,
    synced: usize,
}

impl Model {
    fn new() -> Model {
        Model { been: std::array::from_fn(|_| vec![None]), ..Model::default() }
    }

    /// Does one step on both; steps that cannot be done are left out.
    fn step(&mut self, fs: &MemFs, step: &Step) {
        let path = |i: usize| Path::new(NAMES[i]);
        match *step {
            Step::Create(a) if self.now[a].is_none() => {
                fs.create(path(a)).unwrap();
                self.files.push(ModelFile::default());
                self.now[a] = Some(self.files.len() - 1);
            }
            Step::Append(a, len) => {
                let Some(n) = self.now[a] else { return };
                let mut rng = Rng::new((n << 32 | self.files[n].bytes.len()) as u64);
                let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
                let node = fs.disk.tree.lock().now[path(a)].clone();
                let (disk, path) = (fs.disk.clone(), path(a).into());
                MemWriter { disk, node, path }.append(&bytes).unwrap();
                self.files[n].bytes.extend(bytes);
            }
            Step::Sync(a) => {
                let Some(n) = self.now[a] else { return };
                fs.sync_file(path(a)).unwrap();
                self.files[n].synced = self.files[n].bytes.len();
            }
            Step::Remove(a) if self.now[a].is_some() => {
                fs.remove(path(a)).unwrap();
                self.now[a] = None;
            }
            Step::Rename(a, b) if self.now[a].is_some() => {
                fs.rename(path(a), path(b)).unwrap();
                if self.now[a] != self.now[b] {
                    self.now[b] = self.now[a].take();
                }
            }
            Step::Link(a, b) if self.now[a].is_some() && self.now[b].is_none() => {
                fs.link(path(a), path(b)).unwrap();
                self.now[b] = self.now[a];
            }
            Step::SyncDir(a) => {
                fs.sync_dir(parent(path(a))).unwrap();
                for i in (0..NAMES.len()).filter(|i| parent(path(*i)) == parent(path(a))) {
                    self.been[i].clear();
                }
            }
            _ => return,
        }
        for (been, now) in self.been.iter_mut().zip(self.now) {
            been.push(now);
        }
    }

    fn check(&self, fs: &MemFs, seed: u64) -> bool {
        let found = |image: &MemFs, i: usize| {
            let path = Path::new(NAMES[i]);
            image.open(path).ok().map(|_| image.read(path))
        };
        let all = fs.crash_image(Keep::All, seed);
        let nothing = fs.crash_image(Keep::Nothing, seed);
        let torn = fs.crash_image(Keep::Torn, seed);
        (0..NAMES.len()).all(|i| {
            let whole = self.now[i].map(|n| self.files[n].bytes.clone());
            let may_be = |bytes: &Option<Vec<u8>>, check: &dyn Fn(&ModelFile, &[u8]) -> bool| {
                self.been[i].iter().any(|been| match (been, bytes) {
                    (Some(n), Some(bytes)) => check(&self.files[*n], bytes),
                    (been, bytes) => been.is_none() && bytes.is_none(),
                })
            };
            found(&all, i) == whole
                && may_be(&found(&nothing, i), &|file, bytes| bytes == &file.bytes[..file.synced])
                && may_be(&found(&torn, i), &|file, bytes| {
                    let sector = bytes.len().saturating_sub(1) / SECTOR_BYTES * SECTOR_BYTES;
                    let sure = sector.max(file.synced);
                    (file.synced..=file.bytes.len()).contains(&bytes.len())
                        && bytes[..sure.min(bytes.len())] == file.bytes[..sure.min(bytes.len())]
                })
        })
    }

    /// Within one directory, `Nothing` is exactly what the last sync saw.
    fn oldest(&self, i: usize) -> Option<Vec<u8>> {
        self.been[i][0].map(|n| self.files[n].bytes[..self.files[n].synced].to_vec())
    }
}

fn two_directories() -> MemFs {
    let fs = MemFs::new();
    fs.create_dir(Path::new("x")).unwrap();
    fs.create_dir(Path::new("y")).unwrap();
    fs
}

/// All policies, with the choices that `seed` makes.
fn policies(seed: u64) -> [Keep; 9] {
    use Keep::{All, Any, Bytes, Names, Nothing, Prefix, Sectors, Subset, Torn};
    [Nothing, All, Torn, Prefix, Bytes, Sectors, Names, Any, Subset(seed)]
}

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

quickcheck! {
    fn a_replay_is_the_disk_at_every_moment(before: Vec<Step>, steps: Vec<Step>, seed: u64) -> bool {
        let (fs, mut model) = (two_directories(), Model::new());
        before.iter().for_each(|step| model.step(&fs, step));
        fs.record();
        let prints = |fs: &MemFs| {
            let print = |keep| fs.crash_image(keep, seed).fingerprint();
            (fs.pending(), fs.fingerprint(), policies(seed).map(print))
        };
        let mut seen = vec![(0, prints(&fs))];
        for step in &steps {
            model.step(&fs, step);
            seen.push((fs.recorded_len(), prints(&fs)));
        }
        let recording = fs.recorded();
        let mut replay = recording.replay();
        let same = seen.iter().all(|(point, prints_then)| {
            replay.seek(*point);
            prints(replay.disk()) == *prints_then
        });
        same && !replay.step() && replay.point() == recording.effects().len()
    }

    fn images_hold_what_may_survive(steps: Vec<Step>, seed: u64) -> bool {
        let (fs, mut model) = (two_directories(), Model::new());
        steps.iter().enumerate().all(|(i, step)| {
            model.step(&fs, step);
            model.check(&fs, seed.wrapping_add(i as u64))
        })
    }

    fn nothing_is_exactly_what_was_synced(steps: Vec<Step>) -> bool {
        let (fs, mut model) = (two_directories(), Model::new());
        steps.iter().all(|step| {
            let crosses = |a: &usize, b: &usize| a / 3 != b / 3;
            if !matches!(step, Step::Rename(a, b) if crosses(a, b)) {
                model.step(&fs, step);
            }
            let image = fs.crash_image(Keep::Nothing, 0);
            (0..NAMES.len()).all(|i| {
                let path = Path::new(NAMES[i]);
                image.open(path).ok().map(|_| image.read(path)) == model.oldest(i)
            })
        })
    }

    fn the_same_seed_gives_the_same_image(steps: Vec<Step>, seed: u64) -> bool {
        let image = || {
            let (fs, mut model) = (two_directories(), Model::new());
            steps.iter().for_each(|step| model.step(&fs, step));
            let image = fs.crash_image(Keep::Torn, seed);
            let names = ["x", "y"].map(|dir| image.list(Path::new(dir)).unwrap());
            let bytes: BTreeMap<_, _> = NAMES
                .iter()
                .filter(|name| image.open(Path::new(name)).is_ok())
                .map(|name| (name, image.read(Path::new(name))))
                .collect();
            (names, bytes)
        };
        image() == image()
    }
}
