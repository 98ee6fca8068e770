//! The parts of a job: disjoint ranges of keys, done one after the other or at the same time.

use crate::base::error::Result;
use crate::base::id::FileNumber;
use crate::base::key::KeyRange;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::base::sync::OnceLock;
use crate::compaction::iter::CompactionIterator;
use crate::compaction::iter::Counts;
use crate::compaction::output::Outputs;
use crate::iter::InternalIterator;
use crate::version::meta::FileMeta;

/// Does `work` for all numbers below the count, in any order, at the same time if it can.
pub type Run<'a> = &'a dyn Fn(usize, &(dyn Fn(usize) + Sync));

/// All parts of a job.
pub(super) struct Parts<I> {
    /// Ascending by key, and together all keys.
    parts: Vec<Mutex<Part<I>>>,
    /// Parts that are done, if they are done one after the other.
    done: usize,
}

struct Part<I> {
    iter: CompactionIterator<I>,
    outputs: Outputs,
    added: Vec<Arc<FileMeta>>,
    finished: bool,
}

impl<I: InternalIterator> Part<I> {
    /// Moves about `budget` entries from the iterator to the outputs; `true` at the end.
    fn step(&mut self, budget: usize) -> Result<bool> {
        let until = self.iter.counts().read.saturating_add(budget as u64);
        while !self.finished && self.iter.counts().read < until {
            if self.iter.step()? {
                self.outputs.add(&self.iter)?;
            } else {
                self.added = self.outputs.finish(&self.iter)?;
                self.finished = true;
            }
        }
        Ok(self.finished)
    }
}

impl<I: InternalIterator + Send> Parts<I> {
    /// Parts that end at these keys, ascending and none twice, and one behind them; `part` makes what is
    /// merged in a range, and where it goes.
    pub(super) fn new(
        cuts: Vec<Vec<u8>>,
        part: impl Fn(KeyRange) -> (CompactionIterator<I>, Outputs),
    ) -> Parts<I> {
        let starts = [Vec::new()].into_iter().chain(cuts.iter().cloned());
        let ranges = starts.zip(cuts.iter().cloned().map(Some).chain([None]));
        let parts = ranges.map(|(start, end)| {
            let (iter, outputs) = part(KeyRange::new(start, end));
            Mutex::new(Part { iter, outputs, added: Vec::new(), finished: false })
        });
        Parts { parts: parts.collect(), done: 0 }
    }

    /// Merges about `budget` entries of the first part that is not done; `true` when all are.
    ///
    /// # Errors
    /// Whatever reading or writing tables returns. The job must be dropped then.
    ///
    /// # Panics
    /// If all parts were done in steps.
    pub(super) fn step(&mut self, budget: usize) -> Result<bool> {
        assert!(self.done < self.parts.len(), "a job that is done is not stepped again");
        self.done += usize::from(self.parts[self.done].get_mut().step(budget)?);
        Ok(self.done == self.parts.len())
    }

    /// Does all parts, if they are several, in steps of `budget` entries, as long as `wanted` says so.
    /// [Steps](Parts::step) do what is left, and one more is needed.
    ///
    /// # Errors
    /// Whatever reading or writing tables returns. The job must be dropped then.
    pub(super) fn run(
        &mut self,
        budget: usize,
        wanted: &(dyn Fn() -> bool + Sync),
        run: Run<'_>,
    ) -> Result<()> {
        if self.parts.len() == 1 || self.parts.iter_mut().all(|part| part.get_mut().finished) {
            return Ok(());
        }
        let failure = OnceLock::new();
        run(self.parts.len(), &|i| {
            let mut part = self.parts[i].lock();
            while !part.finished && failure.get().is_none() && wanted() {
                if let Err(error) = part.step(budget) {
                    let _ = failure.set(error);
                }
            }
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    /// The tables that were written, once all parts are done.
    pub(super) fn take_added(&mut self) -> impl Iterator<Item = Arc<FileMeta>> {
        self.parts.iter_mut().flat_map(|part| std::mem::take(&mut part.get_mut().added))
    }

    /// Numbers of all files created so far.
    pub(super) fn created(&self) -> Vec<FileNumber> {
        self.parts.iter().flat_map(|part| part.lock().outputs.created().to_vec()).collect()
    }

    /// What was done so far.
    pub(super) fn counts(&self) -> Counts {
        let parts = self.parts.iter().map(|part| part.lock().iter.counts());
        parts.fold(Counts::default(), |a, b| Counts {
            read: a.read + b.read,
            kept: a.kept + b.kept,
            filtered: a.filtered + b.filtered,
        })
    }
}
