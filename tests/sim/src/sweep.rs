//! The sweep: tasks in an endless order that a seed decides, on a few threads, so many of them or until
//! time is up.

use alluvium_report::{Part, Rng};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::case::{Case, DAMAGE, FILTER, HOSTILE};
use crate::crash::{self, Depth, POLICIES, Violation, directly};
use crate::damage;
use crate::fault;
use crate::filter;
use crate::hostile;
use crate::ops::{WORKLOADS, Workload};
use crate::stats::Stats;

/// Violations after which a sweep gives up.
const VIOLATIONS_MAX: usize = 5;

/// Where a sweep ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// When so much time has passed, wherever that is.
    Time(Duration),
    /// After so many rounds: how fast the machine is does not matter. In each, every workload has
    /// its turn. If there are fewer images by then, it goes on until there are so many.
    Rounds { rounds: u64, images: u64 },
}

/// What every commit has to survive: about four minutes on two cores.
const CI: Until = Until::Rounds { rounds: 6, images: 110_000 };
const NIGHT: Until = Until::Time(Duration::from_secs(90 * 60));

pub struct Settings {
    pub until: Until,
    pub seed: u64,
    pub threads: usize,
    /// Only this workload.
    pub only: Option<String>,
    /// Only tasks of this kind: `crash`, `subsets`, `fault`, `damage`, `hostile`, `filter`.
    pub kind: Option<String>,
}

impl Settings {
    pub fn parse(words: &[String]) -> Result<Settings, String> {
        let mut until = None;
        let (mut seed, mut threads, mut only, mut kind) = (1, 2, None, None);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let bad = || format!("what is {word} {value}?");
            match word.as_str() {
                "--minutes" => {
                    let minutes: f64 = value.parse().map_err(|_| bad())?;
                    until = Some(Until::Time(Duration::from_secs_f64(minutes * 60.0)));
                }
                "--rounds" => {
                    let rounds = value.parse().map_err(|_| bad())?;
                    until = Some(Until::Rounds { rounds, images: 0 });
                }
                "--budget" => match value.as_str() {
                    "ci" => until = Some(CI),
                    "night" => until = Some(NIGHT),
                    _ => return Err(bad()),
                },
                "--seed" => seed = value.parse().map_err(|_| bad())?,
                "--threads" => threads = value.parse().map_err(|_| bad())?,
                "--workload" => only = Some(value.clone()),
                "--kind" => kind = Some(value.clone()),
                _ => return Err(bad()),
            }
        }
        let until = until.ok_or("how long?")?;
        Ok(Settings { until, seed, threads, only, kind })
    }

    /// Workloads that have a turn in each round.
    fn workloads(&self) -> Vec<&'static Workload> {
        let wanted = |w: &&Workload| self.only.as_deref().is_none_or(|only| only == w.name);
        WORKLOADS.iter().filter(wanted).collect()
    }

    /// Harnesses that have no workload, and have a turn in each round.
    fn others(&self) -> &'static [&'static str] {
        if self.only.is_none() && self.kind.is_none() { &OTHERS } else { &[] }
    }

    /// Tasks of a round.
    fn tasks(&self) -> u64 {
        (self.workloads().len() + self.others().len()) as u64
    }
}

struct Shared {
    /// When time is up.
    end: Option<Instant>,
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
        end: match settings.until {
            Until::Time(time) => Some(start + time),
            Until::Rounds { .. } => None,
        },
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
    conclude(part, &violations)
}

/// Runs something while panics are silent: they are caught, and told as violations.
pub fn quietly(run: impl FnOnce()) {
    std::panic::set_hook(Box::new(|_| {}));
    run();
    let _ = std::panic::take_hook();
}

/// Writes a part of the report and says what was found; `true` if nothing was.
pub fn conclude(part: Part, violations: &[Violation]) -> bool {
    if let Err(e) = part.finish() {
        eprintln!("the report could not be written: {e}");
    }
    for violation in violations {
        println!("{}", violation.text);
        println!("{}", violation.case.again());
    }
    violations.is_empty()
}

#[expect(clippy::disallowed_methods, reason = "measures")]
fn work(settings: &Settings, shared: &Shared) {
    let go_on = || {
        !shared.stop.load(Ordering::Relaxed) && shared.end.is_none_or(|end| Instant::now() < end)
    };
    while go_on() {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if let Until::Rounds { rounds, images } = settings.until
            && number >= rounds * settings.tasks()
            && shared.stats.lock().images_all() >= images
        {
            return;
        }
        let mut stats = Stats::default();
        let outcome = task(settings, number, &mut stats, &go_on);
        shared.stats.lock().add(&stats);
        if let Err(violation) = outcome {
            let mut violations = shared.violations.lock();
            eprintln!("{}\n{}", violation.text, violation.case.again());
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
    let (chosen, others) = (settings.workloads(), settings.others());
    let count = chosen.len() as u64;
    let (round, place) = (number / settings.tasks(), number % settings.tasks());
    let other = place.checked_sub(count).map(|other| others[other as usize]);
    let other = other.or(OTHERS.into_iter().find(|other| settings.kind.as_deref() == Some(*other)));
    if let Some(harness) = other {
        let seed = Rng::of(settings.seed, number).next_u64() >> 32;
        return (seed..seed + REPEATS)
            .take_while(|_| go_on())
            .try_for_each(|seed| self::other(harness, seed, stats));
    }
    let workload = chosen[place as usize];
    let seed = match round {
        0 => settings.seed / 50 * 50, // lived twice
        _ => Rng::of(settings.seed, number).next_u64() >> 32,
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
