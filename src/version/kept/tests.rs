use std::path::Path;

use super::*;
use crate::base::id::{FileId, FileNumber};
use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo, ValueKind};
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::iter::resolve::{Resolver, Step};
use crate::memtable::{MemTableOptions, ReadPins};
use crate::table::{TableBuilder, TableOptions};
use crate::version::edit::FamilyEdit;
use crate::version::file::TableOpener;
use crate::version::levels;
use crate::version::meta::FileMeta;
use crate::version::tests::{DIR, opener};
use crate::version::version::Version;

const ENTRIES: [(&[u8], SeqNo, ValueKind, &[u8]); 5] = [
    (b"a", 7, ValueKind::Put, b"new"),
    (b"a", 3, ValueKind::Put, b"old"),
    (b"b", 5, ValueKind::Delete, b""),
    (b"c", 6, ValueKind::Merge, b"operand"),
    (b"d", 4, ValueKind::Put, b"value"),
];

/// A frozen memtable, and a version with the file that a flush makes of it.
fn flushed(budget: &MemoryBudget, opener: &Arc<TableOpener>) -> (Arc<MemTable>, Version) {
    let pins: Arc<ReadPins> = Arc::default();
    let options = MemTableOptions { bytes_max: 1 << 20, keys_hint: 0 };
    let (signal, _requests) = crate::base::sync::bounded(1);
    let member = budget.join(0, signal);
    let (mut writer, memtable) = MemTable::new(options, &pins, member.reserve(0));
    let number = FileNumber::new(1, 2);
    let path = opener.path(number);
    let file = opener.fs.create(&path).unwrap();
    let table = TableOptions { key_group_bytes: 0, ..TableOptions::default() };
    let mut builder = TableBuilder::new(file, &path, FileId::new(4, number), table).unwrap();
    for (key, seqno, kind, value) in ENTRIES {
        builder.add(InternalKey::new(key, seqno, kind), value).unwrap();
    }
    let mut by_age = ENTRIES;
    by_age.sort_by_key(|entry| entry.1);
    for (key, seqno, kind, value) in by_age {
        writer.insert(InternalKey::new(key, seqno, kind), value, None);
    }
    writer.freeze();
    let meta = Arc::new(FileMeta::from_table(&builder.finish().unwrap(), number));
    let edit = FamilyEdit { added: vec![(0, meta)], ..FamilyEdit::default() };
    let make =
        |meta: &Arc<FileMeta>| Arc::new(TableFile::new(Arc::clone(meta), Arc::clone(opener)));
    (memtable, Version::new(levels::empty()).edited(&edit, make).unwrap().0)
}

struct World {
    opener: Arc<TableOpener>,
    budget: MemoryBudget,
    kept: Arc<KeptMemTables>,
    memtable: Arc<MemTable>,
    version: Version,
}

/// One flush, with a budget of 1 MiB.
fn world() -> World {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    fs.create_dir(Path::new(DIR)).unwrap();
    let (opener, _obsolete) = opener(&fs);
    let budget = MemoryBudget::new(1 << 20);
    let kept = KeptMemTables::new(&budget);
    let (memtable, version) = flushed(&budget, &opener);
    World { opener, budget, kept, memtable, version }
}

/// What all point reads at all sequence numbers find: the step, and the value or the operands.
fn answers(version: &Version) -> crate::base::error::Result<Vec<(Step, Vec<Vec<u8>>)>> {
    let reads = (2..9).chain([SEQNO_MAX]);
    let reads = reads.flat_map(|at| (b'a'..=b'e').map(move |key| ([key], at)));
    reads
        .map(|(key, at)| {
            let (mut resolver, mut found) = (Resolver::new(), Vec::new());
            resolver.reset(at);
            let step =
                version.get(&key, at, &mut resolver, &mut |value| found.push(value.to_vec()))?;
            found.extend(resolver.operands().map(|(_, operand)| operand.to_vec()));
            Ok((step, found))
        })
        .collect()
}

#[test]
fn a_kept_memtable_answers_for_its_file_until_the_memory_is_needed() {
    let World { opener, budget, kept, memtable, version } = world();
    let from_the_file = answers(&version).unwrap();

    let files: Vec<_> = version.levels[0].iter().collect();
    let bytes = memtable.bytes();
    assert!(budget.used() == bytes && budget.write_used() == bytes && bytes > 0);
    kept.keep(&memtable, &files);
    drop(memtable);
    assert_eq!((budget.used(), budget.write_used(), kept.bytes()), (bytes, 0, bytes));
    let lookups = || (opener.cache.stats().hits, opener.cache.stats().misses);
    let before = lookups();
    assert_eq!(answers(&version).unwrap(), from_the_file);
    assert_eq!(lookups(), before, "the file was not asked");

    let more = budget.reserve(1 << 20);
    assert!(files[0].memtable().is_none());
    assert_eq!((budget.used(), kept.bytes()), (more.bytes(), 0));
    assert_eq!(answers(&version).unwrap(), from_the_file);
    assert_ne!(lookups(), before);
}

#[test]
fn a_memtable_goes_with_its_file() {
    let World { budget, kept, memtable, version, .. } = world();
    kept.keep(&memtable, &version.levels[0].iter().collect::<Vec<_>>());
    drop(memtable);
    assert!(budget.used() > 0);
    drop(version);
    assert_eq!(budget.used(), 0);
    assert!(kept.reclaim_one() && !kept.reclaim_one());
}

#[test]
fn without_half_of_the_budget_none_is_kept() {
    let World { budget, kept, memtable, version, .. } = world();
    let _other = budget.reserve(1 << 19);
    kept.keep(&memtable, &version.levels[0].iter().collect::<Vec<_>>());
    assert!(version.levels[0][0].memtable().is_none() && kept.bytes() == 0);
    assert_eq!(budget.write_used(), memtable.bytes());
}
