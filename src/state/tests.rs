//! What the tests of several files need.

use crate::FileSet;
use crate::ImportFamily;
use crate::ImportSource;
use crate::state::key_group::KeyGroupRange;

/// These key groups of a file set, as a source of an import.
pub(in crate::state) fn source(set: &FileSet, groups: KeyGroupRange) -> ImportSource {
    let families = set.families().iter().map(|family| ImportFamily::of(set, family).unwrap());
    ImportSource { seqno: set.seqno(), clip: groups.key_range(), families: families.collect() }
}
