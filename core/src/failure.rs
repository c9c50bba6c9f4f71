//! Why a tuple, a transaction or a call failed: the one failure vocabulary, from `docs/guarantees.md`.
//!
//! Failures are reported, not timed out: `fail` carries one of these to the spout at once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a failure means for the one who has to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureKind {
    /// The outside world hiccuped (connection, deadlock, timeout): try again in a new attempt, no budget spent.
    Transient,
    /// Nobody can tell whether the write happened: it is settled by raising the fence, never by a guess.
    Unknown,
    /// The ledger shows less than was committed: the database lost its tail or a raise; the leader reconciles.
    Behind,
    /// Another leader's fence stands in the ledger: this one is a zombie, drops everything and rejoins.
    Fenced,
    /// The same leader has begun a newer attempt: drop this work, stay a member.
    Superseded,
    /// A user function failed, or a value cannot be stored: the operator's policy decides.
    Poison,
    /// Going on could only do harm: halt the group, say what is wrong and what to do.
    Fatal,
    /// Nobody spoke in time.
    TimedOut,
}

/// A failure with words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// What happened, to which value, and what to do; lower case, no full stop.
    pub message: String,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// A transient failure.
    pub fn transient(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Transient, message)
    }

    /// A failure that halts.
    pub fn fatal(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Fatal, message)
    }

    /// A failure of a record or of a user's function.
    pub fn poison(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Poison, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
