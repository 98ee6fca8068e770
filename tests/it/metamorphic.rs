//! What must not matter does not: one list of operations is run with other options, on other disks,
//! with other threads, and rewritten in ways that mean the same. What its reads answer is equal to the
//! last byte, and equal to plain maps, which the machine that runs it compares at every step.
#![allow(clippy::disallowed_methods, reason = "works in a temporary directory")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use alluvium::fuzz::model::{
    Change, Config, Disk, FAMILIES, KEY_GROUPS, Machine, OP_BYTES, Op, Verb, key,
};
use alluvium::{Background, DiskFs, Fs};
use quickcheck::{Arbitrary, Gen};

use crate::model::setting;

/// Operations between two places where nothing is held.
const STRETCH: usize = 40;
const STRETCHES: usize = 6;

/// First bytes of operations that read: many gets, readers and moves of scans.
const READS: [u8; 8] = [104, 114, 118, 122, 124, 139, 145, 150];

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Operations whose answers depend on nothing but the operations before.
fn program(g: &mut Gen) -> Vec<Op> {
    let mut ops = Vec::new();
    for stretch in 0..STRETCHES {
        ops.extend((0..FAMILIES).map(|family| Op::CreateFamily { family }));
        for i in 0..STRETCH {
            let mut bytes: [u8; OP_BYTES] = u64::arbitrary(g).to_be_bytes();
            if i % 3 == 0 {
                bytes[0] = *g.choose(&READS).unwrap();
            }
            let op = Op::decode(bytes, (stretch * STRETCH + i) as u32);
            ops.extend(op.is_plain().then_some(op));
        }
        ops.extend([Op::CheckAll, Op::LetGo]);
    }
    ops
}

/// Any options, with memory for all that a program holds: else writers would be told so.
fn draw(g: &mut Gen) -> Config {
    let config = Config::draw(u64::arbitrary(g));
    Config { memory: config.memory.max(1 << 20), ..config }
}

/// What the reads of a program answer.
fn answers(config: Config, disk: Disk, background: Background, ops: &[Op]) -> Vec<String> {
    let mut machine = Machine::with_background(config, disk, background);
    ops.iter().for_each(|op| machine.run(op));
    let answers = machine.transcript().to_vec();
    machine.finish();
    answers
}

fn in_memory(config: &Config, ops: &[Op]) -> Vec<String> {
    answers(config.clone(), Disk::memory(), Background::Inline, ops)
}

fn same(expected: &[String], found: &[String], what: &str) {
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(expected, found, "{what}: answer {i}");
    }
    assert_eq!(expected.len(), found.len(), "{what}: the number of answers");
}

/// Random programs, each with a configuration and its answers.
fn programs(salt: u64, count: u64) -> impl Iterator<Item = (Config, Vec<Op>, Vec<String>)> {
    let first = setting("ALLUVIUM_SEED", 1) + salt;
    (first..first + setting("ALLUVIUM_PROGRAMS", count)).map(|seed| {
        let mut g = Gen::from_size_and_seed(100, seed);
        let (config, ops) = (draw(&mut g), program(&mut g));
        let answers = in_memory(&config, &ops);
        assert!(answers.len() > 20, "a program that asks: {}", answers.len());
        (config, ops, answers)
    })
}

#[test]
fn options_show_in_nothing_that_is_read() {
    for (seed, (_, ops, expected)) in programs(1000, 16).enumerate() {
        for other in 0..12 {
            let mut g = Gen::from_size_and_seed(100, 77 + 100 * seed as u64 + other);
            let config = draw(&mut g);
            same(&expected, &in_memory(&config, &ops), &format!("{config:?}"));
        }
    }
}

#[test]
fn threads_show_in_nothing_that_is_read() {
    for (config, ops, expected) in programs(2000, 12) {
        let threads = Background::Threads(2);
        same(&expected, &answers(config, Disk::memory(), threads, &ops), "threads");
    }
}

/// A directory of its own, gone when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("alluvium-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[allow(unsafe_code)]
fn mapped() -> DiskFs {
    // SAFETY: the directory is this test's alone, and the engine never changes a table.
    unsafe { DiskFs::mapped() }
}

#[test]
fn disks_show_in_nothing_that_is_read() {
    for (i, (config, ops, expected)) in programs(3000, 3).enumerate() {
        for (name, fs) in [("read", DiskFs::new()), ("mapped", mapped())] {
            let scratch = Scratch::new(&format!("metamorphic-{name}-{i}"));
            let fs: Arc<dyn Fs> = Arc::new(fs);
            let disk = Disk::real(fs, scratch.0.clone());
            let ops: Vec<Op> = ops.iter().flat_map(|op| joint(op, &[RESTART])).collect();
            let found = answers(config.clone(), disk, Background::Inline, &ops);
            same(&expected, &found, name);
        }
    }
}

const RESTART: Op = Op::Close { change_log: false, fault: None };

/// The operation, and where nothing is held, others behind it.
fn joint(op: &Op, inserted: &[Op]) -> Vec<Op> {
    let mut ops = vec![op.clone()];
    if *op == Op::LetGo {
        ops.extend_from_slice(inserted);
    }
    ops
}

/// Ends and beginnings that nobody who reads may notice.
fn insertions(log: bool) -> Vec<(&'static str, Vec<Op>)> {
    let everything = |go_on| Op::Restore { saved: 255, first: 0, last: KEY_GROUPS - 1, go_on };
    let compact = |family| Op::Compact { family, start: vec![1], end: vec![0] };
    let mut all = vec![
        ("a clean restart", vec![RESTART]),
        ("the log is switched", vec![Op::Close { change_log: true, fault: None }]),
        ("a compaction of everything", (0..FAMILIES).map(compact).collect()),
        ("a flush", vec![Op::FlushAll]),
        ("rest", vec![Op::WaitIdle]),
        ("rescaled to 1 and back", vec![Op::Rescale { parallelism: 1 }]),
        ("rescaled to 3 and back", vec![Op::Rescale { parallelism: 3 }]),
        ("rescaled to 8 and back", vec![Op::Rescale { parallelism: 8 }]),
        (
            "a checkpoint, and it is restored",
            // Only the newest one is kept, so that it is the one that is restored.
            vec![
                Op::ForgetSaved,
                Op::BeginCheckpoint,
                Op::Save { checkpoint: 0 },
                everything(true),
            ],
        ),
    ];
    if log {
        all.push(("the process dies", vec![Op::Kill { fault: None }]));
        let cut = Op::PowerCut { keep: 0, seed: 0, fault: None };
        all.push(("a power cut after a sync", vec![Op::SyncWal, cut]));
    }
    all
}

#[test]
fn interruptions_show_in_nothing_that_is_read() {
    for (config, ops, expected) in programs(4000, 16) {
        for (name, inserted) in insertions(config.options.log) {
            let ops: Vec<Op> = ops.iter().flat_map(|op| joint(op, &inserted)).collect();
            same(&expected, &in_memory(&config, &ops), name);
        }
    }
}

/// Compactions everywhere, while snapshots and scans are held.
#[test]
fn compactions_show_in_nothing_that_is_held() {
    for (config, ops, expected) in programs(5000, 16) {
        let compact = |family| Op::Compact { family, start: vec![1], end: vec![0] };
        let everywhere = |op: &Op| [op.clone(), compact(0), compact(1), compact(2)];
        let ops: Vec<Op> = ops.iter().flat_map(everywhere).collect();
        same(&expected, &in_memory(&config, &ops), "compactions after every operation");
    }
}

/// The maps of a program so far, to rewrite it by.
struct Plain([Option<Map>; FAMILIES]);

impl Plain {
    fn new() -> Plain {
        Plain([Some(Map::new()), Some(Map::new()), None])
    }

    /// Does the operation; says what `rewrite` makes of each of its changes.
    fn follow(&mut self, op: &Op, rewrite: impl Fn(&Verb, &Map) -> Vec<Verb>) -> Vec<Op> {
        let mut change = |Change { family, verb }: &Change| -> Vec<Change> {
            let family = *family;
            let Some(map) = &mut self.0[family] else { return Vec::new() };
            let verbs = rewrite(verb, map);
            verb.apply(map);
            verbs.into_iter().map(|verb| Change { family, verb }).collect()
        };
        match op {
            Op::Write(one) => change(one).into_iter().map(Op::Write).collect(),
            Op::Batch { changes, sync } => {
                let changes = changes.iter().flat_map(change).collect();
                vec![Op::Batch { changes, sync: *sync }]
            }
            Op::Update { family, key, value, how } => {
                let verb = match how % 3 {
                    0 => Verb::Put(key.clone(), value.clone()),
                    1 => Verb::Delete(key.clone()),
                    _ => return vec![op.clone()],
                };
                change(&Change { family: *family, verb });
                vec![op.clone()]
            }
            Op::CreateFamily { family } => {
                self.0[*family].get_or_insert_default();
                vec![op.clone()]
            }
            Op::DropFamily { family } => {
                self.0[*family] = None;
                vec![op.clone()]
            }
            _ => vec![op.clone()],
        }
    }
}

fn rewritten(ops: &[Op], rewrite: impl Fn(&Verb, &Map) -> Vec<Verb> + Copy) -> Vec<Op> {
    let mut plain = Plain::new();
    ops.iter().flat_map(|op| plain.follow(op, rewrite)).collect()
}

/// All keys that programs use.
fn keys() -> Vec<Vec<u8>> {
    (0..=255).map(key).collect()
}

#[test]
fn a_range_delete_is_deletes_over_its_keys() {
    let keys = keys();
    for (config, ops, expected) in programs(6000, 16) {
        let ops = rewritten(&ops, |verb, _| match verb {
            Verb::DeleteRange(start, end) => {
                let within = keys.iter().filter(|key| start <= *key && *key < end);
                within.cloned().map(Verb::Delete).collect()
            }
            other => vec![other.clone()],
        });
        same(&expected, &in_memory(&config, &ops), "deletes for range deletes");
    }
}

#[test]
fn a_chain_of_merges_is_the_put_of_its_fold() {
    for (config, ops, expected) in programs(7000, 16) {
        let ops = rewritten(&ops, |verb, map| match verb {
            Verb::Merge(key, _) => {
                let mut map = map.clone();
                verb.apply(&mut map);
                vec![Verb::Put(key.clone(), map[key].clone())]
            }
            other => vec![other.clone()],
        });
        same(&expected, &in_memory(&config, &ops), "puts for merges");
    }
}

#[test]
fn a_batch_is_its_operations_one_by_one() {
    for (config, ops, expected) in programs(8000, 16) {
        let single = |op: &Op| match op {
            Op::Batch { changes, .. } => changes.iter().cloned().map(Op::Write).collect(),
            other => vec![other.clone()],
        };
        let ops: Vec<Op> = ops.iter().flat_map(single).collect();
        same(&expected, &in_memory(&config, &ops), "writes for batches");
    }
}

/// A get, a get of many keys, a reader and a seek find the same; a scan backwards is a scan reversed.
#[test]
fn every_way_to_read_finds_the_same() {
    for (config, ops, _) in programs(9000, 12) {
        let mut machine = Machine::new(config, Disk::memory());
        for (i, op) in ops.iter().enumerate() {
            machine.run(op);
            if i % 29 == 0 {
                read_in_every_way(&machine);
            }
        }
        read_in_every_way(&machine);
        machine.finish();
    }
}

fn read_in_every_way(machine: &Machine) {
    let db = machine.database();
    for family in machine.families() {
        let mut scan = db.scan(family, ..).unwrap();
        let (mut forward, mut backward) = (Vec::new(), Vec::new());
        while scan.next().unwrap() {
            forward.push((scan.key().to_vec(), scan.value().to_vec()));
        }
        while scan.prev().unwrap() {
            backward.push((scan.key().to_vec(), scan.value().to_vec()));
        }
        backward.reverse();
        assert_eq!(forward, backward);
        let keys = keys();
        let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut many = Vec::new();
        db.multi_get(family, &borrowed, |_, value| many.push(value.map(<[u8]>::to_vec))).unwrap();
        let mut reader = db.reader(family).unwrap();
        for (key, found) in keys.iter().zip(&many) {
            assert_eq!(db.get(family, key).unwrap(), *found);
            reader.get_with(key, |value| assert_eq!(value, found.as_deref())).unwrap();
            let sought = scan.seek(key).unwrap() && scan.key() == key.as_slice();
            assert_eq!(sought.then(|| scan.value().to_vec()), *found);
            let sought = scan.seek_for_prev(key).unwrap() && scan.key() == key.as_slice();
            assert_eq!(sought.then(|| scan.value().to_vec()), *found);
        }
        assert_eq!(many.iter().flatten().count(), forward.len());
    }
}
