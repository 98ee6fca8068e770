//! Crashes, damage and epochs.
