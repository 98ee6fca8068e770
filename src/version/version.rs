//! The live files of one family at one moment: what a reader pins, and how it asks them.

use crate::base::canary::Canary;
use crate::base::error::Result;
use crate::base::key::{KeyRange, SeqNo};
use crate::base::limits::LEVELS;
use crate::base::sync::{Arc, AtomicU64, Ordering};
use crate::iter::range_del::RangeTombstones;
use crate::iter::resolve::{Resolver, Step};
use crate::table::filter::key_hash;
use crate::version::edit::FamilyEdit;
use crate::version::file::TableFile;
use crate::version::level_iter::{ClippedIterator, LevelIterator, VersionIterator};
use crate::version::levels::{self, Described, Level, Levels};
use crate::version::meta::FileMeta;

/// Filters that a point read asks before it looks into the files.
const FILTERS_AT_ONCE: usize = 8;

/// An immutable set of files in their levels. Level 0 is newest first; levels 1 and up are sorted
/// and disjoint.
#[derive(Debug, Default)]
pub struct Version {
    /// The files.
    pub levels: Levels<TableFile>,
    /// Level 0 again, newest first: a flush makes several tables side by side, and a cursor needs only one of
    /// them at a time.
    runs: Vec<Level<TableFile>>,
    /// Levels 1 and up again, those that have files.
    deeper: Vec<Level<TableFile>>,
    bytes: [u64; LEVELS],
    overlap_depth: usize,
    /// Has any file range tombstones?
    range_deletes: bool,
    /// How many runs of level 0 scans have asked beyond their first, since a file last left it.
    asked: AtomicU64,
}

impl Version {
    /// A version of these files.
    pub(super) fn new(levels: Levels<TableFile>) -> Version {
        let bytes = std::array::from_fn(|level| {
            levels[level].iter().fold(0, |sum, file| file.meta().len.saturating_add(sum))
        });
        let overlap_depth = overlap_depth(&levels[0]);
        let mut files = levels.iter().flat_map(|level| level.iter());
        let range_deletes = files.any(|file| file.meta().range_deletes > 0);
        let runs = levels::runs(&levels[0]);
        let deeper = levels[1..].iter().filter(|level| !level.is_empty()).cloned().collect();
        let asked = AtomicU64::new(0);
        Version { levels, runs, deeper, bytes, overlap_depth, range_deletes, asked }
    }

    /// The version after `edit`, and the files that are gone. `make` makes handles of new files.
    pub(super) fn edited(
        &self,
        edit: &FamilyEdit,
        make: impl FnMut(&Arc<FileMeta>) -> Arc<TableFile>,
    ) -> Result<(Version, Vec<Arc<TableFile>>)> {
        let (levels, gone) = levels::edited(&self.levels, edit, make)?;
        let version = Version::new(levels);
        if !edit.removed.iter().any(|&(level, _)| level == 0) {
            version.asked.store(self.asked(), Ordering::Relaxed);
        }
        Ok((version, gone))
    }

    /// Checks the order of all levels (I2, I3). Linear in the files, quadratic in level 0's.
    ///
    /// # Errors
    /// `Corruption` naming two files that stand against it.
    pub fn check(&self) -> Result<()> {
        (0..LEVELS).try_for_each(|level| levels::check(level, &self.levels[level]))
    }

    /// The last source of a point read: asks the files that may hold `key`, newest first, until
    /// `resolver`, which was reset to `at` and has seen all newer sources, knows.
    ///
    /// Answers [`Step::Value`] after `found` was lent the value, [`Step::Absent`], or
    /// [`Step::Merge`]: the resolver has the operands. Never [`Step::More`]. Allocates nothing but
    /// what the resolver keeps.
    ///
    /// # Errors
    /// Those of opening and reading tables.
    pub fn get(
        &self,
        key: &[u8],
        at: SeqNo,
        resolver: &mut Resolver,
        found: &mut dyn FnMut(&[u8]),
    ) -> Result<Step> {
        debug_assert_eq!(at, resolver.at());
        let hash = key_hash(key);
        let level0 = self.levels[0].iter().filter(|file| file.meta().bounds.contains(key));
        let deeper = self.deeper.iter().filter_map(|level| levels::find(level, key));
        let mut files = level0.chain(deeper);
        loop {
            // Before any file is looked into, filters are asked: so their misses overlap.
            let mut asked = [None; FILTERS_AT_ONCE];
            let mut count = 0;
            for (slot, file) in asked.iter_mut().zip(&mut files) {
                *slot = file.may_concern(hash).then_some(file);
                count += 1;
            }
            for file in asked.into_iter().flatten() {
                let step = get_in(file, key, hash, at, resolver, found)?;
                if step != Step::More {
                    return Ok(step);
                }
            }
            if count < FILTERS_AT_ONCE {
                return Ok(resolver.end());
            }
        }
    }

    /// Are there no files?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.deeper.is_empty()
    }

    /// Most cursors that [`iterators`](Version::iterators) hands out.
    pub fn sources_max(&self) -> usize {
        self.runs.len() + self.deeper.len()
    }

    /// Hands out one cursor for each source that overlaps `range`: runs of disjoint files of level 0,
    /// newest first, then levels. They show nothing outside the files' bounds, but much outside `range`,
    /// where they are incomplete. Opens nothing. The number of runs of level 0 among them.
    pub fn iterators(
        &self,
        range: &KeyRange,
        fill_cache: bool,
        mut add: impl FnMut(VersionIterator),
    ) -> usize {
        let mut runs = 0;
        for (i, level) in self.runs.iter().chain(&self.deeper).enumerate() {
            let places = levels::overlapping(level, range);
            runs += usize::from(i < self.runs.len() && !places.is_empty());
            match level.get(places.clone()) {
                Some([]) | None => {}
                Some([file]) => {
                    let cursor = ClippedIterator::new(Arc::clone(file), fill_cache);
                    add(VersionIterator::Table(cursor));
                }
                Some(_) => {
                    let cursor = LevelIterator::new(Arc::clone(level), places, fill_cache);
                    add(VersionIterator::Level(cursor));
                }
            }
        }
        runs
    }

    /// Notes that a scan asks so many runs of level 0, at least one. [`asked`](Version::asked) before, and now.
    #[inline]
    pub fn ask_runs(&self, runs: usize) -> (u64, u64) {
        debug_assert!(runs > 0);
        let more = runs as u64 - 1;
        let before = self.asked.fetch_add(more, Ordering::Relaxed);
        (before, before + more)
    }

    /// How many runs of level 0 scans have asked beyond their first, since a file last left it, here or in an
    /// earlier version.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// What scans have paid for was done, and nothing came of it.
    pub fn forget_asked(&self) {
        self.asked.store(0, Ordering::Relaxed);
    }

    /// The range tombstones of all files that overlap `range`, each file's cut to its bounds. Opens
    /// only files that have some.
    ///
    /// # Errors
    /// Those of opening tables.
    pub fn range_tombstones(&self, range: &KeyRange) -> Result<Vec<Arc<RangeTombstones>>> {
        let mut found = Vec::new();
        if !self.range_deletes {
            return Ok(found);
        }
        for (level, _) in self.levels.iter().enumerate() {
            for file in self.overlapping_files(level, range) {
                let all = clipped_tombstones(file)?;
                if !all.is_empty() {
                    found.push(all);
                }
            }
        }
        Ok(found)
    }

    /// Most files of level 0 that one key can lie in: what a point read costs there.
    pub fn overlap_depth_l0(&self) -> usize {
        self.overlap_depth
    }

    /// Bytes of a level's files, clipped or not.
    pub fn bytes(&self, level: usize) -> u64 {
        self.bytes[level]
    }

    /// All files with their levels, level 0 first.
    pub fn files(&self) -> impl Iterator<Item = (usize, &Arc<TableFile>)> {
        let levels = self.levels.iter().enumerate();
        levels.flat_map(|(level, files)| files.iter().map(move |file| (level, file)))
    }

    fn overlapping_files(
        &self,
        level: usize,
        range: &KeyRange,
    ) -> impl Iterator<Item = &Arc<TableFile>> {
        let files = &self.levels[level];
        let places = if level == 0 { 0..files.len() } else { levels::overlapping(files, range) };
        files[places].iter().filter(move |file| file.meta().bounds.overlaps(range))
    }

    /// About how many bytes of the files hold keys of `range`. Opens the files that lie across its
    /// ends, and clipped ones.
    ///
    /// # Errors
    /// Those of opening tables.
    pub fn approximate_size(&self, range: &KeyRange) -> Result<u64> {
        let mut sum = 0u64;
        for (level, _) in self.levels.iter().enumerate() {
            for file in self.overlapping_files(level, range) {
                let meta = file.meta();
                let bytes = if range.covers(&meta.bounds) && !meta.clipped {
                    meta.len
                } else {
                    let part = range.intersect(&meta.bounds);
                    let table = file.table()?;
                    let end = part.end.as_deref().map(|end| table.approximate_offset(end));
                    let start = table.approximate_offset(&part.start);
                    end.unwrap_or(meta.len).saturating_sub(start)
                };
                sum = sum.saturating_add(bytes);
            }
        }
        Ok(sum)
    }
}

/// The range tombstones of a file, cut to its bounds.
///
/// # Errors
/// Those of opening the table.
pub fn clipped_tombstones(file: &TableFile) -> Result<Arc<RangeTombstones>> {
    let meta = file.meta();
    if meta.range_deletes == 0 {
        return Ok(RangeTombstones::empty());
    }
    let all = file.table()?.range_tombstones();
    Ok(if meta.clipped { Arc::new(all.clip(&meta.bounds)) } else { Arc::clone(all) })
}

/// Asks one file whose bounds contain `key`, and which [may concern](TableFile::may_concern) it.
fn get_in(
    file: &TableFile,
    key: &[u8],
    hash: u64,
    at: SeqNo,
    resolver: &mut Resolver,
    found: &mut dyn FnMut(&[u8]),
) -> Result<Step> {
    let meta = file.meta();
    // Too new to be seen, or below a range tombstone that covers the key: nothing to add.
    if meta.seqno_min > at || meta.seqno_max < resolver.covered() {
        return Ok(Step::More);
    }
    if let Some(memtable) = file.memtable() {
        debug_assert!(!memtable.has_range_tombstones(), "such a memtable is not kept");
        return Ok(memtable.frozen_versions(key, at).resolve(resolver, found));
    }
    let table = file.table()?;
    if meta.range_deletes > 0 {
        let denied = !table.may_contain(hash);
        if !(denied && Canary::FilterHidesRangeDelete.is_planted()) {
            resolver.cover(table.range_tombstones().cover(key, at));
        }
        if denied {
            return Ok(Step::More);
        }
    }
    let mut step = Step::More;
    table.get(key, hash, at, &mut |seqno, kind, value| {
        step = resolver.push(seqno, kind, value);
        if step == Step::Value {
            found(value);
        }
        step == Step::More
    })?;
    Ok(step)
}

/// The depth is greatest at some file's first key.
fn overlap_depth(files: &[Arc<TableFile>]) -> usize {
    let depth_at = |key: &[u8]| files.iter().filter(|f| f.meta().bounds.contains(key)).count();
    files.iter().map(|file| depth_at(&file.meta().bounds.start)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
