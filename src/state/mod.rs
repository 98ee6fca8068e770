//! Keyed state for stream processors, as an ordinary user of the engine.
//!
//! The question this folder answers: *which Flink state becomes which keys, values and operations?*
//!
//! | state | key | operations |
//! |---|---|---|
//! | value, reducing, aggregating | group ‖ key ‖ namespace | get, put, delete, update |
//! | list | the same | merge, with [`list::ListAppend`] |
//! | map | the same ‖ user key | get, put, scan of a prefix; clear by deletes or one range delete |
//! | timers | group ‖ time ‖ key ‖ namespace | put, delete, scan in the order of time |
//!
//! Every key begins with its *key group*, two bytes big-endian, so that a range of key groups is a
//! range of keys, and giving state to another operator instance is a clip. [`key_group`] says which
//! group a key belongs to, exactly as Flink does; [`key`] composes keys; [`serializer`] turns values
//! into bytes and back, [`evolution`] tells whether others can take their place, and [`migration`]
//! writes state anew. [`window`] is a namespace.
//! [`backend`] is the whole, set up by [`options`]; [`value`], [`list`], [`reducing`], [`aggregating`]
//! and [`map`] are the handles, which [`registration`] makes and which share [`cell`], [`change`] and
//! the [`current_key`];
//! [`timer`] is what is to be done later; [`ttl`] is how values expire; [`meta`] remembers which states
//! there are; [`snapshot`] shows them as they were, [`batch`] writes several at once, [`rollback`]
//! returns them to a checkpoint, and [`rescale`] divides them anew. State that belongs to no key is
//! [`operator`] state, and [`operator_snapshot`] is what a checkpoint has of it.

pub mod aggregating;
pub mod backend;
pub mod batch;
pub mod cell;
pub mod change;
pub mod current_key;
pub mod evolution;
pub mod key;
pub mod key_group;
pub mod keys;
pub mod list;
pub mod map;
pub mod meta;
pub mod migration;
pub mod operator;
pub mod operator_snapshot;
pub mod options;
#[cfg(feature = "serde")]
pub mod postcard;
pub mod reducing;
pub mod registration;
pub mod rescale;
pub mod rollback;
pub mod serializer;
pub mod snapshot;
pub mod timer;
pub mod ttl;
pub mod value;
pub mod window;

#[cfg(test)]
mod tests;
