//! alluvium-sweep: every byte of the golden files is changed in four ways, every file is cut to every
//! length, the log is torn at every byte, and every decoder is fed hostile bytes. The answer is right, or a
//! refusal that names file and offset; nothing panics, a refused open changes no byte, what is salvaged
//! was there, and no input decides how much memory is taken.
//!
//! ```text
//! alluvium-sweep [--inputs N] [--seed S] [--every K] [--threads T] [--minutes M]
//! alluvium-sweep replay '<case>'
//! ```
//! `--inputs` sets the number of hostile inputs for each target (those that run whole databases get
//! fewer), which are drawn by `--seed`; `--every` leaves out all but each K-th byte. With `--minutes`,
//! more and more hostile inputs follow until so much time has passed.

mod allocation;
mod damage;
mod golden;
mod hostile;
mod judge;
mod run;
mod stats;

use std::process::ExitCode;

/// Held by tests that look at the whole process.
#[cfg(test)]
static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

const USAGE: &str =
    "usage: alluvium-sweep [--inputs N] [--seed S] [--every K] [--threads T] [--minutes M]
       alluvium-sweep replay '<case>'";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.split_first() {
        Some((first, rest)) if first == "replay" => run::replay(&rest.join(" ")),
        _ => run::Settings::parse(&words).map(|settings| run::sweep(&settings)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
