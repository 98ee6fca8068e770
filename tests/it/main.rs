//! One binary of integration tests, against the public interface.

mod allocation;
mod basic;
mod concurrency;
mod conformance;
mod corruption;
mod crash;
mod crash_state;
mod db_review;
mod durability;
mod formats;
mod fuzz_replay;
mod layering;
mod metamorphic;
mod model;
mod pins;
mod refusals;
mod rescale;
mod salvage;
mod state_model;
