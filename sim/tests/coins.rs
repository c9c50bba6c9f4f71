//! d5 A user's function that changes its mind: what is committed of a record is one reading of it, or the group halts.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

#[path = "mutation/coins.rs"]
mod coins;
mod common;

use tine_sim::{FaultPlan, Kind, Mode, Report, Simulation};

/// What leaves transactions partly committed when they are replayed.
const KINDS: [Kind; 8] = [
    Kind::SqlAbort(0),
    Kind::SqlAbort(1),
    Kind::LostCommitReply(0),
    Kind::LostCommitReply(1),
    Kind::LateStatement(0),
    Kind::Crash(0),
    Kind::Crash(1),
    Kind::Duplicate,
];

/// Runs a topology of coins under random faults, and under those that matter; counts how many runs halted.
fn toss(name: &str, simulation: &Simulation, wrong: impl Fn(&Report) -> Option<String>) {
    let mode = Mode::Cluster(2);
    let plans = (1..2_000)
        .flat_map(|seed| [(seed, FaultPlan::from_seed(seed, mode)), (seed, FaultPlan::among(seed, &KINDS, 420))]);
    let (mut runs, mut halts) = (0, 0);
    for (seed, plan) in plans {
        let report = simulation.run(seed, &plan);
        let halted = common::halted(&report, "non-deterministic operator");
        let wrong = |report: &Report| match &report.broken {
            Some(broken) if !common::halted(report, "non-deterministic operator") => Some(broken.what.clone()),
            _ => wrong(report),
        };
        if let Some(what) = wrong(&report) {
            let report = simulation.shrink_while(&report, |report| wrong(report).is_some());
            panic!("{name}: {what}\n{report}");
        }
        (runs, halts) = (runs + 1, halts + u32::from(halted));
    }
    println!("{name}: {halts} of {runs} runs halted");
    assert!(halts > 100, "hardly any replay met what was committed: {halts}");
}

/// Whether all records were counted, each once.
fn all_once(report: &Report) -> Option<String> {
    let (counted, records) = (coins::total(report), report.records().len() as i64);
    (report.broken.is_none() && counted != records).then(|| format!("{counted} of {records} records were counted"))
}

#[test]
fn d5_rows_that_move_to_another_shard() {
    toss("moving", &coins::moving(Mode::Cluster(2)), |report| coins::mixed(report).or_else(|| all_once(report)));
}

#[test]
fn d5_rows_that_stay_alike_though_records_have_moved() {
    toss("swapping", &coins::swapping(Mode::Cluster(2)), all_once);
}

/// What looks like a hole and is none: in one batch some records are in their first reading and others in their second. Of an
/// attempt that ended early, one emitter had read its part and the other had not. What is committed is the next attempt,
/// whole, and its manifest says so; nobody has committed anything of the one before.
#[test]
fn d5_a_batch_may_hold_first_readings_and_second_ones_and_is_exact() {
    let simulation = coins::moving(Mode::Cluster(2)).settings(|settings| (settings.steps, settings.held) = (1, 0));
    let plans = (1..2_000).map(|seed| (seed, FaultPlan::among(seed, &KINDS, 60)));
    let of_one_batch = |report: &Report| report.broken.is_none() && report.txids == 1;
    let reports = plans.map(|(seed, plan)| simulation.run(seed, &plan)).filter(of_one_batch);
    let mut both = 0;
    for report in reports {
        assert_eq!((coins::mixed(&report), all_once(&report)), (None, None), "{report}");
        let [upper, lower] = coins::sides(&report);
        both += u32::from(upper > 0 && lower > 0);
    }
    println!("{both} runs with one batch of first and second readings");
    assert!(both > 0);
}

#[test]
fn d5_row_hashes_that_cancel() {
    toss("cancelling", &coins::cancelling(Mode::Cluster(2)), coins::mixed);
}

#[test]
fn d5_rows_that_differ_beside_the_first_shard() {
    toss("beside the first shard", &coins::beside_the_first_shard(Mode::Cluster(2)), coins::mixed);
}
