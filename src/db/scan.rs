//! Ordered reads over any range, in both directions.

use std::cell::Cell;
use std::ops::{Bound, RangeBounds};

use crate::base::error::Result;
use crate::base::key::{InternalKey, KeyRange, SEQNO_MAX, SeqNo, ValueKind, head, successor};
use crate::base::sync::Arc;
use crate::compaction::picker::scans_pay;
use crate::db::column_family::Family;
use crate::db::core::Core;
use crate::db::get::View;
use crate::db::holders::{Held, Holder};
use crate::db::snapshot::Snapshot;
use crate::db::stats::add;
use crate::db::super_version::Immutable;
use crate::iter::InternalIterator;
use crate::iter::merging::MergingIterator;
use crate::iter::range_del::RangeTombstones;
use crate::iter::resolve::{MergeOperator, Resolver, Step};
use crate::memtable::{Glance, MemTableIterator};
use crate::version::level_iter::VersionIterator;

/// One sorted source of a scan: a closed set, so that no step goes through a table of functions.
#[expect(clippy::large_enum_variant, reason = "a few a scan, of which a box each would cost more")]
enum Source {
    Memory(MemTableIterator),
    Tables(VersionIterator),
}

macro_rules! each {
    ($self:ident, $it:ident => $call:expr) => {
        match $self {
            Source::Memory($it) => $call,
            Source::Tables($it) => $call,
        }
    };
}

impl InternalIterator for Source {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        each!(self, it => it.seek(target))
    }
    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        each!(self, it => it.seek_for_prev(user_key))
    }
    fn first(&mut self) -> Result<()> {
        each!(self, it => it.first())
    }
    fn last(&mut self) -> Result<()> {
        each!(self, it => it.last())
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        each!(self, it => it.next())
    }
    fn prev(&mut self) -> Result<()> {
        each!(self, it => it.prev())
    }
    #[inline]
    fn skip(&mut self, user_key: &[u8]) -> Result<()> {
        each!(self, it => it.skip(user_key))
    }
    fn pass_deleted(&mut self, end: Option<&[u8]>, at: SeqNo) -> Result<()> {
        each!(self, it => it.pass_deleted(end, at))
    }
    #[inline]
    fn next_user_key(&mut self) -> Result<()> {
        each!(self, it => it.next_user_key())
    }
    #[inline]
    fn next_plain(&mut self, below: u128, at: SeqNo) -> Result<Option<u128>> {
        each!(self, it => it.next_plain(below, at))
    }
    #[inline]
    fn is_on_entry(&self) -> bool {
        each!(self, it => it.is_on_entry())
    }
    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        each!(self, it => it.key())
    }
    #[inline]
    fn value(&self) -> Option<&[u8]> {
        each!(self, it => it.value())
    }
    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        each!(self, it => it.entry())
    }
}

/// Where a scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first entry: where every scan begins.
    Start,
    /// On an entry whose key and value are those under the cursor.
    Entry,
    /// On an entry that was merged from operands: key and value are in the buffers, and the cursor is
    /// somewhere at or behind the key.
    Merged,
    /// After the last entry.
    End,
}

/// A cursor over the visible keys of a range, in ascending byte order, as of the moment it was made
/// (or of a snapshot).
///
/// It begins before the first key: `while scan.next()? { … scan.key(), scan.value() … }` visits all
/// keys ascending, `while scan.prev()?` all descending (from the end after [`to_end`](Scan::to_end)).
/// Keys and values are lent until the next move. It holds the memtables and tables that it reads:
/// drop it, or [`refresh`](Scan::refresh) it, when done.
///
/// After an error its place is undefined until the next seek.
pub struct Scan {
    core: Arc<Core>,
    family: Held,
    range: KeyRange,
    /// The first bytes of both ends: most comparisons need no more. The greatest number without an end.
    heads: (u128, u128),
    at: SeqNo,
    /// `None` when nothing can be covered: the usual case.
    tombstones: Option<RangeTombstones>,
    /// The family's, once it was asked for.
    operator: Option<Option<Arc<dyn MergeOperator>>>,
    cursor: MergingIterator<Source>,
    resolver: Resolver,
    place: Place,
    /// The cursor stands on the newest version of the resolved key.
    on_newest: bool,
    /// The user key whose versions are or were resolved one by one.
    key: Vec<u8>,
    merged: Vec<u8>,
    /// For the statistics: searches, and keys come by.
    seeks: u64,
    keys: u64,
}

impl Drop for Scan {
    fn drop(&mut self) {
        add(&self.core.counters.seeks, self.seeks);
        add(&self.core.counters.keys_visited, self.keys);
        keep_room(std::mem::take(&mut self.cursor));
    }
}

/// A thread keeps the room of a merge of no more sources than this.
const KEPT_SOURCES: usize = 16;

thread_local! {
    /// The room of the thread's last scan: allocations that the next one need not make.
    static KEPT: Cell<MergingIterator<Source>> = Cell::default();
}

fn keep_room(cursor: MergingIterator<Source>) {
    if let Some(room) = cursor.into_room(KEPT_SOURCES) {
        // Not at the end of the thread.
        let _ = KEPT.try_with(|kept| kept.set(room));
    }
}

impl Scan {
    #[inline]
    pub(in crate::db) fn new(
        core: Arc<Core>,
        family: Arc<Family>,
        range: KeyRange,
        snapshot: Option<&Snapshot>,
    ) -> Result<Scan> {
        let view = View::new(&core, &family, snapshot);
        Scan::of(core, family, range, view)
    }

    /// A scan of what a view shows of the range.
    #[inline]
    fn of(core: Arc<Core>, family: Arc<Family>, range: KeyRange, view: View) -> Result<Scan> {
        let at = view.pin.seqno();
        let (cursor, tombstones) = sources(&core, &family, view, &range)?;
        Ok(Scan {
            family: Held::new(family, Holder::Scan),
            core,
            heads: (head(&range.start), range.end.as_deref().map_or(u128::MAX, head)),
            range,
            at,
            tombstones,
            operator: None,
            cursor,
            resolver: Resolver::new(),
            place: Place::Start,
            on_newest: false,
            key: Vec::new(),
            merged: Vec::new(),
            seeks: 0,
            keys: 0,
        })
    }

    /// To the first key of the range; `false` if there is none.
    ///
    /// # Errors
    /// As every move: of reading tables. The scan then stands before its first key.
    pub fn first(&mut self) -> Result<bool> {
        self.seeks += 1;
        let moved = self.cursor.seek(InternalKey::seek(&self.range.start, SEQNO_MAX));
        self.settle(moved, Scan::settle_forward)
    }

    /// To the last key of the range; `false` if there is none.
    pub fn last(&mut self) -> Result<bool> {
        self.seeks += 1;
        let moved = match &self.range.end {
            Some(end) => seek_before(&mut self.cursor, end),
            None => self.cursor.last(),
        };
        self.settle(moved, Scan::settle_backward)
    }

    /// To the first key at or after `key`; `false` if there is none in the range.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.seeks += 1;
        let target = key.max(&self.range.start);
        let moved = self.cursor.seek(InternalKey::seek(target, SEQNO_MAX));
        self.settle(moved, Scan::settle_forward)
    }

    /// To the last key at or before `key`; `false` if there is none in the range.
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        if self.range.end.as_deref().is_some_and(|end| key >= end) {
            return self.last();
        }
        self.seeks += 1;
        let moved = self.cursor.seek_for_prev(key);
        self.settle(moved, Scan::settle_backward)
    }

    /// Behind the last key of the range, so that [`prev`](Scan::prev) moves to it.
    pub fn to_end(&mut self) {
        self.place = Place::End;
    }

    /// To the next key; from the start, to the first. `false` at the end.
    #[expect(clippy::should_implement_trait, reason = "fallible and lending: no `Iterator` can be")]
    pub fn next(&mut self) -> Result<bool> {
        if self.place != Place::Entry {
            return self.next_elsewhere();
        }
        let covered = self.tombstones.is_some();
        match self.cursor.next_plain(self.heads.1, self.at) {
            Ok(Some(_)) if !covered => Ok(self.stay()),
            moved => self.settle_moved(moved.map(|_| ())),
        }
    }

    /// After a move forward: what [`next_plain`](InternalIterator::next_plain) said nothing of.
    #[inline(never)]
    fn settle_moved(&mut self, moved: Result<()>) -> Result<bool> {
        self.settle(moved, Scan::settle_forward)
    }

    /// To the next key from what is no plain entry.
    #[inline(never)]
    fn next_elsewhere(&mut self) -> Result<bool> {
        match self.place {
            Place::Start => self.first(),
            Place::End => Ok(false),
            Place::Entry => unreachable!("`next` steps from there"),
            Place::Merged => {
                let moved = self.skip_versions();
                self.settle(moved, Scan::settle_forward)
            }
        }
    }

    /// To the previous key; from the end, to the last. `false` at the start.
    pub fn prev(&mut self) -> Result<bool> {
        let moved = match self.place {
            Place::Start => return Ok(false),
            Place::End => return self.last(),
            Place::Entry => self.cursor.prev(),
            Place::Merged => self.step_before_key(),
        };
        self.settle(moved, Scan::settle_backward)
    }

    /// The current key. Lent until the next move.
    ///
    /// # Panics
    /// If the scan does not stand on an entry: the last move returned `false`, or there was none.
    #[inline]
    pub fn key(&self) -> &[u8] {
        match self.place {
            Place::Entry => self.cursor.key().expect("the cursor stands on the entry").user_key,
            Place::Merged => &self.key,
            Place::Start | Place::End => panic!("the scan stands on no entry"),
        }
    }

    /// The current value. Lent until the next move.
    ///
    /// # Panics
    /// As [`key`](Scan::key).
    #[inline]
    pub fn value(&self) -> &[u8] {
        if self.place == Place::Entry {
            return self.cursor.value().expect("the cursor stands on the entry");
        }
        assert!(self.place == Place::Merged, "the scan stands on no entry");
        &self.merged
    }

    /// The current key and value; `None` off either end.
    #[inline]
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        match self.place {
            Place::Start | Place::End => None,
            Place::Entry => {
                let (key, value) = self.cursor.entry().expect("the cursor stands on the entry");
                Some((key.user_key, value))
            }
            Place::Merged => Some((&self.key, &self.merged)),
        }
    }

    /// The same range as it is now, before its first key; lets go of what was held.
    pub fn refresh(&mut self) -> Result<()> {
        let view = View::new(&self.core, &self.family, None);
        self.at = view.pin.seqno();
        (self.cursor, self.tombstones) = sources(&self.core, &self.family, view, &self.range)?;
        self.place = Place::Start;
        Ok(())
    }

    /// Moves the cursor behind all versions of the resolved key.
    fn skip_versions(&mut self) -> Result<()> {
        self.cursor.skip(&self.key)
    }

    /// Moves the cursor, which stands somewhere at or behind the resolved key, before it.
    fn step_before_key(&mut self) -> Result<()> {
        if self.on_newest {
            return self.cursor.prev();
        }
        seek_before(&mut self.cursor, &self.key)
    }

    /// After a move of the cursor: to the entry that is visible there. When either fails, the cursor
    /// may stand anywhere: the scan goes back to where it began, before its first key.
    #[inline(always)]
    fn settle(
        &mut self,
        moved: Result<()>,
        settle: impl Fn(&mut Scan) -> Result<bool>,
    ) -> Result<bool> {
        let settled = moved.and_then(|()| settle(self));
        if settled.is_err() {
            self.place = Place::Start;
        }
        settled
    }

    /// From the first version of a key: finds the first key at or after it that has a value.
    fn settle_forward(&mut self) -> Result<bool> {
        loop {
            match self.cursor.key() {
                Some(key) if self.is_below_end(key.user_key) => {
                    if self.is_plain(key) {
                        return Ok(self.stay());
                    }
                    self.key.clear();
                    self.key.extend_from_slice(key.user_key);
                }
                _ => {
                    self.place = Place::End;
                    return Ok(false);
                }
            }
            if self.resolve()? {
                return Ok(true);
            }
            self.skip_versions()?;
            // All sources are open for all of the range, and what is older only moves between them.
            self.cursor.pass_deleted(self.range.end.as_deref(), self.at)?;
        }
    }

    /// From the newest version of a key: finds the last key at or before it that has a value.
    fn settle_backward(&mut self) -> Result<bool> {
        loop {
            match self.cursor.key() {
                Some(key) if self.is_at_or_above_start(key.user_key) => {
                    if self.is_plain(key) {
                        return Ok(self.stay());
                    }
                    self.key.clear();
                    self.key.extend_from_slice(key.user_key);
                }
                _ => {
                    self.place = Place::Start;
                    return Ok(false);
                }
            }
            if self.resolve()? {
                return Ok(true);
            }
            self.step_before_key()?;
        }
    }

    #[inline]
    fn is_below_end(&self, key: &[u8]) -> bool {
        let Some(end) = self.range.end.as_deref() else { return true };
        let head = head(key);
        if head == self.heads.1 { key < end } else { head < self.heads.1 }
    }

    #[inline]
    fn is_at_or_above_start(&self, key: &[u8]) -> bool {
        let head = head(key);
        if head == self.heads.0 { *key >= *self.range.start } else { head > self.heads.0 }
    }

    /// Is this version, the newest of its key, the key's value, with nothing to resolve?
    #[inline]
    fn is_plain(&self, newest: InternalKey<'_>) -> bool {
        newest.kind == ValueKind::Put && newest.seqno <= self.at && self.tombstones.is_none()
    }

    /// On the entry under the cursor.
    #[inline]
    fn stay(&mut self) -> bool {
        self.keys += 1;
        self.place = Place::Entry;
        true
    }

    /// Resolves the versions of the current key, on whose newest the cursor stands: has it a value?
    fn resolve(&mut self) -> Result<bool> {
        self.keys += 1;
        self.resolver.reset(self.at);
        if let Some(tombstones) = &self.tombstones {
            match tombstones.cover(&self.key, self.at) {
                0 => {}
                cover => self.resolver.cover(cover),
            }
        }
        let mut step = Step::More;
        self.on_newest = true;
        while let Some((key, value)) = self.cursor.entry() {
            // The caller has found it on the key.
            if !self.on_newest && key.user_key != self.key {
                break;
            }
            step = self.resolver.push(key.seqno, key.kind, value);
            if !matches!(step, Step::More) {
                break;
            }
            self.cursor.next()?;
            self.on_newest = false;
        }
        if matches!(step, Step::More) {
            step = self.resolver.end();
        }
        match step {
            Step::Value => self.place = Place::Entry,
            Step::Merge => {
                let family = &self.family;
                let operator =
                    self.operator.get_or_insert_with(|| family.options().merge_operator.clone());
                let merged = self.resolver.merged(&self.key, operator.as_deref())?;
                self.merged.clear();
                self.merged.extend_from_slice(merged);
                self.place = Place::Merged;
            }
            Step::Absent | Step::More => return Ok(false),
        }
        Ok(true)
    }
}

/// Moves to the last entry before `key`.
fn seek_before(cursor: &mut impl InternalIterator, key: &[u8]) -> Result<()> {
    cursor.seek_for_prev(key)?;
    match cursor.key() {
        Some(at) if at.user_key == key => cursor.prev(),
        _ => Ok(()),
    }
}

type Sources = (MergingIterator<Source>, Option<RangeTombstones>);

/// Cursors over everything that may hold keys of the range, and the tombstones that may cover them.
fn sources(core: &Core, family: &Family, view: View, range: &KeyRange) -> Result<Sources> {
    let View { super_version, pin } = view;
    let memtables = 1 + super_version.immutables.len();
    let mut cursor = KEPT.try_with(Cell::take).unwrap_or_default();
    let children = cursor.children_mut();
    debug_assert!(children.is_empty(), "a kept merge has room, and nothing in it");
    children.reserve_exact(memtables + super_version.version.sources_max());
    let mut covers = Vec::new();
    // What is visible came before the pin: if nothing is there by now, nothing is visible.
    if !super_version.mem.is_empty() {
        let alone = super_version.is_memory_alone();
        children.push(Source::Memory(super_version.mem.cursor(pin, alone)));
    }
    if super_version.mem.has_range_tombstones() {
        covers.push(super_version.mem.range_tombstones());
    }
    for Immutable { table, .. } in &super_version.immutables {
        children.push(Source::Memory(table.frozen_cursor()));
        if table.has_range_tombstones() {
            covers.push(table.range_tombstones());
        }
    }
    let version = &super_version.version;
    let runs = version.iterators(range, true, |it| children.push(Source::Tables(it)));
    if runs > 1 {
        let (before, asked) = version.ask_runs(runs);
        let scan_bytes = family.l0_scan_bytes();
        let pay = |asked| scans_pay(asked, scan_bytes, version.bytes(0));
        if pay(asked) && !pay(before) {
            core.signals.work();
        }
    }
    covers.extend(version.range_tombstones(range)?);
    let tombstones = match covers.is_empty() {
        true => None,
        false => {
            let parts: Vec<&RangeTombstones> = covers.iter().map(|part| &**part).collect();
            Some(RangeTombstones::merge(&parts))
        }
    };
    Ok((cursor, tombstones))
}

/// Does any visible key begin with `prefix`? If the memtable shows one, for less than a scan costs.
pub(in crate::db) fn has_prefix(
    core: &Arc<Core>,
    family: &Arc<Family>,
    prefix: &[u8],
    snapshot: Option<&Snapshot>,
) -> Result<bool> {
    let view = View::new(core, family, snapshot);
    let mem = &view.super_version.mem;
    // What is put there is deleted by nothing older, and a range tombstone that the view shows came
    // before the view.
    if !mem.has_range_tombstones() {
        let alone = view.super_version.is_memory_alone();
        let found = match mem.glance(prefix, &view.pin, alone) {
            Glance::Put => Some(true),
            Glance::Nothing if alone => Some(false),
            Glance::Nothing | Glance::Unclear => None,
        };
        if let Some(found) = found {
            add(&core.counters.seeks, 1);
            add(&core.counters.keys_visited, u64::from(found));
            return Ok(found);
        }
    }
    Scan::of(Arc::clone(core), Arc::clone(family), KeyRange::prefix(prefix), view)?.first()
}

/// The half-open range of a Rust range expression over keys.
pub(in crate::db) fn key_range<'k>(range: &impl RangeBounds<&'k [u8]>) -> KeyRange {
    let start = match range.start_bound() {
        Bound::Included(key) => key.to_vec(),
        Bound::Excluded(key) => successor(key),
        Bound::Unbounded => Vec::new(),
    };
    let end = match range.end_bound() {
        Bound::Included(key) => Some(successor(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    KeyRange { start, end }
}
