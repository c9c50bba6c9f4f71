//! Stages after a repartition: counts per word, then per letter, then per kind of letter, all in one transaction.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use std::sync::Arc;

use tine_sim::{FaultPlan, Kind, Mode, Simulation, World, exact_counts, simulate};
use tine_trident::topology::Topology;

fn letter(word: &str) -> &str {
    &word[..1]
}

fn kind(letter: &str) -> &'static str {
    if "aeiou".contains(letter) { "vowel" } else { "consonant" }
}

/// Words are counted and kept; words are summed up by letter, which is kept; letters by kind. The second stage may trip.
fn stages(world: &World, lines: &[Arc<str>]) -> Topology {
    let (topology, trips) = (Topology::new("stages"), world.trips());
    let words = topology
        .source(world.source("lines", lines))
        .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count());
    words.clone().persist(world.table("words").key("word").value("n"));
    let letters = words.stage(move |words| {
        let trips = trips.clone();
        words.try_map(move |row| trips.step().map(|()| row)).group_by(|(word, _)| letter(word)).sum(|(_, n)| *n)
    });
    letters.clone().persist(world.table("letters").key("letter").value("n"));
    letters
        .stage(|letters| letters.group_by(|(letter, _)| kind(letter)).sum(|(_, n)| *n))
        .persist(world.table("kinds").key("kind").value("n"));
    topology
}

fn simulation(mode: Mode) -> Simulation {
    let lines = common::lines(72);
    simulate(move |world| stages(world, &lines))
        .mode(mode)
        .expect(exact_counts("words", |line| line.split_whitespace().collect()))
        .expect(exact_counts("letters", |line| line.split_whitespace().map(letter).collect()))
        .expect(exact_counts("kinds", |line| line.split_whitespace().map(|word| kind(letter(word))).collect()))
}

#[test]
fn p9_words_letters_and_kinds_of_letters_stay_exact_together() {
    for mode in [Mode::Cluster(2), Mode::Cluster(3), Mode::Embedded] {
        let (coverage, failed) = simulation(mode).campaign(1, 2_000, 2);
        println!("{mode:?}: {coverage}");
        if let Some(report) = failed {
            panic!("{report}");
        }
        assert!(coverage.average(coverage.txids) >= 8.0, "too few transactions");
    }
}

#[test]
fn a_message_that_comes_twice_late_or_out_of_order_changes_nothing_at_any_hop() {
    let simulation = simulation(Mode::Cluster(3));
    let kinds = [Kind::Duplicate, Kind::Delay, Kind::Reorder, Kind::Crash(0), Kind::Crash(2), Kind::Pause(1)];
    for seed in 1..1_000 {
        let report = simulation.run(seed, &FaultPlan::among(seed, &kinds, 400));
        assert!(report.broken.is_none(), "{}", simulation.shrink(&report));
    }
}

#[test]
fn d2_a_later_stage_that_fails_or_panics_once_is_tried_again() {
    let simulation = simulation(Mode::Cluster(2));
    let mut failures = 0;
    for seed in 1..300 {
        let report = simulation.run(seed, &FaultPlan::among(seed, &[Kind::UserError, Kind::UserPanic], 400));
        assert!(report.broken.is_none(), "{}", simulation.shrink(&report));
        failures += report.faults();
    }
    assert!(failures > 100, "{failures}");
}

#[test]
fn the_same_seed_twice_is_the_same_run_bit_for_bit() {
    for mode in [Mode::Cluster(3), Mode::Embedded] {
        let simulation = simulation(mode);
        for seed in 1..200 {
            assert_eq!(simulation.run_seed(seed).trace_hash, simulation.run_seed(seed).trace_hash, "seed {seed}");
        }
    }
}
