//! RocksDB, called directly (inside Flink each call costs another 0.1 µs of JNI).
//!
//! As Flink does: the options of `state.backend.rocksdb.*` with managed memory (one cache of (3 − r)/3
//! of the memory, memtables of 2r/3 charged to it, r = 0.5; index blocks in the cache; no filter; two
//! background threads; levels of fixed size; the log off), iterators without an upper bound. Flink's
//! codec is Snappy; here all engines use lz4. Lists are appended to with a merge operator as in
//! Flink, which is a callback into Rust here; values with a time to live have a compaction filter, which
//! Flink has in C++.
//!
//! Tuned: the same memory with Bloom filters for tables and memtable, hash indexes in blocks, the
//! hyper-clock cache, levels of dynamic size, iterators with an upper bound.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Instant;

use parking_lot::Mutex;
use rocksdb::checkpoint::Checkpoint as Native;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, CompactionDecision, DB, DBCompressionType,
    DBRawIterator, DataBlockIndexType, MergeOperands, Options, ReadOptions, WaitForCompactOptions,
    WriteBatch, WriteBufferManager, WriteOptions,
};

use crate::data::KEY_GROUPS;
use crate::engine::{
    Checkpoint, Engine, Finish, Get, Log, MEMTABLE_BYTES, Scan, Setup, Visit, VisitEntry,
};
use crate::ttl;

/// Part of the memory for memtables: Flink's `memory.write-buffer-ratio`.
const WRITE_RATIO: f64 = 0.5;
const FAMILY: &str = "default";

/// An open database.
pub struct Rocks {
    db: DB,
    write: WriteOptions,
    read: ReadOptions,
    log: Log,
    tuned: bool,
    /// Tables of the checkpoint before.
    tables: Mutex<BTreeSet<String>>,
}

fn append(_: &[u8], old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let len = old.map_or(0, <[u8]>::len) + operands.iter().map(<[u8]>::len).sum::<usize>();
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(old.unwrap_or_default());
    operands.iter().for_each(|operand| out.extend_from_slice(operand));
    Some(out)
}

/// Makes a filter for each compaction, as Flink's `FlinkCompactionFilterFactory` does.
struct Expiry;

impl CompactionFilterFactory for Expiry {
    type Filter = ExpiryFilter;

    fn create(&mut self, _: CompactionFilterContext) -> ExpiryFilter {
        ExpiryFilter { until: 0, entries: 0 }
    }

    fn name(&self) -> &CStr {
        c"ttl"
    }
}

/// Reads the time at offset 0; asks the clock once in a thousand entries.
struct ExpiryFilter {
    until: i64,
    entries: u32,
}

impl CompactionFilter for ExpiryFilter {
    fn filter(&mut self, _: u32, _: &[u8], value: &[u8]) -> CompactionDecision {
        if self.entries.is_multiple_of(ttl::QUERY_ENTRIES) {
            self.until = ttl::expired_until(ttl::now());
        }
        self.entries += 1;
        match ttl::is_expired(value, self.until) {
            true => CompactionDecision::Remove,
            false => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        c"ttl"
    }
}

fn options(setup: &Setup, tuned: bool) -> Options {
    let part = |share: f64| (setup.memory as f64 * share) as usize;
    let capacity = part((3.0 - WRITE_RATIO) / 3.0);
    let cache = match tuned {
        true => Cache::new_hyper_clock_cache(capacity, 0),
        false => Cache::new_lru_cache(capacity),
    };
    let memtables = part(2.0 * WRITE_RATIO / 3.0);
    let manager =
        WriteBufferManager::new_write_buffer_manager_with_cache(memtables, false, cache.clone());
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_block_size(4 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    if tuned {
        table.set_bloom_filter(10.0, false);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_data_block_hash_ratio(0.75);
        options.set_memtable_prefix_bloom_ratio(0.1);
        options.set_memtable_whole_key_filtering(true);
    }
    options.set_block_based_table_factory(&table);
    options.set_level_compaction_dynamic_level_bytes(tuned);
    options.set_write_buffer_manager(&manager);
    options.create_if_missing(true);
    options.set_max_background_jobs(2);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_open_files(-1);
    options.set_target_file_size_base(64 << 20);
    options.set_max_bytes_for_level_base(256 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_stats_dump_period_sec(0);
    if setup.lists {
        options.set_merge_operator("append", append, append);
    }
    if setup.ttl {
        options.set_compaction_filter_factory(Expiry);
    }
    options
}

impl Rocks {
    /// Opens or creates.
    pub fn open(dir: &Path, setup: &Setup, tuned: bool) -> Rocks {
        let options = options(setup, tuned);
        let family = ColumnFamilyDescriptor::new(FAMILY, options.clone());
        let db = DB::open_cf_descriptors(&options, dir, [family]).expect("open");
        let mut write = WriteOptions::default();
        write.disable_wal(setup.log == Log::Off);
        write.set_sync(setup.log == Log::Synced);
        Rocks {
            db,
            write,
            read: ReadOptions::default(),
            log: setup.log,
            tuned,
            tables: Mutex::default(),
        }
    }

    /// As Flink restores an instance from one handle: links the files, opens, and clips the rest.
    pub fn restore(
        from: &Path,
        groups: RangeInclusive<u16>,
        dir: &Path,
        setup: &Setup,
        tuned: bool,
    ) -> Rocks {
        std::fs::create_dir(dir).expect("a directory");
        for entry in std::fs::read_dir(from).expect("the checkpoint") {
            let entry = entry.expect("an entry");
            let to = dir.join(entry.file_name());
            match entry.path().extension().is_some_and(|extension| extension == "sst") {
                true => std::fs::hard_link(entry.path(), to).expect("a link"),
                false => drop(std::fs::copy(entry.path(), to).expect("a copy")),
            }
        }
        let rocks = Rocks::open(dir, setup, tuned);
        let (first, last) = (groups.start().to_be_bytes(), (groups.end() + 1).to_be_bytes());
        let family = rocks.db.cf_handle(FAMILY).expect("the family");
        let clip = |from: &[u8], to: &[u8]| {
            rocks.db.delete_file_in_range_cf(&family, from, to).expect("files");
            rocks.db.delete_range_cf_opt(&family, from, to, &rocks.write).expect("a range");
        };
        if *groups.start() > 0 {
            clip(&[0, 0], &first);
        }
        if groups.end() + 1 < KEY_GROUPS {
            clip(&last, &[0xff; 2]);
        }
        rocks
    }

    fn visit(
        &self,
        cursor: &mut DBRawIterator<'_>,
        reverse: bool,
        prefix: &[u8],
        f: VisitEntry<'_>,
    ) {
        while let Some((key, value)) = cursor.item() {
            if !key.starts_with(prefix) || !f(key, value) {
                return;
            }
            if reverse { cursor.prev() } else { cursor.next() }
        }
        cursor.status().expect("a cursor");
    }
}

/// The first key behind all that begin with `prefix`.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

impl Engine for Rocks {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.db.put_opt(key, value, &self.write).expect("put");
    }

    fn delete(&self, key: &[u8]) {
        self.db.delete_opt(key, &self.write).expect("delete");
    }

    fn put_all(&self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        self.db.write_opt(batch, &self.write).expect("write");
    }

    fn get(&self, key: &[u8], visit: Visit<'_>) {
        visit(self.db.get_pinned_opt(key, &self.read).expect("get").as_deref());
    }

    fn multi_get(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) {
        let family = self.db.cf_handle(FAMILY).expect("the family");
        let keys = keys.iter().copied();
        let found = self.db.batched_multi_get_cf_opt(&family, keys, false, &self.read);
        for (i, value) in found.into_iter().enumerate() {
            visit(i, value.expect("multi_get").as_deref());
        }
    }

    fn append(&self, key: &[u8], element: &[u8]) {
        self.db.merge_opt(key, element, &self.write).expect("merge");
    }

    fn scan(&self, scan: Scan<'_>, visit: VisitEntry<'_>) -> bool {
        let mut read = ReadOptions::default();
        let (from, prefix) = match scan {
            Scan::All | Scan::AllReverse => (&[][..], &[][..]),
            Scan::Prefix(prefix) => (prefix, prefix),
            Scan::From(from) => (from, &[][..]),
        };
        if let Some(end) = behind(prefix).filter(|_| self.tuned) {
            read.set_iterate_upper_bound(end);
        }
        let mut cursor = self.db.raw_iterator_opt(read);
        match scan {
            Scan::All => cursor.seek_to_first(),
            Scan::AllReverse => cursor.seek_to_last(),
            Scan::Prefix(_) | Scan::From(_) => cursor.seek(from),
        }
        self.visit(&mut cursor, matches!(scan, Scan::AllReverse), prefix, visit);
        true
    }

    fn snapshot(&self, f: &mut dyn FnMut(Get<'_>)) -> bool {
        let snapshot = self.db.snapshot();
        f(&|key, visit| visit(snapshot.get_pinned(key).expect("get").as_deref()));
        true
    }

    fn settle(&self) -> Option<Instant> {
        self.db.flush().expect("flush");
        self.db.wait_for_compact(&WaitForCompactOptions::default()).expect("background work");
        Some(Instant::now())
    }

    fn compact(&self) {
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }

    fn checkpoint<'a>(&'a self, into: &'a Path) -> Option<Finish<'a>> {
        let native = Native::new(&self.db).expect("a checkpoint");
        native.create_checkpoint(into).expect("a checkpoint");
        Some(Box::new(move || {
            let mut before = self.tables.lock();
            let (mut now, mut bytes_new, mut bytes) = (BTreeSet::new(), 0, 0);
            for entry in std::fs::read_dir(into).expect("the checkpoint") {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("a name");
                let len = entry.metadata().expect("a file").len();
                if name.ends_with(".sst") {
                    bytes += len;
                    bytes_new += if before.contains(&name) { 0 } else { len };
                    now.insert(name);
                }
            }
            *before = now;
            Checkpoint { bytes_new, bytes }
        }))
    }

    fn close(self: Box<Self>) {
        if self.log == Log::Off {
            self.db.flush().expect("flush");
        }
        self.db.cancel_all_background_work(true);
    }
}
