//! What was done, counted while it is done.

use alluvium_report::Part;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Disks that were judged; equal disks of one moment count once.
    pub images: u64,
    /// Disks that were equal to one judged at the same moment.
    pub images_equal: u64,
    /// Moments at which the power was cut.
    pub crash_points: u64,
    /// Images by policy.
    pub policies: BTreeMap<String, u64>,
    pub model_ops: u64,
    /// Runs with a fault that struck, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Recoveries that were cut short, and judged.
    pub recoveries_crashed: u64,
    /// Lives that were recorded, by workload.
    pub workloads: BTreeMap<String, u64>,
    /// Moments at which a small protocol was under way, and every subset of what might survive was tried.
    pub protocols: BTreeMap<String, u64>,
    /// Lives that were lived twice, with the same effects.
    pub determinism_checks: u64,
    /// Images with a damaged file, inputs from hostile hands, lives with a filter.
    pub damaged: u64,
    pub hostile: u64,
    pub filtered: u64,
    pub violations: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.images += other.images;
        self.images_equal += other.images_equal;
        self.crash_points += other.crash_points;
        self.model_ops += other.model_ops;
        self.recoveries_crashed += other.recoveries_crashed;
        self.determinism_checks += other.determinism_checks;
        self.damaged += other.damaged;
        self.hostile += other.hostile;
        self.filtered += other.filtered;
        self.violations += other.violations;
        for (mine, others) in [
            (&mut self.protocols, &other.protocols),
            (&mut self.policies, &other.policies),
            (&mut self.faults, &other.faults),
            (&mut self.workloads, &other.workloads),
        ] {
            for (name, count) in others {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }

    /// Disks that were judged, those that a second power cut left included.
    pub fn images_all(&self) -> u64 {
        self.images + self.recoveries_crashed
    }

    /// Counts it all as part of the report.
    pub fn report(&self, part: &mut Part) {
        for (name, count) in [
            ("images", self.images_all()),
            ("images_equal", self.images_equal),
            ("crash_points", self.crash_points),
            ("model_ops", self.model_ops),
            ("recoveries_crashed", self.recoveries_crashed),
            ("determinism_checks", self.determinism_checks),
            ("images_damaged", self.damaged),
            ("inputs_hostile", self.hostile),
            ("lives_filtered", self.filtered),
            ("violations", self.violations),
        ] {
            part.count(name, count);
        }
        for (group, counts) in [
            ("protocol_moments_exhausted", &self.protocols),
            ("images_by_policy", &self.policies),
            ("faults", &self.faults),
            ("workloads", &self.workloads),
        ] {
            for (kind, count) in counts {
                part.count_in(group, kind, *count);
            }
        }
    }
}
