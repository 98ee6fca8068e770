//! What the running compactions of a family hold, so that the next one keeps off.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::base::id::FileNumber;
use crate::base::key::KeyRange;
use crate::compaction::picker::Compaction;
use crate::version::levels::Described;

/// The claims of one family's running compactions. Two of them never share an input, and never write
/// overlapping key ranges into one level from 1 on. The owner guards it with the lock under which it
/// picks and installs versions.
#[derive(Debug, Default)]
pub struct Busy {
    claims: BTreeMap<u64, Claim>,
    next: u64,
}

/// Names a claim of [`Busy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimId(u64);

#[derive(Debug)]
struct Claim {
    files: BTreeSet<FileNumber>,
    output_level: usize,
    range: KeyRange,
}

impl Busy {
    /// No compaction runs.
    #[cfg(test)]
    pub fn new() -> Busy {
        Busy::default()
    }

    /// Marks a compaction as running, from the pick until its edit is installed or it is given up.
    ///
    /// # Panics
    /// If it is not [allowed](Busy::allows).
    pub fn claim<F: Described>(&mut self, compaction: &Compaction<F>) -> ClaimId {
        assert!(self.allows(compaction), "two compactions must not share inputs or outputs");
        let id = self.next;
        self.next += 1;
        let files = compaction.files().map(|(_, file)| file.meta().number).collect();
        let (output_level, range) = (compaction.output_level, compaction.range.clone());
        self.claims.insert(id, Claim { files, output_level, range });
        ClaimId(id)
    }

    /// The compaction is over.
    pub fn release(&mut self, id: ClaimId) {
        let claim = self.claims.remove(&id.0);
        debug_assert!(claim.is_some(), "a claim is released once");
    }

    /// Is the file an input of a running compaction?
    pub fn holds(&self, file: FileNumber) -> bool {
        self.claims.values().any(|claim| claim.files.contains(&file))
    }

    /// May this compaction run beside those that run?
    pub fn allows<F: Described>(&self, compaction: &Compaction<F>) -> bool {
        let to = compaction.output_level;
        let crossing = |claim: &&Claim| {
            // A job from level 0 passes the empty levels above its output: nobody may be about to
            // write there. Outputs in level 0 may overlap.
            let passes = compaction.level == 0 && claim.output_level < to;
            claim.output_level > 0 && (claim.output_level == to || passes)
        };
        !compaction.files().any(|(_, file)| self.holds(file.meta().number))
            && !self.claims.values().filter(crossing).any(|c| c.range.overlaps(&compaction.range))
    }

    /// Does a running compaction read or write in this range?
    pub fn touches(&self, range: &KeyRange) -> bool {
        self.claims.values().any(|claim| claim.range.overlaps(range))
    }

    /// Number of running compactions.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Does none run?
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}
