//! The same sessions the plain way: legs sorted by time and cut where the gap is too long, no engine.
//!
//! It shares the input and the constants with the job and nothing else.

use std::collections::BTreeMap;

use crate::Item;
use crate::Leg;
use crate::Sessions;
use crate::job::LAG;
use crate::operator::GAP;
use crate::operator::IDLE;
use crate::operator::Session;

/// What the job must tell.
pub fn compute(items: &[Item<'_>]) -> Sessions {
    // After each item, the watermark; at the end, one that passes everything.
    let mut newest = 0;
    let mut watermarks: Vec<i64> = Vec::new();
    let mut names: Vec<(usize, &str, &str)> = Vec::new();
    let mut by_aircraft: BTreeMap<&str, Vec<&Leg>> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        match item {
            Item::Name(code, name) => names.push((i, code, name)),
            Item::Leg(leg) => {
                newest = leg.time.max(newest);
                by_aircraft.entry(&leg.aircraft).or_default().push(leg);
            }
        }
        watermarks.push(newest - LAG);
    }
    watermarks.push(newest + GAP);
    let name = |code: &str, at: usize| {
        let known = names.iter().rev().find(|(i, other, _)| *i <= at && *other == code);
        known.map_or(code, |(_, _, name)| name).to_owned()
    };

    let mut sessions = Sessions::new();
    for (aircraft, mut legs) in by_aircraft {
        legs.sort_by_key(|leg| leg.time);
        let mut last_told: Option<i64> = None;
        let mut streak = 0;
        for session in legs.chunk_by(|a, b| b.time - a.time <= GAP) {
            let (start, end) = (session[0].time, session[session.len() - 1].time + GAP);
            // It is told at the first item whose watermark has passed it.
            let at = watermarks.partition_point(|&watermark| watermark < end - 1);
            let now = watermarks[at];
            let idle = last_told.is_none_or(|then| then + IDLE <= now);
            streak = if idle { 1 } else { streak + 1 };
            last_told = Some(now);
            let first = session.iter().take_while(|leg| leg.time == start);
            let code = first.map(|leg| &*leg.carrier).min().expect("there is a leg");
            let sum: i64 = session.iter().map(|leg| i64::from(leg.delay)).sum();
            let told = Session {
                end,
                legs: session.len() as u32,
                carrier: name(code, at),
                mean_delay: sum as f64 / session.len() as f64,
                streak,
            };
            sessions.insert((aircraft.to_owned(), start), told);
        }
    }
    sessions
}
