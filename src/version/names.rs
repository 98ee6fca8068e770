//! Names of files: `<epoch>-<counter>` and what the file is. Nothing is named twice, ever.

use crate::base::error::{Error, Result};
use crate::base::id::FileNumber;
use crate::base::sync::{AtomicU32, Ordering};

/// What a name in the database's directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileName {
    /// `<number>.sst`: a sorted table.
    Table(FileNumber),
    /// `<number>.log`: a segment of the write-ahead log.
    Log(FileNumber),
    /// `<number>.manifest`: the log of version edits.
    Manifest(FileNumber),
    /// `CURRENT`: which manifest is the valid one.
    Current,
    /// `CURRENT.tmp-<number>`: becomes `CURRENT` by a rename. The number is its manifest's.
    CurrentTemporary(FileNumber),
    /// `log.tmp-<number>`: becomes that segment by a rename, when all that it begins with is in it.
    LogTemporary(FileNumber),
}

impl FileName {
    /// What `name` stands for; `None` for names that are not ours, which are left alone.
    pub fn parse(name: &str) -> Option<FileName> {
        if name == "CURRENT" {
            return Some(FileName::Current);
        }
        if let Some(number) = name.strip_prefix("CURRENT.tmp-") {
            return Some(FileName::CurrentTemporary(number_of(number)?));
        }
        if let Some(number) = name.strip_prefix("log.tmp-") {
            return Some(FileName::LogTemporary(number_of(number)?));
        }
        let (number, extension) = name.split_once('.')?;
        let number = number_of(number)?;
        match extension {
            "sst" => Some(FileName::Table(number)),
            "log" => Some(FileName::Log(number)),
            "manifest" => Some(FileName::Manifest(number)),
            _ => None,
        }
    }

    /// The number in the name, if it has one.
    pub fn number(self) -> Option<FileNumber> {
        match self {
            FileName::Table(number)
            | FileName::Log(number)
            | FileName::Manifest(number)
            | FileName::CurrentTemporary(number)
            | FileName::LogTemporary(number) => Some(number),
            FileName::Current => None,
        }
    }
}

/// A number that a file can have: epochs and counters begin at one.
fn number_of(text: &str) -> Option<FileNumber> {
    FileNumber::parse(text).filter(|number| number.epoch() > 0 && number.counter() > 0)
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileName::Table(number) => write!(f, "{number}.sst"),
            FileName::Log(number) => write!(f, "{number}.log"),
            FileName::Manifest(number) => write!(f, "{number}.manifest"),
            FileName::Current => f.write_str("CURRENT"),
            FileName::CurrentTemporary(number) => write!(f, "CURRENT.tmp-{number}"),
            FileName::LogTemporary(number) => write!(f, "log.tmp-{number}"),
        }
    }
}

/// Gives out the file numbers of one epoch. The epoch was made durable before the first number is
/// given out, so the counter itself needs no record on disk.
#[derive(Debug)]
pub struct FileNumbers {
    epoch: u32,
    next: AtomicU32,
}

impl FileNumbers {
    /// The numbers of `epoch`, from counter `first` on.
    pub fn new(epoch: u32, first: u32) -> FileNumbers {
        FileNumbers { epoch, next: AtomicU32::new(first) }
    }

    /// A number that no file ever had.
    ///
    /// # Panics
    /// After 2³² − 16 files in one epoch.
    pub fn next(&self) -> FileNumber {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(counter < u32::MAX - 16, "file counter of epoch {} exhausted", self.epoch);
        FileNumber::new(self.epoch, counter)
    }

    /// The epoch of all these numbers.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }
}

/// The epoch after `last` and after every epoch in a file name of ours, whatever the file is.
///
/// # Errors
/// `InvalidArgument` if there is no greater epoch.
pub fn next_epoch<'a>(last: u32, names: impl IntoIterator<Item = &'a str>) -> Result<u32> {
    let seen = names.into_iter().filter_map(|name| FileName::parse(name)?.number());
    let greatest = seen.map(FileNumber::epoch).fold(last, u32::max);
    greatest
        .checked_add(1)
        .ok_or_else(|| Error::invalid("no epoch is left: a file name has the last"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pinned_and_round_trip() {
        let n = FileNumber::new(3, 17);
        for (name, text) in [
            (FileName::Table(n), "000003-000017.sst"),
            (FileName::Log(n), "000003-000017.log"),
            (FileName::Manifest(n), "000003-000017.manifest"),
            (FileName::Current, "CURRENT"),
            (FileName::CurrentTemporary(n), "CURRENT.tmp-000003-000017"),
            (FileName::LogTemporary(n), "log.tmp-000003-000017"),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(FileName::parse(text), Some(name));
        }
        for foreign in [
            "",
            "LOCK",
            "000003.sst",
            "000003-000017",
            "000003-000017.sst.bak",
            "x.log",
            ".sst",
            "CURRENT.tmp-",
            "log.tmp-",
            "current",
            "3-17.sst",
            "000003-000017.SST",
            "000000-000001.sst",
            "000001-000000.log",
        ] {
            assert_eq!(FileName::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn epochs_pass_every_name() {
        assert_eq!(next_epoch(0, []).unwrap(), 1);
        assert_eq!(next_epoch(4, ["000003-000001.sst", "notes.txt"]).unwrap(), 5);
        assert_eq!(next_epoch(4, ["CURRENT.tmp-000009-000001", "000002-000001.log"]).unwrap(), 10);
        assert!(next_epoch(1, ["4294967295-000001.sst"]).is_err());
    }

    #[test]
    fn numbers_are_given_once() {
        let numbers = FileNumbers::new(7, 2);
        assert_eq!(numbers.next(), FileNumber::new(7, 2));
        assert_eq!(numbers.next(), FileNumber::new(7, 3));
        assert_eq!(numbers.epoch(), 7);
    }
}
