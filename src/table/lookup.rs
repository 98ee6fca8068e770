//! One key looked up in a table's blocks, as far as it has come.

use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, SeqNo, ValueKind};
use crate::table::block::{entry_at, trailer_of};
use crate::table::block_builder::shared_prefix;

/// Takes a version and says whether it wants older ones.
pub type Visit<'v> = dyn FnMut(SeqNo, ValueKind, &[u8]) -> bool + 'v;

/// The search for the versions of one key in entries that lie one behind the other, perhaps in several
/// blocks. Nothing has to be known of the entries: what is not in order is passed by.
///
/// No key is rebuilt: it is enough to know how many bytes the entry before has in common with the key.
/// An entry that shares more with it is below the key for the same reason, one that shares less is above.
pub struct Lookup<'k> {
    key: &'k [u8],
    /// What is newer is passed by. `None`: nothing can be left.
    at: Option<SeqNo>,
    next: usize,
    matched: usize,
    found: bool,
}

impl<'k> Lookup<'k> {
    /// Of the versions of `key` at or below `at`.
    pub fn new(key: &'k [u8], at: SeqNo) -> Lookup<'k> {
        Lookup { key, at: Some(at), next: 0, matched: 0, found: false }
    }

    /// What comes first of what is wanted.
    pub fn target(&self) -> InternalKey<'k> {
        InternalKey::seek(self.key, self.at.unwrap_or(0))
    }

    /// Begins a block at one of its restarts.
    pub fn begin(&mut self, at: usize) {
        (self.next, self.matched, self.found) = (at, 0, false);
    }

    /// Goes on through `entries`, of which more may be there than the last time. Lends versions, newest
    /// first, to `visit` until that says `false`. Tells whether the next block may have more, or `None`
    /// behind the last whole entry.
    ///
    /// # Errors
    /// `Corruption`.
    pub fn go_on(&mut self, entries: &[u8], visit: &mut Visit<'_>) -> Result<Option<bool>> {
        while let Some(entry) = entry_at(entries, self.next) {
            self.next = entry.next;
            let tail = &entries[entry.tail..entry.seqno];
            if self.found && entry.shared == self.key.len() && tail.is_empty() {
                // Another version of the same key.
            } else if self.found && entry.shared > 0 {
                return Ok(Some(false));
            } else if entry.shared > self.matched {
                continue;
            } else if entry.shared > 0 && entry.shared < self.matched {
                return Ok(Some(false));
            } else {
                let rest = &self.key[entry.shared..];
                let same = shared_prefix(tail, rest);
                self.found = match (tail.get(same), rest.get(same)) {
                    (None, None) => true,
                    (None, Some(_)) => false,
                    (Some(a), Some(b)) if a < b => false,
                    _ => return Ok(Some(false)),
                };
                self.matched = entry.shared + same;
            }
            if self.found {
                let unpacked = InternalKey::unpack(trailer_of(entries, entry));
                let (seqno, kind) = unpacked.ok_or_else(|| Error::corruption("no known kind"))?;
                if self.at.is_some_and(|at| seqno <= at) {
                    self.at = seqno.checked_sub(1);
                    let value = &entries[entry.value..entry.next];
                    if !visit(seqno, kind, value) || self.at.is_none() {
                        return Ok(Some(false));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Goes on through `entries`, which are all that the block has. Tells whether the next block may have
    /// more.
    ///
    /// # Errors
    /// `Corruption`.
    pub fn finish(&mut self, entries: &[u8], visit: &mut Visit<'_>) -> Result<bool> {
        match self.go_on(entries, visit)? {
            Some(more) => Ok(more),
            None if self.next == entries.len() => Ok(self.found),
            None => Err(Error::corruption("entry cut short")),
        }
    }
}
