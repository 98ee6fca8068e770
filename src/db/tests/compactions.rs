//! What the background looks for by itself, and what it leaves alone.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::limits::LEVELS;
use crate::base::sync::Mutex;
use crate::compaction::filter::{CompactionFilter, CompactionFilterFactory, Decision, EntryKind};
use crate::db::jobs::Job;
use crate::db::options::Background;
use crate::table::{Codec, TimestampExtractor};

/// Nothing but the writer looks at the budget here, as when the background is busy with a flush.
#[test]
fn a_writer_keeps_to_the_budget_by_itself() {
    let budget = MemoryBudget::new(1 << 20);
    let env = Env::simulated(Arc::new(MemFs::new()), budget.clone(), 1);
    let options = Options { log: false, memtables_bytes_min: 0, ..Options::default() };
    let db = Db::open(Path::new("db"), options, env).unwrap();
    let a = family(&db, "a");
    for n in 0..5000u32 {
        db.put(&a, &n.to_be_bytes(), &[7; 1000]).unwrap();
        let used = budget.used();
        assert!(used <= (1 << 20) + (1 << 17), "{used} bytes after {n} puts");
    }
    assert!(db.stats().flushes >= 5);
}

#[test]
fn when_nothing_is_to_be_done_nothing_superfluous_is_there() {
    let fs = MemFs::new();
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), 1);
    let env = env.with_background(Background::Threads(2));
    let db = Db::open(Path::new("db"), Options::default(), env).unwrap();
    let a = family(&db, "a");
    for _ in 0..50 {
        fill(&db, &a);
        db.flush(&a).unwrap();
        db.wait_idle().unwrap();
        assert_eq!(tables(&fs), live(&db));
    }
}

/// Three tables that overlap, above a larger one into which they are not merged for what they bring.
fn deep(db: &Db, name: &str, l0_scan_bytes: u64) -> ColumnFamily {
    let options = ColumnFamilyOptions {
        l0_depth_trigger: 10,
        l0_scan_bytes,
        codecs: [Codec::None; LEVELS],
        ..ColumnFamilyOptions::default()
    };
    let family = db.column_family(name, options).unwrap();
    for (round, keys) in [400, 20, 30, 25u32].into_iter().enumerate() {
        (0..keys).for_each(|n| db.put(&family, &n.to_be_bytes(), &[round as u8; 50]).unwrap());
        db.flush(&family).unwrap();
        if round == 0 {
            db.compact_range(&family, ..).unwrap();
        }
    }
    db.wait_idle().unwrap();
    family
}

#[test]
fn level_0_is_merged_when_scans_have_paid_for_it_and_not_before() {
    let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(64 << 20), 1);
    let env = env.with_background(Background::Threads(2));
    let db = Db::open(Path::new("db"), Options::default(), env).unwrap();
    let scan = |family: &ColumnFamily| {
        let mut scan = db.scan(family, ..).unwrap();
        let mut seen = Vec::new();
        while scan.next().unwrap() {
            seen.push((scan.key().to_vec(), scan.value()[0]));
        }
        seen
    };
    let level0 = |name: &str| {
        let stats = db.stats();
        let family = stats.families.into_iter().find(|family| family.name == name).unwrap();
        (family.files[0], family.bytes[0])
    };
    let of = |name: &str| {
        db.wait_idle().unwrap();
        level0(name)
    };
    for (name, scan_bytes) in [("never", 0), ("little", 100), ("much", 1 << 20)] {
        let family = deep(&db, name, scan_bytes);
        let (tables, bytes) = of(name);
        assert_eq!(tables, 3);
        // Each asks two runs more than one.
        let enough = bytes.div_ceil(2 * scan_bytes.max(1));
        let all: Vec<_> = (0..400u32)
            .map(|n| {
                (
                    n.to_be_bytes().to_vec(),
                    if n < 25 {
                        3
                    } else if n < 30 {
                        2
                    } else {
                        0
                    },
                )
            })
            .collect();
        for scans in 1..=enough.min(100) {
            assert_eq!(of(name), (3, bytes), "{name}: {scans} of {enough}");
            assert_eq!(scan(&family), all);
        }
        if scan_bytes == 0 {
            assert_eq!(of(name).0, 3);
            continue;
        }
        // It is woken by the scan: nobody waits for it to be idle.
        while level0(name).0 != 1 {
            std::thread::yield_now();
        }
        assert_eq!(scan(&family), all);
    }
}

/// A number at the beginning of the value, which has expired up to what the test says.
struct Expiry(Arc<Mutex<i64>>);

impl Expiry {
    fn of(value: &[u8]) -> Option<i64> {
        value.first_chunk().map(|bytes| i64::from_be_bytes(*bytes))
    }
}

impl TimestampExtractor for Expiry {
    fn name(&self) -> &str {
        "expiry"
    }

    fn timestamp(&self, _: &[u8], value: &[u8]) -> Option<i64> {
        Expiry::of(value)
    }
}

struct ExpiryFilter(i64);

impl CompactionFilter for ExpiryFilter {
    fn decide(&mut self, _: &[u8], _: EntryKind, value: &[u8], _: &mut Vec<u8>) -> Decision {
        match Expiry::of(value).is_some_and(|time| time <= self.0) {
            true => Decision::Remove,
            false => Decision::Keep,
        }
    }
}

impl CompactionFilterFactory for Expiry {
    fn name(&self) -> &str {
        "expiry"
    }

    fn expired_until(&self) -> Option<i64> {
        Some(*self.0.lock())
    }

    fn create(&self) -> Box<dyn CompactionFilter> {
        Box::new(ExpiryFilter(*self.0.lock()))
    }
}

/// What expires while a table is being rewritten is not removed by that: it is looked for again.
#[test]
fn what_expires_during_a_rewrite_is_rewritten_once_more() {
    let db = open(&MemFs::new(), 1);
    let until = Arc::new(Mutex::new(-1));
    let expiry = Arc::new(Expiry(Arc::clone(&until)));
    let options = ColumnFamilyOptions {
        timestamp: Some(Arc::clone(&expiry) as _),
        compaction_filter: Some(expiry),
        ..ColumnFamilyOptions::default()
    };
    let a = db.column_family("a", options).unwrap();
    for time in 0..100i64 {
        db.put(&a, &time.to_be_bytes(), &time.to_be_bytes()).unwrap();
    }
    db.flush(&a).unwrap();
    db.wait_idle().unwrap();
    let left = || {
        let mut scan = db.scan(&a, ..).unwrap();
        std::iter::from_fn(|| scan.next().unwrap().then_some(())).count()
    };
    db.pause_compactions(true);
    *until.lock() = 29;
    db.pause_compactions(false);
    let mut lefts = vec![left()];
    while let Some(mut job) = db.core.pick_compaction() {
        while !job.step(&db.core, 10).unwrap() {
            // Once its filter is made.
            if matches!(job, Job::Compact { .. }) {
                *until.lock() = 59;
            }
        }
        lefts.push(left());
    }
    lefts.dedup();
    assert_eq!(lefts, [100, 70, 40]);
    // Somebody drops the family between two rounds.
    a.0.set_dropped(true);
    let refused = db.core.drop_expired(&a.0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
}
