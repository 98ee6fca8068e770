//! Random programs on a database and on plain maps: the machine of `alluvium::fuzz::model`, in bulk.

use alluvium::fuzz::model::{self, OP_BYTES};
use alluvium_report::{Part, Rng};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::case::{Case, PROGRAM};
use crate::crash::{Violation, caught};

/// Bytes of a program before its operations.
const CONFIG_BYTES: usize = 8;
/// Where the key stands in a write, and how many keys there are in a quarter of the programs each.
const KEY_AT: usize = 2;
const KEYS_FEW: [u8; 2] = [12, 2];
/// Fewest and most operations.
const OPS: (u64, u64) = (20, 300);

/// The program of a seed.
fn program(seed: u64) -> Vec<u8> {
    let mut rng = Rng::of(seed, 5);
    let ops = OPS.0 + rng.below(OPS.1 - OPS.0);
    let words = 1 + ops * OP_BYTES as u64 / 8;
    let mut bytes: Vec<u8> = (0..words).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    if let Some(few) = KEYS_FEW.get(seed as usize % 4) {
        // Mostly the same few keys, so that their versions pile up.
        let keys = bytes[CONFIG_BYTES..].iter_mut().skip(KEY_AT).step_by(OP_BYTES);
        keys.for_each(|key| *key %= few);
    }
    bytes
}

/// Runs the program of a seed; returns how many operations it had.
pub fn run(seed: u64) -> Result<u64, Violation> {
    let bytes = program(seed);
    let outcome = caught(|| {
        model::run(&bytes);
        Ok(())
    });
    outcome.map_err(|text| {
        let text = format!("{text}\n{}", shrinking(&bytes));
        Violation::new(&Case::other(PROGRAM, seed), text)
    })?;
    Ok(((bytes.len() - CONFIG_BYTES) / OP_BYTES) as u64)
}

/// How the tests replay the same program, and make a smaller one of it.
fn shrinking(bytes: &[u8]) -> String {
    let (config, ops) = bytes.split_at(CONFIG_BYTES);
    let number = |bytes: &[u8]| -> [u8; 8] { bytes.try_into().expect("eight bytes") };
    let mut line = format!("ALLUVIUM_REPLAY='{:x}", u64::from_le_bytes(number(config)));
    for op in ops.chunks_exact(OP_BYTES) {
        line += &format!(" {:x}", u64::from_be_bytes(number(op)));
    }
    line + "' cargo test --test it model::replays"
}

/// How much is run: so many operations, or so long.
pub struct Settings {
    ops: u64,
    time: Duration,
    seed: u64,
    threads: usize,
}

impl Settings {
    pub fn parse(words: &[String]) -> Result<Settings, String> {
        let mut settings =
            Settings { ops: 0, time: Duration::from_secs(24 * 3600), seed: 1, threads: 2 };
        let (pairs, rest) = words.as_chunks::<2>();
        for [word, value] in pairs {
            let bad = || format!("what is {word} {value}?");
            let number = || value.parse::<u64>().map_err(|_| bad());
            match word.as_str() {
                "--ops" => settings.ops = number()?,
                "--minutes" => {
                    let minutes: f64 = value.parse().map_err(|_| bad())?;
                    settings.time = Duration::from_secs_f64(minutes * 60.0);
                    settings.ops = u64::MAX;
                }
                "--seed" => settings.seed = number()?,
                "--threads" => settings.threads = number()? as usize,
                _ => return Err(bad()),
            }
        }
        match settings.ops > 0 && rest.is_empty() {
            true => Ok(settings),
            false => Err("how many operations, or how long?".to_owned()),
        }
    }
}

/// Runs programs; `true` if nothing was found.
#[expect(clippy::disallowed_methods, reason = "measures, and runs programs beside each other")]
pub fn lane(settings: &Settings) -> bool {
    let Settings { ops, time, seed, threads } = *settings;
    let end = Instant::now() + time;
    let mut part = Part::begin("model");
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let found: Mutex<Vec<Violation>> = Mutex::default();
    crate::sweep::quietly(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    let go_on = || !stop.load(Ordering::Relaxed) && Instant::now() < end;
                    while go_on() && done.load(Ordering::Relaxed) < ops {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        match run(Rng::of(seed, number).next_u64() >> 16) {
                            Ok(ops) => drop(done.fetch_add(ops, Ordering::Relaxed)),
                            Err(violation) => {
                                stop.store(true, Ordering::Relaxed);
                                found.lock().push(violation);
                            }
                        }
                    }
                });
            }
        });
    });
    let found = found.into_inner();
    part.count("model_ops", done.into_inner());
    part.count("programs", next.into_inner());
    part.count("violations", found.len() as u64);
    println!("{} operations in {} programs", part.counted("model_ops"), part.counted("programs"));
    crate::sweep::conclude(part, &found)
}
