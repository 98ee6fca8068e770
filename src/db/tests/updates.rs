//! Updates of what was read before the memtable was rotated.

use super::*;

/// Who took the memtable before it was rotated, and looked up what is visible after, has not read what
/// the next memtable held by then: although nothing was written since.
#[test]
fn an_update_of_what_was_read_in_an_older_memtable_begins_again() {
    let fs = MemFs::new();
    let db = open(&fs, 1);
    let family = family(&db, "a");
    db.put(&family, b"key", b"old").unwrap();
    let before = family.0.cell.load();
    rotate(&db, &family);
    db.put(&family, b"key", b"new").unwrap();
    let at = db.core.visible();
    let now = family.0.cell.load();
    let mut state = db.core.stand_still().unwrap();
    assert!(!state.is_unchanged(family.id(), b"key", &before.mem, at));
    assert!(state.is_unchanged(family.id(), b"key", &now.mem, at));
}

/// The usual writer need not look below a memtable that knows nothing of a key: if there is nothing,
/// and only then.
#[test]
fn what_the_memtable_knows_nothing_of_is_absent_only_if_nothing_is_older() {
    let db = open(&MemFs::new(), 1);
    let family = family(&db, "a");
    let get = |key: &[u8]| db.get(&family, key).unwrap();
    let alone = || {
        let cell = &family.0.cell;
        assert_eq!(cell.is_memory_alone(), cell.load().has_nothing_older());
        cell.is_memory_alone()
    };
    fill(&db, &family); // the lock is biased now
    let absent = 1000u32.to_be_bytes();
    assert!(alone() && get(&absent).is_none() && get(&[0; 4]).is_some());
    rotate(&db, &family);
    assert!(!alone() && get(&absent).is_none() && get(&[0; 4]).is_some(), "in a frozen one");
    db.flush_all().unwrap();
    assert!(!alone() && get(&absent).is_none() && get(&[0; 4]).is_some(), "in a table");
    db.delete_range(&family, &[0; 4], &[1]).unwrap();
    assert_eq!(get(&[0; 4]), None, "deleted by a range");
    db.compact_range(&family, ..).unwrap();
    assert!(alone() && get(&[0; 4]).is_none(), "all tables are gone");
}
