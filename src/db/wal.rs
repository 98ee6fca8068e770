//! The write-ahead log of a database: segments, one after the other, with one end.

use std::path::PathBuf;

use crate::base::canary::Canary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::{FileId, FileNumber};
use crate::base::key::SeqNo;
use crate::base::sync::{Arc, AtomicU64, Mutex, Ordering};
use crate::batch::{BatchReader, WriteBatch};
use crate::fs::Fs;
use crate::log::format::SEGMENT_BYTES_FULL;
use crate::log::{LogPosition, LogReader, LogWriter};
use crate::version::names::FileName;

/// Batches of a tail that is written again are put together up to this: as much as damage takes with
/// it that is found later.
const GROUP_BYTES_MAX: usize = 32 << 10;

/// Bytes of a tail after which the device is told to begin with them: the sync at the end then waits half as long
/// (`benches/NOTES.md`).
const BEGIN_SYNC_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 1 << 20 };

/// A segment that will not grow any more.
#[derive(Clone, Debug)]
pub(in crate::db) struct ClosedSegment {
    pub number: FileNumber,
    /// Everything in it is at or below this.
    pub last_seqno: SeqNo,
}

/// The segments of the log, shared with the background, which removes them when the tables hold what
/// they hold.
#[derive(Default)]
pub(in crate::db) struct Segments {
    /// Oldest first. A leaf lock.
    closed: Mutex<Vec<ClosedSegment>>,
    /// The open one, or the last one that was: changed only when it is among the closed ones.
    open: AtomicU64,
    /// Where the log ended when a memtable was frozen last. A leaf lock.
    end: Mutex<LogPosition>,
}

impl Segments {
    /// The closed segments, and the number of the open one. Every segment that is needed is one of
    /// them.
    pub fn list(&self) -> (Vec<ClosedSegment>, FileNumber) {
        // In this order: a segment that is not open any more is in the list by then.
        let open = FileNumber(self.open.load(Ordering::Acquire));
        (self.closed.lock().clone(), open)
    }

    /// Where the log ended when a memtable was frozen last: behind all that frozen memtables hold, of
    /// any family. All before it is in the segments that [`list`](Segments::list) gives now.
    pub fn end(&self) -> LogPosition {
        *self.end.lock()
    }

    /// These are gone.
    pub fn forget(&self, numbers: &[FileNumber]) {
        self.closed.lock().retain(|segment| !numbers.contains(&segment.number));
    }

    /// Has the background found that nothing needs this segment, and removed it?
    pub fn is_gone(&self, number: FileNumber) -> bool {
        let (closed, open) = self.list();
        number != open && closed.iter().all(|segment| segment.number != number)
    }

    /// A segment that will not grow any more.
    pub fn close(&self, segment: ClosedSegment) {
        let mut closed = self.closed.lock();
        if closed.last().is_none_or(|last| last.number != segment.number) {
            closed.push(segment);
        }
    }
}

/// A tail of the log so far, written again to a segment of its own, and durable. The log does not begin
/// with it before it gets its name, in [`Wal::begin`]: a crash before that leaves the log as it was.
pub(in crate::db) struct TailSegment {
    writer: LogWriter,
    temporary: PathBuf,
}

impl TailSegment {
    /// Writes what `tail` yields, which stands behind its end, to segment `number`.
    ///
    /// # Errors
    /// Those of reading and writing. The file is removed then, as well as that goes.
    pub fn write(
        fs: &Arc<dyn Fs>,
        dir: &std::path::Path,
        instance: u64,
        number: FileNumber,
        tail: &mut LogReader,
    ) -> Result<TailSegment> {
        let temporary = dir.join(FileName::LogTemporary(number).to_string());
        let id = FileId::new(instance, number);
        let prev = tail.end();
        let synced = prev.unwrap_or(LogPosition::new(number, 0));
        let writer = LogWriter::begin(fs, &temporary, FileKind::Log, id, number, prev, synced)?;
        let mut segment = TailSegment { writer, temporary };
        match segment.append_all(tail).and_then(|()| segment.writer.sync()) {
            Ok(()) => Ok(segment),
            Err(e) => {
                segment.discard(&**fs);
                Err(e)
            }
        }
    }

    /// Appends what `tail` yields. Batches that follow each other become one, as in a group: the less
    /// to frame and to sum. All of them are durable, or none is.
    fn append_all(&mut self, tail: &mut LogReader) -> Result<()> {
        let mut group = WriteBatch::new();
        let (mut next_seqno, mut begun) = (0, 0);
        while let Some((place, payload)) = tail.next()? {
            let batch = BatchReader::new(payload, place.offset)?;
            let joins =
                group.bytes() + payload.len() <= GROUP_BYTES_MAX && batch.seqno() == next_seqno;
            if !joins && !group.is_empty() {
                let end = self.writer.append(group.as_bytes())?.offset;
                group.clear();
                if end - begun >= BEGIN_SYNC_BYTES {
                    self.writer.begin_sync();
                    begun = end;
                }
            }
            group.append_encoded(payload, &batch);
            next_seqno = batch.seqno() + u64::from(batch.count());
        }
        if !group.is_empty() {
            self.writer.append(group.as_bytes())?;
        }
        Ok(())
    }

    /// Removes it, which is only tidiness: its name is never used again.
    pub fn discard(self, fs: &dyn Fs) {
        drop(self.writer);
        let _ = fs.remove(&self.temporary);
    }

    /// The number of the segment.
    pub fn number(&self) -> FileNumber {
        self.writer.number()
    }
}

/// The open end of the log. Lives under the commit lock.
pub(in crate::db) struct Wal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    instance: u64,
    segment_bytes: u64,
    /// The open segment; `None` after it was abandoned for want of space, until the next append.
    writer: Option<LogWriter>,
    /// End of the last record that was accepted.
    end: LogPosition,
    /// The log is durable up to here.
    synced: LogPosition,
    /// Closed segments that are not durable yet, oldest first: a sync covers them before the open one.
    unsynced: Vec<FileNumber>,
    segments: Arc<Segments>,
    /// A segment was closed since somebody asked.
    rolled: bool,
}

impl Wal {
    /// Begins the log of this opening, with segment `number`, or with that of `tail`; `prev` is the
    /// accepted end of the log so far, which is durable. The new header and all of the tail are durable
    /// when this returns.
    #[expect(clippy::too_many_arguments, reason = "called once")]
    pub fn begin(
        fs: &Arc<dyn Fs>,
        dir: &std::path::Path,
        instance: u64,
        segment_bytes: u64,
        number: FileNumber,
        prev: Option<LogPosition>,
        tail: Option<TailSegment>,
        segments: Arc<Segments>,
    ) -> Result<Wal> {
        let start = LogPosition::new(number, 0);
        let mut wal = Wal {
            fs: Arc::clone(fs),
            dir: dir.to_owned(),
            instance,
            segment_bytes: segment_bytes.min(SEGMENT_BYTES_FULL),
            writer: None,
            end: prev.unwrap_or(start),
            synced: prev.unwrap_or(start),
            unsynced: Vec::new(),
            segments,
            rolled: false,
        };
        match tail {
            None => wal.open_segment(number, prev)?,
            Some(tail) => wal.begin_with(tail)?,
        }
        wal.sync()?;
        Ok(wal)
    }

    fn begin_with(&mut self, tail: TailSegment) -> Result<()> {
        let number = tail.writer.number();
        let path = self.dir.join(FileName::Log(number).to_string());
        let named = self.fs.rename(&tail.temporary, &path);
        if let Err(e) = named.and_then(|()| self.fs.sync_dir(&self.dir)) {
            tail.discard(&*self.fs);
            return Err(e);
        }
        let mut writer = tail.writer;
        writer.renamed(path);
        writer.reserve_up_to(self.segment_bytes);
        self.end = writer.position();
        self.synced = writer.synced();
        self.writer = Some(writer);
        self.segments.open.store(number.0, Ordering::Release);
        self.tell_end();
        Ok(())
    }

    fn open_segment(&mut self, number: FileNumber, prev: Option<LogPosition>) -> Result<()> {
        let path = self.dir.join(FileName::Log(number).to_string());
        let id = FileId::new(self.instance, number);
        let mut writer = LogWriter::create(
            &self.fs,
            &self.dir,
            &path,
            FileKind::Log,
            id,
            number,
            prev,
            self.synced,
        )?;
        writer.reserve_up_to(self.segment_bytes);
        self.end = writer.position();
        self.writer = Some(writer);
        self.segments.open.store(number.0, Ordering::Release);
        self.tell_end();
        Ok(())
    }

    /// Tells the background where the log ends: when a memtable is frozen, and not at each append,
    /// which would be a lock that nobody else wants.
    pub fn tell_end(&self) {
        *self.segments.end.lock() = self.end;
    }

    /// Appends one encoded batch whose first operation follows `last_seqno`.
    ///
    /// # Errors
    /// `NoSpace`: the batch is not committed, and the segment is given up; the next append begins a
    /// new one. `CommitUnknown`: anything else; the caller halts.
    pub fn append(
        &mut self,
        batch: &[u8],
        last_seqno: SeqNo,
        next_file: impl FnOnce() -> FileNumber,
    ) -> Result<()> {
        let full = self.end.offset >= self.segment_bytes;
        if self.writer.as_ref().is_some_and(LogWriter::lacks_seal) {
            self.writer = None;
        }
        if full || self.writer.is_none() {
            self.roll(last_seqno, next_file())?;
        }
        let writer = self.writer.as_mut().expect("a segment is open");
        match writer.append(batch) {
            Ok(_) => {
                // Not the answer, which waits in memory behind the stores to the log.
                self.end = writer.position();
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::NoSpace => {
                // What stands after `end` is torn; the next segment's header says that it is void.
                self.unsynced.push(writer.number());
                self.writer = None;
                Err(e)
            }
            Err(e) => Err(commit_unknown("the log could not be written", &e)),
        }
    }

    fn roll(&mut self, last_seqno: SeqNo, number: FileNumber) -> Result<()> {
        let old = self.end;
        if let Some(writer) = self.writer.take() {
            self.unsynced.push(writer.number());
        }
        self.segments.close(ClosedSegment { number: old.segment, last_seqno });
        self.rolled = true;
        self.open_segment(number, Some(old)).map_err(|e| match e.kind() {
            ErrorKind::NoSpace => e,
            _ => commit_unknown("a log segment could not be begun", &e),
        })
    }

    /// Asked once after each roll: what was written up to which sequence number should be flushed, so
    /// that at most `most` closed segments are kept?
    pub fn outgrown(&mut self, most: usize) -> Option<SeqNo> {
        if !std::mem::take(&mut self.rolled) {
            return None;
        }
        let (closed, _) = self.segments.list();
        let oldest = closed.len().checked_sub(most.max(1).saturating_add(1))?;
        Some(closed[oldest].last_seqno)
    }

    /// Makes everything appended durable: the closed segments first.
    ///
    /// # Errors
    /// `CommitUnknown`; the caller halts. A failed sync is final.
    pub fn sync(&mut self) -> Result<()> {
        let fail = |e: Error| commit_unknown("the log could not be synced", &e);
        for &number in &self.unsynced {
            // What tables hold needs no log; its segment may go at any time.
            let path = self.dir.join(FileName::Log(number).to_string());
            if !self.segments.is_gone(number)
                && let Err(e) = self.fs.sync_file(&path)
                && !self.segments.is_gone(number)
            {
                return Err(fail(e));
            }
        }
        self.unsynced.clear();
        if let Some(writer) = self.writer.as_mut() {
            writer.predecessors_are_durable();
            match writer.sync() {
                Ok(()) => self.synced = writer.synced(),
                // Not a sync, but the seal after the last one found no space: what it would have
                // sealed is durable, and nothing was appended since.
                Err(e) if e.kind() == ErrorKind::NoSpace => self.writer = None,
                Err(e) => return Err(fail(e)),
            }
        }
        Ok(())
    }

    /// Ends the log: syncs it and marks it closed.
    pub fn close(&mut self) -> Result<()> {
        self.sync()?;
        match self.writer.take() {
            Some(writer) => {
                self.end = writer
                    .close()
                    .map_err(|e| commit_unknown("the log could not be closed", &e))?;
                self.synced = self.end;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[track_caller]
fn commit_unknown(text: &str, cause: &Error) -> Error {
    let kind = match Canary::UnknownCommitIsRefused.is_planted() {
        false => ErrorKind::CommitUnknown,
        true => ErrorKind::NoSpace,
    };
    Error::because(kind, text, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::FamilyId;
    use crate::fs::memory::MemFs;
    use crate::log::SegmentFile;

    fn reader(fs: &Arc<dyn Fs>, path: &std::path::Path, number: FileNumber) -> LogReader {
        let len = fs.open(path).unwrap().len();
        let file = SegmentFile { number, path: path.to_owned(), len };
        LogReader::open(fs, FileKind::Log, vec![file], None).unwrap()
    }

    /// Every operation of a log, with its sequence number.
    fn operations(log: &mut LogReader) -> Vec<(SeqNo, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((place, payload)) = log.next().unwrap() {
            let batch = BatchReader::new(payload, place.offset).unwrap();
            let first = batch.seqno();
            all.extend((first..).zip(batch.ops()).map(|(seqno, op)| {
                let op = op.unwrap();
                (seqno, [op.key, op.value].concat())
            }));
        }
        all
    }

    #[test]
    fn batches_of_a_tail_become_groups_and_stay_what_they_were() {
        let (fs, dir): (Arc<dyn Fs>, _) = (Arc::new(MemFs::new()), PathBuf::from("db"));
        fs.create_dir(&dir).unwrap();
        let number = |n| FileNumber::new(1, n);
        let (path, segments) = (dir.join(FileName::Log(number(1)).to_string()), Arc::default());
        let begun = Wal::begin(&fs, &dir, 1, u64::MAX, number(1), None, None, segments);
        let mut wal = begun.unwrap();
        let (mut seqno, mut batch) = (1, WriteBatch::new());
        for i in 0..3000_u64 {
            batch.clear();
            // One is as long as a group, and there are gaps where numbers were burnt.
            let value = vec![i as u8; if i == 700 { GROUP_BYTES_MAX } else { 20 }];
            (0..i % 3 + 1).for_each(|n| batch.put(FamilyId(0), &[n as u8 + 1], &value));
            batch.set_seqno(seqno);
            wal.append(batch.as_bytes(), 0, || unreachable!()).unwrap();
            seqno += batch.count() + u64::from(i % 1000 == 0);
        }
        let mut old = reader(&fs, &path, number(1));
        let wanted = operations(&mut reader(&fs, &path, number(1)));
        old.cut(LogPosition::new(number(1), 0));
        let tail = TailSegment::write(&fs, &dir, 1, number(2), &mut old).unwrap();
        let mut new = reader(&fs, &tail.temporary, number(2));
        assert_eq!(operations(&mut new), wanted);
        // By size some five, and one more at each gap and at each side of the long one.
        assert!((5..=15).contains(&new.records()), "{} records", new.records());
    }

    #[test]
    fn a_segment_is_closed_before_it_is_too_long_to_be_read() {
        let (fs, dir): (Arc<dyn Fs>, _) = (Arc::new(MemFs::new()), PathBuf::from("db"));
        fs.create_dir(&dir).unwrap();
        let number = |n| FileNumber::new(1, n);
        let segments: Arc<Segments> = Arc::default();
        let begun = Wal::begin(&fs, &dir, 1, u64::MAX, number(1), None, None, segments);
        let mut wal = begun.unwrap();
        for (end, open) in [(SEGMENT_BYTES_FULL - 1, 1), (SEGMENT_BYTES_FULL, 2)] {
            wal.end.offset = end; // as if there were so much
            wal.append(b"batch", 0, || number(2)).unwrap();
            assert_eq!(wal.end.segment, number(open));
        }
    }
}
