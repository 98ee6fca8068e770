//! One binary of integration tests, against the public interface.

mod basic;
mod crash;
mod db_review;
mod layering;
mod model;
