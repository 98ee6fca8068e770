//! Which states of a backend expire.

use crate::ColumnFamily;
use crate::ColumnFamilyOptions;
use crate::StateBackend;
use crate::base::error::Result;
use crate::base::sync::Arc;
use crate::state::meta::StateKind;
use crate::state::ttl::STAMPED;
use crate::state::ttl::Ttl;
use crate::state::ttl::TtlUpdate;
use crate::state::ttl::cleanup::LastAccess;
use crate::state::ttl::cleanup::TtlFilterFactory;

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

    /// Removes from disk what has expired, of all states with a time to live, without reading it where
    /// whole tables have: see [`Db::drop_expired`](crate::Db::drop_expired). What is still in memory
    /// stays until it is flushed. The background does the same after each flush, for example that of a
    /// checkpoint; so this is for state that is not written any more.
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
