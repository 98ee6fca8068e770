//! Chooses tables whose values have expired: to be dropped unread, or to be rewritten without them.
//!
//! A table knows the least and the greatest timestamp of its values. It can be *dropped*, without
//! anybody noticing, if
//!
//! 1. all its values have expired,
//! 2. it holds no tombstone, which may hide something older,
//! 3. no live snapshot sees anything of it, and
//! 4. every older table that overlaps it is dropped with it: nothing comes to light.
//!
//! Tables of which a part has expired are rewritten, and the family's filter removes that part.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::base::id::FileNumber;
use crate::base::key::SeqNo;
use crate::base::limits::LEVELS;
use crate::base::sync::Arc;
use crate::compaction::below::Below;
use crate::compaction::busy::Busy;
use crate::compaction::cluster::{clusters, hull};
use crate::compaction::picker::Compaction;
use crate::compaction::picker::Picker;
use crate::compaction::picker::PickerOptions;
use crate::compaction::picker::Reason;
use crate::compaction::picker::Targets;
use crate::version::levels;
use crate::version::levels::Described;
use crate::version::levels::Levels;
use crate::version::meta::FileMeta;

/// What has expired by now.
#[derive(Clone, Debug)]
pub struct Expired {
    /// Values with this timestamp or an older one.
    pub until: i64,
    /// Whose timestamps these are; those of other extractors say nothing.
    pub extractor: String,
    /// The newest live snapshot.
    pub newest_snapshot: Option<SeqNo>,
}

/// Up to which timestamp tables were rewritten: what is older in them now could not be removed, and is
/// no reason to rewrite them again.
pub type Rewritten = BTreeMap<FileNumber, i64>;

impl Expired {
    /// The span of the timestamps, if they are known.
    fn span(&self, meta: &FileMeta) -> Option<(i64, i64)> {
        let known = meta.timestamp_extractor.as_deref() == Some(&*self.extractor);
        meta.timestamps.filter(|_| known)
    }

    /// Conditions 1 to 3.
    fn is_whole(&self, meta: &FileMeta) -> bool {
        let expired = self.span(meta).is_some_and(|(_, greatest)| greatest <= self.until);
        expired && meta.tombstones() == 0 && self.is_unseen(meta)
    }

    fn is_unseen(&self, meta: &FileMeta) -> bool {
        self.newest_snapshot.is_none_or(|snapshot| snapshot < meta.seqno_min)
    }

    /// Would a rewrite bring at least this percentage of the table, if its timestamps are spread
    /// evenly?
    fn is_worth(&self, meta: &FileMeta, done: &Rewritten, percent: u64) -> bool {
        let Some((least, greatest)) = self.span(meta) else { return false };
        let least =
            done.get(&meta.number).map_or(least, |until| least.max(until.saturating_add(1)));
        let wide = |from: i64, to: i64| (i128::from(to) - i128::from(from)).max(0) + 1;
        self.until >= least
            && self.is_unseen(meta)
            && wide(least, self.until) * 100 >= wide(least, greatest) * i128::from(percent)
    }
}

/// All tables that can be dropped now, as one plan without outputs.
pub fn pick_dropped<F: Described>(
    levels: &Levels<F>,
    busy: &Busy,
    expired: &Expired,
) -> Option<Compaction<F>> {
    let mut inputs: Vec<(u8, Vec<Arc<F>>)> = Vec::new();
    let mut gone: BTreeSet<FileNumber> = BTreeSet::new();
    // From the oldest to the newest, so that what lies below is decided first.
    for (level, files) in levels.iter().enumerate().rev() {
        let mut here: Vec<Arc<F>> = Vec::new();
        for (i, file) in files.iter().enumerate().rev() {
            let meta = file.meta();
            if !expired.is_whole(meta) || busy.holds(meta.number) {
                continue;
            }
            let deeper = levels[level + 1..].iter();
            let mut older =
                deeper.flat_map(|deeper| &deeper[levels::overlapping(deeper, &meta.bounds)]);
            let mut beside = files[i + 1..]
                .iter()
                .filter(|other| level == 0 && other.meta().bounds.overlaps(&meta.bounds));
            let stays = |other: &Arc<F>| !gone.contains(&other.meta().number);
            if !older.any(stays) && !beside.any(stays) {
                gone.insert(meta.number);
                here.push(Arc::clone(file));
            }
        }
        if !here.is_empty() {
            here.reverse();
            inputs.push((level as u8, here));
        }
    }
    inputs.reverse();
    let range = hull(inputs.iter().flat_map(|(_, files)| files));
    (!inputs.is_empty()).then(|| Compaction {
        reason: Reason::Dropped,
        level: usize::from(inputs[0].0),
        output_level: 0,
        inputs,
        trivial_move: false,
        range,
        below: Below::unknown(),
        grandparents: Vec::new(),
    })
}

/// A table to be rewritten because much of it has expired: in place if nothing older lies below, so
/// that it comes up once; else into the next level, until it gets there. Only for a family whose
/// filter removes what has expired.
pub fn pick_rewritten<F: Described>(
    levels: &Levels<F>,
    options: &PickerOptions,
    busy: &Busy,
    expired: &Expired,
    done: &Rewritten,
) -> Option<Compaction<F>> {
    let percent = options.expired_percent;
    if percent == 0 {
        return None;
    }
    let picker = Picker { levels, options, busy, targets: Targets::new(levels, options) };
    for level in (1..LEVELS).rev() {
        for file in levels[level].iter().filter(|file| expired.is_worth(file.meta(), done, percent))
        {
            let mut deeper = levels[level + 1..].iter();
            let above = deeper.any(|l| !levels::overlapping(l, &file.meta().bounds).is_empty());
            let to = level + usize::from(above);
            let plan = picker.plan(Reason::Expired, level, to, vec![Arc::clone(file)]);
            if busy.allows(&plan) {
                return Some(plan);
            }
        }
    }
    let worth = |i: &usize| expired.is_worth(levels[0][*i].meta(), done, percent);
    let clusters = clusters(&levels[0]);
    let plans = clusters.iter().filter(|cluster| cluster.files.iter().any(worth));
    let mut plans = plans.map(|cluster| picker.to_base(cluster, Reason::Expired));
    plans.find(|plan| busy.allows(plan))
}

#[cfg(test)]
mod tests;
