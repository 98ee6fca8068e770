//! Checkpoints in a store: uploaded once, shared by reference, verified before use.
//!
//! The question this folder answers: *when does a checkpoint exist, and who may delete its files?*
//!
//! A checkpoint is an *envelope* and the *objects* it names. Objects are immutable, created once and
//! never replaced; the envelope is written last, so that it exists only if everything it names does.

pub mod format;
pub mod registry;
pub mod restore;
pub mod save;
pub mod store;

#[cfg(test)]
mod tests;
