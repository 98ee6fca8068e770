//! What every reader sees before and after a compaction, on random histories.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::key::successor;
use crate::base::limits::COMBINE_BYTES_MAX;
use crate::iter::VecIterator;
use crate::iter::Version;
use quickcheck::Arbitrary;
use quickcheck::Gen;
use quickcheck::quickcheck;

/// Appends, neither commutative nor without trace of an absent base. Sometimes refuses to combine.
pub(in crate::compaction) struct Append;

impl MergeOperator for Append {
    fn name(&self) -> &str {
        "append"
    }
    fn merge(
        &self,
        _: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        assert!(!operands.is_empty() && out.is_empty());
        out.extend_from_slice(base.unwrap_or(b"new:"));
        operands.iter().for_each(|operand| out.extend_from_slice(operand));
        Ok(())
    }
    fn combine(&self, _: &[u8], older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(older);
        out.extend_from_slice(newer);
        !newer.ends_with(b"3")
    }
}

/// Always fails.
struct Broken;

impl MergeOperator for Broken {
    fn name(&self) -> &str {
        "broken"
    }
    fn merge(&self, _: &[u8], _: Option<&[u8]>, _: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        out.push(1);
        Err(Error::invalid("not what this operator works on"))
    }
}

/// Removes values and operands that contain a '1', and replaces those that contain a '2'.
struct Picky;

impl CompactionFilter for Picky {
    fn decide(&mut self, _: &[u8], _: EntryKind, value: &[u8], out: &mut Vec<u8>) -> Decision {
        assert!(out.is_empty());
        if value.contains(&b'1') {
            out.extend_from_slice(b"junk");
            return Decision::Remove;
        }
        if value.contains(&b'2') {
            out.extend_from_slice(b"two");
            return Decision::Replace;
        }
        Decision::Keep
    }
}

/// Points and range tombstones: a source, an output, or all of a tree.
#[derive(Clone, Debug, Default)]
pub(in crate::compaction) struct Data {
    pub(in crate::compaction) points: Vec<Version>,
    pub(in crate::compaction) tombstones: Vec<RangeTombstone>,
}

impl Data {
    fn union<'a>(parts: impl IntoIterator<Item = &'a Data>) -> Data {
        let mut all = Data::default();
        for part in parts {
            all.points.extend(part.points.iter().cloned());
            all.tombstones.extend(part.tombstones.iter().cloned());
        }
        all
    }

    /// The slowest and plainest reader.
    pub(in crate::compaction) fn read(&self, key: &[u8], at: SeqNo) -> Option<Vec<u8>> {
        let covers = |t: &&RangeTombstone| *t.start <= *key && *key < *t.end && t.seqno <= at;
        let cover = self.tombstones.iter().filter(covers).map(|t| t.seqno).max().unwrap_or(0);
        let mut versions: Vec<&Version> =
            self.points.iter().filter(|v| v.0 == key && v.1 <= at && v.1 > cover).collect();
        versions.sort_by_key(|v| std::cmp::Reverse(v.1));
        let mut operands = Vec::new();
        let mut base = None;
        for (_, _, kind, value) in versions {
            match kind {
                ValueKind::Merge => operands.insert(0, value.as_slice()),
                ValueKind::Put => {
                    base = Some(value.clone());
                    break;
                }
                _ => break,
            }
        }
        if operands.is_empty() {
            return base;
        }
        let mut out = Vec::new();
        Append.merge(key, base.as_deref(), &operands, &mut out).unwrap();
        Some(out)
    }

    fn bounds(&self) -> Vec<KeyRange> {
        let points = self.points.iter().map(|v| KeyRange::new(v.0.clone(), Some(successor(&v.0))));
        let ranges =
            self.tombstones.iter().map(|t| KeyRange::new(t.start.clone(), Some(t.end.clone())));
        points.chain(ranges).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Put,
    Delete,
    Merge,
    RangeDelete(u8),
}

/// A history, where it is cut into sources (oldest first), and who reads.
#[derive(Clone, Debug)]
struct Scene {
    ops: Vec<(Op, u8)>,
    snapshots: Vec<SeqNo>,
    /// The sources are the operations up to the first cut, up to the second, and so on.
    cuts: Vec<usize>,
    /// Which of the sources are compacted: from the `.0`-th on, `.1` of them.
    compacted: (usize, usize),
    /// Output boundaries.
    splits: Vec<u8>,
}

const KEYS: u8 = 6;

impl Arbitrary for Scene {
    fn arbitrary(g: &mut Gen) -> Scene {
        let len = usize::arbitrary(g) % 40;
        let ops: Vec<(Op, u8)> = (0..len)
            .map(|_| {
                let op = match u8::arbitrary(g) % 10 {
                    0..3 => Op::Put,
                    3..5 => Op::Delete,
                    5..9 => Op::Merge,
                    _ => Op::RangeDelete(u8::arbitrary(g) % (KEYS + 1)),
                };
                (op, u8::arbitrary(g) % KEYS)
            })
            .collect();
        let snapshots =
            (0..usize::arbitrary(g) % 4).map(|_| u64::arbitrary(g) % (len as u64 + 2)).collect();
        let mut cuts: Vec<usize> =
            (0..usize::arbitrary(g) % 5).map(|_| usize::arbitrary(g) % (len + 1)).collect();
        cuts.push(len);
        cuts.sort_unstable();
        let first = usize::arbitrary(g) % cuts.len();
        let compacted = (first, 1 + usize::arbitrary(g) % (cuts.len() - first));
        let mut splits: Vec<u8> =
            (0..u8::arbitrary(g) % 3).map(|_| u8::arbitrary(g) % KEYS).collect();
        splits.sort_unstable();
        splits.dedup();
        Scene { ops, snapshots, cuts, compacted, splits }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Scene>> {
        let scene = self.clone();
        let without_op = (0..scene.ops.len()).rev().map(move |i| {
            let mut less = scene.clone();
            less.ops.remove(i);
            less.cuts.iter_mut().filter(|cut| **cut > i).for_each(|cut| *cut -= 1);
            less.snapshots.iter_mut().filter(|s| **s > i as u64).for_each(|s| *s -= 1);
            less
        });
        let scene = self.clone();
        let without_snapshot = (0..scene.snapshots.len()).map(move |i| {
            let mut less = scene.clone();
            less.snapshots.remove(i);
            less
        });
        Box::new(without_snapshot.chain(without_op))
    }
}

fn key(k: u8) -> Vec<u8> {
    vec![b'a' + k]
}

impl Scene {
    /// The sources, oldest first.
    fn sources(&self) -> Vec<Data> {
        let mut sources = Vec::new();
        let mut from = 0;
        for &to in &self.cuts {
            let mut data = Data::default();
            for (i, &(op, k)) in self.ops.iter().enumerate().take(to).skip(from) {
                let seqno = i as SeqNo + 1;
                let text = format!("({seqno})").into_bytes();
                match op {
                    Op::Put => data.points.push((key(k), seqno, ValueKind::Put, text)),
                    Op::Merge => data.points.push((key(k), seqno, ValueKind::Merge, text)),
                    Op::Delete => data.points.push((key(k), seqno, ValueKind::Delete, vec![])),
                    Op::RangeDelete(end) => {
                        data.tombstones.push(RangeTombstone { start: key(k), end: key(end), seqno })
                    }
                }
            }
            sources.push(data);
            from = to;
        }
        sources
    }

    fn readers(&self) -> impl Iterator<Item = SeqNo> + '_ {
        self.snapshots.iter().copied().chain([SEQNO_MAX])
    }

    /// Compacts and returns the whole tree before, after, and the outputs alone.
    fn compact(&self, rules: Rules) -> (Data, Data, Vec<Data>) {
        let sources = self.sources();
        let (first, len) = self.compacted;
        let inputs = Data::union(&sources[first..first + len]);
        let before = Data::union(&sources);
        let mut iter = CompactionIterator::new(
            VecIterator::new(inputs.points.clone()),
            Arc::new(RangeTombstones::new(inputs.tombstones.clone())),
            rules,
        );
        let mut outputs = Vec::new();
        let mut splits = self.splits.iter().map(|&k| key(k)).peekable();
        let mut start = Vec::new();
        let mut output = Data::default();
        while iter.step().unwrap() {
            while let Some(split) = splits.next_if(|split| split.as_slice() <= iter.key()) {
                let region = KeyRange::new(start, Some(split.clone()));
                output.tombstones.extend(iter.tombstones(&region).tombstones());
                outputs.push(std::mem::take(&mut output));
                start = split;
            }
            let k = iter.key().to_vec();
            output.points.extend(iter.versions().map(|v| (k.clone(), v.0, v.1, v.2.to_vec())));
        }
        let rest = KeyRange { start, end: None };
        output.tombstones.extend(iter.tombstones(&rest).tombstones());
        outputs.push(output);
        let after = sources[..first].iter().chain(&sources[first + len..]).chain(&outputs);
        (before, Data::union(after), outputs)
    }

    /// The rules of a leveled compaction: the older sources lie below.
    fn rules(&self) -> Rules {
        let older = Data::union(&self.sources()[..self.compacted.0]);
        Rules {
            snapshots: self.snapshots.clone(),
            below: Below::ranges(older.bounds()),
            operator: Some(Arc::new(Append)),
            filter: None,
        }
    }

    fn same(&self, before: &Data, after: &Data, mut readers: impl Iterator<Item = SeqNo>) -> bool {
        readers.all(|at| (0..KEYS).all(|k| before.read(&key(k), at) == after.read(&key(k), at)))
    }
}

/// As tables with right checksums may be that somebody else has made.
#[test]
fn inputs_out_of_order_are_refused() {
    let put = |k: u8, seqno| (key(k), seqno, ValueKind::Put, vec![]);
    let range_delete = (key(0), 1, ValueKind::RangeDelete, key(1));
    for (inputs, sound) in [
        (vec![put(0, 2), put(0, 1), put(1, 3)], true),
        (vec![put(1, 1), put(0, 2)], false),
        (vec![put(0, 1), put(0, 2)], false),
        (vec![put(0, 1), put(0, 1)], false),
        (vec![range_delete], false),
    ] {
        let input = VecIterator::forged(inputs.clone());
        let (no_tombstones, below) = (Arc::default(), Below::unknown());
        let rules = Rules { snapshots: vec![1], below, operator: None, filter: None };
        let mut iter = CompactionIterator::new(input, no_tombstones, rules);
        let outcome = loop {
            match iter.step() {
                Ok(true) => {}
                Ok(false) => break None,
                Err(e) => break Some(e.kind()),
            }
        };
        assert_eq!(outcome, (!sound).then_some(ErrorKind::Corruption), "{inputs:?}");
    }
}

quickcheck! {
    fn every_reader_sees_the_same(scene: Scene) -> bool {
        let (before, after, _) = scene.compact(scene.rules());
        scene.same(&before, &after, scene.readers())
    }

    fn every_reader_sees_the_same_without_operator(scene: Scene) -> bool {
        let (before, after, _) = scene.compact(Rules { operator: None, ..scene.rules() });
        scene.same(&before, &after, scene.readers())
    }

    fn every_reader_sees_the_same_with_a_failing_operator(scene: Scene) -> bool {
        let operator: Option<Arc<dyn MergeOperator>> = Some(Arc::new(Broken));
        let (before, after, _) = scene.compact(Rules { operator, ..scene.rules() });
        scene.same(&before, &after, scene.readers())
    }

    fn a_flush_drops_nothing_that_older_data_needs(scene: Scene) -> bool {
        let rules = Rules { below: Below::unknown(), ..scene.rules() };
        let (before, after, _) = scene.compact(rules);
        scene.same(&before, &after, scene.readers())
    }

    fn a_filter_never_changes_what_a_snapshot_sees(scene: Scene) -> bool {
        let rules = Rules { filter: Some(Box::new(Picky)), ..scene.rules() };
        let (before, after, _) = scene.compact(rules);
        scene.same(&before, &after, scene.snapshots.iter().copied())
    }

    fn what_a_filter_removes_does_not_come_back_older(scene: Scene) -> bool {
        // No operands, everything compacted into one level: a key reads as before, or replaced, or
        // as absent; never as an older value.
        let mut scene = scene;
        scene.ops.iter_mut().filter(|op| matches!(op.0, Op::Merge)).for_each(|op| op.0 = Op::Put);
        let rules = Rules { filter: Some(Box::new(Picky)), ..scene.rules() };
        let (before, after, _) = scene.compact(rules);
        (0..KEYS).all(|k| {
            let (old, new) = (before.read(&key(k), SEQNO_MAX), after.read(&key(k), SEQNO_MAX));
            new == old || new.is_none() || new.as_deref() == Some(b"two")
        })
    }

    fn outputs_hold_only_their_region(scene: Scene) -> bool {
        let (_, _, outputs) = scene.compact(scene.rules());
        let hull = |data: &Data| {
            let bounds = data.bounds();
            let start = bounds.iter().map(|r| r.start.clone()).min()?;
            Some((start, bounds.into_iter().filter_map(|r| r.end).max()?))
        };
        let hulls: Vec<_> = outputs.iter().filter_map(hull).collect();
        hulls.windows(2).all(|pair| pair[0].1 <= pair[1].0)
    }

    fn compacting_everything_without_snapshots_leaves_puts_alone(scene: Scene) -> bool {
        let mut scene = scene;
        scene.snapshots.clear();
        scene.compacted = (0, scene.cuts.len());
        let (before, after, _) = scene.compact(scene.rules());
        let live = (0..KEYS).filter(|&k| before.read(&key(k), SEQNO_MAX).is_some()).count();
        after.tombstones.is_empty()
            && after.points.len() == live
            && after.points.iter().all(|v| v.2 == ValueKind::Put)
    }

    fn compacting_twice_changes_nothing_more(scene: Scene) -> bool {
        let mut scene = scene;
        scene.compacted = (0, scene.cuts.len());
        scene.splits.clear();
        let (_, once, _) = scene.compact(scene.rules());
        let mut again = CompactionIterator::new(
            VecIterator::new(once.points.clone()),
            Arc::new(RangeTombstones::new(once.tombstones.clone())),
            scene.rules(),
        );
        let mut points = Vec::new();
        while again.step().unwrap() {
            let k = again.key().to_vec();
            points.extend(again.versions().map(|v| (k.clone(), v.0, v.1, v.2.to_vec())));
        }
        points == once.points
    }

    fn at_most_one_value_for_each_reader(scene: Scene) -> bool {
        let (_, _, outputs) = scene.compact(scene.rules());
        let points = Data::union(&outputs).points;
        let mut readers = scene.snapshots.clone();
        readers.sort_unstable();
        readers.dedup();
        (0..KEYS).all(|k| {
            let full = points.iter().filter(|v| v.0 == key(k) && v.2 != ValueKind::Merge);
            full.count() <= readers.len() + 1
        })
    }
}

fn run(points: Vec<Version>, rules: Rules) -> Vec<Version> {
    let mut iter =
        CompactionIterator::new(VecIterator::new(points), RangeTombstones::empty(), rules);
    let mut out = Vec::new();
    while iter.step().unwrap() {
        let k = iter.key().to_vec();
        out.extend(iter.versions().map(|v| (k.clone(), v.0, v.1, v.2.to_vec())));
    }
    assert!(!iter.step().unwrap());
    out
}

fn rules(operator: bool, below: Below) -> Rules {
    let operator = operator.then(|| Arc::new(Append) as Arc<dyn MergeOperator>);
    Rules { snapshots: vec![], below, operator, filter: None }
}

fn merge(seqno: SeqNo, value: &[u8]) -> Version {
    (b"k".to_vec(), seqno, ValueKind::Merge, value.to_vec())
}

#[test]
fn a_list_that_grows_for_ever_stays_a_chain_of_chunks() {
    let chunk = vec![b'x'; COMBINE_BYTES_MAX / 4 + 1];
    let list: Vec<Version> = (1..=10).map(|seqno| merge(seqno, &chunk)).collect();
    for below in [Below::unknown(), Below::ranges(vec![])] {
        let out = run(list.clone(), rules(true, below));
        assert!(out.len() > 1 && out.len() < 10, "{}", out.len());
        assert!(out.iter().all(|v| v.3.len() <= COMBINE_BYTES_MAX));
        let bytes: usize = out.iter().map(|v| v.3.len()).sum();
        assert!(bytes >= 10 * chunk.len());
    }
}

#[test]
fn small_operands_fold_however_many() {
    let list: Vec<Version> = (1..=5000).map(|seqno| merge(seqno, b"0")).collect();
    let out = run(list, rules(true, Below::ranges(vec![])));
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].1, out[0].2, out[0].3.len()), (5000, ValueKind::Put, 5004));
}

#[test]
fn operands_removed_by_a_filter_stay_while_something_older_may_lie_below() {
    let list = vec![merge(1, b"1"), merge(2, b"4"), merge(3, b"1")];
    let filtered = |below| {
        let filter: Option<Box<dyn CompactionFilter>> = Some(Box::new(Picky));
        run(list.clone(), Rules { filter, ..rules(false, below) })
    };
    assert_eq!(filtered(Below::unknown()).len(), 3);
    // The oldest goes; the third hides nothing that is gone, but changes what lies below it.
    let left: Vec<SeqNo> = filtered(Below::ranges(vec![])).iter().map(|v| v.1).collect();
    assert_eq!(left, [3, 2]);
}

#[test]
fn inputs_out_of_order_are_corruption() {
    struct Backwards(usize);
    impl InternalIterator for Backwards {
        fn seek(&mut self, _: crate::base::key::InternalKey<'_>) -> Result<()> {
            unreachable!()
        }
        fn seek_for_prev(&mut self, _: &[u8]) -> Result<()> {
            unreachable!()
        }
        fn first(&mut self) -> Result<()> {
            Ok(())
        }
        fn last(&mut self) -> Result<()> {
            unreachable!()
        }
        fn next(&mut self) -> Result<()> {
            self.0 += 1;
            Ok(())
        }
        fn prev(&mut self) -> Result<()> {
            unreachable!()
        }
        fn entry(&self) -> Option<(crate::base::key::InternalKey<'_>, &[u8])> {
            let key: &[u8] = [b"b", b"a"].get(self.0)?.as_slice();
            Some((crate::base::key::InternalKey::new(key, 1, ValueKind::Put), b""))
        }
    }
    let rules = rules(false, Below::unknown());
    let mut iter = CompactionIterator::new(Backwards(0), RangeTombstones::empty(), rules);
    assert_eq!(iter.step().unwrap_err().kind(), crate::base::error::ErrorKind::Corruption);
}
