//! alluvium-report: makes one report of what all harnesses have counted, prints it as a table, and
//! writes `target/reliability.json`.
//!
//! ```text
//! alluvium-report                        fails if a number is missing, or below its goal
//! alluvium-report --without kills,images unless nobody was to count these
//! alluvium-report --partial              of the parts that there are, whatever they say
//! alluvium-report --readme               puts the table into the README, too
//! ```

use std::process::ExitCode;

use alluvium_report::Report;

const USAGE: &str = "usage: alluvium-report [--partial] [--without NAME,...] [--readme]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let (mut partial, mut readme, mut without) = (false, false, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--partial" => partial = true,
            "--readme" => readme = true,
            "--without" => without = words.next().ok_or(USAGE)?.split(',').collect(),
            _ => return Err(format!("what is {word:?}?\n{USAGE}")),
        }
    }
    let report = Report::read()?;
    print!("{}", report.table());
    report.write().map_err(|e| format!("target/reliability.json: {e}"))?;
    let failings = report.failings(&without);
    if !failings.is_empty() && !partial {
        return Err(failings.join("\n"));
    }
    if readme { report.update_readme() } else { Ok(()) }
}
