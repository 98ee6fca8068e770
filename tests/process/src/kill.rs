//! SIGKILL at random moments. The parent keeps the oracle; the directories live through all kills.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alluvium::{Background, Error};
use alluvium_report::Rng;

use crate::Settings;
use crate::child::Word;
use crate::keyed;
use crate::oracle::{self, Model};
use crate::stats::Stats;

/// Writers of the two directories with a log.
const WRITERS: [u8; 2] = [1, 3];

/// What a child has said before it died.
pub struct Heard {
    pub words: Vec<Word>,
}

impl Heard {
    /// The last word of this kind of a writer.
    pub fn last(&self, kind: u8, writer: u8) -> Option<u64> {
        let mut words = self.words.iter().rev();
        words.find(|word| (word.kind, word.writer) == (kind, writer)).map(|word| word.n)
    }
}

/// This program, as a child, perhaps through a shell that sets limits first.
pub fn command(limits: Option<&str>, words: &[&str]) -> Command {
    let exe = std::env::current_exe().expect("this program has a path");
    let mut command = match limits {
        Some(limits) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(exe);
            shell.env_remove("ALLUVIUM_ERROR_PLACES"); // a file of its own would be limited, too
            shell
        }
        None => Command::new(exe),
    };
    command.arg("child").args(words).stdout(Stdio::piped());
    command
}

/// Listens to a child until it is silent; kills it `after` its first word, or after its start.
#[expect(clippy::disallowed_methods, reason = "real processes in real time")]
fn kill(mut child: Child, from_start: bool, after: Duration) -> std::io::Result<Heard> {
    let mut pipe = child.stdout.take().expect("it was asked for");
    let (first, opened) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let mut words = Vec::new();
        let mut bytes = [0; Word::BYTES];
        while pipe.read_exact(&mut bytes).is_ok() {
            words.push(Word::parse(&bytes));
            if words.len() == 1 {
                let _ = first.send(()); // nobody waits if it was killed from the start
            }
        }
        words
    });
    if !from_start {
        let _ = opened.recv_timeout(Duration::from_secs(30)); // silent for so long: killed too
    }
    std::thread::sleep(after);
    child.kill()?;
    child.wait()?;
    Ok(Heard { words: listener.join().expect("it only listens") })
}

/// Exactly a prefix of what each writer has written, and nothing acknowledged is missing.
fn judge(dir: &Path, heard: &Heard, model: &mut Model) -> Result<(), String> {
    let told = |e: Error| e.to_string();
    let (db, families) = oracle::open(dir, Background::Inline).map_err(told)?;
    for writer in 0..model.written.len() as u8 {
        let before = model.written[usize::from(writer)];
        let acked = heard.last(Word::ACK, writer).unwrap_or(before);
        let found = oracle::number(&db, &families, writer).map_err(told)?;
        if !(acked..=acked + 1).contains(&found) {
            return Err(format!("writer {writer}: {acked} acknowledged, {found} found"));
        }
        model.advance(writer, found);
    }
    model.compare(&db, &families)?;
    db.verify().map_err(told)?;
    // Some are closed in order, most are left as they are.
    match heard.words.len() % 5 {
        0 => {
            drop(families);
            db.close().map_err(told)
        }
        _ => Ok(()),
    }
}

#[expect(clippy::disallowed_methods, reason = "measures; makes directories")]
pub fn run(settings: &Settings, stats: &mut Stats) -> Result<(), String> {
    let seed = settings.seed;
    let mut rng = Rng::of(seed, 0);
    let mut models = WRITERS.map(|writers| Model::new(seed, writers));
    let mut keyed_model = keyed::Model::default();
    let mut checkpoint = 0;
    let end = settings.time.map(|time| Instant::now() + time);
    let keyed_dir = settings.dir.join("keyed");
    std::fs::create_dir_all(&keyed_dir).map_err(|e| e.to_string())?;
    for number in 0..settings.kills {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let mode = (number % 3) as usize;
        // A few die while they open.
        let from_start = rng.below(6) == 0;
        let after = Duration::from_micros(rng.below(if from_start { 5_000 } else { 70_000 }));
        let (dir, kind, argument) = match mode {
            2 => (keyed_dir.clone(), "keyed", number),
            _ => (settings.dir.join(format!("log {mode}")), "log", u64::from(WRITERS[mode])),
        };
        let (path, texts) = (dir.to_string_lossy(), [seed.to_string(), argument.to_string()]);
        let child = command(None, &[kind, &path, &texts[0], &texts[1]]).spawn();
        let heard = child.and_then(|child| kill(child, from_start, after));
        let heard = heard.map_err(|e| e.to_string())?;
        if heard.words.iter().any(|word| word.kind == Word::FAILED) {
            return Err(format!("kill {number}: the child failed before it was killed"));
        }
        stats.add("kills", 1);
        stats.add(["kills_log", "kills_log_writers", "kills_keyed"][mode], 1);
        stats.add("kills_while_opening", u64::from(heard.words.is_empty()));
        let acks = heard.words.iter().filter(|word| word.kind == Word::ACK).count() as u64;
        stats.add(if mode == 2 { "checkpoints_confirmed" } else { "batches_acknowledged" }, acks);
        let judged = match mode {
            2 => {
                let acked = heard.last(Word::ACK, 0).unwrap_or(checkpoint);
                let refused = keyed::is_refused(&dir);
                let judged =
                    refused.and_then(|()| keyed::judge(&dir, seed, acked, &mut keyed_model));
                judged.map(|newest| checkpoint = newest)
            }
            _ => judge(&dir, &heard, &mut models[mode]),
        };
        judged.map_err(|text| format!("kill {number} ({kind}): {text}"))?;
    }
    Ok(())
}
