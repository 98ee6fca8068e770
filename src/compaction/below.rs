//! What may lie below the outputs of a job: the question every tombstone asks before it dies.

use crate::base::key::KeyRange;

/// The bounds of all files that may hold *older* versions than a job's inputs.
///
/// Taken from the version that the job was picked from. It stays right while the job runs: data only
/// moves down; what is older than the inputs and overlaps them was either in a deeper level then, or
/// is an input, or is an input of another running job, and then the picker refuses.
#[derive(Clone, Debug)]
pub struct Below(State);

#[derive(Clone, Debug)]
enum State {
    Unknown,
    /// Sorted and disjoint: touching and overlapping ranges are joined.
    Ranges(Vec<KeyRange>),
}

impl Below {
    /// Anything may lie below. The safe answer.
    pub fn unknown() -> Below {
        Below(State::Unknown)
    }

    /// Only inside these ranges, in any order, can there be older versions.
    pub fn ranges(mut ranges: Vec<KeyRange>) -> Below {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        let mut joined: Vec<KeyRange> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| *end >= range.start) => {
                    last.end = match (last.end.take(), range.end) {
                        (Some(a), Some(b)) => Some(a.max(b)),
                        _ => None,
                    };
                }
                _ => joined.push(range),
            }
        }
        Below(State::Ranges(joined))
    }

    /// May there be an older version of this key? O(log files).
    pub fn may_hold(&self, user_key: &[u8]) -> bool {
        let State::Ranges(ranges) = &self.0 else { return true };
        let after = ranges.partition_point(|range| *range.start <= *user_key);
        after > 0 && ranges[after - 1].contains(user_key)
    }

    /// May there be an older version of any key from `start` to `end` (exclusive)? O(log files).
    pub fn may_hold_any(&self, start: &[u8], end: &[u8]) -> bool {
        let State::Ranges(ranges) = &self.0 else { return true };
        // Of the ranges that start before `end`, the last one reaches furthest.
        let after = ranges.partition_point(|range| *range.start < *end);
        after > 0 && ranges[after - 1].end.as_deref().is_none_or(|e| start < e)
    }

    /// Is nothing below, whatever the key?
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, State::Ranges(ranges) if ranges.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn agrees_with_a_search_of_all(list: Vec<(u8, Option<u8>)>, a: u8, b: u8) -> bool {
            let ranges: Vec<KeyRange> = list
                .iter()
                .map(|&(s, e)| KeyRange::new([s % 16], e.map(|e| vec![e % 16])))
                .collect();
            let below = Below::ranges(ranges.clone());
            let (a, b) = ([a % 16], [b % 16]);
            let asked = KeyRange::new(a, Some(b));
            let keys = (0..16).filter(|k| asked.contains(&[*k]));
            below.may_hold(&a) == ranges.iter().any(|r| r.contains(&a))
                && (asked.is_empty()
                    || below.may_hold_any(&a, &b)
                        // One-byte ends may leave a gap without a one-byte key: never less.
                        >= keys.clone().any(|k| ranges.iter().any(|r| r.contains(&[k]))))
                && (asked.is_empty()
                    || below.may_hold_any(&a, &b) == ranges.iter().any(|r| r.overlaps(&asked)))
        }
    }

    #[test]
    fn the_safe_answer() {
        assert!(Below::unknown().may_hold(b"x") && Below::unknown().may_hold_any(b"a", b"b"));
        assert!(!Below::ranges(vec![]).may_hold(b"x") && Below::ranges(vec![]).is_empty());
    }
}
