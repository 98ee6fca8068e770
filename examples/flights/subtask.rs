//! One parallel instance of the job's three keyed operators, with its state.

use alluvium::KeyGroupRange;
use alluvium::ListState;
use alluvium::MapState;
use alluvium::PendingCheckpoint;
use alluvium::StateBackend;
use alluvium::ValueState;

use crate::Outcome;
use crate::event::Event;
use crate::reference::Tables;

/// A departure is late from this many minutes on.
pub const LATE_MINUTES: i16 = 15;

/// Of each aircraft: legs flown; of the last one by event time its time, name and arrival delay.
pub type Aircraft = (u32, i64, (String, Option<i16>));
/// Minute of the day, delay in minutes, flight.
pub type LateDeparture = (u16, i16, String);
/// Of each carrier and destination: flights; sum of arrival delays; flights with a known delay.
pub type Route = (u64, i64, u64);

/// What an event is to the operators: each is sent a record of its own, keyed in its own way.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    /// To the aircraft's last leg, by tail number.
    Leg,
    /// To the airport's late departures of the day, by airport.
    Departure,
    /// To the carrier's routes, by carrier.
    Route,
}

impl Record {
    pub const ALL: [Record; 3] = [Record::Leg, Record::Departure, Record::Route];

    /// The key by which the stream is partitioned; `None` if the event makes no such record.
    pub fn key<'a>(self, event: &Event<'a>) -> Option<&'a str> {
        match self {
            Record::Leg => event.departure_delay.and(event.aircraft),
            Record::Departure => Some(event.origin),
            Record::Route => Some(event.carrier),
        }
    }
}

/// The operators' state for a range of key groups.
pub struct Subtask {
    backend: StateBackend<String>,
    aircraft: ValueState<Aircraft>,
    today: ValueState<i32>,
    late: ListState<LateDeparture>,
    routes: MapState<String, Route>,
    // Buffers.
    key: String,
    destination: String,
}

impl Subtask {
    pub fn new(mut backend: StateBackend<String>) -> Outcome<Subtask> {
        Ok(Subtask {
            aircraft: backend.value_state("aircraft")?,
            today: backend.value_state("today")?,
            late: backend.list_state("late departures")?,
            routes: backend.map_state("routes")?,
            backend,
            key: String::new(),
            destination: String::new(),
        })
    }

    pub fn key_groups(&self) -> KeyGroupRange {
        self.backend.key_groups()
    }

    /// The synchronous part of a checkpoint.
    pub fn checkpoint(&self) -> Outcome<PendingCheckpoint> {
        Ok(self.backend.checkpoint()?)
    }

    /// Processes a record; returns whether it came too late to count.
    pub fn process(&mut self, record: Record, key: &str, event: &Event<'_>) -> Outcome<bool> {
        self.key.clear();
        self.key.push_str(key);
        self.backend.set_current_key(&self.key)?;
        match record {
            Record::Leg => self.leg(event).map(|()| false),
            Record::Departure => self.departure(event),
            Record::Route => self.route(event).map(|()| false),
        }
    }

    /// The last leg is that of the latest event time, in whatever order they come.
    fn leg(&mut self, event: &Event<'_>) -> Outcome<()> {
        let Event { carrier, flight, origin, destination, .. } = event;
        self.aircraft.update_with(|old| {
            let leg = || (format!("{carrier}{flight} {origin}-{destination}"), event.arrival_delay);
            Some(match old {
                None => (1, event.time, leg()),
                Some((legs, time, last)) if event.time < time => (legs + 1, time, last),
                Some((legs, ..)) => (legs + 1, event.time, leg()),
            })
        })?;
        Ok(())
    }

    /// When event time passes midnight at the airport, the list begins anew. Events of the day before
    /// come too late. Event time that falls back further is not disorder: the source has begun an
    /// older stretch (this table's months come as 1, 10, 11, 12, 2, …, 9), and so does the list.
    fn departure(&mut self, event: &Event<'_>) -> Outcome<bool> {
        let today = self.today.value()?;
        if today.is_some_and(|today| event.day == today - 1) {
            return Ok(true);
        }
        if today != Some(event.day) {
            self.late.clear()?;
            self.today.update(&event.day)?;
        }
        if let Some(delay) = event.departure_delay.filter(|&delay| delay >= LATE_MINUTES) {
            let flight = format!("{}{} to {}", event.carrier, event.flight, event.destination);
            self.late.add(&(event.minute, delay, flight))?;
        }
        Ok(false)
    }

    fn route(&mut self, event: &Event<'_>) -> Outcome<()> {
        self.destination.clear();
        self.destination.push_str(event.destination);
        self.routes.update_with(&self.destination, |old| {
            let (flights, sum, known) = old.unwrap_or_default();
            Some(match event.arrival_delay {
                Some(delay) => (flights + 1, sum + i64::from(delay), known + 1),
                None => (flights + 1, sum, known),
            })
        })?;
        Ok(())
    }

    /// Copies all state into `tables`.
    pub fn collect(&mut self, tables: &mut Tables) -> Outcome<()> {
        for key in self.backend.get_keys("aircraft", &())? {
            let key = key?;
            self.backend.set_current_key(&key)?;
            let value = self.aircraft.value()?.ok_or_else(|| lost("aircraft", &key))?;
            once(tables.aircraft.insert(key, value), "aircraft")?;
        }
        for key in self.backend.get_keys("today", &())? {
            let key = key?;
            self.backend.set_current_key(&key)?;
            let value = self.today.value()?.ok_or_else(|| lost("today", &key))?;
            once(tables.today.insert(key, value), "today")?;
        }
        for key in self.backend.get_keys("late departures", &())? {
            let key = key?;
            self.backend.set_current_key(&key)?;
            once(tables.late.insert(key, self.late.get()?), "late departures")?;
        }
        for key in self.backend.get_keys("routes", &())? {
            let key = key?;
            self.backend.set_current_key(&key)?;
            for entry in self.routes.iter()? {
                let (destination, value) = entry?;
                once(tables.routes.insert((key.clone(), destination), value), "routes")?;
            }
        }
        Ok(())
    }
}

fn lost(state: &str, key: &str) -> String {
    format!("{state} {key:?} is listed, but has no value")
}

/// Key groups are disjoint, so no key may come from two subtasks.
fn once<V>(before: Option<V>, state: &str) -> Outcome<()> {
    match before {
        None => Ok(()),
        Some(_) => Err(format!("two subtasks have the same key of state {state:?}").into()),
    }
}
