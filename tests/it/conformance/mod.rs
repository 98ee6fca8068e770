//! Flink's own tests of state, by their names, against the public interface.

mod timers;
mod ttl;
