//! The database: one writer at a time, any number of readers, work in the background.
//!
//! The question this folder answers: *how do the structures below become a database?* Reading order:
//! this page, `core.rs` (the shared fields and the locks), `super_version.rs`, `commit.rs` (a write),
//! `get.rs` and `scan.rs` (a read), `background.rs` (flush and compaction), `file_set.rs`
//! (a checkpoint), `open.rs` and `import.rs` (recovery, restore).

pub(crate) mod background;
pub(crate) mod census;
pub(crate) mod column_family;
mod commit;
mod core;
pub(crate) mod file_set;
mod get;
mod holders;
pub(crate) mod import;
mod jobs;
mod maintain;
mod open;
pub(crate) mod options;
pub(crate) mod salvage;
pub(crate) mod scan;
pub(crate) mod snapshot;
mod stall;
pub(crate) mod stats;
mod super_version;
pub(crate) mod update;
mod wal;
mod write_queue;
mod writer;

use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::key::{KeyRange, SeqNo, ValueKind};
use crate::base::sync::Arc;
use crate::batch::WriteBatch;
use crate::db::background::Threads;
use crate::db::column_family::ColumnFamily;
use crate::db::commit::{AtOnce, Payload};
use crate::db::core::Core;
use crate::db::file_set::PendingCheckpoint;
use crate::db::get::{View, check_key, lookup, lookup_many, lookup_newest, lookup_older, operands};
use crate::db::options::{ColumnFamilyOptions, Env, Options, WriteOptions};
use crate::db::scan::{Scan, has_prefix, key_range};
use crate::db::snapshot::Snapshot;
use crate::db::stats::Stats;
use crate::db::update::Update;
use crate::memtable::ValueCopy;

pub use crate::db::get::Reader;
pub use crate::db::writer::Writer;

/// An open database: ordered keys in column families, with snapshots, merges, range deletes and
/// checkpoints.
///
/// All methods take `&self` and may be called from any thread; writers form one line. Reads never
/// wait for writers, flushes or compactions. Values are *lent* to closures, not copied out; the
/// engine may reuse their memory as soon as the closure returns. A closure must not write to the
/// same database.
///
/// Dropping it stops the background work and lets go of the directory, and promises nothing: with
/// the log on, the next open replays what reached it; with the log off, the directory is refused.
/// Use [`close`](Db::close).
///
/// ```
/// use alluvium::{ColumnFamilyOptions, Db, Env, MemoryBudget, Options};
/// # let fs = std::sync::Arc::new(alluvium::MemFs::new());
/// # let env = Env::new(MemoryBudget::new(64 << 20)).with_fs(fs);
/// # let dir = std::path::Path::new("state");
/// let db = Db::open(dir, Options::default(), env)?;
/// let words = db.column_family("words", ColumnFamilyOptions::default())?;
/// db.put(&words, b"sediment", b"1")?;
/// assert_eq!(db.get(&words, b"sediment")?.as_deref(), Some(&b"1"[..]));
/// db.close()?;
/// # Ok::<(), alluvium::Error>(())
/// ```
pub struct Db {
    pub(in crate::db) core: Arc<Core>,
    threads: Threads,
}

impl Db {
    /// Opens the database in `dir`, or creates it.
    ///
    /// Reads the manifest and, if the log is on, replays it; opens no table. Costs grow with the
    /// number of files and the length of the log, not with the state.
    ///
    /// # Errors
    /// `Busy`: another handle has the directory. `NotFound`: there is no database, and none is to be
    /// created. `Corruption`: manifest or log are damaged below what was promised durable, or tables
    /// are missing or short; the text lists them. `Halted`: the log is off and the database was not
    /// closed; restore a checkpoint. `Incompatible`: the log was on and is to be off, or the reverse,
    /// without a clean close in between. `Unsupported`: a newer format. A refused open changes
    /// nothing.
    pub fn open(dir: &Path, options: Options, env: Env) -> Result<Db> {
        open::open(dir, options, env).map(Db::start)
    }

    pub(in crate::db) fn start(core: Arc<Core>) -> Db {
        let threads = Threads::start(&core);
        Db { core, threads }
    }

    /// The family of this name, created if it does not exist.
    ///
    /// Opening an existing family replaces its options for new memtables and tables. Creating one
    /// writes and syncs the manifest.
    ///
    /// # Errors
    /// `InvalidArgument`: an empty or over-long name, or options that cannot work. `Incompatible`:
    /// the family was written with another merge operator. `Unsupported`: a codec that this build
    /// does not have.
    pub fn column_family(&self, name: &str, options: ColumnFamilyOptions) -> Result<ColumnFamily> {
        self.core.column_family(name, options)
    }

    /// Names of all families, in the order of their creation.
    pub fn column_families(&self) -> Vec<String> {
        self.core.all_families().iter().map(|family| family.name.clone()).collect()
    }

    /// Drops a family and everything in it. Handles on it get `NotFound` from then on; readers that
    /// began before go on. Waits for pending checkpoints that need it.
    ///
    /// # Errors
    /// As a write; the drop has happened or has not.
    pub fn drop_column_family(&self, family: &ColumnFamily) -> Result<()> {
        self.core.check(family)?;
        self.core.drop_family(family)
    }

    /// Gives `key` a value.
    ///
    /// # Errors
    /// `InvalidArgument`: an empty key, or a key or value over the limits. `Busy`: writers stalled for
    /// too long; the text says on what. `NoSpace`: not committed. `CommitUnknown`, `Halted`: see
    /// [`ErrorKind`](crate::ErrorKind). The same for all writes.
    #[inline]
    pub fn put(&self, family: &ColumnFamily, key: &[u8], value: &[u8]) -> Result<()> {
        self.core.write_one(family, ValueKind::Put, key, value)
    }

    /// Deletes `key`; no error if it has no value.
    #[inline]
    pub fn delete(&self, family: &ColumnFamily, key: &[u8]) -> Result<()> {
        self.core.write_one(family, ValueKind::Delete, key, &[])
    }

    /// Adds an operand for the family's merge operator to `key`. Reads nothing.
    ///
    /// # Errors
    /// `InvalidArgument` besides, if the family has no merge operator.
    #[inline]
    pub fn merge(&self, family: &ColumnFamily, key: &[u8], operand: &[u8]) -> Result<()> {
        self.core.write_one(family, ValueKind::Merge, key, operand)
    }

    /// Deletes all keys from `start` up to, but without, `end`, for the cost of one write. Meant for
    /// few, wide deletes: every read of the family asks the range tombstones. An empty range is no
    /// error and does nothing.
    pub fn delete_range(&self, family: &ColumnFamily, start: &[u8], end: &[u8]) -> Result<()> {
        if start >= end {
            return self.core.check(family);
        }
        self.core.write_one(family, ValueKind::RangeDelete, start, end)
    }

    /// Applies all operations of a batch, over any families, or none of them. Returns the sequence
    /// number of the last one.
    pub fn write(&self, batch: &WriteBatch, options: WriteOptions) -> Result<SeqNo> {
        self.core.check_batch(batch)?;
        self.core.commit(Payload::Batch(batch), options.sync || self.core.options.sync)
    }

    /// Reads `key` and writes what `f` makes of it, as one atomic step: `f` gets the old value and an
    /// empty buffer, fills the buffer and says [`Update::Put`], or deletes, or keeps.
    ///
    /// No lock is held while `f` runs; it is called again when another writer was faster. It must not
    /// write to this database.
    ///
    /// # Errors
    /// Those of reads and of writes.
    pub fn update(
        &self,
        family: &ColumnFamily,
        key: &[u8],
        f: impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Result<()> {
        self.core.update_one(family, key, f)
    }

    /// Makes every write so far durable, if the log is on. Costs one sync.
    ///
    /// # Errors
    /// `InvalidArgument` if the log is off; `CommitUnknown` if the sync fails, and writes have then
    /// stopped.
    pub fn sync_wal(&self) -> Result<()> {
        self.core.sync_wal()
    }

    /// Lends the value of `key`, or `None`, to `f`, without a copy.
    ///
    /// # Errors
    /// `Io` or `Corruption` from a table; `Incompatible` for merge operands without an operator.
    #[inline]
    pub fn get_with<R>(
        &self,
        family: &ColumnFamily,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        self.read(family, None, key, f)
    }

    /// [`get_with`](Db::get_with), as of a snapshot.
    ///
    /// # Panics
    /// If the snapshot is of another database.
    pub fn get_at_with<R>(
        &self,
        family: &ColumnFamily,
        snapshot: &Snapshot,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        self.read(family, Some(snapshot), key, f)
    }

    /// A copy of the value of `key`.
    pub fn get(&self, family: &ColumnFamily, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_with(family, key, |value| value.map(<[u8]>::to_vec))
    }

    /// A copy of the value of `key` as of a snapshot.
    pub fn get_at(
        &self,
        family: &ColumnFamily,
        snapshot: &Snapshot,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        self.get_at_with(family, snapshot, key, |value| value.map(<[u8]>::to_vec))
    }

    /// Lends the value of each key, in the order of `keys`, with the key's index, to `f`. All are read
    /// as of the same moment.
    pub fn multi_get(
        &self,
        family: &ColumnFamily,
        keys: &[&[u8]],
        f: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        self.core.check(family)?;
        let view = View::new(&self.core, &family.0, None);
        let options = family.0.options();
        lookup_many(&view, options.merge_operator.as_ref(), keys, f)
    }

    /// Lends the merge operands of `key`, oldest first, after the value that they apply to, if any:
    /// a long list is read without being merged into one value.
    pub fn get_operands<R>(
        &self,
        family: &ColumnFamily,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>, &[&[u8]]) -> R,
    ) -> Result<R> {
        self.core.check(family)?;
        operands(&View::new(&self.core, &family.0, None), key, f)
    }

    /// A reader of one family: repeated reads for the price of a check.
    ///
    /// # Errors
    /// `InvalidArgument` or `NotFound` for the handle of another database, or a dropped family.
    pub fn reader(&self, family: &ColumnFamily) -> Result<Reader> {
        self.core.check(family)?;
        Ok(Reader::new(Arc::clone(&self.core), family))
    }

    /// A writer of one family.
    ///
    /// # Errors
    /// `InvalidArgument` or `NotFound` for the handle of another database, or a dropped family.
    pub fn writer(&self, family: &ColumnFamily) -> Result<Writer> {
        self.core.check(family)?;
        Ok(Writer::new(Arc::clone(&self.core), family))
    }

    /// A cursor over the keys of a range, such as `&b"a"[..]..b"c"` or `..`, as of now.
    pub fn scan<'k>(
        &self,
        family: &ColumnFamily,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<Scan> {
        self.scan_range(family, key_range(&range), None)
    }

    /// A cursor over the keys that begin with `prefix`, as of now.
    pub fn scan_prefix(&self, family: &ColumnFamily, prefix: &[u8]) -> Result<Scan> {
        self.scan_range(family, KeyRange::prefix(prefix), None)
    }

    /// Does any key begin with `prefix`, now or as of a snapshot? The same as a scan's first step, but
    /// opens no cursor if the memtable knows of such a key.
    ///
    /// # Errors
    /// As [`scan`](Db::scan), and as a scan's first step.
    ///
    /// # Panics
    /// If the snapshot is of another database.
    pub fn has_prefix(
        &self,
        family: &ColumnFamily,
        prefix: &[u8],
        snapshot: Option<&Snapshot>,
    ) -> Result<bool> {
        self.core.check(family)?;
        has_prefix(&self.core, &family.0, prefix, snapshot)
    }

    /// A cursor over the keys of a range, as of now or as of a snapshot.
    ///
    /// # Panics
    /// If the snapshot is of another database.
    pub fn scan_range(
        &self,
        family: &ColumnFamily,
        range: KeyRange,
        snapshot: Option<&Snapshot>,
    ) -> Result<Scan> {
        self.core.check(family)?;
        Scan::new(Arc::clone(&self.core), Arc::clone(&family.0), range, snapshot)
    }

    /// Holders the state of the whole database as of now.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshots.take(|| self.core.pin(), self.core.instance)
    }

    /// Begins a checkpoint: fixes the state of the whole database at this moment, without any I/O,
    /// and returns at once. The files are complete when the background has flushed what was in
    /// memory: [`PendingCheckpoint::wait`].
    ///
    /// Costs a few pointers a family, whatever the size of the state.
    pub fn checkpoint(&self) -> Result<PendingCheckpoint> {
        self.core.checkpoint()
    }

    /// Writes the memtable of a family to a table, and waits for it.
    pub fn flush(&self, family: &ColumnFamily) -> Result<()> {
        self.core.check(family)?;
        self.core.flush(std::slice::from_ref(&family.0))
    }

    /// Writes all memtables to tables, and waits for it.
    pub fn flush_all(&self) -> Result<()> {
        self.core.flush(&self.core.all_families())
    }

    /// Compacts all tables of a family that overlap the range into the deepest level in use, and
    /// waits for it. What no snapshot needs is gone from disk afterwards.
    pub fn compact_range<'k>(
        &self,
        family: &ColumnFamily,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<()> {
        self.core.check(family)?;
        self.core.compact_range(&family.0, &key_range(&range))
    }

    /// Removes what has expired from a family's tables, and waits for it: tables of which everything
    /// has expired go unread, those of which about a tenth has are rewritten. The background does the
    /// same whenever it looks for work, such as after a flush or a [`wake`](Db::wake); but it does not
    /// look at the clock by itself. What a snapshot can see stays.
    ///
    /// Does nothing unless the family has a [`TimestampExtractor`](crate::TimestampExtractor), and a
    /// filter that says [what has expired](crate::CompactionFilterFactory::expired_until).
    pub fn drop_expired(&self, family: &ColumnFamily) -> Result<()> {
        self.core.check(family)?;
        self.core.drop_expired(&family.0)
    }

    /// Has background work look for something to do, as a flush does, and returns at once. For what
    /// comes due without a write: values that expire, where a caller's clock says so.
    pub fn wake(&self) {
        self.core.signals.work();
    }

    /// Stops compactions, or lets them go on: a running one is given up at its next step, and begins
    /// anew later. Flushes are not concerned. Level 0 grows meanwhile, up to where writers wait.
    pub fn pause_compactions(&self, pause: bool) {
        self.core.pause_compactions(pause);
    }

    /// Waits until no flush or compaction is wanted any more, and the tables that they replaced are
    /// removed, unless a reader, a snapshot of files or a scan still holds them.
    pub fn wait_idle(&self) -> Result<()> {
        self.core.wait_idle()
    }

    /// With [`Background::Inline`](crate::Background::Inline): one step of one background job, chosen
    /// by `choice` among those that could run. `false` if there is nothing to do. Does nothing when
    /// threads do the work.
    pub fn step(&self, choice: u64) -> Result<bool> {
        self.core.step(choice)
    }

    /// About how many bytes of tables the keys of a range take.
    pub fn approximate_size<'k>(
        &self,
        family: &ColumnFamily,
        range: impl RangeBounds<&'k [u8]>,
    ) -> Result<u64> {
        self.core.check(family)?;
        family.0.cell.load().version.approximate_size(&key_range(&range))
    }

    /// Counters and sizes. Costs a look at each family.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// Reads every byte of every table and checks everything that can be checked.
    ///
    /// # Errors
    /// The first `Corruption` found.
    pub fn verify(&self) -> Result<()> {
        self.core.verify()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.core.dir
    }

    /// The environment it was opened in.
    pub fn env(&self) -> &Env {
        &self.core.env
    }

    /// Ends everything in order: flushes all families as one edit with a mark that the directory is
    /// complete, and lets go of it. With the log off this is the only way to open it again.
    ///
    /// `checkpoint_id` of a checkpoint that the state equals can be recorded with
    /// [`close_at`](Db::close_at).
    ///
    /// # Errors
    /// Those of a flush; the directory is then as after a crash.
    pub fn close(self) -> Result<()> {
        self.close_at(0)
    }

    /// [`close`](Db::close), recording the id of the checkpoint that the state equals.
    pub fn close_at(mut self, checkpoint_id: u64) -> Result<()> {
        self.threads.stop(&self.core);
        self.core.close(checkpoint_id)
    }

    #[inline]
    fn read<R>(
        &self,
        family: &ColumnFamily,
        snapshot: Option<&Snapshot>,
        key: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        self.core.check(family)?;
        let operator = || family.0.options().merge_operator.clone();
        if let Some(snapshot) = snapshot {
            let pin = self.core.pin_of(snapshot);
            return lookup(&family.0.cell.load(), pin, operator, key, f);
        }
        let older_than = match self.core.read_at_once(family.id(), key, &mut ValueCopy::new()) {
            Some(AtOnce::Is(value)) => return Ok(f(value)),
            Some(AtOnce::Older(number)) => Some(number),
            None => None,
        };
        let super_version = family.0.cell.load();
        // Loaded after the bundle was taken, as in `View::new`.
        let at = &mut self.core.visible();
        // While that memtable is the current one, nothing that is older than it has changed.
        if older_than == Some(super_version.mem.number()) {
            return lookup_older(&super_version, operator, key, *at, f);
        }
        lookup_newest(&self.core, &super_version, operator, key, at, f)
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.threads.stop(&self.core);
        self.core.let_go();
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({})", self.core.dir.display())
    }
}

impl Core {
    /// One operation of the caller's on one family.
    #[inline]
    pub(in crate::db) fn write_one(
        &self,
        family: &ColumnFamily,
        kind: ValueKind,
        key: &[u8],
        value: &[u8],
    ) -> Result<()> {
        self.check(family)?;
        match kind {
            // The empty key stands before all others: a range may begin there.
            ValueKind::RangeDelete if key.is_empty() => {}
            _ => check_key(key)?,
        }
        match kind {
            ValueKind::RangeDelete => check_key(value)?,
            ValueKind::Merge => self.check_operator(&family.0)?,
            _ => {}
        }
        self.check_value(value)?;
        if kind != ValueKind::RangeDelete
            && !self.options.log
            && self.commit_at_once(family.id(), kind, key, value).is_some()
        {
            return Ok(());
        }
        let payload = Payload::One { family: family.id(), kind, key, value };
        self.commit(payload, self.options.sync).map(drop)
    }

    /// One read-modify-write of the caller's.
    #[inline]
    pub(in crate::db) fn update_one(
        &self,
        family: &ColumnFamily,
        key: &[u8],
        f: impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Result<()> {
        self.check(family)?;
        check_key(key)?;
        self.update(family, key, self.options.sync, f).map(drop)
    }

    #[inline]
    pub(in crate::db) fn check_value(&self, value: &[u8]) -> Result<()> {
        match value.len() <= self.options.value_bytes_max {
            true => Ok(()),
            false => Err(Error::invalid(format!("a value of {} bytes", value.len()))),
        }
    }

    fn check_operator(&self, family: &column_family::Family) -> Result<()> {
        match family.options().merge_operator.is_some() {
            true => Ok(()),
            false => Err(Error::invalid(format!("family {:?} has no merge operator", family.name))),
        }
    }

    fn check_batch(&self, batch: &WriteBatch) -> Result<()> {
        batch.check(self.options.value_bytes_max)?;
        let mut merging = None;
        for op in batch.reader().ops() {
            let op = op?;
            if op.kind == ValueKind::Merge && merging != Some(op.family) {
                let family = self.family(op.family);
                let missing = || Error::not_found(format!("column family {}", op.family));
                let family = family.ok_or_else(missing)?;
                self.check_operator(&family)?;
                merging = Some(op.family);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
