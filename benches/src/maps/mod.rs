//! alluvium against maps in memory, in one process, on one thread: nanoseconds for each operation.
//!
//! Reading order: [`args`], [`data`] (keys, values, orders), [`engine`] (the trait and who implements
//! it), [`workload`] (what is timed), [`report`] (the table).

mod args;
mod data;
mod engine;
mod report;
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use crate::maps::args::{Args, Command};
use crate::maps::data::Data;
use crate::maps::engine::Kind;
use crate::maps::report::Report;
use crate::maps::workload::Workload;

pub use crate::maps::engine::Xxh3;

/// Does what the words after the program's name say.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    match &args.command {
        Command::Run => run(&args),
        Command::Profile(workload) => {
            profile(&args, *workload);
            ExitCode::SUCCESS
        }
    }
}

/// All engines live at the same time; each workload goes round them, so that a disturbance of the
/// machine meets all alike. The order of the engines turns from round to round.
fn run(args: &Args) -> ExitCode {
    let data = Data::new(args.keys, args.ops);
    let mut report = Report::new(&args.engines);
    let begin = Instant::now();
    for round in 0..args.rounds {
        let mut order = args.engines.clone();
        order.rotate_left(round % args.engines.len());
        let mut lives: Vec<_> = order.iter().map(|kind| (*kind, kind.begin())).collect();
        for workload in Workload::ALL {
            for (kind, life) in &mut lives {
                if let Some(ns) = life.run(workload, &data) {
                    report.add(workload, *kind, ns);
                }
            }
        }
        eprintln!("round {} of {}: {:.0?} so far", round + 1, args.rounds, begin.elapsed());
    }
    println!(
        "{} keys of {} bytes, values of {} bytes, {} operations; {} rounds, interleaved.",
        args.keys,
        data::KEY_BYTES,
        data::VALUE_BYTES,
        args.ops,
        args.rounds
    );
    println!("{report}");
    if !args.check {
        return ExitCode::SUCCESS;
    }
    let mut passed = true;
    for workload in [Workload::Get, Workload::Overwrite] {
        let Some(ratio) = report.ratio(workload, Kind::Alluvium, Kind::HashMap) else {
            eprintln!("check: alluvium and hash must both run");
            return ExitCode::from(2);
        };
        let good = ratio.median <= LIMIT;
        passed &= good;
        let verdict = if good { "passed" } else { "FAILED" };
        println!(
            "check: {workload}: {:.2}x the hash map, at most {LIMIT:.1}x: {verdict}",
            ratio.median
        );
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A read or overwrite in the memtable may cost this many times what it costs in a hash map.
const LIMIT: f64 = 2.0;

/// One workload again and again, for a profiler. The timed loops are functions that are never
/// inlined: `callgrind --toggle-collect='alluvium_bench::maps::workload::timed_*'` counts them alone.
fn profile(args: &Args, workload: Workload) {
    let data = Data::new(args.keys, args.ops);
    for kind in &args.engines {
        let begin = || {
            let mut life = kind.begin();
            for before in workload.needs() {
                life.run(*before, &data);
            }
            life
        };
        let mut life = begin();
        for round in 0..args.rounds {
            if round > 0 && workload.writes() {
                life = begin();
            }
            match life.run(workload, &data) {
                Some(ns) => println!("{workload}: {kind}: {ns:.1} ns"),
                None => println!("{workload}: {kind}: not possible"),
            }
        }
    }
}
