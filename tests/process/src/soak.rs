//! A long life in one process: writers, reopenings, checkpoints, restores. In the end of every round
//! all is closed, and everything must have been given back: file handles, threads, memory, space.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alluvium::{
    Background, CheckpointStore, ColumnFamily, Db, DirStore, DiskFs, Env, Error, Fs, MemoryBudget,
    ObjectName, Options, WriteOptions, load_checkpoint,
};
use alluvium_report::Rng;

use crate::Settings;
use crate::keyed;
use crate::oracle::{self, Batch, Model};
use crate::stats::Stats;

const WRITERS: u8 = 2;

/// Rounds until a level is taken for the base.
const WARM_UP: usize = 3;

/// Bytes of memory by which the process may be larger in the end, besides a twentieth.
const RSS_SLACK: u64 = 12 << 20;

/// What is left of a round when all is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    handles: usize,
    threads: usize,
    budget: usize,
    rss: u64,
    /// Files of the database, and those that its manifest names, with the manifest and `CURRENT`.
    files: (usize, usize),
    bytes: u64,
    /// Objects of the store, and those that a checkpoint names.
    objects: (usize, usize),
}

#[expect(clippy::disallowed_methods, reason = "measures; makes directories")]
pub fn run(settings: &Settings, stats: &mut Stats) -> Result<(), String> {
    let start = Instant::now();
    let end = start + settings.time.unwrap_or(Duration::from_secs(30));
    let (db_dir, keyed_dir) = (settings.dir.join("soak"), settings.dir.join("soak keyed"));
    std::fs::create_dir_all(&keyed_dir).map_err(|e| e.to_string())?;
    let env = Env::new(MemoryBudget::new(24 << 20));
    let mut model = Model::new(settings.seed, WRITERS);
    let mut keyed_model = keyed::Model::default();
    let mut levels: Vec<Level> = Vec::new();
    let mut round = 0u64;
    while Instant::now() < end || levels.len() < WARM_UP + 2 {
        round += 1;
        database(&db_dir, settings.seed, round, &env, &mut model, stats)?;
        backend(&keyed_dir, settings.seed, round, &env, &mut keyed_model, stats)?;
        let level = measure(&db_dir, &keyed_dir, &env)?;
        if let Some(base) = levels.get(WARM_UP - 1) {
            compare(base, &level).map_err(|text| format!("round {round}: {text}"))?;
        }
        levels.push(level);
    }
    slope(&levels)?;
    let last = levels.last().expect("there were rounds");
    stats.add("rounds", round);
    stats.add("rss_bytes", last.rss);
    stats.add("rss_bytes_base", levels[WARM_UP - 1].rss);
    stats.add("database_bytes", last.bytes);
    stats.add("handles", last.handles as u64);
    stats.add("threads", last.threads as u64);
    Ok(())
}

/// Opens the database, lets writers and readers work for a while, and closes it or lets it drop.
fn database(
    dir: &Path,
    seed: u64,
    round: u64,
    env: &Env,
    model: &mut Model,
    stats: &mut Stats,
) -> Result<(), String> {
    let told = |e: Error| format!("round {round}: {e}");
    let mut rng = Rng::of(seed, round);
    for _ in 0..1 + rng.below(3) {
        let threads = 1 + rng.below(2) as usize;
        let env = env.clone().with_background(Background::Threads(threads));
        let options = Options {
            log_segment_bytes: [32 << 10, 96 << 10, 1 << 20][rng.below(3) as usize],
            log_segments_max: 1 + rng.below(4) as usize,
            stall_ms_max: 10_000,
            ..Options::default()
        };
        let (db, families) = oracle::open_in(dir, options, env).map_err(told)?;
        work(&db, &families, seed, 300 + rng.below(900), rng.next_u64()).map_err(told)?;
        for writer in 0..WRITERS {
            let n = oracle::number(&db, &families, writer).map_err(told)?;
            stats.add("batches", n - model.written[usize::from(writer)]);
            model.advance(writer, n);
        }
        model.compare(&db, &families)?;
        stats.add("reopenings", 1);
        drop(families);
        match rng.below(2) {
            0 => db.close().map_err(told)?,
            _ => drop(db),
        }
    }
    // Left as a database is that does nothing: idle, compacted, closed.
    let (db, families) = oracle::open_in(dir, Options::default(), env.clone()).map_err(told)?;
    for family in &families {
        db.compact_range(family, ..).map_err(told)?;
    }
    db.wait_idle().map_err(told)?;
    db.verify().map_err(told)?;
    drop(families);
    db.close().map_err(told)
}

/// Writers with so many batches each, beside scans, snapshots and checkpoints.
fn work(
    db: &Db,
    families: &[ColumnFamily],
    seed: u64,
    batches: u64,
    chance: u64,
) -> Result<(), Error> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let first = oracle::number(db, families, writer)? + 1;
                    for n in first..first + batches {
                        let batch = Batch::new(seed, writer, n);
                        // Syncs are for others: this is about what is left behind.
                        let options = WriteOptions { sync: n.is_multiple_of(100) };
                        db.write(&batch.encode(families), options)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let done = &done;
        let reader = scope.spawn(move || read(db, families, chance, done));
        let written: Vec<Result<(), Error>> =
            writers.into_iter().map(|writer| writer.join().expect("a writer panicked")).collect();
        done.store(true, Ordering::Relaxed);
        let read = reader.join().expect("the reader panicked");
        written.into_iter().collect::<Result<(), Error>>().and(read)
    })
}

fn read(db: &Db, families: &[ColumnFamily], chance: u64, done: &AtomicBool) -> Result<(), Error> {
    let mut rng = Rng::of(chance, 1);
    while !done.load(Ordering::Relaxed) {
        let family = &families[rng.below(3) as usize];
        match rng.below(6) {
            0 => drop(db.checkpoint()?.wait()?),
            1 => db.flush(family)?,
            2 => {
                let snapshot = db.snapshot();
                let range = alluvium::KeyRange::all();
                let mut scan = db.scan_range(family, range, Some(&snapshot))?;
                while scan.next()? {}
            }
            // Abandoned half-way.
            3 => drop(db.checkpoint()?),
            4 => {
                let mut scan = db.scan(family, ..)?;
                for _ in 0..rng.below(50) {
                    if !scan.next()? {
                        break;
                    }
                }
            }
            _ => drop(db.reader(family)?),
        }
    }
    Ok(())
}

/// Restores the newest checkpoint, goes on for a few, and compares a restored one.
fn backend(
    dir: &Path,
    seed: u64,
    round: u64,
    env: &Env,
    model: &mut keyed::Model,
    stats: &mut Stats,
) -> Result<(), String> {
    let confirmed = std::cell::Cell::new(0);
    let checkpoints = 2 + round % 4;
    keyed::run(dir, seed, round, env.clone(), checkpoints, &|id| confirmed.set(id), &|| {})
        .map_err(|e| format!("round {round}: {e}"))?;
    let newest = keyed::judge(dir, seed, confirmed.get(), model)?;
    if newest != confirmed.get() {
        return Err(format!("round {round}: checkpoint {newest} came from nowhere"));
    }
    stats.add("checkpoints", checkpoints);
    stats.add("restores", 2);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "looks at the process and its directories")]
fn measure(db_dir: &Path, keyed_dir: &Path, env: &Env) -> Result<Level, String> {
    let told = |e: std::io::Error| e.to_string();
    let count = |path: &str| std::fs::read_dir(path).map(Iterator::count).map_err(told);
    // Threads that have been joined may stay in the list for a moment.
    let mut threads = count("/proc/self/task")?;
    for _ in 0..50 {
        if threads == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        threads = count("/proc/self/task")?;
    }
    let statm = std::fs::read_to_string("/proc/self/statm").map_err(told)?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let fs: std::sync::Arc<dyn Fs> = std::sync::Arc::new(DiskFs::new());
    let listed = fs.list(db_dir).map_err(|e| e.to_string())?;
    let closed = alluvium::inspect::ClosedDb::open(&fs, db_dir).map_err(|e| e.to_string())?;
    let found = closed.verify(&mut |_, _| {});
    if let Some(e) = found.damage.first() {
        return Err(e.to_string());
    }
    drop(closed);
    let store = DirStore::open(fs, keyed_dir.join("store")).map_err(|e| e.to_string())?;
    Ok(Level {
        handles: count("/proc/self/fd")?,
        threads,
        budget: env.budget().used(),
        rss: pages.ok_or("/proc/self/statm has no such number")? * 4096,
        files: (listed.len(), (found.tables + found.logs) as usize + 2),
        bytes: listed.iter().map(|file| file.len).sum(),
        objects: objects(&store).map_err(|e| e.to_string())?,
    })
}

/// Objects in the store, and objects that are named by its checkpoints, which are objects too.
fn objects(store: &DirStore) -> Result<(usize, usize), Error> {
    let stored = store.list()?;
    let mut named = std::collections::BTreeSet::new();
    for object in &stored {
        if let ObjectName::Checkpoint(id) = object.name {
            let envelope = load_checkpoint(store, id)?.envelope;
            named.insert(object.name.to_string());
            named.extend(envelope.objects.iter().map(|object| object.name.to_string()));
        }
    }
    Ok((stored.len(), named.len()))
}

/// Has everything been given back that the base did not have?
fn compare(base: &Level, level: &Level) -> Result<(), String> {
    let same = level.handles == base.handles
        && level.threads == base.threads
        && level.budget <= base.budget
        && level.files.0 == level.files.1
        && level.objects.0 == level.objects.1
        // What is alive is bounded: so is the space.
        && level.bytes <= 2 * base.bytes + (1 << 20)
        && level.rss <= base.rss + base.rss / 4 + RSS_SLACK;
    match same {
        true => Ok(()),
        false => {
            Err(format!("not everything was given back: {level:?}; in the beginning: {base:?}"))
        }
    }
}

/// Does memory go on growing? The last quarter of a long life is compared with the second.
fn slope(levels: &[Level]) -> Result<(), String> {
    let quarter = levels.len() / 4;
    if quarter < WARM_UP {
        return Ok(());
    }
    let mean = |levels: &[Level]| levels.iter().map(|l| l.rss).sum::<u64>() / levels.len() as u64;
    let (second, last) = (mean(&levels[quarter..2 * quarter]), mean(&levels[3 * quarter..]));
    match last <= second + second / 20 + (4 << 20) {
        true => Ok(()),
        false => Err(format!("memory goes on growing: {second} bytes, later {last}")),
    }
}
