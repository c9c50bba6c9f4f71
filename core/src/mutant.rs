//! Switches that break one rule of the protocol each, to prove that the tests would notice.
//!
//! They exist only with the feature `mutants`, which test builds turn on; otherwise [`on`] is a constant `false` and
//! the rule cannot be broken. A mutant is turned on for the calling thread alone, so that simulations run in parallel.

/// A rule that can be switched off. The names are those of the protocol's list of mutants (`docs/guarantees.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each name says which rule is broken")]
pub enum Mutant {
    EqualityInsteadOfOrdering,
    NoPlanBeforeCommit,
    ShortReadAccepted,
    MissingBufferIsEmpty,
    NoDeduplication,
    UnversionedCoordination,
    NoFenceCheck,
    FenceAtLeast,
    FenceRaisedAfterRead,
    NoRaiseAtAbort,
    UnconditionalRaise,
    NonceIgnored,
    StaleFailAccepted,
    OutcomeAssumedFailed,
    OutcomeAssumedDone,
    OutcomeByPlainRead,
    MissIsRefusal,
    EmptyShardsSkipped,
    NextBeforeEverywhere,
    DoneWithoutManifest,
    ManifestPerShard,
    XorDigest,
    AttemptRestarted,
    ReplyWithoutPosition,
    PlanTrimmedEarly,
    ChainNotCompared,
    PlanNotPrepared,
    RecreatedTopicReadOn,
    ReconcileInOldGeneration,
    LowerEpochSilence,
    HistoryDeleted,
    MissingRowIsNew,
    PrepareWithoutFence,
    PlanWithoutChain,
    LateDuplicateIsGap,
    AbortLeavesLower,
    MissAtAbortRaisesEpoch,
    AttemptColumnOverwritten,
    LocationNotChecked,
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks `mutant`'s rule on this thread while `run` runs.
    pub fn with<R>(mutant: Option<Mutant>, run: impl FnOnce() -> R) -> R {
        struct Restore(Option<Mutant>);
        impl Drop for Restore {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _restore = Restore(ACTIVE.replace(mutant));
        run()
    }

    /// Whether `mutant` is switched on for this thread.
    pub fn on(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::{on, with};

/// Whether `mutant` is switched on: never, in a build without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}
