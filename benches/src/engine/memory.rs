//! The limit: the standard library's maps behind one lock.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::ops::Bound;
use std::time::Instant;

use parking_lot::RwLock;

use crate::engine::{Change, Engine, Scan, Visit, VisitEntry};
use crate::maps::Xxh3;

/// A hash map that grows as it fills, with the hash function of alluvium's memtable.
#[derive(Default)]
pub struct Hash(RwLock<HashMap<Vec<u8>, Vec<u8>, BuildHasherDefault<Xxh3>>>);

/// A tree.
#[derive(Default)]
pub struct BTree(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

macro_rules! point_access {
    () => {
        fn put(&self, key: &[u8], value: &[u8]) {
            let mut map = self.0.write();
            match map.get_mut(key) {
                Some(old) => {
                    old.clear();
                    old.extend_from_slice(value);
                }
                None => drop(map.insert(key.to_vec(), value.to_vec())),
            }
        }

        fn delete(&self, key: &[u8]) {
            self.0.write().remove(key);
        }

        fn put_all(&self, entries: &mut dyn Iterator<Item = (&[u8], &[u8])>) {
            let mut map = self.0.write();
            for (key, value) in entries {
                map.insert(key.to_vec(), value.to_vec());
            }
        }

        fn get(&self, key: &[u8], visit: Visit<'_>) {
            visit(self.0.read().get(key).map(Vec::as_slice));
        }

        fn update(&self, key: &[u8], change: Change<'_>) {
            let mut map = self.0.write();
            let mut new = Vec::with_capacity(16);
            match map.get_mut(key) {
                Some(old) => {
                    change(Some(old), &mut new);
                    old.clear();
                    old.extend_from_slice(&new);
                }
                None => {
                    change(None, &mut new);
                    map.insert(key.to_vec(), new);
                }
            }
        }

        fn append(&self, key: &[u8], element: &[u8]) {
            let mut map = self.0.write();
            match map.get_mut(key) {
                Some(list) => list.extend_from_slice(element),
                None => drop(map.insert(key.to_vec(), element.to_vec())),
            }
        }

        fn settle(&self) -> Option<Instant> {
            None
        }

        fn close(self: Box<Self>) {}
    };
}

impl Engine for Hash {
    point_access!();

    fn scan(&self, _: Scan<'_>, _: VisitEntry<'_>) -> bool {
        false
    }
}

impl Engine for BTree {
    point_access!();

    fn scan(&self, scan: Scan<'_>, visit: VisitEntry<'_>) -> bool {
        let map = self.0.read();
        match scan {
            Scan::All => drop(map.iter().all(|(key, value)| visit(key, value))),
            Scan::AllReverse => drop(map.iter().rev().all(|(key, value)| visit(key, value))),
            Scan::Prefix(from) | Scan::From(from) => {
                let prefix = if let Scan::Prefix(prefix) = scan { prefix } else { &[] };
                let mut range = map.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
                range.all(|(key, value)| key.starts_with(prefix) && visit(key, value));
            }
        }
        true
    }
}
