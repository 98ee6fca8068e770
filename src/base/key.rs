//! What a key is: user bytes, a sequence number and a kind; and ranges of user keys.

use std::cmp::Ordering;

/// A sequence number: every operation of every batch takes the next one. 56 bits are used.
pub type SeqNo = u64;

/// The largest sequence number; as a read position: "the newest of everything".
pub const SEQNO_MAX: SeqNo = (1 << 56) - 1;

/// What an entry does to its key. Zero is never a kind, so that zeroed bytes decode as nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ValueKind {
    /// The key has no value from here on.
    Delete = 1,
    /// The key has this value.
    Put = 2,
    /// The value is an operand for the family's merge operator.
    Merge = 3,
    /// All keys from the key up to the value (exclusive) have no value from here on.
    RangeDelete = 4,
}

impl ValueKind {
    /// The kind with this byte, if there is one.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<ValueKind> {
        match byte {
            1 => Some(ValueKind::Delete),
            2 => Some(ValueKind::Put),
            3 => Some(ValueKind::Merge),
            4 => Some(ValueKind::RangeDelete),
            _ => None,
        }
    }
}

/// `a == b`, without a call for keys of the usual lengths: their first and their last bytes.
#[inline(always)]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        8..=16 => {
            a.first_chunk::<8>() == b.first_chunk::<8>()
                && a.last_chunk::<8>() == b.last_chunk::<8>()
        }
        17..=32 => {
            a.first_chunk::<16>() == b.first_chunk::<16>()
                && a.last_chunk::<16>() == b.last_chunk::<16>()
        }
        _ => a == b,
    }
}

/// Bytes of the packed sequence number and kind behind an encoded user key.
#[cfg(test)]
const TRAILER_BYTES: usize = 8;

/// A version of a user key: borrowed, parsed.
///
/// Order: user key ascending (bytes), then sequence number *descending*, so that the newest version
/// of a key comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InternalKey<'a> {
    /// The caller's key.
    pub user_key: &'a [u8],
    /// When it was written.
    pub seqno: SeqNo,
    /// What it does.
    pub kind: ValueKind,
}

impl<'a> InternalKey<'a> {
    /// A version of a user key.
    #[inline]
    pub fn new(user_key: &'a [u8], seqno: SeqNo, kind: ValueKind) -> InternalKey<'a> {
        debug_assert!(seqno <= SEQNO_MAX);
        InternalKey { user_key, seqno, kind }
    }

    /// The place from which all versions of `user_key` at or below `at` follow.
    #[inline]
    pub fn seek(user_key: &'a [u8], at: SeqNo) -> InternalKey<'a> {
        InternalKey { user_key, seqno: at, kind: ValueKind::RangeDelete }
    }

    /// The head of the user key, if it is less than `below` and this is a put visible at `at`.
    #[inline(always)]
    pub fn plain_head(&self, below: u128, at: SeqNo) -> Option<u128> {
        let head = head(self.user_key);
        (head < below && self.kind == ValueKind::Put && self.seqno <= at).then_some(head)
    }

    /// Sequence number and kind in one word: `seqno << 8 | kind`.
    #[inline]
    pub fn trailer(&self) -> u64 {
        self.seqno << 8 | self.kind as u64
    }

    /// Sequence number and kind of a trailer, if it is one.
    #[inline]
    pub fn unpack(trailer: u64) -> Option<(SeqNo, ValueKind)> {
        Some((trailer >> 8, ValueKind::from_byte(trailer as u8)?))
    }

    /// Appends user key and trailer (little-endian) to `out`.
    #[cfg(test)]
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.user_key);
        out.extend_from_slice(&self.trailer().to_le_bytes());
    }

    /// The inverse of [`encode_into`](InternalKey::encode_into); `None` if it is no internal key.
    #[cfg(test)]
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Option<InternalKey<'a>> {
        let (user_key, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>()?;
        let (seqno, kind) = InternalKey::unpack(u64::from_le_bytes(*trailer))?;
        Some(InternalKey { user_key, seqno, kind })
    }
}

impl Ord for InternalKey<'_> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.user_key.cmp(other.user_key).then_with(|| other.trailer().cmp(&self.trailer()))
    }
}

impl PartialOrd for InternalKey<'_> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The first sixteen bytes of a key, padded with zeros, as a number. If those of two keys differ,
/// the keys differ in the same way.
#[inline]
pub fn head(key: &[u8]) -> u128 {
    if let Some(bytes) = key.first_chunk::<16>() {
        return u128::from_be_bytes(*bytes);
    }
    match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            // Of the last eight those behind the first: eight to fifteen bytes are there.
            let behind = 8 * (key.len() as u32 - 8);
            let last = u128::from(u64::from_be_bytes(*last)) << 64 >> behind;
            u128::from(u64::from_be_bytes(*first)) << 64 | u128::from(last as u64)
        }
        _ => {
            key.iter()
                .fold((0, 128), |(head, at), &byte| (head | u128::from(byte) << (at - 8), at - 8))
                .0
        }
    }
}

/// A half-open range of user keys: from `start` (inclusive) to `end` (exclusive; `None`: no end).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Vec<u8>,
    /// First key after the range.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// From `start` up to, but without, `end`.
    pub fn new(start: impl Into<Vec<u8>>, end: Option<impl Into<Vec<u8>>>) -> KeyRange {
        KeyRange { start: start.into(), end: end.map(Into::into) }
    }

    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange::default()
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        KeyRange { start: prefix.to_vec(), end: prefix_end(prefix) }
    }

    /// Is `key` inside?
    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// Can no key be inside?
    pub fn is_empty(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end <= self.start.as_slice())
    }

    /// The keys that are in both.
    pub fn intersect(&self, other: &KeyRange) -> KeyRange {
        let start = self.start.clone().max(other.start.clone());
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (a, b) => a.as_ref().or(b.as_ref()).cloned(),
        };
        KeyRange { start, end }
    }

    /// Is there a key in both?
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        let below =
            |end: &Option<Vec<u8>>, start: &[u8]| end.as_deref().is_none_or(|end| start < end);
        !self.is_empty()
            && !other.is_empty()
            && below(&self.end, &other.start)
            && below(&other.end, &self.start)
    }

    /// Is every key of `other` inside?
    pub fn covers(&self, other: &KeyRange) -> bool {
        other.is_empty()
            || (self.start <= other.start
                && match (&self.end, &other.end) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(a), Some(b)) => b <= a,
                })
    }
}

/// The smallest key greater than every key that begins with `prefix`; `None` if there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The smallest key greater than `key`: `key` and a zero byte.
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn range(a: Vec<u8>, b: Option<Vec<u8>>) -> KeyRange {
        KeyRange { start: a, end: b }
    }

    quickcheck! {
        fn heads_sort_like_keys(a: Vec<u8>, b: Vec<u8>, front: u8) -> bool {
            let front = vec![0; usize::from(front % 20)];
            let (a, b) = ([&front[..], &a].concat(), [&front[..], &b].concat());
            head(&a) == head(&b) || head(&a).cmp(&head(&b)) == a.cmp(&b)
        }

        fn heads_are_padded_with_zeros(key: Vec<u8>) -> bool {
            (0..=key.len()).all(|len| {
                let mut bytes: Vec<u8> = key[..len].to_vec();
                bytes.resize(16, 0);
                head(&key[..len]).to_be_bytes() == bytes[..16]
            })
        }

        fn internal_keys_round_trip(key: Vec<u8>, seqno: u64, kind: u8) -> bool {
            let kind = ValueKind::from_byte(kind % 4 + 1).unwrap();
            let key = InternalKey::new(&key, seqno & SEQNO_MAX, kind);
            let mut out = Vec::new();
            key.encode_into(&mut out);
            InternalKey::decode(&out) == Some(key)
        }

        fn newest_first(key: Vec<u8>, a: u64, b: u64) -> bool {
            let (a, b) = (a & SEQNO_MAX, b & SEQNO_MAX);
            let ka = InternalKey::new(&key, a, ValueKind::Put);
            let kb = InternalKey::new(&key, b, ValueKind::Put);
            ka.cmp(&kb) == b.cmp(&a) && InternalKey::seek(&key, a) <= ka
        }

        fn prefix_ranges_hold_exactly_the_prefixed(prefix: Vec<u8>, key: Vec<u8>) -> bool {
            let range = KeyRange::prefix(&prefix);
            let joined = [prefix.clone(), key.clone()].concat();
            range.contains(&joined) && range.contains(&key) == key.starts_with(&prefix)
        }

        fn ranges_agree_key_by_key(
            a: Vec<u8>, b: Option<Vec<u8>>, c: Vec<u8>, d: Option<Vec<u8>>, key: Vec<u8>
        ) -> bool {
            let (x, y) = (range(a, b), range(c, d));
            let both = x.contains(&key) && y.contains(&key);
            let inter = x.intersect(&y);
            inter.contains(&key) == both
                && x.overlaps(&y) != inter.is_empty()
                && (!x.covers(&y) || !y.contains(&key) || x.contains(&key))
        }
    }

    #[test]
    fn prefixes_of_ff_have_no_end() {
        assert_eq!(prefix_end(b""), None);
        assert_eq!(prefix_end(&[0xff, 0xff]), None);
        assert_eq!(prefix_end(&[1, 0xff, 0xff]), Some(vec![2]));
    }
}
