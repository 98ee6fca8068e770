//! A cursor over a memtable: a merge of the runs that were there at its creation, and the visible
//! versions of each key.

use std::ops::Range;

use crate::base::error::Result;
use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo, ValueKind};
use crate::base::sync::{Arc, Ordering};
use crate::iter::InternalIterator;
use crate::memtable::MemTable;
use crate::memtable::entry::{Entry, prefetch};
use crate::memtable::offset::Offset;
use crate::memtable::order::{GAP_MIN, Head, Order, Run, compare};
use crate::memtable::read_pins::{Hold, ReadPin};

/// A cursor over the versions in a memtable, in both directions. Holds the memtable.
///
/// It shows every version that its pin sees, or all of a frozen table. Takes no lock and never fails.
pub struct MemTableIterator {
    table: Arc<MemTable>,
    /// `None` if the table is frozen. Either was checked when the cursor was made.
    pin: Option<ReadPin>,
    /// Versions up to this one are shown.
    limit: SeqNo,
    /// In the longest run: often there is no other, and no need of memory for them.
    longest: Place,
    others: Vec<Place>,
    /// The run in which the current key is, if there is one: 0 is the longest.
    current: usize,
    entry: Option<At>,
}

/// A version and its trailer, which stays as it is: the pin sees it.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub offset: Offset,
    pub trailer: u64,
}

/// Entries lie in the order of their arrival: while one is read, later ones are on their way.
const AHEAD: usize = 6;
/// And so are the heads that lead to those after them.
const HEADS_AHEAD: usize = 16;
/// So many deleted keys are taken out of the order at once, while their entries are near.
const LEAVE_AT_ONCE: usize = 64;

/// A run and the first place in it at or above the current key.
struct Place {
    run: Arc<Run>,
    at: usize,
    /// Deleted keys that were passed side by side.
    passed: Range<usize>,
}

impl Place {
    /// The head here, behind any gap.
    #[inline]
    fn head(&mut self) -> Option<&Head> {
        self.at = self.run.over_gaps(self.at);
        self.run.heads().get(self.at)
    }

    /// The head before this place, before any gap.
    #[inline]
    fn head_before(&mut self) -> Option<&Head> {
        self.at = self.run.back_over_gaps(self.at);
        self.run.heads().get(self.at.checked_sub(1)?)
    }
}

impl At {
    #[inline]
    fn unpack(self) -> (SeqNo, ValueKind) {
        InternalKey::unpack(self.trailer).expect("stands on what it may show")
    }
}

impl MemTableIterator {
    /// A cursor that stands nowhere yet.
    pub(super) fn new(
        table: Arc<MemTable>,
        pin: Option<ReadPin>,
        order: &Order,
    ) -> MemTableIterator {
        let place = |run| Place { run: Arc::clone(run), at: 0, passed: 0..0 };
        let (longest, others) = order.longest_and_others();
        let (longest, others) = (place(longest), others.iter().map(place).collect());
        let limit = pin.as_ref().map_or(SEQNO_MAX, ReadPin::seqno);
        MemTableIterator { table, pin, limit, longest, others, current: 0, entry: None }
    }

    /// Keys that cut the longest run into `parts` equal ones, ascending, without the first key of all.
    pub(super) fn cuts(&self, parts: usize) -> Vec<Vec<u8>> {
        let heads = self.longest.run.heads();
        let mut places: Vec<usize> = (1..parts).map(|i| heads.len() * i / parts).collect();
        places.dedup();
        places.retain(|place| *place > 0);
        places.into_iter().map(|at| self.at(heads[at].offset).key().to_vec()).collect()
    }

    #[inline]
    fn hold(&self) -> Hold<'_> {
        Hold::checked(&self.pin, self.limit)
    }

    #[inline]
    fn at(&self, offset: Offset) -> Entry<'_> {
        self.table.arena.entry(offset)
    }

    #[inline]
    fn run(&mut self, run: usize) -> &mut Place {
        match run.checked_sub(1) {
            None => &mut self.longest,
            Some(other) => &mut self.others[other],
        }
    }

    #[inline]
    fn runs(&mut self) -> impl Iterator<Item = &mut Place> {
        std::iter::once(&mut self.longest).chain(&mut self.others)
    }

    /// The run with the least key at its place, and the first version of that.
    fn least(&mut self) -> Option<(usize, Offset)> {
        let mut least = self.longest.head().map(|head| (0, head));
        for (i, place) in self.others.iter_mut().enumerate() {
            if let Some(head) = place.head()
                && least.is_none_or(|(_, other)| compare(&self.table.arena, head, other).is_lt())
            {
                least = Some((i + 1, head));
            }
        }
        least.map(|(i, head)| (i, head.offset))
    }

    /// To the least key at the places that has something to show.
    #[inline(always)]
    fn settle_forward(&mut self) {
        if self.others.is_empty() {
            let first = self.longest.head().map(|head| head.offset);
            self.entry = first.and_then(|first| self.table.newest_at(first, self.limit));
            self.current = 0;
            if self.entry.is_some() || first.is_none() {
                return;
            }
        }
        self.settle_among();
    }

    #[inline(never)]
    fn settle_among(&mut self) {
        loop {
            let Some((i, first)) = self.least() else {
                self.entry = None;
                return;
            };
            self.entry = self.table.newest_at(first, self.limit);
            self.current = i;
            if self.entry.is_some() {
                return;
            }
            self.pass(i);
            self.run(i).at += 1;
        }
    }

    /// To the greatest key before the places that has something to show.
    fn settle_backward(&mut self) {
        loop {
            let mut greatest: Option<(usize, &Head)> = None;
            let runs = std::iter::once(&mut self.longest).chain(&mut self.others);
            for (i, place) in runs.enumerate() {
                if let Some(head) = place.head_before()
                    && greatest
                        .is_none_or(|(_, other)| compare(&self.table.arena, head, other).is_gt())
                {
                    greatest = Some((i, head));
                }
            }
            let Some((i, first)) = greatest.map(|(i, head)| (i, head.offset)) else {
                self.entry = None;
                return;
            };
            let entry = self.table.newest_at(first, self.limit);
            (self.entry, self.current) = (entry, i);
            let place = self.run(i);
            place.at -= 1;
            let ahead = place.at.checked_sub(AHEAD).map(|ahead| place.run.heads()[ahead].offset);
            if let Some(ahead) = ahead {
                self.table.arena.entry(ahead).prefetch::<2>();
            }
            if entry.is_some() {
                return;
            }
        }
    }

    #[inline]
    fn next_key(&mut self) {
        let place =
            if self.current == 0 { &mut self.longest } else { &mut self.others[self.current - 1] };
        place.at += 1;
        if let Some(heads) = place.run.heads().get(place.at..)
            && let Some(ahead) = heads.get(AHEAD)
        {
            if let Some(head) = heads.get(HEADS_AHEAD) {
                prefetch(head);
            }
            let entry = self.table.arena.entry(ahead.offset);
            match self.pin {
                Some(_) => entry.prefetch::<2>(),
                None => entry.prefetch::<3>(), // a flush
            }
        }
        self.settle_forward();
    }

    /// To the next version, of the same key or another.
    #[inline]
    fn step(&mut self) {
        let at = self.entry.expect("next from an entry");
        match self.at(at.offset).older() {
            Some(offset) => {
                let trailer = self.at(offset).trailer();
                self.entry = Some(At { offset, trailer });
            }
            None => self.next_key(),
        }
    }

    /// Notes that the key at a run's place has nothing to show, perhaps never again.
    fn pass(&mut self, run: usize) {
        let Place { at, passed, .. } = self.run(run);
        if passed.end == *at && passed.len() < LEAVE_AT_ONCE {
            passed.end += 1;
            return;
        }
        let next = *at..*at + 1;
        let passed = std::mem::replace(passed, next);
        self.leave(run, passed);
    }

    /// Takes deleted keys that were passed in a run out of the order, if they are several.
    fn leave(&self, run: usize, passed: Range<usize>) {
        // Without a pin the writer is gone, and gaps are not worth it.
        let Some(pin) = self.pin.as_ref().filter(|_| passed.len() >= GAP_MIN) else { return };
        // What all pins see, later ones will see too.
        let oldest = pin.oldest();
        let mut left = 0;
        let run = if run == 0 { &self.longest.run } else { &self.others[run - 1].run };
        run.leave_gaps(passed, |head| {
            let leaves = self.table.arena.leave(head.offset, oldest);
            left += usize::from(leaves);
            leaves
        });
        self.table.counts.left.fetch_add(left, Ordering::Relaxed);
    }

    fn place_all(&mut self, key: &[u8]) {
        let arena = &self.table.arena;
        for place in std::iter::once(&mut self.longest).chain(&mut self.others) {
            place.at = place.run.lower_bound(arena, key);
            place.passed = 0..0;
            if let Some(head) = place.head() {
                arena.entry(head.offset).prefetch::<2>();
            }
        }
        // Most of what comes next is in the longest run.
        let place = &self.longest;
        // Two to a line.
        for more in (AHEAD..=HEADS_AHEAD).step_by(2) {
            place.run.prefetch(place.at + more);
        }
        for head in place.run.heads().iter().skip(place.at + 1).take(AHEAD) {
            arena.entry(head.offset).prefetch::<2>();
        }
    }
}

impl InternalIterator for MemTableIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place_all(target.user_key);
        self.settle_forward();
        // Most seek the newest version.
        while let Some(at) = self.entry
            && at.trailer > target.trailer()
            && self.at(at.offset).key() == target.user_key
        {
            self.step();
        }
        Ok(())
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        self.place_all(user_key);
        self.settle_forward();
        if self.entry.is_none_or(|at| self.at(at.offset).key() != user_key) {
            self.settle_backward();
        }
        Ok(())
    }

    fn first(&mut self) -> Result<()> {
        self.runs().for_each(|place| place.at = 0);
        self.settle_forward();
        Ok(())
    }

    fn last(&mut self) -> Result<()> {
        self.runs().for_each(|place| place.at = place.run.heads().len());
        self.settle_backward();
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.step();
        Ok(())
    }

    /// At once, however many versions the key has.
    #[inline]
    fn skip(&mut self, user_key: &[u8]) -> Result<()> {
        if self.entry.is_some_and(|at| self.at(at.offset).key() == user_key) {
            self.next_key();
        }
        Ok(())
    }

    fn next_user_key(&mut self) -> Result<()> {
        assert!(self.entry.is_some(), "next from an entry");
        self.next_key();
        Ok(())
    }

    #[inline]
    fn is_on_entry(&self) -> bool {
        self.entry.is_some()
    }

    fn pass_deleted(&mut self, end: Option<&[u8]>, at: SeqNo) -> Result<()> {
        while let Some(here) = self.entry {
            let (seqno, kind) = here.unpack();
            let deleted = kind == ValueKind::Delete && seqno <= at;
            if !deleted || end.is_some_and(|end| self.at(here.offset).key() >= end) {
                break;
            }
            self.pass(self.current);
            self.next_key();
        }
        for run in 0..=self.others.len() {
            let passed = std::mem::take(&mut self.run(run).passed);
            self.leave(run, passed);
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        assert!(self.entry.is_some(), "prev from an entry");
        self.settle_backward();
        Ok(())
    }

    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        let at = self.entry?;
        let (seqno, kind) = at.unpack();
        debug_assert!(seqno <= self.limit);
        Some(InternalKey::new(self.at(at.offset).key(), seqno, kind))
    }

    #[inline]
    fn value(&self) -> Option<&[u8]> {
        let entry = self.at(self.entry?.offset);
        let version = entry.version(self.hold()).expect("stands on what it may show");
        Some(version.value)
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        let entry = self.at(self.entry?.offset);
        let version = entry.version(self.hold()).expect("stands on what it may show");
        debug_assert!(version.kind != ValueKind::RangeDelete);
        Some((InternalKey::new(entry.key(), version.seqno, version.kind), version.value))
    }
}
