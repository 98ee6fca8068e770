//! Calls that are refused: errors to which no power cut and no fault of the disk leads. A refusal
//! changes nothing.

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Db, DirStore, Env, ErrorKind, Fs, ImportFamily, ImportSource, KeyRange, MemFs, MemoryBudget,
    Options, Registry, WriteBatch, WriteOptions,
};

use crate::basic::small;

fn env(fs: &MemFs) -> Env {
    Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(64 << 20), 1)
}

fn open(fs: &MemFs, options: Options) -> alluvium::Result<Db> {
    Db::open(Path::new("db"), options, env(fs))
}

#[test]
fn options_that_cannot_work() {
    let fs = MemFs::new();
    for options in [
        Options { sync: true, log: false, ..Options::default() },
        Options { value_bytes_max: usize::MAX, ..Options::default() },
        Options { immutables_max: 0, ..Options::default() },
    ] {
        let before = fs.fingerprint();
        assert_eq!(open(&fs, options).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(fs.fingerprint(), before);
    }
    let db = open(&fs, Options { log: false, ..Options::default() }).unwrap();
    let family = db.column_family("a", small()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&family, b"key", b"value");
    let e = db.write(&batch, WriteOptions { sync: true }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
    assert_eq!(db.get(&family, b"key").unwrap(), None);
    let store = DirStore::open(Arc::new(fs), "store").unwrap();
    let none = Registry::open(Arc::new(store), 0);
    assert_eq!(none.err().unwrap().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn imports_that_contradict_themselves_or_what_is_there() {
    let fs = MemFs::new();
    let db = open(&fs, Options::default()).unwrap();
    let family = db.column_family("a", small()).unwrap();
    db.put(&family, b"key", b"value").unwrap();
    let set = db.checkpoint().and_then(|pending| pending.wait()).unwrap();
    let source = |start: &[u8], end: Option<&[u8]>| ImportSource {
        seqno: set.seqno(),
        clip: KeyRange::new(start, end),
        families: set.families().iter().map(|f| ImportFamily::of(&set, f).unwrap()).collect(),
    };
    let import = |dir: &str, sources: &[ImportSource]| {
        let imported = Db::import(Path::new(dir), Options::default(), env(&fs), sources);
        imported.map(drop).map_err(|e| e.kind())
    };
    let (low, high) = (source(b"", Some(b"m")), source(b"m", None));
    let overlapping = import("new", &[low.clone(), source(b"a", None)]);
    assert_eq!(overlapping, Err(ErrorKind::InvalidArgument));
    let mut without_operator = high.clone();
    without_operator.families[0].merge_operator = None;
    assert_eq!(import("new", &[low.clone(), without_operator]), Err(ErrorKind::Incompatible));
    let mut missing = low.clone();
    missing.families[0].tables[0].path = "nowhere".into();
    assert_eq!(import("new", &[missing]), Err(ErrorKind::Corruption));
    drop(db);
    assert_eq!(import("db", std::slice::from_ref(&low)), Err(ErrorKind::InvalidArgument));
    import("new", &[low, high]).unwrap();
}

#[test]
fn a_salvage_of_nothing() {
    let fs = MemFs::new();
    let salvage = |fs: &MemFs| {
        let saved = Db::salvage(Path::new("db"), Path::new("out"), None, env(fs));
        saved.map(drop).map_err(|e| e.kind())
    };
    fs.create_dir(Path::new("db")).unwrap();
    assert_eq!(salvage(&fs), Err(ErrorKind::NotFound));
    drop(open(&fs, Options::default()).unwrap());
    let files = fs.list(Path::new("db")).unwrap();
    let manifest = files.iter().find(|file| file.name.ends_with(".manifest")).unwrap();
    fs.remove(&Path::new("db").join(&manifest.name)).unwrap();
    assert_eq!(salvage(&fs), Err(ErrorKind::Corruption));
}
