//! alluvium-process: what only real processes can show.
//!
//! ```text
//! alluvium-process kill [--kills N | --minutes M]    SIGKILL at random moments, on directories that age
//! alluvium-process limits                            no file handles, no file size, no space
//! alluvium-process soak [--seconds N | --minutes M]  a long life; in the end everything is given back
//! ```
//! The parent keeps the oracle; a child runs the engine and says through a pipe what it was told. All
//! that a child writes follows from the seed, so that the parent knows every state that ever was.

mod child;
mod keyed;
mod kill;
mod limits;
mod oracle;
mod soak;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::stats::Stats;

const USAGE: &str = "usage: alluvium-process kill [--kills N | --minutes M] [--seed S] [--dir DIR]
       alluvium-process limits [--seed S] [--dir DIR]
       alluvium-process soak [--seconds N | --minutes M] [--seed S] [--dir DIR]";

/// What is asked for.
pub struct Settings {
    pub seed: u64,
    pub kills: u64,
    pub time: Option<Duration>,
    /// Where databases live while this runs.
    pub dir: PathBuf,
}

impl Settings {
    fn parse(words: &[String]) -> Result<Settings, String> {
        let name = format!("alluvium-process-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let mut settings = Settings { seed: 1, kills: 300, time: None, dir };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("what is {word} {value}?"));
            match word.as_str() {
                "--seed" => settings.seed = number()?,
                "--kills" => settings.kills = number()?,
                "--seconds" => settings.time = Some(Duration::from_secs(number()?)),
                "--minutes" => {
                    let minutes = value.parse().map_err(|_| format!("what is {word} {value}?"))?;
                    settings.time = Some(Duration::from_secs(60).mul_f64(minutes));
                    settings.kills = u64::MAX;
                }
                "--dir" => settings.dir = value.into(),
                _ => return Err(format!("what is {word:?}?")),
            }
        }
        Ok(settings)
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match words.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", &[][..]),
    };
    let run = match command {
        "child" => return child::run(rest),
        "kill" => kill::run,
        "limits" => limits::run,
        "soak" => soak::run,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let settings = match Settings::parse(rest) {
        Ok(settings) => settings,
        Err(text) => {
            eprintln!("{text}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let seed = settings.seed;
    let mut stats = Stats::begin(command);
    let outcome = run(&settings, &mut stats);
    stats.finish(&outcome);
    match outcome {
        Ok(()) => {
            let _ = std::fs::remove_dir_all(&settings.dir);
            ExitCode::SUCCESS
        }
        Err(text) => {
            println!("violated: {text}");
            println!("{} is as it was found", settings.dir.display());
            let seeded = rest.iter().any(|word| word == "--seed");
            let seed = if seeded { String::new() } else { format!(" --seed {seed}") };
            let words = words.join(" ");
            println!("cargo run --release --quiet -p alluvium-process -- {words}{seed}");
            ExitCode::FAILURE
        }
    }
}
