//! A file system whose operations fail on demand.
//!
//! Faults are planned per kind of operation, by number, so that a test can let the first, the second,
//! the third … operation fail until a run passes without one.

use std::path::Path;

use crate::base::bytes::Bytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Arc, Mutex};
use crate::fs::{FailedSync, FileLock, Fs, Listed, ReadableFile, WritableFile};

/// A kind of operation that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// [`Fs::create`]
    Create,
    /// [`WritableFile::append`]
    Append,
    /// [`WritableFile::reserve`]
    Reserve,
    /// [`WritableFile::sync`] and [`Fs::sync_file`]
    Sync,
    /// [`Fs::open`]
    Open,
    /// [`ReadableFile::read_at`]
    Read,
    /// [`Fs::rename`]; a fault goes by the old name
    Rename,
    /// [`Fs::remove`]
    Remove,
    /// [`Fs::link`]; a fault goes by the new name
    Link,
    /// [`Fs::sync_dir`]
    SyncDir,
    /// [`Fs::list`]
    List,
}

impl Op {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Op; 11] = [
        Op::Create,
        Op::Append,
        Op::Reserve,
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
    /// The operation fails with `Io` and does nothing. A failed sync loses what was not synced:
    /// [`FailedSync::Dropped`].
    Io,
    /// As `Io`, but the error is `NoSpace`.
    NoSpace,
    /// As `Io`, but the error is `Busy`, which no file system is to answer with.
    Strange,
    /// An append writes half of its bytes, then fails with `Io`. For other operations: as `Io`.
    Short,
    /// A sync fails with `Io`, and this is what it has done. For other operations: as `Io`.
    Sync(FailedSync),
    /// A change of names, or a sync of a directory, is done, and `Io` is reported all the same. For
    /// other operations: as `Io`.
    Done,
    /// A read succeeds with one bit of its bytes flipped. For other operations: as `Io`.
    Flip,
}

/// One planned fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operations that count.
    pub op: Op,
    /// How many of them pass first, counted from when the fault is planned.
    pub skip: u64,
    /// Whether all later ones fail too, until [`FaultFs::clear`].
    pub sticky: bool,
    /// What happens.
    pub effect: Effect,
    /// Only paths that end with this text count; all do if it is empty.
    pub suffix: String,
}

impl Fault {
    /// After `skip` operations of this kind the next one fails with `Io`, once.
    pub fn new(op: Op, skip: u64) -> Fault {
        Fault { op, skip, sticky: false, effect: Effect::Io, suffix: String::new() }
    }

    /// The same, and all later ones fail too.
    pub fn sticky(self) -> Fault {
        Fault { sticky: true, ..self }
    }

    /// The same with another effect.
    pub fn effect(self, effect: Effect) -> Fault {
        Fault { effect, ..self }
    }

    /// The same, counting only paths that end with this text, such as `.log`.
    pub fn suffix(self, suffix: &str) -> Fault {
        Fault { suffix: suffix.to_owned(), ..self }
    }
}

/// Another file system, with faults. A clone shares the plan.
#[derive(Clone)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan(Mutex<State>);

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    counts: [u64; Op::ALL.len()],
    struck: u64,
}

impl FaultFs {
    /// The same files, no faults yet.
    pub fn new(inner: Arc<dyn Fs>) -> FaultFs {
        FaultFs { inner, plan: Arc::default() }
    }

    /// Adds a fault to the plan. If several meet in one operation, the first one planned decides the
    /// effect; a fault that is not sticky is used up all the same.
    pub fn plan(&self, fault: Fault) {
        self.plan.0.lock().faults.push(fault);
    }

    /// Forgets all planned faults.
    pub fn clear(&self) {
        self.plan.0.lock().faults.clear();
    }

    /// Operations of this kind so far, failed ones included.
    pub fn count(&self, op: Op) -> u64 {
        self.plan.0.lock().counts[op as usize]
    }

    /// Operations that a fault struck so far. A loop over `skip` ends when this stays 0.
    pub fn struck(&self) -> u64 {
        self.plan.0.lock().struck
    }
}

impl Plan {
    /// Counts an operation and tells what strikes it.
    fn strike(&self, op: Op, path: &Path) -> Option<Effect> {
        let mut state = self.0.lock();
        state.counts[op as usize] += 1;
        let mut effect = None;
        let name = path.to_string_lossy();
        state.faults.retain_mut(|fault| {
            if fault.op != op || !name.ends_with(fault.suffix.as_str()) {
                return true;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                return true;
            }
            effect = effect.or(Some(fault.effect));
            fault.sticky
        });
        state.struck += u64::from(effect.is_some());
        effect
    }

    /// Counts an operation and fails it if a fault strikes.
    fn check(&self, op: Op, path: &Path) -> Result<()> {
        self.strike(op, path).map_or(Ok(()), |effect| Err(injected(op, path, effect)))
    }

    /// The same for a change of names, which may happen and fail.
    fn change(&self, op: Op, path: &Path, run: impl FnOnce() -> Result<()>) -> Result<()> {
        match self.strike(op, path) {
            None => run(),
            Some(effect) => {
                if effect == Effect::Done {
                    run()?;
                }
                Err(injected(op, path, effect))
            }
        }
    }

    /// Counts a sync; if a fault strikes, says what the sync has done instead.
    fn sync(&self, path: &Path) -> Option<(FailedSync, Error)> {
        let effect = self.strike(Op::Sync, path)?;
        let left = if let Effect::Sync(left) = effect { left } else { FailedSync::Dropped };
        Some((left, injected(Op::Sync, path, effect)))
    }
}

fn injected(op: Op, path: &Path, effect: Effect) -> Error {
    let kind = match effect {
        Effect::NoSpace => ErrorKind::NoSpace,
        Effect::Strange => ErrorKind::Busy,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{op:?}: injected fault")).in_file(path)
}

impl Fs for FaultFs {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        self.plan.check(Op::Create, path)?;
        let inner = self.inner.create(path)?;
        Ok(Box::new(FaultWriter { inner, plan: self.plan.clone(), path: path.into() }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadableFile>> {
        self.plan.check(Op::Open, path)?;
        let inner = self.inner.open(path)?;
        Ok(Arc::new(FaultReader { inner, plan: self.plan.clone(), path: path.into() }))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.plan.change(Op::Remove, path, || self.inner.remove(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.plan.change(Op::Rename, from, || self.inner.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        self.plan.change(Op::Link, to, || self.inner.link(from, to))
    }

    fn list(&self, dir: &Path) -> Result<Vec<Listed>> {
        self.plan.check(Op::List, dir)?;
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> Result<()> {
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.plan.change(Op::SyncDir, dir, || self.inner.sync_dir(dir))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        match self.plan.sync(path) {
            None => self.inner.sync_file(path),
            Some((left, failure)) => {
                self.inner.fail_sync(path, left);
                Err(failure)
            }
        }
    }

    fn free_space(&self, dir: &Path) -> Result<u64> {
        self.inner.free_space(dir)
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn FileLock>> {
        self.inner.lock(dir)
    }

    fn fail_sync(&self, path: &Path, left: FailedSync) {
        self.inner.fail_sync(path, left);
    }
}

struct FaultWriter {
    inner: Box<dyn WritableFile>,
    plan: Arc<Plan>,
    path: Arc<Path>,
}

impl WritableFile for FaultWriter {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        match self.plan.strike(Op::Append, &self.path) {
            None => self.inner.append(data),
            Some(effect) => {
                if effect == Effect::Short {
                    self.inner.append(&data[..data.len() / 2])?;
                }
                Err(injected(Op::Append, &self.path, effect))
            }
        }
    }

    fn reserve(&mut self, len: u64) -> Result<()> {
        self.plan.check(Op::Reserve, &self.path)?;
        self.inner.reserve(len)
    }

    fn begin_sync(&mut self) {
        self.inner.begin_sync();
    }

    fn sync(&mut self) -> Result<()> {
        match self.plan.sync(&self.path) {
            None => self.inner.sync(),
            Some((left, failure)) => {
                self.inner.fail_sync(left);
                Err(failure)
            }
        }
    }

    fn fail_sync(&mut self, left: FailedSync) {
        self.inner.fail_sync(left);
    }
}

struct FaultReader {
    inner: Arc<dyn ReadableFile>,
    plan: Arc<Plan>,
    path: Arc<Path>,
}

impl ReadableFile for FaultReader {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        match self.plan.strike(Op::Read, &self.path) {
            None => self.inner.read_at(offset, len),
            Some(Effect::Flip) => {
                let mut bytes = self.inner.read_at(offset, len)?.to_vec();
                if let Some(byte) = bytes.get_mut(len / 2) {
                    *byte ^= 1 << (offset % 8);
                }
                Ok(Bytes::from(bytes))
            }
            Some(effect) => Err(injected(Op::Read, &self.path, effect).at(offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemFs;
    use crate::fs::memory::image::Keep;

    /// Every kind of operation once. Stops at the first error.
    fn run(fs: &dyn Fs) -> Result<()> {
        let (dir, a, b) = (Path::new("d"), Path::new("d/a"), Path::new("d/b"));
        fs.create_dir(dir)?;
        let mut file = fs.create(a)?;
        file.reserve(20)?;
        file.append(b"0123456789")?;
        file.sync()?;
        fs.sync_file(a)?;
        fs.link(a, b)?;
        fs.remove(a)?;
        fs.rename(b, a)?;
        fs.sync_dir(dir)?;
        fs.list(dir)?;
        fs.open(a)?.read_at(0, 10)?;
        Ok(())
    }

    #[test]
    fn each_operation_can_fail_at_its_turn() {
        for op in Op::ALL {
            for effect in [Effect::Io, Effect::NoSpace] {
                let mut skip = 0;
                loop {
                    let fs = FaultFs::new(Arc::new(MemFs::new()));
                    fs.plan(Fault::new(op, skip).effect(effect));
                    let result = run(&fs);
                    if fs.struck() == 0 {
                        result.unwrap();
                        break;
                    }
                    let e = result.unwrap_err();
                    let no_space = effect == Effect::NoSpace;
                    assert_eq!(e.kind() == ErrorKind::NoSpace, no_space, "{e}");
                    assert!(e.to_string().contains("injected"), "{e}");
                    assert_eq!(fs.count(op), skip + 1);
                    skip += 1;
                }
                assert_eq!(skip, if op == Op::Sync { 2 } else { 1 }, "{op:?}");
            }
        }
    }

    #[test]
    fn once_sticky_and_by_suffix() {
        let fs = FaultFs::new(Arc::new(MemFs::new()));
        fs.plan(Fault::new(Op::Append, 1).suffix(".log"));
        let mut other = fs.create(Path::new("1.sst")).unwrap();
        let mut log = fs.create(Path::new("1.log")).unwrap();
        other.append(b"x").unwrap();
        other.append(b"x").unwrap();
        log.append(b"x").unwrap();
        log.append(b"x").unwrap_err();
        log.append(b"x").unwrap();
        fs.plan(Fault::new(Op::Append, 0).sticky());
        log.append(b"x").unwrap_err();
        other.append(b"x").unwrap_err();
        fs.clear();
        log.append(b"x").unwrap();
        assert_eq!((fs.count(Op::Append), fs.struck()), (8, 3));
    }

    #[test]
    fn short_appends_and_flipped_bits() {
        let memory = MemFs::new();
        let fs = FaultFs::new(Arc::new(memory.clone()));
        let path = Path::new("a");
        let mut file = fs.create(path).unwrap();
        fs.plan(Fault::new(Op::Append, 0).effect(Effect::Short));
        assert_eq!(file.append(b"0123").unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(memory.read(path), b"01");
        let reader = fs.open(path).unwrap();
        fs.plan(Fault::new(Op::Read, 0).effect(Effect::Flip));
        assert_ne!(&*reader.read_at(0, 2).unwrap(), b"01");
        assert_eq!(&*reader.read_at(0, 2).unwrap(), b"01");
        assert_eq!(memory.read(path), b"01");
    }

    #[test]
    fn what_a_failed_sync_covered_never_becomes_durable() {
        for by_path in [false, true] {
            let memory = MemFs::new();
            let fs = FaultFs::new(Arc::new(memory.clone()));
            let path = Path::new("a");
            let mut file = fs.create(path).unwrap();
            fs.sync_dir(Path::new("")).unwrap();
            file.append(b"good").unwrap();
            file.sync().unwrap();
            file.append(b"lost").unwrap();
            fs.plan(Fault::new(Op::Sync, 0));
            match by_path {
                true => fs.sync_file(path).unwrap_err(),
                false => file.sync().unwrap_err(),
            };
            assert_eq!(memory.crash_image(Keep::Nothing, 0).read(path), b"good");
            file.append(b"more").unwrap();
            file.sync().unwrap();
            assert_eq!(memory.read(path), b"goodlostmore", "the cache still has it");
            assert_eq!(memory.crash_image(Keep::Nothing, 0).read(path), b"good\0\0\0\0more");
            assert_eq!(memory.crash_image(Keep::All, 0).read(path), b"goodlostmore");
            let torn: Vec<_> = (0..32).map(|n| memory.crash_image(Keep::Torn, n)).collect();
            assert!(torn.iter().any(|image| image.read(path) == b"goodlostmore"));
            assert!(torn.iter().any(|image| image.read(path) == b"good\0\0\0\0more"));
        }
    }
}
