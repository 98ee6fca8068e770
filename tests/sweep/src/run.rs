//! The cases one after the other, on a few threads.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alluvium::fuzz::{self, TARGETS};
use alluvium::inspect::FORMAT_VERSIONS;
use alluvium_report::Part;
use parking_lot::Mutex;

use crate::allocation;
use crate::damage::{Flip, PATTERNS, SEGMENT_HEADER, Tear, files, is};
use crate::golden::{
    CLEAN, Golden, PACKED, STORE, UNCLEAN, check, differences, dir_of, make, root,
};
use crate::hostile;
use crate::judge::{Census, Judge};
use crate::stats::Stats;

const PARTS: [&str; 4] = [UNCLEAN, CLEAN, PACKED, STORE];

/// Violations after which a sweep gives up.
const VIOLATIONS_MAX: usize = 5;

pub struct Settings {
    inputs: u64,
    seed: u64,
    every: usize,
    threads: usize,
    time: Duration,
}

impl Settings {
    pub fn parse(words: &[String]) -> Result<Settings, String> {
        let mut settings =
            Settings { inputs: 4000, seed: 0, every: 1, threads: 2, time: Duration::ZERO };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let number = words.next().and_then(|value| value.parse::<f64>().ok());
            let number = number.filter(|number| *number >= 0.0);
            let number = number.ok_or_else(|| format!("{word} needs a number"))?;
            let value = number as u64;
            match word.as_str() {
                "--inputs" => settings.inputs = value,
                "--seed" => settings.seed = value,
                "--minutes" => settings.time = Duration::from_secs(60).mul_f64(number),
                "--every" => settings.every = value.max(1) as usize,
                "--threads" => settings.threads = value.max(1) as usize,
                _ => return Err(format!("what is {word:?}?")),
            }
        }
        Ok(settings)
    }
}

/// One thing that is done and judged.
#[derive(Clone, Debug)]
enum Case {
    Flip(Flip),
    Tear(String, usize, Tear),
    Cut(&'static str, String, usize),
    Input(&'static str, u64),
    Table(u64),
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Flip(flip) => {
                let pattern = PATTERNS[flip.pattern];
                write!(f, "flip {} {} {} {pattern}", flip.part, flip.file, flip.at)
            }
            Case::Tear(file, at, tear) => write!(f, "tear {file} {at} {tear:?}"),
            Case::Cut(part, file, len) => write!(f, "cut {part} {file} {len}"),
            Case::Input(target, n) => write!(f, "input {target} {n}"),
            Case::Table(n) => write!(f, "table {n}"),
        }
    }
}

impl Case {
    fn parse(line: &str) -> Option<Case> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words {
            ["flip", part, file, at, pattern] => Some(Case::Flip(Flip {
                part: PARTS.into_iter().find(|known| *known == part)?,
                file: file.to_owned(),
                at: at.parse().ok()?,
                pattern: PATTERNS.iter().position(|known| *known == pattern)?,
            })),
            ["tear", file, at, tear] => {
                let tear = Tear::ALL.into_iter().find(|known| format!("{known:?}") == tear)?;
                Some(Case::Tear(file.to_owned(), at.parse().ok()?, tear))
            }
            ["cut", part, file, len] => {
                let part = PARTS.into_iter().find(|known| *known == part)?;
                Some(Case::Cut(part, file.to_owned(), len.parse().ok()?))
            }
            ["input", target, n] => {
                let target = TARGETS.into_iter().find(|known| *known == target)?;
                Some(Case::Input(target, n.parse().ok()?))
            }
            ["table", n] => Some(Case::Table(n.parse().ok()?)),
            _ => None,
        }
    }
}

/// Forged inputs for all targets, those of one round. Each seed has others, and so has each round.
fn forged(settings: &Settings, round: u64) -> Vec<Case> {
    let first = (settings.seed << 16) + round * settings.inputs;
    let mut cases = Vec::new();
    for target in TARGETS {
        let inputs = settings.inputs / fuzz::cost(target);
        cases.extend((first..first + inputs).map(|n| Case::Input(target, n)));
    }
    cases.extend((first..first + settings.inputs).map(Case::Table));
    cases
}

/// All that is needed to judge.
struct Bench {
    golden: Golden,
    judge: Judge,
    corpora: Vec<(&'static str, Vec<Vec<u8>>)>,
}

impl Bench {
    fn new(version: u16) -> Bench {
        let golden = Golden::load(&dir_of(&root(), version)).expect("the golden files");
        let judge = Judge::new(&golden, &PARTS);
        let corpora = TARGETS.map(|target| (target, hostile::corpus(target))).to_vec();
        Bench { golden, judge, corpora }
    }

    fn cases(&self, settings: &Settings) -> Vec<Case> {
        let mut cases = Vec::new();
        for (part, file, len) in files(&self.golden, &PARTS) {
            for at in (0..len).step_by(settings.every) {
                let flip = |pattern| Case::Flip(Flip { part, file: file.clone(), at, pattern });
                cases.extend((0..PATTERNS.len()).map(flip));
            }
        }
        for (file, &len) in &self.judge.log.segments {
            for at in (SEGMENT_HEADER..len).step_by(settings.every) {
                cases.extend(Tear::ALL.map(|tear| Case::Tear(file.clone(), at, tear)));
            }
        }
        for (part, file, len) in files(&self.golden, &PARTS) {
            if !is(&file, "log") {
                let lengths = (0..len).step_by(settings.every);
                cases.extend(lengths.map(|len| Case::Cut(part, file.clone(), len)));
            }
        }
        cases.extend(forged(settings, 0));
        cases
    }

    /// Runs a case; what is wrong, if anything is.
    fn run(&self, case: &Case, stats: &mut Stats) -> Result<(), String> {
        let mut census = Census::default();
        let judged = catch_unwind(AssertUnwindSafe(|| match case {
            Case::Flip(flip) => self.judge.flip(flip, &mut census),
            Case::Tear(file, at, tear) => self.judge.tear(file, *at, *tear, &mut census),
            Case::Cut(part, file, len) => self.judge.cut(part, file, *len, &mut census),
            Case::Input(target, n) => {
                let corpus = self.corpora.iter().find(|(name, _)| name == target);
                let corpus = &corpus.expect("a target").1;
                hostile::target(target, &hostile::input(target, corpus, *n));
            }
            Case::Table(n) => hostile::patched_table(&self.golden, *n),
        }));
        stats.census.add(&census);
        stats.hostile_inputs += u64::from(matches!(case, Case::Input(..) | Case::Table(_)));
        let text = judged.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        });
        text.and_then(|()| allocation::check())
    }
}

/// What runs a case again.
const AGAIN: &str = "cargo run --release --quiet -p alluvium-sweep -- replay";

/// Runs one case again.
pub fn replay(line: &str) -> Result<bool, String> {
    let case = Case::parse(line).ok_or_else(|| format!("no case: {line:?}"))?;
    let outcome = Bench::new(*FORMAT_VERSIONS.end()).run(&case, &mut Stats::default());
    match &outcome {
        Ok(()) => println!("holds: {case}"),
        Err(text) => println!("{text}\nviolated: {case}"),
    }
    Ok(outcome.is_ok())
}

/// Runs all cases and reports; `true` if nothing was found.
#[expect(clippy::disallowed_methods, reason = "measures")]
pub fn sweep(settings: &Settings) -> bool {
    let start = Instant::now();
    let mut part = Part::begin("sweep");
    std::panic::set_hook(Box::new(|_| {})); // they are caught, and told as violations
    let mut stats = Stats::default();
    let mut violations = Vec::new();
    let newest = *FORMAT_VERSIONS.end();
    match (make(), Golden::load(&dir_of(&root(), newest))) {
        (Ok(made), Ok(golden)) => violations.extend(differences(&made, &golden)),
        (made, golden) => violations.push(format!("{:?} {:?}", made.err(), golden.err())),
    }
    let changelog = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../CHANGELOG.md");
    let changelog = std::fs::read_to_string(changelog).unwrap_or_default();
    violations.extend(check(&root(), FORMAT_VERSIONS, &changelog));
    violations.iter().for_each(|text| println!("{text}"));
    for version in FORMAT_VERSIONS {
        let bench = Bench::new(version);
        stats.golden_bytes +=
            bench.golden.files.values().map(|bytes| bytes.len() as u64).sum::<u64>();
        allocation::forget();
        run_all(&bench, &bench.cases(settings), settings, &mut stats, &mut violations);
        for round in 1.. {
            let is_late = version < newest || start.elapsed() >= settings.time;
            if is_late || settings.inputs == 0 || violations.len() >= VIOLATIONS_MAX {
                break;
            }
            run_all(&bench, &forged(settings, round), settings, &mut stats, &mut violations);
        }
    }
    let _ = std::panic::take_hook();
    stats.violations = violations.len() as u64;
    stats.counts().iter().for_each(|(name, count)| println!("{name:>32} {count}"));
    println!("{:>32} {:.1}", "seconds", start.elapsed().as_secs_f64());
    stats.report(&mut part);
    if let Err(e) = part.finish() {
        eprintln!("the report could not be written: {e}");
    }
    violations.is_empty()
}

fn run_all(
    bench: &Bench,
    cases: &[Case],
    settings: &Settings,
    stats: &mut Stats,
    violations: &mut Vec<String>,
) {
    let next = AtomicU64::new(0);
    let shared = Mutex::new((stats, violations));
    std::thread::scope(|scope| {
        for _ in 0..settings.threads {
            scope.spawn(|| {
                let mut mine = Stats::default();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let Err(text) = bench.run(case, &mut mine) else { continue };
                    println!("{text}\n{AGAIN} '{case}'");
                    let violations = &mut shared.lock().1;
                    violations.push(case.to_string());
                    if violations.len() >= VIOLATIONS_MAX {
                        break;
                    }
                }
                shared.lock().0.add(&mine);
            });
        }
    });
}
