//! Opening: what was durable, what the log adds to it, and a new epoch before anything is served.
//!
//! 1. Lock the directory; read `CURRENT` and the manifest; check that all tables are there in full.
//! 2. Read the log where one is needed, and replay it into memtables. Refuse what is damaged. What the
//!    log does not prove to be durable is written again meanwhile, to a segment under a temporary name,
//!    unless it is long: what is about to be shown must survive the next crash.
//! 3. If the log proves that it is durable, sync it all the same.
//! 4. Begin a new epoch: a complete manifest, durable, then `CURRENT`. A long tail goes to tables.
//! 5. Begin a new log segment whose header says where the log so far ended: the one with the tail, or
//!    an empty one.
//! 6. Remove what nothing refers to.
//!
//! Up to and including 2 nothing is written but that one file, which is removed if the log is refused.
//! A crash anywhere later leaves what a crash before left, or the new epoch.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::canary::Canary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::format::FileKind;
use crate::base::id::FamilyId;
use crate::base::id::FileNumber;
use crate::base::key::{InternalKey, SEQNO_MAX, SeqNo};
use crate::base::limits::BATCH_BYTES_MAX;
use crate::base::sync::{
    Arc, AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, OnceLock, Receiver, RwLock, bounded,
    unbounded,
};
use crate::batch::{BatchReader, Op};
use crate::cache::budget::Member;
use crate::compaction::below::Below;
use crate::compaction::flush::FlushJob;
use crate::compaction::iter::Rules;
use crate::compaction::job::Progress;
use crate::compaction::output::OutputOptions;
use crate::db::background::{Signals, Versions};
use crate::db::column_family::Family;
use crate::db::commit::{Commit, CommitState};
use crate::db::core::Core;
use crate::db::holders::Holders;
use crate::db::options::{Background, ColumnFamilyOptions, Env, Options};
use crate::db::snapshot::SnapshotList;
use crate::db::stats::{Counters, Event};
use crate::db::super_version::{Cell, Immutable, SuperVersion};
use crate::db::wal::{ClosedSegment, Segments, TailSegment, Wal};
use crate::fs::{FileLock, Listed};
use crate::log::{LogPosition, LogReader, SegmentFile};
use crate::memtable::{MemTable, MemTableOptions, MemTableWriter, Overwrite, ReadPins};
use crate::version::current::SyncCall;
use crate::version::edit::{FamilyEdit, VersionEdit};
use crate::version::file::TableOpener;
use crate::version::kept::KeptMemTables;
use crate::version::manifest::{ManifestWriter, Recovered, recover};
use crate::version::names::{FileName, FileNumbers};
use crate::version::set::VersionSet;
use crate::version::state::State;

/// After anything but a clean close, numbering goes on at the next multiple of this: the numbers of
/// writes that were lost with the log's tail are never used again.
const SEQNO_STRIDE: SeqNo = 1 << 32;

/// A longer tail of the log that is not known to be durable is flushed, not written again; one that is
/// longer than two segments too.
const TAIL_BYTES_MAX: u64 = 128 << 20;

/// So many records are taken from the log at a time, and so many operations of theirs are looked at before
/// the first is replayed: their inserts wait for one line of memory each, which are on their way then.
const RECORDS_AT_ONCE: usize = 64;
const OPERATIONS_AHEAD: usize = 16;

/// Opens or creates the database in `dir`.
pub(in crate::db) fn open(dir: &Path, options: Options, env: Env) -> Result<Arc<Core>> {
    check_options(&options)?;
    let fs = Arc::clone(env.fs());
    if options.create_if_missing {
        fs.create_dir(dir)?;
    }
    let lock = fs.lock(dir)?;
    let listing = fs.list(dir)?;
    let mut recovered = recover(&fs, dir, listing.clone())?;
    if recovered.is_new() && !options.create_if_missing {
        return Err(Error::not_found("there is no database here").in_file(dir));
    }
    recovered.check_files()?;
    check_log_mode(&recovered.state, &options).map_err(|e| e.in_file(dir))?;
    let mut opening = Opening::new(dir, options, env, lock, listing);
    opening.replay(&mut recovered)?;
    let edit = VersionEdit::default();
    opening.finish(recovered, edit, || Ok(()))
}

fn check_options(options: &Options) -> Result<()> {
    if options.sync && !options.log {
        return Err(Error::invalid("writes cannot be synced without a log"));
    }
    if options.value_bytes_max > BATCH_BYTES_MAX / 2 {
        return Err(Error::invalid("values that large do not fit a batch"));
    }
    if options.immutables_max == 0 || options.l0_stop_depth == 0 {
        return Err(Error::invalid("a stall limit of zero stops every writer"));
    }
    Ok(())
}

fn check_log_mode(state: &State, options: &Options) -> Result<()> {
    let header = &state.header;
    match header.wal_mode {
        None => Ok(()),
        Some(_) if header.clean.is_some() => Ok(()),
        Some(false) => Err(Error::new(
            ErrorKind::Halted,
            "the log is off and the database was not closed: its families are at different points \
             in time; restore a checkpoint",
        )),
        Some(true) if !options.log => Err(Error::incompatible(
            "the log can be switched off only after the database was closed",
        )),
        Some(true) => Ok(()),
    }
}

/// Writes memtables, oldest first, to a table. Operands are kept as they are: there is no merge
/// operator yet.
fn flush_whole(tables: &[Arc<MemTable>], output: OutputOptions) -> Result<FamilyEdit> {
    let below = Below::unknown;
    let rules = || Rules { snapshots: Vec::new(), below: below(), operator: None, filter: None };
    let mut job = FlushJob::new(tables, rules, &output, 1);
    loop {
        if let Progress::Done(edit) = job.step(usize::MAX >> 1)? {
            return Ok(edit);
        }
    }
}

/// A database on its way to being open.
pub(in crate::db) struct Opening {
    dir: std::path::PathBuf,
    options: Options,
    env: Env,
    instance: u64,
    lock: Box<dyn FileLock>,
    listing: Vec<Listed>,
    pressure: Receiver<()>,
    member: Member,
    read_pins: Arc<ReadPins>,
    replayed: BTreeMap<FamilyId, Replayed>,
    /// How many keys a memtable may get from the log.
    keys_hint: usize,
    last_seqno: SeqNo,
    log: Option<LogReader>,
    /// What of it was not proved to be durable, written again.
    tail: Option<TailSegment>,
}

/// A family's memtables as the log fills them.
struct Replayed {
    writer: MemTableWriter,
    table: Arc<MemTable>,
    immutables: Vec<Immutable>,
    options: ColumnFamilyOptions,
    flushed: SeqNo,
}

impl Opening {
    pub fn new(
        dir: &Path,
        options: Options,
        env: Env,
        lock: Box<dyn FileLock>,
        listing: Vec<Listed>,
    ) -> Opening {
        let (signal, pressure) = bounded(1);
        let member = env.budget.join(options.memtables_bytes_min, signal);
        Opening {
            dir: dir.to_owned(),
            options,
            instance: env.instance(),
            env,
            lock,
            listing,
            pressure,
            member,
            read_pins: Arc::default(),
            replayed: BTreeMap::new(),
            keys_hint: 0,
            last_seqno: 0,
            log: None,
            tail: None,
        }
    }

    fn memtable(&self, options: &ColumnFamilyOptions) -> (MemTableWriter, Arc<MemTable>) {
        let bytes_max = options.memtable_bytes_max;
        let options = MemTableOptions { bytes_max, keys_hint: self.keys_hint };
        MemTable::new(options, &self.read_pins, self.member.reserve(0))
    }

    fn add_family(&mut self, id: FamilyId, options: &[u8], flushed: SeqNo) -> Result<()> {
        let options = ColumnFamilyOptions::decode(options)?;
        let (writer, table) = self.memtable(&options);
        let immutables = Vec::new();
        self.replayed.insert(id, Replayed { writer, table, immutables, options, flushed });
        Ok(())
    }

    /// Reads the log, if there is one to read, into memtables, and writes its tail again.
    fn replay(&mut self, recovered: &mut Recovered) -> Result<()> {
        let state = &recovered.state;
        let header = &state.header;
        let newest = state.tables().map(|(_, _, meta)| meta.seqno_max).max().unwrap_or(0);
        let flushed = state.families.values().map(|family| family.record.flushed_seqno).max();
        let clean = header.clean.map_or(0, |clean| clean.last_seqno);
        self.last_seqno = header.last_seqno.max(newest).max(flushed.unwrap_or(0)).max(clean);
        let log = match header.wal_mode == Some(true) && header.clean.is_none() {
            true => Some(self.open_log(header.log_start)?),
            false => None,
        };
        let records = log.as_ref().map_or(0, LogReader::records) as usize;
        self.keys_hint = records / state.families.len().max(1);
        for (id, family) in &state.families {
            let record = &family.record;
            self.add_family(*id, &record.options, record.flushed_seqno)?;
        }
        let Some(mut log) = log else { return Ok(()) };
        log.must_reach(header.log_needed()).map_err(|e| e.in_file(&self.dir))?;
        let (next_family, last_before) = (header.next_family, header.last_seqno);
        self.replay_and_write_again(&mut log, next_family, recovered)?;
        self.keys_hint = 0;
        self.log = Some(log);
        if Canary::SeqnosAreReused.is_planted() {
            self.last_seqno = last_before;
            return Ok(());
        }
        self.last_seqno = (self.last_seqno / SEQNO_STRIDE + 1) * SEQNO_STRIDE;
        Ok(())
    }

    /// The two halves of what is done with a log: they read the same bytes, and need nothing of each
    /// other.
    fn replay_and_write_again(
        &mut self,
        log: &mut LogReader,
        next_family: u32,
        recovered: &mut Recovered,
    ) -> Result<()> {
        let env = self.env.clone();
        let Some(place) = self.short_tail(log) else { return self.replay_all(log, next_family) };
        let (dir, instance, number) = (self.dir.clone(), self.instance, recovered.take_number());
        let mut behind = log.clone();
        behind.cut(place);
        let write = || TailSegment::write(env.fs(), &dir, instance, number, &mut behind);
        let (replayed, written) = env.both(|| self.replay_all(log, next_family), write);
        log.cut(place);
        match (replayed, written) {
            (Ok(()), written) => self.tail = Some(written?),
            (Err(e), written) => {
                if let Ok(tail) = written {
                    tail.discard(&**env.fs());
                }
                return Err(e);
            }
        }
        Ok(())
    }

    /// Where the tail begins that is to be written to the log again. `None` if there is none, or if it
    /// is long.
    fn short_tail(&self, log: &LogReader) -> Option<LogPosition> {
        let most = self.options.log_segment_bytes.saturating_mul(2).min(TAIL_BYTES_MAX);
        let end = log.proved_end().filter(|_| self.options.log && !log.is_proved())?;
        (log.bytes_behind(end) <= most).then_some(end)
    }

    /// Replays what `log` yields.
    fn replay_all(&mut self, log: &mut LogReader, next_family: u32) -> Result<()> {
        let pins = Arc::clone(&self.read_pins);
        let held = pins.try_hold(); // nobody reads yet
        let overwrite = held.as_ref().map(|held| held.overwrite());
        let mut last = 0;
        loop {
            let mut records = log.next_some(RECORDS_AT_ONCE)?.peekable();
            if records.peek().is_none() {
                return Ok(());
            }
            // What is wrong with an operation is said when its turn has come.
            let readers = records
                .clone()
                .filter_map(|(place, payload)| BatchReader::of_log(payload, place.offset).ok());
            let mut ahead = readers.flat_map(BatchReader::ops).filter_map(Result::ok);
            for op in ahead.by_ref().take(OPERATIONS_AHEAD) {
                self.look_ahead(&op);
            }
            for (place, payload) in records {
                let (base, name) = (place.offset, FileName::Log(place.segment));
                last = self
                    .replay_batch(payload, base, next_family, last, overwrite, &mut ahead)
                    .map_err(|e| e.in_file(&self.dir.join(name.to_string())))?;
            }
        }
    }

    /// Asks for what the replay of this operation waits for. Of no use, and no harm, if it will not be inserted.
    #[inline]
    fn look_ahead(&self, op: &Op<'_>) {
        if let Some(family) = self.replayed.get(&op.family) {
            family.writer.prefetch(op.key);
        }
    }

    /// Reads and checks the log from segment `start` on.
    fn open_log(&self, start: Option<FileNumber>) -> Result<LogReader> {
        // The log begins with this segment, or, while there is none yet, somewhere above.
        let start = start.unwrap_or_default();
        let segments =
            self.listing.iter().filter_map(|listed| match FileName::parse(&listed.name) {
                Some(FileName::Log(number)) if number >= start => {
                    Some(SegmentFile { number, path: self.dir.join(&listed.name), len: listed.len })
                }
                _ => None,
            });
        let from = (start.counter() > 0).then(|| LogPosition::new(start, 0));
        LogReader::open(self.env.fs(), FileKind::Log, segments.collect(), from)
    }

    /// Replays a batch behind one that ended with the sequence number `last`; the last of its own. Looks as
    /// many operations `ahead` as it has.
    fn replay_batch<'a>(
        &mut self,
        payload: &[u8],
        base: u64,
        next_family: u32,
        last: SeqNo,
        overwrite: Option<Overwrite<'_>>,
        ahead: &mut impl Iterator<Item = Op<'a>>,
    ) -> Result<SeqNo> {
        let mut reader = BatchReader::of_log(payload, base)?;
        let mut seqno = reader.seqno();
        if seqno <= last {
            return Err(Error::corruption("sequence numbers do not ascend").at(base));
        }
        while let Some(op) = reader.next() {
            let op = op?;
            if let Some(later) = ahead.next() {
                self.look_ahead(&later);
            }
            if seqno > SEQNO_MAX / 2 {
                return Err(Error::corruption("sequence number out of range").at(base));
            }
            match self.replayed.get_mut(&op.family) {
                Some(family) if seqno > family.flushed => {
                    let key = InternalKey::new(op.key, seqno, op.kind);
                    family.writer.insert(key, op.value, overwrite);
                    if family.writer.is_full() {
                        self.rotate(op.family, seqno);
                    }
                }
                Some(_) => {}                           // a table has it
                None if op.family.0 < next_family => {} // the family was dropped
                None => {
                    let text = format!("an operation on family {}, which never was", op.family);
                    return Err(Error::corruption(text).at(base));
                }
            }
            self.last_seqno = self.last_seqno.max(seqno);
            seqno += 1;
        }
        Ok(seqno - 1)
    }

    fn rotate(&mut self, id: FamilyId, upto: SeqNo) {
        let (writer, table) = self.memtable(&self.replayed[&id].options);
        let family = self.replayed.get_mut(&id).expect("looked up before");
        let frozen = std::mem::replace(&mut family.writer, writer).freeze();
        family.table = table;
        family.immutables.insert(0, Immutable { table: frozen, upto });
    }

    /// Steps 3 to 6: `edit` happens with the beginning of the epoch, unless `check` fails, which is asked
    /// when all else that comes before `CURRENT` is done.
    pub fn finish(
        mut self,
        recovered: Recovered,
        mut edit: VersionEdit,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Arc<Core>> {
        let fs = Arc::clone(self.env.fs());
        self.last_seqno = self.last_seqno.max(edit.last_seqno.unwrap_or(0));
        if self.last_seqno > SEQNO_MAX / 2 {
            return Err(Error::unsupported("the sequence numbers are used up"));
        }
        // What is written again needs no proof, nor a sync where it stood.
        let proved = self.tail.is_none() && self.log.as_ref().is_none_or(LogReader::is_proved);
        if let Some(log) = self.log.as_ref().filter(|_| proved) {
            log.make_durable(&self.dir)?;
        }
        let event = self.log.as_ref().map(|log| Event::Recovered {
            batches: log.records(),
            seqno: self.last_seqno,
            closed: log.closed(),
            torn: log.torn().cloned(),
        });
        edit.last_seqno = Some(self.last_seqno);
        edit.wal_mode = Some(self.options.log);
        let epoch = recovered.epoch;
        if self.log.is_none() {
            // Nothing of an older log is needed: it begins anew in this epoch.
            edit.log_start = Some(FileNumber::new(epoch, 0));
        }
        if Canary::TablesGoBeforeTheEpoch.is_planted() {
            self.sweep(&fs, &recovered.state);
        }
        let mut check = Some(check);
        let mut sync_all = |syncs: Vec<SyncCall<'_>>| {
            self.env.sync_all(syncs)?;
            check.take().map_or(Ok(()), |check| check())
        };
        let mut manifest = recovered.start_epoch(self.instance, &edit, &mut sync_all)?;
        if !proved && self.tail.is_none() {
            self.flush_replayed(&mut manifest)?;
        }
        let segments: Arc<Segments> = Arc::default();
        let wal = self.begin_log(&mut manifest, &segments)?;
        self.sweep(&fs, manifest.state());
        if let (Some(event), Some(listener)) = (event, &self.env.listener) {
            listener(&event);
        }
        Ok(self.assemble(manifest, wal, segments))
    }

    /// Writes what was replayed to tables, all families as one edit, and does without the log so far:
    /// its tail may be in memory alone although the system says that it is on disk.
    fn flush_replayed(&mut self, manifest: &mut ManifestWriter) -> Result<()> {
        let start = FileNumber::new(manifest.numbers().epoch(), 0);
        let mut edit = VersionEdit { log_start: Some(start), ..VersionEdit::default() };
        for (id, family) in std::mem::take(&mut self.replayed) {
            let (writer, table) = self.memtable(&family.options);
            let newest = family.writer.freeze();
            let older = family.immutables.iter().rev().map(|older| Arc::clone(&older.table));
            let tables: Vec<_> = older.chain((!newest.is_empty()).then_some(newest)).collect();
            let (options, flushed) = (family.options, family.flushed);
            if !tables.is_empty() {
                let numbers = Arc::clone(manifest.numbers());
                let output = self.output_options(&options, numbers);
                edit.families.insert(id, flush_whole(&tables, output)?);
            }
            let immutables = Vec::new();
            self.replayed.insert(id, Replayed { writer, table, immutables, options, flushed });
        }
        manifest.append(&edit)?;
        self.log = None;
        Ok(())
    }

    fn output_options(
        &self,
        options: &ColumnFamilyOptions,
        numbers: Arc<FileNumbers>,
    ) -> OutputOptions {
        OutputOptions {
            fs: Arc::clone(self.env.fs()),
            dir: self.dir.clone(),
            instance: self.instance,
            numbers: Arc::new(move || numbers.next()),
            table: options.table_options(0, self.options.value_bytes_max),
            file_bytes: options.file_bytes,
            overlap_bytes_max: options
                .picker_options(self.options.l0_stop_depth)
                .overlap_bytes_max(),
        }
    }

    /// Begins this opening's first log segment, and records where the log starts.
    fn begin_log(
        &mut self,
        manifest: &mut ManifestWriter,
        segments: &Arc<Segments>,
    ) -> Result<Option<Wal>> {
        if !self.options.log {
            return Ok(None);
        }
        let tail = self.tail.take();
        let number = tail.as_ref().map_or_else(|| manifest.numbers().next(), TailSegment::number);
        let prev = self.log.as_ref().and_then(LogReader::end);
        let wal = Wal::begin(
            self.env.fs(),
            &self.dir,
            self.instance,
            self.options.log_segment_bytes,
            number,
            prev,
            tail,
            Arc::clone(segments),
        )?;
        let old = self.log.as_ref().map_or(&[][..], LogReader::segments);
        let last_seqno = self.last_seqno;
        for old in old {
            segments.close(ClosedSegment { number: old.number, last_seqno });
        }
        // From now on the absence of these segments is a loss that is noticed.
        let start = old.first().map_or(number, |segment| segment.number);
        if manifest.state().header.log_start != Some(start) {
            manifest.append(&VersionEdit { log_start: Some(start), ..VersionEdit::default() })?;
        }
        Ok(Some(wal))
    }

    /// Removes files of ours that nothing refers to: half-written tables, and log segments that are
    /// flushed or that recovery cut off. A failure leaves them to the next open.
    fn sweep(&self, fs: &Arc<dyn crate::fs::Fs>, state: &State) {
        let kept: Vec<FileNumber> = match &self.log {
            Some(log) if self.options.log => log.segments().iter().map(|s| s.number).collect(),
            _ => Vec::new(),
        };
        for listed in &self.listing {
            let dead = match FileName::parse(&listed.name) {
                Some(FileName::Table(number)) => !state.has_table(number),
                Some(FileName::Log(number)) => !kept.contains(&number),
                Some(FileName::LogTemporary(_)) => true,
                _ => false,
            };
            if dead {
                let _ = fs.remove(&self.dir.join(&listed.name));
            }
        }
    }

    fn assemble(
        mut self,
        manifest: ManifestWriter,
        wal: Option<Wal>,
        segments: Arc<Segments>,
    ) -> Arc<Core> {
        let (sweeper, sweep) = unbounded();
        let opener = Arc::new(TableOpener {
            fs: Arc::clone(self.env.fs()),
            dir: self.dir.clone(),
            cache: Arc::clone(&self.env.cache),
            budget: self.env.budget.clone(),
            value_bytes_max: self.options.value_bytes_max,
            sweeper,
        });
        let set = VersionSet::new(opener, manifest.state());
        let mut state = CommitState::new(self.last_seqno, wal);
        let mut families = BTreeMap::new();
        for (&id, family) in set.families() {
            if !self.replayed.contains_key(&id) {
                self.add_family(id, &family.record.options, 0).expect("checked with the edit");
            }
            let Replayed { writer, table, immutables, options, .. } =
                self.replayed.remove(&id).expect("just added");
            let version = Arc::clone(&family.version);
            let cell = Cell::new(SuperVersion { mem: table, immutables, version });
            let name = family.record.name.clone();
            let handle = Arc::new(Family::new(id, name, self.instance, options, cell));
            state.add_writer(Arc::clone(&handle), writer);
            families.insert(id, handle);
        }
        let compactors = match self.env.background {
            Background::Threads(threads) => threads,
            Background::Inline => 1,
        };
        let core = Core {
            dir: self.dir,
            options: self.options,
            instance: self.instance,
            numbers: Arc::clone(manifest.numbers()),
            visible: AtomicU64::new(self.last_seqno),
            attention: AtomicU32::new(0),
            commit: Commit::new(state),
            manifest: Mutex::new(manifest),
            versions: Mutex::new(Versions::new(set)),
            progress: Condvar::new(),
            families: RwLock::new(families),
            snapshots: Arc::new(SnapshotList::default()),
            read_pins: self.read_pins,
            holders: Holders::default(),
            kept: KeptMemTables::new(&self.env.budget),
            segments,
            counters: Counters::default(),
            pressure: self.pressure,
            member: self.member,
            sweep,
            sweeping: Mutex::default(),
            halt: OnceLock::new(),
            signals: Signals::new(compactors),
            paused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            lock: Mutex::new(Some(self.lock).filter(|_| !Canary::DirectoryIsShared.is_planted())),
            env: self.env,
        };
        core.update_stall();
        Arc::new(core)
    }
}
