//! Which of many competitors comes first, when one of them changes at a time.
//!
//! A binary tree whose leaves are the competitors and whose inner nodes hold the winner of the two
//! below: a change is played out again from its leaf to the root. (D. Knuth, "The Art of Computer
//! Programming" 3, 5.4.1: the selection tree.)

/// One that competes: `rank` decides, and only where it is equal the competitors themselves do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrant {
    pub index: u16,
    pub rank: u64,
}

/// A selection tree.
#[derive(Debug)]
pub struct Tournament {
    /// The root at 1, the children of node `i` at `2 i` and `2 i + 1`, and the leaves in the second half.
    nodes: Vec<Option<Entrant>>,
}

impl Tournament {
    /// Nobody of `size` competes yet.
    pub fn new(size: usize) -> Tournament {
        Tournament { nodes: vec![None; 2 * size.next_power_of_two()] }
    }

    /// The winner.
    #[inline]
    pub fn first(&self) -> Option<Entrant> {
        self.nodes[1]
    }

    /// The one with this index has changed: it has another rank, or `None`, it does not compete.
    /// `is_before` says whether one index is before another of equal rank.
    #[inline]
    pub fn set(&mut self, index: u16, rank: Option<u64>, is_before: impl Fn(u16, u16) -> bool) {
        let mut node = self.nodes.len() / 2 + usize::from(index);
        self.nodes[node] = rank.map(|rank| Entrant { index, rank });
        while node > 1 {
            let winner = match (self.nodes[node & !1], self.nodes[node | 1]) {
                (Some(a), Some(b)) => {
                    let b_wins = b.rank < a.rank || b.rank == a.rank && is_before(b.index, a.index);
                    Some(if b_wins { b } else { a })
                }
                (a, b) => a.or(b),
            };
            node /= 2;
            self.nodes[node] = winner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn the_first_of_all_wins(size: u8, changes: Vec<(u8, Option<(u8, u8)>)>) -> bool {
            let size = usize::from(size % 20) + 1;
            let mut all: Vec<Option<(u8, u8)>> = vec![None; size];
            let mut tournament = Tournament::new(size);
            changes.iter().all(|(index, to)| {
                let index = usize::from(*index) % size;
                let to = to.map(|(rank, within)| (rank % 3, within));
                all[index] = to;
                let rank = to.map(|(rank, _)| u64::from(rank));
                tournament.set(index as u16, rank, |a, b| all[usize::from(a)] < all[usize::from(b)]);
                let found = tournament.first().and_then(|first| all[usize::from(first.index)]);
                found == all.iter().copied().flatten().min()
            })
        }
    }
}
