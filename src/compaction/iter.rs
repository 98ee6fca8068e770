//! Which versions, operands and tombstones survive a flush or a compaction.
//!
//! Readers read at the live snapshots `s1 < s2 < …`, or at the top, above every entry of the job.
//! They cut sequence numbers into *stripes*: `(0, s1]`, `(s1, s2]`, …, `(sn, top]`. Every reader sees
//! either all of a stripe or nothing of it, since no reader stands inside one. (A snapshot taken while
//! the job runs is at or above all its entries: it reads at the top.) So inside a stripe only what the
//! whole stripe amounts to matters. Per user key, versions newest first:
//!
//! 1. **Shadowing.** A put or delete hides all older versions *in its stripe*: they are dropped. Who
//!    sees one of them sees the whole stripe, thus also what hides it.
//! 2. **Range tombstones** at `t` hide versions below `t`; those *in the stripe of `t`* are dropped,
//!    by the same argument. A version in an older stripe stays: a snapshot below `t` sees it.
//! 3. **Deletes** are dropped if nothing older of the key is kept and nothing older can lie below
//!    ([`Below`]). Whoever sees the delete then finds nothing without it, too. Nothing kept is also
//!    what makes this right with snapshots: an older stripe that still holds a value keeps the delete.
//! 4. **Range tombstones** are dropped where nothing older can lie below, if they are in the *oldest*
//!    stripe: every version they hide that is among the inputs is in the same stripe, so rule 2 drops
//!    it, and there is none elsewhere. In a younger stripe they stay, since versions that they hide may
//!    be kept for a snapshot. Of several over the same keys in one stripe the newest hides the most.
//! 5. **Folding.** Operands directly above a put, a delete, a range tombstone *of the same stripe*, or
//!    above nothing (as in rule 3) are merged to a put with the number of the newest operand folded.
//!    All the parts are seen together or not at all, and the result hides what its base hid.
//! 6. **Combining.** Without a base in the stripe, neighbouring operands of the stripe become one with
//!    the number of the newer. Same argument. Never across a snapshot, which would see one part alone.
//!    Without an operator, operands stay as they are; rules 1 and 2 still drop hidden ones.
//! 7. **The filter** is asked only about the youngest stripe, which no snapshot sees, and about what is
//!    left there after rules 1–6. A value it removes becomes a delete (which rule 3 may drop): older
//!    versions must not come back. An operand it removes is dropped only if the key is absent below
//!    it; with something older there it stays, for nothing may show again that it hid.
//!
//! Sequence numbers stay as they are, so an output can be judged like its inputs. Inputs outside their
//! file's bounds never get here: the cursors and tombstones of clipped files are clipped.

use std::cmp::Ordering;
use std::ops::Range;

use crate::base::canary::Canary;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::key::InternalKey;
use crate::base::key::KeyRange;
use crate::base::key::SEQNO_MAX;
use crate::base::key::SeqNo;
use crate::base::key::ValueKind;
use crate::base::sync::Arc;
use crate::compaction::below::Below;
use crate::compaction::filter::CompactionFilter;
use crate::compaction::filter::Decision;
use crate::compaction::filter::EntryKind;
use crate::compaction::fold::Folder;
use crate::compaction::fold::Versions;
use crate::iter::InternalIterator;
use crate::iter::range_del::RangeTombstone;
use crate::iter::range_del::RangeTombstones;
use crate::iter::resolve::MergeOperator;

/// What a job must respect.
pub struct Rules {
    /// Sequence numbers of all live snapshots, read when the job starts, in any order.
    pub snapshots: Vec<SeqNo>,
    /// Where versions older than the inputs may lie.
    pub below: Below,
    /// The family's merge operator.
    pub operator: Option<Arc<dyn MergeOperator>>,
    /// The family's filter for this compaction.
    pub filter: Option<Box<dyn CompactionFilter>>,
}

/// What an iterator did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries read.
    pub read: u64,
    /// Entries kept.
    pub kept: u64,
    /// Entries that the filter removed or replaced.
    pub filtered: u64,
}

/// Walks merged inputs user key by user key and yields what survives. The rules and their proof are
/// at the top of this file. Holds all surviving versions of one key in memory.
pub struct CompactionIterator<I> {
    input: I,
    range: KeyRange,
    tombstones: Arc<RangeTombstones>,
    snapshots: Vec<SeqNo>,
    below: Below,
    filter: Option<Box<dyn CompactionFilter>>,
    folder: Folder,
    started: bool,
    /// The current user key's versions as read, without the hidden ones, newest first.
    read: Versions,
    stripes: Vec<Stripe>,
    /// What is left of them, newest first.
    kept: Versions,
    key: Vec<u8>,
    replacement: Vec<u8>,
    counts: Counts,
}

/// The visible versions of the current key in one stripe.
#[derive(Clone, Debug)]
struct Stripe {
    index: usize,
    versions: Range<usize>,
    /// A range tombstone of this stripe lies under the versions.
    covered: bool,
}

/// What the operands of a stripe stand on.
enum Base {
    Put(usize),
    Delete(usize),
    /// Nothing: hidden by a range tombstone of the stripe, or nothing older exists.
    Absent,
    /// Something in an older stripe or outside the inputs, perhaps.
    Unknown,
}

impl<I: InternalIterator> CompactionIterator<I> {
    /// As [`new`](CompactionIterator::new), for the keys in `range` alone.
    pub fn within(
        range: KeyRange,
        input: I,
        tombstones: Arc<RangeTombstones>,
        rules: Rules,
    ) -> CompactionIterator<I> {
        CompactionIterator { range, ..CompactionIterator::new(input, tombstones, rules) }
    }

    /// An iterator over `input`, the merged cursors of all inputs, and `tombstones`, the union of
    /// their range tombstones. Moves `input` to its first entry at the first step.
    pub fn new(input: I, tombstones: Arc<RangeTombstones>, rules: Rules) -> CompactionIterator<I> {
        let mut snapshots = rules.snapshots;
        if Canary::SnapshotIsIgnored.is_planted() {
            snapshots.clear();
        }
        snapshots.sort_unstable();
        snapshots.dedup();
        CompactionIterator {
            input,
            range: KeyRange::default(),
            tombstones,
            snapshots,
            below: rules.below,
            filter: rules.filter,
            folder: Folder::new(rules.operator),
            started: false,
            read: Versions::default(),
            stripes: Vec::new(),
            kept: Versions::default(),
            key: Vec::new(),
            replacement: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Reads all versions of the next user key; `false` at the end. [`versions`] may be empty then.
    ///
    /// # Errors
    /// Those of the inputs; `Corruption` if they are out of order. The iterator must be dropped then.
    ///
    /// [`versions`]: CompactionIterator::versions
    pub fn step(&mut self) -> Result<bool> {
        if !std::mem::replace(&mut self.started, true) {
            match self.range.start.as_slice() {
                [] => self.input.first()?,
                start => self.input.seek(InternalKey::seek(start, SEQNO_MAX))?,
            }
        }
        let Some(plain) = self.read_key()? else {
            self.kept.clear();
            return Ok(false);
        };
        if plain && self.filter.is_none() {
            std::mem::swap(&mut self.read, &mut self.kept);
        } else {
            self.resolve();
        }
        self.counts.kept += self.kept.len() as u64;
        Ok(true)
    }

    /// The current user key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// What survives of the current user key, newest first. Perhaps nothing.
    pub fn versions(&self) -> impl Iterator<Item = (SeqNo, ValueKind, &[u8])> {
        self.kept.iter()
    }

    /// The range tombstones that survive inside `region`, cut to it. O(all range tombstones).
    pub fn tombstones(&self, region: &KeyRange) -> RangeTombstones {
        if self.tombstones.is_empty() {
            return RangeTombstones::default();
        }
        let mut list = Vec::new();
        for (start, end, seqnos) in self.tombstones.clip(region).fragments() {
            let mut last = None;
            for &seqno in seqnos {
                let stripe = self.stripe(seqno);
                // Rule 4: the newest of each stripe, and not even that one at the bottom.
                let newest = last.replace(stripe) != Some(stripe);
                if newest && (stripe > 0 || self.below.may_hold_any(start, end)) {
                    list.push(RangeTombstone { start: start.into(), end: end.into(), seqno });
                }
            }
        }
        RangeTombstones::new(list)
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn stripe(&self, seqno: SeqNo) -> usize {
        self.snapshots.partition_point(|&snapshot| snapshot < seqno)
    }

    /// The newest range tombstone of a stripe that covers the current key; 0: none.
    fn cover(&self, stripe: usize) -> SeqNo {
        let upper = self.snapshots.get(stripe).copied().unwrap_or(SEQNO_MAX);
        let lower = if stripe > 0 { self.snapshots[stripe - 1] } else { 0 };
        let seqno = self.tombstones.cover(&self.key, upper);
        if seqno > lower { seqno } else { 0 }
    }

    /// Rules 1 and 2: collects the versions of the next user key that their own stripe does not hide.
    /// `None` at the end; else whether all that was collected are puts.
    fn read_key(&mut self) -> Result<Option<bool>> {
        self.read.clear();
        self.stripes.clear();
        let Some((first, _)) = self.input.entry() else { return Ok(None) };
        if self.range.end.as_deref().is_some_and(|end| first.user_key >= end) {
            return Ok(None);
        }
        self.key.clear();
        self.key.extend_from_slice(first.user_key);
        let mut plain = true;
        let mut last = None;
        let mut hidden = false;
        let mut cover = 0;
        while let Some((entry, value)) = self.input.entry() {
            // The first entry is that of the key.
            match if last.is_some() { entry.user_key.cmp(&self.key) } else { Ordering::Equal } {
                Ordering::Greater => break,
                Ordering::Equal => {}
                Ordering::Less => {
                    return Err(Error::corruption(
                        "keys of a compaction's inputs are out of order",
                    ));
                }
            }
            let (seqno, kind) = (entry.seqno, entry.kind);
            if last.is_some_and(|last| last <= seqno) || kind == ValueKind::RangeDelete {
                return Err(Error::corruption(
                    "versions of a compaction's inputs are out of order",
                ));
            }
            last = Some(seqno);
            let index = self.stripe(seqno);
            if self.stripes.last().is_none_or(|stripe| stripe.index != index) {
                let here = self.read.len();
                cover = self.cover(index);
                hidden = false;
                self.stripes.push(Stripe { index, versions: here..here, covered: cover > 0 });
            }
            if !hidden && seqno >= cover {
                self.read.push(seqno, kind, value);
                if let Some(stripe) = self.stripes.last_mut() {
                    stripe.versions.end += 1;
                }
                hidden = kind != ValueKind::Merge;
                plain &= kind == ValueKind::Put;
            }
            self.counts.read += 1;
            self.input.next()?;
        }
        Ok(Some(plain))
    }

    /// Rules 3 and 5 to 7, from the oldest stripe to the youngest.
    fn resolve(&mut self) {
        self.kept.clear();
        let bottom = !self.below.may_hold(&self.key) || Canary::DeleteDropsEarly.is_planted();
        let stripes = std::mem::take(&mut self.stripes);
        for stripe in stripes.iter().rev().filter(|stripe| !stripe.versions.is_empty()) {
            let mut keeper = Keeper {
                key: &self.key,
                kept: &mut self.kept,
                bottom,
                absent: false,
                filter: self.filter.as_mut().filter(|_| {
                    stripe.index == self.snapshots.len() || Canary::FilterSeesSnapshots.is_planted()
                }),
                replacement: &mut self.replacement,
                filtered: 0,
            };
            resolve_stripe(stripe, &self.read, &mut self.folder, &mut keeper);
            self.counts.filtered += keeper.filtered;
        }
        self.stripes = stripes;
        self.kept.reverse();
    }
}

/// Rules 5 and 6: folds the operands of one stripe onto what they stand on, and combines the rest.
fn resolve_stripe(stripe: &Stripe, read: &Versions, folder: &mut Folder, keeper: &mut Keeper<'_>) {
    let mut operands = stripe.versions.clone();
    let last = operands.end - 1;
    let base = match read.get(last).1 {
        ValueKind::Put => Base::Put(last),
        ValueKind::Delete => Base::Delete(last),
        _ if stripe.covered || keeper.nothing_older() => Base::Absent,
        _ => Base::Unknown,
    };
    let folded = match base {
        Base::Put(i) => {
            operands.end = i;
            folder.onto_base(keeper.key, Some(read.get(i).2), read, operands.clone())
        }
        Base::Delete(i) => {
            operands.end = i;
            folder.onto_base(keeper.key, None, read, operands.clone())
        }
        Base::Absent => folder.onto_base(keeper.key, None, read, operands.clone()),
        Base::Unknown => 0,
    };
    keeper.absent = matches!(base, Base::Absent);
    if folded > 0 {
        operands.end -= folded;
        keeper.keep(read.get(operands.end).0, ValueKind::Put, folder.value());
    } else if let Base::Put(i) | Base::Delete(i) = base {
        let (seqno, kind, value) = read.get(i);
        keeper.keep(seqno, kind, value);
    }
    if operands.len() > 1 {
        for (seqno, operand) in folder.combine(keeper.key, read, operands) {
            keeper.keep(seqno, ValueKind::Merge, operand);
        }
    } else if operands.len() == 1 {
        let (seqno, kind, value) = read.get(operands.start);
        keeper.keep(seqno, kind, value);
    }
}

/// Rules 3 and 7: takes the versions of a key oldest first and keeps those that must be kept.
struct Keeper<'a> {
    key: &'a [u8],
    kept: &'a mut Versions,
    /// Nothing older of the key lies below the outputs.
    bottom: bool,
    /// Whoever sees this stripe finds no older version of the key under the next one.
    absent: bool,
    /// Set only in the stripe above all snapshots.
    filter: Option<&'a mut Box<dyn CompactionFilter>>,
    replacement: &'a mut Vec<u8>,
    filtered: u64,
}

impl Keeper<'_> {
    fn nothing_older(&self) -> bool {
        self.bottom && self.kept.is_empty()
    }

    fn keep(&mut self, seqno: SeqNo, kind: ValueKind, value: &[u8]) {
        let entry = match kind {
            ValueKind::Put => EntryKind::Value,
            ValueKind::Merge => EntryKind::Operand,
            _ => return self.delete(seqno),
        };
        let decision = match &mut self.filter {
            None => Decision::Keep,
            Some(filter) => {
                self.replacement.clear();
                filter.decide(self.key, entry, value, self.replacement)
            }
        };
        self.filtered += u64::from(decision != Decision::Keep);
        match (decision, entry) {
            (Decision::Remove, EntryKind::Value) => return self.delete(seqno),
            (Decision::Remove, EntryKind::Operand) if self.absent => return,
            (Decision::Replace, _) => self.kept.push(seqno, kind, self.replacement),
            _ => self.kept.push(seqno, kind, value),
        }
        self.absent = false;
    }

    fn delete(&mut self, seqno: SeqNo) {
        if !self.nothing_older() {
            self.kept.push(seqno, ValueKind::Delete, &[]);
        }
        self.absent = true;
    }
}

#[cfg(test)]
pub(super) mod tests;
