//! What everything stands on: bytes, coding, checksums, keys, errors, limits.
//!
//! The question this folder answers: *what is a key, an error, a byte on disk?* Nothing here knows
//! of files, threads or the shape of the tree.

pub mod biased_mutex;
pub mod bytes;
pub mod canary;
pub mod checksum;
pub mod coding;
pub mod error;
pub mod format;
pub mod id;
pub mod key;
pub mod limits;
pub mod rng;
pub mod sync;
