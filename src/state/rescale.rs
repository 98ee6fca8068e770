//! Another parallelism: which instance takes which key groups, and from which old part.
//!
//! The data itself is not touched: restoring a part is a clip to a range of key groups.

use crate::base::error::Error;
use crate::base::error::Result;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::key_group_range;

/// The key groups of every operator instance, in the order of instances, as Flink gives them.
///
/// # Errors
/// `InvalidArgument` as [`key_group_range`].
pub fn key_group_ranges(max_parallelism: u32, parallelism: u32) -> Result<Vec<KeyGroupRange>> {
    let first = key_group_range(max_parallelism, parallelism, 0);
    let others = (1..parallelism).map(|i| key_group_range(max_parallelism, parallelism, i));
    std::iter::once(first).chain(others).collect()
}

/// What a new instance takes from one old part: Flink's intersections of a state handle's key groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Index of the part among the old ones.
    pub part: usize,
    /// The groups that it takes from there: clip the part to their
    /// [`key_range`](KeyGroupRange::key_range).
    pub groups: KeyGroupRange,
}

/// Where the key groups `wanted` are to be taken from, given those of each old part: the shares in
/// ascending order of their groups. They do not overlap, and together they are `wanted`.
///
/// # Errors
/// `Incompatible` if a wanted group is in no part or in two: the parts are not those of one job, or
/// the job had fewer key groups.
pub fn shares(parts: &[KeyGroupRange], wanted: KeyGroupRange) -> Result<Vec<Share>> {
    let share = |(part, groups): (usize, &KeyGroupRange)| {
        groups.intersect(wanted).map(|groups| Share { part, groups })
    };
    let mut shares: Vec<Share> = parts.iter().enumerate().filter_map(share).collect();
    shares.sort_by_key(|share| share.groups.start());
    let mut next = wanted.start();
    for share in &shares {
        let start = share.groups.start();
        if start != next {
            let (group, parts) =
                if start > next { (next, "no part") } else { (start, "two parts") };
            return Err(Error::incompatible(format!("key group {group} is in {parts}")));
        }
        next = share.groups.end() + 1; // groups are below 1 << 15
    }
    if next <= wanted.end() {
        return Err(Error::incompatible(format!("key group {next} is in no part")));
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ErrorKind;
    use quickcheck::quickcheck;

    fn range(start: u16, end: u16) -> KeyGroupRange {
        KeyGroupRange::new(start, end).unwrap()
    }

    quickcheck! {
        fn every_group_is_taken_once(groups: u16, old: u16, new: u16) -> bool {
            let groups = u32::from(groups % 300) + 1;
            let (old, new) = (u32::from(old) % groups + 1, u32::from(new) % groups + 1);
            let parts = key_group_ranges(groups, old).unwrap();
            let mut taken = Vec::new();
            for wanted in key_group_ranges(groups, new).unwrap() {
                for share in shares(&parts, wanted).unwrap() {
                    assert_eq!(share.groups.intersect(parts[share.part]), Some(share.groups));
                    taken.extend(share.groups.iter());
                }
            }
            taken == (0..groups as u16).collect::<Vec<_>>()
        }
    }

    #[test]
    fn shares_of_parts_in_any_order() {
        let parts = [range(40, 49), range(0, 9), range(10, 39)];
        let got = shares(&parts, range(5, 40)).unwrap();
        let want = [(1, range(5, 9)), (2, range(10, 39)), (0, range(40, 40))];
        assert_eq!(got, want.map(|(part, groups)| Share { part, groups }));
    }

    #[test]
    fn gaps_and_overlaps_are_refused() {
        for (parts, wanted, text) in [
            (&[range(0, 9), range(20, 29)][..], range(5, 25), "group 10 is in no part"),
            (&[range(0, 9), range(5, 29)], range(5, 25), "group 5 is in two parts"),
            (&[range(0, 9)], range(5, 10), "group 10 is in no part"),
            (&[], range(3, 4), "group 3 is in no part"),
        ] {
            let e = shares(parts, wanted).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Incompatible);
            assert!(e.to_string().contains(text), "{e}");
        }
        assert_eq!(key_group_ranges(4, 0).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(key_group_ranges(4, 5).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
