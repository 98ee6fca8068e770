//! What tables hold of each key group: counted when a checkpoint is saved, compared when its tables
//! become a database again.
//!
//! Entries are counted as they lie in the tables, all versions and deletes included, and hashed so
//! that order does not matter. So the counts of all tables can be added up; whoever restores a range
//! of key groups must arrive at the same sums, however many databases the range comes from or goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::coding::{Decoder, put_u64, put_varint};
use crate::base::error::{Error, Result};
use crate::base::format::{Layout, field};
use crate::base::key::KeyRange;
use crate::table::{KeyGroupCount, Properties};

/// Bytes of the prefix of a key that is its group.
const PREFIX_BYTES: u8 = 2;

/// F4.4 as a table.
pub const LAYOUT: Layout = Layout {
    id: "F4.4",
    title: "Census of a family: repeated for each key group, ascending",
    fields: &[
        field("0", "v", "group", "key group"),
        field("", "v", "entries", "entries in all tables, whatever they mean"),
        field("", "8", "hash", "wrapping sum of the hashes of these entries"),
    ],
};

/// Counts of some tables of one family.
#[derive(Clone, Debug, Default)]
pub(in crate::db) struct Census {
    /// Entries and hashes by group.
    groups: BTreeMap<u16, (u64, u64)>,
    /// Groups that a table's bounds cut in two: what is inside cannot be told from what is not.
    cut: BTreeSet<u16>,
    /// The tables so far.
    paths: Vec<PathBuf>,
    /// Of which of them the counts are, by group.
    tables: BTreeMap<u16, Vec<usize>>,
    /// A table that does not count.
    uncounted: Option<PathBuf>,
}

/// The keys of a group.
fn keys_of(group: u16) -> KeyRange {
    KeyRange::prefix(&group.to_be_bytes())
}

impl Census {
    /// Adds a table that is asked for `bounds`.
    pub fn add(&mut self, path: &Path, bounds: &KeyRange, properties: &Properties) {
        if properties.key_group_bytes != PREFIX_BYTES {
            self.uncounted = Some(path.to_owned());
            return;
        }
        let whole = bounds.covers(&properties.bounds);
        let table = self.paths.len();
        self.paths.push(path.to_owned());
        for count in &properties.key_groups {
            let inside = || properties.bounds.intersect(&keys_of(count.group));
            if whole || bounds.covers(&inside()) {
                let sum = self.groups.entry(count.group).or_default();
                *sum = (sum.0.wrapping_add(count.entries), sum.1.wrapping_add(count.hash));
                self.tables.entry(count.group).or_default().push(table);
            } else if bounds.overlaps(&inside()) {
                self.cut.insert(count.group);
            }
        }
    }

    /// The stored form (F4.4). Empty if there are entries of which nothing is known.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.uncounted.is_some() {
            return out;
        }
        for (group, (entries, hash)) in &self.groups {
            if !self.cut.contains(group) {
                put_varint(&mut out, u64::from(*group));
                put_varint(&mut out, *entries);
                put_u64(&mut out, *hash);
            }
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corruption`.
    pub fn decode(bytes: &[u8]) -> Result<Vec<KeyGroupCount>> {
        let mut d = Decoder::new(bytes);
        let mut counts: Vec<KeyGroupCount> = Vec::new();
        while !d.is_empty() {
            let before = d.clone();
            let group = d.varint()?;
            let group = u16::try_from(group).map_err(|_| before.error("no key group"))?;
            if counts.last().is_some_and(|last| last.group >= group) {
                return Err(before.error("key groups are not ascending"));
            }
            counts.push(KeyGroupCount { group, entries: d.varint()?, hash: d.u64()? });
        }
        Ok(counts)
    }

    /// Compares these counts, of the tables that are asked for keys in `clip`, with those that were
    /// recorded, for every group that is wholly inside.
    ///
    /// # Errors
    /// `Corruption`, naming the family, the group and the tables that hold it.
    pub fn check(&self, family: &str, clip: &KeyRange, recorded: &[KeyGroupCount]) -> Result<()> {
        if recorded.is_empty() {
            return Ok(());
        }
        if let Some(path) = &self.uncounted {
            let text = format!("a table of family {family:?} does not count its key groups");
            return Err(Error::corruption(text).at(0).in_file(path));
        }
        let recorded: BTreeMap<u16, (u64, u64)> =
            recorded.iter().map(|count| (count.group, (count.entries, count.hash))).collect();
        let groups: BTreeSet<u16> = recorded.keys().chain(self.groups.keys()).copied().collect();
        for group in groups.difference(&self.cut) {
            let (expected, found) = (recorded.get(group), self.groups.get(group));
            if clip.covers(&keys_of(*group)) && expected != found {
                return Err(self.differs(family, *group, expected, found));
            }
        }
        Ok(())
    }

    #[cold]
    fn differs(
        &self,
        family: &str,
        group: u16,
        expected: Option<&(u64, u64)>,
        found: Option<&(u64, u64)>,
    ) -> Error {
        let shown = |sum: Option<&(u64, u64)>| {
            let (entries, hash) = sum.copied().unwrap_or_default();
            format!("{entries} entries with hash {hash:016x}")
        };
        let tables = self.tables.get(&group).map_or(&[][..], Vec::as_slice);
        let paths: Vec<&PathBuf> = tables.iter().map(|table| &self.paths[*table]).collect();
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let text = format!(
            "key group {group} of family {family:?} has {} where {} were saved; its tables are [{}]",
            shown(found),
            shown(expected),
            names.join(", ")
        );
        let error = Error::corruption(text).at(0);
        match paths.first() {
            Some(path) => error.in_file(path),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;

    fn properties(bounds: KeyRange, groups: &[(u16, u64, u64)]) -> Properties {
        let groups = groups.iter();
        let count = |&(group, entries, hash)| KeyGroupCount { group, entries, hash };
        let key_groups = groups.map(count).collect();
        Properties { key_group_bytes: 2, bounds, key_groups, ..Properties::default() }
    }

    fn range(first: u16, end: u16) -> KeyRange {
        KeyRange::new(first.to_be_bytes(), Some(end.to_be_bytes()))
    }

    #[test]
    fn sums_of_parts_are_those_of_the_whole() {
        let one = properties(range(0, 4), &[(0, 3, 7), (3, 1, u64::MAX)]);
        let two = properties(range(3, 6), &[(3, 2, 5), (5, 9, 1)]);
        let mut parent = Census::default();
        parent.add(Path::new("one"), &one.bounds, &one);
        parent.add(Path::new("two"), &two.bounds, &two);
        let recorded = Census::decode(&parent.encode()).unwrap();
        assert_eq!(recorded.len(), 3);
        for clip in [range(0, 6), range(0, 3), range(3, 4), range(4, 9)] {
            let mut child = Census::default();
            for (path, table) in [("one", &one), ("two", &two)] {
                child.add(Path::new(path), &table.bounds.intersect(&clip), table);
            }
            child.check("f", &clip, &recorded).unwrap();
        }
        let mut lacking = Census::default();
        lacking.add(Path::new("two"), &two.bounds, &two);
        lacking.check("f", &range(4, 9), &recorded).unwrap();
        for (clip, text) in [(range(0, 2), "group 0"), (range(2, 5), "group 3")] {
            let e = lacking.check("f", &clip, &recorded).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corruption);
            assert!(e.to_string().contains(text), "{e}");
        }
    }

    #[test]
    fn groups_that_are_cut_are_left_out() {
        let table = properties(KeyRange::new([0, 0, 1], Some([0, 2])), &[(0, 3, 7), (1, 4, 8)]);
        let mut census = Census::default();
        census.add(Path::new("t"), &KeyRange::new([0, 0, 9], Some([0, 2])), &table);
        let recorded = Census::decode(&census.encode()).unwrap();
        assert_eq!(recorded, [KeyGroupCount { group: 1, entries: 4, hash: 8 }]);
        census.check("f", &KeyRange::all(), &recorded).unwrap();
        let mut uncounted = Census::default();
        uncounted.add(Path::new("t"), &table.bounds, &Properties::default());
        assert!(uncounted.encode().is_empty());
        let e = uncounted.check("f", &KeyRange::all(), &recorded).unwrap_err();
        assert!(e.to_string().contains("does not count"), "{e}");
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut census = Census::default();
        let table = properties(range(0, 4), &[(0, 3, 7), (3, 1, 2)]);
        census.add(Path::new("t"), &table.bounds, &table);
        let bytes = census.encode();
        for cut in 1..bytes.len() {
            if cut != bytes.len() / 2 {
                assert_eq!(
                    Census::decode(&bytes[..cut]).unwrap_err().kind(),
                    ErrorKind::Corruption
                );
            }
        }
        let twice = [bytes.clone(), bytes].concat();
        let group_65536 = [&[0x80, 0x80, 4][..], &[1; 9]].concat();
        for bytes in [twice, group_65536] {
            assert_eq!(Census::decode(&bytes).unwrap_err().kind(), ErrorKind::Corruption);
        }
    }
}
