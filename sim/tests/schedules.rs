//! A hundred thousand ways to crash a word count, and the counts stay exact.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use std::time::Instant;

use tine_sim::{Mode, Simulation};

/// Of the hundred thousand, for each mode.
const HALF: u64 = 50_000;

fn run(name: &str, simulation: &Simulation, count: u64) {
    let from = std::env::var("TINE_SIM_FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(1);
    let count = std::env::var("TINE_SIM_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(count);
    if let Ok(line) = std::env::var("TINE_SIM_REPLAY") {
        return println!("{name}: {}", simulation.replay_line(&line).expect("a replay line"));
    }
    let began = Instant::now();
    let (coverage, failed) = simulation.campaign(from, count, 2);
    let took = began.elapsed().as_secs_f64();
    println!("{name}: {:.0} schedules a second; {coverage}", coverage.runs as f64 / took);
    if let Some(report) = failed {
        panic!("{name}: {report}");
    }
    assert!(coverage.average(coverage.txids) >= 8.0, "too few transactions");
    assert!(coverage.average(coverage.faults) >= 3.0, "too few faults");
}

#[test]
fn a_cluster_stays_exact() {
    run("two workers, prepared", &common::simulation(Mode::Cluster(2)), HALF);
}

#[test]
fn the_embedded_mode_stays_exact() {
    run("embedded with a standby", &common::simulation(Mode::Embedded), HALF);
}
