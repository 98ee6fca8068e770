//! Who runs the jobs: threads that wait for a signal, or the caller, step by step.
//!
//! Scheduling is idempotent: a signal says "look", and whoever looks picks what the state asks for.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::base::canary::Canary;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::id::{FamilyId, FileNumber};
use crate::base::sync::{
    Arc, AtomicUsize, JoinHandle, Mutex, Ordering, Receiver, Select, Sender, ThreadBuilder,
    bounded, scope, yield_now,
};
use crate::compaction::busy::Busy;
use crate::compaction::expired::Rewritten;
use crate::db::core::{Core, attention};
use crate::db::file_set::Pending;
use crate::db::jobs::{Job, keeps_files};
use crate::db::options::{Background, Env};
use crate::db::stats::Event;
use crate::version::current::{SyncCall, in_turn};
use crate::version::names::FileName;
use crate::version::set::VersionSet;

/// Entries that a job handles in one step.
const STEP_ENTRIES: usize = 1024;

/// What the `versions` lock protects.
pub(in crate::db) struct Versions {
    /// The live files.
    pub set: VersionSet,
    /// Inputs and output ranges of running compactions, by family.
    pub busy: std::collections::BTreeMap<FamilyId, Busy>,
    /// Tables that were rewritten because much had expired.
    pub rewritten: Rewritten,
    /// Families with a running flush.
    pub flushing: Vec<FamilyId>,
    /// Jobs that are somewhere in memory, and hold what they read: they end after they are installed.
    pub jobs: usize,
    /// Checkpoints that wait for flushes, oldest first.
    pub checkpoints: Vec<Arc<Pending>>,
    /// The last failure of a flush, and of a compaction, that may succeed later: taken by whoever
    /// reports it, forgotten by whoever begins to wait.
    pub flush_error: Option<Error>,
    pub compaction_error: Option<Error>,
}

impl Versions {
    pub fn new(set: VersionSet) -> Versions {
        Versions {
            set,
            busy: Default::default(),
            rewritten: Rewritten::new(),
            flushing: Vec::new(),
            jobs: 0,
            checkpoints: Vec::new(),
            flush_error: None,
            compaction_error: None,
        }
    }
}

/// How writers wake the background, and the jobs of inline mode.
pub(in crate::db) struct Signals {
    flush: (Sender<()>, Receiver<()>),
    compact: (Sender<()>, Receiver<()>),
    /// How many compact.
    compactors: usize,
    /// Inline mode: jobs begun and not finished. A leaf lock, never held while a job runs.
    begun: Mutex<Vec<Job>>,
}

impl Signals {
    pub fn new(compactors: usize) -> Signals {
        let compactors = compactors.max(1);
        let (flush, compact) = (bounded(1), bounded(compactors));
        Signals { flush, compact, compactors, begun: Mutex::default() }
    }

    /// Inline mode: takes a job that has begun.
    #[cfg(test)]
    pub fn begin(&self, job: Job) {
        self.begun.lock().push(job);
    }

    /// There may be something to do.
    pub fn work(&self) {
        // A full channel already says so.
        let _ = self.flush.0.try_send(());
        // One each, and no more: who fills the channel while others empty it may never end.
        for _ in 0..self.compactors {
            let _ = self.compact.0.try_send(());
        }
    }
}

/// The threads of a database. Empty in inline mode.
pub(in crate::db) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    #[expect(clippy::disallowed_methods, reason = "the one place where threads begin")]
    pub fn start(core: &Arc<Core>) -> Threads {
        let Background::Threads(compactors) = core.env.background else {
            return Threads(Vec::new());
        };
        let mut threads = Vec::new();
        let flusher = Arc::clone(core);
        let named = |name: &str| ThreadBuilder::new().name(name.to_owned());
        let failed = "the system starts a thread";
        let thread = named("alluvium-flush").spawn(move || flusher.run_flushes());
        threads.push(thread.expect(failed));
        for _ in 0..compactors.max(1) {
            let compactor = Arc::clone(core);
            let thread = named("alluvium-compact").spawn(move || compactor.run_compactions());
            threads.push(thread.expect(failed));
        }
        core.signals.work();
        Threads(threads)
    }

    /// Asks all threads to end, and waits. A running compaction is dropped at its next step.
    pub fn stop(&mut self, core: &Core) {
        core.stopping.store(true, Ordering::Release);
        while !self.0.is_empty() {
            core.signals.work();
            let (ended, running): (Vec<_>, Vec<_>) =
                self.0.drain(..).partition(JoinHandle::is_finished);
            for thread in ended {
                let _ = thread.join(); // panics were caught and told
            }
            self.0 = running;
            yield_now();
        }
        let begun = std::mem::take(&mut *core.signals.begun.lock());
        begun.into_iter().for_each(|job| core.abandon(job, None));
    }
}

impl Env {
    /// In how many parts to do a job over `bytes`, if each should have `part` of them: in no more than
    /// threads compact, and in one in inline mode.
    pub fn parts(&self, bytes: u64, part: u64) -> usize {
        match self.background {
            Background::Threads(compactors) => {
                ((bytes / part) as usize).clamp(1, compactors.max(1))
            }
            Background::Inline => 1,
        }
    }

    /// Does both, at the same time; one after the other in inline mode.
    ///
    /// # Panics
    /// If one of them does.
    pub fn both<A, B: Send>(
        &self,
        first: impl FnOnce() -> A,
        second: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        self.beside(second, |second| (first(), second()))
    }

    /// Does `side` at the same time as `main`, which calls what it is given to wait for the outcome. In
    /// inline mode that call does it, and it is not done if there is none.
    ///
    /// # Panics
    /// If one of them does.
    pub fn beside<A, B: Send>(
        &self,
        side: impl FnOnce() -> B + Send,
        main: impl FnOnce(Box<dyn FnOnce() -> B + '_>) -> A,
    ) -> A {
        if let Background::Inline = self.background {
            return main(Box::new(side));
        }
        scope(|scope| {
            let side = scope.spawn(side);
            main(Box::new(|| side.join().unwrap_or_else(|panic| resume_unwind(panic))))
        })
    }

    /// Does these syncs at the same time, each on a thread of its own: the device sees them together, and
    /// they take about as long as one. One after the other in inline mode. The first error of those
    /// that were done.
    ///
    /// # Panics
    /// If one of them does.
    pub fn sync_all(&self, syncs: Vec<SyncCall<'_>>) -> Result<()> {
        if let Background::Inline = self.background {
            return in_turn(syncs);
        }
        let mut syncs = syncs.into_iter();
        let own = syncs.next();
        scope(|scope| {
            let others: Vec<_> = syncs.map(|sync| scope.spawn(sync)).collect();
            let done = own.map_or(Ok(()), |sync| sync());
            let others = others.into_iter().map(|other| other.join());
            others.fold(done, |done, other| {
                done.and(other.unwrap_or_else(|panic| resume_unwind(panic)))
            })
        })
    }

    /// Does `work` for all numbers below `count`, in no certain order, on this thread and as many
    /// others as make up the number that compact; all here and in order in inline mode.
    ///
    /// # Panics
    /// If `work` does.
    pub fn in_parallel(&self, count: usize, work: impl Fn(usize) + Sync) {
        let threads = match self.background {
            Background::Threads(compactors) => compactors.clamp(1, count.max(1)),
            Background::Inline => 1,
        };
        let next = AtomicUsize::new(0);
        let run = || {
            let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            numbers.take_while(|number| *number < count).for_each(&work);
        };
        scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(run)));
            run();
        });
    }
}

impl Core {
    fn run_flushes(self: Arc<Self>) {
        let mut wake = Select::new();
        wake.recv(&self.signals.flush.1);
        wake.recv(&self.pressure);
        wake.recv(&self.sweep);
        while !self.stopping.load(Ordering::Acquire) {
            wake.ready();
            let _ = self.signals.flush.1.try_recv();
            if self.pressure.try_recv().is_ok() {
                self.relieve();
            }
            self.remove_obsolete();
            while !self.stopping.load(Ordering::Acquire)
                && let Some(job) = self.pick_flush()
                && self.run(job)
            {}
        }
    }

    fn run_compactions(self: Arc<Self>) {
        while !self.stopping.load(Ordering::Acquire) {
            let _ = self.signals.compact.1.recv();
            while !self.stopping.load(Ordering::Acquire)
                && let Some(job) = self.pick_compaction()
                && self.run(job)
            {}
        }
    }

    /// Runs a job to its end; `false` if it failed and the next one had better wait for a signal.
    fn run(&self, mut job: Job) -> bool {
        let unwanted = || self.stopping.load(Ordering::Acquire) || self.compactions_paused();
        loop {
            if unwanted() && !job.is_flush() {
                self.abandon(job, None);
                return false;
            }
            match self.step_job(&mut job, &|| !unwanted()) {
                Ok(false) => {}
                Ok(true) => {
                    self.end(job);
                    return true;
                }
                Err(error) => {
                    self.abandon(job, Some(&error));
                    return false;
                }
            }
        }
    }

    /// See [`Db::pause_compactions`](crate::db::Db::pause_compactions).
    pub fn pause_compactions(&self, pause: bool) {
        self.paused.store(pause, Ordering::Release);
        self.signals.work();
    }

    pub fn compactions_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Runs a job on the caller's thread.
    pub fn run_here(&self, mut job: Job) -> Result<()> {
        loop {
            match self.step_job(&mut job, &|| true) {
                Ok(false) => {}
                Ok(true) => {
                    self.end(job);
                    return Ok(());
                }
                Err(error) => {
                    self.abandon(job, Some(&error));
                    return Err(error);
                }
            }
        }
    }

    /// The end of a job that was installed or given up: it lets go of what it read, and files that
    /// nobody else needs go with it.
    fn end(&self, job: Job) {
        drop(job);
        self.remove_obsolete();
        self.versions.lock().jobs -= 1;
        self.progress.notify_all();
    }

    /// Removes all tables whose last owner has let go. When this returns, no earlier call is still
    /// removing one.
    pub fn remove_obsolete(&self) {
        let _alone = self.sweeping.lock();
        while let Ok(number) = self.sweep.try_recv() {
            self.remove_table(number);
        }
    }

    /// One step of a job. A panic is caught, and is an error that stops writes.
    fn step_job(&self, job: &mut Job, wanted: &(dyn Fn() -> bool + Sync)) -> Result<bool> {
        let step = || {
            job.run_parts(self, STEP_ENTRIES, wanted)?;
            job.step(self, STEP_ENTRIES)
        };
        catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            let text = text.unwrap_or_else(|| "without a message".to_owned());
            Err(Error::new(ErrorKind::Halted, format!("a background job panicked: {text}")))
        })
    }

    /// Drops a job that cannot go on: its outputs are removed, its inputs are free again. Lack of
    /// space passes; everything else stops writes.
    pub fn abandon(&self, job: Job, error: Option<&Error>) {
        let (outputs, is_flush) = (job.created(), job.is_flush());
        self.release(&job);
        if !error.is_some_and(keeps_files) {
            outputs.into_iter().for_each(|number| self.remove_table(number));
        }
        self.end(job);
        let Some(error) = error.filter(|_| !Canary::JobDiesSilently.is_planted()) else { return };
        if error.kind() == ErrorKind::NoSpace {
            let mut versions = self.versions.lock();
            match is_flush {
                true => versions.flush_error = Some(error.clone()),
                false => versions.compaction_error = Some(error.clone()),
            }
            drop(versions);
            self.tell(&Event::JobFailed(error.clone()));
        } else {
            self.halt(error);
        }
        self.progress.notify_all();
    }

    /// Inline mode: begins a job or does one step of one that was begun, whichever `choice` says.
    pub fn step(&self, choice: u64) -> Result<bool> {
        if !self.is_inline() {
            return Ok(false);
        }
        if self.pressure.try_recv().is_ok() {
            self.relieve();
        }
        self.remove_obsolete();
        self.check_halted()?;
        let mut begun = std::mem::take(&mut *self.signals.begun.lock());
        begun.extend(self.pick_flush());
        begun.extend(self.pick_compaction());
        if begun.is_empty() {
            return Ok(false);
        }
        let mut job = begun.swap_remove((choice % begun.len() as u64) as usize);
        self.signals.begun.lock().extend(begun);
        match self.step_job(&mut job, &|| true) {
            Ok(true) => {
                self.end(job);
                Ok(true)
            }
            Ok(false) => {
                self.signals.begun.lock().push(job);
                Ok(true)
            }
            Err(error) => {
                self.abandon(job, Some(&error));
                Err(error)
            }
        }
    }

    /// Memory is short: asks the next writer to rotate the largest memtable, or does it itself if
    /// there is no writer. It never waits for the commit lock: its holder may wait for this thread.
    fn relieve(&self) {
        self.attention.fetch_or(attention::ROTATE, Ordering::Release);
        if let Some(mut state) = self.commit.state.try_lock()
            && self.attention.load(Ordering::Acquire) & attention::ROTATE != 0
        {
            self.rotate_largest(&mut state);
        }
    }

    /// Removes a table that nothing refers to. A failure leaves a file that the next open removes.
    pub fn remove_table(&self, number: FileNumber) {
        let path = self.dir.join(FileName::Table(number).to_string());
        let _ = self.env.fs.remove(&path);
    }
}
