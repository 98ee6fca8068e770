//! Blocks against sorted lists: walks, searches, damage, and their bytes pinned.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::key::{SEQNO_MAX, SeqNo};
use crate::iter::{InternalIterator, VecIterator, Version};
use crate::table::block_builder::BlockBuilder;
use crate::table::block_cursor::{Before, BlockCursor, TRAIL_BYTES_MAX};
use crate::table::tests::Versions;
use quickcheck::quickcheck;

fn build(versions: &[Version], restart_interval: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::new(restart_interval);
    for (key, seqno, kind, value) in versions {
        let key = InternalKey::new(key, *seqno, *kind);
        let bound = builder.bytes_with(key, value);
        builder.add(key, value);
        assert!(builder.bytes() <= bound);
    }
    let bytes = builder.bytes();
    let block = builder.finish().to_vec();
    assert_eq!(block.len(), bytes);
    block
}

fn parse(bytes: &[u8]) -> Result<Block> {
    Block::parse(Bytes::from(bytes), 7, Content::Data, |_, _| true)
}

/// Every way to walk and search a block, compared with a sorted list.
fn agrees(block: &Block, versions: &[Version], probe: &[u8], at: SeqNo) -> bool {
    let mut oracle = VecIterator::new(versions.to_vec());
    let mut cursor = BlockCursor::new();
    oracle.first().unwrap();
    let mut more = cursor.first(block).unwrap();
    while more {
        if cursor.entry(block) != oracle.entry() {
            return false;
        }
        oracle.next().unwrap();
        more = cursor.next(block).unwrap();
    }
    let target = InternalKey::seek(probe, at);
    oracle.seek(target).unwrap();
    let mut same = oracle.entry().is_some() == cursor.seek(block, target).unwrap();
    same &= oracle.entry() == cursor.entry(block);

    let mut got = Vec::new();
    let may_go_on = block
        .get(&mut Lookup::new(probe, at), &mut |seqno, kind, value| {
            got.push((probe.to_vec(), seqno, kind, value.to_vec()));
            true
        })
        .unwrap();
    let mine = |v: &&Version| v.0 == probe && v.1 <= at;
    let mut want = versions.iter().filter(mine).cloned().collect::<Vec<_>>();
    want.dedup_by_key(|v| v.1); // of two at one number only the first is lent
    same &= got == want;
    same &= may_go_on == versions.last().is_some_and(|v| v.0 == probe && v.1 > 0);

    for key in [None, Some(probe)] {
        let end = versions.partition_point(|v| key.is_none_or(|key| *v.0 < *key));
        let last = versions[..end].last().map(|v| v.0.as_slice());
        let newest = versions.iter().find(|v| Some(v.0.as_slice()) == last);
        let found = cursor.before(block, key).unwrap();
        same &= match (found, cursor.entry(block)) {
            (Before::Nothing, None) => newest.is_none(),
            (Before::Unsure, Some((k, _))) => Some(k.user_key) == last,
            (Before::Newest, Some((k, v))) => newest.is_some_and(|n| {
                (n.0.as_slice(), n.1, n.2, n.3.as_slice()) == (k.user_key, k.seqno, k.kind, v)
            }),
            _ => false,
        };
        // What follows is what follows in the list.
        if end % 2 == 0 {
            let _ = cursor.prev(block).unwrap();
        }
        if let Some((k, _)) = cursor.entry(block) {
            let (key, seqno) = (k.user_key.to_vec(), k.seqno);
            let here = versions.iter().position(|v| v.0 == key && v.1 == seqno).unwrap();
            cursor.next(block).unwrap();
            let next = cursor.entry(block).map(|(k, _)| (k.user_key, k.seqno));
            same &= next == versions.get(here + 1).map(|v| (v.0.as_slice(), v.1));
        }
    }
    same
}

quickcheck! {
    fn blocks_are_sorted_lists(versions: Versions, interval: u8, probe: Vec<u8>, at: u8) -> bool {
        let bytes = build(&versions.0, usize::from(interval % 32) + 1);
        let block = parse(&bytes).unwrap();
        let own = versions.0.iter().map(|v| (v.0.clone(), v.1));
        let shorter = versions.0.iter().map(|v| (v.0[..v.0.len() / 2].to_vec(), v.1));
        let longer = versions.0.iter().map(|v| ([&v.0[..], b"a"].concat(), v.1));
        own.chain(shorter)
            .chain(longer)
            .chain([(probe, u64::from(at))])
            .all(|(key, at)| agrees(&block, &versions.0, &key, at))
    }

    fn parsing_anything_returns(bytes: Vec<u8>) -> bool {
        match parse(&bytes) {
            Ok(block) => BlockCursor::new().first(&block).is_ok(),
            Err(e) => e.kind() == ErrorKind::Corruption && e.offset() == Some(7),
        }
    }

    fn damage_is_refused_or_still_a_sorted_list(
        versions: Versions, interval: u8, at: usize, xor: u8
    ) -> bool {
        let mut bytes = build(&versions.0, usize::from(interval % 32) + 1);
        let at = at % bytes.len();
        bytes[at] ^= xor;
        let Ok(block) = parse(&bytes) else { return true };
        let mut list: Vec<Version> = Vec::new();
        let mut cursor = BlockCursor::new();
        let mut more = cursor.first(&block).unwrap();
        while let Some((key, value)) = cursor.entry(&block).filter(|_| more) {
            let user_key = key.user_key.to_vec();
            list.push((user_key, key.seqno, key.kind, value.to_vec()));
            more = cursor.next(&block).unwrap();
        }
        let probes = list.iter().map(|v| (v.0.clone(), v.1)).collect::<Vec<_>>();
        list.is_sorted_by(|a, b| {
            InternalKey::new(&a.0, a.1, a.2) < InternalKey::new(&b.0, b.1, b.2)
        }) && probes.iter().all(|(key, at)| agrees(&block, &list, key, *at))
    }
}

#[test]
fn pinned() {
    let put = |key: &str, seqno| (key.into(), seqno, ValueKind::Put, b"v".to_vec());
    let bytes = build(&[put("abc", 2), put("abc", 1), put("abd", 3)], 2);
    let want = b"\0\x03\x01\x12abc\x02v\
                 \x03\0\x01\x12\x01v\
                 \0\x03\x01\x12abd\x03v\
                 \0\0\0\0\x0f\0\0\0\x02\0\0\0";
    assert_eq!(bytes, want);
}

#[test]
fn sequence_numbers_take_the_bytes_they_need() {
    let mut seqnos: Vec<SeqNo> = (0..56).flat_map(|bit| [1 << bit, (1 << bit) - 1]).collect();
    seqnos.push(SEQNO_MAX);
    for &seqno in &seqnos {
        let versions = vec![(b"k".to_vec(), seqno, ValueKind::Put, Vec::new())];
        let bytes = build(&versions, 16);
        let needed = (0..8).find(|&n| seqno >> (8 * n) == 0).unwrap();
        assert_eq!(bytes.len(), 4 + 1 + needed + 8);
        assert!(agrees(&parse(&bytes).unwrap(), &versions, b"k", seqno));
    }
    seqnos.sort_unstable_by(|a, b| b.cmp(a));
    seqnos.dedup();
    let version = |&seqno: &SeqNo| (b"k".to_vec(), seqno, ValueKind::Merge, b"v".to_vec());
    let versions: Vec<Version> = seqnos.iter().map(version).collect();
    let block = parse(&build(&versions, 4)).unwrap();
    seqnos.iter().for_each(|&at| assert!(agrees(&block, &versions, b"k", at)));

    // One that is longer than it must be, and one of eight bytes.
    let tail = b"\0\0\0\0\x01\0\0\0";
    for entry in [&b"\0\x01\0\x22k\x07\0"[..], b"\0\x01\0\x12k\0", b"\0\x01\0\x82kaaaaaaaa"] {
        let bytes = [entry, tail].concat();
        assert_eq!(parse(&bytes).unwrap_err().kind(), ErrorKind::Corruption);
    }
}

/// From the end to the beginning, as a table's cursor does within a block.
fn backward(block: &Block) -> (Vec<Vec<u8>>, usize) {
    let mut cursor = BlockCursor::new();
    let (mut keys, mut trail) = (Vec::new(), 0);
    let mut found = cursor.before(block, None).unwrap();
    while found != Before::Nothing {
        keys.push(cursor.last_user_key().to_vec());
        trail = trail.max(cursor.trail_bytes());
        found = match cursor.prev(block).unwrap() {
            Some(found) => found,
            None => cursor.before(block, Some(&keys[keys.len() - 1])).unwrap(),
        };
    }
    (keys, trail)
}

#[test]
fn going_back_over_long_keys_keeps_few_of_them() {
    let key = |i: u8| [&[b'k'; 60_000][..], &[i / 2]].concat();
    let put = |i: u8| (key(i), u64::from(200 - i), ValueKind::Put, vec![i]);
    let list: Vec<Version> = (0..60).map(put).collect();
    let want: Vec<_> = (0..60).step_by(2).rev().map(key).collect();
    for interval in [1, 2, 3, 7, 100] {
        let (keys, trail) = backward(&parse(&build(&list, interval)).unwrap());
        assert!(keys == want && trail <= TRAIL_BYTES_MAX + 2 * KEY_BYTES_MAX, "{interval}");
    }
}

#[test]
fn a_block_changed_underneath_is_never_a_panic() {
    let list: Vec<Version> =
        (0..40u8).map(|i| (vec![i / 8, i % 8], 9, ValueKind::Put, vec![i; 3])).collect();
    let good = build(&list, 4);
    let sound = parse(&good).unwrap();
    for at in 0..good.len() {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            // As if checked, then changed: only the entries and restarts, not the lengths.
            let block = Block { bytes: Bytes::from(bytes), ..sound };
            let mut cursor = BlockCursor::new();
            let mut more = cursor.first(&block);
            while let Ok(true) = more {
                cursor.entry(&block);
                more = cursor.next(&block);
            }
            for v in &list {
                let _ = block.get(&mut Lookup::new(&v.0, 9), &mut |_, _, _| true);
                let _ = cursor.before(&block, Some(&v.0));
                while let Ok(Some(_)) = cursor.prev(&block) {}
                let _ = cursor.seek(&block, InternalKey::seek(&v.0, 9));
            }
        }
    }
}
