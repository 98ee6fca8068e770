//! Every fuzz target as an ordinary test: its corpus, and a fixed number of seeded mutations of it.
//! `FUZZ_MUTATIONS` sets their number for each target.
#![allow(clippy::disallowed_methods, reason = "reads the corpus")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use alluvium::fuzz;
use alluvium::limits::DECODE_BYTES_MAX;
use alluvium_report::Part;
use parking_lot::Mutex;

use crate::allocation;

const CORPUS_BYTES_MAX: u64 = 100 << 10;
const MUTATIONS: usize = 3000;

/// Targets replayed so far.
static REPLAYED: Mutex<u64> = Mutex::new(0);

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The files of a target's corpus, sorted by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = corpus(target);
    let listing = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = listing.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Numbers that lengths, counts and offsets are often checked badly against.
const TRICKS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xffff, 1 << 16, (1 << 31) - 1, u32::MAX as u64, 1 << 63, u64::MAX];

fn mutate(rng: &mut Rng, inputs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = inputs[rng.below(inputs.len())].1.clone();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len());
        let rest = bytes.len() - at;
        match rng.below(8) {
            0 | 1 if rest > 0 => bytes[at] ^= 1 << rng.below(8),
            2 if rest > 0 => bytes[at] = rng.next() as u8,
            3 => bytes.truncate(at),
            4 => {
                let width = rest.min([1, 2, 4, 8][rng.below(4)]);
                let trick = TRICKS[rng.below(TRICKS.len())].wrapping_add(rng.next() % 3);
                bytes[at..at + width].copy_from_slice(&trick.to_le_bytes()[..width]);
            }
            5 => {
                let other = &inputs[rng.below(inputs.len())].1;
                let from = rng.below(other.len());
                let len = rng.below(other.len() - from + 1).min(64);
                let until = at + rng.below(rest + 1).min(64);
                bytes.splice(at..until, other[from..from + len].iter().copied());
            }
            6 => {
                let len = rng.below(rest + 1).min(32);
                let copy = bytes[at..at + len].to_vec();
                let to = rng.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => {
                let len = rng.below(rest + 1).min(16);
                bytes.drain(at..at + len);
            }
        }
    }
    bytes
}

/// What one allocation may take while a target looks at so many bytes.
fn allocation_max(target: &str, len: usize) -> usize {
    match target {
        "table" => DECODE_BYTES_MAX + (1 << 20), // a packed block may unfold to this
        "directory" | "inspect" | "patch" | "store" => DECODE_BYTES_MAX + (1 << 20),
        "checkpoints" | "import" | "keyed" | "model" => 8 << 20,
        _ => (256 << 10) + 64 * len,
    }
}

fn run(target: &str, name: &str, bytes: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let most = allocation::largest(|| fuzz::target(target, bytes));
        assert!(most <= allocation_max(target, bytes.len()), "{most} bytes allocated at once");
    }));
    if outcome.is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("target {target}, {name}, {} bytes: {hex}", bytes.len());
    }
}

fn replay(target: &str, share: usize) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty());
    for (name, bytes) in &inputs {
        run(target, name, bytes);
    }
    let mutations = std::env::var("FUZZ_MUTATIONS").ok().map(|n| n.parse().unwrap());
    let mut rng = Rng(0x616c_6c75_7669_756d ^ target.len() as u64);
    for i in 0..mutations.unwrap_or(MUTATIONS / share) {
        run(target, &format!("mutation {i}"), &mutate(&mut rng, &inputs));
    }
    let mut replayed = REPLAYED.lock();
    *replayed += 1;
    let mut part = Part::begin("fuzz");
    part.count("fuzz_targets", *replayed);
    part.finish().expect("target/ can be written");
}

macro_rules! targets {
    ($($name:ident / $share:literal)*) => {
        $(#[test] fn $name() { replay(stringify!($name), $share); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

// A part for those that run a whole database.
targets!(
    batch/1 block/1 cell/1 checkpoints/60 current/1 directory/10 edit/1 envelope/1 filter/1
    import/5 inspect/1 keyed/300 log/1 manifest/1 model/10 name/1 options/1 packed/1 patch/10
    postcard/1 properties/1 segments/1 state/1 store/5 table/1 timer/1 ttl/1
);

#[test]
fn every_target_is_tested_and_fuzzed() {
    assert_eq!(TESTED, fuzz::TARGETS);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut total = 0;
    for target in fuzz::TARGETS {
        let path = format!("fuzz_targets/{target}.rs");
        assert!(manifest.contains(&format!("path = \"{path}\"")), "{target} is no binary");
        let source = std::fs::read_to_string(fuzz.join(path)).unwrap();
        assert!(source.contains(&format!("target(\"{target}\", bytes)")), "{source}");
        total += inputs(target).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    }
    assert!(total < CORPUS_BYTES_MAX, "a corpus of {total} bytes");
}

#[test]
#[ignore = "writes the seeds of all targets anew"]
fn write_seeds() {
    for target in fuzz::TARGETS {
        let dir = corpus(target);
        std::fs::create_dir_all(&dir).unwrap();
        for (i, seed) in fuzz::seeds(target).iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{i}")), seed).unwrap();
        }
    }
}
