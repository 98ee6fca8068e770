//! Keyed state: a backend with a value, a list and a map state, judged as a database is.

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    BackendOptions, Fs, Keep, KeyGroupRange, ListState, MapState, MemFs, Result, StateBackend,
    ValueState,
};
use alluvium_report::Rng;

use crate::case::Case;
use crate::crash::{Door, Life, caught};
use crate::judge::{Found, Judge};
use crate::model::{Check, History, Map, State, ensure};
use crate::ops::{Op, Workload, family_options};
use crate::world::{DIR, env};

const KEYS: i64 = 6;
const GROUPS: u16 = 4;
const STATES: [&str; 3] = ["value", "list", "map"];

struct Keyed {
    backend: StateBackend<i64>,
    value: ValueState<String>,
    list: ListState<i64>,
    map: MapState<u8, String>,
}

impl Keyed {
    fn open(workload: &Workload, seed: u64, fs: Arc<dyn Fs>, dice: u64) -> Result<Keyed> {
        let groups = KeyGroupRange::new(0, GROUPS - 1)?;
        let mut options = BackendOptions::new(u32::from(GROUPS), groups);
        options.db = workload.options(seed, true);
        options.family = family_options(seed, "keyed");
        options.family.merge_operator = None;
        let env = env(fs, Rng::of(seed, dice).next_u64());
        let mut backend = StateBackend::open(Path::new(DIR), options, env)?;
        let value = backend.value_state("value")?;
        let list = backend.list_state("list")?;
        let map = backend.map_state("map")?;
        Ok(Keyed { backend, value, list, map })
    }

    /// Closes the backend, or only drops it.
    fn end(self, in_order: bool) -> Result<()> {
        let Keyed { backend, value, list, map } = self;
        drop((value, list, map)); // they hold the directory
        if in_order { backend.close() } else { Ok(()) }
    }

    /// What all states hold for all keys: text for the value, bytes for the rest.
    fn read(&mut self) -> Result<State> {
        let mut state = empty();
        for key in 0..KEYS {
            self.backend.set_current_key(&key)?;
            let mut put = |name: &str, key: Vec<u8>, value: Vec<u8>| {
                state.get_mut(name).expect("a state").insert(key, value);
            };
            if let Some(value) = self.value.value()? {
                put("value", vec![key as u8], value.into_bytes());
            }
            let list = self.list.get()?;
            if !list.is_empty() {
                put("list", vec![key as u8], list.iter().flat_map(|n| n.to_be_bytes()).collect());
            }
            for entry in self.map.iter()? {
                let (user_key, value) = entry?;
                put("map", vec![key as u8, user_key], value.into_bytes());
            }
        }
        Ok(state)
    }
}

fn empty() -> State {
    STATES.iter().map(|name| ((*name).to_owned(), Map::new())).collect()
}

/// A life as [`crash::live`](crate::crash::live) lives it.
pub fn live(case: &Case, door: Door) -> Check<Life> {
    caught(|| {
        let disk = MemFs::new();
        disk.record();
        let mut history = History::new(true);
        history.states = vec![Arc::new(empty())];
        let mut keyed = open(case, &disk, door, &mut history, 1)?;
        let mut model_ops = 0;
        for (place, op) in case.run().enumerate() {
            model_ops += 1;
            let failed = |e| format!("{op:?}: {e}");
            let at = disk.recorded_len();
            match op.choice % 24 {
                0 | 1 => {
                    keyed.backend.db().flush_all().map_err(failed)?;
                    history.promise(disk.recorded_len(), |p| p.durable = p.acked);
                }
                2 | 3 => {
                    keyed.backend.db().sync_wal().map_err(failed)?;
                    history.promise(disk.recorded_len(), |p| p.durable = p.acked);
                }
                4..7 => drop(keyed.backend.db().step(op.choice >> 8).map_err(failed)?),
                7 => {
                    keyed.end(op.choice & 1 << 20 == 0).map_err(failed)?;
                    keyed = open(case, &disk, door, &mut history, place as u64 + 2)?;
                }
                _ => {
                    let mut next = State::clone(history.current());
                    history.promise(at, |p| p.issued += 1);
                    change(&mut keyed, &mut next, &op).map_err(failed)?;
                    history.states.push(Arc::new(next));
                    let durable = case.workload().options(case.seed, true).sync;
                    history.promise(disk.recorded_len(), |p| {
                        p.acked = p.issued;
                        p.durable = if durable { p.acked } else { p.durable };
                    });
                }
            }
        }
        let found = keyed.read().map_err(|e| format!("reading: {e}"))?;
        ensure!(found == **history.current(), "now: {found:?}");
        drop(keyed);
        Ok(Life { recording: disk.recorded(), history, model_ops })
    })
}

fn open(case: &Case, disk: &MemFs, door: Door, history: &mut History, dice: u64) -> Check<Keyed> {
    let keyed = Keyed::open(case.workload(), case.seed, door(disk), dice);
    let mut keyed = keyed.map_err(|e| format!("open: {e}"))?;
    let found = keyed.read().map_err(|e| format!("reading: {e}"))?;
    ensure!(found == **history.current(), "opened: {found:?}");
    history.promise(disk.recorded_len(), |p| p.durable = p.acked);
    Ok(keyed)
}

/// One change of one state, which is one commit.
fn change(keyed: &mut Keyed, next: &mut State, op: &Op) -> Result<()> {
    let mut rng = Rng::of(op.choice, 7);
    let key = rng.below(KEYS as u64) as i64;
    keyed.backend.set_current_key(&key)?;
    let cell = vec![key as u8];
    let text = format!("{}-{}", op.number, "x".repeat(rng.below(60) as usize));
    let user_key = rng.below(5) as u8;
    let entry = vec![key as u8, user_key];
    let mut of = |name: &str| next.get_mut(name).map(std::mem::take).expect("a state");
    let (name, map) = match rng.below(10) {
        0..=2 => {
            keyed.value.update(&text)?;
            let mut map = of("value");
            map.insert(cell, text.into_bytes());
            ("value", map)
        }
        3 => {
            keyed.value.clear()?;
            let mut map = of("value");
            map.remove(&cell);
            ("value", map)
        }
        4 | 5 => {
            let element = op.number as i64;
            keyed.list.add(&element)?;
            let mut map = of("list");
            map.entry(cell).or_default().extend(element.to_be_bytes());
            ("list", map)
        }
        6 => {
            let elements = [op.number as i64, -1];
            keyed.list.update(&elements)?;
            let mut map = of("list");
            map.insert(cell, elements.iter().flat_map(|n| n.to_be_bytes()).collect());
            ("list", map)
        }
        7 | 8 => {
            keyed.map.put(&user_key, &text)?;
            let mut map = of("map");
            map.insert(entry, text.into_bytes());
            ("map", map)
        }
        _ => {
            keyed.map.remove(&user_key)?;
            let mut map = of("map");
            map.remove(&entry);
            ("map", map)
        }
    };
    next.insert(name.to_owned(), map);
    Ok(())
}

/// Judges a disk after a power cut.
pub fn judge(judge: &Judge<'_>, disk: &MemFs, keep: Keep, dice: u64) -> Check<Found> {
    let Judge { workload, seed, history, promise } = judge;
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let mut keyed = Keyed::open(workload, *seed, fs.clone(), dice << 2 | 1 << 50)
        .map_err(|e| format!("open: {e}"))?;
    let found = keyed.read().map_err(|e| format!("reading: {e}"))?;
    let least = if keep == Keep::All { promise.acked } else { promise.durable };
    // A change that is under way has no state in the model yet when it fails.
    let last = promise.issued.min(history.states.len() - 1);
    let at = (least..=last).rev().find(|at| *history.states[*at] == found);
    let Some(at) = at else {
        return Err(format!("found no state from {least} to {last}: {found:?}"));
    };
    keyed.backend.db().verify().map_err(|e| format!("verify: {e}"))?;
    let mut next = found.clone();
    for i in 0..4 {
        let choice = Rng::of(dice, at as u64 + i).next_u64();
        let mut op = workload.op(*seed, 10_000 + i as usize);
        op.choice = choice;
        change(&mut keyed, &mut next, &op).map_err(|e| format!("afterwards: {e}"))?;
    }
    let now = keyed.read().map_err(|e| format!("reading: {e}"))?;
    ensure!(now == next, "afterwards: {now:?} instead of {next:?}");
    keyed.end(true).map_err(|e| format!("close: {e}"))?;
    let mut keyed = Keyed::open(workload, *seed, fs, dice << 2 | 1 << 51)
        .map_err(|e| format!("open again: {e}"))?;
    let again = keyed.read().map_err(|e| format!("reading: {e}"))?;
    ensure!(again == next, "opened again: {again:?} instead of {next:?}");
    Ok(Found::State(found))
}
