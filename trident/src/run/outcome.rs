//! What comes of a run: what it has done so far, its summary in the end, or why it ended otherwise.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tine_core::{failure::Failure, id::TxId};

use super::Progress;
use crate::topology::BuildError;

/// What a finished run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last transaction committed by this process; `TxId::NONE` if it committed none.
    pub last: TxId,
    /// How many transactions it committed.
    pub transactions: u64,
    /// Records in them.
    pub records: u64,
    /// Records left out by policy.
    pub skipped: u64,
    /// Records that became dead letters.
    pub dead_letters: u64,
}

/// Why a run ended other than asked.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The topology is wrong: the error names the operator and the fix.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The topology did not start, and nothing was begun: the failure names the address, table, topic, file or setting, and
    /// what to do.
    #[error("cannot start: {0}")]
    Start(Failure),
    /// The group halted after it had begun. Everything committed stays exact; the failure says what is wrong and what to do.
    #[error("halted: {0}")]
    Halted(Failure),
}

/// As people read it: a `main` that returns an error prints its `Debug`.
impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is known of a run while it runs.
#[derive(Debug, Default)]
pub(super) struct Course {
    summary: Mutex<Summary>,
    begun: AtomicBool,
}

impl Course {
    /// The sources have answered, or this worker has tasks: from here on a run can halt, and before it could not start.
    pub(super) fn begins(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn progress(&self, progress: Progress) {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).add(progress);
    }

    pub(super) fn summary(&self) -> Summary {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Summary {
    fn add(&mut self, progress: Progress) {
        self.last = progress.txid;
        self.transactions += 1;
        self.records += progress.counts.records;
        self.skipped += progress.counts.skipped;
        self.dead_letters += progress.counts.dead_letters;
    }
}
