//! Writes to one family, by who does not hold the database.

use crate::base::error::Result;
use crate::base::key::ValueKind;
use crate::base::sync::Arc;
use crate::db::column_family::ColumnFamily;
use crate::db::core::Core;
use crate::db::update::Update;

/// Writes one family again and again, without its [`Db`](crate::Db) being at hand: made by
/// [`Db::writer`](crate::Db::writer). What is written is the same, and so are the errors; after the
/// database is closed or dropped, all writes get `Halted`.
///
/// Where a weak reference to the database would have to be made strong for each write, with two locked
/// instructions, this has none. A write that meets the closing is kept or refused.
#[derive(Clone)]
pub struct Writer {
    core: Arc<Core>,
    family: ColumnFamily,
}

impl Writer {
    pub(in crate::db) fn new(core: Arc<Core>, family: &ColumnFamily) -> Writer {
        Writer { core, family: family.clone() }
    }

    /// As [`Db::put`](crate::Db::put), and with its errors.
    #[inline]
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.core.write_one(&self.family, ValueKind::Put, key, value)
    }

    /// As [`Db::delete`](crate::Db::delete), and with its errors.
    #[inline]
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.core.write_one(&self.family, ValueKind::Delete, key, &[])
    }

    /// As [`Db::merge`](crate::Db::merge), and with its errors.
    #[inline]
    pub fn merge(&self, key: &[u8], operand: &[u8]) -> Result<()> {
        self.core.write_one(&self.family, ValueKind::Merge, key, operand)
    }

    /// As [`Db::update`](crate::Db::update), and with its errors.
    #[inline]
    pub fn update(
        &self,
        key: &[u8],
        f: impl FnMut(Option<&[u8]>, &mut Vec<u8>) -> Update,
    ) -> Result<()> {
        self.core.update_one(&self.family, key, f)
    }
}
