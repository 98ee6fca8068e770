//! Writes immutable memtables into a table of level 0, or into several that do not overlap.

use crate::base::error::Result;
use crate::base::id::FileNumber;
use crate::base::key::SeqNo;
use crate::base::sync::Arc;
use crate::compaction::iter::CompactionIterator;
use crate::compaction::iter::Rules;
use crate::compaction::job::Progress;
use crate::compaction::output::OutputOptions;
use crate::compaction::output::Outputs;
use crate::compaction::parts::Parts;
use crate::compaction::parts::Run;
use crate::iter::merging::MergingIterator;
use crate::iter::range_del::RangeTombstones;
use crate::memtable::MemTable;
use crate::memtable::MemTableIterator;
use crate::version::edit::FamilyEdit;

/// A running flush: a value like [`CompactionJob`](super::job::CompactionJob), and in parts like it.
///
/// Writing the survivors into a smaller memtable instead, for keys that only churn, is the same
/// iterator with another output; it comes later.
pub struct FlushJob {
    parts: Parts<MergingIterator<MemTableIterator>>,
    flushed_seqno: Option<SeqNo>,
}

impl FlushJob {
    /// A flush of a family's oldest immutable memtables, *oldest first*, in at most `parts` parts, each of
    /// which writes one table.
    ///
    /// The caller sees to it that they are the oldest (I8), that none of them is on the other side of
    /// a pending checkpoint than the rest (a table must not hold entries from both sides), and that the
    /// snapshots of `rules` were read after the last of them became immutable. Their `below` is
    /// [`Below::unknown`](super::below::Below::unknown), unless the caller knows that the family's
    /// tree holds less. A filter is not for flushes: it sees a value that is still hot.
    ///
    /// # Panics
    /// If the memtables are not in order.
    pub fn new(
        memtables: &[Arc<MemTable>],
        rules: impl Fn() -> Rules,
        options: &OutputOptions,
        parts: usize,
    ) -> FlushJob {
        let mut flushed_seqno = None;
        for table in memtables {
            let in_order = table.seqno_min() > flushed_seqno || table.seqno_min().is_none();
            assert!(in_order, "memtables are flushed oldest first");
            flushed_seqno = flushed_seqno.max(table.seqno_max());
        }
        let tombstones: Vec<Arc<RangeTombstones>> = memtables
            .iter()
            .filter(|table| table.has_range_tombstones())
            .map(|table| table.range_tombstones())
            .collect();
        let tombstones: Vec<&RangeTombstones> = tombstones.iter().map(|these| &**these).collect();
        let tombstones = Arc::new(RangeTombstones::merge(&tombstones));
        let largest = memtables.iter().max_by_key(|table| table.bytes());
        let cuts = largest.map_or(Vec::new(), |table| table.cuts(parts));
        let parts = Parts::new(cuts, |range| {
            let cursors = memtables.iter().rev().map(MemTable::frozen_cursor).collect();
            let input = MergingIterator::new(cursors);
            let unsplit = OutputOptions { file_bytes: u64::MAX, ..options.clone() };
            let outputs = Outputs::new(unsplit, Vec::new(), range.clone());
            (CompactionIterator::within(range, input, Arc::clone(&tombstones), rules()), outputs)
        });
        FlushJob { parts, flushed_seqno }
    }

    /// Writes about `budget` entries. The edit names a file for each part, none where nothing survived,
    /// and the family's new flushed sequence number.
    ///
    /// # Errors
    /// Whatever writing a table returns. The job must be dropped then.
    ///
    /// # Panics
    /// If it is done.
    pub fn step(&mut self, budget: usize) -> Result<Progress> {
        if !self.parts.step(budget)? {
            return Ok(Progress::More);
        }
        let added = self.parts.take_added().map(|file| (0, file)).collect();
        let flushed_seqno = self.flushed_seqno;
        Ok(Progress::Done(FamilyEdit { added, flushed_seqno, ..FamilyEdit::default() }))
    }

    /// Does the parts at the same time, if they are several, in steps of `budget` entries. The next
    /// [step](FlushJob::step) is the last.
    ///
    /// # Errors
    /// Whatever writing a table returns. The job must be dropped then.
    pub fn run_parts(&mut self, budget: usize, run: Run<'_>) -> Result<()> {
        self.parts.run(budget, &|| true, run)
    }

    /// Numbers of all files created so far. Unless the edit is applied, the owner removes them.
    pub fn created(&self) -> Vec<FileNumber> {
        self.parts.created()
    }
}
