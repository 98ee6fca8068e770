//! Values with a time to live, as Flink stores them: the time of the last access in milliseconds, signed
//! and big-endian, then the value. The clock is the system's, and can be set forward.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use crate::data::LONG_BYTES;

/// Milliseconds that a value lives: longer than any step takes.
pub const TTL_MS: i64 = 3_600_000;
/// Entries of one compaction after which RocksDB's filter asks for the time again: Flink's
/// `cleanupInRocksdbCompactFilter`.
#[cfg(feature = "rocksdb")]
pub const QUERY_ENTRIES: u32 = 1000;
/// Bytes of the time.
const TIME_BYTES: usize = 8;
/// Bytes of a value of eight bytes with its time.
pub const STAMPED_BYTES: usize = TIME_BYTES + LONG_BYTES;

static SKIPPED_MS: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since 1970, as Java's `System.currentTimeMillis` tells them, and what was skipped.
#[inline]
pub fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock that is set");
    since.as_millis() as i64 + SKIPPED_MS.load(Ordering::Relaxed)
}

/// Sets the clock of this process forward.
pub fn skip(ms: i64) {
    SKIPPED_MS.fetch_add(ms, Ordering::Relaxed);
}

/// A value, last accessed at `time`.
#[inline]
pub fn stamped(time: i64, value: [u8; LONG_BYTES]) -> [u8; STAMPED_BYTES] {
    let mut stamped = [0; STAMPED_BYTES];
    stamped[..TIME_BYTES].copy_from_slice(&time.to_be_bytes());
    stamped[TIME_BYTES..].copy_from_slice(&value);
    stamped
}

/// The time and the value; `None` of what is too short.
#[inline]
pub fn parts(stamped: &[u8]) -> Option<(i64, &[u8])> {
    let (time, value) = stamped.split_first_chunk()?;
    Some((i64::from_be_bytes(*time), value))
}

/// The latest time of which everything has expired at `now`.
#[inline]
pub fn expired_until(now: i64) -> i64 {
    now.saturating_sub(TTL_MS)
}

/// Has this stored value expired, if what was last accessed by `until` has?
#[inline]
pub fn is_expired(stamped: &[u8], until: i64) -> bool {
    parts(stamped).is_some_and(|(time, _)| time <= until)
}
