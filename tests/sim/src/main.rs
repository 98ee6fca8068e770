//! alluvium-sim: whole lives of databases, on one thread, from one seed, on a file system that can
//! lose its power at every effect and fail at every call; and a judge who knows what was promised.
//!
//! ```text
//! alluvium-sim sweep --minutes 3 | --rounds N | --budget ci|night [--seed S] [--threads N]
//! alluvium-sim model (--ops N | --minutes M) [--seed S] [--threads N]
//! alluvium-sim canaries (--drawn N | --all | --only NAME) [--seconds S] [--seed S] [--threads N]
//! alluvium-sim replay '<case>'
//! alluvium-sim shrink '<case>'
//! ```

#[path = "../../it/allocation.rs"]
mod allocation;
#[cfg(feature = "canary")]
mod canaries;
mod case;
mod crash;
mod damage;
mod fault;
mod filter;
mod hostile;
mod judge;
mod keyed;
#[cfg(test)]
mod lies;
mod model;
mod ops;
mod programs;
mod read;
mod shrink;
mod stats;
mod store;
mod sweep;
mod world;

use std::process::ExitCode;

use crate::case::Case;

const USAGE: &str =
    "usage: alluvium-sim sweep (--minutes M | --rounds N | --budget ci|night) [--seed S] [--threads N]
       alluvium-sim model (--ops N | --minutes M) [--seed S] [--threads N]
       alluvium-sim canaries (--drawn N | --all | --only NAME) [--seconds S] [--seed S] [--threads N]
       alluvium-sim replay '<case>'
       alluvium-sim shrink '<case>'";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; `false` if something was found.
fn command(words: &[String]) -> Result<bool, String> {
    let (command, rest) = words.split_first().ok_or("what is to be done?")?;
    match command.as_str() {
        "sweep" => Ok(sweep::sweep(&sweep::Settings::parse(rest)?)),
        "model" => Ok(programs::lane(&programs::Settings::parse(rest)?)),
        #[cfg(feature = "canary")]
        "canaries" => Ok(canaries::run(&canaries::Settings::parse(rest)?)),
        #[cfg(not(feature = "canary"))]
        "canaries" => Err("this build has no canaries: add --features canary".to_owned()),
        "replay" | "shrink" => {
            let line = rest.join(" ");
            let case = Case::parse(line.trim_start_matches("replay "))?;
            match command.as_str() {
                "replay" => Ok(replay(&case)),
                _ => Ok(shrink::shrink(&case)),
            }
        }
        _ => Err(format!("what is {command:?}?")),
    }
}

fn replay(case: &Case) -> bool {
    match shrink::judge(case) {
        Ok(()) => {
            println!("holds: {case}");
            true
        }
        Err(text) => {
            println!("{text}\nviolated: {case}");
            false
        }
    }
}
