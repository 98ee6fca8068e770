//! A restore gives what was saved, or refuses: the census of each key group is compared.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Codec, ColumnFamilyOptions, Db, DirStore, Env, ErrorKind, FileSet, Fs, ImportFamily,
    ImportSource, JobCheckpoint, KeyRange, MemFs, MemoryBudget, Options, PartInput, Saved, fuzz,
    limits, restore_checkpoint, save_checkpoint,
};

const GROUPS: u16 = 16;

fn key(group: u16, n: u8) -> Vec<u8> {
    [&group.to_be_bytes()[..], &[n]].concat()
}

fn env(fs: &Arc<dyn Fs>, seed: u64) -> Env {
    Env::simulated(Arc::clone(fs), MemoryBudget::new(64 << 20), seed)
}

/// Two tables: one of all groups but the last, and one of groups 4 and 15.
fn set(fs: &Arc<dyn Fs>) -> (Db, FileSet) {
    let db = Db::open(Path::new("db"), Options::default(), env(fs, 1)).unwrap();
    let options = ColumnFamilyOptions {
        key_group_bytes: 2,
        codecs: [Codec::None; limits::LEVELS],
        ..ColumnFamilyOptions::default()
    };
    let family = db.column_family("a", options).unwrap();
    for group in 0..GROUPS - 1 {
        for n in 0..5 {
            db.put(&family, &key(group, n), b"old").unwrap();
        }
    }
    db.flush(&family).unwrap();
    for group in [4, 15] {
        db.put(&family, &key(group, 1), b"new").unwrap();
        db.delete(&family, &key(group, 2)).unwrap();
    }
    let set = db.checkpoint().unwrap().wait().unwrap();
    assert_eq!(set.tables().count(), 2);
    (db, set)
}

fn save(fs: &Arc<dyn Fs>, set: &FileSet) -> (DirStore, Saved) {
    let store = DirStore::open(Arc::clone(fs), "store").unwrap();
    let job = JobCheckpoint {
        id: 1,
        max_parallelism: u32::from(GROUPS),
        parts: vec![PartInput { first_group: 0, last_group: GROUPS - 1, set }],
        operator_state: Vec::new(),
        user: Vec::new(),
    };
    let saved = save_checkpoint(&store, &job, None).unwrap();
    (store, saved)
}

fn restore(
    (store, fs): (&DirStore, &Arc<dyn Fs>),
    saved: &Saved,
    groups: RangeInclusive<u16>,
) -> alluvium::Result<usize> {
    let dir = format!("to-{}-{}", groups.start(), groups.end());
    let (dir, env) = (Path::new(&dir), env(fs, 9));
    let db = restore_checkpoint(store, saved, groups, dir, Options::default(), env)?;
    let family = db.column_family("a", ColumnFamilyOptions::default()).unwrap();
    let mut scan = db.scan(&family, ..).unwrap();
    let mut keys = 0;
    while scan.next().unwrap() {
        keys += 1;
    }
    Ok(keys)
}

/// The name of the table's object that has entries of the last group.
fn object_of_the_last_group(saved: &Saved) -> (usize, String) {
    let tables = &saved.envelope.parts[0].families[0].tables;
    let newest = tables[0].object as usize; // in level 0, newest first
    (newest, saved.envelope.objects[newest].name.to_string())
}

#[test]
fn every_part_of_a_checkpoint_passes_its_census() {
    for linked in [true, false] {
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let (_db, set) = set(&fs);
        let (store, saved) = save(&fs, &set);
        let other: Arc<dyn Fs> = if linked { fs } else { Arc::new(MemFs::new()) };
        let mut keys = 0;
        for groups in [0..=3, 4..=4, 5..=14, 15..=15] {
            keys += restore((&store, &other), &saved, groups).unwrap();
        }
        assert_eq!(keys, restore((&store, &other), &saved, 0..=15).unwrap());
        assert_eq!(keys, 15 * 5 - 1 + 1);
    }
}

/// A table that is sound in itself but says something else of a key group than when it was saved.
#[test]
fn a_table_with_other_properties_is_refused() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let (_db, set) = set(&fs);
    let (store, mut saved) = save(&fs, &set);
    let (object, name) = object_of_the_last_group(&saved);
    let path = Path::new("store/shared").join(&name);
    let mut bytes = memory.read(&path);
    // Group 15 with two entries, and the first byte of their hash.
    let census = saved.envelope.parts[0].families[0].census.clone();
    let line = &census[census.len() - 10..];
    assert_eq!(line[..2], [15, 2]);
    let at = bytes.windows(line.len()).position(|window| window == line).expect("stored as it is");
    bytes[at + 2] ^= 1;
    let bytes = fuzz::repair_table(&bytes);
    memory.write(&path, &bytes);
    saved.envelope.objects[object].checksum = xxhash_rust::xxh3::xxh3_128(&bytes);
    for (groups, refused) in [(0..=3, false), (4..=14, false), (15..=15, true), (0..=15, true)] {
        match restore((&store, &fs), &saved, groups.clone()) {
            Ok(_) => assert!(!refused, "groups {groups:?} are restored"),
            Err(e) => {
                assert!(refused && e.kind() == ErrorKind::Corruption, "{e}");
                let text = e.to_string();
                assert!(text.contains("key group 15") && text.contains(&name), "{text}");
            }
        }
    }
}

/// An envelope that lacks one of its tables, as after a mistake in the arithmetic of clips.
#[test]
fn a_missing_table_is_noticed() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let (_db, set) = set(&fs);
    let (store, mut saved) = save(&fs, &set);
    let whole = saved.clone();
    saved.envelope.parts[0].families[0].tables.remove(0);
    let (_, other) = object_of_the_last_group(&saved);
    restore((&store, &fs), &saved, 5..=14).unwrap();
    for (groups, group) in [(0..=4, 4), (15..=15, 15)] {
        let e = restore((&store, &fs), &saved, groups).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corruption);
        let text = e.to_string();
        assert!(text.contains(&format!("key group {group} of family \"a\"")), "{text}");
        assert_eq!(text.contains(&other), group == 4, "the tables that are there: {text}");
    }
    // Nothing was made of it: the directory takes another attempt.
    restore((&store, &fs), &whole, 15..=15).unwrap();
}

/// A clip that cuts a group in two says nothing of that group; keys without a group belong to none.
#[test]
fn clips_between_the_keys_of_a_group_are_imported() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let (db, _) = set(&fs);
    let options = ColumnFamilyOptions { key_group_bytes: 2, ..ColumnFamilyOptions::default() };
    let family = db.column_family("a", options).unwrap();
    for short in [0u8, 3, 9] {
        db.put(&family, &[short], b"short").unwrap();
    }
    let set = db.checkpoint().unwrap().wait().unwrap();
    let mut keys = 0;
    for (i, (start, end)) in [(vec![], key(4, 2)), (key(4, 2), vec![7])].into_iter().enumerate() {
        let families = vec![ImportFamily::of(&set, &set.families()[0]).unwrap()];
        let clip = KeyRange::new(start, Some(end));
        let source = ImportSource { seqno: set.seqno(), clip, families };
        let dir = format!("half-{i}");
        let half = Db::import(Path::new(&dir), Options::default(), env(&fs, 3), &[source]).unwrap();
        let family = half.column_family("a", ColumnFamilyOptions::default()).unwrap();
        let mut scan = half.scan(&family, ..).unwrap();
        while scan.next().unwrap() {
            keys += 1;
        }
    }
    assert_eq!(keys, 15 * 5 + 2);
}
