//! The table: medians with least and greatest, and ratios.
//!
//! A ratio is taken within each round, between neighbours in time; what is printed is the median of
//! those, with least and greatest.

use std::fmt;

use crate::maps::engine::Kind;
use crate::maps::workload::Workload;

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
    fn of(mut numbers: Vec<f64>) -> Option<Spread> {
        numbers.sort_by(f64::total_cmp);
        let (&least, &greatest) = (numbers.first()?, numbers.last()?);
        let half = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            1 => numbers[half],
            _ => (numbers[half - 1] + numbers[half]) / 2.0,
        };
        Some(Spread { median, least, greatest })
    }

    fn show(self, digits: usize) -> String {
        let Spread { median, least, greatest } = self;
        format!("{median:.digits$} ({least:.digits$}-{greatest:.digits$})")
    }
}

/// What was measured: for each workload and engine, one number a round.
pub struct Report {
    engines: Vec<Kind>,
    samples: Vec<(Workload, Kind, f64)>,
}

impl Report {
    /// An empty report on these engines.
    pub fn new(engines: &[Kind]) -> Report {
        Report { engines: engines.to_vec(), samples: Vec::new() }
    }

    /// Adds what one round gave: nanoseconds for each operation.
    pub fn add(&mut self, workload: Workload, engine: Kind, ns: f64) {
        self.samples.push((workload, engine, ns));
    }

    fn of(&self, workload: Workload, engine: Kind) -> Vec<f64> {
        let wanted = |sample: &&(Workload, Kind, f64)| (sample.0, sample.1) == (workload, engine);
        self.samples.iter().filter(wanted).map(|sample| sample.2).collect()
    }

    /// How many times the cost of `base` is that of `engine`, round by round.
    pub fn ratio(&self, workload: Workload, engine: Kind, base: Kind) -> Option<Spread> {
        let (costs, bases) = (self.of(workload, engine), self.of(workload, base));
        Spread::of(costs.iter().zip(&bases).map(|(cost, base)| cost / base).collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bases: Vec<Kind> = [Kind::HashMap, Kind::BTreeMap]
            .into_iter()
            .filter(|base| self.engines.contains(base) && self.engines.contains(&Kind::Alluvium))
            .collect();
        writeln!(
            f,
            "ns for each operation, for each entry of a full scan: median (least-greatest)"
        )?;
        writeln!(f)?;
        write!(f, "{:<17}", "")?;
        for engine in &self.engines {
            write!(f, " {engine:>22}")?;
        }
        for base in &bases {
            write!(f, " {:>19}", format!("alluvium : {base}"))?;
        }
        writeln!(f)?;
        for workload in Workload::ALL {
            let rows = self.engines.iter().map(|engine| Spread::of(self.of(workload, *engine)));
            let rows: Vec<_> = rows.collect();
            if rows.iter().all(Option::is_none) {
                continue;
            }
            write!(f, "{workload:<17}")?;
            let show = |spread: Option<Spread>, digits| match spread {
                Some(spread) => spread.show(digits),
                None => "-".into(),
            };
            for spread in rows {
                write!(f, " {:>22}", show(spread, 0))?;
            }
            for base in &bases {
                let ratio = self.ratio(workload, Kind::Alluvium, *base);
                write!(f, " {:>19}", show(ratio, 2))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
