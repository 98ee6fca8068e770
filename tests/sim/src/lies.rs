//! A judge that never finds anything proves nothing: here the file system lies to the engine, once in
//! each way that matters, and every lie must be found out.

use std::path::Path;
use std::sync::Arc;

use alluvium::{FileLock, Fs, Keep, Listed, MemFs, ReadableFile, Result, WritableFile};

use crate::case::Case;
use crate::crash::{Depth, Door, Violation, directly, sweep};
use crate::ops::{WORKLOADS, Workload};
use crate::stats::Stats;

/// What is not done, although it is reported as done.
#[derive(Clone, Copy, Default)]
struct Lie {
    /// Syncs of files with this suffix.
    sync: Option<&'static str>,
    sync_dir: Option<&'static str>,
    /// Removals of files with this suffix: orphans.
    remove: Option<&'static str>,
    /// Of each file with this suffix, the append with this number arrives with a bit flipped.
    flip: Option<(&'static str, u32)>,
}

struct Lying(MemFs, Lie);

fn is(path: &Path, suffix: Option<&str>) -> bool {
    suffix.is_some_and(|suffix| path.to_string_lossy().contains(suffix))
}

impl Fs for Lying {
    fn create(&self, path: &Path) -> Result<Box<dyn WritableFile>> {
        let sync = is(path, self.1.sync);
        let flip = self.1.flip.filter(|(suffix, _)| is(path, Some(suffix))).map(|(_, n)| n);
        Ok(Box::new(LyingFile { file: self.0.create(path)?, sync, flip, appends: 0 }))
    }
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadableFile>> {
        self.0.open(path)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        if is(path, self.1.remove) { Ok(()) } else { self.0.remove(path) }
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.link(from, to)
    }
    fn list(&self, dir: &Path) -> Result<Vec<Listed>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> Result<()> {
        self.0.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        if is(dir, self.1.sync_dir) { Ok(()) } else { self.0.sync_dir(dir) }
    }
    fn sync_file(&self, path: &Path) -> Result<()> {
        if is(path, self.1.sync) { Ok(()) } else { self.0.sync_file(path) }
    }
    fn free_space(&self, dir: &Path) -> Result<u64> {
        self.0.free_space(dir)
    }
    fn lock(&self, dir: &Path) -> Result<Box<dyn FileLock>> {
        self.0.lock(dir)
    }
}

struct LyingFile {
    file: Box<dyn WritableFile>,
    sync: bool,
    flip: Option<u32>,
    appends: u32,
}

impl WritableFile for LyingFile {
    fn append(&mut self, data: &[u8]) -> Result<()> {
        self.appends += 1;
        let mut data = data.to_vec();
        if self.flip == Some(self.appends) {
            *data.last_mut().expect("bytes") ^= 4;
        }
        self.file.append(&data)
    }
    fn reserve(&mut self, len: u64) -> Result<()> {
        self.file.reserve(len)
    }
    fn begin_sync(&mut self) {
        self.file.begin_sync();
    }
    fn sync(&mut self) -> Result<()> {
        if self.sync { Ok(()) } else { self.file.sync() }
    }
}

const QUICK: Depth = Depth {
    policies: &[Keep::Nothing, Keep::All, Keep::Any],
    rounds: 1,
    subsets: false,
    again_every: 40,
};

fn quick(workload: &'static Workload, seed: u64, door: Door) -> std::result::Result<(), Violation> {
    sweep(&Case::new(workload, seed), door, QUICK, &mut Stats::default(), &|| true)
}

fn found_out(workload: &str, door: Door) {
    let workload = Workload::named(workload).unwrap();
    let found = (1..=8).find_map(|seed| quick(workload, seed, door).err());
    assert!(found.is_some(), "a lie is believed");
}

macro_rules! lies {
    ($($test:ident: $workload:literal, $lie:expr;)*) => {$(
        #[test]
        fn $test() {
            found_out($workload, |disk| Arc::new(Lying(disk.clone(), $lie)));
        }
    )*};
}

lies! {
    the_log_is_never_synced: "wal-rotate", Lie { sync: Some(".log"), ..Lie::default() };
    tables_are_never_synced: "flush-race", Lie { sync: Some(".sst"), ..Lie::default() };
    the_manifest_is_never_synced: "manifest-swap",
        Lie { sync: Some(".manifest"), ..Lie::default() };
    current_is_never_synced: "reopen-storm", Lie { sync: Some("CURRENT"), ..Lie::default() };
    the_directory_is_never_synced: "reopen-storm", Lie { sync_dir: Some("db"), ..Lie::default() };
    objects_are_never_synced: "checkpoint-publish",
        Lie { sync: Some("store/shared"), ..Lie::default() };
    envelopes_are_never_synced: "checkpoint-publish",
        Lie { sync: Some("store/checkpoints"), ..Lie::default() };
    the_store_is_never_synced: "checkpoint-publish",
        Lie { sync_dir: Some("store/"), ..Lie::default() };
    tables_arrive_damaged: "flush-race", Lie { flip: Some((".sst", 1)), ..Lie::default() };
    the_log_arrives_damaged: "wal-rotate", Lie { flip: Some((".log", 3)), ..Lie::default() };
    objects_arrive_damaged: "gc", Lie { flip: Some(("store/shared", 1)), ..Lie::default() };
}

#[test]
fn the_truth_is_believed() {
    for workload in WORKLOADS.iter().filter(|workload| workload.micro) {
        if let Err(Violation { case, text }) = quick(workload, 1, directly) {
            panic!("{text}\n{}", case.again());
        }
    }
}
