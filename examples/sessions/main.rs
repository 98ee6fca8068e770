//! Sessions of aircraft: event-time session windows over a year of flights, on alluvium's keyed state.
//!
//! ```text
//!  flights, day by day ─ legs ── p ─┬ subtask 0: StateBackend, names ┐
//!                                   │ subtask 1: StateBackend, names ├─ checkpoints
//!  names of carriers ── to everyone ┴ …                              ┘
//!                     p: by the key group of the aircraft
//! ```
//! An aircraft is *in use* as long as its next leg from New York is planned at most three hours after
//! the last; such a stretch is a session. When the watermark has passed its end, it is told: how many
//! legs, how late on average, whose aircraft, and how many sessions the aircraft has had since it was
//! last idle for two weeks. Half-way the job loses everything but its checkpoints and replays; then it
//! goes on with another number of subtasks. In the end every session is compared with a plain
//! computation in memory.
//!
//! `operator.rs` is the window operator: a map of merging windows, reducing and aggregating state in
//! namespaces that merge, a timer for each window, a value that expires, broadcast state. `job.rs` runs
//! it, `reference.rs` computes the same again.
#![allow(clippy::disallowed_methods, reason = "an application has files")]

#[allow(dead_code, reason = "not all of a row is used here")]
#[path = "../common/event.rs"]
mod event;
mod job;
mod operator;
mod reference;
#[allow(dead_code, reason = "rows are not counted here")]
#[path = "../common/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::event::Event;
use crate::event::date_and_time;
use crate::job::Settings;
use crate::operator::Session;
use crate::source::Position;
use crate::source::Source;

/// A result whose error is only told.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Where the table of flights lies.
const INPUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv.zst");

/// Cuts the year of each aircraft into sessions, with checkpoints, a crash and a rescaling, and verifies
/// all of them at the end.
#[derive(Parser)]
#[command(name = "sessions")]
struct Arguments {
    /// Number of subtasks that share the state at first
    #[arg(long, value_name = "N", default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(job::MAX_PARALLELISM)))]
    parallelism: u32,
    /// Number of subtasks from three quarters of the stream on
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(job::MAX_PARALLELISM)))]
    rescale_to: u32,
    /// Take a checkpoint after each N legs
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: u64,
    /// The table of flights: CSV, compressed with zstd or not
    #[arg(long, value_name = "FILE", default_value = INPUT, hide_default_value = true)]
    input: PathBuf,
}

/// A flight that departed, by an aircraft that is known.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Planned departure, in seconds since 1970.
    pub time: i64,
    /// Its tail number.
    pub aircraft: String,
    /// Its code.
    pub carrier: String,
    /// Of the departure, in minutes.
    pub delay: i16,
}

/// Something of the two streams, in the order in which the job meets it.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// A flight.
    Leg(&'a Leg),
    /// Code and name of a carrier.
    Name(&'a str, &'a str),
}

/// The carriers of the table.
const CARRIERS: [(&str, &str); 16] = [
    ("9E", "Endeavor Air"),
    ("AA", "American Airlines"),
    ("AS", "Alaska Airlines"),
    ("B6", "JetBlue Airways"),
    ("DL", "Delta Air Lines"),
    ("EV", "ExpressJet Airlines"),
    ("F9", "Frontier Airlines"),
    ("FL", "AirTran Airways"),
    ("HA", "Hawaiian Airlines"),
    ("MQ", "Envoy Air"),
    ("OO", "SkyWest Airlines"),
    ("UA", "United Air Lines"),
    ("US", "US Airways"),
    ("VX", "Virgin America"),
    ("WN", "Southwest Airlines"),
    ("YV", "Mesa Airlines"),
];

/// Both streams: the names come first, and one changes when a third of the legs have come.
pub fn items(legs: &[Leg]) -> Vec<Item<'_>> {
    let names = CARRIERS.iter().map(|(code, name)| Item::Name(code, name));
    let mut items: Vec<Item<'_>> = names.chain(legs.iter().map(Item::Leg)).collect();
    items.insert(CARRIERS.len() + legs.len() / 3, Item::Name("US", "American Airlines (US)"));
    items
}

/// The legs day by day; within a day as they stand in the table, which is not the order of time.
fn read(input: &Path) -> Outcome<Vec<Leg>> {
    let mut source = Source::open(input, Position::default())?;
    let mut legs: Vec<(i32, Leg)> = Vec::new();
    while let Some(row) = source.next()? {
        let Ok(event) = Event::parse(row) else { continue };
        let (Some(aircraft), Some(delay)) = (event.aircraft, event.departure_delay) else {
            continue;
        };
        let (aircraft, carrier) = (aircraft.to_owned(), event.carrier.to_owned());
        legs.push((event.day, Leg { time: event.time, aircraft, carrier, delay }));
    }
    legs.sort_by_key(|(day, _)| *day); // stable
    Ok(legs.into_iter().map(|(_, leg)| leg).collect())
}

/// All sessions that were told, by aircraft and beginning.
pub type Sessions = BTreeMap<(String, i64), Session>;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the job; returns whether its result is right.
fn run(arguments: &Arguments) -> Outcome<bool> {
    let legs = read(&arguments.input)?;
    let items = items(&legs);
    let settings = Settings {
        parallelism: arguments.parallelism,
        rescale_to: arguments.rescale_to,
        checkpoint_every: arguments.checkpoint_every,
    };
    let sessions = job::run(&settings, &items)?;
    show(&sessions);
    let wanted = reference::compute(&items);
    let mut different = 0;
    for key in wanted.keys().chain(sessions.keys().filter(|key| !wanted.contains_key(*key))) {
        if wanted.get(key) != sessions.get(key) {
            different += 1;
            if different <= 10 {
                let (want, got) = (wanted.get(key), sessions.get(key));
                eprintln!("different: {key:?}: {got:?} instead of {want:?}");
            }
        }
    }
    match different {
        0 => println!("verified: {} sessions equal", wanted.len()),
        _ => println!("NOT verified: {different} sessions different"),
    }
    Ok(different == 0)
}

/// The longest sessions, and whose aircraft stay in use for long.
fn show(sessions: &Sessions) {
    let mut longest: Vec<_> = sessions.iter().collect();
    longest.sort_by_key(|((_, start), session)| (start - session.end, *start));
    println!("\nlongest sessions");
    for ((aircraft, start), session) in longest.into_iter().take(5) {
        let Session { end, legs, carrier, mean_delay, streak } = session;
        println!(
            "    {aircraft:<7} {} to {}  {legs:>2} legs  {mean_delay:>6.1} min late  no. {streak:<3} {carrier}",
            date_and_time(*start),
            date_and_time(*end),
        );
    }
    let mut carriers: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for session in sessions.values() {
        let (count, legs) = carriers.entry(&session.carrier).or_default();
        (*count, *legs) = (*count + 1, *legs + u64::from(session.legs));
    }
    println!("\nsessions by carrier");
    for (carrier, (count, legs)) in carriers {
        println!(
            "    {carrier:<24} {count:>6} sessions, {:.2} legs each",
            legs as f64 / count as f64
        );
    }
    println!();
}
