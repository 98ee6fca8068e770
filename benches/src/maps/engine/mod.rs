//! What is compared: one small trait, one file an implementation.
//!
//! A new engine is a file, a [`Kind`] and an arm of [`Kind::begin`]; one that needs C++ stands behind
//! a feature.

mod alluvium;
mod btree_map;
mod hash_map;

pub use crate::maps::engine::hash_map::Xxh3;

use std::fmt;

use crate::maps::workload::{Life, Run};

/// A store of byte strings. Failures panic: nothing is expected to fail here.
pub trait Engine {
    /// Adds a key that has no value yet.
    fn insert(&mut self, key: &[u8], value: &[u8]);

    /// Gives a key another value.
    fn overwrite(&mut self, key: &[u8], value: &[u8]);

    /// Lends the value of a key.
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R;

    /// Reads a value and writes what `f` makes of it into the empty buffer, as one step.
    fn update(&mut self, key: &[u8], f: impl FnMut(Option<&[u8]>, &mut Vec<u8>));

    /// Visits all entries in order, ascending or descending. `false` if there is no order.
    fn scan(&mut self, ascending: bool, visit: impl FnMut(&[u8], &[u8])) -> bool;

    /// Visits the entries whose keys begin with `prefix`, ascending. `false` if there is no order.
    fn scan_prefix(&mut self, prefix: &[u8], visit: impl FnMut(&[u8], &[u8])) -> bool;

    /// Are the entries still where they were written: in memory, not in tables?
    fn in_memtable(&self) -> bool {
        true
    }

    /// Puts everything into tables, if there are any.
    fn settle(&mut self) {}

    /// Only point reads are timed: the rest is as with another engine.
    const POINT_READS_ONLY: bool = false;
}

/// Who can take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// alluvium, reads through the database.
    Alluvium,
    /// alluvium, reads through a `Reader`.
    Reader,
    /// The standard library's hash map.
    HashMap,
    /// The standard library's tree.
    BTreeMap,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Alluvium, Kind::Reader, Kind::HashMap, Kind::BTreeMap];

    /// A new, empty store of this kind.
    pub fn begin(self) -> Box<dyn Run> {
        match self {
            Kind::Alluvium => Box::new(Life::new(alluvium::Alluvium::new())),
            Kind::Reader => Box::new(Life::new(alluvium::WithReader::new())),
            Kind::HashMap => Box::new(Life::new(hash_map::Hashed::new())),
            Kind::BTreeMap => Box::new(Life::new(btree_map::Tree::new())),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Alluvium => "alluvium",
            Kind::Reader => "reader",
            Kind::HashMap => "hash",
            Kind::BTreeMap => "btree",
        })
    }
}
