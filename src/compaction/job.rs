//! Runs one compaction, some entries at a time.

use crate::base::error::Result;
use crate::base::id::FileNumber;
use crate::base::sync::Arc;
use crate::compaction::iter::CompactionIterator;
use crate::compaction::iter::Counts;
use crate::compaction::iter::Rules;
use crate::compaction::output::OutputOptions;
use crate::compaction::output::Outputs;
use crate::compaction::picker::Compaction;
use crate::iter::merging::MergingIterator;
use crate::iter::range_del::RangeTombstones;
use crate::version::edit::FamilyEdit;
use crate::version::file::TableFile;
use crate::version::level_iter::ClippedIterator;
use crate::version::level_iter::LevelIterator;
use crate::version::level_iter::VersionIterator;
use crate::version::version::clipped_tombstones;

/// How far a job is.
#[derive(Debug)]
pub enum Progress {
    /// There is more to do.
    More,
    /// All outputs are durable: apply this edit. The job must not be stepped again.
    Done(FamilyEdit),
}

/// A running compaction: a value without threads or locks. Dropping it, at any time and after any
/// error, is how it is cancelled; the owner then removes the files it [created].
///
/// [created]: CompactionJob::created
pub struct CompactionJob {
    compaction: Compaction<TableFile>,
    iter: CompactionIterator<MergingIterator<VersionIterator>>,
    outputs: Outputs,
    finished: bool,
}

impl CompactionJob {
    /// A job for a plan that was claimed. `rules.snapshots` were read after the plan was made;
    /// `rules.below` is replaced by the plan's. Opens the inputs that hold range tombstones.
    ///
    /// A snapshot taken while the job runs is not among the rules, and needs not be, except where the
    /// filter changed something: such a snapshot would see values go. If
    /// [`counts().filtered`](Counts::filtered) is not 0 at the end and a snapshot was taken since, the
    /// owner gives the job up, and runs it again, or runs it without a filter.
    ///
    /// # Errors
    /// Those of opening tables.
    pub fn new(
        compaction: Compaction<TableFile>,
        rules: Rules,
        options: OutputOptions,
    ) -> Result<CompactionJob> {
        let mut cursors = Vec::new();
        let mut tombstones = Vec::new();
        for (level, files) in &compaction.inputs {
            for file in files {
                let these = clipped_tombstones(file)?;
                if !these.is_empty() {
                    tombstones.push(these);
                }
                if *level == 0 {
                    let cursor = ClippedIterator::new(Arc::clone(file), false);
                    cursors.push(VersionIterator::Table(cursor));
                }
            }
            if *level > 0 {
                let cursor = LevelIterator::new(files.as_slice().into(), 0..files.len(), false);
                cursors.push(VersionIterator::Level(cursor));
            }
        }
        let tombstones: Vec<&RangeTombstones> = tombstones.iter().map(|these| &**these).collect();
        let tombstones = Arc::new(RangeTombstones::merge(&tombstones));
        let rules = Rules { below: compaction.below.clone(), ..rules };
        let iter = CompactionIterator::new(MergingIterator::new(cursors), tombstones, rules);
        let outputs = Outputs::new(options, compaction.grandparents.clone());
        Ok(CompactionJob { compaction, iter, outputs, finished: false })
    }

    /// Merges about `budget` entries: all versions of a user key are done in one step.
    ///
    /// # Errors
    /// Whatever reading or writing tables returns. The job must be dropped then.
    ///
    /// # Panics
    /// If it is done.
    pub fn step(&mut self, budget: usize) -> Result<Progress> {
        if !step(&mut self.iter, &mut self.outputs, budget, &mut self.finished)? {
            return Ok(Progress::More);
        }
        let level = self.compaction.output_level as u8;
        let mut edit = self.compaction.removal();
        edit.added = self.outputs.finish(&self.iter)?.into_iter().map(|f| (level, f)).collect();
        Ok(Progress::Done(edit))
    }

    /// The plan.
    pub fn compaction(&self) -> &Compaction<TableFile> {
        &self.compaction
    }

    /// Numbers of all files created so far. Unless the edit is applied, the owner removes them.
    pub fn created(&self) -> &[FileNumber] {
        self.outputs.created()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.iter.counts()
    }
}

/// Moves about `budget` entries from `iter` to `outputs`; `true` once at the end.
pub(super) fn step<I: crate::iter::InternalIterator>(
    iter: &mut CompactionIterator<I>,
    outputs: &mut Outputs,
    budget: usize,
    finished: &mut bool,
) -> Result<bool> {
    assert!(!*finished, "a job that is done is not stepped again");
    let until = iter.counts().read.saturating_add(budget as u64);
    loop {
        if !iter.step()? {
            *finished = true;
            return Ok(true);
        }
        outputs.add(iter)?;
        if iter.counts().read >= until {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests;
