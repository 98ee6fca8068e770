//! What a database should hold: plain ordered maps, one a column family.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::base::error::Result;
use crate::base::id::FamilyId;
use crate::base::key::KeyRange;
use crate::batch::WriteBatch;
use crate::db::column_family::ColumnFamily;
use crate::iter::resolve::MergeOperator;
use crate::table::TimestampExtractor;

/// Keys and values of one family.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Most families at once. A family is known by its place here.
pub const FAMILIES: usize = 3;

/// The names of the families, by place.
pub const NAMES: [&str; FAMILIES] = ["left", "right", "third"];

/// One family: which of those that ever had its name, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub id: FamilyId,
    pub map: Rc<Map>,
}

/// The whole database; `None` where there is no family.
pub type State = [Option<Content>; FAMILIES];

/// Do two states show the same, whatever the numbers of their families?
pub fn alike(a: &State, b: &State) -> bool {
    let same = |(a, b): (&Option<Content>, &Option<Content>)| match (a, b) {
        (Some(a), Some(b)) => a.map == b.map,
        (a, b) => a.is_none() && b.is_none(),
    };
    a.iter().zip(b).all(same)
}

/// The part of a state that lies in a range.
pub fn clipped(state: &State, range: &KeyRange) -> State {
    let clip = |content: &Content| {
        let within = content.map.iter().filter(|(key, _)| range.contains(key));
        let map = Rc::new(within.map(|(key, value)| (key.clone(), value.clone())).collect());
        Content { id: content.id, map }
    };
    std::array::from_fn(|place| state[place].as_ref().map(clip))
}

/// Appends operands, each of which begins with a comma: the order of merges shows. They may be joined
/// as they are written, at some openings.
pub struct Comma {
    pub concatenates: bool,
}

impl MergeOperator for Comma {
    fn name(&self) -> &str {
        "fuzz.comma"
    }

    fn merge(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        fold(base, operands, out);
        Ok(())
    }

    fn concatenates(&self) -> bool {
        self.concatenates
    }

    fn combine(&self, _key: &[u8], older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> bool {
        fold(Some(older), &[newer], out);
        true
    }
}

/// What [`Comma`] makes of operands.
pub fn fold(base: Option<&[u8]>, operands: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(base.unwrap_or_default());
    operands.iter().for_each(|operand| out.extend_from_slice(operand));
}

/// The length of a value is its time.
pub struct Length;

impl TimestampExtractor for Length {
    fn name(&self) -> &str {
        "fuzz.length"
    }

    fn timestamp(&self, _key: &[u8], value: &[u8]) -> Option<i64> {
        i64::try_from(value.len()).ok()
    }
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Place of the family.
    pub family: usize,
    pub verb: Verb,
}

/// What is done to a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl Verb {
    /// Is it a range delete without a range? Such a one is not written at all.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Verb::DeleteRange(start, end) if start >= end)
    }

    /// Does it to a map.
    pub fn apply(&self, map: &mut Map) {
        match self {
            Verb::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Verb::Delete(key) => drop(map.remove(key)),
            Verb::Merge(key, operand) => {
                let value = map.entry(key.clone()).or_default();
                fold(Some(&std::mem::take(value)), &[operand], value);
            }
            Verb::DeleteRange(start, end) if start < end => {
                map.retain(|key, _| key < start || key >= end);
            }
            Verb::DeleteRange(..) => {}
        }
    }

    /// Adds it to a batch.
    pub fn add_to(&self, batch: &mut WriteBatch, family: &ColumnFamily) {
        match self {
            Verb::Put(key, value) => batch.put(family, key, value),
            Verb::Delete(key) => batch.delete(family, key),
            Verb::Merge(key, operand) => batch.merge(family, key, operand),
            Verb::DeleteRange(start, end) => batch.delete_range(family, start, end),
        }
    }
}
