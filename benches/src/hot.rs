//! Hot paths with fixed counts, for `callgrind.sh`: instructions do not depend on the machine's mood.
//! Everything happens on one thread, and on a file system in memory but for the log's path, which is
//! about the mapping that it writes through.

pub mod state;

use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Background, Codec, ColumnFamily, ColumnFamilyOptions, Db, Env, MemFs, MemoryBudget, Options,
    Update, limits,
};

use crate::data::{entry, key, long, number_of, record, version};

/// Everything that can be counted.
pub fn paths() -> impl Iterator<Item = &'static str> {
    PATHS.iter().chain(state::PATHS).copied()
}

/// Of the engine's own interface.
const PATHS: &[&str] = &[
    "value-get",
    "value-absent",
    "value-update",
    "rmw",
    "map-get",
    "scan-next",
    "scan-map",
    "flushed-get",
    "table-get",
    "table-scan-next",
    "table-scan-map",
    "table-scan-ten",
    "table-enter-ten",
    "log-put",
];

const KEYS: u32 = 20_000;

/// Sets up a path and runs it once. `--toggle-collect='alluvium_bench::hot::*counted_*'` counts the
/// loops alone. Prints the number of operations.
pub fn run(path: &str) {
    let memory = if path == "table-enter-ten" { 1 << 20 } else { 256 << 20 };
    let env = Env::new(MemoryBudget::new(memory));
    let env = env.with_fs(Arc::new(MemFs::new())).with_background(Background::Inline);
    if path.starts_with("state-") {
        state::run(path, env);
        println!("{KEYS}");
        return;
    }
    if path == "log-put" {
        log_put();
        return;
    }
    let options = Options { log: false, ..Options::default() };
    let db = Db::open(Path::new("hot"), options, env).expect("open");
    let codec = if path == "table-enter-ten" { Codec::Lz4 } else { Codec::None };
    let family_options =
        ColumnFamilyOptions { codecs: [codec; limits::LEVELS], ..ColumnFamilyOptions::default() };
    let family = db.column_family("state", family_options).expect("a family");
    // Neither in the order of the keys nor in the one in which they are asked for.
    for (at, i) in (0..KEYS).map(|at| (at, at * 7919 % KEYS)) {
        match path {
            "map-get" | "scan-map" | "table-scan-map" => {
                db.put(&family, &entry(i / 10, i % 10), &long(i, 0)).expect("put")
            }
            "table-scan-ten" | "table-enter-ten" => {
                db.put(&family, &key(i), &record(i, 0)).expect("put");
                if at == KEYS / 2 || at == KEYS / 4 * 3 {
                    db.flush_all().expect("flush");
                }
            }
            _ => db.put(&family, &key(i), &long(i, 0)).expect("put"),
        }
    }
    match path {
        "value-get" => counted_get(&db, &family),
        "value-absent" => counted_absent(&db, &family),
        "value-update" => counted_update(&db, &family),
        "rmw" => counted_rmw(&db, &family),
        "map-get" => counted_map_get(&db, &family),
        "scan-next" => {
            scan(&db, &family); // the first makes the order
            counted_scan(&db, &family);
        }
        "scan-map" => {
            scan(&db, &family);
            counted_scan_maps(&db, &family);
        }
        "table-scan-next" => {
            db.flush_all().expect("flush");
            scan(&db, &family); // fills the cache
            counted_table_scan(&db, &family);
        }
        "table-scan-map" => {
            db.flush_all().expect("flush");
            scan(&db, &family);
            counted_table_scan_maps(&db, &family);
        }
        "table-scan-ten" => {
            db.flush_all().expect("flush");
            scan_ten(&db, &family);
            counted_table_scan_ten(&db, &family);
        }
        "table-enter-ten" => {
            db.flush_all().expect("flush");
            counted_table_enter_ten(&db, &family);
        }
        "flushed-get" => {
            db.flush_all().expect("flush");
            counted_flushed_get(&db, &family);
        }
        "table-get" => {
            db.flush_all().expect("flush");
            db.compact_range(&family, ..).expect("compact");
            get(&db, &family); // fills the cache
            counted_table_get(&db, &family);
        }
        _ => panic!("{path}: none of {:?}", paths().collect::<Vec<_>>()),
    }
    println!("{KEYS}");
}

/// Records of new keys, through the log.
fn log_put() {
    let dir = std::env::temp_dir().join(format!("alluvium-hot-{}", std::process::id()));
    let env = Env::new(MemoryBudget::new(256 << 20)).with_background(Background::Inline);
    let db = Db::open(&dir, Options::default(), env).expect("open");
    let family = db.column_family("state", ColumnFamilyOptions::default()).expect("a family");
    counted_log_put(&db, &family);
    drop(db);
    std::fs::remove_dir_all(&dir).expect("the directory is there");
    println!("{KEYS}");
}

#[inline(never)]
fn counted_log_put(db: &Db, family: &ColumnFamily) {
    for i in order() {
        db.put(family, &key(i), &record(i, 0)).expect("put");
    }
}

fn order() -> impl Iterator<Item = u32> {
    (0..KEYS).map(|i| i * 6367 % KEYS)
}

fn get(db: &Db, family: &ColumnFamily) {
    for i in order() {
        let read = db.get_with(family, &key(i), |value| version(value, i));
        assert_eq!(read.expect("get"), 0);
    }
}

#[inline(never)]
fn counted_get(db: &Db, family: &ColumnFamily) {
    get(db, family);
}

/// The same, from a table whose memtable is its cache.
#[inline(never)]
fn counted_flushed_get(db: &Db, family: &ColumnFamily) {
    get(db, family);
}

/// The same, from tables.
#[inline(never)]
fn counted_table_get(db: &Db, family: &ColumnFamily) {
    get(db, family);
}

#[inline(never)]
fn counted_absent(db: &Db, family: &ColumnFamily) {
    for i in order() {
        let absent = db.get_with(family, &key(i + KEYS), |value| value.is_none());
        assert!(absent.expect("get"));
    }
}

#[inline(never)]
fn counted_update(db: &Db, family: &ColumnFamily) {
    for i in order() {
        db.put(family, &key(i), &long(i, 1)).expect("put");
    }
}

#[inline(never)]
fn counted_rmw(db: &Db, family: &ColumnFamily) {
    for i in order() {
        let outcome = db.update(family, &key(i), |old, new| {
            new.extend_from_slice(&long(i, version(old, i) + 1));
            Update::Put
        });
        outcome.expect("update");
    }
}

#[inline(never)]
fn counted_map_get(db: &Db, family: &ColumnFamily) {
    for i in order() {
        let read = db.get_with(family, &entry(i / 10, i % 10), |value| version(value, i));
        assert_eq!(read.expect("get"), 0);
    }
}

fn scan(db: &Db, family: &ColumnFamily) {
    let mut cursor = db.scan(family, ..).expect("scan");
    let mut entries = 0;
    while cursor.next().expect("a step") {
        entries += u32::from(cursor.value().len() == 8);
    }
    assert_eq!(entries, KEYS);
}

#[inline(never)]
fn counted_scan(db: &Db, family: &ColumnFamily) {
    scan(db, family);
}

/// The same, from tables.
#[inline(never)]
fn counted_table_scan(db: &Db, family: &ColumnFamily) {
    scan(db, family);
}

/// A cursor for each map, of ten entries.
fn scan_maps(db: &Db, family: &ColumnFamily) {
    for map in order().filter(|i| *i < KEYS / 10) {
        let mut cursor = db.scan_prefix(family, &key(map)).expect("scan");
        let mut entries = 0;
        while cursor.next().expect("a step") {
            entries += u32::from(cursor.value().len() == 8);
        }
        assert_eq!(entries, 10);
    }
}

#[inline(never)]
fn counted_scan_maps(db: &Db, family: &ColumnFamily) {
    scan_maps(db, family);
}

/// The same, from tables.
#[inline(never)]
fn counted_table_scan_maps(db: &Db, family: &ColumnFamily) {
    scan_maps(db, family);
}

/// A cursor from each key on, for ten entries.
fn scan_ten(db: &Db, family: &ColumnFamily) {
    for i in order() {
        let from = key(i);
        let mut cursor = db.scan(family, &from[..]..).expect("scan");
        let mut left = 10;
        while left > 0 && cursor.next().expect("a step") {
            assert_eq!(version(Some(cursor.value()), number_of(cursor.key())), 0);
            left -= 1;
        }
        assert!(left < 10);
    }
}

/// From several tables that overlap, all of whose blocks are in the cache.
#[inline(never)]
fn counted_table_scan_ten(db: &Db, family: &ColumnFamily) {
    scan_ten(db, family);
}

/// From tables several times as large as the cache.
#[inline(never)]
fn counted_table_enter_ten(db: &Db, family: &ColumnFamily) {
    scan_ten(db, family);
}
