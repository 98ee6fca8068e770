//! Workloads: what is done, as a list of operations that depend on a seed and their place alone, so
//! that a case can leave any of them out.

use alluvium::{Codec, ColumnFamilyOptions, MergeOperator, Options};
use alluvium_report::Rng;
use std::sync::Arc;

use crate::model::Map;

/// Families that workloads use; the third comes and goes.
pub const FAMILIES: [&str; 3] = ["a", "b", "c"];
/// Key groups of the keys.
pub const GROUPS: u16 = 8;
const SUFFIXES: u64 = 6;

/// A kind of operation; the numbers in [`Workload::weights`] stand in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Write,
    Batch,
    Update,
    Check,
    Snapshot,
    DropSnapshot,
    Flush,
    FlushAll,
    Compact,
    Create,
    Drop,
    Step,
    SyncWal,
    Close,
    Abandon,
    Begin,
    Save,
    GiveUp,
    Restore,
    Registry,
    SwitchLog,
}

const KINDS: [Kind; 21] = [
    Kind::Write,
    Kind::Batch,
    Kind::Update,
    Kind::Check,
    Kind::Snapshot,
    Kind::DropSnapshot,
    Kind::Flush,
    Kind::FlushAll,
    Kind::Compact,
    Kind::Create,
    Kind::Drop,
    Kind::Step,
    Kind::SyncWal,
    Kind::Close,
    Kind::Abandon,
    Kind::Begin,
    Kind::Save,
    Kind::GiveUp,
    Kind::Restore,
    Kind::Registry,
    Kind::SwitchLog,
];

/// One kind of life.
#[derive(Debug)]
pub struct Workload {
    pub name: &'static str,
    pub ops: usize,
    /// Small enough to try all subsets of what a power cut may leave.
    pub micro: bool,
    /// Whether the log is on; `None`: by the seed.
    pub log: Option<bool>,
    pub log_segment_bytes: u64,
    pub values_max: u64,
    weights: [u32; KINDS.len()],
}

pub const WORKLOADS: [Workload; 10] = [
    Workload {
        name: "kv",
        ops: 90,
        micro: false,
        log: Some(true),
        log_segment_bytes: 700,
        values_max: 300,
        //        wr  ba  up  ch sn ds fl fa co cr dr st  sy cl ab be sa gi re rg sw
        weights: [18, 14, 4, 2, 3, 2, 5, 2, 3, 2, 1, 14, 3, 2, 2, 0, 0, 0, 0, 0, 0],
    },
    Workload {
        name: "kv-nolog",
        ops: 70,
        micro: false,
        log: Some(false),
        log_segment_bytes: 700,
        values_max: 300,
        weights: [18, 14, 4, 2, 3, 2, 5, 3, 3, 2, 1, 14, 0, 6, 0, 0, 0, 0, 0, 0, 3],
    },
    Workload {
        name: "state",
        ops: 60,
        micro: false,
        log: Some(true),
        log_segment_bytes: 1500,
        values_max: 60,
        weights: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    },
    Workload {
        name: "manifest-swap",
        ops: 14,
        micro: true,
        log: None,
        log_segment_bytes: 700,
        values_max: 20,
        weights: [8, 0, 0, 0, 0, 0, 2, 2, 0, 4, 3, 1, 0, 6, 0, 0, 0, 0, 0, 0, 2],
    },
    Workload {
        name: "wal-rotate",
        ops: 30,
        micro: true,
        log: Some(true),
        log_segment_bytes: 120,
        values_max: 60,
        weights: [20, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 5, 0, 1, 0, 0, 0, 0, 0, 0],
    },
    Workload {
        name: "flush-race",
        ops: 30,
        micro: true,
        log: Some(true),
        log_segment_bytes: 300,
        values_max: 120,
        weights: [14, 8, 0, 0, 0, 0, 6, 1, 1, 0, 0, 10, 1, 0, 0, 1, 0, 0, 0, 0, 0],
    },
    Workload {
        name: "checkpoint-publish",
        ops: 24,
        micro: true,
        log: None,
        log_segment_bytes: 700,
        values_max: 60,
        weights: [12, 4, 0, 0, 0, 0, 1, 0, 1, 1, 0, 4, 0, 0, 0, 6, 6, 1, 0, 0, 0],
    },
    Workload {
        name: "restore",
        ops: 20,
        micro: true,
        log: None,
        log_segment_bytes: 700,
        values_max: 60,
        weights: [10, 3, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 0, 0, 0, 4, 4, 0, 5, 0, 0],
    },
    Workload {
        name: "gc",
        ops: 30,
        micro: true,
        log: None,
        log_segment_bytes: 700,
        values_max: 60,
        weights: [10, 3, 0, 0, 0, 0, 1, 0, 2, 0, 0, 2, 0, 0, 0, 7, 7, 1, 0, 3, 0],
    },
    Workload {
        name: "reopen-storm",
        ops: 16,
        micro: true,
        log: Some(true),
        log_segment_bytes: 400,
        values_max: 40,
        weights: [8, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 1, 2, 10, 0, 0, 0, 0, 0, 0],
    },
];

impl Workload {
    pub fn named(name: &str) -> Option<&'static Workload> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }

    pub fn options(&self, seed: u64, log: bool) -> Options {
        Options {
            log,
            log_segment_bytes: self.log_segment_bytes,
            sync: log && seed % 8 == 5,
            immutables_max: 2 + (seed % 3) as usize,
            ..Options::default()
        }
    }

    /// Is the log on at first?
    pub fn log(&self, seed: u64) -> bool {
        self.log.unwrap_or(!seed.is_multiple_of(3))
    }

    /// Keyed state: its operations are those of [`keyed`](crate::keyed).
    pub fn is_keyed(&self) -> bool {
        self.name == "state"
    }

    /// Are checkpoints saved to a store?
    pub fn has_store(&self) -> bool {
        let save = KINDS.iter().position(|kind| *kind == Kind::Save).expect("a kind");
        self.weights[save] > 0
    }

    pub fn op(&self, seed: u64, place: usize) -> Op {
        let mut rng = Rng::of(seed, place as u64 + 1);
        let kind = KINDS[rng.weighted(&self.weights)];
        let count = match kind {
            Kind::Write => 1,
            Kind::Batch => rng.below(6),
            _ => 0,
        };
        let number = place as u64 * 100;
        let writes = (0..count).map(|i| Write::new(&mut rng, number + i, self.values_max));
        let writes = writes.collect();
        Op { kind, writes, choice: rng.next_u64(), number }
    }
}

/// One operation. What `choice` chooses depends on what there is.
#[derive(Clone, Debug)]
pub struct Op {
    pub kind: Kind,
    pub writes: Vec<Write>,
    pub choice: u64,
    pub number: u64,
}

/// One operation of a batch. `family` chooses among those that exist.
#[derive(Clone, Debug)]
pub struct Write {
    pub family: u64,
    pub change: Change,
}

#[derive(Clone, Debug)]
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
}

impl Write {
    pub fn new(rng: &mut Rng, number: u64, values_max: u64) -> Write {
        let family = rng.next_u64() >> 8;
        let key = key(rng);
        let change = match rng.below(20) {
            0..=8 => Change::Put(key, value(rng, number, values_max)),
            9..=12 => Change::Delete(key),
            13 => {
                let end = self::key(rng);
                Change::DeleteRange(key.clone().min(end.clone()), key.max(end))
            }
            _ => Change::Merge(key, format!(",{number}").into_bytes()),
        };
        Write { family, change }
    }
}

impl Change {
    /// Does it write nothing?
    pub fn is_empty(&self) -> bool {
        matches!(self, Change::DeleteRange(start, end) if start >= end)
    }

    pub fn apply(&self, map: &mut Map) {
        match self {
            Change::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Change::Delete(key) => drop(map.remove(key)),
            Change::DeleteRange(start, end) => map.retain(|key, _| key < start || key >= end),
            Change::Merge(key, operand) => map.entry(key.clone()).or_default().extend(operand),
        }
    }
}

pub fn key(rng: &mut Rng) -> Vec<u8> {
    vec![0, rng.below(u64::from(GROUPS)) as u8, b'k', rng.below(SUFFIXES) as u8]
}

/// A value that no other write has.
pub fn value(rng: &mut Rng, number: u64, values_max: u64) -> Vec<u8> {
    let mut value = format!("v{number}.").into_bytes();
    value.resize(value.len() + rng.below(values_max + 1) as usize, b'a' + (number % 26) as u8);
    value
}

/// Every key that is ever used, and some beside them.
pub fn all_keys() -> Vec<Vec<u8>> {
    let mut keys = vec![vec![0], vec![0, 0], vec![0, 1, b'k', 1, 0], vec![0xff; 3]];
    for group in 0..GROUPS as u8 {
        keys.extend((0..SUFFIXES as u8).map(|suffix| vec![0, group, b'k', suffix]));
    }
    keys.sort();
    keys
}

/// Appends operands, each of which begins with a comma, so that their order shows.
pub struct Comma;

impl MergeOperator for Comma {
    fn name(&self) -> &str {
        "sim.comma"
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> alluvium::Result<()> {
        out.extend_from_slice(base.unwrap_or_default());
        operands.iter().for_each(|operand| out.extend_from_slice(operand));
        Ok(())
    }

    fn concatenates(&self) -> bool {
        true
    }
}

/// Small tables and shallow levels, so that little data goes everywhere.
pub fn family_options(seed: u64, name: &str) -> ColumnFamilyOptions {
    let mut rng = Rng::of(seed, u64::from(name.as_bytes()[0]) << 32);
    let codec = rng.pick(&[Codec::None, Codec::None, Codec::Zstd]);
    ColumnFamilyOptions {
        memtable_bytes_max: rng.pick(&[4 << 10, 4 << 10, 6 << 10]),
        block_bytes: rng.pick(&[64, 256, 1024]),
        restart_interval: rng.pick(&[1, 4, 16]),
        codecs: [codec; alluvium::limits::LEVELS],
        filter_bits_per_key: rng.pick(&[0, 10]),
        key_group_bytes: 2,
        l0_depth_trigger: rng.pick(&[1, 2, 3]),
        level_bytes_base: rng.pick(&[512, 4 << 10]),
        level_multiplier: 2,
        file_bytes: rng.pick(&[512, 2 << 10]),
        merge_operator: Some(Arc::new(Comma)),
        l0_scan_bytes: rng.pick(&[0, 64, 1 << 10]),
        ..ColumnFamilyOptions::default()
    }
}
