//! What the job tells: tables of numbers, and the answers.

use std::fmt;
use std::time::Duration;

use crate::event::BadRow;
use crate::event::date;
use crate::event::date_and_time;
use crate::job::Progress;
use crate::reference::Tables;

/// Answers have this many lines.
const ANSWERS: usize = 5;

/// Of so many checkpoints at the beginning and the end each a line is printed.
const CHECKPOINTS_SHOWN: usize = 12;

/// A checkpoint that is in the store.
pub struct CheckpointRow {
    pub id: u64,
    pub row: u64,
    pub parallelism: usize,
    pub synchronous: Duration,
    pub total: Duration,
    pub files_new: usize,
    pub files_reused: usize,
    pub bytes_new: u64,
    pub bytes_total: u64,
}

/// A checkpoint that was restored.
pub struct Restored {
    pub what: &'static str,
    pub checkpoint: u64,
    pub row: u64,
    pub from: usize,
    pub to: usize,
    pub files: usize,
    pub bytes: u64,
    pub time: Duration,
}

struct Stage {
    what: &'static str,
    begin: u64,
    end: u64,
    parallelism: usize,
    time: Duration,
}

/// Collects what happens.
#[derive(Default)]
pub struct Report {
    stages: Vec<Stage>,
    checkpoints: Vec<CheckpointRow>,
    restored: Vec<Restored>,
    first_bad_row: Option<(u64, BadRow)>,
}

impl Report {
    pub fn stage(
        &mut self,
        what: &'static str,
        begin: u64,
        end: u64,
        parallelism: usize,
        time: Duration,
    ) {
        self.stages.push(Stage { what, begin, end, parallelism, time });
    }

    pub fn checkpoint(&mut self, row: CheckpointRow) {
        self.checkpoints.push(row);
    }

    pub fn restored(&mut self, restored: Restored) {
        self.restored.push(restored);
    }

    pub fn bad_row(&mut self, row: u64, bad: &BadRow) {
        self.first_bad_row.get_or_insert((row, *bad));
    }

    /// The bad rows in words.
    pub fn bad_rows(&self, progress: &Progress) -> String {
        let first = match &self.first_bad_row {
            Some((row, bad)) => format!(" (first: row {}, {bad})", grouped(*row)),
            None => String::new(),
        };
        format!("bad rows: {}{first}", grouped(progress.bad_rows))
    }

    fn throughput(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  stage         events                parallelism    seconds    events/s")?;
        let line = |f: &mut fmt::Formatter<'_>, s: &Stage| {
            let range = format!("{} - {}", grouped(s.begin), grouped(s.end));
            let (seconds, rate) = (s.time.as_secs_f64(), rate(s.end - s.begin, s.time));
            writeln!(
                f,
                "  {:<12}  {range:<20}  {:>11}  {seconds:>9.2}  {rate:>10}",
                s.what, s.parallelism
            )
        };
        self.stages.iter().try_for_each(|stage| line(f, stage))?;
        let events = self.stages.iter().map(|stage| stage.end - stage.begin).sum();
        let time: Duration = self.stages.iter().map(|stage| stage.time).sum();
        let (count, seconds, rate) = (grouped(events), time.as_secs_f64(), rate(events, time));
        writeln!(f, "  {:<12}  {count:<20}  {:>11}  {seconds:>9.2}  {rate:>10}", "together", "")
    }

    fn checkpoints(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n  checkpoint   at event  parallelism  synchronous      total    files      files        bytes        bytes"
        )?;
        writeln!(
            f,
            "                                               µs         ms      new    re-used          new        total"
        )?;
        let count = self.checkpoints.len();
        for (i, row) in self.checkpoints.iter().enumerate() {
            if (CHECKPOINTS_SHOWN..count.saturating_sub(CHECKPOINTS_SHOWN)).contains(&i) {
                if i == CHECKPOINTS_SHOWN {
                    writeln!(f, "  … {} more …", count - 2 * CHECKPOINTS_SHOWN)?;
                }
                continue;
            }
            writeln!(
                f,
                "  {:>10} {:>10}  {:>11}  {:>11.0}  {:>9.1}  {:>7}  {:>9}  {:>11}  {:>11}",
                row.id,
                grouped(row.row),
                row.parallelism,
                row.synchronous.as_secs_f64() * 1e6,
                row.total.as_secs_f64() * 1e3,
                row.files_new,
                row.files_reused,
                grouped(row.bytes_new),
                grouped(row.bytes_total),
            )?;
        }
        Ok(())
    }

    fn restores(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n                  checkpoint   at event  parallelism    files        bytes         ms"
        )?;
        for r in &self.restored {
            let parallelism = format!("{} -> {}", r.from, r.to);
            writeln!(
                f,
                "  {:<14}  {:>10} {:>10}  {parallelism:>11}  {:>7}  {:>11}  {:>9.1}",
                r.what,
                r.checkpoint,
                grouped(r.row),
                r.files,
                grouped(r.bytes),
                r.time.as_secs_f64() * 1e3,
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.throughput(f)?;
        if !self.checkpoints.is_empty() {
            self.checkpoints(f)?;
        }
        if !self.restored.is_empty() {
            self.restores(f)?;
        }
        Ok(())
    }
}

/// What all that was computed for.
pub struct Answers<'a>(pub &'a Tables, pub &'a Progress);

impl fmt::Display for Answers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answers(tables, progress) = self;
        writeln!(f, "\n  worst carriers by mean arrival delay")?;
        for (carrier, flights, mean) in worst_carriers(tables).iter().take(ANSWERS) {
            writeln!(f, "    {carrier:<8}  {mean:>6.1} min  {:>7} flights", grouped(*flights))?;
        }
        writeln!(f, "  busiest aircraft")?;
        let mut busiest: Vec<_> = tables.aircraft.iter().collect();
        busiest.sort_by_key(|(_, (legs, ..))| std::cmp::Reverse(*legs));
        for (tail, (legs, time, (leg, delay))) in busiest.into_iter().take(ANSWERS) {
            let delay =
                delay.map_or("delay unknown".to_owned(), |minutes| format!("{minutes:+} min"));
            let (legs, time) = (grouped(u64::from(*legs)), date_and_time(*time));
            writeln!(
                f,
                "    {tail:<8}  {legs:>6} legs, the last one {leg} at {time} UTC, {delay}"
            )?;
        }
        writeln!(f, "  late departures of the day")?;
        for (airport, day) in &tables.today {
            let late = tables.late.get(airport).map_or(0, Vec::len);
            writeln!(f, "    {airport:<8}  {late:>6} on {}", date(*day))?;
        }
        let newest = progress
            .newest
            .map_or("none yet".to_owned(), |time| format!("up to {} UTC", date_and_time(time)));
        let (behind, late) = (grouped(progress.behind), grouped(progress.late));
        writeln!(f, "\nevent time: {newest}; {behind} events out of order, {late} too late")
    }
}

/// Carrier, flights, mean arrival delay; the greatest delay first.
fn worst_carriers(tables: &Tables) -> Vec<(&str, u64, f64)> {
    let mut carriers: Vec<(&str, u64, i64, u64)> = Vec::new();
    for ((carrier, _), (flights, sum, known)) in &tables.routes {
        match carriers.last_mut() {
            Some((last, all, delay, of)) if *last == carrier => {
                (*all, *delay, *of) = (*all + flights, *delay + sum, *of + known);
            }
            _ => carriers.push((carrier, *flights, *sum, *known)),
        }
    }
    let known = carriers.into_iter().filter(|(.., of)| *of > 0);
    let mut means: Vec<_> =
        known.map(|(carrier, all, delay, of)| (carrier, all, delay as f64 / of as f64)).collect();
    means.sort_by(|a, b| b.2.total_cmp(&a.2));
    means
}

fn rate(events: u64, time: Duration) -> String {
    grouped((events as f64 / time.as_secs_f64().max(1e-9)) as u64)
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_threes() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn carriers_are_ranked_over_all_their_routes() {
        let mut tables = Tables::default();
        let mut route = |carrier: &str, to: &str, route| {
            tables.routes.insert((carrier.to_owned(), to.to_owned()), route)
        };
        route("AA", "IAH", (10, 50, 10));
        route("UA", "IAH", (1, 0, 0));
        route("UA", "LAX", (3, 20, 2));
        route("WN", "LAX", (3, 0, 0));
        assert_eq!(worst_carriers(&tables), [("UA", 4, 10.0), ("AA", 10, 5.0)]);
    }
}
