//! Stores that lose answers, do things twice, or list what was there some time ago.

use super::*;
use crate::ReadableFile;
use crate::base::bytes::Bytes;
use crate::base::error::Error;
use crate::base::error::ErrorKind;
use crate::base::sync::Mutex;
use crate::checkpoint::registry::Registry;
use crate::checkpoint::restore::load;
use crate::checkpoint::save::save;
use crate::checkpoint::store::Stored;

/// A store in which one call goes wrong.
struct Flaky {
    inner: DirStore,
    fate: Mutex<Option<Fate>>,
}

#[derive(Clone, Copy)]
enum Fate {
    /// The request is lost.
    PutLost { envelope: bool },
    /// The request is done, and its answer is lost.
    PutUnanswered { envelope: bool },
    /// The request is done twice: the answer is that of the second.
    PutTwice { envelope: bool },
    /// Deletions are not done.
    DeleteLost,
}

impl CheckpointStore for Flaky {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        let is_envelope = matches!(name, ObjectName::Checkpoint(_));
        let mut fate = self.fate.lock();
        let lost = Error::new(ErrorKind::Io, "connection reset");
        match *fate {
            Some(Fate::PutLost { envelope }) if envelope == is_envelope => {
                *fate = None;
                Err(lost)
            }
            Some(Fate::PutUnanswered { envelope }) if envelope == is_envelope => {
                self.inner.put_new(name, source)?;
                *fate = None;
                Err(lost)
            }
            Some(Fate::PutTwice { envelope }) if envelope == is_envelope => {
                self.inner.put_new(name, source)?;
                *fate = None;
                self.inner.put_new(name, &mut std::iter::empty())
            }
            _ => self.inner.put_new(name, source),
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        self.inner.get(name)
    }

    fn list(&self) -> Result<Vec<Stored>> {
        self.inner.list()
    }

    fn list_is_complete(&self) -> bool {
        self.inner.list_is_complete()
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        match *self.fate.lock() {
            Some(Fate::DeleteLost) => Err(Error::new(ErrorKind::Io, "connection reset")),
            _ => self.inner.delete(name),
        }
    }
}

#[test]
fn answers_that_are_lost_cost_no_data() {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(12));
    let mut state = State::new(&fs, "a", 0..=63, 12);
    state.churn(rng, 1500);
    let set = state.capture();
    let tables = set.tables().count();
    let flaky = Arc::new(Flaky { inner: store(&fs), fate: Mutex::new(None) });
    let registry = Registry::open(Arc::<Flaky>::clone(&flaky), 1).unwrap();
    let attempt = |id, fate| {
        *flaky.fate.lock() = Some(fate);
        registry.save(&job(id, vec![state.part(&set)]))
    };
    // Whether the envelope is there cannot be said, and so nothing is deleted.
    let unknown = attempt(1, Fate::PutLost { envelope: true }).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::CommitUnknown);
    assert_eq!(load(&*flaky, 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(objects(&*flaky), tables);
    assert_eq!(registry.sweep().unwrap_err().kind(), ErrorKind::Busy);
    registry.abort(1).unwrap();
    registry.sweep().unwrap();
    assert_eq!(flaky.list().unwrap(), []);
    let unknown = attempt(2, Fate::PutUnanswered { envelope: true }).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::CommitUnknown);
    registry.confirm(&load(&*flaky, 2).unwrap()).unwrap();
    restored(&fs, &registry.base().unwrap(), 0..=63, "r2", &state.model);
    // The store repeats a request by itself.
    let saved = attempt(3, Fate::PutTwice { envelope: true }).unwrap();
    assert_eq!((saved.files_new, saved.files_reused), (0, tables));
    registry.abort(3).unwrap();
    let full = |id, fate| {
        *flaky.fate.lock() = Some(fate);
        save(&*flaky, &job(id, vec![state.part(&set)]), None)
    };
    let saved = full(4, Fate::PutTwice { envelope: false }).unwrap();
    assert_eq!(saved.files_new, tables);
    restored(&fs, &saved, 0..=63, "r4", &state.model);
    // An object of which nobody knows whether it is there is left to the sweep.
    let before = objects(&*flaky);
    for fate in [Fate::PutLost { envelope: false }, Fate::PutUnanswered { envelope: false }] {
        assert_eq!(full(5, fate).unwrap_err().kind(), ErrorKind::Io);
    }
    assert_eq!(objects(&*flaky), before + 1);
    let registry = Registry::open(Arc::<Flaky>::clone(&flaky), 1).unwrap();
    assert_eq!((registry.retained(), objects(&*flaky)), (vec![4], tables));
    // Deletions that fail are made up for.
    *flaky.fate.lock() = Some(Fate::DeleteLost);
    let saved = registry.save(&job(6, vec![])).unwrap();
    assert_eq!(registry.confirm(&saved).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!((registry.retained(), objects(&*flaky)), (vec![6], tables));
    assert_eq!(load(&*flaky, 4).unwrap().id, 4, "still whole");
    *flaky.fate.lock() = None;
    registry.sweep().unwrap();
    assert_eq!(flaky.list().unwrap().len(), 1);
}

/// A store whose lists lack envelopes that were put some time ago.
struct Stale {
    inner: DirStore,
    /// Envelopes from this one on are not listed yet.
    from: Mutex<u64>,
    claims: bool,
}

impl CheckpointStore for Stale {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        self.inner.put_new(name, source)
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        self.inner.get(name)
    }

    fn list(&self) -> Result<Vec<Stored>> {
        let mut all = self.inner.list()?;
        let from = *self.from.lock();
        all.retain(|stored| !matches!(stored.name, ObjectName::Checkpoint(id) if id >= from));
        Ok(all)
    }

    fn list_is_complete(&self) -> bool {
        self.claims
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.inner.delete(name)
    }
}

/// Two checkpoints of one database in a store whose list shows the first envelope only; `claims`: and
/// which says that it shows all.
fn half_listed(claims: bool) -> (Arc<dyn Fs>, Arc<Stale>, State, Vec<Saved>) {
    let (fs, rng) = (disk(&MemFs::new()), &mut Rng::new(14));
    let mut state = State::new(&fs, "a", 0..=63, 14);
    let stale = Arc::new(Stale { inner: store(&fs), from: Mutex::new(u64::MAX), claims });
    let mut saved: Vec<Saved> = Vec::new();
    for id in 1..3 {
        state.churn(rng, 900);
        let set = state.capture();
        saved.push(save(&*stale, &job(id, vec![state.part(&set)]), saved.last()).unwrap());
    }
    *stale.from.lock() = 2;
    (fs, stale, state, saved)
}

#[test]
fn a_stale_list_costs_no_checkpoint() {
    let (fs, stale, mut state, saved) = half_listed(false);
    let (rng, model) = (&mut Rng::new(15), state.model.clone());
    let before = stale.inner.list().unwrap();
    let registry = Registry::open(Arc::<Stale>::clone(&stale), 2).unwrap();
    assert_eq!(registry.retained(), [1], "all that is known");
    assert_eq!(registry.sweep().unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(registry.begin(2).unwrap().unwrap().id, 1);
    registry.abort(2).unwrap();
    let attempt = |state: &mut State, id, rng: &mut Rng| {
        state.churn(rng, 300);
        let set = state.capture();
        let saved = registry.save(&job(id, vec![state.part(&set)])).unwrap();
        registry.confirm(&saved).unwrap();
        saved
    };
    // As long as the list shows nothing new, nothing is known to be complete.
    for id in [3, 4] {
        attempt(&mut state, id, rng);
        verify(&*stale, &saved[1]).unwrap();
    }
    assert_eq!(registry.retained(), [1, 3, 4]);
    assert!(stale.inner.list().unwrap().len() > before.len());
    restored(&fs, &saved[1], 0..=63, "r2", &model);
    // Now it does: the second is known, and may go like any other.
    *stale.from.lock() = u64::MAX;
    attempt(&mut state, 5, rng);
    assert_eq!(registry.retained(), [4, 5]);
    let known = |id| load(&*stale, id).map(|saved| verify(&*stale, &saved)).is_ok();
    assert_eq!([1, 2, 3, 4, 5].map(known), [false, false, false, true, true]);
    let kept = [4, 5].map(|id| load(&*stale, id).unwrap().envelope.objects);
    let names: std::collections::BTreeSet<_> = kept.iter().flatten().map(|o| &o.name).collect();
    assert_eq!(objects(&*stale), names.len());
}

/// What the rule is for: a store that claims what is not true loses the second checkpoint.
#[test]
fn a_list_that_claims_to_be_complete_is_believed() {
    let (_, stale, _, saved) = half_listed(true);
    Registry::open(Arc::<Stale>::clone(&stale), 2).unwrap();
    verify(&*stale, &saved[0]).unwrap();
    assert!(verify(&*stale, &saved[1]).is_err());
}
