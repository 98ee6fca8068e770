//! Keys and values: the database is opened as it was left, and closed in order.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use alluvium::Background;
use alluvium::ColumnFamily;
use alluvium::ColumnFamilyOptions;
use alluvium::Db;
use alluvium::Env;
use alluvium::Error;
use alluvium::ErrorKind;
use alluvium::KeyRange;
use alluvium::ListAppend;
use alluvium::MemoryBudget;
use alluvium::MergeOperator;
use alluvium::Options;
use alluvium::Scan;
use alluvium::WriteOptions;
use alluvium::inspect::ClosedDb;
use alluvium::inspect::ClosedFamily;

use crate::Failure;
use crate::Outcome;
use crate::args::At;
use crate::args::Range;
use crate::text::Shown;

/// Memory for memtables and blocks.
const MEMORY_BYTES: usize = 256 << 20;

/// Nothing runs in the background: a compaction would miss the filters of the application.
fn env() -> Env {
    Env::new(MemoryBudget::new(MEMORY_BYTES)).with_background(Background::Inline)
}

/// How a database was left.
struct Left {
    log: bool,
    /// The checkpoint that its state equals.
    checkpoint: u64,
    families: Vec<ClosedFamily>,
}

fn look(dir: &Path) -> alluvium::Result<Left> {
    let db = ClosedDb::open(env().fs(), dir)?;
    Ok(Left { log: db.log(), checkpoint: db.closed_at().unwrap_or(0), families: db.families()? })
}

/// Opens an existing database and an existing family, both as they were left.
fn open(at: &At, left: &Left) -> alluvium::Result<(Db, ColumnFamily)> {
    let Some(family) = left.families.iter().find(|family| family.name == at.family) else {
        let names: Vec<_> = left.families.iter().map(|family| family.name.as_str()).collect();
        let text = format!("no family {:?}; there are {names:?}", at.family);
        return Err(Error::new(ErrorKind::NotFound, text).in_file(&at.dir));
    };
    let options = Options { create_if_missing: false, log: left.log, ..Options::default() };
    let db = Db::open(&at.dir, options, env())?;
    let mut options = family.options.clone();
    options.merge_operator = family.merge_operator.as_deref().map(operator);
    let family = db.column_family(&at.family, options)?;
    Ok((db, family))
}

/// Reads, and leaves the database as it was, but for a new epoch and a log that is flushed.
fn read(at: &At, f: impl FnOnce(&Db, &ColumnFamily) -> Outcome) -> Outcome {
    let left = look(&at.dir)?;
    let (db, family) = open(at, &left)?;
    let done = f(&db, &family);
    drop(family);
    let closed = db.close_at(left.checkpoint);
    done?;
    Ok(closed?)
}

pub fn put(at: &At, key: &[u8], value: &[u8]) -> Outcome {
    let (log, db, family) = match look(&at.dir) {
        Ok(left) if left.families.iter().any(|family| family.name == at.family) => {
            let (db, family) = open(at, &left)?;
            (left.log, db, family)
        }
        Ok(left) => {
            let options = Options { create_if_missing: false, log: left.log, ..Options::default() };
            let db = Db::open(&at.dir, options, env())?;
            let family = db.column_family(&at.family, ColumnFamilyOptions::default())?;
            (left.log, db, family)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let db = Db::open(&at.dir, Options::default(), env())?;
            let family = db.column_family(&at.family, ColumnFamilyOptions::default())?;
            (true, db, family)
        }
        Err(e) => return Err(e.into()),
    };
    let mut batch = alluvium::WriteBatch::new();
    batch.put(family.id(), key, value);
    db.write(&batch, WriteOptions { sync: log })?;
    Ok(db.close()?)
}

pub fn delete(at: &At, key: &[u8]) -> Outcome {
    let left = look(&at.dir)?;
    let (db, family) = open(at, &left)?;
    let mut batch = alluvium::WriteBatch::new();
    batch.delete(family.id(), key);
    db.write(&batch, WriteOptions { sync: left.log })?;
    Ok(db.close()?)
}

pub fn get(at: &At, key: &[u8], hex: bool, out: &mut dyn Write) -> Outcome {
    read(at, |db, family| match db.get(family, key)? {
        Some(value) => Ok(writeln!(out, "{}", Shown { bytes: &value, hex })?),
        None => {
            let text = format!("no key {} in family {:?}", Shown { bytes: key, hex }, at.family);
            Err(Error::new(ErrorKind::NotFound, text).in_file(&at.dir).into())
        }
    })
}

pub fn scan(at: &At, range: &Range, hex: bool, out: &mut dyn Write) -> Outcome {
    let keys = match &range.prefix {
        Some(prefix) => KeyRange::prefix(&prefix.0),
        None => {
            let start = range.from.as_ref().map(|key| key.0.clone()).unwrap_or_default();
            KeyRange::new(start, range.to.as_ref().map(|key| key.0.clone()))
        }
    };
    read(at, |db, family| {
        let mut scan = db.scan_range(family, keys, None)?;
        let step = if range.reverse { Scan::prev } else { Scan::next };
        if range.reverse {
            scan.to_end();
        }
        let mut left = range.limit.unwrap_or(u64::MAX);
        while left > 0 && step(&mut scan)? {
            let key = Shown { bytes: scan.key(), hex };
            let value = Shown { bytes: scan.value(), hex };
            writeln!(out, "{key}\t{value}")?;
            left -= 1;
        }
        Ok(())
    })
}

pub fn salvage(dir: &Path, new: &Path, up_to: Option<u64>, out: &mut dyn Write) -> Outcome {
    let saved = Db::salvage(dir, new, up_to, env())?;
    saved.dropped.iter().for_each(|e| eprintln!("alluvium: {e}"));
    for (family, range) in &saved.lost {
        let start = Shown { bytes: &range.start, hex: false };
        match &range.end {
            Some(end) => {
                let end = Shown { bytes: end, hex: false };
                writeln!(out, "lost: family {family:?}, keys from {start} to {end}")?;
            }
            None => writeln!(out, "lost: family {family:?}, keys from {start} on")?,
        }
    }
    let (tables, entries, batches) = (saved.tables, saved.entries, saved.batches);
    writeln!(out, "read: {entries} entries of {tables} tables, {batches} batches of the log")?;
    let seqno = saved.seqno;
    if saved.doubts.is_empty() {
        writeln!(out, "salvaged: the database as it was at sequence number {seqno}")?;
        return Ok(());
    }
    writeln!(out, "salvaged: everything up to sequence number {seqno} that is not lost")?;
    saved.doubts.iter().try_for_each(|doubt| writeln!(out, "not certain: {doubt}"))?;
    out.flush()?;
    Err(Failure::Told)
}

/// The merge operator of this name, or one that says that it is not known when it is needed.
/// Operands that it cannot merge stay as they are.
fn operator(name: &str) -> Arc<dyn MergeOperator> {
    if name == ListAppend.name() {
        return Arc::new(ListAppend);
    }
    Arc::new(UnknownOperator(name.to_owned()))
}

struct UnknownOperator(String);

impl MergeOperator for UnknownOperator {
    fn name(&self) -> &str {
        &self.0
    }

    fn merge(
        &self,
        key: &[u8],
        _base: Option<&[u8]>,
        operands: &[&[u8]],
        _out: &mut Vec<u8>,
    ) -> alluvium::Result<()> {
        let (key, count, name) = (Shown { bytes: key, hex: false }, operands.len(), &self.0);
        let text = format!("key {key} has {count} merge operands of {name:?}, not known here");
        Err(Error::new(ErrorKind::Incompatible, text))
    }
}
