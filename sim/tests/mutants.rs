//! Breaks one rule of the protocol at a time, and shows that the simulator notices.
//!
//! Most are noticed by random schedules of the word count. What these hardly meet has a scenario of its own: the faults
//! that matter, at random times. Prints the table mutant → schedules until caught → what broke → shrunk faults.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tine_core::mutant::{self, Mutant};
use tine_sim::{FaultPlan, Kind, Mode, Report, Simulation};

/// A way to meet a broken rule.
struct Scenario {
    name: &'static str,
    simulation: Simulation,
    plan: fn(u64) -> FaultPlan,
    /// Whether a run shows that something is wrong.
    wrong: fn(&Report) -> bool,
}

/// Rules whose breach goes unnoticed, each with the reason.
const SURVIVORS: &[(Mutant, &str)] = &[
    (
        Mutant::XorDigest,
        "merged rows have distinct keys, so that no two cancel; the digest's own test tells them apart",
    ),
    (Mutant::ChainNotCompared, "a fence compared by equality lets nobody in whose chain could differ"),
    (Mutant::MissingRowIsNew, "the commit looks for missing rows too, and halts in the raise's place"),
    (
        Mutant::ManifestOfOneShard,
        "needs a function that changes its mind beside the shard that is compared; no scenario yet",
    ),
    (Mutant::DeadLetterOutsideOrder, "needs dead letters under faults; no scenario yet"),
    (Mutant::LateDuplicateIsGap, "committers remember what they committed, and a lost connection never commits twice"),
];

fn plain(name: &'static str, mode: Mode) -> Scenario {
    let plan: fn(u64) -> FaultPlan = match mode {
        Mode::Embedded => |seed| FaultPlan::from_seed(seed, Mode::Embedded),
        Mode::Cluster(_) => |seed| FaultPlan::from_seed(seed, Mode::Cluster(2)),
    };
    Scenario { name, simulation: common::simulation(mode), plan, wrong: |report| report.broken.is_some() }
}

/// Two leaders of one epoch: the database loses the first one's raise while it sleeps, the second one begins where the
/// first had begun, and is slow; the first wakes up, and the news that it leads no longer is late.
fn two_leaders_of_one_epoch() -> Scenario {
    const KINDS: [Kind; 7] = [
        Kind::LoseTail(1),
        Kind::LoseTail(2),
        Kind::Pause(0),
        Kind::Pause(1),
        Kind::Slow(0),
        Kind::Slow(1),
        Kind::LateNews,
    ];
    Scenario { plan: |seed| FaultPlan::among(seed, &KINDS, 60), ..plain("two leaders of one epoch", Mode::Embedded) }
}

/// The topic is deleted and made again: the group must halt.
fn recreated_topic() -> Scenario {
    Scenario {
        plan: |seed| FaultPlan::of([(u16::try_from(seed % 300).unwrap() + 40, 0, Kind::Recreate)]),
        wrong: |report| !common::halted(report, "made again"),
        ..plain("topic made again", Mode::Cluster(2))
    }
}

/// An operator that rolls a die, in transactions of which some shards are committed and others not.
fn non_determinism() -> Scenario {
    const KINDS: [Kind; 4] = [Kind::SqlAbort(0), Kind::SqlAbort(1), Kind::LostCommitReply(0), Kind::Crash(1)];
    Scenario {
        name: "non-deterministic operator",
        simulation: common::gambling(Mode::Cluster(2)),
        plan: |seed| FaultPlan::among(seed, &KINDS, 300),
        wrong: |report| report.broken.is_some() && !common::halted(report, "non-deterministic operator"),
    }
}

fn scenarios(mutant: Mutant) -> Vec<Scenario> {
    match mutant {
        Mutant::NonceIgnored => vec![two_leaders_of_one_epoch()],
        Mutant::RecreatedTopicReadOn => vec![recreated_topic()],
        Mutant::DoneWithoutManifest => vec![non_determinism()],
        _ => vec![plain("cluster", Mode::Cluster(2)), plain("embedded", Mode::Embedded), two_leaders_of_one_epoch()],
    }
}

/// The first seed at which something goes wrong in a scenario.
fn hunt(mutant: Option<Mutant>, scenario: &Scenario, count: u64) -> Option<Report> {
    let (next, found) = (AtomicU64::new(1), Mutex::new(None::<Report>));
    let work = || {
        mutant::with(mutant, || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > count || found.lock().unwrap().as_ref().is_some_and(|report| report.seed < seed) {
                    return;
                }
                let report = scenario.simulation.run(seed, &(scenario.plan)(seed));
                if (scenario.wrong)(&report) {
                    let mut found = found.lock().unwrap();
                    if found.as_ref().is_none_or(|other| other.seed > seed) {
                        *found = Some(report);
                    }
                }
            }
        });
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let report = found.into_inner().unwrap()?;
    Some(mutant::with(mutant, || scenario.simulation.shrink_while(&report, scenario.wrong)))
}

#[test]
fn every_broken_rule_is_noticed() {
    common::quiet();
    let count = std::env::var("TINE_SIM_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(5_000);
    let only = std::env::var("TINE_SIM_MUTANT").ok();
    let (mut caught, mut missed) = (0, Vec::new());
    for &mutant in Mutant::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{mutant:?}")) {
            continue;
        }
        let found = scenarios(mutant)
            .iter()
            .scan(0, |before, scenario| {
                let found =
                    hunt(Some(mutant), scenario, count).map(|report| (*before + report.seed, scenario.name, report));
                *before += count;
                Some(found)
            })
            .find_map(|found| found);
        let reason = SURVIVORS.iter().find(|(survivor, _)| *survivor == mutant).map(|(_, reason)| *reason);
        match (found, reason) {
            (Some((schedules, name, report)), _) => {
                caught += 1;
                let (what, text) = match &report.broken {
                    Some(broken) => (broken.invariant, broken.what.chars().take(110).collect()),
                    None => ("no halt", String::new()),
                };
                println!("{mutant:?}: after {schedules} schedules ({name}), seed {}: {what}: {text}", report.seed);
                print!("{:#}", report.plan);
            }
            (None, Some(reason)) => println!("{mutant:?}: survives: {reason}"),
            (None, None) => missed.push(mutant),
        }
    }
    println!("{caught} of {} caught", Mutant::ALL.len());
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// The other side of each scenario: without a mutant nothing is wrong.
#[test]
fn the_scenarios_are_right_when_no_rule_is_broken() {
    for scenario in [two_leaders_of_one_epoch(), recreated_topic(), non_determinism()] {
        let found = hunt(None, &scenario, 2_000);
        assert!(found.is_none(), "{}: {}", scenario.name, found.unwrap());
    }
}
