//! Owners that change under a living leader: workers leave, come, sleep, are cut off, and lose their registrations.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use tine_core::mutant::{self, Mutant};
use tine_sim::{End, Fault, FaultPlan, Kind, Mode, Report};

const ZK: End = End::Coordination;
const WHO: u8 = Kind::WHOEVER;

/// What makes owners change, or is in the way of it.
const KINDS: [Kind; 22] = [
    Kind::Leave(0),
    Kind::Leave(1),
    Kind::Leave(2),
    Kind::Reassign,
    Kind::Reassign,
    Kind::Restart(0),
    Kind::Restart(1),
    Kind::Crash(0),
    Kind::Crash(1),
    Kind::Pause(0),
    Kind::Pause(1),
    Kind::Cut(End::Node(0), End::Node(1)),
    Kind::CutOneWay(End::Node(1), End::Node(2)),
    Kind::Cut(End::Node(0), ZK),
    Kind::CutOneWay(ZK, End::Node(1)),
    Kind::LateNews,
    Kind::LostNews,
    Kind::LostCoordinationReply(0),
    Kind::CoordinationDown,
    Kind::CoordinationWiped,
    Kind::CoordinationRestored(3),
    Kind::LeaderChange,
];

fn told(report: &Report, words: &str) -> usize {
    report.timeline.iter().filter(|line| line.contains(words)).count()
}

fn replayed(workers: usize, fault: Fault) -> Report {
    let report = common::simulation(Mode::Cluster(workers)).replay(1, &FaultPlan::from([fault]));
    assert!(report.broken.is_none() && report.faults() == 1, "{report}");
    report
}

#[test]
fn owners_change_in_every_way_and_everybody_owns_tasks_in_the_end() {
    for workers in [2, 3, 5] {
        let simulation = common::simulation(Mode::Cluster(workers));
        for seed in 1..3_000 {
            let report = simulation.run(seed, &FaultPlan::among(seed, &KINDS, 420));
            assert!(report.broken.is_none(), "{workers} workers: {}", simulation.shrink(&report));
        }
    }
}

#[test]
fn a_worker_that_leaves_is_relieved_at_a_boundary_and_the_leader_goes_on() {
    let report = replayed(2, Fault::at(100, Kind::Leave(1)).lasting(100));
    assert_eq!(told(&report, "is elected"), 1, "{report}");
    assert_eq!(told(&report, "says Leave"), 1, "{report}");
    // Once when it leaves, once when it has come again.
    assert_eq!(told(&report, "has nothing under way"), 2, "{report}");
    assert_eq!(told(&report, "warns"), 0, "no attempt ended early: {report}");
}

#[test]
fn a_leader_that_leaves_finishes_what_is_under_way_and_another_one_assigns() {
    let report = replayed(3, Fault::at(100, Kind::Leave(WHO)).lasting(100));
    assert_eq!(told(&report, "is elected"), 2, "{report}");
    assert_eq!(told(&report, "has left"), 1, "{report}");
}

#[test]
fn a_worker_that_sleeps_through_its_session_is_dropped_and_registers_again() {
    let report = replayed(3, Fault::at(100, Kind::Pause(2)).lasting(350));
    assert_eq!(told(&report, "is elected"), 1, "{report}");
    assert_eq!(told(&report, "ends the registration of process 2"), 1, "{report}");
    assert_eq!(told(&report, "process 2 is registered"), 2, "{report}");
    assert!(told(&report, "processes [1, 0] share the work") > 0, "{report}");
}

#[test]
fn a_partition_between_two_workers_is_told_to_the_leader() {
    let report = replayed(3, Fault::at(100, Kind::Cut(End::Node(0), End::Node(2))).lasting(100));
    assert_eq!(told(&report, "is elected"), 1, "{report}");
    assert!(told(&report, "process 0 hears that its line to process 2 broke") > 0, "{report}");
    // The same workers under the same era, in a new generation.
    let shared: Vec<&String> = report.timeline.iter().filter(|line| line.contains("share the work")).collect();
    let under = |line: &String| line.split_once("process").map(|(_, words)| words.to_owned());
    assert!(shared.len() == 2 && under(shared[0]) == under(shared[1]), "{shared:?}");
}

#[test]
fn of_what_is_on_its_way_when_a_line_breaks_all_comes_or_the_first_part_or_nothing() {
    let simulation = common::simulation(Mode::Cluster(2));
    let mut seen = [false; 3];
    for seed in 1..400 {
        let cut = Fault::at(60 + seed % 200, Kind::Cut(End::Node(0), End::Node(1))).lasting(20);
        let report = simulation.replay(u64::from(seed), &FaultPlan::from([cut]));
        assert!(report.broken.is_none(), "{report}");
        for (lost, sent) in report.timeline.iter().filter_map(|line| stranded(line)) {
            seen[if lost == 0 {
                0
            } else if lost < sent {
                1
            } else {
                2
            }] = true;
        }
    }
    assert_eq!(seen, [true; 3]);
}

/// Between two workers of which neither leads, nobody but the sender can say that a tree is lost.
#[test]
fn trees_whose_packets_a_line_took_along_fail_and_do_not_wait_for_their_timeout() {
    let simulation = common::stages(Mode::Cluster(3));
    let (mut by_the_line, mut by_timeout) = (0, 0);
    for seed in 1..500 {
        let cut = Fault::at(100 + seed % 200, Kind::Cut(End::Node(0), End::Node(1))).lasting(20);
        let report = simulation.replay(u64::from(seed), &FaultPlan::from([cut]));
        assert!(report.broken.is_none(), "{report}");
        if report.timeline.iter().any(|line| line.contains("process 2 is elected")) {
            by_the_line += told(&report, "the line broke");
            by_timeout += told(&report, "message timeout");
        }
    }
    println!("{by_the_line} attempts ended by the line, {by_timeout} by a timeout");
    assert!(by_the_line > 50 && by_timeout == 0);
}

/// How many packets were lost with a line, and how many were on their way.
fn stranded(line: &str) -> Option<(usize, usize)> {
    let (lost, sent) =
        line.split_once("has not taken from").and_then(|(_, told)| told.split_once(", "))?.1.split_once(" of ")?;
    Some((lost.parse().ok()?, sent.split_once(' ')?.0.parse().ok()?))
}

#[test]
fn a_registration_that_is_taken_away_moves_shards_and_not_the_leadership() {
    for at_ms in 100..120 {
        let report = replayed(3, Fault::at(at_ms, Kind::Reassign));
        assert_eq!(told(&report, "is elected"), 1, "{report}");
        let after = |words: &str| report.timeline.iter().rev().find_map(|line| line.split_once(words));
        let who = after("ends the registration of process ").unwrap().1;
        let last = after(" share the work").unwrap().0;
        assert!(last.ends_with(&format!(", {who}]")), "{last}: process {who} has come last");
    }
}

/// Process 0 is told of the owners of its first reign after it has abdicated, and is elected again when process 1 has died.
#[test]
fn a_leader_that_is_elected_again_waits_for_the_owners_of_its_new_reign() {
    let simulation = common::simulation(Mode::Cluster(2));
    let run = || simulation.replay_line("6371/crash:1@200~7,expire:0@13").unwrap();
    let report = mutant::with([Mutant::OwnersOfAnotherReign], run);
    let broken = report.broken.unwrap();
    assert_eq!(broken.invariant, "invariant_nothing_begins_without_owners");
    let report = run();
    assert!(report.broken.is_none(), "{report}");
}
