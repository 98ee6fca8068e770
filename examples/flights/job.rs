//! The job: source, partitioner, subtasks, checkpoints; a crash on the way, and two rescalings.
//!
//! Subtasks take turns on this thread, as they would on a machine of one core: what is measured is
//! the engine, not the scheduler. Flushes, compactions and the asynchronous part of checkpoints run on
//! other threads.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use alluvium::BackendOptions;
use alluvium::DirStore;
use alluvium::DiskFs;
use alluvium::Env;
use alluvium::Fs;
use alluvium::JavaHash;
use alluvium::JobCheckpoint;
use alluvium::KeyGroupRange;
use alluvium::MemoryBudget;
use alluvium::PartInput;
use alluvium::PendingCheckpoint;
use alluvium::Registry;
use alluvium::Saved;
use alluvium::StateBackend;
use alluvium::assign_key_group;
use alluvium::latest_checkpoint;
use alluvium::load_checkpoint;
use alluvium::operator_index;
use alluvium::restore_checkpoint;
use alluvium::verify_checkpoint;
use indicatif::ProgressBar;

use crate::Outcome;
use crate::event::Event;
use crate::reference::Tables;
use crate::report::CheckpointRow;
use crate::report::Report;
use crate::report::Restored;
use crate::source::Position;
use crate::source::Source;
use crate::subtask::Record;
use crate::subtask::Subtask;

/// Number of key groups, and thereby the highest parallelism.
pub const MAX_PARALLELISM: u32 = 128;

/// Memory of all subtasks together.
const MEMORY_BYTES: usize = 128 << 20;

/// Only the newest checkpoint is kept: every object in the store belongs to it.
const RETAINED: usize = 1;

/// The progress bar moves each time this many rows have been read.
const BAR_ROWS: u64 = 1024;

const STATE_OF_SOURCE: &str = "source";
const STATE_OF_TIME: &str = "event time";

/// Where the job reads, where it keeps its files, and how it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub input: PathBuf,
    pub dir: PathBuf,
    pub parallelism: u32,
    pub checkpoint_every: u64,
}

/// What the job knows besides keyed state: the source's position and the operators' own state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub position: Position,
    pub bad_rows: u64,
    /// The latest event time so far: event time never goes back behind it.
    pub newest: Option<i64>,
    /// Events that came behind a newer one.
    pub behind: u64,
    /// Departures that came after their day was over.
    pub late: u64,
}

impl Progress {
    /// The bytes of the user in a checkpoint; `rows` tells one input from another.
    fn user(&self, rows: u64) -> Vec<u8> {
        numbers(&[self.position.row, self.position.offset, rows])
    }

    fn operator_state(&self) -> Vec<(String, Vec<u8>)> {
        let newest = [u64::from(self.newest.is_some()), self.newest.unwrap_or(0) as u64];
        let time = numbers(&[newest[0], newest[1], self.behind, self.late]);
        vec![
            (STATE_OF_SOURCE.to_owned(), numbers(&[self.bad_rows])),
            (STATE_OF_TIME.to_owned(), time),
        ]
    }

    /// What a checkpoint says, if it is one of this job on an input of so many rows.
    fn of_checkpoint(saved: &Saved, rows: u64) -> Option<Progress> {
        let state = &saved.envelope.operator_state;
        let find = |name: &str| state.iter().find(|(other, _)| other == name);
        let [row, offset, all] = parse_numbers(&saved.envelope.user)?;
        let [bad_rows] = parse_numbers(&find(STATE_OF_SOURCE)?.1)?;
        let [is_some, newest, behind, late] = parse_numbers(&find(STATE_OF_TIME)?.1)?;
        let newest = (is_some == 1).then_some(newest as i64);
        let position = Position { row, offset };
        let progress = Progress { position, bad_rows, newest, behind, late };
        (all == rows && row <= rows).then_some(progress)
    }
}

fn numbers(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn parse_numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: &[[u8; 8]; N] = words.try_into().ok()?;
    rest.is_empty().then(|| words.map(u64::from_le_bytes))
}

/// A running job.
pub struct Job<'a> {
    settings: &'a Settings,
    report: &'a mut Report,
    bar: ProgressBar,
    /// Rows of the input.
    rows: u64,
    fs: Arc<dyn Fs>,
    store: Arc<DirStore>,
    /// `None`: no checkpoints are taken.
    registry: Option<Arc<Registry>>,
    source: Source,
    progress: Progress,
    subtasks: Vec<Subtask>,
    /// The asynchronous part of the last checkpoint, until it has ended.
    upload: Option<JoinHandle<Outcome<CheckpointRow>>>,
    next_checkpoint: u64,
    /// Times that state was set up: each has directories of its own.
    starts: u32,
}

/// Everything: the stream with a crash half-way, rescaled to 3 at three quarters of it and to 1 at
/// seven eighths. Returns all state at the end.
pub fn run(
    settings: &Settings,
    rows: u64,
    bar: ProgressBar,
    report: &mut Report,
) -> Outcome<(Tables, Progress)> {
    let mut job = Job::new(settings, rows, bar, report)?;
    if latest_checkpoint(&*job.store)?.is_some() {
        let dir = settings.dir.display();
        return Err(format!("{dir} holds a checkpoint: --restore it, or name another --dir").into());
    }
    job.open_registry()?;
    job.start(settings.parallelism, None)?;
    job.run_to("stream", rows / 2)?;
    job.crash()?;
    job.run_to("replay", rows / 2)?;
    job.run_to("stream", rows * 3 / 4)?;
    job.rescale(3)?;
    job.run_to("stream", rows * 7 / 8)?;
    job.rescale(1)?;
    job.run_to("stream", rows)?;
    job.finish()
}

/// Restores the newest checkpoint in the directory, replays the rest of the stream from its position,
/// and returns all state at the end. Changes nothing in the store.
pub fn restore(
    settings: &Settings,
    rows: u64,
    bar: ProgressBar,
    report: &mut Report,
) -> Outcome<(Tables, Progress)> {
    let dir = settings.dir.display();
    if !store_dir(&settings.dir).is_dir() {
        return Err(format!("{dir} holds no checkpoints").into());
    }
    let mut job = Job::new(settings, rows, bar, report)?;
    let newest = latest_checkpoint(&*job.store)?;
    let newest = newest.ok_or_else(|| format!("{dir} holds no checkpoint"))?;
    let saved = load_checkpoint(&*job.store, newest)?;
    // Restoring verifies what it needs, subtask by subtask; this tells all that is wrong at once.
    verify_checkpoint(&*job.store, &saved)?;
    job.restore("restore", settings.parallelism, &saved)?;
    job.run_to("replay", rows)?;
    job.finish()
}

fn store_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// Where subtasks keep their databases: nothing that a crash must not lose.
fn local_dir(dir: &Path) -> PathBuf {
    dir.join("local")
}

impl<'a> Job<'a> {
    fn new(
        settings: &'a Settings,
        rows: u64,
        bar: ProgressBar,
        report: &'a mut Report,
    ) -> Outcome<Job<'a>> {
        let fs: Arc<dyn Fs> = Arc::new(DiskFs::new());
        let store = store_dir(&settings.dir);
        fs.create_dir(&store)?;
        let job = Job {
            source: Source::open(&settings.input, Position::default())?,
            store: Arc::new(DirStore::open(Arc::clone(&fs), store)?),
            settings,
            report,
            bar,
            rows,
            fs,
            registry: None,
            progress: Progress::default(),
            subtasks: Vec::new(),
            upload: None,
            next_checkpoint: 1,
            starts: 0,
        };
        job.remove_local()?; // what a run that was killed has left
        Ok(job)
    }

    /// Finds the checkpoints in the store, as a new process would.
    fn open_registry(&mut self) -> Outcome<()> {
        let store = Arc::clone(&self.store);
        self.registry = Some(Arc::new(Registry::open(store, RETAINED)?));
        Ok(())
    }

    /// Sets up the state of all subtasks: empty, or that of a checkpoint.
    fn start(&mut self, parallelism: u32, from: Option<&Saved>) -> Outcome<()> {
        assert!(self.subtasks.is_empty(), "the job runs");
        self.starts += 1;
        let env = Env::new(MemoryBudget::new(MEMORY_BYTES)).with_fs(Arc::clone(&self.fs));
        for index in 0..parallelism {
            let options = BackendOptions::for_instance(MAX_PARALLELISM, parallelism, index)?;
            let name = format!("{}-{index}", self.starts);
            let dir = local_dir(&self.settings.dir).join(name);
            let backend = match from {
                None => StateBackend::open(&dir, options, env.clone())?,
                Some(saved) => {
                    let groups = options.key_groups.start()..=options.key_groups.end();
                    let (db, env) = (options.db.clone(), env.clone());
                    let db = restore_checkpoint(&*self.store, saved, groups, &dir, db, env)?;
                    StateBackend::from_db(db, options)?
                }
            };
            self.subtasks.push(Subtask::new(backend)?);
        }
        Ok(())
    }

    /// Processes rows until `end` of them have been read, with checkpoints on the way.
    fn run_to(&mut self, what: &'static str, end: u64) -> Outcome<()> {
        let (begin, started) = (self.progress.position.row, Instant::now());
        while self.progress.position.row < end {
            self.next_row()?;
            let row = self.progress.position.row;
            if row.is_multiple_of(self.settings.checkpoint_every) {
                self.checkpoint()?;
            }
            if row.is_multiple_of(BAR_ROWS) {
                self.bar.set_position(row);
            }
        }
        self.bar.set_position(self.progress.position.row);
        if begin < end {
            let parallelism = self.subtasks.len();
            self.report.stage(what, begin, end, parallelism, started.elapsed());
        }
        Ok(())
    }

    /// Reads a row, and sends its records to the subtasks that own their keys.
    fn next_row(&mut self) -> Outcome<()> {
        let Some(row) = self.source.next()? else {
            return Err("the input has become shorter".into());
        };
        let number = self.progress.position.row + 1;
        match Event::parse(row) {
            Ok(event) => {
                match self.progress.newest {
                    Some(newest) if event.time < newest => self.progress.behind += 1,
                    _ => self.progress.newest = Some(event.time),
                }
                let parallelism = self.subtasks.len() as u32;
                for record in Record::ALL {
                    let Some(key) = record.key(&event) else { continue };
                    let group = assign_key_group(key.java_hash(), MAX_PARALLELISM);
                    let index = operator_index(MAX_PARALLELISM, parallelism, group);
                    let late = self.subtasks[index as usize].process(record, key, &event)?;
                    self.progress.late += u64::from(late);
                }
            }
            Err(bad) => {
                self.progress.bad_rows += 1;
                self.report.bad_row(number, &bad);
            }
        }
        self.progress.position = self.source.position();
        Ok(())
    }

    /// The barrier: fixes the state of all subtasks between two events; the rest happens on a thread
    /// beside the stream. One checkpoint is under way at a time.
    fn checkpoint(&mut self) -> Outcome<()> {
        let Some(registry) = self.registry.clone() else { return Ok(()) };
        self.join_upload()?;
        let started = Instant::now();
        let pending =
            self.subtasks.iter().map(|subtask| Ok((subtask.key_groups(), subtask.checkpoint()?)));
        let pending = pending.collect::<Outcome<Vec<_>>>()?;
        let synchronous = started.elapsed();
        let (id, progress, rows) = (self.next_checkpoint, self.progress, self.rows);
        self.next_checkpoint += 1;
        let thread = std::thread::Builder::new().name("checkpoint".to_owned());
        self.upload = Some(thread.spawn(move || {
            let parallelism = pending.len();
            let saved = complete(&registry, id, pending, &progress, rows)?;
            Ok(CheckpointRow {
                id,
                row: progress.position.row,
                parallelism,
                synchronous,
                total: started.elapsed(),
                files_new: saved.files_new,
                files_reused: saved.files_reused,
                bytes_new: saved.bytes_new,
                bytes_total: saved.bytes_total,
            })
        })?);
        Ok(())
    }

    fn join_upload(&mut self) -> Outcome<()> {
        if let Some(upload) = self.upload.take() {
            let row = upload.join().map_err(|_| "the checkpoint's thread has panicked")??;
            self.report.checkpoint(row);
        }
        Ok(())
    }

    /// Loses everything but the store, and goes on from the newest checkpoint in it.
    fn crash(&mut self) -> Outcome<()> {
        self.join_upload()?; // as if the crash had come when it was done
        self.subtasks.clear(); // not closed
        self.registry = None;
        self.remove_local()?;
        self.open_registry()?;
        let saved = self.registry.as_ref().and_then(|registry| registry.base());
        match saved {
            Some(saved) => self.restore("crash, restore", self.settings.parallelism, &saved),
            None => {
                self.progress = Progress::default();
                self.source = Source::open(&self.settings.input, self.progress.position)?;
                self.start(self.settings.parallelism, None)
            }
        }
    }

    /// Stops with a checkpoint and goes on from it in another parallelism.
    fn rescale(&mut self, parallelism: u32) -> Outcome<()> {
        self.checkpoint()?;
        self.join_upload()?;
        self.subtasks.clear();
        self.remove_local()?;
        let base = self.registry.as_ref().and_then(|registry| registry.base());
        let saved = base.expect("a checkpoint was just confirmed");
        self.restore("rescale", parallelism, &saved)
    }

    fn restore(&mut self, what: &'static str, parallelism: u32, saved: &Saved) -> Outcome<()> {
        let rows = self.rows;
        let progress = Progress::of_checkpoint(saved, rows).ok_or_else(|| {
            format!("checkpoint {} was not made by this job on an input of {rows} rows", saved.id)
        })?;
        let started = Instant::now();
        self.start(parallelism, Some(saved))?;
        self.report.restored(Restored {
            what,
            checkpoint: saved.id,
            row: progress.position.row,
            from: saved.envelope.parts.len(),
            to: parallelism as usize,
            files: saved.envelope.objects.len(),
            bytes: saved.bytes_total,
            time: started.elapsed(),
        });
        if self.progress.position != progress.position {
            self.source = Source::open(&self.settings.input, progress.position)?;
        }
        self.progress = progress;
        self.next_checkpoint = saved.id + 1;
        Ok(())
    }

    /// Copies all state, and ends.
    fn finish(mut self) -> Outcome<(Tables, Progress)> {
        if self.source.next()?.is_some() {
            return Err("the input has become longer".into());
        }
        self.join_upload()?;
        let mut tables = Tables::default();
        for subtask in &mut self.subtasks {
            subtask.collect(&mut tables)?;
        }
        self.bar.finish_and_clear();
        self.subtasks.clear();
        self.remove_local()?;
        Ok((tables, self.progress))
    }

    fn remove_local(&self) -> Outcome<()> {
        let dir = local_dir(&self.settings.dir);
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {e}", dir.display()).into())
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Job<'_> {
    /// An error ends the job, but not a thread that still writes to the directory.
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            let _ = upload.join();
        }
    }
}

/// The asynchronous part of a checkpoint: waits for the files of all subtasks, saves what the store
/// lacks, and confirms.
fn complete(
    registry: &Registry,
    id: u64,
    pending: Vec<(KeyGroupRange, PendingCheckpoint)>,
    progress: &Progress,
    rows: u64,
) -> Outcome<Saved> {
    let sets = pending.into_iter().map(|(groups, pending)| Ok((groups, pending.wait()?)));
    let sets = sets.collect::<Outcome<Vec<_>>>()?;
    let parts = sets.iter().map(|(groups, set)| PartInput {
        first_group: groups.start(),
        last_group: groups.end(),
        set,
    });
    let saved = registry.save(&JobCheckpoint {
        id,
        max_parallelism: MAX_PARALLELISM,
        parts: parts.collect(),
        operator_state: progress.operator_state(),
        user: progress.user(rows),
    })?;
    registry.confirm(&saved)?;
    Ok(saved)
}
