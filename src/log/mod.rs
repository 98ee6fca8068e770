//! The append-only log, for writes (`*.log`) and for version edits (`*.manifest`) alike.
//!
//! The question this folder answers: *which records survive a crash, and how do we know that none is
//! missing?* A log is a chain of segments, one file each. Every segment names its predecessor and
//! where that one ended; every record says up to where the log was known to be durable when it was
//! written. So a torn tail, which a crash leaves, is told apart from damage, which it never leaves:
//! see [`recovery`].

pub mod format;
pub mod reader;
pub mod recovery;
pub mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use crate::base::id::FileNumber;

pub use format::{LAYOUTS, SegmentItem, decode_segment};
pub use reader::LogReader;
pub use writer::LogWriter;

/// A place in a log, over all its segments: ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The segment.
    pub segment: FileNumber,
    /// Bytes from the start of that segment's file.
    pub offset: u64,
}

impl LogPosition {
    /// The place `offset` bytes into `segment`.
    pub fn new(segment: FileNumber, offset: u64) -> LogPosition {
        LogPosition { segment, offset }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.segment, self.offset)
    }
}

/// A segment as the directory lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number, from its name.
    pub number: FileNumber,
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes. What stands in the file behind that is not looked at.
    pub len: u64,
}
