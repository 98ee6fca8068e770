//! `loom [part of a name]`: checks the kernels; see `kernels/mod.rs`.
#![allow(clippy::disallowed_methods, reason = "measures")]

use std::time::Instant;

use alluvium_check::kernels::{check, kernels, mistakes};
use alluvium_report::Part;

/// How to see a kernel again.
const REPLAY: &str = "cargo run --manifest-path tests/check/Cargo.toml --features loom --bin loom";

fn main() {
    std::panic::set_hook(Box::new(|_| {})); // it is caught, and told below
    let only = std::env::args().nth(1).unwrap_or_default();
    let (mut wrong, mut part) = (0, Part::begin("loom"));
    let mut say = |name: String, started: Instant, right: bool, text: String| {
        wrong += u64::from(!right);
        let mark = if right { "ok " } else { "BAD" };
        println!("{mark} {name}: {}, {:.1} s", text.trim(), started.elapsed().as_secs_f64());
        if !right {
            let part = name.trim_start_matches("mistake: ").split(" — ").next().unwrap_or_default();
            println!("{REPLAY} -- '{part}'");
        }
    };
    for kernel in kernels().iter().filter(|kernel| kernel.name.contains(&only)) {
        let started = Instant::now();
        let outcome = check(kernel.run, kernel.preemptions, None);
        let right = outcome.is_ok();
        part.count("loom_kernels", 1);
        part.count("loom_orders", outcome.as_ref().copied().unwrap_or(0));
        let text = outcome.map_or_else(|e| e, |orders| format!("{orders} orders"));
        say(kernel.name.to_owned(), started, right, text);
    }
    // From here on everything must fail.
    for kernel in kernels().iter().filter(|kernel| kernel.name.contains(&only)) {
        for &weakened in kernel.needs {
            let started = Instant::now();
            let outcome = check(kernel.run, kernel.preemptions, Some(weakened));
            let text = outcome
                .as_ref()
                .map_or_else(Clone::clone, |n| format!("not noticed in {n} orders"));
            say(format!("{} — without {weakened:?}", kernel.name), started, outcome.is_err(), text);
        }
    }
    for mistake in mistakes().iter().filter(|mistake| mistake.name.contains(&only)) {
        let started = Instant::now();
        let outcome = check(mistake.run, mistake.preemptions, None);
        let text =
            outcome.as_ref().map_or_else(Clone::clone, |n| format!("not noticed in {n} orders"));
        say(format!("mistake: {}", mistake.name), started, outcome.is_err(), text);
    }
    part.count("violations", wrong);
    if let Err(e) = part.finish() {
        eprintln!("the report could not be written: {e}");
    }
    if wrong > 0 {
        eprintln!("{wrong} wrong");
        std::process::exit(1);
    }
}
