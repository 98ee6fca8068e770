//! The keys in order, made when somebody asks.
//!
//! The writer pays nothing for order. Opening a cursor *catches up*: it walks what was appended to the
//! arena since last time, and puts the first version of each new key (a key has one place in the
//! order, whatever is written to it later) into sorted, immutable *runs*. A few new keys go into the
//! last run, which is short; many become a run of their own, and runs of similar length are merged, so
//! that each is at least four times longer than the next. A frozen table is merged into one.
//!
//! A cursor shares the runs as they were at its creation, and is disturbed by nothing.
//!
//! Keys that were deleted and that nothing lies under [leave](Arena::leave) the order,
//! where a cursor has found several of them side by side: it leaves a *gap* in the run, which later
//! ones step over at once, and which is gone when runs are merged. If nothing at all lies under the
//! table, they do not come into the order in the first place, or are looked for where they must be many.

use std::cmp::Ordering;
use std::ops::Range;

use crate::base::key::SeqNo;
use crate::base::sync::{Arc, AtomicU32, Ordering as Memory};
use crate::memtable::arena::Arena;
use crate::memtable::entry::prefetch;
use crate::memtable::offset::{Offset, Position};

/// The last run takes single keys until it has this many.
const TAIL_MAX: usize = if cfg!(test) { 8 } else { 128 };
/// Every so many heads of a run there is a fence. The heads in between are looked at together.
const FENCE_EVERY: usize = if cfg!(test) { 4 } else { 16 };
/// Fewer deleted keys side by side are not worth a gap: they may soon be written again where they are.
pub const GAP_MIN: usize = if cfg!(test) { 2 } else { 8 };
/// Keys that tie are sorted one by one up to this number.
const FEW: usize = if cfg!(test) { 2 } else { 8 };
const HEAD_BYTES: usize = 16;
/// While a head is looked at, the entries of later ones are on their way.
const AHEAD: usize = 16;

/// The first version of a key, and the beginning of the key in two big-endian numbers: see [`encode`].
/// They begin behind what all keys have in common, so that most comparisons end here.
pub struct Head {
    high: u64,
    low: u64,
    /// The first version.
    pub offset: Offset,
    /// If a gap begins at this head, its length; if one ends here, its length with [`ENDS`]. What was
    /// once a gap remains a part of one: so neither is ever wrong, though it may become too short.
    gap: AtomicU32,
}

/// Marks the length of a gap at the last of its heads.
const ENDS: u32 = 1 << 31;

impl Clone for Head {
    /// Not the gap, which belongs to the place.
    #[inline]
    fn clone(&self) -> Head {
        Head { high: self.high, low: self.low, offset: self.offset, gap: AtomicU32::new(0) }
    }
}

impl Head {
    #[inline]
    fn new(key: &[u8], from: usize, offset: Offset) -> Head {
        let all = u128::from_be_bytes(encode(key.get(from..).unwrap_or(&[])));
        let gap = AtomicU32::new(0);
        Head { high: (all >> 64) as u64, low: all as u64, offset, gap }
    }

    #[inline]
    fn bytes(&self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }

    /// How many heads from this one on are in a gap that begins here.
    #[inline]
    fn gap_from(&self) -> usize {
        let gap = self.gap.load(Memory::Relaxed);
        if gap & ENDS == 0 { gap as usize } else { 0 }
    }

    /// How many heads up to this one are in a gap that ends here.
    #[inline]
    fn gap_to(&self) -> usize {
        let gap = self.gap.load(Memory::Relaxed);
        if gap & ENDS == 0 { 0 } else { (gap & !ENDS) as usize }
    }
}

/// The beginning of a key. If two keys differ here, they differ in the same way.
///
/// Zeros take two bytes, however many there are: keys are full of big-endian numbers, and what tells
/// neighbours apart lies behind. A zero stands for all of them; then comes their number, from 255 down
/// before another byte, since fewer are then more, or as it is at the end of the key.
fn encode(key: &[u8]) -> [u8; HEAD_BYTES] {
    let mut out = [0; HEAD_BYTES];
    let (mut from, mut to) = (0, 0);
    while let Some(&byte) = key.get(from)
        && to < HEAD_BYTES
    {
        if byte != 0 {
            out[to] = byte;
            (from, to) = (from + 1, to + 1);
            continue;
        }
        let zeros = leading_zeros(&key[from..]);
        from += zeros;
        if let Some(number) = out.get_mut(to + 1) {
            *number = if from == key.len() { zeros as u8 } else { 255 - zeros as u8 };
        }
        to += 2;
        if zeros == ZEROS_MAX {
            break; // there may be more of them
        }
    }
    out
}

/// Most zeros that are counted.
const ZEROS_MAX: usize = 127;

/// With how many zeros a part of a key begins, up to [`ZEROS_MAX`].
#[inline]
fn leading_zeros(key: &[u8]) -> usize {
    let mut zeros = 0;
    while let Some(word) = key[zeros..].first_chunk::<8>()
        && zeros < ZEROS_MAX
    {
        match u64::from_be_bytes(*word) {
            0 => zeros += 8,
            word => return ZEROS_MAX.min(zeros + word.leading_zeros() as usize / 8),
        }
    }
    let rest = key[zeros..].iter().take(8).take_while(|&&byte| byte == 0).count();
    ZEROS_MAX.min(zeros + rest)
}

/// The order of two entries by key.
#[inline]
pub fn compare(arena: &Arena, a: &Head, b: &Head) -> Ordering {
    a.bytes().cmp(&b.bytes()).then_with(|| compare_keys(arena, a, b))
}

#[cold]
fn compare_keys(arena: &Arena, a: &Head, b: &Head) -> Ordering {
    arena.entry(a.offset).key().cmp(arena.entry(b.offset).key())
}

/// Sorted heads: no key twice, and none in two runs, but for those that have left the order.
#[derive(Clone, Default)]
pub struct Run {
    heads: Vec<Head>,
    /// The upper half of every so manyth head: a search misses the cache less often. Absent in the
    /// last run, which changes.
    fences: Vec<u64>,
    /// What all keys begin with. Heads begin behind.
    common: Arc<[u8]>,
}

impl Run {
    fn new(heads: Vec<Head>, common: &Arc<[u8]>) -> Run {
        let common = Arc::clone(common);
        let fences = match heads.len() {
            0..=TAIL_MAX => Vec::new(),
            _ => heads.iter().step_by(FENCE_EVERY).map(|head| head.high).collect(),
        };
        Run { heads, fences, common }
    }

    /// The heads in order.
    #[inline]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Asks for the head at a place, if there is one.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        if let Some(head) = self.heads.get(at) {
            prefetch(head);
        }
    }

    /// The first place at or after `at` that is in no known gap.
    #[inline]
    pub fn over_gaps(&self, mut at: usize) -> usize {
        while let Some(head) = self.heads.get(at) {
            match head.gap_from() {
                0 => break,
                gap => at += gap,
            }
        }
        at
    }

    /// The place behind the last head before `at` that is in no known gap.
    #[inline]
    pub fn back_over_gaps(&self, mut at: usize) -> usize {
        while let Some(head) = at.checked_sub(1).map(|last| &self.heads[last]) {
            match head.gap_to() {
                0 => break,
                gap => at -= gap,
            }
        }
        at
    }

    /// Makes gaps of those keys at these places that are or become gone, where several are side by
    /// side.
    pub fn leave_gaps(&self, places: Range<usize>, mut gone: impl FnMut(&Head) -> bool) {
        let (mut from, mut at) = (places.start, places.start);
        while at < places.end {
            match self.heads[at].gap_from() {
                0 if gone(&self.heads[at]) => at += 1,
                0 => {
                    self.add_gap(from..at);
                    at += 1;
                    from = at;
                }
                gap => at += gap,
            }
        }
        self.add_gap(from..at);
    }

    fn add_gap(&self, gap: Range<usize>) {
        let (start, end) = (self.back_over_gaps(gap.start), self.over_gaps(gap.end));
        if gap.is_empty() || end - start < GAP_MIN || self.heads[start].gap_from() == end - start {
            return;
        }
        let len = (end - start) as u32;
        // One that begins a gap never ends one, and the other way round.
        if self.heads[start].gap_to() == 0 {
            self.heads[start].gap.store(len, Memory::Relaxed);
        }
        if self.heads[end - 1].gap_from() == 0 {
            self.heads[end - 1].gap.store(len | ENDS, Memory::Relaxed);
        }
    }

    /// The heads that are in no known gap.
    fn kept(&self) -> impl Iterator<Item = &Head> {
        let mut at = 0;
        std::iter::from_fn(move || {
            at = self.over_gaps(at) + 1;
            self.heads.get(at - 1)
        })
    }

    /// The heads of keys that do not leave the order.
    fn without_deleted(&self, arena: &Arena, upto: SeqNo) -> Vec<Head> {
        let mut ahead = self.kept().skip(AHEAD);
        let stays = |head: &&Head| {
            if let Some(ahead) = ahead.next() {
                arena.entry(ahead.offset).prefetch::<1>();
            }
            !arena.leave(head.offset, upto)
        };
        self.kept().filter(stays).cloned().collect()
    }

    /// How many heads are below `key`.
    pub fn lower_bound(&self, arena: &Arena, key: &[u8]) -> usize {
        let common = &*self.common;
        match key.get(..common.len()).unwrap_or(key).cmp(common) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.heads.len(),
            Ordering::Equal => {}
        }
        let Some(any) = self.heads.first() else { return 0 };
        let target = Head::new(key, common.len(), any.offset);
        let Range { mut start, mut end } = self.between_fences(target.high);
        while end - start > 2 * FENCE_EVERY {
            let middle = start.midpoint(end);
            if self.heads[middle].bytes() < target.bytes() { start = middle } else { end = middle }
        }
        // All at once: their lines are on their way together.
        let below = |head: &&Head| head.bytes() < target.bytes();
        let at = start + self.heads[start..end].iter().filter(below).count();
        let ties = |at: usize| self.heads.get(at).is_some_and(|h| h.bytes() == target.bytes());
        let mut many = 0;
        while ties(at + many) {
            many = 2 * many + 1;
        }
        let tied = &self.heads[at..self.heads.len().min(at + many)];
        at + tied.partition_point(|head| {
            head.bytes() == target.bytes() && arena.entry(head.offset).key() < key
        })
    }

    /// Where the lower bound of heads with this upper half lies.
    fn between_fences(&self, high: u64) -> Range<usize> {
        let after = self.fences.partition_point(|&fence| fence < high);
        let beyond = match self.fences.get(after) {
            Some(&fence) if fence == high => {
                after + self.fences[after..].partition_point(|&fence| fence == high)
            }
            _ => after,
        };
        let end = if beyond < self.fences.len() { beyond * FENCE_EVERY } else { self.heads.len() };
        after.saturating_sub(1) * FENCE_EVERY..end
    }

    fn bytes(&self) -> usize {
        self.heads.capacity() * size_of::<Head>() + self.fences.capacity() * size_of::<u64>()
    }
}

/// What is in order so far.
#[derive(Default)]
pub struct Order {
    /// Longest first. None is empty.
    runs: Vec<Arc<Run>>,
    /// Stands for the longest run where there is none.
    none: Arc<Run>,
    /// What all keys begin with, or a part of it.
    common: Arc<[u8]>,
    walked: Position,
    /// How many deletes there had been when deleted keys were last looked for.
    deletes: usize,
}

/// Deleted keys that nobody needs in the order: nothing lies under them.
#[derive(Clone, Copy)]
pub struct Forget {
    /// Every pin sees what was written up to this number.
    pub upto: SeqNo,
    /// Deletes so far that no cursor has taken out of the order. It need not be exact.
    pub deletes: usize,
}

impl Order {
    /// Puts everything into order that was published in the arena before; into a single run if
    /// `whole`. Cost: 30–100 ns for each new key, and now and then as much for all of them; 10 ns for
    /// one that may be forgotten.
    pub fn catch_up(&mut self, arena: &Arena, whole: bool, forget: Option<Forget>) {
        if let Some(forget) = forget {
            self.forget(arena, forget);
        }
        let mut new = Vec::new();
        let mut walked = self.walked;
        // Each entry is looked at once, while the walk has it at hand.
        arena.walk(&mut walked, |offset, entry| {
            if !entry.is_first() {
                return;
            }
            if forget.is_some_and(|forget| arena.leave(offset, forget.upto)) {
                self.deletes += 1;
            } else {
                let key = entry.key();
                self.fit_common(arena, key, &mut new);
                new.push(Head::new(key, self.common.len(), offset));
            }
        });
        self.walked = walked;
        if !new.is_empty() {
            self.add(arena, new);
        }
        if whole {
            self.merge(arena, 0);
        }
    }

    /// Takes deleted keys out, if there may be as many as others.
    fn forget(&mut self, arena: &Arena, forget: Forget) {
        let heads: usize = self.runs.iter().map(|run| run.heads.len()).sum();
        if forget.deletes.saturating_sub(self.deletes) <= heads / 2 {
            return;
        }
        self.deletes = forget.deletes;
        for run in &mut self.runs {
            *run = Arc::new(Run::new(run.without_deleted(arena, forget.upto), &self.common));
        }
        self.merge(arena, 0);
    }

    /// The runs, to be shared.
    pub fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// The longest of the runs, which is empty if there is none, and the others.
    #[inline]
    pub fn longest_and_others(&self) -> (&Arc<Run>, &[Arc<Run>]) {
        self.runs.split_first().unwrap_or((&self.none, &[]))
    }

    /// Bytes of the runs.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes()).sum()
    }

    /// Shortens the common part to what the next new key shares; `new` are the heads of those before it.
    /// Lengths have two significant bits: it cannot happen often, since all heads are made anew.
    #[inline]
    fn fit_common(&mut self, arena: &Arena, key: &[u8], new: &mut [Head]) {
        if self.runs.is_empty() && new.is_empty() {
            self.common = key.into();
        }
        let common = common_bytes(key, &self.common);
        if common < self.common.len() {
            self.shorten_common(arena, common, new);
        }
    }

    #[cold]
    fn shorten_common(&mut self, arena: &Arena, common: usize, new: &mut [Head]) {
        let bits = usize::BITS - common.leading_zeros();
        let common = common >> bits.saturating_sub(2) << bits.saturating_sub(2);
        self.common = self.common[..common].into();
        let again = |head: &Head| Head::new(arena.entry(head.offset).key(), common, head.offset);
        new.iter_mut().for_each(|head| *head = again(head));
        for run in &mut self.runs {
            *run = Arc::new(Run::new(run.kept().map(again).collect(), &self.common));
        }
        self.runs.retain(|run| !run.heads.is_empty());
    }

    fn add(&mut self, arena: &Arena, mut new: Vec<Head>) {
        if let Some(tail) = self.runs.last_mut()
            && tail.heads.len() + new.len() <= TAIL_MAX
        {
            // In place, unless a cursor still shares it.
            let tail = Arc::make_mut(tail);
            tail.heads.iter_mut().for_each(|head| *head.gap.get_mut() = 0);
            for head in new {
                let at = tail.heads.partition_point(|other| compare(arena, other, &head).is_lt());
                tail.heads.insert(at, head);
            }
            return;
        }
        self.settle(arena);
        sort(arena, &mut new, self.common.len());
        self.runs.push(Arc::new(Run::new(new, &self.common)));
        if self.runs.last().is_some_and(|run| run.heads.len() > TAIL_MAX) {
            self.settle(arena);
        }
    }

    /// Merges the runs at the end that are too long for those before them.
    fn settle(&mut self, arena: &Arena) {
        let Some(mut from) = self.runs.len().checked_sub(1) else { return };
        let mut total = self.runs[from].heads.len();
        while from > 0 && self.runs[from - 1].heads.len() < 4 * total {
            from -= 1;
            total += self.runs[from].heads.len();
        }
        self.merge(arena, from);
    }

    fn merge(&mut self, arena: &Arena, from: usize) {
        let merge = |new: Arc<Run>, old: Arc<Run>| {
            Arc::new(Run::new(merge(arena, &old, &new), &self.common))
        };
        let merged = self.runs.drain(from..).rev().reduce(merge);
        self.runs.extend(merged.filter(|run| !run.heads.is_empty()));
    }
}

fn merge(arena: &Arena, a: &Run, b: &Run) -> Vec<Head> {
    let mut merged = Vec::with_capacity(a.heads.len() + b.heads.len());
    let (mut a, mut b) = (a.kept().peekable(), b.kept().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let first = if compare(arena, x, y).is_lt() { &mut a } else { &mut b };
        merged.extend(first.next().cloned());
    }
    merged.extend(a.chain(b).cloned());
    merged
}

/// Sorts heads that begin at byte `from` of their keys. Keys that tie are sorted by heads that begin
/// behind what they have in common, fetched once for each and not at every comparison, and so on.
fn sort(arena: &Arena, heads: &mut [Head], from: usize) {
    heads.sort_unstable_by_key(Head::bytes);
    let mut ties = Vec::new();
    find_ties(heads, 0, from + 1, &mut ties);
    while let Some((range, mut from)) = ties.pop() {
        let start = range.start;
        let tied = &mut heads[range];
        let key = |head: &Head| arena.entry(head.offset).key();
        let longest = tied.iter().map(|head| key(head).len()).max();
        if tied.len() <= FEW || longest <= Some(from) {
            tied.sort_unstable_by(|a, b| key(a).cmp(key(b)));
            continue;
        }
        let first = key(&tied[0]);
        let common = tied.iter().fold(first.len(), |n, head| common_bytes(key(head), &first[..n]));
        from = from.max(common);
        let mut next: Vec<Head> =
            tied.iter().map(|head| Head::new(key(head), from, head.offset)).collect();
        next.sort_unstable_by_key(Head::bytes);
        find_ties(&next, start, from + 1, &mut ties);
        for (head, next) in tied.iter_mut().zip(next) {
            head.offset = next.offset;
        }
    }
}

/// Adds the places of equal heads, from `start` on, with the byte where their keys may differ.
fn find_ties(heads: &[Head], start: usize, from: usize, ties: &mut Vec<(Range<usize>, usize)>) {
    let mut at = start;
    for group in heads.chunk_by(|a, b| a.bytes() == b.bytes()) {
        if group.len() > 1 {
            ties.push((at..at + group.len(), from));
        }
        at += group.len();
    }
}

/// How many bytes two keys have in common at their beginning.
#[inline]
fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    if a.starts_with(b) {
        return b.len();
    }
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
