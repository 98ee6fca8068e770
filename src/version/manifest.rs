//! Keeps the edits: reads them back when the database is opened, and writes each before it happens.
//!
//! A manifest is a log (F2) of edits (F4.1) whose first ones are a snapshot. Every open begins a new
//! epoch with a complete new manifest; so does a manifest that has grown long, and one that could not
//! be appended to, which is never touched again.

use std::path::{Path, PathBuf};

use crate::base::canary::Canary;
use crate::base::coding::Decoder;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::{FileId, FileNumber};
use crate::base::limits::BATCH_BYTES_MAX;
use crate::base::sync::Arc;
use crate::fs::{Fs, Listed};
use crate::log::LogPosition;
use crate::log::LogReader;
use crate::log::LogWriter;
use crate::log::SegmentFile;
use crate::log::format::SEGMENT_BYTES_FULL;
use crate::version::current;
use crate::version::current::SyncAll;
use crate::version::edit::VersionEdit;
use crate::version::file::path_of;
use crate::version::names::{FileName, FileNumbers, next_epoch};
use crate::version::state::State;

/// A manifest is rewritten when it has this many bytes more than twice its snapshot.
const LONG_BYTES: u64 = 4 << 20;

/// What was found in a directory. Nothing has been written yet.
pub struct Recovered {
    /// The state after the last edit; empty for a new database.
    pub state: State,
    /// The manifest it was read from; `None`: there is no database here yet.
    pub manifest: Option<FileNumber>,
    /// The epoch that [`start_epoch`](Recovered::start_epoch) will begin.
    pub epoch: u32,
    /// How many of its numbers are taken.
    taken: u32,
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    listing: Vec<Listed>,
}

/// Reads `CURRENT` and the manifest it names. The caller holds the directory's lock and has just
/// listed it.
///
/// # Errors
/// `Corruption` if a byte of either is not what was written (except that the tail of a manifest may
/// be torn off where nothing proves that it was synced), if a file is missing, or if the edits
/// contradict each other; `Unsupported` if a newer build wrote them; `Io`.
pub fn recover(fs: &Arc<dyn Fs>, dir: &Path, listing: Vec<Listed>) -> Result<Recovered> {
    let manifest = current::read(&**fs, dir)?;
    let state = match manifest {
        Some(number) => read(fs, dir, number, &listing)?,
        None => {
            no_data(dir, &listing)?;
            State::default()
        }
    };
    let names = listing.iter().map(|listed| listed.name.as_str());
    let names = names.filter(|_| !Canary::EpochIsReused.is_planted());
    let epoch = next_epoch(state.header.epoch, names)?;
    let (fs, dir) = (Arc::clone(fs), dir.to_owned());
    Ok(Recovered { state, manifest, epoch, taken: 0, fs, dir, listing })
}

/// Without `CURRENT` there must be no data either: a database that is being created has none.
fn no_data(dir: &Path, listing: &[Listed]) -> Result<()> {
    let data = listing.iter().find(|listed| {
        matches!(FileName::parse(&listed.name), Some(FileName::Table(_) | FileName::Log(_)))
    });
    match data {
        None => Ok(()),
        Some(listed) => {
            let text = format!("CURRENT is missing, but there is {}", listed.name);
            Err(Error::corruption(text).at(0).in_file(&path_of(dir, FileName::Current)))
        }
    }
}

/// Replays one manifest.
fn read(fs: &Arc<dyn Fs>, dir: &Path, number: FileNumber, listing: &[Listed]) -> Result<State> {
    let name = FileName::Manifest(number).to_string();
    let path = dir.join(&name);
    let Some(listed) = listing.iter().find(|listed| listed.name == name) else {
        let text = "the manifest that CURRENT names is missing";
        return Err(Error::corruption(text).at(0).in_file(&path));
    };
    let segment = SegmentFile { number, path: path.clone(), len: listed.len };
    let mut reader = LogReader::open(fs, FileKind::Manifest, vec![segment], None)?;
    let mut state = State::default();
    let mut end = 0;
    while let Some((position, payload)) = reader.next()? {
        end = position.offset;
        let edit = VersionEdit::decode(Decoder::new(payload));
        // Offsets within a payload are worth less than the record's.
        edit.and_then(|edit| state.apply(&edit)).map_err(|e| place(&e, end, &path))?;
    }
    if state.header.epoch != number.epoch() || state.header.incomplete {
        let text = "a manifest does not hold the whole snapshot that it begins with";
        return Err(Error::corruption(text).at(end).in_file(&path));
    }
    Ok(state)
}

/// The same failure, placed at a record of the manifest.
fn place(e: &Error, offset: u64, path: &Path) -> Error {
    Error::new(e.kind(), format!("an edit: {e}")).at(offset).in_file(path)
}

impl Recovered {
    /// Is there no database yet?
    pub fn is_new(&self) -> bool {
        self.manifest.is_none()
    }

    /// Checks, without opening them, that all live tables are there in full length.
    ///
    /// # Errors
    /// One `Corruption` that lists all that are not.
    pub fn check_files(&self) -> Result<()> {
        self.state.check_files(&self.dir, &self.listing)
    }

    /// A file number of the coming epoch, for a file that nothing refers to before the epoch has begun:
    /// if it never does, the file's name keeps later ones from being that one.
    pub fn take_number(&mut self) -> FileNumber {
        self.taken += 1;
        FileNumber::new(self.epoch, self.taken)
    }

    /// Begins a new epoch: `edit` happens, a complete new manifest is durable, and `CURRENT` names
    /// it, before any file number of the epoch is given out but by
    /// [`take_number`](Recovered::take_number). Older manifests are removed. `instance`
    /// is a random number for the identities of files of this epoch. A clean marker is used up.
    /// `sync_all` does the syncs that need not wait for each other.
    ///
    /// # Errors
    /// Those of writing; the database is then as before or as after, and can be recovered again.
    /// `InvalidArgument` if the edit does not fit.
    pub fn start_epoch(
        self,
        instance: u64,
        edit: &VersionEdit,
        sync_all: SyncAll<'_>,
    ) -> Result<ManifestWriter> {
        let mut state = self.state;
        state.header.epoch = self.epoch;
        state.header.instance = instance;
        state.header.clean = None;
        state.apply(edit).map_err(|e| refused(&e))?;
        // An import names its tables itself, from 1 on: the epoch is nobody else's.
        let named = state.tables().map(|(_, _, meta)| meta.number);
        let named = named.filter(|number| number.epoch() == self.epoch);
        let first = 1 + named.map(FileNumber::counter).max().unwrap_or(0).max(self.taken);
        let mut writer = ManifestWriter {
            fs: self.fs,
            dir: self.dir,
            numbers: Arc::new(FileNumbers::new(self.epoch, first)),
            state,
            log: None,
            number: None,
            long_at: 0,
            halted: None,
        };
        if Canary::OldManifestGoesFirst.is_planted() {
            writer.remove_old(&self.listing);
        }
        writer.rewrite(sync_all).map_err(|failed| failed.error)?;
        writer.remove_old(&self.listing);
        Ok(writer)
    }
}

/// Writes edits, one after the other, each durable before [`append`](ManifestWriter::append) returns.
/// Lives under the manifest mutex.
pub struct ManifestWriter {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    numbers: Arc<FileNumbers>,
    state: State,
    /// `None` after a failure: the file is never touched again.
    log: Option<LogWriter>,
    number: Option<FileNumber>,
    long_at: u64,
    halted: Option<Error>,
}

/// Why no new manifest was begun.
struct NotRewritten {
    error: Error,
    /// `CURRENT` may name the new manifest all the same.
    perhaps: bool,
}

impl ManifestWriter {
    /// The state with all edits so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The file numbers of this epoch.
    pub fn numbers(&self) -> &Arc<FileNumbers> {
        &self.numbers
    }

    /// The number of the manifest that `CURRENT` names.
    #[cfg(test)]
    pub fn number(&self) -> Option<FileNumber> {
        self.number
    }

    /// Makes an edit durable. The caller goes on to install it before the next one.
    ///
    /// # Errors
    /// * `InvalidArgument`: the edit does not fit the state; nothing was written.
    /// * `NoSpace`: the edit did not happen, for certain; the next one may succeed.
    /// * `Halted`: the edit may or may not be there after a reopen, so its files must be kept; no
    ///   edit is taken any more. The cause is inside.
    pub fn append(&mut self, edit: &VersionEdit) -> Result<()> {
        if let Some(cause) = &self.halted {
            return Err(Error::because(ErrorKind::Halted, "the manifest failed earlier", cause));
        }
        // This refuses an edit that is to go on in the next record, too.
        let plan = self.state.plan(edit).map_err(|e| refused(&e))?;
        let payload = edit.encode();
        if payload.len() > BATCH_BYTES_MAX {
            return Err(Error::invalid(format!("an edit has {} bytes", payload.len())));
        }
        if self.log.as_ref().is_some_and(|log| log.position().offset > self.long_at) {
            self.shorten()?;
        }
        let mut perhaps_written = false;
        if let Some(log) = &mut self.log {
            let appended = log.append(&payload);
            // Without space not all of the record was written, so it does not count.
            perhaps_written = appended.as_ref().is_err_and(|e| e.kind() != ErrorKind::NoSpace);
            let done = match appended {
                Ok(_) => log.sync().inspect_err(|_| perhaps_written = true),
                Err(e) => Err(e),
            };
            if done.is_ok() {
                self.state.commit(plan);
                return Ok(());
            }
            if Canary::BrokenManifestGoesOn.is_planted() {
                return done;
            }
            self.log = None;
        }
        let before = self.state.clone();
        self.state.commit(plan);
        self.rewrite(&mut current::in_turn).map_err(|failed| {
            self.state = before;
            if failed.error.kind() == ErrorKind::NoSpace && !failed.perhaps && !perhaps_written {
                return failed.error;
            }
            self.halt(failed.error)
        })
    }

    /// Begins a new manifest because the old one is long. If that fails the old one goes on, unless
    /// it may already have been replaced.
    fn shorten(&mut self) -> Result<()> {
        match self.rewrite(&mut current::in_turn) {
            Err(failed) if failed.perhaps => Err(self.halt(failed.error)),
            Err(_) => {
                self.long_at = self.long_at.saturating_add(LONG_BYTES);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Removes the manifests that were there before this epoch.
    fn remove_old(&self, listing: &[Listed]) {
        for listed in listing {
            let name = FileName::parse(&listed.name);
            if let Some(name @ (FileName::Manifest(_) | FileName::CurrentTemporary(_))) = name {
                let _ = self.fs.remove(&path_of(&self.dir, name)); // only tidiness
            }
        }
    }

    fn halt(&mut self, cause: Error) -> Error {
        let text = "the manifest cannot be written";
        self.log = None;
        Error::because(ErrorKind::Halted, text, self.halted.insert(cause))
    }

    /// Writes the whole state to a new manifest and makes `CURRENT` name it.
    fn rewrite(&mut self, sync_all: SyncAll<'_>) -> std::result::Result<(), NotRewritten> {
        let number = self.numbers.next();
        let path = path_of(&self.dir, FileName::Manifest(number));
        let (fs, dir) = (&*self.fs, &self.dir);
        let switched = match self.write_snapshot(number, &path) {
            Ok(mut log) => current::switch(fs, dir, number, &mut log, sync_all)
                .map(|()| log)
                .map_err(|failed| NotRewritten { error: failed.error, perhaps: failed.perhaps }),
            Err(error) => Err(NotRewritten { error, perhaps: false }),
        };
        let log = switched.inspect_err(|failed| {
            if !failed.perhaps {
                let _ = fs.remove(&path); // only tidiness: its name is never used again
            }
        })?;
        let twice = log.position().offset.saturating_mul(2);
        self.long_at = twice.saturating_add(LONG_BYTES).min(SEGMENT_BYTES_FULL);
        self.log = Some(log);
        if let Some(old) = self.number.replace(number) {
            let _ = self.fs.remove(&path_of(&self.dir, FileName::Manifest(old)));
        }
        Ok(())
    }

    /// A new manifest with the whole state. Nothing of it is durable yet.
    fn write_snapshot(&self, number: FileNumber, path: &Path) -> Result<LogWriter> {
        let id = FileId::new(self.state.header.instance, number);
        let synced = LogPosition { segment: number, offset: 0 };
        let kind = FileKind::Manifest;
        // Nothing refers to it before `CURRENT` does, and all of it is durable before that.
        let mut log = LogWriter::begin(&self.fs, path, kind, id, number, None, synced)?;
        for edit in self.state.snapshot_edits() {
            log.append(&edit.encode())?;
        }
        Ok(log)
    }
}

#[cold]
fn refused(e: &Error) -> Error {
    Error::because(ErrorKind::InvalidArgument, "an edit does not fit the database", e)
}
