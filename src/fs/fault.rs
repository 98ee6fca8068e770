//! A file system whose operations fail on demand.
#![allow(unused_variables)]

use std::path::Path;

use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::fs::{FileLock, Fs, Listed, ReadableFile, WritableFile};

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Op {
    Create,
    Append,
    Sync,
    Open,
    Read,
    Rename,
    Remove,
    Link,
    SyncDir,
    List,
}

impl Op {
    /// All kinds.
    pub const ALL: [Op; 10] = [
        Op::Create,
        Op::Append,
        Op::Sync,
        Op::Open,
        Op::Read,
        Op::Rename,
        Op::Remove,
        Op::Link,
        Op::SyncDir,
        Op::List,
    ];
}
/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fails with `Io`; nothing is done.
    Io,
    /// Fails with `NoSpace`; nothing is done.
    NoSpace,
    /// An append writes half of its bytes, then fails with `Io`. Other operations: as `Io`.
    Short,
    /// A read succeeds with one bit flipped. Other operations: as `Io`.
    Flip,
}
/// One planned fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operations count.
    pub op: Op,
    /// How many of them pass first, counted from when the fault is planned.
    pub skip: u64,
    /// Whether all later ones fail too.
    pub sticky: bool,
    /// What happens.
    pub effect: Effect,
    /// Only files whose name ends so; "" for all.
    pub suffix: &'static str,
}
impl Fault {
    /// The operation after `skip` of this kind fails with `Io`, once.
    pub fn new(op: Op, skip: u64) -> Fault {
        todo!()
    }
    /// The same, and all later ones.
    pub fn sticky(self) -> Fault {
        todo!()
    }
    /// The same with another effect.
    pub fn effect(self, effect: Effect) -> Fault {
        todo!()
    }
    /// The same for files whose name ends so.
    pub fn suffix(self, suffix: &'static str) -> Fault {
        todo!()
    }
}
/// Fails on demand. A clone shares the plan.
#[derive(Clone)]
pub struct FaultFs {}
impl FaultFs {
    /// No faults yet.
    pub fn new(inner: Arc<dyn Fs>) -> FaultFs {
        todo!()
    }
    /// Adds a fault to the plan.
    pub fn plan(&self, fault: Fault) {
        todo!()
    }
    /// Forgets all planned faults.
    pub fn clear(&self) {
        todo!()
    }
    /// Operations of this kind so far, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        todo!()
    }
    /// Faults that struck so far.
    pub fn struck(&self) -> u64 {
        todo!()
    }
}
impl Fs for FaultFs {
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
