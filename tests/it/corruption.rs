//! The corruption sweep: every byte of every file of two small databases is changed in four ways,
//! every file is cut to every length, removed, emptied, swapped with another. Whatever happens, the
//! answer is exactly right, or an error that names a file; and a refused open changes no byte.
//!
//! `closed` was closed in order and has tables in level 0 and below; every change must be noticed, by
//! `verify` at the latest. `open` was stopped with the log on: what the log proves to have been synced
//! must be there or be refused, what lies behind may be cut off.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alluvium::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX};
use alluvium::{
    ColumnFamily, ColumnFamilyOptions, Db, Env, Error, ErrorKind, Fs, MemFs, MemoryBudget, Options,
    Result, WriteBatch, WriteOptions,
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn dir() -> &'static Path {
    Path::new("db")
}

fn family_options() -> ColumnFamilyOptions {
    ColumnFamilyOptions {
        block_bytes: 256,
        key_group_bytes: 2,
        l0_depth_trigger: 8,
        memtable_bytes_max: 16 << 10,
        ..ColumnFamilyOptions::default()
    }
}

fn open(fs: &MemFs, options: Options) -> Result<Db> {
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 3);
    Db::open(dir(), options, env)
}

/// Sees and checks everything: all keys by scans in both directions and by gets, every byte of every
/// table by `verify`.
fn read_all(fs: &MemFs) -> Result<Map> {
    let db = open(fs, Options { create_if_missing: false, ..Options::default() })?;
    let family = db.column_family("a", family_options())?;
    let mut scan = db.scan(&family, ..)?;
    let mut found = Map::new();
    while scan.next()? {
        found.insert(scan.key().to_vec(), scan.value().to_vec());
    }
    for (key, value) in found.iter().rev() {
        assert!(scan.prev()?, "backwards there are fewer");
        assert_eq!((scan.key(), scan.value()), (&**key, &**value));
    }
    assert!(!scan.prev()?, "backwards there are more");
    drop(scan);
    for (i, (key, value)) in found.iter().enumerate() {
        if i % 8 == 0 {
            assert_eq!(db.get(&family, key)?.as_ref(), Some(value), "a get, a scan");
        }
    }
    db.verify()?;
    Ok(found)
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(fs: &MemFs) -> Files {
    let listed = fs.list(dir()).unwrap().into_iter();
    listed.map(|file| dir().join(file.name)).map(|path| (path.clone(), fs.read(&path))).collect()
}

fn disk(files: &Files) -> MemFs {
    let fs = MemFs::new();
    files.iter().for_each(|(path, bytes)| fs.write(path, bytes));
    fs
}

/// Key `i` of 120, in 4 key groups.
fn key(i: u8) -> [u8; 4] {
    [0, i % 4, b'k', i]
}

/// A database with its tables in levels 0 and 1, and what is in it.
fn base(closed: bool) -> (MemFs, Db, ColumnFamily, Map) {
    let fs = MemFs::new();
    let db = open(&fs, Options { log_segment_bytes: 600, ..Options::default() }).unwrap();
    let family = db.column_family("a", family_options()).unwrap();
    let mut map = Map::new();
    let rounds = if closed { 3 } else { 1 };
    for round in 0..rounds {
        for i in (round..if closed { 100 } else { 20 }).step_by(1 + usize::from(round)) {
            let value = vec![b'a' + round; usize::from(i % 7) * 3];
            db.put(&family, &key(i), &value).unwrap();
            map.insert(key(i).to_vec(), value);
        }
        db.delete_range(&family, &[0, 1, b'k', 3], &[0, 1, b'k', 10]).unwrap();
        map.retain(|key, _| !(&[0, 1, b'k', 3][..]..&[0, 1, b'k', 10][..]).contains(&&**key));
        db.delete(&family, &key(50)).unwrap();
        map.remove(&key(50)[..]);
        if round == 0 {
            db.compact_range(&family, ..).unwrap();
        } else {
            db.flush(&family).unwrap();
        }
    }
    (fs, db, family, map)
}

/// Files of a database that was closed, and what is in it.
fn closed() -> (Files, Map) {
    let (fs, db, _, map) = base(true);
    let levels = db.stats().families[0].files;
    assert!(levels[0] > 0 && levels[1..].iter().any(|files| *files > 0), "{levels:?}");
    db.close().unwrap();
    let files = files(&fs);
    assert_eq!(read_all(&disk(&files)).unwrap(), map);
    (files, map)
}

/// Files of a database that was stopped with the log on, and every state since the last sync, which is
/// the first.
fn stopped() -> (Files, Vec<Map>) {
    let (fs, db, family, mut map) = base(false);
    let mut states = Vec::new();
    for i in 0..12u8 {
        let mut batch = WriteBatch::new();
        for j in [i, i + 100] {
            batch.put(&family, &key(j), &[i; 40]);
            map.insert(key(j).to_vec(), vec![i; 40]);
        }
        db.write(&batch, WriteOptions { sync: i == 3 || i == 8 }).unwrap();
        if i >= 8 {
            states.push(map.clone());
        }
    }
    let files = files(&fs); // as the process dies: all that was written is there
    drop(db);
    let logs = files.keys().filter(|path| path.extension().is_some_and(|e| e == "log")).count();
    assert!(logs > 1, "the log has one segment");
    assert_eq!(read_all(&disk(&files)).unwrap(), map);
    (files, states)
}

/// What became of the damaged images.
#[derive(Debug, Default)]
struct Census {
    images: usize,
    refused_to_open: usize,
    refused_to_read: usize,
    /// The answer was right, although a byte was not what had been written.
    right: usize,
    /// The first changed byte that made no difference, counted from the end of its file.
    right_from_end: Option<usize>,
    /// The log was cut off behind what was synced.
    cut: usize,
}

/// An error on damaged bytes says what to do, and where.
fn check_error(e: &Error) {
    let kind = e.kind();
    assert!(matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported), "{e}");
    assert!(e.path().is_some(), "names no file: {e}");
    assert!(e.offset().is_some() || kind == ErrorKind::Unsupported, "names no offset: {e}");
}

/// Judges one damaged directory. `states` are the right answers, the best one last.
fn judge(census: &mut Census, what: &dyn Fn() -> String, files: &Files, states: &[Map]) {
    census.images += 1;
    let fs = disk(files);
    let judged = catch_unwind(AssertUnwindSafe(|| match read_all(&fs) {
        Ok(found) => match states.iter().rposition(|state| *state == found) {
            Some(at) if at + 1 == states.len() => census.right += 1,
            Some(_) => census.cut += 1,
            None => panic!("a wrong answer: {} keys", found.len()),
        },
        Err(e) => {
            check_error(&e);
            // A refused open is one that has not begun a new epoch.
            if fs.ops() <= 1 {
                census.refused_to_open += 1;
                assert!(self::files(&fs) == *files, "a refused open changed the directory");
            } else {
                census.refused_to_read += 1;
            }
        }
    }));
    if judged.is_err() {
        panic!("{}", what());
    }
}

type Pattern = (&'static str, fn(u8) -> u8);

const PATTERNS: [Pattern; 4] =
    [("^0x01", |b| b ^ 0x01), ("^0x80", |b| b ^ 0x80), ("0x00", |_| 0), ("0xff", |_| 0xff)];

/// Changes every byte of every file that `wanted` names in four ways.
fn flip(files: &Files, states: &[Map], wanted: impl Fn(&Path) -> bool) -> Census {
    let mut census = Census::default();
    let mut image = files.clone();
    for path in files.keys().filter(|path| wanted(path)) {
        for at in 0..files[path].len() {
            let good = files[path][at];
            for (name, pattern) in PATTERNS {
                let bad = pattern(good);
                if bad == good {
                    continue;
                }
                image.get_mut(path).unwrap()[at] = bad;
                let what = || format!("{} byte {at}: {name}", path.display());
                let right = census.right;
                judge(&mut census, &what, &image, states);
                if census.right > right {
                    let from_end = Some(files[path].len() - at);
                    census.right_from_end = census.right_from_end.max(from_end);
                }
            }
            image.get_mut(path).unwrap()[at] = good;
        }
    }
    census
}

/// Cuts every file to every shorter length, and puts junk behind its end.
fn resize(files: &Files, states: &[Map]) -> Census {
    let mut census = Census::default();
    for (path, bytes) in files {
        let mut image = files.clone();
        for len in 0..bytes.len() {
            image.insert(path.clone(), bytes[..len].to_vec());
            judge(&mut census, &|| format!("{} cut to {len}", path.display()), &image, states);
        }
        for junk in [&b"\0"[..], &[0; 100], &[0xa5; 1], &[0xa5; 100], &bytes[..]] {
            image.insert(path.clone(), [bytes, junk].concat());
            let what = || format!("{} with {} bytes behind", path.display(), junk.len());
            judge(&mut census, &what, &image, states);
        }
    }
    census
}

/// Removes every file, and puts it in the place of every other.
fn misplace(files: &Files, states: &[Map]) -> Census {
    let mut census = Census::default();
    for (path, bytes) in files {
        let mut image = files.clone();
        image.remove(path);
        // A directory without CURRENT and data is one in which no database has been created; with
        // other files it is damaged.
        judge(&mut census, &|| format!("{} removed", path.display()), &image, states);
        for (other, others) in files.iter().filter(|(other, _)| *other != path) {
            let mut image = files.clone();
            image.insert(path.clone(), others.clone());
            let what = || format!("{} replaced by {}", path.display(), other.display());
            judge(&mut census, &what, &image, states);
            image.insert(other.clone(), bytes.clone());
            let what = || format!("{} and {} swapped", path.display(), other.display());
            judge(&mut census, &what, &image, states);
        }
    }
    census
}

fn is(extension: &'static str) -> impl Fn(&Path) -> bool {
    move |path| path.extension().map_or("CURRENT", |e| e.to_str().unwrap()) == extension
}

#[test]
fn every_changed_byte_of_a_table_is_noticed() {
    let (files, map) = closed();
    let census = flip(&files, &[map], is("sst"));
    println!("tables: {census:?}");
    assert_eq!(census.right, 0, "{census:?}");
}

#[test]
fn every_changed_byte_of_manifest_and_current_is_noticed_or_harmless() {
    let (files, map) = closed();
    for kind in ["manifest", "CURRENT"] {
        let census = flip(&files, std::slice::from_ref(&map), is(kind));
        println!("{kind}: {census:?}");
        assert_eq!(census.refused_to_read, 0, "{kind}: {census:?}");
        // The last seal says only that what stands before it is durable; without it that is there.
        assert!(census.right_from_end <= Some(32), "{kind}: {census:?}");
    }
}

#[test]
fn a_changed_byte_of_the_log_is_refused_or_cuts_what_was_not_synced() {
    let (files, states) = stopped();
    let census = flip(&files, &states, is("log"));
    println!("log: {census:?}");
    assert!(census.cut > 0 && census.refused_to_open > 0, "{census:?}");
}

#[test]
fn manifest_and_current_of_a_stopped_database() {
    let (files, states) = stopped();
    let last = &states[states.len() - 1..]; // the log is sound: everything is there
    let census = flip(&files, last, |path| !is("log")(path) && !is("sst")(path));
    println!("stopped: {census:?}");
    assert_eq!(census.cut, 0);
    assert!(census.right_from_end <= Some(32), "{census:?}"); // the manifest's last seal
}

#[test]
fn files_cut_short_lengthened_missing_or_exchanged() {
    let (files, map) = closed();
    let states = [map];
    println!("closed, resized: {:?}", resize(&files, &states));
    println!("closed, misplaced: {:?}", misplace(&files, &states));
    let (files, states) = stopped();
    println!("stopped, resized: {:?}", resize(&files, &states));
    println!("stopped, misplaced: {:?}", misplace(&files, &states));
}

#[test]
fn another_databases_files_are_refused() {
    let (files, map) = closed();
    let other = {
        let fs = MemFs::new();
        let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 99);
        let db = Db::open(dir(), Options::default(), env).unwrap();
        let family = db.column_family("a", family_options()).unwrap();
        for i in 0..90u8 {
            db.put(&family, &key(i), b"other").unwrap();
        }
        db.close().unwrap();
        self::files(&fs)
    };
    let mut census = Census::default();
    for path in files.keys() {
        for (from, bytes) in &other {
            let mut image = files.clone();
            image.insert(path.clone(), bytes.clone());
            let what = || format!("{} replaced by another's {}", path.display(), from.display());
            judge(&mut census, &what, &image, std::slice::from_ref(&map));
        }
    }
    println!("foreign: {census:?}");
}

/// A segment before which nothing was accepted, younger than all others: the log does not begin there.
#[test]
fn a_log_does_not_begin_behind_what_is_needed() {
    let (mut files, _) = stopped();
    let fs = MemFs::new();
    for _ in 0..9 {
        open(&fs, Options { log: false, ..Options::default() }).unwrap().close().unwrap();
    }
    let db = open(&fs, Options::default()).unwrap();
    let first = self::files(&fs).into_iter().find(|(path, _)| is("log")(path)).unwrap();
    drop(db);
    assert!(files.keys().all(|path| !is("log")(path) || *path < first.0));
    files.extend([first]);
    let fs = disk(&files);
    let e = read_all(&fs).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corruption, "{e}");
    assert!(e.to_string().contains("is missing"), "{e}");
    assert!(self::files(&fs) == files, "a refused open changed the directory");
}

#[test]
fn the_version_of_the_format_is_checked() {
    let (tables, (logs, _)) = (closed().0, stopped());
    // What was closed in order needs no log any more.
    let closed = tables.iter().filter(|(path, _)| !is("log")(path));
    let logs = logs.iter().filter(|(path, _)| is("log")(path)).map(|file| (file, &logs));
    for ((path, bytes), files) in closed.map(|file| (file, &tables)).chain(logs) {
        let at = if is("sst")(path) { bytes.len() - 16 } else { 0 };
        assert_eq!(bytes[at..][..4], *b"\x89ALV");
        let mut image = files.clone();
        image.get_mut(path).unwrap()[at + 10] = 7; // needs a reader of version 7
        let e = read_all(&disk(&image)).expect_err(&path.display().to_string());
        // The checksum of a segment's header is checked before what it says.
        let covered = is("log")(path) || is("manifest")(path);
        let want = if covered { ErrorKind::Corruption } else { ErrorKind::Unsupported };
        assert_eq!((e.kind(), e.path()), (want, Some(&**path)), "{e}");
    }
}

#[test]
fn a_directory_belongs_to_one_handle() {
    let fs = MemFs::new();
    let db = open(&fs, Options::default()).unwrap();
    let before = fs.ops();
    let e = open(&fs, Options::default()).map(drop).unwrap_err();
    assert_eq!((e.kind(), e.path()), (ErrorKind::Busy, Some(dir())), "{e}");
    assert!(fs.ops() <= before + 1, "it did more than ask for the directory");
    drop(db);
    open(&fs, Options::default()).unwrap();
}

#[test]
fn without_a_log_only_a_closed_directory_is_opened() {
    let fs = MemFs::new();
    let off = || Options { log: false, ..Options::default() };
    let db = open(&fs, off()).unwrap();
    let family = db.column_family("a", family_options()).unwrap();
    db.put(&family, b"key", b"value").unwrap();
    db.flush_all().unwrap();
    drop(db);
    let before = files(&fs);
    for options in [off(), Options::default()] {
        let e = open(&fs, options).map(drop).unwrap_err();
        assert_eq!((e.kind(), e.path()), (ErrorKind::Halted, Some(dir())), "{e}");
        assert!(files(&fs) == before, "a refused open changed the directory");
    }
}

#[test]
fn a_database_that_is_not_there_is_not_found() {
    let fs = MemFs::new();
    let options = Options { create_if_missing: false, ..Options::default() };
    for present in [false, true] {
        if present {
            fs.create_dir(dir()).unwrap();
        }
        let e = open(&fs, options.clone()).map(drop).unwrap_err();
        assert_eq!((e.kind(), e.path()), (ErrorKind::NotFound, Some(dir())), "{e}");
    }
}

#[test]
fn names_keys_and_values_have_limits() {
    let fs = MemFs::new();
    let db = open(&fs, Options { value_bytes_max: 1000, ..Options::default() }).unwrap();
    for name in [String::new(), "n".repeat(NAME_BYTES_MAX + 1)] {
        let e = db.column_family(&name, family_options()).map(drop).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
    }
    db.column_family(&"n".repeat(NAME_BYTES_MAX), family_options()).unwrap();
    let family = db.column_family("a", family_options()).unwrap();
    let (long, longest) = (vec![b'k'; KEY_BYTES_MAX + 1], vec![b'k'; KEY_BYTES_MAX]);
    let mut batches = vec![WriteBatch::new(); 4];
    batches[0].put(&family, b"", b"v");
    batches[1].delete(&family, &long);
    batches[2].put(&family, b"k", &[0; 1001]);
    batches[3].delete_range(&family, b"a", &long);
    let write = |batch| db.write(batch, WriteOptions::default()).map(drop);
    let refused = [
        db.put(&family, b"", b"v"),
        db.put(&family, &long, b"v"),
        db.put(&family, b"k", &[0; 1001]),
        db.delete(&family, b""),
        db.merge(&family, b"k", b"no operator"),
        db.delete_range(&family, b"a", &long),
        db.update(&family, b"", |_, _| alluvium::Update::Put),
        db.update(&family, b"k", |_, out| {
            out.resize(1001, 0);
            alluvium::Update::Put
        }),
        write(&batches[0]),
        write(&batches[1]),
        write(&batches[2]),
        write(&batches[3]),
    ];
    for (i, outcome) in refused.into_iter().enumerate() {
        let e = outcome.expect_err(&format!("call {i}"));
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "call {i}: {e}");
    }
    db.put(&family, &longest, &[0; 1000]).unwrap();
    assert_eq!(db.get(&family, &longest).unwrap().unwrap(), [0; 1000]);
    assert_eq!(db.get(&family, b"k").unwrap(), None, "a refused write is not there");
}

/// A table whose keys were changed to others behind its bounds, with checksums that are right.
#[test]
fn going_back_never_comes_to_a_greater_key_in_a_forged_table_either() {
    let fs = MemFs::new();
    let db = open(&fs, Options::default()).unwrap();
    let family = db.column_family("a", family_options()).unwrap();
    for key in [b"k1", b"m1"] {
        db.put(&family, key, b"v").unwrap();
    }
    db.close().unwrap();
    let is_table = |(path, _): &(PathBuf, Vec<u8>)| path.extension().is_some_and(|x| x == "sst");
    let (path, bytes) = files(&fs).into_iter().find(is_table).unwrap();
    let mut forged = bytes.clone();
    let first = |key: &[u8]| bytes.windows(2).position(|two| two == key).unwrap();
    let last = |key: &[u8]| bytes.windows(2).rposition(|two| two == key).unwrap();
    // The data comes first, then the properties, which stay as they are, and then the index.
    for (at, key) in [(first(b"k1"), b"x1"), (first(b"m1"), b"y1"), (last(b"m1"), b"y1")] {
        forged[at..at + 2].copy_from_slice(key);
    }
    fs.write(&path, &alluvium::fuzz::repair_table(&forged));
    let db = open(&fs, Options::default()).unwrap();
    let family = db.column_family("a", family_options()).unwrap();
    let mut scan = db.scan(&family, ..).unwrap();
    for (target, found) in [(b"z0", b"y1"), (b"y1", b"y1"), (b"y0", b"x1"), (b"x1", b"x1")] {
        assert!(scan.seek_for_prev(target).unwrap());
        assert_eq!(scan.key(), found);
    }
    assert!(!scan.seek_for_prev(b"x0").unwrap());
}
