//! Reads everything in every way there is, and insists on one answer.

use alluvium::{ColumnFamily, Db, KeyRange, Snapshot};
use std::collections::BTreeMap;

use crate::model::{Check, Map, State, ensure};
use crate::ops::all_keys;

pub type Families = BTreeMap<String, ColumnFamily>;

/// Why reading everything did not work out.
#[derive(Debug)]
pub enum Trouble {
    /// The engine said so.
    Refused(alluvium::Error),
    /// Two ways of reading disagree.
    Wrong(String),
}

impl From<alluvium::Error> for Trouble {
    fn from(error: alluvium::Error) -> Trouble {
        Trouble::Refused(error)
    }
}

impl From<String> for Trouble {
    fn from(text: String) -> Trouble {
        Trouble::Wrong(text)
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> String {
        match trouble {
            Trouble::Refused(error) => format!("reading failed: {error}"),
            Trouble::Wrong(text) => text,
        }
    }
}

/// What the families hold, now or as of a snapshot.
pub fn read(db: &Db, families: &Families, snapshot: Option<&Snapshot>) -> Result<State, Trouble> {
    let mut state = State::new();
    for (name, family) in families {
        state.insert(name.clone(), read_family(db, family, snapshot)?);
    }
    Ok(state)
}

fn read_family(
    db: &Db,
    family: &ColumnFamily,
    snapshot: Option<&Snapshot>,
) -> Result<Map, Trouble> {
    let mut scan = db.scan_range(family, KeyRange::all(), snapshot)?;
    let mut map = Map::new();
    let mut last: Option<Vec<u8>> = None;
    while scan.next()? {
        let key = scan.key().to_vec();
        let ascending = last.as_ref().is_none_or(|last| *last < key);
        wrong(ascending, || format!("a scan goes from {last:?} to {key:?}"))?;
        map.insert(key.clone(), scan.value().to_vec());
        last = Some(key);
    }
    for (key, value) in map.iter().rev() {
        let found = scan.prev()?;
        let same = found && (scan.key(), scan.value()) == (key.as_slice(), value.as_slice());
        wrong(same, || format!("backwards there is no {key:?}"))?;
    }
    wrong(!scan.prev()?, || "backwards there is more".to_owned())?;
    // Some of the keys, others in other states: all would cost too much.
    for key in map.keys().skip(map.len() % 3).step_by(3) {
        let found = scan.seek_for_prev(key)? && scan.key() == key.as_slice();
        wrong(found, || format!("a seek back to {key:?} misses it"))?;
    }
    for key in all_keys() {
        let found = match snapshot {
            Some(snapshot) => db.get_at(family, snapshot, &key)?,
            None => db.get(family, &key)?,
        };
        wrong(found.as_ref() == map.get(&key), || {
            format!("get of {key:?} gives {found:?}, a scan {:?}", map.get(&key))
        })?;
    }
    Ok(map)
}

fn wrong(holds: bool, text: impl FnOnce() -> String) -> Result<(), Trouble> {
    if holds { Ok(()) } else { Err(Trouble::Wrong(text())) }
}

/// The state must be this one; a family that it does not have must be empty.
pub fn same(found: &State, wanted: &State, what: &str) -> Check {
    for (name, map) in found {
        let empty = Map::new();
        let wanted = wanted.get(name).unwrap_or(&empty);
        ensure!(map == wanted, "{what}: family {name:?} has {map:?} instead of {wanted:?}");
    }
    Ok(())
}
