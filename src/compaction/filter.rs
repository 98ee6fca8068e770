//! The caller's say in a compaction: which values have expired, or have a shorter form.
//!
//! A filter is asked only about versions that no live snapshot can see, so it can never break a
//! repeatable read. It is asked about what would be written, after older versions were dropped and
//! operands folded. See rule 7 of [`CompactionIterator`](super::iter::CompactionIterator).

/// What an entry offered to a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The value of the key; or, below operands that could not be folded, what they build on.
    Value,
    /// An operand of the family's merge operator.
    Operand,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It stays.
    Keep,
    /// A value is deleted: older versions of the key do not come back. An operand is dropped if
    /// nothing older of the key is left, and stays otherwise, since what it hides or changes would
    /// show again.
    Remove,
    /// What the filter wrote to `out` takes its place.
    Replace,
}

/// Decides entry by entry, in ascending key order, during one compaction.
pub trait CompactionFilter: Send {
    /// What becomes of this entry. `out` is empty; only [`Decision::Replace`] looks at it.
    ///
    /// May be called for an entry whose compaction then fails or is dropped. Must not panic.
    fn decide(&mut self, key: &[u8], kind: EntryKind, value: &[u8], out: &mut Vec<u8>) -> Decision;
}

/// Makes a filter for each compaction of a family.
pub trait CompactionFilterFactory: Send + Sync {
    /// A name, kept with the family: another one at the next open is an error.
    fn name(&self) -> &str;
    /// Values with this timestamp or an older one have expired *now*: every filter made from now on
    /// removes them, whatever their key, and operands with such a timestamp too. `None`: nothing has.
    ///
    /// With a [`TimestampExtractor`](crate::TimestampExtractor) this lets the engine look for what has
    /// expired: it drops whole tables unread, and rewrites those of which much has expired. Asked
    /// whenever background work is looked for. A filter that keeps such values is asked about them
    /// again and again.
    fn expired_until(&self) -> Option<i64> {
        None
    }
    /// A filter for one compaction, or for one part of a large one: parts are disjoint ranges of keys.
    fn create(&self) -> Box<dyn CompactionFilter>;
}
