//! The word count that most tests simulate.

#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;

use tine_sim::{Mode, Simulation, World, exact_counts, simulate};
use tine_trident::topology::Topology;

/// Lines of words, few enough that every key is met in many transactions.
pub(crate) fn lines(count: usize) -> Vec<Arc<str>> {
    const WORDS: [&str; 11] = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "koi"];
    let word = |n: usize| WORDS[(n * n + n / 3) % WORDS.len()];
    let line = |n: usize| -> Arc<str> {
        let words: Vec<&str> = (0..=n % 3).map(|m| word(n * 7 + m * 5)).collect();
        words.join(" ").into()
    };
    (0..count).map(line).collect()
}

/// Counts words; fails or panics once when a fault says so.
pub(crate) fn word_count(world: &World, lines: &[Arc<str>]) -> Topology {
    let (topology, trips) = (Topology::new("word_count"), world.trips());
    topology
        .source(world.source("lines", lines))
        .stage(move |lines| {
            let trips = trips.clone();
            lines
                .try_map(move |line| trips.step().map(|()| line))
                .flat_map(|line| line.split_whitespace())
                .group_by(|word| word)
                .count()
        })
        .persist(world.table("counts").key("word").value("n"));
    topology
}

/// The simulation of it, with exact counts expected.
pub(crate) fn simulation(mode: Mode) -> Simulation {
    let lines = lines(72);
    simulate(move |world| word_count(world, &lines))
        .mode(mode)
        .expect(exact_counts("counts", |line| line.split_whitespace().collect()))
}
