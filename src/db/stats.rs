//! What happened: counters, and events for a listener.

use crate::base::error::Error;
use crate::base::key::SeqNo;
use crate::base::limits::LEVELS;
use crate::base::sync::{AtomicU64, Ordering};

/// Something that happened in a database, for a [`Listener`](crate::Listener).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Memtables of a family became a level-0 table.
    Flushed {
        /// Name of the family.
        family: String,
        /// Memtables that were written.
        memtables: usize,
        /// Bytes of the new tables.
        bytes: u64,
    },
    /// Tables of a family were merged, or moved down without being read.
    Compacted {
        /// Name of the family.
        family: String,
        /// Why it was picked.
        reason: String,
        /// Level the inputs came from.
        level: usize,
        /// Level the outputs went to.
        output_level: usize,
        /// Bytes of the input tables.
        bytes_read: u64,
        /// Bytes written; 0 for a move.
        bytes_written: u64,
    },
    /// Tables of a family were removed unread: all their values had expired.
    Dropped {
        /// Name of the family.
        family: String,
        /// Tables removed.
        tables: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// Writers wait.
    Stalled {
        /// For what, with the numbers.
        reason: String,
    },
    /// Writers go on.
    Resumed,
    /// A background job failed and will be tried again.
    JobFailed(Error),
    /// Writes have stopped for good.
    Halted(Error),
    /// The log was read when the database was opened.
    Recovered {
        /// Batches that were replayed.
        batches: u64,
        /// The last sequence number found.
        seqno: SeqNo,
        /// The log had been closed in order, and only the flush at the end of the close was missing.
        closed: bool,
        /// What was cut off behind the end of the log, if anything: what a crash leaves.
        torn: Option<Error>,
    },
    /// A checkpoint's file set is complete.
    Captured {
        /// The checkpoint is the database at this sequence number.
        seqno: SeqNo,
        /// Files in the set.
        files: usize,
    },
}

/// Counters of one database since it was opened, and its state now. A plain copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Operations committed.
    pub operations: u64,
    /// Groups committed (batches that shared a log write count once).
    pub groups: u64,
    /// Bytes appended to the log.
    pub log_bytes: u64,
    /// Syncs of the log.
    pub log_syncs: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes written by flushes.
    pub flush_bytes: u64,
    /// Compactions run, without moves.
    pub compactions: u64,
    /// Bytes read by compactions.
    pub compaction_bytes_read: u64,
    /// Bytes written by compactions.
    pub compaction_bytes_written: u64,
    /// Tables moved down without being read.
    pub moves: u64,
    /// Tables removed unread because all their values had expired.
    pub drops: u64,
    /// Their bytes.
    pub bytes_dropped: u64,
    /// Times a writer had to wait.
    pub stalls: u64,
    /// Searches by cursors: each looks into all sources of its family. Of cursors that are gone.
    pub seeks: u64,
    /// Keys that cursors came by, with a value or without. Of cursors that are gone.
    pub keys_visited: u64,
    /// The last sequence number that readers see.
    pub visible_seqno: SeqNo,
    /// Live snapshots.
    pub snapshots: usize,
    /// The oldest live snapshot.
    pub snapshot_oldest: Option<SeqNo>,
    /// Memory of all databases on this budget, in bytes.
    pub memory_used: usize,
    /// Flushed memtables of this database that are the cache of their files, in bytes of that.
    pub memory_kept: usize,
    /// The budget, in bytes.
    pub memory_limit: usize,
    /// Block cache: lookups that found their block.
    pub cache_hits: u64,
    /// Block cache: lookups that did not.
    pub cache_misses: u64,
    /// One entry a family, by name.
    pub families: Vec<FamilyStats>,
}

/// State of one column family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FamilyStats {
    /// Name of the family.
    pub name: String,
    /// Bytes of memory of the memtable and of those waiting to be flushed.
    pub memtable_bytes: usize,
    /// Memtables waiting to be flushed.
    pub immutables: usize,
    /// Files a level.
    pub files: [usize; LEVELS],
    /// Bytes a level.
    pub bytes: [u64; LEVELS],
    /// Entries in tables, all versions and tombstones included.
    pub table_entries: u64,
}

/// The live counters: relaxed, they count and order nothing.
#[derive(Default)]
pub(in crate::db) struct Counters {
    pub operations: AtomicU64,
    pub groups: AtomicU64,
    pub log_bytes: AtomicU64,
    pub log_syncs: AtomicU64,
    pub flushes: AtomicU64,
    pub flush_bytes: AtomicU64,
    pub compactions: AtomicU64,
    pub compaction_bytes_read: AtomicU64,
    pub compaction_bytes_written: AtomicU64,
    pub moves: AtomicU64,
    pub stalls: AtomicU64,
    pub drops: AtomicU64,
    pub bytes_dropped: AtomicU64,
    pub seeks: AtomicU64,
    pub keys_visited: AtomicU64,
}

impl Counters {
    pub fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            operations: read(&self.operations),
            groups: read(&self.groups),
            log_bytes: read(&self.log_bytes),
            log_syncs: read(&self.log_syncs),
            flushes: read(&self.flushes),
            flush_bytes: read(&self.flush_bytes),
            compactions: read(&self.compactions),
            compaction_bytes_read: read(&self.compaction_bytes_read),
            compaction_bytes_written: read(&self.compaction_bytes_written),
            moves: read(&self.moves),
            stalls: read(&self.stalls),
            drops: read(&self.drops),
            bytes_dropped: read(&self.bytes_dropped),
            seeks: read(&self.seeks),
            keys_visited: read(&self.keys_visited),
            ..Stats::default()
        }
    }
}

/// Adds to a counter that only one thread at a time writes: a load and a store, no locked add.
#[inline]
pub(in crate::db) fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Adds to a counter that several threads write.
pub(in crate::db) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
