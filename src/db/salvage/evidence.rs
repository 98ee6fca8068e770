//! What a damaged directory still proves: its state, as far as a manifest tells it, and its log, up to
//! the first place that cannot be trusted.
//!
//! Both are read by the rules by which a database is opened. What these refuse is cut off there, the
//! refusal is kept, and they are asked again: what they accept in the end is sound to its last byte.

use std::path::{Path, PathBuf};

use crate::base::coding::Decoder;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::FileNumber;
use crate::base::sync::Arc;
use crate::fs::{FileLock, Fs, Listed};
use crate::log::format::SEGMENT_HEADER_BYTES;
use crate::log::{LogPosition, LogReader, SegmentFile};
use crate::version::current;
use crate::version::edit::VersionEdit;
use crate::version::names::FileName;
use crate::version::state::State;

/// A directory that is being salvaged: locked, and never written to.
pub(super) struct Evidence {
    pub fs: Arc<dyn Fs>,
    pub dir: PathBuf,
    /// As the edits that can be read leave it.
    pub state: State,
    /// What cannot be used, each with its file and offset.
    pub dropped: Vec<Error>,
    listing: Vec<Listed>,
    _lock: Box<dyn FileLock>,
}

/// The log as far as it is sound.
pub(super) struct SoundLog {
    /// Its records; `None`: there is nothing to read.
    pub reader: Option<LogReader>,
    /// It was not cut: all that was ever acknowledged is in it or in tables.
    pub is_whole: bool,
}

impl Evidence {
    /// # Errors
    /// `NotFound`: no directory, or no manifest in it. `Busy`: somebody has it open. `Corruption`: no
    /// manifest can be read up to the end of the snapshot that it begins with; which tables belong to
    /// which family is not known then. `Unsupported`: a newer build wrote it. Those of reading.
    pub fn collect(fs: &Arc<dyn Fs>, dir: &Path) -> Result<Evidence> {
        let lock = fs.lock(dir)?;
        let mut evidence = Evidence {
            fs: Arc::clone(fs),
            dir: dir.to_owned(),
            state: State::default(),
            dropped: Vec::new(),
            listing: fs.list(dir)?,
            _lock: lock,
        };
        evidence.read_state()?;
        Ok(evidence)
    }

    /// The manifest that `CURRENT` names, or the newest other one that can be read.
    fn read_state(&mut self) -> Result<()> {
        let mut manifests: Vec<FileNumber> = self.numbers(|name| match name {
            FileName::Manifest(number) => Some(number),
            _ => None,
        });
        let named = match current::read(&*self.fs, &self.dir) {
            Ok(Some(number)) => Some(number),
            Ok(None) if manifests.is_empty() => {
                return Err(Error::not_found("there is no database here").in_file(&self.dir));
            }
            Ok(None) => {
                let path = self.path(FileName::Current);
                self.dropped.push(Error::corruption("CURRENT is missing").at(0).in_file(&path));
                None
            }
            Err(e) => self.drop_or_fail(e).map(|()| None)?,
        };
        manifests.sort_by_key(|&number| (Some(number) == named, number));
        for &number in manifests.iter().rev() {
            let damaged = self.dropped.len();
            if self.read_manifest(number)? {
                if self.dropped.len() > damaged || Some(number) != named {
                    self.drop_unnamed_tables();
                }
                return Ok(());
            }
        }
        let text = "no manifest can be read: which tables belong to which family is not known";
        let cause = self.dropped.pop().unwrap_or_else(|| Error::corruption("it is missing"));
        let path = named.map_or(self.dir.clone(), |number| self.path(FileName::Manifest(number)));
        Err(Error::because(ErrorKind::Corruption, text, &cause).at(0).in_file(&path))
    }

    /// Reads one manifest up to its end or its first damage. `false` if not even the snapshot that it
    /// begins with is there.
    fn read_manifest(&mut self, number: FileNumber) -> Result<bool> {
        let path = self.path(FileName::Manifest(number));
        let len = self.len_of(FileName::Manifest(number));
        let mut segment = SegmentFile { number, path, len };
        let mut reader = loop {
            match LogReader::open(&self.fs, FileKind::Manifest, vec![segment.clone()], None) {
                Ok(reader) => break reader,
                Err(e) => {
                    let at = e.offset().unwrap_or(0).min(segment.len.saturating_sub(1));
                    self.drop_or_fail(e)?;
                    segment.len = at;
                }
            }
        };
        self.state = State::default();
        while let Some((place, payload)) = reader.next()? {
            let edit = VersionEdit::decode(Decoder::new(payload));
            if let Err(e) = edit.and_then(|edit| self.state.apply(&edit)) {
                let e = Error::new(e.kind(), format!("an edit: {e}")).at(place.offset);
                self.drop_or_fail(e.in_file(&segment.path))?;
                break;
            }
        }
        let header = &self.state.header;
        Ok(header.epoch == number.epoch() && header.epoch > 0 && !header.incomplete)
    }

    /// Tables that edits which are lost may have named: nobody can say whose they are.
    fn drop_unnamed_tables(&mut self) {
        let tables = self.numbers(|name| match name {
            FileName::Table(number) => Some(number),
            _ => None,
        });
        for number in tables.into_iter().filter(|&number| !self.state.has_table(number)) {
            let path = self.path(FileName::Table(number));
            let text = "a table that what is left of the manifest does not name";
            self.dropped.push(Error::corruption(text).at(0).in_file(&path));
        }
    }

    /// The log, if one is needed, up to the first place that is damaged or missing.
    pub fn read_log(&mut self) -> Result<SoundLog> {
        let header = &self.state.header;
        if header.clean.is_some() {
            return Ok(SoundLog { reader: None, is_whole: true });
        }
        if header.wal_mode != Some(true) {
            return Ok(SoundLog { reader: None, is_whole: header.wal_mode.is_none() });
        }
        let start = header.log_start.unwrap_or_default();
        let from = (start.counter() > 0).then(|| LogPosition::new(start, 0));
        let mut segments: Vec<SegmentFile> = self
            .numbers(|name| match name {
                FileName::Log(number) if number >= start => Some(number),
                _ => None,
            })
            .into_iter()
            .map(|number| {
                let name = FileName::Log(number);
                SegmentFile { number, path: self.path(name), len: self.len_of(name) }
            })
            .collect();
        let mut is_whole = true;
        loop {
            match LogReader::open(&self.fs, FileKind::Log, segments.clone(), from) {
                Ok(reader) => {
                    let reaches = reader.must_reach(self.state.header.log_needed());
                    if let (true, Err(e)) = (is_whole, reaches) {
                        is_whole = false;
                        self.drop_or_fail(e.in_file(&self.dir.clone()))?;
                    }
                    return Ok(SoundLog { reader: Some(reader), is_whole });
                }
                Err(e) => {
                    cut(&mut segments, &e);
                    is_whole = false;
                    self.drop_or_fail(e)?;
                }
            }
            if segments.is_empty() {
                return Ok(SoundLog { reader: None, is_whole });
            }
        }
    }

    /// Keeps what is wrong with bytes; fails for everything else.
    pub fn drop_or_fail(&mut self, e: Error) -> Result<()> {
        match e.kind() {
            ErrorKind::Corruption => {
                self.dropped.push(e);
                Ok(())
            }
            _ => Err(e),
        }
    }

    pub fn path(&self, name: FileName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    fn len_of(&self, name: FileName) -> u64 {
        let name = name.to_string();
        self.listing.iter().find(|listed| listed.name == name).map_or(0, |listed| listed.len)
    }

    /// Ascending.
    fn numbers(&self, wanted: impl Fn(FileName) -> Option<FileNumber>) -> Vec<FileNumber> {
        let names = self.listing.iter().filter_map(|listed| FileName::parse(&listed.name));
        let mut numbers: Vec<FileNumber> = names.filter_map(wanted).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Takes away what the log's reader has refused, and all behind it. Takes something away each time.
fn cut(segments: &mut Vec<SegmentFile>, refused: &Error) {
    let path = refused.path().unwrap_or(Path::new(""));
    let (bytes, offset) = (SEGMENT_HEADER_BYTES as u64, refused.offset().unwrap_or(0));
    let Some(i) = segments.iter().position(|segment| segment.path == path) else {
        // It is missing: what stands before the gap is left.
        let name = path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse);
        let number = name.and_then(FileName::number).unwrap_or_default();
        return segments.retain(|segment| segment.number < number);
    };
    let nothing_behind = i + 1 == segments.len() && offset >= segments[i].len;
    if offset < bytes || nothing_behind {
        return segments.truncate(i);
    }
    segments.truncate(i + 1);
    segments[i].len = segments[i].len.min(offset);
}
