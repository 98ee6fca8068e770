//! The keys in order, made when somebody asks.
//!
//! The writer pays nothing for order. Opening a cursor *catches up*: it walks what was appended to the
//! arena since last time, and puts the first version of each new key (a key has one place in the
//! order, whatever is written to it later) into sorted, immutable *runs*. A few new keys go into the
//! last run, which is short; many become a run of their own, and runs of similar length are merged, so
//! that each is at least four times longer than the next. A frozen table is merged into one.
//!
//! A cursor shares the runs as they were at its creation, and is disturbed by nothing.

use std::cmp::Ordering;

use crate::base::sync::Arc;
use crate::memtable::arena::{Arena, Offset, Position};

/// The last run takes single keys until it has this many.
const TAIL_MAX: usize = if cfg!(test) { 8 } else { 128 };

/// The first version of a key and the key's first 16 bytes, padded with zeros, as two numbers: most
/// comparisons end here.
#[derive(Clone, Copy)]
pub struct Head {
    high: u64,
    low: u64,
    /// The first version.
    pub offset: Offset,
}

impl Head {
    #[inline]
    fn prefix(&self) -> (u64, u64) {
        (self.high, self.low)
    }
}

/// The first 16 bytes of a key as two big-endian numbers, padded with zeros.
#[inline]
pub fn prefix(key: &[u8]) -> (u64, u64) {
    let mut bytes = [0; 16];
    let len = key.len().min(16);
    bytes[..len].copy_from_slice(&key[..len]);
    let all = u128::from_be_bytes(bytes);
    ((all >> 64) as u64, all as u64)
}

/// Sorted heads, no key twice, none in two runs.
pub type Run = Arc<Vec<Head>>;

/// The order of two entries by key.
#[inline]
pub fn compare(arena: &Arena, a: &Head, b: &Head) -> Ordering {
    a.prefix()
        .cmp(&b.prefix())
        .then_with(|| arena.entry(a.offset).key().cmp(arena.entry(b.offset).key()))
}

/// How many heads of a run are below `key`.
pub fn lower_bound(arena: &Arena, run: &[Head], key: &[u8]) -> usize {
    let prefix = prefix(key);
    run.partition_point(|head| {
        let order = head.prefix().cmp(&prefix);
        order.then_with(|| arena.entry(head.offset).key().cmp(key)).is_lt()
    })
}

/// What is in order so far.
#[derive(Default)]
pub struct Order {
    /// Longest first.
    runs: Vec<Run>,
    walked: Position,
}

impl Order {
    /// Puts everything into order that was published in the arena before; into a single run if
    /// `whole`. Cost: 30–100 ns for each new key, and now and then as much for all of them.
    pub fn catch_up(&mut self, arena: &Arena, whole: bool) {
        let mut new = Vec::new();
        arena.walk(&mut self.walked, |offset, entry| {
            if entry.older().is_none() {
                let (high, low) = prefix(entry.key());
                new.push(Head { high, low, offset });
            }
        });
        if !new.is_empty() {
            self.add(arena, new);
        }
        if whole {
            self.merge(arena, 0);
        }
    }

    /// The runs, to be shared. None is empty.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Bytes of the runs.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.capacity() * size_of::<Head>()).sum()
    }

    fn add(&mut self, arena: &Arena, mut new: Vec<Head>) {
        if let Some(tail) = self.runs.last_mut()
            && tail.len() + new.len() <= TAIL_MAX
        {
            // In place, unless a cursor still shares it.
            let tail = Arc::make_mut(tail);
            for head in new {
                let at = tail.partition_point(|other| compare(arena, other, &head).is_lt());
                tail.insert(at, head);
            }
            return;
        }
        self.settle(arena);
        new.sort_unstable_by(|a, b| compare(arena, a, b));
        let few = new.len() <= TAIL_MAX;
        self.runs.push(Arc::new(new));
        if !few {
            self.settle(arena);
        }
    }

    /// Merges the runs at the end that are too long for those before them.
    fn settle(&mut self, arena: &Arena) {
        let Some(mut from) = self.runs.len().checked_sub(1) else { return };
        let mut total = self.runs[from].len();
        while from > 0 && self.runs[from - 1].len() < 4 * total {
            from -= 1;
            total += self.runs[from].len();
        }
        self.merge(arena, from);
    }

    fn merge(&mut self, arena: &Arena, from: usize) {
        let merge = |new: Run, old: Run| Arc::new(merge(arena, &old, &new));
        let merged = self.runs.drain(from..).rev().reduce(merge);
        self.runs.extend(merged);
    }
}

fn merge(arena: &Arena, a: &[Head], b: &[Head]) -> Vec<Head> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if compare(arena, &a[i], &b[j]).is_lt() {
            merged.push(a[i]);
            i += 1;
        } else {
            merged.push(b[j]);
            j += 1;
        }
    }
    merged.extend_from_slice(&a[i..]);
    merged.extend_from_slice(&b[j..]);
    merged
}
