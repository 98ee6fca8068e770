//! What is timed. The workloads of a life follow one another in the order of [`Workload::ALL`], on
//! the same data; a loop does nothing but make keys and values, call the engine and check what it
//! says.

use std::fmt;
use std::time::{Duration, Instant};

use crate::maps::data::{self, Data, GROUP, VALUE_BYTES, check_entry, check_value, make_value};
use crate::maps::engine::Engine;

/// One thing that is timed, in nanoseconds for each operation (for full scans: for each entry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// New keys, in random order.
    Put,
    /// A key that is there.
    Get,
    /// A key that is not.
    GetAbsent,
    /// A full scan ascending, the first since the keys were written: makes the order.
    ScanFirst,
    /// The same again.
    ScanForward,
    /// Descending.
    ScanReverse,
    /// All ten keys with a prefix.
    ScanPrefix,
    /// A blind write of a key that is there.
    Overwrite,
    /// Read-modify-write of each key once.
    Update,
    /// Read-modify-write of a counter, zipfian: few keys take most.
    Counter,
    /// [`ScanForward`](Workload::ScanForward) over keys that were written again and again.
    RescanForward,
    /// [`ScanPrefix`](Workload::ScanPrefix) over the same.
    RescanPrefix,
    /// Flush and compaction. Not timed.
    Settle,
    /// [`Get`](Workload::Get) from tables; for a map, the same once more.
    TableGet,
    /// [`GetAbsent`](Workload::GetAbsent) from tables.
    TableGetAbsent,
    /// [`ScanForward`](Workload::ScanForward) from tables.
    TableScan,
    /// [`ScanPrefix`](Workload::ScanPrefix) from tables.
    TableScanPrefix,
}

use Workload::*;

impl Workload {
    /// All, in the order in which they are run.
    pub const ALL: [Workload; 17] = [
        Put,
        Get,
        GetAbsent,
        ScanFirst,
        ScanForward,
        ScanReverse,
        ScanPrefix,
        Overwrite,
        Update,
        Counter,
        RescanForward,
        RescanPrefix,
        Settle,
        TableGet,
        TableGetAbsent,
        TableScan,
        TableScanPrefix,
    ];

    /// What has to be run before, at least.
    pub fn needs(self) -> &'static [Workload] {
        match self {
            Put => &[],
            _ if self > Settle => &[Put, Settle],
            ScanForward | ScanReverse | ScanPrefix => &[Put, ScanFirst],
            RescanForward | RescanPrefix => &[Put, Overwrite, Update, Counter],
            _ => &[Put],
        }
    }

    /// Does it change what is stored?
    pub fn writes(self) -> bool {
        matches!(self, Put | Overwrite | Update | Counter)
    }

    fn is_point_read(self) -> bool {
        matches!(self, Get | GetAbsent | TableGet | TableGetAbsent)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Put => "put",
            Get => "get",
            GetAbsent => "get-absent",
            Overwrite => "overwrite",
            Update => "update",
            Counter => "counter-zipf",
            ScanFirst => "scan-first",
            ScanForward => "scan-forward",
            ScanReverse => "scan-reverse",
            ScanPrefix => "scan-prefix-10",
            RescanForward => "rescan-forward",
            RescanPrefix => "rescan-prefix-10",
            Settle => "settle",
            TableGet => "table-get",
            TableGetAbsent => "table-get-absent",
            TableScan => "table-scan",
            TableScanPrefix => "table-prefix-10",
        })
    }
}

/// A [`Life`], whatever its engine.
pub trait Run {
    /// Runs a workload; `None` if the engine cannot do it, or it is not timed.
    fn run(&mut self, workload: Workload, data: &Data) -> Option<f64>;
}

/// An engine, and what is known of its contents.
pub struct Life<E> {
    engine: E,
    /// Version of the keys in `data.writes`, but for the counters; that of all others is 0.
    version: u32,
    /// How often the counters were counted.
    counted: u32,
    /// Where new values are made.
    value: [u8; VALUE_BYTES],
}

impl<E: Engine> Life<E> {
    /// The life of an empty engine.
    pub fn new(engine: E) -> Life<E> {
        let value = std::array::from_fn(|i| i as u8);
        Life { engine, version: 0, counted: 0, value }
    }

    /// The version of a key.
    fn version(&self, data: &Data, number: u32) -> u32 {
        let i = number as usize;
        u32::from(data.written[i]) * self.version + self.counted * data.counts[i]
    }

    /// Reads everything again, by key, and compares it with what should be there. Not timed.
    fn verify(&mut self, data: &Data) {
        for &i in &data.puts {
            let version = self.engine.get(&data::key(i), |value| check_value(value, i));
            assert_eq!(version, self.version(data, i));
        }
    }
}

impl<E: Engine> Run for Life<E> {
    fn run(&mut self, workload: Workload, data: &Data) -> Option<f64> {
        if workload == Settle {
            self.verify(data);
            self.engine.settle();
            return None;
        }
        let skipped = E::POINT_READS_ONLY && !workload.is_point_read();
        if skipped && !workload.writes() {
            return None;
        }
        let took = match workload {
            Put => timed_put(self, data),
            Get | TableGet => timed_get(self, data),
            GetAbsent | TableGetAbsent => timed_get_absent(self, data),
            Overwrite => timed_overwrite(self, data),
            Update => timed_update(self, data),
            Counter => timed_counter(self, data),
            ScanFirst | ScanForward | RescanForward | TableScan => timed_scan(self, data, true)?,
            ScanReverse => timed_scan(self, data, false)?,
            ScanPrefix | RescanPrefix | TableScanPrefix => timed_scan_prefix(self, data)?,
            Settle => unreachable!("returned above"),
        };
        let operations = match workload {
            Put | ScanFirst | ScanForward | ScanReverse | RescanForward | TableScan => data.keys,
            ScanPrefix | RescanPrefix | TableScanPrefix => data.groups.len(),
            _ => data.reads.len(),
        };
        if workload < Settle {
            assert!(self.engine.in_memtable(), "{workload}: too much for one memtable");
        }
        (!skipped).then(|| took.as_nanos() as f64 / operations as f64)
    }
}

#[inline(never)]
fn timed_put<E: Engine>(life: &mut Life<E>, data: &Data) -> Duration {
    let begin = Instant::now();
    for &i in &data.puts {
        make_value(&mut life.value, i, 0);
        life.engine.insert(&data::key(i), &life.value);
    }
    begin.elapsed()
}

#[inline(never)]
fn timed_get<E: Engine>(life: &mut Life<E>, data: &Data) -> Duration {
    if life.counted > 0 {
        return timed_get_counters(life, data);
    }
    let begin = Instant::now();
    for &i in &data.reads {
        let version = life.engine.get(&data::key(i), |value| check_value(value, i));
        assert_eq!(version, life.version);
    }
    begin.elapsed()
}

/// [`timed_get`] when the keys have different versions.
#[inline(never)]
fn timed_get_counters<E: Engine>(life: &mut Life<E>, data: &Data) -> Duration {
    let begin = Instant::now();
    for &i in &data.reads {
        let version = life.engine.get(&data::key(i), |value| check_value(value, i));
        assert_eq!(version, life.version(data, i));
    }
    begin.elapsed()
}

#[inline(never)]
fn timed_get_absent<E: Engine>(life: &mut Life<E>, data: &Data) -> Duration {
    let begin = Instant::now();
    for &i in &data.reads {
        let key = data::key(i + data.keys as u32 + GROUP as u32);
        assert!(life.engine.get(&key, |value| value.is_none()));
    }
    begin.elapsed()
}

#[inline(never)]
fn timed_overwrite<E: Engine>(life: &mut Life<E>, data: &Data) -> Duration {
    let begin = Instant::now();
    for &i in &data.writes {
        make_value(&mut life.value, i, life.version + 1);
        life.engine.overwrite(&data::key(i), &life.value);
    }
    let took = begin.elapsed();
    life.version += 1;
    took
}

#[inline(never)]
fn timed_update<E: Engine>(life: &mut Life<E>, data: &Data) -> Duration {
    let begin = Instant::now();
    let Life { engine, version, value, .. } = life;
    for &i in &data.reads {
        engine.update(&data::key(i), |old, new| {
            assert_eq!(check_value(old, i), *version);
            make_value(value, i, *version + 1);
            new.extend_from_slice(value);
        });
    }
    let took = begin.elapsed();
    life.version += 1;
    took
}

/// Each value is checked for being of its key here, and the counts afterwards, in `verify`.
#[inline(never)]
fn timed_counter<E: Engine>(life: &mut Life<E>, data: &Data) -> Duration {
    let begin = Instant::now();
    let Life { engine, value, .. } = life;
    for &i in &data.skewed {
        engine.update(&data::key(i), |old, new| {
            make_value(value, i, check_value(old, i) + 1);
            new.extend_from_slice(value);
        });
    }
    let took = begin.elapsed();
    life.counted += 1;
    took
}

#[inline(never)]
fn timed_scan<E: Engine>(life: &mut Life<E>, data: &Data, ascending: bool) -> Option<Duration> {
    let begin = Instant::now();
    let mut last = if ascending { [0; data::KEY_BYTES] } else { [0xff; data::KEY_BYTES] };
    let mut entries = 0;
    let ordered = life.engine.scan(ascending, |key, value| {
        assert!(if ascending { *key > last[..] } else { *key < last[..] });
        last.copy_from_slice(key);
        check_entry(key, value);
        entries += 1;
    });
    let took = begin.elapsed();
    if !ordered {
        return None;
    }
    assert_eq!(entries, data.keys);
    Some(took)
}

#[inline(never)]
fn timed_scan_prefix<E: Engine>(life: &mut Life<E>, data: &Data) -> Option<Duration> {
    let begin = Instant::now();
    for &group in &data.groups {
        let prefix = data::prefix(group);
        let mut entries = 0;
        let ordered = life.engine.scan_prefix(&prefix, |key, value| {
            assert!(key.starts_with(&prefix));
            check_entry(key, value);
            entries += 1;
        });
        if !ordered {
            return None;
        }
        assert_eq!(entries, GROUP);
    }
    Some(begin.elapsed())
}
