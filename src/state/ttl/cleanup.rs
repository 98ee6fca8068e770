//! What compaction removes, and how it knows where to look.

use crate::CompactionFilter;
use crate::CompactionFilterFactory;
use crate::Decision;
use crate::EntryKind;
use crate::TimestampExtractor;
use crate::base::coding::put_prefixed;
use crate::base::sync::Arc;
use crate::state::list::Elements;
use crate::state::meta::StateKind;
use crate::state::ttl::Ttl;
use crate::state::ttl::time_of;

/// Makes the filters of a state with a time to live.
pub struct TtlFilterFactory {
    ttl: Arc<Ttl>,
    kind: StateKind,
}

impl TtlFilterFactory {
    pub fn new(ttl: Arc<Ttl>, kind: StateKind) -> TtlFilterFactory {
        TtlFilterFactory { ttl, kind }
    }
}

impl CompactionFilterFactory for TtlFilterFactory {
    fn name(&self) -> &str {
        match self.kind {
            StateKind::List => "alluvium.ttl-list",
            _ => "alluvium.ttl",
        }
    }

    fn expired_until(&self) -> Option<i64> {
        self.ttl.expired_until()
    }

    /// The clock is asked once for each compaction.
    fn create(&self) -> Box<dyn CompactionFilter> {
        Box::new(TtlFilter { until: self.ttl.expired_until(), kind: self.kind })
    }
}

/// Removes what has expired: values and entries whole, of lists the elements.
pub struct TtlFilter {
    pub until: Option<i64>,
    pub kind: StateKind,
}

impl CompactionFilter for TtlFilter {
    fn decide(&mut self, _: &[u8], _: EntryKind, value: &[u8], out: &mut Vec<u8>) -> Decision {
        let Some(until) = self.until else { return Decision::Keep };
        let expired = |stamped: &[u8]| time_of(stamped).is_some_and(|time| time <= until);
        if self.kind != StateKind::List {
            return if expired(value) { Decision::Remove } else { Decision::Keep };
        }
        let mut gone = false;
        for element in Elements::new([value]) {
            match element {
                Ok(element) if expired(element) => gone = true,
                Ok(element) => put_prefixed(out, element),
                Err(_) => return Decision::Keep, // whoever reads it meets the error
            }
        }
        match (gone, out.is_empty()) {
            (false, _) => Decision::Keep,
            (true, true) => Decision::Remove,
            (true, false) => Decision::Replace,
        }
    }
}

/// The time of the last access: of a list, that of its youngest element.
pub struct LastAccess(pub StateKind);

impl TimestampExtractor for LastAccess {
    fn name(&self) -> &str {
        match self.0 {
            StateKind::List => "alluvium.last-access-list",
            _ => "alluvium.last-access",
        }
    }

    fn timestamp(&self, _: &[u8], value: &[u8]) -> Option<i64> {
        match self.0 {
            StateKind::List => Elements::new([value])
                .map(|element| element.ok().and_then(time_of))
                .collect::<Option<Vec<i64>>>()?
                .into_iter()
                .max(),
            _ => time_of(value),
        }
    }
}
