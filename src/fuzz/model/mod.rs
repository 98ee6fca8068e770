//! Programs of operations, run on a database and on plain maps. Everything that a reader can see must
//! be equal, at every moment, after every fault and every crash.
//!
//! One generator, nothing switched off: a program is options and operations, both made of bytes, so
//! that a fuzzer, a property and a metamorphic relation can all write them. Reading order: `plain.rs`
//! (what is expected), `op.rs` (what may be done), `config.rs` (with which options), `machine.rs`
//! (how it is done and judged), `reads.rs`, `sets.rs` (checkpoints), `faults.rs` (ends and crashes).

mod config;
mod faults;
mod machine;
mod op;
mod plain;
mod reads;
mod sets;

pub use crate::fuzz::model::config::Config;
pub use crate::fuzz::model::machine::Disk;
pub use crate::fuzz::model::machine::Machine;
pub use crate::fuzz::model::op::KEY_GROUPS;
pub use crate::fuzz::model::op::OP_BYTES;
pub use crate::fuzz::model::op::Op;
pub use crate::fuzz::model::op::key;
pub use crate::fuzz::model::plain::Change;
pub use crate::fuzz::model::plain::FAMILIES;
pub use crate::fuzz::model::plain::Verb;

/// Bytes of a program before its operations: the bits of its options.
const CONFIG_BYTES: usize = 8;

/// Most operations of a program.
const OPS_MAX: usize = 400;

/// The program that these bytes stand for. What is too short for an operation is left out.
pub fn decode(bytes: &[u8]) -> (Config, Vec<Op>) {
    let (config, ops) = bytes.split_at(bytes.len().min(CONFIG_BYTES));
    let mut bits = [0; CONFIG_BYTES];
    bits[..config.len()].copy_from_slice(config);
    let chunks = ops.chunks_exact(OP_BYTES).take(OPS_MAX).zip(1..);
    let decode =
        |(chunk, number): (&[u8], u32)| Op::decode(chunk.try_into().expect("exact chunks"), number);
    (Config::draw(u64::from_le_bytes(bits)), chunks.map(decode).collect())
}

/// Runs the program of these bytes, in memory.
///
/// # Panics
/// If the database and the maps differ.
pub fn run(bytes: &[u8]) {
    let (config, ops) = decode(bytes);
    let mut machine = Machine::new(config, Disk::memory());
    ops.iter().for_each(|op| machine.run(op));
    machine.finish();
}
