//! alluvium-report: makes one report of what all harnesses have counted, prints it as a table, and
//! writes `target/reliability.json`.
//!
//! ```text
//! alluvium-report             fails if a number is missing, or below its goal
//! alluvium-report --partial   of the parts that there are
//! alluvium-report --readme    puts the table into the README, too
//! ```

use std::process::ExitCode;

use alluvium_report::Report;

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
    if let Some(word) =
        words.iter().find(|word| !["--partial", "--readme"].contains(&word.as_str()))
    {
        return Err(format!("what is {word:?}?\nusage: alluvium-report [--partial] [--readme]"));
    }
    let asked = |word: &str| words.iter().any(|w| w == word);
    let report = Report::read()?;
    print!("{}", report.table());
    report.write().map_err(|e| format!("target/reliability.json: {e}"))?;
    let failings = report.failings();
    if !failings.is_empty() && !asked("--partial") {
        return Err(failings.join("\n"));
    }
    if asked("--readme") {
        report.update_readme()?;
    }
    Ok(())
}
