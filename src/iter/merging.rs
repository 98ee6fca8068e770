//! Many sorted cursors as one.
//!
//! The child whose entry is the current one, and a binary heap of the others. Runs from one child are
//! common: a step that stays with the same child costs one comparison with the best of the others, of
//! numbers where the first sixteen bytes of the keys differ.
//!
//! Forward, every child stands at its first entry at or after the current one. Backward, every child
//! stands at the newest version of its greatest user key at or before the current one. Turning round
//! moves the children from the one to the other.

use std::cmp::Ordering;

use crate::base::canary::Canary;
use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo, head};
use crate::iter::InternalIterator;

/// The union of its children, in order. Of equal entries (same user key, same sequence number), that
/// of the earlier child comes first.
///
/// After an error, every call but a seek (or `first`, `last`) returns that error again, so that a
/// failure cannot be taken for the end. Steps allocate nothing.
pub struct MergingIterator<I> {
    children: Vec<I>,
    /// The child whose entry is the current one.
    top: Option<Standing>,
    /// The others that stand on an entry: a binary heap, the best of them, the *rival*, in front.
    rest: Vec<Standing>,
    forward: bool,
    /// The user key moved away from; kept for its allocation.
    key: Vec<u8>,
    failed: Option<Error>,
}

/// A longer buffer of a key is not kept for later merges.
const KEPT_KEY_BYTES: usize = 1 << 10;

/// A child that stands on an entry.
#[derive(Clone, Copy)]
struct Standing {
    /// The first bytes of its user key; of the top, if there is a rival.
    head: u128,
    child: usize,
}

impl<I> Default for MergingIterator<I> {
    fn default() -> MergingIterator<I> {
        MergingIterator {
            children: Vec::new(),
            top: None,
            rest: Vec::new(),
            forward: true,
            key: Vec::new(),
            failed: None,
        }
    }
}

impl<I: InternalIterator> MergingIterator<I> {
    /// Merges `children`, newest source first where entries may be equal. Stands on no entry until
    /// the first seek.
    pub fn new(children: Vec<I>) -> MergingIterator<I> {
        MergingIterator { children, ..MergingIterator::default() }
    }

    /// The children, standing nowhere, to be changed.
    pub fn children_mut(&mut self) -> &mut Vec<I> {
        self.failed = None;
        self.forward = true;
        self.clear();
        &mut self.children
    }

    /// Drops the children. What is left has their room, unless that is for more than `children_max`.
    pub fn into_room(mut self, children_max: usize) -> Option<MergingIterator<I>> {
        self.children_mut().clear();
        if self.key.capacity() > KEPT_KEY_BYTES {
            self.key = Vec::new();
        }
        (self.children.capacity() <= children_max).then_some(self)
    }

    /// Places every child with `place`, then finds the best.
    fn restart(
        &mut self,
        forward: bool,
        mut place: impl FnMut(usize, &mut I) -> Result<()>,
    ) -> Result<()> {
        self.failed = None;
        self.forward = forward;
        self.clear();
        for i in 0..self.children.len() {
            if let Err(error) = place(i, &mut self.children[i]) {
                return Err(self.fail(error));
            }
            let Some(head) = self.head_of(i) else { continue };
            let new = Standing { head, child: i };
            match self.top {
                Some(top) if self.precedes(top, new) => self.rest.push(new),
                top => {
                    self.rest.extend(top);
                    self.top = Some(new);
                }
            }
        }
        for at in (0..self.rest.len() / 2).rev() {
            self.sift_down(at);
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.top = None;
        self.rest.clear();
    }

    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.clear();
        self.failed = Some(error.clone());
        error
    }

    /// The child on top, for a step away from it.
    fn top(&self) -> Result<usize> {
        match (self.top, &self.failed) {
            (Some(top), _) => Ok(top.child),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => panic!("a step from no entry"),
        }
    }

    /// The first bytes of a child's key; `None` if the child stands on no entry.
    #[inline]
    fn head_of(&self, child: usize) -> Option<u128> {
        self.children[child].key().map(|key| head(key.user_key))
    }

    /// May another child stand on the user key of the top? All are at or behind the rival.
    #[inline]
    fn may_share_key(&self) -> bool {
        match (self.top, self.rest.first()) {
            (Some(top), Some(rival)) => top.head == rival.head,
            _ => false,
        }
    }

    #[inline(never)]
    fn plain_head(&self, below: u128, at: SeqNo) -> Option<u128> {
        self.key()?.plain_head(below, at)
    }

    /// After the top child has moved: finds its place, or removes it. Returns whether another child
    /// is on top now.
    #[inline(always)]
    fn replace_top(&mut self, child: usize) -> bool {
        match self.rest.first() {
            Some(&rival) => self.replace_among(rival, child),
            None => {
                if !self.children[child].is_on_entry() {
                    self.top = None;
                }
                false
            }
        }
    }

    #[inline(never)]
    fn replace_among(&mut self, rival: Standing, child: usize) -> bool {
        let Some(head) = self.head_of(child) else {
            self.top = Some(self.rest.swap_remove(0));
            self.sift_down(0);
            return true;
        };
        let moved = Standing { head, child };
        let overtaken = self.precedes(rival, moved);
        if overtaken {
            self.top = Some(rival);
            self.rest[0] = moved;
            self.sift_down(0);
        } else {
            self.top = Some(moved);
        }
        overtaken
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut best = 2 * at + 1;
            if best >= self.rest.len() {
                return;
            }
            if best + 1 < self.rest.len() && self.precedes(self.rest[best + 1], self.rest[best]) {
                best += 1;
            }
            if !self.precedes(self.rest[best], self.rest[at]) {
                return;
            }
            self.rest.swap(at, best);
            at = best;
        }
    }

    /// Does the entry of one child come before that of another, in the direction of travel?
    #[inline]
    fn precedes(&self, a: Standing, b: Standing) -> bool {
        match a.head == b.head {
            false => (a.head < b.head) == self.forward,
            true => self.precedes_in_full(a.child, b.child),
        }
    }

    fn precedes_in_full(&self, a: usize, b: usize) -> bool {
        let (Some(x), Some(y)) = (self.children[a].key(), self.children[b].key()) else {
            unreachable!("it stands on an entry");
        };
        let keys =
            if self.forward { x.user_key.cmp(y.user_key) } else { y.user_key.cmp(x.user_key) };
        // Newest first in both directions.
        let order = keys.then_with(|| y.trailer().cmp(&x.trailer()));
        order == Ordering::Less || (order == Ordering::Equal && a < b)
    }

    /// Keeps the current user key and lends it together with the rest.
    fn save_key(&mut self, top: usize) {
        self.key.clear();
        if let Some(key) = self.children[top].key() {
            self.key.extend_from_slice(key.user_key);
        }
    }

    fn stands_on_saved_key(&self) -> bool {
        self.key().is_some_and(|key| key.user_key == self.key)
    }

    /// From the current entry, the newest version of its user key, to the first of the next one.
    fn turn_to_next_user_key(&mut self, top: usize) -> Result<()> {
        self.save_key(top);
        let key = std::mem::take(&mut self.key);
        let turned = self.restart(true, |_, child| match child.key() {
            Some(at) if at.user_key == key => child.next_user_key(),
            // It has no version of the key.
            _ => child.seek(InternalKey::seek(&key, SEQNO_MAX)),
        });
        self.key = key;
        turned
    }

    /// From the current entry, the newest version of its user key, on to the next.
    fn turn_forward(&mut self, top: usize) -> Result<()> {
        self.save_key(top);
        let key = std::mem::take(&mut self.key);
        let turned = self.restart(true, |i, child| match child.key() {
            _ if i == top => child.next(),
            // Its newest version of the same key: after the current one, or it would be on top.
            Some(at) if at.user_key == key => Ok(()),
            // It has no version of the key.
            _ => child.seek(InternalKey::seek(&key, SEQNO_MAX)),
        });
        self.key = key;
        turned
    }

    /// From the current entry to the newest version of the user key before it.
    fn turn_backward(&mut self, top: usize) -> Result<()> {
        self.save_key(top);
        let key = std::mem::take(&mut self.key);
        let turned = self.restart(false, |_, child| {
            if child.is_on_entry() {
                child.prev()?;
            } else {
                child.seek_for_prev(&key)?;
            }
            // A child that was past the key may have older entries of it behind.
            match child.key() {
                Some(at) if at.user_key == key => child.prev(),
                _ => Ok(()),
            }
        });
        self.key = key;
        turned
    }
}

impl<I: InternalIterator> InternalIterator for MergingIterator<I> {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.restart(true, |_, child| child.seek(target))
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        self.restart(false, |_, child| child.seek_for_prev(user_key))
    }

    fn first(&mut self) -> Result<()> {
        self.restart(true, |_, child| child.first())
    }

    fn last(&mut self) -> Result<()> {
        self.restart(false, |_, child| child.last())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let top = self.top()?;
        if !self.forward {
            return self.turn_forward(top);
        }
        if let Err(error) = self.children[top].next() {
            return Err(self.fail(error));
        }
        self.replace_top(top);
        Ok(())
    }

    fn skip(&mut self, user_key: &[u8]) -> Result<()> {
        let of_key = |child: &I| child.key().is_some_and(|key| key.user_key == user_key);
        if !self.forward && self.top.is_some_and(|top| of_key(&self.children[top.child])) {
            self.next()?;
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        while let Some(Standing { child, .. }) = self.top
            && of_key(&self.children[child])
        {
            if let Err(error) = self.children[child].skip(user_key) {
                return Err(self.fail(error));
            }
            self.replace_top(child);
        }
        Ok(())
    }

    #[inline(never)]
    fn next_user_key(&mut self) -> Result<()> {
        let top = self.top()?;
        if !self.forward {
            return self.turn_to_next_user_key(top);
        }
        // Most keys are in one child only, which is asked without a copy of the key.
        let shared = self.may_share_key();
        if shared {
            self.save_key(top);
        }
        while let Some(Standing { child, .. }) = self.top {
            if let Err(error) = self.children[child].next_user_key() {
                return Err(self.fail(error));
            }
            // A child that stays on top has left the key, and so have all others.
            if !self.replace_top(child) || !shared || !self.stands_on_saved_key() {
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn next_plain(&mut self, below: u128, at: SeqNo) -> Result<Option<u128>> {
        let rival = self.rest.first().map(|rival| rival.head);
        if let Some(Standing { child, head }) = self.top
            && self.forward
            && rival != Some(head)
        {
            // No other child has the key, and most often none what comes next.
            let below = rival.map_or(below, |rival| below.min(rival));
            match self.children[child].next_plain(below, at) {
                Ok(Some(head)) => {
                    self.top = Some(Standing { child, head });
                    return Ok(Some(head));
                }
                Ok(None) => {
                    self.replace_top(child);
                }
                Err(error) => return Err(self.fail(error)),
            }
        } else {
            self.next_user_key()?;
        }
        Ok(self.plain_head(below, at))
    }

    fn pass_deleted(&mut self, end: Option<&[u8]>, at: SeqNo) -> Result<()> {
        let Some(Standing { child, .. }) = self.top.filter(|_| self.forward) else { return Ok(()) };
        // Up to the next key of any other child.
        let rival = self.rest.first().and_then(|rival| self.children[rival.child].key());
        let rival = rival.map(|key| key.user_key);
        let rival = rival.filter(|_| !Canary::DeletesHideNothing.is_planted());
        let end = match (end, rival) {
            (Some(end), Some(rival)) => Some(end.min(rival)),
            (end, rival) => end.or(rival),
        };
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(end.unwrap_or_default());
        let end = end.is_some().then_some(&*key);
        let passed = self.children[child].pass_deleted(end, at);
        self.key = key;
        if let Err(error) = passed {
            return Err(self.fail(error));
        }
        self.replace_top(child);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let top = self.top()?;
        if self.forward {
            return self.turn_backward(top);
        }
        let shared = self.may_share_key();
        if shared {
            self.save_key(top);
        }
        while let Some(Standing { child, .. }) = self.top {
            if let Err(error) = self.children[child].prev() {
                return Err(self.fail(error));
            }
            self.replace_top(child);
            if !shared || !self.stands_on_saved_key() {
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn is_on_entry(&self) -> bool {
        self.top.is_some()
    }

    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        self.children[self.top?.child].key()
    }

    #[inline]
    fn value(&self) -> Option<&[u8]> {
        self.children[self.top?.child].value()
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        self.children[self.top?.child].entry()
    }
}

#[cfg(test)]
mod tests;
