//! One binary of integration tests, against the public interface.

mod allocation;
mod basic;
mod crash;
mod db_review;
mod formats;
mod fuzz_replay;
mod layering;
mod model;
