//! Cobble 0.5 as its Flink backend sets it: the hash memtable, no filter; one bucket. It is not asked
//! for what it does not have: reading backwards, a read at a snapshot. Its log is published every
//! 5 ms, and it opens a store again only from a snapshot of a coordinator: `log` and `checkpoint` do
//! not ask it either.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cobble::{
    Config, Db, MemtableType, ReadOptions, ScanOptions, SstCompressionAlgorithm, VolumeDescriptor,
    WriteBatch,
};
use size::Size;

use crate::engine::{Engine, MEMTABLE_BYTES, Scan, Setup, Visit, VisitEntry};
use crate::meter::others_at_rest;

/// An open database.
pub struct Cobble {
    db: Db,
    read: ReadOptions,
    scan: ScanOptions,
}

const BUCKET: u16 = 0;
const COLUMN: u16 = 0;
/// Longer than any of its threads waits for the device between two steps of its work.
const REST: Duration = Duration::from_millis(20);

impl Cobble {
    /// Creates.
    pub fn open(dir: &Path, setup: &Setup) -> Cobble {
        std::fs::create_dir_all(dir).expect("a directory");
        let memtable = MEMTABLE_BYTES.min(setup.memory / 4);
        let config = Config {
            volumes: VolumeDescriptor::single_volume(format!("file://{}", dir.display())),
            memtable_capacity: Size::from_bytes(memtable),
            memtable_buffer_count: 2,
            memtable_type: MemtableType::Hash,
            num_columns: 1,
            total_buckets: 1,
            block_cache_size: Size::from_bytes(setup.memory / 2),
            compaction_threads: 2,
            sst_compression_by_level: vec![SstCompressionAlgorithm::Lz4; 7],
            log_console: false,
            ..Config::default()
        };
        let db = Db::open(config, vec![0..=0]).expect("open");
        Cobble { db, read: ReadOptions::default(), scan: ScanOptions::default() }
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

impl Engine for Cobble {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.db.put(BUCKET, key, COLUMN, value).expect("put");
    }

    fn delete(&self, key: &[u8]) {
        self.db.delete(BUCKET, key, COLUMN).expect("delete");
    }

    fn put_all(&self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            batch.put(BUCKET, key, COLUMN, value);
        }
        self.db.write_batch(batch).expect("write");
    }

    fn get(&self, key: &[u8], visit: Visit<'_>) {
        let columns = self.db.get_with_options(BUCKET, key, &self.read).expect("get");
        visit(columns.as_ref().and_then(|columns| columns[0].as_deref()));
    }

    fn multi_get(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) {
        let keys: Vec<(u16, &[u8])> = keys.iter().map(|key| (BUCKET, *key)).collect();
        for (i, columns) in self.db.multi_get(&keys).expect("multi_get").iter().enumerate() {
            visit(i, columns.as_ref().and_then(|columns| columns[0].as_deref()));
        }
    }

    fn scan(&self, scan: Scan<'_>, visit: VisitEntry<'_>) -> bool {
        let (from, end) = match scan {
            Scan::AllReverse => return false,
            Scan::All => (None, None),
            Scan::Prefix(prefix) => (Some(prefix), behind(prefix)),
            Scan::From(from) => (Some(from), None),
        };
        let entries = self.db.scan_with_options_bounds(BUCKET, from, end.as_deref(), &self.scan);
        for entry in entries.expect("scan") {
            let (key, columns) = entry.expect("an entry");
            if let Some(value) = columns[0].as_deref()
                && !visit(&key, value)
            {
                break;
            }
        }
        true
    }

    /// Flushes, and waits until a snapshot behind the flush is published: `switch_memtable_type` alone
    /// hands the memtable to another thread and returns. Nor can compactions be waited for: they are
    /// done when no other thread of the process works any more.
    fn settle(&self) -> Option<Instant> {
        self.db.switch_memtable_type(MemtableType::Hash, true).expect("flush");
        let (done, published) = mpsc::channel();
        let snapshot = self.db.snapshot_with_callback(move |result| {
            // Nobody listens any more if the snapshot could not be begun, which panics below.
            let _ = done.send(result.map(|_| ()));
        });
        let snapshot = snapshot.expect("a snapshot");
        published.recv().expect("an answer").expect("a published snapshot");
        self.db.expire_snapshot(snapshot).expect("expire");
        Some(others_at_rest(REST))
    }

    fn close(self: Box<Self>) {
        self.db.close().expect("close");
    }
}
