//! All states of small worlds, and the way to a state that must not be when a rule is broken: see [`model`].
//!
//! `cargo test --release -p tine-sim --test models -- --nocapture` prints how many states there are, and the ways.

#![allow(clippy::vec_box, reason = "the machines' own sessions are boxes")]
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;
mod model;

use std::time::{Duration, Instant};

use tine_core::mutant::Mutant;

use self::model::{Checked, FINISH, Found, Kind, LEFT_OUT, ORDER, RULES, Scene, TWICE, agreement::Agreement};

/// Nothing here takes so long unless the machine is busy with other things.
const WITHIN: Duration = Duration::from_secs(1_800);

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

fn usual(records: u64, faults: u8) -> Scene {
    Scene { records, faults, kinds: Kind::USUAL }
}

fn check(scene: Scene, mutants: &[Mutant]) -> Found {
    found(scene, mutants, Checked::new(scene, mutants))
}

fn found(scene: Scene, mutants: &[Mutant], checked: Checked) -> Found {
    let began = Instant::now();
    let found = checked.check(WITHIN);
    let Scene { records, faults, kinds } = scene;
    let Found { states, different, deepest, most, .. } = found;
    let broken: String = mutants.iter().map(|mutant| format!(", {mutant:?}")).collect();
    println!(
        "{records} records, {faults} faults of {kinds:?}{broken}: {states} states, {different} different, at most {deepest} \
         steps from the first, up to {most} transactions complete, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    if let Some((property, why, way)) = &found.wrong {
        println!("  not so: {property}. {why}");
        let way: Vec<String> = way.iter().map(|action| format!("{action:?}")).collect();
        println!("  the way: {}", way.join(", "));
    }
    found
}

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
        let found = found(scene, mutants, Checked::new(scene, mutants).only(property));
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

/// One scene by hand: `TINE_MODEL=records,faults`, perhaps `TINE_MODEL_MUTANT=<name>` or `ALL`.
#[test]
#[ignore = "for a look at one scene"]
fn one_scene() {
    common::quiet();
    let text = std::env::var("TINE_MODEL").unwrap_or_else(|_| "2,1".to_owned());
    let (records, faults) = text.split_once(',').expect("two numbers");
    let scene = usual(records.parse().unwrap(), faults.parse().unwrap());
    let name = std::env::var("TINE_MODEL_MUTANT").ok();
    let chosen = |mutant: &&Mutant| name.as_ref().is_some_and(|name| name == "ALL" || *name == format!("{mutant:?}"));
    let chosen: Vec<Mutant> = Mutant::ALL.iter().filter(chosen).copied().collect();
    if chosen.is_empty() {
        check(scene, &[]);
    }
    chosen.into_iter().for_each(|mutant| drop(check(scene, &[mutant])));
}
