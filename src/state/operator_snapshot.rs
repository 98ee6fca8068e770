//! F6.8: operator state in a checkpoint, and how it is dealt out when the parallelism changes.

use std::collections::BTreeMap;

use crate::base::coding::Decoder;
use crate::base::coding::put_prefixed;
use crate::base::coding::put_varint;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::base::sync::Arc;
use crate::state::evolution::SerializerSnapshot;

/// F6.8 to F6.10.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F6.8",
        title: "Operator state of all instances of an operator, in an envelope (F5.6)",
        fields: &[
            field("0", "1", "version", "1"),
            field("1", "v", "instances", "number of instances"),
            field("", "n", "states", "each instance: number of states, then F6.9 of each, by name"),
        ],
    },
    Layout {
        id: "F6.9",
        title: "An operator state of one instance",
        fields: &[
            field("0", "v", "name_len", "bytes of the name"),
            field("", "n", "name", "UTF-8, not empty"),
            field("", "1", "mode", "1 split list, 2 union list, 3 broadcast map"),
            field("", "v", "chunks", "lists: number of chunks"),
            field("", "n", "content", "lists: F6.10 of each chunk; map: F6.10 with keys"),
        ],
    },
    Layout {
        id: "F6.10",
        title: "Elements of an operator state; numbers and lengths are varints",
        fields: &[
            field("0", "n", "key", "map: length and snapshot of the serializer of keys, F6.6"),
            field("", "n", "value", "length and snapshot of the serializer of elements, F6.6"),
            field("", "v", "count", "number of elements or entries"),
            field(
                "",
                "n",
                "elements",
                "length and bytes of each; map: of key and value, ascending",
            ),
        ],
    },
];

/// Version of the format.
const VERSION: u8 = 1;

/// What becomes of a state when the parallelism changes: Flink's `OperatorStateHandle.Mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OperatorMode {
    /// Each element goes to one instance: Flink's `SPLIT_DISTRIBUTE`.
    Split = 1,
    /// All elements go to every instance: Flink's `UNION`.
    Union = 2,
    /// A map of which every instance has a copy: Flink's `BROADCAST`.
    Broadcast = 3,
}

impl OperatorMode {
    /// The mode with this byte, if there is one.
    pub fn from_byte(byte: u8) -> Option<OperatorMode> {
        Some(match byte {
            1 => OperatorMode::Split,
            2 => OperatorMode::Union,
            3 => OperatorMode::Broadcast,
            _ => return None,
        })
    }
}

/// What is in an operator state, serialized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its mode is not broadcast.
    List {
        mode: OperatorMode,
        chunks: Vec<Chunk>,
    },
    Map {
        key: SerializerSnapshot,
        value: SerializerSnapshot,
        entries: BTreeMap<Vec<u8>, Vec<u8>>,
    },
}

/// Elements that one serializer wrote: those of several instances may be of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub value: SerializerSnapshot,
    pub elements: Vec<Vec<u8>>,
}

impl Content {
    pub fn mode(&self) -> OperatorMode {
        match self {
            Content::List { mode, .. } => *mode,
            Content::Map { .. } => OperatorMode::Broadcast,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.mode() as u8);
        match self {
            Content::List { chunks, .. } => {
                put_varint(out, chunks.len() as u64);
                for chunk in chunks {
                    put_prefixed(out, &chunk.value.encode());
                    put_varint(out, chunk.elements.len() as u64);
                    chunk.elements.iter().for_each(|element| put_prefixed(out, element));
                }
            }
            Content::Map { key, value, entries } => {
                put_prefixed(out, &key.encode());
                put_prefixed(out, &value.encode());
                put_varint(out, entries.len() as u64);
                for (key, value) in entries {
                    put_prefixed(out, key);
                    put_prefixed(out, value);
                }
            }
        }
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Content> {
        let byte = d.u8()?;
        let newer = || Error::unsupported(format!("operator state of mode {byte}"));
        let mode = OperatorMode::from_byte(byte).ok_or_else(newer)?;
        if mode == OperatorMode::Broadcast {
            let (key, value) = (read_snapshot(d)?, read_snapshot(d)?);
            let mut entries = BTreeMap::<Vec<u8>, Vec<u8>>::new();
            for _ in 0..read_count(d)? {
                let start = d.clone();
                let (key, value) = (d.prefixed()?, d.prefixed()?);
                if entries.last_key_value().is_some_and(|(last, _)| **last >= *key) {
                    return Err(start.error("keys do not ascend"));
                }
                entries.insert(key.to_vec(), value.to_vec());
            }
            return Ok(Content::Map { key, value, entries });
        }
        let mut chunks = Vec::new();
        for _ in 0..read_count(d)? {
            let value = read_snapshot(d)?;
            let count = read_count(d)?;
            let elements = (0..count).map(|_| d.prefixed().map(<[u8]>::to_vec));
            chunks.push(Chunk { value, elements: elements.collect::<Result<_>>()? });
        }
        Ok(Content::List { mode, chunks })
    }
}

/// What one instance of an operator contributes to a checkpoint, or begins with: the content of Flink's
/// `OperatorStateHandle`. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorSnapshot {
    pub(in crate::state) states: BTreeMap<String, Arc<Content>>,
}

impl OperatorSnapshot {
    /// Is there no state at all? Flink's snapshot is then null.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Name, mode and number of elements or entries of every state, by name.
    pub fn states(&self) -> impl Iterator<Item = (&str, OperatorMode, usize)> {
        self.states.iter().map(|(name, content)| {
            let len = match &**content {
                Content::List { chunks, .. } => chunks.iter().map(|c| c.elements.len()).sum(),
                Content::Map { entries, .. } => entries.len(),
            };
            (name.as_str(), content.mode(), len)
        })
    }

    /// The stored form of all instances of an operator, in their order: for
    /// [`JobCheckpoint::operator_state`](crate::JobCheckpoint::operator_state).
    pub fn encode_all(instances: &[OperatorSnapshot]) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, instances.len() as u64);
        for instance in instances {
            put_varint(&mut out, instance.states.len() as u64);
            for (name, content) in &instance.states {
                put_prefixed(&mut out, name.as_bytes());
                content.encode(&mut out);
            }
        }
        out
    }

    /// The inverse of [`encode_all`](OperatorSnapshot::encode_all).
    ///
    /// # Errors
    /// `Corruption` if it is none; `Unsupported` if a newer build wrote it.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<OperatorSnapshot>> {
        let mut d = Decoder::new(bytes);
        let version = d.u8()?;
        if version != VERSION {
            return Err(Error::unsupported(format!("operator state of version {version}")));
        }
        let mut instances = Vec::new();
        for _ in 0..read_count(&mut d)? {
            let mut states = BTreeMap::<String, Arc<Content>>::new();
            for _ in 0..read_count(&mut d)? {
                let start = d.clone();
                let name = d.string()?;
                let last = states.last_key_value().map_or("", |(last, _)| last);
                if name <= last {
                    return Err(start.error("names are empty, or do not ascend"));
                }
                states.insert(name.to_owned(), Arc::new(Content::decode(&mut d)?));
            }
            instances.push(OperatorSnapshot { states });
        }
        d.finish()?;
        Ok(instances)
    }
}

/// A number of things, each of which takes a byte at least.
fn read_count(d: &mut Decoder<'_>) -> Result<usize> {
    let start = d.clone();
    let count = usize::try_from(d.varint()?).unwrap_or(usize::MAX);
    match count <= d.rest().len() {
        true => Ok(count),
        false => Err(start.error("more than there are bytes")),
    }
}

fn read_snapshot(d: &mut Decoder<'_>) -> Result<SerializerSnapshot> {
    let start = d.offset();
    let bytes = d.prefixed()?;
    SerializerSnapshot::decode(Decoder::with_base(bytes, start))
}

/// What `parallelism` instances begin with, given what all old ones left, exactly as Flink deals it
/// out.
///
/// If the parallelism is what it was, each instance gets its own lists and maps back. Otherwise the
/// elements of a split list, in the order of instances, are dealt out in even shares; what is left
/// over goes round from one state to the next. A union list goes to everybody as a whole in either
/// case, and so does a map: instance `i` gets the copy of old instance `i`, modulo how many had one.
///
/// # Errors
/// `Incompatible` if two instances have states of one name in different modes.
///
/// # Panics
/// If there are to be no instances.
pub fn redistribute(old: &[OperatorSnapshot], parallelism: usize) -> Result<Vec<OperatorSnapshot>> {
    assert!(parallelism > 0, "no instances");
    let mut all = BTreeMap::<&str, Vec<(usize, &Arc<Content>)>>::new();
    for (i, instance) in old.iter().enumerate() {
        for (name, content) in &instance.states {
            all.entry(name).or_default().push((i, content));
        }
    }
    let mut new = vec![OperatorSnapshot::default(); parallelism];
    let mut first = 0;
    for (name, contents) in all {
        let mode = contents[0].1.mode();
        if let Some((i, other)) = contents.iter().find(|(_, content)| content.mode() != mode) {
            let (a, b, other) = (contents[0].0, i, other.mode());
            let text = format!("operator state {name:?}: {mode:?} in {a}, {other:?} in {b}");
            return Err(Error::incompatible(text));
        }
        let same = old.len() == parallelism;
        let own = |i: usize| contents.iter().find(|(owner, _)| *owner == i);
        match mode {
            OperatorMode::Split if same => {
                for (i, content) in &contents {
                    new[*i].states.insert(name.to_owned(), Arc::clone(content));
                }
            }
            OperatorMode::Split => first = deal(name, &contents, first, &mut new),
            OperatorMode::Union => {
                let chunks = contents.iter().flat_map(|(_, content)| chunks(content)).cloned();
                let union = Arc::new(Content::List { mode, chunks: chunks.collect() });
                for instance in &mut new {
                    instance.states.insert(name.to_owned(), Arc::clone(&union));
                }
            }
            OperatorMode::Broadcast => {
                for (i, instance) in new.iter_mut().enumerate() {
                    let of = own(i).filter(|_| same).unwrap_or(&contents[i % contents.len()]);
                    instance.states.insert(name.to_owned(), Arc::clone(of.1));
                }
            }
        }
    }
    Ok(new)
}

fn chunks(content: &Content) -> &[Chunk] {
    match content {
        Content::List { chunks, .. } => chunks,
        Content::Map { .. } => &[],
    }
}

/// Deals the elements of a split list out, beginning with the instance `first`, and returns with whom
/// to begin the next time: the first who got nothing of what was left over.
fn deal(
    name: &str,
    contents: &[(usize, &Arc<Content>)],
    first: usize,
    new: &mut [OperatorSnapshot],
) -> usize {
    let mut elements = contents
        .iter()
        .flat_map(|(_, content)| chunks(content))
        .flat_map(|chunk| chunk.elements.iter().map(move |element| (&chunk.value, element)));
    let total = elements.clone().count();
    let (share, extra) = (total / new.len(), total % new.len());
    for i in 0..new.len() {
        let mut dealt = Vec::<Chunk>::new();
        for (value, element) in elements.by_ref().take(share + usize::from(i < extra)) {
            match dealt.last_mut() {
                Some(chunk) if chunk.value == *value => chunk.elements.push(element.clone()),
                _ => dealt.push(Chunk { value: value.clone(), elements: vec![element.clone()] }),
            }
        }
        if dealt.is_empty() {
            // Known to everybody, with the serializers it had, although there is nothing for all.
            let empty = |chunk: &Chunk| Chunk { value: chunk.value.clone(), elements: Vec::new() };
            dealt = contents.iter().flat_map(|(_, content)| chunks(content)).map(empty).collect();
            dealt.truncate(1);
        }
        let content = Content::List { mode: OperatorMode::Split, chunks: dealt };
        new[(first + i) % new.len()].states.insert(name.to_owned(), Arc::new(content));
    }
    (first + extra) % new.len()
}
