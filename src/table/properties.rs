//! What a table says of itself: counts, ranges, one line for each key group.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::base::coding::{Decoder, put_field, put_prefixed, put_u64, put_varint};
use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, KeyRange, SeqNo};

/// How many entries a key group has in a table, and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KeyGroupCount {
    /// The key group.
    pub group: u16,
    /// Entries whose keys begin with it. Range tombstones belong to no group, nor do shorter keys.
    pub entries: u64,
    /// Wrapping sum of [`entry_hash`] of these entries: the order does not matter, so that the sums of
    /// several tables can be added up and compared with those of others.
    pub hash: u64,
}

/// The hash of one entry, from the hash of its user key, its trailer and its value.
#[inline]
pub fn entry_hash(key_hash: u64, trailer: u64, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, key_hash ^ trailer.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The key group of a user key, given the length of the prefix that holds it: its big-endian number.
/// `None` if groups are not counted, or the key is shorter.
#[inline]
pub fn key_group(user_key: &[u8], key_group_bytes: u8) -> Option<u16> {
    match (key_group_bytes, user_key) {
        (2, [a, b, ..]) => Some(u16::from_be_bytes([*a, *b])),
        (1, [a, ..]) => Some(u16::from(*a)),
        _ => None,
    }
}

/// Counts and ranges of a table, stored in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Properties {
    /// Entries, range tombstones not included.
    pub entries: u64,
    /// Entries that delete their key.
    pub deletes: u64,
    /// Merge operands.
    pub merges: u64,
    /// Range tombstones.
    pub range_deletes: u64,
    /// Bytes of all user keys and trailers, before prefixes are shared.
    pub raw_key_bytes: u64,
    /// Bytes of all values, before compression.
    pub raw_value_bytes: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// Least sequence number of an entry or range tombstone; 0 if there is none.
    pub seqno_min: SeqNo,
    /// Greatest sequence number of an entry or range tombstone; 0 if there is none.
    pub seqno_max: SeqNo,
    /// Least timestamp; only if there are puts or operands and each one has a timestamp.
    pub ts_min: Option<i64>,
    /// Greatest timestamp, under the same condition.
    pub ts_max: Option<i64>,
    /// Name of the extractor that the timestamps are from.
    pub timestamp_extractor: Option<String>,
    /// Length of the key prefix that is the key group; 0: groups are not counted.
    pub key_group_bytes: u8,
    /// Key groups with entries, ascending.
    pub key_groups: Vec<KeyGroupCount>,
    /// All user keys of entries and all ranges of range tombstones, half-open.
    pub bounds: KeyRange,
}

mod tag {
    pub const ENTRIES: u32 = 1;
    pub const DELETES: u32 = 2;
    pub const MERGES: u32 = 3;
    pub const RANGE_DELETES: u32 = 4;
    pub const RAW_KEY_BYTES: u32 = 5;
    pub const RAW_VALUE_BYTES: u32 = 6;
    pub const DATA_BLOCKS: u32 = 7;
    pub const SEQNOS: u32 = 8;
    pub const TIMESTAMPS: u32 = 9;
    pub const TIMESTAMP_EXTRACTOR: u32 = 10;
    pub const KEY_GROUP_BYTES: u32 = 11;
    pub const KEY_GROUPS: u32 = 12;
    pub const BOUNDS: u32 = 13;
}

impl Properties {
    /// Counts an entry in its key group, if it has one. Keys come in order, and so do groups.
    pub fn count_in_group(&mut self, key: InternalKey<'_>, key_hash: u64, value: &[u8]) {
        let Some(group) = key_group(key.user_key, self.key_group_bytes) else { return };
        let groups = &mut self.key_groups;
        if groups.last().is_none_or(|last| last.group != group) {
            groups.push(KeyGroupCount { group, entries: 0, hash: 0 });
        }
        let last = groups.last_mut().expect("just pushed");
        last.entries += 1;
        let hash = entry_hash(key_hash, key.trailer(), value);
        last.hash = last.hash.wrapping_add(hash);
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut payload = Vec::new();
        let mut put = |tag: u32, write: &dyn Fn(&mut Vec<u8>)| {
            payload.clear();
            write(&mut payload);
            put_field(&mut out, tag, false, &payload);
        };
        let counts = [
            (tag::ENTRIES, self.entries),
            (tag::DELETES, self.deletes),
            (tag::MERGES, self.merges),
            (tag::RANGE_DELETES, self.range_deletes),
            (tag::RAW_KEY_BYTES, self.raw_key_bytes),
            (tag::RAW_VALUE_BYTES, self.raw_value_bytes),
            (tag::DATA_BLOCKS, self.data_blocks),
        ];
        for (tag, count) in counts {
            put(tag, &|out| put_varint(out, count));
        }
        put(tag::SEQNOS, &|out| {
            put_varint(out, self.seqno_min);
            put_varint(out, self.seqno_max);
        });
        if let (Some(min), Some(max)) = (self.ts_min, self.ts_max) {
            put(tag::TIMESTAMPS, &|out| put_timestamps(out, min, max));
        }
        if let Some(name) = &self.timestamp_extractor {
            put(tag::TIMESTAMP_EXTRACTOR, &|out| out.extend_from_slice(name.as_bytes()));
        }
        put(tag::KEY_GROUP_BYTES, &|out| out.push(self.key_group_bytes));
        if !self.key_groups.is_empty() {
            put(tag::KEY_GROUPS, &|out| {
                for count in &self.key_groups {
                    put_varint(out, u64::from(count.group));
                    put_varint(out, count.entries);
                    put_u64(out, count.hash);
                }
            });
        }
        put(tag::BOUNDS, &|out| {
            put_prefixed(out, &self.bounds.start);
            if let Some(end) = &self.bounds.end {
                put_prefixed(out, end);
            }
        });
        out
    }

    /// Reads the stored form, which begins at `base` of its file. Tags that are not known are skipped.
    ///
    /// # Errors
    /// `Unsupported` if an unknown tag must be understood; `Corruption`.
    pub fn decode(bytes: &[u8], base: u64) -> Result<Properties> {
        let mut this = Properties::default();
        let mut d = Decoder::with_base(bytes, base);
        let mut last = 0;
        while !d.is_empty() {
            let before = d.clone();
            let (tag, must_understand, mut payload) = d.field()?;
            if tag <= last {
                return Err(before.error("tags are not ascending"));
            }
            last = tag;
            if this.decode_field(tag, &mut payload)? {
                payload.finish()?;
            } else if must_understand {
                let text = format!("table property {tag} is not known and must be understood");
                return Err(Error::unsupported(text).at(before.offset()));
            }
        }
        Ok(this)
    }

    /// Reads one field; `false` if the tag is not known.
    fn decode_field(&mut self, tag: u32, d: &mut Decoder<'_>) -> Result<bool> {
        match tag {
            tag::ENTRIES => self.entries = d.varint()?,
            tag::DELETES => self.deletes = d.varint()?,
            tag::MERGES => self.merges = d.varint()?,
            tag::RANGE_DELETES => self.range_deletes = d.varint()?,
            tag::RAW_KEY_BYTES => self.raw_key_bytes = d.varint()?,
            tag::RAW_VALUE_BYTES => self.raw_value_bytes = d.varint()?,
            tag::DATA_BLOCKS => self.data_blocks = d.varint()?,
            tag::SEQNOS => (self.seqno_min, self.seqno_max) = (d.varint()?, d.varint()?),
            tag::TIMESTAMPS => {
                let (min, max) = read_timestamps(d)?;
                (self.ts_min, self.ts_max) = (Some(min), Some(max));
            }
            tag::TIMESTAMP_EXTRACTOR => {
                let name = std::str::from_utf8(d.rest()).map_err(|_| d.error("not UTF-8"))?;
                self.timestamp_extractor = Some(name.to_owned());
                d.bytes(d.rest().len())?;
            }
            tag::KEY_GROUP_BYTES => self.key_group_bytes = d.u8()?,
            tag::KEY_GROUPS => {
                while !d.is_empty() {
                    let before = d.clone();
                    let group = d.varint()?;
                    let group = u16::try_from(group).map_err(|_| before.error("no key group"))?;
                    if self.key_groups.last().is_some_and(|last| last.group >= group) {
                        return Err(before.error("key groups are not ascending"));
                    }
                    let (entries, hash) = (d.varint()?, d.u64()?);
                    self.key_groups.push(KeyGroupCount { group, entries, hash });
                }
            }
            tag::BOUNDS => {
                self.bounds.start = d.prefixed()?.to_vec();
                self.bounds.end = if d.is_empty() { None } else { Some(d.prefixed()?.to_vec()) };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Appends a range of timestamps.
pub fn put_timestamps(out: &mut Vec<u8>, min: i64, max: i64) {
    put_u64(out, min as u64);
    put_u64(out, max as u64);
}

/// Reads a range of timestamps.
pub fn read_timestamps(d: &mut Decoder<'_>) -> Result<(i64, i64)> {
    let before = d.clone();
    let (min, max) = (d.u64()? as i64, d.u64()? as i64);
    if min > max {
        return Err(before.error("timestamps are not ascending"));
    }
    Ok((min, max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    quickcheck! {
        fn round_trip(counts: Vec<u64>, ts: Option<(i64, i64)>, name: Option<String>,
                      groups: Vec<u16>, start: Vec<u8>, end: Option<Vec<u8>>) -> bool {
            let at = |i: usize| counts.get(i).copied().unwrap_or(0);
            let mut groups = groups;
            groups.sort_unstable();
            groups.dedup();
            let properties = Properties {
                entries: at(0),
                deletes: at(1),
                merges: at(2),
                range_deletes: at(3),
                raw_key_bytes: at(4),
                raw_value_bytes: at(5),
                data_blocks: at(6),
                seqno_min: at(7),
                seqno_max: at(8),
                ts_min: ts.map(|(a, b)| a.min(b)),
                ts_max: ts.map(|(a, b)| a.max(b)),
                timestamp_extractor: name,
                key_group_bytes: at(9) as u8,
                key_groups: groups
                    .into_iter()
                    .map(|group| KeyGroupCount { group, entries: at(10), hash: at(11) })
                    .collect(),
                bounds: KeyRange { start, end },
            };
            Properties::decode(&properties.encode(), 0).unwrap() == properties
        }

        fn decoding_anything_returns(bytes: Vec<u8>) -> bool {
            Properties::decode(&bytes, 7).map_err(|e| e.offset() >= Some(7)).err() != Some(false)
        }
    }

    #[test]
    fn unknown_tags_are_skipped_unless_they_must_be_understood() {
        let plain = Properties { entries: 3, ..Properties::default() };
        let mut bytes = plain.encode();
        put_field(&mut bytes, 99, false, b"later");
        assert_eq!(Properties::decode(&bytes, 0).unwrap(), plain);
        put_field(&mut bytes, 100, true, b"later");
        let e = Properties::decode(&bytes, 500).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.offset().is_some_and(|at| at > 500));
    }

    #[test]
    fn groups_are_big_endian_prefixes() {
        assert_eq!(key_group(&[1, 2, 3], 2), Some(0x0102));
        assert_eq!(key_group(&[1, 2, 3], 1), Some(1));
        assert_eq!(key_group(&[1], 2), None);
        assert_eq!(key_group(&[1, 2], 0), None);
    }
}
