//! Which files are live: their descriptions, the edits that change the set, the manifest that keeps
//! the edits, and the handles whose last owner removes a file.
//!
//! The question this folder answers: *which files, read in which order, are the database?*
//!
//! Opening is [`manifest::recover`], a look at what was found, and [`manifest::Recovered::start_epoch`].
//! A change is [`manifest::ManifestWriter::append`] under the manifest mutex and, still holding it,
//! [`set::VersionSet::install`] under the versions mutex.

pub mod current;
pub mod edit;
pub mod file;
pub mod kept;
pub mod level_iter;
pub mod levels;
pub mod manifest;
pub mod meta;
pub mod names;
pub mod set;
pub mod state;
#[allow(clippy::module_inception)]
pub mod version;

#[cfg(test)]
mod tests;
