//! Power cuts: one life is recorded, and its disk judged at every moment, under every policy.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use alluvium::DiskEffect as Effect;
use alluvium::{Fs, Keep, MemFs, Recording};
use alluvium_report::Rng;

use crate::case::{Case, Cut, show_keep};
use crate::judge::{Found, Judge};
use crate::model::{Check, History};
use crate::stats::Stats;
use crate::world::{Faults, World};

/// Policies of every moment: each of the plan once, and those with dice again.
pub const POLICIES: &[Keep] =
    &[Keep::Nothing, Keep::All, Keep::Prefix, Keep::Bytes, Keep::Sectors, Keep::Names, Keep::Any];
/// Policies of a second power cut.
const AGAIN: [Keep; 3] = [Keep::Nothing, Keep::Names, Keep::Any];
/// All subsets of at most this many effects are tried.
const SUBSETS_OF: usize = 12;
/// While a small protocol is under way there are never more than these, and all subsets are tried, too.
const PROTOCOL_MAX: usize = 14;
/// As many, at random, of more.
const SUBSETS_MAX: u64 = 64;

/// The last effects of a life are its end: the close, if it was closed.
const END: usize = 6;

/// How a database comes to its disk.
pub type Door = fn(&MemFs) -> Arc<dyn Fs>;

/// Without detours.
pub fn directly(disk: &MemFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

/// A life, lived once.
pub struct Life {
    pub recording: Recording,
    pub history: History,
    pub model_ops: u64,
}

/// A contradiction, and the line that shows it again.
#[derive(Clone, Debug)]
pub struct Violation {
    pub case: Box<Case>,
    pub text: String,
}

impl Violation {
    pub fn new(case: &Case, text: String) -> Violation {
        Violation { case: Box::new(case.clone()), text }
    }
}

/// How much of a life is judged.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// What is kept at each moment,
    pub policies: &'static [Keep],
    /// this many times with other dice.
    pub rounds: u64,
    /// All subsets of the effects of each moment.
    pub subsets: bool,
    /// Every so many images the recovery is cut short everywhere; 0: never.
    pub again_every: u64,
}

/// Lives a life without faults, recording it. `door` is what the database sees of the disk.
pub fn live(case: &Case, door: Door) -> Check<Life> {
    if case.workload().is_keyed() {
        return crate::keyed::live(case, door);
    }
    caught(|| {
        let disk = MemFs::new();
        disk.record();
        let (workload, fs) = (case.workload(), door(&disk));
        let mut world = World::new(workload, case.seed, disk.clone(), fs, Faults::default());
        world.open()?;
        for op in case.run() {
            world.run(&op).map_err(|e| format!("{op:?}: {e}"))?;
        }
        if case.seed % 4 != 3 {
            world.come_to_rest()?;
            world.close()?;
        }
        let World { history, model_ops, .. } = world;
        Ok(Life { recording: disk.recorded(), history, model_ops })
    })
}

/// Turns a panic into words.
pub fn caught<T>(run: impl FnOnce() -> Check<T>) -> Check<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Judges a life everywhere. `go_on` is asked now and then.
pub fn sweep(
    case: &Case,
    door: Door,
    depth: Depth,
    stats: &mut Stats,
    go_on: &dyn Fn() -> bool,
) -> Result<(), Violation> {
    let bare = Case { crash: None, again: None, ..case.clone() };
    let fail = |text| Violation::new(&bare, text);
    let life = live(&bare, door).map_err(fail)?;
    stats.model_ops += life.model_ops;
    *stats.workloads.entry(case.workload.to_owned()).or_default() += 1;
    if case.seed.is_multiple_of(50) {
        let twin = live(&bare, door).map_err(fail)?;
        if twin.recording.hash() != life.recording.hash() {
            return Err(fail("the same life has other effects".to_owned()));
        }
        stats.determinism_checks += 1;
    }
    let mut replay = life.recording.replay();
    let mut sweep =
        Sweep { case: bare.clone(), depth, life: &life, stats, seen: BTreeSet::new(), at: 0 };
    loop {
        if !go_on() {
            return Ok(());
        }
        sweep.moment(replay.disk(), replay.point())?;
        sweep.stats.crash_points += 1;
        if !replay.step() {
            return Ok(());
        }
    }
}

struct Sweep<'a> {
    case: Case,
    depth: Depth,
    life: &'a Life,
    stats: &'a mut Stats,
    /// Disks that were judged against the promise with the number `at`.
    seen: BTreeSet<u64>,
    at: usize,
}

impl Sweep<'_> {
    fn moment(&mut self, disk: &MemFs, point: usize) -> Result<(), Violation> {
        let promise = self.life.history.at(point);
        if promise.at != self.at {
            self.at = promise.at;
            self.seen.clear();
        }
        for round in 0..self.depth.rounds {
            for (i, &keep) in self.depth.policies.iter().enumerate() {
                let dice = Rng::of(self.case.seed ^ round, (point * 8 + i) as u64).next_u64() >> 40;
                self.image(disk, Cut { point, keep, dice })?;
            }
        }
        if self.depth.subsets {
            let pending = disk.pending();
            let mut rng = Rng::of(self.case.seed, point as u64);
            let protocols = protocols(self.life.recording.effects(), point);
            let all = pending <= SUBSETS_OF || !protocols.is_empty();
            for protocol in protocols {
                if pending > PROTOCOL_MAX {
                    let text = format!("{protocol} at {point}: {pending} effects wait for a sync");
                    return Err(Violation::new(&self.case, text));
                }
                *self.stats.protocols.entry(protocol.to_owned()).or_default() += 1;
            }
            for i in 0..if all { 1 << pending } else { SUBSETS_MAX } {
                let mask = if all { i } else { rng.next_u64() };
                self.image(disk, Cut { point, keep: Keep::Subset(mask), dice: 0 })?;
            }
        }
        Ok(())
    }

    fn image(&mut self, disk: &MemFs, cut: Cut) -> Result<(), Violation> {
        let image = disk.crash_image(cut.keep, cut.dice);
        // After the death of the process alone, more is promised.
        let promised = u64::from(cut.keep == Keep::All);
        if !self.seen.insert(image.fingerprint() ^ promised) {
            self.stats.images_equal += 1;
            return Ok(());
        }
        self.stats.images += 1;
        let policy = if let Keep::Subset(_) = cut.keep { "PX".into() } else { show_keep(cut.keep) };
        *self.stats.policies.entry(policy).or_default() += 1;
        let case = Case { crash: Some(cut), ..self.case.clone() };
        let every = self.depth.again_every;
        let again = every > 0 && self.stats.images.is_multiple_of(every);
        let copy = again.then(|| before_recovery(disk, &image, cut));
        let judge = self.life.judge(&self.case, cut.point);
        let found = caught(|| judge.judge(&image, cut.keep, cut.dice));
        let found = found.map_err(|text| Violation::new(&case, text))?;
        match copy {
            Some(copy) => recovery(&judge, &case, &copy, &found, self.stats),
            None => Ok(()),
        }
    }
}

/// The small protocols that are under way at a moment: from just before a name is changed that decides
/// something until that is durable; and the end of a life.
fn protocols(effects: &[Effect], point: usize) -> Vec<&'static str> {
    let decides = |effect: &Effect| {
        let (Effect::Create { path: name, .. } | Effect::Rename { to: name, .. }) = effect else {
            return None;
        };
        let is_in = |dir| name.parent().is_some_and(|parent| parent.ends_with(dir));
        match effect {
            _ if name.extension().is_some_and(|e| e == "log") => Some("log-rotation"),
            Effect::Rename { .. } if name.ends_with("CURRENT") => Some("current-switch"),
            Effect::Rename { .. } if is_in("checkpoints") => Some("checkpoint-commit"),
            _ => None,
        }
    };
    let undecided = effects[..point].iter().rev();
    let mut undecided = undecided.take_while(|effect| !matches!(effect, Effect::SyncDir { .. }));
    let mut all: Vec<&str> = undecided.find_map(decides).into_iter().collect();
    all.extend(effects.get(point).and_then(decides));
    all.extend((point + END >= effects.len()).then_some("end"));
    all
}

impl Life {
    pub fn judge<'a>(&'a self, case: &Case, point: usize) -> Judge<'a> {
        Judge {
            workload: case.workload(),
            seed: case.seed,
            history: &self.history,
            promise: self.history.at(point),
        }
    }
}

/// The disk on which a recovery is recorded. If only the process died, what waits for a sync still
/// does: a power cut during the recovery may take it.
fn before_recovery(disk: &MemFs, image: &MemFs, cut: Cut) -> MemFs {
    if cut.keep == Keep::All { disk.fork() } else { image.fork() }
}

/// What a recovery that was cut here had shown, which must stay: where the power was cut before, all
/// that was found; after the death of the process alone only what a whole recovery has served.
fn shown<'a>(
    case: &Case,
    recording: &Recording,
    point: usize,
    found: &'a Found,
) -> Option<&'a Found> {
    let died = case.crash.is_some_and(|cut| cut.keep == Keep::All);
    let served = point == recording.effects().len() && *found != Found::Refused;
    (!died || served).then_some(found)
}

/// Cuts the recovery of `disk` short everywhere.
fn recovery(
    judge: &Judge<'_>,
    case: &Case,
    disk: &MemFs,
    found: &Found,
    stats: &mut Stats,
) -> Result<(), Violation> {
    let recording = record_recovery(judge, disk);
    let mut replay = recording.replay();
    let mut seen = BTreeSet::new();
    loop {
        for keep in AGAIN {
            let dice = Rng::of(case.seed, replay.point() as u64).next_u64() >> 40;
            let cut = Cut { point: replay.point(), keep, dice };
            let image = replay.disk().crash_image(keep, dice);
            let shown = shown(case, &recording, cut.point, found);
            if seen.insert(image.fingerprint() ^ u64::from(shown.is_some())) {
                stats.recoveries_crashed += 1;
                caught(|| judge.judge_again(&image, shown, dice)).map_err(|text| {
                    Violation::new(&Case { again: Some(cut), ..case.clone() }, text)
                })?;
            }
        }
        if !replay.step() {
            return Ok(());
        }
    }
}

fn record_recovery(judge: &Judge<'_>, disk: &MemFs) -> Recording {
    disk.record();
    drop(judge.open(disk, 3));
    disk.recorded()
}

/// Runs the one image that a case names.
pub fn replay(case: &Case) -> Check {
    let life = live(&Case { crash: None, again: None, ..case.clone() }, directly)?;
    let Some(cut) = case.crash else { return Ok(()) };
    let mut replay = life.recording.replay();
    replay.seek(cut.point);
    let judge = life.judge(case, cut.point);
    let image = replay.disk().crash_image(cut.keep, cut.dice);
    let copy = before_recovery(replay.disk(), &image, cut);
    let found = caught(|| judge.judge(&image, cut.keep, cut.dice))?;
    let Some(cut) = case.again else { return Ok(()) };
    let recording = record_recovery(&judge, &copy);
    let mut replay = recording.replay();
    replay.seek(cut.point);
    let image = replay.disk().crash_image(cut.keep, cut.dice);
    let shown = shown(case, &recording, cut.point, &found);
    caught(|| judge.judge_again(&image, shown, cut.dice))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ops::WORKLOADS;

    const SEEDS: u64 = 40;

    #[test]
    fn all_subsets_of_what_a_small_protocol_does_can_be_tried() {
        let mut most = BTreeMap::new();
        for workload in WORKLOADS.iter().filter(|workload| workload.micro) {
            for seed in 0..SEEDS {
                let life = live(&Case::new(workload, seed), directly).unwrap();
                let mut replay = life.recording.replay();
                loop {
                    let pending = replay.disk().pending();
                    for protocol in protocols(life.recording.effects(), replay.point()) {
                        let most = most.entry(protocol).or_insert((pending, workload.name, seed));
                        *most = (*most).max((pending, workload.name, seed));
                    }
                    if !replay.step() {
                        break;
                    }
                }
            }
        }
        assert_eq!(most.len(), 4, "{most:?}");
        assert!(most.values().all(|(pending, ..)| *pending < PROTOCOL_MAX), "{most:?}");
    }
}
