//! A disk in memory that can crash.
#![allow(unused_variables)]

use std::path::Path;

use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::fs::{FileLock, Fs, Listed, ReadableFile, WritableFile};

/// A disk in memory. A clone is the same disk.
#[derive(Clone, Default)]
pub struct MemFs {}

/// What outlives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Only synced bytes and synced names.
    Nothing,
    /// Everything, as after the death of the process alone.
    All,
    /// Of each file a random part of what was not synced; each name change at random.
    Torn,
}
impl MemFs {
    /// An empty disk.
    pub fn new() -> MemFs {
        todo!()
    }
    /// A new disk, as after a power cut now.
    pub fn crash_image(&self, keep: Keep, seed: u64) -> MemFs {
        todo!()
    }
    /// Bytes that fit, `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        todo!()
    }
    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        todo!()
    }
    /// Mutating operations so far, syncs included.
    pub fn ops(&self) -> u64 {
        todo!()
    }
    /// Lets `n` operations (counted as `ops` does) pass and all later ones fail.
    pub fn crash_after(&self, n: Option<u64>) {
        todo!()
    }
    /// Flips bits of a stored file.
    pub fn corrupt(&self, path: &Path, offset: u64, xor: u8) {
        todo!()
    }
    /// Cuts a stored file.
    pub fn truncate(&self, path: &Path, len: u64) {
        todo!()
    }
    /// A stored file.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        todo!()
    }
    /// Stores a file, durably.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        todo!()
    }
}
impl Fs for MemFs {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        todo!()
    }
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadableFile>> {
        todo!()
    }
    fn remove(&self, path: &Path) -> Result<()> {
        todo!()
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        todo!()
    }
    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        todo!()
    }
    fn list(&self, dir: &Path) -> Result<Vec<Listed>> {
        todo!()
    }
    fn create_dir(&self, dir: &Path) -> Result<()> {
        todo!()
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        todo!()
    }
    fn sync_file(&self, path: &Path) -> Result<()> {
        todo!()
    }
    fn free_space(&self, dir: &Path) -> Result<u64> {
        todo!()
    }
    fn lock(&self, dir: &Path) -> Result<Box<dyn FileLock>> {
        todo!()
    }
}
