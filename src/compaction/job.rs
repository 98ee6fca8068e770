//! Runs one compaction, some entries at a time.

use crate::base::error::Result;
use crate::base::id::FileNumber;
use crate::base::sync::Arc;
use crate::compaction::iter::CompactionIterator;
use crate::compaction::iter::Counts;
use crate::compaction::iter::Rules;
use crate::compaction::output::OutputOptions;
use crate::compaction::output::Outputs;
use crate::compaction::parts::Parts;
use crate::compaction::parts::Run;
use crate::compaction::picker::Compaction;
use crate::iter::merging::MergingIterator;
use crate::iter::range_del::RangeTombstones;
use crate::version::edit::FamilyEdit;
use crate::version::file::TableFile;
use crate::version::level_iter::ClippedIterator;
use crate::version::level_iter::LevelIterator;
use crate::version::level_iter::VersionIterator;
use crate::version::levels::Described;
use crate::version::version::clipped_tombstones;

/// So many keys of each input are looked at to cut a compaction into parts.
const SAMPLES: usize = 16;

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
/// A large one is done in *parts*, each a range of keys with cursors and outputs of its own: one after
/// the other, or at the same time.
///
/// [created]: CompactionJob::created
pub struct CompactionJob {
    compaction: Compaction<TableFile>,
    parts: Parts<MergingIterator<VersionIterator>>,
}

impl CompactionJob {
    /// A job for a plan that was claimed, in at most `parts` parts; in one, if it writes to level 0,
    /// where one run must stay one. `rules` makes the rules of each part, of snapshots that were read
    /// after the plan was made; their `below` is replaced by the plan's. Opens the inputs that hold
    /// range tombstones, and for parts the largest.
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
        rules: impl Fn() -> Rules,
        options: &OutputOptions,
        parts: usize,
    ) -> Result<CompactionJob> {
        let mut tombstones = Vec::new();
        for (_, file) in compaction.files() {
            let these = clipped_tombstones(file)?;
            if !these.is_empty() {
                tombstones.push(these);
            }
        }
        let tombstones: Vec<&RangeTombstones> = tombstones.iter().map(|these| &**these).collect();
        let tombstones = Arc::new(RangeTombstones::merge(&tombstones));
        let parts = Parts::new(cuts(&compaction, parts)?, |range| {
            let rules = Rules { below: compaction.below.clone(), ..rules() };
            let input = MergingIterator::new(cursors(&compaction));
            let grandparents = compaction.grandparents.clone();
            let outputs = Outputs::new(options.clone(), grandparents, range.clone());
            (CompactionIterator::within(range, input, Arc::clone(&tombstones), rules), outputs)
        });
        Ok(CompactionJob { compaction, parts })
    }

    /// Merges about `budget` entries: all versions of a user key are done in one step.
    ///
    /// # Errors
    /// Whatever reading or writing tables returns. The job must be dropped then.
    ///
    /// # Panics
    /// If it is done.
    pub fn step(&mut self, budget: usize) -> Result<Progress> {
        if !self.parts.step(budget)? {
            return Ok(Progress::More);
        }
        let level = self.compaction.output_level as u8;
        let mut edit = self.compaction.removal();
        edit.added = self.parts.take_added().map(|file| (level, file)).collect();
        Ok(Progress::Done(edit))
    }

    /// Does the parts of a large job at the same time, in steps of `budget` entries, as long as `wanted`
    /// says so. The next [steps](CompactionJob::step) do what is left.
    ///
    /// # Errors
    /// Whatever reading or writing tables returns. The job must be dropped then.
    pub fn run_parts(
        &mut self,
        budget: usize,
        wanted: &(dyn Fn() -> bool + Sync),
        run: Run<'_>,
    ) -> Result<()> {
        self.parts.run(budget, wanted, run)
    }

    /// The plan.
    pub fn compaction(&self) -> &Compaction<TableFile> {
        &self.compaction
    }

    /// Numbers of all files created so far. Unless the edit is applied, the owner removes them.
    pub fn created(&self) -> Vec<FileNumber> {
        self.parts.created()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.parts.counts()
    }
}

/// Cursors over all inputs.
fn cursors(compaction: &Compaction<TableFile>) -> Vec<VersionIterator> {
    let mut cursors = Vec::new();
    for (level, files) in &compaction.inputs {
        if *level > 0 {
            let cursor = LevelIterator::new(files.as_slice().into(), 0..files.len(), false);
            cursors.push(VersionIterator::Level(cursor));
        } else {
            let cursors_of = files.iter().map(|file| ClippedIterator::new(Arc::clone(file), false));
            cursors.extend(cursors_of.map(VersionIterator::Table));
        }
    }
    cursors
}

/// Keys that cut the inputs into `parts` ranges of about as many bytes, ascending.
fn cuts(compaction: &Compaction<TableFile>, parts: usize) -> Result<Vec<Vec<u8>>> {
    let mut samples = Vec::new();
    if parts > 1 && compaction.output_level > 0 {
        for (_, file) in compaction.files() {
            let table = file.table()?;
            let keys = (1..=SAMPLES).filter_map(|i| table.cut(i, SAMPLES));
            samples.extend(keys.map(|key| (key, file.meta().len / SAMPLES as u64)));
        }
    }
    samples.sort_unstable();
    let all: u64 = samples.iter().map(|(_, len)| len).sum();
    let mut before = 0;
    let mut cuts = Vec::new();
    for (key, len) in samples {
        before += len;
        let wanted =
            cuts.len() + 1 < parts && before * parts as u64 >= all * (cuts.len() as u64 + 1);
        if wanted && cuts.last() != Some(&key) {
            cuts.push(key);
        }
    }
    Ok(cuts)
}

#[cfg(test)]
mod tests;
