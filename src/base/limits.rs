//! Every limit of the engine, with its reason. DESIGN.md § limits repeats this table.

/// Longest user key in bytes: a block's shared-prefix lengths and a filter probe stay cheap.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest value or merge operand in bytes, unless an option raises it.
pub const VALUE_BYTES_MAX: usize = 32 << 20;
/// `combine` folds merge operands up to chunks of this size and no further, so that a long list never
/// becomes one giant value on its way through compactions.
pub const COMBINE_BYTES_MAX: usize = 1 << 20;
/// Largest write batch, and largest group of one commit, in encoded bytes.
pub const BATCH_BYTES_MAX: usize = 128 << 20;
/// Most column families of a database.
pub const FAMILIES_MAX: usize = 4096;
/// Longest name of a column family in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Levels of the tree.
pub const LEVELS: usize = 7;
/// No single allocation while decoding foreign bytes exceeds this, unless the value limit was raised.
pub const DECODE_BYTES_MAX: usize = 64 << 20;
/// Largest envelope of a checkpoint in bytes: it is read and checked as a whole.
pub const ENVELOPE_BYTES_MAX: usize = 256 << 20;
/// Largest number of key groups (Flink's upper bound of the maximum parallelism).
pub const KEY_GROUPS_MAX: u32 = 1 << 15;
