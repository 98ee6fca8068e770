//! The job: both streams, the partitioner, watermarks, checkpoints; a crash on the way, and a rescaling.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use alluvium::BackendOptions;
use alluvium::CheckpointStore;
use alluvium::Clock;
use alluvium::DirStore;
use alluvium::DiskFs;
use alluvium::Env;
use alluvium::Fs;
use alluvium::JavaHash;
use alluvium::JobCheckpoint;
use alluvium::MemoryBudget;
use alluvium::OperatorSnapshot;
use alluvium::OperatorState;
use alluvium::PartInput;
use alluvium::Registry;
use alluvium::Saved;
use alluvium::StateBackend;
use alluvium::TtlConfig;
use alluvium::assign_key_group;
use alluvium::operator_index;
use alluvium::redistribute_operator_state;
use alluvium::restore_checkpoint;

use crate::Item;
use crate::Outcome;
use crate::Sessions;
use crate::operator::GAP;
use crate::operator::IDLE;
use crate::operator::Operator;
use crate::operator::STREAK;
use crate::operator::Session;
use crate::operator::collect;

/// Number of key groups, and thereby the highest parallelism.
pub const MAX_PARALLELISM: u32 = 128;

/// The watermark follows the newest leg at this distance, in seconds: the stream is in order only day
/// by day.
pub const LAG: i64 = 86_400;

/// Memory of all subtasks together.
const MEMORY_BYTES: usize = 64 << 20;

/// The operator's name in checkpoints.
const OPERATOR: &str = "sessions";

#[derive(Clone, Debug)]
pub struct Settings {
    pub parallelism: u32,
    pub rescale_to: u32,
    pub checkpoint_every: u64,
}

/// Where the job stands; a checkpoint remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// Items behind it.
    items: u64,
    /// The newest leg so far.
    newest: i64,
    /// Sessions told. What a crashed run told beyond it is taken back, as a transactional sink does.
    told: u64,
}

const START: Progress = Progress { items: 0, newest: 0, told: 0 };

impl Progress {
    fn encode(self) -> Vec<u8> {
        [self.items, self.newest as u64, self.told].iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Progress> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: &[[u8; 8]; 3] = words.try_into().ok()?;
        let [items, newest, told] = words.map(u64::from_le_bytes);
        rest.is_empty().then_some(Progress { items, newest: newest as i64, told })
    }

    fn watermark(self) -> i64 {
        self.newest - LAG
    }
}

struct Job<'a> {
    settings: &'a Settings,
    items: &'a [Item<'a>],
    dir: PathBuf,
    fs: Arc<dyn Fs>,
    store: Arc<DirStore>,
    registry: Registry,
    progress: Progress,
    /// Shows event time: idle aircraft are forgotten in it, also when the stream is replayed.
    clock: Arc<AtomicI64>,
    operators: Vec<Operator>,
    told: Vec<((String, i64), Session)>,
    next_checkpoint: u64,
    /// Times that state was set up: each has directories of its own.
    starts: u32,
}

/// The whole stream, with a crash half-way, and another parallelism from three quarters of it on.
pub fn run(settings: &Settings, items: &[Item<'_>]) -> Outcome<Sessions> {
    let name = format!("alluvium-sessions-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let outcome = run_in(settings, items, &dir);
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

fn run_in(settings: &Settings, items: &[Item<'_>], dir: &Path) -> Outcome<Sessions> {
    let fs: Arc<dyn Fs> = Arc::new(DiskFs::new());
    let store_dir = dir.join("store");
    fs.create_dir(&store_dir)?;
    let store = Arc::new(DirStore::open(Arc::clone(&fs), store_dir)?);
    let mut job = Job {
        settings,
        items,
        dir: dir.to_owned(),
        registry: open_registry(&store)?,
        store,
        fs,
        progress: START,
        clock: Arc::new(AtomicI64::new(i64::MIN)),
        operators: Vec::new(),
        told: Vec::new(),
        next_checkpoint: 1,
        starts: 0,
    };
    let all = items.len() as u64;
    job.start(settings.parallelism, None)?;
    job.run_to(all / 2)?;
    job.crash()?;
    job.run_to(all * 3 / 4)?;
    job.rescale(settings.rescale_to)?;
    job.run_to(all)?;
    job.finish()
}

/// The operator state of a checkpoint, dealt out to so many subtasks.
fn operator_states(saved: &Saved, parallelism: u32) -> Outcome<Vec<OperatorState>> {
    let mut stored = saved.envelope.operator_state.iter();
    let bytes = stored.find(|(name, _)| name == OPERATOR);
    let (_, bytes) = bytes.ok_or("a checkpoint of another job")?;
    let old = OperatorSnapshot::decode_all(bytes)?;
    let new = redistribute_operator_state(&old, parallelism as usize)?;
    Ok(new.into_iter().map(OperatorState::restore).collect())
}

/// Finds the checkpoints in the store, as a new process would; one is kept.
fn open_registry(store: &Arc<DirStore>) -> Outcome<Registry> {
    Ok(Registry::open(Arc::clone(store) as Arc<dyn CheckpointStore>, 1)?)
}

impl Job<'_> {
    /// Sets up the state of all subtasks: empty, or that of a checkpoint.
    fn start(&mut self, parallelism: u32, from: Option<&Saved>) -> Outcome<()> {
        self.starts += 1;
        let operators = match from {
            None => (0..parallelism).map(|_| OperatorState::new()).collect(),
            Some(saved) => operator_states(saved, parallelism)?,
        };
        let env = Env::new(MemoryBudget::new(MEMORY_BYTES)).with_fs(Arc::clone(&self.fs));
        for (index, operator) in (0..parallelism).zip(operators) {
            let mut options = BackendOptions::for_instance(MAX_PARALLELISM, parallelism, index)?;
            let clock = Arc::clone(&self.clock);
            options.clock = Some(Clock::new(move || clock.load(Ordering::Relaxed)));
            options.ttl.insert(STREAK.to_owned(), TtlConfig::new(IDLE)?);
            let dir = self.dir.join("local").join(format!("{}-{index}", self.starts));
            let backend = match from {
                None => StateBackend::open(&dir, options, env.clone())?,
                Some(saved) => {
                    let groups = options.key_groups.start()..=options.key_groups.end();
                    let (db, env) = (options.db.clone(), env.clone());
                    let store = &*self.store;
                    let db = restore_checkpoint(store, saved, groups, &dir, db, env)?;
                    StateBackend::from_db(db, options)?
                }
            };
            self.operators.push(Operator::new(backend, operator)?);
        }
        Ok(())
    }

    fn run_to(&mut self, end: u64) -> Outcome<()> {
        let (from, parallelism) = (self.progress.items, self.operators.len());
        while self.progress.items < end {
            self.next_item()?;
            if self.progress.items.is_multiple_of(self.settings.checkpoint_every) {
                self.checkpoint()?;
            }
        }
        println!(
            "stream      {from:>7} to {end:>7}  p = {parallelism}  {} sessions",
            self.told.len()
        );
        Ok(())
    }

    fn next_item(&mut self) -> Outcome<()> {
        let item = self.items[self.progress.items as usize];
        self.progress.items += 1;
        match item {
            Item::Name(code, name) => {
                self.operators.iter_mut().for_each(|operator| operator.name(code, name));
            }
            Item::Leg(leg) => {
                let group = assign_key_group(leg.aircraft.java_hash(), MAX_PARALLELISM);
                let parallelism = self.operators.len() as u32;
                let index = operator_index(MAX_PARALLELISM, parallelism, group);
                if !self.operators[index as usize].leg(leg)? {
                    return Err(format!("{leg:?} came too late: the lag is too short").into());
                }
                if leg.time > self.progress.newest {
                    self.progress.newest = leg.time;
                    self.advance(self.progress.watermark())?;
                }
            }
        }
        Ok(())
    }

    /// The watermark goes to all subtasks.
    fn advance(&mut self, watermark: i64) -> Outcome<()> {
        self.clock.store(watermark, Ordering::Relaxed);
        for operator in &mut self.operators {
            operator.advance(watermark, &mut self.told)?;
        }
        self.progress.told = self.told.len() as u64;
        Ok(())
    }

    fn checkpoint(&mut self) -> Outcome<Saved> {
        let pending = self.operators.iter().map(Operator::checkpoint);
        let (pending, operators): (Vec<_>, Vec<_>) =
            pending.collect::<Outcome<Vec<_>>>()?.into_iter().unzip();
        let sets = pending.into_iter().map(|pending| Ok(pending.wait()?));
        let sets = sets.collect::<Outcome<Vec<_>>>()?;
        let parts = self.operators.iter().zip(&sets).map(|(operator, set)| PartInput {
            first_group: operator.key_groups().start(),
            last_group: operator.key_groups().end(),
            set,
        });
        let saved = self.registry.save(&JobCheckpoint {
            id: self.next_checkpoint,
            max_parallelism: MAX_PARALLELISM,
            parts: parts.collect(),
            operator_state: vec![(OPERATOR.to_owned(), OperatorSnapshot::encode_all(&operators))],
            user: self.progress.encode(),
        })?;
        self.registry.confirm(&saved)?;
        self.next_checkpoint += 1;
        Ok(saved)
    }

    /// Loses everything but the store, in the midst of a checkpoint, and goes on from the newest one that
    /// the store has.
    fn crash(&mut self) -> Outcome<()> {
        let under_way = self.operators.iter().map(Operator::checkpoint);
        let under_way = under_way.collect::<Outcome<Vec<_>>>()?;
        self.lose()?;
        drop(under_way);
        self.registry = open_registry(&self.store)?;
        match self.registry.base() {
            Some(saved) => self.restore("crash", self.settings.parallelism, &saved),
            None => {
                (self.progress, self.told) = (START, Vec::new());
                self.clock.store(i64::MIN, Ordering::Relaxed);
                self.start(self.settings.parallelism, None)
            }
        }
    }

    /// Stops with a checkpoint and goes on from it in another parallelism.
    fn rescale(&mut self, parallelism: u32) -> Outcome<()> {
        let saved = self.checkpoint()?;
        self.lose()?;
        self.restore("rescale", parallelism, &saved)
    }

    /// All state goes, without being closed.
    fn lose(&mut self) -> Outcome<()> {
        self.operators.clear();
        Ok(std::fs::remove_dir_all(self.dir.join("local"))?)
    }

    fn restore(&mut self, what: &str, parallelism: u32, saved: &Saved) -> Outcome<()> {
        let progress = Progress::decode(&saved.envelope.user);
        let progress = progress.ok_or("a checkpoint of another job")?;
        let items = self.progress.items - progress.items;
        let told = self.told.len() as u64 - progress.told;
        self.progress = progress;
        self.told.truncate(self.progress.told as usize);
        self.clock.store(self.progress.watermark(), Ordering::Relaxed);
        self.next_checkpoint = saved.id + 1;
        self.start(parallelism, Some(saved))?;
        self.advance(self.progress.watermark())?;
        println!(
            "{what:<11} to checkpoint {} of item {}: {items} items and {told} sessions are done again",
            saved.id, progress.items
        );
        Ok(())
    }

    /// Event time passes the end of all sessions.
    fn finish(mut self) -> Outcome<Sessions> {
        self.advance(self.progress.newest + GAP)?;
        let mut idle = 0;
        for operator in &mut self.operators {
            let (rest, streaks) = operator.rest()?;
            if rest > 0 {
                return Err(format!("{rest} windows and timers are left over").into());
            }
            idle += streaks;
        }
        println!("finish      {} sessions; {idle} aircraft remembered", self.told.len());
        self.operators.clear();
        collect(self.told)
    }
}
