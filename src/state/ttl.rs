//! F6.7: state that expires.
//!
//! With a time to live, every value, element of a list and entry of a map is stored behind the time of
//! its last access:
//!
//! ```text
//! time(8, big-endian, signed) ‖ value
//! ```
//! It has expired when `time + ttl <= now`, with the ttl of today: the ttl itself is not stored.
//! Reading does not rely on cleaning up: what has expired is recognised when it is read, and removed
//! then; what nobody reads, compaction removes ([`cleanup`]). Time comes from the caller and never
//! goes back.

pub mod cleanup;
pub mod states;

use std::fmt;

use crate::ColumnFamily;
use crate::Update;
use crate::base::coding::put_prefixed;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::base::sync::Arc;
use crate::base::sync::AtomicU64;
use crate::base::sync::Ordering;
use crate::state::cell::Shared;
use crate::state::evolution::Compatibility;
use crate::state::evolution::SerializerSnapshot;
use crate::state::evolution::compare;
use crate::state::serializer::Serializer;

/// F6.7.
pub const LAYOUTS: &[Layout] = &[Layout {
    id: "F6.7",
    title: "Value, element of a list or entry of a map with a time to live",
    fields: &[
        field(
            "0",
            "8",
            "time",
            "of the last access, as the caller's clock shows it, i64 big-endian",
        ),
        field("8", "n", "value", "the serialized value"),
    ],
}];

/// Bytes of the time before a value.
const TIME_BYTES: usize = 8;

/// Name of the serializer of values with a time; its configuration is that of the values.
pub const STAMPED: &str = "alluvium.ttl";

/// What makes a value live longer: Flink's `StateTtlConfig.UpdateType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TtlUpdate {
    /// Nothing expires: as if there were no time to live.
    Disabled,
    /// Creating and writing it.
    #[default]
    OnCreateAndWrite,
    /// Reading it, too. A read of a value is then also a write.
    OnReadAndWrite,
}

/// Whether what has expired can still be seen: Flink's `StateTtlConfig.StateVisibility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TtlVisibility {
    /// It is as if it were not there.
    #[default]
    NeverReturnExpired,
    /// It is there until something removes it. The first read of a value returns and removes it.
    ReturnExpiredIfNotCleanedUp,
}

/// How the values of a state expire: Flink's `StateTtlConfig`. Given to a backend, for each state by
/// name; see [`BackendOptions::ttl`](crate::BackendOptions). It is not part of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TtlConfig {
    /// How long after its last access a value expires, in the clock's unit; milliseconds in Flink.
    pub ttl: i64,
    /// What an access is.
    pub update: TtlUpdate,
    /// What reads show.
    pub visibility: TtlVisibility,
    /// Does compaction remove what has expired? Else only reading it does.
    pub cleanup_in_background: bool,
}

impl TtlConfig {
    /// Flink's defaults: counted from creation and writing, what has expired is never shown, and is
    /// cleaned up in the background.
    ///
    /// # Errors
    /// `InvalidArgument` if `ttl` is not positive.
    pub fn new(ttl: i64) -> Result<TtlConfig> {
        if ttl <= 0 {
            return Err(Error::invalid(format!("a time to live is positive, not {ttl}")));
        }
        let (update, visibility) = (TtlUpdate::default(), TtlVisibility::default());
        Ok(TtlConfig { ttl, update, visibility, cleanup_in_background: true })
    }

    /// The same with another [`update`](TtlConfig::update): Flink's `setUpdateType`.
    pub fn with_update(mut self, update: TtlUpdate) -> TtlConfig {
        self.update = update;
        self
    }

    /// The same with another [`visibility`](TtlConfig::visibility): Flink's `setStateVisibility`.
    pub fn with_visibility(mut self, visibility: TtlVisibility) -> TtlConfig {
        self.visibility = visibility;
        self
    }

    /// The same without cleaning up in the background: Flink's `disableCleanupInBackground`.
    pub fn without_cleanup_in_background(mut self) -> TtlConfig {
        self.cleanup_in_background = false;
        self
    }
}

/// Tells the time to a backend: Flink's `TtlTimeProvider`. In any unit, from any origin; usually
/// milliseconds since 1970. It may stand still; where it goes back, the backend does not follow.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// Calls `now` whenever the time matters, from any thread. It must not use the backend.
    pub fn new(now: impl Fn() -> i64 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The time of one backend: the latest that its clock has shown.
pub struct Time {
    clock: Clock,
    /// With the sign bit flipped, so that the order is that of times.
    seen: AtomicU64,
    /// When background work is to look for what has expired, flipped as well.
    look: AtomicU64,
}

fn flip(time: u64) -> u64 {
    time ^ (1 << 63)
}

impl Time {
    pub fn new(clock: Clock) -> Time {
        Time { clock, seen: AtomicU64::new(0), look: AtomicU64::new(0) }
    }

    pub fn now(&self) -> i64 {
        let shown = flip((self.clock.0)() as u64);
        // As a rule the clock has not moved since: a load is cheaper than an exchange.
        let seen = self.seen.load(Ordering::Relaxed);
        let now = if shown <= seen { seen } else { self.seen.fetch_max(shown, Ordering::Relaxed) };
        flip(now.max(shown)) as i64
    }

    /// Has the clock gone on by `step` since this was last true?
    pub fn has_gone_on(&self, step: i64) -> bool {
        let now = self.now();
        let due = flip(self.look.load(Ordering::Relaxed)) as i64 <= now;
        if due {
            self.look.store(flip(now.saturating_add(step) as u64), Ordering::Relaxed);
        }
        due
    }
}

/// Expiry of the values of one state.
pub struct Ttl {
    config: TtlConfig,
    time: Arc<Time>,
}

/// The time before a value, if it is long enough to have one.
pub fn time_of(stamped: &[u8]) -> Option<i64> {
    stamped.first_chunk::<TIME_BYTES>().map(|bytes| i64::from_be_bytes(*bytes))
}

/// Gives a value that was written anew the time of the old one.
pub fn keep_time_of(old: &[u8], new: &mut [u8]) {
    if let Some((new, old)) = new.first_chunk_mut::<TIME_BYTES>().zip(old.first_chunk()) {
        *new = *old;
    }
}

/// What becomes of a value that was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// It stays.
    Stay,
    /// It goes.
    Remove,
    /// It is stored again with the time of now.
    Refresh,
}

/// Whoever reads looks at the clock once, and goes by that.
impl Ttl {
    pub fn new(config: TtlConfig, time: Arc<Time>) -> Ttl {
        Ttl { config, time }
    }

    pub fn time(&self) -> &Arc<Time> {
        &self.time
    }

    pub fn now(&self) -> i64 {
        self.time.now()
    }

    /// Values with this time or an older one have expired by now.
    pub fn expired_until(&self) -> Option<i64> {
        self.now().checked_sub(self.config.ttl)
    }

    /// Has it expired? What has no time is damaged, and shown to whoever decodes it.
    pub fn has_expired(&self, stamped: &[u8], now: i64) -> bool {
        let until = now.checked_sub(self.config.ttl);
        time_of(stamped).zip(until).is_some_and(|(time, until)| time <= until)
    }

    /// Does compaction remove what has expired?
    pub fn cleans_up(&self) -> bool {
        self.config.cleanup_in_background
    }

    /// Do reads make values live longer?
    pub fn refreshes(&self) -> bool {
        self.config.update == TtlUpdate::OnReadAndWrite
    }

    /// Do reads show what has expired?
    pub fn shows_expired(&self) -> bool {
        self.config.visibility == TtlVisibility::ReturnExpiredIfNotCleanedUp
    }

    /// Is it to be shown?
    pub fn shows(&self, stamped: &[u8], now: i64) -> bool {
        self.shows_expired() || !self.has_expired(stamped, now)
    }

    fn after(&self, stamped: &[u8], now: i64) -> After {
        if self.has_expired(stamped, now) {
            return After::Remove;
        }
        match self.refreshes() && time_of(stamped).is_some_and(|time| time != now) {
            true => After::Refresh,
            false => After::Stay,
        }
    }

    /// A read-modify-write that sees, and leaves behind, what it should.
    pub fn update(
        &self,
        old: Option<&[u8]>,
        out: &mut Vec<u8>,
        f: impl FnOnce(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Update {
        let now = self.now();
        let seen = old.filter(|old| self.shows(old, now));
        let update = f(seen, out);
        let (Update::Keep, Some(old)) = (&update, old) else { return update };
        match self.after(old, now) {
            After::Stay => update,
            After::Remove => Update::Delete,
            After::Refresh => {
                out.clear();
                refresh(old, now, out);
                Update::Put
            }
        }
    }

    /// A list after a read, in parts to be stored: none if all of it has expired. `None`: it stays as
    /// it is. Only where reading makes elements live longer, those that have expired go before all have.
    pub fn after_list(
        &self,
        elements: &[&[u8]],
        now: i64,
        part_bytes: usize,
    ) -> Option<Vec<Vec<u8>>> {
        let alive = || elements.iter().filter(|element| !self.has_expired(element, now));
        if elements.is_empty() {
            return None;
        }
        if alive().next().is_none() {
            return Some(Vec::new());
        }
        let as_it_is = elements.iter().all(|element| time_of(element) == Some(now));
        if !self.refreshes() || as_it_is {
            return None;
        }
        let (mut parts, mut fresh) = (vec![Vec::new()], Vec::new());
        for element in alive() {
            if parts.last().is_some_and(|part| part.len() >= part_bytes) {
                parts.push(Vec::new());
            }
            let part = parts.last_mut().expect("there is one");
            fresh.clear();
            refresh(element, now, &mut fresh);
            put_prefixed(part, &fresh);
        }
        Some(parts)
    }
}

/// Appends the same value, accessed now.
fn refresh(stamped: &[u8], now: i64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(stamped);
    if let Some(time) = out[start..].first_chunk_mut::<TIME_BYTES>() {
        *time = now.to_be_bytes();
    }
}

/// Does what a read of a value entails: it is removed if it has expired, or made to live longer.
#[derive(Clone, Copy)]
pub struct Touch<'a> {
    pub shared: &'a Shared,
    pub family: &'a ColumnFamily,
    pub ttl: &'a Ttl,
    /// When it was read.
    pub now: i64,
}

impl Touch<'_> {
    /// Does a read of this value entail anything?
    pub fn is_due(&self, stamped: &[u8]) -> bool {
        self.ttl.after(stamped, self.now) != After::Stay
    }

    /// A value was read as `stamped`. If it has changed since, nothing happens.
    pub fn touch(&self, key: &[u8], stamped: &[u8]) -> Result<()> {
        let after = self.ttl.after(stamped, self.now);
        if after == After::Stay {
            return Ok(());
        }
        self.shared.db()?.update(self.family, key, |now, out| match after {
            _ if now != Some(stamped) => Update::Keep,
            After::Refresh => {
                refresh(stamped, self.now, out);
                Update::Put
            }
            _ => Update::Delete,
        })
    }
}

/// For what reads entail that outlive their handle.
pub struct Toucher {
    pub shared: Arc<Shared>,
    pub family: ColumnFamily,
    pub ttl: Arc<Ttl>,
    /// A snapshot is read: nothing is entailed.
    pub reads_only: bool,
}

impl Toucher {
    /// An entry was read as `stamped`: does what that entails, and says whether it is to be shown.
    pub fn read(&self, key: &[u8], stamped: &[u8]) -> Result<bool> {
        let Toucher { shared, family, ttl, reads_only } = self;
        let now = ttl.now();
        if !reads_only {
            Touch { shared, family, ttl, now }.touch(key, stamped)?;
        }
        Ok(ttl.shows(stamped, now))
    }
}

/// Writes values behind the time of writing, and reads over it.
pub struct Stamped<V> {
    inner: Arc<dyn Serializer<Value = V>>,
    time: Arc<Time>,
}

impl<V: 'static> Stamped<V> {
    pub fn new(inner: Arc<dyn Serializer<Value = V>>, time: Arc<Time>) -> Stamped<V> {
        Stamped { inner, time }
    }
}

fn strip(bytes: &[u8]) -> Result<&[u8]> {
    let short = || Error::corruption("a value without the time of its last access").at(0);
    bytes.get(TIME_BYTES..).ok_or_else(short)
}

/// The configuration of a composite with one part.
fn one_part(part: &SerializerSnapshot) -> Vec<u8> {
    let mut config = Vec::new();
    put_prefixed(&mut config, &part.encode());
    config
}

impl<V: 'static> Serializer for Stamped<V> {
    type Value = V;

    fn name(&self) -> &str {
        STAMPED
    }

    fn config(&self) -> Vec<u8> {
        one_part(&self.inner.snapshot())
    }

    fn fixed_len(&self) -> Option<usize> {
        Some(TIME_BYTES + self.inner.fixed_len()?)
    }

    #[inline]
    fn encode(&self, value: &V, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.now().to_be_bytes());
        self.inner.encode(value, out);
    }

    #[inline]
    fn decode(&self, bytes: &[u8]) -> Result<V> {
        self.inner.decode(strip(bytes)?)
    }

    /// Takes over from values without a time, too: they were accessed when they are migrated.
    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<V> {
        let stamp = |inner| Arc::new(Stamped { inner, time: Arc::clone(&self.time) });
        match stored.parts::<1>(STAMPED) {
            Some([part]) => match compare(&*self.inner, &part) {
                Compatibility::Reconfigured(inner) => Compatibility::Reconfigured(stamp(inner)),
                Compatibility::AfterMigration(inner) => Compatibility::AfterMigration(stamp(inner)),
                said => said,
            },
            None => match compare(&*self.inner, stored) {
                Compatibility::AsIs => Compatibility::AfterMigration(Arc::clone(&self.inner)),
                Compatibility::Reconfigured(inner) => Compatibility::AfterMigration(inner),
                said => said,
            },
        }
    }
}

/// A serializer that takes over from values with a time, which it drops; otherwise as it is.
pub struct Unstamping<V>(pub Arc<dyn Serializer<Value = V>>);

/// Reads values with a time.
struct Strip<V>(Arc<dyn Serializer<Value = V>>);

impl<V: 'static> Serializer for Unstamping<V> {
    type Value = V;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn version(&self) -> u32 {
        self.0.version()
    }

    fn config(&self) -> Vec<u8> {
        self.0.config()
    }

    fn fixed_len(&self) -> Option<usize> {
        self.0.fixed_len()
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) {
        self.0.encode(value, out);
    }

    fn decode(&self, bytes: &[u8]) -> Result<V> {
        self.0.decode(bytes)
    }

    fn compatibility(&self, stored: &SerializerSnapshot) -> Compatibility<V> {
        let Some([part]) = stored.parts::<1>(STAMPED) else { return compare(&*self.0, stored) };
        match compare(&*self.0, &part) {
            Compatibility::AsIs => {
                Compatibility::AfterMigration(Arc::new(Strip(Arc::clone(&self.0))))
            }
            Compatibility::Reconfigured(inner) | Compatibility::AfterMigration(inner) => {
                Compatibility::AfterMigration(Arc::new(Strip(inner)))
            }
            said => said,
        }
    }
}

impl<V: 'static> Serializer for Strip<V> {
    type Value = V;

    fn name(&self) -> &str {
        STAMPED
    }

    fn config(&self) -> Vec<u8> {
        one_part(&self.0.snapshot())
    }

    fn fixed_len(&self) -> Option<usize> {
        Some(TIME_BYTES + self.0.fixed_len()?)
    }

    fn encode(&self, _: &V, _: &mut Vec<u8>) {
        unreachable!("only reads what is stored")
    }

    fn decode(&self, bytes: &[u8]) -> Result<V> {
        self.0.decode(strip(bytes)?)
    }
}

#[cfg(test)]
mod tests;
