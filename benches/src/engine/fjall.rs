//! fjall 3. Its journal cannot be off: with the log off it is kept in a buffer of the process
//! (`manual_journal_persist`), which is as near as one gets.

use std::path::Path;
use std::time::{Duration, Instant};

use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Guard, Iter, Keyspace, KeyspaceCreateOptions, PersistMode, Readable,
};

use crate::engine::{Engine, Get, Log, MEMTABLE_BYTES, Scan, Setup, Visit, VisitEntry};

/// An open database.
pub struct Fjall {
    db: Database,
    state: Keyspace,
    log: Log,
}

impl Fjall {
    /// Opens or creates.
    pub fn open(dir: &Path, setup: &Setup) -> Fjall {
        let half = setup.memory as u64 / 2;
        let db = Database::builder(dir)
            .cache_size(half)
            .manual_journal_persist(setup.log == Log::Off)
            .worker_threads(2)
            .open()
            .expect("open");
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(half.min(MEMTABLE_BYTES as u64))
                .manual_journal_persist(setup.log == Log::Off)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        };
        let state = db.keyspace("state", options).expect("a keyspace");
        Fjall { db, state, log: setup.log }
    }

    fn persist(&self) {
        if self.log == Log::Synced {
            self.db.persist(PersistMode::SyncData).expect("a sync");
        }
    }
}

fn visit_all(entries: impl Iterator<Item = Guard>, visit: VisitEntry<'_>) {
    for entry in entries {
        let (key, value) = entry.into_inner().expect("an entry");
        if !visit(&key, &value) {
            return;
        }
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.state.insert(key, value).expect("put");
        self.persist();
    }

    fn delete(&self, key: &[u8]) {
        self.state.remove(key).expect("delete");
        self.persist();
    }

    fn put_all(&self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        let mut batch = self.db.batch();
        for (key, value) in entries {
            batch.insert(&self.state, key, value);
        }
        batch.commit().expect("write");
        self.persist();
    }

    fn get(&self, key: &[u8], visit: Visit<'_>) {
        visit(self.state.get(key).expect("get").as_deref());
    }

    fn scan(&self, scan: Scan<'_>, visit: VisitEntry<'_>) -> bool {
        let entries: Iter = match scan {
            Scan::All | Scan::AllReverse => self.state.iter(),
            Scan::Prefix(prefix) => self.state.prefix(prefix),
            Scan::From(from) => self.state.range(from..),
        };
        match scan {
            Scan::AllReverse => visit_all(entries.rev(), visit),
            _ => visit_all(entries, visit),
        }
        true
    }

    fn snapshot(&self, f: &mut dyn FnMut(Get<'_>)) -> bool {
        let snapshot = self.db.snapshot();
        f(&|key, visit| visit(snapshot.get(&self.state, key).expect("get").as_deref()));
        true
    }

    fn settle(&self) -> Option<Instant> {
        self.state.rotate_memtable_and_wait().expect("flush");
        while self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
        Some(Instant::now())
    }

    fn compact(&self) {
        self.state.major_compact().expect("compact");
    }

    fn close(self: Box<Self>) {
        self.db.persist(PersistMode::SyncAll).expect("a sync");
    }
}
