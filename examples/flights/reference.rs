//! The same answers the plain way: one pass over the file, maps in memory, no engine.
//!
//! It shares the parser with the job and nothing else, so that an error on the way through state,
//! checkpoints and rescaling shows as a difference.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::Outcome;
use crate::event::Event;
use crate::job::Progress;
use crate::source::Position;
use crate::source::Source;
use crate::subtask::Aircraft;
use crate::subtask::LATE_MINUTES;
use crate::subtask::LateDeparture;
use crate::subtask::Route;

/// Most differences that are kept to be shown.
const SHOWN_MAX: usize = 10;

/// All state of the job, by key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub aircraft: BTreeMap<String, Aircraft>,
    pub today: BTreeMap<String, i32>,
    pub late: BTreeMap<String, Vec<LateDeparture>>,
    /// By carrier and destination.
    pub routes: BTreeMap<(String, String), Route>,
}

/// What the tables and the progress must be at the end of the file.
pub fn compute(path: &Path) -> Outcome<(Tables, Progress)> {
    let mut source = Source::open(path, Position::default())?;
    let (mut tables, mut progress) = (Tables::default(), Progress::default());
    while let Some(row) = source.next()? {
        match Event::parse(row) {
            Ok(event) => tables.add(&event, &mut progress),
            Err(_) => progress.bad_rows += 1,
        }
    }
    progress.position = source.position();
    Ok((tables, progress))
}

impl Tables {
    fn add(&mut self, event: &Event<'_>, progress: &mut Progress) {
        match progress.newest {
            Some(newest) if event.time < newest => progress.behind += 1,
            _ => progress.newest = Some(event.time),
        }
        if let (Some(tail), Some(_)) = (event.aircraft, event.departure_delay) {
            let (carrier, flight, from, to) =
                (event.carrier, event.flight, event.origin, event.destination);
            let leg = (format!("{carrier}{flight} {from}-{to}"), event.arrival_delay);
            let entry = self.aircraft.entry(tail.to_owned());
            let entry = entry.or_insert_with(|| (0, i64::MIN, (String::new(), None)));
            entry.0 += 1;
            if event.time >= entry.1 {
                (entry.1, entry.2) = (event.time, leg);
            }
        }
        let today = self.today.entry(event.origin.to_owned()).or_insert(event.day);
        if event.day == *today - 1 {
            progress.late += 1;
        } else {
            if event.day != *today {
                *today = event.day;
                self.late.remove(event.origin);
            }
            if let Some(delay) = event.departure_delay.filter(|&delay| delay >= LATE_MINUTES) {
                let flight = format!("{}{} to {}", event.carrier, event.flight, event.destination);
                let list = self.late.entry(event.origin.to_owned()).or_default();
                list.push((event.minute, delay, flight));
            }
        }
        let route = (event.carrier.to_owned(), event.destination.to_owned());
        let (flights, sum, known) = self.routes.entry(route).or_default();
        *flights += 1;
        if let Some(delay) = event.arrival_delay {
            *sum += i64::from(delay);
            *known += 1;
        }
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Comparison {
    pub equal: u64,
    pub different: u64,
    /// The first differences in words.
    pub shown: Vec<String>,
}

impl Comparison {
    /// Compares every entry of every table, in both directions.
    pub fn of_tables(wanted: &Tables, found: &Tables) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.maps("aircraft", &wanted.aircraft, &found.aircraft);
        comparison.maps("today", &wanted.today, &found.today);
        comparison.maps("late departures", &wanted.late, &found.late);
        comparison.maps("routes", &wanted.routes, &found.routes);
        comparison
    }

    /// Adds a difference.
    pub fn differ(&mut self, text: impl FnOnce() -> String) {
        self.different += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(text());
        }
    }

    fn maps<K: Ord + fmt::Debug, V: PartialEq + fmt::Debug>(
        &mut self,
        name: &str,
        wanted: &BTreeMap<K, V>,
        found: &BTreeMap<K, V>,
    ) {
        for (key, value) in wanted {
            match found.get(key) {
                Some(other) if other == value => self.equal += 1,
                other => self.differ(|| format!("{name} {key:?}: {other:?} instead of {value:?}")),
            }
        }
        for (key, value) in found.iter().filter(|(key, _)| !wanted.contains_key(key)) {
            self.differ(|| format!("{name} {key:?}: {value:?} instead of nothing"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(day: i32, delay: i16) -> Event<'static> {
        Event {
            time: i64::from(day) * 86_400,
            day,
            minute: 0,
            departure_delay: Some(delay),
            arrival_delay: None,
            carrier: "UA",
            flight: 1,
            aircraft: Some("N1"),
            origin: "EWR",
            destination: "IAH",
        }
    }

    #[test]
    fn a_day_is_over_when_the_next_begins() {
        let (mut tables, mut progress) = (Tables::default(), Progress::default());
        let mut late = |day, delay| {
            tables.add(&event(day, delay), &mut progress);
            tables.late.get("EWR").map_or(0, Vec::len)
        };
        assert_eq!(late(10, 15), 1);
        assert_eq!(late(10, 14), 1, "not late");
        assert_eq!(late(10, 99), 2);
        assert_eq!(late(11, 20), 1, "midnight");
        assert_eq!(late(10, 20), 1, "belongs to yesterday");
        assert_eq!(late(2, 20), 1, "the source has gone back");
        assert_eq!(late(2, 20), 2);
        assert_eq!((progress.late, progress.behind), (1, 3));
        assert_eq!(tables.aircraft["N1"].0, 7);
        assert_eq!(tables.aircraft["N1"].1, 11 * 86_400);
    }

    #[test]
    fn every_difference_is_found() {
        let mut wanted = Tables::default();
        wanted.today.extend([("EWR".into(), 1), ("JFK".into(), 2), ("LGA".into(), 3)]);
        let mut found = Tables::default();
        found.today.extend([("EWR".into(), 1), ("JFK".into(), 3), ("BOS".into(), 3)]);
        let comparison = Comparison::of_tables(&wanted, &found);
        assert_eq!((comparison.equal, comparison.different), (1, 3));
        assert_eq!(comparison.shown[0], "today \"JFK\": Some(3) instead of 2");
    }
}
