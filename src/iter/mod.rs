//! Cursors over versions of keys, and what the versions of one key mean together.
//!
//! The question this folder answers: *given several sorted sources, what does a reader see?*

pub mod merging;
pub mod range_del;
pub mod resolve;

use crate::base::error::Result;
#[cfg(test)]
use crate::base::key::ValueKind;
use crate::base::key::{InternalKey, SeqNo};

/// A lending cursor over [`InternalKey`]s in their order, used by memtables, blocks, tables, levels
/// and merges alike.
///
/// Forward, it visits every version. Backward, it steps from user key to user key: `prev`, `last`
/// and `seek_for_prev` stop at the *newest version* of a user key, and within a key one always goes
/// forward. So one resolver serves both directions.
///
/// After an error the position is undefined until the next seek.
pub trait InternalIterator {
    /// To the first entry at or after `target`.
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()>;
    /// To the newest version of the greatest user key at or before `user_key`.
    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()>;
    /// To the first entry.
    fn first(&mut self) -> Result<()>;
    /// To the newest version of the last user key.
    fn last(&mut self) -> Result<()>;
    /// To the next entry. The cursor must stand on one.
    fn next(&mut self) -> Result<()>;
    /// To the newest version of the greatest user key before the current *user key*. The cursor must
    /// stand on an entry.
    fn prev(&mut self) -> Result<()>;
    /// Forward, to the first entry that is not of `user_key`, where the cursor stands now if on an
    /// entry: past the older versions of a key without visiting each, where that can be done.
    fn skip(&mut self, user_key: &[u8]) -> Result<()> {
        while self.key().is_some_and(|key| key.user_key == user_key) {
            self.next()?;
        }
        Ok(())
    }
    /// To the first entry of the next user key. The cursor must stand on an entry.
    fn next_user_key(&mut self) -> Result<()> {
        let key = self.key().expect("next needs an entry to start from");
        let key = key.user_key.to_vec();
        self.skip(&key)
    }
    /// The same. Says whether that led to a put that is visible at `at` and whose key has a
    /// [head](crate::base::key::head) less than `below`, which it returns: one way through all layers for
    /// the move and the look.
    #[inline]
    fn next_plain(&mut self, below: u128, at: SeqNo) -> Result<Option<u128>> {
        self.next_user_key()?;
        Ok(self.key().and_then(|key| key.plain_head(below, at)))
    }
    /// Does the cursor stand on an entry?
    #[inline]
    fn is_on_entry(&self) -> bool {
        self.key().is_some()
    }
    /// The key of the entry under the cursor, for less than the whole of it.
    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        self.entry().map(|(key, _)| key)
    }
    /// Forward, past keys before `end` that have no value at `at`, as their newest version is a delete,
    /// where that can be done without visiting each; from the newest version of a key. The caller
    /// knows that no other source has any key from here to `end`, older versions least of all, and
    /// that this is so for good: such keys may be forgotten.
    fn pass_deleted(&mut self, end: Option<&[u8]>, at: SeqNo) -> Result<()> {
        let _ = (end, at);
        Ok(())
    }
    /// The value of the entry under the cursor, likewise.
    #[inline]
    fn value(&self) -> Option<&[u8]> {
        self.entry().map(|(_, value)| value)
    }
    /// The entry under the cursor; `None` off either end.
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])>;
}

impl<I: InternalIterator + ?Sized> InternalIterator for Box<I> {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek(target)
    }
    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        (**self).seek_for_prev(user_key)
    }
    fn first(&mut self) -> Result<()> {
        (**self).first()
    }
    fn last(&mut self) -> Result<()> {
        (**self).last()
    }
    fn next(&mut self) -> Result<()> {
        (**self).next()
    }
    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
    fn skip(&mut self, user_key: &[u8]) -> Result<()> {
        (**self).skip(user_key)
    }
    fn next_user_key(&mut self) -> Result<()> {
        (**self).next_user_key()
    }
    fn is_on_entry(&self) -> bool {
        (**self).is_on_entry()
    }
    fn key(&self) -> Option<InternalKey<'_>> {
        (**self).key()
    }
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        (**self).entry()
    }
}

impl<I: InternalIterator + ?Sized> InternalIterator for &mut I {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        (**self).seek(target)
    }
    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        (**self).seek_for_prev(user_key)
    }
    fn first(&mut self) -> Result<()> {
        (**self).first()
    }
    fn last(&mut self) -> Result<()> {
        (**self).last()
    }
    fn next(&mut self) -> Result<()> {
        (**self).next()
    }
    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
    fn skip(&mut self, user_key: &[u8]) -> Result<()> {
        (**self).skip(user_key)
    }
    fn next_user_key(&mut self) -> Result<()> {
        (**self).next_user_key()
    }
    fn is_on_entry(&self) -> bool {
        (**self).is_on_entry()
    }
    fn key(&self) -> Option<InternalKey<'_>> {
        (**self).key()
    }
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        (**self).entry()
    }
}

/// A version with its value, owned.
#[cfg(test)]
pub type Version = (Vec<u8>, SeqNo, ValueKind, Vec<u8>);

/// A cursor over a sorted list: the oracle that other cursors are compared with.
#[cfg(test)]
#[derive(Clone, Debug)]
pub struct VecIterator {
    list: Vec<Version>,
    /// `list.len()`: on no entry.
    at: usize,
}

#[cfg(test)]
impl VecIterator {
    /// A cursor over these versions, which are sorted first.
    pub fn new(mut list: Vec<Version>) -> VecIterator {
        list.sort_by(|a, b| VecIterator::key(a).cmp(&VecIterator::key(b)));
        let at = list.len();
        VecIterator { list, at }
    }

    /// A cursor over these as they are, which can only go forward: what a forged table yields.
    pub fn forged(list: Vec<Version>) -> VecIterator {
        VecIterator { at: list.len(), list }
    }

    fn key(version: &Version) -> InternalKey<'_> {
        InternalKey::new(&version.0, version.1, version.2)
    }

    /// To the newest version of the last user key among the first `end` entries.
    fn newest_before(&mut self, end: usize) {
        self.at = match self.list[..end].last() {
            Some((last, ..)) => self.list.partition_point(|v| v.0 < *last),
            None => self.list.len(),
        };
    }
}

#[cfg(test)]
impl InternalIterator for VecIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.at = self.list.partition_point(|v| VecIterator::key(v) < target);
        Ok(())
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        self.newest_before(self.list.partition_point(|v| *v.0 <= *user_key));
        Ok(())
    }

    fn first(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }

    fn last(&mut self) -> Result<()> {
        self.newest_before(self.list.len());
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        assert!(self.at < self.list.len(), "a step from no entry");
        self.at += 1;
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        assert!(self.at < self.list.len(), "a step from no entry");
        let key = &self.list[self.at].0;
        self.newest_before(self.list.partition_point(|v| v.0 < *key));
        Ok(())
    }

    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        let version = self.list.get(self.at)?;
        Some((VecIterator::key(version), &version.3))
    }
}
