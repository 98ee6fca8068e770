//! Memory as one shared quantity: who holds how much of it, and who gives it back.
//!
//! The question this folder answers: *is there room, and if not, whose turn is it to make some?*

pub mod block_cache;
pub mod budget;
pub mod row_cache;
