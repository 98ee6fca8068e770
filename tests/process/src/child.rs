//! The process that is killed: it writes, and says through its standard output what it was told.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alluvium::{Background, ColumnFamily, Db, Error, ErrorKind, WriteOptions};
use alluvium_report::Rng;

use crate::keyed;
use crate::oracle::{self, Batch};

/// What a child says: one word of 16 bytes, written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    pub kind: u8,
    pub writer: u8,
    pub n: u64,
}

impl Word {
    /// The database is open; `n` is free.
    pub const OPEN: u8 = b'o';
    /// Batch `n` is acknowledged; with the log off, checkpoint `n`.
    pub const ACK: u8 = b'a';
    /// Batch `n` was refused: nothing of it is there.
    pub const REFUSED: u8 = b'r';
    /// Whether batch `n` is there is not known.
    pub const UNKNOWN: u8 = b'u';
    /// Something else failed; `n` is free.
    pub const FAILED: u8 = b'f';
    /// Batch `n` is the first one that was written after space had been made.
    pub const RESUMED: u8 = b's';

    pub const BYTES: usize = 16;

    pub fn parse(bytes: &[u8; Word::BYTES]) -> Word {
        let n = u64::from_be_bytes(*bytes.last_chunk().expect("16 bytes"));
        Word { kind: bytes[0], writer: bytes[1], n }
    }
}

/// The pipe to the parent. Not buffered: what was said is said, whatever happens next.
pub struct Voice(File);

impl Voice {
    fn new() -> Voice {
        let out = std::io::stdout().as_fd().try_clone_to_owned();
        Voice(File::from(out.expect("a handle for the pipe")))
    }

    pub fn say(&self, kind: u8, writer: u8, n: u64) {
        let mut bytes = [0; Word::BYTES];
        (bytes[0], bytes[1]) = (kind, writer);
        bytes[8..].copy_from_slice(&n.to_be_bytes());
        // If the parent is gone there is nobody to be told.
        if (&self.0).write_all(&bytes).is_err() {
            std::process::exit(3);
        }
    }
}

/// `child log|keyed|limited <dir> <seed> <writers or kill number>`
pub fn run(words: &[String]) -> ExitCode {
    let [kind, dir, seed, number] = words else { return ExitCode::from(2) };
    let (Ok(seed), Ok(number)) = (seed.parse(), number.parse::<u64>()) else {
        return ExitCode::from(2);
    };
    let (voice, dir) = (Voice::new(), Path::new(dir));
    let done = match kind.as_str() {
        "log" => write_for_ever(dir, seed, number as u8, &voice),
        "keyed" => keyed::live(dir, seed, number, &voice),
        "limited" => limited(dir, seed, &voice),
        _ => return ExitCode::from(2),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("child: {e}");
            voice.say(Word::FAILED, 0, 0);
            ExitCode::FAILURE
        }
    }
}

/// Writers side by side, and the rest of what one does with a database, until the process is killed.
fn write_for_ever(dir: &Path, seed: u64, writers: u8, voice: &Voice) -> Result<(), Error> {
    let (db, families) = oracle::open(dir, Background::Threads(2))?;
    voice.say(Word::OPEN, 0, 0);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (db, families, failed) = (&db, &families, &failed);
        let writer = |writer| {
            let mut n = oracle::number(db, families, writer)?;
            while !failed.load(Ordering::Relaxed) {
                n += 1;
                write(db, families, seed, writer, n)?;
                voice.say(Word::ACK, writer, n);
            }
            Ok(())
        };
        let mut handles: Vec<_> = (0..writers).map(|w| scope.spawn(move || writer(w))).collect();
        handles.push(scope.spawn(move || look_after(db, families, seed, failed)));
        for handle in handles {
            let done: Result<(), Error> = handle.join().expect("a thread panicked");
            if done.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            done?;
        }
        Ok(())
    })
}

fn write(db: &Db, families: &[ColumnFamily], seed: u64, writer: u8, n: u64) -> Result<(), Error> {
    let batch = Batch::new(seed, writer, n);
    db.write(&batch.encode(families), WriteOptions { sync: batch.sync }).map(drop)
}

/// Flushes, compactions, syncs, checkpoints, scans and snapshots now and then.
fn look_after(
    db: &Db,
    families: &[ColumnFamily],
    seed: u64,
    failed: &AtomicBool,
) -> Result<(), Error> {
    let mut rng = Rng::of(seed, u64::from(std::process::id()));
    while !failed.load(Ordering::Relaxed) {
        let family = &families[rng.below(3) as usize];
        match rng.below(6) {
            0 => db.flush(family)?,
            1 => db.flush_all()?,
            2 => db.compact_range(family, ..)?,
            3 => db.sync_wal()?,
            4 => drop(db.checkpoint()?.wait()?),
            _ => {
                let snapshot = db.snapshot();
                let range = alluvium::KeyRange::all();
                let mut scan = db.scan_range(family, range, Some(&snapshot))?;
                while scan.next()? {}
            }
        }
        #[expect(clippy::disallowed_methods, reason = "a real process in real time")]
        std::thread::sleep(Duration::from_millis(rng.below(12)));
    }
    Ok(())
}

/// Refusals for want of space after which a limited child gives up.
const REFUSALS_MAX: u64 = 40;

/// One writer within limits. Writes until it is told that writes have stopped, or has written a lot.
/// What is refused for want of space is tried again, once a ballast file is out of the way.
fn limited(dir: &Path, seed: u64, voice: &Voice) -> Result<(), Error> {
    let (db, families) = oracle::open(dir, Background::Threads(1))?;
    voice.say(Word::OPEN, 0, 0);
    let ballast = dir.join("ballast");
    let mut refusals = 0;
    let mut waits = false;
    let mut n = oracle::number(&db, &families, 0)? + 1;
    let end = n + 6000;
    while n < end && refusals < REFUSALS_MAX {
        match write(&db, &families, seed, 0, n) {
            Ok(()) => {
                voice.say(Word::ACK, 0, n);
                if std::mem::take(&mut waits) {
                    voice.say(Word::RESUMED, 0, n);
                }
                n += 1;
            }
            Err(e) if matches!(e.kind(), ErrorKind::NoSpace | ErrorKind::Busy) => {
                voice.say(Word::REFUSED, 0, n);
                refusals += 1;
                #[expect(clippy::disallowed_methods, reason = "makes room")]
                let removed = std::fs::remove_file(&ballast).is_ok();
                waits |= removed;
                #[expect(clippy::disallowed_methods, reason = "a real process in real time")]
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => {
                let known = e.kind() != ErrorKind::CommitUnknown;
                voice.say(if known { Word::REFUSED } else { Word::UNKNOWN }, 0, n);
                break;
            }
        }
    }
    // Reads go on, and answer rightly or not at all.
    if let Ok(found) = oracle::number(&db, &families, 0) {
        assert_eq!(found, n - 1, "what can be read is what was acknowledged");
    }
    Ok(())
}
