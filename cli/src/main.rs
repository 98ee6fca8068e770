//! `alluvium`: databases and checkpoints from the command line.
//!
//! Exit code 0: done; 1: an error, told in full on standard error; 2: a mistake in the command.

mod args;
mod checkpoint;
mod data;
mod files;
mod text;

use std::io;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::args::Command;

/// Why a command fails.
pub enum Failure {
    /// The engine's error.
    Engine(alluvium::Error),
    /// Standard output.
    Output(io::Error),
    /// What is wrong has been told already.
    Told,
}

impl From<alluvium::Error> for Failure {
    fn from(e: alluvium::Error) -> Failure {
        Failure::Engine(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        Failure::Output(e)
    }
}

pub type Outcome = Result<(), Failure>;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = run(args.command, &mut out).and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has had enough.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = out.flush();
            match failure {
                Failure::Engine(e) => eprintln!("alluvium: {e}"),
                Failure::Output(e) => eprintln!("alluvium: standard output: {e}"),
                Failure::Told => {}
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, out: &mut dyn Write) -> Outcome {
    match command {
        Command::Put { at, key, value } => data::put(&at, &key.0, &value.0),
        Command::Delete { at, key } => data::delete(&at, &key.0),
        Command::Get { at, key, hex } => data::get(&at, &key.0, hex, out),
        Command::Scan { at, range, hex } => data::scan(&at, &range, hex, out),
        Command::Inspect { file } => files::inspect(&file, out),
        Command::Verify { dir } => files::verify(&dir, out),
        Command::Stats { dir } => files::stats(&dir, out),
        Command::Salvage { dir, out: new, up_to } => data::salvage(&dir, &new, up_to, out),
        Command::Checkpoint(command) => checkpoint::run(command, out),
    }
}
