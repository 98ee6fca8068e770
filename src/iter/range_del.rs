//! Range tombstones: "no key from here to there has a value", cut into disjoint fragments.
//!
//! Overlapping tombstones are cut at each other's bounds, so that every key lies in at most one
//! fragment, and a fragment knows all sequence numbers at which its keys were deleted:
//!
//! ```text
//! tombstones   a─────────────f @5        fragments   a──c @5    c──f @9 5    f──h @9
//!                    c──────────h @9
//! ```
//!
//! All sequence numbers are kept, since a reader at 7 must still see the deletion at 5.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::base::key::{KeyRange, SeqNo};
use crate::base::sync::{Arc, OnceLock};

/// Deletes every key from `start` (inclusive) to `end` (exclusive) older than `seqno`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeTombstone {
    /// First deleted key.
    pub start: Vec<u8>,
    /// First key that is not deleted. At or below `start`: nothing is.
    pub end: Vec<u8>,
    /// When it was written.
    pub seqno: SeqNo,
}

/// An immutable set of range tombstones in fragments.
///
/// Two sets are equal if they cover the same keys at the same sequence numbers. Memory: tombstones
/// that overlap are repeated in each fragment, so `n` tombstones that *all* overlap take O(n²).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeTombstones {
    /// All bounds, ascending. Interval `i` is from bound `i` to bound `i + 1`.
    bounds: Vec<Box<[u8]>>,
    /// The sequence numbers of interval `i` are `seqnos[first[i]..first[i + 1]]`; none: a gap.
    first: Vec<usize>,
    /// Descending within an interval.
    seqnos: Vec<SeqNo>,
    fragments: usize,
}

impl RangeTombstones {
    /// Cuts tombstones into fragments. Order, duplicates and empty ranges do not matter. Neighbouring
    /// fragments with the same sequence numbers become one.
    pub fn new(list: Vec<RangeTombstone>) -> RangeTombstones {
        RangeTombstones::cut(list.iter().map(|t| (&*t.start, &*t.end, t.seqno)))
    }

    /// No tombstones, shared.
    pub fn empty() -> Arc<RangeTombstones> {
        static EMPTY: OnceLock<Arc<RangeTombstones>> = OnceLock::new();
        Arc::clone(EMPTY.get_or_init(Arc::default))
    }

    /// The union of several sets.
    pub fn merge(parts: &[&RangeTombstones]) -> RangeTombstones {
        match parts {
            [] => RangeTombstones::default(),
            [one] => (*one).clone(),
            _ => RangeTombstones::cut(parts.iter().flat_map(|part| part.pieces())),
        }
    }

    /// What these tombstones say inside `range`.
    pub fn clip(&self, range: &KeyRange) -> RangeTombstones {
        if self.span().is_none_or(|span| range.covers(&span)) {
            return self.clone();
        }
        RangeTombstones::cut(self.pieces().map(|(start, end, seqno)| {
            let start = start.max(&range.start);
            (start, range.end.as_deref().map_or(end, |limit| end.min(limit)), seqno)
        }))
    }

    /// The highest tombstone at or below `at` that covers `user_key`; 0: none. Versions of the key
    /// below it are deleted for a reader at `at`. O(log n).
    #[inline]
    pub fn cover(&self, user_key: &[u8], at: SeqNo) -> SeqNo {
        if self.fragments == 0 {
            return 0;
        }
        let after = self.bounds.partition_point(|bound| **bound <= *user_key);
        let Some(interval) = after.checked_sub(1) else { return 0 };
        let seqnos = self.interval(interval);
        seqnos.get(seqnos.partition_point(|&s| s > at)).copied().unwrap_or(0)
    }

    /// Does nothing cover anything?
    pub fn is_empty(&self) -> bool {
        self.fragments == 0
    }

    /// Number of fragments.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.fragments
    }

    /// The fragments in order: start (inclusive), end (exclusive), sequence numbers descending.
    pub fn fragments(&self) -> impl Iterator<Item = (&[u8], &[u8], &[SeqNo])> {
        self.bounds.windows(2).enumerate().filter_map(|(i, pair)| {
            let seqnos = self.interval(i);
            (!seqnos.is_empty()).then_some((&*pair[0], &*pair[1], seqnos))
        })
    }

    /// One tombstone for each fragment and sequence number: what to write in order to read the same.
    pub fn tombstones(&self) -> impl Iterator<Item = RangeTombstone> + '_ {
        self.pieces().map(|(start, end, seqno)| RangeTombstone {
            start: start.to_vec(),
            end: end.to_vec(),
            seqno,
        })
    }

    /// The lowest and the highest sequence number. O(sequence numbers).
    pub fn seqno_bounds(&self) -> Option<(SeqNo, SeqNo)> {
        Some((*self.seqnos.iter().min()?, *self.seqnos.iter().max()?))
    }

    /// The smallest range that holds every fragment.
    pub fn span(&self) -> Option<KeyRange> {
        let (first, last) = (self.bounds.first()?, self.bounds.last()?);
        Some(KeyRange::new(first.to_vec(), Some(last.to_vec())))
    }

    /// Bytes of memory held, about.
    pub fn memory_bytes(&self) -> usize {
        let bounds: usize = self.bounds.iter().map(|b| size_of::<Box<[u8]>>() + b.len()).sum();
        bounds + (self.first.len() + self.seqnos.len()) * size_of::<u64>()
    }

    fn interval(&self, i: usize) -> &[SeqNo] {
        match self.first.get(i..=i + 1) {
            Some(&[from, to]) => &self.seqnos[from..to],
            _ => &[],
        }
    }

    fn pieces(&self) -> impl Iterator<Item = (&[u8], &[u8], SeqNo)> {
        self.fragments()
            .flat_map(|(start, end, seqnos)| seqnos.iter().map(move |&s| (start, end, s)))
    }

    /// Sweeps over all bounds from left to right, with the sequence numbers in force at hand.
    fn cut<'a>(list: impl Iterator<Item = (&'a [u8], &'a [u8], SeqNo)>) -> RangeTombstones {
        let mut events: Vec<(&[u8], bool, SeqNo)> = Vec::new();
        for (start, end, seqno) in list.filter(|(start, end, _)| start < end) {
            events.push((start, true, seqno));
            events.push((end, false, seqno));
        }
        events.sort_unstable();
        let mut out = RangeTombstones::default();
        let mut active: BTreeMap<Reverse<SeqNo>, usize> = BTreeMap::new();
        for here in events.chunk_by(|a, b| a.0 == b.0) {
            // Openings first, so that a count never falls below zero in between.
            for &(_, opens, seqno) in here.iter().rev() {
                let count = active.entry(Reverse(seqno)).or_default();
                if opens {
                    *count += 1;
                } else {
                    *count -= 1;
                    if *count == 0 {
                        active.remove(&Reverse(seqno));
                    }
                }
            }
            out.push_interval(here[0].0, active.keys().map(|s| s.0));
        }
        if out.bounds.is_empty() {
            return out;
        }
        out.first.push(out.seqnos.len());
        out.fragments = out.fragments().count();
        out
    }

    /// Opens an interval at `bound`, unless it continues the one before.
    fn push_interval(&mut self, bound: &[u8], seqnos: impl Iterator<Item = SeqNo>) {
        let from = self.seqnos.len();
        self.seqnos.extend(seqnos);
        let same = self.first.last().is_some_and(|&f| self.seqnos[f..from] == self.seqnos[from..]);
        if same {
            self.seqnos.truncate(from);
        } else {
            self.bounds.push(bound.into());
            self.first.push(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::{Arbitrary, Gen, quickcheck};

    impl Arbitrary for RangeTombstone {
        fn arbitrary(g: &mut Gen) -> Self {
            let mut key = || (0..u8::arbitrary(g) % 3).map(|_| u8::arbitrary(g) % 4).collect();
            let (start, end) = (key(), key());
            RangeTombstone { start, end, seqno: SeqNo::from(u8::arbitrary(g) % 16) + 1 }
        }
    }

    fn naive(list: &[RangeTombstone], key: &[u8], at: SeqNo) -> SeqNo {
        let covers = |t: &&RangeTombstone| *t.start <= *key && *key < *t.end && t.seqno <= at;
        list.iter().filter(covers).map(|t| t.seqno).max().unwrap_or(0)
    }

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        let short = (0..5u8).flat_map(|a| (0..5u8).map(move |b| vec![a, b]));
        short.chain((0..5u8).map(|a| vec![a])).chain([vec![]])
    }

    quickcheck! {
        fn cover_is_what_a_search_of_all_says(list: Vec<RangeTombstone>) -> bool {
            let cut = RangeTombstones::new(list.clone());
            keys().all(|k| (0..18).all(|at| cut.cover(&k, at) == naive(&list, &k, at)))
        }

        fn fragments_are_disjoint_and_descending(list: Vec<RangeTombstone>) -> bool {
            let cut = RangeTombstones::new(list);
            let fragments: Vec<_> = cut.fragments().collect();
            fragments.windows(2).all(|w| w[0].1 <= w[1].0)
                && fragments.iter().all(|f| f.0 < f.1 && f.2.windows(2).all(|s| s[0] > s[1]))
                && fragments.len() == cut.len()
                && cut.is_empty() == fragments.is_empty()
        }

        fn writing_and_cutting_again_changes_nothing(list: Vec<RangeTombstone>) -> bool {
            let cut = RangeTombstones::new(list);
            RangeTombstones::new(cut.tombstones().collect()) == cut
        }

        fn clipping_changes_nothing_inside_and_leaves_nothing_outside(
            list: Vec<RangeTombstone>, range: RangeTombstone, open: bool
        ) -> bool {
            let range = KeyRange { start: range.start, end: (!open).then_some(range.end) };
            let (all, clipped) = (RangeTombstones::new(list.clone()), RangeTombstones::new(list));
            let clipped = clipped.clip(&range);
            keys().all(|k| (0..18).all(|at| {
                clipped.cover(&k, at) == if range.contains(&k) { all.cover(&k, at) } else { 0 }
            })) && clipped.span().is_none_or(|span| range.covers(&span))
        }

        fn a_merge_is_the_union(a: Vec<RangeTombstone>, b: Vec<RangeTombstone>) -> bool {
            let both = RangeTombstones::new([a.clone(), b.clone()].concat());
            let (a, b) = (RangeTombstones::new(a), RangeTombstones::new(b));
            RangeTombstones::merge(&[&a, &b]) == both && RangeTombstones::merge(&[&a]) == a
        }

        fn bounds_hold_all(list: Vec<RangeTombstone>) -> bool {
            let cut = RangeTombstones::new(list);
            let all: Vec<_> = cut.tombstones().collect();
            let least = all.iter().map(|t| t.seqno).min();
            let greatest = all.iter().map(|t| t.seqno).max();
            cut.seqno_bounds() == least.zip(greatest)
                && cut.span().is_some() != cut.is_empty()
                && all.iter().all(|t| cut.span().unwrap().contains(&t.start))
        }
    }

    #[test]
    fn the_picture_above() {
        let t = |start: &str, end: &str, seqno| RangeTombstone {
            start: start.into(),
            end: end.into(),
            seqno,
        };
        let cut = RangeTombstones::new(vec![t("c", "h", 9), t("a", "f", 5), t("z", "b", 7)]);
        let expected: [(&[u8], &[u8], &[SeqNo]); 3] =
            [(b"a", b"c", &[5]), (b"c", b"f", &[9, 5]), (b"f", b"h", &[9])];
        assert!(cut.fragments().eq(expected));
        assert_eq!((cut.cover(b"d", 8), cut.cover(b"d", 9), cut.cover(b"h", 9)), (5, 9, 0));
        assert!(RangeTombstones::empty().is_empty());
        assert_eq!(RangeTombstones::empty().seqno_bounds(), None);
    }
}
