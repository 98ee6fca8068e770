//! Bugs are planted in the engine, one after the other, and each must be found by its harness.

use alluvium::Keep;
use alluvium::canary::{Canary, Harness};
use alluvium_report::{Part, Rng, commit_seed};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::crash::{self, Depth, Violation, directly};
use crate::ops::{WORKLOADS, Workload};
use crate::stats::Stats;
use crate::{damage, fault, filter, hostile, programs, shrink, sweep};

/// Enough of the policies: what only the others find, they find later in the same life.
const FEW: [Keep; 4] = [Keep::Nothing, Keep::All, Keep::Names, Keep::Any];

pub struct Settings {
    drawn: Vec<Canary>,
    /// How long a harness looks for one of them.
    time: Duration,
    seed: u64,
    threads: usize,
}

impl Settings {
    pub fn parse(words: &[String]) -> Result<Settings, String> {
        let mut settings =
            Settings { drawn: Vec::new(), time: Duration::from_secs(30), seed: 1, threads: 2 };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--all" {
                settings.drawn = all();
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("what is {word} {value}?"));
            match word.as_str() {
                "--drawn" => settings.drawn = draw(number()? as usize),
                "--only" => {
                    let named = |canary: &Canary| format!("{canary:?}") == *value;
                    let canary = all().into_iter().find(named);
                    settings.drawn.push(canary.ok_or_else(|| format!("no canary {value}"))?);
                }
                "--seconds" => settings.time = Duration::from_secs(number()?),
                "--seed" => settings.seed = number()?,
                "--threads" => settings.threads = number()? as usize,
                _ => return Err(format!("what is {word}?")),
            }
        }
        match settings.drawn.is_empty() {
            true => Err("which canaries?".to_owned()),
            false => Ok(settings),
        }
    }
}

/// Those that the harnesses here must find; the others are for `tests/check`.
fn all() -> Vec<Canary> {
    let here = |canary: &Canary| canary.harness() != Harness::Threads;
    Canary::ALL.iter().copied().filter(here).collect()
}

/// So many of them, by the commit.
fn draw(count: usize) -> Vec<Canary> {
    let mut rng = Rng::of(commit_seed(), 23);
    let mut left = all();
    let picked = (0..count.min(left.len())).map(|_| {
        let place = rng.below(left.len() as u64) as usize;
        left.swap_remove(place)
    });
    picked.collect()
}

/// Plants them one after the other; `true` if all are found.
#[expect(clippy::disallowed_methods, reason = "measures")]
pub fn run(settings: &Settings) -> bool {
    let mut part = Part::begin("canaries");
    part.count("canaries_planted", all().len() as u64);
    let (mut missed, mut real) = (Vec::new(), Vec::new());
    sweep::quietly(|| {
        for &canary in &settings.drawn {
            let begun = Instant::now();
            Canary::plant(Some(canary));
            let found = find(canary.harness(), settings);
            Canary::plant(None);
            // What is there without the planted bug, too, is another one.
            let found = found.filter(|violation| {
                let planted = shrink::judge(&violation.case).is_ok();
                real.extend((!planted).then(|| violation.clone()));
                planted
            });
            let (class, text) = canary.describe();
            let seconds = begun.elapsed().as_secs_f64();
            part.count("canaries_drawn", 1);
            part.count("canaries_found", u64::from(found.is_some()));
            match found {
                Some(violation) => {
                    println!("found {canary:?} ({class}) in {seconds:.1} s: {}", violation.case);
                    let text = violation.text.lines().next().unwrap_or_default();
                    println!("    {}", text.chars().take(200).collect::<String>());
                }
                None => {
                    println!("missed {canary:?} ({class}) for {seconds:.1} s: {text}");
                    println!(
                        "cargo run --release --quiet -p alluvium-sim --features canary -- canaries \
                         --only {canary:?} --seconds {} --seed {}",
                        settings.time.as_secs(),
                        settings.seed
                    );
                    part.list("canaries_missed", format!("{canary:?}"));
                    missed.push(canary);
                }
            }
        }
    });
    println!("{} of {} found", settings.drawn.len() - missed.len(), settings.drawn.len());
    part.count("violations", real.len() as u64);
    sweep::conclude(part, &real) && missed.is_empty()
}

/// Looks for a planted bug on all threads.
#[expect(clippy::disallowed_methods, reason = "measures, and runs lives beside each other")]
fn find(harness: Harness, settings: &Settings) -> Option<Violation> {
    let end = Instant::now() + settings.time;
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let found: Mutex<Option<Violation>> = Mutex::new(None);
    let go_on = || !stop.load(Ordering::Relaxed) && Instant::now() < end;
    std::thread::scope(|scope| {
        for _ in 0..settings.threads.max(1) {
            scope.spawn(|| {
                while go_on() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if let Err(violation) = attempt(harness, settings.seed, number, &go_on) {
                        stop.store(true, Ordering::Relaxed);
                        found.lock().get_or_insert(violation);
                    }
                }
            });
        }
    });
    found.into_inner()
}

fn attempt(
    harness: Harness,
    seed: u64,
    number: u64,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Violation> {
    let stats = &mut Stats::default();
    let drawn = Rng::of(seed, number).next_u64() >> 32;
    // Small lives first: they are judged in no time.
    let mut workloads: Vec<&'static Workload> = WORKLOADS.iter().collect();
    workloads.sort_by_key(|workload| !workload.micro);
    if harness == Harness::Fault {
        workloads.retain(|workload| !workload.is_keyed());
    }
    let case = Case::new(workloads[number as usize % workloads.len()], drawn);
    match harness {
        Harness::Crash => {
            let depth = Depth { policies: &FEW, rounds: 1, subsets: false, again_every: 20 };
            crash::sweep(&case, directly, depth, stats, go_on)
        }
        Harness::Fault => fault::sweep(&case, 3, stats, go_on),
        Harness::Program => programs::run(drawn).map(drop),
        Harness::Damage => damage::run(drawn).map(drop),
        Harness::Hostile => hostile::run(drawn).map(drop),
        Harness::Filter => filter::run(drawn),
        Harness::Threads => unreachable!("not one of those drawn"),
    }
}
