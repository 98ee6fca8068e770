//! How a write becomes visible: group commit, the log, the memtables, publication, rotation.
//!
//! One leader at a time: whoever holds `state`. A writer that is alone takes it at once. One that finds
//! it taken, or others waiting, joins the [`write_queue`](crate::db::write_queue), whose front leads a
//! group: one log record, one sync, one publication for all in it.

use crate::base::biased_mutex::{BiasedMutex, BiasedMutexGuard, try_lock_biased};
use crate::base::canary::Canary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::FamilyId;
use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::sync::{Arc, Ordering};
use crate::batch::WriteBatch;
use crate::db::column_family::Family;
use crate::db::core::{Core, attention};
use crate::db::get::changed_since;
use crate::db::stats::count;
use crate::db::super_version::{Immutable, SuperVersion};
use crate::db::wal::Wal;
use crate::db::write_queue::{Basis, Outcome, Ticket, WriteQueue};
use crate::memtable::{MemTable, MemTableOptions, MemTableWriter, Overwrite, Place, ValueCopy};

/// The commit pipeline.
pub(in crate::db) struct Commit {
    pub state: BiasedMutex<CommitState>,
    /// Writers that wait for `state`, or for a leader to take their batch along.
    pub queue: WriteQueue,
}

/// What the leader owns.
pub(in crate::db) struct CommitState {
    /// The last sequence number given out; those of failed writes are burnt.
    pub last_seqno: SeqNo,
    /// `None` when the log is off.
    pub wal: Option<Wal>,
    /// The one writer of each family's memtable, by family number.
    pub writers: Vec<Option<FamilyWriter>>,
    /// Single operations are encoded here on their way to the log.
    scratch: WriteBatch,
    /// Set while memtables are being changed; found set by a leader, an earlier one unwound half-way.
    pub applying: bool,
}

/// The writing half of a family.
pub(in crate::db) struct FamilyWriter {
    pub family: Arc<Family>,
    pub mem: MemTableWriter,
}

/// What the usual writer of a family sees of a key at once.
pub(in crate::db) enum AtOnce<'c> {
    /// This is its value.
    Is(Option<&'c [u8]>),
    /// The memtable with this number, the current one, knows nothing of it.
    Older(u64),
}

/// What a writer brings: a batch, or one operation that needs none while the log is off.
#[derive(Clone, Copy)]
pub(in crate::db) enum Payload<'a> {
    Batch(&'a WriteBatch),
    One { family: FamilyId, kind: ValueKind, key: &'a [u8], value: &'a [u8] },
}

impl Payload<'_> {
    fn count(&self) -> u64 {
        match self {
            Payload::Batch(batch) => batch.count(),
            Payload::One { .. } => 1,
        }
    }

    fn copy_into(&self, out: &mut WriteBatch) {
        match *self {
            Payload::Batch(batch) => out.append(batch),
            Payload::One { family, kind, key, value } => match kind {
                ValueKind::Put => out.put(family, key, value),
                ValueKind::Delete => out.delete(family, key),
                ValueKind::Merge => out.merge(family, key, value),
                ValueKind::RangeDelete => out.delete_range(family, key, value),
            },
        }
    }
}

impl CommitState {
    pub fn new(last_seqno: SeqNo, wal: Option<Wal>) -> CommitState {
        let scratch = WriteBatch::new();
        CommitState { last_seqno, wal, writers: Vec::new(), scratch, applying: false }
    }

    /// Adds the writing half of a family.
    pub fn add_writer(&mut self, family: Arc<Family>, mem: MemTableWriter) {
        let slot = family.id.0 as usize;
        if self.writers.len() <= slot {
            self.writers.resize_with(slot + 1, || None);
        }
        assert!(self.writers[slot].is_none(), "one writer a memtable");
        self.writers[slot] = Some(FamilyWriter { family, mem });
    }

    #[inline]
    pub fn writer(&mut self, id: FamilyId) -> Option<&mut FamilyWriter> {
        self.writers.get_mut(id.0 as usize)?.as_mut()
    }

    /// The writing half of a family, unless a leader has unwound half-way.
    #[inline(always)]
    fn at_once(&self, id: FamilyId) -> Option<&FamilyWriter> {
        if self.applying { None } else { self.writers.get(id.0 as usize)?.as_ref() }
    }

    /// Is the key of `one`, an operation alone, as it was when `basis` was read?
    fn stands(&mut self, basis: &Basis, one: &WriteBatch) -> bool {
        let Some(Ok(one)) = one.reader().next() else { return false };
        self.is_unchanged(one.family, one.key, &basis.mem, basis.at)
    }

    /// Is `key` as it was when it was read in `mem`, and below, at `at`?
    pub fn is_unchanged(
        &mut self,
        family: FamilyId,
        key: &[u8],
        mem: &Arc<MemTable>,
        at: SeqNo,
    ) -> bool {
        // The memtable that was read must still be the one: if it was rotated before `at` was looked up,
        // what the next one had by then was not read. In it, nothing at all was written since, which is
        // the usual case, or at least nothing to the key.
        let quiet = self.last_seqno == at;
        let Some(writer) = self.writer(family) else { return false };
        Arc::ptr_eq(writer.mem.table(), mem) && (quiet || !changed_since(mem, key, at))
    }

    #[inline]
    fn check_families(&self, payload: &Payload<'_>) -> Result<()> {
        match *payload {
            Payload::One { family, .. } => self.check_family(family),
            Payload::Batch(batch) => {
                batch.reader().ops().try_for_each(|op| self.check_family(op?.family))
            }
        }
    }

    #[inline]
    fn check_family(&self, id: FamilyId) -> Result<()> {
        match self.writers.get(id.0 as usize) {
            Some(Some(_)) => Ok(()),
            _ => Err(unknown_family(id)),
        }
    }
}

impl Commit {
    pub fn new(state: CommitState) -> Commit {
        Commit { state: BiasedMutex::new(state), queue: WriteQueue::default() }
    }
}

/// What a leader has taken out of the line. Whatever happens to the leader, all that wait for it are
/// woken, and somebody else leads.
pub(in crate::db) struct Group<'a> {
    pub core: &'a Core,
    pub tickets: Vec<Arc<Ticket>>,
    /// As many as there are tickets, when the group is done.
    pub outcomes: Vec<Outcome>,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        if self.outcomes.len() < self.tickets.len() {
            let unwound = Err(self.core.half_way());
            self.outcomes.resize(self.tickets.len(), unwound);
        }
        self.core.commit.queue.pass_on(&self.tickets, std::mem::take(&mut self.outcomes));
    }
}

impl Core {
    /// Commits `payload`, alone or in a group, and returns the sequence number of its last operation.
    pub fn commit(&self, payload: Payload<'_>, sync: bool) -> Result<SeqNo> {
        if sync && !self.options.log {
            return Err(Error::invalid("a synced write needs the log"));
        }
        if !self.commit.queue.is_busy()
            && let Some(mut state) = self.commit.state.try_lock()
        {
            return self.commit_one(&mut state, payload, sync);
        }
        self.commit_in_group(payload, sync, None).map(|last| last.expect("no basis"))
    }

    /// Commits `payload` in the group of whoever leads, or leads. `None` if it has a basis, and that
    /// has changed: nothing was done then. A payload with a basis is one operation.
    #[cold]
    pub fn commit_in_group(
        &self,
        payload: Payload<'_>,
        sync: bool,
        basis: Option<Basis>,
    ) -> Outcome {
        let mut batch = WriteBatch::new();
        payload.copy_into(&mut batch);
        let ticket = Arc::new(Ticket::new(batch, sync, basis));
        self.commit.queue.join(&ticket).unwrap_or_else(|| {
            self.lead();
            ticket.wait().expect("a leader's own ticket is in its group")
        })
    }

    /// Commits the group at the front of the line; the caller's ticket is the first.
    pub fn lead(&self) {
        let mut group = Group { core: self, tickets: Vec::new(), outcomes: Vec::new() };
        self.commit.queue.gather();
        let mut state = self.commit.state.lock();
        group.tickets = self.commit.queue.take();
        group.outcomes = self.commit_group(&mut state, &group.tickets);
        // First the lock, then the group: those who are woken can go on.
        drop(state);
    }

    /// Commits what can be committed of a group, with one log record and one sync, and says what
    /// became of each.
    fn commit_group(&self, state: &mut CommitState, group: &[Arc<Ticket>]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(group.len());
        let mut batch = WriteBatch::new();
        let mut sync = false;
        for ticket in group {
            // A batch that names an unknown family, or whose basis has changed, fails alone.
            let outcome = state.check_families(&Payload::Batch(&ticket.batch)).map(|()| {
                let stands = ticket.basis.as_ref().is_none_or(|basis| {
                    state.stands(basis, &ticket.batch) && !touches(&batch, &ticket.batch)
                });
                stands.then(|| {
                    sync |= ticket.sync;
                    batch.append(&ticket.batch);
                    batch.count() // from the start of the group, for now
                })
            });
            outcomes.push(outcome);
        }
        if !outcomes.iter().any(|outcome| matches!(outcome, Ok(Some(_)))) {
            return outcomes;
        }
        let count = batch.count();
        let committed = self.commit_one(state, Payload::Batch(&batch), sync);
        for outcome in &mut outcomes {
            if let Ok(Some(upto)) = *outcome {
                *outcome = committed.clone().map(|last| Some(last - count + upto));
            }
        }
        outcomes
    }

    /// The life of a write of keyed state: one operation on points, the log off, by the usual writer,
    /// and nothing that asks for attention. The same as [`commit_one`](Core::commit_one) in a straight
    /// line, without a locked instruction, in few registers. `None`: nothing was done, it is to go the
    /// other way.
    #[inline(never)]
    pub fn commit_at_once(
        &self,
        family: FamilyId,
        kind: ValueKind,
        key: &[u8],
        value: &[u8],
    ) -> Option<SeqNo> {
        let state = &mut *try_lock_biased(&self.commit.state)?;
        let seqno = self.begin_at_once(state)?;
        let pins = self.read_pins.try_hold_biased()?;
        let mem = &mut state.writers.get_mut(family.0 as usize)?.as_mut()?.mem;
        state.applying = true;
        let key = InternalKey::new(key, seqno, kind);
        let added = mem.insert(key, value, Some(pins.overwrite()));
        self.end_at_once(state, seqno);
        drop(pins);
        if added {
            self.has_added(state, family);
        }
        Some(seqno)
    }

    /// May a change be made at once? Its sequence number then.
    #[inline(always)]
    pub fn begin_at_once(&self, state: &CommitState) -> Option<SeqNo> {
        let quiet = self.attention.load(Ordering::Relaxed) == 0 && !state.applying;
        (quiet && state.wal.is_none()).then_some(state.last_seqno + 1)
    }

    /// Publishes a change that was made at once.
    #[inline(always)]
    pub fn end_at_once(&self, state: &mut CommitState, seqno: SeqNo) {
        state.applying = false;
        state.last_seqno = seqno;
        self.visible.store(seqno, Ordering::Release);
        count(&self.counters.operations, 1);
        count(&self.counters.groups, 1);
    }

    /// After a memtable has taken room.
    #[inline(never)]
    pub fn has_added(&self, state: &mut CommitState, family: FamilyId) {
        let writer = state.writer(family).expect("it was written to");
        let (full, grown) = (writer.mem.is_full(), writer.mem.has_grown());
        if full {
            self.rotate_full(state);
        }
        if grown {
            self.keep_to_budget(state);
        }
    }

    /// The newest value of a key, `None` after a delete, if this thread is the usual writer, the
    /// current memtable decides alone, and the value is short: two cache misses, no locked instruction,
    /// no reference counted. With what was visible then, and the place.
    #[inline(always)]
    pub fn peek_at_once<'c>(
        &self,
        family: FamilyId,
        key: &[u8],
        copy: &'c mut ValueCopy,
    ) -> Option<(Option<&'c [u8]>, SeqNo, Place)> {
        let state = try_lock_biased(&self.commit.state)?;
        let (place, found) = state.at_once(family)?.mem.peek(key, copy)??;
        Some((found.put(), self.visible(), place))
    }

    /// The same for those who only read. What the memtable knows nothing of is absent, if nothing is
    /// older than it: one cache miss.
    #[inline(always)]
    pub fn read_at_once<'c>(
        &self,
        family: FamilyId,
        key: &[u8],
        copy: &'c mut ValueCopy,
    ) -> Option<AtOnce<'c>> {
        let state = try_lock_biased(&self.commit.state)?;
        let writer = state.at_once(family)?;
        Some(match writer.mem.peek(key, copy)? {
            Some((_, found)) => AtOnce::Is(found.put()),
            None if writer.family.cell.is_memory_alone() => AtOnce::Is(None),
            None => AtOnce::Older(writer.mem.table().number()),
        })
    }

    /// The life of a write. The order is the whole secret: log, sync, memtables, publication.
    pub fn commit_one(
        &self,
        state: &mut CommitState,
        payload: Payload<'_>,
        sync: bool,
    ) -> Result<SeqNo> {
        if self.attention.load(Ordering::Relaxed) != 0 || state.applying {
            self.attend(state)?;
        }
        state.check_families(&payload)?;
        let first = state.last_seqno + 1;
        let operations = payload.count();
        if operations == 0 {
            return Ok(state.last_seqno);
        }
        let last = state.last_seqno + operations;
        if state.wal.is_some() {
            self.append(state, &payload, first, sync)?;
        }
        state.last_seqno = last;
        state.applying = true;
        // Held until publication: no pin is taken in between.
        let pins = self.read_pins.try_hold();
        let overwrite = pins.as_ref().map(|pins| pins.overwrite());
        if Canary::VisibleBeforeWritten.is_planted() {
            self.visible.store(last, Ordering::Release);
        }
        let (full, grown) = apply(state, &payload, first, overwrite);
        state.applying = false;
        self.visible.store(last, Ordering::Release);
        drop(pins);
        count(&self.counters.operations, operations);
        count(&self.counters.groups, 1);
        if full {
            self.rotate_full(state);
        }
        if grown {
            self.keep_to_budget(state);
        }
        let most = self.options.log_segments_max;
        if let Some(upto) = state.wal.as_mut().and_then(|wal| wal.outgrown(most)) {
            self.rotate_before(state, upto);
        }
        Ok(last)
    }

    /// Writes the payload to the log. Whatever happens, its sequence numbers are used up.
    fn append(
        &self,
        state: &mut CommitState,
        payload: &Payload<'_>,
        first: SeqNo,
        sync: bool,
    ) -> Result<()> {
        let last_before = first - 1;
        state.scratch.clear();
        payload.copy_into(&mut state.scratch);
        state.scratch.set_seqno(first);
        let wal = state.wal.as_mut().expect("the log is on");
        let mut outcome = wal.append(state.scratch.as_bytes(), last_before, || self.numbers.next());
        if outcome.is_ok() {
            count(&self.counters.log_bytes, state.scratch.bytes() as u64);
            if sync {
                outcome = wal.sync();
                count(&self.counters.log_syncs, 1);
            }
        }
        if let Err(e) = &outcome {
            state.last_seqno += payload.count();
            if e.kind() != ErrorKind::NoSpace {
                self.halt(e);
            }
        }
        outcome
    }

    /// The commit lock, for others than writers.
    ///
    /// # Errors
    /// `Halted`, also if a writer unwound while it changed memtables: half a batch must not be shown,
    /// flushed or captured.
    pub fn stand_still(&self) -> Result<BiasedMutexGuard<'_, CommitState>> {
        let state = self.commit.state.lock();
        self.check_sound(&state)?;
        Ok(state)
    }

    fn check_sound(&self, state: &CommitState) -> Result<()> {
        if state.applying {
            return Err(self.half_way());
        }
        self.check_halted()
    }

    #[cold]
    fn half_way(&self) -> Error {
        self.halt(&Error::new(ErrorKind::Halted, "a writer panicked half-way"))
    }

    /// Deals with whatever asked for attention.
    #[cold]
    fn attend(&self, state: &mut CommitState) -> Result<()> {
        self.check_sound(state)?;
        let wishes = self.attention.load(Ordering::Acquire);
        if wishes & attention::ROTATE != 0 {
            self.rotate_largest(state);
        }
        if wishes & attention::STALL != 0 {
            self.wait_for_room()?;
        }
        Ok(())
    }

    /// Rotates all memtables that have reached their size.
    #[cold]
    fn rotate_full(&self, state: &mut CommitState) {
        self.rotate_those(state, |mem| mem.is_full());
    }

    /// Rotates all memtables that hold something at or below `upto`: the log has outgrown its bound.
    #[cold]
    fn rotate_before(&self, state: &mut CommitState, upto: SeqNo) {
        self.rotate_those(state, |mem| mem.table().seqno_min().is_some_and(|least| least <= upto));
    }

    fn rotate_those(&self, state: &mut CommitState, which: impl Fn(&MemTableWriter) -> bool) {
        self.rotate(state, |writer| which(&writer.mem));
        self.update_stall();
        self.signals.work();
    }

    /// After a memtable has taken memory: here, and not only in the background, which may be busy with
    /// a flush, the budget's wish is met and its limit looked at.
    #[cold]
    fn keep_to_budget(&self, state: &mut CommitState) {
        let (used, limit) = (self.env.budget.used(), self.env.budget.limit());
        if self.pressure.try_recv().is_ok() {
            self.rotate_largest(state);
        } else if used > limit {
            self.update_stall();
        } else if used > limit - limit / 8 {
            self.slow_down();
        }
        self.hold_back();
    }

    /// Rotates the largest memtable, if memory is still short: whoever asked may have been served.
    pub fn rotate_largest(&self, state: &mut CommitState) {
        self.attention.fetch_and(!attention::ROTATE, Ordering::AcqRel);
        if !self.env.budget.wants_flush() {
            return;
        }
        let writers = state.writers.iter().flatten();
        let largest = writers.max_by_key(|writer| writer.mem.table().bytes());
        if let Some(writer) = largest
            && !writer.mem.table().is_empty()
        {
            let largest = writer.family.id;
            self.rotate(state, |writer| writer.family.id == largest);
            self.update_stall();
            self.signals.work();
        }
    }

    /// Freezes the memtables of those families, unless they are empty, and puts fresh ones in their
    /// places: pointer work. Every operation of these families up to the last sequence number given
    /// out is then in frozen memtables or tables. The group that wrote them is published before any
    /// other lock is let go.
    pub fn rotate(&self, state: &mut CommitState, which: impl Fn(&FamilyWriter) -> bool) {
        let upto = state.last_seqno;
        if let Some(wal) = &state.wal {
            wal.tell_end(); // a flush may have to sync all before it
        }
        for writer in state.writers.iter_mut().flatten() {
            if !writer.mem.table().is_empty() && which(writer) {
                self.rotate_one(writer, upto);
            }
        }
    }

    fn rotate_one(&self, writer: &mut FamilyWriter, upto: SeqNo) {
        let options = writer.family.options();
        let keys = writer.mem.table().keys();
        let (mut mem, table) = self.new_memtable(options.memtable_bytes_max, keys);
        mem.join_operands(options.concatenates());
        let frozen = std::mem::replace(&mut writer.mem, mem).freeze();
        writer.family.cell.update(|old| {
            let mut immutables = Vec::with_capacity(old.immutables.len() + 1);
            immutables.push(Immutable { table: Arc::clone(&frozen), upto });
            immutables.extend(old.immutables.iter().cloned());
            SuperVersion { mem: Arc::clone(&table), immutables, version: Arc::clone(&old.version) }
        });
    }

    /// A memtable charged to this database.
    pub fn new_memtable(
        &self,
        bytes_max: usize,
        keys_hint: usize,
    ) -> (MemTableWriter, Arc<MemTable>) {
        let options = MemTableOptions { bytes_max, keys_hint };
        MemTable::new(options, &self.read_pins, self.member.reserve(0))
    }
}

#[cold]
#[track_caller]
fn unknown_family(id: FamilyId) -> Error {
    Error::not_found(format!("column family {id}"))
}

/// Does `batch` write the key of `one`, an operation alone?
fn touches(batch: &WriteBatch, one: &WriteBatch) -> bool {
    let Some(Ok(one)) = one.reader().next() else { return false };
    batch.reader().ops().any(|op| {
        let op = op.expect("our own batch");
        op.family == one.family && (op.kind == ValueKind::RangeDelete || op.key == one.key)
    })
}

/// Puts every operation into its memtable; says whether one of them is full now, and whether one has
/// taken memory.
#[inline]
fn apply(
    state: &mut CommitState,
    payload: &Payload<'_>,
    first: SeqNo,
    overwrite: Option<Overwrite<'_>>,
) -> (bool, bool) {
    match *payload {
        Payload::One { family, kind, key, value } => {
            let writer = state.writer(family).expect("checked before the log was written");
            let key = InternalKey::new(key, first, kind);
            let added = writer.mem.insert(key, value, overwrite);
            (added && writer.mem.is_full(), writer.mem.has_grown())
        }
        Payload::Batch(batch) => {
            let (mut full, mut grown) = (false, false);
            for (op, seqno) in batch.reader().ops().zip(first..) {
                let op = op.expect("our own batch");
                let writer = state.writer(op.family).expect("checked before the log was written");
                let key = InternalKey::new(op.key, seqno, op.kind);
                let added = writer.mem.insert(key, op.value, overwrite);
                full |= added && writer.mem.is_full();
                grown |= writer.mem.has_grown();
            }
            (full, grown)
        }
    }
}
