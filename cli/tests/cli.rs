//! The binary as people meet it: what it prints, and what it says when something is wrong.
#![allow(clippy::disallowed_methods, reason = "makes, damages and removes files")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use alluvium::ColumnFamilyOptions;
use alluvium::Db;
use alluvium::DirStore;
use alluvium::DiskFs;
use alluvium::Env;
use alluvium::JobCheckpoint;
use alluvium::ListAppend;
use alluvium::MemoryBudget;
use alluvium::MergeOperator;
use alluvium::Options;
use alluvium::PartInput;
use alluvium::save_checkpoint;

/// A directory of its own for each test.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("alluvium-cli-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Temp(path)
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the tool: exit code, standard output, standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_alluvium")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs what must succeed and say nothing on standard error.
fn ok(args: &[&str]) -> String {
    let (code, out, err) = run(args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    out
}

/// Runs what must fail and name all of these on standard error.
fn fails(args: &[&str], names: &[&str]) -> String {
    let (code, out, err) = run(args);
    assert_eq!(code, 1, "{args:?}: {out}{err}");
    for name in names {
        assert!(err.contains(name), "no {name:?} in {err:?} of {args:?}");
    }
    out
}

fn env() -> Env {
    Env::new(MemoryBudget::new(64 << 20))
}

fn files(dir: &str, end: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().ends_with(end));
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn all_bytes(dir: &str) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir, "").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn keys_come_and_go() {
    let temp = Temp::new();
    let db = &temp.at("db");
    ok(&["put", db, "words", "sediment", "one"]);
    ok(&["put", db, "words", "silt", "0x00ff"]);
    ok(&["put", db, "words", "0x73616e64", "größe"]);
    ok(&["put", db, "numbers", "1", "eins"]);
    assert_eq!(ok(&["get", db, "words", "sediment"]), "one\n");
    assert_eq!(ok(&["get", db, "words", "silt"]), "0x00ff\n");
    assert_eq!(ok(&["get", db, "words", "sediment", "--hex"]), "0x6f6e65\n");
    assert_eq!(ok(&["scan", db, "words"]), "sand\tgröße\nsediment\tone\nsilt\t0x00ff\n");
    assert_eq!(ok(&["scan", db, "words", "--prefix", "si"]), "silt\t0x00ff\n");
    assert_eq!(ok(&["scan", db, "words", "--from", "sb", "--to", "silt"]), "sediment\tone\n");
    let reverse = ok(&["scan", db, "words", "--reverse", "--limit", "2"]);
    assert_eq!(reverse, "silt\t0x00ff\nsediment\tone\n");
    ok(&["delete", db, "words", "silt"]);
    fails(&["get", db, "words", "silt"], &["NotFound", "no key silt", db]);
    fails(&["get", db, "rocks", "x"], &["NotFound", "rocks", "words", "numbers"]);
    let stats = ok(&["stats", db]);
    assert!(stats.contains("log on, closed in order") && stats.contains("\"numbers\""), "{stats}");
    assert!(ok(&["verify", db]).starts_with("verified: "));
}

#[test]
fn looking_changes_nothing() {
    let temp = Temp::new();
    let db = &temp.at("db");
    ok(&["put", db, "words", "a", "1"]);
    let before = all_bytes(db);
    for path in files(db, "") {
        ok(&["inspect", path.to_str().unwrap()]);
    }
    ok(&["stats", db]);
    ok(&["verify", db]);
    assert_eq!(all_bytes(db), before);
}

#[test]
fn options_checkpoint_and_log_mode_stay_as_they_were() {
    let temp = Temp::new();
    let db = &temp.at("db");
    let options = || Options { log: false, ..Options::default() };
    let mine = ColumnFamilyOptions {
        block_bytes: 512,
        merge_operator: Some(Arc::new(ListAppend)),
        ..ColumnFamilyOptions::default()
    };
    let open = Db::open(Path::new(db), options(), env()).unwrap();
    let lists = open.column_family("lists", mine).unwrap();
    open.merge(&lists, b"k", b"\x01a").unwrap();
    open.merge(&lists, b"k", b"\x01b").unwrap();
    drop(lists);
    open.close_at(42).unwrap();
    let recorded = |text: &str| ok(&["stats", db]).contains(text);
    assert!(recorded("log off, closed in order") && recorded("checkpoint 42"));
    assert_eq!(ok(&["get", db, "lists", "k"]), "0x01610162\n");
    assert_eq!(ok(&["scan", db, "lists"]), "k\t0x01610162\n");
    assert!(recorded("log off, closed in order") && recorded("checkpoint 42"));
    let closed = |db: &str| {
        let fs: Arc<dyn alluvium::Fs> = Arc::new(DiskFs::new());
        alluvium::inspect::ClosedDb::open(&fs, Path::new(db)).unwrap()
    };
    assert_eq!(closed(db).families().unwrap()[0].options.block_bytes, 512);
    ok(&["put", db, "lists", "l", "0x0163"]);
    assert_eq!(closed(db).closed_at(), Some(0), "the state is no longer that of the checkpoint");
    assert_eq!(closed(db).families().unwrap()[0].options.block_bytes, 512);
}

struct Foreign;

impl MergeOperator for Foreign {
    fn name(&self) -> &str {
        "somebody.else"
    }

    fn merge(
        &self,
        _key: &[u8],
        _base: Option<&[u8]>,
        _operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> alluvium::Result<()> {
        out.extend_from_slice(b"merged");
        Ok(())
    }
}

#[test]
fn operands_of_an_unknown_operator_are_told_and_kept() {
    let temp = Temp::new();
    let db = &temp.at("db");
    let options = || ColumnFamilyOptions {
        merge_operator: Some(Arc::new(Foreign)),
        ..ColumnFamilyOptions::default()
    };
    let open = Db::open(Path::new(db), Options::default(), env()).unwrap();
    let family = open.column_family("f", options()).unwrap();
    open.put(&family, b"plain", b"value").unwrap();
    open.merge(&family, b"plain2", b"operand").unwrap();
    open.sync_wal().unwrap();
    drop((family, open)); // not closed: the tool replays the log and flushes
    assert_eq!(ok(&["get", db, "f", "plain"]), "value\n");
    fails(&["get", db, "f", "plain2"], &["Incompatible", "somebody.else", "plain2"]);
    let open = Db::open(Path::new(db), Options::default(), env()).unwrap();
    let family = open.column_family("f", options()).unwrap();
    assert_eq!(open.get(&family, b"plain2").unwrap().as_deref(), Some(&b"merged"[..]));
}

#[test]
fn nothing_is_created_by_looking() {
    let temp = Temp::new();
    let missing = &temp.at("missing");
    for args in [
        &["get", missing, "f", "k"][..],
        &["scan", missing, "f"],
        &["delete", missing, "f", "k"],
        &["verify", missing],
        &["stats", missing],
        &["inspect", missing],
        &["checkpoint", "list", missing],
        &["checkpoint", "show", missing, "1"],
        &["checkpoint", "verify", missing],
    ] {
        fails(args, &["NotFound", missing]);
        assert!(!Path::new(missing).exists(), "{args:?}");
    }
    let empty = &temp.at("empty");
    fs::create_dir(empty).unwrap();
    for command in ["stats", "verify"] {
        fails(&[command, empty], &["NotFound", "no database", empty]);
    }
    fails(&["get", empty, "f", "k"], &["NotFound", "no database", empty]);
    fails(&["checkpoint", "list", empty], &["NotFound", "no checkpoint store", empty]);
    assert!(files(empty, "").is_empty());
}

#[test]
fn mistakes_in_the_command_are_usage() {
    for args in [
        &[][..],
        &["get"],
        &["frobnicate"],
        &["put", "d", "f", "0x0", "v"],
        &["scan", "d", "f", "--prefix", "a", "--from", "b"],
        &["checkpoint", "show", "s", "not-a-number"],
    ] {
        assert_eq!(run(args).0, 2, "{args:?}");
    }
    let temp = Temp::new();
    let db = &temp.at("db");
    ok(&["put", db, "f", "k", "v"]);
    fails(&["put", db, "f", "", "v"], &["InvalidArgument", "empty key"]);
    fails(&["put", db, "", "k", "v"], &["InvalidArgument", "family name"]);
    fails(&["put", db, &"f".repeat(256), "k", "v"], &["InvalidArgument", "family name"]);
    fails(&["put", db, "f", &"k".repeat((64 << 10) + 1), "v"], &["InvalidArgument", "key of"]);
    assert_eq!(ok(&["get", db, "f", "k"]), "v\n");
}

#[test]
fn a_locked_directory_is_busy() {
    let temp = Temp::new();
    let db = &temp.at("db");
    let open = Db::open(Path::new(db), Options::default(), env()).unwrap();
    for args in
        [&["put", db, "f", "k", "v"][..], &["get", db, "f", "k"], &["stats", db], &["verify", db]]
    {
        fails(args, &["Busy", "locked by another process", db]);
    }
    drop(open);
    ok(&["put", db, "f", "k", "v"]);
}

#[test]
fn a_log_that_is_off_needs_an_orderly_close() {
    let temp = Temp::new();
    let db = &temp.at("db");
    let options = Options { log: false, ..Options::default() };
    let open = Db::open(Path::new(db), options, env()).unwrap();
    open.column_family("f", ColumnFamilyOptions::default()).unwrap();
    drop(open);
    fails(&["get", db, "f", "k"], &["Halted", "restore a checkpoint", db]);
    assert!(ok(&["stats", db]).contains("restore a checkpoint"));
}

#[test]
fn damage_is_named() {
    let temp = Temp::new();
    let db = &temp.at("db");
    for i in 0..3 {
        ok(&["put", db, "f", &format!("key {i}"), "a value of some length"]);
    }
    let tables = files(db, ".sst");
    assert!(tables.len() >= 2, "{tables:?}");
    let names: Vec<_> = tables.iter().map(|path| path.to_str().unwrap()).collect();
    flip(&tables[0], 5);
    let out = fails(&["verify", db], &["Corruption", names[0], "family \"f\"", "@ 0"]);
    assert!(out.starts_with("damaged: 1 finding"), "{out}");
    let out = fails(&["inspect", names[0]], &["Corruption", names[0], "@ 0"]);
    assert!(out.contains("damage: "), "what is left is told all the same: {out}");
    fails(&["get", db, "f", "key 0"], &["Corruption", names[0]]);

    let whole = fs::read(&tables[1]).unwrap();
    fs::write(&tables[1], &whole[..whole.len() - 10]).unwrap();
    fails(&["verify", db], &["Corruption", names[0], names[1]]);
    fails(&["inspect", names[1]], &["Corruption", names[1]]);
    fails(&["get", db, "f", "key 0"], &["Corruption", names[1], "bytes, not"]);
    fs::remove_file(&tables[1]).unwrap();
    fails(&["verify", db], &["Corruption", names[1], "missing"]);

    let manifest = &files(db, ".manifest")[0];
    flip(manifest, 100);
    let name = manifest.to_str().unwrap();
    fails(&["inspect", name], &["Corruption", name]);
    for command in ["stats", "verify"] {
        fails(&[command, db], &["Corruption", name]);
    }
    let current = &temp.at("db/CURRENT");
    flip(Path::new(current), 20);
    fails(&["verify", db], &["Corruption", current]);
    fails(&["inspect", current], &["Corruption", current]);
    flip(Path::new(current), 20);
    flip(Path::new(current), 10);
    fails(&["inspect", current], &["Unsupported", current]);
    fails(&["get", db, "f", "key 0"], &["Unsupported", current]);
}

#[test]
fn foreign_and_damaged_files_are_refused() {
    let temp = Temp::new();
    let foreign = &temp.at("foreign");
    fs::write(foreign, "not ours, whatever it is").unwrap();
    fails(&["inspect", foreign], &["Corruption", "not a file of this engine", foreign, "@ 0"]);
    fails(&["inspect", &temp.at("")], &["not a file"]);
    fails(&["stats", foreign], &["Io", "not a directory", foreign]);

    // A log that was synced and is damaged in the middle.
    let db = &temp.at("db");
    let open = Db::open(Path::new(db), Options::default(), env()).unwrap();
    let family = open.column_family("f", ColumnFamilyOptions::default()).unwrap();
    for _ in 0..3 {
        open.put(&family, b"k", b"v").unwrap();
        open.sync_wal().unwrap();
    }
    drop((family, open));
    assert!(ok(&["verify", db]).starts_with("verified: "));
    let log = &files(db, ".log")[0];
    let name = log.to_str().unwrap();
    assert!(ok(&["inspect", name]).contains("put \"k\" in family"));
    flip(log, 95);
    fails(&["inspect", name], &["Corruption", name, "durable"]);
    fails(&["verify", db], &["Corruption", name, "durable"]);
    fails(&["get", db, "f", "k"], &["Corruption", name, "durable"]);
}

/// A database that was not closed, with a table and eight synced writes in its log.
fn stopped(db: &str) {
    let open = Db::open(Path::new(db), Options::default(), env()).unwrap();
    let options = ColumnFamilyOptions { block_bytes: 64, ..ColumnFamilyOptions::default() };
    let family = open.column_family("f", options).unwrap();
    for i in 0..20 {
        open.put(&family, format!("key {i:02}").as_bytes(), b"in a table, of some length").unwrap();
    }
    open.flush(&family).unwrap();
    for i in 0..8 {
        open.put(&family, format!("key {i:02}").as_bytes(), b"in the log").unwrap();
        open.sync_wal().unwrap();
    }
}

#[test]
fn what_is_sound_is_salvaged() {
    let temp = Temp::new();
    let (db, out) = (&temp.at("db"), |name: &str| temp.at(name));
    stopped(db);
    let whole = all_bytes(db);
    let sound = ok(&["salvage", db, &out("sound")]);
    assert!(sound.contains("salvaged: the database as it was at"), "{sound}");
    assert_eq!(ok(&["get", &out("sound"), "f", "key 07"]), "in the log\n");
    let upto = ok(&["salvage", db, &out("upto"), "--up-to", "22"]);
    assert!(upto.contains("at sequence number 22"), "{upto}");
    assert_eq!(ok(&["get", &out("upto"), "f", "key 01"]), "in the log\n");
    assert_eq!(ok(&["get", &out("upto"), "f", "key 02"]), "in a table, of some length\n");
    assert_eq!(all_bytes(db), whole);

    let log = &files(db, ".log")[0];
    let name = log.to_str().unwrap();
    let bytes = fs::read(log).unwrap();
    flip(log, bytes.windows(6).rposition(|window| window == b"key 04").unwrap());
    fails(&["get", db, "f", "key 00"], &["Corruption", name]);
    let (code, told, err) = run(&["salvage", db, &out("log")]);
    assert!(code == 0 && err.contains(name) && told.contains("as it was at"), "{told}{err}");
    assert_eq!(ok(&["get", &out("log"), "f", "key 03"]), "in the log\n");
    assert_eq!(ok(&["get", &out("log"), "f", "key 04"]), "in a table, of some length\n");

    let table = &files(db, ".sst")[0];
    let name = table.to_str().unwrap();
    let bytes = fs::read(table).unwrap();
    flip(table, bytes.windows(6).position(|window| window == b"key 10").unwrap_or(300));
    let told = fails(&["salvage", db, &out("table")], &["Corruption", name]);
    assert!(told.contains("lost: family \"f\"") && told.contains("not certain: "), "{told}");
    assert_eq!(ok(&["get", &out("table"), "f", "key 19"]), "in a table, of some length\n");
    assert_eq!(ok(&["get", &out("table"), "f", "key 03"]), "in the log\n");
    let keys = ok(&["scan", &out("table"), "f"]).lines().count();
    assert!((10..20).contains(&keys), "{keys}");

    let manifest = &files(db, ".manifest")[0];
    let len = fs::metadata(manifest).unwrap().len() as usize;
    flip(manifest, len - 40);
    fails(&["stats", db], &["Corruption", manifest.to_str().unwrap()]);
    let name = manifest.to_str().unwrap();
    // The flush is forgotten, but the log goes back to the beginning.
    let (code, told, err) = run(&["salvage", db, &out("manifest")]);
    assert!(code == 0 && err.contains(name) && told.contains("as it was at"), "{told}{err}");
    assert_eq!(ok(&["get", &out("manifest"), "f", "key 03"]), "in the log\n");
    fails(&["salvage", db, &out("sound")], &["InvalidArgument", "new directory"]);
    fails(&["salvage", &temp.at("no"), &out("none")], &["NotFound"]);
}

#[test]
fn checkpoints_are_listed_shown_and_verified() {
    let temp = Temp::new();
    let store = &temp.at("store");
    let db = Db::open(Path::new(&temp.at("db")), Options::default(), env()).unwrap();
    let family = db.column_family("f", ColumnFamilyOptions::default()).unwrap();
    db.put(&family, b"\x00\x01key", b"value").unwrap();
    let set = db.checkpoint().unwrap().wait().unwrap();
    let target = DirStore::open(Arc::new(DiskFs::new()), store).unwrap();
    let job = JobCheckpoint {
        id: 7,
        max_parallelism: 128,
        parts: vec![PartInput { first_group: 0, last_group: 127, set: &set }],
        operator_state: vec![("source".to_owned(), b"state".to_vec())],
        user: b"position 99".to_vec(),
    };
    save_checkpoint(&target, &job, None).unwrap();

    let list = ok(&["checkpoint", "list", store]);
    assert!(list.lines().count() == 2 && list.lines().nth(1).unwrap().trim().starts_with("7 "));
    let show = ok(&["checkpoint", "show", store, "7"]);
    for text in ["checkpoint 7", "position 99", "\"source\"", "family \"f\"", "level 0"] {
        assert!(show.contains(text), "{show}");
    }
    assert!(ok(&["checkpoint", "verify", store]).starts_with("verified: checkpoint 7, 1 objects"));
    ok(&["checkpoint", "verify", store, "7"]);
    fails(&["checkpoint", "show", store, "8"], &["NotFound", "chk-8"]);
    fails(&["checkpoint", "verify", store, "8"], &["NotFound", "chk-8"]);

    let object = &files(&temp.at("store/shared"), "")[0];
    let name = object.file_name().unwrap().to_str().unwrap();
    flip(object, 3);
    fails(&["checkpoint", "verify", store], &["Corruption", name]);
    fs::remove_file(object).unwrap();
    fails(&["checkpoint", "verify", store], &["Corruption", name]);
    flip(Path::new(&temp.at("store/checkpoints/chk-7")), 30);
    fails(&["checkpoint", "list", store], &["Corruption", "chk-7"]);
    fails(&["checkpoint", "show", store, "7"], &["Corruption", "chk-7"]);
}
