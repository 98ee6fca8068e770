//! The limit: `HashMap<Vec<u8>, Vec<u8>>` with the hash function that alluvium's memtable uses.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64;

use crate::maps::engine::Engine;

/// xxh3 of the bytes, in one go: a byte string is the only thing that is hashed.
#[derive(Default)]
pub struct Xxh3(u64);

impl Hasher for Xxh3 {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    /// The length of a slice, which xxh3 has in it already.
    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A hash map that grows as it fills.
pub struct Hashed {
    map: HashMap<Vec<u8>, Vec<u8>, BuildHasherDefault<Xxh3>>,
    buffer: Vec<u8>,
}

impl Hashed {
    /// An empty map.
    pub fn new() -> Hashed {
        Hashed { map: HashMap::default(), buffer: Vec::new() }
    }
}

impl Engine for Hashed {
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

    fn scan(&mut self, _: bool, _: impl FnMut(&[u8], &[u8])) -> bool {
        false
    }

    fn scan_prefix(&mut self, _: &[u8], _: impl FnMut(&[u8], &[u8])) -> bool {
        false
    }
}
