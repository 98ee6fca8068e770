//! alluvium through its public interface, one family, two compaction threads.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use alluvium::{
    Codec, ColumnFamily, ColumnFamilyOptions, CompactionFilter, CompactionFilterFactory, Db,
    Decision, DirStore, EntryKind, Env, FileSet, JobCheckpoint, ListAppend, MemoryBudget, Options,
    PartInput, Scan as Cursor, TimestampExtractor, Update, WriteBatch, WriteOptions,
};
use parking_lot::Mutex;

use crate::data::KEY_GROUPS;
use crate::engine::{
    Change, Checkpoint, Engine, Finish, Get, Log, MEMTABLE_BYTES, Scan, Setup, Visit, VisitEntry,
};
use crate::ttl;

/// An open database.
pub struct Alluvium {
    db: Db,
    family: ColumnFamily,
    batch: Mutex<WriteBatch>,
    /// Tables of the checkpoint before.
    tables: Mutex<BTreeSet<[u8; 32]>>,
}

/// Says what has expired, as the time to live of a state does.
struct Expiry;

impl CompactionFilterFactory for Expiry {
    fn name(&self) -> &str {
        "ttl"
    }

    fn expired_until(&self) -> Option<i64> {
        Some(ttl::expired_until(ttl::now()))
    }

    fn create(&self) -> Box<dyn CompactionFilter> {
        Box::new(ExpiryFilter { until: ttl::expired_until(ttl::now()) })
    }
}

impl TimestampExtractor for Expiry {
    fn name(&self) -> &str {
        "last-access"
    }

    fn timestamp(&self, _: &[u8], value: &[u8]) -> Option<i64> {
        ttl::parts(value).map(|(time, _)| time)
    }
}

struct ExpiryFilter {
    until: i64,
}

impl CompactionFilter for ExpiryFilter {
    fn decide(&mut self, _: &[u8], _: EntryKind, value: &[u8], _: &mut Vec<u8>) -> Decision {
        if ttl::is_expired(value, self.until) { Decision::Remove } else { Decision::Keep }
    }
}

fn options(setup: &Setup) -> Options {
    let (log, sync) = (setup.log != Log::Off, setup.log == Log::Synced);
    Options { log, sync, ..Options::default() }
}

fn env(setup: &Setup) -> Env {
    Env::new(MemoryBudget::new(setup.memory))
}

impl Alluvium {
    /// Opens or creates.
    pub fn open(dir: &Path, setup: &Setup) -> Alluvium {
        Alluvium::new(Db::open(dir, options(setup), env(setup)).expect("open"), setup)
    }

    /// A new database out of a checkpoint in a [`DirStore`].
    pub fn restore(
        from: &Path,
        groups: RangeInclusive<u16>,
        dir: &Path,
        setup: &Setup,
    ) -> Alluvium {
        let env = env(setup);
        let store = DirStore::open(Arc::clone(env.fs()), from).expect("the store");
        let saved = alluvium::load_checkpoint(&store, 1).expect("the checkpoint");
        let db = alluvium::restore_checkpoint(&store, &saved, groups, dir, options(setup), env);
        Alluvium::new(db.expect("restore"), setup)
    }

    fn new(db: Db, setup: &Setup) -> Alluvium {
        let family_options = ColumnFamilyOptions {
            memtable_bytes_max: MEMTABLE_BYTES,
            codecs: [Codec::Lz4; alluvium::limits::LEVELS],
            key_group_bytes: 2,
            merge_operator: if setup.lists { Some(Arc::new(ListAppend)) } else { None },
            compaction_filter: if setup.ttl { Some(Arc::new(Expiry)) } else { None },
            timestamp: if setup.ttl { Some(Arc::new(Expiry)) } else { None },
            ..ColumnFamilyOptions::default()
        };
        let family = db.column_family("state", family_options).expect("a family");
        Alluvium { db, family, batch: Mutex::default(), tables: Mutex::default() }
    }

    /// Saves a file set as checkpoint 1 of a new store: the upload, which nobody times.
    fn save(&self, set: &FileSet, into: &Path) {
        let store = DirStore::open(Arc::clone(set.fs()), into).expect("a store");
        let part = PartInput { first_group: 0, last_group: KEY_GROUPS - 1, set };
        let job = JobCheckpoint {
            id: 1,
            max_parallelism: u32::from(KEY_GROUPS),
            parts: vec![part],
            operator_state: Vec::new(),
            user: Vec::new(),
        };
        alluvium::save_checkpoint(&store, &job, None).expect("save");
    }
}

impl Engine for Alluvium {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.db.put(&self.family, key, value).expect("put");
    }

    fn delete(&self, key: &[u8]) {
        self.db.delete(&self.family, key).expect("delete");
    }

    fn put_all(&self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        let mut batch = self.batch.lock();
        batch.clear();
        for (key, value) in entries {
            batch.put(&self.family, key, value);
        }
        self.db.write(&batch, WriteOptions::default()).expect("write");
    }

    fn get(&self, key: &[u8], visit: Visit<'_>) {
        self.db.get_with(&self.family, key, visit).expect("get");
    }

    fn update(&self, key: &[u8], change: Change<'_>) {
        let outcome = self.db.update(&self.family, key, |old, new| {
            change(old, new);
            Update::Put
        });
        outcome.expect("update");
    }

    fn multi_get(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) {
        self.db.multi_get(&self.family, keys, visit).expect("multi_get");
    }

    fn append(&self, key: &[u8], element: &[u8]) {
        self.db.merge(&self.family, key, element).expect("merge");
    }

    fn scan(&self, scan: Scan<'_>, visit: VisitEntry<'_>) -> bool {
        let mut cursor: Cursor = match scan {
            Scan::All | Scan::AllReverse => self.db.scan(&self.family, ..),
            Scan::Prefix(prefix) => self.db.scan_prefix(&self.family, prefix),
            Scan::From(from) => self.db.scan(&self.family, from..),
        }
        .expect("scan");
        let mut visit_at = |cursor: &Cursor| {
            let (key, value) = cursor.entry().expect("stands on one");
            visit(key, value)
        };
        if let Scan::AllReverse = scan {
            cursor.to_end();
            while cursor.prev().expect("a step") && visit_at(&cursor) {}
        } else {
            while cursor.next().expect("a step") && visit_at(&cursor) {}
        }
        true
    }

    fn has_prefix(&self, prefix: &[u8]) -> Option<bool> {
        Some(self.db.has_prefix(&self.family, prefix, None).expect("a look"))
    }

    fn snapshot(&self, f: &mut dyn FnMut(Get<'_>)) -> bool {
        let snapshot = self.db.snapshot();
        f(&|key, visit| self.db.get_at_with(&self.family, &snapshot, key, visit).expect("get"));
        true
    }

    fn settle(&self) -> Option<Instant> {
        self.db.flush_all().expect("flush");
        self.db.wait_idle().expect("background work");
        Some(Instant::now())
    }

    fn compact(&self) {
        self.db.compact_range(&self.family, ..).expect("compact");
    }

    fn checkpoint<'a>(&'a self, into: &'a Path) -> Option<Finish<'a>> {
        let pending = self.db.checkpoint().expect("checkpoint");
        Some(Box::new(move || {
            let set = pending.wait().expect("the files");
            let mut before = self.tables.lock();
            let new = set.tables().filter(|table| !before.contains(&table.digest));
            let bytes_new = new.map(|table| table.len).sum();
            *before = set.tables().map(|table| table.digest).collect();
            self.save(&set, into);
            Checkpoint { bytes_new, bytes: set.bytes() }
        }))
    }

    fn close(self: Box<Self>) {
        self.db.close().expect("close");
    }
}
