//! The engine over a model checker's locks and atomics: its own sources, with another `base::sync`.
//!
//! The question this package answers: *is there an order of threads and of memory accesses in which
//! the engine is wrong?* With the feature `loom` every order is tried, of small structures; with
//! `shuttle` random orders are, of whole small databases. The modules are those of `src/`, file by
//! file; only `base/sync.rs` stays behind, and [`base::sync`] stands in.
#![allow(dead_code, unused, clippy::all, reason = "part of the engine, checked where it is")]

pub mod base;
#[path = "../../../src/batch.rs"]
pub mod batch;
#[path = "../../../src/cache/mod.rs"]
pub mod cache;
#[path = "../../../src/compaction/mod.rs"]
pub mod compaction;
#[path = "../../../src/fs/mod.rs"]
pub mod fs;
#[path = "../../../src/iter/mod.rs"]
pub mod iter;
#[path = "../../../src/log/mod.rs"]
pub mod log;
#[path = "../../../src/memtable/mod.rs"]
pub mod memtable;
#[path = "../../../src/table/mod.rs"]
pub mod table;
#[path = "../../../src/version/mod.rs"]
pub mod version;

#[cfg(feature = "shuttle")]
#[path = "../../../src/db/mod.rs"]
pub mod db;

#[cfg(feature = "loom")]
#[path = "parts_of_db.rs"]
pub mod db;

#[cfg(feature = "loom")]
pub mod kernels;
#[cfg(feature = "shuttle")]
pub mod lives;
