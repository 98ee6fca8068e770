//! The one error type. Few coarse kinds that tell the caller what to do; operation, file, offset and
//! text ride along for people, and are not part of the interface.

#[cfg(any(test, feature = "testing"))]
use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(any(test, feature = "testing"))]
use crate::base::sync::Mutex;

/// The result of every fallible call of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a caller needs to know in order to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system refused an operation. Look at the path and the source; often: stop, or retry later.
    Io,
    /// Bytes are not what was written. Restore a checkpoint. Always names file and offset.
    Corruption,
    /// A newer format, or a codec that this build does not have. Use another build.
    Unsupported,
    /// Stored state and the caller disagree: another merge operator, serializer, parallelism, option.
    Incompatible,
    /// A mistake of the caller: limits, empty names, foreign handles. Fix the call.
    InvalidArgument,
    /// No such database, family, checkpoint or object. (A `get` returns `Option` instead.)
    NotFound,
    /// Locked by another handle, or a stall that cannot end by itself. Wait, or release what it names.
    Busy,
    /// No space left. The write is *not* committed; writing resumes when there is space.
    NoSpace,
    /// A log write or sync failed half-way: the commit may or may not be there after a reopen.
    CommitUnknown,
    /// An earlier failure stopped writes for good; the source is that failure. Reopen or restore.
    Halted,
}

/// An error of the engine: one word, cheap to clone, so that one failure can reach every waiter.
#[derive(Clone)]
pub struct Error(Arc<Data>);

#[derive(Clone)]
struct Data {
    kind: ErrorKind,
    text: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    source: Option<Source>,
}

#[derive(Clone)]
enum Source {
    Io(Arc<io::Error>),
    Engine(Error),
}

const _: () = assert!(size_of::<Error>() == size_of::<usize>());

impl Error {
    /// An error of this kind with a text for people.
    #[cold]
    #[track_caller]
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Error {
        note_place();
        Error(Arc::new(Data { kind, text: text.into(), path: None, offset: None, source: None }))
    }

    /// [`ErrorKind::Corruption`]; add the place with [`at`](Error::at) and [`in_file`](Error::in_file).
    #[cold]
    #[track_caller]
    pub fn corruption(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corruption, text)
    }

    /// [`ErrorKind::InvalidArgument`].
    #[cold]
    #[track_caller]
    pub fn invalid(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, text)
    }

    /// [`ErrorKind::Unsupported`].
    #[cold]
    #[track_caller]
    pub fn unsupported(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, text)
    }

    /// [`ErrorKind::Incompatible`].
    #[cold]
    #[track_caller]
    pub fn incompatible(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Incompatible, text)
    }

    /// [`ErrorKind::Busy`].
    #[cold]
    #[track_caller]
    pub fn busy(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Busy, text)
    }

    /// [`ErrorKind::NotFound`].
    #[cold]
    #[track_caller]
    pub fn not_found(text: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotFound, text)
    }

    /// A failed system call. Out of space (or quota) becomes [`ErrorKind::NoSpace`], a missing file
    /// [`ErrorKind::NotFound`], all others [`ErrorKind::Io`].
    #[cold]
    #[track_caller]
    pub fn io(operation: &str, path: &Path, source: io::Error) -> Error {
        note_place();
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Error(Arc::new(Data {
            kind,
            text: operation.to_owned(),
            path: Some(path.to_owned()),
            offset: None,
            source: Some(Source::Io(Arc::new(source))),
        }))
    }

    /// Another error of kind `kind`, caused by `self`, at the same place.
    #[cold]
    #[track_caller]
    pub fn because(kind: ErrorKind, text: impl Into<String>, cause: &Error) -> Error {
        note_place();
        Error(Arc::new(Data {
            kind,
            text: text.into(),
            path: cause.0.path.clone(),
            offset: cause.0.offset,
            source: Some(Source::Engine(cause.clone())),
        }))
    }

    /// The same error with a byte offset, unless it has one already.
    pub fn at(mut self, offset: u64) -> Error {
        let data = Arc::make_mut(&mut self.0);
        data.offset.get_or_insert(offset);
        self
    }

    /// The same error with a file, unless it has one already.
    pub fn in_file(mut self, path: &Path) -> Error {
        let data = Arc::make_mut(&mut self.0);
        data.path.get_or_insert_with(|| path.to_owned());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file concerned, if any.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte offset in that file, if known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The failure that caused this one, if it was one of the engine's.
    pub fn cause(&self) -> Option<&Error> {
        match &self.0.source {
            Some(Source::Engine(e)) => Some(e),
            _ => None,
        }
    }
}

/// Where errors have been made in this process.
#[cfg(any(test, feature = "testing"))]
static PLACES: Mutex<BTreeSet<(&str, u32)>> = Mutex::new(BTreeSet::new());

/// Notes who makes an error, in builds for tests: in the file that `ALLUVIUM_ERROR_PLACES` names, as
/// `file:line`, to which every process of a lane adds what it has reached.
#[track_caller]
fn note_place() {
    #[cfg(any(test, feature = "testing"))]
    if !cfg!(loom) {
        // A model checker's locks do not outlive a schedule.
        let place = std::panic::Location::caller();
        let is_new = PLACES.lock().insert((place.file(), place.line()));
        if is_new && let Some(path) = std::env::var_os("ALLUVIUM_ERROR_PLACES") {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
            let line = format!("{}:{}\n", place.file(), place.line());
            let _ = file.and_then(|mut file| io::Write::write_all(&mut file, line.as_bytes()));
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &*self.0;
        write!(f, "{:?}: {}", d.kind, d.text)?;
        // A cause carries the same place: say it once, at the end of the chain.
        if let Some(Source::Engine(e)) = &d.source {
            return write!(f, ": {e}");
        }
        if let Some(path) = &d.path {
            write!(f, " [{}", path.display())?;
            if let Some(offset) = d.offset {
                write!(f, " @ {offset}")?;
            }
            f.write_str("]")?;
        } else if let Some(offset) = d.offset {
            write!(f, " [@ {offset}]")?;
        }
        if let Some(Source::Io(e)) = &d.source {
            write!(f, ": {e}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(Source::Io(e)) => Some(&**e),
            Some(Source::Engine(e)) => Some(e),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_kind_place_and_cause() {
        let e = Error::corruption("bad length").at(12).in_file(Path::new("a/b.sst"));
        assert_eq!(e.to_string(), "Corruption: bad length [a/b.sst @ 12]");
        let e = e.at(99).in_file(Path::new("other"));
        assert_eq!((e.offset(), e.path()), (Some(12), Some(Path::new("a/b.sst"))));
        let h = Error::because(ErrorKind::Halted, "writes stopped", &e);
        assert_eq!(h.kind(), ErrorKind::Halted);
        assert_eq!(h.to_string(), "Halted: writes stopped: Corruption: bad length [a/b.sst @ 12]");
        assert!(h.cause().is_some());
    }

    #[test]
    fn places_are_those_of_callers() {
        let line = line!() + 1;
        let _ = Error::corruption("here");
        assert!(PLACES.lock().contains(&(file!(), line)));
    }

    #[test]
    fn full_disks_are_told_apart() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Error::io("append", Path::new("x"), full).kind(), ErrorKind::NoSpace);
        let gone = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(Error::io("open", Path::new("x"), gone).kind(), ErrorKind::NotFound);
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(Error::io("open", Path::new("x"), other).kind(), ErrorKind::Io);
    }
}
