//! What was done, counted while it is done.

use alluvium_report::Part;

use crate::allocation;
use crate::judge::Census;

#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Bytes of all golden files.
    pub golden_bytes: u64,
    pub census: Census,
    pub hostile_inputs: u64,
    pub violations: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.census.add(&other.census);
        self.hostile_inputs += other.hostile_inputs;
    }

    /// All counts by name.
    pub fn counts(&self) -> [(&'static str, u64); 15] {
        let census = &self.census;
        [
            ("bytes_flipped", census.flips),
            ("log_tears", census.tears),
            ("files_cut", census.cuts),
            ("salvages", census.salvages),
            ("salvages_proved", census.salvages_proved),
            ("damage_refused_at_open", census.refused_to_open),
            ("damage_refused_at_read", census.refused_to_read),
            ("damage_cut_off_log", census.cut),
            ("damage_harmless", census.right),
            ("log_damage_below_durable_refused", census.below_durable),
            ("golden_bytes", self.golden_bytes),
            ("hostile_inputs", self.hostile_inputs),
            ("allocation_bytes_largest", allocation::largest() as u64),
            ("allocated_bytes_most", allocation::most() as u64),
            ("violations", self.violations),
        ]
    }

    /// Counts it all as part of the report.
    pub fn report(&self, part: &mut Part) {
        self.counts().iter().for_each(|(name, count)| part.count(name, *count));
    }
}
