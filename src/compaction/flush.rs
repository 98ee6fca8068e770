//! Writes immutable memtables into one table of level 0.

use crate::base::error::Result;
use crate::base::id::FileNumber;
use crate::base::key::SeqNo;
use crate::base::sync::Arc;
use crate::compaction::iter::CompactionIterator;
use crate::compaction::iter::Rules;
use crate::compaction::job::Progress;
use crate::compaction::job::step;
use crate::compaction::output::OutputOptions;
use crate::compaction::output::Outputs;
use crate::iter::merging::MergingIterator;
use crate::iter::range_del::RangeTombstones;
use crate::memtable::MemTable;
use crate::memtable::MemTableIterator;
use crate::version::edit::FamilyEdit;

/// A running flush: a value like [`CompactionJob`](super::job::CompactionJob).
///
/// Writing the survivors into a smaller memtable instead, for keys that only churn, is the same
/// iterator with another output; it comes later.
pub struct FlushJob {
    iter: CompactionIterator<MergingIterator<MemTableIterator>>,
    outputs: Outputs,
    flushed_seqno: Option<SeqNo>,
    finished: bool,
}

impl FlushJob {
    /// A flush of a family's oldest immutable memtables, *oldest first*.
    ///
    /// The caller sees to it that they are the oldest (I8), that none of them is on the other side of
    /// a pending checkpoint than the rest (a table must not hold entries from both sides), and that
    /// `rules.snapshots` were read after the last of them became immutable. `rules.below` is
    /// [`Below::unknown`](super::below::Below::unknown), unless the caller knows that the family's
    /// tree holds less. A filter is not for flushes: it sees a value that is still hot.
    ///
    /// # Panics
    /// If the memtables are not in order.
    pub fn new(memtables: &[Arc<MemTable>], rules: Rules, options: OutputOptions) -> FlushJob {
        let mut flushed_seqno = None;
        for table in memtables {
            let in_order = table.seqno_min() > flushed_seqno || table.seqno_min().is_none();
            assert!(in_order, "memtables are flushed oldest first");
            flushed_seqno = flushed_seqno.max(table.seqno_max());
        }
        let cursors = memtables.iter().rev().map(MemTable::frozen_cursor).collect();
        let tombstones: Vec<Arc<RangeTombstones>> = memtables
            .iter()
            .filter(|table| table.has_range_tombstones())
            .map(|table| table.range_tombstones())
            .collect();
        let tombstones: Vec<&RangeTombstones> = tombstones.iter().map(|these| &**these).collect();
        let tombstones = Arc::new(RangeTombstones::merge(&tombstones));
        let iter = CompactionIterator::new(MergingIterator::new(cursors), tombstones, rules);
        let unsplit = OutputOptions { file_bytes: u64::MAX, ..options };
        let outputs = Outputs::new(unsplit, Vec::new());
        FlushJob { iter, outputs, flushed_seqno, finished: false }
    }

    /// Writes about `budget` entries. The edit names one file, or none if nothing survived, and the
    /// family's new flushed sequence number.
    ///
    /// # Errors
    /// Whatever writing a table returns. The job must be dropped then.
    ///
    /// # Panics
    /// If it is done.
    pub fn step(&mut self, budget: usize) -> Result<Progress> {
        if !step(&mut self.iter, &mut self.outputs, budget, &mut self.finished)? {
            return Ok(Progress::More);
        }
        let added = self.outputs.finish(&self.iter)?.into_iter().map(|file| (0, file)).collect();
        let flushed_seqno = self.flushed_seqno;
        Ok(Progress::Done(FamilyEdit { added, flushed_seqno, ..FamilyEdit::default() }))
    }

    /// Numbers of all files created so far. Unless the edit is applied, the owner removes them.
    pub fn created(&self) -> &[FileNumber] {
        self.outputs.created()
    }
}
