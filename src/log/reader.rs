//! Reads a whole log after a crash or a clean end: first the decision, then the records.

use std::ops::Range;
use std::path::Path;

use crate::base::bytes::Bytes;
use crate::base::canary::Canary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::sync::Arc;
use crate::fs::Fs;
use crate::log::format::{
    RECORD_HEADER_BYTES, Record, RecordKind, SEGMENT_HEADER_BYTES, read_record, reread_record,
};
use crate::log::recovery::{Piece, load, recover};
use crate::log::{LogPosition, SegmentFile};

/// The data records of a log, oldest first. Every record that it yields was checked before the first
/// one was yielded. A clone goes on by itself, over the same bytes.
#[derive(Clone)]
pub struct LogReader {
    fs: Arc<dyn Fs>,
    pieces: Vec<Piece>,
    /// How many pieces have been begun.
    begun: usize,
    current: Option<Walk>,
    /// What the last call of `next_some` has found, in the bytes of `current`.
    found: Vec<(LogPosition, Range<usize>)>,
    /// Nothing that begins before is yielded.
    from: LogPosition,
    /// Files of the log, for `make_durable`.
    files: Vec<SegmentFile>,
    end: Option<LogPosition>,
    closed: bool,
    records: u64,
    /// The log proves that it was durable up to here.
    durable: LogPosition,
    torn: Option<Error>,
}

/// A segment being yielded.
#[derive(Clone)]
struct Walk {
    piece: Piece,
    bytes: Bytes,
    offset: u64,
    /// Was it read a second time? Then it is checked a second time.
    read_again: bool,
}

impl LogReader {
    /// Reads and checks the log in `segments` (any order), and decides where it ends.
    ///
    /// `from` names the oldest segment that is needed; older ones are left alone, it must exist, and
    /// in it only records that begin at or behind `from.offset` are yielded. `None`: everything is
    /// needed, from a segment that has no predecessor on.
    ///
    /// Cost: reads every segment once, and once more what exceeds 128 MiB in all.
    ///
    /// # Errors
    /// `Corruption` with file and offset if something that was durable is damaged, short or missing;
    /// `Unsupported` if a newer build wrote a segment; those of the file system.
    pub fn open(
        fs: &Arc<dyn Fs>,
        kind: FileKind,
        segments: Vec<SegmentFile>,
        from: Option<LogPosition>,
    ) -> Result<LogReader> {
        let found = recover(fs, kind, segments, from)?;
        Ok(LogReader {
            fs: Arc::clone(fs),
            files: found.pieces.iter().map(|piece| piece.file.clone()).collect(),
            pieces: found.pieces,
            begun: 0,
            current: None,
            found: Vec::new(),
            from: LogPosition::default(),
            end: found.end,
            closed: found.closed,
            records: found.records,
            durable: found.durable,
            torn: found.torn,
        })
    }

    /// The next data record: where it begins, and its payload. After an error, and at the end: nothing.
    ///
    /// # Errors
    /// Only for segments beyond the first 128 MiB, which are read again: those of the file system, and
    /// `Corruption` if the bytes have changed meanwhile.
    pub fn next(&mut self) -> Result<Option<(LogPosition, &[u8])>> {
        Ok(self.next_some(1)?.next())
    }

    /// The next data records, `most` of them or as many as are left in a segment: for who wants to look ahead.
    /// After an error, and at the end: none. No copy, and no allocation but for the first call.
    ///
    /// # Errors
    /// As [`next`](LogReader::next). What this call found before the error is not yielded then.
    ///
    /// # Panics
    /// If `most` is 0.
    pub fn next_some(
        &mut self,
        most: usize,
    ) -> Result<impl Iterator<Item = (LogPosition, &[u8])> + Clone> {
        assert!(most > 0, "no records at all are the end");
        self.found.clear();
        self.step(most).inspect_err(|_| {
            self.pieces.clear();
            self.current = None;
            self.found.clear();
        })?;
        // Lent, not shared: two readers of the same bytes do not count references in turns.
        let bytes = self.current.as_ref().map_or(&[][..], |walk| &walk.bytes);
        Ok(self.found.iter().map(|(place, payload)| (*place, &bytes[payload.clone()])))
    }

    /// Finds the next data records, `most` or up to the end of the segment that has the first of them.
    fn step(&mut self, most: usize) -> Result<()> {
        while self.found.len() < most {
            let Some(walk) = &mut self.current else {
                let Some(piece) = self.pieces.get(self.begun).cloned() else { return Ok(()) };
                self.begun += 1;
                self.current = Some(Walk::new(&self.fs, piece)?);
                continue;
            };
            let Some((start, record)) = walk.next()? else {
                if !self.found.is_empty() {
                    return Ok(());
                }
                self.current = None;
                continue;
            };
            let position = LogPosition::new(walk.piece.header.number, start);
            let wanted = start >= walk.piece.start && position >= self.from;
            if record.kind == RecordKind::Data && wanted {
                self.found.push((position, record.payload));
            }
        }
        Ok(())
    }

    /// Where the log ends: what the next epoch's first segment names as `prev`, after
    /// [`make_durable`](LogReader::make_durable). `None` if there is no segment.
    pub fn end(&self) -> Option<LogPosition> {
        self.end
    }

    /// Was the log closed properly?
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Number of data records in the segments read, those before `from` included.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// What was cut off behind the end as a crash's torn tail, if anything was: file, offset, reason.
    pub fn torn(&self) -> Option<&Error> {
        self.torn.as_ref()
    }

    /// The segments that hold the accepted records, oldest first.
    pub fn segments(&self) -> &[SegmentFile] {
        &self.files
    }

    /// Does the log itself prove that a sync has covered all of it, to its end? If not, nothing that is done to
    /// its files now can make them durable for certain: a sync that failed before the process died may
    /// have left pages that the system takes for written.
    pub fn is_proved(&self) -> bool {
        self.end.unwrap_or_default() <= self.durable || Canary::RecoveredIsNotDurable.is_planted()
    }

    /// How far the log itself proves that a sync has covered it: a place between two records. `None` if
    /// it proves nothing, or that place is not in what was accepted. The header of a segment that
    /// follows another proves nothing of itself: only a later sync makes it durable.
    pub fn proved_end(&self) -> Option<LogPosition> {
        let end = self.durable;
        let holds = |piece: &Piece| {
            let after_header = SEGMENT_HEADER_BYTES as u64;
            piece.header.number == end.segment && (after_header..=piece.end).contains(&end.offset)
        };
        self.pieces.iter().any(holds).then_some(end)
    }

    /// Bytes of the accepted log behind a place in it.
    pub fn bytes_behind(&self, place: LogPosition) -> u64 {
        let behind = self.pieces.iter().filter(|piece| piece.header.number >= place.segment);
        let all: u64 = behind.map(|piece| piece.end).sum();
        all.saturating_sub(place.offset)
    }

    /// Yields again, from the first record that begins at or behind `place`, and lets the log end
    /// there: what is yielded will be written again.
    pub fn cut(&mut self, place: LogPosition) {
        self.from = place;
        self.current = None;
        self.begun = self.pieces.partition_point(|piece| piece.header.number < place.segment);
        self.end = Some(place);
        self.files.retain(|file| file.number <= place.segment);
    }

    /// Checks that the log reaches as far as it was recorded elsewhere to be durable.
    ///
    /// # Errors
    /// `Corruption` at the place where it ends.
    pub fn must_reach(&self, durable: LogPosition) -> Result<()> {
        let end = self.end.unwrap_or_default();
        if end >= durable {
            return Ok(());
        }
        let text = format!("the log ends, and had been durable up to {durable}");
        Err(match (&self.torn, self.files.last()) {
            (Some(torn), _) => Error::because(ErrorKind::Corruption, text, torn),
            (None, Some(file)) => Error::corruption(text).at(end.offset).in_file(&file.path),
            (None, None) => Error::corruption(text).at(0),
        })
    }

    /// Syncs every segment of the log and the directory's names, so that what was accepted survives
    /// the next crash. To be done before a new epoch's first segment declares the end, and before
    /// anything that was read is served.
    ///
    /// # Errors
    /// Those of the file system. What was accepted must not be served then.
    pub fn make_durable(&self, dir: &Path) -> Result<()> {
        if Canary::RecoveredIsNotDurable.is_planted() {
            return Ok(());
        }
        for file in &self.files {
            self.fs.sync_file(&file.path)?;
        }
        self.fs.sync_dir(dir)
    }
}

impl Walk {
    fn new(fs: &Arc<dyn Fs>, piece: Piece) -> Result<Walk> {
        let read_again = piece.bytes.is_none();
        let bytes = match &piece.bytes {
            Some(bytes) => bytes.clone(),
            None => load(fs, &piece.file)?,
        };
        Ok(Walk { piece, bytes, offset: SEGMENT_HEADER_BYTES as u64, read_again })
    }

    /// The next record of any kind and where it begins.
    fn next(&mut self) -> Result<Option<(u64, Record)>> {
        if self.offset >= self.piece.end {
            return Ok(None);
        }
        let start = self.offset;
        let record = if self.read_again {
            let header = &self.piece.header;
            read_record(&self.bytes, start as usize, header, &header.sums()).ok()
        } else {
            reread_record(&self.bytes, start as usize)
        };
        let Some(record) = record else {
            let e = Error::corruption("log record has changed since it was checked");
            return Err(e.at(start).in_file(&self.piece.file.path));
        };
        self.offset = record.payload.end as u64;
        debug_assert!(self.offset >= start + RECORD_HEADER_BYTES as u64);
        Ok(Some((start, record)))
    }
}
