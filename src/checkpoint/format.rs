//! F5: the envelope of a checkpoint.
//!
//! ```text
//! preamble(16, kind E) ‖ fields ‖ BLAKE3 of all bytes before it (32)
//! ```
//! Fields are tag-length-value, nested, in ascending order of their tags; only those marked * may
//! repeat. All carry the must-understand bit. Tables name their object by its place in the list of
//! objects, which stands apart: after a split and a join one object can appear in two tables, with
//! other bounds and another level. The digest at the end is the checkpoint's identity.

use std::collections::BTreeSet;

use crate::base::coding::Decoder;
use crate::base::coding::put_field;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::FileKind;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::base::format::put_preamble;
use crate::base::format::read_preamble;
use crate::base::key::SEQNO_MAX;
use crate::base::key::SeqNo;
use crate::base::limits::ENVELOPE_BYTES_MAX;
use crate::base::limits::KEY_GROUPS_MAX;
use crate::base::limits::LEVELS;
use crate::base::limits::NAME_BYTES_MAX;
use crate::checkpoint::store::SharedName;

/// F5.1 to F5.6.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F5.1",
        title: "Checkpoint envelope",
        fields: &[
            field("0", "16", "preamble", "F0, kind E"),
            field("16", "n", "tag 1!: checkpoint", "id, u64"),
            field("", "n", "tag 2!: max_parallelism", "number of key groups, u32"),
            field("", "n", "tag 3!: prefix_bytes", "bytes of the key-group prefix, 1 or 2, u8"),
            field("", "n", "tag 4!: user", "opaque bytes of the user, such as source positions"),
            field("", "n", "tag 5!: object *", "F5.2; tables count them from 0"),
            field("", "n", "tag 6!: part *", "F5.3, by ascending key groups"),
            field("", "n", "tag 7!: operator_state *", "F5.6"),
            field("", "32", "digest", "BLAKE3 of everything before: the checkpoint's identity"),
        ],
    },
    Layout {
        id: "F5.2",
        title: "Object of an envelope",
        fields: &[
            field("0", "n", "tag 1!: name", "UTF-8: 1 to 160 of a-z 0-9 . _ -"),
            field("", "n", "tag 2!: len", "bytes of the object, u64"),
            field("", "n", "tag 3!: digest", "BLAKE3 of the object, 32 bytes"),
            field("", "n", "tag 4!: checksum", "XXH3-128 of the object, 16 bytes"),
        ],
    },
    Layout {
        id: "F5.3",
        title: "Part of an envelope: one database",
        fields: &[
            field("0", "n", "tag 1!: groups", "first and last key group, u16 each"),
            field("", "n", "tag 2!: seqno", "largest sequence number, u64"),
            field("", "n", "tag 3!: record", "of the database: empty today"),
            field("", "n", "tag 4!: family *", "F5.4"),
        ],
    },
    Layout {
        id: "F5.4",
        title: "Column family of a part",
        fields: &[
            field("0", "n", "tag 1!: name", "UTF-8"),
            field("", "n", "tag 2!: merge_operator", "name, UTF-8; left out if there is none"),
            field("", "n", "tag 3!: options", "options of the family, F4.5"),
            field("", "n", "tag 4!: table *", "F5.5"),
            field("", "n", "tag 5!: census", "what the tables hold of each key group, F4.4"),
        ],
    },
    Layout {
        id: "F5.5",
        title: "Table of a column family",
        fields: &[
            field("0", "n", "tag 1!: object", "index into the envelope's objects, u32"),
            field("", "n", "tag 2!: level", "u8"),
            field("", "n", "tag 3!: meta", "the table's metadata with its clip, F4"),
        ],
    },
    Layout {
        id: "F5.6",
        title: "Operator state of an envelope",
        fields: &[
            field("0", "n", "tag 1!: name", "UTF-8"),
            field("", "n", "tag 2!: bytes", "opaque bytes of the operator"),
        ],
    },
];

/// Bytes of a BLAKE3 digest.
const DIGEST_BYTES: usize = 32;

/// A BLAKE3 digest.
pub type Digest = [u8; DIGEST_BYTES];

/// A checkpoint of a job: what to restore it from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Id of the checkpoint, ascending within a job.
    pub checkpoint: u64,
    /// Number of key groups of the job.
    pub max_parallelism: u32,
    /// Bytes of the key-group prefix of every key: 1 (only up to 128 groups) or 2.
    pub prefix_bytes: u8,
    /// Opaque to the engine, such as the positions of sources.
    pub user: Vec<u8>,
    /// All objects that the parts refer to, each once.
    pub objects: Vec<ObjectRef>,
    /// Disjoint ranges of key groups, ascending.
    pub parts: Vec<Part>,
    /// State that belongs to no key, by name.
    pub operator_state: Vec<(String, Vec<u8>)>,
}

/// An object in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Its name.
    pub name: SharedName,
    /// Its length in bytes.
    pub len: u64,
    /// BLAKE3 of all its bytes: the name of what it holds.
    pub digest: Digest,
    /// XXH3-128 of all its bytes: shows damage, several times as fast.
    pub checksum: u128,
}

/// The state of one database: a range of key groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// First key group.
    pub first_group: u16,
    /// Last key group, inclusive.
    pub last_group: u16,
    /// The largest sequence number in any of its tables.
    pub seqno: SeqNo,
    /// What else the database wants to know; opaque here.
    pub record: Vec<u8>,
    /// Its column families, each name once.
    pub families: Vec<PartFamily>,
}

/// A column family of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFamily {
    /// Its name.
    pub name: String,
    /// The name of its merge operator.
    pub merge_operator: Option<String>,
    /// Encoded options, opaque here.
    pub options: Vec<u8>,
    /// Its tables; level 0 newest first.
    pub tables: Vec<PartTable>,
    /// What they hold of each key group, opaque here. Empty: not known.
    pub census: Vec<u8>,
}

/// A table of a column family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartTable {
    /// Index into [`Envelope::objects`].
    pub object: u32,
    /// Its level in the tree.
    pub level: u8,
    /// Encoded metadata with bounds, opaque here.
    pub meta: Vec<u8>,
}

impl Envelope {
    /// The stored bytes, and the digest that is the checkpoint's identity.
    ///
    /// # Errors
    /// `InvalidArgument` if decoding would refuse it.
    pub fn encode(&self) -> Result<(Vec<u8>, Digest)> {
        self.check().map_err(Error::invalid)?;
        let mut out = self.encode_content();
        let len = out.len() + DIGEST_BYTES;
        if len > ENVELOPE_BYTES_MAX {
            return Err(Error::invalid(format!("an envelope of {len} bytes")));
        }
        let digest = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&digest);
        Ok((out, digest))
    }

    /// Everything but the digest, unchecked.
    fn encode_content(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_preamble(&mut out, FileKind::Envelope);
        put_field(&mut out, 1, true, &self.checkpoint.to_le_bytes());
        put_field(&mut out, 2, true, &self.max_parallelism.to_le_bytes());
        put_field(&mut out, 3, true, &[self.prefix_bytes]);
        put_field(&mut out, 4, true, &self.user);
        for object in &self.objects {
            put_nested(&mut out, 5, |out| object.encode(out));
        }
        for part in &self.parts {
            put_nested(&mut out, 6, |out| part.encode(out));
        }
        for (name, bytes) in &self.operator_state {
            put_nested(&mut out, 7, |out| {
                put_field(out, 1, true, name.as_bytes());
                put_field(out, 2, true, bytes);
            });
        }
        out
    }

    /// The inverse of [`encode`](Envelope::encode).
    ///
    /// # Errors
    /// `Corruption` with an offset if any bit is not as it was written, or the content contradicts
    /// itself; `Unsupported` if a newer reader is needed.
    pub fn decode(bytes: &[u8]) -> Result<(Envelope, Digest)> {
        let mut d = Decoder::new(bytes);
        read_preamble(&mut d, FileKind::Envelope)?;
        let Some((content, digest)) = bytes.split_last_chunk::<DIGEST_BYTES>() else {
            return Err(d.error("cut short"));
        };
        if blake3::hash(content).as_bytes() != digest {
            return Err(Error::corruption("digest of the envelope").at(content.len() as u64));
        }
        let start = d.offset();
        let body = d.bytes(d.rest().len().saturating_sub(DIGEST_BYTES))?;
        let envelope = Envelope::decode_fields(Decoder::with_base(body, start))?;
        envelope.check().map_err(|text| Error::corruption(text).at(start))?;
        Ok((envelope, *digest))
    }

    fn decode_fields(d: Decoder<'_>) -> Result<Envelope> {
        let mut fields = Fields::new(d, 7, &[5, 6, 7]);
        let (mut checkpoint, mut max_parallelism, mut prefix_bytes) = (None, None, None);
        let mut user = None;
        let (mut objects, mut parts, mut operator_state) = (Vec::new(), Vec::new(), Vec::new());
        while let Some((tag, mut d)) = fields.next()? {
            match tag {
                1 => checkpoint = Some(whole(&mut d, Decoder::u64)?),
                2 => max_parallelism = Some(whole(&mut d, Decoder::u32)?),
                3 => prefix_bytes = Some(whole(&mut d, Decoder::u8)?),
                4 => user = Some(d.rest().to_vec()),
                5 => objects.push(ObjectRef::decode(d)?),
                6 => parts.push(Part::decode(d)?),
                _ => operator_state.push(decode_operator_state(d)?),
            }
        }
        Ok(Envelope {
            checkpoint: fields.need(checkpoint, "checkpoint")?,
            max_parallelism: fields.need(max_parallelism, "max_parallelism")?,
            prefix_bytes: fields.need(prefix_bytes, "prefix_bytes")?,
            user: fields.need(user, "user")?,
            objects,
            parts,
            operator_state,
        })
    }

    /// Everything that one field alone does not show.
    fn check(&self) -> std::result::Result<(), String> {
        if !(1..=KEY_GROUPS_MAX).contains(&self.max_parallelism) {
            return Err(format!("max parallelism {}", self.max_parallelism));
        }
        // One byte must be able to hold the group *after* the last.
        if !matches!((self.prefix_bytes, self.max_parallelism), (1, ..=128) | (2, _)) {
            return Err(format!("a key-group prefix of {} bytes", self.prefix_bytes));
        }
        let mut seen = BTreeSet::new();
        if let Some(object) = self.objects.iter().find(|object| !seen.insert(&object.name)) {
            return Err(format!("object {} twice", object.name));
        }
        let mut next_group = 0;
        for part in &self.parts {
            let (first, last) = (u32::from(part.first_group), u32::from(part.last_group));
            if first < next_group || last < first || last >= self.max_parallelism {
                return Err(format!("key groups {first} to {last} of a part"));
            }
            next_group = last + 1;
            part.check(self.objects.len())?;
        }
        check_names(self.operator_state.iter().map(|(name, _)| name.as_str()))
    }
}

impl ObjectRef {
    fn encode(&self, out: &mut Vec<u8>) {
        put_field(out, 1, true, self.name.as_str().as_bytes());
        put_field(out, 2, true, &self.len.to_le_bytes());
        put_field(out, 3, true, &self.digest);
        put_field(out, 4, true, &self.checksum.to_le_bytes());
    }

    fn decode(d: Decoder<'_>) -> Result<ObjectRef> {
        let mut fields = Fields::new(d, 4, &[]);
        let (mut name, mut len, mut digest, mut checksum) = (None, None, None, None);
        while let Some((tag, mut d)) = fields.next()? {
            match tag {
                1 => {
                    let bad = |_| d.error("not a name of an object");
                    name = Some(SharedName::new(text(&d)?).map_err(bad)?);
                }
                2 => len = Some(whole(&mut d, Decoder::u64)?),
                3 => digest = Some(whole(&mut d, Decoder::fixed)?),
                _ => checksum = Some(u128::from_le_bytes(whole(&mut d, Decoder::fixed)?)),
            }
        }
        Ok(ObjectRef {
            name: fields.need(name, "name")?,
            len: fields.need(len, "len")?,
            digest: fields.need(digest, "digest")?,
            checksum: fields.need(checksum, "checksum")?,
        })
    }
}

impl Part {
    fn encode(&self, out: &mut Vec<u8>) {
        let groups = [self.first_group.to_le_bytes(), self.last_group.to_le_bytes()];
        put_field(out, 1, true, groups.as_flattened());
        put_field(out, 2, true, &self.seqno.to_le_bytes());
        put_field(out, 3, true, &self.record);
        for family in &self.families {
            put_nested(out, 4, |out| family.encode(out));
        }
    }

    fn decode(d: Decoder<'_>) -> Result<Part> {
        let mut fields = Fields::new(d, 4, &[4]);
        let (mut groups, mut seqno, mut record) = (None, None, None);
        let mut families = Vec::new();
        while let Some((tag, mut d)) = fields.next()? {
            match tag {
                1 => groups = Some(whole(&mut d, |d| Ok((d.u16()?, d.u16()?)))?),
                2 => seqno = Some(whole(&mut d, Decoder::u64)?),
                3 => record = Some(d.rest().to_vec()),
                _ => families.push(PartFamily::decode(d)?),
            }
        }
        let (first_group, last_group) = fields.need(groups, "groups")?;
        Ok(Part {
            first_group,
            last_group,
            seqno: fields.need(seqno, "seqno")?,
            record: fields.need(record, "record")?,
            families,
        })
    }

    fn check(&self, objects: usize) -> std::result::Result<(), String> {
        if self.seqno > SEQNO_MAX {
            return Err(format!("sequence number {}", self.seqno));
        }
        check_names(self.families.iter().map(|family| family.name.as_str()))?;
        for table in self.families.iter().flat_map(|family| &family.tables) {
            if table.object as usize >= objects || usize::from(table.level) >= LEVELS {
                return Err(format!("a table of object {}, level {}", table.object, table.level));
            }
        }
        Ok(())
    }
}

impl PartFamily {
    fn encode(&self, out: &mut Vec<u8>) {
        put_field(out, 1, true, self.name.as_bytes());
        if let Some(operator) = &self.merge_operator {
            put_field(out, 2, true, operator.as_bytes());
        }
        put_field(out, 3, true, &self.options);
        for table in &self.tables {
            put_nested(out, 4, |out| {
                put_field(out, 1, true, &table.object.to_le_bytes());
                put_field(out, 2, true, &[table.level]);
                put_field(out, 3, true, &table.meta);
            });
        }
        put_field(out, 5, true, &self.census);
    }

    fn decode(d: Decoder<'_>) -> Result<PartFamily> {
        let mut fields = Fields::new(d, 5, &[4]);
        let (mut name, mut merge_operator, mut options) = (None, None, None);
        let (mut tables, mut census) = (Vec::new(), None);
        while let Some((tag, d)) = fields.next()? {
            match tag {
                1 => name = Some(text(&d)?.to_owned()),
                2 => merge_operator = Some(text(&d)?.to_owned()),
                3 => options = Some(d.rest().to_vec()),
                4 => tables.push(PartTable::decode(d)?),
                _ => census = Some(d.rest().to_vec()),
            }
        }
        Ok(PartFamily {
            name: fields.need(name, "name")?,
            merge_operator,
            options: fields.need(options, "options")?,
            tables,
            census: fields.need(census, "census")?,
        })
    }
}

impl PartTable {
    fn decode(d: Decoder<'_>) -> Result<PartTable> {
        let mut fields = Fields::new(d, 3, &[]);
        let (mut object, mut level, mut meta) = (None, None, None);
        while let Some((tag, mut d)) = fields.next()? {
            match tag {
                1 => object = Some(whole(&mut d, Decoder::u32)?),
                2 => level = Some(whole(&mut d, Decoder::u8)?),
                _ => meta = Some(d.rest().to_vec()),
            }
        }
        Ok(PartTable {
            object: fields.need(object, "object")?,
            level: fields.need(level, "level")?,
            meta: fields.need(meta, "meta")?,
        })
    }
}

fn decode_operator_state(d: Decoder<'_>) -> Result<(String, Vec<u8>)> {
    let mut fields = Fields::new(d, 2, &[]);
    let (mut name, mut bytes) = (None, None);
    while let Some((tag, d)) = fields.next()? {
        match tag {
            1 => name = Some(text(&d)?.to_owned()),
            _ => bytes = Some(d.rest().to_vec()),
        }
    }
    Ok((fields.need(name, "name")?, fields.need(bytes, "bytes")?))
}

/// Names of one list: none empty, too long, or twice.
fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> std::result::Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(format!("a name of {} bytes", name.len()));
        }
        if !seen.insert(name) {
            return Err(format!("{name} twice"));
        }
    }
    Ok(())
}

fn put_nested(out: &mut Vec<u8>, tag: u32, encode: impl FnOnce(&mut Vec<u8>)) {
    let mut payload = Vec::new();
    encode(&mut payload);
    put_field(out, tag, true, &payload);
}

/// A payload that is read to its end.
fn whole<'a, T>(
    d: &mut Decoder<'a>,
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T>,
) -> Result<T> {
    let value = read(d)?;
    d.finish()?;
    Ok(value)
}

fn text<'a>(d: &Decoder<'a>) -> Result<&'a str> {
    std::str::from_utf8(d.rest()).map_err(|_| d.error("not UTF-8"))
}

/// The fields of one structure, in ascending order of their tags.
struct Fields<'a> {
    d: Decoder<'a>,
    tag_max: u32,
    repeated: &'static [u32],
    last: u32,
}

impl<'a> Fields<'a> {
    /// Tags above `tag_max` are unknown; those in `repeated` may come more than once.
    fn new(d: Decoder<'a>, tag_max: u32, repeated: &'static [u32]) -> Fields<'a> {
        Fields { d, tag_max, repeated, last: 0 }
    }

    fn next(&mut self) -> Result<Option<(u32, Decoder<'a>)>> {
        while !self.d.is_empty() {
            let start = self.d.clone();
            let (tag, must_understand, payload) = self.d.field()?;
            let known = tag <= self.tag_max;
            let again = tag == self.last && known && !self.repeated.contains(&tag);
            if tag < self.last || again {
                return Err(start.error("fields out of order, or one of them twice"));
            }
            self.last = tag;
            if known {
                return Ok(Some((tag, payload)));
            }
            if must_understand {
                let text = format!("field {tag} needs a newer reader");
                return Err(Error::unsupported(text).at(start.offset()));
            }
        }
        Ok(None)
    }

    fn need<T>(&self, value: Option<T>, name: &str) -> Result<T> {
        value.ok_or_else(|| self.d.error(&format!("no field {name}")))
    }
}

#[cfg(test)]
mod tests;
