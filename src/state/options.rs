//! What a backend is for, and how its database is set up.

use std::collections::BTreeMap;

use crate::ColumnFamilyOptions;
use crate::Options;
use crate::base::error::Error;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::key_group::KeyGroupRange;
use crate::state::key_group::PREFIX_BYTES;
use crate::state::key_group::check_max_parallelism;
use crate::state::key_group::key_group_range;
use crate::state::list::ListAppend;
use crate::state::meta::StateKind;
use crate::state::ttl::Clock;
use crate::state::ttl::TtlConfig;

/// What a backend is for, and how its database is set up: Flink's `state.backend.*` options and
/// parameters of a backend.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// Number of key groups of the job: the most instances it can ever have. Fixed for good.
    pub max_parallelism: u32,
    /// The groups whose keys this backend takes.
    pub key_groups: KeyGroupRange,
    /// Of the database. The log is off by default: what a crash loses, a checkpoint gives back.
    pub db: Options,
    /// Of every state's column family; the backend adds the merge operator.
    pub family: ColumnFamilyOptions,
    /// Of the column families of single states, by name, instead of `family`.
    pub states: BTreeMap<String, ColumnFamilyOptions>,
    /// How many timers of each key group and queue are read at once, and held in memory. Less if
    /// there are very many key groups. Flink's `timer-service.cache-size`. Default: 128.
    pub timer_cache: usize,
    /// The states whose values expire, by name; they need a `clock`. A state can be given a time to
    /// live, another one or none whenever the backend is opened: values that had none are counted from
    /// then on, and those that have none any more come back, even if they had expired.
    pub ttl: BTreeMap<String, TtlConfig>,
    /// Tells the time for `ttl`.
    pub clock: Option<Clock>,
}

impl BackendOptions {
    /// The defaults for these key groups.
    pub fn new(max_parallelism: u32, key_groups: KeyGroupRange) -> BackendOptions {
        let key_group_bytes = PREFIX_BYTES as u8;
        BackendOptions {
            max_parallelism,
            key_groups,
            db: Options { log: false, ..Options::default() },
            family: ColumnFamilyOptions { key_group_bytes, ..ColumnFamilyOptions::default() },
            states: BTreeMap::new(),
            timer_cache: 128,
            ttl: BTreeMap::new(),
            clock: None,
        }
    }

    /// The defaults for operator instance `index` of `parallelism`.
    ///
    /// # Errors
    /// `InvalidArgument` as [`key_group_range`](crate::key_group_range).
    pub fn for_instance(
        max_parallelism: u32,
        parallelism: u32,
        index: u32,
    ) -> Result<BackendOptions> {
        let key_groups = key_group_range(max_parallelism, parallelism, index)?;
        Ok(BackendOptions::new(max_parallelism, key_groups))
    }

    /// # Errors
    /// `InvalidArgument`: key groups over the max parallelism, or that is out of bounds.
    pub(in crate::state) fn check(&self) -> Result<()> {
        check_max_parallelism(self.max_parallelism)?;
        if u32::from(self.key_groups.end()) >= self.max_parallelism {
            return Err(Error::invalid(format!(
                "key groups {} of only {}",
                self.key_groups, self.max_parallelism
            )));
        }
        if self.clock.is_none() && !self.ttl.is_empty() {
            return Err(Error::invalid("a time to live needs a clock"));
        }
        Ok(())
    }

    /// Of the family of this state.
    pub(in crate::state) fn family(&self, name: &str, kind: StateKind) -> ColumnFamilyOptions {
        let mut options = self.states.get(name).unwrap_or(&self.family).clone();
        options.key_group_bytes = PREFIX_BYTES as u8;
        if kind == StateKind::List {
            options.merge_operator = Some(Arc::new(ListAppend));
        }
        options
    }
}
