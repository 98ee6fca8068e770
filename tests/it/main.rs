//! One binary of integration tests, against the public interface.

mod basic;
mod layering;
mod model;
