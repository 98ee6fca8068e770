//! A whole database that nobody has open: its state as the manifest tells it, and a check of every
//! byte. Nothing is written, not even a new epoch.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;

use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::format::FileKind;
use crate::base::id::FamilyId;
use crate::base::id::FileNumber;
use crate::base::limits::BATCH_BYTES_MAX;
use crate::base::limits::LEVELS;
use crate::base::sync::Arc;
use crate::base::sync::unbounded;
use crate::batch::BatchReader;
use crate::cache::block_cache::BlockCache;
use crate::cache::budget::MemoryBudget;
use crate::db::options::ColumnFamilyOptions;
use crate::fs::FileLock;
use crate::fs::Fs;
use crate::fs::Listed;
use crate::inspect::log::hole;
use crate::log::LogPosition;
use crate::log::LogReader;
use crate::log::SegmentFile;
use crate::log::SegmentItem;
use crate::log::decode_segment;
use crate::log::format::SegmentHeader;
use crate::log::recovery::load;
use crate::version::file::TableFile;
use crate::version::file::TableOpener;
use crate::version::manifest::recover;
use crate::version::meta::FileMeta;
use crate::version::names::FileName;
use crate::version::state::State;

/// Memory for the tables that are being checked, one at a time.
const CHECK_BYTES: usize = 64 << 20;

/// A database that nobody has open. It stays locked, and as it is, until this is dropped.
pub struct ClosedDb {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    listing: Vec<Listed>,
    state: State,
    manifest: FileNumber,
    _lock: Box<dyn FileLock>,
}

/// A column family as the manifest records it.
#[derive(Clone, Debug)]
pub struct ClosedFamily {
    /// Its name.
    pub name: String,
    /// The name of its merge operator.
    pub merge_operator: Option<String>,
    /// The name of its compaction filter.
    pub compaction_filter: Option<String>,
    /// Its settings as they are recorded, without components: opening the family with them, and the
    /// merge operator of that name, changes nothing.
    pub options: ColumnFamilyOptions,
}

/// What [`ClosedDb::verify`] has read, and what is wrong.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Tables read.
    pub tables: u64,
    /// Log segments read.
    pub logs: u64,
    /// Bytes of all files read.
    pub bytes: u64,
    /// Everything found, each with file and offset. Empty: every byte is what was written.
    pub damage: Vec<Error>,
}

impl ClosedDb {
    /// Locks the directory and reads its manifest.
    ///
    /// # Errors
    /// `NotFound`: no directory, or no database in it. `Busy`: another handle has it. `Corruption`:
    /// `CURRENT` or the manifest is damaged. `Unsupported`: a newer build wrote it.
    pub fn open(fs: &Arc<dyn Fs>, dir: &Path) -> Result<ClosedDb> {
        let lock = fs.lock(dir)?;
        let listing = fs.list(dir)?;
        let recovered = recover(fs, dir, listing.clone())?;
        let Some(manifest) = recovered.manifest else {
            return Err(Error::not_found("there is no database here").in_file(dir));
        };
        let state = recovered.state;
        let (fs, dir) = (Arc::clone(fs), dir.to_owned());
        Ok(ClosedDb { fs, dir, listing, state, manifest, _lock: lock })
    }

    /// Does it write a log? What [`Options::log`](crate::Options::log) has to be.
    pub fn log(&self) -> bool {
        self.state.header.wal_mode.unwrap_or(true)
    }

    /// If it was closed in order: the id of the checkpoint that its state equals, or 0.
    pub fn closed_at(&self) -> Option<u64> {
        self.state.header.clean.map(|clean| clean.checkpoint_id)
    }

    /// Its column families, in the order of their creation.
    ///
    /// # Errors
    /// `Corruption` or `Unsupported` if recorded settings cannot be used.
    pub fn families(&self) -> Result<Vec<ClosedFamily>> {
        let records = self.state.families.values().map(|family| &family.record);
        let families = records.map(|record| {
            Ok(ClosedFamily {
                name: record.name.clone(),
                merge_operator: record.merge_operator.clone(),
                compaction_filter: record.compaction_filter.clone(),
                options: ColumnFamilyOptions::decode(&record.options)?,
            })
        });
        families.collect()
    }

    /// Reads every byte of every table and of the log, and checks all that can be checked; `CURRENT`
    /// and the manifest were read before. Goes on behind damage. `progress` gets the bytes read so far
    /// and the bytes there are, before each file and at the end.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Verified {
        let logs = self.logs();
        let tables: u64 = self.state.tables().map(|(_, _, meta)| meta.len).sum();
        let total = tables + logs.iter().map(|log| log.len).sum::<u64>() + self.manifest_bytes();
        let mut found = Verified { bytes: self.manifest_bytes(), ..Verified::default() };
        let opener = self.opener();
        for (family, level, meta) in self.state.tables() {
            progress(found.bytes, total);
            let table = TableFile::new(Arc::clone(meta), Arc::clone(&opener));
            let checked = table.table().and_then(|table| table.verify(Some(meta.sums())));
            if let Err(e) = checked {
                found.damage.push(self.of_family(family, level, &e));
            }
            found.tables += 1;
            found.bytes += meta.len;
        }
        progress(found.bytes, total);
        self.verify_logs(&logs, &mut found);
        found.logs = logs.len() as u64;
        found.bytes += logs.iter().map(|log| log.len).sum::<u64>();
        progress(found.bytes, total);
        found
    }

    fn of_family(&self, family: FamilyId, level: usize, e: &Error) -> Error {
        let name = self.state.families.get(&family).map_or("?", |found| &found.record.name);
        Error::because(e.kind(), format!("family {name:?}, level {level}"), e)
    }

    fn opener(&self) -> Arc<TableOpener> {
        let budget = MemoryBudget::new(CHECK_BYTES);
        Arc::new(TableOpener {
            fs: Arc::clone(&self.fs),
            dir: self.dir.clone(),
            cache: BlockCache::new(&budget, CHECK_BYTES / 2),
            budget,
            value_bytes_max: BATCH_BYTES_MAX / 2,
            sweeper: unbounded().0, // nothing becomes obsolete here
        })
    }

    fn len_of(&self, name: FileName) -> u64 {
        let name = name.to_string();
        self.listing.iter().find(|listed| listed.name == name).map_or(0, |listed| listed.len)
    }

    fn manifest_bytes(&self) -> u64 {
        self.len_of(FileName::Manifest(self.manifest)) + self.len_of(FileName::Current)
    }

    /// The log's segments that may still be needed.
    fn logs(&self) -> Vec<SegmentFile> {
        let start = self.state.header.log_start;
        let segments =
            self.listing.iter().filter_map(|listed| match FileName::parse(&listed.name) {
                Some(FileName::Log(number)) if start.is_none_or(|start| number >= start) => {
                    Some(SegmentFile { number, path: self.dir.join(&listed.name), len: listed.len })
                }
                _ => None,
            });
        segments.collect()
    }

    /// A log that the next open replays must be one that it accepts. Another is only history: its
    /// segments are looked at one by one.
    fn verify_logs(&self, logs: &[SegmentFile], found: &mut Verified) {
        let header = &self.state.header;
        if header.wal_mode == Some(true) && header.clean.is_none() {
            if let Err(e) = self.replay(logs.to_vec()) {
                found.damage.push(e);
            }
            return;
        }
        for log in logs {
            if let Err(e) = self.verify_segment(log, found) {
                found.damage.push(e.in_file(&log.path));
            }
        }
    }

    fn replay(&self, logs: Vec<SegmentFile>) -> Result<()> {
        let from = self.state.header.log_start.map(|number| LogPosition::new(number, 0));
        let mut log = LogReader::open(&self.fs, FileKind::Log, logs, from)?;
        log.must_reach(self.state.header.log_needed())?;
        while let Some((place, payload)) = log.next()? {
            let path = self.dir.join(FileName::Log(place.segment).to_string());
            check_batch(payload, place.offset).map_err(|e| e.in_file(&path))?;
        }
        Ok(())
    }

    fn verify_segment(&self, log: &SegmentFile, found: &mut Verified) -> Result<()> {
        let bytes = load(&self.fs, log)?;
        let header = SegmentHeader::decode(&bytes, FileKind::Log)?;
        for item in decode_segment(&bytes, FileKind::Log) {
            let damage = match item {
                SegmentItem::Damage(range, why) => hole(&bytes, &header, &range, &why),
                SegmentItem::Record(at, record) if !record.payload.is_empty() => {
                    check_batch(&bytes[record.payload], at as u64).err()
                }
                _ => None,
            };
            found.damage.extend(damage.map(|e| e.in_file(&log.path)));
        }
        Ok(())
    }
}

fn check_batch(payload: &[u8], at: u64) -> Result<()> {
    let mut batch = BatchReader::of_log(payload, at)?;
    while let Some(op) = batch.next() {
        op?;
    }
    Ok(())
}

/// The state in words, a line for each family and level.
impl fmt::Display for ClosedDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.state.header;
        writeln!(f, "database {}", self.dir.display())?;
        let manifest = FileName::Manifest(self.manifest);
        writeln!(f, "epoch {}, {manifest}, {} bytes", header.epoch, self.manifest_bytes())?;
        let log = if self.log() { "on" } else { "off" };
        match header.clean {
            Some(clean) => {
                write!(f, "log {log}, closed in order at sequence number {}", clean.last_seqno)?;
                match clean.checkpoint_id {
                    0 => writeln!(f)?,
                    id => writeln!(f, ", which is checkpoint {id}")?,
                }
            }
            None if self.log() => writeln!(f, "log on, not closed: the next open replays the log")?,
            None => writeln!(f, "log off, not closed: it will not open; restore a checkpoint")?,
        }
        let logs = self.logs();
        let bytes: u64 = logs.iter().map(|log| log.len).sum();
        writeln!(f, "{} log segments, {bytes} bytes", logs.len())?;
        for family in self.state.families.values() {
            let record = &family.record;
            write!(f, "family {} {:?}", record.id, record.name)?;
            if let Some(name) = &record.merge_operator {
                write!(f, ", merge operator {name:?}")?;
            }
            if let Some(name) = &record.compaction_filter {
                write!(f, ", compaction filter {name:?}")?;
            }
            writeln!(f, ", flushed up to {}", record.flushed_seqno)?;
            for level in 0..LEVELS {
                write_level(f, level, &family.levels[level])?;
            }
        }
        Ok(())
    }
}

fn write_level(f: &mut fmt::Formatter<'_>, level: usize, files: &[Arc<FileMeta>]) -> fmt::Result {
    if files.is_empty() {
        return Ok(());
    }
    let sum = |of: &dyn Fn(&FileMeta) -> u64| {
        files.iter().fold(0u64, |sum, meta| sum.saturating_add(of(meta)))
    };
    let (bytes, entries) = (sum(&|meta| meta.len), sum(&|meta| meta.entries));
    let tombstones = sum(&FileMeta::tombstones);
    let files = files.len();
    writeln!(
        f,
        "  level {level}: {files} tables, {bytes} bytes, {entries} entries, {tombstones} tombstones"
    )
}
