//! Chooses what to compact next. Pure: a tree, what was asked of it, options and claims in, a plan out.
//!
//! Leveled. Level 0 is due when too many of its files overlap (*depth*, not number: an import leaves
//! many files that do not) and merging them pays; levels from 1 on when they outgrow their target.
//! Five things differ from the textbook:
//!
//! * Targets are dynamic: they are derived from the size of the last level, upwards, and level 0 is
//!   merged straight into the *base*, the first level that is worth having. All levels between are
//!   empty. So a small tree has one level, and all but a tenth of a large one lies in the last.
//! * Level 0 is merged once it brings as much as the base has to rewrite for it, so that each byte of
//!   it costs no more than two; or once it is as deep as it may be, so that reads stay bounded.
//! * Level 0's newest small files are merged among themselves while merging them into the base would
//!   rewrite many times their size: frequent checkpoints leave small files.
//! * When nothing is due, level 0 is merged for the sake of scans, once they have paid for it: those that had
//!   to ask several of its runs, where one would have done. Who only writes and gets is not charged for it.
//! * Then neighbours in a level that are small are merged into one, so that frequent
//!   checkpoints of ever other keys do not end in as many files; then files with dead weight are
//!   rewritten in place: clipped ones, and those whose tombstones have nothing left to hide.
//!
//! What has expired is chosen by [`expired`](super::expired).

use crate::base::key::KeyRange;
use crate::base::key::SeqNo;
use crate::base::limits::LEVELS;
use crate::base::sync::Arc;
use crate::compaction::below::Below;
use crate::compaction::busy::Busy;
use crate::compaction::cluster::{Cluster, clusters, depth, hull, join};
use crate::version::edit::FamilyEdit;
use crate::version::levels;
use crate::version::levels::Described;
use crate::version::levels::Levels;

/// The shape of a family's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickerOptions {
    /// Level 0 is due when so many of its files overlap in one key, and they have at least as many
    /// bytes as the base would have to rewrite for them. At least 1.
    pub l0_trigger: usize,
    /// Level 0 is due when so many overlap, whatever the base would have to rewrite. At least 1.
    pub l0_depth_max: usize,
    /// Target of the base level in bytes.
    pub base_level_bytes: u64,
    /// Each level's target is so many times that of the level above. At least 2.
    pub level_multiplier: u64,
    /// When nothing is due, level 0 is merged if scans have asked a run of it beyond their first for each so
    /// many of its bytes. 0: never.
    pub l0_scan_bytes: u64,
    /// Derive the targets from the last level's size; else from level 1 downwards.
    pub dynamic_levels: bool,
    /// Outputs end at about this many bytes, and where they would overlap more than ten times as
    /// much in the next level.
    pub file_bytes: u64,
    /// A compaction is not widened beyond this many bytes of input.
    pub compaction_bytes_max: u64,
    /// Rewrite clipped files when nothing else is due.
    pub rewrite_clipped: bool,
    /// Rewrite a file above nothing when its tombstones are this percentage of its entries. 0: never.
    pub tombstone_percent: u64,
    /// Rewrite a file when about this percentage of it has expired. 0: never.
    pub expired_percent: u64,
}

impl Default for PickerOptions {
    fn default() -> PickerOptions {
        PickerOptions {
            l0_trigger: 4,
            l0_depth_max: 6,
            base_level_bytes: 64 << 20,
            level_multiplier: 10,
            l0_scan_bytes: 4 << 10,
            dynamic_levels: true,
            file_bytes: 64 << 20,
            compaction_bytes_max: 25 * (64 << 20),
            rewrite_clipped: true,
            tombstone_percent: 10,
            expired_percent: 10,
        }
    }
}

impl PickerOptions {
    /// Most bytes of the next level that one output may overlap.
    pub fn overlap_bytes_max(&self) -> u64 {
        self.file_bytes.saturating_mul(10)
    }
}

/// Why something is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Too many files of level 0 overlap.
    Level0,
    /// Small files of a level are merged among themselves.
    SmallFiles,
    /// Scans have asked many of level 0's runs.
    Scans,
    /// The level outgrew its target.
    Size,
    /// The file holds bytes outside its bounds.
    Clipped,
    /// The file's tombstones have nothing left to hide.
    Tombstones,
    /// Many of the file's values have expired.
    Expired,
    /// All of the files' values have expired: they go unread, and nothing takes their place.
    Dropped,
    /// Somebody asked.
    Manual,
}

/// A plan: which files become which level. Holds no lock and changes nothing.
#[derive(Debug)]
pub struct Compaction<F> {
    /// Why.
    pub reason: Reason,
    /// The level that is relieved.
    pub level: usize,
    /// The level of the outputs. Equal to `level`: rewritten in place.
    pub output_level: usize,
    /// Files by level; level 0 newest first.
    pub inputs: Vec<(u8, Vec<Arc<F>>)>,
    /// The one input goes to the output level as it is. See [`Compaction::moved`].
    pub trivial_move: bool,
    /// All keys of the inputs.
    pub range: KeyRange,
    /// Where versions older than the inputs may lie.
    pub below: Below,
    /// Bounds and bytes of the files that outputs will meet in the next compaction, in order.
    pub grandparents: Vec<(KeyRange, u64)>,
}

impl<F: Described> Compaction<F> {
    /// All inputs with their levels.
    pub fn files(&self) -> impl Iterator<Item = (u8, &Arc<F>)> {
        self.inputs.iter().flat_map(|(level, files)| files.iter().map(|file| (*level, file)))
    }

    /// Bytes of all inputs.
    pub fn bytes(&self) -> u64 {
        self.files().map(|(_, file)| file.meta().len).sum()
    }

    /// The edit of a trivial move, which needs no job; `None` if this is none.
    pub fn moved(&self) -> Option<FamilyEdit> {
        let mut edit = self.removal();
        let to = self.output_level as u8;
        edit.added = self.files().map(|(_, file)| (to, Arc::new(file.meta().clone()))).collect();
        self.trivial_move.then_some(edit)
    }

    /// The edit of a plan without outputs, which needs no job either; `None` if this is none.
    pub fn dropped(&self) -> Option<FamilyEdit> {
        (self.reason == Reason::Dropped).then(|| self.removal())
    }

    /// An edit that removes all inputs.
    pub(super) fn removal(&self) -> FamilyEdit {
        let removed = self.files().map(|(level, file)| (level, file.meta().number)).collect();
        FamilyEdit { removed, ..FamilyEdit::default() }
    }
}

/// What to compact next, if anything. `oldest_snapshot`: the oldest live one, or `SEQNO_MAX`. `asked`: how
/// many runs of level 0 scans have asked beyond their first since a file last left it.
///
/// O(files log files). The caller claims the plan in `busy` before it lets go of the tree.
pub fn pick<F: Described>(
    levels: &Levels<F>,
    options: &PickerOptions,
    busy: &Busy,
    oldest_snapshot: SeqNo,
    asked: u64,
) -> Option<Compaction<F>> {
    let picker = Picker { levels, options, busy, targets: Targets::new(levels, options) };
    let mut level0 = picker.level0();
    let mut due: Vec<(u64, usize)> =
        (1..LEVELS - 1).map(|level| (picker.score(level), level)).collect();
    due.extend(level0.as_ref().map(|(score, _)| (*score, 0)));
    due.retain(|(score, _)| *score >= FULL);
    due.sort_by_key(|&(score, level)| (std::cmp::Reverse(score), level));
    let mut due = due.into_iter();
    due.find_map(|(_, level)| match level {
        0 => level0.take().map(|(_, plan)| plan),
        _ => picker.level(level),
    })
    .or_else(|| picker.scanned(asked))
    .or_else(|| picker.small_neighbours())
    .or_else(|| picker.dead_weight(oldest_snapshot))
}

/// Have scans that asked so many runs of level 0 beyond their first paid for a merge of its bytes, at so
/// many bytes a run?
pub fn scans_pay(asked: u64, scan_bytes: u64, l0_bytes: u64) -> bool {
    l0_bytes > 0 && asked.saturating_mul(scan_bytes) >= l0_bytes
}

/// Is anything due that [`pick`] would find, were nothing running? For stall decisions and tests.
#[cfg(test)]
pub fn score_max<F: Described>(levels: &Levels<F>, options: &PickerOptions) -> u64 {
    let busy = Busy::new();
    let picker = Picker { levels, options, busy: &busy, targets: Targets::new(levels, options) };
    let level0 = picker.level0().map(|(score, _)| score);
    (1..LEVELS - 1).map(|level| picker.score(level)).chain(level0).max().unwrap_or(0)
}

/// A score in percent: the level has reached its target.
const FULL: u64 = 100;

/// Below this part of a full file, a file of a level from 1 on is small.
const SMALL_PART: u64 = 32;

/// So many small neighbours are merged, or more.
const SMALL_RUN: usize = 4;

/// How large each level should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The level that level 0 is merged into; those between are empty.
    pub base: usize,
    /// Target of each level from `base` on, in bytes.
    pub bytes: [u64; LEVELS],
}

impl Targets {
    /// The targets of a tree.
    pub fn new<F: Described>(levels: &Levels<F>, options: &PickerOptions) -> Targets {
        let (base_bytes, by) = (options.base_level_bytes.max(1), options.level_multiplier.max(2));
        let sizes: Vec<u64> = levels.iter().map(|level| bytes(level)).collect();
        let occupied = (1..LEVELS).find(|&level| !levels[level].is_empty());
        let (mut base, mut target) = (1, base_bytes);
        if options.dynamic_levels {
            let mut size = sizes[1..].iter().copied().max().unwrap_or(0);
            base = occupied.unwrap_or(LEVELS - 1);
            (base..LEVELS - 1).for_each(|_| size /= by);
            // A level is opened above when the topmost one would be larger than a base should be.
            while base > 1 && size > base_bytes {
                base -= 1;
                size /= by;
            }
            target = size.clamp(base_bytes / by, base_bytes).max(1);
        }
        let mut bytes = [u64::MAX; LEVELS];
        for slot in &mut bytes[base..] {
            *slot = target.max(base_bytes);
            target = target.saturating_mul(by);
        }
        Targets { base, bytes }
    }
}

fn bytes<F: Described>(files: &[Arc<F>]) -> u64 {
    files.iter().map(|file| file.meta().len).sum()
}

pub(super) struct Picker<'a, F> {
    pub(super) levels: &'a Levels<F>,
    pub(super) options: &'a PickerOptions,
    pub(super) busy: &'a Busy,
    pub(super) targets: Targets,
}

impl<F: Described> Picker<'_, F> {
    fn free(&self, file: &Arc<F>) -> bool {
        !self.busy.holds(file.meta().number)
    }

    /// How full a level from 1 on is, in percent of its target; what is being compacted does not count.
    fn score(&self, level: usize) -> u64 {
        let files = self.levels[level].iter().filter(|file| self.free(file));
        let waiting: u64 = files.map(|file| file.meta().len).sum();
        let target = self.targets.bytes[level];
        let over = u64::from(waiting > target);
        (u128::from(waiting) * u128::from(FULL) / u128::from(target)) as u64 + over
    }

    /// What level 0 needs, if it is due, and its score, in percent of the trigger: a cluster goes into
    /// the base, the deepest first, or its small files into one. Nobody else says when level 0 is due;
    /// scans have it merged when it is not. What is being compacted does not count.
    ///
    /// From the trigger on, a cluster waits as long as the base would have to rewrite more than it
    /// brings; when it is as deep as it may be, or the files are many, it waits no longer.
    fn level0(&self) -> Option<(u64, Compaction<F>)> {
        let files = &self.levels[0];
        let (trigger, most) = (self.options.l0_trigger.max(1), self.options.l0_depth_max.max(1));
        // Files that do not overlap cost scans little, but each read looks at their bounds.
        let waiting = files.iter().filter(|file| self.free(file)).count();
        let crowded = waiting / 4 >= trigger;
        let mut clusters = self.waiting_clusters();
        clusters.retain(|cluster| cluster.depth >= trigger.min(most) || crowded);
        let all =
            Cluster { files: (0..files.len()).collect(), range: hull(files.iter()), depth: 0 };
        clusters.iter().find_map(|cluster| {
            let whole = self.to_base(cluster, Reason::Level0);
            let above: u64 = cluster.files.iter().map(|&i| files[i].meta().len).sum();
            let rewritten = whole.bytes() - above;
            let costly = rewritten > above.saturating_mul(4);
            let blocked = !self.busy.allows(&whole);
            // Files that overlap the base alone, and not each other, are merged too.
            let apart = || self.small_files(&all, true).filter(|_| cluster.depth < trigger);
            let small = (costly || blocked && cluster.depth >= most)
                .then(|| self.small_files(cluster, crowded).or_else(apart))
                .flatten();
            let due = rewritten <= above || cluster.depth >= most || crowded;
            let plan = small.or_else(|| (due && !blocked).then_some(whole))?;
            let score = cluster.depth.max(waiting / 4) as u64 * FULL / trigger as u64;
            Some((score.max(FULL), plan))
        })
    }

    /// Level 0 in clusters, the deepest first. What is being compacted does not count in their depth.
    fn waiting_clusters(&self) -> Vec<Cluster> {
        let mut clusters = clusters(&self.levels[0]);
        for cluster in &mut clusters {
            let files = cluster.files.iter().map(|&i| &self.levels[0][i]);
            let waiting: Vec<Arc<F>> = files.filter(|file| self.free(file)).cloned().collect();
            cluster.depth = depth(&waiting);
        }
        clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.depth));
        clusters
    }

    /// All of a cluster into the base. Taking *all* files that hang together takes every older file
    /// that overlaps one taken (I3).
    pub(super) fn to_base(&self, cluster: &Cluster, reason: Reason) -> Compaction<F> {
        let files = cluster.files.iter().map(|&i| Arc::clone(&self.levels[0][i])).collect();
        self.plan(reason, 0, self.targets.base, files)
    }

    /// The newest files of a cluster that are of about one size, into one run of level 0. They are enough
    /// if level 0 gets less deep by that, not only fewer files: a large flush leaves several, side by side.
    /// If it is `crowded`, fewer files are enough.
    fn small_files(&self, cluster: &Cluster, crowded: bool) -> Option<Compaction<F>> {
        let files = &self.levels[0];
        let mut run: Vec<Arc<F>> = Vec::new();
        let mut total = 0u64;
        for &i in cluster.files.iter().skip_while(|&&i| !self.free(&files[i])) {
            let len = files[i].meta().len;
            let fits = total == 0 || len <= total.saturating_mul(2);
            if !fits || !self.free(&files[i]) || total + len > self.options.compaction_bytes_max {
                break;
            }
            total += len;
            run.push(Arc::clone(&files[i]));
        }
        // The output is cut as well.
        let outputs = (total / self.options.file_bytes.max(1)) as usize;
        let replaced = if crowded { run.len().saturating_sub(outputs) } else { depth(&run) };
        if replaced < (self.options.l0_trigger / 2).max(2) {
            return None;
        }
        self.as_one_run(Reason::SmallFiles, run)
    }

    /// Level 0, if scans have paid for it: the deepest cluster that can be merged, into the base if it brings as
    /// much as that has to rewrite, else its newest runs of about one size into one.
    fn scanned(&self, asked: u64) -> Option<Compaction<F>> {
        let files = &self.levels[0];
        if !scans_pay(asked, self.options.l0_scan_bytes, bytes(files)) {
            return None;
        }
        let clusters = self.waiting_clusters();
        clusters.iter().take_while(|cluster| cluster.depth >= 2).find_map(|cluster| {
            let whole = self.to_base(cluster, Reason::Scans);
            let above: u64 = cluster.files.iter().map(|&i| files[i].meta().len).sum();
            let pays = whole.bytes() <= above.saturating_mul(2) && self.busy.allows(&whole);
            if pays { Some(whole) } else { self.alike_runs(cluster) }
        })
    }

    /// The newest runs of a cluster that are of about one size, into one: a run grows by half whenever it is
    /// rewritten for newer ones, so that scans that go on for ever do not make it rewritten for each flush.
    fn alike_runs(&self, cluster: &Cluster) -> Option<Compaction<F>> {
        let files: Vec<Arc<F>> =
            cluster.files.iter().map(|&i| Arc::clone(&self.levels[0][i])).collect();
        let (mut taken, mut total) = (Vec::new(), 0u64);
        for run in levels::runs(&files) {
            let len = bytes(&run);
            let fits = taken.is_empty() || len <= total.saturating_mul(2);
            let most = self.options.compaction_bytes_max;
            if !fits || total + len > most || !run.iter().all(|file| self.free(file)) {
                break;
            }
            total += len;
            taken.push(run);
        }
        if taken.len() < 2 {
            return None;
        }
        // Newest first, as they were.
        let is_taken =
            |file: &Arc<F>| taken.iter().any(|run| run.iter().any(|f| Arc::ptr_eq(f, file)));
        self.as_one_run(Reason::Scans, files.into_iter().filter(is_taken).collect())
    }

    /// These files of level 0, newest first, into one run in their place.
    fn as_one_run(&self, reason: Reason, run: Vec<Arc<F>>) -> Option<Compaction<F>> {
        // The output takes the place of the run, so nobody else may belong into the middle of it:
        // files of other sources may carry any sequence numbers.
        let low = run.iter().map(|f| f.meta().seqno_min).min()?;
        let high = run.iter().map(|f| f.meta().seqno_max).max()?;
        let range = hull(run.iter());
        let inside = |f: &Arc<F>| {
            let meta = f.meta();
            meta.seqno_min <= high && meta.seqno_max >= low && meta.bounds.overlaps(&range)
        };
        let mut others = self.levels[0].iter().filter(|f| !run.iter().any(|r| Arc::ptr_eq(r, f)));
        if others.any(inside) {
            return None;
        }
        let plan = self.plan(reason, 0, 0, run);
        self.busy.allows(&plan).then_some(plan)
    }

    /// Neighbours in a level from 1 on that are small, into one file in their place. None of them has
    /// more than half of the bytes: so each byte is rewritten as often as its file doubles until it is
    /// no longer small, and no more. The output meets too little below to be cut: there are fewer
    /// files after it.
    fn small_neighbours(&self) -> Option<Compaction<F>> {
        let most = self.options.file_bytes;
        let small = |f: &&Arc<F>| self.free(f) && f.meta().len <= most / SMALL_PART;
        (1..LEVELS).find_map(|level| {
            let files = &self.levels[level];
            (0..files.len()).find_map(|from| {
                let mut total = 0;
                let mut fits = |f: &&Arc<F>| {
                    total += f.meta().len;
                    total <= most
                };
                let run = files[from..].iter().take_while(small).take_while(&mut fits);
                let mut run: Vec<_> = run.cloned().collect();
                let (mut total, mut largest, mut longest) = (0, 0, 0);
                for (i, file) in run.iter().enumerate() {
                    total += file.meta().len;
                    largest = file.meta().len.max(largest);
                    let enough = i + 1 >= SMALL_RUN && largest <= total / 2;
                    longest = if enough { i + 1 } else { longest };
                }
                run.truncate(longest);
                if run.is_empty() {
                    return None;
                }
                let plan = self.plan(Reason::SmallFiles, level, level, run);
                let met: u64 = plan.grandparents.iter().map(|(_, len)| len).sum();
                let whole = met <= self.options.overlap_bytes_max();
                (whole && self.busy.allows(&plan)).then_some(plan)
            })
        })
    }

    /// The best file of a level into the next: clipped ones, then those that rewrite least below
    /// for what they bring, where a tombstone brings as much as what it will remove.
    fn level(&self, level: usize) -> Option<Compaction<F>> {
        let mut files: Vec<(bool, u64, &Arc<F>)> = self.levels[level]
            .iter()
            .filter(|file| self.free(file))
            .map(|file| {
                let meta = file.meta();
                let next = &self.levels[level + 1];
                let rewritten = bytes(&next[levels::overlapping(next, &meta.bounds)]);
                let entries = u128::from(meta.entries.max(1));
                let tombstones = u128::from(meta.tombstones()).min(entries);
                let brings = u128::from(meta.len.max(1)) * (entries + tombstones) / entries;
                let cost = u128::from(rewritten) * 1024 / brings.max(1);
                (!meta.clipped, cost.min(u128::from(u64::MAX)) as u64, file)
            })
            .collect();
        files.sort_by_key(|&(whole, cost, _)| (whole, cost));
        let mut plans = files.into_iter().map(|(_, _, file)| self.widened(level, file));
        plans.find(|plan| self.busy.allows(plan))
    }

    /// A file into the next level, with all its neighbours that rewrite nothing more there.
    fn widened(&self, level: usize, file: &Arc<F>) -> Compaction<F> {
        let one = self.plan(Reason::Size, level, level + 1, vec![Arc::clone(file)]);
        if one.trivial_move || one.inputs.len() < 2 {
            return one;
        }
        let here = &self.levels[level];
        let more = here[levels::overlapping(here, &one.range)].to_vec();
        if more.len() < 2 {
            return one;
        }
        let wide = self.plan(Reason::Size, level, level + 1, more);
        let same = wide.inputs.last().map(|i| i.1.len()) == one.inputs.last().map(|i| i.1.len());
        let fits = wide.bytes() <= self.options.compaction_bytes_max;
        if same && fits && self.busy.allows(&wide) { wide } else { one }
    }

    /// A file whose dead bytes a rewrite in place removes for certain, so that it comes up once.
    fn dead_weight(&self, oldest_snapshot: SeqNo) -> Option<Compaction<F>> {
        let mut files = (1..LEVELS).flat_map(|l| self.levels[l].iter().map(move |f| (l, f)));
        files.find_map(|(level, file)| {
            let meta = file.meta();
            let reason = if meta.clipped && self.options.rewrite_clipped {
                Reason::Clipped
            } else if self.is_shed(level, file, oldest_snapshot) {
                Reason::Tombstones
            } else {
                return None;
            };
            let plan = self.plan(reason, level, level, vec![Arc::clone(file)]);
            self.busy.allows(&plan).then_some(plan)
        })
    }

    /// Would a rewrite in place drop all tombstones, and are they many?
    fn is_shed(&self, level: usize, file: &Arc<F>, oldest_snapshot: SeqNo) -> bool {
        let (meta, percent) = (file.meta(), self.options.tombstone_percent);
        let many = meta.tombstones() > 0
            && u128::from(meta.tombstones()) * 100
                >= u128::from(meta.entries) * u128::from(percent);
        let deeper = || {
            let mut levels = self.levels[level + 1..].iter();
            levels.any(|l| !levels::overlapping(l, &meta.bounds).is_empty())
        };
        percent > 0 && many && meta.seqno_max <= oldest_snapshot && !deeper()
    }

    /// Completes a plan: what overlaps in the output level, what lies below, what comes next.
    pub(super) fn plan(
        &self,
        reason: Reason,
        level: usize,
        output_level: usize,
        files: Vec<Arc<F>>,
    ) -> Compaction<F> {
        let mut range = hull(files.iter());
        let mut lower = Vec::new();
        if output_level > level {
            let output = &self.levels[output_level];
            lower = output[levels::overlapping(output, &range)].to_vec();
            range = join(range, &hull(lower.iter()));
            for between in &self.levels[level + 1..output_level] {
                let none = levels::overlapping(between, &range).is_empty();
                assert!(none, "a compaction would pass files on its way down");
            }
        }
        let mut older: Vec<KeyRange> = self.levels[output_level + 1..]
            .iter()
            .flat_map(|deeper| &deeper[levels::overlapping(deeper, &range)])
            .map(|file| file.meta().bounds.clone())
            .collect();
        if output_level == 0 {
            let inputs = |f: &&Arc<F>| !files.iter().any(|input| Arc::ptr_eq(input, f));
            older.extend(self.levels[0].iter().filter(inputs).map(|f| f.meta().bounds.clone()));
        }
        let grandparents: Vec<(KeyRange, u64)> = match self.levels.get(output_level + 1) {
            Some(next) if output_level > 0 => next[levels::overlapping(next, &range)]
                .iter()
                .map(|file| (file.meta().bounds.clone(), file.meta().len))
                .collect(),
            _ => Vec::new(),
        };
        let overlap: u64 = grandparents.iter().map(|(_, len)| len).sum();
        let trivial_move = output_level > level
            && files.len() == 1
            && lower.is_empty()
            && !files[0].meta().clipped
            && overlap <= self.options.overlap_bytes_max();
        let mut inputs = vec![(level as u8, files)];
        if !lower.is_empty() {
            inputs.push((output_level as u8, lower));
        }
        let below = Below::ranges(older);
        Compaction { reason, level, output_level, inputs, trivial_move, range, below, grandparents }
    }
}

#[cfg(test)]
mod tests;
