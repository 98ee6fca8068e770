//! alluvium-process: what only real processes can show.
//!
//! ```text
//! alluvium-process kill [--kills N] [--seed S]     SIGKILL at random moments, on directories that age
//! alluvium-process limits [--seed S]               no file handles, no file size, no space
//! alluvium-process soak --seconds N | --minutes N  a long life; in the end everything is given back
//! ```
//! The parent keeps the oracle; a child runs the engine and says through a pipe what it was told. All
//! that a child writes follows from the seed, so that the parent knows every state that ever was.

mod child;
mod keyed;
mod kill;
mod limits;
mod oracle;
mod rng;
mod soak;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::stats::Stats;

const USAGE: &str = "usage: alluvium-process kill [--kills N] [--seed S] [--dir DIR]
       alluvium-process limits [--seed S] [--dir DIR]
       alluvium-process soak (--seconds N | --minutes N) [--seed S] [--dir DIR]";

/// What is asked for.
pub struct Settings {
    pub seed: u64,
    pub kills: u64,
    pub seconds: u64,
    /// Where databases live while this runs.
    pub dir: PathBuf,
}

impl Settings {
    fn parse(words: &[String]) -> Result<Settings, String> {
        let name = format!("alluvium-process-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let mut settings = Settings { seed: 1, kills: 300, seconds: 30, dir };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("what is {word} {value}?"));
            match word.as_str() {
                "--seed" => settings.seed = number()?,
                "--kills" => settings.kills = number()?,
                "--seconds" => settings.seconds = number()?,
                "--minutes" => settings.seconds = number()? * 60,
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
            println!("alluvium-process {command} --seed {seed}; see {}", settings.dir.display());
            ExitCode::FAILURE
        }
    }
}
