//! Keyed state with the log off: what survives is what a checkpoint holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    BackendOptions, CheckpointStore, DirStore, DiskFs, Env, Error, JobCheckpoint, KeyGroupRange,
    ListState, MapState, MemoryBudget, PartInput, Registry, Result, StateBackend, TimerService,
    ValueState, latest_checkpoint, load_checkpoint, restore_checkpoint, verify_checkpoint,
};
use alluvium_report::Rng;

use crate::child::{Voice, Word};

const KEYS: u64 = 60;
const GROUPS: u16 = 16;
const RETAINED: usize = 3;

/// What one key has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfKey {
    value: Option<u64>,
    list: Vec<u32>,
    map: BTreeMap<u32, i64>,
}

/// All state after so many events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub events: u64,
    keys: BTreeMap<u64, OfKey>,
    timers: BTreeSet<(i64, u64)>,
}

/// What event `n` does.
enum Event {
    Add(u64),
    Clear,
    Append(u32),
    Empty,
    Put(u32, i64),
    Remove(u32),
    Register(i64),
    Fire,
}

fn event(seed: u64, n: u64) -> (u64, Event) {
    let mut rng = Rng::of(seed, n);
    let (key, number) = (rng.below(KEYS), rng.below(1000));
    let event = match rng.below(16) {
        0..=4 => Event::Add(number),
        5 => Event::Clear,
        6..=8 => Event::Append(number as u32),
        9 => Event::Empty,
        10..=11 => Event::Put(number as u32 % 30, -(n as i64)),
        12 => Event::Remove(number as u32 % 30),
        13..=14 => Event::Register((n + number) as i64),
        _ => Event::Fire,
    };
    (key, event)
}

impl Model {
    pub fn advance(&mut self, seed: u64, events: u64) {
        for n in self.events + 1..=events {
            let (key, event) = event(seed, n);
            let here = self.keys.entry(key).or_default();
            match event {
                Event::Add(number) => here.value = Some(here.value.unwrap_or(0) + number),
                Event::Clear => here.value = None,
                Event::Append(number) => here.list.push(number),
                Event::Empty => here.list.clear(),
                Event::Put(key, value) => drop(here.map.insert(key, value)),
                Event::Remove(key) => drop(here.map.remove(&key)),
                Event::Register(time) => drop(self.timers.insert((time, key))),
                Event::Fire => drop(self.timers.pop_first()),
            }
        }
        self.events = events;
    }
}

/// A backend with its states.
struct States {
    value: ValueState<u64>,
    list: ListState<u32>,
    map: MapState<u32, i64>,
    timers: TimerService<u64>,
    backend: StateBackend<u64>,
}

impl States {
    fn new(mut backend: StateBackend<u64>) -> Result<States> {
        Ok(States {
            value: backend.value_state("value")?,
            list: backend.list_state("list")?,
            map: backend.map_state("map")?,
            timers: backend.timer_service("timers")?,
            backend,
        })
    }

    fn apply(&mut self, seed: u64, n: u64) -> Result<()> {
        let (key, event) = event(seed, n);
        self.backend.set_current_key(&key)?;
        match event {
            Event::Add(number) => self.value.update_with(|old| Some(old.unwrap_or(0) + number)),
            Event::Clear => self.value.clear(),
            Event::Append(number) => self.list.add(&number),
            Event::Empty => self.list.clear(),
            Event::Put(key, value) => self.map.put(&key, &value),
            Event::Remove(key) => self.map.remove(&key),
            Event::Register(time) => self.timers.register_event_time_timer(&(), time),
            Event::Fire => self.timers.event_time().poll().map(drop),
        }
    }

    /// Reads everything; fires all timers.
    fn read(mut self, events: u64) -> Result<Model> {
        let mut model = Model { events, ..Model::default() };
        for key in 0..KEYS {
            self.backend.set_current_key(&key)?;
            let map = self.map.iter()?.collect::<Result<_>>()?;
            let found = OfKey { value: self.value.value()?, list: self.list.get()?, map };
            if found != OfKey::default() {
                model.keys.insert(key, found);
            }
        }
        while let Some(timer) = self.timers.event_time().poll()? {
            model.timers.insert((timer.time, timer.key));
        }
        Ok(model)
    }
}

pub fn env() -> Env {
    Env::new(MemoryBudget::new(16 << 20))
}

fn options() -> Result<BackendOptions> {
    let mut options = BackendOptions::new(u32::from(GROUPS), KeyGroupRange::new(0, GROUPS - 1)?);
    options.family.memtable_bytes_max = 32 << 10;
    options.family.block_bytes = 512;
    options.family.level_bytes_base = 64 << 10;
    options.family.file_bytes = 32 << 10;
    Ok(options)
}

fn store(dir: &Path) -> Result<DirStore> {
    DirStore::open(Arc::new(DiskFs::new()), dir.join("store"))
}

/// The newest checkpoint restored into the directory `state`, or an empty backend; and how many events
/// are in it.
fn restore(dir: &Path, newest: Option<u64>, env: Env) -> Result<(States, u64)> {
    let state = dir.join("state");
    let _ = std::fs::remove_dir_all(&state);
    let options = options()?;
    let Some(id) = newest else {
        return Ok((States::new(StateBackend::open(&state, options, env)?)?, 0));
    };
    let store = store(dir)?;
    let saved = load_checkpoint(&store, id)?;
    let events = saved.envelope.user.clone().try_into().map(u64::from_be_bytes);
    let events = events.expect("eight bytes, as they were saved");
    let db = restore_checkpoint(&store, &saved, 0..=GROUPS - 1, &state, options.db.clone(), env)?;
    Ok((States::new(StateBackend::from_db(db, options)?)?, events))
}

/// Restores, and goes on with events and checkpoints until the process is killed.
pub fn live(dir: &Path, seed: u64, kill: u64, voice: &Voice) -> Result<()> {
    run(dir, seed, kill, env(), u64::MAX, &|id| voice.say(Word::ACK, 0, id), &|| {
        voice.say(Word::OPEN, 0, 0);
    })
}

/// [`live`] for so many checkpoints, each of which is told.
pub fn run(
    dir: &Path,
    seed: u64,
    part: u64,
    env: Env,
    checkpoints: u64,
    confirmed: &dyn Fn(u64),
    opened: &dyn Fn(),
) -> Result<()> {
    let store: Arc<dyn CheckpointStore> = Arc::new(store(dir)?);
    let registry = Registry::open(Arc::clone(&store), RETAINED)?;
    let newest = latest_checkpoint(&*store)?;
    let (mut states, mut events) = restore(dir, newest, env)?;
    opened();
    let mut rng = Rng::of(seed, !part);
    let mut id = newest.unwrap_or(0);
    for _ in 0..checkpoints {
        for _ in 0..rng.below(400) {
            events += 1;
            states.apply(seed, events)?;
        }
        let (pending, at) = (states.backend.checkpoint()?, events);
        for _ in 0..rng.below(60) {
            events += 1;
            states.apply(seed, events)?;
        }
        id += 1;
        let set = pending.wait()?;
        let job = JobCheckpoint {
            id,
            max_parallelism: u32::from(GROUPS),
            parts: vec![PartInput { first_group: 0, last_group: GROUPS - 1, set: &set }],
            operator_state: Vec::new(),
            user: at.to_be_bytes().to_vec(),
        };
        registry.confirm(&registry.save(&job)?)?;
        confirmed(id);
    }
    Ok(())
}

/// What the store of a killed process must hold: at least checkpoint `acked`, at most one more, whole,
/// and exactly the state after its events. Returns the newest id.
pub fn judge(
    dir: &Path,
    seed: u64,
    acked: u64,
    model: &mut Model,
) -> std::result::Result<u64, String> {
    let told = |e: Error| e.to_string();
    let store = store(dir).map_err(told)?;
    let newest = latest_checkpoint(&store).map_err(told)?;
    let id = newest.unwrap_or(0);
    if !(acked..=acked + 1).contains(&id) {
        return Err(format!("checkpoint {acked} was confirmed, the newest is {id}"));
    }
    let first = id.saturating_sub(RETAINED as u64 - 2).max(1);
    for id in first..=id {
        let saved = load_checkpoint(&store, id).map_err(told)?;
        verify_checkpoint(&store, &saved).map_err(told)?;
    }
    let (states, events) = restore(dir, newest, env()).map_err(told)?;
    model.advance(seed, events);
    let found = states.read(events).map_err(told)?;
    model.keys.retain(|_, of_key| *of_key != OfKey::default());
    match found == *model {
        true => Ok(id),
        false => Err(format!("checkpoint {id} is not the state after {events} events")),
    }
}

/// With the log off, a directory that was not closed is refused; so is one that was being made, or
/// removed, when the process was killed.
pub fn is_refused(dir: &Path) -> std::result::Result<(), String> {
    use alluvium::ErrorKind::{Corruption, Halted, NotFound};
    let options = options().map_err(|e| e.to_string())?;
    let options = alluvium::Options { create_if_missing: false, ..options.db };
    match alluvium::Db::open(&dir.join("state"), options, env()) {
        Ok(_) => Err("a directory that was not closed is opened with the log off".to_owned()),
        Err(e) if matches!(e.kind(), Halted | NotFound | Corruption) => Ok(()),
        Err(e) => Err(format!("a directory that was not closed: {e}")),
    }
}
