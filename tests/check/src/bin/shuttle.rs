//! Lives under random schedules, by turns random at each step and with few changes of priority (PCT).
//!
//! ```text
//! shuttle [--schedules N] [--minutes M] [--seed S] [LIFE]   so many schedules, again for so long
//! shuttle canaries [--schedules N] [--seed S]               plants bugs: each must be found
//! shuttle replay LIFE random|pct SEED [CANARY]              what a failure prints
//! ```
#![allow(clippy::disallowed_methods, reason = "measures")]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use alluvium_check::base::canary::{Canary, Harness};
use alluvium_check::lives::{LIVES, Life};
use alluvium_report::Part;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// Changes of priority in a schedule of PCT.
const DEPTH: usize = 3;
/// Schedules of one seed. PCT learns from one where to change priorities in the next.
const BATCH: usize = 10;
/// How to see a case again.
const REPLAY: &str =
    "cargo run --manifest-path tests/check/Cargo.toml --features shuttle --bin shuttle";
/// A schedule that takes more steps hangs.
const STEPS_MAX: usize = 2_000_000;

/// What the first panic said. Those that it causes, as threads are unwound, say nothing new.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Where each planted bug must show.
fn life_of(canary: Canary) -> &'static str {
    match canary {
        Canary::VisibleBeforeWritten | Canary::MemtablesGoFirst => "views",
        Canary::NextLeaderSleeps => "groups",
        Canary::WaitsWithoutAsking => "stalls",
        Canary::FlushTakesLater => "checkpoints",
        _ => unreachable!("a bug of one thread"),
    }
}

/// A batch of schedules of one life.
struct Case {
    life: &'static Life,
    pct: bool,
    seed: u64,
    canary: Option<Canary>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheduler = if self.pct { "pct" } else { "random" };
        write!(f, "{} {scheduler} {}", self.life.name, self.seed)?;
        self.canary.map_or(Ok(()), |canary| write!(f, " {canary:?}"))
    }
}

impl Case {
    /// The `number`th of a life.
    fn new(life: &'static Life, seed: u64, number: u64, canary: Option<Canary>) -> Case {
        Case { life, pct: number % 2 == 1, seed: seed.wrapping_add(number), canary }
    }

    fn parse(words: &[String]) -> Option<Case> {
        let (canary, words) = match words {
            [words @ .., name] if words.len() == 3 => (Some(canary(name)?), words),
            words => (None, words),
        };
        let [life, scheduler, seed] = words else { return None };
        let life = LIVES.iter().find(|of| of.name == *life)?;
        let pct = ["random", "pct"].iter().position(|name| name == scheduler)? == 1;
        Some(Case { life, pct, seed: seed.parse().ok()?, canary })
    }

    fn run_with(&self, scheduler: impl Scheduler + 'static) {
        let mut config = Config::new();
        config.stack_size = 1 << 20;
        config.silence_warnings = true;
        config.failure_persistence = FailurePersistence::None;
        config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
        Canary::plant(self.canary);
        Runner::new(scheduler, config).run(self.life.live);
    }

    fn run(&self) {
        match self.pct {
            true => self.run_with(PctScheduler::new_from_seed(self.seed, DEPTH, BATCH)),
            false => self.run_with(RandomScheduler::new_from_seed(self.seed, BATCH)),
        }
    }

    /// What is wrong, if something is.
    fn judge(&self) -> Result<(), String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        Canary::plant(None);
        outcome.map_err(|_| FIRST.lock().unwrap().take().unwrap_or_default())
    }
}

fn canary(name: &str) -> Option<Canary> {
    Canary::ALL.iter().copied().find(|canary| format!("{canary:?}") == name)
}

#[derive(Default)]
struct Settings {
    schedules: u64,
    time: Duration,
    seed: u64,
    life: String,
    canary: Option<Canary>,
}

impl Settings {
    fn parse(words: &[String]) -> Option<Settings> {
        let mut settings = Settings { schedules: 400, seed: 1, ..Settings::default() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || words.next()?.parse::<u64>().ok();
            match word.as_str() {
                "--schedules" => settings.schedules = number()?,
                "--minutes" => settings.time = Duration::from_secs(60 * number()?),
                "--seed" => settings.seed = number()?,
                "--canary" => settings.canary = Some(canary(words.next()?)?),
                name if LIVES.iter().any(|life| life.name == name) => {
                    name.clone_into(&mut settings.life)
                }
                _ => return None,
            }
        }
        Some(settings)
    }

    /// The lives and how many batches each is for.
    fn lives(&self) -> Vec<(&'static Life, u64)> {
        let lives = || LIVES.iter().filter(|life| life.name.contains(&self.life));
        let shares: u64 = lives().map(|life| life.share).sum();
        let batches = |life: &Life| (self.schedules * life.share).div_ceil(shares * BATCH as u64);
        lives().map(|life| (life, batches(life).max(2))).collect()
    }
}

/// All lives side by side, up to the first failure: what was left of that schedule may show in others.
fn sweep(settings: &Settings, part: &mut Part) -> bool {
    let (began, lives) = (Instant::now(), settings.lives());
    let most = lives.iter().map(|(_, batches)| *batches).max().expect("a life");
    for number in 0.. {
        let round = number / most;
        if number % most == 0 && round > 0 && began.elapsed() >= settings.time {
            break;
        }
        for (life, batches) in &lives {
            if number % most >= *batches {
                continue;
            }
            let case = Case::new(life, settings.seed, number, settings.canary);
            part.count("schedules", BATCH as u64);
            part.count_in("schedules_by_life", life.name, BATCH as u64);
            if let Err(text) = case.judge() {
                println!("BAD {case}: {text}\n{REPLAY} -- replay {case}");
                return false;
            }
        }
    }
    let (schedules, seconds) = (part.counted("schedules"), began.elapsed().as_secs_f64());
    println!("{schedules} schedules of {} lives, {seconds:.1} s", lives.len());
    true
}

/// Plants one bug after the other, each in a process of its own; are all found?
fn canaries(settings: &Settings, part: &mut Part) -> bool {
    let mut missed = 0;
    for &canary in Canary::ALL.iter().filter(|canary| canary.harness() == Harness::Threads) {
        let began = Instant::now();
        let [schedules, seed] = [settings.schedules, settings.seed].map(|n| n.to_string());
        let name = format!("{canary:?}");
        let life = life_of(canary);
        let words = ["--canary", &name, "--schedules", &schedules, "--seed", &seed, life];
        let exe = std::env::current_exe().expect("this process has a file");
        let output = Command::new(exe).args(words).output().expect("it runs again");
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.lines().find_map(|line| line.strip_prefix("BAD "));
        let (seconds, (class, text)) = (began.elapsed().as_secs_f64(), canary.describe());
        part.count("canaries_planted", 1);
        part.count("canaries_drawn", 1);
        part.count("canaries_found", u64::from(found.is_some()));
        match found {
            Some(case) => println!("found {name} ({class}) in {seconds:.1} s: {case}"),
            None => {
                println!("missed {name} ({class}) for {seconds:.1} s: {text}");
                println!("{REPLAY} -- {}", words.join(" "));
                part.list("canaries_missed", name);
                missed += 1;
            }
        }
    }
    missed == 0
}

fn finish(part: Part) {
    if let Err(e) = part.finish() {
        eprintln!("the report could not be written: {e}");
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match words.split_first() {
        Some((first, rest)) if ["replay", "canaries"].contains(&first.as_str()) => {
            (&first[..], rest)
        }
        _ => ("sweep", &words[..]),
    };
    if command == "replay" {
        Case::parse(rest).expect("replay LIFE random|pct SEED [CANARY]").run();
        println!("nothing is wrong");
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or_default().replace('\n', "; ");
        FIRST.lock().unwrap().get_or_insert(text);
    }));
    let Some(settings) = Settings::parse(rest) else {
        eprintln!("shuttle [canaries] [--schedules N] [--minutes M] [--seed S] [LIFE]");
        return ExitCode::from(2);
    };
    let good = match command {
        "canaries" => {
            let mut part = Part::begin("shuttle-canaries");
            let good = canaries(&settings, &mut part);
            finish(part);
            good
        }
        _ => {
            let mut part = Part::begin("shuttle");
            let good = sweep(&settings, &mut part);
            part.count("violations", u64::from(!good));
            if settings.canary.is_none() {
                finish(part);
            }
            good
        }
    };
    ExitCode::from(u8::from(!good))
}
