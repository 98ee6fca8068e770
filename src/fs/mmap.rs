//! Mapped table files.
