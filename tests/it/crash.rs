//! Power cuts at every I/O of whole lives, and at every I/O of the recovery that follows.
//!
//! A life is a fixed history of writes, flushes, compactions, checkpoints and clean reopenings, with
//! background work interleaved by its seed. It is lived again and again; each time the disk fails one
//! operation later, for good. From what the disk may then hold (nothing unsynced, all of it, or some
//! of it, torn) a database is opened and judged: it holds exactly the first so many commits, not
//! fewer than were promised durable, and no half batch, in both families.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    ColumnFamily, ColumnFamilyOptions, Db, Env, ErrorKind, Keep, MemFs, MemoryBudget, Options,
    Result, WriteBatch, WriteOptions,
};
use alluvium_report::Rng;

use crate::basic::small;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type State = Vec<Map>;

fn read(db: &Db, family: &ColumnFamily) -> Map {
    let mut scan = db.scan(family, ..).unwrap();
    let mut map = Map::new();
    while scan.next().unwrap() {
        map.insert(scan.key().to_vec(), scan.value().to_vec());
    }
    map
}

/// What was done, and what was promised.
struct Witness {
    /// The state after each commit that was tried, the empty one first.
    states: Vec<State>,
    /// This many commits returned `Ok`.
    acked: usize,
    /// This many were promised to survive a power cut.
    durable: usize,
    /// The last thing that succeeded was a clean close.
    closed: bool,
}

impl Witness {
    fn new() -> Witness {
        Witness { states: vec![vec![BTreeMap::new(); 2]], acked: 0, durable: 0, closed: false }
    }
}

fn options(log: bool) -> Options {
    Options { log, log_segment_bytes: 700, ..Options::default() }
}

fn tiny() -> ColumnFamilyOptions {
    ColumnFamilyOptions { memtable_bytes_max: 4 << 10, l0_depth_trigger: 2, ..small() }
}

fn open(fs: &MemFs, log: bool, seed: u64) -> Result<(Db, Vec<ColumnFamily>)> {
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), seed);
    let db = Db::open(Path::new("db"), options(log), env)?;
    let families = vec![db.column_family("a", tiny())?, db.column_family("b", tiny())?];
    Ok((db, families))
}

/// Lives until the disk fails; `Ok` if it never did.
fn live(fs: &MemFs, log: bool, seed: u64, witness: &mut Witness) -> Result<()> {
    let mut rng = Rng::new(seed);
    let (mut db, mut families) = open(fs, log, seed)?;
    let mut pending = Vec::new();
    for step in 0..60u64 {
        witness.closed = false;
        match rng.below(16) {
            0 => {
                db.flush(&families[rng.below(2) as usize])?;
            }
            1 => {
                db.flush_all()?;
                witness.durable = if log { witness.acked } else { 0 };
            }
            2 => db.compact_range(&families[rng.below(2) as usize], ..)?,
            3 => pending.push(db.checkpoint()?),
            4 => {
                if let Some(pending) = pending.pop() {
                    let set = pending.wait()?;
                    assert!(set.tables().all(|table| table.len > 0));
                }
            }
            5 if log => {
                db.sync_wal()?;
                witness.durable = witness.acked;
            }
            6 => {
                pending.clear();
                db.close()?;
                witness.durable = witness.acked;
                (db, families) = open(fs, log, seed + step)?;
            }
            7 | 8 => drop(db.step(rng.below(100))?),
            _ => write(&db, &families, log, &mut rng, witness)?,
        }
    }
    pending.clear();
    db.close()?;
    witness.closed = true;
    witness.durable = witness.acked;
    Ok(())
}

fn write(
    db: &Db,
    families: &[ColumnFamily],
    log: bool,
    rng: &mut Rng,
    witness: &mut Witness,
) -> Result<()> {
    let mut state = witness.states.last().unwrap().clone();
    let mut batch = WriteBatch::new();
    for _ in 0..=rng.below(4) {
        let (family, key) = (rng.below(2) as usize, vec![b'k', rng.below(24) as u8]);
        let map = &mut state[family];
        match rng.below(8) {
            0 => {
                batch.delete(&families[family], &key);
                map.remove(&key);
            }
            1 => {
                let end = vec![b'k', key[1].saturating_add(4)];
                batch.delete_range(&families[family], &key, &end);
                map.retain(|k, _| *k < key || *k >= end);
            }
            2 => {
                batch.merge(&families[family], &key, b"m");
                let value = map.entry(key).or_default();
                if !value.is_empty() {
                    value.push(b',');
                }
                value.push(b'm');
            }
            n => {
                let value = vec![n as u8; 1 + rng.below(300) as usize];
                batch.put(&families[family], &key, &value);
                map.insert(key, value);
            }
        }
    }
    let sync = log && rng.below(4) == 0;
    witness.states.push(state);
    db.write(&batch, WriteOptions { sync })?;
    witness.acked = witness.states.len() - 1;
    if sync {
        witness.durable = witness.acked;
    }
    Ok(())
}

/// Opens a disk after the crash and checks what is there. With the log off, a directory that was
/// closed opens, unless an opening of it was cut short: that used up the mark.
fn judge(disk: &MemFs, log: bool, keep: Keep, witness: &Witness, reopened: bool, place: &str) {
    let (db, families) = match open(disk, log, 77) {
        Ok(opened) => opened,
        Err(refused) => {
            let files = alluvium::Fs::list(disk, Path::new("db"));
            assert!(!log, "{place}: refused {refused}; the disk holds {files:?}");
            assert_eq!(refused.kind(), ErrorKind::Halted, "{place}");
            assert!(!witness.closed || reopened, "{place}: a closed directory opens");
            return;
        }
    };
    let found: State = families.iter().map(|family| read(&db, family)).collect();
    let at_least = if keep == Keep::All && log { witness.acked } else { witness.durable };
    let allowed = &witness.states[at_least..];
    assert!(allowed.contains(&found), "{place}: no prefix of the history");
    db.verify().unwrap();
    // Life goes on, and what was shown stays.
    db.put(&families[0], b"after", b"1").unwrap();
    db.close().unwrap();
    let (db, families) = open(disk, log, 78).unwrap();
    assert_eq!(db.get(&families[0], b"after").unwrap().unwrap(), b"1", "{place}");
    let mut again: State = families.iter().map(|family| read(&db, family)).collect();
    again[0].remove(&b"after"[..]);
    assert!(again == found, "{place}: what was recovered is not there any more");
}

/// Crashes one life everywhere; every `stride`-th crash is followed by crashes everywhere in
/// recovery.
fn sweep(log: bool, seed: u64, stride: u64) -> (u64, u64) {
    let (mut points, mut images) = (0, 0);
    for n in 0.. {
        let fs = MemFs::new();
        fs.crash_after(Some(n));
        let mut witness = Witness::new();
        let outcome = live(&fs, log, seed, &mut witness);
        for (keep, dice) in
            [(Keep::Nothing, 0), (Keep::All, 0), (Keep::Torn, n), (Keep::Torn, n + 1_000_000)]
        {
            let place = format!("log {log}, seed {seed}, operation {n}, {keep:?} {dice}");
            let disk = fs.crash_image(keep, dice);
            if n % stride == 0 {
                images += crash_recovery(&disk, log, keep, &witness, &place);
            }
            judge(&disk, log, keep, &witness, false, &place);
            images += 1;
        }
        points += 1;
        if outcome.is_ok() {
            break;
        }
    }
    (points, images)
}

/// Crashes at every operation of opening `disk`, and judges what is left.
fn crash_recovery(disk: &MemFs, log: bool, keep: Keep, witness: &Witness, place: &str) -> u64 {
    let mut images = 0;
    for m in 0.. {
        let copy = disk.crash_image(Keep::All, 0);
        copy.crash_after(Some(copy.ops() + m));
        let outcome = open(&copy, log, 99).map(drop);
        for again in [Keep::Nothing, Keep::Torn] {
            let place = format!("{place}, then operation {m} of recovery, {again:?}");
            // What the first crash had kept is on the disk; the second may lose only its own.
            let weaker = if keep == Keep::All { Keep::All } else { again };
            judge(&copy.crash_image(again, m), log, weaker, witness, true, &place);
            images += 1;
        }
        match outcome {
            Err(refused) if !log && refused.kind() == ErrorKind::Halted => return images,
            Ok(()) => return images,
            Err(_) => {}
        }
    }
    images
}

#[test]
fn power_cuts_everywhere_lose_nothing_that_was_promised() {
    let seeds: u64 = std::env::var("ALLUVIUM_LIVES").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let (mut points, mut images) = (0, 0);
    for seed in 0..seeds {
        let (p, i) = sweep(seed % 3 != 2, seed, 11);
        points += p;
        images += i;
    }
    println!("crashed at {points} operations, judged {images} disks");
    assert!(points > 100 * seeds, "the lives are long enough to mean something: {points}");
}
