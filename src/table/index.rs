//! The index in memory: one flat row of separators, parsed once.
//!
//! Separator `i` is at or above every entry of block `i` and below every entry of block `i + 1`. What
//! all separators begin with is kept once; the next sixteen bytes of each are a number in a row of its
//! own, so that a search compares whole keys only to break ties. Eight would not do: a key group and a
//! big-endian number begin alike in most keys of a group. The last number of every sixteen is in a row
//! above, which is small enough to stay in the processor's cache: from there a search looks at four lines
//! of numbers at once, and at where their blocks are.

use std::cmp::Ordering;
use std::hint::black_box;

use crate::base::coding::{Decoder, put_field, put_varint};
use crate::base::error::{Error, Result};
use crate::base::key::{InternalKey, SeqNo, ValueKind, head};
use crate::base::limits::DECODE_BYTES_MAX;
use crate::table::block::{Block, compare};
use crate::table::block_builder::shared_prefix;
use crate::table::block_cursor::BlockCursor;
use crate::table::format::{BLOCK_TRAILER_BYTES, BlockHandle};
use crate::table::properties::{put_timestamps, read_timestamps};

const TAG_TIMESTAMPS: u32 = 1;

/// So many separators have one number in the row above.
const GROUP: usize = 16;

/// Number and kind of a separator behind all versions of its key: nothing is older than sequence number
/// 0, and no kind sorts behind `Delete`.
pub const BEHIND_ALL: (SeqNo, ValueKind) = (0, ValueKind::Delete);

/// Most bytes of separators of a table whose file has this length: an index is stored packed and with
/// shared prefixes, so that a small hostile one could unfold to anything.
pub fn separator_bytes_max(file_len: u64) -> u64 {
    file_len.saturating_mul(4).clamp(DECODE_BYTES_MAX as u64, u64::from(u32::MAX))
}

/// Appends the value of an index entry: where its block is, and its timestamps.
pub fn put_index_value(out: &mut Vec<u8>, handle: BlockHandle, timestamps: Option<(i64, i64)>) {
    put_varint(out, handle.offset);
    put_varint(out, u64::from(handle.len));
    if let Some((min, max)) = timestamps {
        let mut payload = Vec::with_capacity(16);
        put_timestamps(&mut payload, min, max);
        put_field(out, TAG_TIMESTAMPS, false, &payload);
    }
}

/// Reads the value of an index entry: where its block is, and its timestamps.
///
/// # Errors
/// `Corruption`; `Unsupported` if a field is not known and must be understood.
pub fn read_index_value(value: &[u8]) -> Result<(BlockHandle, Option<(i64, i64)>)> {
    let mut d = Decoder::new(value);
    let handle = BlockHandle { offset: d.varint()?, len: d.varint32()? };
    let mut timestamps = None;
    while !d.is_empty() {
        let before = d.clone();
        let (tag, must_understand, mut payload) = d.field()?;
        if tag == TAG_TIMESTAMPS {
            timestamps = Some(read_timestamps(&mut payload)?);
            payload.finish()?;
        } else if must_understand {
            let text = format!("index field {tag} is not known and must be understood");
            return Err(Error::unsupported(text).at(before.offset()));
        }
    }
    Ok((handle, timestamps))
}

/// A short user key `s` with `last <= s < next`, in `out`.
pub fn shortest_separator(last: &[u8], next: &[u8], out: &mut Vec<u8>) {
    debug_assert!(last < next);
    out.clear();
    let shared = shared_prefix(last, next);
    match (last.get(shared), next.get(shared)) {
        (Some(_), Some(_)) if next.len() > shared + 1 => out.extend_from_slice(&next[..=shared]),
        (Some(&a), Some(&b)) if a + 1 < b => {
            out.extend_from_slice(&last[..shared]);
            out.push(a + 1);
        }
        _ => out.extend_from_slice(last),
    }
}

/// The separators and handles of a table's data blocks.
#[derive(Default)]
pub struct Index {
    prefix: Vec<u8>,
    /// The [`word`] of the prefix.
    prefix_word: u64,
    heads: Vec<u128>,
    /// The last head of each group.
    group_heads: Vec<u128>,
    tails: Vec<u8>,
    tail_ends: Vec<u32>,
    /// Number and trailer of each separator that is not [`BEHIND_ALL`] versions of its key, ascending.
    trailers: Vec<(u32, u64)>,
    /// Where each block ends, its trailer included, and the next one begins.
    ends: Vec<u64>,
    #[cfg(test)]
    timestamps: Vec<Option<(i64, i64)>>,
}

impl Index {
    /// Flattens a sound index block, which stands at `offset` of its file, and checks that the data
    /// blocks lie side by side from the beginning of the file to `data_end`.
    pub fn parse(block: &Block, offset: u64, data_end: u64, file_len: u64) -> Result<Index> {
        let wrong = |text: &str| Error::corruption(text).at(offset);
        let mut index = Index { prefix: common_prefix(block)?, ..Index::default() };
        let mut next = 0;
        let mut cursor = BlockCursor::new();
        let mut more = cursor.first(block)?;
        while let Some((key, value)) = cursor.entry(block).filter(|_| more) {
            let (handle, _timestamps) = read_index_value(value)
                .map_err(|e| Error::new(e.kind(), format!("index entry: {e}")).at(offset))?;
            let end = handle.end().filter(|&end| handle.offset == next && end <= data_end);
            next = end.ok_or_else(|| wrong("data blocks do not lie side by side"))?;
            let tail = key.user_key.strip_prefix(index.prefix.as_slice());
            let tail = tail.ok_or_else(|| wrong("separators out of order"))?;
            if (index.tails.len() + tail.len()) as u64 > separator_bytes_max(file_len) {
                return Err(wrong("separators unfold to more bytes than allowed"));
            }
            index.push(tail, key, next);
            #[cfg(test)]
            index.timestamps.push(_timestamps);
            more = cursor.next(block)?;
        }
        if next != data_end {
            return Err(wrong("data blocks end too early"));
        }
        index.shrink_to_fit();
        index.prefix_word = word(&index.prefix);
        Ok(index)
    }

    /// # Panics
    /// If a number is too large, which none can be: all tails were measured, and an index block, which has
    /// some bytes for each separator, is shorter than 4 GiB.
    fn push(&mut self, tail: &[u8], key: InternalKey<'_>, end: u64) {
        if (key.seqno, key.kind) != BEHIND_ALL {
            let number = u32::try_from(self.len()).expect("an index is short");
            self.trailers.push((number, key.trailer()));
        }
        let head = head(tail);
        if self.heads.len().is_multiple_of(GROUP) {
            self.group_heads.push(head);
        }
        self.heads.push(head);
        *self.group_heads.last_mut().expect("its group has begun") = head;
        self.tails.extend_from_slice(tail);
        self.tail_ends.push(u32::try_from(self.tails.len()).expect("tails were measured"));
        self.ends.push(end);
    }

    /// Gives back what it grew by too much: it stays as long as the table is open.
    fn shrink_to_fit(&mut self) {
        self.heads.shrink_to_fit();
        self.group_heads.shrink_to_fit();
        self.tails.shrink_to_fit();
        self.tail_ends.shrink_to_fit();
        self.trailers.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Data blocks.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where block `i` is.
    #[inline]
    pub fn handle(&self, i: usize) -> BlockHandle {
        let offset = if i == 0 { 0 } else { self.ends[i - 1] };
        let len = self.ends[i] - offset - BLOCK_TRAILER_BYTES as u64;
        BlockHandle { offset, len: len as u32 } // as it was read
    }

    /// Least and greatest timestamp of block `i`, if all its values have one.
    #[cfg(test)]
    pub fn timestamps(&self, i: usize) -> Option<(i64, i64)> {
        self.timestamps[i]
    }

    /// May block `i` begin and end with these entries (user key and trailer)?
    pub fn fits(&self, i: usize, first: (&[u8], u64), last: (&[u8], u64)) -> bool {
        self.compare(i, last.0, last.1).is_ge()
            && (i == 0 || self.compare(i - 1, first.0, first.1).is_lt())
    }

    /// Is this entry (user key and trailer) at or below separator `i`, which that of an earlier block is not?
    #[inline]
    pub fn ends_behind(&self, i: usize, entry: (&[u8], u64)) -> bool {
        self.compare(i, entry.0, entry.1).is_ge()
    }

    /// Separator `i` compared with an entry: by what a search has just looked at, but for ties.
    #[inline]
    fn compare(&self, i: usize, user_key: &[u8], trailer: u64) -> Ordering {
        let front = self.prefix.len().min(user_key.len());
        let (front, tail) = user_key.split_at(front);
        self.prefix
            .as_slice()
            .cmp(front)
            .then_with(|| self.heads[i].cmp(&head(tail)))
            .then_with(|| compare(self.tail(i), self.trailer(i), tail, trailer))
    }

    fn trailer(&self, i: usize) -> u64 {
        match self.trailers.binary_search_by_key(&(i as u32), |&(i, _)| i) {
            Ok(at) => self.trailers[at].1,
            Err(_) => InternalKey::new(&[], BEHIND_ALL.0, BEHIND_ALL.1).trailer(),
        }
    }

    #[inline]
    fn tail(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.tail_ends[i - 1] };
        &self.tails[start as usize..self.tail_ends[i] as usize]
    }

    /// The user key of separator `i`.
    pub fn separator(&self, i: usize) -> Vec<u8> {
        [&self.prefix, self.tail(i)].concat()
    }

    /// Is the user key of separator `i` this one?
    #[inline(never)] // few want to know
    pub fn separator_is(&self, i: usize, user_key: &[u8]) -> bool {
        user_key.strip_prefix(self.prefix.as_slice()) == Some(self.tail(i))
    }

    /// The first block that may hold an entry at or after `target`; the number of blocks if none.
    #[inline]
    pub fn seek(&self, target: InternalKey<'_>) -> usize {
        let Some(tail) = self.behind_prefix(target.user_key) else {
            let is_below = target.user_key < self.prefix.as_slice();
            return if is_below { 0 } else { self.len() };
        };
        let wanted = head(tail);
        let first = GROUP * self.group_heads.partition_point(|&last| last < wanted);
        let Some(heads) = self.heads.get(first..self.len().min(first + GROUP)) else {
            return self.len();
        };
        // All heads, so that no line of theirs waits for another; and most of where their blocks are, since
        // whoever seeks goes to one of them next.
        let ends = &self.ends[first..first + heads.len()];
        black_box((ends.first().copied(), ends.last().copied()));
        let low = first + heads.iter().filter(|&&head| head < wanted).count();
        if self.heads.get(low).is_none_or(|&head| head != wanted) {
            return low;
        }
        self.seek_among_equals(low, tail, target.trailer())
    }

    /// The same among separators with one head, which begin at `low`.
    #[inline(never)]
    fn seek_among_equals(&self, mut low: usize, tail: &[u8], trailer: u64) -> usize {
        let head = self.heads[low];
        let mut high = low + self.heads[low..].partition_point(|&other| other == head);
        while low < high {
            let middle = low + (high - low) / 2;
            let order = compare(self.tail(middle), self.trailer(middle), tail, trailer);
            if order == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// What a key has behind the prefix, if it begins with that.
    #[inline]
    fn behind_prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let len = self.prefix.len();
        if len > 8 || key.len() < 8 {
            return key.strip_prefix(self.prefix.as_slice());
        }
        let differ = (word(key) ^ self.prefix_word).checked_shr(64 - 8 * len as u32).unwrap_or(0);
        (differ == 0).then(|| &key[len..])
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        let row = size_of::<u128>() + size_of::<u32>() + size_of::<u64>();
        let rest = size_of_val(self.trailers.as_slice()) + size_of_val(self.group_heads.as_slice());
        size_of::<Index>() + self.prefix.len() + self.tails.len() + rest + self.len() * row
    }
}

/// The first eight bytes, padded with zeros, as a number.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    (head(bytes) >> 64) as u64
}

/// What all separators begin with: what the first and the last have in common.
fn common_prefix(block: &Block) -> Result<Vec<u8>> {
    let mut cursor = BlockCursor::new();
    cursor.first(block)?;
    let mut prefix = cursor.entry(block).map_or(Vec::new(), |(key, _)| key.user_key.to_vec());
    cursor.before(block, None)?;
    let last = cursor.entry(block).map_or(&[][..], |(key, _)| key.user_key);
    prefix.truncate(shared_prefix(&prefix, last));
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bytes::Bytes;
    use crate::base::key::SEQNO_MAX;
    use crate::table::block::Content;
    use crate::table::block_builder::BlockBuilder;
    use quickcheck::quickcheck;

    /// Separators at number 0 are those behind all versions.
    fn kind(seqno: SeqNo) -> ValueKind {
        if seqno == BEHIND_ALL.0 { BEHIND_ALL.1 } else { ValueKind::Put }
    }

    quickcheck! {
        fn separators_separate(a: Vec<u8>, b: Vec<u8>) -> bool {
            if a == b {
                return true;
            }
            let (last, next) = if a < b { (a, b) } else { (b, a) };
            let mut out = Vec::new();
            shortest_separator(&last, &next, &mut out);
            last <= out && out < next && out.len() <= last.len().max(next.len())
        }

        fn seeks_like_a_sorted_row(keys: Vec<(Vec<u8>, u8)>, prefix: Vec<u8>,
                                   probes: Vec<(Vec<u8>, u8, bool)>) -> bool {
            let mut keys: Vec<_> = keys
                .into_iter()
                .map(|(key, seqno)| ([prefix.clone(), key].concat(), u64::from(seqno)))
                .collect();
            // In half of all rows most separators are one number, over several groups.
            if keys.len() % 2 == 0 {
                keys.iter_mut().for_each(|(key, _)| {
                    key.truncate(prefix.len() + 1);
                    key.splice(prefix.len()..prefix.len(), [0xaa; 16]);
                });
                keys.push((prefix.clone(), 1)); // so that it is not what all begin with
            }
            keys.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            keys.dedup();
            let mut builder = BlockBuilder::new(4);
            let mut value = Vec::new();
            for (i, (key, seqno)) in keys.iter().enumerate() {
                value.clear();
                let handle = BlockHandle { offset: i as u64 * 10, len: 1 };
                put_index_value(&mut value, handle, (i % 2 == 0).then_some((-1, 5)));
                builder.add(InternalKey::new(key, *seqno, kind(*seqno)), &value);
            }
            let block = Block::parse(Bytes::from(builder.finish()), 0, Content::Index, |_, _| true).unwrap();
            let index = Index::parse(&block, 0, keys.len() as u64 * 10, 0).unwrap();
            let own = keys.iter().map(|(key, seqno)| (key.clone(), *seqno));
            let foreign = probes.into_iter().map(|(key, seqno, with)| {
                (if with { [prefix.clone(), key].concat() } else { key }, u64::from(seqno))
            });
            own.chain(foreign).chain([(Vec::new(), SEQNO_MAX)]).all(|(key, at)| {
                let target = InternalKey::seek(&key, at);
                let want = keys.partition_point(|(key, seqno)| {
                    InternalKey::new(key, *seqno, kind(*seqno)) < target
                });
                index.seek(target) == want
            })
        }
    }
}
