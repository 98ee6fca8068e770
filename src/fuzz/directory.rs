//! Targets that are whole directories: a log of several segments, a database, a store, a good database
//! with patches, and a file set to be imported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::base::coding::Decoder;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::FileId;
use crate::base::key::KeyRange;
use crate::base::sync::{Arc, OnceLock};
use crate::batch::BatchReader;
use crate::cache::budget::MemoryBudget;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::{latest, load, restore, verify};
use crate::checkpoint::store::{CheckpointStore, DirStore};
use crate::db::Db;
use crate::db::file_set::{FileSet, SetFamily};
use crate::db::import::{ImportFamily, ImportSource};
use crate::db::options::{ColumnFamilyOptions, Env, Options};
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::fuzz::INPUT_BYTES_MAX;
use crate::fuzz::files::segment_number;
use crate::fuzz::parts::expected;
use crate::fuzz::{repair, seeds};
use crate::inspect;
use crate::inspect::ClosedDb;
use crate::log::{LogReader, SegmentFile};
use crate::version::meta::FileMeta;
use crate::version::names::FileName;

const DIR: &str = "db";
const FILES_MAX: usize = 32;

/// Puts a file into an archive.
pub(super) fn put_file(archive: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    archive.push(name.len() as u8);
    archive.extend_from_slice(name.as_bytes());
    archive.extend_from_slice(&(bytes.len() as u32).to_le_bytes()[..3]);
    archive.extend_from_slice(bytes);
}

/// The files of an archive, as far as it goes. Names have no parts but a last one.
fn files(mut archive: &[u8]) -> Vec<(String, &[u8])> {
    fn take<'a>(archive: &mut &'a [u8]) -> Option<(String, &'a [u8])> {
        let len = usize::from(*archive.split_off_first()?);
        let name = String::from_utf8_lossy(archive.split_off(..len)?).into_owned();
        let &[a, b, c] = archive.split_off(..3)? else { return None };
        let len = (u32::from_le_bytes([a, b, c, 0]) as usize).min(archive.len());
        Some((name, archive.split_off(..len)?))
    }
    let plain = |name: &String| !["", ".", ".."].contains(&&**name) && !name.contains(['\0', '/']);
    let all = std::iter::from_fn(|| take(&mut archive)).take(FILES_MAX);
    all.filter(|(name, _)| plain(name)).collect()
}

/// A file with its checksums made right, by the kind that its name says.
fn repaired(name: &str, bytes: &[u8]) -> Vec<u8> {
    match FileName::parse(name) {
        Some(FileName::Table(_)) => repair::table(bytes),
        Some(FileName::Log(_) | FileName::LogTemporary(_) | FileName::Manifest(_)) => {
            repair::segment(bytes)
        }
        Some(FileName::Current | FileName::CurrentTemporary(_)) => repair::current(bytes),
        None => bytes.to_vec(),
    }
}

fn env(fs: &Arc<dyn Fs>) -> Env {
    Env::simulated(Arc::clone(fs), MemoryBudget::new(8 << 20), 1)
}

/// What a hostile directory may be refused with.
fn refused(e: &Error) {
    let known = [
        ErrorKind::Corruption,
        ErrorKind::Unsupported,
        ErrorKind::Halted,
        ErrorKind::Incompatible,
        ErrorKind::NotFound,
        ErrorKind::InvalidArgument,
        ErrorKind::NoSpace, // of numbers that are used up
    ];
    assert!(known.contains(&e.kind()), "{e}");
}

/// F2, several segments: each part is a file, named by its header.
pub(super) fn segments(archive: &[u8]) {
    for repairs in [false, true] {
        let memory = MemFs::new();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let mut logs = BTreeMap::new();
        for (_, bytes) in files(archive) {
            let bytes = if repairs { repair::segment(bytes) } else { bytes.to_vec() };
            let number = segment_number(&bytes);
            let path = Path::new(DIR).join(FileName::Log(number).to_string());
            memory.write(&path, &bytes);
            logs.insert(number, SegmentFile { number, path, len: bytes.len() as u64 });
        }
        if logs.is_empty() {
            return;
        }
        let before = memory.fingerprint();
        match LogReader::open(&fs, FileKind::Log, logs.into_values().collect(), None) {
            Ok(mut log) => {
                let mut records = 0;
                while let Some((place, payload)) = log.next().expect("checked before") {
                    records += 1;
                    if let Ok(reader) = BatchReader::new(payload, place.offset) {
                        reader.ops().filter_map(Result::err).for_each(|e| expected(&e));
                    }
                }
                assert_eq!(records, log.records());
            }
            Err(e) => {
                assert!(e.path().is_some(), "{e}");
                expected(&e);
            }
        }
        assert_eq!(memory.fingerprint(), before, "reading changes nothing");
    }
}

/// A whole directory: looked at closed, file by file, and opened.
pub(super) fn directory(archive: &[u8]) {
    for repairs in [false, true] {
        let memory = MemFs::new();
        for (name, bytes) in files(archive) {
            let bytes = if repairs { repaired(&name, bytes) } else { bytes.to_vec() };
            if let Err(e) = inspect::inspect(&bytes, Some(&name)) {
                expected(&e);
            }
            memory.write(&Path::new(DIR).join(name), &bytes);
        }
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        if fs.create_dir(Path::new(DIR)).is_err() {
            return;
        }
        let before = memory.fingerprint();
        match ClosedDb::open(&fs, Path::new(DIR)) {
            Ok(closed) => {
                if let Err(e) = closed.families() {
                    refused(&e);
                }
                drop(closed.verify(&mut |_, _| {}));
            }
            Err(e) => refused(&e),
        }
        assert_eq!(memory.fingerprint(), before, "a look changes nothing");
        for log in [true, false] {
            let (memory, options) = (memory.fork(), Options { log, ..Options::default() });
            let fs: Arc<dyn Fs> = Arc::new(memory.clone());
            match Db::open(Path::new(DIR), options, env(&fs)) {
                Ok(db) => drop(contents(&db, repairs)),
                Err(e) => refused(&e),
            }
        }
    }
}

type Contents = Vec<(String, Vec<u8>, Vec<u8>)>;

/// All entries of all families, by a scan, which the other direction agrees with. Of bytes that were
/// `forged`, that is made up with right checksums, only an end is asked for, both ways: keys in a wrong
/// order are found by [`Db::verify`], not by every scan.
fn contents(db: &Db, forged: bool) -> Result<Contents> {
    let mut all = Contents::new();
    for name in db.column_families() {
        // Its operator may be one that nobody has: what it merged is then refused.
        let family = match db.column_family(&name, ColumnFamilyOptions::default()) {
            Ok(family) => family,
            Err(e) => {
                refused(&e);
                continue;
            }
        };
        let first = all.len();
        let mut scan = db.scan(&family, ..)?;
        while scan.next()? {
            all.push((name.clone(), scan.key().to_vec(), scan.value().to_vec()));
            assert!(all.len() <= INPUT_BYTES_MAX, "no end");
        }
        let mut backward = db.scan(&family, ..)?;
        let mut count = 0;
        let mut more = backward.last()?;
        while more {
            count += 1;
            assert!(count <= INPUT_BYTES_MAX, "no end");
            if !forged {
                let (_, key, value) = &all[all.len() - count];
                assert_eq!(backward.entry(), Some((&**key, &**value)), "both directions agree");
            }
            more = backward.prev()?;
        }
        assert!(forged || count == all.len() - first, "both directions agree");
    }
    Ok(all)
}

/// A good database, all that was ever written to it, and its tables as a file set.
struct Golden {
    disk: MemFs,
    written: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Where the file set lies.
    saved: MemFs,
    set: FileSet,
}

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let disk = seeds::database();
        let mut written = BTreeSet::new();
        seeds::written(|key, value| {
            written.insert((key.to_vec(), value.to_vec()));
        });
        let saved = disk.fork();
        let fs: Arc<dyn Fs> = Arc::new(saved.clone());
        let db = Db::open(Path::new(DIR), Options::default(), env(&fs)).expect("a good one");
        let set = db.checkpoint().and_then(|pending| pending.wait()).expect("a good one");
        Golden { disk, written, saved, set }
    })
}

/// Patches of five bytes: file, offset, a byte to put there, and bits: 1 makes all checksums right
/// afterwards, 2 cuts the file off there instead, 4 takes the place from the file's end.
pub(super) fn patch(bytes: &[u8]) {
    let golden = golden();
    let memory = golden.disk.fork();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let names: Vec<String> =
        fs.list(Path::new(DIR)).expect("it is there").into_iter().map(|file| file.name).collect();
    let mut forged = false;
    for [file, low, high, byte, how] in bytes.as_chunks().0.iter().take(64) {
        let name = &names[usize::from(*file) % names.len()];
        let path = Path::new(DIR).join(name);
        let mut content = memory.read(&path);
        if content.is_empty() {
            continue;
        }
        let at = usize::from(u16::from_le_bytes([*low, *high])) % content.len();
        let at = if how & 4 == 0 { at } else { content.len() - 1 - at };
        match how & 2 {
            0 => content[at] = *byte,
            _ => content.truncate(at),
        }
        if how & 1 == 1 {
            content = repaired(name, &content);
            forged = true;
        }
        memory.write(&path, &content);
    }
    match Db::open(Path::new(DIR), Options::default(), env(&fs)) {
        Ok(db) => match contents(&db, forged) {
            Ok(found) => {
                let known = |(_, key, value): &(String, Vec<u8>, Vec<u8>)| {
                    forged || golden.written.contains(&(key.clone(), value.clone()))
                };
                assert!(found.iter().all(known), "a value that was never written");
            }
            Err(e) => refused(&e),
        },
        Err(e) => refused(&e),
    }
}

/// A file set with other descriptions, levels and clips, imported. Each change takes four bytes: a
/// family, a table, what to change, and how.
pub(super) fn import(bytes: &[u8]) {
    let golden = golden();
    let set = &golden.set;
    let of = |family: &SetFamily| ImportFamily::of(set, family).expect("a good one");
    let mut source = ImportSource {
        seqno: set.seqno(),
        clip: KeyRange::all(),
        families: set.families().iter().map(of).collect(),
    };
    for [family, table, what, how] in bytes.as_chunks().0.iter().take(32) {
        let count = source.families.len();
        let family = &mut source.families[usize::from(*family) % count];
        if what % 16 == 0 {
            family.census.clear();
        } else if what % 16 == 1 {
            family.options.truncate(usize::from(*how));
        } else if what % 16 == 2 {
            source.clip = KeyRange::new(vec![0, *how], Some(vec![0, table % 8, *how]));
        } else if what % 16 == 3 {
            source.seqno = u64::from(*how);
        } else if !family.tables.is_empty() {
            let at = usize::from(*table) % family.tables.len();
            let mut chosen = family.tables[at].clone();
            let meta = FileMeta::decode(Decoder::new(&chosen.meta));
            if let (Ok(mut meta), true) = (meta, what % 16 < 14) {
                change(&mut meta, what % 16, *how);
                chosen.meta.clear();
                meta.encode_into(&mut chosen.meta);
            } else if !chosen.meta.is_empty() {
                let place = usize::from(*what) % chosen.meta.len();
                chosen.meta[place] ^= how;
            }
            if what % 16 == 13 {
                chosen.level = *how % 9;
            }
            match what % 16 {
                12 => family.tables.push(chosen),
                _ => family.tables[at] = chosen,
            }
        }
    }
    let fs: Arc<dyn Fs> = Arc::new(golden.saved.fork());
    match Db::import(Path::new("imported"), Options::default(), env(&fs), &[source]) {
        Ok(db) => match contents(&db, false) {
            Ok(found) => {
                let known = |(_, key, value): &(String, Vec<u8>, Vec<u8>)| {
                    golden.written.contains(&(key.clone(), value.clone()))
                };
                assert!(found.iter().all(known), "a value that was never written");
            }
            Err(e) => refused(&e),
        },
        Err(e) => refused(&e),
    }
}

fn change(meta: &mut FileMeta, what: u8, how: u8) {
    let how_many = u64::from(how);
    match what {
        4 => meta.len = how_many + 1,
        5 => meta.seqno_min = how_many,
        6 => meta.seqno_max = how_many,
        7 => meta.entries = how_many,
        8 => meta.range_deletes = how_many,
        9 => meta.bounds = KeyRange::new(vec![0, how], None::<Vec<u8>>),
        10 => meta.bounds = KeyRange::new(vec![0], Some(vec![0, how])),
        11 => meta.id = FileId::from_bytes([how; 16]),
        12 => meta.checksum = how.into(),
        _ => meta.digest = [how; 32],
    }
}

/// A store: envelopes, named `<n>`, and objects. Listed, read, restored, and taken charge of.
pub(super) fn store(archive: &[u8]) {
    for repairs in [false, true] {
        let memory = MemFs::new();
        for (name, bytes) in files(archive) {
            let is_envelope = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
            let bytes = match (repairs, is_envelope) {
                (true, true) => repair::envelope(bytes),
                (true, false) => repair::table(bytes),
                _ => bytes.to_vec(),
            };
            let path = match is_envelope {
                true => format!("store/checkpoints/chk-{name}"),
                false => format!("store/shared/{name}"),
            };
            memory.write(Path::new(&path), &bytes);
        }
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let store = Arc::new(DirStore::open(Arc::clone(&fs), "store").expect("a good disk"));
        let listed = store.list().expect("a good disk");
        if let Ok(Some(id)) = latest(&*store) {
            match load(&*store, id) {
                Ok(saved) => {
                    if let Err(e) = verify(&*store, &saved) {
                        refused(&e);
                    }
                    let options = Options { log: false, ..Options::default() };
                    let dir = Path::new("restored");
                    match restore(&*store, &saved, 0..=1, dir, options, env(&fs)) {
                        Ok(db) => drop(contents(&db, repairs)),
                        Err(e) => refused(&e),
                    }
                }
                Err(e) => refused(&e),
            }
        }
        assert_eq!(store.list().expect("a good disk"), listed, "reading changes nothing");
        match Registry::open(Arc::<DirStore>::clone(&store), 1) {
            Ok(registry) => {
                let left = store.list().expect("a good disk");
                assert!(registry.retained().len() <= 1 && left.len() <= listed.len());
            }
            Err(e) => {
                refused(&e);
                assert_eq!(store.list().expect("a good disk"), listed, "refused, and changed");
            }
        }
    }
}
