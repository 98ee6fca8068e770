//! F6: the composite key of a cell of keyed state.
//!
//! ```text
//! cell:   group(2, big-endian) ‖ key ‖ namespace
//! entry:  group(2, big-endian) ‖ key ‖ namespace ‖ user key        (map state)
//! timer:  group(2, big-endian) ‖ time(8, big-endian, sign bit flipped) ‖ key ‖ namespace
//! ```
//! Key and namespace stand after their length, a varint, unless their width is fixed; the user key
//! is what remains. So no cell's key is a prefix of another's, and all entries of a map, all
//! namespaces of a key and all keys of a group are contiguous: each is one prefix.

use crate::base::coding::Decoder;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::Layout;
use crate::base::format::field;
use crate::base::key::KeyRange;
use crate::base::limits::KEY_GROUPS_MAX;
use crate::state::current_key::WORD_BYTES;
use crate::state::key_group::PREFIX_BYTES;
use crate::state::serializer::put_delimited;
use crate::state::serializer::read_delimited;

/// F6.1 and F6.2.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F6.1",
        title: "Key of a cell, or of an entry of a map",
        fields: &[
            field("0", "2", "group", "key group, big-endian"),
            field("2", "v", "key_len", "length of the key; left out if its width is fixed"),
            field("", "n", "key", "the key"),
            field("", "v", "namespace_len", "length; left out if the width is fixed"),
            field("", "n", "namespace", "the namespace"),
            field("", "n", "user_key", "map state: the user key, up to the end"),
        ],
    },
    Layout {
        id: "F6.2",
        title: "Key of a timer",
        fields: &[
            field("0", "2", "group", "key group, big-endian"),
            field("2", "8", "time", "milliseconds, big-endian, sign bit flipped"),
            field("10", "v", "key_len", "length of the key; left out if its width is fixed"),
            field("", "n", "key", "the key"),
            field("", "v", "namespace_len", "length; left out if the width is fixed"),
            field("", "n", "namespace", "the namespace"),
        ],
    },
];

/// Bytes of a timer's group and time.
const TIMER_HEAD_BYTES: usize = PREFIX_BYTES + 8;

/// The widths of a state's keys and namespaces, in bytes; `None`: variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShape {
    /// Width of every key.
    pub key: Option<usize>,
    /// Width of every namespace.
    pub namespace: Option<usize>,
}

/// The parts of a composite key, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompositeKey<'a> {
    /// The key group.
    pub group: u16,
    /// The serialized key.
    pub key: &'a [u8],
    /// The serialized namespace.
    pub namespace: &'a [u8],
    /// The serialized user key of a map's entry; empty for other states.
    pub user_key: &'a [u8],
}

/// The parts of a timer's key, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey<'a> {
    /// The key group.
    pub group: u16,
    /// When it fires: milliseconds since 1970, may be negative.
    pub time: i64,
    /// The serialized key.
    pub key: &'a [u8],
    /// The serialized namespace.
    pub namespace: &'a [u8],
}

impl KeyShape {
    /// Takes the key of a map's entry apart; for other states, `user_key` must come out empty.
    ///
    /// # Errors
    /// `Corruption` if it is no such key.
    pub fn parse<'a>(&self, bytes: &'a [u8]) -> Result<CompositeKey<'a>> {
        let mut d = Decoder::new(bytes);
        let group = read_group(&mut d)?;
        let key = read_delimited(self.key, &mut d)?;
        let namespace = read_delimited(self.namespace, &mut d)?;
        Ok(CompositeKey { group, key, namespace, user_key: d.rest() })
    }

    /// Takes the key of a cell apart: nothing may follow the namespace.
    ///
    /// # Errors
    /// `Corruption` if it is no such key.
    pub fn parse_cell<'a>(&self, bytes: &'a [u8]) -> Result<CompositeKey<'a>> {
        let cell = self.parse(bytes)?;
        if cell.user_key.is_empty() {
            return Ok(cell);
        }
        let end = bytes.len() - cell.user_key.len();
        Err(Error::corruption("bytes left over behind the namespace").at(end as u64))
    }

    /// Takes a timer's key apart.
    ///
    /// # Errors
    /// `Corruption` if it is no such key.
    pub fn parse_timer<'a>(&self, bytes: &'a [u8]) -> Result<TimerKey<'a>> {
        let mut d = Decoder::new(bytes);
        let group = read_group(&mut d)?;
        let time = i64::from_be_bytes(d.fixed()?) ^ i64::MIN;
        let key = read_delimited(self.key, &mut d)?;
        let namespace = read_delimited(self.namespace, &mut d)?;
        d.finish()?;
        Ok(TimerKey { group, time, key, namespace })
    }

    /// Appends a timer's key to `out`.
    ///
    /// # Panics
    /// If key or namespace do not have the fixed width of this shape.
    pub fn put_timer(&self, timer: &TimerKey<'_>, out: &mut Vec<u8>) {
        put_timer_head(timer.group, timer.time, out);
        put_delimited(self.key, out, |out| out.extend_from_slice(timer.key));
        put_delimited(self.namespace, out, |out| out.extend_from_slice(timer.namespace));
    }
}

/// Appends what all keys of timers of this group and time begin with: where a scan for timers from
/// `time` on starts.
pub fn put_timer_head(group: u16, time: i64, out: &mut Vec<u8>) {
    out.reserve(TIMER_HEAD_BYTES);
    put_group(group, out);
    out.extend_from_slice(&(time ^ i64::MIN).to_be_bytes());
}

/// Composes keys in one buffer that is used again and again: after the first few calls nothing is
/// allocated. Set the key, then the namespace, then take [`cell`](KeyBuilder::cell) or
/// [`entry`](KeyBuilder::entry) as often as needed; setting one part again keeps those before it.
#[derive(Clone, Debug)]
pub struct KeyBuilder {
    shape: KeyShape,
    buffer: Vec<u8>,
    key_end: usize,
    cell_end: usize,
}

impl KeyBuilder {
    /// An empty builder for keys of this shape.
    pub fn new(shape: KeyShape) -> KeyBuilder {
        KeyBuilder { shape, buffer: Vec::with_capacity(64), key_end: 0, cell_end: 0 }
    }

    /// The widths this builder was made for.
    pub fn shape(&self) -> KeyShape {
        self.shape
    }

    /// Starts over with a key group and the key that `encode` appends.
    ///
    /// # Panics
    /// If the group is none, or the key does not have its fixed width.
    #[inline]
    pub fn set_key(&mut self, group: u16, encode: impl FnOnce(&mut Vec<u8>)) {
        self.buffer.clear();
        put_group(group, &mut self.buffer);
        put_delimited(self.shape.key, &mut self.buffer, encode);
        self.end_key();
    }

    /// Starts over with the [`key_prefix`](KeyBuilder::key_prefix) of another builder with keys of
    /// the same width: states share their backend's current key.
    #[inline]
    pub fn set_key_prefix(&mut self, prefix: &[u8]) {
        self.copy_key_prefix(|out| {
            out.clear();
            out.extend_from_slice(prefix);
        });
    }

    /// The same, with a prefix that `copy` puts in place of what is in the buffer. If it leaves nothing
    /// there, there is no key.
    #[inline]
    pub(in crate::state) fn copy_key_prefix<R>(
        &mut self,
        copy: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        let returned = copy(&mut self.buffer);
        self.end_key();
        returned
    }

    /// The key prefix in whole words, with anything behind it, and its length in bytes.
    #[inline]
    pub(in crate::state) fn padded_key_prefix(&mut self) -> (&[[u8; WORD_BYTES]], usize) {
        self.buffer.truncate(self.key_end);
        self.buffer.extend_from_slice(&[0; WORD_BYTES - 1]);
        (self.buffer.as_chunks().0, self.key_end)
    }

    fn end_key(&mut self) {
        self.key_end = self.buffer.len();
        self.cell_end = 0;
    }

    /// Puts the namespace that `encode` appends behind the key.
    ///
    /// # Panics
    /// If there is no key, or the namespace does not have its fixed width.
    #[inline]
    pub fn set_namespace(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        assert!(self.key_end > 0, "no key is set");
        self.buffer.truncate(self.key_end);
        put_delimited(self.shape.namespace, &mut self.buffer, encode);
        self.cell_end = self.buffer.len();
    }

    /// Puts a namespace behind the key that is delimited already, as by
    /// [`set_namespace`](KeyBuilder::set_namespace).
    ///
    /// # Panics
    /// If there is no key.
    #[inline]
    pub(in crate::state) fn set_delimited_namespace(&mut self, namespace: &[u8]) {
        assert!(self.key_end > 0, "no key is set");
        self.buffer.truncate(self.key_end);
        if !namespace.is_empty() {
            self.buffer.extend_from_slice(namespace);
        }
        self.cell_end = self.buffer.len();
    }

    /// Is a key set?
    pub fn has_key(&self) -> bool {
        self.key_end > 0
    }

    /// What every composite key of the current key begins with, in all its namespaces.
    ///
    /// # Panics
    /// If there is no key.
    #[inline]
    pub fn key_prefix(&self) -> &[u8] {
        assert!(self.key_end > 0, "no key is set");
        &self.buffer[..self.key_end]
    }

    /// The key of the current cell, and what all entries of a map there begin with.
    ///
    /// # Panics
    /// If there is no namespace.
    #[inline]
    pub fn cell(&self) -> &[u8] {
        assert!(self.cell_end > 0, "no namespace is set");
        &self.buffer[..self.cell_end]
    }

    /// The key of a map's entry in the current cell, with the user key that `encode` appends.
    ///
    /// # Panics
    /// If there is no namespace.
    #[inline]
    pub fn entry(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        assert!(self.cell_end > 0, "no namespace is set");
        self.buffer.truncate(self.cell_end);
        encode(&mut self.buffer);
        &self.buffer
    }

    /// All keys of the current cell: of a map's entries, say. Allocates.
    ///
    /// # Panics
    /// If there is no namespace.
    pub fn cell_range(&self) -> KeyRange {
        KeyRange::prefix(self.cell())
    }

    /// All keys of the current key, in all its namespaces. Allocates.
    ///
    /// # Panics
    /// If there is no key.
    pub fn key_range(&self) -> KeyRange {
        KeyRange::prefix(self.key_prefix())
    }
}

#[inline]
fn put_group(group: u16, out: &mut Vec<u8>) {
    assert!(u32::from(group) < KEY_GROUPS_MAX, "no key group");
    out.extend_from_slice(&group.to_be_bytes());
}

/// The key group of a composite key, or of a timer's.
///
/// # Panics
/// If it has less than two bytes.
#[inline]
pub fn group_of(key: &[u8]) -> u16 {
    u16::from_be_bytes([key[0], key[1]])
}

fn read_group(d: &mut Decoder<'_>) -> Result<u16> {
    let start = d.clone();
    let group = u16::from_be_bytes(d.fixed()?);
    if u32::from(group) < KEY_GROUPS_MAX { Ok(group) } else { Err(start.error("no key group")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    const VARIABLE: KeyShape = KeyShape { key: None, namespace: None };

    fn compose(shape: KeyShape, group: u16, key: &[u8], namespace: &[u8], user: &[u8]) -> Vec<u8> {
        let mut builder = KeyBuilder::new(shape);
        builder.set_key(group, |out| out.extend_from_slice(key));
        builder.set_namespace(|out| out.extend_from_slice(namespace));
        builder.entry(|out| out.extend_from_slice(user)).to_vec()
    }

    /// The four shapes, with parts cut or filled to two bytes where they are fixed.
    fn shapes(key: &[u8], namespace: &[u8]) -> Vec<(KeyShape, Vec<u8>, Vec<u8>)> {
        let fix = |width: Option<usize>, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(width.unwrap_or(bytes.len()), 7);
            bytes
        };
        let widths = [None, Some(2)];
        let pairs = widths.into_iter().flat_map(|k| widths.into_iter().map(move |n| (k, n)));
        pairs
            .map(|(k, n)| (KeyShape { key: k, namespace: n }, fix(k, key), fix(n, namespace)))
            .collect()
    }

    type Parts = (u16, Vec<u8>, Vec<u8>, Vec<u8>);

    quickcheck! {
        fn what_was_composed_parses(parts: Parts) -> bool {
            let (group, key, namespace, user) = (parts.0 % 0x8000, parts.1, parts.2, parts.3);
            shapes(&key, &namespace).into_iter().all(|(shape, key, namespace)| {
                let bytes = compose(shape, group, &key, &namespace, &user);
                let parsed = shape.parse(&bytes).unwrap();
                let want = CompositeKey { group, key: &key, namespace: &namespace, user_key: &user };
                parsed == want && shape.parse_cell(&bytes).is_ok() == user.is_empty()
            })
        }

        fn no_cell_is_a_prefix_of_another(a: Parts, b: Parts, related: bool) -> bool {
            // Random byte strings are rarely prefixes of each other: make them so.
            let (a, mut b) = ((a.0 % 4, a.1, a.2), (b.0 % 4, b.1, b.2));
            if related {
                b = (a.0, [&a.1[..], &b.1[..]].concat(), [&a.2[..], &b.2[..]].concat());
            }
            let (x, y) = (compose(VARIABLE, a.0, &a.1, &a.2, b""), compose(VARIABLE, b.0, &b.1, &b.2, b""));
            a == b || !(x.starts_with(&y) || y.starts_with(&x))
        }

        fn one_cell_one_key(bytes: Vec<u8>) -> bool {
            shapes(b"", b"").into_iter().all(|(shape, ..)| match shape.parse(&bytes) {
                Ok(k) => compose(shape, k.group, k.key, k.namespace, k.user_key) == bytes,
                Err(_) => true,
            })
        }

        fn the_range_of_a_cell_holds_its_entries_only(a: Parts, b: Parts) -> bool {
            let (a, b) = ((a.0 % 2, a.1, a.2, a.3), (b.0 % 2, b.1, b.2, b.3));
            let mut builder = KeyBuilder::new(VARIABLE);
            builder.set_key(a.0, |out| out.extend_from_slice(&a.1));
            builder.set_namespace(|out| out.extend_from_slice(&a.2));
            let inside = |p: &Parts| builder.cell_range().contains(&compose(VARIABLE, p.0, &p.1, &p.2, &p.3));
            let same_key = |p: &Parts| builder.key_range().contains(&compose(VARIABLE, p.0, &p.1, &p.2, &p.3));
            inside(&a) && inside(&b) == ((a.0, &a.1, &a.2) == (b.0, &b.1, &b.2))
                && same_key(&a) && same_key(&b) == ((a.0, &a.1) == (b.0, &b.1))
        }

        fn timers_parse_and_sort_by_time(a: (u16, i64, Vec<u8>, Vec<u8>), later: i64) -> bool {
            let timer = TimerKey { group: a.0 % 0x8000, time: a.1, key: &a.2, namespace: &a.3 };
            let encode = |timer: &TimerKey<'_>| {
                let mut out = Vec::new();
                VARIABLE.put_timer(timer, &mut out);
                out
            };
            let other = TimerKey { time: later, key: b"", ..timer };
            let (x, y) = (encode(&timer), encode(&other));
            let mut head = Vec::new();
            put_timer_head(timer.group, timer.time, &mut head);
            VARIABLE.parse_timer(&x).unwrap() == timer
                && (timer.time == later || x.cmp(&y) == timer.time.cmp(&later))
                && head <= x && (later >= timer.time || y < head)
        }
    }

    #[test]
    fn pinned() {
        assert_eq!(compose(VARIABLE, 0x51, b"a", b"ns", b"u"), b"\0\x51\x01a\x02nsu");
        assert_eq!(compose(VARIABLE, 0x7fff, b"", b"", b""), b"\x7f\xff\0\0");
        let fixed = KeyShape { key: Some(4), namespace: Some(0) };
        assert_eq!(compose(fixed, 78, &[0, 0, 0, 1], b"", b"u"), b"\0\x4e\0\0\0\x01u");
        let long = compose(VARIABLE, 1, &[b'k'; 300], b"", b"");
        assert_eq!((&long[..4], long.len()), (&[0, 1, 0xac, 0x02][..], 305));
        let mut out = Vec::new();
        let timer = TimerKey { group: 258, time: -2, key: b"k", namespace: b"" };
        VARIABLE.put_timer(&timer, &mut out);
        assert_eq!(out, b"\x01\x02\x7f\xff\xff\xff\xff\xff\xff\xfe\x01k\0");
    }

    #[test]
    fn parts_are_replaced_in_place() {
        let mut builder = KeyBuilder::new(VARIABLE);
        assert!(!builder.has_key());
        builder.set_key(1, |out| out.push(b'a'));
        builder.set_namespace(|out| out.push(b'x'));
        assert_eq!(builder.entry(|out| out.push(b'1')), b"\0\x01\x01a\x01x1");
        assert_eq!(builder.entry(|out| out.push(b'2')), b"\0\x01\x01a\x01x2");
        assert_eq!(builder.cell(), b"\0\x01\x01a\x01x");
        builder.set_namespace(|out| out.extend_from_slice(b"yy"));
        assert_eq!(builder.cell(), b"\0\x01\x01a\x02yy");
        let mut other = KeyBuilder::new(VARIABLE);
        other.set_key_prefix(builder.key_prefix());
        other.set_namespace(|_| ());
        assert_eq!(other.cell(), b"\0\x01\x01a\0");
        other.set_delimited_namespace(b"\x02yy");
        assert_eq!(other.cell(), builder.cell());
        let padded = other.padded_key_prefix();
        assert_eq!((padded.0.as_flattened(), padded.1), (&b"\0\x01\x01a\0\0\0\0"[..], 4));
        assert_eq!(other.key_prefix(), builder.key_prefix());
        other.copy_key_prefix(Vec::clear);
        assert!(!other.has_key());
    }

    #[test]
    #[should_panic(expected = "no namespace is set")]
    fn a_new_key_forgets_the_namespace() {
        let mut builder = KeyBuilder::new(VARIABLE);
        builder.set_key(1, |out| out.push(b'a'));
        builder.set_namespace(|_| ());
        builder.set_key(2, |out| out.push(b'b'));
        builder.cell();
    }

    #[test]
    fn refuses_other_bytes() {
        assert!(VARIABLE.parse(b"\x80\0\0\0").is_err(), "group out of bounds");
        assert!(VARIABLE.parse(b"\0\0\x05ab").is_err(), "cut short");
        assert!(VARIABLE.parse(b"\0\0\x81\0a\0").is_err(), "length not in its shortest form");
        assert!(VARIABLE.parse_cell(b"\0\0\0\0x").is_err(), "left over");
    }
}
