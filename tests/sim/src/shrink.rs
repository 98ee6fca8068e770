//! Makes a failing case smaller: leaves out operations, then faults.

use std::collections::BTreeSet;

use crate::case::{Case, DAMAGE, FILTER, HOSTILE, PROGRAM};
use crate::crash::{Depth, POLICIES, Violation, directly};
use crate::stats::Stats;
use crate::{crash, damage, fault, filter, hostile, programs};

/// Judges exactly what a case names.
pub fn judge(case: &Case) -> Result<(), String> {
    let text = |violation: Violation| violation.text;
    match case.workload {
        PROGRAM => return programs::run(case.seed).map(drop).map_err(text),
        DAMAGE => return damage::run(case.seed).map(drop).map_err(text),
        HOSTILE => return hostile::run(case.seed).map(drop).map_err(text),
        FILTER => return filter::run(case.seed).map_err(text),
        _ => {}
    }
    match case.faults.is_empty() {
        true => crash::replay(case),
        false => fault::run(case, &mut Stats::default()).map(drop),
    }
}

/// A violation of a case with fewer operations. Moments and turns shift when operations are left out:
/// all are tried, as far as the kind of the violation needs.
fn search(case: &Case) -> Option<Violation> {
    let stats = &mut Stats::default();
    if case.faults.is_empty() {
        let depth = Depth {
            policies: POLICIES,
            rounds: if case.crash.is_some() { 2 } else { 0 },
            subsets: case.workload().micro,
            again_every: u64::from(case.again.is_some()),
        };
        return crash::sweep(case, directly, depth, stats, &|| true).err();
    }
    // The same fault, at the same turn or an earlier one.
    let turns = (0..8).filter_map(|back| case.earlier(back));
    turns
        .into_iter()
        .find_map(|case| fault::run(&case, stats).err().map(|text| Violation::new(&case, text)))
}

/// Prints the smallest failing case that it finds; `true` if the case does not fail at all.
pub fn shrink(case: &Case) -> bool {
    let Err(text) = judge(case) else {
        println!("holds: {case}");
        return true;
    };
    if case.ops == 0 {
        println!("{text}\nviolated, and as small as this harness makes it: {case}");
        return false;
    }
    let mut best = Violation::new(case, text);
    let mut size = best.case.ops.div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let kept: Vec<usize> =
            (0..best.case.ops).filter(|place| !best.case.dropped.contains(place)).collect();
        for part in kept.chunks(size) {
            let mut dropped: BTreeSet<usize> = best.case.dropped.clone();
            dropped.extend(part);
            if let Some(found) = search(&Case { dropped, ..*best.case.clone() }) {
                eprintln!(
                    "{} operations: {}",
                    best.case.ops - found.case.dropped.len(),
                    found.case
                );
                best = found;
                smaller = true;
            }
        }
        if size == 1 && !smaller {
            break;
        }
        size = size.div_ceil(2);
    }
    for i in (0..best.case.faults.len()).rev().filter(|_| best.case.faults.len() > 1) {
        let mut faults = best.case.faults.clone();
        faults.remove(i);
        let case = Case { faults, ..*best.case.clone() };
        if let Err(text) = judge(&case) {
            best = Violation::new(&case, text);
            break;
        }
    }
    for op in best.case.run() {
        println!("  {op:?}");
    }
    println!("{}\nviolated: {}", best.text, best.case);
    false
}
