//! How much of what has expired stays on disk.

use std::path::Path;

use super::*;
use crate::Background;
use crate::Env;
use crate::KeyGroupRange;
use crate::MemFs;
use crate::MemoryBudget;
use crate::StateBackend;
use crate::state::meta::StateKind;

/// Entries in tables: bytes of those that have expired, and of those that have not.
fn on_disk(backend: &StateBackend<u64>, name: &str, until: i64) -> (u64, u64) {
    let family = backend.family(name, StateKind::Value).unwrap();
    let mut scan = backend.db().scan(&family, ..).unwrap();
    let (mut expired, mut live) = (0, 0);
    while scan.next().unwrap() {
        let bytes = (scan.key().len() + scan.value().len()) as u64;
        match time_of(scan.value()).unwrap() <= until {
            true => expired += bytes,
            false => live += bytes,
        }
    }
    (expired, live)
}

/// Bytes of a table, about.
const FILE_BYTES: u64 = 8 << 10;

/// What has expired on disk takes at most a tenth of what has not, and a table a level.
fn is_bounded(
    backend: &StateBackend<u64>,
    name: &str,
    until: i64,
) -> std::result::Result<(), String> {
    let (expired, live) = on_disk(backend, name, until);
    let family = backend.db().stats().families.into_iter().find(|f| f.name == name).unwrap();
    let levels = family.files.iter().filter(|files| **files > 0).count() as u64;
    match expired <= live / 10 + levels * FILE_BYTES {
        true => Ok(()),
        false => Err(format!("{expired} bytes expired, {live} live, {family:?}")),
    }
}

fn one_backend(now: &Arc<Mutex<i64>>, ttl: i64) -> StateBackend<u64> {
    one_backend_in(now, ttl, Background::Inline)
}

fn one_backend_in(now: &Arc<Mutex<i64>>, ttl: i64, background: Background) -> StateBackend<u64> {
    let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(64 << 20), 3);
    let env = env.with_background(background);
    let mut options = BackendOptions::new(GROUPS, KeyGroupRange::new(0, 127).unwrap());
    small(&mut options);
    options.family.memtable_bytes_max = 16 << 10;
    options.family.level_bytes_base = 64 << 10;
    options.family.file_bytes = FILE_BYTES;
    options.clock = Some(clock(now));
    options.ttl.insert("s".to_owned(), TtlConfig::new(ttl).unwrap());
    StateBackend::open(Path::new("expiry"), options, env).unwrap()
}

/// Young and old values of keys that lie side by side, over and over: none is written twice. The clock
/// goes on evenly, by 100 a round, as the engine takes for granted that it does. After each round `f`
/// looks.
fn write_rounds(
    backend: &mut StateBackend<u64>,
    now: &Arc<Mutex<i64>>,
    mut f: impl FnMut(&StateBackend<u64>, i64),
) {
    let mut state = backend.value_state::<String>("s").unwrap();
    let text = "some sixty bytes of text that no codec and no key would share".to_owned();
    let mut key = 0u64;
    for round in 0..40i64 {
        for i in 0..250 {
            *now.lock() = round * 100 + i * 100 / 250;
            key += 1;
            backend.set_current_key(&key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
            state.update(&text).unwrap();
        }
        // As the flush of a checkpoint would: what is in memory becomes a table, and background work
        // is looked for. No key is read or written.
        backend.db().flush_all().unwrap();
        backend.db().wait_idle().unwrap();
        f(backend, *now.lock());
    }
}

#[test]
fn what_has_expired_leaves_the_disk_unread() {
    let now = Arc::new(Mutex::new(0));
    let mut backend = one_backend(&now, 1000);
    write_rounds(&mut backend, &now, |backend, time| {
        is_bounded(backend, "s", time - 1000).unwrap();
    });
    // Nothing is written any more, and nothing read; only the clock goes on.
    for time in (4000..5200).step_by(100) {
        *now.lock() = time;
        backend.drop_expired().unwrap();
        is_bounded(&backend, "s", time - 1000).unwrap();
    }
    let family = backend.db().stats().families.into_iter().find(|f| f.name == "s").unwrap();
    assert_eq!(family.files.iter().sum::<usize>(), 0, "all has expired");
}

/// Nobody reads, writes, flushes or cleans up: a task that only asks for timers that are due, or only
/// takes checkpoints, has the background look, and that is enough.
#[test]
fn what_has_expired_leaves_the_disk_by_background_work_alone() {
    for takes_checkpoints in [false, true] {
        let now = Arc::new(Mutex::new(0));
        let mut backend = one_backend_in(&now, 1000, Background::Threads(1));
        let mut timers = backend.timer_service::<()>("t").unwrap();
        write_rounds(&mut backend, &now, |_, _| {});
        assert!(on_disk(&backend, "s", i64::MIN).1 > 10 * FILE_BYTES, "there is something");
        for time in (4000..5200).step_by(50) {
            *now.lock() = time;
            match takes_checkpoints {
                true => drop(backend.checkpoint().unwrap().wait().unwrap()),
                false => {
                    timers.advance_watermark(time);
                    assert_eq!(timers.next_event_time_timer(&mut backend).unwrap(), None);
                }
            }
            // The background takes its time, but nobody else helps.
            let mut bounded = Err(String::new());
            for _ in 0..20_000 {
                bounded = is_bounded(&backend, "s", time - 1000);
                if bounded.is_ok() {
                    break;
                }
                std::thread::yield_now();
            }
            bounded.unwrap_or_else(|e| panic!("at {time}: {e}"));
        }
    }
}

#[test]
fn the_background_looks_when_the_clock_has_gone_on() {
    let now = Arc::new(Mutex::new(0));
    let time = Time::new(clock(&now));
    assert!(time.has_gone_on(10), "at first");
    assert!(!time.has_gone_on(10));
    *now.lock() = 9;
    assert!(!time.has_gone_on(10));
    *now.lock() = 10;
    assert!(time.has_gone_on(10) && !time.has_gone_on(10));
    *now.lock() = i64::MAX;
    assert!(time.has_gone_on(10));
    let step = |ttl, cleans_up| {
        let config = TtlConfig::new(ttl).unwrap();
        states::look_step([&TtlConfig { cleanup_in_background: cleans_up, ..config }])
    };
    assert_eq!((step(1000, true), step(1, true), step(1000, false)), (Some(31), Some(1), None));
    assert_eq!(states::look_step([]), None);
}

#[test]
fn tables_of_which_all_has_expired_are_not_read() {
    let now = Arc::new(Mutex::new(0));
    let mut backend = one_backend(&now, 1000);
    let mut state = backend.value_state::<u64>("s").unwrap();
    for key in 0..5000u64 {
        backend.set_current_key(&key).unwrap();
        state.update(&key).unwrap();
    }
    backend.db().flush_all().unwrap();
    backend.db().wait_idle().unwrap();
    let before = backend.db().stats();
    let snapshot = backend.db().snapshot();
    *now.lock() = 1000;
    backend.drop_expired().unwrap();
    assert_eq!(on_disk(&backend, "s", 0).0, on_disk(&backend, "s", 999).0, "a snapshot sees it");
    assert!(on_disk(&backend, "s", 0).0 > 0);
    drop(snapshot);
    backend.drop_expired().unwrap();
    let after = backend.db().stats();
    assert_eq!(on_disk(&backend, "s", 0), (0, 0));
    assert_eq!(after.compaction_bytes_read, before.compaction_bytes_read);
    assert!(after.drops > before.drops && after.bytes_dropped > 0);
}

#[test]
fn what_expired_hides_does_not_come_back() {
    let now = Arc::new(Mutex::new(0));
    let mut backend = one_backend(&now, 1000);
    let mut state = backend.value_state::<u64>("s").unwrap();
    backend.set_current_key(&1).unwrap();
    // Written late and then, by a clock that another backend had, early: the older write is younger.
    *now.lock() = 5000;
    state.update(&1).unwrap();
    backend.db().flush_all().unwrap();
    let family = backend.family("s", StateKind::Value).unwrap();
    backend.db().compact_range(&family, ..).unwrap();
    let key = {
        let mut scan = backend.db().scan(&family, ..).unwrap();
        assert!(scan.next().unwrap());
        scan.key().to_vec()
    };
    let mut early = 10i64.to_be_bytes().to_vec();
    early.extend_from_slice(&2u64.to_be_bytes());
    backend.db().put(&family, &key, &early).unwrap();
    backend.db().flush_all().unwrap();
    backend.drop_expired().unwrap();
    backend.db().wait_idle().unwrap();
    assert_eq!(state.value().unwrap(), None, "the last write has expired");
}
