//! The results, and the table of goals and what was reached.
//!
//! A ratio is taken within each round, between neighbours in time; what is shown is the median of
//! those, with least and greatest.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::engine::Kind;
use crate::goals::{GOALS, Goal, Want};
use crate::group::scale::{SHOWN, SIZES};
use crate::group::{GROUPS, SCALE};
use crate::meter::Measure;

/// What one engine did in one step of one round.
#[derive(Clone, Debug)]
pub struct Row {
    /// The group of the step.
    pub group: String,
    /// The step.
    pub step: String,
    /// The engine.
    pub engine: Kind,
    /// The round, from 0.
    pub round: usize,
    /// What came out.
    pub measure: Measure,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { group, step, engine, round, measure } = self;
        write!(f, "{group}\t{step}\t{engine}\t{round}\t{measure}")
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(line: &str) -> Result<Row, String> {
        let mut parts = line.splitn(5, '\t');
        let mut part = || parts.next().ok_or_else(|| format!("a torn line: {line:?}"));
        let (group, step) = (part()?.to_owned(), part()?.to_owned());
        let engine = Kind::named(part()?).ok_or_else(|| format!("no engine: {line:?}"))?;
        let round = part()?.parse().map_err(|_| format!("no round: {line:?}"))?;
        Ok(Row { group, step, engine, round, measure: part()?.parse()? })
    }
}

/// A median, with the least and the greatest of what it is the median of.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of one number a round; `None` of none.
    pub fn of(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.sort_by(f64::total_cmp);
        let (&least, &greatest) = (numbers.first()?, numbers.last()?);
        let half = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            1 => numbers[half],
            _ => (numbers[half - 1] + numbers[half]) / 2.0,
        };
        Some(Spread { median, least, greatest })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, least, greatest } = *self;
        f.pad(&format!("{} ({}–{})", short(median), short(least), short(greatest)))
    }
}

/// Three digits and a thousand's letter.
pub fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 1e6 => format!("{:.2}M", number / 1e6),
        n if n >= 1e4 => format!("{:.0}k", number / 1e3),
        n if n >= 1e3 => format!("{:.1}k", number / 1e3),
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        n if n >= 0.095 || n == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

/// A goal, and how far it is reached.
pub struct Verdict {
    /// The number that is wanted, in words.
    pub wanted: String,
    /// The number that is held against it.
    pub reached: Spread,
    /// Is it reached by the median?
    pub is_reached: bool,
}

/// All rows of a folder, and what is said of them.
pub struct Results {
    /// Date, machine, command, build.
    pub headers: BTreeMap<String, Vec<String>>,
    rows: Vec<Row>,
}

impl Results {
    /// Reads what [`run`](crate::run) has kept.
    pub fn load(folder: &Path) -> Result<Results, String> {
        let mut results = Results { headers: BTreeMap::new(), rows: Vec::new() };
        let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "tsv"));
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            for line in text.lines() {
                match line.strip_prefix("# ").and_then(|rest| rest.split_once('\t')) {
                    Some((name, value)) => {
                        let values = results.headers.entry(name.to_owned()).or_default();
                        if !values.iter().any(|v| v == value) {
                            values.push(value.to_owned());
                        }
                    }
                    None => results.rows.push(line.parse()?),
                }
            }
        }
        Ok(results)
    }

    /// The engines that took part.
    pub fn engines(&self) -> Vec<Kind> {
        let mut engines: Vec<Kind> = self.rows.iter().map(|row| row.engine).collect();
        engines.sort();
        engines.dedup();
        engines
    }

    /// Groups and steps in the order of the program.
    pub fn steps(&self) -> Vec<(&'static str, &'static str)> {
        let all = GROUPS.iter().chain(SCALE);
        let all = all.flat_map(|group| group.steps.iter().map(|step| (group.name, *step)));
        all.filter(|(_, step)| self.rows.iter().any(|row| row.step == *step)).collect()
    }

    /// A number of each round.
    pub fn numbers(&self, engine: Kind, step: &str, number: &str) -> Vec<(usize, f64)> {
        let rows = self.rows.iter().filter(|row| (row.engine, &*row.step) == (engine, step));
        rows.filter_map(|row| Some((row.round, row.measure.get(number)?))).collect()
    }

    /// A number over the rounds.
    pub fn spread(&self, engine: Kind, step: &str, number: &str) -> Option<Spread> {
        let numbers = self.numbers(engine, step, number);
        Spread::of(numbers.into_iter().map(|(_, number)| number).collect())
    }

    /// A number against another, round by round.
    pub fn ratio(&self, one: (Kind, &str, &str), other: (Kind, &str, &str)) -> Option<Spread> {
        let others: BTreeMap<_, _> = self.numbers(other.0, other.1, other.2).into_iter().collect();
        let ones = self.numbers(one.0, one.1, one.2).into_iter();
        Spread::of(ones.filter_map(|(round, n)| Some(n / others.get(&round)?)).collect())
    }

    /// How far a goal is reached by an engine.
    pub fn verdict(&self, goal: Goal, engine: Kind) -> Option<Verdict> {
        let Goal { step, number, .. } = goal;
        let ours = (engine, step, number);
        let base = (Kind::RocksDb, step, number);
        let (wanted, reached, is_reached) = match goal.want {
            Want::Faster(times) => {
                let ratio = self.ratio(ours, base)?;
                (format!("≥ {times}×"), ratio, ratio.median >= times)
            }
            Want::FasterThan(step, times) => {
                let ratio = self.ratio(ours, (Kind::RocksDb, step, number))?;
                (format!("≥ {times}×"), ratio, ratio.median >= times)
            }
            Want::Shorter(times) => {
                let ratio = self.ratio(base, ours)?;
                (format!("≥ {times}×"), ratio, ratio.median >= times)
            }
            Want::AtMost(times) => {
                let ratio = self.ratio(ours, base)?;
                (format!("≤ {times}×"), ratio, ratio.median <= times)
            }
            Want::Below(limit) => {
                let number = self.spread(engine, step, number)?;
                (format!("≤ {limit}"), number, number.median <= limit)
            }
            Want::GrowsAtMost(from, times) => {
                let growth = |kind| self.ratio((kind, from, number), (kind, step, number));
                let (ours, base) = (growth(engine)?, growth(Kind::RocksDb)?);
                let reached = Spread {
                    median: ours.median / base.median,
                    least: ours.least / base.greatest,
                    greatest: ours.greatest / base.least,
                };
                (format!("≤ {times}×"), reached, reached.median <= times)
            }
            Want::OfOwn(step, part) => {
                let ratio = self.ratio(ours, (engine, step, number))?;
                (format!("≥ {part}"), ratio, ratio.median >= part)
            }
        };
        Some(Verdict { wanted, reached, is_reached })
    }

    /// In which rows alluvium is slower than an LSM peer that took part, in one sentence; `None` if
    /// none did.
    pub fn losses(&self) -> Option<String> {
        let peers: Vec<Kind> = self.engines().into_iter().filter(|k| k.is_lsm_peer()).collect();
        let names: Vec<String> = peers.iter().map(Kind::to_string).collect();
        let (mut losses, mut rows) = (Vec::new(), 0);
        for (i, goal) in GOALS.iter().enumerate() {
            let Goal { name, step, number, .. } = *goal;
            if GOALS[..i].iter().any(|before| (before.step, before.number) == (step, number)) {
                continue;
            }
            let mut is_row = false;
            for &peer in &peers {
                let (ours, theirs) = ((Kind::Alluvium, step, number), (peer, step, number));
                let ratio = match number {
                    "rate" | "settled" => self.ratio(ours, theirs),
                    "ms" | "blocking" | "micros" | "empty" => self.ratio(theirs, ours),
                    _ => None, // not a speed
                };
                is_row |= ratio.is_some();
                if let Some(ratio) = ratio.filter(|ratio| ratio.median < 1.0) {
                    losses.push(format!("{name}, {ratio} of {peer}"));
                }
            }
            rows += usize::from(is_row);
        }
        (rows > 0).then(|| {
            let found = if losses.is_empty() { "none".to_owned() } else { losses.join("; ") };
            format!("Slower than an LSM peer ({}), of {rows} rows: {found}.", names.join(", "))
        })
    }

    /// How busy others kept the machine, the median over all rows.
    pub fn others(&self) -> f64 {
        let shares = self.rows.iter().filter_map(|row| row.measure.get("others")).collect();
        Spread::of(shares).map_or(0.0, |spread| spread.median)
    }

    /// Goals and what was reached, then all numbers.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let engines = self.engines();
        for (name, values) in &self.headers {
            values.iter().for_each(|value| writeln!(out, "{name}: {value}").expect("a string"));
        }
        writeln!(out, "others took {:.0} % of the processors\n", self.others() * 100.0)
            .expect("a string");
        if GOALS.iter().any(|goal| self.verdict(*goal, Kind::Alluvium).is_some()) {
            self.write_goals(&mut out, &engines).expect("a string");
        }
        if let Some(losses) = self.losses() {
            writeln!(out, "{losses}\n").expect("a string");
        }
        self.write_numbers(&mut out, &engines).expect("a string");
        if let Some(scale) = self.scale() {
            writeln!(out, "\n{scale}").expect("a string");
        }
        out
    }

    /// What is shown of a step: a time in µs for a rate, otherwise the number itself.
    pub fn cost(&self, kind: Kind, step: &str, number: &str) -> Option<f64> {
        let median = self.spread(kind, step, number)?.median;
        Some(if matches!(number, "rate" | "settled") { 1e6 / median } else { median })
    }

    /// Costs against size, as a table in Markdown; `None` if no such steps were done.
    pub fn scale(&self) -> Option<String> {
        let mut out = String::from("| µs an operation |");
        let kinds = [Kind::Alluvium, Kind::RocksDb];
        for kind in kinds {
            SIZES.iter().for_each(|size| out += &format!(" {kind}, {} |", size.to_uppercase()));
            out += " growth |";
        }
        let columns = kinds.len() * (SIZES.len() + 1);
        out += &format!("\n|---|{}\n", "---|".repeat(columns));
        let mut any = false;
        for (name, step, number) in SHOWN {
            out += &format!("| {name} |");
            for kind in kinds {
                let costs = SIZES.map(|size| self.cost(kind, &format!("{step}-{size}"), number));
                any |= costs.iter().any(Option::is_some);
                let growth = costs[SIZES.len() - 1].zip(costs[0]).map(|(last, first)| last / first);
                let show = |cost: Option<f64>| cost.map_or("–".to_owned(), short);
                costs.into_iter().for_each(|cost| out += &format!(" {} |", show(cost)));
                let growth = growth.map_or("–".to_owned(), |times| format!("{}×", short(times)));
                out += &format!(" {growth} |");
            }
            out += "\n";
        }
        any.then_some(out)
    }

    fn write_goals(&self, out: &mut String, engines: &[Kind]) -> fmt::Result {
        write!(out, "{:<42} {:>8}  {:<24}   ", "", "goal", "reached")?;
        for kind in engines {
            write!(out, " {:>24}", kind.to_string())?;
        }
        writeln!(out)?;
        let (mut reached, mut all) = (0, 0);
        for goal in GOALS {
            let Some(verdict) = self.verdict(*goal, Kind::Alluvium) else { continue };
            all += 1;
            reached += usize::from(verdict.is_reached);
            let mark = if verdict.is_reached { "ok" } else { "--" };
            let Verdict { wanted, reached, .. } = verdict;
            write!(out, "{:<42} {wanted:>8}  {:<24} {mark}", goal.name, reached.to_string())?;
            for kind in engines {
                let spread = self.spread(*kind, goal.step, goal.number);
                let text = spread.map_or("-".into(), |spread| spread.to_string());
                write!(out, " {text:>24}")?;
            }
            writeln!(out)?;
        }
        writeln!(out, "{reached} of {all} goals reached\n")
    }

    fn write_numbers(&self, out: &mut String, engines: &[Kind]) -> fmt::Result {
        let names =
            ["rate", "p50", "p99", "p999", "stall", "cpu", "background", "written", "memory"];
        write!(out, "{:<20} {:<13}", "step", "engine")?;
        names.iter().try_for_each(|name| write!(out, " {name:>11}"))?;
        writeln!(out, "  other numbers")?;
        for (_, step) in self.steps() {
            for kind in engines {
                let mut rows = self.rows.iter().filter(|r| (r.engine, &*r.step) == (*kind, step));
                let Some(row) = rows.next() else { continue };
                write!(out, "{step:<20} {:<13}", kind.to_string())?;
                for name in names {
                    let spread = self.spread(*kind, step, name);
                    write!(out, " {:>11}", spread.map_or("-".into(), |s| short(s.median)))?;
                }
                for (name, _) in &row.measure.0 {
                    if !names.contains(&&**name)
                        && let Some(spread) = self.spread(*kind, step, name)
                    {
                        write!(out, "  {name} {}", short(spread.median))?;
                    }
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }
}
