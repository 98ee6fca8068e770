//! Migration: the values of a state are written anew, where the new serializer asks for it.
//!
//! It is done key group by key group, with the group's metadata in the same batch, so that metadata
//! always say what the values are. Everything is read once before anything is written: what cannot be
//! read is found while nothing has changed. A group that is too large for one batch is marked in its
//! metadata until it is done; if the process dies in between, with the log on, the backend refuses to
//! open. (With the log off it does so anyway.)

use crate::ColumnFamily;
use crate::Db;
use crate::WriteBatch;
use crate::WriteOptions;
use crate::base::error::Result;
use crate::base::key::successor;
use crate::state::key_group::KeyGroupRange;

/// Bytes of a batch of migrated values, about.
const BATCH_BYTES: usize = 4 << 20;

/// What becomes of a stored value: a new one, and operands to be merged to it.
pub type Rewrite<'a> = dyn Fn(&[u8]) -> Result<Vec<Vec<u8>>> + 'a;

/// Writes all values of a state in one key group anew. `mark` adds the group's metadata to a batch,
/// for when the group is done, or not yet.
///
/// # Errors
/// Those of `rewrite`, reads and writes.
pub fn migrate(
    db: &Db,
    family: &ColumnFamily,
    group: u16,
    rewrite: &Rewrite<'_>,
    mark: impl Fn(&mut WriteBatch, bool),
) -> Result<()> {
    let mut range = KeyGroupRange::new(group, group)?.key_range();
    let mut batch = WriteBatch::new();
    let mut marked = false;
    loop {
        // Not kept while writing: it would keep memory from being freed.
        let mut scan = db.scan_range(family, range.clone(), None)?;
        let mut more = scan.next()?;
        while more && batch.bytes() < BATCH_BYTES {
            for (i, value) in rewrite(scan.value())?.iter().enumerate() {
                match i {
                    0 => batch.put(family, scan.key(), value),
                    _ => batch.merge(family, scan.key(), value),
                }
            }
            range.start = successor(scan.key());
            more = scan.next()?;
        }
        if !more || !marked {
            mark(&mut batch, !more);
            marked = true;
        }
        db.write(&batch, WriteOptions::default())?;
        if !more {
            return Ok(());
        }
        batch.clear();
    }
}

/// Reads all values of a state in one key group as [`migrate`] does, and writes nothing.
///
/// # Errors
/// Those of `rewrite` and of reads.
pub fn check(db: &Db, family: &ColumnFamily, group: u16, rewrite: &Rewrite<'_>) -> Result<()> {
    let range = KeyGroupRange::new(group, group)?.key_range();
    let mut scan = db.scan_range(family, range, None)?;
    while scan.next()? {
        rewrite(scan.value())?;
    }
    Ok(())
}
