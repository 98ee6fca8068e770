//! The sweep: tasks in an endless order that a seed decides, on a few threads, until time is up.

use alluvium_report::{ERROR_PLACES, Part};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::case::{Case, DAMAGE, FILTER, HOSTILE};
use crate::crash::{self, Depth, POLICIES, Violation, directly};
use crate::damage;
use crate::fault;
use crate::filter;
use crate::hostile;
use crate::ops::WORKLOADS;
use crate::rng::Rng;
use crate::stats::Stats;

/// Violations after which a sweep gives up.
const VIOLATIONS_MAX: usize = 5;

pub struct Settings {
    pub time: Duration,
    pub seed: u64,
    pub threads: usize,
    /// Only this workload.
    pub only: Option<String>,
    /// Only tasks of this kind: `crash`, `subsets`, `fault`, `damage`, `hostile`, `filter`.
    pub kind: Option<String>,
}

impl Settings {
    pub fn parse(words: &[String]) -> Result<Settings, String> {
        let time = Duration::ZERO;
        let mut settings = Settings { time, seed: 1, threads: 2, only: None, kind: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let bad = || format!("what is {word} {value}?");
            match word.as_str() {
                "--minutes" => {
                    let minutes: f64 = value.parse().map_err(|_| bad())?;
                    settings.time = Duration::from_secs_f64(minutes * 60.0);
                }
                "--budget" => {
                    settings.time = match value.as_str() {
                        "ci" => Duration::from_secs(210),
                        "night" => Duration::from_secs(90 * 60),
                        _ => return Err(bad()),
                    }
                }
                "--seed" => settings.seed = value.parse().map_err(|_| bad())?,
                "--threads" => settings.threads = value.parse().map_err(|_| bad())?,
                "--workload" => settings.only = Some(value.clone()),
                "--kind" => settings.kind = Some(value.clone()),
                _ => return Err(bad()),
            }
        }
        match settings.time.is_zero() {
            true => Err("how long?".to_owned()),
            false => Ok(settings),
        }
    }
}

struct Shared {
    end: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    stats: Mutex<Stats>,
    violations: Mutex<Vec<Violation>>,
}

/// Runs it and reports; `true` if nothing was found.
#[expect(clippy::disallowed_methods, reason = "measures, and runs lives beside each other")]
pub fn sweep(settings: &Settings) -> bool {
    let start = Instant::now();
    let mut part = Part::begin("sim");
    let shared = Shared {
        end: start + settings.time,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        stats: Mutex::default(),
        violations: Mutex::default(),
    };
    quietly(|| {
        std::thread::scope(|scope| {
            for _ in 0..settings.threads.max(1) {
                scope.spawn(|| work(settings, &shared));
            }
        });
    });
    let mut stats = shared.stats.into_inner();
    let violations = shared.violations.into_inner();
    stats.violations = violations.len() as u64;
    println!("seed {}: {stats:#?}", settings.seed);
    stats.report(&mut part);
    list_places(&mut part);
    conclude(part, &violations)
}

/// Runs something while panics are silent: they are caught, and told as violations.
pub fn quietly(run: impl FnOnce()) {
    std::panic::set_hook(Box::new(|_| {}));
    run();
    let _ = std::panic::take_hook();
}

/// Says in a part of the report where errors have been made.
pub fn list_places(part: &mut Part) {
    alluvium::error_places().into_iter().for_each(|place| part.list(ERROR_PLACES, place));
}

/// Writes a part of the report and says what was found; `true` if nothing was.
pub fn conclude(part: Part, violations: &[Violation]) -> bool {
    if let Err(e) = part.finish() {
        eprintln!("the report could not be written: {e}");
    }
    for violation in violations {
        println!("{}", violation.text);
        println!("alluvium-sim replay '{}'", violation.case);
    }
    violations.is_empty()
}

#[expect(clippy::disallowed_methods, reason = "measures")]
fn work(settings: &Settings, shared: &Shared) {
    let go_on = || !shared.stop.load(Ordering::Relaxed) && Instant::now() < shared.end;
    while go_on() {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let mut stats = Stats::default();
        let outcome = task(settings, number, &mut stats, &go_on);
        shared.stats.lock().add(&stats);
        if let Err(violation) = outcome {
            let mut violations = shared.violations.lock();
            eprintln!("{}\nalluvium-sim replay '{}'", violation.text, violation.case);
            violations.push(violation);
            shared.stop.fetch_or(violations.len() >= VIOLATIONS_MAX, Ordering::Relaxed);
        }
    }
}

/// The tasks in turn: a workload, and what is done to it.
fn task(
    settings: &Settings,
    number: u64,
    stats: &mut Stats,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Violation> {
    let chosen = WORKLOADS.iter().filter(|w| settings.only.as_deref().is_none_or(|o| o == w.name));
    let chosen: Vec<_> = chosen.collect();
    let count = chosen.len() as u64;
    // Each round takes all workloads, and the harnesses that have none.
    let others =
        if settings.only.is_none() && settings.kind.is_none() { &OTHERS[..] } else { &OTHERS[..0] };
    let (round, place) =
        (number / (count + others.len() as u64), number % (count + others.len() as u64));
    let other = place.checked_sub(count).map(|other| others[other as usize]);
    let other = other.or(OTHERS.into_iter().find(|other| settings.kind.as_deref() == Some(*other)));
    if let Some(harness) = other {
        let seed = Rng::of(settings.seed, number).next() >> 32;
        return (seed..seed + REPEATS)
            .take_while(|_| go_on())
            .try_for_each(|seed| self::other(harness, seed, stats));
    }
    let workload = chosen[place as usize];
    let seed = match round {
        0 => settings.seed / 50 * 50, // lived twice
        _ => Rng::of(settings.seed, number).next() >> 32,
    };
    let case = Case::new(workload, seed);
    let kinds = ["crash", "fault", "subsets"];
    let kind = settings.kind.as_deref().unwrap_or(kinds[(round % 3) as usize]);
    match kind {
        "fault" => fault::sweep(&case, 1 + 7 * u64::from(!workload.micro), stats, go_on),
        "subsets" if workload.micro => {
            let depth = Depth { policies: &[], rounds: 0, subsets: true, again_every: 50 };
            crash::sweep(&case, directly, depth, stats, go_on)
        }
        _ => {
            let depth = Depth { policies: POLICIES, rounds: 2, subsets: false, again_every: 10 };
            crash::sweep(&case, directly, depth, stats, go_on)
        }
    }
}

/// So often harnesses without a workload run at a time: each of their cases takes milliseconds.
const REPEATS: u64 = 40;

/// Harnesses without a workload.
const OTHERS: [&str; 3] = [DAMAGE, HOSTILE, FILTER];

fn other(harness: &str, seed: u64, stats: &mut Stats) -> Result<(), Violation> {
    match harness {
        DAMAGE => stats.damaged += damage::run(seed)?,
        HOSTILE => stats.hostile += hostile::run(seed)?,
        _ => {
            filter::run(seed)?;
            stats.filtered += 1;
        }
    }
    Ok(())
}
