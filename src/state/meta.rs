//! F6.4 and F6.5: what a database knows of the states in it.
//!
//! The entries lie in a column family of their own, once for *every key group* of the backend. So a
//! clip to any range of key groups carries the metadata of the states in it, like the data, and the
//! states of backends that are joined are the union of theirs, without anybody copying anything. And
//! each group says by what *its* entries were written, so that parts may be joined of which some have
//! migrated a state and others have not. A group costs some 60 bytes a state before compression.

use std::collections::BTreeMap;

use crate::ColumnFamily;
use crate::Db;
use crate::SeqNo;
use crate::WriteBatch;
use crate::WriteOptions;
use crate::base::coding::Decoder;
use crate::base::coding::put_field;
use crate::base::coding::put_varint;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::base::error::Result;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::base::sync::Arc;
use crate::state::evolution::SerializerSnapshot;
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
            field("0", "n", "tag 1!: max_parallelism", "number of key groups of the job, varint"),
            field("", "n", "tag 2!: key", "serializer of keys, F6.6"),
        ],
    },
    Layout {
        id: "F6.5",
        title: "Metadata of a state, in family _meta, under group(2) ‖ name of the state",
        fields: &[
            field(
                "0",
                "n",
                "tag 1!: kind",
                "1 value, 2 list, 3 map, 4 reducing, 5 aggregating, 6 timers; u8",
            ),
            field("", "n", "tag 2!: namespace", "serializer of namespaces, F6.6"),
            field("", "n", "tag 3!: user_key", "map: serializer of user keys, F6.6"),
            field("", "n", "tag 4!: value", "serializer of values or elements, F6.6"),
            field("", "0", "tag 5!: migrating", "the group's values are being written anew"),
        ],
    },
];

/// The types of keyed state: Flink's `StateDescriptor.Type`, and timers.
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
    /// A queue of timers: half of a [`TimerService`](crate::TimerService).
    Timers = 6,
}

impl StateKind {
    fn from_byte(byte: u8) -> Option<StateKind> {
        Some(match byte {
            1 => StateKind::Value,
            2 => StateKind::List,
            3 => StateKind::Map,
            4 => StateKind::Reducing,
            5 => StateKind::Aggregating,
            6 => StateKind::Timers,
            _ => return None,
        })
    }
}

/// What all states of a backend share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRecord {
    pub max_parallelism: u32,
    pub key: SerializerSnapshot,
}

/// What is known of one state in one key group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    pub kind: StateKind,
    pub namespace: SerializerSnapshot,
    /// Of a map.
    pub user_key: Option<SerializerSnapshot>,
    pub value: SerializerSnapshot,
    /// The values of the group are partly those of `value` and partly older.
    pub migrating: bool,
}

impl BackendRecord {
    pub fn encode(&self) -> Vec<u8> {
        let (mut out, mut number) = (Vec::new(), Vec::new());
        put_varint(&mut number, u64::from(self.max_parallelism));
        put_field(&mut out, 1, true, &number);
        put_field(&mut out, 2, true, &self.key.encode());
        out
    }

    pub fn decode(d: Decoder<'_>) -> Result<BackendRecord> {
        let (mut max_parallelism, mut key) = (None, None);
        each_field(d.clone(), |tag, payload| {
            match tag {
                1 => {
                    max_parallelism = Some(payload.varint32()?);
                    payload.finish()?;
                }
                2 => key = Some(SerializerSnapshot::decode(payload.clone())?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        match (max_parallelism, key) {
            (Some(max_parallelism), Some(key)) => Ok(BackendRecord { max_parallelism, key }),
            _ => Err(d.error("a backend without max parallelism or key serializer")),
        }
    }
}

impl StateRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_field(&mut out, 1, true, &[self.kind as u8]);
        put_field(&mut out, 2, true, &self.namespace.encode());
        if let Some(user_key) = &self.user_key {
            put_field(&mut out, 3, true, &user_key.encode());
        }
        put_field(&mut out, 4, true, &self.value.encode());
        if self.migrating {
            put_field(&mut out, 5, true, &[]);
        }
        out
    }

    pub fn decode(d: Decoder<'_>) -> Result<StateRecord> {
        let (mut kind, mut namespace, mut user_key, mut value) = (None, None, None, None);
        let mut migrating = false;
        each_field(d.clone(), |tag, payload| {
            match tag {
                1 => {
                    let byte = payload.u8()?;
                    let newer = || Error::unsupported(format!("state of kind {byte}"));
                    kind = Some(StateKind::from_byte(byte).ok_or_else(newer)?);
                    payload.finish()?;
                }
                2 => namespace = Some(SerializerSnapshot::decode(payload.clone())?),
                3 => user_key = Some(SerializerSnapshot::decode(payload.clone())?),
                4 => value = Some(SerializerSnapshot::decode(payload.clone())?),
                5 => {
                    migrating = true;
                    payload.finish()?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (Some(kind), Some(namespace), Some(value)) = (kind, namespace, value) else {
            return Err(d.error("a state without kind, namespace or value"));
        };
        if user_key.is_some() != (kind == StateKind::Map) {
            return Err(d.error("a map, and no other state, has user keys"));
        }
        Ok(StateRecord { kind, namespace, user_key, value, migrating })
    }
}

/// The same error, saying in which state.
#[cold]
pub fn in_state(name: &str, error: &Error) -> Error {
    Error::because(error.kind(), format!("state {name:?}"), error)
}

/// A payload that is text.
pub fn text(payload: &Decoder<'_>) -> Result<String> {
    let text = std::str::from_utf8(payload.rest()).map_err(|_| payload.error("not UTF-8"))?;
    Ok(text.to_owned())
}

/// Hands each field to `f`, which says whether it knows the tag. Tags ascend.
pub fn each_field<'a>(
    mut d: Decoder<'a>,
    mut f: impl FnMut(u32, &mut Decoder<'a>) -> Result<bool>,
) -> Result<()> {
    let mut last = 0;
    while !d.is_empty() {
        let start = d.clone();
        let (tag, must_understand, mut payload) = d.field()?;
        if tag <= last {
            return Err(start.error("fields out of order, or one of them twice"));
        }
        last = tag;
        if !f(tag, &mut payload)? && must_understand {
            return Err(Error::unsupported(format!("state metadata with tag {tag}")));
        }
    }
    Ok(())
}

/// Key groups whose entries of a state were written in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub record: StateRecord,
    /// Ascending.
    pub groups: Vec<u16>,
}

/// All states by name, each with its forms: one, unless the state came with several parts that had
/// it in different ones. Groups may lack a state.
pub type States = BTreeMap<String, Vec<Form>>;

/// The metadata of a database, as its backend holds it.
pub struct Meta {
    family: ColumnFamily,
    groups: KeyGroupRange,
    backend: Vec<(BackendRecord, usize)>,
    /// Shared with snapshots.
    states: Arc<States>,
    /// The states that were asked for since the backend was opened, and since when they have their
    /// form.
    asked: BTreeMap<String, SeqNo>,
}

impl Meta {
    /// Reads all metadata.
    ///
    /// # Errors
    /// `Incompatible`: it is another backend's, or two groups disagree about the type of a state.
    /// `Halted`: a migration was cut short. Those of reads.
    pub fn open(db: &Db, family: ColumnFamily, groups: KeyGroupRange) -> Result<Meta> {
        let (mut states, mut backend) = (States::new(), Vec::<(BackendRecord, usize)>::new());
        let mut scan = db.scan(&family, ..)?;
        while scan.next()? {
            let group = Decoder::new(scan.key()).fixed().map(u16::from_be_bytes)?;
            if !groups.contains(group) {
                return Err(Error::incompatible(format!(
                    "the database has state of key group {group}, outside of {groups}"
                )));
            }
            let name = std::str::from_utf8(&scan.key()[PREFIX_BYTES..])
                .map_err(|_| Error::corruption("the name of a state is not UTF-8"))?;
            let value = Decoder::new(scan.value());
            if name.is_empty() {
                let record = BackendRecord::decode(value)?;
                match backend.iter_mut().find(|(known, _)| *known == record) {
                    Some((_, groups)) => *groups += 1,
                    None => backend.push((record, 1)),
                }
                continue;
            }
            let record = StateRecord::decode(value).map_err(|e| in_state(name, &e))?;
            if record.migrating {
                return Err(cut_short(name));
            }
            let forms = states.entry(name.to_owned()).or_default();
            if let Some(form) = forms.first() {
                same_kind(form.record.kind, record.kind).map_err(|e| in_state(name, &e))?;
            }
            match forms.iter_mut().find(|form| form.record == record) {
                Some(form) => form.groups.push(group),
                None => forms.push(Form { record, groups: vec![group] }),
            }
        }
        let (states, asked) = (Arc::new(states), BTreeMap::new());
        Ok(Meta { family, groups, backend, states, asked })
    }

    /// The serializers by which keys were written.
    pub fn keys(&self) -> impl Iterator<Item = &SerializerSnapshot> + Clone {
        self.backend.iter().map(|(record, _)| &record.key)
    }

    /// Writes the record of the backend to all groups, unless they have it.
    ///
    /// # Errors
    /// `Incompatible` if the max parallelism is another one. Those of writes.
    pub fn set_backend(&mut self, db: &Db, record: BackendRecord) -> Result<()> {
        let wanted = record.max_parallelism;
        for (known, _) in &self.backend {
            let stored = known.max_parallelism;
            if stored != wanted {
                let text = format!("max parallelism: stored is {stored}, asked for is {wanted}");
                return Err(Error::incompatible(text));
            }
        }
        if self.backend != [(record.clone(), self.groups.len())] {
            self.write(db, "", &record.encode())?;
        }
        self.backend = vec![(record, self.groups.len())];
        Ok(())
    }

    /// All states, by name.
    pub fn states(&self) -> &Arc<States> {
        &self.states
    }

    /// The forms of a state; none if there is no such state.
    pub fn forms(&self, name: &str) -> &[Form] {
        self.states.get(name).map_or(&[], Vec::as_slice)
    }

    /// Since when the state has its form, if it was asked for since the backend was opened.
    pub fn since(&self, name: &str) -> Option<SeqNo> {
        self.asked.get(name).copied()
    }

    /// The states that were asked for since the backend was opened. Each has one form.
    pub fn asked(&self) -> impl Iterator<Item = (&str, &StateRecord)> {
        let record = |name: &str| &self.forms(name)[0].record;
        self.asked.keys().map(move |name| (name.as_str(), record(name)))
    }

    /// Records a state, which has been in this form since then, in all groups that lack this record.
    /// Writes nothing if there are none.
    ///
    /// # Errors
    /// Those of writes.
    pub fn register(
        &mut self,
        db: &Db,
        name: &str,
        record: &StateRecord,
        since: SeqNo,
    ) -> Result<()> {
        let whole = Form { record: record.clone(), groups: self.groups.iter().collect() };
        if self.forms(name) != std::slice::from_ref(&whole) {
            self.write(db, name, &record.encode())?;
            Arc::make_mut(&mut self.states).insert(name.to_owned(), vec![whole]);
        }
        self.asked.insert(name.to_owned(), since);
        Ok(())
    }

    /// Adds the record of a state in one group to a batch.
    pub fn put(&self, batch: &mut WriteBatch, group: u16, name: &str, record: &StateRecord) {
        batch.put(&self.family, &entry_key(group, name), &record.encode());
    }

    /// Notes that a migration of the state has failed half-way.
    pub fn cut_short(&mut self, name: &str) {
        for form in Arc::make_mut(&mut self.states).get_mut(name).into_iter().flatten() {
            form.record.migrating = true;
        }
    }

    /// Is the metadata of all states true?
    ///
    /// # Errors
    /// `Halted` if a migration was cut short.
    pub fn check(&self) -> Result<()> {
        let mut forms =
            self.states.iter().flat_map(|(name, forms)| forms.iter().map(move |f| (name, f)));
        match forms.find(|(_, form)| form.record.migrating) {
            Some((name, _)) => Err(cut_short(name)),
            None => Ok(()),
        }
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
        Arc::make_mut(&mut self.states).remove(name);
        self.asked.remove(name);
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

/// # Errors
/// `Incompatible` if they differ.
pub fn same_kind(stored: StateKind, wanted: StateKind) -> Result<()> {
    match stored == wanted {
        true => Ok(()),
        false => {
            Err(Error::incompatible(format!("type: stored is {stored:?}, asked for is {wanted:?}")))
        }
    }
}

#[cold]
fn cut_short(name: &str) -> Error {
    let text = format!("a migration of state {name:?} was cut short: restore a checkpoint");
    Error::new(ErrorKind::Halted, text)
}

fn entry_key(group: u16, name: &str) -> Vec<u8> {
    [&group.to_be_bytes(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    type Parts = (String, u32, Option<u32>, Vec<u8>);

    fn snapshot((name, version, fixed_len, config): Parts) -> SerializerSnapshot {
        SerializerSnapshot { name, version, fixed_len, config }
    }

    fn record(kind: u8, parts: (Parts, Parts, Parts), migrating: bool) -> StateRecord {
        let kind = StateKind::from_byte(kind % 5 + 1).unwrap();
        let user_key = (kind == StateKind::Map).then(|| snapshot(parts.1));
        let (namespace, value) = (snapshot(parts.0), snapshot(parts.2));
        StateRecord { kind, namespace, user_key, value, migrating }
    }

    fn simple(name: &str) -> SerializerSnapshot {
        snapshot((name.to_owned(), 1, None, vec![]))
    }

    quickcheck! {
        fn records_round_trip(kind: u8, parts: (Parts, Parts, Parts), groups: u32, m: bool) -> bool {
            let state = record(kind, parts, m);
            let backend = BackendRecord { max_parallelism: groups, key: state.value.clone() };
            StateRecord::decode(Decoder::new(&state.encode())).unwrap() == state
                && BackendRecord::decode(Decoder::new(&backend.encode())).unwrap() == backend
                && SerializerSnapshot::decode(Decoder::new(&state.value.encode())).unwrap() == state.value
        }

        fn decoding_anything_returns(bytes: Vec<u8>) -> bool {
            let d = Decoder::new(&bytes);
            let _ = (StateRecord::decode(d.clone()), BackendRecord::decode(d.clone()));
            SerializerSnapshot::decode(d).map_or(true, |snapshot| !snapshot.encode().is_empty())
        }
    }

    #[test]
    fn pinned() {
        let mut key = simple("u8");
        key.fixed_len = Some(1);
        let backend = BackendRecord { max_parallelism: 300, key: key.clone() };
        assert_eq!(backend.encode(), b"\x03\x02\xac\x02\x05\x0a\x03\x02u8\x05\x01\x01\x07\x01\x01");
        let state = StateRecord {
            kind: StateKind::Map,
            namespace: simple("n"),
            user_key: Some(simple("k")),
            value: snapshot(("v".into(), 2, None, vec![9])),
            migrating: true,
        };
        let want = b"\x03\x01\x03\x05\x06\x03\x01n\x05\x01\x01\x07\x06\x03\x01k\x05\x01\x01\
            \x09\x09\x03\x01v\x05\x01\x02\x09\x01\x09\x0b\x00";
        assert_eq!(state.encode(), want);
    }

    #[test]
    fn what_a_newer_build_wrote_is_refused_or_skipped_as_it_says() {
        let decode = |bytes: &[u8]| StateRecord::decode(Decoder::new(bytes));
        let mut bytes = record(0, Default::default(), false).encode();
        put_field(&mut bytes, 9, false, b"?");
        assert!(decode(&bytes).is_ok());
        put_field(&mut bytes, 10, true, b"?");
        assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(decode(&[3, 1, 77]).unwrap_err().kind(), ErrorKind::Unsupported);
        let twice = [&bytes[..3], &bytes[..3]].concat();
        assert_eq!(decode(&twice).unwrap_err().kind(), ErrorKind::Corruption);
        assert_eq!(decode(&[]).unwrap_err().kind(), ErrorKind::Corruption);
    }
}
