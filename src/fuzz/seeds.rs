//! Good inputs for each target, to be mutated: written by the engine itself.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::bytes::Bytes;
use crate::base::coding::put_prefixed;
use crate::base::id::FamilyId;
use crate::base::id::FileId;
use crate::base::id::FileNumber;
use crate::base::key::{InternalKey, ValueKind};
use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::batch::WriteBatch;
use crate::cache::budget::MemoryBudget;
use crate::checkpoint::format::{Envelope, ObjectRef, Part, PartFamily, PartTable};
use crate::checkpoint::save::{JobCheckpoint, PartInput, save};
use crate::checkpoint::store::{CheckpointStore, DirStore, ObjectName, SharedName, read_object};
use crate::db::Db;
use crate::db::options::{ColumnFamilyOptions, Env, Options, WriteOptions};
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::fuzz::directory::put_file;
use crate::state::key::{KeyBuilder, KeyShape, TimerKey};
use crate::state::meta::{BackendRecord, StateKind, StateRecord};
use crate::state::operator::OperatorState;
use crate::state::operator_snapshot::OperatorSnapshot;
use crate::state::postcard::PostcardSerializer;
use crate::state::serializer::{Serializer, builtin};
use crate::table::block_builder::BlockBuilder;
use crate::table::compression::{Codec, Compressor};
use crate::table::filter::{FilterBuilder, key_hash};
use crate::table::format::{FOOTER_BYTES, Footer, open_block, put_block};
use crate::version::edit::VersionEdit;
use crate::version::manifest::recover;
use crate::version::names::FileName;

/// Good inputs for a target.
///
/// # Panics
/// If the engine cannot write them.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "batch" => batches(),
        "block" => blocks(),
        "cell" => cells(),
        "checkpoints" => programs(8),
        "directory" => vec![archive(|_| true)],
        "edit" => edits(),
        "envelope" => vec![envelope()],
        "filter" => vec![filter(), vec![10; 40]],
        "import" => changes(4),
        "inspect" => inspected(),
        "keyed" => programs(9),
        "model" => programs(7),
        "name" => names(),
        "options" => vec![ColumnFamilyOptions::default().encode(), Vec::new()],
        "packed" => packed(),
        "patch" => changes(5),
        "postcard" => values(),
        "properties" => vec![properties()],
        "segments" => vec![segments()],
        "store" => vec![stored()],
        "timer" => timers(),
        "ttl" => expiring(),
        "state" => states(),
        _ => files(target),
    }
}

/// A file of each kind.
fn inspected() -> Vec<Vec<u8>> {
    let mut all = vec![envelope()];
    for kind in ["current", "log", "manifest", "table"] {
        all.extend(files(kind).into_iter().min_by_key(Vec::len));
    }
    all
}

fn batches() -> Vec<Vec<u8>> {
    let mut batch = WriteBatch::new();
    batch.set_seqno(1);
    let empty = batch.as_bytes().to_vec();
    batch.put(FamilyId(0), b"key", b"value");
    batch.delete(FamilyId(1), b"gone");
    batch.merge(FamilyId(300), b"key", &[7; 130]);
    batch.delete_range(FamilyId(0), b"a", b"z");
    batch.set_seqno(1 << 40);
    vec![empty, batch.as_bytes().to_vec()]
}

fn blocks() -> Vec<Vec<u8>> {
    let kinds = [ValueKind::Put, ValueKind::Delete, ValueKind::Merge];
    let mut blocks = Vec::new();
    for (interval, kind) in [(1, None), (4, None), (16, Some(ValueKind::RangeDelete))] {
        let mut builder = BlockBuilder::new(interval);
        for i in 0..24u64 {
            let key = format!("key{:03}", i / 3 * 7);
            let kind = kind.unwrap_or(kinds[i as usize % 3]);
            builder.add(InternalKey::new(key.as_bytes(), 90 - i % 3, kind), b"z-value");
        }
        blocks.push(builder.finish().to_vec());
    }
    blocks.push(BlockBuilder::new(16).finish().to_vec());
    blocks
}

/// So much is left of what the log has reserved: more zeros than a record's header, and not most of a seed.
const RESERVED_BYTES: usize = 256;

/// A small database in memory, not closed: with two families, tables in two levels, and a log.
pub(super) fn database() -> MemFs {
    let fs = MemFs::new();
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 1);
    let dir = Path::new("db");
    let db = Db::open(dir, Options::default(), env).expect("a new database");
    let options = |codec| ColumnFamilyOptions {
        block_bytes: 256,
        codecs: [codec; 7],
        key_group_bytes: 2,
        ..ColumnFamilyOptions::default()
    };
    let deep = if Codec::Zstd.is_compiled_in() { Codec::Zstd } else { Codec::None };
    let a = db.column_family("a", options(Codec::None)).expect("a family");
    let b = db.column_family("b", options(deep)).expect("a family");
    for round in 0..3u8 {
        for i in 0..40u8 {
            let key = [0, i % 4, i];
            for family in [&a, &b] {
                db.put(family, &key, &[round; 20]).expect("a write");
            }
        }
        db.delete_range(&a, &[0, 1], &[0, 1, 9]).expect("a write");
        db.delete(&b, &[0, 0, 0]).expect("a write");
        match round {
            0 => db.compact_range(&a, ..).and_then(|()| db.compact_range(&b, ..)),
            1 => db.flush_all(),
            _ => db.sync_wal(),
        }
        .expect("background work");
    }
    let mut batch = WriteBatch::new();
    batch.put(&a, b"both", b"1");
    batch.put(&b, b"both", b"2");
    db.write(&batch, WriteOptions { sync: true }).expect("a write");
    db.put(&b, b"last", b"not synced").expect("a write");
    for file in fs.list(dir).expect("it is there") {
        if let Some(FileName::Log(_)) = FileName::parse(&file.name) {
            let path = dir.join(&file.name);
            let log = fs.read(&path);
            let end = log.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            fs.write(&path, &log[..log.len().min(end + RESERVED_BYTES)]);
        }
    }
    fs
}

/// Every key and value that [`database`] ever had.
pub(super) fn written(mut put: impl FnMut(&[u8], &[u8])) {
    for (round, i) in (0..3u8).flat_map(|round| (0..40u8).map(move |i| (round, i))) {
        put(&[0, i % 4, i], &[round; 20]);
    }
    for (key, value) in [(&b"both"[..], &b"1"[..]), (b"both", b"2"), (b"last", b"not synced")] {
        put(key, value);
    }
}

/// The files of [`database`], those whose names are wanted, as an archive.
fn archive(wanted: impl Fn(&str) -> bool) -> Vec<u8> {
    let (fs, dir, mut archive) = (database(), Path::new("db"), Vec::new());
    for file in fs.list(dir).expect("it is there").into_iter().filter(|file| wanted(&file.name)) {
        put_file(&mut archive, &file.name, &fs.read(&dir.join(&file.name)));
    }
    archive
}

/// A log of several segments, the last one torn.
fn segments() -> Vec<u8> {
    let fs = MemFs::new();
    let env = Env::simulated(Arc::new(fs.clone()), MemoryBudget::new(8 << 20), 1);
    let options = Options { log_segment_bytes: 150, ..Options::default() };
    let dir = Path::new("db");
    let db = Db::open(dir, options, env).expect("a new database");
    let family = db.column_family("a", ColumnFamilyOptions::default()).expect("a family");
    for i in 0..12u8 {
        db.put(&family, &[i], &[i; 30]).expect("a write");
        if i % 4 == 1 {
            db.sync_wal().expect("a sync");
        }
    }
    let mut archive = Vec::new();
    for file in fs.list(dir).expect("it is there") {
        if let Some(FileName::Log(_)) = FileName::parse(&file.name) {
            put_file(&mut archive, &file.name, &fs.read(&dir.join(&file.name)));
        }
    }
    archive.truncate(archive.len() - 3);
    archive
}

/// A store with a checkpoint of [`database`], as an archive.
fn stored() -> Vec<u8> {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let env = Env::simulated(Arc::clone(&fs), MemoryBudget::new(8 << 20), 1);
    let options = Options { log: false, ..Options::default() };
    let db = Db::open("db".as_ref(), options, env).expect("a new database");
    let family = ColumnFamilyOptions { key_group_bytes: 2, ..ColumnFamilyOptions::default() };
    let family = db.column_family("a", family).expect("a family");
    (0..20u8).for_each(|i| db.put(&family, &[0, i % 2, i], &[i; 20]).expect("a write"));
    let set = db.checkpoint().and_then(|pending| pending.wait()).expect("a checkpoint");
    let store = DirStore::open(Arc::clone(&fs), "store").expect("a store");
    let job = JobCheckpoint {
        id: 1,
        max_parallelism: 2,
        parts: vec![PartInput { first_group: 0, last_group: 1, set: &set }],
        operator_state: Vec::new(),
        user: Vec::new(),
    };
    save(&store, &job, None).expect("a checkpoint");
    let mut archive = Vec::new();
    for stored in store.list().expect("it is there") {
        let bytes = read_object(&store, &stored.name, 1 << 20).expect("it is there");
        let name = match &stored.name {
            ObjectName::Checkpoint(id) => id.to_string(),
            ObjectName::Shared(name) => name.to_string(),
        };
        put_file(&mut archive, &name, &bytes);
    }
    archive
}

/// Lists of changes of so many bytes each.
fn changes(bytes: usize) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(bytes as u64);
    [1, 2, 6].map(|n| (0..n * bytes).map(|_| rng.next_u64() as u8).collect()).to_vec()
}

fn filter() -> Vec<u8> {
    let mut builder = FilterBuilder::new(10);
    (0..30u8).for_each(|i| builder.add(key_hash(&[i])));
    builder.finish().expect("keys were added")
}

fn properties() -> Vec<u8> {
    let table = files("table").pop().expect("there are tables");
    let at = table.len() - FOOTER_BYTES;
    let id = FileId::from_bytes(*table[at..].first_chunk().expect("a footer begins with it"));
    let footer = Footer::decode(&table[at..], at as u64, &id).expect("a good one");
    let [_, _, properties, _] = footer.parts();
    let handle = properties.expect("every table has them");
    let stored = &table[handle.offset as usize..][..handle.stored_bytes()];
    let raw = open_block(Bytes::from(stored), &id, handle.offset, 1 << 20).expect("a good one");
    raw.to_vec()
}

/// A block in each codec of this build, as [`pieces`](crate::fuzz::pieces) reads it.
fn packed() -> Vec<Vec<u8>> {
    let id = FileId::from_bytes([7; 16]);
    let raw: Vec<u8> = (0..600u32).map(|i| (i / 7) as u8).collect();
    let known = [Codec::None, Codec::Lz4, Codec::Zstd].into_iter().filter(|c| c.is_compiled_in());
    let block = |codec| {
        let mut compressor = Compressor::new(codec, 1).expect("compiled in");
        let (codec, stored) = compressor.compress(&raw);
        let mut out = Vec::new();
        put_block(&mut out, &id, 64, codec, stored, raw.len() as u32);
        out
    };
    known.map(block).collect()
}

fn names() -> Vec<Vec<u8>> {
    let number = FileNumber::new(3, 9);
    let files = [FileName::Table(number), FileName::Log(number), FileName::Current];
    let mut all: Vec<Vec<u8>> = files.map(|name| name.to_string().into_bytes()).to_vec();
    let shared = SharedName::of_table(&[7; 32], number);
    let objects = [ObjectName::Checkpoint(12), ObjectName::Shared(shared)];
    all.extend(objects.map(|name| name.to_string().into_bytes()));
    all
}

/// The files of one kind.
fn files(target: &str) -> Vec<Vec<u8>> {
    let fs = database();
    let dir = Path::new("db");
    let wanted = |name: &str| match FileName::parse(name) {
        Some(FileName::Table(_)) => target == "table",
        Some(FileName::Log(_)) => target == "log",
        Some(FileName::Manifest(_)) => target == "manifest",
        Some(FileName::Current) => target == "current",
        _ => false,
    };
    let listed = fs.list(dir).expect("it is there").into_iter().filter(|file| wanted(&file.name));
    listed.map(|file| fs.read(&dir.join(file.name))).collect()
}

fn edits() -> Vec<Vec<u8>> {
    let fs: Arc<dyn Fs> = Arc::new(database());
    let dir = Path::new("db");
    let listing = fs.list(dir).expect("it is there");
    let state = recover(&fs, dir, listing).expect("an intact directory").state;
    let mut edits = state.snapshot_edits();
    let mut change = VersionEdit { last_seqno: Some(9), ..VersionEdit::default() };
    change.dropped.push(FamilyId(1));
    change.family(FamilyId(0)).removed.push((0, FileNumber::new(1, 2)));
    edits.push(change);
    edits.iter().map(VersionEdit::encode).collect()
}

fn envelope() -> Vec<u8> {
    let object = |name: &str| ObjectRef {
        name: SharedName::new(name).expect("a name"),
        len: 77,
        digest: [3; 32],
        checksum: 4,
    };
    let table = |object| PartTable { object, level: object as u8, meta: vec![1, 2, 3] };
    let family = |tables| PartFamily {
        name: "family".to_owned(),
        merge_operator: Some("list".to_owned()),
        options: vec![9],
        tables,
        census: vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    };
    let part = |first_group, tables| Part {
        first_group,
        last_group: first_group + 63,
        seqno: 12,
        record: vec![5],
        families: vec![family(tables)],
    };
    let envelope = Envelope {
        checkpoint: 4,
        max_parallelism: 128,
        prefix_bytes: 2,
        user: b"position".to_vec(),
        objects: vec![object("one-000001-000001"), object("two-000001-000002")],
        parts: vec![part(0, vec![table(0)]), part(64, vec![table(0), table(1)])],
        operator_state: vec![("source".to_owned(), vec![1; 9])],
    };
    envelope.encode().expect("a good one").0
}

/// Keys of cells and entries, a list and a value, each behind a byte that says which shape.
fn cells() -> Vec<Vec<u8>> {
    let of = |byte: u8, shape: KeyShape, namespace: &[u8], user_key: &[u8]| {
        let mut builder = KeyBuilder::new(shape);
        builder.set_key(300, |out| out.extend_from_slice(b"key4"));
        builder.set_namespace(|out| out.extend_from_slice(namespace));
        let mut bytes = vec![byte];
        bytes.extend_from_slice(builder.entry(|out| out.extend_from_slice(user_key)));
        bytes
    };
    let shape = |key, namespace| KeyShape { key, namespace };
    let mut list = vec![0];
    let many = vec![(1, "one".to_owned()), (2, String::new())];
    builtin::<Vec<(u8, String)>>().encode(&many, &mut list);
    let mut pair = vec![0];
    builtin::<(String, Option<u16>)>().encode(&("text".to_owned(), Some(7)), &mut pair);
    vec![
        of(0, shape(None, None), b"window", b""),
        of(6, shape(Some(4), Some(0)), b"", b"user key"),
        of(10, shape(Some(4), Some(4)), b"ns44", b"u"),
        list,
        pair,
    ]
}

/// Keys of timers of several shapes, each behind a byte that says which.
fn timers() -> Vec<Vec<u8>> {
    let timer = |key, namespace| TimerKey { group: 300, time: -77, key, namespace };
    let shape = |key, namespace| KeyShape { key, namespace };
    let of = |byte: u8, shape: KeyShape, timer: TimerKey<'_>| {
        let mut bytes = vec![byte];
        shape.put_timer(&timer, &mut bytes);
        bytes
    };
    vec![
        of(0, shape(None, None), timer(b"aircraft", b"window")),
        of(4, shape(None, Some(0)), timer(b"N328AA", b"")),
        of(10, shape(Some(4), Some(4)), timer(b"key4", b"ns44")),
    ]
}

/// A limit, and a value or a list with times before and behind it.
fn expiring() -> Vec<Vec<u8>> {
    let stamped = |time: i64| [&time.to_be_bytes()[..], b"value"].concat();
    let limit = 1000i64.to_be_bytes();
    let list = |times: &[i64]| {
        let mut list = limit.to_vec();
        times.iter().for_each(|time| put_prefixed(&mut list, &stamped(*time)));
        list
    };
    let value = |time| [&limit[..], &stamped(time)].concat();
    vec![value(1000), value(1001), list(&[1, 1001, 2, -5]), list(&[1, 2]), list(&[2000])]
}

/// One for each type that the target reads.
fn values() -> Vec<Vec<u8>> {
    fn bytes<T: Serialize + DeserializeOwned + 'static>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        PostcardSerializer::<T>::new("value", 1).encode(value, &mut out);
        out
    }
    let by_month: BTreeMap<u8, Vec<i64>> = [(1, vec![-1, 300]), (12, vec![])].into();
    vec![
        bytes(&(70_000u32, Some("N328AA".to_owned()), by_month)),
        bytes(&vec![(true, 'ü', vec!["JFK".to_owned(), String::new()]), (false, 'a', vec![])]),
        bytes(&(i128::MIN, Some(Some(1u64 << 60)), [1u16, 0, u16::MAX])),
        bytes(&(5u32, "version 1".to_owned())),
    ]
}

/// Metadata of a map, and operator state of three instances.
fn states() -> Vec<Vec<u8>> {
    let value = builtin::<Vec<(u64, Option<String>)>>().snapshot();
    let key = builtin::<String>().snapshot();
    let backend = BackendRecord { max_parallelism: 128, key: key.clone() };
    let state = StateRecord {
        kind: StateKind::Map,
        namespace: builtin::<(i64, i64)>().snapshot(),
        user_key: Some(key.clone()),
        value: value.clone(),
        migrating: true,
    };
    let instance = |i: u64| {
        let mut operator = OperatorState::new();
        let split = operator.list_state::<u64>("split");
        split.expect("a new state").add_all(&[i, 7, 300]);
        let union = operator.union_list_state::<String>("union");
        union.expect("a new state").add(&i.to_string());
        let mut map = operator.broadcast_state::<String, u8>("map").expect("a new state");
        map.put_all([(&"a".to_owned(), &1), (&"b".to_owned(), &2)]);
        operator.snapshot()
    };
    let operators: Vec<_> = (0..3).map(instance).collect();
    let all = OperatorSnapshot::encode_all(&operators);
    vec![backend.encode(), state.encode(), value.encode(), all]
}

fn programs(seed: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(seed);
    let lengths = [48, 408, 1608, 2408];
    lengths.map(|len| (0..len).map(|_| rng.next_u64() as u8).collect()).to_vec()
}
