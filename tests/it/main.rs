//! One binary of integration tests, against the public interface.

mod basic;
mod crash;
mod db_review;
mod formats;
mod layering;
mod model;
