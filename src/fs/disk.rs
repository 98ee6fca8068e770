//! The real disk.
#![allow(unused_variables)]

use std::path::Path;

use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::fs::{FileLock, Fs, Listed, ReadableFile, WritableFile};

/// The file system of the machine.
#[derive(Clone, Debug, Default)]
pub struct DiskFs {
    mapped: bool,
}
impl DiskFs {
    /// Reads with positioned reads.
    pub fn new() -> DiskFs {
        DiskFs::default()
    }
}
impl Fs for DiskFs {
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
