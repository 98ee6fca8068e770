//! Which states of a backend expire.

use crate::ColumnFamily;
use crate::ColumnFamilyOptions;
use crate::StateBackend;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::meta::StateKind;
use crate::state::ttl::STAMPED;
use crate::state::ttl::Ttl;
use crate::state::ttl::TtlConfig;
use crate::state::ttl::TtlUpdate;
use crate::state::ttl::cleanup::LastAccess;
use crate::state::ttl::cleanup::TtlFilterFactory;

/// Often enough that little expires between two looks; rarely enough that looking costs nothing.
const LOOKS_PER_TTL: i64 = 32;

impl<K: 'static> StateBackend<K> {
    /// How the values of a state expire, if they do.
    pub(in crate::state) fn ttl(&self, name: &str, kind: StateKind) -> Option<Arc<Ttl>> {
        let config = self.options.ttl.get(name).filter(|c| c.update != TtlUpdate::Disabled)?;
        let time = self.time.as_ref().filter(|_| kind != StateKind::Timers)?;
        Some(Arc::new(Ttl::new(config.clone(), Arc::clone(time))))
    }

    /// Are all values of a state stored with a time?
    fn is_stamped(&self, name: &str) -> bool {
        let forms = self.meta.forms(name);
        !forms.is_empty() && forms.iter().all(|form| form.record.value.name == STAMPED)
    }

    fn family_options(&self, name: &str, kind: StateKind) -> ColumnFamilyOptions {
        let mut options = self.options.family(name, kind);
        // Values without a time, which are yet to be migrated, must not meet the filter.
        let ttl = self.ttl(name, kind).filter(|_| self.is_stamped(name));
        if let Some(ttl) = ttl {
            options.timestamp = Some(Arc::new(LastAccess(kind)));
            if ttl.cleans_up() {
                options.compaction_filter = Some(Arc::new(TtlFilterFactory::new(ttl, kind)));
            }
        }
        options
    }

    /// The family of a state, with what its values need as they are stored now.
    pub(in crate::state) fn family(&self, name: &str, kind: StateKind) -> Result<ColumnFamily> {
        self.db.column_family(name, self.family_options(name, kind))
    }

    /// Has background work look for what has expired, of all states with a time to live, if the clock
    /// has gone on by a 32nd of the shortest of these times since it last did. Returns at once; costs a
    /// look at the clock.
    ///
    /// Nobody needs to call it who takes checkpoints or asks timer services for what is due: each
    /// [`checkpoint`](StateBackend::checkpoint) does the same, and so does a timer service whenever it
    /// has nothing more that is due. It is for tasks that do neither, and write little: flushes have the
    /// background look anyway. After it has looked, what has expired takes on disk a tenth of what has
    /// not, and a table a level, if values are written evenly over time; else, what expired a tenth of
    /// its table's span of times ago does.
    pub fn look_for_expired(&self) {
        let Some((time, step)) = self.time.as_ref().zip(self.look_step) else { return };
        if time.has_gone_on(step) {
            self.db.wake();
        }
    }

    /// Removes from disk what has expired, of all states with a time to live, without reading it where
    /// whole tables have: see [`Db::drop_expired`](crate::Db::drop_expired). What is still in memory
    /// stays until it is flushed. The background does the same by itself, when it looks: after each
    /// flush, and when it is told to by [`look_for_expired`](StateBackend::look_for_expired); this one
    /// waits until it is done.
    ///
    /// # Errors
    /// Those of the database.
    pub fn drop_expired(&self) -> Result<()> {
        let states: Vec<(String, StateKind)> =
            self.states().map(|(name, kind)| (name.to_owned(), kind)).collect();
        for (name, kind) in states {
            if self.ttl(&name, kind).is_some() {
                self.db.drop_expired(&self.family(&name, kind)?)?;
            }
        }
        Ok(())
    }
}

/// After what span of time background work is to look for what has expired, if anything does.
pub(in crate::state) fn look_step<'a>(
    configs: impl IntoIterator<Item = &'a TtlConfig>,
) -> Option<i64> {
    let expires = |c: &&TtlConfig| c.update != TtlUpdate::Disabled && c.cleanup_in_background;
    let shortest = configs.into_iter().filter(expires).map(|config| config.ttl).min()?;
    Some((shortest / LOOKS_PER_TTL).max(1))
}
