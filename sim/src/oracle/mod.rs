//! What a user expects of a run.
//!
//! | oracle | looked at | says |
//! |---|---|---|
//! | [`exact_counts`] | at every commit of every shard | each key counts exactly the records that name it |
//! | [`exact`] | whenever a transaction is complete | the table is what the records contribute, merged as its columns are |
//! | [`exact_table`] | whenever a transaction is complete | the table is what a function of the records says |
//! | [`never_goes_back`] | whenever a transaction is complete | no number that a reader sees becomes smaller |
//! | [`order_per_key`] | whenever a transaction is complete | each key shows the last of its records |
//! | [`dead_letters_complete`] | whenever a transaction is complete | the dead letters are exactly the bad records |
//! | [`no_replay_storm`] | at the end | the healed world needed few attempts |
//! | [`deterministic`] | once per topology | operators make the same rows of the same records |
//! | [`always`], [`holds`] | whenever a transaction is complete; at the end | what you say |
//!
//! "Whenever a transaction is complete" means: committed in all shards of all tables, which is when readers of several
//! tables could see it whole. [`Seen`] is what such a reader sees, and the records that it stands for.

mod aggregates;
mod rows;
mod seen;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub(crate) use self::{aggregates::shown, seen::unknown_state};
pub use self::{
    aggregates::{dead_letters_complete, exact, exact_table, never_goes_back, order_per_key},
    rows::IntoCells,
    seen::{Changed, Committed, Seen},
};
use crate::report::Report;

pub(crate) type Watch = dyn Fn(&Seen<'_>) -> Result<(), String> + Send + Sync;
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
pub struct Oracle {
    /// By what name a run breaks it.
    pub(crate) name: &'static str,
    pub(crate) expected: Expected,
}

#[derive(Clone)]
pub(crate) enum Expected {
    Counts { state: String, how: Counting },
    Seen(Arc<Watch>),
    End(Arc<Check>),
    Deterministic,
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Oracle {
    pub(crate) fn seen(
        name: &'static str,
        watch: impl Fn(&Seen<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Oracle {
        Oracle { name, expected: Expected::Seen(Arc::new(watch)) }
    }

    fn end(name: &'static str, check: impl Fn(&Report) -> Result<(), String> + Send + Sync + 'static) -> Oracle {
        Oracle { name, expected: Expected::End(Arc::new(check)) }
    }
}

/// Each key of the state's table (one text column) holds exactly how often `keys` names it, over all records: at the
/// end, and transaction by transaction, shard by shard, on the way there.
pub fn exact_counts(
    state: impl Into<String>,
    keys: impl for<'a> Fn(&'a str) -> Vec<&'a str> + Send + Sync + 'static,
) -> Oracle {
    Oracle {
        name: "exact_counts",
        expected: Expected::Counts { state: state.into(), how: Counting { keys: Arc::new(keys) } },
    }
}

/// After everything was healed, at most `attempts` were made before all was committed: no storm of replays.
pub fn no_replay_storm(attempts: u64) -> Oracle {
    Oracle::end("no_replay_storm", move |report| match report.attempts_healed {
        made if made <= attempts => Ok(()),
        made => Err(format!("{made} attempts after everything was healed, and {attempts} would have to do")),
    })
}

/// Operators make the same rows of the same records, whenever they are asked: what replays rest on.
///
/// Looked at once per topology, not in every run: all the records are given to fresh operators several times, one by one,
/// in chunks, and shared out among emitters and stage tasks, and what each operator makes is compared. See
/// [`witness`](crate::witness) for what is found and what is not.
pub fn deterministic() -> Oracle {
    Oracle { name: "deterministic", expected: Expected::Deterministic }
}

/// Whatever can be said about what readers see, whenever a transaction is complete.
///
/// ```
/// use tine_sim::oracle::always;
///
/// let few_keys = always(|seen| match seen.table("counts")?.len() {
///     keys if keys <= 11 => Ok(()),
///     keys => Err(format!("{keys} keys, and there are only eleven words")),
/// });
/// # let _ = few_keys;
/// ```
pub fn always(check: impl Fn(&Seen<'_>) -> Result<(), String> + Send + Sync + 'static) -> Oracle {
    Oracle::seen("the user's expectation (always)", check)
}

/// Whatever can be said about a drained run.
pub fn holds(check: impl Fn(&Report) -> Result<(), String> + Send + Sync + 'static) -> Oracle {
    Oracle::end("the user's expectation", check)
}
