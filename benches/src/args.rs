//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::engine::Kind;
use crate::group::{GROUPS, GroupKind, SCALE};

const USAGE: &str = "\
usage: alluvium-bench run [OPTIONS]          time alluvium and its peers, print a table
       alluvium-bench table [OPTIONS]        print the table of what was timed before
       alluvium-bench report [OPTIONS]       one page and charts of it, beside it; the README's table
       alluvium-bench run --check            alluvium against maps in memory (see --help there)
       alluvium-bench profile WORKLOAD       one workload of those, for a profiler

  --quick          small sizes, 3 rounds: minutes (default)
  --full           the sizes of the goals, 5 rounds: an hour for two engines; groups that are done
                   are not done again
  --scale          cost against size, at 1, 16 and 64 M records, 1 round: 20 minutes for two engines,
                   12 GB of disk; sizes that are done are not done again
  --group A,B      only these groups; they are done again
  --step A,B       of these groups, only these steps, and those before them
  --engine A,B     default: alluvium and rocksdb
  --rounds N
  --results DIR    where results are kept (target/results)
  --dir DIR        where stores are made (the directory for temporary files)

engines: ";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Time, and print the table.
    Run,
    /// Print the table.
    Table,
    /// Write the page, the charts and the table of the README.
    Report,
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Small.
    Quick,
    /// The sizes of the goals.
    Full,
    /// Three sizes of the same.
    Scale,
}

impl Size {
    /// Name of the folder of its results.
    pub fn name(self) -> &'static str {
        match self {
            Size::Quick => "quick",
            Size::Full => "full",
            Size::Scale => "scale",
        }
    }

    fn groups(self) -> &'static [GroupKind] {
        if self == Size::Scale { SCALE } else { GROUPS }
    }
}

/// What to do, how often, with whom.
pub struct Args {
    /// What to do.
    pub command: Command,
    /// How much.
    pub size: Size,
    /// Groups that were named, or all.
    pub groups: Vec<&'static GroupKind>,
    /// Were groups named?
    pub again: bool,
    /// Steps that were named; none: all.
    pub steps: Vec<String>,
    /// Who takes part.
    pub engines: Vec<Kind>,
    /// How often everything is done.
    pub rounds: usize,
    /// Where results are kept.
    pub results: PathBuf,
    /// Where stores are made.
    pub dir: PathBuf,
    /// The words, for the report.
    pub line: String,
}

impl Args {
    /// Parses the words after the program's name; the error is to be shown as it is.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Args, String> {
        let words: Vec<String> = words.collect();
        let line = words.join(" ");
        let mut words = words.into_iter();
        let command = match words.next().as_deref() {
            Some("run") => Command::Run,
            Some("table") => Command::Table,
            Some("report") if cfg!(feature = "report") => Command::Report,
            Some("report") => return Err("not in this build: cargo run --features report".into()),
            _ => return Err(usage("run, table or report?")),
        };
        let mut args = Args {
            command,
            size: Size::Quick,
            groups: Vec::new(),
            again: false,
            steps: Vec::new(),
            engines: Vec::new(),
            rounds: 0,
            results: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/results")),
            dir: std::env::temp_dir(),
            line,
        };
        let mut groups: Option<String> = None;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| usage(&format!("{word} of what?")));
            match word.as_str() {
                "--quick" => args.size = Size::Quick,
                "--full" => args.size = Size::Full,
                "--scale" => args.size = Size::Scale,
                "--group" => groups = Some(value()?),
                "--step" => args.steps = value()?.split(',').map(str::to_owned).collect(),
                "--engine" => args.engines = engines(&value()?)?,
                "--rounds" => {
                    args.rounds = value()?.parse().map_err(|_| usage("how many rounds?"))?;
                }
                "--results" => args.results = PathBuf::from(value()?),
                "--dir" => args.dir = PathBuf::from(value()?),
                other => return Err(usage(&format!("what is {other:?}?"))),
            }
        }
        let all = args.size.groups();
        args.again = groups.is_some();
        args.groups = match &groups {
            None => all.iter().collect(),
            Some(names) => {
                let named = names.split(',').map(|name| {
                    let found = all.iter().find(|group| group.name == name);
                    found.ok_or_else(|| usage(&format!("no group {name:?} in this run")))
                });
                named.collect::<Result<_, _>>()?
            }
        };
        if args.engines.is_empty() {
            args.engines = vec![Kind::Alluvium, Kind::RocksDb];
            args.engines.retain(|kind| kind.is_built());
        }
        if args.rounds == 0 {
            args.rounds = match args.size {
                Size::Quick => 3,
                Size::Full => 5,
                Size::Scale => 1,
            };
        }
        Ok(args)
    }
}

fn engines(text: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for name in text.split(',') {
        let kind = Kind::named(name).ok_or_else(|| usage(&format!("no engine {name:?}")))?;
        if !kind.is_built() {
            return Err(format!("{kind} is not in this build: cargo run --features peers"));
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

fn usage(problem: &str) -> String {
    let names: Vec<_> = Kind::ALL.iter().map(ToString::to_string).collect();
    let mut text = format!("{problem}\n\n{USAGE}{}\n", names.join(", "));
    for group in GROUPS.iter().chain(SCALE) {
        text += &format!("group {}: {}\n    {}\n", group.name, group.about, group.steps.join(", "));
    }
    text
}

/// Says why nothing is done.
pub fn refuse(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(2)
}
