//! Switches that break one rule of the protocol each, to prove that the tests would notice.
//!
//! They exist only with the feature `mutants`, which test builds turn on; otherwise [`on`] is a constant `false` and
//! the rule cannot be broken. A mutant is turned on for the calling thread alone, so that simulations run in parallel; or by
//! the environment variable `TINE_BROKEN_RULES` (names, separated by commas) for a whole process, which the chaos of the
//! tests then has to find out.

/// A rule that can be switched off. The names are those of the protocol's list of mutants (`docs/guarantees.md`).
///
/// Of that list these have no switch, because what they would break is not there yet: *undo per key instead of per shard*,
/// *opaque completion without the attempt*, *attempt column overwritten by a raise* (opaque groups), *fetch reply without
/// start position* (tasks fetch nothing from each other), *new values recomputed at replay*, *query reads a later txid*,
/// *arrival order decides a float sum* (no such sums), *credit not reserved*, *relaxed answer released early*, *heal without
/// re-preparing* (one database per topology).
///
/// ```
/// use tine_core::mutant::{Mutant, on};
///
/// /// A rule of the protocol, as it is guarded in the code: a test that breaks it has to fail.
/// fn admits(fence: u64, epoch: u64) -> bool {
///     on(Mutant::NoFenceCheck) || epoch >= fence
/// }
///
/// assert!(admits(7, 8) && !admits(7, 6));
/// ```
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
    OutcomeSettledByRead,
    MissIsRefusal,
    EmptyShardsSkipped,
    NextBeforeEverywhere,
    DoneWithoutManifest,
    ManifestOfOneShard,
    XorDigest,
    AttemptRestarted,
    PlanTrimmedEarly,
    ChainNotCompared,
    PlanNotPrepared,
    RecreatedTopicReadOn,
    DeadLetterOutsideOrder,
    ReconcileInOldGeneration,
    LowerEpochSilence,
    HistoryDeleted,
    MissingRowIsNew,
    PrepareWithoutFence,
    PlanWithoutChain,
    LateDuplicateIsGap,
    LowerLeftRunning,
    MissAtAbortRaisesEpoch,
    LocationNotChecked,
    StageRunsEarly,
    StageArrivalOrder,
    StageResultOfOldAttempt,
    IdleLooksAway,
    OwnersTooEarly,
    EraIgnored,
    DrainNotAwaited,
    OwnersInOldGeneration,
    OwnersOfAnotherReign,
    DisbandNotTold,
    ReadinessKept,
    /// Shows only together with `ChainNotCompared`: a chain that fits holds the number, so each guards the other.
    TxidNotCompared,
}

impl Mutant {
    /// All of them.
    pub const ALL: &[Mutant] = &[
        Mutant::EqualityInsteadOfOrdering,
        Mutant::NoPlanBeforeCommit,
        Mutant::ShortReadAccepted,
        Mutant::MissingBufferIsEmpty,
        Mutant::NoDeduplication,
        Mutant::UnversionedCoordination,
        Mutant::NoFenceCheck,
        Mutant::FenceAtLeast,
        Mutant::FenceRaisedAfterRead,
        Mutant::NoRaiseAtAbort,
        Mutant::UnconditionalRaise,
        Mutant::NonceIgnored,
        Mutant::StaleFailAccepted,
        Mutant::OutcomeAssumedFailed,
        Mutant::OutcomeAssumedDone,
        Mutant::OutcomeSettledByRead,
        Mutant::MissIsRefusal,
        Mutant::EmptyShardsSkipped,
        Mutant::NextBeforeEverywhere,
        Mutant::DoneWithoutManifest,
        Mutant::ManifestOfOneShard,
        Mutant::XorDigest,
        Mutant::AttemptRestarted,
        Mutant::PlanTrimmedEarly,
        Mutant::ChainNotCompared,
        Mutant::PlanNotPrepared,
        Mutant::RecreatedTopicReadOn,
        Mutant::DeadLetterOutsideOrder,
        Mutant::ReconcileInOldGeneration,
        Mutant::LowerEpochSilence,
        Mutant::HistoryDeleted,
        Mutant::MissingRowIsNew,
        Mutant::PrepareWithoutFence,
        Mutant::PlanWithoutChain,
        Mutant::LateDuplicateIsGap,
        Mutant::LowerLeftRunning,
        Mutant::MissAtAbortRaisesEpoch,
        Mutant::LocationNotChecked,
        Mutant::StageRunsEarly,
        Mutant::StageArrivalOrder,
        Mutant::StageResultOfOldAttempt,
        Mutant::IdleLooksAway,
        Mutant::OwnersTooEarly,
        Mutant::EraIgnored,
        Mutant::DrainNotAwaited,
        Mutant::OwnersInOldGeneration,
        Mutant::OwnersOfAnotherReign,
        Mutant::DisbandNotTold,
        Mutant::ReadinessKept,
        Mutant::TxidNotCompared,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use std::{cell::Cell, sync::LazyLock};

    use super::Mutant;

    thread_local! {
        /// A bit for each mutant.
        static ACTIVE: Cell<u64> = const { Cell::new(0) };
    }

    /// Those that the environment breaks on every thread.
    static EVERYWHERE: LazyLock<u64> = LazyLock::new(|| {
        let names = std::env::var("TINE_BROKEN_RULES").unwrap_or_default();
        bits(names.split(',').filter_map(named))
    });

    const _: () = assert!(Mutant::ALL.len() <= 64);

    fn bits(mutants: impl IntoIterator<Item = Mutant>) -> u64 {
        mutants.into_iter().fold(0, |bits, mutant| bits | 1 << mutant as u64)
    }

    fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name.trim())
    }

    /// Says in the log which rules the environment breaks, if it breaks any.
    pub fn announce() {
        let broken: Vec<_> = Mutant::ALL.iter().filter(|mutant| *EVERYWHERE & bits([**mutant]) != 0).collect();
        if !broken.is_empty() {
            tracing::warn!("rules broken on purpose: {broken:?}");
        }
    }

    /// Breaks these rules, and no others, on this thread while `run` runs.
    ///
    /// ```
    /// use tine_core::mutant::{Mutant, on, with};
    ///
    /// assert!(with([Mutant::NoFenceCheck], || on(Mutant::NoFenceCheck)));
    /// assert!(!on(Mutant::NoFenceCheck), "it holds again");
    /// ```
    pub fn with<R>(mutants: impl IntoIterator<Item = Mutant>, run: impl FnOnce() -> R) -> R {
        struct Restore(u64);
        impl Drop for Restore {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _restore = Restore(ACTIVE.replace(bits(mutants)));
        run()
    }

    /// Whether `mutant` is switched on for this thread, or everywhere.
    pub fn on(mutant: Mutant) -> bool {
        (ACTIVE.get() | *EVERYWHERE) & (1 << mutant as u64) != 0
    }
}

#[cfg(feature = "mutants")]
pub use switch::{announce, on, with};

/// Whether `mutant` is switched on: never, in a build without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}

/// Says which rules the environment breaks: none, in a build without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
pub const fn announce() {}
