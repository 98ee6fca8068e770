//! The families that a manifest tells of: how many there may be, and edits that contradict them.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::format::FileKind;
use crate::base::id::{FamilyId, FileId, FileNumber};
use crate::base::limits::FAMILIES_MAX;
use crate::log::{LogPosition, LogWriter};
use crate::version::current;
use crate::version::edit::{FamilyRecord, VersionEdit};
use crate::version::manifest::{Recovered, recover};
use crate::version::names::FileName;

#[test]
fn there_are_so_many_families_and_no_more() {
    let db = open(&MemFs::new(), 1);
    let a = family(&db, "a");
    let created = (1..FAMILIES_MAX as u32).map(|id| FamilyRecord {
        id: FamilyId(id),
        name: id.to_string(),
        merge_operator: None,
        compaction_filter: None,
        options: a.0.options().encode(),
        flushed_seqno: 0,
    });
    let mut edit = VersionEdit { created: created.collect(), ..VersionEdit::default() };
    db.core.apply(&mut edit, |_| {}).unwrap();
    let create = |name: &str| db.column_family(name, ColumnFamilyOptions::default()).map(drop);
    assert_eq!(create("more").unwrap_err().kind(), ErrorKind::InvalidArgument);
    create("a").unwrap();
    db.drop_column_family(&a).unwrap();
    create("more").unwrap();
}

/// An edit that a build with other ideas, or somebody with a calculator, has written.
#[test]
fn a_salvage_leaves_out_edits_that_contradict_themselves() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    db.put(&family(&db, "a"), b"key", b"value").unwrap();
    db.close().unwrap();
    let (shared, dir): (Arc<dyn Fs>, _) = (Arc::new(fs.clone()), Path::new("db"));
    let Recovered { state, .. } = recover(&shared, dir, shared.list(dir).unwrap()).unwrap();
    let number = FileNumber::new(state.header.epoch, 1000);
    let path = dir.join(FileName::Manifest(number).to_string());
    let (id, kind) = (FileId::new(1, number), FileKind::Manifest);
    let synced = LogPosition::new(number, 0);
    let mut log = LogWriter::begin(&shared, &path, kind, id, number, None, synced).unwrap();
    for edit in state.snapshot_edits() {
        log.append(&edit.encode()).unwrap();
    }
    let place = log.position().offset;
    let forged = VersionEdit { dropped: vec![FamilyId(7)], ..VersionEdit::default() };
    log.append(&forged.encode()).unwrap();
    log.sync().unwrap();
    fs.write(&dir.join("CURRENT"), &current::encode(number));
    let env = || Env::simulated(Arc::clone(&shared), MemoryBudget::new(64 << 20), 1);
    let refused = Db::open(dir, Options::default(), env()).map(drop).unwrap_err();
    let saved = Db::salvage(dir, Path::new("out"), None, env()).unwrap();
    for e in [&refused, &saved.dropped[0]] {
        assert_eq!((e.kind(), e.path()), (ErrorKind::Corruption, Some(&*path)), "{e}");
        assert_eq!(e.offset(), Some(place), "{e}");
    }
    let db = Db::open(Path::new("out"), Options::default(), env()).unwrap();
    assert_eq!(db.get(&family(&db, "a"), b"key").unwrap().unwrap(), b"value");
}
