//! What a power cut leaves, by example and against a naive model.

use std::path::PathBuf;

use super::*;
use crate::fs::memory::image::Keep;

mod model;
mod names;
mod policies;
mod space;

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
