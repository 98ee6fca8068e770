//! Which checkpoints are kept, and the only one who deletes.
//!
//! An object is deleted if and only if the checkpoint that named it is given up, and no checkpoint
//! that is kept or under way names it: by reference, never by age.
//!
//! So all envelopes must be known before anything is deleted, and a list may be stale: it may show the
//! objects of a checkpoint and not yet its envelope. Unless the store's lists are complete, a registry
//! begins without deleting. Once a checkpoint that was saved under it shows in a list, so does all that
//! was there before: then it reads the envelopes that it did not know, and deletes from there on.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::base::canary::Canary;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::base::sync::Mutex;
use crate::checkpoint::restore::load;
use crate::checkpoint::save::JobCheckpoint;
use crate::checkpoint::save::Saved;
use crate::checkpoint::save::save;
use crate::checkpoint::store::CheckpointStore;
use crate::checkpoint::store::ObjectName;
use crate::checkpoint::store::SharedName;
use crate::checkpoint::store::Stored;

/// The checkpoints of one store: one registry per store, and nobody else deletes.
pub struct Registry {
    store: Arc<dyn CheckpointStore>,
    retained: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// All envelopes of the store are known. Before, nothing is deleted.
    complete: bool,
    confirmed: BTreeMap<u64, Saved>,
    /// Checkpoints under way, and those that perhaps exist, each with the base it may refer to.
    pending: BTreeMap<u64, Option<Saved>>,
    /// Checkpoints that are given up and whose envelope may still be there.
    doomed: BTreeMap<u64, Saved>,
    /// Objects of checkpoints whose envelope is gone: deleted as soon as nothing else names them.
    loose: BTreeSet<SharedName>,
    /// Those whose deletion failed, and which are perhaps gone. Deleting them again while a
    /// checkpoint is under way could meet an object that it has put under the same name.
    stuck: BTreeSet<SharedName>,
}

impl Registry {
    /// Takes charge of a store: all checkpoints found there count as confirmed; all but the
    /// `retained` newest are deleted, and so is every object that no checkpoint names. No checkpoint
    /// may be on its way into the store. If the store's lists may be incomplete
    /// ([`CheckpointStore::list_is_complete`]), the deleting begins when a checkpoint has been confirmed.
    ///
    /// # Errors
    /// `InvalidArgument` if none is to be kept. If an envelope cannot be read: that error, and nothing
    /// was deleted, as it is not known what that checkpoint needs. Those of deleting.
    pub fn open(store: Arc<dyn CheckpointStore>, retained: usize) -> Result<Registry> {
        if retained == 0 {
            return Err(Error::invalid("at least one checkpoint must be kept"));
        }
        let state = State { complete: store.list_is_complete(), ..State::default() };
        let registry = Registry { store, retained, state: Mutex::new(state) };
        let mut state = registry.state.lock();
        registry.read_envelopes(&mut state, &registry.store.list()?)?;
        let complete = state.complete;
        drop(state);
        if complete {
            registry.sweep()?;
        }
        Ok(registry)
    }

    /// Reads the envelopes that a list shows and that are not known yet.
    fn read_envelopes(&self, state: &mut State, listed: &[Stored]) -> Result<()> {
        for stored in listed {
            let ObjectName::Checkpoint(id) = stored.name else { continue };
            if state.knows(id) {
                continue;
            }
            match load(&*self.store, id) {
                Ok(saved) => drop(state.confirmed.insert(id, saved)),
                // An old list shows what has been deleted.
                Err(e) if e.kind() == ErrorKind::NotFound && !self.store.list_is_complete() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Looks whether a list shows `newest`, which was put while this registry was in charge: then it
    /// shows every envelope that was there when it began.
    fn complete(&self, state: &mut State, newest: u64) -> Result<()> {
        let listed = self.store.list()?;
        if !listed.iter().any(|stored| stored.name == ObjectName::Checkpoint(newest)) {
            return Ok(());
        }
        self.read_envelopes(state, &listed)?;
        state.complete = true;
        if state.pending.is_empty() {
            state.loosen(listed);
        }
        Ok(())
    }

    /// The newest confirmed checkpoint: the base of the next one, and what to restore.
    pub fn base(&self) -> Option<Saved> {
        self.state.lock().base()
    }

    /// The ids of the checkpoints that are kept, ascending.
    pub fn retained(&self) -> Vec<u64> {
        self.state.lock().confirmed.keys().copied().collect()
    }

    /// Announces a checkpoint and returns the base to save it with. From now on until it is
    /// confirmed or aborted nothing is deleted that the base names.
    ///
    /// # Errors
    /// `InvalidArgument`: the id is under way already, or not greater than those confirmed.
    pub fn begin(&self, id: u64) -> Result<Option<Saved>> {
        let mut state = self.state.lock();
        let taken = state.confirmed.last_key_value().is_some_and(|(&newest, _)| id <= newest);
        if taken || state.pending.contains_key(&id) || state.doomed.contains_key(&id) {
            return Err(Error::invalid(format!("checkpoint {id} exists, or is too old")));
        }
        let base = state.base();
        state.pending.insert(id, base.clone());
        Ok(base)
    }

    /// [`begin`](Registry::begin) and [`save`]: all that is left is to confirm or to abort.
    ///
    /// # Errors
    /// Those of both. After `CommitUnknown` the checkpoint stays pending, until it was loaded and
    /// confirmed, or aborted; after any other error it is not pending any more.
    pub fn save(&self, job: &JobCheckpoint<'_>) -> Result<Saved> {
        let base = self.begin(job.id)?;
        let saved = save(&*self.store, job, base.as_ref());
        if let Err(e) = &saved
            && e.kind() != ErrorKind::CommitUnknown
        {
            self.state.lock().pending.remove(&job.id);
        }
        saved
    }

    /// Keeps a checkpoint that was announced and saved, and gives up the oldest ones beyond the number
    /// to be kept. May be repeated and may come late: then it does nothing.
    ///
    /// # Errors
    /// `InvalidArgument`: it was not announced, or was aborted. Those of deleting: the checkpoint is
    /// confirmed all the same, and the rest of the deleting is left to the next call.
    pub fn confirm(&self, saved: &Saved) -> Result<()> {
        let mut state = self.state.lock();
        if state.pending.remove(&saved.id).is_some() {
            state.confirmed.insert(saved.id, saved.clone());
            if !state.complete {
                self.complete(&mut state, saved.id)?;
            }
            return self.collect(&mut state);
        }
        match state.confirmed.last_key_value() {
            Some((&newest, _)) if saved.id <= newest => Ok(()),
            _ => Err(Error::invalid(format!("checkpoint {} was not announced", saved.id))),
        }
    }

    /// Gives up a checkpoint that was announced, whether it has come into the store or not; saving it
    /// must have ended. Does nothing for any other id.
    ///
    /// # Errors
    /// Those of the store: call it again.
    pub fn abort(&self, id: u64) -> Result<()> {
        let mut state = self.state.lock();
        if !state.pending.contains_key(&id) {
            return Ok(());
        }
        match load(&*self.store, id) {
            Ok(saved) => drop(state.doomed.insert(id, saved)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        state.pending.remove(&id);
        self.collect(&mut state)
    }

    /// Deletes every object that no checkpoint names: what attempts that failed have left.
    ///
    /// # Errors
    /// `Busy` while a checkpoint is under way, since its objects have no envelope yet, and as long as
    /// not all envelopes are known. Those of the store.
    pub fn sweep(&self) -> Result<()> {
        let mut state = self.state.lock();
        if !state.pending.is_empty() {
            return Err(Error::busy("a checkpoint is under way"));
        }
        if !state.complete {
            return Err(Error::busy(
                "the store's list may be incomplete: confirm a checkpoint first",
            ));
        }
        self.collect(&mut state)?;
        state.loosen(self.store.list()?);
        self.collect(&mut state)
    }

    /// Deletes what may be deleted: envelopes first, so that each names only what is there.
    fn collect(&self, state: &mut State) -> Result<()> {
        if !state.complete {
            return Ok(());
        }
        while state.confirmed.len() > self.retained {
            let (id, saved) = state.confirmed.pop_first().expect("there are several");
            state.doomed.insert(id, saved);
        }
        let mut failure = None;
        for id in state.doomed.keys().copied().collect::<Vec<_>>() {
            match self.store.delete(&ObjectName::Checkpoint(id)) {
                Ok(()) => {
                    let saved = state.doomed.remove(&id).expect("its id was listed");
                    state.loose.extend(saved.envelope.objects.into_iter().map(|o| o.name));
                }
                Err(e) => drop(failure.get_or_insert(e)),
            }
        }
        if state.pending.is_empty() {
            let State { loose, stuck, .. } = &mut *state;
            loose.append(stuck);
        }
        let mut used = state.used();
        if Canary::AbortDeletesShared.is_planted() {
            used.clear();
        }
        for name in state.loose.difference(&used).cloned().collect::<Vec<_>>() {
            state.loose.remove(&name);
            if let Err(e) = self.store.delete(&ObjectName::Shared(name.clone())) {
                state.stuck.insert(name);
                failure.get_or_insert(e);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

impl State {
    fn base(&self) -> Option<Saved> {
        self.confirmed.last_key_value().map(|(_, saved)| saved.clone())
    }

    /// Is there an envelope with this id, or may there be one?
    fn knows(&self, id: u64) -> bool {
        let State { confirmed, pending, doomed, .. } = self;
        confirmed.contains_key(&id) || pending.contains_key(&id) || doomed.contains_key(&id)
    }

    /// Objects in the store are deleted as soon as nothing names them.
    fn loosen(&mut self, listed: Vec<Stored>) {
        for stored in listed {
            if let ObjectName::Shared(name) = stored.name {
                self.loose.insert(name);
            }
        }
    }

    /// All objects that must stay.
    fn used(&self) -> BTreeSet<SharedName> {
        let bases = self.pending.values().flatten();
        let kept = self.confirmed.values().chain(self.doomed.values()).chain(bases);
        kept.flat_map(|saved| &saved.envelope.objects).map(|object| object.name.clone()).collect()
    }
}
