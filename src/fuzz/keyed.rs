//! A job with keyed state that fails and starts again: what it reads is what plain collections hold.
//!
//! One or two instances with a value, a list, a map, a value that expires, timers and operator state,
//! on a disk that fails. The first error that a fault causes ends the job, as Flink ends a task. It
//! starts again with its log, and finds the state before or after the operation that failed; or, with
//! the log off, from the newest checkpoint, at any parallelism, and finds exactly that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::base::error::{Error, Result};
use crate::base::sync::{Arc, AtomicU64, Ordering};
use crate::cache::budget::MemoryBudget;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::{load, restore};
use crate::checkpoint::save::{JobCheckpoint, PartInput};
use crate::checkpoint::store::DirStore;
use crate::db::options::{Env, Options};
use crate::fs::fault::{Effect, Fault, FaultFs, Op};
use crate::fs::memory::MemFs;
use crate::fs::memory::image::Keep;
use crate::state::backend::StateBackend;
use crate::state::evolution::{Compatibility, SerializerSnapshot};
use crate::state::key_group::{JavaHash, KeyGroupRange, assign, operator_index};
use crate::state::list::ListState;
use crate::state::map::MapState;
use crate::state::operator::OperatorState;
use crate::state::operator_snapshot::{OperatorSnapshot, redistribute};
use crate::state::options::BackendOptions;
use crate::state::rescale::key_group_ranges;
use crate::state::serializer::{Serializer, builtin};
use crate::state::timer::TimerService;
use crate::state::ttl::{Clock, TtlConfig};
use crate::state::value::ValueState;

const GROUPS: u32 = 8;
const KEYS: i64 = 6;
const TTL: i64 = 20;
const OPS_MAX: usize = 100;
const VERSION_MAX: u32 = 9;

/// A program: what is done, and what goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Each write is synced to the log; else there is none.
    pub log: bool,
    /// What to do, to which key, and a number with some meaning for it.
    pub ops: Vec<[u8; 3]>,
    /// What fails.
    pub fault: Option<Fault>,
    /// When it fails, the power is cut too, and so much is kept.
    pub cut: Option<(Keep, u64)>,
}

impl Program {
    /// Any bytes are a program.
    pub fn decode(bytes: &[u8]) -> Program {
        let Some((&[head, op, skip, effect], rest)) = bytes.split_first_chunk() else {
            return Program::default();
        };
        let effects = [Effect::Io, Effect::NoSpace, Effect::Short, Effect::Done];
        let fault = Fault::new(Op::ALL[usize::from(op) % Op::ALL.len()], skip.into());
        let fault = fault.effect(effects[usize::from(effect) % effects.len()]);
        let fault = if effect & 0x80 == 0 { fault } else { fault.sticky() };
        let keeps = [None, Some(Keep::Nothing), Some(Keep::Any), Some(Keep::All)];
        let cut = keeps[usize::from(head >> 1) % keeps.len()].map(|keep| (keep, skip.into()));
        Program {
            log: head & 1 == 1,
            ops: rest.as_chunks().0.iter().copied().take(OPS_MAX).collect(),
            fault: (head & 0x40 != 0).then_some(fault),
            cut,
        }
    }
}

/// Runs a program; whether its fault struck.
///
/// # Panics
/// If anything is not as it should be.
pub fn run(program: &Program) -> bool {
    let mut job = Job::new(program);
    if let Err(e) = job.begin() {
        job.fail(&e, Plain::default());
    }
    for op in &program.ops {
        let before = job.plain.clone();
        match job.apply(*op) {
            Ok(()) => {
                if let Err(e) = job.look() {
                    job.fail(&e, job.plain.clone());
                }
            }
            Err(e) => job.fail(&e, before),
        }
    }
    job.fs.clear();
    job.struck |= job.fs.struck() > 0;
    job.look().expect("the trouble is over");
    job.checkpoint().expect("the trouble is over");
    job.start_from(job.confirmed, 3 - job.instances.len()).expect("the trouble is over");
    job.look().expect("the trouble is over");
    job.struck
}

/// A string; later versions have a mark in front.
struct Text(u32);

impl Serializer for Text {
    type Value = String;

    fn name(&self) -> &str {
        "text"
    }

    fn version(&self) -> u32 {
        self.0
    }

    fn fixed_len(&self) -> Option<usize> {
        None
    }

    fn encode(&self, value: &String, out: &mut Vec<u8>) {
        out.push(self.0 as u8);
        out.extend_from_slice(value.as_bytes());
    }

    fn decode(&self, bytes: &[u8]) -> Result<String> {
        match bytes.split_first() {
            Some((&version, text)) if u32::from(version) == self.0 => {
                Ok(String::from_utf8_lossy(text).into_owned())
            }
            _ => Err(Error::corruption(format!("no text of version {}", self.0)).at(0)),
        }
    }

    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<String> {
        match stored.version < self.0 {
            true => Compatibility::AfterMigration(Arc::new(Text(stored.version))),
            false => Compatibility::if_equal(&self.snapshot(), stored),
        }
    }
}

/// All state as plain collections.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain {
    text: BTreeMap<i64, String>,
    list: BTreeMap<i64, Vec<i64>>,
    map: BTreeMap<(i64, u8), String>,
    /// With the time of the last write.
    brief: BTreeMap<i64, (i64, String)>,
    /// Time and key.
    timers: BTreeSet<(i64, i64)>,
    /// Operator state: of all instances together, sorted.
    split: Vec<i64>,
}

impl Plain {
    /// What can be seen at this time, the times themselves left out.
    fn visible(mut self, now: i64) -> Plain {
        self.brief.retain(|_, (time, _)| *time > now - TTL);
        self.brief.values_mut().for_each(|(time, _)| *time = 0);
        self
    }
}

/// The handles of one instance.
struct Instance {
    groups: KeyGroupRange,
    backend: StateBackend<i64>,
    text: ValueState<String>,
    list: ListState<i64>,
    map: MapState<u8, String>,
    brief: ValueState<String>,
    timers: TimerService<i64>,
}

struct Job {
    log: bool,
    cut: Option<(Keep, u64)>,
    disk: MemFs,
    fs: FaultFs,
    /// A fault has struck, on this disk or on one before a power cut.
    struck: bool,
    clock: Arc<AtomicU64>,
    /// Of the serializer of texts: it only grows.
    version: u32,
    instances: Vec<Instance>,
    operators: Vec<OperatorState>,
    /// Key groups and directories of the instances, also while they are down.
    places: Vec<(KeyGroupRange, PathBuf)>,
    plain: Plain,
    registry: Option<(Arc<DirStore>, Registry)>,
    /// What each checkpoint that may exist holds.
    attempted: BTreeMap<u64, Plain>,
    confirmed: Option<u64>,
    openings: u64,
}

impl Job {
    fn new(program: &Program) -> Job {
        let disk = MemFs::new();
        let fs = FaultFs::new(Arc::new(disk.clone()));
        if let Some(fault) = &program.fault {
            fs.plan(fault.clone());
        }
        Job {
            log: program.log,
            cut: program.cut,
            disk,
            fs,
            struck: false,
            clock: Arc::new(AtomicU64::new(100)),
            version: 1,
            instances: Vec::new(),
            operators: Vec::new(),
            places: Vec::new(),
            plain: Plain::default(),
            registry: None,
            attempted: BTreeMap::new(),
            confirmed: None,
            openings: 0,
        }
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed) as i64
    }

    fn env(&mut self) -> Env {
        self.openings += 1;
        let budget = MemoryBudget::new(8 << 20);
        Env::simulated(Arc::new(self.fs.clone()), budget, self.openings)
    }

    fn options(&self, groups: KeyGroupRange) -> BackendOptions {
        let mut options = BackendOptions::new(GROUPS, groups);
        options.db = Options { log: self.log, sync: self.log, ..Options::default() };
        options.db.log_segment_bytes = 1500;
        options.family.memtable_bytes_max = 4 << 10;
        options.family.block_bytes = 128;
        options.family.l0_depth_trigger = 2;
        options.ttl.insert("brief".to_owned(), TtlConfig::new(TTL).expect("positive"));
        let clock = Arc::clone(&self.clock);
        options.clock = Some(Clock::new(move || clock.load(Ordering::Relaxed) as i64));
        options
    }

    fn instance(&self, groups: KeyGroupRange, mut backend: StateBackend<i64>) -> Result<Instance> {
        let (unit, text) = (builtin::<()>(), Text(self.version));
        Ok(Instance {
            groups,
            text: backend.value_state_with("text", unit, text)?,
            list: backend.list_state("list")?,
            map: backend.map_state("map")?,
            brief: backend.value_state("brief")?,
            timers: backend.timer_service("timers")?,
            backend,
        })
    }

    fn new_places(&mut self, parallelism: usize) -> Vec<(KeyGroupRange, PathBuf)> {
        let ranges = key_group_ranges(GROUPS, parallelism as u32).expect("a few");
        let dir = |groups| {
            self.openings += 1;
            (groups, PathBuf::from(format!("instance-{}", self.openings)))
        };
        ranges.into_iter().map(dir).collect()
    }

    /// Two new instances.
    fn begin(&mut self) -> Result<()> {
        self.places = self.new_places(2);
        self.operators = vec![OperatorState::new(), OperatorState::new()];
        self.open()
    }

    /// Opens all instances where they are.
    fn open(&mut self) -> Result<()> {
        self.instances.clear();
        for place in self.places.clone() {
            let (options, env) = (self.options(place.0), self.env());
            let backend = StateBackend::open(&place.1, options, env)?;
            let instance = self.instance(place.0, backend)?;
            self.instances.push(instance);
        }
        Ok(())
    }

    fn open_store(&mut self) -> Result<()> {
        if self.registry.is_none() {
            let store = Arc::new(DirStore::open(Arc::new(self.fs.clone()), "store")?);
            let registry = Registry::open(Arc::<DirStore>::clone(&store), 2)?;
            self.registry = Some((store, registry));
        }
        Ok(())
    }

    /// The job fails, by a fault, and starts again, without one.
    fn fail(&mut self, error: &Error, before: Plain) {
        self.struck |= self.fs.struck() > 0;
        assert!(self.struck, "nothing has failed: {error}");
        self.instances.clear();
        self.registry = None;
        self.fs.clear();
        if let Some((keep, dice)) = self.cut.filter(|_| self.log) {
            self.disk = self.disk.crash_image(keep, dice);
            self.fs = FaultFs::new(Arc::new(self.disk.clone()));
        }
        if self.log {
            self.open().unwrap_or_else(|e| panic!("after {error}: {e}"));
            let found = self.read().unwrap_or_else(|e| panic!("after {error}: {e}"));
            let now = self.now();
            let after = self.plain.clone();
            self.plain = match found == after.clone().visible(now) {
                true => after,
                false => {
                    let split = after.split;
                    let before = Plain { split, ..before };
                    assert_eq!(
                        found,
                        before.clone().visible(now),
                        "neither before nor after {error}"
                    );
                    before
                }
            };
            return;
        }
        self.open_store().unwrap_or_else(|e| panic!("after {error}: {e}"));
        let (_, registry) = self.registry.as_ref().expect("opened");
        let newest = registry.base().map(|saved| saved.id);
        assert!(newest >= self.confirmed, "a confirmed checkpoint is gone: {newest:?}");
        self.confirmed = newest;
        let parallelism = 1 + self.openings as usize % 2;
        self.start_from(newest, parallelism).unwrap_or_else(|e| panic!("after {error}: {e}"));
        self.look().unwrap_or_else(|e| panic!("after {error}: {e}"));
    }

    /// Leaves everything, and starts from a checkpoint, or from nothing.
    fn start_from(&mut self, checkpoint: Option<u64>, parallelism: usize) -> Result<()> {
        let places = self.new_places(parallelism);
        let Some(id) = checkpoint else {
            self.instances.clear();
            self.plain = Plain::default();
            self.operators = (0..parallelism).map(|_| OperatorState::new()).collect();
            self.places = places;
            return self.open();
        };
        self.open_store()?;
        let store = Arc::clone(&self.registry.as_ref().expect("opened").0);
        let saved = load(&*store, id)?;
        let mut instances = Vec::new();
        for place in &places {
            let (options, env) = (self.options(place.0), self.env());
            let groups = place.0.start()..=place.0.end();
            let db = restore(&*store, &saved, groups, &place.1, options.db.clone(), env)?;
            let backend = StateBackend::from_db(db, options)?;
            instances.push(self.instance(place.0, backend)?);
        }
        let old = OperatorSnapshot::decode_all(&saved.envelope.operator_state[0].1)?;
        let new = redistribute(&old, parallelism)?;
        self.operators = new.into_iter().map(OperatorState::restore).collect();
        (self.instances, self.places) = (instances, places);
        self.plain = self.attempted[&id].clone();
        Ok(())
    }

    /// A checkpoint of everything, confirmed.
    fn checkpoint(&mut self) -> Result<()> {
        self.open_store()?;
        let pending = self.instances.iter().map(|instance| instance.backend.checkpoint());
        let pending = pending.collect::<Result<Vec<_>>>()?;
        let sets = pending.into_iter().map(|p| p.wait()).collect::<Result<Vec<_>>>()?;
        let operators: Vec<_> = self.operators.iter().map(OperatorState::snapshot).collect();
        let id = self.attempted.last_key_value().map_or(1, |(id, _)| id + 1);
        let parts = self.instances.iter().zip(&sets).map(|(instance, set)| PartInput {
            first_group: instance.groups.start(),
            last_group: instance.groups.end(),
            set,
        });
        let job = JobCheckpoint {
            id,
            max_parallelism: GROUPS,
            parts: parts.collect(),
            operator_state: vec![("op".into(), OperatorSnapshot::encode_all(&operators))],
            user: Vec::new(),
        };
        self.attempted.insert(id, self.plain.clone());
        let (_, registry) = self.registry.as_ref().expect("opened");
        let saved = registry.save(&job)?;
        self.confirmed = Some(id);
        registry.confirm(&saved)
    }

    /// Closes all instances in order, and opens them again, perhaps with a newer serializer.
    fn restart(&mut self) -> Result<()> {
        for instance in std::mem::take(&mut self.instances) {
            let Instance { backend, text, list, map, brief, timers, .. } = instance;
            drop((text, list, map, brief, timers));
            backend.close()?;
        }
        self.open()
    }

    /// The instance of a key, with the key set.
    fn at(&mut self, key: i64) -> Result<&mut Instance> {
        let group = assign(key.java_hash(), GROUPS);
        let index = operator_index(GROUPS, self.instances.len() as u32, group);
        let instance = &mut self.instances[index as usize];
        instance.backend.set_current_key(&key)?;
        Ok(instance)
    }

    /// The collections change first: who fails has perhaps done it.
    fn apply(&mut self, [what, key, n]: [u8; 3]) -> Result<()> {
        let key = i64::from(key) % KEYS;
        match what % 20 {
            0..=2 => self.change_value(what % 20, key, n),
            3..=5 => self.change_list(what % 20, key, n),
            6..=8 => self.change_map(what % 20, key, n),
            9 | 10 => self.change_brief(key, n),
            11 => self.change_timers(key, n),
            12 => self.fire(key, n),
            13 => {
                let index = usize::from(n) % self.operators.len();
                self.operators[index].list_state::<i64>("split")?.add(&i64::from(n));
                self.plain.split.push(n.into());
                self.plain.split.sort_unstable();
                Ok(())
            }
            14 => self.at(key)?.backend.db().flush_all(),
            15 => {
                let db = self.at(key)?.backend.db();
                (0..n % 8).try_for_each(|i| db.step(u64::from(n) + u64::from(i)).map(drop))
            }
            16 | 17 => self.checkpoint(),
            18 => {
                self.version = (self.version + u32::from(n % 2)).min(VERSION_MAX);
                self.restart()
            }
            _ => match self.confirmed {
                Some(id) => self.start_from(Some(id), 1 + usize::from(n) % 2),
                None => Ok(()),
            },
        }
    }

    fn change_value(&mut self, what: u8, key: i64, n: u8) -> Result<()> {
        let text = "x".repeat(usize::from(n) * 4);
        match what {
            0 => self.plain.text.remove(&key),
            _ => self.plain.text.insert(key, text.clone()),
        };
        let state = &mut self.at(key)?.text;
        if what == 0 { state.clear() } else { state.update(&text) }
    }

    fn change_list(&mut self, what: u8, key: i64, n: u8) -> Result<()> {
        let elements: Vec<i64> = (0..n % 4).map(|i| i64::from(n) + i64::from(i)).collect();
        let list = self.plain.list.entry(key).or_default();
        match what {
            3 => *list = elements.clone(),
            _ => list.push(n.into()),
        }
        self.plain.list.retain(|_, list| !list.is_empty());
        let state = &mut self.at(key)?.list;
        if what == 3 { state.update(&elements) } else { state.add(&n.into()) }
    }

    fn change_map(&mut self, what: u8, key: i64, n: u8) -> Result<()> {
        let (user_key, value) = (n % 5, n.to_string());
        match what {
            6 => self.plain.map.remove(&(key, user_key)),
            _ => self.plain.map.insert((key, user_key), value.clone()),
        };
        let state = &mut self.at(key)?.map;
        if what == 6 { state.remove(&user_key) } else { state.put(&user_key, &value) }
    }

    fn change_brief(&mut self, key: i64, n: u8) -> Result<()> {
        let now = self.clock.fetch_add(u64::from(n % 4), Ordering::Relaxed) as i64;
        let now = now + i64::from(n % 4);
        let value = n.to_string();
        self.plain.brief.insert(key, (now, value.clone()));
        self.at(key)?.brief.update(&value)
    }

    fn change_timers(&mut self, key: i64, n: u8) -> Result<()> {
        let time = i64::from(n % 16);
        let adds = n & 16 == 0;
        match adds {
            true => self.plain.timers.insert((time, key)),
            false => self.plain.timers.remove(&(time, key)),
        };
        let timers = &mut self.at(key)?.timers;
        match adds {
            true => timers.register_event_time_timer(&(), time),
            false => timers.delete_event_time_timer(&(), time),
        }
    }

    /// The first timer of an instance that is due.
    fn fire(&mut self, key: i64, n: u8) -> Result<()> {
        let (until, groups) = (i64::from(n % 16), self.at(key)?.groups);
        let here = |key: i64| groups.contains(assign(key.java_hash(), GROUPS));
        let mut due = self.plain.timers.iter().filter(|(time, key)| *time <= until && here(*key));
        let first = due.next().copied();
        if let Some(first) = first {
            self.plain.timers.remove(&first);
        }
        let Instance { timers, backend, .. } = self.at(key)?;
        timers.advance_watermark(until);
        let fired = timers.next_event_time_timer(backend)?;
        assert_eq!(fired.map(|timer| (timer.time, timer.key)), first, "the first that is due");
        Ok(())
    }

    /// Reads everything.
    fn read(&mut self) -> Result<Plain> {
        let mut found = Plain::default();
        for key in 0..KEYS {
            let instance = self.at(key)?;
            found.text.extend(instance.text.value()?.map(|text| (key, text)));
            let list = instance.list.get()?;
            found.list.extend((!list.is_empty()).then_some((key, list)));
            for entry in instance.map.iter()? {
                let (user_key, value) = entry?;
                found.map.insert((key, user_key), value);
            }
            found.brief.extend(instance.brief.value()?.map(|value| (key, (0, value))));
        }
        for instance in &mut self.instances {
            for timer in instance.timers.event_time().iter()? {
                let timer = timer?;
                found.timers.insert((timer.time, timer.key));
            }
        }
        for operator in &mut self.operators {
            found.split.extend(operator.list_state::<i64>("split")?.get()?);
        }
        found.split.sort_unstable();
        Ok(found)
    }

    /// Compares everything.
    fn look(&mut self) -> Result<()> {
        let found = self.read()?;
        assert_eq!(found, self.plain.clone().visible(self.now()));
        Ok(())
    }
}
