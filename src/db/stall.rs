//! When writers wait, for what, and for how long.

use std::time::Duration;

use crate::base::canary::Canary;
use crate::base::error::{Error, Result};
use crate::base::sync::{Arc, Ordering};
use crate::db::background::Versions;
use crate::db::column_family::Family;
use crate::db::core::{Core, attention};
use crate::db::stats::{Event, count};

/// A waiting writer looks again this often, and asks for the work to be tried again.
const SLICE_MS: u64 = 50;

/// How long a writer is held up, at most, when memory or level 0 is nearly full.
const SLOW_MS: u64 = 10;

/// Why writers should not go on.
enum Stall {
    /// For work that is under way.
    Wait(String),
    /// For somebody to let go of memory: no work frees it.
    Pinned(String),
}

impl Core {
    /// Why writers should not go on now.
    fn stall(&self) -> Option<Stall> {
        let mut waiting = 0;
        for family in self.families.read().values() {
            let now = family.cell.load();
            waiting += now.immutables.len();
            if now.immutables.len() > self.options.immutables_max {
                let count = now.immutables.len();
                let text = format!("{:?}: {count} memtables wait to be flushed", family.name);
                return Some(Stall::Wait(text));
            }
            let depth = now.version.overlap_depth_l0();
            if depth >= self.options.l0_stop_depth {
                let text = format!("{:?}: {depth} tables overlap in level 0", family.name);
                return Some(Stall::Wait(text));
            }
        }
        let (used, limit) = (self.env.budget.used(), self.env.budget.limit());
        let over = used.checked_sub(limit).filter(|over| *over > 0)?;
        let text = format!("{used} bytes of memory of {limit}");
        if waiting > 0 {
            return Some(Stall::Wait(format!("{text}; {waiting} memtables wait")));
        }
        self.holders.blame(over).map(|who| Stall::Pinned(format!("{text}; {who}")))
    }

    /// Sets or clears the stall. Under the lock, so that a late look never overrides a newer one.
    pub fn update_stall(&self) {
        let versions = self.versions.lock();
        self.update_stall_locked(&versions);
    }

    pub fn update_stall_locked(&self, _versions: &Versions) {
        match self.stall() {
            Some(_) => self.attention.fetch_or(attention::STALL, Ordering::Release),
            None => self.attention.fetch_and(!attention::STALL, Ordering::Release),
        };
    }

    /// Waits until writers may go on: in a bounded line, with a reason; not at all for memory that no
    /// work frees. Called by the leader, which holds the commit lock; background jobs never take it.
    pub fn wait_for_room(&self) -> Result<()> {
        let mut waited_ms = 0;
        let mut told = false;
        self.forget_failures();
        while let Some(stall) = self.stall() {
            let busy = |reason| Err(Error::busy(format!("writers stalled: {reason}")));
            let reason = match stall {
                Stall::Wait(reason) => reason,
                Stall::Pinned(reason) => return busy(reason),
            };
            if !std::mem::replace(&mut told, true) {
                count(&self.counters.stalls, 1);
                self.tell(&Event::Stalled { reason: reason.clone() });
            }
            self.check_halted()?;
            if self.stopping.load(Ordering::Acquire) {
                return busy(reason); // nobody works on it any more
            }
            if waited_ms >= self.options.stall_ms_max {
                return busy(reason);
            }
            if self.is_inline() {
                if !self.step(0)? {
                    return busy(reason);
                }
            } else {
                self.signals.work();
                let mut versions = self.versions.lock();
                let failed =
                    versions.flush_error.take().or_else(|| versions.compaction_error.take());
                if let Some(error) = failed {
                    return Err(error);
                }
                // Asked again under the lock: what has ended the wait since was announced to nobody.
                let over =
                    self.check_halted().is_err() || !matches!(self.stall(), Some(Stall::Wait(_)));
                if over && !Canary::WaitsWithoutAsking.is_planted() {
                    continue;
                }
                let slice = Duration::from_millis(SLICE_MS);
                if self.progress.wait_for(&mut versions, slice).timed_out() {
                    waited_ms += SLICE_MS;
                }
            }
        }
        self.update_stall();
        if told {
            self.tell(&Event::Resumed);
        }
        Ok(())
    }

    /// Memory is nearly used up, and a memtable has just taken more: if memtables are being flushed, the
    /// writer waits a moment for them, now and when it takes more again, instead of for long at the end.
    pub fn slow_down(&self) {
        let waits = |family: &Arc<Family>| !family.cell.load().immutables.is_empty();
        if !self.is_inline() && self.families.read().values().any(waits) {
            let mut versions = self.versions.lock();
            self.progress.wait_for(&mut versions, Duration::from_millis(SLOW_MS));
        }
    }

    /// A memtable has just taken more memory, and level 0 is more than half as deep as it may be: the
    /// writer waits a moment, longer the deeper it is, instead of for a whole compaction at the end.
    pub fn hold_back(&self) {
        let half = self.options.l0_stop_depth / 2;
        let depth = |family: &Arc<Family>| family.cell.load().version.overlap_depth_l0();
        let depth = self.families.read().values().map(depth).max().unwrap_or(0);
        if !self.is_inline() && depth > half {
            let part = (depth - half).min(half.max(1)) as u64;
            let mut versions = self.versions.lock();
            let moment = Duration::from_micros(1000 * SLOW_MS * part / half.max(1) as u64);
            self.progress.wait_for(&mut versions, moment);
        }
    }

    /// What failed before one began to wait is tried again.
    fn forget_failures(&self) {
        let mut versions = self.versions.lock();
        (versions.flush_error, versions.compaction_error) = (None, None);
    }

    /// Blocks until `done` says so, driving or awaiting the background.
    pub fn drive(&self, mut done: impl FnMut(&mut Versions) -> Option<Result<()>>) -> Result<()> {
        self.forget_failures();
        loop {
            let mut versions = self.versions.lock();
            if let Some(outcome) = done(&mut versions) {
                return outcome;
            }
            self.check_halted()?;
            if let Some(error) = versions.flush_error.take() {
                return Err(error);
            }
            if self.is_inline() {
                drop(versions);
                if !self.step(0)? {
                    return Err(Error::busy("background work cannot go on"));
                }
            } else {
                self.signals.work();
                self.progress.wait_for(&mut versions, Duration::from_millis(SLICE_MS));
            }
        }
    }
}
