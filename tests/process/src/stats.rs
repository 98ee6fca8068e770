//! What was done, counted while it is done, as a part of the report.

use std::time::Instant;

use alluvium_report::Part;

/// The counts of one command.
pub struct Stats {
    part: Part,
    names: Vec<&'static str>,
    start: Instant,
}

impl Stats {
    #[expect(clippy::disallowed_methods, reason = "measures")]
    pub fn begin(name: &str) -> Stats {
        Stats { part: Part::begin(name), names: Vec::new(), start: Instant::now() }
    }

    pub fn add(&mut self, name: &'static str, more: u64) {
        self.part.count(name, more);
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// Prints the counts, and writes the part.
    pub fn finish(mut self, outcome: &Result<(), String>) {
        self.part.count("violations", u64::from(outcome.is_err()));
        for name in self.names {
            println!("{name:>24} {}", self.part.counted(name));
        }
        println!("{:>24} {:.1}", "seconds", self.start.elapsed().as_secs_f64());
        if let Err(e) = self.part.finish() {
            eprintln!("the report could not be written: {e}");
        }
    }
}
