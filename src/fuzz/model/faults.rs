//! How a database ends, what befalls its disk, and what may be found afterwards.

use crate::base::error::{ErrorKind, Result};
use crate::base::sync::{Arc, AtomicBool, Ordering};
use crate::cache::budget::MemoryBudget;
use crate::checkpoint::restore::restore;
use crate::db::Db;
use crate::db::options::{Background, Env};
use crate::db::stats::Event;
use crate::fs::fault::{Fault, FaultFs};
use crate::fs::memory::image::Keep;
use crate::fuzz::model::machine::{Before, Machine};
use crate::fuzz::model::plain::{Content, FAMILIES, NAMES, State, alike};
use crate::fuzz::model::sets::ALL;

/// How a directory was left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Closed in order.
    Closed,
    /// The mark of the close may be there or not.
    Perhaps,
    Dead,
}

impl Machine {
    fn env_of(&mut self, halted: &Arc<AtomicBool>) -> Env {
        self.openings += 1;
        let (budget, halted) = (MemoryBudget::new(self.config.memory), Arc::clone(halted));
        Env::simulated(Arc::clone(&self.fs), budget, self.openings)
            .with_background(self.background)
            .with_listener(Arc::new(move |event| {
                if matches!(event, Event::Halted(_)) {
                    halted.store(true, Ordering::Release);
                }
            }))
    }

    /// An environment for a database beside this one, and where that says that it has halted.
    pub(super) fn env_beside(&mut self) -> (Env, Arc<AtomicBool>) {
        let halted = Arc::default();
        (self.env_of(&halted), halted)
    }

    /// Opens the database in the machine's directory, with all families that are there.
    fn open(&mut self) -> Result<State> {
        let (env, halted) = self.env_beside();
        self.halted = halted;
        self.paused = false;
        (self.opened, self.was_out_of_order) = (self.before(), false);
        self.db = Some(Db::open(&self.dir, self.config.options.clone(), env)?);
        self.open_families()
    }

    /// Handles on all families, and what these hold.
    fn open_families(&mut self) -> Result<State> {
        self.families = Default::default();
        let names = self.db().column_families();
        let mut state = State::default();
        for name in names {
            let place = NAMES.iter().position(|known| *known == name).expect("one of ours");
            let options = self.config.family(place, self.openings);
            let family = self.db().column_family(&name, options)?;
            let id = family.id();
            self.families[place] = Some(family);
            state[place] = Some(Content { id, map: self.contents(place)? });
        }
        Ok(state)
    }

    /// A first opening, of nothing.
    pub(super) fn begin(&mut self) {
        let found = self.open().expect("a new database opens");
        assert!(found.iter().all(Option::is_none));
        (0..2).for_each(|place| self.create(place));
    }

    /// Lets go of the database, in whatever way it has ended.
    fn forget(&mut self) {
        self.db = None;
        self.families = Default::default();
        self.dropped = Default::default();
        self.gone.clear();
    }

    /// Opens the directory again, at first with a fault, and finds one of these states. With the log
    /// off only a closed directory opens: one that `end` says was closed.
    fn reopen(&mut self, allowed: &[State], mut end: End, fault: Option<&Fault>) {
        self.forget();
        self.repair();
        fault.into_iter().for_each(|fault| self.faults.plan(fault.clone()));
        let before = self.before();
        let mut opened = self.open();
        if opened.is_err() && self.struck_since(before) {
            // The mark of the close may be used up.
            end = if end == End::Closed { End::Perhaps } else { end };
            self.forget();
            self.repair();
            opened = self.open();
        }
        self.repair();
        let found = match opened {
            Ok(found) => found,
            Err(refused) => {
                let may_fail = !self.config.options.log && end != End::Closed;
                assert!(may_fail, "an opening fails: {refused}");
                assert_eq!(refused.kind(), ErrorKind::Halted, "{refused}");
                return self.start_over();
            }
        };
        let may_open = self.config.options.log || end != End::Dead;
        assert!(may_open, "without a log, only what was closed opens");
        let known = allowed.iter().any(|state| alike(state, &found));
        assert!(known, "found {found:?}, which is none of {allowed:?}");
        self.go_on(found);
    }

    /// From here on the database holds this, whatever happens.
    fn go_on(&mut self, state: State) {
        self.now = state;
        self.unknown.clear();
        self.last_commit = [self.commits; FAMILIES];
        self.possible = vec![(self.commits, self.now.clone())];
        self.check();
    }

    /// What a caller without a log does after a crash: restores the last checkpoint, or begins anew.
    fn start_over(&mut self) {
        self.forget();
        self.dir = self.new_dir();
        let Some((saved, state)) = self.saved.last().cloned() else {
            self.go_on(State::default());
            return self.begin();
        };
        let (env, halted) = self.env_beside();
        let restored = self.store().and_then(|store| {
            restore(&store, &saved, ALL, &self.dir, self.config.options.clone(), env)
        });
        self.adopt(restored.expect("a saved checkpoint survives"), halted, &state);
    }

    /// Goes on with another database, which holds `state`.
    pub(super) fn adopt(&mut self, db: Db, halted: Arc<AtomicBool>, state: &State) {
        self.forget();
        self.repair();
        (self.db, self.halted, self.paused) = (Some(db), halted, false);
        (self.opened, self.was_out_of_order) = (self.before(), false);
        let found = self.open_families().expect("an intact database");
        assert!(alike(&found, state), "found {found:?} instead of {state:?}");
        self.go_on(found);
    }

    /// The outcome of a call on another database, or on the store.
    pub(super) fn tolerate_beside<T>(&self, before: Before, outcome: Result<T>) -> Option<T> {
        let excused = self.struck_since(before) || self.out_of_order;
        outcome.inspect_err(|error| assert!(excused, "failed for nothing: {error}")).ok()
    }

    /// What may be found when nothing that was written is lost.
    fn certain(&self) -> Vec<State> {
        std::iter::once(&self.now).chain(self.unknown.last()).cloned().collect()
    }

    /// A clean end, and a new beginning, perhaps with the log switched on or off.
    pub(super) fn close(&mut self, change_log: bool, fault: Option<&Fault>) {
        self.let_go();
        let before = self.before();
        let db = self.db.take().expect("open");
        let closed = match self.openings.is_multiple_of(2) {
            true => db.close(),
            false => db.close_at(self.checkpoint_ids),
        };
        let closed = self.tolerate(before, closed).is_some();
        let allowed = self.certain();
        // What was closed survives even the power; what was not, only the process.
        let keep = if closed { Keep::Nothing } else { Keep::All };
        self.crash(keep, 0);
        let options = &mut self.config.options;
        if closed && change_log && !options.sync {
            options.log = !options.log;
        }
        match closed {
            true => self.reopen(&allowed[..1], End::Closed, fault),
            false => self.reopen(&allowed, End::Perhaps, fault),
        }
    }

    /// The process dies; what it wrote is in the system's memory.
    pub(super) fn kill(&mut self, fault: Option<&Fault>) {
        self.let_go();
        self.db = None;
        self.crash(Keep::All, 0);
        self.reopen(&self.certain(), End::Dead, fault);
    }

    /// The power is cut.
    pub(super) fn power_cut(&mut self, keep: u8, seed: u8, fault: Option<&Fault>) {
        let keep = [Keep::Nothing, Keep::Torn, Keep::Torn, Keep::All][usize::from(keep) % 4];
        if keep == Keep::All || self.disk.memory.is_none() {
            return self.kill(fault);
        }
        // Held things are looked at after the power went: they must not touch the image.
        let lost = self.disk.memory.as_ref().map(|memory| memory.crash_image(keep, seed.into()));
        self.let_go();
        self.db = None;
        self.disk.memory = lost;
        self.connect();
        let mut allowed: Vec<State> =
            self.possible.iter().rev().map(|(_, state)| state.clone()).collect();
        allowed.append(&mut self.unknown);
        self.reopen(&allowed, End::Dead, fault);
    }

    /// Replaces the disk by what a crash leaves of it. After a failed sync, a process that goes on with
    /// the same pages in memory cannot know what is on disk: nothing is claimed then.
    fn crash(&mut self, keep: Keep, seed: u64) {
        if let Some(memory) = &mut self.disk.memory {
            *memory = memory.crash_image(keep, seed);
            self.connect();
        }
    }

    fn connect(&mut self) {
        let memory = self.disk.memory.as_ref().expect("a disk in memory");
        self.disk.fs = Arc::new(memory.clone());
        self.faults = FaultFs::new(Arc::clone(&self.disk.fs));
        self.fs = Arc::new(self.faults.clone());
    }

    /// Leaves room for so many bytes.
    pub(super) fn fill_disk(&mut self, bytes: u32) {
        if let Some(memory) = &self.disk.memory {
            memory.set_capacity(Some(memory.total_bytes() + u64::from(bytes)));
            (self.out_of_order, self.was_out_of_order) = (true, true);
        }
    }

    /// The disk takes so many more changes, and then none.
    pub(super) fn lose_power(&mut self, after: u8) {
        if let Some(memory) = &self.disk.memory {
            memory.crash_after(Some(memory.ops() + u64::from(after)));
            (self.out_of_order, self.was_out_of_order) = (true, true);
        }
    }

    /// The disk works again. What has halted stays so.
    pub(super) fn repair(&mut self) {
        self.faults.clear();
        if let Some(memory) = &self.disk.memory {
            memory.set_capacity(None);
            memory.crash_after(None);
        }
        self.out_of_order = false;
    }

    /// Ends a program: everything is there, and nothing else on the disk.
    pub fn finish(&mut self) {
        self.repair();
        self.kill_if_halted();
        self.db().pause_compactions(false);
        self.paused = false;
        self.db().wait_idle().expect("background work");
        self.let_go();
        self.close(false, None);
        self.db().wait_idle().expect("background work");
        self.verify();
        if self.background != Background::Inline {
            return; // what is obsolete goes when a thread comes to it
        }
        let live: usize = self.db().stats().families.iter().flat_map(|family| family.files).sum();
        while self.db().step(0).expect("nothing to do") {}
        let listed = self.disk.fs.list(&self.dir).expect("the directory is there");
        let count = |suffix: &str| listed.iter().filter(|f| f.name.ends_with(suffix)).count();
        assert_eq!((count(".sst"), count(".manifest")), (live, 1), "left over: {listed:?}");
    }

    fn kill_if_halted(&mut self) {
        if self.is_halted() {
            self.kill(None);
        }
    }
}
