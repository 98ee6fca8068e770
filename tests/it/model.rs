//! Random programs over everything the engine can do, against plain maps.
//!
//! The machine that runs them is `src/fuzz/model/`, which the fuzz target `model` runs too: writes of
//! every kind over families that are created and dropped, snapshots and scans that stay open across
//! all of it, checkpoints that are completed later, saved, restored and rescaled, failing disks,
//! clean ends, dead processes and power cuts. Options are random too, and background work is done
//! step by step in an order that the program decides.
#![allow(clippy::disallowed_methods, reason = "reads the sources")]

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use alluvium::fuzz::model::{Config, Disk, Machine, OP_BYTES, Op};
use quickcheck::{Arbitrary, Gen, QuickCheck};

/// Options and operations, as bytes: shrinking leaves out operations, and makes bytes zero.
#[derive(Clone)]
struct Program {
    options: u64,
    ops: Vec<[u8; OP_BYTES]>,
}

impl Program {
    fn ops(&self) -> Vec<Op> {
        self.ops.iter().zip(1..).map(|(bytes, number)| Op::decode(*bytes, number)).collect()
    }

    fn run(&self) {
        let mut machine = Machine::new(Config::draw(self.options), Disk::memory());
        self.ops().iter().for_each(|op| machine.run(op));
        machine.finish();
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:?}", Config::draw(self.options))?;
        for op in self.ops() {
            writeln!(f, "{op:?}")?;
        }
        write!(f, "ALLUVIUM_REPLAY='{:x}", self.options)?;
        self.ops.iter().try_for_each(|bytes| write!(f, " {:x}", u64::from_be_bytes(*bytes)))?;
        write!(f, "'")
    }
}

impl Arbitrary for Program {
    fn arbitrary(g: &mut Gen) -> Program {
        let len = 20 + usize::arbitrary(g) % 280;
        let ops = (0..len).map(|_| u64::arbitrary(g).to_be_bytes()).collect();
        Program { options: u64::arbitrary(g), ops }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Program>> {
        let options = self.options;
        let (len, ops) = (self.ops.len(), self.ops.clone());
        let sizes = std::iter::successors(Some(len / 2), |size| Some(size / 2));
        let cuts = sizes.take_while(|size| *size > 0).flat_map(move |size| {
            (0..len).step_by(size).map(move |start| start..(start + size).min(len))
        });
        let fewer = ops.clone();
        let fewer = cuts.map(move |cut| {
            let mut ops = fewer.clone();
            ops.drain(cut);
            Program { options, ops }
        });
        let simpler = (0..len * OP_BYTES).filter_map(move |at| {
            let mut ops = ops.clone();
            let byte = &mut ops[at / OP_BYTES][at % OP_BYTES];
            (std::mem::take(byte) > 0).then_some(Program { options, ops })
        });
        Box::new(fewer.chain(simpler))
    }
}

fn holds(program: Program) -> bool {
    program.run();
    true
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Runs the program that a failure has printed, if it is handed in.
#[test]
fn replays() {
    let Ok(text) = std::env::var("ALLUVIUM_REPLAY") else { return };
    let mut numbers = text.split(' ').map(|n| u64::from_str_radix(n, 16).expect("a number"));
    let options = numbers.next().expect("options");
    let program = Program { options, ops: numbers.map(u64::to_be_bytes).collect() };
    let mut machine = Machine::new(Config::draw(options), Disk::memory());
    for op in program.ops() {
        println!("{op:?}");
        machine.run(&op);
    }
    machine.finish();
}

#[test]
fn programs_do_what_plain_maps_do() {
    let random = Gen::from_size_and_seed(200, setting("ALLUVIUM_SEED", 1));
    let mut check = QuickCheck::new().rng(random).tests(setting("ALLUVIUM_PROGRAMS", 1000));
    check.quickcheck(holds as fn(Program) -> bool);
}

#[test]
fn every_operation_is_drawn() {
    let drawn = |kind: u8| Op::decode([kind, 1, 2, 3, 4, 5, 6, 7], 1).name();
    let drawn: BTreeSet<String> = (0..=255).map(drawn).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuzz/model/op.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let declared = source.split("pub enum Op {").nth(1).unwrap().split("\n}").next().unwrap();
    let names = declared.lines().filter_map(|line| line.trim().split([' ', '(', ',']).next());
    let declared: BTreeSet<String> = names.filter(|n| !n.is_empty()).map(str::to_owned).collect();
    assert_eq!(drawn, declared);
    assert!(declared.len() > 30, "{declared:?}");
}

/// The public functions in the `impl` block of a type.
fn functions(source: &str, of: &str) -> Vec<String> {
    let block = source.split(&format!("\nimpl {of} {{\n")).nth(1).expect("an impl block");
    let block = block.split("\n}\n").next().expect("its end");
    let names = block.lines().filter_map(|line| line.strip_prefix("    pub fn "));
    names.map(|line| line.split(['(', '<']).next().expect("a name").to_owned()).collect()
}

/// A call that the model does not make is a call that nothing checks beside all others.
#[test]
fn every_call_of_the_interface_is_in_the_model() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: &str| std::fs::read_to_string(src.join(file)).unwrap();
    let parts = std::fs::read_dir(src.join("fuzz/model")).unwrap();
    let model: String =
        parts.map(|part| std::fs::read_to_string(part.unwrap().path()).unwrap()).collect();
    let model: String = model.split_whitespace().collect();
    for (file, of, receivers) in [
        ("db/mod.rs", "Db", &["self.db().", "db.", "Db::"][..]),
        ("db/get.rs", "Reader", &["reader."]),
        ("db/writer.rs", "Writer", &["writer."]),
        ("db/scan.rs", "Scan", &["scan."]),
        ("db/snapshot.rs", "Snapshot", &["snapshot."]),
        ("db/file_set.rs", "PendingCheckpoint", &["pending."]),
        ("db/column_family.rs", "ColumnFamily", &["family.", "handle."]),
    ] {
        let functions = functions(&read(file), of);
        assert!(!functions.is_empty(), "{of} has functions");
        for function in functions {
            let called = |receiver: &&str| model.contains(&format!("{receiver}{function}("));
            assert!(receivers.iter().any(called), "the model never calls {of}::{function}");
        }
    }
}
