//! Small databases with threads of their own, beside writers, readers, snapshots and checkpoints.
//!
//! A life is short, so that a scheduler meets its corners: memtables hold a few writes, a write rotates
//! one, a flush and a compaction are soon due. Time does not pass: a thread that waits for what nobody
//! announces waits for ever, and is found.

use std::path::Path;

use crate::base::error::ErrorKind;
use crate::base::sync::{Arc, AtomicU64, JoinHandle, Ordering, spawn};
use crate::batch::WriteBatch;
use crate::cache::budget::MemoryBudget;
use crate::db::Db;
use crate::db::column_family::ColumnFamily;
use crate::db::options::{Background, ColumnFamilyOptions, Env, Options, WriteOptions};
use crate::db::update::Update;
use crate::fs::Fs;
use crate::fs::fault::{Fault, FaultFs, Op};
use crate::fs::memory::MemFs;
use crate::fs::memory::image::Keep;

/// One kind of life.
pub struct Life {
    pub name: &'static str,
    pub live: fn(),
    /// Of this many schedules in all, one of this kind.
    pub share: u64,
}

pub const LIVES: &[Life] = &[
    Life { name: "groups", live: groups, share: 3 },
    Life { name: "views", live: views, share: 3 },
    Life { name: "checkpoints", live: checkpoints, share: 3 },
    Life { name: "synced", live: synced, share: 2 },
    Life { name: "stalls", live: stalls, share: 2 },
    Life { name: "failures", live: failures, share: 2 },
    Life { name: "endings", live: endings, share: 1 },
];

const DIR: &str = "db";
/// Bytes of a long value.
const LONG: usize = 2100;

struct Small {
    db: Arc<Db>,
    families: [ColumnFamily; 2],
}

fn options(log: bool) -> Options {
    Options {
        log,
        immutables_max: 2,
        l0_stop_depth: 4,
        log_segment_bytes: 200,
        ..Options::default()
    }
}

fn open(fs: &Arc<dyn Fs>, options: Options, background: Background) -> Small {
    let env = Env::simulated(Arc::clone(fs), MemoryBudget::new(4 << 20), 7);
    let db = Db::open(Path::new(DIR), options, env.with_background(background)).unwrap();
    let family = |name| {
        let options = ColumnFamilyOptions {
            memtable_bytes_max: 4 << 10, // two long values
            block_bytes: 128,
            l0_depth_trigger: 2,
            ..ColumnFamilyOptions::default()
        };
        db.column_family(name, options).unwrap()
    };
    let families = [family("a"), family("b")];
    Small { db: Arc::new(db), families }
}

fn begin(log: bool) -> (MemFs, Arc<dyn Fs>, Small) {
    let disk = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let small = open(&fs, options(log), Background::Threads(1));
    (disk, fs, small)
}

impl Small {
    fn copy(&self) -> Small {
        Small { db: Arc::clone(&self.db), families: self.families.clone() }
    }

    fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(Small) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let copy = self.copy();
        spawn(move || work(copy))
    }

    /// The same number to both families, in one batch: in a long value, which soon fills a memtable,
    /// and in a short one, which is overwritten where it is.
    fn put_pair(&self, key: &[u8], n: u64, sync: bool) -> crate::base::error::Result<()> {
        let mut batch = WriteBatch::new();
        let mut long = n.to_le_bytes().to_vec();
        long.resize(LONG, 0);
        batch.put(&self.families[0], key, &long);
        batch.put(&self.families[1], key, &n.to_le_bytes());
        self.db.write(&batch, WriteOptions { sync }).map(drop)
    }

    /// Adds one to a counter.
    fn count(&self, key: &[u8]) -> crate::base::error::Result<()> {
        self.db.update(&self.families[0], key, |old, out| {
            out.extend_from_slice(&(number(old) + 1).to_le_bytes());
            Update::Put
        })?;
        Ok(())
    }

    fn get(&self, family: usize, key: &[u8]) -> u64 {
        number(self.db.get(&self.families[family], key).unwrap().as_deref())
    }

    /// The last one: closes it.
    fn close(self) {
        let Small { db, families } = self;
        drop(families);
        Arc::into_inner(db).expect("all threads have ended").close().unwrap();
    }
}

fn number(bytes: Option<&[u8]>) -> u64 {
    let first = |bytes: &[u8]| *bytes.first_chunk().expect("a number");
    bytes.map_or(0, |bytes| u64::from_le_bytes(first(bytes)))
}

fn end<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap()
}

/// Writers that wait for each other, of batches and of one counter: nothing is lost, none waits on.
fn groups() {
    let (_, fs, small) = begin(true);
    let writers: Vec<_> = (0..3u8)
        .map(|writer| {
            small.beside(move |small| {
                for n in 1..3 {
                    small.put_pair(&[writer], n, false).unwrap();
                    small.count(b"counter").unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(end);
    let check = |small: &Small| {
        assert_eq!(small.get(0, b"counter"), 6, "an update is lost");
        for writer in 0..3 {
            assert_eq!([small.get(0, &[writer]), small.get(1, &[writer])], [2, 2]);
        }
    };
    check(&small);
    small.db.verify().unwrap();
    small.close();
    let again = open(&fs, options(true), Background::Inline);
    check(&again);
    again.close();
}

/// A writer that overwrites, and readers of every kind: no half of a batch, no way back.
fn views() {
    let (_, _, small) = begin(false);
    small.put_pair(b"old", 9, false).unwrap();
    let writer = small.beside(|small| {
        for n in 1..7 {
            small.put_pair(b"pair", n, false).unwrap();
            if n == 3 {
                small.db.delete_range(&small.families[0], b"q", b"r").unwrap();
            }
        }
    });
    let snapshots = small.beside(|small| {
        let mut last = 0;
        for _ in 0..2 {
            let snapshot = small.db.snapshot();
            let read = |family: usize| {
                let family = &small.families[family];
                number(small.db.get_at(family, &snapshot, b"pair").unwrap().as_deref())
            };
            let (a, b) = (read(0), read(1));
            assert_eq!(a, b, "half a batch");
            assert!(a >= last, "time goes back");
            assert_eq!(read(0), a, "a snapshot has changed");
            last = a;
        }
    });
    let others = small.beside(|small| {
        let mut reader = small.db.reader(&small.families[1]).unwrap();
        let mut last = 0;
        for _ in 0..3 {
            let read = reader.get_with(b"pair", number).unwrap();
            let mut scan = small.db.scan_prefix(&small.families[0], b"pair").unwrap();
            let scanned = if scan.next().unwrap() { number(Some(scan.value())) } else { 0 };
            drop(scan);
            let got = small.get(0, b"pair");
            for _ in 0..3 {
                assert_eq!(small.get(0, b"old"), 9, "what was always there is not");
            }
            let seen = [last, read, scanned, got];
            assert!(seen.is_sorted(), "time goes back: {seen:?}");
            last = got;
        }
    });
    end(writer);
    end(snapshots);
    end(others);
    assert_eq!([small.get(0, b"pair"), small.get(1, b"pair")], [6, 6]);
    small.close();
}

/// Checkpoints beside writers: each is a prefix, exactly, however flushes and compactions go.
fn checkpoints() {
    let (_, fs, small) = begin(false);
    let writer = small.beside(|small| {
        for n in 1..5u64 {
            small.put_pair(&[n as u8], n, false).unwrap();
        }
    });
    let checkpointer = small.beside(|small| {
        let first = small.db.checkpoint().unwrap();
        let second = small.db.checkpoint().unwrap();
        let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
        assert!(first.seqno() <= second.seqno());
        for set in [first, second] {
            assert_eq!(set.seqno() % 2, 0, "half a batch"); // of two operations
            assert!(set.tables().count() > 0 || set.seqno() == 0);
        }
    });
    end(writer);
    end(checkpointer);
    small.db.flush_all().unwrap();
    small.db.verify().unwrap();
    small.close();
    let again = open(&fs, options(false), Background::Inline);
    (1..5u64).for_each(|n| assert_eq!(again.get(1, &[n as u8]), n));
    again.close();
}

/// Synced writers, and a power cut: what was acknowledged is there.
fn synced() {
    let (disk, _, small) = begin(true);
    let acked: Vec<Arc<AtomicU64>> = (0..2).map(|_| Arc::default()).collect();
    let writers: Vec<_> = (0..2u8)
        .map(|writer| {
            let acked = Arc::clone(&acked[usize::from(writer)]);
            small.beside(move |small| {
                for n in 1..4 {
                    small.put_pair(&[writer], n, true).unwrap();
                    acked.store(n, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let cut = small.beside(move |small| {
        let before: Vec<u64> = acked.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        let image = disk.crash_image(Keep::Nothing, 0);
        drop(small);
        (image, before)
    });
    let (image, before) = end(cut);
    writers.into_iter().for_each(end);
    small.close();
    let fs: Arc<dyn Fs> = Arc::new(image);
    let again = open(&fs, options(true), Background::Inline);
    for (writer, before) in before.into_iter().enumerate() {
        let found = [again.get(0, &[writer as u8]), again.get(1, &[writer as u8])];
        assert_eq!(found[0], found[1], "half a batch");
        assert!(found[0] >= before, "{found:?} after {before} was acknowledged");
    }
    again.close();
}

/// Writers that outrun the background wait, and go on.
fn stalls() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let options = Options { immutables_max: 1, ..options(true) }; // every other write has to wait
    let small = open(&fs, options.clone(), Background::Threads(1));
    let writers: Vec<_> = (0..2u8)
        .map(|writer| {
            small.beside(move |small| {
                for n in 1..6 {
                    let value = [n; LONG];
                    small.db.put(&small.families[0], &[writer, n], &value).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(end);
    small.db.wait_idle().unwrap();
    small.close();
    let again = open(&fs, options, Background::Inline);
    for (writer, n) in [(0, 1), (0, 5), (1, 1), (1, 5)] {
        let value = again.db.get(&again.families[0], &[writer, n]).unwrap();
        assert_eq!(value.as_deref(), Some(&[n; LONG][..]));
    }
    again.close();
}

/// The disk fails for good under flushes, compactions and the log: whoever waits hears of it.
fn failures() {
    for op in [Op::Sync, Op::Append] {
        let disk = MemFs::new();
        let faulty = FaultFs::new(Arc::new(disk.clone()));
        let fs: Arc<dyn Fs> = Arc::new(faulty.clone());
        let small = open(&fs, options(op == Op::Sync), Background::Threads(1));
        faulty.plan(Fault::new(op, 2).sticky());
        let writers: Vec<_> = (0..2u8)
            .map(|writer| {
                small.beside(move |small| {
                    for n in 1..5 {
                        match small.put_pair(&[writer], n, op == Op::Sync) {
                            Ok(()) => assert!(small.get(1, &[writer]) >= n),
                            Err(e) => {
                                let allowed =
                                    [ErrorKind::Halted, ErrorKind::Io, ErrorKind::CommitUnknown];
                                assert!(allowed.contains(&e.kind()), "{e}");
                            }
                        }
                    }
                })
            })
            .collect();
        let waiter = small.beside(|small| {
            let _ = small.db.checkpoint().and_then(|pending| pending.wait());
            let _ = small.db.flush_all();
        });
        writers.into_iter().for_each(end);
        end(waiter);
        let Small { db, families } = small;
        drop(families);
        let _ = Arc::into_inner(db).expect("all threads have ended").close();
    }
}

/// Closed while the background works, and while others hold what they have read.
fn endings() {
    let (_, fs, small) = begin(false);
    for n in 1..4 {
        small.put_pair(b"pair", n, false).unwrap();
    }
    let snapshot = small.db.snapshot();
    let pending = small.db.checkpoint().unwrap();
    let waiter = spawn(move || pending.wait().map(|set| set.seqno()));
    let holder = spawn(move || drop(snapshot));
    small.close();
    if let Ok(seqno) = end(waiter) {
        assert_eq!(seqno, 6);
    }
    end(holder);
    let again = open(&fs, options(false), Background::Inline);
    assert_eq!(again.get(0, b"pair"), 3);
    again.close();
}
