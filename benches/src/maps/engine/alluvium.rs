//! alluvium through its public interface: log off, one family, everything in one memtable until it
//! is flushed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use alluvium::{ColumnFamily, ColumnFamilyOptions, Db, Env, MemoryBudget, Options, Reader, Update};

use crate::maps::engine::Engine;

/// The largest memtable there is: the workloads must not cause a flush.
const MEMTABLE_BYTES: usize = 1 << 30;
/// More than anything here needs.
const BUDGET_BYTES: usize = 4 << 30;

/// A database in a directory of its own, which goes with it.
pub struct Alluvium {
    db: Option<Db>,
    family: ColumnFamily,
    dir: PathBuf,
}

impl Alluvium {
    /// A new, empty database in the directory for temporary files.
    pub fn new() -> Alluvium {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("alluvium-bench-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let options = Options { log: false, ..Options::default() };
        let db = Db::open(&dir, options, Env::new(MemoryBudget::new(BUDGET_BYTES)));
        let db = db.expect("a new database opens");
        let options = ColumnFamilyOptions {
            memtable_bytes_max: MEMTABLE_BYTES,
            ..ColumnFamilyOptions::default()
        };
        let family = db.column_family("bench", options).expect("a new family");
        Alluvium { db: Some(db), family, dir }
    }

    #[inline]
    fn db(&self) -> &Db {
        self.db.as_ref().expect("open until dropped")
    }
}

impl Drop for Alluvium {
    fn drop(&mut self) {
        self.db = None;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Engine for Alluvium {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) {
        self.overwrite(key, value);
    }

    #[inline]
    fn overwrite(&mut self, key: &[u8], value: &[u8]) {
        self.db().put(&self.family, key, value).expect("put");
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        self.db().get_with(&self.family, key, f).expect("get")
    }

    #[inline]
    fn update(&mut self, key: &[u8], mut f: impl FnMut(Option<&[u8]>, &mut Vec<u8>)) {
        let outcome = self.db().update(&self.family, key, |old, new| {
            f(old, new);
            Update::Put
        });
        outcome.expect("update");
    }

    fn scan(&mut self, ascending: bool, mut visit: impl FnMut(&[u8], &[u8])) -> bool {
        let mut scan = self.db().scan(&self.family, ..).expect("scan");
        if !ascending {
            scan.to_end();
        }
        while if ascending { scan.next() } else { scan.prev() }.expect("a step") {
            visit(scan.key(), scan.value());
        }
        true
    }

    #[inline]
    fn scan_prefix(&mut self, prefix: &[u8], mut visit: impl FnMut(&[u8], &[u8])) -> bool {
        let mut scan = self.db().scan_prefix(&self.family, prefix).expect("scan");
        while scan.next().expect("a step") {
            visit(scan.key(), scan.value());
        }
        true
    }

    fn in_memtable(&self) -> bool {
        self.db().stats().flushes == 0
    }

    fn settle(&mut self) {
        self.db().flush_all().expect("flush");
        self.db().compact_range(&self.family, ..).expect("compact");
        self.db().wait_idle().expect("background work");
    }
}

/// The same with point reads through a [`Reader`].
pub struct WithReader {
    reader: Reader,
    inner: Alluvium,
}

impl WithReader {
    /// A new, empty database.
    pub fn new() -> WithReader {
        let inner = Alluvium::new();
        let reader = inner.db().reader(&inner.family).expect("a reader");
        WithReader { reader, inner }
    }
}

impl Engine for WithReader {
    const POINT_READS_ONLY: bool = true;

    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) {
        self.inner.insert(key, value);
    }

    #[inline]
    fn overwrite(&mut self, key: &[u8], value: &[u8]) {
        self.inner.overwrite(key, value);
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        self.reader.get_with(key, f).expect("get")
    }

    #[inline]
    fn update(&mut self, key: &[u8], f: impl FnMut(Option<&[u8]>, &mut Vec<u8>)) {
        self.inner.update(key, f);
    }

    fn scan(&mut self, ascending: bool, visit: impl FnMut(&[u8], &[u8])) -> bool {
        self.inner.scan(ascending, visit)
    }

    #[inline]
    fn scan_prefix(&mut self, prefix: &[u8], visit: impl FnMut(&[u8], &[u8])) -> bool {
        self.inner.scan_prefix(prefix, visit)
    }

    fn in_memtable(&self) -> bool {
        self.inner.in_memtable()
    }

    fn settle(&mut self) {
        self.reader.release();
        self.inner.settle();
    }
}
