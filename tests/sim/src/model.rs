//! The versioned model: every state the database has had, and what was promised at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a database holds, by family. A family without an entry is empty or does not exist.
pub type State = BTreeMap<String, Map>;

/// A found contradiction, in words.
pub type Check<T = ()> = Result<T, String>;

/// Fails with the text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}
pub(crate) use ensure;

/// Where a database is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Opening,
    Open,
    Closing,
    Closed,
}

/// What holds from a moment on.
#[derive(Clone, Debug)]
pub struct Promise {
    /// Effects that were recorded before this moment.
    pub at: usize,
    /// The newest state that may be found: its commit has begun.
    pub issued: usize,
    /// The newest state whose commit has returned: the death of the process does not lose it.
    pub acked: usize,
    /// No power cut loses this state.
    pub durable: usize,
    /// Families that exist.
    pub families: BTreeSet<String>,
    /// The family that is being created or dropped.
    pub changing: Option<String>,
    pub phase: Phase,
    /// The log is on, or it was when the last opening began.
    pub log: bool,
    /// Checkpoints that are in the store, with their state.
    pub saved: BTreeMap<u64, usize>,
    /// Checkpoints that may be.
    pub saving: BTreeMap<u64, usize>,
    /// A checkpoint is being restored, or has been: to this directory, with this state.
    pub restoring: Option<(String, usize, bool)>,
}

/// All states, and all promises.
pub struct History {
    pub states: Vec<Arc<State>>,
    pub promises: Vec<Promise>,
}

impl History {
    pub fn new(log: bool) -> History {
        let promise = Promise {
            at: 0,
            issued: 0,
            acked: 0,
            durable: 0,
            families: BTreeSet::new(),
            changing: None,
            phase: Phase::Closed,
            log,
            saved: BTreeMap::new(),
            saving: BTreeMap::new(),
            restoring: None,
        };
        History { states: vec![Arc::default()], promises: vec![promise] }
    }

    pub fn now(&self) -> &Promise {
        self.promises.last().expect("there is a first one")
    }

    /// From now on, that is from after `at` effects, something else holds.
    pub fn promise(&mut self, at: usize, change: impl FnOnce(&mut Promise)) {
        let mut next = Promise { at, ..self.now().clone() };
        change(&mut next);
        match self.promises.last_mut() {
            Some(last) if last.at == at => *last = next,
            _ => self.promises.push(next),
        }
    }

    /// The state that reads see.
    pub fn current(&self) -> &Arc<State> {
        &self.states[self.now().acked]
    }

    /// What holds after `point` effects.
    pub fn at(&self, point: usize) -> &Promise {
        let after = self.promises.partition_point(|promise| promise.at <= point);
        &self.promises[after.max(1) - 1]
    }

    /// Which state this is, if it may be found: not older than `least`.
    pub fn find(&self, found: &State, promise: &Promise, least: usize) -> Check<usize> {
        let exists = |name: &String| {
            promise.families.contains(name) || promise.changing.as_ref() == Some(name)
        };
        if let Some(name) = found.keys().find(|name| !exists(name)) {
            return Err(format!("family {name:?} exists"));
        }
        for name in &promise.families {
            let here = found.contains_key(name) || promise.changing.as_ref() == Some(name);
            ensure!(here, "family {name:?} is gone");
        }
        for at in (least..=promise.issued).rev() {
            if same(found, &self.states[at]) {
                return Ok(at);
            }
        }
        let older = (0..least).rev().find(|at| same(found, &self.states[*at]));
        let what = match older {
            Some(at) => format!("state {at}"),
            None => format!("no prefix; {}", difference(found, &self.states[promise.acked])),
        };
        let Promise { durable, acked, issued, .. } = promise;
        Err(format!(
            "found {what}; least {least}, durable {durable}, acked {acked}, issued {issued}"
        ))
    }
}

/// A family that a state does not have was created later.
fn same(found: &State, state: &State) -> bool {
    let maps = found.iter().all(|(name, map)| match state.get(name) {
        Some(wanted) => wanted == map,
        None => map.is_empty(),
    });
    maps && state.keys().all(|name| found.contains_key(name))
}

/// The first difference, for people.
fn difference(found: &State, wanted: &State) -> String {
    let empty = Map::new();
    for (name, map) in found {
        let wanted = wanted.get(name).unwrap_or(&empty);
        let keys: BTreeSet<&Vec<u8>> = map.keys().chain(wanted.keys()).collect();
        if let Some(key) = keys.into_iter().find(|key| map.get(*key) != wanted.get(*key)) {
            let (found, wanted) = (brief(map.get(key)), brief(wanted.get(key)));
            return format!("{name}: {key:?} is {found}, last {wanted}");
        }
    }
    "families differ".to_owned()
}

fn brief(value: Option<&Vec<u8>>) -> String {
    value.map_or("absent".to_owned(), |value| {
        let text: String = String::from_utf8_lossy(value).chars().take(24).collect();
        format!("{text:?} ({} bytes)", value.len())
    })
}
