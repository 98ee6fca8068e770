//! F1: a write batch, in memory as it stands in the log.
//!
//! ```text
//! seqno 8 | count 4 | op | op | ...
//! op: kind 1 | family varint | key varint-prefixed [| value varint-prefixed]
//! ```
//! The question this file answers: *what is one atomic write?* Operations over any number of column
//! families, applied together or not at all. Each takes its own sequence number: the first takes
//! `seqno`, the next `seqno + 1`, and so on. `Delete` has no value; in `RangeDelete` the key is the
//! first key that goes and the value the first that stays.

use crate::base::coding::{Decoder, put_prefixed, put_varint};
use crate::base::error::{Error, Result};
use crate::base::format::{Layout, field};
use crate::base::id::FamilyId;
use crate::base::key::{SEQNO_MAX, SeqNo, ValueKind};
use crate::base::limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Bytes of a batch without operations.
pub const HEADER_BYTES: usize = 12;
/// No operation is shorter: kind, family, length of the key.
const OP_BYTES_MIN: usize = 3;

/// F1.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        id: "F1.1",
        title: "Write batch",
        fields: &[
            field("0", "8", "seqno", "sequence number of the first operation"),
            field("8", "4", "count", "number of operations; each takes the next sequence number"),
            field("12", "n", "operations", "F1.2, one after the other"),
        ],
    },
    Layout {
        id: "F1.2",
        title: "Operation",
        fields: &[
            field("0", "1", "kind", "1 delete, 2 put, 3 merge, 4 range delete"),
            field("1", "v", "family", "column family"),
            field("", "v", "key_len", "bytes of the key"),
            field("", "n", "key", "user key; range delete: first key that goes"),
            field("", "v", "value_len", "bytes of the value; absent in a delete"),
            field("", "n", "value", "value or operand; range delete: first key that stays"),
        ],
    },
];

/// Operations that take effect together. Cheap to fill, cheap to reuse ([`clear`](WriteBatch::clear)
/// keeps the memory). Limits are checked when it is written, not while it is filled.
#[derive(Clone, Debug)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    count: u64,
    key_bytes_max: usize,
    value_bytes_max: usize,
    has_empty_key: bool,
}

impl Default for WriteBatch {
    fn default() -> WriteBatch {
        WriteBatch::new()
    }
}

impl WriteBatch {
    /// A batch without operations.
    pub fn new() -> WriteBatch {
        WriteBatch {
            bytes: vec![0; HEADER_BYTES],
            count: 0,
            key_bytes_max: 0,
            value_bytes_max: 0,
            has_empty_key: false,
        }
    }

    /// The key has this value from here on.
    pub fn put(&mut self, family: impl Into<FamilyId>, key: &[u8], value: &[u8]) {
        self.push(ValueKind::Put, family.into(), key, Some(value));
    }

    /// The key has no value from here on.
    pub fn delete(&mut self, family: impl Into<FamilyId>, key: &[u8]) {
        self.push(ValueKind::Delete, family.into(), key, None);
    }

    /// Hands an operand to the family's merge operator.
    pub fn merge(&mut self, family: impl Into<FamilyId>, key: &[u8], operand: &[u8]) {
        self.push(ValueKind::Merge, family.into(), key, Some(operand));
    }

    /// All keys from `start` up to, but without, `end` have no value from here on. Adds nothing if
    /// that is no key at all.
    pub fn delete_range(&mut self, family: impl Into<FamilyId>, start: &[u8], end: &[u8]) {
        if start < end {
            self.push(ValueKind::RangeDelete, family.into(), start, Some(end));
        }
    }

    #[inline]
    fn push(&mut self, kind: ValueKind, family: FamilyId, key: &[u8], value: Option<&[u8]>) {
        self.bytes.push(kind as u8);
        put_varint(&mut self.bytes, u64::from(family.0));
        put_prefixed(&mut self.bytes, key);
        self.key_bytes_max = self.key_bytes_max.max(key.len());
        if let Some(value) = value {
            put_prefixed(&mut self.bytes, value);
            if kind == ValueKind::RangeDelete {
                self.key_bytes_max = self.key_bytes_max.max(value.len());
            } else {
                self.value_bytes_max = self.value_bytes_max.max(value.len());
            }
        }
        self.has_empty_key |= key.is_empty() && kind != ValueKind::RangeDelete;
        self.count += 1;
    }

    /// Adds the operations of another batch behind these.
    pub fn append(&mut self, other: &WriteBatch) {
        self.bytes.extend_from_slice(&other.bytes[HEADER_BYTES..]);
        self.count += other.count;
        self.key_bytes_max = self.key_bytes_max.max(other.key_bytes_max);
        self.value_bytes_max = self.value_bytes_max.max(other.value_bytes_max);
        self.has_empty_key |= other.has_empty_key;
    }

    /// Removes all operations and keeps the memory.
    pub fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.resize(HEADER_BYTES, 0);
        *self = WriteBatch { bytes, ..WriteBatch::new() };
    }

    /// Number of operations.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Has it no operations?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Encoded length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// May this batch be written? Costs nothing: the batch has kept the extremes.
    ///
    /// # Errors
    /// `InvalidArgument` if a key is empty, or if a key, a value or the whole is too long.
    pub(crate) fn check(&self, value_bytes_max: usize) -> Result<()> {
        if self.has_empty_key {
            return Err(Error::invalid("empty key"));
        }
        for (what, have, most) in [
            ("key", self.key_bytes_max, KEY_BYTES_MAX),
            ("value", self.value_bytes_max, value_bytes_max),
            ("write batch", self.bytes.len(), BATCH_BYTES_MAX),
        ] {
            if have > most {
                return Err(Error::invalid(format!("{what} of {have} bytes; at most {most}")));
            }
        }
        Ok(())
    }

    /// Sets the sequence number of the first operation, and with it completes the encoding.
    ///
    /// # Panics
    /// If the count does not fit; [`check`](WriteBatch::check) has refused such a batch.
    pub(crate) fn set_seqno(&mut self, seqno: SeqNo) {
        let count = u32::try_from(self.count).expect("the batch was checked");
        self.bytes[..8].copy_from_slice(&seqno.to_le_bytes());
        self.bytes[8..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
    }

    /// Adds the operations of an encoded batch, which `header` has read, behind these. An empty batch
    /// becomes that one, its sequence number included; to another it must follow. For a log that is
    /// written again: what it may hold was checked when it was written first.
    pub(crate) fn append_encoded(&mut self, encoded: &[u8], header: &BatchReader<'_>) {
        let seqno = if self.is_empty() { header.seqno() } else { self.seqno() };
        self.bytes.extend_from_slice(&encoded[HEADER_BYTES..]);
        self.count += u64::from(header.count());
        self.set_seqno(seqno);
    }

    /// The operations, whether the encoding is complete or not.
    pub(crate) fn reader(&self) -> BatchReader<'_> {
        let left = u32::try_from(self.count).expect("the batch was checked");
        BatchReader {
            d: Decoder::new(&self.bytes[HEADER_BYTES..]),
            seqno: self.seqno(),
            count: left,
            left,
            done: false,
            value_bytes_max: usize::MAX,
        }
    }

    /// Sequence number of the first operation, 0 before it was set.
    pub(crate) fn seqno(&self) -> SeqNo {
        let seqno = self.bytes.first_chunk::<8>().expect("a batch has its header");
        u64::from_le_bytes(*seqno)
    }

    /// The encoding: the log's payload. Complete after [`set_seqno`](WriteBatch::set_seqno).
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<'a> {
    /// What it does.
    pub kind: ValueKind,
    /// Where.
    pub family: FamilyId,
    /// The key; of a range delete the first key that goes.
    pub key: &'a [u8],
    /// The value or operand; of a range delete the first key that stays; empty in a delete.
    pub value: &'a [u8],
}

/// Reads the operations of an encoded batch. Strict: kinds, lengths, limits and the count must be
/// right and nothing may be left over. Borrows; allocates nothing.
#[derive(Clone, Debug)]
pub struct BatchReader<'a> {
    d: Decoder<'a>,
    seqno: SeqNo,
    count: u32,
    left: u32,
    done: bool,
    value_bytes_max: usize,
}

impl<'a> BatchReader<'a> {
    /// Reads `payload`, which stands at offset `base` of its file (for errors).
    ///
    /// # Errors
    /// `Corruption` if the header cannot be right.
    pub fn new(payload: &'a [u8], base: u64) -> Result<BatchReader<'a>> {
        let mut d = Decoder::with_base(payload, base);
        let start = d.clone();
        let (seqno, count) = (d.u64()?, d.u32()?);
        if seqno > SEQNO_MAX || SEQNO_MAX - seqno < u64::from(count) {
            return Err(start.error("sequence number out of range"));
        }
        if count as usize > d.rest().len() / OP_BYTES_MIN {
            return Err(start.error("more operations than bytes"));
        }
        let value_bytes_max = VALUE_BYTES_MAX;
        Ok(BatchReader { d, seqno, count, left: count, done: false, value_bytes_max })
    }

    /// Reads a batch of the log likewise, whose values may be as long as any option allows.
    ///
    /// # Errors
    /// As for [`new`](BatchReader::new).
    pub fn of_log(payload: &'a [u8], base: u64) -> Result<BatchReader<'a>> {
        Ok(BatchReader::new(payload, base)?.with_value_bytes_max(BATCH_BYTES_MAX))
    }

    fn with_value_bytes_max(self, value_bytes_max: usize) -> BatchReader<'a> {
        BatchReader { value_bytes_max, ..self }
    }

    /// Sequence number of the first operation.
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// Number of operations, as the header says.
    pub fn count(&self) -> u32 {
        self.count
    }

    #[inline]
    fn op(&mut self) -> Result<Op<'a>> {
        let start = self.d.clone();
        let kind =
            ValueKind::from_byte(self.d.u8()?).ok_or_else(|| start.error("no such operation"))?;
        let family = FamilyId(self.d.varint32()?);
        let key = self.d.prefixed()?;
        let value = if kind == ValueKind::Delete { &[] } else { self.d.prefixed()? };
        let (right, wrong) = if kind == ValueKind::RangeDelete {
            (value.len() <= KEY_BYTES_MAX && key < value, "not a range of keys")
        } else {
            let fits = value.len() <= self.value_bytes_max;
            (fits && !key.is_empty(), "empty key or value too long")
        };
        if !right || key.len() > KEY_BYTES_MAX {
            return Err(start.error(if right { "key too long" } else { wrong }));
        }
        Ok(Op { kind, family, key, value })
    }

    /// The operations that are left, as an iterator.
    pub fn ops(mut self) -> impl Iterator<Item = Result<Op<'a>>> {
        std::iter::from_fn(move || self.next())
    }

    /// The next operation. After an error: nothing. (This type is no `Iterator`, whose `count` would
    /// hide [`count`](BatchReader::count).)
    #[inline]
    pub fn next(&mut self) -> Option<Result<Op<'a>>> {
        if self.done {
            return None;
        }
        if self.left == 0 {
            self.done = true;
            return self.d.finish().err().map(Err);
        }
        self.left -= 1;
        let op = self.op();
        self.done = op.is_err();
        Some(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    type OwnedOp = (ValueKind, u32, Vec<u8>, Vec<u8>);
    type Program = Vec<(u8, u32, Vec<u8>, Vec<u8>)>;

    /// The batch of a program, and the operations that it should hold.
    fn build(program: &Program) -> (WriteBatch, Vec<OwnedOp>) {
        let (mut batch, mut want) = (WriteBatch::new(), Vec::new());
        for (kind, family, key, value) in program {
            let kind = ValueKind::from_byte(kind % 4 + 1).unwrap();
            let (mut key, mut value) = (key.clone(), value.clone());
            let id = FamilyId(*family);
            match kind {
                ValueKind::RangeDelete => {
                    batch.delete_range(id, &key, &value);
                    if key >= value {
                        continue;
                    }
                }
                _ => {
                    key.push(0);
                    match kind {
                        ValueKind::Put => batch.put(id, &key, &value),
                        ValueKind::Merge => batch.merge(id, &key, &value),
                        _ => {
                            value.clear();
                            batch.delete(id, &key);
                        }
                    }
                }
            }
            want.push((kind, *family, key, value));
        }
        (batch, want)
    }

    fn read(bytes: &[u8]) -> Result<Vec<OwnedOp>> {
        BatchReader::new(bytes, 0)?
            .ops()
            .map(|op| op.map(|op| (op.kind, op.family.0, op.key.to_vec(), op.value.to_vec())))
            .collect()
    }

    quickcheck! {
        fn batches_round_trip(program: Program, more: Program, seqno: u64) -> bool {
            let (mut batch, mut want) = build(&program);
            let (other, rest) = build(&more);
            batch.append(&other);
            want.extend(rest);
            let seqno = seqno & (SEQNO_MAX >> 1);
            batch.set_seqno(seqno);
            let reader = BatchReader::new(batch.as_bytes(), 0).unwrap();
            batch.check(VALUE_BYTES_MAX).is_ok()
                && batch.seqno() == seqno
                && (reader.seqno(), u64::from(reader.count())) == (seqno, batch.count())
                && batch.count() == want.len() as u64
                && read(batch.as_bytes()).unwrap() == want
        }

        fn every_shorter_or_longer_batch_is_refused(program: Program) -> bool {
            let (mut batch, _) = build(&program);
            batch.set_seqno(1);
            let bytes = batch.as_bytes();
            let longer = [bytes, &[0]].concat();
            (0..bytes.len()).all(|len| read(&bytes[..len]).is_err()) && read(&longer).is_err()
        }

        fn what_is_accepted_is_the_encoding(bytes: Vec<u8>, program: Program, at: usize) -> bool {
            let _ = read(&bytes);
            let (mut batch, _) = build(&program);
            batch.set_seqno(1);
            let mut bytes = batch.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = bytes[at].wrapping_add(1);
            let Ok(ops) = read(&bytes) else { return true };
            let mut again = WriteBatch::new();
            for (kind, family, key, value) in ops {
                let value = (kind != ValueKind::Delete).then_some(value);
                again.push(kind, FamilyId(family), &key, value.as_deref());
            }
            again.set_seqno(BatchReader::new(&bytes, 0).unwrap().seqno());
            again.as_bytes() == bytes
        }
    }

    #[test]
    fn pinned() {
        let mut batch = WriteBatch::new();
        batch.put(FamilyId(0), b"k", b"v1");
        batch.delete(FamilyId(300), b"gone");
        batch.merge(FamilyId(1), b"m", b"");
        batch.delete_range(FamilyId(2), b"", b"z");
        batch.set_seqno(0x0102_0304);
        let want = [
            &[4, 3, 2, 1, 0, 0, 0, 0, 4, 0, 0, 0][..],
            &[2, 0, 1, b'k', 2, b'v', b'1'],
            &[1, 0xac, 0x02, 4, b'g', b'o', b'n', b'e'],
            &[3, 1, 1, b'm', 0],
            &[4, 2, 0, 1, b'z'],
        ]
        .concat();
        assert_eq!(batch.as_bytes(), want);
        assert_eq!((batch.count(), batch.bytes()), (4, want.len()));
        batch.clear();
        assert!(batch.is_empty() && batch.as_bytes() == [0; 12]);
    }

    #[test]
    fn limits_are_checked_on_both_sides() {
        let kind = |batch: &WriteBatch| batch.check(8).map_err(|e| e.kind());
        let refused = Err(ErrorKind::InvalidArgument);
        let mut batch = WriteBatch::new();
        batch.put(FamilyId(0), &vec![1; KEY_BYTES_MAX], &[0; 8]);
        assert_eq!(kind(&batch), Ok(()));
        batch.delete_range(FamilyId(0), b"b", b"a");
        assert_eq!(batch.count(), 1, "an empty range adds nothing");
        for break_it in [
            |batch: &mut WriteBatch| batch.put(FamilyId(0), b"", b""),
            |batch: &mut WriteBatch| batch.put(FamilyId(0), b"k", &[0; 9]),
            |batch: &mut WriteBatch| batch.delete(FamilyId(0), &vec![1; KEY_BYTES_MAX + 1]),
            |batch: &mut WriteBatch| {
                batch.delete_range(FamilyId(0), b"", &vec![1; KEY_BYTES_MAX + 1]);
            },
        ] {
            let mut bad = WriteBatch::new();
            break_it(&mut bad);
            assert_eq!(kind(&bad), refused);
            let mut all = batch.clone();
            all.append(&bad);
            assert_eq!(kind(&all), refused);
            all.set_seqno(1);
            let reader = BatchReader::new(all.as_bytes(), 100).unwrap().with_value_bytes_max(8);
            let e = reader.ops().collect::<Result<Vec<_>>>().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corruption);
            assert_eq!(e.offset(), Some(100 + batch.bytes() as u64));
        }
    }
}
