//! The first timers of every key group, in memory over the store.
//!
//! For each key group the timers *before a bound* are held, all of them; from the bound on the store
//! is unread. So the first held timer is the group's head, a timer registered before the bound is
//! simply added, and the store is only ever read on from the bound: what fired lies before it, and is
//! never passed again, however much it is. The bound is no truth, only a place to read on; the store
//! alone says which timers there are.
//!
//! Timers are deleted one by one as they fire. After a number of them the whole group up to the head
//! is deleted as a range, which a flush or compaction needs to keep only once: what fired does not
//! pile up on disk either. It is an ordinary range tombstone with a sequence number, so timers that
//! are registered before it later fire, and older snapshots still see those that it covers.

use std::collections::BTreeSet;

use crate::ColumnFamily;
use crate::Db;
use crate::base::error::Result;
use crate::base::key::successor;
use crate::state::key::group_of;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::PREFIX_BYTES;
use crate::state::timer::held::HeldTimer;
use crate::state::timer::tournament::Tournament;

/// Timers of all key groups together that are held, about.
const HELD_MAX: usize = 1 << 16;
/// But so many of each group, if the options say so.
const PAGE_MIN: usize = 8;
/// After as many deletions in a group as that many pages hold, a range delete clears its front.
/// Enough that the range tombstones of a memtable stay few; few enough that a fresh reader passes
/// over the deleted ones quickly.
const PAGES_PER_RANGE_DELETE: usize = 16;

/// The first timers of each key group of one queue, shared by its handles.
#[derive(Debug)]
pub struct Heads {
    range: KeyGroupRange,
    /// Most timers of a group that are read at once; up to twice as many are held.
    page: usize,
    /// One for each key group of the range.
    groups: Vec<Group>,
    /// Between the first timers of all groups that have any, by their place in the range.
    order: Tournament,
    /// Groups whose first timer is not known.
    unread: BTreeSet<u16>,
    /// Up to when timers are due.
    pub now: i64,
}

#[derive(Debug)]
struct Group {
    /// All timers before `bound`.
    first: BTreeSet<HeldTimer>,
    /// From here on the store is unread; `None`: all timers are in `first`.
    bound: Option<HeldTimer>,
    /// Deletions since the last range delete.
    deleted: usize,
}

impl Group {
    fn holds(&self, timer: &HeldTimer) -> bool {
        self.bound.as_ref().is_none_or(|bound| timer < bound)
    }
}

/// Where the timers of a queue are stored.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    pub db: &'a Db,
    pub family: &'a ColumnFamily,
}

impl Heads {
    /// Knows nothing yet. Reads up to `page` timers of a group at once.
    pub fn new(range: KeyGroupRange, page: usize) -> Heads {
        let page_max = (HELD_MAX / range.len()).max(PAGE_MIN);
        let unread = Some(HeldTimer::LEAST);
        let group = || Group { first: BTreeSet::new(), bound: unread.clone(), deleted: 0 };
        Heads {
            range,
            page: page.clamp(1, page_max),
            groups: std::iter::repeat_with(group).take(range.len()).collect(),
            order: Tournament::new(range.len()),
            unread: range.iter().collect(),
            now: i64::MIN,
        }
    }

    /// The key groups of the queue.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.range
    }

    /// Place of a group in the range.
    fn place(&self, group: u16) -> usize {
        usize::from(group - self.range.start())
    }

    fn group(&mut self, group: u16) -> &mut Group {
        let place = self.place(group);
        &mut self.groups[place]
    }

    /// Reads a page of each group whose head is not known: at most one seek for each of those that
    /// have timers left, with one cursor.
    #[cold]
    fn read(&mut self, store: Store<'_>) -> Result<()> {
        let (Some(&first), Some(&last)) = (self.unread.first(), self.unread.last()) else {
            return Ok(());
        };
        let mut range = KeyGroupRange::new(first, last)?.key_range();
        range.start = self.unread_from(first);
        let mut scan = store.db.scan_range(store.family, range, None)?;
        let mut more = scan.first()?;
        while let Some(&group) = self.unread.first() {
            let from = self.unread_from(group);
            if more && scan.key() < &*from {
                more = scan.seek(&from)?;
            }
            let mut page = BTreeSet::new();
            while more && group_of(scan.key()) == group && page.len() < self.page {
                page.insert(HeldTimer::new(&scan.key()[PREFIX_BYTES..])?);
                more = scan.next()?;
            }
            let rest = more && group_of(scan.key()) == group;
            let bound = rest.then(|| HeldTimer::new(&scan.key()[PREFIX_BYTES..])).transpose()?;
            let known = self.group(group);
            (known.first, known.bound) = (page, bound);
            self.unread.remove(&group);
            self.reorder(group);
        }
        Ok(())
    }

    /// The key from which a group is unread.
    fn unread_from(&mut self, group: u16) -> Vec<u8> {
        let mut key = group.to_be_bytes().to_vec();
        match &self.group(group).bound {
            // Not behind keys that are too short to be a timer's: they are to be found.
            Some(bound) if *bound != HeldTimer::LEAST => bound.put(&mut key),
            _ => {}
        }
        key
    }

    /// Reads on if the first timer of any group is not known.
    #[inline]
    fn know(&mut self, store: Store<'_>) -> Result<()> {
        if self.unread.is_empty() { Ok(()) } else { self.read(store) }
    }

    /// The first timer of all, with its group.
    pub fn head(&mut self, store: Store<'_>) -> Result<Option<(&HeldTimer, u16)>> {
        self.know(store)?;
        let Some(winner) = self.order.first() else { return Ok(None) };
        let head = self.groups[usize::from(winner.index)].first.first();
        Ok(head.map(|head| (head, self.range.start() + winner.index)))
    }

    /// Registers the timer with this key. Is it the head now, and was not there before?
    pub fn add(&mut self, store: Store<'_>, key: &[u8]) -> Result<bool> {
        self.know(store)?;
        let (group, timer) = (group_of(key), HeldTimer::new(&key[PREFIX_BYTES..])?);
        let page = self.page;
        let known = self.group(group);
        if !known.holds(&timer) {
            store.db.put(store.family, key, &[])?;
            return Ok(false); // the group has a head before it
        }
        if !known.first.insert(timer.clone()) {
            return Ok(false);
        }
        if let Err(e) = store.db.put(store.family, key, &[]) {
            known.first.remove(&timer);
            return Err(e);
        }
        let leads = known.first.first() == Some(&timer);
        if known.first.len() > 2 * page {
            let beyond = known.first.iter().nth(page).cloned().expect("there are more");
            known.first.split_off(&beyond);
            known.bound = Some(beyond);
        }
        if leads {
            self.reorder(group);
        }
        Ok(leads && self.is_first(group))
    }

    /// Deletes the timer with this key, if it is there. Was it the head?
    pub fn remove(&mut self, store: Store<'_>, key: &[u8]) -> Result<bool> {
        self.know(store)?;
        let (group, timer) = (group_of(key), HeldTimer::new(&key[PREFIX_BYTES..])?);
        let is_first = self.is_first(group);
        let enough = self.page * PAGES_PER_RANGE_DELETE;
        let known = self.group(group);
        let leads = known.first.first() == Some(&timer);
        if !leads && known.holds(&timer) && !known.first.contains(&timer) {
            return Ok(false);
        }
        if leads && known.deleted >= enough {
            // It is the first of its group: everything up to it is gone.
            store.db.delete_range(store.family, &group.to_be_bytes(), &successor(key))?;
            known.deleted = 0;
        } else {
            store.db.delete(store.family, key)?;
            known.deleted += 1;
        }
        if leads {
            known.first.pop_first();
            self.reorder(group);
        } else {
            known.first.remove(&timer);
        }
        Ok(leads && is_first)
    }

    /// Is the first timer of this group the first of all?
    fn is_first(&self, group: u16) -> bool {
        self.order.first().is_some_and(|winner| usize::from(winner.index) == self.place(group))
    }

    /// The first timer of a group has changed.
    fn reorder(&mut self, group: u16) {
        let place = self.place(group);
        let Heads { groups, order, unread, .. } = self;
        let known = &groups[place];
        let first = known.first.first();
        if first.is_none() && known.bound.is_some() {
            unread.insert(group);
        }
        let head = |place: u16| groups[usize::from(place)].first.first();
        let rank = first.map(HeldTimer::flipped_time);
        order.set(place as u16, rank, |a, b| head(a) < head(b));
    }
}
