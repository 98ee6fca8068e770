//! One contract for all file systems.
#![allow(clippy::disallowed_methods, reason = "temporary directories")]

use std::path::PathBuf;

use super::*;
use crate::base::error::ErrorKind;
use crate::base::sync::{AtomicU64, Ordering};
use crate::fs::disk::DiskFs;
use crate::fs::fault::{FaultFs, Op};
use crate::fs::memory::MemFs;

/// A directory of its own on the machine, removed at the end.
pub(super) struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("alluvium-fs-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        TempDir(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn contract(fs: &dyn Fs, root: &Path) {
    directories(fs, &root.join("directories/below"));
    for (name, part) in [
        ("files", files as fn(&dyn Fs, &Path)),
        ("long", long),
        ("reserved", reserved),
        ("names", names),
        ("refusals", refusals),
        ("locks", locks),
    ] {
        fs.create_dir(&root.join(name)).unwrap();
        part(fs, &root.join(name));
    }
}

fn directories(fs: &dyn Fs, dir: &Path) {
    assert_eq!(fs.list(dir).map_err(|e| e.kind()), Err(ErrorKind::NotFound));
    fs.create_dir(dir).unwrap();
    fs.create_dir(dir).unwrap();
    assert_eq!(fs.list(dir).unwrap(), []);
    put(fs, &dir.join("file"), b"1");
    let above = dir.parent().unwrap();
    assert_eq!(fs.list(above).unwrap(), [], "neither directories nor what is below them");
    fs.sync_dir(above).unwrap();
    assert!(fs.free_space(dir).unwrap() > 0);
}

/// Megabytes, of which the device is told before they are synced, and which are read at once.
fn long(fs: &dyn Fs, dir: &Path) {
    let bytes: Vec<u8> = (0..3 << 18).flat_map(u32::to_le_bytes).collect();
    let path = dir.join("000001-000001.log");
    let mut file = fs.create(&path).unwrap();
    for piece in bytes.chunks(700_001) {
        file.append(piece).unwrap();
        file.begin_sync();
        file.begin_sync();
    }
    file.sync().unwrap();
    let reader = fs.open(&path).unwrap();
    for from in [0, 5] {
        let len = bytes.len() - from;
        assert!(*reader.read_at(from as u64, len).unwrap() == bytes[from..]);
    }
}

fn files(fs: &dyn Fs, dir: &Path) {
    // Two endings: a table may be mapped, a log never is.
    for name in ["000001-000001.sst", "000001-000002.log"] {
        let path = dir.join(name);
        let mut file = fs.create(&path).unwrap();
        assert_eq!(fs.open(&path).unwrap().len(), 0);
        assert_eq!(fs.open(&path).unwrap().read_at(0, 0).unwrap().len(), 0);
        file.append(b"hello ").unwrap();
        file.append(b"").unwrap();
        file.append(b"world").unwrap();
        file.sync().unwrap();
        drop(file);
        fs.sync_file(&path).unwrap();
        fs.sync_dir(dir).unwrap();

        let reader = fs.open(&path).unwrap();
        assert_eq!(reader.len(), 11);
        assert_eq!(&*reader.read_at(0, 11).unwrap(), b"hello world");
        assert_eq!(&*reader.read_at(6, 3).unwrap(), b"wor");
        assert_eq!(reader.read_at(11, 0).unwrap().len(), 0);
        for (offset, len) in [(0, 12), (11, 1), (12, 0), (u64::MAX, 1), (1, usize::MAX)] {
            let e = reader.read_at(offset, len).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corruption);
            assert_eq!((e.offset(), e.path()), (Some(offset), Some(&*path)));
        }
        let bytes = reader.read_at(0, 5).unwrap();
        fs.remove(&path).unwrap();
        assert_eq!(&*reader.read_at(0, 5).unwrap(), b"hello", "open files outlive their name");
        drop(reader);
        assert_eq!(&*bytes, b"hello", "bytes outlive their file");
    }
}

fn reserved(fs: &dyn Fs, dir: &Path) {
    let path = dir.join("000001-000001.log");
    let mut file = fs.create(&path).unwrap();
    let mut bytes = b"before".to_vec();
    file.append(&bytes).unwrap();
    file.reserve(10_000).unwrap();
    let check = |bytes: &[u8], when: &str| {
        let now = get(fs, &path);
        assert!(now.len() >= bytes.len() && now[..bytes.len()] == *bytes, "{when}");
        assert!(now[bytes.len()..].iter().all(|byte| *byte == 0), "{when}");
    };
    check(&bytes, "reserved");
    // Inside, over the end, behind it, in what is reserved anew, and after it was given back.
    for (i, (len, reserve)) in
        [(5000, None), (6000, None), (100, Some(20_000)), (100, Some(0)), (100, None)]
            .into_iter()
            .enumerate()
    {
        if let Some(reserve) = reserve {
            file.reserve(reserve).unwrap();
        }
        let data = vec![i as u8 + 1; len];
        file.append(&data).unwrap();
        bytes.extend_from_slice(&data);
        check(&bytes, "appended");
        file.sync().unwrap();
        check(&bytes, "synced");
    }
    assert_eq!(get(fs, &path), bytes, "nothing is reserved any more");
    file.reserve(30_000).unwrap();
    drop(file);
    check(&bytes, "dropped");
    fs.sync_file(&path).unwrap();
}

fn names(fs: &dyn Fs, dir: &Path) {
    let at = |name: &str| dir.join(name);
    for name in ["b", "a.x", "a"] {
        put(fs, &at(name), name.as_bytes());
    }
    let listed = |name: &str, len| Listed { name: name.to_owned(), len };
    assert_eq!(fs.list(dir).unwrap(), [listed("a", 1), listed("a.x", 3), listed("b", 1)]);

    fs.link(&at("a"), &at("c")).unwrap();
    fs.remove(&at("a")).unwrap();
    assert_eq!(get(fs, &at("c")), b"a", "a link is a name like the first");
    fs.rename(&at("c"), &at("a.x")).unwrap();
    assert_eq!(get(fs, &at("a.x")), b"a", "a rename replaces");
    assert_eq!(fs.list(dir).unwrap(), [listed("a.x", 1), listed("b", 1)]);
    fs.rename(&at("b"), &at("b")).unwrap();
    fs.create_dir(&at("below")).unwrap();
    fs.rename(&at("b"), &at("below/b")).unwrap();
    assert_eq!(get(fs, &at("below/b")), b"b");
    assert_eq!(fs.list(dir).unwrap(), [listed("a.x", 1)]);
}

fn refusals(fs: &dyn Fs, dir: &Path) {
    let (there, absent) = (&dir.join("there"), &dir.join("absent"));
    let nowhere = &dir.join("no/where");
    put(fs, there, b"");
    let check = |result: Result<()>, kind| {
        let e = result.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.path().is_some_and(|path| path.starts_with(dir)), "{e}");
    };
    check(fs.create(there).map(drop), ErrorKind::InvalidArgument);
    check(fs.create(dir).map(drop), ErrorKind::InvalidArgument);
    check(fs.create(nowhere).map(drop), ErrorKind::NotFound);
    check(fs.open(absent).map(drop), ErrorKind::NotFound);
    check(fs.remove(absent), ErrorKind::NotFound);
    check(fs.rename(absent, there), ErrorKind::NotFound);
    check(fs.rename(there, nowhere), ErrorKind::NotFound);
    check(fs.link(there, there), ErrorKind::InvalidArgument);
    check(fs.link(absent, &dir.join("new")), ErrorKind::NotFound);
    check(fs.link(there, nowhere), ErrorKind::NotFound);
    check(fs.sync_file(absent), ErrorKind::NotFound);
    check(fs.sync_dir(absent), ErrorKind::NotFound);
    check(fs.free_space(absent).map(drop), ErrorKind::NotFound);
    check(fs.lock(absent).map(drop), ErrorKind::NotFound);
    check(fs.create_dir(&there.join("below")), ErrorKind::Io);
}

fn locks(fs: &dyn Fs, dir: &Path) {
    let lock = fs.lock(dir).unwrap();
    assert_eq!(fs.lock(dir).map(drop).map_err(|e| e.kind()), Err(ErrorKind::Busy));
    assert_eq!(fs.list(dir).unwrap(), [], "a lock needs no file");
    fs.create_dir(&dir.join("other")).unwrap();
    let other = fs.lock(&dir.join("other")).unwrap();
    drop(lock);
    drop(fs.lock(dir).unwrap());
    drop(fs.lock(dir).unwrap());
    drop(other);
}

pub(super) fn put(fs: &dyn Fs, path: &Path, bytes: &[u8]) {
    let mut file = fs.create(path).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
}

pub(super) fn get(fs: &dyn Fs, path: &Path) -> Vec<u8> {
    let file = fs.open(path).unwrap();
    file.read_at(0, file.len() as usize).unwrap().to_vec()
}

#[test]
fn the_disk_keeps_the_contract() {
    let dir = TempDir::new();
    contract(&DiskFs::new(), &dir.0);
}

#[test]
fn the_mapped_disk_keeps_the_contract() {
    let dir = TempDir::new();
    contract(&mmap::tests::mapped(), &dir.0);
}

#[test]
fn memory_keeps_the_contract() {
    contract(&MemFs::new(), Path::new("/root"));
    contract(&MemFs::new(), Path::new("relative"));
    contract(&MemFs::new(), Path::new(""));
}

#[test]
fn the_injector_keeps_the_contract_without_faults() {
    let fs = FaultFs::new(Arc::new(MemFs::new()));
    contract(&fs, Path::new("/root"));
    assert_eq!(fs.struck(), 0);
    assert!(Op::ALL.iter().all(|op| fs.count(*op) > 0));
}
