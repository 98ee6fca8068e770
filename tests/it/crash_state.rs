//! Power cuts at every I/O of whole lives of a state backend with its log on: timers that are
//! registered, deleted and fire, values, lists and maps that expire, and batches of them.
//!
//! Whatever the disk then holds, the backend that is opened shows the state after exactly the first so
//! many writes, not fewer than were promised durable: no timer is lost or fires again, nothing that has
//! expired or was removed comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alluvium::{
    BackendOptions, Clock, Env, Keep, KeyGroupRange, ListState, MapState, MemFs, MemoryBudget,
    Options, Result, StateBackend, TimerService, TtlConfig, ValueState,
};

const TTL: i64 = 40;
const KEYS: u64 = 6;

/// Values by key with the times of their writing.
#[derive(Clone, Default, PartialEq, Debug)]
struct State {
    timers: BTreeSet<(i64, u64)>,
    value: BTreeMap<u64, (i64, u32)>,
    list: BTreeMap<u64, Vec<(i64, u32)>>,
    /// By key and user key.
    map: BTreeMap<(u64, u8), (i64, u32)>,
}

impl State {
    /// What can be seen of it at a time.
    fn seen(&self, now: i64) -> State {
        let mut seen = self.clone();
        seen.value.retain(|_, dated| dated.0 + TTL > now);
        seen.map.retain(|_, dated| dated.0 + TTL > now);
        seen.list.values_mut().for_each(|list| list.retain(|dated| dated.0 + TTL > now));
        seen.list.retain(|_, list| !list.is_empty());
        // Times are not shown.
        seen.value.values_mut().for_each(|dated| dated.0 = 0);
        seen.map.values_mut().for_each(|dated| dated.0 = 0);
        seen.list.values_mut().flatten().for_each(|dated| dated.0 = 0);
        seen
    }
}

struct Witness {
    /// After each write that was tried.
    states: Vec<State>,
    acked: usize,
    durable: usize,
    now: i64,
}

struct Backend {
    clock: Arc<AtomicI64>,
    timers: TimerService<u64>,
    value: ValueState<u32>,
    list: ListState<u32>,
    map: MapState<u8, u32>,
    backend: StateBackend<u64>,
}

fn open(fs: &MemFs, now: i64) -> Result<Backend> {
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 5);
    let mut options = BackendOptions::new(4, KeyGroupRange::new(0, 3)?);
    options.db = Options { log: true, log_segment_bytes: 700, ..Options::default() };
    options.family.memtable_bytes_max = 4 << 10;
    options.family.block_bytes = 128;
    options.family.l0_depth_trigger = 2;
    options.family.level_bytes_base = 4 << 10;
    options.family.file_bytes = 1 << 10;
    options.timer_cache = 1;
    let clock = Arc::new(AtomicI64::new(now));
    let shown = Arc::clone(&clock);
    options.clock = Some(Clock::new(move || shown.load(Ordering::Relaxed)));
    for name in ["value", "list", "map"] {
        options.ttl.insert(name.to_owned(), TtlConfig::new(TTL)?);
    }
    let mut backend = StateBackend::open(Path::new("state"), options, env)?;
    Ok(Backend {
        clock,
        timers: backend.timer_service("timers")?,
        value: backend.value_state("value")?,
        list: backend.list_state("list")?,
        map: backend.map_state("map")?,
        backend,
    })
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// Lives until the disk fails; `Ok` if it never did.
fn live(fs: &MemFs, seed: u64, witness: &mut Witness) -> Result<()> {
    let mut rng = Rng(seed);
    let mut b = open(fs, 0)?;
    for _ in 0..110 {
        let mut state = witness.states.last().expect("the first").clone();
        let (key, n) = (rng.below(KEYS), rng.below(30) as u32);
        b.backend.set_current_key(&key)?;
        let user_key = (n % 3) as u8;
        let write = match rng.below(18) {
            0..=3 => {
                let time = witness.now + i64::from(n);
                state.timers.insert((time, key));
                witness.states.push(state);
                b.timers.register_event_time_timer(&(), time)
            }
            4..=7 => {
                let first = state.timers.pop_first();
                witness.states.push(state);
                b.timers.event_time().poll().map(|timer| {
                    assert_eq!(timer.map(|timer| (timer.time, timer.key)), first);
                })
            }
            8 => {
                state.value.insert(key, (witness.now, n));
                witness.states.push(state);
                b.value.update(&n)
            }
            9 => {
                let dated = (witness.now, n);
                state.list.entry(key).or_default().push(dated);
                witness.states.push(state);
                b.list.add(&n)
            }
            10 | 11 => {
                state.map.insert((key, user_key), (witness.now, n));
                witness.states.push(state);
                b.map.put(&user_key, &n)
            }
            12 => {
                state.map.retain(|(of, _), _| *of != key);
                witness.states.push(state);
                b.map.clear()
            }
            13 => {
                // All of it or nothing.
                let dated = (witness.now, n);
                state.value.remove(&key);
                state.list.insert(key, vec![dated]);
                state.map.retain(|(of, _), _| *of != key);
                state.map.insert((key, user_key), dated);
                witness.states.push(state);
                let mut batch = b.backend.batch();
                batch.clear(&mut b.value)?;
                batch.clear(&mut b.list)?;
                batch.add(&mut b.list, &n)?;
                batch.clear(&mut b.map)?;
                batch.put(&mut b.map, &user_key, &n)?;
                batch.commit()
            }
            14 => b.backend.db().flush_all().and_then(|()| b.backend.drop_expired()),
            15 => b.backend.db().step(u64::from(n)).map(drop),
            16 => b.backend.db().sync_wal(),
            _ => {
                witness.now += i64::from(n);
                b.clock.store(witness.now, Ordering::Relaxed);
                Ok(())
            }
        };
        write?;
        witness.acked = witness.states.len() - 1;
        if n.is_multiple_of(7) {
            b.backend.db().sync_wal()?;
            witness.durable = witness.acked;
        }
    }
    b.backend.close()?;
    witness.durable = witness.acked;
    Ok(())
}

fn judge(disk: &MemFs, keep: Keep, witness: &Witness, place: &str) {
    let mut b = open(disk, witness.now).unwrap_or_else(|e| panic!("{place}: {e}"));
    let mut found = State::default();
    for key in 0..KEYS {
        b.backend.set_current_key(&key).unwrap();
        found.value.extend(b.value.value().unwrap().map(|n| (key, (0, n))));
        let list = b.list.get().unwrap();
        for entry in b.map.iter().unwrap() {
            let (user_key, n) = entry.unwrap();
            found.map.insert((key, user_key), (0, n));
        }
        if !list.is_empty() {
            found.list.insert(key, list.into_iter().map(|n| (0, n)).collect());
        }
    }
    found.timers = b
        .timers
        .event_time()
        .iter()
        .unwrap()
        .map(|t| t.unwrap())
        .map(|t| (t.time, t.key))
        .collect();
    let at_least = if keep == Keep::All { witness.acked } else { witness.durable };
    let mut allowed = witness.states[at_least..].iter();
    assert!(allowed.any(|state| state.seen(witness.now) == found), "{place}: {found:?}");
    // The queue knows them, too, in order.
    let polled = std::iter::from_fn(|| b.timers.event_time().poll().unwrap());
    let polled: Vec<i64> = polled.map(|timer| timer.time).collect();
    assert!(polled.is_sorted() && polled.len() == found.timers.len(), "{place}");
    b.backend.db().verify().unwrap();
}

#[test]
fn timers_and_expiring_state_survive_power_cuts_everywhere() {
    let mut points = 0;
    for seed in 0..2 {
        for n in 0.. {
            let fs = MemFs::new();
            fs.crash_after(Some(n));
            let states = vec![State::default()];
            let mut witness = Witness { states, acked: 0, durable: 0, now: 0 };
            let outcome = live(&fs, seed, &mut witness);
            for (keep, dice) in [(Keep::Nothing, 0), (Keep::All, 0), (Keep::Torn, n)] {
                let place = format!("seed {seed}, operation {n}, {keep:?}");
                judge(&fs.crash_image(keep, dice), keep, &witness, &place);
            }
            points += 1;
            if outcome.is_ok() {
                break;
            }
        }
    }
    assert!(points > 300, "the lives are long enough to mean something: {points}");
}
