//! Single promises of the protocol, each shown by a run or a few hundred.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use std::sync::Arc;

use proptest::prelude::*;
use tine_sim::{End, FaultPlan, Kind, Mode, Regressions, exact_counts, simulate};
use tine_trident::topology::Topology;

#[test]
fn the_same_seed_twice_is_the_same_run_bit_for_bit() {
    for mode in [Mode::Cluster(2), Mode::Embedded] {
        let simulation = common::simulation(mode);
        for seed in 1..300 {
            let (once, again) = (simulation.run_seed(seed), simulation.run_seed(seed));
            assert_eq!(once.trace_hash, again.trace_hash, "seed {seed}");
            let told = simulation.replay(seed, &once.plan);
            assert_eq!(once.trace_hash, told.trace_hash, "a timeline changes nothing, seed {seed}");
        }
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let simulation = common::simulation(Mode::Cluster(2));
    let mut hashes: Vec<u64> = (1..200).map(|seed| simulation.run_seed(seed).trace_hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 199);
}

#[test]
fn nothing_commits_when_the_acker_is_mute() {
    for mode in [Mode::Cluster(2), Mode::Embedded] {
        let simulation = common::simulation(mode).settings(|settings| {
            settings.mute_acker = true;
            settings.drained_within_ms = 5_000;
        });
        let report = simulation.run(1, &FaultPlan::default());
        assert_eq!(report.txids, 0);
        assert!(report.table("counts").unwrap().is_empty());
        assert!(report.broken.is_some(), "and that is noticed");
    }
}

#[test]
fn d5_a_non_deterministic_operator_halts_before_it_writes_anything_wrong() {
    let simulation = common::gambling(Mode::Cluster(2));
    let kinds = [Kind::SqlAbort(0), Kind::SqlAbort(1), Kind::LostCommitReply(0), Kind::Crash(1)];
    let mut halts = 0;
    for seed in 1..400 {
        let report = simulation.run(seed, &FaultPlan::among(seed, &kinds, 300));
        match &report.broken {
            None => {}
            Some(_) if common::halted(&report, "non-deterministic operator") => halts += 1,
            Some(_) => panic!("{report}"),
        }
    }
    println!("{halts} of 400 runs halted");
    assert!(halts > 20, "{halts}");
}

#[test]
fn a_lower_epoch_is_answered_and_its_leader_elected_above_it() {
    // The database forgets everything and coordination too, so that a new leader begins at a low epoch among workers
    // that have followed a higher one.
    let simulation = common::simulation(Mode::Cluster(2));
    for seed in 1..500 {
        let kinds = [Kind::LoseTail(6), Kind::CoordinationWiped, Kind::Expire(0), Kind::Expire(1)];
        let report = simulation.run(seed, &FaultPlan::among(seed, &kinds, 400));
        assert!(report.broken.is_none(), "{report}");
    }
}

#[test]
fn k4_deleted_records_halt_and_are_named() {
    let simulation = common::simulation(Mode::Cluster(2));
    let mut halts = 0;
    for seed in 1..100 {
        let plan = FaultPlan::of([(100, 60, Kind::CoordinationDown), (150, 0, Kind::Truncate)]);
        let report = simulation.run(seed, &plan);
        assert!(report.faults() == 0 || report.broken.is_none() || halted_for_lost_data(&report), "{report}");
        halts += u32::from(report.broken.is_some());
    }
    assert!(halts > 0);
}

fn halted_for_lost_data(report: &tine_sim::Report) -> bool {
    common::halted(report, "data lost") || common::halted(report, "retention deleted")
}

#[test]
fn a_partitioned_zombie_leader_harms_nothing() {
    let simulation = common::simulation(Mode::Cluster(2));
    let kinds = [
        Kind::Cut(End::Node(0), End::Coordination),
        Kind::Cut(End::Node(1), End::Coordination),
        Kind::LateNews,
        Kind::Pause(0),
        Kind::Pause(1),
        Kind::LateStatement(0),
        Kind::LateStatement(1),
    ];
    for seed in 1..2_000 {
        let report = simulation.run(seed, &FaultPlan::among(seed, &kinds, 400));
        assert!(report.broken.is_none(), "{}", simulation.shrink(&report));
    }
}

#[test]
fn a_cluster_of_three_and_a_sole_worker_are_exact_too() {
    for workers in [1, 3] {
        let simulation = common::simulation(Mode::Cluster(workers));
        for seed in 1..400 {
            let report = simulation.run_seed(seed);
            assert!(report.broken.is_none(), "{workers} workers: {}", simulation.shrink(&report));
        }
    }
}

/// What a user writes.
#[test]
fn counts_survive_anything() {
    let lines: Arc<[Arc<str>]> = common::lines(60);
    let coverage = simulate(move |world| common::word_count(world, &lines))
        .with_faults(any::<FaultPlan>())
        .cases(500)
        .check(exact_counts("counts", |line| line.split_whitespace().collect()));
    assert_eq!(coverage.runs, 500);
}

/// Two records are one transaction: no earlier one is complete when its first shards have it.
#[test]
fn a_run_of_a_single_transaction_goes_on_until_every_shard_has_it() {
    let simulation = simulate(|world| {
        let topology = Topology::new("words");
        topology
            .source(world.source("lines", ["a b", "b"]))
            .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
            .persist(world.table("counts").key("word").value("n"));
        topology
    })
    .expect(exact_counts("counts", |line| line.split_whitespace().collect()));
    let line = "10863724598637863711/source-down@16~13,late-statement:0@200~420";
    simulation.replay_line(line).unwrap().assert_held();
    for seed in 1..3_000 {
        simulation.run_seed(seed).assert_held();
    }
}

#[test]
#[should_panic(expected = "invariant_each_record_counts_once")]
fn a_wrong_expectation_is_shrunk_to_no_fault_at_all() {
    let lines: Arc<[Arc<str>]> = common::lines(60);
    simulate(move |world| common::word_count(world, &lines))
        .with_faults(any::<FaultPlan>())
        .regressions(Regressions::Forgotten)
        .cases(10)
        .check(exact_counts("counts", |line| line.split_whitespace().take(1).collect()));
}
