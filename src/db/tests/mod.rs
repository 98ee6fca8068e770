//! Moments between two steps, held still: what threads would meet only by chance.

use std::path::Path;

use crate::base::sync::Arc;
use crate::cache::budget::MemoryBudget;
use crate::db::Db;
use crate::db::column_family::ColumnFamily;
use crate::db::options::{ColumnFamilyOptions, Env, Options};
use crate::fs::Fs;
use crate::fs::memory::MemFs;

mod compactions;
mod families;
mod groups;
mod jobs;
mod updates;

fn open(fs: &MemFs, seed: u64) -> Db {
    let options =
        Options { log_segment_bytes: 512, log_segments_max: usize::MAX, ..Options::default() };
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), seed);
    Db::open(Path::new("db"), options, env).unwrap()
}

fn family(db: &Db, name: &str) -> ColumnFamily {
    let options = ColumnFamilyOptions { l0_depth_trigger: 1, ..ColumnFamilyOptions::default() };
    db.column_family(name, options).unwrap()
}

/// Writes enough for several log segments.
fn fill(db: &Db, family: &ColumnFamily) {
    for n in 0..40u32 {
        db.put(family, &n.to_be_bytes(), &[7; 50]).unwrap();
    }
}

/// Numbers of tables that lie in the directory.
fn tables(fs: &MemFs) -> usize {
    let listed = fs.list(Path::new("db")).unwrap();
    listed.iter().filter(|file| file.name.ends_with(".sst")).count()
}

fn live(db: &Db) -> usize {
    db.stats().families.iter().flat_map(|family| family.files).sum()
}

/// A frozen memtable that waits to be flushed.
fn rotate(db: &Db, family: &ColumnFamily) {
    let mut state = db.core.stand_still().unwrap();
    db.core.rotate(&mut state, |writer| writer.family.id == family.id());
}
