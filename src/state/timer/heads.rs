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
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::PREFIX_BYTES;

/// Timers of all key groups together that are held, about.
const HELD_MAX: usize = 1 << 16;
/// But so many of each group, if the options say so.
const PAGE_MIN: usize = 8;
/// After as many deletions in a group as that many pages hold, a range delete clears its front.
/// Enough that the range tombstones of a memtable stay few; few enough that a fresh reader passes
/// over the deleted ones quickly.
const PAGES_PER_RANGE_DELETE: usize = 16;

/// A timer's key without its key group: time, key and namespace. Their order is that of firing.
pub type TimerBytes = Box<[u8]>;

/// The first timers of each key group of one queue, shared by its handles.
#[derive(Debug)]
pub struct Heads {
    range: KeyGroupRange,
    /// Most timers of a group that are read at once; up to twice as many are held.
    page: usize,
    /// One for each key group of the range.
    groups: Vec<Group>,
    /// The first timer of each group that has any, with the group.
    order: BTreeSet<(TimerBytes, u16)>,
    /// Groups whose first timer is not known.
    unread: BTreeSet<u16>,
    /// Up to when timers are due.
    pub now: i64,
}

#[derive(Debug, Default)]
struct Group {
    /// All timers before `bound`.
    first: BTreeSet<TimerBytes>,
    /// From here on the store is unread; `None`: all timers are in `first`.
    bound: Option<TimerBytes>,
    /// Deletions since the last range delete.
    deleted: usize,
}

impl Group {
    fn holds(&self, timer: &[u8]) -> bool {
        self.bound.as_deref().is_none_or(|bound| timer < bound)
    }
}

/// Where the timers of a queue are stored.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    pub db: &'a Db,
    pub family: &'a ColumnFamily,
}

impl Store<'_> {
    fn put(self, key: &[u8]) -> Result<()> {
        self.db.put(self.family, key, &[])
    }
}

fn compose(group: u16, timer: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_BYTES + timer.len());
    key.extend_from_slice(&group.to_be_bytes());
    key.extend_from_slice(timer);
    key
}

fn group_of(key: &[u8]) -> u16 {
    u16::from_be_bytes([key[0], key[1]])
}

impl Heads {
    /// Knows nothing yet. Reads up to `page` timers of a group at once.
    pub fn new(range: KeyGroupRange, page: usize) -> Heads {
        let page_max = (HELD_MAX / range.len()).max(PAGE_MIN);
        let group = || Group { bound: Some(TimerBytes::default()), ..Group::default() };
        Heads {
            range,
            page: page.clamp(1, page_max),
            groups: std::iter::repeat_with(group).take(range.len()).collect(),
            order: BTreeSet::new(),
            unread: range.iter().collect(),
            now: i64::MIN,
        }
    }

    /// The key groups of the queue.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.range
    }

    fn group(&mut self, group: u16) -> &mut Group {
        &mut self.groups[usize::from(group - self.range.start())]
    }

    /// Reads a page of each group whose head is not known: at most one seek for each of those that
    /// have timers left, with one cursor.
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
                page.insert(scan.key()[PREFIX_BYTES..].into());
                more = scan.next()?;
            }
            let rest = more && group_of(scan.key()) == group;
            let bound = rest.then(|| scan.key()[PREFIX_BYTES..].into());
            if let Some(head) = page.first() {
                self.order.insert((TimerBytes::clone(head), group));
            }
            let known = self.group(group);
            (known.first, known.bound) = (page, bound);
            self.unread.remove(&group);
        }
        Ok(())
    }

    fn unread_from(&mut self, group: u16) -> Vec<u8> {
        let bound = self.group(group).bound.as_deref().unwrap_or_default();
        compose(group, bound)
    }

    /// The first timer of all, with its group.
    pub fn head(&mut self, store: Store<'_>) -> Result<Option<(&[u8], u16)>> {
        self.read(store)?;
        Ok(self.order.first().map(|(timer, group)| (&**timer, *group)))
    }

    /// Registers a timer. Is it the head now, and was not there before?
    pub fn add(&mut self, store: Store<'_>, group: u16, timer: &[u8]) -> Result<bool> {
        self.read(store)?;
        let page = self.page;
        let known = self.group(group);
        let holds = known.holds(timer);
        if holds && known.first.contains(timer) {
            return Ok(false);
        }
        store.put(&compose(group, timer))?;
        if !holds {
            return Ok(false); // the group has a head before it
        }
        let known = self.group(group);
        let before = known.first.first().cloned();
        known.first.insert(timer.into());
        if known.first.len() > 2 * page {
            let beyond = known.first.iter().nth(page).cloned().expect("there are more");
            known.first.split_off(&beyond);
            known.bound = Some(beyond);
        }
        self.reorder(group, before);
        Ok(self.order.first().is_some_and(|(head, of)| **head == *timer && *of == group))
    }

    /// Deletes a timer, if it is there. Was it the head?
    pub fn remove(&mut self, store: Store<'_>, group: u16, timer: &[u8]) -> Result<bool> {
        self.read(store)?;
        let was_head =
            self.order.first().is_some_and(|(head, of)| **head == *timer && *of == group);
        let enough = self.page * PAGES_PER_RANGE_DELETE;
        let known = self.group(group);
        if known.holds(timer) && !known.first.contains(timer) {
            return Ok(false);
        }
        let before = known.first.first().cloned();
        let leads = before.as_deref() == Some(timer);
        let key = compose(group, timer);
        if leads && known.deleted >= enough {
            // It is the first of its group: everything up to it is gone.
            store.db.delete_range(store.family, &group.to_be_bytes(), &successor(&key))?;
            known.deleted = 0;
        } else {
            store.db.delete(store.family, &key)?;
            known.deleted += 1;
        }
        known.first.remove(timer);
        self.reorder(group, before);
        Ok(was_head)
    }

    /// The head of a group may have changed from `before`.
    fn reorder(&mut self, group: u16, before: Option<TimerBytes>) {
        let known = self.group(group);
        let now = known.first.first().cloned();
        if now.is_none() && known.bound.is_some() {
            self.unread.insert(group);
        }
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, group));
        }
        if let Some(now) = now {
            self.order.insert((now, group));
        }
    }
}
