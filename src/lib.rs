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
