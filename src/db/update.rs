//! Read-modify-write: read outside any lock, then check in constant time that nothing has changed.

use std::cell::Cell;

use crate::base::error::Result;
use crate::base::key::{SeqNo, ValueKind};
use crate::base::sync::Arc;
use crate::db::column_family::ColumnFamily;
use crate::db::commit::Payload;
use crate::db::core::Core;
use crate::db::get::lookup_newest;
use crate::db::write_queue::Basis;

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
        let outcome = loop {
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
                true => self.commit_alone(&mut state, payload, sync).map(Some),
                false => Ok(None),
            };
        }
        let basis = Basis { mem: Arc::clone(&super_version.mem), at };
        self.commit_in_group(payload, sync, Some(basis))
    }
}
