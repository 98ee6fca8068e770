//! `shuttle [--schedules n] [--seed n] [life]`: lives under random schedules, half of them random at
//! each step, half with few changes of priority (PCT). `shuttle replay <life> <schedule>` shows one
//! again: a failure prints it.
#![allow(clippy::disallowed_methods, reason = "measures")]

use std::time::Instant;

use alluvium_check::lives::{LIVES, Life};
use alluvium_report::Part;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Changes of priority in a schedule of PCT.
const DEPTH: usize = 3;

fn run(life: &Life, scheduler: impl Scheduler + 'static) -> usize {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(10_000_000);
    Runner::new(scheduler, config).run(life.live)
}

fn main() {
    let (mut schedules, mut seed, mut only) = (200, 1, String::new());
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, name, schedule] = &words[..]
        && first == "replay"
    {
        let life = LIVES.iter().find(|life| life.name == name).expect("a life of this name");
        run(life, ReplayScheduler::new_from_encoded(schedule));
        return;
    }
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).expect("a number");
        match word.as_str() {
            "--schedules" => schedules = number(),
            "--seed" => seed = number(),
            name => name.clone_into(&mut only),
        }
    }
    let chosen: Vec<&Life> = LIVES.iter().filter(|life| life.name.contains(&only)).collect();
    let shares: usize = chosen.iter().map(|life| life.share).sum();
    let (mut part, mut total) = (Part::begin("shuttle"), 0);
    for life in chosen {
        let (began, each) = (Instant::now(), (schedules as usize * life.share / shares / 2).max(1));
        println!("{}:", life.name);
        let done = run(life, RandomScheduler::new_from_seed(seed, each))
            + run(life, PctScheduler::new_from_seed(seed, DEPTH, each));
        println!("{}: {done} schedules, {:.1} s", life.name, began.elapsed().as_secs_f64());
        total += done;
    }
    part.count("schedules", total as u64);
    if let Err(e) = part.finish() {
        eprintln!("the report could not be written: {e}");
    }
}
