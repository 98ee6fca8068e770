//! The log: written without a sync, with one, by one thread and by eight; and read after a kill -9.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::data::{Random, key, record, version};
use crate::engine::{Kind, Log, Setup};
use crate::group::{Group, Place, Store};
use crate::meter::{Measure, Meter, measure, once};

pub const STEPS: &[&str] = &["wal-put", "sync-put", "sync-put-8", "reopen-crash"];

const MEMORY: usize = 192 << 20;
const WRITERS: usize = 8;

/// Stores with a log.
pub struct Logged {
    store: Store,
    puts: usize,
    synced: usize,
    crash: u32,
}

impl Logged {
    pub fn new(place: Place) -> Logged {
        Logged {
            store: Store::new(&place, MEMORY),
            puts: place.size(100_000, 400_000) as usize,
            synced: place.size(2000, 5000) as usize,
            crash: place.size(150_000, 500_000),
        }
    }

    fn put(&mut self, log: Log, count: usize) -> Measure {
        self.store.setup.log = log;
        self.store.fresh();
        if let Log::Synced = log {
            calm();
        }
        let order = Random::new(13).permutation(count as u32);
        let engine = self.store.engine();
        let took = measure(count, |i| engine.put(&key(order[i]), &record(order[i], 0)));
        self.store.verify(&vec![0; count]);
        took
    }

    fn put_by_many(&mut self) -> Measure {
        self.store.setup.log = Log::Synced;
        self.store.fresh();
        calm();
        let engine = self.store.engine();
        let each = self.synced as u32;
        let meter = Meter::begin();
        let (took, ()) = once(|| {
            thread::scope(|scope| {
                for writer in 0..WRITERS as u32 {
                    scope.spawn(move || {
                        for i in writer * each..(writer + 1) * each {
                            engine.put(&key(i), &record(i, 0));
                        }
                    });
                }
            });
        });
        let mut measured = meter.end();
        self.store.verify(&vec![0; WRITERS * self.synced]);
        let rate = (WRITERS * self.synced) as f64 / took.as_secs_f64();
        measured.0.retain(|(name, _)| name == "memory" || name == "others" || name == "written");
        measured.with("rate", rate)
    }

    /// Another process writes, and is killed. `ms` is what opening takes, with one read; `lost` counts
    /// acknowledged writes that are gone.
    fn crash(&mut self) -> Measure {
        self.store.remove();
        self.store.count += 1;
        let dir = self.store.dir();
        calm(); // before there is a log, which is not to be synced
        let program = std::env::current_exe().expect("this program");
        let mut writer = Command::new(program)
            .args(["write-and-wait", &self.store.kind.to_string(), &self.crash.to_string()])
            .arg(&dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a writer");
        let mut line = String::new();
        BufReader::new(writer.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "written");
        writer.kill().expect("the writer is there"); // SIGKILL
        writer.wait().expect("the writer has ended");
        self.store.setup.log = Log::On;
        let meter = Meter::begin();
        let (took, ()) = once(|| {
            self.store.open();
            self.store.engine().get(&key(0), &mut |_| {});
        });
        let engine = self.store.engine();
        let mut lost = 0;
        for i in 0..self.crash {
            engine.get(&key(i), &mut |value| match value {
                Some(_) => assert_eq!(version(value, i), 0),
                None => lost += 1,
            });
        }
        let ms = took.as_secs_f64() * 1e3;
        let mut measured = meter.end();
        measured.0.retain(|(name, _)| name == "memory" || name == "others");
        measured.with("ms", ms).with("lost", f64::from(lost))
    }
}

/// What other engines have left to be written, in their turns before, is not to be in the way of syncs that are
/// timed: the device gets it first.
fn calm() {
    rustix::fs::sync();
}

/// The process that is killed: writes, says so, and waits.
pub fn write_and_wait(kind: Kind, count: u32, dir: &Path) {
    std::fs::create_dir_all(dir.parent().expect("a parent")).expect("a directory");
    let engine = kind.open(dir, &Setup { memory: MEMORY, log: Log::On, lists: false, ttl: false });
    for i in Random::new(14).permutation(count) {
        engine.put(&key(i), &record(i, 0));
    }
    println!("written");
    loop {
        thread::park();
    }
}

impl Group for Logged {
    fn step(&mut self, name: &str) -> Option<Measure> {
        if !self.store.kind.reopens() {
            return None;
        }
        match name {
            "wal-put" => Some(self.put(Log::On, self.puts)),
            "sync-put" => Some(self.put(Log::Synced, self.synced)),
            "sync-put-8" => Some(self.put_by_many()),
            "reopen-crash" => Some(self.crash()),
            _ => unreachable!("{name}"),
        }
    }
}
