//! Settings and components: [`Options`] is plain data, [`Env`] holds the things with behaviour.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use crate::base::coding::{Decoder, put_field, put_number};
use crate::base::error::{Error, Result};
use crate::base::format::{Layout, field};
use crate::base::limits::{LEVELS, VALUE_BYTES_MAX};
use crate::base::rng::Rng;
use crate::base::sync::{Arc, Mutex};
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::compaction::filter::CompactionFilterFactory;
use crate::compaction::picker::PickerOptions;
use crate::db::stats::Event;
use crate::fs::Fs;
use crate::fs::disk::DiskFs;
use crate::iter::resolve::MergeOperator;
use crate::memtable::BYTES_MAX as MEMTABLE_BYTES_MAX;
use crate::table::{Block, Codec, TableOptions, TimestampExtractor};

/// F4.5 as a table.
pub const LAYOUT: Layout = Layout {
    id: "F4.5",
    title: "Options of a family: fields, tags ascending; those that are absent have their defaults",
    fields: &[
        field("tag 1", "v", "memtable_bytes_max", "bytes of a memtable that is full"),
        field("tag 2", "v", "block_bytes", "bytes of a data block before it is packed"),
        field("tag 3", "v", "restart_interval", "keys from one that is stored whole to the next"),
        field("tag 4", "v", "zstd_level", "level of zstd"),
        field("tag 5", "v", "filter_bits_per_key", "bits of a filter for each key; 0: no filter"),
        field("tag 6", "v", "key_group_bytes", "bytes of a key that are its key group: 0, 1 or 2"),
        field("tag 7", "v", "l0_depth_trigger", "overlap depth at which level 0 is compacted"),
        field("tag 8", "v", "level_bytes_base", "bytes of the first level below level 0"),
        field("tag 9", "v", "level_multiplier", "times the bytes of a level that the next one has"),
        field("tag 10", "v", "file_bytes", "bytes at which a compaction's table is cut"),
        field("tag 11", "7", "codecs", "a codec for each level, as in F3.1"),
        field("tag 12", "v", "l0_scan_bytes", "bytes that a scan pays for each further run"),
    ],
};

/// Settings of a database: plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Create the database if the directory holds none. Default: yes.
    pub create_if_missing: bool,
    /// Write every batch to a log before it is applied. With the log off, durability is the
    /// checkpoint: after anything but [`Db::close`](crate::Db::close), the directory is refused.
    /// A property of the database: it can change only over a clean close. Default: on.
    pub log: bool,
    /// Every write returns only when the log is on stable storage up to it, as if each had asked with
    /// [`WriteOptions::sync`]. Needs the log. Default: no.
    pub sync: bool,
    /// A log segment is closed when it exceeds this many bytes, or 112 MiB. Default: 64 MiB.
    pub log_segment_bytes: u64,
    /// Closed log segments from which the memtables that still need the oldest are flushed, though
    /// they are not full: keys that are written again and again take no more memory, but more log.
    /// Default: 8.
    pub log_segments_max: usize,
    /// Most memtables of one family that wait to be flushed before writers wait. Default: 4.
    pub immutables_max: usize,
    /// Overlap depth of level 0 at which writers wait; above half of it they are held up a little. Default: 36.
    pub l0_stop_depth: usize,
    /// Largest value or merge operand in bytes. Default: 32 MiB.
    pub value_bytes_max: usize,
    /// Memtable memory that this database may keep, whatever the pressure of others. Default: 1 MiB.
    pub memtables_bytes_min: usize,
    /// How long a stalled writer waits before it gets `Busy`, in milliseconds. Default: 60,000.
    pub stall_ms_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            create_if_missing: true,
            log: true,
            sync: false,
            log_segment_bytes: 64 << 20,
            log_segments_max: 8,
            immutables_max: 4,
            l0_stop_depth: 36,
            value_bytes_max: VALUE_BYTES_MAX,
            memtables_bytes_min: 1 << 20,
            stall_ms_max: 60_000,
        }
    }
}

/// Settings and components of a column family.
///
/// The plain settings are recorded in the manifest, so that a family that is not opened again is
/// still flushed and compacted as it was; the names of its components are recorded too. Opening it
/// with another merge operator is [`Incompatible`](crate::ErrorKind::Incompatible); another filter
/// replaces the old one.
#[derive(Clone)]
pub struct ColumnFamilyOptions {
    /// Bytes of memory at which the memtable is flushed. Default: 64 MiB.
    pub memtable_bytes_max: usize,
    /// Bytes of a data block before compression. Default: 2 KiB. A point read that is not cached reads and
    /// unpacks one; the index, which stays in memory, has about 40 bytes for each.
    pub block_bytes: usize,
    /// Entries between restart points of a block. Default: 16.
    pub restart_interval: usize,
    /// Codec of each level. Default: none for levels 0 and 1, then zstd where compiled in.
    pub codecs: [Codec; LEVELS],
    /// zstd's level. Default: 1.
    pub zstd_level: i32,
    /// Bits of the Bloom filter for each key; 0: no filter. Default: 10.
    pub filter_bits_per_key: u32,
    /// Leading key bytes (0 or 2) that are a big-endian key group, for counts and hashes per group.
    /// Default: 0.
    pub key_group_bytes: u8,
    /// Overlap depth of level 0 from which it is compacted if it brings as much as it makes rewrite; half
    /// as deep again it always is. Default: 4.
    pub l0_depth_trigger: usize,
    /// So many bytes of merging level 0 a scan pays for each sorted run of it that it has to ask beyond one. The
    /// fewer, the later level 0 is merged for the sake of scans; 0: never. Default: 4 KiB.
    pub l0_scan_bytes: u64,
    /// Target size of level 1 in bytes. Default: 64 MiB.
    pub level_bytes_base: u64,
    /// How much larger each further level may be. Default: 10.
    pub level_multiplier: u64,
    /// Bytes of a table written by compaction. Default: 32 MiB.
    pub file_bytes: u64,
    /// What merge operands mean. Default: none; merges are refused.
    pub merge_operator: Option<Arc<dyn MergeOperator>>,
    /// What compaction may drop or replace. Default: none.
    pub compaction_filter: Option<Arc<dyn CompactionFilterFactory>>,
    /// What the timestamp of an entry is. Default: none.
    pub timestamp: Option<Arc<dyn TimestampExtractor>>,
}

impl Default for ColumnFamilyOptions {
    fn default() -> ColumnFamilyOptions {
        let deep = if Codec::Zstd.is_compiled_in() { Codec::Zstd } else { Codec::None };
        let mut codecs = [deep; LEVELS];
        codecs[..2].fill(Codec::None);
        ColumnFamilyOptions {
            memtable_bytes_max: 64 << 20,
            block_bytes: 2 << 10,
            restart_interval: 16,
            codecs,
            zstd_level: 1,
            filter_bits_per_key: 10,
            key_group_bytes: 0,
            l0_depth_trigger: 4,
            l0_scan_bytes: 4 << 10,
            level_bytes_base: 64 << 20,
            level_multiplier: 10,
            file_bytes: 32 << 20,
            merge_operator: None,
            compaction_filter: None,
            timestamp: None,
        }
    }
}

impl fmt::Debug for ColumnFamilyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnFamilyOptions")
            .field("memtable_bytes_max", &self.memtable_bytes_max)
            .field("block_bytes", &self.block_bytes)
            .field("codecs", &self.codecs)
            .field("merge_operator", &self.merge_operator.as_ref().map(|op| op.name()))
            .field("compaction_filter", &self.compaction_filter.as_ref().map(|f| f.name()))
            .finish_non_exhaustive()
    }
}

impl ColumnFamilyOptions {
    /// Refuses what cannot work.
    pub(in crate::db) fn check(&self) -> Result<()> {
        let bad = |text: &str| Err(Error::invalid(text));
        match () {
            () if self.memtable_bytes_max < 4 << 10 => bad("a memtable needs 4 KiB"),
            () if self.memtable_bytes_max > MEMTABLE_BYTES_MAX => bad("a memtable of over 1 GiB"),
            () if self.block_bytes < 64 => bad("a block needs 64 bytes"),
            () if self.block_bytes > 4 << 20 => bad("a block holds at most 4 MiB"),
            () if self.restart_interval == 0 => bad("a restart interval of zero"),
            () if !matches!(self.key_group_bytes, 0 | 2) => bad("key groups are 0 or 2 bytes"),
            () if self.l0_depth_trigger == 0 => bad("a level-0 trigger of zero"),
            () if self.level_multiplier < 2 => bad("a level multiplier below 2"),
            () if self.file_bytes < 512 => bad("a table needs 512 bytes"),
            () => self.codecs.iter().try_for_each(|codec| codec.require()),
        }
    }

    /// May merge operands be joined without asking their operator?
    pub(in crate::db) fn concatenates(&self) -> bool {
        self.merge_operator.as_ref().is_some_and(|operator| operator.concatenates())
    }

    pub(in crate::db) fn table_options(
        &self,
        level: usize,
        value_bytes_max: usize,
    ) -> TableOptions {
        TableOptions {
            block_bytes: self.block_bytes,
            restart_interval: self.restart_interval,
            codec: self.codecs[level],
            zstd_level: self.zstd_level,
            filter_bits_per_key: self.filter_bits_per_key,
            key_group_bytes: self.key_group_bytes,
            timestamp: self.timestamp.clone(),
            value_bytes_max,
        }
    }

    /// `l0_stop_depth`: the database's. What is due at the latest is due before writers are held up,
    /// which is from half of that depth on, unless the trigger is above.
    pub(in crate::db) fn picker_options(&self, l0_stop_depth: usize) -> PickerOptions {
        let trigger = self.l0_depth_trigger;
        let unhurried = trigger.max(l0_stop_depth / 2).min(l0_stop_depth);
        PickerOptions {
            l0_trigger: trigger,
            l0_depth_max: trigger.saturating_add(trigger / 2).min(unhurried),
            l0_scan_bytes: self.l0_scan_bytes,
            base_level_bytes: self.level_bytes_base,
            level_multiplier: self.level_multiplier,
            file_bytes: self.file_bytes,
            ..PickerOptions::default()
        }
    }

    /// The plain settings as the manifest keeps them: one optional field each.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut number = |tag, value| put_number(&mut out, tag, false, value);
        number(1, self.memtable_bytes_max as u64);
        number(2, self.block_bytes as u64);
        number(3, self.restart_interval as u64);
        number(4, self.zstd_level.max(0) as u64);
        number(5, u64::from(self.filter_bits_per_key));
        number(6, u64::from(self.key_group_bytes));
        number(7, self.l0_depth_trigger as u64);
        number(8, self.level_bytes_base);
        number(9, self.level_multiplier);
        number(10, self.file_bytes);
        put_field(&mut out, 11, false, &self.codecs.map(|codec| codec as u8));
        put_number(&mut out, 12, false, self.l0_scan_bytes);
        out
    }

    /// The inverse of [`encode`](ColumnFamilyOptions::encode): unknown fields are skipped, settings
    /// that are absent, or of no use to this build, keep their defaults.
    pub(crate) fn decode(bytes: &[u8]) -> Result<ColumnFamilyOptions> {
        let mut options = ColumnFamilyOptions::default();
        let mut d = Decoder::new(bytes);
        while !d.is_empty() {
            let (tag, must_understand, mut payload) = d.field()?;
            if tag == 11 {
                for (codec, byte) in options.codecs.iter_mut().zip(payload.rest()) {
                    match Codec::from_byte(*byte) {
                        Some(stored) if stored.require().is_ok() => *codec = stored,
                        _ => *codec = Codec::None,
                    }
                }
                continue;
            }
            if tag > 12 {
                if must_understand {
                    return Err(Error::unsupported(format!("family option {tag}")));
                }
                continue;
            }
            let value = payload.varint()?;
            let size = usize::try_from(value).unwrap_or(usize::MAX);
            match tag {
                1 => options.memtable_bytes_max = size,
                2 => options.block_bytes = size,
                3 => options.restart_interval = size,
                4 => options.zstd_level = i32::try_from(value).unwrap_or(1),
                5 => options.filter_bits_per_key = u32::try_from(value).unwrap_or(10),
                6 => options.key_group_bytes = value as u8,
                7 => options.l0_depth_trigger = size,
                8 => options.level_bytes_base = value,
                9 => options.level_multiplier = value,
                10 => options.file_bytes = value,
                _ => options.l0_scan_bytes = value,
            }
        }
        options.check().map_err(|e| Error::corruption(format!("family options: {e}")))?;
        Ok(options)
    }
}

/// How one write is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Return only when the log is on stable storage up to this write. Without it a write survives
    /// the process, and survives the power from the next sync on. Needs the log. Default: no.
    pub sync: bool,
}

/// Who does the background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// One thread flushes, and this many (at least one) compact. A large flush or compaction is done in up
    /// to as many parts as threads compact, on short-lived threads of its own beside them.
    Threads(usize),
    /// No threads: [`Db::step`](crate::Db::step), stalled writers and waiters do the work, so that
    /// everything happens on the caller's threads, in an order that a seed decides.
    Inline,
}

/// Receives what happens in a database; called on the thread on which it happens, outside all locks
/// that writers need. It must not call the database.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// The components of a database: file system, memory, background work, source of identities.
///
/// One `Env` may serve many databases: they then share one [`MemoryBudget`] and one block cache, as
/// the states in one Flink slot do.
#[derive(Clone)]
pub struct Env {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) budget: MemoryBudget,
    pub(crate) cache: Arc<BlockCache<Block>>,
    pub(crate) background: Background,
    pub(crate) listener: Option<Listener>,
    seeds: Arc<Mutex<Rng>>,
}

impl Env {
    /// The disk, one flush and two compaction threads, and a seed from the system.
    pub fn new(budget: MemoryBudget) -> Env {
        // The standard library's only door to the system's randomness.
        let seed = RandomState::new().hash_one(0x616c_6c75_7669_756d_u64);
        Env::with(Arc::new(DiskFs::new()), budget, Background::Threads(2), seed)
    }

    /// A file system of the caller's, everything on the caller's threads, and identities from `seed`.
    /// If that is odd, the cache has no room for blocks, as if much more data were read than
    /// fits, and keeps rows.
    ///
    /// For tests: two databases whose identities come from one seed must never share a store.
    #[cfg(any(test, feature = "testing"))]
    pub fn simulated(fs: Arc<dyn Fs>, budget: MemoryBudget, seed: u64) -> Env {
        let blocks_bytes = if seed % 2 == 1 { 0 } else { budget.limit() };
        let cache = BlockCache::new(&budget, blocks_bytes);
        Env { cache, ..Env::with(fs, budget, Background::Inline, seed) }
    }

    fn with(fs: Arc<dyn Fs>, budget: MemoryBudget, background: Background, seed: u64) -> Env {
        let cache = BlockCache::new(&budget, budget.limit());
        let seeds = Arc::new(Mutex::new(Rng::new(seed)));
        Env { fs, budget, cache, background, listener: None, seeds }
    }

    /// The same environment with background work done in this way.
    pub fn with_background(mut self, background: Background) -> Env {
        self.background = background;
        self
    }

    /// The same environment on another file system.
    pub fn with_fs(mut self, fs: Arc<dyn Fs>) -> Env {
        self.fs = fs;
        self
    }

    /// The same environment with a listener.
    pub fn with_listener(mut self, listener: Listener) -> Env {
        self.listener = Some(listener);
        self
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }

    /// The memory budget.
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// A random identity for one opening of a database.
    pub(in crate::db) fn instance(&self) -> u64 {
        self.seeds.lock().next_u64()
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("background", &self.background).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_0_is_due_before_writers_are_held_up() {
        for (trigger, stop) in (1..50).flat_map(|trigger| (1..50).map(move |stop| (trigger, stop)))
        {
            let options =
                ColumnFamilyOptions { l0_depth_trigger: trigger, ..ColumnFamilyOptions::default() };
            let most = options.picker_options(stop).l0_depth_max;
            assert!(most >= 1 && most <= stop && most <= trigger + trigger / 2);
            assert!(most <= stop / 2 || most == trigger || most == stop);
        }
        let defaults =
            ColumnFamilyOptions::default().picker_options(Options::default().l0_stop_depth);
        assert_eq!((defaults.l0_trigger, defaults.l0_depth_max), (4, 6));
    }

    #[test]
    fn plain_settings_survive_the_manifest() {
        let options = ColumnFamilyOptions {
            memtable_bytes_max: 12345,
            block_bytes: 512,
            codecs: [Codec::None; LEVELS],
            key_group_bytes: 2,
            l0_depth_trigger: 2,
            l0_scan_bytes: 77,
            ..ColumnFamilyOptions::default()
        };
        let bytes = options.encode();
        let back = ColumnFamilyOptions::decode(&bytes).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!((back.block_bytes, back.key_group_bytes, back.l0_scan_bytes), (512, 2, 77));
        for cut in 1..bytes.len() {
            let _ = ColumnFamilyOptions::decode(&bytes[..cut]); // returns, whatever it says
        }
    }
}
