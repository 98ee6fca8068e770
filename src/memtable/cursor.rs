//! A cursor over a memtable: a merge of the runs that were there at its creation, and the visible
//! versions of each key.

use std::ops::Range;

use crate::base::error::Result;
use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo, ValueKind};
use crate::base::sync::{Arc, Ordering};
use crate::iter::InternalIterator;
use crate::memtable::MemTable;
use crate::memtable::arena::Entry;
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
    /// What all keys begin with.
    common: Arc<[u8]>,
    runs: Vec<Place>,
    /// The run in which the current key is, if there is one.
    current: usize,
    entry: Option<Offset>,
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

impl MemTableIterator {
    /// A cursor that stands nowhere yet.
    pub(super) fn new(
        table: Arc<MemTable>,
        pin: Option<ReadPin>,
        order: &Order,
    ) -> MemTableIterator {
        let common = Arc::clone(order.common());
        let place = |run| Place { run: Arc::clone(run), at: 0, passed: 0..0 };
        let runs = order.runs().iter().map(place).collect();
        let limit = pin.as_ref().map_or(SEQNO_MAX, ReadPin::seqno);
        MemTableIterator { table, pin, limit, common, runs, current: 0, entry: None }
    }

    /// Keys that cut the longest run into `parts` equal ones, ascending, without the first key of all.
    pub(super) fn cuts(&self, parts: usize) -> Vec<Vec<u8>> {
        let Some(heads) = self.runs.first().map(|place| place.run.heads()) else {
            return Vec::new();
        };
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

    /// The run with the least key at its place, and the first version of that.
    #[inline]
    fn least(&mut self) -> Option<(usize, Offset)> {
        let (first, others) = self.runs.split_first_mut()?;
        let mut least = first.head().map(|head| (0, head));
        for (i, place) in others.iter_mut().enumerate() {
            if let Some(head) = place.head()
                && least.is_none_or(|(_, other)| compare(&self.table.arena, head, other).is_lt())
            {
                least = Some((i + 1, head));
            }
        }
        least.map(|(i, head)| (i, head.offset))
    }

    /// To the least key at the places that has something to show.
    #[inline]
    fn settle_forward(&mut self) {
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
            self.runs[i].at += 1;
        }
    }

    /// To the greatest key before the places that has something to show.
    fn settle_backward(&mut self) {
        loop {
            let mut greatest: Option<(usize, &Head)> = None;
            for (i, place) in self.runs.iter_mut().enumerate() {
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
            let place = &mut self.runs[i];
            place.at -= 1;
            if let Some(ahead) = place.at.checked_sub(AHEAD) {
                self.table.arena.entry(place.run.heads()[ahead].offset).prefetch::<2>();
            }
            if entry.is_some() {
                return;
            }
        }
    }

    #[inline]
    fn next_key(&mut self) {
        let place = &mut self.runs[self.current];
        place.at += 1;
        place.run.prefetch(place.at + HEADS_AHEAD);
        if let Some(head) = place.run.heads().get(place.at + AHEAD) {
            match self.pin {
                Some(_) => self.table.arena.entry(head.offset).prefetch::<2>(),
                None => self.table.arena.entry(head.offset).prefetch::<3>(), // a flush
            }
        }
        self.settle_forward();
    }

    /// Notes that the key at a run's place has nothing to show, perhaps never again.
    fn pass(&mut self, run: usize) {
        let Place { at, passed, .. } = &mut self.runs[run];
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
        self.runs[run].run.leave_gaps(passed, |head| {
            let leaves = self.table.arena.leave(head.offset, oldest);
            left += usize::from(leaves);
            leaves
        });
        self.table.counts.left.fetch_add(left, Ordering::Relaxed);
    }

    fn place_all(&mut self, key: &[u8]) {
        for place in &mut self.runs {
            place.at = place.run.lower_bound(&self.table.arena, &self.common, key);
            place.passed = 0..0;
            if let Some(head) = place.head() {
                self.table.arena.entry(head.offset).prefetch::<2>();
            }
        }
        // Most of what comes next is in the longest run.
        if let Some(place) = self.runs.first() {
            // Two to a line.
            for more in (AHEAD..=HEADS_AHEAD).step_by(2) {
                place.run.prefetch(place.at + more);
            }
            for head in place.run.heads().iter().skip(place.at + 1).take(AHEAD) {
                self.table.arena.entry(head.offset).prefetch::<2>();
            }
        }
    }
}

impl InternalIterator for MemTableIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place_all(target.user_key);
        self.settle_forward();
        let Some(mut offset) = self.entry else { return Ok(()) };
        if self.at(offset).key() != target.user_key {
            return Ok(());
        }
        while self.at(offset).trailer() > target.trailer() {
            let Some(older) = self.at(offset).older() else {
                self.next_key();
                return Ok(());
            };
            offset = older;
        }
        self.entry = Some(offset);
        Ok(())
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        self.place_all(user_key);
        self.settle_forward();
        if self.entry.is_none_or(|offset| self.at(offset).key() != user_key) {
            self.settle_backward();
        }
        Ok(())
    }

    fn first(&mut self) -> Result<()> {
        self.runs.iter_mut().for_each(|place| place.at = 0);
        self.settle_forward();
        Ok(())
    }

    fn last(&mut self) -> Result<()> {
        self.runs.iter_mut().for_each(|place| place.at = place.run.heads().len());
        self.settle_backward();
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let offset = self.entry.expect("next from an entry");
        match self.at(offset).older() {
            Some(older) => self.entry = Some(older),
            None => self.next_key(),
        }
        Ok(())
    }

    /// At once, however many versions the key has.
    #[inline]
    fn skip(&mut self, user_key: &[u8]) -> Result<()> {
        if self.entry.is_some_and(|offset| self.at(offset).key() == user_key) {
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
        while let Some(offset) = self.entry {
            let entry = self.at(offset);
            let deleted = entry.is_delete() && entry.seqno() <= at;
            if !deleted || end.is_some_and(|end| entry.key() >= end) {
                break;
            }
            self.pass(self.current);
            self.next_key();
        }
        for run in 0..self.runs.len() {
            let passed = std::mem::take(&mut self.runs[run].passed);
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
        let entry = self.at(self.entry?);
        let unpacked = InternalKey::unpack(entry.trailer());
        let (seqno, kind) = unpacked.expect("stands on what it may show");
        debug_assert!(seqno <= self.limit);
        Some(InternalKey::new(entry.key(), seqno, kind))
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        let entry = self.at(self.entry?);
        let version = entry.version(self.hold()).expect("stands on what it may show");
        debug_assert!(version.kind != ValueKind::RangeDelete);
        Some((InternalKey::new(entry.key(), version.seqno, version.kind), version.value))
    }
}
