//! The live handle of a table file: opened when it is first asked for, removed when its last owner
//! lets go after an edit has taken it out.

use std::path::{Path, PathBuf};

use crate::base::canary::Canary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::FileNumber;
use crate::base::sync::{Arc, AtomicBool, Mutex, OnceLock, Ordering, RwLock, Sender};
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::fs::Fs;
use crate::memtable::MemTable;
use crate::table::{Block, Table, TableMeta};
use crate::version::levels::Described;
use crate::version::meta::FileMeta;
use crate::version::names::FileName;

/// What a table file needs in order to open itself, and where it reports its end.
pub struct TableOpener {
    /// The file system.
    pub fs: Arc<dyn Fs>,
    /// The database's directory.
    pub dir: PathBuf,
    /// The cache of blocks.
    pub cache: Arc<BlockCache<Block>>,
    /// Pays for what a table keeps in memory.
    pub budget: MemoryBudget,
    /// Longest value a table may hold.
    pub value_bytes_max: usize,
    /// Gets the number of each obsolete file when its last owner has let go.
    pub sweeper: Sender<FileNumber>,
}

impl TableOpener {
    /// Where the table with this number is.
    pub fn path(&self, number: FileNumber) -> PathBuf {
        self.dir.join(FileName::Table(number).to_string())
    }

    /// Opens a table and checks that it is the described one.
    fn open(&self, meta: &FileMeta) -> Result<Arc<Table>> {
        let path = self.path(meta.number);
        let file = self.fs.open(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                Error::because(ErrorKind::Corruption, "a table is missing", &e).at(0)
            }
            _ => e,
        })?;
        if file.len() != meta.len {
            let text = format!("a table has {} bytes, not {}", file.len(), meta.len);
            return Err(Error::corruption(text).at(file.len().min(meta.len)).in_file(&path));
        }
        let (cache, budget) = (&self.cache, &self.budget);
        let table = Table::open(file, &path, meta.id, cache, budget, self.value_bytes_max)?;
        if !describes(meta, &table) {
            let text = "a table is not what the manifest says";
            return Err(Error::corruption(text).at(0).in_file(&path));
        }
        Ok(table)
    }
}

/// Reads rely on these: files are skipped by them.
fn describes(meta: &FileMeta, table: &Table) -> bool {
    let properties = table.properties();
    let bounds = match meta.clipped {
        true => table.bounds().covers(&meta.bounds),
        false => *table.bounds() == meta.bounds,
    };
    bounds
        && properties.range_deletes == meta.range_deletes
        && properties.seqno_min == meta.seqno_min
        && properties.seqno_max == meta.seqno_max
}

impl FileMeta {
    /// The description of a table that was just written as file `number`.
    ///
    /// # Panics
    /// If the table is empty: such a file is thrown away, not installed.
    pub fn from_table(table: &TableMeta, number: FileNumber) -> FileMeta {
        let properties = &table.properties;
        assert!(!table.bounds.is_empty(), "an empty table is not installed");
        FileMeta {
            number,
            id: table.id,
            len: table.len,
            digest: table.digest,
            checksum: table.checksum,
            bounds: table.bounds.clone(),
            clipped: false,
            seqno_min: properties.seqno_min,
            seqno_max: properties.seqno_max,
            entries: properties.entries,
            deletes: properties.deletes,
            range_deletes: properties.range_deletes,
            timestamps: properties.ts_min.zip(properties.ts_max),
            timestamp_extractor: properties.timestamp_extractor.clone(),
        }
    }
}

/// A live table file. Whoever holds it can read it; the file is removed after the last one is gone,
/// if an edit has made it obsolete.
pub struct TableFile {
    meta: Arc<FileMeta>,
    opener: Arc<TableOpener>,
    table: OnceLock<Arc<Table>>,
    /// Held while the table is being opened, so that it is opened once.
    opening: Mutex<()>,
    obsolete: AtomicBool,
    /// The memtable that was flushed into the file, as long as it is [kept](crate::version::kept).
    memtable: RwLock<Option<Arc<MemTable>>>,
    /// Is there one? For the many that have none.
    has_memtable: AtomicBool,
}

impl TableFile {
    /// The handle of a file that is there; it is not opened yet.
    pub fn new(meta: Arc<FileMeta>, opener: Arc<TableOpener>) -> TableFile {
        TableFile {
            meta,
            opener,
            table: OnceLock::new(),
            opening: Mutex::new(()),
            obsolete: AtomicBool::new(false),
            memtable: RwLock::new(None),
            has_memtable: AtomicBool::new(false),
        }
    }

    /// The file's description, shared.
    #[cfg(test)]
    pub fn shared_meta(&self) -> &Arc<FileMeta> {
        &self.meta
    }

    /// The open table. The first call opens it: a few reads; later ones cost one load.
    ///
    /// # Errors
    /// `Corruption` if the file is missing or not the described one; `Io`. The next call tries again.
    #[inline]
    pub fn table(&self) -> Result<&Arc<Table>> {
        match self.table.get() {
            Some(table) => Ok(table),
            None => self.open(),
        }
    }

    #[cold]
    fn open(&self) -> Result<&Arc<Table>> {
        let _alone = self.opening.lock();
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = self.opener.open(&self.meta)?;
        Ok(self.table.get_or_init(|| table))
    }

    /// May the file say anything of a key with this hash? `false` if it is open, its filter denies the key, and
    /// it has no range tombstones and no memtable, which is asked as fast. Opens nothing.
    #[inline]
    pub fn may_concern(&self, hash: u64) -> bool {
        self.meta.range_deletes > 0
            || self.has_memtable.load(Ordering::Relaxed)
            || self.table.get().is_none_or(|table| table.may_contain(hash))
    }

    /// The memtable that was flushed into the file, if it is still in memory. One load if not, else a
    /// read lock and a reference count.
    #[inline]
    pub fn memtable(&self) -> Option<Arc<MemTable>> {
        if !self.has_memtable.load(Ordering::Acquire) {
            return None;
        }
        self.memtable.read().clone()
    }

    pub(super) fn keep(&self, memtable: Arc<MemTable>) {
        *self.memtable.write() = Some(memtable);
        self.has_memtable.store(true, Ordering::Release);
    }

    pub(super) fn let_go(&self) {
        self.has_memtable.store(false, Ordering::Release);
        let memtable = self.memtable.write().take();
        drop(memtable); // not under the lock: it frees megabytes
    }

    /// An edit has taken the file out: when the last owner lets go, its number goes to the sweeper.
    pub fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
        if Canary::TableGoesUnderReader.is_planted() {
            let _ = self.opener.sweeper.send(self.meta.number);
        }
    }
}

impl Described for TableFile {
    #[inline]
    fn meta(&self) -> &FileMeta {
        &self.meta
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        if *self.obsolete.get_mut() {
            // The file is closed before its name is given up.
            drop(self.table.take());
            // Nobody listens any more when the database is gone: the next open removes the file.
            let _ = self.opener.sweeper.send(self.meta.number);
        }
    }
}

impl std::fmt::Debug for TableFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TableFile({})", self.meta.number)
    }
}

/// Where a file of ours is.
pub(super) fn path_of(dir: &Path, name: FileName) -> PathBuf {
    dir.join(name.to_string())
}
