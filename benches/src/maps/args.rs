//! The command line.

use crate::maps::engine::Kind;
use crate::maps::workload::Workload;

const USAGE: &str = "\
usage: alluvium-bench run --check [OPTIONS]         alluvium against maps in memory
       alluvium-bench profile WORKLOAD [OPTIONS]    one workload, `rounds` times, for a profiler

  --quick          100,000 keys
  --keys N         keys in the store (500,000)
  --ops N          operations a workload and round, at most the keys (as many as keys)
  --rounds N       rounds (5)
  --engine A,B     of: alluvium, reader, hash, btree (all)
  --check          exit 1 if a get or an overwrite in the memtable costs more than twice what it
                   costs in the hash map

workloads: ";

/// What to do.
pub enum Command {
    /// Time everything.
    Run,
    /// One workload, for a profiler.
    Profile(Workload),
}

/// What to do, how often, with whom.
pub struct Args {
    /// What to do.
    pub command: Command,
    /// Keys in the store.
    pub keys: usize,
    /// Operations a workload and round; at most `keys`.
    pub ops: usize,
    /// How often everything is done.
    pub rounds: usize,
    /// Who takes part.
    pub engines: Vec<Kind>,
    /// Hold the result to the limit.
    pub check: bool,
}

impl Args {
    /// Parses the words after the program's name; the error is to be shown as it is.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let command = match words.next().as_deref() {
            Some("run") => Command::Run,
            Some("profile") => {
                let name = words.next().unwrap_or_default();
                let found = Workload::ALL.into_iter().find(|w| w.to_string() == name);
                Command::Profile(found.ok_or_else(|| usage(&format!("no workload {name:?}")))?)
            }
            _ => return Err(usage("run or profile?")),
        };
        let (mut keys, mut ops, mut rounds) = (500_000, None, 5);
        let mut engines = Kind::ALL.to_vec();
        let mut check = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| usage(&format!("{word} of what?")));
            match word.as_str() {
                "--quick" => keys = 100_000,
                "--keys" => keys = number(&value()?)?,
                "--ops" => ops = Some(number(&value()?)?),
                "--rounds" => rounds = number(&value()?)?,
                "--engine" => engines = kinds(&value()?)?,
                "--check" => check = true,
                other => return Err(usage(&format!("what is {other:?}?"))),
            }
        }
        if keys < 1000 {
            return Err(usage("at least 1,000 keys"));
        }
        Ok(Args { command, keys, ops: ops.unwrap_or(keys).clamp(10, keys), rounds, engines, check })
    }
}

fn usage(problem: &str) -> String {
    let names: Vec<_> = Workload::ALL.iter().map(ToString::to_string).collect();
    format!("{problem}\n\n{USAGE}{}", names.join(", "))
}

fn number(text: &str) -> Result<usize, String> {
    match text.replace([',', '_'], "").parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(usage(&format!("{text:?} is no count"))),
    }
}

fn kinds(text: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for name in text.split(',') {
        let kind = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
        let kind = kind.ok_or_else(|| usage(&format!("no engine {name:?}")))?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}
