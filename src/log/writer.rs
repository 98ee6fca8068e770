//! Appends records to one segment, and knows what of the log is durable.

use std::path::{Path, PathBuf};

use crate::base::canary::Canary;
use crate::base::checksum::FileSums;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::{FileId, FileNumber};
use crate::base::sync::Arc;
use crate::fs::{Fs, WritableFile};
use crate::log::LogPosition;
use crate::log::format::{
    PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordKind, SEGMENT_BYTES_FULL, SEGMENT_BYTES_MAX,
    SEGMENT_HEADER_BYTES, SegmentHeader, put_record,
};

/// The buffer for one record keeps at most this much between records.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Reserved ahead: about as much as is written already, but no less and no more than this. A small log stays
/// small, and recovery has few zeros to read.
const RESERVE_BYTES_MIN: u64 = 4 << 10;
const RESERVE_BYTES_MAX: u64 = 4 << 20;
// What may stand behind a full segment's end: one record, its seals, and what is reserved.
const _: () = assert!(
    SEGMENT_BYTES_FULL + PAYLOAD_BYTES_MAX as u64 + 2 * RESERVE_BYTES_MAX <= SEGMENT_BYTES_MAX
);

/// Writes one segment from front to back.
///
/// The first error of [`append`](LogWriter::append) or [`sync`](LogWriter::sync) is reported as it
/// is; the end of the file is unknown from then on, and every later call returns `Halted` with that
/// error as its cause. The log goes on, if it may, in a new segment whose `prev` is this one's
/// [`position`](LogWriter::position): the end of the last record that was appended without an error.
pub struct LogWriter {
    file: Box<dyn WritableFile>,
    path: PathBuf,
    header: SegmentHeader,
    sums: FileSums,
    /// Where the next record goes.
    offset: u64,
    /// Space is reserved up to here.
    reserved: u64,
    /// It is not reserved beyond this.
    reserved_max: u64,
    /// This file is durable up to here.
    synced_offset: u64,
    /// What was durable before this segment, as long as not everything before it is known to be.
    before: Option<LogPosition>,
    /// Has data been appended since the last sync?
    dirty: bool,
    /// A seal that could not be written, not reported yet.
    unreported: Option<Error>,
    broken: Option<Error>,
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Creates a segment and makes its header and its name durable: two syncs. `prev` is where the log
    /// ends so far: [`position`](LogWriter::position) or [`close`](LogWriter::close) of the segment
    /// before, or in a new epoch [`LogReader::end`](crate::log::LogReader::end), which must have been
    /// [made durable](crate::log::LogReader::make_durable). `synced` is what is known to be durable.
    ///
    /// A predecessor must not be appended to any more once this was called, even if it failed: a header
    /// that reached the disk would hide the later records.
    ///
    /// # Errors
    /// Those of the file system; the file is removed as well as that goes, and its number is burnt.
    ///
    /// # Panics
    /// If `number` is not newer than `prev`.
    #[expect(clippy::too_many_arguments, reason = "each is one field of the header or the file")]
    pub fn create(
        fs: &Arc<dyn Fs>,
        dir: &Path,
        path: &Path,
        kind: FileKind,
        id: FileId,
        number: FileNumber,
        prev: Option<LogPosition>,
        synced: LogPosition,
    ) -> Result<LogWriter> {
        let mut log = LogWriter::begin(fs, path, kind, id, number, prev, synced)?;
        if let Err(e) = log.file.sync().and_then(|()| fs.sync_dir(dir)) {
            drop(log);
            let _ = fs.remove(path); // recovery ignores a segment that holds no record
            return Err(e.in_file(path));
        }
        (log.synced_offset, log.dirty) = (log.offset, false);
        Ok(log)
    }

    /// Creates a segment of which nothing is durable yet, its name included: for a log that nothing
    /// refers to before it was synced. Otherwise as [`create`](LogWriter::create); no sync.
    ///
    /// # Errors
    /// Those of the file system; the file is removed as well as that goes.
    ///
    /// # Panics
    /// If `number` is not newer than `prev`.
    pub fn begin(
        fs: &Arc<dyn Fs>,
        path: &Path,
        kind: FileKind,
        id: FileId,
        number: FileNumber,
        prev: Option<LogPosition>,
        synced: LogPosition,
    ) -> Result<LogWriter> {
        assert!(number > prev.unwrap_or_default().segment, "segments are numbered upwards");
        let header = SegmentHeader { id, number, prev };
        let mut file = fs.create(path)?;
        let mut buffer = Vec::new();
        header.encode_into(kind, &mut buffer);
        if let Err(e) = file.append(&buffer) {
            drop(file);
            let _ = fs.remove(path);
            return Err(e.in_file(path));
        }
        // The first header of an epoch declares what recovery accepted, which is durable.
        let declared = prev.is_none_or(|prev| prev.segment.epoch() < number.epoch());
        let durable = declared || prev.is_none_or(|prev| synced >= prev);
        Ok(LogWriter {
            file,
            path: path.to_owned(),
            header,
            sums: header.sums(),
            offset: SEGMENT_HEADER_BYTES as u64,
            reserved: 0,
            reserved_max: 0,
            synced_offset: 0,
            before: (!durable).then_some(synced),
            dirty: true,
            unreported: None,
            broken: None,
            buffer,
        })
    }

    /// Lets space be reserved ahead from now on, up to `bytes` of this segment: an append then needs no
    /// system call where the file system can do without, a sync has no length to write, and a seal
    /// always has the space that it needs.
    pub fn reserve_up_to(&mut self, bytes: u64) {
        self.reserved_max = bytes;
    }

    /// Appends one record: one `write`, or none. Returns the end of the log. The bytes are then in
    /// memory that the kernel owns, and durable after the next [`sync`](LogWriter::sync).
    ///
    /// # Errors
    /// `InvalidArgument` for a payload longer than [`PAYLOAD_BYTES_MAX`], which changes nothing;
    /// `NoSpace` or `Io` if the record may be on disk in part; `Halted` after an earlier error.
    pub fn append(&mut self, payload: &[u8]) -> Result<LogPosition> {
        self.append_parts(&[payload])
    }

    /// Appends one record whose payload is the parts in order. Otherwise as
    /// [`append`](LogWriter::append).
    pub fn append_parts(&mut self, parts: &[&[u8]]) -> Result<LogPosition> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > PAYLOAD_BYTES_MAX {
            return Err(Error::invalid(format!(
                "log record of {len} bytes; at most {PAYLOAD_BYTES_MAX}"
            )));
        }
        self.usable()?;
        self.write(RecordKind::Data, parts).map_err(|e| self.broke(e))?;
        self.dirty = true;
        Ok(self.position())
    }

    /// Lets the device begin with what was appended. Only a wish.
    pub fn begin_sync(&mut self) {
        self.file.begin_sync();
    }

    /// Makes this segment durable, and then appends a seal that says so; a seal that cannot be written
    /// is reported by the next call. Without I/O if nothing was appended since the last time.
    ///
    /// [`synced`](LogWriter::synced) advances only if everything before this segment is known to be
    /// durable: see [`predecessors_are_durable`](LogWriter::predecessors_are_durable).
    ///
    /// # Errors
    /// `Io`: nothing is known about what was appended since the last sync. `Halted` after an earlier
    /// error. An unreported failure of the last seal comes as `NoSpace` or `Io`.
    pub fn sync(&mut self) -> Result<()> {
        self.usable()?;
        if self.dirty {
            self.sync_file()?;
            if let Err(e) = self.write(RecordKind::Seal, &[]) {
                self.unreported = Some(self.broke(e));
            }
        }
        Ok(())
    }

    /// Ends the segment: syncs, appends a close record that proves it, gives back what was reserved and
    /// not needed, and syncs that. Returns the end of the log, which is durable if everything before
    /// this segment is.
    ///
    /// # Errors
    /// As [`sync`](LogWriter::sync).
    pub fn close(mut self) -> Result<LogPosition> {
        self.usable()?;
        if self.dirty {
            self.sync_file()?;
        }
        self.write(RecordKind::Close, &[]).map_err(|e| self.broke(e))?;
        if self.reserved > self.offset {
            self.file.reserve(self.offset).map_err(|e| self.broke(e))?;
        }
        self.sync_file()?;
        Ok(self.position())
    }

    /// Says that all segments before this one have been made durable by other means, such as
    /// [`Fs::sync_file`]: after an abandoned segment, or after a rotation without a sync.
    pub fn predecessors_are_durable(&mut self) {
        self.before = None;
    }

    /// The end of the log: where the last record that was appended without an error ends.
    pub fn position(&self) -> LogPosition {
        LogPosition::new(self.header.number, self.offset)
    }

    /// The log is durable up to here.
    pub fn synced(&self) -> LogPosition {
        self.before.unwrap_or(LogPosition::new(self.header.number, self.synced_offset))
    }

    /// The file has another name now.
    pub fn renamed(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Is the segment at its end, because a seal found no space? All that was appended to it is durable.
    pub fn lacks_seal(&self) -> bool {
        self.unreported.as_ref().is_some_and(|e| e.kind() == ErrorKind::NoSpace)
    }

    /// The number of this segment.
    pub fn number(&self) -> FileNumber {
        self.header.number
    }

    /// The file of this segment.
    #[cfg(test)]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `Err` if this writer must not be used any more.
    fn usable(&mut self) -> Result<()> {
        if let Some(e) = self.unreported.take() {
            return Err(e);
        }
        match &self.broken {
            None => Ok(()),
            Some(e) => Err(Error::because(ErrorKind::Halted, "the log segment is abandoned", e)),
        }
    }

    fn write(&mut self, kind: RecordKind, parts: &[&[u8]]) -> Result<()> {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        let synced = self.synced();
        put_record(&mut self.buffer, &self.sums, self.offset, kind, synced, parts);
        debug_assert!(self.buffer.len() >= RECORD_HEADER_BYTES);
        let end = self.offset + self.buffer.len() as u64;
        if end + RECORD_HEADER_BYTES as u64 > self.reserved && kind == RecordKind::Data {
            self.reserve(end + RECORD_HEADER_BYTES as u64)?;
        }
        self.file.append(&self.buffer)?;
        self.offset = end;
        Ok(())
    }

    /// Reserves space for what is needed, a record and its seal, and some more.
    fn reserve(&mut self, needed: u64) -> Result<()> {
        let step = 1 << needed.clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX).ilog2();
        // Steps end at round places, so that huge pages fit into them.
        let upto = (needed + step / 2).next_multiple_of(step).min(self.reserved_max);
        if upto < needed {
            return Ok(()); // the last record of the segment
        }
        match self.file.reserve(upto) {
            Ok(()) => self.reserved = upto,
            // There may still be enough for the record.
            Err(e) if e.kind() == ErrorKind::NoSpace => self.reserved_max = 0,
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn sync_file(&mut self) -> Result<()> {
        let mut synced = self.file.sync();
        if synced.is_err() && Canary::FailedSyncIsRetried.is_planted() {
            synced = self.file.sync();
        }
        if let Err(e) = synced {
            // A full disk found out by a sync is not like one found out by an append: pages are lost.
            let e = match e.kind() {
                ErrorKind::Io => e,
                _ => Error::because(ErrorKind::Io, "sync of the log failed", &e),
            };
            return Err(self.broke(e));
        }
        self.synced_offset = self.offset;
        self.dirty = false;
        Ok(())
    }

    /// Makes the writer unusable, and returns the error as the caller shall see it first.
    fn broke(&mut self, e: Error) -> Error {
        let e = match e.kind() {
            ErrorKind::Io | ErrorKind::NoSpace => e,
            _ => Error::because(ErrorKind::Io, "append to the log failed", &e),
        };
        let e = e.in_file(&self.path);
        self.broken = Some(e.clone()).filter(|_| !Canary::BrokenManifestGoesOn.is_planted());
        e
    }
}
