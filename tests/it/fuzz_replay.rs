//! Every fuzz target as an ordinary test: its corpus, and a fixed number of seeded mutations of it.
//! `FUZZ_MUTATIONS` sets their number for each target, and `ALLUVIUM_SEED` draws other ones.
#![allow(clippy::disallowed_methods, reason = "reads the corpus")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use alluvium::fuzz;
use alluvium::limits::DECODE_BYTES_MAX;
use alluvium_report::{Part, Rng};
use parking_lot::Mutex;

use crate::allocation;
use crate::model::setting;

const CORPUS_BYTES_MAX: u64 = 100 << 10;
const MUTATIONS: u64 = 2000;

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

/// Numbers that lengths, counts and offsets are often checked badly against.
const TRICKS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xffff, 1 << 16, (1 << 31) - 1, u32::MAX as u64, 1 << 63, u64::MAX];

/// A number in `0..bound`, and zero below nothing.
fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound.max(1) as u64) as usize
}

fn mutate(rng: &mut Rng, inputs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = inputs[below(rng, inputs.len())].1.clone();
    for _ in 0..1 + below(rng, 4) {
        let at = below(rng, bytes.len());
        let rest = bytes.len() - at;
        match below(rng, 8) {
            0 | 1 if rest > 0 => bytes[at] ^= 1 << below(rng, 8),
            2 if rest > 0 => bytes[at] = rng.next_u64() as u8,
            3 => bytes.truncate(at),
            4 => {
                let width = rest.min([1, 2, 4, 8][below(rng, 4)]);
                let trick = TRICKS[below(rng, TRICKS.len())].wrapping_add(rng.next_u64() % 3);
                bytes[at..at + width].copy_from_slice(&trick.to_le_bytes()[..width]);
            }
            5 => {
                let other = &inputs[below(rng, inputs.len())].1;
                let from = below(rng, other.len());
                let len = below(rng, other.len() - from + 1).min(64);
                let until = at + below(rng, rest + 1).min(64);
                bytes.splice(at..until, other[from..from + len].iter().copied());
            }
            6 => {
                let len = below(rng, rest + 1).min(32);
                let copy = bytes[at..at + len].to_vec();
                let to = below(rng, bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => {
                let len = below(rng, rest + 1).min(16);
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

fn replay(target: &str) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty());
    for (name, bytes) in &inputs {
        run(target, name, bytes);
    }
    let mutations = std::env::var("FUZZ_MUTATIONS").ok().map(|n| n.parse().unwrap());
    let mut rng = Rng::of(setting("ALLUVIUM_SEED", 1), target.len() as u64);
    for i in 0..mutations.unwrap_or(MUTATIONS / fuzz::cost(target)) {
        run(target, &format!("mutation {i}"), &mutate(&mut rng, &inputs));
    }
    let mut replayed = REPLAYED.lock();
    *replayed += 1;
    let mut part = Part::begin("fuzz");
    part.count("fuzz_targets", *replayed);
    part.finish().expect("target/ can be written");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets!(
    batch block cell checkpoints current directory edit envelope filter import inspect keyed log
    manifest model name options packed patch postcard properties segments state store table timer ttl
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

/// The seeds are what the engine writes today; there is none that it does not write any more. With
/// `ALLUVIUM_BLESS` set, they are written anew first.
#[test]
#[cfg(all(feature = "lz4", feature = "zstd"))] // some are packed, by each of them
fn seeds_are_what_the_engine_writes() {
    use std::collections::BTreeMap;
    const BLESS: &str = "ALLUVIUM_BLESS";
    for target in fuzz::TARGETS {
        let dir = corpus(target);
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let written: BTreeMap<String, Vec<u8>> = fuzz::seeds(target)
            .into_iter()
            .zip(0..)
            .map(|(s, i)| (format!("seed-{i}"), s))
            .collect();
        if std::env::var_os(BLESS).is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            for (file, _) in inputs(target) {
                if name(Path::new(&file)).starts_with("seed-") {
                    std::fs::remove_file(file).unwrap();
                }
            }
            written.iter().for_each(|(file, seed)| std::fs::write(dir.join(file), seed).unwrap());
        }
        let kept = inputs(target).into_iter().map(|(file, seed)| (name(Path::new(&file)), seed));
        let kept: BTreeMap<_, _> = kept.filter(|(file, _)| file.starts_with("seed-")).collect();
        assert!(
            kept == written,
            "the seeds of {target} are not what the engine writes; \
             `{BLESS}=1 cargo test --workspace seeds_are` writes them anew"
        );
    }
}
