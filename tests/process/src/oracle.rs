//! Every batch that a writer ever writes follows from a seed, its number and its place; and so does
//! every state.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    Background, ColumnFamily, ColumnFamilyOptions, Db, Env, ListAppend, MemoryBudget, Options,
    Result, WriteBatch,
};
use alluvium_report::Rng;

/// One family takes puts and deletes, one merges, one both and range deletes.
pub const FAMILIES: [&str; 3] = ["plain", "lists", "mixed"];

/// Keys of one writer in one family.
const KEYS: u64 = 300;

/// One operation.
#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Batch `n` of a writer: its number, under a key of its own, and a few operations, by family.
pub struct Batch {
    ops: Vec<(usize, Op)>,
    /// Is it written with a sync?
    pub sync: bool,
}

fn key(writer: u8, i: u64) -> Vec<u8> {
    format!("{writer} key {i:04}").into_bytes()
}

/// Where a writer keeps the number of its last batch.
fn number_key(writer: u8) -> Vec<u8> {
    format!("{writer} number").into_bytes()
}

impl Batch {
    pub fn new(seed: u64, writer: u8, n: u64) -> Batch {
        let mut rng = Rng::of(seed ^ u64::from(writer) << 56, n);
        let number = n.to_be_bytes().to_vec();
        let mut ops = vec![(0, Op::Put(number_key(writer), number))];
        for _ in 0..1 + rng.below(5) {
            let family = rng.below(3) as usize;
            let key_of = |i| key(writer, i);
            let (i, len) = (rng.below(KEYS), rng.below(60) as usize + 1);
            // Elements of lists are behind their length; lists must not grow for ever.
            let element = [&[len as u8][..], &vec![b'a' + (n % 26) as u8; len]].concat();
            let op = match (family, rng.below(10)) {
                (1, 0..=6) | (2, 0..=3) => Op::Merge(key_of(i), element),
                (2, 4) => Op::DeleteRange(key_of(i), key_of(i + 1 + rng.below(40))),
                (_, 0..=7) => Op::Put(key_of(i), element),
                _ => Op::Delete(key_of(i)),
            };
            ops.push((family, op));
        }
        if n.is_multiple_of(3) {
            let i = n / 3 % KEYS;
            ops.push((1, Op::Delete(key(writer, i))));
            ops.push((2, Op::Delete(key(writer, i))));
        }
        Batch { ops, sync: rng.below(25) == 0 }
    }

    pub fn encode(&self, families: &[ColumnFamily]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (family, op) in &self.ops {
            let family = &families[*family];
            match op {
                Op::Put(key, value) => batch.put(family, key, value),
                Op::Delete(key) => batch.delete(family, key),
                Op::Merge(key, operand) => batch.merge(family, key, operand),
                Op::DeleteRange(start, end) => batch.delete_range(family, start, end),
            }
        }
        batch
    }
}

/// What is in a database whose writers have written so many batches each.
#[derive(Clone)]
pub struct Model {
    seed: u64,
    /// Batches of each writer.
    pub written: Vec<u64>,
    state: [BTreeMap<Vec<u8>, Vec<u8>>; 3],
}

impl Model {
    pub fn new(seed: u64, writers: u8) -> Model {
        Model { seed, written: vec![0; usize::from(writers)], state: Default::default() }
    }

    /// What all its batches follow from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Applies a writer's batches up to number `n`.
    pub fn advance(&mut self, writer: u8, n: u64) {
        let written = &mut self.written[usize::from(writer)];
        for n in *written + 1..=n {
            for (family, op) in Batch::new(self.seed, writer, n).ops {
                let state = &mut self.state[family];
                match op {
                    Op::Put(key, value) => drop(state.insert(key, value)),
                    Op::Delete(key) => drop(state.remove(&key)),
                    Op::Merge(key, operand) => state.entry(key).or_default().extend(operand),
                    Op::DeleteRange(start, end) => {
                        state.retain(|key, _| *key < start || *key >= end)
                    }
                }
            }
            *written = n;
        }
    }

    /// Is this what the database holds? Reads all of it, forward and backward, and some keys.
    pub fn compare(&self, db: &Db, families: &[ColumnFamily]) -> std::result::Result<(), String> {
        for (name, (family, state)) in FAMILIES.iter().zip(families.iter().zip(&self.state)) {
            let failed = |e| format!("family {name}: {e}");
            let mut scan = db.scan(family, ..).map_err(failed)?;
            let mut found = BTreeMap::new();
            while scan.next().map_err(failed)? {
                found.insert(scan.key().to_vec(), scan.value().to_vec());
            }
            let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            for key in found.keys().chain(state.keys()) {
                if found.get(key) != state.get(key) {
                    let (found, right) = (found.get(key), state.get(key));
                    let key = text(key);
                    return Err(format!("family {name}, {key}: found {found:?}, not {right:?}"));
                }
            }
            for (key, value) in found.iter().rev() {
                let more = scan.prev().map_err(failed)?;
                if !more || (scan.key(), scan.value()) != (&**key, &**value) {
                    return Err(format!(
                        "family {name}: backwards it is different at {}",
                        text(key)
                    ));
                }
            }
            for (key, value) in found.iter().step_by(37) {
                if db.get(family, key).map_err(failed)?.as_ref() != Some(value) {
                    return Err(format!(
                        "family {name}: a get differs from a scan at {}",
                        text(key)
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Small memtables, segments and tables, so that everything happens often.
pub fn open(dir: &Path, background: Background) -> Result<(Db, Vec<ColumnFamily>)> {
    let options = Options {
        log_segment_bytes: 96 << 10,
        log_segments_max: 2,
        stall_ms_max: 20_000,
        ..Options::default()
    };
    let env = Env::new(MemoryBudget::new(16 << 20)).with_background(background);
    open_in(dir, options, env)
}

/// [`open`], in an environment.
pub fn open_in(dir: &Path, options: Options, env: Env) -> Result<(Db, Vec<ColumnFamily>)> {
    let db = Db::open(dir, options, env)?;
    let family = |name| {
        let options = ColumnFamilyOptions {
            memtable_bytes_max: 64 << 10,
            block_bytes: 1 << 10,
            level_bytes_base: 128 << 10,
            file_bytes: 64 << 10,
            merge_operator: (name != FAMILIES[0]).then(|| Arc::new(ListAppend) as Arc<_>),
            ..ColumnFamilyOptions::default()
        };
        db.column_family(name, options)
    };
    let families = FAMILIES.into_iter().map(family).collect::<Result<Vec<_>>>()?;
    Ok((db, families))
}

/// The number of a writer's last batch in the database.
pub fn number(db: &Db, families: &[ColumnFamily], writer: u8) -> Result<u64> {
    let found = db.get(&families[0], &number_key(writer))?;
    Ok(found.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes"))))
}
