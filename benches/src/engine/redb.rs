//! redb, a copy-on-write B+ tree: no log, no compression. A write is a transaction; with the log off
//! it is durable with the next one that is, and with the log on there is no level between that and a
//! sync, so it is synced.

use std::path::Path;
use std::time::Instant;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

use crate::engine::{Change, Engine, Get, Log, Scan, Setup, Visit, VisitEntry};

const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state");

/// An open database.
pub struct Redb {
    db: Database,
    log: Log,
}

type State<'a> = Table<'a, &'static [u8], &'static [u8]>;

impl Redb {
    /// Opens or creates.
    pub fn open(dir: &Path, setup: &Setup) -> Redb {
        std::fs::create_dir_all(dir).expect("a directory");
        let mut builder = Database::builder();
        builder.set_cache_size(setup.memory);
        let db = builder.create(dir.join("state.redb")).expect("open");
        let redb = Redb { db, log: setup.log };
        redb.write(|_| {});
        redb
    }

    fn write<R>(&self, f: impl FnOnce(&mut State<'_>) -> R) -> R {
        let mut transaction = self.db.begin_write().expect("a transaction");
        if self.log == Log::Off {
            transaction.set_durability(Durability::None).expect("a durability");
        }
        let result = f(&mut transaction.open_table(STATE).expect("the table"));
        transaction.commit().expect("commit");
        result
    }
}

fn visit_all<'a, K, V>(
    entries: impl Iterator<Item = Result<(K, V), redb::StorageError>>,
    visit: &mut dyn FnMut(K, V) -> bool,
) where
    K: 'a,
    V: 'a,
{
    for entry in entries {
        let (key, value) = entry.expect("an entry");
        if !visit(key, value) {
            return;
        }
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.write(|state| drop(state.insert(key, value).expect("put")));
    }

    fn delete(&self, key: &[u8]) {
        self.write(|state| drop(state.remove(key).expect("delete")));
    }

    fn put_all(&self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
        self.write(|state| {
            for (key, value) in entries {
                state.insert(key, value).expect("put");
            }
        });
    }

    fn get(&self, key: &[u8], visit: Visit<'_>) {
        let transaction = self.db.begin_read().expect("a transaction");
        let state = transaction.open_table(STATE).expect("the table");
        visit(state.get(key).expect("get").as_ref().map(|value| value.value()));
    }

    fn update(&self, key: &[u8], change: Change<'_>) {
        self.write(|state| {
            let mut new = Vec::with_capacity(64);
            change(state.get(key).expect("get").as_ref().map(|value| value.value()), &mut new);
            state.insert(key, &*new).expect("put");
        });
    }

    fn scan(&self, scan: Scan<'_>, visit: VisitEntry<'_>) -> bool {
        let transaction = self.db.begin_read().expect("a transaction");
        let state = transaction.open_table(STATE).expect("the table");
        let (from, prefix) = match scan {
            Scan::All | Scan::AllReverse => (&[][..], &[][..]),
            Scan::Prefix(prefix) => (prefix, prefix),
            Scan::From(from) => (from, &[][..]),
        };
        let entries = state.range(from..).expect("scan");
        let mut each = |key: redb::AccessGuard<'_, &[u8]>, value: redb::AccessGuard<'_, &[u8]>| {
            key.value().starts_with(prefix) && visit(key.value(), value.value())
        };
        match scan {
            Scan::AllReverse => visit_all(entries.rev(), &mut each),
            _ => visit_all(entries, &mut each),
        }
        true
    }

    fn snapshot(&self, f: &mut dyn FnMut(Get<'_>)) -> bool {
        let transaction = self.db.begin_read().expect("a transaction");
        let state = transaction.open_table(STATE).expect("the table");
        f(&|key, visit| visit(state.get(key).expect("get").as_ref().map(|value| value.value())));
        true
    }

    fn settle(&self) -> Option<Instant> {
        let transaction = self.db.begin_write().expect("a transaction");
        transaction.commit().expect("commit");
        Some(Instant::now())
    }

    fn close(self: Box<Self>) {
        self.settle();
    }
}
