//! Flushes and compactions through real tables, against a list of everything that was written.

use super::*;
use crate::base::id::FamilyId;
use crate::base::key::InternalKey;
use crate::base::key::KeyRange;
use crate::base::key::SEQNO_MAX;
use crate::base::key::SeqNo;
use crate::base::key::ValueKind;
use crate::base::rng::Rng;
use crate::base::sync::AtomicUsize;
use crate::base::sync::Ordering;
use crate::base::sync::Receiver;
use crate::base::sync::unbounded;
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::compaction::below::Below;
use crate::compaction::busy::Busy;
use crate::compaction::busy::ClaimId;
use crate::compaction::flush::FlushJob;
use crate::compaction::iter::tests::Append;
use crate::compaction::iter::tests::Data;
use crate::compaction::picker::PickerOptions;
use crate::compaction::picker::pick;
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::iter::InternalIterator;
use crate::iter::range_del::RangeTombstone;
use crate::iter::resolve::Resolver;
use crate::iter::resolve::Step;
use crate::memtable::MemTable;
use crate::memtable::MemTableOptions;
use crate::table::TableOptions;
use crate::version::edit::FamilyRecord;
use crate::version::edit::VersionEdit;
use crate::version::file::TableOpener;
use crate::version::levels::Described;
use crate::version::meta::FileMeta;
use crate::version::names::FileName;
use crate::version::names::FileNumbers;
use crate::version::set::VersionSet;
use crate::version::state::State;
use crate::version::version::Version;
use quickcheck::quickcheck;
use std::path::Path;

const FAMILY: FamilyId = FamilyId(0);
const KEYS: u64 = 40;

struct Tree {
    fs: MemFs,
    set: VersionSet,
    output: OutputOptions,
    picker: PickerOptions,
    budget: MemoryBudget,
    history: Data,
    seqno: SeqNo,
    snapshots: Vec<SeqNo>,
    busy: Busy,
    running: Vec<(ClaimId, CompactionJob)>,
    rng: Rng,
    _swept: Receiver<FileNumber>,
}

fn key(k: u64) -> Vec<u8> {
    format!("{k:03}").into_bytes()
}

impl Tree {
    fn new(seed: u64) -> Tree {
        let fs = MemFs::new();
        let dir = Path::new("db");
        fs.create_dir(dir).unwrap();
        let budget = MemoryBudget::new(64 << 20);
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let (sweeper, swept) = unbounded();
        let opener = TableOpener {
            fs: Arc::clone(&shared),
            dir: dir.to_owned(),
            cache: BlockCache::new(&budget, 1 << 20),
            budget: budget.clone(),
            value_bytes_max: 1 << 20,
            sweeper,
        };
        let record = FamilyRecord {
            id: FAMILY,
            name: "f".into(),
            merge_operator: None,
            compaction_filter: None,
            options: vec![],
            flushed_seqno: 0,
        };
        let mut state = State::default();
        let first = VersionEdit {
            snapshot: true,
            epoch: Some(1),
            instance: Some(7),
            created: vec![record],
            ..VersionEdit::default()
        };
        state.apply(&first).unwrap();
        let numbers = Arc::new(FileNumbers::new(1, 1));
        Tree {
            fs,
            set: VersionSet::new(Arc::new(opener), &state),
            output: OutputOptions {
                fs: shared,
                dir: dir.to_owned(),
                instance: 7,
                numbers: Arc::new(move || numbers.next()),
                table: TableOptions { block_bytes: 64, ..TableOptions::default() },
                file_bytes: 700,
                overlap_bytes_max: 4000,
            },
            picker: PickerOptions {
                l0_trigger: 3,
                l0_depth_max: 6,
                base_level_bytes: 3000,
                level_multiplier: 2,
                file_bytes: 700,
                compaction_bytes_max: 10_000,
                ..PickerOptions::default()
            },
            budget,
            history: Data::default(),
            seqno: 0,
            snapshots: vec![],
            busy: Busy::new(),
            running: vec![],
            rng: Rng::new(seed),
            _swept: swept,
        }
    }

    fn version(&self) -> Arc<Version> {
        Arc::clone(&self.set.family(FAMILY).unwrap().version)
    }

    fn rules(&self) -> Rules {
        Rules {
            snapshots: self.snapshots.clone(),
            below: Below::unknown(),
            operator: Some(Arc::new(Append)),
            filter: None,
        }
    }

    fn install(&mut self, edit: FamilyEdit) {
        let mut all = VersionEdit::default();
        *all.family(FAMILY) = edit;
        drop(self.set.install(&all));
        self.version().check().unwrap();
    }

    fn memtable(&mut self, ops: u64) -> Arc<MemTable> {
        let options = MemTableOptions { bytes_max: 1 << 20, keys_hint: 0 };
        let (mut writer, table) = MemTable::new(options, &Arc::default(), self.budget.reserve(0));
        for _ in 0..ops {
            self.seqno += 1;
            let (seqno, k) = (self.seqno, key(self.rng.below(KEYS)));
            let text = format!("({seqno})").into_bytes();
            let (kind, value) = match self.rng.below(12) {
                0..4 => (ValueKind::Put, text),
                4..6 => (ValueKind::Delete, vec![]),
                6..11 => (ValueKind::Merge, text),
                _ => (ValueKind::RangeDelete, key(self.rng.below(KEYS))),
            };
            writer.insert(InternalKey::new(&k, seqno, kind), &value, None);
            if kind == ValueKind::RangeDelete {
                self.history.tombstones.push(RangeTombstone { start: k, end: value, seqno });
            } else {
                self.history.points.push((k, seqno, kind, value));
            }
        }
        drop(table);
        writer.freeze()
    }

    fn flush(&mut self) {
        let tables: Vec<_> = (0..1 + self.rng.below(2))
            .map(|_| {
                let ops = self.rng.below(30);
                self.memtable(ops)
            })
            .collect();
        let parts = 1 + self.rng.below(3) as usize;
        let mut job = FlushJob::new(&tables, || self.rules(), &self.output, parts);
        if self.rng.below(2) == 0 {
            job.run_parts(5, &|count, work| (0..count).for_each(work)).unwrap();
        }
        loop {
            if let Progress::Done(edit) = job.step(1 + self.rng.below(9) as usize).unwrap() {
                assert!(edit.added.len() <= parts && edit.added.len() == job.created().len());
                return self.install(edit);
            }
        }
    }

    fn start(&mut self) -> bool {
        let oldest = self.snapshots.iter().copied().min().unwrap_or(SEQNO_MAX);
        let Some(plan) = pick(&self.version().levels, &self.picker, &self.busy, oldest, 0) else {
            return false;
        };
        if let Some(edit) = plan.moved() {
            self.install(edit);
            return true;
        }
        let claim = self.busy.claim(&plan);
        let parts = 1 + self.rng.below(3) as usize;
        let job = CompactionJob::new(plan, || self.rules(), &self.output, parts).unwrap();
        self.running.push((claim, job));
        true
    }

    fn step(&mut self) {
        let at = self.rng.below(self.running.len() as u64) as usize;
        let budget = 1 + self.rng.below(60) as usize;
        if self.rng.below(4) == 0 {
            // Some entries of some parts, or all of all.
            let left = AtomicUsize::new(self.rng.below(6) as usize);
            let less = |n: usize| n.checked_sub(1);
            let wanted = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
            let job = &mut self.running[at].1;
            job.run_parts(budget, &wanted, &|count, work| (0..count).for_each(work)).unwrap();
        }
        if let Progress::Done(edit) = self.running[at].1.step(budget).unwrap() {
            let (claim, job) = self.running.swap_remove(at);
            let range = &job.compaction().range;
            assert!(edit.added.iter().all(|(_, file)| range.covers(&file.bounds)));
            assert_eq!(edit.added.len(), job.created().len());
            self.install(edit);
            self.busy.release(claim);
        }
    }

    fn settle(&mut self) {
        while self.start() || !self.running.is_empty() {
            if !self.running.is_empty() {
                self.step();
            }
        }
    }

    fn get(&self, resolver: &mut Resolver, key: &[u8], at: SeqNo) -> Option<Vec<u8>> {
        resolver.reset(at);
        let mut value = None;
        let version = self.version();
        match version.get(key, at, resolver, &mut |v| value = Some(v.to_vec())).unwrap() {
            Step::Merge => Some(resolver.merged(key, Some(&Append)).unwrap().to_vec()),
            _ => value,
        }
    }

    /// Every reader finds what was written, and every file holds nothing outside its bounds.
    fn check(&self) {
        let mut resolver = Resolver::new();
        for at in self.snapshots.iter().copied().chain([SEQNO_MAX]) {
            for k in (0..KEYS).map(key) {
                let found = self.get(&mut resolver, &k, at);
                assert_eq!(found, self.history.read(&k, at), "key {k:?} at {at}");
            }
        }
        for (_, file) in self.version().files() {
            let bounds = &file.meta().bounds;
            let mut cursor = file.table().unwrap().iter(false);
            cursor.first().unwrap();
            while let Some((entry, _)) = cursor.entry() {
                assert!(bounds.contains(entry.user_key));
                cursor.next().unwrap();
            }
            let span = file.table().unwrap().range_tombstones().span();
            assert!(span.is_none_or(|span| bounds.covers(&span)));
        }
    }
}

quickcheck! {
    fn every_reader_finds_what_was_written(seed: u64) -> bool {
        let mut tree = Tree::new(seed);
        for _ in 0..60 {
            match tree.rng.below(9) {
                0..2 => tree.flush(),
                2 if tree.running.len() < 3 => {
                    tree.start();
                }
                3 => tree.snapshots.push(tree.seqno),
                4 if !tree.snapshots.is_empty() => {
                    let at = tree.rng.below(tree.snapshots.len() as u64) as usize;
                    tree.snapshots.swap_remove(at);
                }
                _ if !tree.running.is_empty() => tree.step(),
                _ => {}
            }
        }
        tree.check();
        tree.settle();
        tree.check();
        tree.snapshots.clear();
        tree.settle();
        tree.check();
        true
    }
}

#[test]
fn clipped_inputs_keep_to_their_bounds() {
    let mut tree = Tree::new(3);
    let mut file = |deletes: bool, keys: std::ops::Range<u64>, clip: (u64, u64)| {
        let options = MemTableOptions { bytes_max: 1 << 20, keys_hint: 0 };
        let (mut writer, _) = MemTable::new(options, &Arc::default(), tree.budget.reserve(0));
        for k in keys {
            tree.seqno += 1;
            writer.insert(InternalKey::new(&key(k), tree.seqno, ValueKind::Put), b"v", None);
        }
        if deletes {
            tree.seqno += 1;
            let range = InternalKey::new(b"", tree.seqno, ValueKind::RangeDelete);
            writer.insert(range, b"zzz", None);
        }
        let mut job = FlushJob::new(&[writer.freeze()], || tree.rules(), &tree.output, 1);
        let Progress::Done(mut edit) = job.step(usize::MAX).unwrap() else { panic!("not done") };
        let (_, meta) = edit.added.pop().unwrap();
        let bounds = KeyRange::new(key(clip.0), Some(key(clip.1)));
        edit.added.push((0, Arc::new(FileMeta { bounds, clipped: true, ..(*meta).clone() })));
        tree.install(edit);
    };
    // Two sources, one of which deleted everything, at a later number than all of the other.
    file(false, 0..30, (0, 10));
    file(true, 0..30, (10, 20));
    tree.picker.l0_trigger = 1;
    tree.settle();
    let mut resolver = Resolver::new();
    for k in 0..30 {
        let found = tree.get(&mut resolver, &key(k), SEQNO_MAX);
        assert_eq!(found.is_some(), k < 10, "key {k}");
    }
    let entries: u64 = tree.version().files().map(|(_, file)| file.meta().entries).sum();
    let dead = tree.version().files().any(|(_, f)| f.meta().clipped || f.meta().tombstones() > 0);
    assert!(entries == 10 && !dead);
}

#[test]
fn a_failed_or_dropped_job_says_which_files_it_made() {
    let mut tree = Tree::new(5);
    for _ in 0..3 {
        let tables = [tree.memtable(60)];
        let mut job = FlushJob::new(&tables, || tree.rules(), &tree.output, 1);
        let Progress::Done(edit) = job.step(usize::MAX).unwrap() else { panic!("not done") };
        tree.install(edit);
    }
    let before = tree.fs.list(Path::new("db")).unwrap().len();
    assert!(tree.start());
    let (claim, mut job) = tree.running.pop().unwrap();
    tree.fs.crash_after(Some(2));
    let failure = loop {
        match job.step(5) {
            Ok(Progress::More) => {}
            Ok(Progress::Done(_)) => panic!("it cannot be durable"),
            Err(error) => break error,
        }
    };
    assert!(!job.created().is_empty(), "{failure}");
    tree.fs.crash_after(None);
    for number in job.created() {
        let _ = tree.fs.remove(&Path::new("db").join(FileName::Table(number).to_string()));
    }
    drop(job);
    tree.busy.release(claim);
    assert_eq!(tree.fs.list(Path::new("db")).unwrap().len(), before);
    tree.check();
    tree.settle();
    tree.check();
}
