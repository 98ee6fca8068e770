//! What the harnesses have exercised, counted by them while they work.
//!
//! A harness begins a [`Part`], counts, and finishes it: that writes `target/reliability/<name>.json`.
//! The binary `alluvium-report` makes one report of all parts of a commit.
//!
//! ```no_run
//! let mut part = alluvium_report::Part::begin("kill");
//! part.count("kills", 1);
//! part.count_in("kills_by_cause", "SIGKILL", 1);
//! part.finish().expect("target/ can be written");
//! ```
#![allow(clippy::disallowed_methods, reason = "a report on the real disk")]

mod merge;
mod places;
mod rng;

pub use crate::merge::Goal;
pub use crate::merge::NUMBERS;
pub use crate::merge::Report;
pub use crate::rng::Rng;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// The counts of one harness, in one run.
#[derive(Debug)]
pub struct Part {
    name: String,
    begun: Instant,
    counts: Counts,
    groups: BTreeMap<String, Counts>,
    lists: BTreeMap<String, Vec<String>>,
}

impl Part {
    /// Starts the clock of a part. It has found no violation yet.
    pub fn begin(name: &str) -> Part {
        Part {
            name: name.to_owned(),
            begun: Instant::now(),
            counts: Counts::from([("violations".to_owned(), 0)]),
            groups: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    /// Counts so many more. Counts of the same name in other parts are added up in the report; for
    /// the names that it must have see [`NUMBERS`].
    pub fn count(&mut self, name: &str, more: u64) {
        *self.counts.entry(name.to_owned()).or_default() += more;
    }

    /// Counts so many more of one kind among several: `count_in("images_by_policy", "P0", 1)`.
    pub fn count_in(&mut self, group: &str, kind: &str, more: u64) {
        let group = self.groups.entry(group.to_owned()).or_default();
        *group.entry(kind.to_owned()).or_default() += more;
    }

    /// Adds a line to a list, such as those of things that were not covered.
    pub fn list(&mut self, list: &str, line: impl Into<String>) {
        self.lists.entry(list.to_owned()).or_default().push(line.into());
    }

    /// A count so far.
    pub fn counted(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// The part as it is written.
    fn value(&self) -> Value {
        json!({
            "part": self.name,
            "commit": commit(),
            "seconds": (self.begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "counts": self.counts,
            "groups": self.groups,
            "lists": self.lists,
        })
    }

    /// Stops the clock and writes `target/reliability/<name>.json`; returns its path.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(self) -> std::io::Result<PathBuf> {
        let dir = parts_dir();
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{}.json", self.name));
        std::fs::write(&path, pretty(&self.value()))?;
        Ok(path)
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The workspace's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

/// Where parts are written.
pub fn parts_dir() -> PathBuf {
    target_dir().join("reliability")
}

/// Where the engine notes the places that make errors, as `file:line`, when the environment's
/// `ALLUVIUM_ERROR_PLACES` names this file.
pub fn error_places() -> PathBuf {
    parts_dir().join("error_places")
}

/// The commit that is checked out, as 40 digits; `unknown` where there is none.
pub fn commit() -> String {
    let git = Command::new("git").arg("-C").arg(root()).args(["rev-parse", "HEAD"]).output();
    match git {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// A seed that every commit has of its own.
pub fn commit_seed() -> u64 {
    let digits: String = commit().chars().take(8).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(1)
}
