//! Measures one workload: time, processor time, latencies, bytes written, memory.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// How long a step may go on that an engine may be hundreds of times slower at than others.
const PATIENCE: Duration = Duration::from_secs(5);

/// One operation in so many is timed alone: two looks at the clock cost 45 ns.
const SAMPLED: usize = 8;

/// What one workload gave: numbers by name.
///
/// | name | |
/// |---|---|
/// | `rate` | operations a second, as the caller sees them |
/// | `settled` | the same until flushes and compactions are done |
/// | `p50`, `p99`, `p999` | latency in µs |
/// | `stall` | longest time in ms that an operation, or eight neighbours, took |
/// | `cpu`, `background` | µs of processor time an operation: the caller's thread, all others |
/// | `written` | MB handed to the file system |
/// | `memory` | MB of peak resident memory |
/// | `others` | part of the machine's processors that other processes took meanwhile |
/// | `cut` | part of the operations that was done when the time was over; absent: all |
/// | `wa`, `space` | bytes written, bytes on disk, for each byte of live data that was put |
///
/// and what a workload adds of its own.
#[derive(Clone, Debug, Default)]
pub struct Measure(pub Vec<(String, f64)>);

impl Measure {
    /// The number of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// Adds a number.
    pub fn with(mut self, name: &str, value: f64) -> Measure {
        self.0.push((name.to_owned(), value));
        self
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&fields.join("\t"))
    }
}

impl FromStr for Measure {
    type Err = String;

    fn from_str(text: &str) -> Result<Measure, String> {
        let field = |field: &str| {
            let (name, value) = field.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let fields = text.split('\t').filter(|part| !part.is_empty());
        let fields = fields.map(|part| field(part).ok_or_else(|| format!("no number: {part:?}")));
        fields.collect::<Result<_, _>>().map(Measure)
    }
}

/// Measures from [`Meter::begin`] to [`Meter::end`].
pub struct Meter {
    begin: Instant,
    caller: Duration,
    process: Duration,
    written: u64,
    latencies: Histogram<u64>,
    stall: Duration,
    operations: usize,
    took: Duration,
    caller_took: Duration,
    settled: Option<Duration>,
    cut: Option<f64>,
    /// Processor time of the machine when it began.
    machine: (Duration, Instant),
}

impl Meter {
    /// Begins now.
    pub fn begin() -> Meter {
        forget_peak();
        Meter {
            written: bytes_written(),
            latencies: Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("a histogram"),
            stall: Duration::ZERO,
            operations: 0,
            took: Duration::ZERO,
            caller_took: Duration::ZERO,
            settled: None,
            cut: None,
            machine: (machine_busy(), Instant::now()),
            process: cpu(ClockId::ProcessCPUTime),
            caller: cpu(ClockId::ThreadCPUTime),
            begin: Instant::now(),
        }
    }

    /// Calls `operation` with each number below `operations`.
    #[inline]
    pub fn run(&mut self, operations: usize, operation: impl FnMut(usize)) {
        self.run_for(operations, Duration::MAX, operation);
    }

    /// The same, until there were so many or the time is over.
    #[inline]
    pub fn run_for(&mut self, operations: usize, span: Duration, mut operation: impl FnMut(usize)) {
        self.begin = Instant::now();
        let mut last = self.begin;
        let mut i = 0;
        while i < operations && last - self.begin < span {
            operation(i);
            let now = Instant::now();
            self.latencies.saturating_record((now - last).as_nanos() as u64);
            self.stall = self.stall.max(now - last);
            let end = operations.min(i + SAMPLED);
            (i + 1..end).for_each(&mut operation);
            i = end;
            last = Instant::now();
            self.stall = self.stall.max(last - now);
        }
        self.took = last - self.begin;
        self.caller_took = cpu(ClockId::ThreadCPUTime).saturating_sub(self.caller);
        self.operations += i;
    }

    /// As [`Meter::run`], but no longer than there is patience for; returns how many were done.
    pub fn run_patiently(&mut self, operations: usize, operation: impl FnMut(usize)) -> usize {
        self.run_for(operations, PATIENCE, operation);
        let done = self.operations;
        self.cut = (done < operations).then(|| done as f64 / operations as f64);
        done
    }

    /// The caller is done; waits for what `settle` waits for, which says when it was done. `None`:
    /// nothing settles.
    pub fn settle(&mut self, settle: impl FnOnce() -> Option<Instant>) {
        self.settled = settle().map(|at| at - self.begin);
    }

    /// What was measured; each call counts as so many operations, or entries.
    pub fn end_per(self, per: f64) -> Measure {
        let operations = self.operations as f64 * per;
        let process = cpu(ClockId::ProcessCPUTime).saturating_sub(self.process);
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / operations;
        let quantile = |q: f64| self.latencies.value_at_quantile(q) as f64 / 1000.0;
        let mut measure = Measure::default()
            .with("rate", operations / self.took.as_secs_f64())
            .with("p50", quantile(0.5))
            .with("p99", quantile(0.99))
            .with("p999", quantile(0.999))
            .with("stall", self.stall.as_secs_f64() * 1e3)
            .with("cpu", micros(self.caller_took))
            .with("background", micros(process.saturating_sub(self.caller_took)))
            .with("written", (bytes_written() - self.written) as f64 / 1e6)
            .with("memory", peak_memory() as f64 / 1e6);
        let (busy, span) = (machine_busy() - self.machine.0, self.machine.1.elapsed());
        let others = busy.saturating_sub(process).as_secs_f64() / span.as_secs_f64();
        measure = measure.with("others", others / PROCESSORS.with(|n| *n));
        if let Some(settled) = self.settled {
            measure = measure.with("settled", operations / settled.as_secs_f64());
        }
        if let Some(part) = self.cut {
            measure = measure.with("cut", part);
        }
        measure
    }

    /// What was measured.
    pub fn end(self) -> Measure {
        self.end_per(1.0)
    }
}

/// Measures so many operations.
#[inline]
pub fn measure(operations: usize, operation: impl FnMut(usize)) -> Measure {
    let mut meter = Meter::begin();
    meter.run(operations, operation);
    meter.end()
}

/// What one call took.
pub fn once<R>(f: impl FnOnce() -> R) -> (Duration, R) {
    let begin = Instant::now();
    let result = f();
    (begin.elapsed(), result)
}

/// Waits until all other threads of the process have done nothing for as long as `rest`; when they had
/// last done something. What they do takes more than a twentieth of a processor.
#[cfg(feature = "cobble")]
pub fn others_at_rest(rest: Duration) -> Instant {
    let others = || cpu(ClockId::ProcessCPUTime).saturating_sub(cpu(ClockId::ThreadCPUTime));
    let (mut last, mut looked, mut before) = (Instant::now(), Instant::now(), others());
    while looked - last < rest {
        std::thread::sleep(Duration::from_millis(1));
        let (now, took) = (Instant::now(), others());
        if took.saturating_sub(before) > (now - looked) / 20 {
            last = now;
        }
        (looked, before) = (now, took);
    }
    last
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

thread_local! {
    static PROCESSORS: f64 =
        std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
}

/// Time that all processors of the machine have spent on anything, in ticks of 10 ms.
fn machine_busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").expect("Linux");
    let line = text.lines().next().expect("a line for all processors");
    let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    let idle = ticks[3] + ticks[4];
    Duration::from_millis((ticks.iter().take(8).sum::<u64>() - idle) * 10)
}

/// The number on a line of a file in `/proc/self`.
fn proc_number(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).expect("Linux");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a known line");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// Bytes that this process has handed to the file system, mapped pages included.
pub fn bytes_written() -> u64 {
    proc_number("io", "write_bytes:")
}

fn peak_memory() -> u64 {
    proc_number("status", "VmHWM:") * 1024
}

/// From now on the peak counts anew.
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("Linux");
}

/// Bytes of all files below a directory.
pub fn bytes_on_disk(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let mut bytes = 0;
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += bytes_on_disk(&entry.path()),
            Ok(meta) => bytes += meta.len(),
            Err(_) => {} // removed meanwhile
        }
    }
    bytes
}
