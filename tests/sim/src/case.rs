//! One line that says everything: workload, seed, operations left out, and what goes wrong.
//!
//! ```text
//! kv seed=7 ops=90 drop=3,5-9 crash=123:P4:55 again=4:P6:9
//! kv seed=7 ops=90 fault=sync:3:io:once end=P0:7
//! ```

use std::collections::BTreeSet;
use std::fmt;

use alluvium::Keep;

use crate::fault::Plan;
use crate::ops::{Op, Workload};

/// Harnesses of which a case names only the seed.
pub const PROGRAM: &str = "program";
pub const DAMAGE: &str = "damage";
pub const HOSTILE: &str = "hostile";
pub const FILTER: &str = "filter";
const OTHERS: [&str; 4] = [PROGRAM, DAMAGE, HOSTILE, FILTER];

/// A power cut: after so many effects, with so much kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub point: usize,
    pub keep: Keep,
    pub dice: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub workload: &'static str,
    pub seed: u64,
    pub ops: usize,
    pub dropped: BTreeSet<usize>,
    pub crash: Option<Cut>,
    /// A second cut, in the recovery from the first.
    pub again: Option<Cut>,
    pub faults: Vec<Plan>,
    /// How a run with faults ends: by this power cut, if by any.
    pub end: Option<(Keep, u64)>,
}

impl Case {
    pub fn new(workload: &'static Workload, seed: u64) -> Case {
        Case { ops: workload.ops, ..Case::other(workload.name, seed) }
    }

    /// A case of a harness that needs nothing but a seed.
    pub fn other(harness: &'static str, seed: u64) -> Case {
        Case {
            workload: harness,
            seed,
            ops: 0,
            dropped: BTreeSet::new(),
            crash: None,
            again: None,
            faults: Vec::new(),
            end: None,
        }
    }

    pub fn workload(&self) -> &'static Workload {
        Workload::named(self.workload).expect("checked when the case was made")
    }

    /// The operations that are not left out, with their places.
    pub fn run(&self) -> impl Iterator<Item = Op> + '_ {
        let kept = (0..self.ops).filter(|place| !self.dropped.contains(place));
        kept.map(|place| self.workload().op(self.seed, place))
    }

    /// The same case with its faults this many turns earlier, if they all have as many.
    pub fn earlier(&self, turns: u64) -> Option<Case> {
        let faults = self.faults.iter().map(|fault| fault.earlier(turns));
        Some(Case { faults: faults.collect::<Option<_>>()?, ..self.clone() })
    }

    /// The line that runs this case again.
    pub fn again(&self) -> String {
        let canary = if cfg!(feature = "canary") { " --features canary" } else { "" };
        format!("cargo run --release --quiet -p alluvium-sim{canary} -- replay '{self}'")
    }

    pub fn parse(line: &str) -> Result<Case, String> {
        let mut words = line.split_whitespace();
        let name = words.next().ok_or("an empty case")?;
        let mut case = match OTHERS.iter().find(|other| **other == name) {
            Some(other) => Case::other(other, 0),
            None => {
                let workload = Workload::named(name);
                Case::new(workload.ok_or_else(|| format!("no workload {name:?}"))?, 0)
            }
        };
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("what is {word:?}?"))?;
            match key {
                "seed" => case.seed = number(value)?,
                "ops" => case.ops = number(value)? as usize,
                "drop" => case.dropped = ranges(value)?,
                "crash" => case.crash = Some(cut(value)?),
                "again" => case.again = Some(cut(value)?),
                "fault" => case.faults.push(Plan::parse(value)?),
                "end" => {
                    let (keep, dice) = value.split_once(':').ok_or("end=policy:dice")?;
                    case.end = Some((parse_keep(keep)?, number(dice)?));
                }
                _ => return Err(format!("what is {word:?}?")),
            }
        }
        Ok(case)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seed={}", self.workload, self.seed)?;
        if self.ops > 0 {
            write!(f, " ops={}", self.ops)?;
        }
        let mut dropped = self.dropped.iter().copied().peekable();
        let mut separator = " drop=";
        while let Some(first) = dropped.next() {
            let mut last = first;
            while dropped.peek() == Some(&(last + 1)) {
                last = dropped.next().expect("peeked");
            }
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        for fault in &self.faults {
            write!(f, " fault={fault}")?;
        }
        for (name, cut) in [("crash", self.crash), ("again", self.again)] {
            if let Some(Cut { point, keep, dice }) = cut {
                write!(f, " {name}={point}:{}:{dice}", show_keep(keep))?;
            }
        }
        if let Some((keep, dice)) = self.end {
            write!(f, " end={}:{dice}", show_keep(keep))?;
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn ranges(text: &str) -> Result<BTreeSet<usize>, String> {
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(number(first)? as usize..=number(last)? as usize);
    }
    Ok(all)
}

fn cut(text: &str) -> Result<Cut, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [point, keep, dice] = parts[..] else { return Err(format!("{text:?}: point:policy:dice")) };
    let (point, dice) = (number(point)? as usize, number(dice)?);
    Ok(Cut { point, keep: parse_keep(keep)?, dice })
}

/// Names of the policies, as the test plan has them.
const POLICIES: [(&str, Keep); 8] = [
    ("P0", Keep::Nothing),
    ("P1", Keep::All),
    ("P2", Keep::Prefix),
    ("P3", Keep::Bytes),
    ("P4", Keep::Sectors),
    ("P5", Keep::Names),
    ("P6", Keep::Any),
    ("torn", Keep::Torn),
];

pub fn show_keep(keep: Keep) -> String {
    match POLICIES.iter().find(|(_, policy)| *policy == keep) {
        Some((name, _)) => (*name).to_owned(),
        None => match keep {
            Keep::Subset(mask) => format!("PX{mask:x}"),
            _ => unreachable!("all others have names"),
        },
    }
}

fn parse_keep(text: &str) -> Result<Keep, String> {
    if let Some(mask) = text.strip_prefix("PX") {
        let mask = u64::from_str_radix(mask, 16);
        return mask.map(Keep::Subset).map_err(|_| format!("no policy {text:?}"));
    }
    let policy = POLICIES.iter().find(|(name, _)| *name == text);
    policy.map(|(_, keep)| *keep).ok_or_else(|| format!("no policy {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_its_line() {
        for line in [
            "kv seed=7 ops=90",
            "kv seed=7 ops=90 drop=3,5-9,11 crash=123:P4:55 again=4:PX1f:9",
            "gc seed=1 ops=3 fault=sync:3:half:sticky:.log fault=panic:4 end=P0:7",
            "gc seed=1 ops=3 fault=full:2:100:9 fault=store:put:3:lost:once",
            "damage seed=12",
        ] {
            assert_eq!(Case::parse(line).unwrap().to_string(), line);
        }
        for line in ["", "no seed=1", "kv seed", "kv crash=1:P9:2", "kv fault=what:1:io:once"] {
            assert!(Case::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn operations_do_not_depend_on_their_neighbours() {
        let workload = Workload::named("kv").unwrap();
        let whole: Vec<String> = Case::new(workload, 3).run().map(|op| format!("{op:?}")).collect();
        let case = Case { dropped: BTreeSet::from([0, 7]), ..Case::new(workload, 3) };
        let part: Vec<String> = case.run().map(|op| format!("{op:?}")).collect();
        assert_eq!(part.len(), whole.len() - 2);
        assert_eq!(part[0], whole[1]);
        assert_eq!(part[6..], whole[8..]);
    }
}
