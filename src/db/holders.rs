//! Memtables that are flushed and still in memory, and who holds them there.
//!
//! A scan, and a reader between two reads, hold the memtables that they began with. No flush frees
//! those: a writer that would wait for memory must be told so instead.

use std::collections::BTreeMap;

use crate::base::id::FamilyId;
use crate::base::sync::{Arc, Mutex, Weak};
use crate::db::column_family::Family;
use crate::memtable::MemTable;

/// What holds memtables for longer than a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::db) enum Holder {
    /// A [`Reader`](crate::db::Reader) that was not released since its last read.
    Reader,
    /// A [`Scan`](crate::db::scan::Scan).
    Scan,
}

/// So many entries are kept although they count nobody: scans come and go.
const KEPT: usize = 64;

/// The holders of a database, and what they may hold. A leaf lock.
#[derive(Default)]
pub(in crate::db) struct Holders(Mutex<State>);

#[derive(Default)]
struct State {
    /// How many hold something of a family.
    holders: BTreeMap<(FamilyId, Holder), usize>,
    /// Memtables that tables have replaced, with the number and the name of their family.
    flushed: Vec<(FamilyId, String, Weak<MemTable>)>,
}

/// One holder; it holds until this is dropped.
pub(in crate::db) struct Held {
    holders: Arc<Holders>,
    family: FamilyId,
    holder: Holder,
}

impl Holders {
    /// Enters a holder of the memtables that a family has now.
    pub fn hold(self: &Arc<Self>, family: FamilyId, holder: Holder) -> Held {
        *self.0.lock().holders.entry((family, holder)).or_default() += 1;
        Held { holders: Arc::clone(self), family, holder }
    }

    /// A table has replaced this memtable: it is in memory only for those who hold it.
    pub fn flushed(&self, family: &Family, table: &Arc<MemTable>) {
        let mut state = self.0.lock();
        state.flushed.retain(|(_, _, table)| table.strong_count() > 0);
        state.flushed.push((family.id, family.name.clone(), Arc::downgrade(table)));
    }

    /// Says who holds flushed memtables, if letting go of them would free at least `wanted` bytes.
    /// What a read under way holds will be free without anybody's doing, and does not count.
    pub fn blame(&self, wanted: usize) -> Option<String> {
        let state = self.0.lock();
        let held = |family: FamilyId| {
            [Holder::Reader, Holder::Scan]
                .map(|holder| state.holders.get(&(family, holder)).copied().unwrap_or(0))
        };
        let mut bytes: BTreeMap<(FamilyId, &str), usize> = BTreeMap::new();
        for (family, name, table) in &state.flushed {
            if let Some(table) = table.upgrade().filter(|_| held(*family) != [0, 0]) {
                *bytes.entry((*family, name)).or_default() += table.bytes();
            }
        }
        if bytes.values().sum::<usize>() < wanted.max(1) {
            return None;
        }
        let say = |((family, name), bytes): ((FamilyId, &str), usize)| {
            let [readers, scans] = held(family);
            format!(
                "{bytes} bytes of flushed memtables of family {name:?}, held by {scans} open scans \
                 and {readers} resting readers"
            )
        };
        Some(bytes.into_iter().map(say).collect::<Vec<_>>().join("; "))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.holders.0.lock();
        let key = (self.family, self.holder);
        let count = state.holders.get_mut(&key).expect("a holder is entered");
        *count -= 1;
        if *count == 0 && state.holders.len() > KEPT {
            state.holders.remove(&key);
        }
    }
}
