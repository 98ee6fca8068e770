//! Column families: what the database keeps of each, and the handle that callers hold.

use std::fmt;

use crate::base::id::FamilyId;
use crate::base::sync::{Arc, AtomicBool, Ordering, RwLock};
use crate::db::holders::HolderCounts;
use crate::db::options::ColumnFamilyOptions;
use crate::db::super_version::Cell;

/// What the database keeps of one family.
pub(in crate::db) struct Family {
    /// Constant.
    pub id: FamilyId,
    /// Constant.
    pub name: String,
    /// The opening of the database it belongs to; handles of another opening are refused. Constant.
    pub instance: u64,
    /// Replaced when the family is opened with its components.
    options: RwLock<Arc<ColumnFamilyOptions>>,
    /// What readers see.
    pub cell: Cell,
    /// Who holds what they saw.
    pub holders: HolderCounts,
    /// Set by `drop_column_family`; taken back if that fails.
    dropped: AtomicBool,
}

impl Family {
    pub fn new(
        id: FamilyId,
        name: String,
        instance: u64,
        options: ColumnFamilyOptions,
        cell: Cell,
    ) -> Family {
        let options = RwLock::new(Arc::new(options));
        let (holders, dropped) = (HolderCounts::default(), AtomicBool::new(false));
        Family { id, name, instance, options, cell, holders, dropped }
    }

    pub fn options(&self) -> Arc<ColumnFamilyOptions> {
        Arc::clone(&self.options.read())
    }

    /// [`ColumnFamilyOptions::l0_scan_bytes`].
    pub fn l0_scan_bytes(&self) -> u64 {
        self.options.read().l0_scan_bytes
    }

    pub fn set_options(&self, options: ColumnFamilyOptions) {
        *self.options.write() = Arc::new(options);
    }

    #[inline]
    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub fn set_dropped(&self, dropped: bool) {
        self.dropped.store(dropped, Ordering::Release);
    }
}

/// A handle on a column family: a key space of its own inside a database, with its own options.
///
/// Cheap to clone. It does not keep the database open, and is of no use with another one.
#[derive(Clone)]
pub struct ColumnFamily(pub(in crate::db) Arc<Family>);

impl ColumnFamily {
    /// The family's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The family's number: never used again in its database, even if the family is dropped.
    pub fn id(&self) -> FamilyId {
        self.0.id
    }
}

impl From<&ColumnFamily> for FamilyId {
    fn from(family: &ColumnFamily) -> FamilyId {
        family.id()
    }
}

impl fmt::Debug for ColumnFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColumnFamily({:?} = {})", self.name(), self.id())
    }
}
