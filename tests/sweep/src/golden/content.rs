//! What is in the golden files, read in every way there is, as plain text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Codec, ColumnFamily, Db, DirStore, Env, Error, Fs, MemFs, MemoryBudget, Options, Result,
    StateBackend, latest_checkpoint, load_checkpoint, restore_checkpoint, verify_checkpoint,
};

use crate::golden::Files;
use crate::golden::make::{backend_options, family_options};

const KEYS: u64 = 8;
const FAMILIES: [&str; 2] = ["lists", "plain"];

/// All values of a database: family, key, value, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(pub BTreeMap<String, String>);

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(key, value)| writeln!(f, "{key} = {value}"))
    }
}

/// All states that ever were, the empty one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub states: Vec<State>,
}

impl Default for History {
    fn default() -> History {
        History { states: vec![State::default()] }
    }
}

impl History {
    pub fn push(&mut self, next: State) {
        self.states.push(next);
    }

    /// Reads the inverse of `Display`.
    pub fn parse(text: &str) -> Option<History> {
        let mut history = History::default();
        for part in text.split("then\n").skip(1) {
            let mut state = history.states.last()?.clone();
            for line in part.lines() {
                let (sign, line) = line.split_at_checked(2)?;
                match sign {
                    "- " => drop(state.0.remove(line)?),
                    "+ " => {
                        let (key, value) = line.split_once(" = ")?;
                        state.0.insert(key.to_owned(), value.to_owned());
                    }
                    _ => return None,
                }
            }
            history.push(state);
        }
        Some(history)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pair in self.states.windows(2) {
            writeln!(f, "then")?;
            let (old, new) = (&pair[0].0, &pair[1].0);
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                writeln!(f, "- {key}")?;
            }
            for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
                writeln!(f, "+ {key} = {value}")?;
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn family(db: &Db, name: &str) -> Result<ColumnFamily> {
    db.column_family(name, family_options(Codec::None, name == "lists"))
}

/// All there is, by scans in both directions and by gets, which must agree.
///
/// # Errors
/// The engine's.
///
/// # Panics
/// If two ways of reading disagree.
pub fn contents(db: &Db) -> Result<State> {
    let mut state = State::default();
    for name in FAMILIES {
        if !db.column_families().iter().any(|found| found == name) {
            continue;
        }
        let family = family(db, name)?;
        let mut scan = db.scan(&family, ..)?;
        let mut found = Vec::new();
        while scan.next()? {
            found.push((scan.key().to_vec(), scan.value().to_vec()));
        }
        for (key, value) in found.iter().rev() {
            assert!(scan.prev()?, "backwards there are fewer");
            assert_eq!((scan.key(), scan.value()), (&**key, &**value));
        }
        assert!(!scan.prev()?, "backwards there are more");
        for (key, value) in found {
            assert_eq!(db.get(&family, &key)?.as_ref(), Some(&value), "a get, a scan");
            let line = format!("{name} {}", text(&key));
            state.0.insert(line, text(&value));
        }
    }
    Ok(state)
}

/// A file system that holds these files below `dir`.
pub fn disk(files: &Files, dir: &str) -> MemFs {
    let fs = MemFs::new();
    files.iter().for_each(|(path, bytes)| fs.write(&Path::new(dir).join(path), bytes));
    fs
}

pub fn env(fs: &MemFs) -> Env {
    Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 3)
}

/// Opens the database in `db` and reads all of it, every byte of every table included.
///
/// # Errors
/// The engine's.
pub fn read_database(fs: &MemFs, log: bool) -> Result<State> {
    let options = Options { create_if_missing: false, log, ..Options::default() };
    let db = Db::open(Path::new("db"), options, env(fs))?;
    let state = contents(&db)?;
    db.verify()?;
    Ok(state)
}

/// Reads all of a database whose bytes may say anything: two ways of reading may disagree.
///
/// # Errors
/// The engine's.
pub fn read_anything(fs: &MemFs, log: bool) -> Result<()> {
    let options = Options { create_if_missing: false, log, ..Options::default() };
    let db = Db::open(Path::new("db"), options, env(fs))?;
    let sound = db.verify();
    for name in FAMILIES {
        let family = family(&db, name)?;
        let mut scan = db.scan(&family, ..)?;
        while scan.next()? {
            db.get(&family, scan.key())?;
        }
        while scan.prev()? {}
    }
    sound
}

/// What was found of a store's checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub checkpoints: usize,
    pub refused: usize,
}

/// Writes to all kinds of state; `round` says what.
///
/// # Errors
/// The engine's.
pub fn write_state(backend: &mut StateBackend<u64>, round: u64) -> Result<()> {
    let mut counts = backend.value_state::<u64>("counts")?;
    let mut names = backend.list_state::<String>("names")?;
    let mut routes = backend.map_state::<String, i64>("routes")?;
    let mut seen = backend.value_state::<String>("seen")?;
    let mut timers = backend.timer_service::<()>("timers")?;
    for key in 0..KEYS {
        backend.set_current_key(&key)?;
        if round == 1 {
            counts.update(&(key * 100))?;
            seen.update(&format!("seen {key}"))?;
        }
        if key % 2 == 0 {
            names.add(&format!("name {key} of round {round}"))?;
            routes.put(&format!("route {round}"), &-(key as i64))?;
            timers.register_event_time_timer(&(), 1000 * round as i64 + key as i64)?;
        }
    }
    Ok(())
}

fn read_state(backend: &mut StateBackend<u64>) -> Result<Vec<String>> {
    let mut counts = backend.value_state::<u64>("counts")?;
    let mut names = backend.list_state::<String>("names")?;
    let mut routes = backend.map_state::<String, i64>("routes")?;
    let mut seen = backend.value_state::<String>("seen")?;
    let mut timers = backend.timer_service::<()>("timers")?;
    let mut lines = Vec::new();
    for key in 0..KEYS {
        backend.set_current_key(&key)?;
        let entries = routes.iter()?.collect::<Result<Vec<_>>>()?;
        let (count, seen, names) = (counts.value()?, seen.value()?, names.get()?);
        lines.push(format!("  {key}: {count:?} {seen:?} {names:?} {entries:?}"));
    }
    while let Some(timer) = timers.event_time().poll()? {
        lines.push(format!("  timer {} {}", timer.time, timer.key));
    }
    Ok(lines)
}

/// Reads, verifies and restores every checkpoint of a store, given its files. One that is refused is
/// left out of the text.
///
/// # Errors
/// The first refusal, if none of the checkpoints could be restored.
pub fn read_store(files: &Files, counts: &mut Counts) -> Result<String> {
    let fs = disk(files, "store");
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let store = DirStore::open(shared, "store")?;
    let newest = latest_checkpoint(&store)?.unwrap_or(0);
    let (mut lines, mut refusal) = (Vec::new(), None);
    for id in 1..=newest {
        let read = read_checkpoint(&store, &fs, id);
        match read {
            Ok(found) => {
                counts.checkpoints += 1;
                lines.extend(found);
            }
            Err(e) => {
                counts.refused += 1;
                refusal = Some(e);
            }
        }
    }
    match refusal {
        Some(e) if lines.is_empty() => Err(e),
        _ => Ok(lines.iter().map(|line| format!("{line}\n")).collect()),
    }
}

fn read_checkpoint(store: &DirStore, fs: &MemFs, id: u64) -> Result<Vec<String>> {
    let saved = load_checkpoint(store, id)?;
    verify_checkpoint(store, &saved)?;
    let envelope = &saved.envelope;
    let mut lines = vec![format!("checkpoint {id}: {}", text(&envelope.user))];
    for (name, bytes) in &envelope.operator_state {
        lines.push(format!("  {name}: {}", text(bytes)));
    }
    let (options, dir) = (backend_options()?, format!("restored {id}"));
    let db_options = options.db.clone();
    let db = restore_checkpoint(store, &saved, 0..=3, Path::new(&dir), db_options, env(fs))?;
    let mut backend = StateBackend::<u64>::from_db(db, options)?;
    lines.extend(read_state(&mut backend)?);
    backend.db().verify()?;
    Ok(lines)
}

/// Is this how damage is told: by its kind, and by a file?
pub fn is_refusal(e: &Error) -> bool {
    use alluvium::ErrorKind::{Corruption, Unsupported};
    matches!(e.kind(), Corruption | Unsupported)
}
