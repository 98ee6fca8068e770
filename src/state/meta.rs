//! F6.4 and F6.5: what a database knows of the states in it.
//!
//! The entries lie in a column family of their own, once for *every key group* of the backend. So a
//! clip to any range of key groups carries the metadata of the states in it, like the data, and the
//! states of backends that are joined are the union of theirs, without anybody copying anything. A
//! group costs some 60 bytes a state before compression.

use std::collections::BTreeMap;

use crate::ColumnFamily;
use crate::Db;
use crate::WriteBatch;
use crate::WriteOptions;
use crate::base::coding::Decoder;
use crate::base::coding::put_field;
use crate::base::coding::put_varint;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::PREFIX_BYTES;

/// Name of the column family of the metadata. No state may be called this.
pub const META: &str = "_meta";

/// F6.4 and F6.5.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F6.4",
        title: "Metadata of a backend, in family _meta, under group(2); a tag-length-value each",
        fields: &[
            field("0", "n", "tag 1: max_parallelism", "number of key groups of the job, varint"),
            field("", "n", "tag 2: key", "serializer of keys, name@version"),
        ],
    },
    Layout {
        id: "F6.5",
        title: "Metadata of a state, in family _meta, under group(2) ‖ name of the state",
        fields: &[
            field("0", "n", "tag 1: kind", "1 value, 2 list, 3 map, 4 reducing, 5 aggregating; u8"),
            field("", "n", "tag 2: namespace", "serializer of namespaces, name@version"),
            field("", "n", "tag 3: user_key", "map: serializer of user keys, name@version"),
            field("", "n", "tag 4: value", "serializer of values or elements, name@version"),
        ],
    },
];

/// The types of keyed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum StateKind {
    /// One value: [`ValueState`](crate::ValueState).
    Value = 1,
    /// A list of elements: [`ListState`](crate::ListState).
    List = 2,
    /// A map: [`MapState`](crate::MapState).
    Map = 3,
    /// One value, made of all that were added: [`ReducingState`](crate::ReducingState).
    Reducing = 4,
    /// An accumulator: [`AggregatingState`](crate::AggregatingState).
    Aggregating = 5,
}

impl StateKind {
    fn from_byte(byte: u8) -> Option<StateKind> {
        Some(match byte {
            1 => StateKind::Value,
            2 => StateKind::List,
            3 => StateKind::Map,
            4 => StateKind::Reducing,
            5 => StateKind::Aggregating,
            _ => return None,
        })
    }
}

/// What all states of a backend share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRecord {
    pub max_parallelism: u32,
    pub key: String,
}

/// What is known of one state. Serializers by their identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    pub kind: StateKind,
    pub namespace: String,
    /// Empty unless it is a map.
    pub user_key: String,
    pub value: String,
}

impl BackendRecord {
    fn encode(&self) -> Vec<u8> {
        let (mut out, mut number) = (Vec::new(), Vec::new());
        put_varint(&mut number, u64::from(self.max_parallelism));
        put_field(&mut out, 1, true, &number);
        put_field(&mut out, 2, true, self.key.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<BackendRecord> {
        let mut record = BackendRecord { max_parallelism: 0, key: String::new() };
        each_field(bytes, |tag, payload| {
            match tag {
                1 => {
                    record.max_parallelism = payload.varint32()?;
                    payload.finish()?;
                }
                2 => record.key = text(payload)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(record)
    }

    /// # Errors
    /// `Incompatible` if the other one is different.
    fn check(&self, wanted: &BackendRecord) -> Result<()> {
        same("max parallelism", &self.max_parallelism, &wanted.max_parallelism)?;
        same("key serializer", &self.key, &wanted.key)
    }
}

impl StateRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_field(&mut out, 1, true, &[self.kind as u8]);
        put_field(&mut out, 2, true, self.namespace.as_bytes());
        if !self.user_key.is_empty() {
            put_field(&mut out, 3, true, self.user_key.as_bytes());
        }
        put_field(&mut out, 4, true, self.value.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<StateRecord> {
        let mut kind = None;
        let [mut namespace, mut user_key, mut value] = [const { String::new() }; 3];
        each_field(bytes, |tag, payload| {
            match tag {
                1 => {
                    let byte = payload.u8()?;
                    let newer = || Error::unsupported(format!("state of kind {byte}"));
                    kind = Some(StateKind::from_byte(byte).ok_or_else(newer)?);
                    payload.finish()?;
                }
                2 => namespace = text(payload)?,
                3 => user_key = text(payload)?,
                4 => value = text(payload)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let kind = kind.ok_or_else(|| Error::corruption("a state without a kind"))?;
        Ok(StateRecord { kind, namespace, user_key, value })
    }

    /// # Errors
    /// `Incompatible`, naming the first difference, if the other one is different.
    pub fn check(&self, name: &str, wanted: &StateRecord) -> Result<()> {
        same("type", &self.kind, &wanted.kind)
            .and_then(|()| same("namespace serializer", &self.namespace, &wanted.namespace))
            .and_then(|()| same("user-key serializer", &self.user_key, &wanted.user_key))
            .and_then(|()| same("serializer", &self.value, &wanted.value))
            .map_err(|e| in_state(name, &e))
    }
}

/// The same error, saying in which state.
#[cold]
pub fn in_state(name: &str, error: &Error) -> Error {
    Error::because(error.kind(), format!("state {name:?}"), error)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, stored: &T, wanted: &T) -> Result<()> {
    if stored == wanted {
        return Ok(());
    }
    Err(Error::incompatible(format!("{what}: stored is {stored:?}, asked for is {wanted:?}")))
}

fn text(payload: &Decoder<'_>) -> Result<String> {
    let text = std::str::from_utf8(payload.rest()).map_err(|_| payload.error("not UTF-8"))?;
    Ok(text.to_owned())
}

/// Hands each field to `f`, which says whether it knows the tag.
fn each_field<'a>(
    bytes: &'a [u8],
    mut f: impl FnMut(u32, &mut Decoder<'a>) -> Result<bool>,
) -> Result<()> {
    let mut d = Decoder::new(bytes);
    while !d.is_empty() {
        let (tag, must_understand, mut payload) = d.field()?;
        if !f(tag, &mut payload)? && must_understand {
            return Err(Error::unsupported(format!("state metadata with tag {tag}")));
        }
    }
    Ok(())
}

/// The metadata of a database, as its backend holds it.
pub struct Meta {
    family: ColumnFamily,
    groups: KeyGroupRange,
    states: BTreeMap<String, Known>,
}

struct Known {
    record: StateRecord,
    /// Key groups that have the entry: all, unless the state came with some of several parts only.
    groups: usize,
}

impl Meta {
    /// Reads all metadata, and writes that of the backend to the groups that lack it.
    ///
    /// # Errors
    /// `Incompatible`: it is another backend's, or two groups disagree. Those of reads and writes.
    pub fn open(
        db: &Db,
        family: ColumnFamily,
        groups: KeyGroupRange,
        backend: &BackendRecord,
    ) -> Result<Meta> {
        let mut meta = Meta { family, groups, states: BTreeMap::new() };
        let mut with_backend = 0;
        let mut scan = db.scan(&meta.family, ..)?;
        while scan.next()? {
            let group = Decoder::new(scan.key()).fixed().map(u16::from_be_bytes)?;
            if !groups.contains(group) {
                return Err(Error::incompatible(format!(
                    "the database has state of key group {group}, outside of {groups}"
                )));
            }
            let name = std::str::from_utf8(&scan.key()[PREFIX_BYTES..])
                .map_err(|_| Error::corruption("the name of a state is not UTF-8"))?;
            if name.is_empty() {
                BackendRecord::decode(scan.value())?.check(backend)?;
                with_backend += 1;
                continue;
            }
            let record = StateRecord::decode(scan.value()).map_err(|e| in_state(name, &e))?;
            match meta.states.get_mut(name) {
                Some(known) => {
                    known.record.check(name, &record)?;
                    known.groups += 1;
                }
                None => {
                    meta.states.insert(name.to_owned(), Known { record, groups: 1 });
                }
            }
        }
        if with_backend < groups.len() {
            meta.write(db, "", &backend.encode())?;
        }
        Ok(meta)
    }

    /// The states in the order of their names.
    pub fn states(&self) -> impl Iterator<Item = (&str, &StateRecord)> {
        self.states.iter().map(|(name, known)| (name.as_str(), &known.record))
    }

    /// The state of this name.
    pub fn state(&self, name: &str) -> Option<&StateRecord> {
        self.states.get(name).map(|known| &known.record)
    }

    /// Records a state in all groups that lack it. Writes nothing if there are none.
    ///
    /// # Errors
    /// `Incompatible` if another state has the name. Those of writes.
    pub fn register(&mut self, db: &Db, name: &str, record: &StateRecord) -> Result<()> {
        if let Some(known) = self.states.get(name) {
            known.record.check(name, record)?;
            if known.groups == self.groups.len() {
                return Ok(());
            }
        }
        self.write(db, name, &record.encode())?;
        let known = Known { record: record.clone(), groups: self.groups.len() };
        self.states.insert(name.to_owned(), known);
        Ok(())
    }

    /// Forgets a state.
    ///
    /// # Errors
    /// Those of writes; then it is not forgotten.
    pub fn remove(&mut self, db: &Db, name: &str) -> Result<()> {
        let mut batch = WriteBatch::new();
        for group in self.groups.iter() {
            batch.delete(&self.family, &entry_key(group, name));
        }
        db.write(&batch, WriteOptions::default())?;
        self.states.remove(name);
        Ok(())
    }

    fn write(&self, db: &Db, name: &str, value: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for group in self.groups.iter() {
            batch.put(&self.family, &entry_key(group, name), value);
        }
        db.write(&batch, WriteOptions::default()).map(drop)
    }
}

fn entry_key(group: u16, name: &str) -> Vec<u8> {
    [&group.to_be_bytes(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    fn record(kind: u8, texts: (String, String, String)) -> StateRecord {
        let kind = [StateKind::Value, StateKind::List, StateKind::Map][usize::from(kind % 3)];
        StateRecord { kind, namespace: texts.0, user_key: texts.1, value: texts.2 }
    }

    quickcheck! {
        fn records_round_trip(kind: u8, texts: (String, String, String), groups: u32) -> bool {
            let state = record(kind, texts);
            let backend = BackendRecord { max_parallelism: groups, key: state.value.clone() };
            StateRecord::decode(&state.encode()).unwrap() == state
                && BackendRecord::decode(&backend.encode()).unwrap() == backend
        }

        fn decoding_anything_returns(bytes: Vec<u8>) -> bool {
            let _ = (StateRecord::decode(&bytes), BackendRecord::decode(&bytes));
            true
        }
    }

    #[test]
    fn pinned() {
        let backend = BackendRecord { max_parallelism: 300, key: "u8@1".into() };
        assert_eq!(backend.encode(), b"\x03\x02\xac\x02\x05\x04u8@1");
        let state = record(2, ("unit@1".into(), "k@1".into(), "v@2".into()));
        assert_eq!(state.encode(), b"\x03\x01\x03\x05\x06unit@1\x07\x03k@1\x09\x03v@2");
    }

    #[test]
    fn the_first_difference_is_named() {
        let a = record(0, ("n@1".into(), String::new(), "v@1".into()));
        let b = StateRecord { kind: StateKind::List, ..a.clone() };
        let e = a.check("count", &b).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Incompatible);
        assert!(e.to_string().contains("\"count\"") && e.to_string().contains("List"), "{e}");
        let b = StateRecord { value: "v@2".into(), ..a.clone() };
        assert!(a.check("count", &b).unwrap_err().to_string().contains("v@2"));
    }

    #[test]
    fn what_a_newer_build_wrote_is_refused_or_skipped_as_it_says() {
        let mut bytes = record(0, Default::default()).encode();
        put_field(&mut bytes, 9, false, b"?");
        assert!(StateRecord::decode(&bytes).is_ok());
        put_field(&mut bytes, 10, true, b"?");
        assert_eq!(StateRecord::decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
        let newer = [3, 1, 77];
        assert_eq!(StateRecord::decode(&newer).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
