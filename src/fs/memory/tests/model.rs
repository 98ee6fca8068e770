//! Random steps on a disk and on a naive model of it.

use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;
use crate::base::rng::Rng;
use crate::fs::memory::image::SECTOR_BYTES;

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
