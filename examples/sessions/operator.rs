//! The window operator: one parallel instance of it, with its state.

use alluvium::AggregateFunction;
use alluvium::AggregatingState;
use alluvium::BroadcastState;
use alluvium::KeyGroupRange;
use alluvium::MapState;
use alluvium::OperatorSnapshot;
use alluvium::OperatorState;
use alluvium::PendingCheckpoint;
use alluvium::ReducingState;
use alluvium::StateBackend;
use alluvium::TimeWindow;
use alluvium::TimerService;
use alluvium::ValueState;

use crate::Leg;
use crate::Outcome;
use crate::Sessions;

/// A session goes on while the next leg is planned at most so many seconds after the last.
pub const GAP: i64 = 3 * 3600;

/// After so many seconds without the end of a session, an aircraft counts as idle.
pub const IDLE: i64 = 14 * 86_400;

/// Name of the state that expires.
pub const STREAK: &str = "streak";

/// What is told of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub end: i64,
    pub legs: u32,
    /// Name of the carrier of the first leg.
    pub carrier: String,
    /// Of all departures, in minutes.
    pub mean_delay: f64,
    /// The how manieth since the aircraft was idle.
    pub streak: u32,
}

/// Legs; time and carrier of the first of them.
type Legs = (u32, (i64, String));

struct MeanDelay;

impl AggregateFunction for MeanDelay {
    type Input = i16;
    type Accumulator = (i64, u64);
    type Output = f64;

    fn create_accumulator(&self) -> (i64, u64) {
        (0, 0)
    }
    fn add(&self, accumulator: &mut (i64, u64), delay: &i16) {
        *accumulator = (accumulator.0 + i64::from(*delay), accumulator.1 + 1);
    }
    fn get_result(&self, accumulator: (i64, u64)) -> f64 {
        accumulator.0 as f64 / accumulator.1 as f64
    }
    fn merge(&self, accumulator: &mut (i64, u64), other: (i64, u64)) {
        *accumulator = (accumulator.0 + other.0, accumulator.1 + other.1);
    }
}

/// The operator's state for a range of key groups.
pub struct Operator {
    backend: StateBackend<String>,
    /// The windows of an aircraft that are open, each with the namespace in which its state is.
    windows: MapState<TimeWindow, TimeWindow>,
    legs: ReducingState<Legs, TimeWindow>,
    delay: AggregatingState<MeanDelay, TimeWindow>,
    /// Expires.
    streak: ValueState<u32>,
    timers: TimerService<String, TimeWindow>,
    /// State that belongs to no key.
    operator: OperatorState,
    /// Names of carriers by code: broadcast, so that every subtask has all of them.
    names: BroadcastState<String, String>,
}

impl Operator {
    pub fn new(
        mut backend: StateBackend<String>,
        mut operator: OperatorState,
    ) -> Outcome<Operator> {
        let reduce = |(n, first): Legs, (more, other): &Legs| (n + more, first.min(other.clone()));
        Ok(Operator {
            windows: backend.map_state("windows")?,
            legs: backend.reducing_state_with_namespace("legs", reduce)?,
            delay: backend.aggregating_state_with_namespace("delay", MeanDelay)?,
            streak: backend.value_state(STREAK)?,
            timers: backend.timer_service("window-timers")?,
            backend,
            names: operator.broadcast_state("carriers")?,
            operator,
        })
    }

    pub fn key_groups(&self) -> KeyGroupRange {
        self.backend.key_groups()
    }

    /// The synchronous part of a checkpoint.
    pub fn checkpoint(&self) -> Outcome<(PendingCheckpoint, OperatorSnapshot)> {
        Ok((self.backend.checkpoint()?, self.operator.snapshot()))
    }

    /// The name of a carrier, for all keys. Every subtask must be told.
    pub fn name(&mut self, code: &str, name: &str) {
        self.names.put(&code.to_owned(), &name.to_owned());
    }

    /// A leg opens a window of its own, which is merged with those that it meets. `false`: it came too
    /// late, its window is over.
    pub fn leg(&mut self, leg: &Leg) -> Outcome<bool> {
        self.backend.set_current_key(&leg.aircraft)?;
        let mut merged = TimeWindow::new(leg.time, leg.time + GAP);
        let mut met: Vec<(TimeWindow, TimeWindow)> = Vec::new();
        for entry in self.windows.iter()? {
            let (window, state) = entry?;
            if window.intersects(&merged) {
                merged = merged.cover(&window);
                met.push((window, state));
            }
        }
        if merged.max_timestamp() <= self.timers.current_watermark() {
            return Ok(false);
        }
        // The state stays where the first of them has it; that of the others moves there.
        let state = met.first().map_or(merged, |(_, state)| *state);
        if met.iter().all(|(window, _)| *window != merged) {
            let others: Vec<TimeWindow> = met.iter().skip(1).map(|(_, state)| *state).collect();
            self.legs.merge_namespaces(&state, &others)?;
            self.delay.merge_namespaces(&state, &others)?;
            for (window, _) in &met {
                self.windows.remove(window)?;
                self.timers.delete_event_time_timer(window, window.max_timestamp())?;
            }
            self.windows.put(&merged, &state)?;
            self.timers.register_event_time_timer(&merged, merged.max_timestamp())?;
        }
        self.legs.set_current_namespace(&state);
        self.legs.add(&(1, (leg.time, leg.carrier.clone())))?;
        self.delay.set_current_namespace(&state);
        self.delay.add(&leg.delay)?;
        Ok(true)
    }

    /// Event time goes on: tells the sessions that are over.
    pub fn advance(
        &mut self,
        watermark: i64,
        told: &mut Vec<((String, i64), Session)>,
    ) -> Outcome<()> {
        self.timers.advance_watermark(watermark);
        while let Some(timer) = self.timers.next_event_time_timer(&mut self.backend)? {
            let window = timer.namespace;
            let lost = || format!("a timer of {} for no window {window:?}", timer.key);
            let state = self.windows.get(&window)?.ok_or_else(lost)?;
            self.windows.remove(&window)?;
            self.legs.set_current_namespace(&state);
            self.delay.set_current_namespace(&state);
            let (legs, (_, code)) = self.legs.get()?.ok_or_else(lost)?;
            let mean_delay = self.delay.get()?.ok_or_else(lost)?;
            self.legs.clear()?;
            self.delay.clear()?;
            let streak = self.streak.value()?.unwrap_or(0) + 1;
            self.streak.update(&streak)?;
            let carrier = self.names.get(&code)?.unwrap_or(code);
            let session = Session { end: window.end, legs, carrier, mean_delay, streak };
            told.push(((timer.key, window.start), session));
        }
        Ok(())
    }

    /// Is anything left of windows and timers? And counts what is stored of idle aircraft.
    pub fn rest(&mut self) -> Outcome<(usize, usize)> {
        let windows = self.backend.get_keys("windows", &())?.count();
        let timers = self.timers.num_event_time_timers()?;
        let streaks = self.backend.get_keys(STREAK, &())?.count();
        Ok((windows + timers, streaks))
    }
}

/// Adds sessions to the result.
pub fn collect(told: Vec<((String, i64), Session)>) -> Outcome<Sessions> {
    let mut sessions = Sessions::new();
    for (key, session) in told {
        if let Some(before) = sessions.insert(key.clone(), session) {
            return Err(format!("session {key:?} was told twice: {before:?}").into());
        }
    }
    Ok(sessions)
}
