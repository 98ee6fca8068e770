//! Read-modify-write: read outside any lock, then check in constant time that nothing has changed.

use std::cell::Cell;

use crate::base::biased_mutex::try_lock_biased;
use crate::base::error::Result;
use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::base::sync::Arc;
use crate::db::column_family::ColumnFamily;
use crate::db::commit::Payload;
use crate::db::core::Core;
use crate::db::get::lookup_newest;
use crate::db::write_queue::Basis;
use crate::memtable::ValueCopy;

/// What an update makes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The key has the value that was written to the buffer.
    Put,
    /// The key has no value.
    Delete,
    /// Nothing changes.
    Keep,
}

thread_local! {
    /// The buffer that new values are made in: one a thread, lent to one update at a time.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Buffers that grew beyond this are given back.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

impl Core {
    /// Reads `key`, lets `f` decide, and writes the outcome if nobody wrote the key in between;
    /// otherwise begins again. No lock is held while `f` runs, and no I/O is done under a lock.
    pub fn update(
        &self,
        family: &ColumnFamily,
        key: &[u8],
        sync: bool,
        mut f: impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Result<SeqNo> {
        let mut value = BUFFER.take();
        let mut first = self.update_at_once(family, key, sync, &mut value, &mut f);
        let outcome = loop {
            if let Some(done) = first.take() {
                break done;
            }
            match self.try_update(family, key, sync, &mut value, &mut f) {
                Ok(None) => continue,
                Ok(Some(seqno)) => break Ok(seqno),
                Err(e) => break Err(e),
            }
        };
        if value.capacity() <= BUFFER_BYTES_KEPT {
            BUFFER.set(value);
        }
        outcome
    }

    /// The update of a value that the current memtable has, by its usual writer: nobody's lock is
    /// waited for, nothing counted, and the key looked up once. `None`: it is to be done the other way.
    #[inline(always)]
    fn update_at_once(
        &self,
        family: &ColumnFamily,
        key: &[u8],
        sync: bool,
        value: &mut Vec<u8>,
        f: &mut impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Option<Result<SeqNo>> {
        let mut copy = ValueCopy::new();
        let (old, at, place) = self.peek_at_once(family.id(), key, &mut copy)?;
        value.clear();
        let (kind, value) = match f(old, value) {
            Update::Put => (ValueKind::Put, value.as_slice()),
            Update::Delete => (ValueKind::Delete, &[][..]),
            Update::Keep => return Some(Ok(at)),
        };
        if let Err(e) = self.check_value(value).and_then(|()| self.check(family)) {
            return Some(Err(e));
        }
        let state = &mut *try_lock_biased(&self.commit.state)?;
        if let Some(seqno) = self.begin_at_once(state)
            && let Some(pins) = self.read_pins.try_hold_biased()
        {
            let mem = &mut state.writers.get_mut(family.id().0 as usize)?.as_mut()?.mem;
            let key = InternalKey::new(key, seqno, kind);
            state.applying = true;
            let overwritten = mem.overwrite_at(&place, key, value, pins.overwrite());
            state.applying = overwritten.is_some();
            let added = !overwritten? && mem.insert(key, value, None);
            self.end_at_once(state, seqno);
            drop(pins);
            if added {
                self.has_added(state, family.id());
            }
            return Some(Ok(seqno));
        }
        if !state.writer(family.id())?.mem.stands(&place, key) {
            return None;
        }
        let payload = Payload::One { family: family.id(), kind, key, value };
        Some(self.commit_one(state, payload, sync))
    }

    fn try_update(
        &self,
        family: &ColumnFamily,
        key: &[u8],
        sync: bool,
        value: &mut Vec<u8>,
        f: &mut impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Result<Option<SeqNo>> {
        let super_version = family.0.cell.load();
        let mut at = self.visible();
        value.clear();
        let operator = || family.0.options().merge_operator.clone();
        let update =
            lookup_newest(self, &super_version, operator, key, &mut at, |old| f(old, value))?;
        let kind = match update {
            Update::Put => ValueKind::Put,
            Update::Delete => ValueKind::Delete,
            Update::Keep => return Ok(Some(at)),
        };
        self.check_value(value)?;
        let value = if kind == ValueKind::Put { value.as_slice() } else { &[] };
        let payload = Payload::One { family: family.id(), kind, key, value };
        if !self.commit.queue.is_busy()
            && let Some(mut state) = self.commit.state.try_lock()
        {
            self.check(family)?; // it may have been dropped meanwhile
            return match state.is_unchanged(family.id(), key, &super_version.mem, at) {
                true => self.commit_one(&mut state, payload, sync).map(Some),
                false => Ok(None),
            };
        }
        let basis = Basis { mem: Arc::clone(&super_version.mem), at };
        self.commit_in_group(payload, sync, Some(basis))
    }
}
