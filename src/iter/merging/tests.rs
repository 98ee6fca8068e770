//! Merging against sorting, with walks that turn round and children that fail.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::key::ValueKind;
use crate::iter::VecIterator;
use quickcheck::{Arbitrary, Gen, quickcheck};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Seek(u8, u8),
    SeekForPrev(u8),
    First,
    Last,
    Next,
    Skip,
    NextUserKey,
    Prev,
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Op {
        let (a, b) = (u8::arbitrary(g) % 18, u8::arbitrary(g) % 10);
        match u8::arbitrary(g) % 16 {
            0 | 1 => Op::Seek(a, b),
            2 | 3 => Op::SeekForPrev(a),
            4 => Op::First,
            5 => Op::Last,
            6..=8 => Op::Next,
            9 => Op::Skip,
            10 => Op::NextUserKey,
            _ => Op::Prev,
        }
    }
}

fn apply(iter: &mut impl InternalIterator, op: &Op) -> Result<()> {
    match op {
        Op::Seek(key, at) => iter.seek(InternalKey::seek(&[*key], u64::from(*at))),
        Op::SeekForPrev(key) => iter.seek_for_prev(&[*key]),
        Op::First => iter.first(),
        Op::Last => iter.last(),
        Op::Next | Op::Skip | Op::NextUserKey | Op::Prev if iter.entry().is_none() => iter.first(),
        Op::Next => iter.next(),
        Op::Skip => {
            let key = iter.entry().expect("looked above").0.user_key.to_vec();
            iter.skip(&key)
        }
        Op::NextUserKey => iter.next_user_key(),
        Op::Prev => iter.prev(),
    }
}

/// Versions, each with the child it goes to. No two are the same.
fn split(raw: &[(u8, u8, u8)], children: usize) -> (VecIterator, Vec<VecIterator>) {
    let unique: BTreeMap<(u8, u8), u8> =
        raw.iter().map(|&(key, seqno, child)| ((key % 16, seqno % 8), child)).collect();
    let mut lists = vec![Vec::new(); children];
    for ((key, seqno), child) in unique {
        let child = usize::from(child) % children;
        lists[child].push((vec![key], u64::from(seqno), ValueKind::Put, vec![child as u8]));
    }
    (VecIterator::new(lists.concat()), lists.into_iter().map(VecIterator::new).collect())
}

fn collect(iter: &mut impl InternalIterator) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let mut all = Vec::new();
    iter.first().unwrap();
    while let Some((key, value)) = iter.entry() {
        all.push((key.user_key.to_vec(), key.seqno, value.to_vec()));
        iter.next().unwrap();
    }
    all
}

/// Fails once, at the given step from now.
struct Failing {
    inner: VecIterator,
    steps: usize,
}

impl Failing {
    fn step(&mut self) -> Result<()> {
        let fails = self.steps == 1;
        self.steps = self.steps.saturating_sub(1);
        if fails { Err(Error::corruption("bad block")) } else { Ok(()) }
    }
}

impl InternalIterator for Failing {
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.step().and_then(|()| self.inner.seek(target))
    }
    fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        self.step().and_then(|()| self.inner.seek_for_prev(user_key))
    }
    fn first(&mut self) -> Result<()> {
        self.step().and_then(|()| self.inner.first())
    }
    fn last(&mut self) -> Result<()> {
        self.step().and_then(|()| self.inner.last())
    }
    fn next(&mut self) -> Result<()> {
        self.step().and_then(|()| self.inner.next())
    }
    fn prev(&mut self) -> Result<()> {
        self.step().and_then(|()| self.inner.prev())
    }
    fn entry(&self) -> Option<(InternalKey<'_>, &[u8])> {
        self.inner.entry()
    }
}

quickcheck! {
    fn merging_is_sorting(raw: Vec<(u8, u8, u8)>, children: u8) -> bool {
        let (mut sorted, parts) = split(&raw, usize::from(children % 9) + 1);
        collect(&mut MergingIterator::new(parts)) == collect(&mut sorted)
    }

    fn walks_like_one_sorted_list(raw: Vec<(u8, u8, u8)>, ops: Vec<Op>, children: u8) -> bool {
        let (mut sorted, parts) = split(&raw, usize::from(children % 9) + 1);
        let mut merged = MergingIterator::new(parts);
        ops.iter().all(|op| {
            apply(&mut sorted, op).unwrap();
            apply(&mut merged, op).unwrap();
            merged.entry() == sorted.entry()
        })
    }

    fn a_failure_is_never_the_end(
        raw: Vec<(u8, u8, u8)>, ops: Vec<Op>, which: u8, steps: u8
    ) -> bool {
        let (mut sorted, parts) = split(&raw, 4);
        let failing = parts.into_iter().enumerate().map(|(i, inner)| {
            let steps = usize::from(steps % 32) + 1;
            Failing { inner, steps: if i == usize::from(which % 4) { steps } else { 0 } }
        });
        let mut merged = MergingIterator::new(failing.collect());
        ops.iter().all(|op| {
            apply(&mut sorted, op).unwrap();
            if apply(&mut merged, op).is_err() {
                let again = merged.next().unwrap_err().kind() == ErrorKind::Corruption
                    && merged.prev().is_err() && merged.entry().is_none();
                sorted.first().unwrap();
                merged.first().unwrap();
                return again && merged.entry() == sorted.entry();
            }
            merged.entry() == sorted.entry()
        })
    }
}

#[test]
fn equal_entries_come_in_the_order_of_the_children() {
    let child =
        |value: &[u8]| VecIterator::new(vec![(b"k".to_vec(), 5, ValueKind::Put, value.to_vec())]);
    let mut merged = MergingIterator::new(vec![child(b"a"), child(b"b"), child(b"c")]);
    let values: Vec<_> = collect(&mut merged).into_iter().map(|e| e.2).collect();
    assert_eq!(values, [b"a", b"b", b"c"]);
    merged.last().unwrap();
    assert_eq!(merged.entry().unwrap().1, b"a");
    merged.next().unwrap();
    assert_eq!(merged.entry().unwrap().1, b"b");
}

#[test]
fn nothing_to_merge() {
    let mut none = MergingIterator::<VecIterator>::new(Vec::new());
    none.first().unwrap();
    assert!(none.entry().is_none());
    let mut boxed: MergingIterator<Box<dyn InternalIterator>> =
        MergingIterator::new(vec![Box::new(VecIterator::new(Vec::new()))]);
    boxed.last().unwrap();
    assert!(boxed.entry().is_none());
}
