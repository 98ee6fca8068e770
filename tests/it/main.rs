//! One binary of integration tests, against the public interface.

mod basic;
mod crash;
mod layering;
mod model;
