//! A streaming job over a year of flights from New York, on alluvium's keyed state.
//!
//! ```text
//!                      ┌ legs by aircraft ──────┐    ┌ subtask 0: StateBackend ┐
//!  flights.csv ─ rows ─┼ departures by airport ─┼─ p ┤ subtask 1: StateBackend ├─ checkpoints
//!                      └ routes by carrier ─────┘    └ …                       ┘
//!                                  p: by the key group of each record's key
//! ```
//! Half-way it loses everything but its checkpoints and replays from the newest; then it goes on with
//! three subtasks, and with one. In the end every entry of every state is compared with a plain
//! computation in memory. `event.rs` reads rows, `source.rs` files, `subtask.rs` keeps the state,
//! `job.rs` runs it all, `reference.rs` computes it again.
#![allow(clippy::disallowed_methods, reason = "an application has a clock, threads and files")]

#[path = "../common/event.rs"]
mod event;
mod job;
mod reference;
mod report;
#[path = "../common/source.rs"]
mod source;
mod subtask;

use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;

use crate::job::Settings;
use crate::reference::Comparison;
use crate::report::Answers;
use crate::report::Report;
use crate::report::grouped;

/// A result whose error is only told.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Where the table of flights lies.
const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv.zst");

/// Runs a streaming job over a year of flights, with checkpoints, a crash and two rescalings, and
/// verifies all state at the end.
#[derive(Parser)]
#[command(name = "flights")]
struct Arguments {
    /// Number of subtasks that share the state
    #[arg(long, value_name = "N", default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(job::MAX_PARALLELISM)))]
    parallelism: u32,
    /// Take a checkpoint after each N events
    #[arg(long, value_name = "N", default_value_t = 50_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: u64,
    /// The table of flights: CSV, compressed with zstd or not
    #[arg(long, value_name = "FILE", default_value = INPUT, hide_default_value = true)]
    input: PathBuf,
    /// Keep the checkpoints in DIR; without it they go to a temporary directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only restore the newest checkpoint in DIR, replay the rest of the stream, and verify
    #[arg(long, requires = "dir")]
    restore: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the job; returns whether its state is right.
fn run(arguments: &Arguments) -> Outcome<bool> {
    let rows = source::count_rows(&arguments.input)?;
    let temporary = if arguments.dir.is_none() { Some(TemporaryDir::new()?) } else { None };
    let dir = arguments.dir.as_deref().or(temporary.as_ref().map(|dir| &*dir.0));
    let settings = Settings {
        input: arguments.input.clone(),
        dir: dir.expect("one of the two").to_owned(),
        parallelism: arguments.parallelism,
        checkpoint_every: arguments.checkpoint_every,
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}: {} events\n", shown(&settings.input), grouped(rows))?;
    let mut report = Report::default();
    let job = if arguments.restore { job::restore } else { job::run };
    let (tables, progress) = job(&settings, rows, progress_bar(rows), &mut report)?;
    write!(out, "{report}{}", Answers(&tables, &progress))?;
    writeln!(out, "{}", report.bad_rows(&progress))?;

    let (wanted, wanted_progress) = reference::compute(&settings.input)?;
    let mut comparison = Comparison::of_tables(&wanted, &tables);
    if progress != wanted_progress {
        comparison
            .differ(|| format!("operator state: {progress:?} instead of {wanted_progress:?}"));
    }
    for difference in &comparison.shown {
        eprintln!("different: {difference}");
    }
    if comparison.different == 0 {
        writeln!(out, "verified: {} keys equal", comparison.equal)?;
    } else {
        let (equal, different) = (comparison.equal, comparison.different);
        writeln!(out, "NOT verified: {different} keys different, {equal} equal")?;
    }
    Ok(comparison.different == 0)
}

/// The path as a user of this directory would name it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

/// A bar that shows only on a terminal.
fn progress_bar(rows: u64) -> ProgressBar {
    let bar = ProgressBar::hidden();
    if std::io::stdout().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::stdout());
        bar.set_length(rows);
        let style = "{bar:40} {human_pos}/{human_len} events, {per_sec}";
        bar.set_style(ProgressStyle::with_template(style).expect("a template"));
    }
    bar
}

/// A directory of our own, removed in the end whatever happens.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> Outcome<TemporaryDir> {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
        let name = format!("alluvium-flights-{}-{nanos}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        match std::fs::create_dir(&dir) {
            Ok(()) => Ok(TemporaryDir(dir)),
            Err(e) => Err(format!("cannot create {}: {e}", dir.display()).into()),
        }
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
