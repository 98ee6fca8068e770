use std::path::Path;

use super::*;
use crate::base::error::ErrorKind;
use crate::base::sync::Arc;
use crate::batch::WriteBatch;
use crate::cache::budget::MemoryBudget;
use crate::checkpoint::format::Envelope;
use crate::db::Db;
use crate::db::options::ColumnFamilyOptions;
use crate::db::options::Env;
use crate::db::options::Options;
use crate::db::options::WriteOptions;
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use quickcheck::quickcheck;

const DIR: &str = "db";

/// A database with a table, a log and a manifest, all with something in them.
fn database(close: bool) -> MemFs {
    let disk = MemFs::new();
    let budget = MemoryBudget::new(16 << 20);
    let env = Env::simulated(Arc::new(disk.clone()), budget, 7);
    let db = Db::open(Path::new(DIR), Options::default(), env).unwrap();
    let options = ColumnFamilyOptions { block_bytes: 256, ..ColumnFamilyOptions::default() };
    let words = db.column_family("words", options).unwrap();
    for i in 0..50u32 {
        db.put(&words, format!("key {i:03}").as_bytes(), &i.to_le_bytes()).unwrap();
    }
    db.delete(&words, b"key 007").unwrap();
    db.delete_range(&words, b"key 040", b"key 045").unwrap();
    db.flush(&words).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(words.id(), b"in the log", b"\x00\"quoted\"");
    batch.delete(words.id(), b"key 001");
    db.write(&batch, WriteOptions { sync: true }).unwrap();
    db.sync_wal().unwrap();
    if close {
        db.close().unwrap();
    }
    disk
}

fn files(disk: &MemFs) -> Vec<(String, Vec<u8>)> {
    let listed = disk.list(Path::new(DIR)).unwrap();
    let read = |name: String| {
        let bytes = disk.read(&Path::new(DIR).join(&name));
        (name, bytes)
    };
    listed.into_iter().map(|listed| read(listed.name)).collect()
}

fn file(disk: &MemFs, end: &str) -> (String, Vec<u8>) {
    files(disk).into_iter().find(|(name, _)| name.ends_with(end)).unwrap()
}

fn envelope() -> Vec<u8> {
    let envelope = Envelope {
        checkpoint: 12,
        max_parallelism: 128,
        prefix_bytes: 2,
        user: b"position 99".to_vec(),
        objects: Vec::new(),
        parts: Vec::new(),
        operator_state: vec![("source".to_owned(), b"x".to_vec())],
    };
    envelope.encode().unwrap().0
}

fn has(report: &Report, text: &str) {
    assert!(report.to_string().contains(text), "no {text:?} in\n{report}");
}

#[test]
fn every_kind_of_file_is_told() {
    let disk = database(false);
    for (end, texts) in [
        (
            ".log",
            &["log segment 000001-", "put \"in the log\" in family", "\\x00\\\"quoted\\\"", "seal"]
                [..],
        ),
        (
            ".manifest",
            &["manifest 000001-", "snapshot", "family 0 \"words\" created", "level 0 gains"],
        ),
        ("CURRENT", &["manifest 000001-"]),
        (".sst", &["\"key 007\"", "delete range [\"key 040\" ..", "codec none"]),
    ] {
        let (name, bytes) = file(&disk, end);
        let report = inspect(&bytes, Some(&name)).unwrap();
        assert!(report.damage().is_empty(), "{report}");
        texts.iter().for_each(|text| has(&report, text));
        assert!(report.lines().count() > 1);
        assert_eq!(inspect(&bytes, None).unwrap().to_string(), report.to_string());
    }
    let report = inspect(&envelope(), None).unwrap();
    has(&report, "checkpoint 12");
    has(&report, "position 99");
}

#[test]
fn any_flipped_byte_or_cut_is_noticed_and_none_panics() {
    let disk = database(false);
    let mut all = files(&disk);
    all.push(("chk-12".to_owned(), envelope()));
    for (name, bytes) in all {
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 0x20;
            let (sound, place) = match inspect(&bad, Some(&name)) {
                Ok(report) => {
                    let torn = report.to_string().contains("torn tail");
                    (report.damage().is_empty() && !torn, report.damage().first().cloned())
                }
                Err(e) => (false, Some(e)),
            };
            assert!(!sound, "{name}: byte {i}");
            assert!(
                place.is_none_or(|e| e.path() == Some(Path::new(&name)) && e.offset().is_some())
            );
            let _ = inspect(&bytes[..i], Some(&name));
            let _ = inspect(&bytes[i..], None);
        }
    }
}

#[test]
fn foreign_files_are_refused() {
    for bytes in [&b""[..], b"a", b"%PDF-1.4 and so on, for a while"] {
        let e = inspect(bytes, Some("x.pdf")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corruption);
        assert_eq!((e.path(), e.offset()), (Some(Path::new("x.pdf")), Some(0)));
    }
}

#[test]
fn the_text_stays_in_proportion() {
    let mut report = Report::new(10, None);
    for _ in 0..10_000 {
        report.line(0, format_args!("sixteen letters."));
    }
    let text = report.finish().to_string();
    assert!(text.len() < 70_000 && text.ends_with("more lines, not shown\n"));
}

quickcheck! {
    fn no_bytes_panic(bytes: Vec<u8>, kind: u8, cut: usize) -> bool {
        let kind = FileKind::ALL[usize::from(kind) % FileKind::ALL.len()];
        let mut file = Vec::new();
        crate::base::format::put_preamble(&mut file, kind);
        if kind == FileKind::Table {
            file.splice(0..0, bytes);
        } else {
            file.extend(bytes);
        }
        let _ = inspect(&file[..cut % (file.len() + 1)], None);
        let _ = inspect(&file, None);
        true
    }
}

fn closed(disk: &MemFs) -> crate::base::error::Result<ClosedDb> {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    ClosedDb::open(&fs, Path::new(DIR))
}

#[test]
fn a_closed_database_is_told_and_left_as_it_is() {
    for close in [false, true] {
        let disk = database(close);
        let before = files(&disk);
        let db = closed(&disk).unwrap();
        assert_eq!(closed(&disk).map(drop).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!((db.log(), db.closed_at()), (true, close.then_some(0)));
        let families = db.families().unwrap();
        assert_eq!(families.len(), 1);
        assert_eq!((families[0].name.as_str(), families[0].options.block_bytes), ("words", 256));
        let text = db.to_string();
        assert!(text.contains("level 0: ") && text.contains("family 0 \"words\""), "{text}");
        let mut last = (0, 0);
        let verified = db.verify(&mut |done, total| last = (done, total));
        assert_eq!(verified.damage.len(), 0, "{:?}", verified.damage);
        assert!(verified.tables > 0 && last == (verified.bytes, verified.bytes));
        drop(db);
        assert_eq!(files(&disk), before);
    }
    assert_eq!(closed(&MemFs::new()).map(drop).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn verify_names_every_damaged_file() {
    for close in [false, true] {
        let (names, lens): (Vec<_>, Vec<_>) =
            files(&database(close)).into_iter().map(|(name, bytes)| (name, bytes.len())).unzip();
        for (name, len) in names.iter().zip(lens) {
            for at in (0..len).step_by(if name.ends_with(".sst") { 37 } else { 5 }) {
                let disk = database(close);
                let path = Path::new(DIR).join(name);
                disk.corrupt(&path, at as u64, 0x10);
                let damage = match closed(&disk) {
                    Ok(db) => db.verify(&mut |_, _| ()).damage,
                    Err(e) => vec![e],
                };
                let named = damage.iter().any(|e| e.path() == Some(&path) && e.offset().is_some());
                // Behind the last sync a log ends where it is damaged.
                let unproved = name.ends_with(".log") || name.ends_with(".manifest");
                assert!(named || (unproved && damage.is_empty()), "{name} @ {at}: {damage:?}");
            }
        }
    }
}
