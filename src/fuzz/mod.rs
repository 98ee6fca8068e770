//! What the fuzz targets call: every decoder that reads foreign bytes, and a model of the whole.
//!
//! The question this folder answers: *does any input, from any hand, make the engine panic, run away
//! or contradict itself?* Each target takes bytes and returns, or panics because something is wrong.
//! `fuzz/fuzz_targets/` hands them to libFuzzer; `tests/it/fuzz_replay.rs` replays the corpus and
//! mutations of it on stable. Compiled for tests only.

mod checkpoints;
mod directory;
mod files;
pub mod keyed;
pub mod model;
mod parts;
mod pieces;
mod repair;
mod seeds;
mod state;

pub use crate::fuzz::repair::table as repair_table;
pub use crate::fuzz::seeds::seeds;

/// The names of all targets.
pub const TARGETS: [&str; 27] = [
    "batch",
    "block",
    "cell",
    "checkpoints",
    "current",
    "directory",
    "edit",
    "envelope",
    "filter",
    "import",
    "inspect",
    "keyed",
    "log",
    "manifest",
    "model",
    "name",
    "options",
    "packed",
    "patch",
    "postcard",
    "properties",
    "segments",
    "state",
    "store",
    "table",
    "timer",
    "ttl",
];

/// How long a target takes for one input, about, in inputs of a decoder: some run whole databases, or
/// whole jobs. Who has little time divides by it.
pub fn cost(name: &str) -> u64 {
    match name {
        "keyed" => 300,
        "checkpoints" => 60,
        "directory" | "model" | "patch" => 10,
        "import" | "store" => 5,
        _ => 1,
    }
}

/// Longest input that the targets look at: what is found beyond is found below.
const INPUT_BYTES_MAX: usize = 1 << 20;

/// Hands `bytes` to a target. Formats with checksums are tried twice: as they are, and with the
/// checksums made right, so that what lies behind them is reached.
///
/// # Panics
/// If the engine does, or if what it answers is inconsistent. For a name that is not in [`TARGETS`].
pub fn target(name: &str, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(INPUT_BYTES_MAX)];
    match name {
        "batch" => parts::batch(bytes),
        "block" => parts::block(bytes),
        "cell" => state::cell(bytes),
        "checkpoints" => checkpoints::run(bytes),
        "current" => parts::current(bytes),
        "directory" => directory::directory(bytes),
        "edit" => parts::edit(bytes),
        "envelope" => parts::envelope(bytes),
        "filter" => pieces::filter(bytes),
        "import" => directory::import(bytes),
        "inspect" => files::inspect(bytes),
        "keyed" => drop(keyed::run(&keyed::Program::decode(bytes))),
        "log" => files::log(bytes),
        "manifest" => files::manifest(bytes),
        "model" => model::run(bytes),
        "name" => pieces::name(bytes),
        "options" => pieces::options(bytes),
        "packed" => pieces::packed(bytes),
        "patch" => directory::patch(bytes),
        "postcard" => state::postcard(bytes),
        "properties" => pieces::properties(bytes),
        "segments" => directory::segments(bytes),
        "state" => parts::state(bytes),
        "store" => directory::store(bytes),
        "table" => files::table(bytes),
        "timer" => state::timer(bytes),
        "ttl" => state::ttl(bytes),
        _ => panic!("no target {name}"),
    }
}
