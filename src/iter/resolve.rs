//! What the versions of one key mean together: the only place that interprets them.
//!
//! Get, scan, flush and compaction all feed a [`Resolver`] the versions of a key, newest first, and
//! so cannot disagree about what a key's value is:
//!
//! * a put ends the search: it is the value, or what the operands so far are merged into;
//! * a delete, or a range tombstone above a version, ends it without a value;
//! * a merge operand is kept, and the search goes on.

use crate::base::error::{Error, Result};
use crate::base::key::{SEQNO_MAX, SeqNo, ValueKind};
use crate::base::limits::COMBINE_BYTES_MAX;

/// Buffers that grew beyond this are not kept for the next key.
const KEEP_BYTES: usize = 1 << 20;

/// How the values of a family that are written with `merge` become one value.
///
/// Must be deterministic: the same operands give the same bytes at every read and in every process,
/// today and after an upgrade. It runs inside reads, flushes and compactions, and must not call the
/// database.
pub trait MergeOperator: Send + Sync {
    /// Recorded in the database and checked when it is opened. Another meaning needs another name.
    fn name(&self) -> &str;

    /// Appends to `out`, which is empty, the value of `key`: that of `base` (`None`: the key had no
    /// value) after `operands`, oldest first, of which there is at least one.
    ///
    /// # Errors
    /// If the bytes are not what this operator works on. The read or compaction fails with it.
    fn merge(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()>;

    /// Appends to `out`, which is empty, one operand that stands for `older` followed by `newer`,
    /// and returns true; false: they stay apart. Must be associative. Saves space, and time in
    /// reads; never needed for the result.
    fn combine(&self, key: &[u8], older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> bool {
        let _ = (key, older, newer, out);
        false
    }

    /// Is any operand followed by another, written one behind the other, one operand that stands for
    /// both? Then those of a key are joined as they are written, without asking
    /// [`combine`](MergeOperator::combine). Once true it must remain true, like the name.
    fn concatenates(&self) -> bool {
        false
    }
}

/// What is known of a key after a version was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Nothing yet: push the next older version, or call [`Resolver::end`].
    More,
    /// The value that was just pushed is the key's value: lend it.
    Value,
    /// The key has no value.
    Absent,
    /// The key's value is what [`Resolver::merged`] returns.
    Merge,
}

/// Interprets the versions of one key at a time. Keeps its buffers from key to key.
///
/// ```text
/// reset(at) ─▶ cover(tombstone)*, push(version)* while More ─▶ end(), if still More
/// ```
///
/// A source's range tombstones are given before its versions, and newer sources before older ones.
#[derive(Default)]
pub struct Resolver {
    at: SeqNo,
    /// The highest range tombstone: versions below it are deleted.
    cover: SeqNo,
    /// The last version pushed.
    last: SeqNo,
    /// Newest first.
    operands: Vec<Operand>,
    base: Option<Span>,
    /// What `operands` and `base` point into.
    bytes: Vec<u8>,
    spare: Vec<u8>,
    out: Vec<u8>,
    /// Always empty: an allocation that is kept for the operator's list of operands.
    list: Vec<&'static [u8]>,
}

#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

#[derive(Clone, Copy)]
struct Operand {
    seqno: SeqNo,
    span: Span,
}

impl Resolver {
    /// A resolver that reads the newest of everything.
    pub fn new() -> Resolver {
        let mut resolver = Resolver::default();
        resolver.reset(SEQNO_MAX);
        resolver
    }

    /// Begins a key, as seen by a reader at `at`.
    #[inline]
    pub fn reset(&mut self, at: SeqNo) {
        self.at = at;
        self.cover = 0;
        self.last = SeqNo::MAX;
        self.operands.clear();
        self.base = None;
        for buffer in [&mut self.bytes, &mut self.spare, &mut self.out] {
            buffer.clear();
            if buffer.capacity() > KEEP_BYTES {
                *buffer = Vec::new();
            }
        }
    }

    /// Bytes in memory that are kept for the next key.
    #[inline]
    pub fn kept_bytes(&self) -> usize {
        let buffers = [&self.bytes, &self.spare, &self.out].map(Vec::capacity);
        let lists = self.operands.capacity() * size_of::<Operand>()
            + self.list.capacity() * size_of::<&[u8]>();
        buffers.iter().sum::<usize>() + lists
    }

    /// The sequence number read at.
    pub fn at(&self) -> SeqNo {
        self.at
    }

    /// A range tombstone at `seqno` covers the key: versions *below* it are deleted. Zero, and what
    /// is above the reader, changes nothing. Of several the highest counts.
    #[inline]
    pub fn cover(&mut self, seqno: SeqNo) {
        if seqno <= self.at {
            self.cover = self.cover.max(seqno);
        }
    }

    /// The highest range tombstone so far; 0: none. A source whose versions are all below it has
    /// nothing to add: [`end`](Resolver::end) may be called.
    #[inline]
    pub fn covered(&self) -> SeqNo {
        self.cover
    }

    /// The next older version of the key. Versions that the reader cannot see change nothing. After
    /// an answer other than [`Step::More`], `reset` comes next.
    #[inline]
    pub fn push(&mut self, seqno: SeqNo, kind: ValueKind, value: &[u8]) -> Step {
        debug_assert!(seqno < self.last, "versions come newest first, each once");
        self.last = seqno;
        if seqno > self.at {
            return Step::More;
        }
        if seqno < self.cover {
            return self.end();
        }
        match kind {
            ValueKind::Put if self.operands.is_empty() => Step::Value,
            ValueKind::Put => {
                self.base = Some(self.keep(value));
                Step::Merge
            }
            ValueKind::Merge => {
                let span = self.keep(value);
                self.operands.push(Operand { seqno, span });
                Step::More
            }
            // A range tombstone that begins at a key deletes that key too.
            ValueKind::Delete | ValueKind::RangeDelete => self.end(),
        }
    }

    /// There are no more versions of the key: [`Step::Absent`] or [`Step::Merge`].
    #[inline]
    pub fn end(&mut self) -> Step {
        if self.operands.is_empty() { Step::Absent } else { Step::Merge }
    }

    /// The value after [`Step::Merge`]: one call of the operator's `merge`.
    ///
    /// # Errors
    /// `Incompatible` without an operator; whatever the operator returns.
    ///
    /// # Panics
    /// If there are no operands.
    pub fn merged(&mut self, key: &[u8], operator: Option<&dyn MergeOperator>) -> Result<&[u8]> {
        assert!(!self.operands.is_empty(), "merging without operands");
        let Some(operator) = operator else {
            return Err(Error::incompatible(
                "a key has merge operands, but its column family was opened without a merge operator",
            ));
        };
        // An empty list may change the lifetime of what it would hold, and keeps its allocation.
        let mut list: Vec<&[u8]> = std::mem::take(&mut self.list);
        let bytes = &self.bytes;
        list.extend(self.operands.iter().rev().map(|o| &bytes[o.span.start..o.span.end]));
        let base = self.base.map(|span| &bytes[span.start..span.end]);
        self.out.clear();
        let result = operator.merge(key, base, &list, &mut self.out);
        list.clear();
        self.list = list.into_iter().map(|_| -> &'static [u8] { &[] }).collect();
        result.map(|()| self.out.as_slice())
    }

    /// The operands so far, oldest first, each with its sequence number.
    pub fn operands(&self) -> impl DoubleEndedIterator<Item = (SeqNo, &[u8])> + ExactSizeIterator {
        self.operands.iter().rev().map(|o| (o.seqno, self.slice(o.span)))
    }

    /// The put below the operands, if the search ended at one.
    pub fn base(&self) -> Option<&[u8]> {
        self.base.map(|span| self.slice(span))
    }

    /// Folds neighbouring operands into one wherever the operator can, but none beyond
    /// [`COMBINE_BYTES_MAX`]. One that stands for several has the newest of their sequence numbers.
    pub fn combine(&mut self, key: &[u8], operator: &dyn MergeOperator) {
        // In rounds of pairs: a left fold would copy a long list once for each of its elements.
        while self.operands.len() > 1 {
            let before = self.operands.len();
            self.combine_pairs(key, operator);
            if self.operands.len() == before {
                return;
            }
        }
    }

    fn combine_pairs(&mut self, key: &[u8], operator: &dyn MergeOperator) {
        let old = std::mem::replace(&mut self.bytes, std::mem::take(&mut self.spare));
        self.bytes.clear();
        if let Some(span) = self.base {
            self.base = Some(self.keep(&old[span.start..span.end]));
        }
        let (mut from, mut to) = (0, 0);
        while let Some(&newer) = self.operands.get(from) {
            let newer_bytes = &old[newer.span.start..newer.span.end];
            let folded = self.operands.get(from + 1).is_some_and(|older| {
                let older_bytes = &old[older.span.start..older.span.end];
                self.out.clear();
                older_bytes.len() + newer_bytes.len() <= COMBINE_BYTES_MAX
                    && operator.combine(key, older_bytes, newer_bytes, &mut self.out)
            });
            let start = self.bytes.len();
            self.bytes.extend_from_slice(if folded { &self.out } else { newer_bytes });
            let span = Span { start, end: self.bytes.len() };
            self.operands[to] = Operand { seqno: newer.seqno, span };
            from += 1 + usize::from(folded);
            to += 1;
        }
        self.operands.truncate(to);
        self.spare = old;
    }

    fn keep(&mut self, value: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        Span { start, end: self.bytes.len() }
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    /// Concatenation: neither commutative nor idempotent. Refuses to combine with what begins with 7.
    struct Append;

    impl MergeOperator for Append {
        fn name(&self) -> &str {
            "append"
        }
        fn merge(
            &self,
            key: &[u8],
            base: Option<&[u8]>,
            operands: &[&[u8]],
            out: &mut Vec<u8>,
        ) -> Result<()> {
            if key == b"bad" {
                return Err(Error::corruption("not a list"));
            }
            out.extend_from_slice(base.unwrap_or(b"-"));
            out.extend(operands.concat());
            Ok(())
        }
        fn combine(&self, _: &[u8], older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(older);
            out.extend_from_slice(newer);
            newer.first() != Some(&7)
        }
    }

    type Version = (SeqNo, ValueKind, Vec<u8>);

    /// Versions newest first with strictly falling numbers.
    fn versions(raw: Vec<(u8, Vec<u8>)>) -> Vec<Version> {
        let count = raw.len() as SeqNo;
        let kinds = [ValueKind::Merge, ValueKind::Put, ValueKind::Merge, ValueKind::Delete];
        let numbered = raw.into_iter().enumerate().map(|(i, (kind, value))| {
            ((count - i as SeqNo) * 2, kinds[usize::from(kind % 4)], value)
        });
        numbered.collect()
    }

    /// Applies everything visible from the oldest on.
    fn naive(versions: &[Version], covers: &[SeqNo], at: SeqNo) -> Option<Vec<u8>> {
        let mut value: Option<Vec<u8>> = None;
        for seqno in 0..=at {
            if covers.contains(&seqno) {
                value = None;
            }
            for (_, kind, bytes) in versions.iter().filter(|v| v.0 == seqno) {
                value = match kind {
                    ValueKind::Put => Some(bytes.clone()),
                    ValueKind::Merge => {
                        Some([value.unwrap_or_else(|| b"-".to_vec()), bytes.clone()].concat())
                    }
                    _ => None,
                };
            }
        }
        value
    }

    fn feed(resolver: &mut Resolver, versions: &[Version]) -> Step {
        for (seqno, kind, value) in versions {
            match resolver.push(*seqno, *kind, value) {
                Step::More => {}
                done => return done,
            }
        }
        resolver.end()
    }

    quickcheck! {
        fn resolves_as_a_fold_from_the_oldest(
            raw: Vec<(u8, Vec<u8>)>, covers: Vec<u8>, at: u8, combine: bool
        ) -> bool {
            let versions = versions(raw);
            // Odd, so that no tombstone has the number of a version.
            let covers: Vec<SeqNo> = covers.iter().take(2).map(|c| SeqNo::from(c % 32) * 2 + 1).collect();
            let at = SeqNo::from(at % 64);
            let mut resolver = Resolver::new();
            let _ = feed(&mut resolver, &[(3, ValueKind::Merge, b"of another key".to_vec())]);
            resolver.reset(at);
            covers.iter().for_each(|&seqno| resolver.cover(seqno));
            let mut last = None;
            let mut step = Step::More;
            for (seqno, kind, value) in &versions {
                last = Some(value.clone());
                step = resolver.push(*seqno, *kind, value);
                if step != Step::More { break }
            }
            if step == Step::More { step = resolver.end() }
            if combine { resolver.combine(b"key", &Append) }
            let found = match step {
                Step::Value => last,
                Step::Absent => None,
                Step::Merge => Some(resolver.merged(b"key", Some(&Append)).unwrap().to_vec()),
                Step::More => unreachable!("end never asks for more"),
            };
            found == naive(&versions, &covers, at)
        }

        fn combining_keeps_the_bytes_and_their_order(operands: Vec<Vec<u8>>) -> bool {
            let mut resolver = Resolver::new();
            let count = operands.len() as SeqNo;
            for (i, operand) in operands.iter().rev().enumerate() {
                let _ = resolver.push(count - i as SeqNo, ValueKind::Merge, operand);
            }
            let all = |r: &Resolver| r.operands().flat_map(|o| o.1.to_vec()).collect::<Vec<u8>>();
            let before = all(&resolver);
            resolver.combine(b"key", &Append);
            let seqnos: Vec<SeqNo> = resolver.operands().map(|o| o.0).collect();
            before == operands.concat() && all(&resolver) == before
                && seqnos.is_sorted_by(|a, b| a < b)
                && seqnos.last().copied().unwrap_or(0) == count
        }
    }

    #[test]
    fn a_base_below_operands_survives_combining() {
        let mut resolver = Resolver::new();
        let list: Vec<Version> = vec![
            (9, ValueKind::Merge, b"3".to_vec()),
            (8, ValueKind::Merge, b"2".to_vec()),
            (7, ValueKind::Merge, b"1".to_vec()),
            (6, ValueKind::Put, b"base".to_vec()),
        ];
        assert_eq!(feed(&mut resolver, &list), Step::Merge);
        resolver.combine(b"key", &Append);
        assert!(resolver.operands().eq([(9, b"123".as_slice())]));
        assert_eq!(resolver.base(), Some(b"base".as_slice()));
        assert_eq!(resolver.merged(b"key", Some(&Append)).unwrap(), b"base123");
        assert_eq!(resolver.merged(b"key", Some(&Append)).unwrap(), b"base123", "twice the same");
    }

    #[test]
    fn combining_stops_at_its_limit() {
        let mut resolver = Resolver::new();
        for seqno in (1..=5).rev() {
            let _ = resolver.push(seqno, ValueKind::Merge, &vec![1; COMBINE_BYTES_MAX / 2]);
        }
        resolver.combine(b"key", &Append);
        assert_eq!(resolver.operands().map(|o| o.0).collect::<Vec<_>>(), [1, 3, 5]);
        assert!(resolver.operands().all(|o| o.1.len() <= COMBINE_BYTES_MAX));
    }

    #[test]
    fn the_highest_cover_counts_and_none_above_the_reader() {
        let mut resolver = Resolver::new();
        resolver.reset(10);
        resolver.cover(4);
        resolver.cover(11);
        resolver.cover(0);
        assert_eq!(resolver.covered(), 4);
        assert_eq!(resolver.push(5, ValueKind::Put, b"kept"), Step::Value);
        resolver.reset(10);
        resolver.cover(7);
        resolver.cover(6);
        assert_eq!(resolver.push(8, ValueKind::Merge, b"x"), Step::More);
        assert_eq!(resolver.push(6, ValueKind::Put, b"deleted"), Step::Merge);
        assert_eq!(resolver.base(), None);
    }

    #[test]
    fn errors_of_merging() {
        let mut resolver = Resolver::new();
        assert_eq!(resolver.push(1, ValueKind::Merge, b"x"), Step::More);
        assert_eq!(resolver.end(), Step::Merge);
        assert_eq!(resolver.merged(b"key", None).unwrap_err().kind(), ErrorKind::Incompatible);
        let bad = resolver.merged(b"bad", Some(&Append)).unwrap_err();
        assert_eq!(bad.kind(), ErrorKind::Corruption);
        assert_eq!(resolver.merged(b"key", Some(&Append)).unwrap(), b"-x");
    }
}
