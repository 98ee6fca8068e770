//! What is taken out of damaged databases: what can be proved, and no more. The byte-by-byte sweep is
//! in `tests/sweep`; here are the cases by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium::{
    ColumnFamily, ColumnFamilyOptions, Db, Env, ErrorKind, Fs, ListAppend, MemFs, MemoryBudget,
    Options, Result, Salvaged,
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn env(fs: &MemFs) -> Env {
    Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 21)
}

fn options() -> Options {
    Options { log_segment_bytes: 400, ..Options::default() }
}

fn family(db: &Db, name: &str) -> ColumnFamily {
    let options = ColumnFamilyOptions {
        block_bytes: 64,
        merge_operator: (name == "lists").then(|| Arc::new(ListAppend) as Arc<_>),
        ..ColumnFamilyOptions::default()
    };
    db.column_family(name, options).unwrap()
}

fn open(fs: &MemFs, dir: &str) -> Result<Db> {
    Db::open(Path::new(dir), options(), env(fs))
}

fn salvage(fs: &MemFs, upto: Option<u64>) -> Result<Salvaged> {
    Db::salvage(Path::new("db"), Path::new("out"), upto, env(fs))
}

fn read(fs: &MemFs, name: &str) -> Map {
    let db = open(fs, "out").unwrap();
    db.verify().unwrap();
    let family = family(&db, name);
    let mut scan = db.scan(&family, ..).unwrap();
    let mut found = Map::new();
    while scan.next().unwrap() {
        found.insert(scan.key().to_vec(), scan.value().to_vec());
    }
    found
}

fn names(fs: &MemFs, end: &str) -> Vec<PathBuf> {
    let listed = fs.list(Path::new("db")).unwrap().into_iter();
    let names = listed.filter(|file| file.name.ends_with(end));
    names.map(|file| Path::new("db").join(file.name)).collect()
}

fn key(i: u8) -> Vec<u8> {
    format!("key {i:02}").into_bytes()
}

/// Ten writes in a table, then ten in the log, which has several segments.
fn database() -> (MemFs, Map, Map) {
    let fs = MemFs::new();
    let db = open(&fs, "db").unwrap();
    let a = family(&db, "a");
    let (mut old, mut new) = (Map::new(), Map::new());
    for i in 0..10 {
        db.put(&a, &key(i), &[b'a'; 30]).unwrap();
        old.insert(key(i), vec![b'a'; 30]);
    }
    db.flush(&a).unwrap();
    new.extend(old.clone());
    for i in 5..15 {
        db.put(&a, &key(i), &[b'b'; 100]).unwrap();
        new.insert(key(i), vec![b'b'; 100]);
    }
    db.sync_wal().unwrap();
    assert!(names(&fs, ".log").len() >= 3);
    (fs, old, new)
}

#[test]
fn a_sound_database_is_taken_whole() {
    let (fs, _, new) = database();
    let before = fs.read(&names(&fs, ".log")[0]);
    let saved = salvage(&fs, None).unwrap();
    assert!(saved.doubts.is_empty() && saved.dropped.is_empty(), "{saved:?}");
    assert_eq!((saved.seqno, saved.tables), (20, 1));
    assert_eq!(read(&fs, "a"), new);
    assert_eq!(fs.read(&names(&fs, ".log")[0]), before);
    assert!(open(&fs, "db").is_ok());
}

#[test]
fn the_log_is_taken_up_to_a_gap_and_not_behind_it() {
    let (fs, old, new) = database();
    let logs = names(&fs, ".log");
    let gone = &logs[logs.len() - 2];
    fs.remove(gone).unwrap();
    assert_eq!(open(&fs, "db").map(drop).unwrap_err().kind(), ErrorKind::Corruption);
    let saved = salvage(&fs, None).unwrap();
    assert!(saved.doubts.is_empty(), "{saved:?}");
    assert_eq!(saved.dropped.len(), 1, "{saved:?}");
    assert_eq!(saved.dropped[0].path(), Some(&**gone));
    assert!((10..20).contains(&saved.seqno), "{saved:?}");
    let found = read(&fs, "a");
    for (i, (key, value)) in new.iter().enumerate().skip(5) {
        // Writes 11 to 20 were of keys 5 to 14.
        let there = 11 + (i as u64 - 5) <= saved.seqno;
        assert_eq!(found.get(key), if there { Some(value) } else { old.get(key) });
    }
}

#[test]
fn a_sequence_number_says_where_to_stop() {
    let (fs, old, new) = database();
    let saved = salvage(&fs, Some(13)).unwrap();
    assert!(saved.doubts.is_empty(), "{saved:?}");
    assert_eq!(saved.seqno, 13);
    let mut right = old.clone();
    right.extend((5..8).map(|i| (key(i), new[&key(i)].clone())));
    assert_eq!(read(&fs, "a"), right);

    // What a table holds beyond it may have taken the place of something.
    let (fs, _, _) = database();
    let saved = salvage(&fs, Some(4)).unwrap();
    assert_eq!(saved.doubts.len(), 1, "{saved:?}");
    assert_eq!(read(&fs, "a").len(), 4);
}

#[test]
fn a_lost_table_hides_what_is_older() {
    let fs = MemFs::new();
    let db = open(&fs, "db").unwrap();
    let a = family(&db, "a");
    for (i, value) in [b"old", b"new"].into_iter().enumerate() {
        db.put(&a, b"b", value).unwrap();
        db.put(&a, b"d", value).unwrap();
        db.put(&a, [b"a", b"z"][i], value).unwrap();
        db.flush(&a).unwrap();
    }
    db.put(&a, b"d", b"newest").unwrap();
    db.sync_wal().unwrap();
    drop((a, db));
    let newer = names(&fs, ".sst").pop().unwrap();
    fs.remove(&newer).unwrap();
    let saved = salvage(&fs, None).unwrap();
    assert_eq!(saved.lost.len(), 1);
    assert!(saved.lost[0].1.contains(b"b") && saved.lost[0].1.contains(b"z"), "{saved:?}");
    assert!(!saved.doubts.is_empty() && saved.dropped[0].path() == Some(&*newer), "{saved:?}");
    // `b` was "new"; "old" must not come back. `d` is in the log.
    let right = Map::from([(b"a".to_vec(), b"old".to_vec()), (b"d".to_vec(), b"newest".to_vec())]);
    assert_eq!(read(&fs, "a"), right);
}

#[test]
fn operands_without_what_they_stood_on_are_left_out() {
    let fs = MemFs::new();
    let db = open(&fs, "db").unwrap();
    let lists = family(&db, "lists");
    for key in [b"k", b"l"] {
        db.put(&lists, key, b"\x01a").unwrap();
    }
    db.flush(&lists).unwrap();
    db.merge(&lists, b"k", b"\x01b").unwrap();
    db.delete(&lists, b"l").unwrap();
    db.merge(&lists, b"l", b"\x01c").unwrap();
    db.merge(&lists, b"m", b"\x01d").unwrap();
    db.sync_wal().unwrap();
    drop((lists, db));
    fs.corrupt(&names(&fs, ".sst")[0], 5, 0x10);
    let saved = salvage(&fs, None).unwrap();
    assert!(saved.doubts.iter().any(|doubt| doubt.contains("1 merge operand")), "{saved:?}");
    let right = Map::from([(b"l".to_vec(), b"\x01c".to_vec()), (b"m".to_vec(), b"\x01d".to_vec())]);
    assert_eq!(read(&fs, "lists"), right);
}

#[test]
fn without_current_the_newest_manifest_counts() {
    let (fs, _, new) = database();
    fs.remove(Path::new("db/CURRENT")).unwrap();
    let saved = salvage(&fs, None).unwrap();
    assert_eq!(saved.dropped[0].path(), Some(Path::new("db/CURRENT")));
    assert_eq!(read(&fs, "a"), new);
}

#[test]
fn without_any_manifest_nothing_can_be_said() {
    let (fs, _, _) = database();
    let manifest = names(&fs, ".manifest").pop().unwrap();
    fs.corrupt(&manifest, 70, 0x01); // in the snapshot that it begins with
    let e = salvage(&fs, None).unwrap_err();
    assert_eq!((e.kind(), e.path()), (ErrorKind::Corruption, Some(&*manifest)), "{e}");
    assert!(fs.list(Path::new("out")).is_err(), "nothing was begun");
}

/// The edit that created it is lost, and nobody knows what the log's operations on it are for.
#[test]
fn operations_on_a_family_that_no_manifest_knows_are_left_out() {
    let fs = MemFs::new();
    let db = open(&fs, "db").unwrap();
    let a = family(&db, "a");
    db.put(&a, b"known", b"1").unwrap();
    let manifest = names(&fs, ".manifest").pop().unwrap();
    let whole = fs.read(&manifest).len();
    db.put(&family(&db, "b"), b"unknown", b"2").unwrap();
    db.put(&a, b"behind it", b"3").unwrap();
    db.sync_wal().unwrap();
    fs.corrupt(&manifest, whole as u64 + 40, 1);
    drop((a, db));
    assert_eq!(open(&fs, "db").map(drop).unwrap_err().kind(), ErrorKind::Corruption);
    let saved = salvage(&fs, None).unwrap();
    let paths: Vec<_> = saved.dropped.iter().filter_map(|e| e.path()).collect();
    assert_eq!(paths, [&*manifest, &*names(&fs, ".log")[0]], "{saved:?}");
    assert_eq!(saved.seqno, 1);
    assert_eq!(read(&fs, "a"), Map::from([(b"known".to_vec(), b"1".to_vec())]));
}

#[test]
fn families_at_different_points_are_no_state_that_was() {
    let fs = MemFs::new();
    let options = Options { log: false, ..Options::default() };
    let db = Db::open(Path::new("db"), options, env(&fs)).unwrap();
    let (a, b) = (family(&db, "a"), family(&db, "b"));
    db.put(&a, b"k", b"1").unwrap();
    db.put(&b, b"k", b"2").unwrap();
    db.flush(&b).unwrap();
    drop((a, b, db));
    assert_eq!(open(&fs, "db").map(drop).unwrap_err().kind(), ErrorKind::Halted);
    let saved = salvage(&fs, None).unwrap();
    assert_eq!(saved.doubts.len(), 1, "{saved:?}");
    assert_eq!(saved.seqno, 0);
    assert_eq!(read(&fs, "b").len(), 1);
}

#[test]
fn it_is_never_done_in_place() {
    let (fs, _, _) = database();
    let e = Db::salvage(Path::new("db"), Path::new("db"), None, env(&fs)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
    let open = open(&fs, "db").unwrap();
    assert_eq!(salvage(&fs, None).unwrap_err().kind(), ErrorKind::Busy);
    drop(open);
    salvage(&fs, None).unwrap();
    assert_eq!(salvage(&fs, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
