//! Cursors over a version's files: one file cut to its bounds, and a level of disjoint files.

use crate::base::canary::Canary;
use crate::base::error::Result;
use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo};
use crate::base::sync::Arc;
use crate::iter::InternalIterator;
use crate::table::TableIterator;
use crate::version::file::TableFile;
use crate::version::levels::{Described, Level, first_ending_after};

/// A cursor over one source of a version.
pub enum VersionIterator {
    /// The only file of a run or level.
    Table(ClippedIterator),
    /// Files of one level from 1 on, or of one run of level 0.
    Level(LevelIterator),
}

/// A cursor over a file, as if the file held nothing outside its bounds. Opens it when first moved.
pub struct ClippedIterator {
    inner: Option<TableIterator>,
    /// Does the inner cursor stand inside the bounds (or nowhere)?
    inside: bool,
    fill_cache: bool,
    /// As the file's description says: looked at at every step.
    clipped: bool,
    // Goes last: the file outlives the cursor over it.
    file: Arc<TableFile>,
}

impl ClippedIterator {
    /// A cursor over `file`; nothing is read yet. `fill_cache`: keep the blocks it reads.
    pub fn new(file: Arc<TableFile>, fill_cache: bool) -> ClippedIterator {
        let clipped = file.meta().clipped;
        ClippedIterator { inner: None, inside: false, fill_cache, clipped, file }
    }

    /// Makes one move of the inner cursor, then looks where it stands.
    #[inline]
    fn moved(
        &mut self,
        step: impl FnOnce(&mut TableIterator, &TableFile) -> Result<()>,
    ) -> Result<()> {
        let inner = match &mut self.inner {
            Some(inner) => inner,
            None => self.inner.insert(self.file.table()?.iter(self.fill_cache)),
        };
        let stepped = step(inner, &self.file);
        if stepped.is_err() && Canary::ReadErrorIsTheEnd.is_planted() {
            self.inside = false;
            return Ok(());
        }
        stepped?;
        self.inside = !self.clipped || {
            let bounds = &self.file.meta().bounds;
            inner.key().is_some_and(|key| bounds.contains(key.user_key))
        };
        Ok(())
    }

    #[inline(never)]
    fn next_user_key_inside(&mut self) -> Result<()> {
        self.moved(|inner, _| inner.next_user_key())
    }
}

/// Before every version of `user_key`.
fn before(user_key: &[u8]) -> InternalKey<'_> {
    InternalKey::seek(user_key, SEQNO_MAX)
}

/// To the last user key below the file's end.
fn to_last(inner: &mut TableIterator, file: &TableFile) -> Result<()> {
    match &file.meta().bounds.end {
        Some(end) if file.meta().clipped => {
            inner.seek(before(end))?;
            if inner.is_on_entry() { inner.prev() } else { inner.last() }
        }
        _ => inner.last(),
    }
}

impl InternalIterator for ClippedIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.moved(|inner, file| {
            let start = file.meta().bounds.start.as_slice();
            inner.seek(if target.user_key < start { before(start) } else { target })
        })
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        // Only a clip says more than the table: what its last key is, bounds need not know. They may have been
        // forged, and who goes back must never come to a greater key than the one he asks for.
        self.moved(|inner, file| match &file.meta().bounds.end {
            Some(end) if file.meta().clipped && user_key >= end.as_slice() => to_last(inner, file),
            _ => inner.seek_for_prev(user_key),
        })
    }

    fn first(&mut self) -> Result<()> {
        self.moved(|inner, file| match file.meta().clipped {
            true => inner.seek(before(&file.meta().bounds.start)),
            false => inner.first(),
        })
    }

    fn last(&mut self) -> Result<()> {
        self.moved(to_last)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.moved(|inner, _| inner.next())
    }

    fn prev(&mut self) -> Result<()> {
        self.moved(|inner, _| inner.prev())
    }

    #[inline]
    fn next_user_key(&mut self) -> Result<()> {
        match &mut self.inner {
            // Its cursor is always inside.
            Some(inner) if !self.clipped && !Canary::ReadErrorIsTheEnd.is_planted() => {
                inner.next_user_key()
            }
            _ => self.next_user_key_inside(),
        }
    }

    #[inline]
    fn is_on_entry(&self) -> bool {
        self.inside && self.inner.as_ref().is_some_and(|inner| inner.is_on_entry())
    }

    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        if self.inside { self.inner.as_ref()?.key() } else { None }
    }

    #[inline]
    fn value(&self) -> Option<&[u8]> {
        if self.inside { self.inner.as_ref()?.value() } else { None }
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        if self.inside { self.inner.as_ref()?.entry() } else { None }
    }
}

/// A cursor over sorted, disjoint files. Opens a file when it gets there, and has one open at a time.
pub struct LevelIterator {
    files: Level<TableFile>,
    /// The files it runs over: those of `files` from `from` up to `to`.
    from: usize,
    to: usize,
    /// Place of the file under the cursor.
    at: usize,
    current: Option<ClippedIterator>,
    fill_cache: bool,
}

impl LevelIterator {
    /// A cursor over `files[places]` of one level from 1 on, or run; nothing is read yet.
    ///
    /// # Panics
    /// If the places are not in the level.
    pub fn new(
        files: Level<TableFile>,
        places: std::ops::Range<usize>,
        fill_cache: bool,
    ) -> LevelIterator {
        assert!(places.start <= places.end && places.end <= files.len(), "places in the level");
        let (from, to) = (places.start, places.end);
        LevelIterator { files, from, to, at: from, current: None, fill_cache }
    }

    /// Makes the file at `place` the current one; `None` if that is off either end.
    fn enter(&mut self, place: Option<usize>) -> Option<&mut ClippedIterator> {
        let Some(place) = place.filter(|place| (self.from..self.to).contains(place)) else {
            self.current = None;
            return None;
        };
        if self.current.is_none() || self.at != place {
            self.at = place;
            let file = Arc::clone(&self.files[place]);
            self.current = Some(ClippedIterator::new(file, self.fill_cache));
        }
        self.current.as_mut()
    }

    /// On to the next file that has an entry, unless the cursor stands on one.
    fn forward(&mut self) -> Result<()> {
        while self.current.is_some() && !self.is_on_entry() {
            if let Some(next) = self.enter(self.at.checked_add(1)) {
                next.first()?;
            }
        }
        Ok(())
    }

    /// Back to the last file before that has an entry, unless the cursor stands on one.
    fn backward(&mut self) -> Result<()> {
        while self.current.is_some() && !self.is_on_entry() {
            if let Some(previous) = self.enter(self.at.checked_sub(1)) {
                previous.last()?;
            }
        }
        Ok(())
    }
}

impl InternalIterator for LevelIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let place = first_ending_after(&self.files[self.from..self.to], target.user_key);
        if let Some(file) = self.enter(Some(self.from + place)) {
            file.seek(target)?;
        }
        self.forward()
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        let files = &self.files[self.from..self.to];
        let place = files.partition_point(|f| match f.meta().bounds.start.as_slice() {
            start if Canary::BackwardSeekMissesFile.is_planted() => start < user_key,
            start => start <= user_key,
        });
        if let Some(file) = self.enter((self.from + place).checked_sub(1)) {
            file.seek_for_prev(user_key)?;
        }
        self.backward()
    }

    fn first(&mut self) -> Result<()> {
        if let Some(file) = self.enter(Some(self.from)) {
            file.first()?;
        }
        self.forward()
    }

    fn last(&mut self) -> Result<()> {
        if let Some(file) = self.enter(self.to.checked_sub(1)) {
            file.last()?;
        }
        self.backward()
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(file) = &mut self.current {
            file.next()?;
        }
        self.forward()
    }

    fn prev(&mut self) -> Result<()> {
        if let Some(file) = &mut self.current {
            file.prev()?;
        }
        self.backward()
    }

    #[inline]
    fn next_user_key(&mut self) -> Result<()> {
        if let Some(file) = &mut self.current {
            file.next_user_key()?;
        }
        self.forward()
    }

    #[inline]
    fn is_on_entry(&self) -> bool {
        self.current.as_ref().is_some_and(|file| file.is_on_entry())
    }

    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        self.current.as_ref()?.key()
    }

    #[inline]
    fn value(&self) -> Option<&[u8]> {
        self.current.as_ref()?.value()
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        self.current.as_ref()?.entry()
    }
}

macro_rules! either {
    ($self:expr, $one:ident => $call:expr) => {
        match $self {
            VersionIterator::Table($one) => $call,
            VersionIterator::Level($one) => $call,
        }
    };
}

impl InternalIterator for VersionIterator {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        either!(self, one => one.seek(target))
    }

    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        either!(self, one => one.seek_for_prev(user_key))
    }

    fn first(&mut self) -> Result<()> {
        either!(self, one => one.first())
    }

    fn last(&mut self) -> Result<()> {
        either!(self, one => one.last())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        either!(self, one => one.next())
    }

    fn prev(&mut self) -> Result<()> {
        either!(self, one => one.prev())
    }

    #[inline]
    fn next_user_key(&mut self) -> Result<()> {
        either!(self, one => one.next_user_key())
    }

    #[inline]
    fn next_plain(&mut self, below: u128, at: SeqNo) -> Result<Option<u128>> {
        either!(self, one => one.next_plain(below, at))
    }

    #[inline]
    fn is_on_entry(&self) -> bool {
        either!(self, one => one.is_on_entry())
    }

    #[inline]
    fn key(&self) -> Option<InternalKey<'_>> {
        either!(self, one => one.key())
    }

    #[inline]
    fn value(&self) -> Option<&[u8]> {
        either!(self, one => one.value())
    }

    #[inline]
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        either!(self, one => one.entry())
    }
}
