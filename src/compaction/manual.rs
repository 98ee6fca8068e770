//! Compacting a key range down to the bottom because somebody asked.

use crate::base::id::FileNumber;
use crate::base::key::KeyRange;
use crate::base::limits::LEVELS;
use crate::base::sync::Arc;
use crate::compaction::busy::Busy;
use crate::compaction::cluster::clusters;
use crate::compaction::picker::Compaction;
use crate::compaction::picker::Picker;
use crate::compaction::picker::PickerOptions;
use crate::compaction::picker::Reason;
use crate::compaction::picker::Targets;
use crate::version::levels;
use crate::version::levels::Described;
use crate::version::levels::Levels;

/// A walk over a key range, level by level downwards and key by key in each level, so that it ends
/// however much is written meanwhile. What is in the tree at the beginning comes out in the deepest
/// level (unless other compactions of the range are started meanwhile: then in one of the deepest),
/// and files of that level that nothing was merged into are rewritten in place.
#[derive(Debug)]
pub struct RangeCompaction {
    range: KeyRange,
    level: usize,
    /// What is left to do in `level`.
    rest: KeyRange,
    /// Files with later numbers were written since.
    newest: FileNumber,
    rewrite_all: bool,
    begun: bool,
}

/// What a [`RangeCompaction`] does next.
#[derive(Debug)]
pub enum Next<F> {
    /// Claim and run this, or install its move. One may ask again at once.
    Run(Compaction<F>),
    /// A running compaction is in the way: ask again when one has ended.
    Wait,
    /// Nothing is left to do.
    Done,
}

impl RangeCompaction {
    /// Begins. Without `rewrite_all`, files of the deepest level that have neither tombstones nor
    /// bytes outside their bounds stay as they are.
    pub fn new<F: Described>(
        levels: &Levels<F>,
        range: KeyRange,
        rewrite_all: bool,
    ) -> RangeCompaction {
        let files = levels.iter().flat_map(|level| level.iter());
        let newest = files.map(|file| file.meta().number).max().unwrap_or_default();
        let rest = range.clone();
        RangeCompaction { range, level: 0, rest, newest, rewrite_all, begun: false }
    }

    /// The next piece of work on the tree as it is now.
    pub fn next<F: Described>(
        &mut self,
        levels: &Levels<F>,
        options: &PickerOptions,
        busy: &Busy,
    ) -> Next<F> {
        if !self.begun && busy.touches(&self.range) {
            return Next::Wait;
        }
        self.begun = true;
        let picker = Picker { levels, options, busy, targets: Targets::new(levels, options) };
        while self.level < LEVELS {
            let plan = if self.rest.is_empty() {
                None
            } else if self.level == 0 {
                let mut clusters = clusters(&levels[0]).into_iter();
                let cluster = clusters.find(|cluster| cluster.range.overlaps(&self.rest));
                cluster.map(|cluster| {
                    (cluster.range.end.clone(), picker.to_base(&cluster, Reason::Manual))
                })
            } else {
                self.next_files(&picker)
            };
            let Some((end, plan)) = plan else {
                // What is still running may put something into this level or the next.
                if busy.touches(&self.range) {
                    return Next::Wait;
                }
                self.level += 1;
                self.rest = self.range.clone();
                continue;
            };
            if !busy.allows(&plan) {
                return Next::Wait;
            }
            match end {
                Some(end) => self.rest.start = self.rest.start.clone().max(end),
                None => self.rest = KeyRange::new(vec![], Some(vec![])),
            }
            return Next::Run(plan);
        }
        Next::Done
    }

    /// Files of a level from 1 on: down, or in place if nothing of the range is deeper.
    fn next_files<F: Described>(
        &self,
        picker: &Picker<'_, F>,
    ) -> Option<(Option<Vec<u8>>, Compaction<F>)> {
        let (here, level) = (&picker.levels[self.level], self.level);
        let mut files = here[levels::overlapping(here, &self.rest)].iter();
        let mut deeper = picker.levels[level + 1..].iter();
        let deepest = deeper.all(|deeper| levels::overlapping(deeper, &self.range).is_empty());
        if deepest {
            let file = files.find(|file| {
                let meta = file.meta();
                let dead = meta.clipped || meta.tombstones() > 0;
                meta.number <= self.newest && (self.rewrite_all || dead)
            })?;
            let plan = picker.plan(Reason::Manual, level, level, vec![Arc::clone(file)]);
            return Some((file.meta().bounds.end.clone(), plan));
        }
        let mut taken: Vec<Arc<F>> = Vec::new();
        let mut bytes = 0u64;
        for file in files {
            bytes = bytes.saturating_add(file.meta().len);
            if !taken.is_empty() && bytes > picker.options.compaction_bytes_max {
                break;
            }
            taken.push(Arc::clone(file));
        }
        let end = taken.last()?.meta().bounds.end.clone();
        Some((end, picker.plan(Reason::Manual, level, level + 1, taken)))
    }
}
