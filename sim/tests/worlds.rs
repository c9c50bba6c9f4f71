//! Worlds of many shapes: from a single record to seventy-two lines, from a lone worker to five, one stage or two. What
//! users simulate is often small, and its ends and beginnings lie close together.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod common;

use std::sync::Arc;

use tine_sim::{Mode, Simulation, exact_counts, simulate};

/// Seeds of each world: 15,680 schedules together.
const SEEDS: u64 = 8;

const MODES: [Mode; 5] = [Mode::Embedded, Mode::Cluster(1), Mode::Cluster(2), Mode::Cluster(3), Mode::Cluster(5)];

/// In how many steps the source grows, and how many of them wait for the healed world.
const GROWTHS: [(usize, usize); 7] = [(1, 0), (1, 1), (2, 1), (3, 3), (3, 5), (12, 3), (12, 12)];

#[test]
fn worlds_of_every_shape_are_exact() {
    for mode in MODES {
        for count in [1, 2, 3, 5, 8, 20, 72] {
            let lines = common::lines(count);
            for partitions in [1, 2, 3, 5] {
                for growth in GROWTHS {
                    hold(counted(&lines, mode), count, partitions, growth);
                    hold(common::stages_of(&lines, mode), count, partitions, growth);
                }
            }
        }
    }
}

fn counted(lines: &Arc<[Arc<str>]>, mode: Mode) -> Simulation {
    let lines = lines.clone();
    simulate(move |world| common::word_count(world, &lines))
        .mode(mode)
        .expect(exact_counts("counts", |line| line.split_whitespace().collect()))
}

fn hold(simulation: Simulation, lines: usize, partitions: usize, (steps, held): (usize, usize)) {
    let simulation = simulation.settings(|settings| {
        settings.partitions = partitions;
        settings.steps = steps;
        settings.held = held;
    });
    for seed in 1..=SEEDS {
        let report = simulation.run_seed(seed * 7919 + lines as u64);
        assert!(
            report.broken.is_none(),
            "{lines} lines, {partitions} partitions, {steps} steps, {held} held: {}",
            simulation.shrink(&report)
        );
    }
}
