//! All states of small worlds, and the way to a state that must not be when a rule is broken: see [`model`].
//!
//! `cargo test --release -p tine-sim --test models -- --nocapture` prints how many states there are, and the ways.
//! The example `scene` looks at one world.

#![allow(clippy::vec_box, reason = "the machines' own sessions are boxes")]
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;
mod model;

use tine_core::mutant::Mutant;

use self::model::{
    Checked, FINISH, LEFT_OUT, ORDER, RULES, TWICE,
    agreement::Agreement,
    look::{WITHIN, check, found, usual},
};

/// Broken rules that a single usual fault shows, or none.
const BROKEN: [Mutant; 13] = [
    Mutant::MissingBufferIsEmpty,
    Mutant::NoFenceCheck,
    Mutant::FenceRaisedAfterRead,
    Mutant::NoRaiseAtAbort,
    Mutant::UnconditionalRaise,
    Mutant::OutcomeAssumedFailed,
    Mutant::OutcomeAssumedDone,
    Mutant::NextBeforeEverywhere,
    Mutant::AttemptRestarted,
    Mutant::PlanTrimmedEarly,
    Mutant::PlanNotPrepared,
    Mutant::PrepareWithoutFence,
    Mutant::LowerLeftRunning,
];

/// Two workers that own a shard each, three transactions, one fault of any kind at any place.
#[test]
fn every_state_is_exact_and_can_be_finished() {
    common::quiet();
    let scene = usual(3, 1);
    let found = check(scene, &[]);
    assert!(found.whole, "{:?}", found.wrong);
    assert_eq!(found.most, scene.records, "fewer transactions than there should be");
}

#[test]
fn broken_rules_lead_to_states_that_must_not_be() {
    common::quiet();
    for mutant in BROKEN {
        assert!(check(usual(2, 1), &[mutant]).wrong.is_some(), "{mutant:?} harms nothing");
    }
}

/// No property holds by itself: for each there is a broken rule that leads to a state in which it does not.
#[test]
fn each_property_can_be_tripped() {
    common::quiet();
    let tripped: [(&'static str, &[Mutant]); 5] = [
        (TWICE, &[Mutant::TxidNotCompared, Mutant::ChainNotCompared]),
        (LEFT_OUT, &[Mutant::MissingBufferIsEmpty]),
        (ORDER, &[Mutant::NextBeforeEverywhere]),
        (RULES, &[Mutant::PlanNotPrepared]),
        (FINISH, &[Mutant::LowerLeftRunning]),
    ];
    for (property, mutants) in tripped {
        let scene = usual(2, 1);
        let found = found(scene, mutants, Checked::new(scene, mutants).only(property), WITHIN);
        assert_eq!(found.wrong.map(|(name, ..)| name), Some(property), "{mutants:?}");
    }
}

#[test]
fn the_database_of_the_models_is_the_simulators() {
    let (mut answers, mut waits) = (0, 0);
    for seed in 1..2_000 {
        let mut agreement = Agreement::new(seed);
        (0..200).for_each(|_| agreement.step());
        (answers, waits) = (answers + agreement.answers, waits + agreement.waits);
    }
    println!("{answers} answers alike, {waits} of them after a wait");
    assert!(waits > 1_000, "hardly anybody waited");
}
