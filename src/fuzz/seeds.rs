//! Good inputs for each target, to be mutated: written by the engine itself.

use std::path::Path;

use crate::base::coding::put_prefixed;
use crate::base::id::FamilyId;
use crate::base::id::FileNumber;
use crate::base::key::{InternalKey, ValueKind};
use crate::base::rng::Rng;
use crate::base::sync::Arc;
use crate::batch::WriteBatch;
use crate::cache::budget::MemoryBudget;
use crate::checkpoint::format::{Envelope, ObjectRef, Part, PartFamily, PartTable};
use crate::checkpoint::store::SharedName;
use crate::db::Db;
use crate::db::options::{ColumnFamilyOptions, Env, Options, WriteOptions};
use crate::fs::Fs;
use crate::fs::memory::MemFs;
use crate::state::key::{KeyBuilder, KeyShape, TimerKey};
use crate::state::meta::{BackendRecord, StateKind, StateRecord};
use crate::state::operator::OperatorState;
use crate::state::operator_snapshot::OperatorSnapshot;
use crate::state::serializer::{Serializer, builtin};
use crate::table::block_builder::BlockBuilder;
use crate::table::compression::Codec;
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
        "edit" => edits(),
        "envelope" => vec![envelope()],
        "inspect" => inspected(),
        "model" => programs(),
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

/// A small database in memory, not closed: with two families, tables in two levels, and a log.
fn database() -> MemFs {
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
    fs
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

fn programs() -> Vec<Vec<u8>> {
    let mut rng = Rng::new(7);
    let lengths = [48, 408, 1608, 2408];
    lengths.map(|len| (0..len).map(|_| rng.next_u64() as u8).collect()).to_vec()
}
