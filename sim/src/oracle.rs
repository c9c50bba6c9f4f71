//! What a user expects of a run: the exact counts of a table, or anything else that can be said about a report.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::report::Report;

type Check = dyn Fn(&Report) -> Result<(), String> + Send + Sync;
type Keys = dyn for<'a> Fn(&'a str) -> Vec<&'a str> + Send + Sync;

/// How to recount a table: which keys a record adds one to.
#[derive(Clone)]
pub(crate) struct Counting {
    keys: Arc<Keys>,
}

impl Counting {
    pub(crate) fn count(&self, value: &str, counts: &mut BTreeMap<String, i64>) {
        for key in (self.keys)(value) {
            match counts.get_mut(key) {
                Some(count) => *count += 1,
                None => drop(counts.insert(key.to_owned(), 1)),
            }
        }
    }
}

/// An expectation.
#[derive(Clone)]
pub struct Oracle(pub(crate) Expected);

#[derive(Clone)]
pub(crate) enum Expected {
    Counts { state: String, how: Counting },
    Custom(Arc<Check>),
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Expected::Counts { state, .. } => write!(f, "exact_counts({state:?})"),
            Expected::Custom(_) => f.write_str("custom"),
        }
    }
}

/// Each key of the state's table (one text column) holds exactly how often `keys` names it, over all records: at the
/// end, and transaction by transaction, shard by shard, on the way there.
pub fn exact_counts(
    state: impl Into<String>,
    keys: impl for<'a> Fn(&'a str) -> Vec<&'a str> + Send + Sync + 'static,
) -> Oracle {
    Oracle(Expected::Counts { state: state.into(), how: Counting { keys: Arc::new(keys) } })
}

/// Whatever can be said about a drained run.
pub fn holds(check: impl Fn(&Report) -> Result<(), String> + Send + Sync + 'static) -> Oracle {
    Oracle(Expected::Custom(Arc::new(check)))
}
