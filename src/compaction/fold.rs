//! Versions of one key on their way through a compaction, and the folding of merge operands.

use std::ops::Range;

use crate::base::canary::Canary;
use crate::base::key::SEQNO_MAX;
use crate::base::key::SeqNo;
use crate::base::key::ValueKind;
use crate::base::limits::COMBINE_BYTES_MAX;
use crate::base::sync::Arc;
use crate::iter::resolve::MergeOperator;
use crate::iter::resolve::Resolver;
use crate::iter::resolve::Step;

/// Versions of one user key: their values in one buffer that is used again for the next key.
#[derive(Default)]
pub(super) struct Versions {
    bytes: Vec<u8>,
    list: Vec<(SeqNo, ValueKind, Range<usize>)>,
}

impl Versions {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    pub(super) fn push(&mut self, seqno: SeqNo, kind: ValueKind, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.list.push((seqno, kind, start..self.bytes.len()));
    }

    pub(super) fn get(&self, i: usize) -> (SeqNo, ValueKind, &[u8]) {
        let (seqno, kind, value) = &self.list[i];
        (*seqno, *kind, &self.bytes[value.clone()])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SeqNo, ValueKind, &[u8])> {
        self.list.iter().map(|(seqno, kind, value)| (*seqno, *kind, &self.bytes[value.clone()]))
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn reverse(&mut self) {
        self.list.reverse();
    }
}

/// Folds chains of operands with the family's operator, if it has one.
///
/// Nothing it makes is longer than [`COMBINE_BYTES_MAX`], unless an input already was: a list that
/// grows for ever stays a chain of chunks. An operator that fails leaves its operands as they are,
/// and the reader of the key meets the error.
pub(super) struct Folder {
    operator: Option<Arc<dyn MergeOperator>>,
    value: Vec<u8>,
    scratch: Vec<u8>,
    resolver: Resolver,
}

impl Folder {
    pub(super) fn new(operator: Option<Arc<dyn MergeOperator>>) -> Folder {
        Folder { operator, value: Vec::new(), scratch: Vec::new(), resolver: Resolver::new() }
    }

    /// Folds as many as it can of the oldest operands onto `base` (`None`: the key is absent). The
    /// operands are those in `range` of `versions`, newest first. Returns how many were folded; then
    /// [`value`](Folder::value) is the result.
    pub(super) fn onto_base(
        &mut self,
        key: &[u8],
        base: Option<&[u8]>,
        versions: &Versions,
        range: Range<usize>,
    ) -> usize {
        let Some(operator) = &self.operator else { return 0 };
        let mut folded = 0;
        while folded < range.len() {
            let base = if folded > 0 { Some(&*self.value) } else { base };
            let (mut total, mut largest) =
                (base.map_or(0, <[u8]>::len), base.map_or(0, <[u8]>::len));
            let mut operands = Vec::new();
            for i in (range.start..range.end - folded).rev() {
                let (_, _, operand) = versions.get(i);
                if !operands.is_empty() && total + operand.len() > COMBINE_BYTES_MAX {
                    break;
                }
                total += operand.len();
                largest = largest.max(operand.len());
                operands.push(operand);
            }
            if Canary::OperandsAreReversed.is_planted() {
                operands.reverse();
            }
            self.scratch.clear();
            let result = operator.merge(key, base, &operands, &mut self.scratch);
            if result.is_err() || self.scratch.len() > largest.max(COMBINE_BYTES_MAX) {
                break;
            }
            folded += operands.len();
            std::mem::swap(&mut self.value, &mut self.scratch);
        }
        folded
    }

    /// The value that [`onto_base`](Folder::onto_base) made.
    pub(super) fn value(&self) -> &[u8] {
        &self.value
    }

    /// Combines neighbours among the operands in `range` of `versions` (newest first). Returns the
    /// chain *oldest first*; a combined operand has the number of its newest part.
    pub(super) fn combine(
        &mut self,
        key: &[u8],
        versions: &Versions,
        range: Range<usize>,
    ) -> impl Iterator<Item = (SeqNo, &[u8])> {
        self.resolver.reset(SEQNO_MAX);
        for (seqno, kind, operand) in range.map(|i| versions.get(i)) {
            let step = self.resolver.push(seqno, kind, operand);
            debug_assert_eq!(step, Step::More, "only operands are combined");
        }
        if let Some(operator) = &self.operator {
            self.resolver.combine(key, &**operator);
        }
        self.resolver.operands()
    }
}
