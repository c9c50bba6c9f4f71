//! Why a tuple, a transaction or a call failed: the one failure vocabulary, from `docs/guarantees.md`.
//!
//! Failures are reported, not timed out: `fail` carries one of these to the spout at once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a failure means for the one who has to go on.
///
/// ```
/// use tine_core::failure::{Failure, FailureKind};
///
/// /// What the `fail` of a spout does about a tuple.
/// fn again(failure: &Failure) -> bool {
///     match failure.kind {
///         FailureKind::Transient | FailureKind::TimedOut => true,
///         FailureKind::Poison => false, // it would fail every time
///         _ => true,
///     }
/// }
///
/// assert!(again(&Failure::transient("no connection")) && !again(&Failure::poison("not a number")));
/// ```
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
///
/// ```
/// use tine_core::failure::{Failure, FailureKind};
///
/// fn cents(text: &str) -> Result<u64, Failure> {
///     text.parse().map_err(|error| Failure::poison(format!("{text:?} is no amount of cents: {error}")))
/// }
///
/// assert_eq!(cents("12").ok(), Some(12));
/// let failure = cents("a dozen").unwrap_err();
/// assert_eq!(failure.kind, FailureKind::Poison);
/// assert_eq!(failure.to_string(), r#""a dozen" is no amount of cents: invalid digit found in string"#);
///
/// assert_eq!(Failure::transient("the database is away").kind, FailureKind::Transient);
/// assert_eq!(Failure::fatal("the disk is full").kind, FailureKind::Fatal);
/// assert_eq!(Failure::new(FailureKind::TimedOut, "no answer").kind, FailureKind::TimedOut);
/// ```
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
