//! alluvium: an embedded, log-structured state engine for stream processing.
#![allow(dead_code)] // until the layers above use what stands below

mod base;
mod batch;
mod cache;
mod checkpoint;
mod compaction;
mod db;
mod fs;
mod inspect;
mod iter;
mod log;
mod memtable;
mod state;
mod table;
mod version;

pub use crate::fs::FileLock;
pub use crate::fs::Fs;
pub use crate::fs::Listed;
pub use crate::fs::ReadableFile;
pub use crate::fs::WritableFile;
pub use crate::fs::disk::DiskFs;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::fault::Fault;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::fault::FaultFs;
#[cfg(any(test, feature = "testing"))]
pub use crate::fs::fault::Op as FaultOp;
pub use crate::fs::memory::Keep;
pub use crate::fs::memory::MemFs;
pub use crate::iter::resolve::MergeOperator;
