//! The order against a set of keys, the encoding of heads, and gaps.

use super::*;
use crate::base::key::{InternalKey, ValueKind};
use quickcheck::quickcheck;
use std::collections::BTreeSet;

quickcheck! {
    /// Keys that share much, put into order in portions.
    fn in_order_and_found(prefix: Vec<u8>, rests: Vec<(u8, Vec<u8>)>, each: u8) -> bool {
        let (mut writer, arena) = Arena::new();
        let mut order = Order::default();
        let mut keys = BTreeSet::new();
        for (i, (share, rest)) in rests.into_iter().enumerate() {
            let share = prefix.len().saturating_sub(usize::from(share % 4) * 7);
            let zeros = vec![0; i * 5 % 41];
            let rest = rest.iter().map(|byte| byte % 3).collect();
            let key = [prefix[..share].to_vec(), zeros, rest].concat();
            if keys.insert(key.clone()) {
                writer.push(InternalKey::new(&key, 1, ValueKind::Put), b"", None, None);
            }
            if i % (usize::from(each) + 1) == 0 {
                order.catch_up(&arena, false, None);
                check(&arena, &order, &keys);
            }
        }
        order.catch_up(&arena, true, None);
        check(&arena, &order, &keys);
        order.runs().len() <= 1
    }
}

quickcheck! {
    /// Keys of few bytes, and those that come next.
    fn encoded_in_order(a: Vec<u8>, b: Vec<u8>, zeros: u8) -> bool {
        let few = |key: Vec<u8>| key.iter().map(|byte| byte % 3).collect::<Vec<u8>>();
        let zeros = vec![0; usize::from(zeros)];
        let a = [few(a), zeros.clone()].concat();
        let mut keys = vec![few(b), a.clone(), [&a[..], &[0]].concat(), [&a[..], &[1]].concat()];
        keys.extend((0..=a.len()).map(|n| a[..n].to_vec()));
        keys.sort();
        keys.is_sorted_by_key(|key| encode(key))
    }

    fn zeros_are_counted(zeros: u8, rest: Vec<u8>) -> bool {
        let key = [vec![0; usize::from(zeros)], rest].concat();
        let all = key.iter().take_while(|&&byte| byte == 0).count();
        leading_zeros(&key) == all.min(ZEROS_MAX)
    }

    fn gaps_hold_what_is_gone(places: Vec<(u8, u8, u8)>) -> bool {
        let (mut writer, arena) = Arena::new();
        let key = |k: u8| writer.push(InternalKey::new(&[k], 1, ValueKind::Put), b"", None, None);
        let heads = (0..=255).map(key).map(|offset| Head::new(&[], 0, offset));
        let run = Run::new(heads.collect(), &Arc::default());
        let mut gone = [false; 256];
        for (from, len, more) in places {
            let (from, len, more) = (usize::from(from), usize::from(len), usize::from(more));
            let places = from..(from + len).min(256);
            gone[more..(more + 20).min(256)].fill(true);
            let is_gone = |head: &Head| gone[usize::from(arena.entry(head.offset).key()[0])];
            run.leave_gaps(places.clone(), is_gone);
            for at in (0..=256).step_by(if cfg!(miri) { 32 } else { 1 }) {
                let (back, over) = (run.back_over_gaps(at), run.over_gaps(at));
                assert!(back <= at && over >= at && gone[back..over].iter().all(|gone| *gone));
            }
        }
        true
    }
}

fn check(arena: &Arena, order: &Order, keys: &BTreeSet<Vec<u8>>) {
    let key = |head: &Head| arena.entry(head.offset).key();
    let total: usize = order.runs().iter().map(|run| run.heads().len()).sum();
    assert_eq!(total, keys.len());
    for run in order.runs() {
        assert!(run.heads().is_sorted_by(|a, b| key(a) < key(b) && compare(arena, a, b).is_lt()));
        for wanted in keys.iter().chain([&vec![], &vec![0], &vec![255; 3]]) {
            let expected = run.heads().iter().filter(|head| key(head) < &wanted[..]).count();
            assert_eq!(run.lower_bound(arena, wanted), expected);
        }
    }
}
