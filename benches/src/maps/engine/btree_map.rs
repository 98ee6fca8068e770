//! Order without an engine: `BTreeMap<Vec<u8>, Vec<u8>>`.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::maps::engine::Engine;

/// A tree.
pub struct Tree {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Tree {
    /// An empty tree.
    pub fn new() -> Tree {
        Tree { map: BTreeMap::new(), buffer: Vec::new() }
    }
}

impl Engine for Tree {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) {
        self.map.insert(key.to_vec(), value.to_vec());
    }

    /// Into the memory that the value has.
    #[inline]
    fn overwrite(&mut self, key: &[u8], value: &[u8]) {
        let old = self.map.get_mut(key).expect("the key is there");
        old.clear();
        old.extend_from_slice(value);
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> R) -> R {
        f(self.map.get(key).map(Vec::as_slice))
    }

    #[inline]
    fn update(&mut self, key: &[u8], mut f: impl FnMut(Option<&[u8]>, &mut Vec<u8>)) {
        let value = self.map.get_mut(key).expect("the key is there");
        self.buffer.clear();
        f(Some(value), &mut self.buffer);
        value.clear();
        value.extend_from_slice(&self.buffer);
    }

    fn scan(&mut self, ascending: bool, mut visit: impl FnMut(&[u8], &[u8])) -> bool {
        match ascending {
            true => self.map.iter().for_each(|(key, value)| visit(key, value)),
            false => self.map.iter().rev().for_each(|(key, value)| visit(key, value)),
        }
        true
    }

    #[inline]
    fn scan_prefix(&mut self, prefix: &[u8], mut visit: impl FnMut(&[u8], &[u8])) -> bool {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        for (key, value) in self.map.range::<[u8], _>(from) {
            if !key.starts_with(prefix) {
                break;
            }
            visit(key, value);
        }
        true
    }
}
