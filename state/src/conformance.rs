//! What every state database must do, as cases that run against a real one.
//!
//! A connector outside this repository turns on the feature `conformance` in its `[dev-dependencies]`, implements
//! [`Subject`] for its own database, and calls [`check`] from one test:
//!
//! ```no_run
//! use std::sync::Arc;
//! use tine_state::{Database, conformance};
//!
//! # async fn run_sql(_text: &str) -> Result<(), String> { Ok(()) }
//! struct Mine {
//!     database: Arc<dyn Database>,
//! }
//!
//! #[async_trait::async_trait]
//! impl conformance::Subject for Mine {
//!     fn database(&self) -> Arc<dyn Database> {
//!         self.database.clone()
//!     }
//!     async fn sql(&self, text: &str) -> Result<(), String> {
//!         run_sql(text).await // on a connection of its own, committed at once
//!     }
//! }
//!
//! # async fn test(database: Arc<dyn Database>) {
//! let checked = conformance::check(&Mine { database }).await;
//! assert!(checked.is_ok(), "{}", checked.unwrap_err());
//! # }
//! ```
//!
//! Every case works on a topology and tables of its own with fresh random names, so that the suite can be repeated on
//! a database that is kept. Cases that break share nothing with the others: all of them run, all that broke are told.
//! The cases say what a connector does with the protocol's statements; that the *rules* are right is proved elsewhere,
//! by the simulator. They drive the same procedures as production: [`Raise`](crate::Raise),
//! [`Prepare`](crate::Prepare), [`Committer`](crate::Committer).

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;

use crate::Database;

/// Fails the case unless the condition holds; the rest is the message.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

mod commits;
mod fences;
mod merges;
mod scene;
mod tables;

/// A state database under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The database; every call may return the same one.
    fn database(&self) -> Arc<dyn Database>;

    /// Executes one SQL statement beside tine, committed at once, as a person with a shell would: the suite uses it to
    /// damage tine's tables. They are named without a schema. `Err` is the database's message.
    async fn sql(&self, text: &str) -> Result<(), String>;
}

/// How a case ended: what was expected and what was found, if it broke.
type Ended = Result<(), String>;

type Run = for<'a> fn(&'a dyn Subject) -> Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

/// One behaviour that a database must show.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it shows; a sentence with underscores.
    pub name: &'static str,
    run: Run,
}

impl Case {
    /// Runs it. `Err` says what was expected and what was found.
    pub async fn run(&self, subject: &dyn Subject) -> Result<(), String> {
        (self.run)(subject).await
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({})", self.name)
    }
}

/// The cases that broke, with what was expected and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotConforming {
    /// Name and message of each.
    pub broken: Vec<(&'static str, String)>,
}

impl fmt::Display for NotConforming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} conformance cases broke", self.broken.len())?;
        for (name, message) in &self.broken {
            write!(f, "\n  {name}: {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NotConforming {}

/// Runs every case, one after the other, and says how many there were; or which ones broke.
pub async fn check(subject: &dyn Subject) -> Result<usize, NotConforming> {
    let cases = cases();
    let mut broken = Vec::new();
    for case in &cases {
        if let Err(message) = case.run(subject).await {
            broken.push((case.name, message));
        }
    }
    match broken.is_empty() {
        true => Ok(cases.len()),
        false => Err(NotConforming { broken }),
    }
}

macro_rules! cases {
    ($($module:ident: $($name:ident),+;)+) => {
        vec![$($(Case { name: stringify!($name), run: |subject| Box::pin($module::$name(subject)) }),+),+]
    };
}

/// All cases, in the order in which they build on each other; for harnesses that want one test for each.
pub fn cases() -> Vec<Case> {
    cases! {
        tables:
            creating_twice_changes_nothing,
            a_table_with_other_columns_is_refused_with_the_difference,
            a_table_with_another_key_is_refused,
            a_second_owner_of_a_table_is_refused,
            rows_without_adopt_are_refused_at_the_first_start,
            adopted_rows_are_the_starting_point,
            missing_ledger_rows_halt,
            another_shape_under_the_same_name_is_refused,
            another_number_of_shards_is_refused,
            an_unknown_format_is_refused,
            the_lock_has_one_holder;
        fences:
            a_new_group_is_read_back_empty,
            a_raise_misses_a_higher_fence_and_another_leader_of_its_epoch,
            a_zombie_is_fenced_after_a_raise,
            an_older_attempt_of_the_same_reign_is_superseded,
            a_fence_below_the_attempt_is_behind,
            a_prepare_under_a_foreign_fence_writes_nothing,
            a_plan_replaces_its_older_self_and_deletes_those_above,
            a_promised_location_that_is_not_there_is_behind;
        commits:
            a_commit_is_read_back,
            a_commit_without_rows_moves_the_ledger,
            a_commit_done_before_changes_nothing,
            another_manifest_is_refused,
            a_late_duplicate_is_told_apart,
            a_lost_tail_is_behind,
            shards_that_are_done_are_left_alone,
            a_miss_changes_nothing,
            a_second_writer_waits_and_then_sees,
            a_dropped_session_leaves_no_lock,
            statements_outside_a_transaction_are_errors,
            groups_do_not_touch_each_other;
        merges:
            add_min_max_and_replace,
            composite_keys_and_values,
            odd_values_of_every_type_come_back,
            similar_texts_are_different_keys,
            a_sum_that_no_longer_fits_is_fatal_and_changes_nothing,
            a_text_with_nul_is_refused_and_changes_nothing,
            values_are_combined_with_the_stored_ones,
            absent_keys_are_loaded_as_absent,
            many_rows_in_one_commit;
    }
}
