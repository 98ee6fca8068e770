//! Windows: state for each key and window, a timer for each, all of it gone when the window fires.

use crate::data::{KEY_BYTES, LONG_BYTES, Random, key_in, long, version};
use crate::engine::{Engine, Scan};
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter, measure, once};

pub const STEPS: &[&str] = &["window-churn", "timers-add", "timers-poll"];

/// Timers lie behind all state, ordered by time.
const TIMERS: u16 = 0x7000;
const TIMER_BYTES: usize = 2 + 8 + KEY_BYTES;
/// Due timers that are read at once, as Flink's cache of a key group's head does.
const POLLED: usize = 128;
/// Events for each key and window.
const EVENTS: usize = 3;

/// Windows.
pub struct Windows {
    store: Store,
    keys: u32,
    windows: u32,
    timers: u32,
}

type Timer = [u8; TIMER_BYTES];

fn timer(time: u64, key: &[u8; KEY_BYTES]) -> Timer {
    let mut timer = [0; TIMER_BYTES];
    timer[..2].copy_from_slice(&TIMERS.to_be_bytes());
    timer[2..10].copy_from_slice(&time.to_be_bytes());
    timer[10..].copy_from_slice(key);
    timer
}

/// The first timers up to a time.
fn poll(engine: &dyn Engine, upto: u64, due: &mut Vec<Timer>) -> bool {
    due.clear();
    engine.scan(Scan::Prefix(&TIMERS.to_be_bytes()), &mut |key, _| {
        let time = u64::from_be_bytes(key[2..10].try_into().expect("a timer"));
        if time <= upto {
            due.push(key.try_into().expect("a timer"));
        }
        time <= upto && due.len() < POLLED
    })
}

impl Windows {
    pub fn new(place: Place) -> Windows {
        Windows {
            store: Store::new(&place, place.size(24 << 20, 64 << 20) as usize),
            keys: place.size(4000, 20_000),
            windows: place.size(8, 20),
            timers: place.size(50_000, 300_000),
        }
    }

    /// The rate counts events and firings; `fire_first` and `fire_last` are µs for each key of the
    /// first and the last window; `empty` is ms for a scan of the whole store, emptied at the end.
    fn churn(&mut self) -> Option<Measure> {
        self.store.fresh();
        let engine = self.store.engine();
        let mut due = Vec::new();
        if !poll(engine, 0, &mut due) {
            return None;
        }
        let mut random = Random::new(11);
        let events: Vec<u32> = (0..EVENTS).flat_map(|_| random.permutation(self.keys)).collect();
        let mut fires = Vec::new();
        let mut meter = Meter::begin();
        // One call is a whole window; the latencies say little here, the rate is for operations.
        meter.run(self.windows as usize, |window| {
            let end = window as u32 + 1;
            for &i in &events {
                let mut is_new = false;
                let key = key_in(i, end);
                engine.update(&key, &mut |old, new| {
                    is_new = old.is_none();
                    let count = if is_new { 0 } else { version(old, i) };
                    new.extend_from_slice(&long(i, count + 1));
                });
                if is_new {
                    engine.put(&timer(end.into(), &key), &[]);
                }
            }
            let (took, fired) = once(|| self.fire(engine, end, &mut due));
            assert_eq!(fired, self.keys);
            fires.push(took.as_secs_f64() * 1e6 / f64::from(self.keys));
        });
        let measured = meter.end_per((EVENTS as f64 + 1.0) * f64::from(self.keys));
        let (empty, entries) = once(|| {
            let mut entries = 0;
            engine.scan(Scan::All, &mut |_, _| {
                entries += 1;
                true
            });
            entries
        });
        assert_eq!(entries, 0, "everything fired");
        let [first, .., last] = fires[..] else { unreachable!("several windows") };
        let measured = measured.with("fire_first", first).with("fire_last", last);
        Some(measured.with("growth", last / first).with("empty", empty.as_secs_f64() * 1e3))
    }

    fn fire(&self, engine: &dyn Engine, end: u32, due: &mut Vec<Timer>) -> u32 {
        let mut fired = 0;
        loop {
            poll(engine, end.into(), due);
            if due.is_empty() {
                return fired;
            }
            for timer in &*due {
                let key = &timer[10..];
                let i = crate::data::number_of(key);
                engine.get(key, &mut |value| assert_eq!(version(value, i), EVENTS as u32));
                engine.delete(key);
                engine.delete(timer);
                fired += 1;
            }
        }
    }

    fn add_timers(&mut self) -> Measure {
        self.store.fresh();
        let engine = self.store.engine();
        let times = Random::new(12).permutation(self.timers);
        measure(times.len(), |i| {
            let key = key_in(i as u32, 0);
            engine.put(&timer(times[i].into(), &key), &[0; LONG_BYTES][..0]);
        })
    }

    /// All timers in order, each deleted; counts timers.
    fn poll_timers(&mut self) -> Option<Measure> {
        let engine = self.store.engine();
        let (mut due, mut last, mut polled) = (Vec::new(), 0, 0);
        let mut possible = true;
        let calls = (self.timers as usize).div_ceil(POLLED);
        let mut meter = Meter::begin();
        meter.run(calls, |_| {
            possible &= poll(engine, u64::MAX, &mut due);
            for timer in &due {
                let time = u64::from_be_bytes(timer[2..10].try_into().expect("a timer"));
                assert!(time >= last);
                last = time;
                engine.delete(timer);
            }
            polled += due.len();
        });
        possible.then(|| {
            assert_eq!(polled, self.timers as usize);
            meter.end_per(polled as f64 / calls as f64)
        })
    }
}

impl Group for Windows {
    fn step(&mut self, name: &str) -> Option<Measure> {
        match name {
            "window-churn" => self.churn(),
            "timers-add" => Some(self.add_timers()),
            "timers-poll" => self.poll_timers(),
            _ => unreachable!("{name}"),
        }
    }
}
