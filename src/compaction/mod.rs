//! Flush and compaction: what is rewritten when, and what may be dropped on the way.
//!
//! The question this folder answers: *which versions of a key does nobody need any more?*
//! [`iter`] answers it, for flush and compaction alike; [`picker`] chooses what to merge and [`expired`] what is dropped unread, [`job`] and
//! [`flush`] do it in steps, and large ones in [`parts`], writing through [`output`].
//!
//! Jobs are values. They know nothing of locks or threads: the owner picks under its lock, claims
//! (see [`busy::Busy`]), steps the job where it likes, applies the edit, and releases the claim.

pub mod below;
pub mod busy;
mod cluster;
pub mod expired;
pub mod filter;
pub mod flush;
mod fold;
pub mod iter;
pub mod job;
pub mod manual;
pub mod output;
pub mod parts;
pub mod picker;
