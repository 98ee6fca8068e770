//! Calls that are refused: errors to which no power cut and no fault of the disk leads. A refusal
//! changes nothing.

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    ColumnFamilyOptions, Db, DirStore, Env, ErrorKind, Fs, ImportFamily, ImportSource, KeyRange,
    MemFs, MemoryBudget, MergeOperator, Options, Registry, Update, WriteBatch, WriteOptions,
};

use crate::basic::{Comma, small};

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
fn handles_that_are_of_no_use_here() {
    let [db, other] = [1, 2].map(|seed| {
        let env = Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(64 << 20), seed);
        Db::open(Path::new("db"), Options::default(), env).unwrap()
    });
    let gone = db.column_family("gone", small()).unwrap();
    db.drop_column_family(&gone).unwrap();
    let foreign = other.column_family("a", small()).unwrap();
    let own = db.column_family("a", small()).unwrap();
    for (family, kind) in [(&gone, ErrorKind::NotFound), (&foreign, ErrorKind::InvalidArgument)] {
        let key: &[u8] = b"key";
        let refused = [
            db.put(family, key, b"value"),
            db.merge(family, key, b"operand"),
            db.delete(family, key),
            db.delete_range(family, key, b"l"),
            db.update(family, key, |_, _| Update::Delete),
            db.get(family, key).map(drop),
            db.scan(family, ..).map(drop),
            db.reader(family).map(drop),
            db.writer(family).map(drop),
            db.flush(family),
            db.compact_range(family, ..),
            db.drop_expired(family),
            db.drop_column_family(family),
        ];
        for (call, refused) in refused.into_iter().enumerate() {
            assert_eq!(refused.map_err(|e| e.kind()), Err(kind), "call {call}");
        }
    }
    // A batch knows families by number.
    let mut batch = WriteBatch::new();
    batch.put(&own, b"key", b"value");
    batch.merge(&gone, b"key", b"operand");
    let refused = db.write(&batch, WriteOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
    assert_eq!(db.get(&own, b"key").unwrap(), None);
}

/// The same operator under another name.
struct Named(&'static str);

impl MergeOperator for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn merge(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> alluvium::Result<()> {
        Comma.merge(key, base, operands, out)
    }
}

#[test]
fn a_family_keeps_its_merge_operator() {
    let fs = MemFs::new();
    let with = |db: &Db, operator: Option<&'static str>| {
        let merge_operator = operator.map(|name| Arc::new(Named(name)) as Arc<_>);
        let options = ColumnFamilyOptions { merge_operator, ..small() };
        db.column_family("a", options).map_err(|e| e.kind())
    };
    let mut db = open(&fs, Options::default()).unwrap();
    with(&db, None).unwrap();
    let a = with(&db, Some("one")).unwrap(); // it had none
    db.merge(&a, b"key", b"x").unwrap();
    drop(a);
    for reopened in [false, true] {
        if reopened {
            db.close().unwrap();
            db = open(&fs, Options::default()).unwrap();
        }
        let before = fs.fingerprint();
        for other in [None, Some("two")] {
            assert_eq!(with(&db, other).map(drop), Err(ErrorKind::Incompatible), "{other:?}");
        }
        assert_eq!(fs.fingerprint(), before);
        let a = with(&db, Some("one")).unwrap();
        assert_eq!(db.get(&a, b"key").unwrap().unwrap(), b"x");
    }
}

#[test]
fn names_that_no_family_may_have() {
    let db = open(&MemFs::new(), Options::default()).unwrap();
    for name in ["", &"a".repeat(256)] {
        let refused = db.column_family(name, small()).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    }
    db.column_family(&"a".repeat(255), small()).unwrap();
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
    let used_up = ImportSource { seqno: 1 << 55, ..low.clone() };
    assert_eq!(import("new", &[used_up]), Err(ErrorKind::Unsupported));
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
