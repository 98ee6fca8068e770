//! F6.6: what is stored of a serializer, and whether another one can take its place.
//!
//! State outlives the program that wrote it. With every state a *snapshot* of its serializers is
//! stored: name, version and configuration, never code. When the state is asked for again, the new
//! serializer looks at that and says one of four things: [`Compatibility`]. Values and elements may
//! be migrated: read by a reader of the old form, written in the new. Keys, namespaces and user keys
//! may not, since their bytes decide where state lies.

use std::fmt;

use crate::base::coding::Decoder;
use crate::base::coding::put_field;
use crate::base::coding::put_varint;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::base::sync::Arc;
use crate::state::meta::each_field;
use crate::state::meta::text;
use crate::state::serializer::Serializer;

/// F6.6.
pub const LAYOUTS: &[Layout] = &[Layout {
    id: "F6.6",
    title: "Snapshot of a serializer; a tag-length-value each",
    fields: &[
        field("0", "n", "tag 1!: name", "UTF-8"),
        field("", "n", "tag 2!: version", "varint"),
        field("", "n", "tag 3!: fixed_len", "varint: bytes of every value; left out if they vary"),
        field("", "n", "tag 4!: config", "opaque; composites: F6.6 of each part, after its length"),
    ],
}];

/// What is stored of a serializer: Flink's `TypeSerializerSnapshot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerializerSnapshot {
    /// What the encoding is called.
    pub name: String,
    /// Version of the encoding.
    pub version: u32,
    /// Bytes of every value, if they all have the same number.
    pub fixed_len: Option<u32>,
    /// Whatever else the serializer wants to find again.
    pub config: Vec<u8>,
}

impl SerializerSnapshot {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let number = |out: &mut Vec<u8>, tag, number: u32| {
            let mut payload = Vec::new();
            put_varint(&mut payload, number.into());
            put_field(out, tag, true, &payload);
        };
        put_field(&mut out, 1, true, self.name.as_bytes());
        number(&mut out, 2, self.version);
        if let Some(len) = self.fixed_len {
            number(&mut out, 3, len);
        }
        if !self.config.is_empty() {
            put_field(&mut out, 4, true, &self.config);
        }
        out
    }

    /// The inverse of [`encode`](SerializerSnapshot::encode).
    ///
    /// # Errors
    /// `Corruption` if it is none; `Unsupported` if a newer reader is needed.
    pub fn decode(d: Decoder<'_>) -> Result<SerializerSnapshot> {
        let number = |d: &mut Decoder<'_>| {
            let number = d.varint32()?;
            d.finish().map(|()| number)
        };
        let (mut name, mut version, mut fixed_len, mut config) = (None, None, None, Vec::new());
        each_field(d.clone(), |tag, payload| {
            match tag {
                1 => name = Some(text(payload)?),
                2 => version = Some(number(payload)?),
                3 => fixed_len = Some(number(payload)?),
                4 => config = payload.rest().to_vec(),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        match (name, version) {
            (Some(name), Some(version)) => {
                Ok(SerializerSnapshot { name, version, fixed_len, config })
            }
            _ => Err(d.error("a serializer without name or version")),
        }
    }

    /// The snapshots of the parts of a composite, if it is one of this name with so many parts.
    pub fn parts<const N: usize>(&self, name: &str) -> Option<[SerializerSnapshot; N]> {
        if self.name != name || self.version != 1 {
            return None;
        }
        let mut d = Decoder::new(&self.config);
        let mut parts = Vec::new();
        while !d.is_empty() {
            let part =
                d.prefixed().and_then(|bytes| SerializerSnapshot::decode(Decoder::new(bytes)));
            parts.push(part.ok()?);
        }
        parts.try_into().ok()
    }
}

impl fmt::Display for SerializerSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// A width as it is stored.
///
/// # Panics
/// If values are of a fixed width that no key could have.
pub fn stored_len(len: usize) -> u32 {
    u32::try_from(len).expect("a fixed width is short")
}

/// What a serializer says about bytes that another one wrote: Flink's
/// `TypeSerializerSchemaCompatibility`.
pub enum Compatibility<V> {
    /// They are as it would write them.
    AsIs,
    /// This one, made from the stored configuration, is to be used in its place: its bytes are the
    /// stored ones.
    Reconfigured(Arc<dyn Serializer<Value = V>>),
    /// They can be read by this one, and are to be written anew. Not for keys and namespaces.
    AfterMigration(Arc<dyn Serializer<Value = V>>),
    /// They cannot be read; the text says why.
    Incompatible(String),
}

impl<V: 'static> Compatibility<V> {
    /// [`AsIs`](Compatibility::AsIs) if the snapshots are the same, else incompatible.
    pub fn if_equal(own: &SerializerSnapshot, stored: &SerializerSnapshot) -> Compatibility<V> {
        if own == stored {
            return Compatibility::AsIs;
        }
        let text = match own.to_string() == stored.to_string() {
            true => format!("{own} is stored in another configuration"),
            false => format!("stored is {stored}, asked for is {own}"),
        };
        Compatibility::Incompatible(text)
    }
}

impl<V: 'static> fmt::Debug for Compatibility<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compatibility::AsIs => f.write_str("AsIs"),
            Compatibility::Reconfigured(with) => write!(f, "Reconfigured({})", with.snapshot()),
            Compatibility::AfterMigration(from) => write!(f, "AfterMigration({})", from.snapshot()),
            Compatibility::Incompatible(text) => write!(f, "Incompatible({text:?})"),
        }
    }
}

/// What a serializer says of a snapshot. Whatever is to read the stored bytes must have their width:
/// composites are taken apart by it.
pub fn compare<V: 'static>(
    serializer: &dyn Serializer<Value = V>,
    stored: &SerializerSnapshot,
) -> Compatibility<V> {
    let said = serializer.compatibility(stored);
    let width = match &said {
        Compatibility::AsIs => serializer.fixed_len(),
        Compatibility::Reconfigured(reader) | Compatibility::AfterMigration(reader) => {
            reader.fixed_len()
        }
        Compatibility::Incompatible(_) => return said,
    };
    if width.map(stored_len) != stored.fixed_len {
        let have = serializer.snapshot();
        let text = format!("{have} reads values of another width than those of {stored}");
        return Compatibility::Incompatible(text);
    }
    said
}

/// What a composite says of bytes that another one wrote: the worst of what its parts say.
#[derive(Default)]
pub struct Whole {
    migration: bool,
    reconfigured: bool,
    incompatible: Option<String>,
}

impl Whole {
    /// Asks a part, and returns what reads the stored bytes of the part.
    pub fn part<S: Serializer + Clone>(
        &mut self,
        part: &S,
        stored: &SerializerSnapshot,
    ) -> Arc<dyn Serializer<Value = S::Value>> {
        match compare(part, stored) {
            Compatibility::AsIs => {}
            Compatibility::Reconfigured(reader) => {
                self.reconfigured = true;
                return reader;
            }
            Compatibility::AfterMigration(reader) => {
                self.migration = true;
                return reader;
            }
            Compatibility::Incompatible(text) => drop(self.incompatible.get_or_insert(text)),
        }
        Arc::new(part.clone())
    }

    /// The outcome; `reader` is made of what [`part`](Whole::part) returned.
    pub fn outcome<V: 'static>(self, reader: impl Serializer<Value = V>) -> Compatibility<V> {
        match self.incompatible {
            Some(text) => Compatibility::Incompatible(text),
            None if self.migration => Compatibility::AfterMigration(Arc::new(reader)),
            None if self.reconfigured => Compatibility::Reconfigured(Arc::new(reader)),
            None => Compatibility::AsIs,
        }
    }
}

/// A serializer that takes over stored state, whose parts may have been written by several.
pub struct Resolved<V> {
    /// What writes from now on.
    pub serializer: Arc<dyn Serializer<Value = V>>,
    /// For each stored snapshot, what reads its bytes if they are to be written anew.
    pub readers: Vec<Option<Arc<dyn Serializer<Value = V>>>>,
}

/// Asks a serializer about everything that is stored.
///
/// # Errors
/// `Incompatible` if it cannot take over all of it.
pub fn resolve<'a, V: 'static>(
    what: &str,
    mut serializer: Arc<dyn Serializer<Value = V>>,
    stored: impl Iterator<Item = &'a SerializerSnapshot> + Clone,
) -> Result<Resolved<V>> {
    let said = stored.clone().map(|stored| (stored, compare(&*serializer, stored)));
    let reconfigured = said.into_iter().find_map(|(stored, said)| match said {
        Compatibility::Reconfigured(with) => Some((stored, with)),
        _ => None,
    });
    // It is asked once more, for what else there is.
    let origin = reconfigured.as_ref().map(|(stored, _)| *stored);
    if let Some((_, with)) = reconfigured {
        serializer = with;
    }
    let refuse = |text: String| Err(Error::incompatible(format!("{what}: {text}")));
    let mut readers = Vec::new();
    for snapshot in stored {
        readers.push(match compare(&*serializer, snapshot) {
            _ if origin == Some(snapshot) => None,
            Compatibility::AsIs => None,
            Compatibility::AfterMigration(reader) => Some(reader),
            Compatibility::Reconfigured(_) => {
                return refuse(format!("{snapshot} is stored in two configurations"));
            }
            Compatibility::Incompatible(text) => return refuse(text),
        });
    }
    Ok(Resolved { serializer, readers })
}

/// [`resolve`] for keys, namespaces and user keys: their bytes decide where state lies.
///
/// # Errors
/// `Incompatible` besides, if anything would have to be written anew.
pub fn resolve_fixed<'a, V: 'static>(
    what: &str,
    serializer: Arc<dyn Serializer<Value = V>>,
    stored: impl Iterator<Item = &'a SerializerSnapshot> + Clone,
) -> Result<Arc<dyn Serializer<Value = V>>> {
    let Resolved { serializer, readers } = resolve(what, serializer, stored)?;
    if readers.iter().any(Option::is_some) {
        let text = format!("{what}: {} would need a migration", serializer.snapshot());
        return Err(Error::incompatible(text));
    }
    Ok(serializer)
}
