//! Identities: of files, of database instances, of column families. None is ever used twice.

use std::fmt;

/// A file's number in its database: the epoch made durable when the database was opened, and a
/// counter within it. Ordered by creation. A crash can lose a file, never hand its number to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileNumber(pub u64);

impl FileNumber {
    /// The `counter`-th file of an epoch.
    pub fn new(epoch: u32, counter: u32) -> FileNumber {
        FileNumber(u64::from(epoch) << 32 | u64::from(counter))
    }

    /// The epoch in which the file was created.
    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The counter within the epoch.
    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The inverse of `Display`; `None` for anything else.
    pub fn parse(text: &str) -> Option<FileNumber> {
        let (epoch, counter) = text.split_once('-')?;
        let number = FileNumber::new(epoch.parse().ok()?, counter.parse().ok()?);
        (number.to_string() == text).then_some(number)
    }
}

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{:06}", self.epoch(), self.counter())
    }
}

/// A file's identity everywhere and for ever: 8 random bytes of the database instance that wrote it,
/// and its number there. It is bound into every checksum of the file, so that a block or a file in
/// the wrong place is found out, and it survives renumbering when a table is imported elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId([u8; 16]);

impl FileId {
    /// The identity of file `number`, written by database instance `instance`.
    pub fn new(instance: u64, number: FileNumber) -> FileId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&instance.to_le_bytes());
        id[8..].copy_from_slice(&number.0.to_le_bytes());
        FileId(id)
    }

    /// An identity as it is stored.
    pub fn from_bytes(bytes: [u8; 16]) -> FileId {
        FileId(bytes)
    }

    /// The stored form.
    #[inline]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A column family's number in its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId(pub u32);

impl fmt::Display for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_sort_by_creation() {
        let n = FileNumber::new(3, 17);
        assert_eq!(n.to_string(), "000003-000017");
        assert_eq!(FileNumber::parse("000003-000017"), Some(n));
        for bad in ["", "3-17", "000003-", "-000017", "000003-000017x", "+00003-000017"] {
            assert_eq!(FileNumber::parse(bad), None, "{bad}");
        }
        assert!(FileNumber::new(1, u32::MAX) < FileNumber::new(2, 0));
        let big = FileNumber::new(u32::MAX, u32::MAX);
        assert_eq!(FileNumber::parse(&big.to_string()), Some(big));
    }

    #[test]
    fn identities_are_bytes() {
        let id = FileId::new(0x0102_0304_0506_0708, FileNumber::new(1, 2));
        assert_eq!(id.to_string(), "08070605040302010200000001000000");
        assert_eq!(FileId::from_bytes(*id.as_bytes()), id);
    }
}
