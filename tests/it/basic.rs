//! A walk through every call, on one small database.

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    ColumnFamilyOptions, Db, Env, ErrorKind, ImportFamily, ImportSource, KeyRange, ListAppend,
    MemFs, MemoryBudget, MergeOperator, Options, Result, Update, WriteBatch, WriteOptions,
};

/// Appends operands with a comma between them.
pub struct Comma;

impl MergeOperator for Comma {
    fn name(&self) -> &str {
        "test.comma"
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let parts: Vec<&[u8]> = base.into_iter().chain(operands.iter().copied()).collect();
        out.extend_from_slice(&parts.join(&b','));
        Ok(())
    }

    fn combine(&self, _key: &[u8], older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(older);
        out.push(b',');
        out.extend_from_slice(newer);
        true
    }
}

/// Small everything, so that little data makes many files.
pub fn small() -> ColumnFamilyOptions {
    ColumnFamilyOptions {
        memtable_bytes_max: 16 << 10,
        block_bytes: 256,
        l0_depth_trigger: 2,
        level_bytes_base: 32 << 10,
        file_bytes: 8 << 10,
        key_group_bytes: 2,
        merge_operator: Some(Arc::new(Comma)),
        ..ColumnFamilyOptions::default()
    }
}

fn env(fs: &MemFs, seed: u64) -> Env {
    Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), seed)
}

fn all(db: &Db, family: &alluvium::ColumnFamily) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut scan = db.scan(family, ..).unwrap();
    let mut forward = Vec::new();
    while scan.next().unwrap() {
        forward.push((scan.key().to_vec(), scan.value().to_vec()));
    }
    let mut backward = Vec::new();
    while scan.prev().unwrap() {
        backward.push((scan.key().to_vec(), scan.value().to_vec()));
    }
    backward.reverse();
    assert_eq!(forward, backward, "both directions see the same");
    forward
}

#[test]
fn a_database_from_creation_to_reopening() {
    for log in [true, false] {
        let fs = MemFs::new();
        let dir = Path::new("db");
        let options = Options { log, ..Options::default() };
        let db = Db::open(dir, options.clone(), env(&fs, 1)).unwrap();
        let a = db.column_family("a", small()).unwrap();
        let b = db.column_family("b", small()).unwrap();
        db.put(&a, b"k1", b"v1").unwrap();
        db.put(&a, b"k2", b"v2").unwrap();
        let snapshot = db.snapshot();
        db.delete(&a, b"k1").unwrap();
        db.merge(&a, b"k2", b"x").unwrap();
        db.merge(&a, b"k3", b"y").unwrap();
        db.merge(&a, b"k3", b"z").unwrap();
        let mut batch = WriteBatch::new();
        batch.put(&a, b"k4", b"4");
        batch.put(&b, b"other", b"family");
        db.write(&batch, WriteOptions { sync: log }).unwrap();
        let get = |key: &[u8]| db.get(&a, key).unwrap();
        assert_eq!(get(b"k1"), None);
        assert_eq!(get(b"k2").unwrap(), b"v2,x");
        assert_eq!(get(b"k3").unwrap(), b"y,z");
        assert_eq!(db.get_at(&a, &snapshot, b"k1").unwrap().unwrap(), b"v1");
        assert_eq!(db.get_at(&a, &snapshot, b"k3").unwrap(), None);
        db.flush_all().unwrap();
        assert_eq!(get(b"k2").unwrap(), b"v2,x");
        db.delete_range(&a, b"k2", b"k4").unwrap();
        assert_eq!(get(b"k2"), None);
        assert_eq!(get(b"k4").unwrap(), b"4");
        assert_eq!(db.get_at(&a, &snapshot, b"k2").unwrap().unwrap(), b"v2");
        db.update(&a, b"n", |old, out| {
            assert_eq!(old, None);
            out.push(1);
            Update::Put
        })
        .unwrap();
        db.update(&a, b"n", |old, out| {
            out.push(old.unwrap()[0] + 1);
            Update::Put
        })
        .unwrap();
        assert_eq!(get(b"n").unwrap(), [2]);
        let seen = all(&db, &a);
        assert_eq!(seen.len(), 2);
        drop(snapshot);
        db.compact_range(&a, ..).unwrap();
        assert_eq!(all(&db, &a), seen);
        db.verify().unwrap();
        let busy = Db::open(dir, options.clone(), env(&fs, 2)).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Busy);
        db.close().unwrap();
        let db = Db::open(dir, options.clone(), env(&fs, 2)).unwrap();
        let a = db.column_family("a", small()).unwrap();
        assert_eq!(all(&db, &a), seen);
        db.put(&a, b"late", b"1").unwrap();
        drop(db);
        let reopened = Db::open(dir, options, env(&fs, 3));
        match log {
            true => {
                let db = reopened.unwrap();
                let a = db.column_family("a", small()).unwrap();
                assert_eq!(db.get(&a, b"late").unwrap().unwrap(), b"1");
            }
            false => assert_eq!(reopened.unwrap_err().kind(), ErrorKind::Halted),
        }
    }
}

#[test]
fn many_keys_through_all_levels() {
    let fs = MemFs::new();
    let db = Db::open(Path::new("db"), Options::default(), env(&fs, 1)).unwrap();
    let a = db.column_family("a", small()).unwrap();
    let mut want = std::collections::BTreeMap::new();
    for i in 0u32..20_000 {
        let key = (i.wrapping_mul(2_654_435_761) % 5000).to_be_bytes();
        if i % 7 == 0 {
            db.delete(&a, &key).unwrap();
            want.remove(&key[..]);
        } else {
            db.put(&a, &key, &i.to_le_bytes()).unwrap();
            want.insert(key.to_vec(), i.to_le_bytes().to_vec());
        }
        if i % 64 == 0 {
            db.step(u64::from(i)).unwrap();
        }
    }
    let want: Vec<_> = want.into_iter().collect();
    assert_eq!(all(&db, &a), want);
    db.wait_idle().unwrap();
    assert_eq!(all(&db, &a), want);
    let stats = db.stats();
    assert!(stats.flushes > 3 && stats.compactions > 0, "{stats:?}");
    db.verify().unwrap();
    db.close().unwrap();
    let db = Db::open(Path::new("db"), Options::default(), env(&fs, 2)).unwrap();
    let a = db.column_family("a", small()).unwrap();
    assert_eq!(all(&db, &a), want);
}

#[test]
fn a_checkpoint_is_the_moment_it_was_taken_at_and_rescales() {
    let fs = MemFs::new();
    let options = Options { log: false, ..Options::default() };
    let db = Db::open(Path::new("db"), options.clone(), env(&fs, 1)).unwrap();
    let a = db.column_family("a", small()).unwrap();
    let key = |i: u16| [&(i % 128).to_be_bytes()[..], &i.to_be_bytes()].concat();
    for i in 0..3000u16 {
        db.put(&a, &key(i), b"before").unwrap();
    }
    let pending = db.checkpoint().unwrap();
    for i in 0..3000u16 {
        db.put(&a, &key(i), b"after").unwrap();
    }
    let second = db.checkpoint().unwrap();
    db.delete_range(&a, &key(0), &[0xff]).unwrap();
    let set = pending.wait().unwrap();
    let second = second.wait().unwrap();
    assert!(all(&db, &a).is_empty());
    for (name, set, value) in [("one", &set, b"before".as_slice()), ("two", &second, b"after")] {
        let family = &set.families()[0];
        let part = |first: u16, end: Option<u16>| ImportSource {
            seqno: set.seqno(),
            clip: KeyRange::new(first.to_be_bytes(), end.map(|end| end.to_be_bytes())),
            families: vec![ImportFamily::of(set, family).unwrap()],
        };
        let dir = Path::new(name).join("low");
        let low = Db::import(&dir, options.clone(), env(&fs, 5), &[part(0, Some(40))]).unwrap();
        let low_a = low.column_family("a", small()).unwrap();
        let keys = all(&low, &low_a);
        let wanted = (0..3000u16).filter(|i| i % 128 < 40).count();
        assert_eq!(keys.len(), wanted);
        assert!(keys.iter().all(|(_, v)| v == value));
        low.compact_range(&low_a, ..).unwrap();
        assert_eq!(all(&low, &low_a), keys);
        let dir = Path::new(name).join("both");
        let halves = [part(0, Some(64)), part(64, None)];
        let both = Db::import(&dir, options.clone(), env(&fs, 6), &halves).unwrap();
        let both_a = both.column_family("a", small()).unwrap();
        assert_eq!(all(&both, &both_a).len(), 3000);
        both.close().unwrap();
    }
}

/// One thread that is alone is the usual writer, and reads and writes by that right. What its closures
/// do meanwhile to the database counts, as if others did it.
#[test]
fn closures_of_an_update_may_use_the_database() {
    let dir = Path::new("update");
    let fs = Arc::new(MemFs::new());
    let options = Options { log: false, ..Options::default() };
    let db = Db::open(dir, options, env(&fs, 1)).unwrap();
    let a = db.column_family("a", small()).unwrap();
    for _ in 0..100 {
        db.put(&a, b"usual", b"writer").unwrap();
    }
    let number = |old: Option<&[u8]>| old.map_or(0, |old| old[0]);
    let count = |meddle: &dyn Fn(u8)| {
        let mut tries = 0;
        db.update(&a, b"n", |old, out| {
            meddle(tries);
            tries += 1;
            out.push(number(old) + 1);
            Update::Put
        })
        .unwrap();
        (tries, number(db.get(&a, b"n").unwrap().as_deref()))
    };
    assert_eq!(count(&|_| ()), (1, 1));
    assert_eq!(count(&|_| assert_eq!(db.get(&a, b"n").unwrap().unwrap(), [1])), (1, 2));
    // Others' keys do not matter, unless they take room.
    assert_eq!(count(&|_| db.put(&a, b"usual", b"again!").unwrap()), (1, 3));
    assert_eq!(count(&|tries| db.put(&a, &[b'o', tries], b"new").unwrap()).1, 4);
    // The key itself does, whatever is done to it.
    let once = |tries, meddle: &dyn Fn()| {
        if tries == 0 {
            meddle()
        }
    };
    assert_eq!(count(&|tries| once(tries, &|| db.put(&a, b"n", &[9]).unwrap())), (2, 10));
    assert_eq!(count(&|tries| once(tries, &|| db.delete(&a, b"n").unwrap())), (2, 1));
    assert_eq!(count(&|tries| once(tries, &|| db.delete_range(&a, b"n", b"o").unwrap())), (2, 1));
    assert_eq!(count(&|tries| once(tries, &|| db.flush_all().unwrap())), (2, 2));
    let snapshot = db.snapshot();
    assert_eq!(count(&|_| ()), (1, 3));
    assert_eq!(db.get_at(&a, &snapshot, b"n").unwrap().unwrap(), [2]);
    drop(snapshot);
    let other = count(&|tries| {
        once(tries, &|| {
            std::thread::scope(|scope| scope.spawn(|| db.put(&a, b"n", &[20]).unwrap()).join())
                .unwrap();
        });
    });
    assert_eq!(other, (2, 21));
}

/// A writer does what the database does, and nothing any more when that is closed.
#[test]
fn a_writer_writes_as_long_as_the_database_is_open() {
    for in_order in [true, false] {
        let fs = MemFs::new();
        let open = || Db::open(Path::new("db"), Options::default(), env(&fs, 5)).unwrap();
        let db = open();
        let family = db.column_family("f", small()).unwrap();
        let writer = db.writer(&family).unwrap();
        writer.put(b"a", b"1").unwrap();
        writer.clone().merge(b"a", b"2").unwrap();
        writer.put(b"b", b"3").unwrap();
        writer.delete(b"b").unwrap();
        let update = |old: Option<&[u8]>, new: &mut Vec<u8>| {
            new.extend_from_slice(old.unwrap_or(b"none"));
            new.push(b'!');
            Update::Put
        };
        writer.update(b"a", update).unwrap();
        writer.update(b"c", update).unwrap();
        let wrong = writer.put(b"", b"").map_err(|e| e.kind());
        assert_eq!(wrong, Err(ErrorKind::InvalidArgument));
        let want = [(&b"a"[..], &b"1,2!"[..]), (b"c", b"none!")];
        let want = want.map(|(key, value)| (key.to_vec(), value.to_vec()));
        assert_eq!(all(&db, &family), want);
        match in_order {
            true => db.close().unwrap(),
            false => drop(db),
        }
        for refused in [writer.put(b"d", b"4"), writer.delete(b"a"), writer.update(b"a", update)] {
            assert_eq!(refused.map_err(|e| e.kind()), Err(ErrorKind::Halted));
        }
        let db = open();
        let family = db.column_family("f", small()).unwrap();
        assert_eq!(all(&db, &family), want);
        let other = Db::open(Path::new("other"), Options::default(), env(&fs, 6)).unwrap();
        assert!(other.writer(&family).is_err(), "a family of another database");
        db.drop_column_family(&family).unwrap();
        let dropped = db.writer(&family).map(drop).map_err(|e| e.kind());
        assert_eq!(dropped, Err(ErrorKind::NotFound));
    }
}

/// Operands that are joined as they are written do not come back from under a range delete: not in
/// the memtable, not from the log, not in a table.
#[test]
fn a_range_delete_between_operands_that_are_joined() {
    let fs = MemFs::new();
    let open = |seed| {
        let db = Db::open(Path::new("db"), Options::default(), env(&fs, seed)).unwrap();
        let list = ColumnFamilyOptions { merge_operator: Some(Arc::new(ListAppend)), ..small() };
        let list = db.column_family("list", list).unwrap();
        (db, list)
    };
    let mut wanted = Vec::new();
    for life in 0..4u8 {
        let (db, list) = open(u64::from(life));
        for n in 0..30u8 {
            if n % 10 == 4 {
                db.delete_range(&list, b"a", b"z").unwrap();
                wanted.clear();
            }
            db.merge(&list, b"key", &[life, n]).unwrap();
            wanted.extend([life, n]);
            assert_eq!(db.get(&list, b"key").unwrap().as_ref(), Some(&wanted));
        }
        if life % 2 == 1 {
            db.flush_all().unwrap();
        }
        assert_eq!(all(&db, &list), [(b"key".to_vec(), wanted.clone())]);
    }
    let (db, list) = open(9);
    assert_eq!(db.get(&list, b"key").unwrap(), Some(wanted));
}
