//! Faults: operations that fail, at their n-th turn, once or from then on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alluvium::fuzz::keyed;
use alluvium::{FailedSync, Fault, FaultEffect, FaultFs, FaultOp, Fs, Keep, MemFs};
use alluvium_report::Rng;

use crate::case::Case;
use crate::crash::{Violation, caught};
use crate::judge::Judge;
use crate::model::Check;
use crate::stats::Stats;
use crate::store::{FaultStore, REQUESTS, Request, StoreFault, TROUBLES, Trouble};
use crate::world::{Faults, World};

/// One planned fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Of the file system.
    Fs { op: FaultOp, skip: u64, effect: FaultEffect, sticky: bool, suffix: String },
    /// Before this operation so many bytes are left on the disk, until before that operation.
    Full { from: usize, bytes: u64, until: usize },
    /// A compaction filter panics at this decision.
    Panic(u64),
    /// Of the store.
    Store(StoreFault),
}

const OPS: [(&str, FaultOp); 11] = [
    ("create", FaultOp::Create),
    ("append", FaultOp::Append),
    ("reserve", FaultOp::Reserve),
    ("sync", FaultOp::Sync),
    ("open", FaultOp::Open),
    ("read", FaultOp::Read),
    ("rename", FaultOp::Rename),
    ("remove", FaultOp::Remove),
    ("link", FaultOp::Link),
    ("syncdir", FaultOp::SyncDir),
    ("list", FaultOp::List),
];

const EFFECTS: [(&str, FaultEffect); 7] = [
    ("io", FaultEffect::Io),
    ("nospace", FaultEffect::NoSpace),
    ("short", FaultEffect::Short),
    ("flip", FaultEffect::Flip),
    ("done", FaultEffect::Done),
    ("written", FaultEffect::Sync(FailedSync::Written)),
    ("half", FaultEffect::Sync(FailedSync::Half(1))),
];

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plan::Fs { op, skip, effect, sticky, suffix } => {
                let op = OPS.iter().find(|(_, o)| o == op).expect("listed").0;
                let effect = EFFECTS.iter().find(|(_, e)| e == effect).expect("listed").0;
                let often = if *sticky { "sticky" } else { "once" };
                write!(f, "{op}:{skip}:{effect}:{often}")?;
                if suffix.is_empty() { Ok(()) } else { write!(f, ":{suffix}") }
            }
            Plan::Full { from, bytes, until } => write!(f, "full:{from}:{bytes}:{until}"),
            Plan::Panic(n) => write!(f, "panic:{n}"),
            Plan::Store(fault) => fault.fmt(f),
        }
    }
}

fn named<T: Copy>(list: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = list.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| format!("what is {name:?}?"))
}

impl Plan {
    pub fn parse(text: &str) -> Result<Plan, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            ["panic", n] => Ok(Plan::Panic(number(n)?)),
            ["full", from, bytes, until] => Ok(Plan::Full {
                from: number(from)? as usize,
                bytes: number(bytes)?,
                until: number(until)? as usize,
            }),
            ["store", request, skip, trouble, often] => Ok(Plan::Store(StoreFault {
                request: named(&REQUESTS, request)?,
                skip: number(skip)?,
                trouble: named(&TROUBLES, trouble)?,
                sticky: often == "sticky",
            })),
            [op, skip, effect, often] | [op, skip, effect, often, _] => Ok(Plan::Fs {
                op: named(&OPS, op)?,
                skip: number(skip)?,
                effect: named(&EFFECTS, effect)?,
                sticky: often == "sticky",
                suffix: parts.get(4).unwrap_or(&"").to_string(),
            }),
            _ => Err(format!("no fault {text:?}")),
        }
    }

    /// What it is counted as.
    pub fn kind(&self) -> String {
        match self {
            Plan::Fs { op, effect, sticky, .. } => {
                let op = OPS.iter().find(|(_, o)| o == op).expect("listed").0;
                let effect = EFFECTS.iter().find(|(_, e)| e == effect).expect("listed").0;
                format!("{op}-{effect}{}", if *sticky { "-sticky" } else { "" })
            }
            Plan::Full { .. } => "full".to_owned(),
            Plan::Panic(_) => "panic".to_owned(),
            Plan::Store(fault) => {
                let text = fault.to_string();
                let parts: Vec<&str> = text.split(':').collect();
                format!("store-{}-{}", parts[1], parts[3])
            }
        }
    }
}

/// A job with keyed state that fails and starts again: see [`alluvium::fuzz::keyed`].
fn run_keyed(case: &Case, stats: &mut Stats) -> Check<bool> {
    let bytes = |choice: u64| {
        let [what, key, n, ..] = choice.to_le_bytes();
        [what, key, n]
    };
    let fault = case.faults.iter().find_map(|plan| match plan {
        Plan::Fs { op, skip, effect, sticky, suffix } => {
            let fault = Fault::new(*op, *skip).effect(*effect).suffix(suffix);
            Some(if *sticky { fault.sticky() } else { fault })
        }
        _ => None,
    });
    let ops: Vec<[u8; 3]> = case.run().map(|op| bytes(op.choice)).collect();
    stats.model_ops += ops.len() as u64;
    let log = case.seed.is_multiple_of(2);
    let program = keyed::Program { log, ops, fault, cut: case.end };
    caught(|| Ok(keyed::run(&program)))
}

/// Runs a case with its faults; `false` if none of them struck.
pub fn run(case: &Case, stats: &mut Stats) -> Check<bool> {
    if case.workload().is_keyed() {
        return run_keyed(case, stats);
    }
    let disk = MemFs::new();
    let fs = FaultFs::new(Arc::new(disk.clone()));
    let door: Arc<dyn Fs> = Arc::new(fs.clone());
    let mut faults = Faults { fs: Some(fs.clone()), ..Faults::default() };
    for plan in &case.faults {
        match plan {
            Plan::Fs { op, skip, effect, sticky, suffix } => {
                let fault = Fault::new(*op, *skip).effect(*effect).suffix(suffix);
                fs.plan(if *sticky { fault.sticky() } else { fault });
            }
            Plan::Full { .. } => {}
            Plan::Panic(n) => faults.panic = Some(Arc::new(AtomicI64::new(*n as i64))),
            Plan::Store(fault) => faults.store = Some(Arc::new(FaultStore::new(*fault))),
        }
    }
    let mut world = World::new(case.workload(), case.seed, disk.clone(), door, faults);
    let outcome = caught(|| {
        world.open()?;
        for (place, op) in case.run().enumerate() {
            set_capacity(case, &disk, place, &mut world.faults);
            world.run(&op).map_err(|e| format!("{op:?}: {e}"))?;
        }
        // The trouble is over.
        fs.clear();
        disk.set_capacity(None);
        if let Some(panic) = &world.faults.panic
            && panic.load(Ordering::SeqCst) >= 0
        {
            panic.store(i64::MAX, Ordering::SeqCst);
        }
        if let Some(store) = &world.faults.store {
            store.clear();
        }
        world.come_to_rest()
    });
    stats.model_ops += world.model_ops;
    let struck = world.faults.struck();
    let outcome = outcome.and_then(|()| caught(|| end(case, &disk, &mut world)));
    outcome.map(|()| struck)
}

fn set_capacity(case: &Case, disk: &MemFs, place: usize, faults: &mut Faults) {
    for plan in &case.faults {
        if let Plan::Full { from, bytes, until } = plan {
            if place == *from {
                disk.set_capacity(Some(disk.total_bytes() + bytes));
                faults.full = true;
            } else if place == *until {
                disk.set_capacity(None);
            }
        }
    }
}

/// The power is cut at the end, or only the process dies, or it ends in order.
fn end(case: &Case, disk: &MemFs, world: &mut World) -> Check {
    let (keep, dice) = match case.end {
        Some(end) => end,
        None => {
            world.close()?;
            (Keep::All, 0)
        }
    };
    let image = disk.crash_image(keep, dice);
    world.abandon()?;
    if world.refused {
        return Ok(());
    }
    let promise = world.history.now().clone();
    let judge = Judge {
        workload: case.workload(),
        seed: case.seed,
        history: &world.history,
        promise: &promise,
    };
    judge.judge(&image, keep, dice).map(drop)
}

/// Every kind of fault that a life can meet.
fn plans(store: bool) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (_, op) in OPS {
        let effects: &[FaultEffect] = match op {
            FaultOp::Append => &[FaultEffect::Io, FaultEffect::NoSpace, FaultEffect::Short],
            FaultOp::Create | FaultOp::Reserve => &[FaultEffect::Io, FaultEffect::NoSpace],
            FaultOp::Read => &[FaultEffect::Io, FaultEffect::Flip],
            FaultOp::Sync => &[
                FaultEffect::Io,
                FaultEffect::Sync(FailedSync::Written),
                FaultEffect::Sync(FailedSync::Half(1)),
            ],
            FaultOp::Rename | FaultOp::SyncDir => &[FaultEffect::Io, FaultEffect::Done],
            FaultOp::Link if !store => &[],
            FaultOp::Remove => &[FaultEffect::Io, FaultEffect::Done],
            _ => &[FaultEffect::Io],
        };
        for effect in effects {
            for sticky in [false, true] {
                // Damage in the log's unsynced tail looks like a tear.
                let suffix = if *effect == FaultEffect::Flip { ".sst" } else { "" }.to_owned();
                plans.push(Plan::Fs { op, skip: 0, effect: *effect, sticky, suffix });
            }
        }
    }
    if store {
        for (_, request) in REQUESTS {
            let troubles: &[Trouble] = match request {
                Request::Put => &[Trouble::Before, Trouble::Lost, Trouble::Repeated],
                Request::Get => &[Trouble::Before, Trouble::Truncated],
                Request::List => &[Trouble::Before, Trouble::Stale],
                Request::Delete => &[Trouble::Before, Trouble::Lost, Trouble::Repeated],
            };
            for &trouble in troubles {
                // A store that answers every request twice gives no name at all.
                for sticky in
                    [false, true].into_iter().take(1 + usize::from(trouble != Trouble::Repeated))
                {
                    plans.push(Plan::Store(StoreFault { request, skip: 0, trouble, sticky }));
                }
            }
        }
    }
    plans.push(Plan::Panic(0));
    plans.push(Plan::Full { from: 0, bytes: 0, until: 0 });
    plans
}

impl Plan {
    /// The same fault, so many turns earlier.
    pub fn earlier(&self, turns: u64) -> Option<Plan> {
        let mut plan = self.clone();
        match &mut plan {
            Plan::Fs { skip, .. } => *skip = skip.checked_sub(turns)?,
            Plan::Full { from, .. } => *from = from.checked_sub(turns as usize)?,
            Plan::Panic(decision) => *decision = decision.checked_sub(turns)?,
            Plan::Store(fault) => fault.skip = fault.skip.checked_sub(turns)?,
        }
        Some(plan)
    }

    /// The same fault, n turns later.
    fn turn(&self, n: u64, ops: usize, rng: &mut Rng) -> Plan {
        let mut plan = self.clone();
        match &mut plan {
            Plan::Fs { skip, effect, .. } => {
                *skip = n;
                if let FaultEffect::Sync(FailedSync::Half(seed)) = effect {
                    *seed = 1; // in the line there is no room for another
                }
            }
            Plan::Full { from, bytes, until } => {
                *from = n as usize;
                *bytes = rng.below(3000);
                *until = *from + 1 + rng.below(ops as u64 / 3) as usize;
            }
            Plan::Panic(decision) => *decision = n,
            Plan::Store(fault) => fault.skip = n,
        }
        plan
    }
}

/// Every kind of fault, at its first turn, its second, and so on, until a life passes without one.
/// Only every `stride`-th turn is taken, from one that the seed chooses.
pub fn sweep(
    case: &Case,
    stride: u64,
    stats: &mut Stats,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Violation> {
    let keyed = case.workload().is_keyed();
    let store = case.workload().has_store() || keyed;
    let mut rng = Rng::of(case.seed, 99);
    for plan in plans(store) {
        if keyed && !matches!(plan, Plan::Fs { .. }) {
            continue; // its store is the file system's
        }
        let mut turn = rng.below(stride);
        loop {
            if !go_on() {
                return Ok(());
            }
            let end = match rng.below(4) {
                0 => None,
                1 => Some((Keep::All, 0)),
                2 => Some((Keep::Nothing, 0)),
                _ => Some((Keep::Any, rng.below(1000))),
            };
            let plan = plan.turn(turn, case.ops, &mut rng);
            let past = matches!(plan, Plan::Full { from, .. } if from >= case.ops);
            let kind = match keyed {
                true => format!("keyed-{}", plan.kind()),
                false => plan.kind(),
            };
            let case = Case { faults: vec![plan], end, ..case.clone() };
            let struck = run(&case, stats).map_err(|text| Violation::new(&case, text))?;
            if !struck || past {
                break;
            }
            *stats.faults.entry(kind).or_default() += 1;
            turn += stride;
        }
    }
    Ok(())
}
