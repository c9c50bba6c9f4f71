//! The topologies that the tests simulate.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    cell::Cell,
    sync::{Arc, Once},
};

use tine_sim::{Mode, Report, Simulation, World, exact_counts, simulate};
use tine_trident::topology::Topology;

/// Lines of words, few enough that every key is met in many transactions.
pub(crate) fn lines(count: usize) -> Arc<[Arc<str>]> {
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

thread_local! {
    static DICE: Cell<u64> = const { Cell::new(0) };
}

/// Another number every time that it is asked: what an operator must not do.
fn dice() -> u64 {
    DICE.set(DICE.get() + 1);
    DICE.get()
}

/// Counts words under keys that a die decides.
pub(crate) fn gambling(mode: Mode) -> Simulation {
    let lines = lines(72);
    simulate(move |world| {
        let topology = Topology::new("gambling");
        topology
            .source(world.source("lines", &lines))
            .stage(|lines| lines.map(|line| format!("{line} {}", dice() % 5)).group_by(|key: String| key).count())
            .persist(world.table("counts").key("word").value("n"));
        topology
    })
    .mode(mode)
}

fn letter(word: &str) -> &str {
    &word[..1]
}

/// Words by letter: counted, repartitioned, summed up.
pub(crate) fn stages(mode: Mode) -> Simulation {
    stages_of(&lines(72), mode)
}

/// The same of these lines.
pub(crate) fn stages_of(lines: &Arc<[Arc<str>]>, mode: Mode) -> Simulation {
    let lines = lines.clone();
    simulate(move |world| {
        let topology = Topology::new("stages");
        topology
            .source(world.source("lines", &lines))
            .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
            .stage(|words| words.group_by(|(word, _)| letter(word)).sum(|(_, n)| *n))
            .persist(world.table("letters").key("letter").value("n"));
        topology
    })
    .mode(mode)
    .expect(exact_counts("letters", |line| line.split_whitespace().map(letter).collect()))
}

/// Whether a run halted with these words.
pub(crate) fn halted(report: &Report, words: &str) -> bool {
    report
        .broken
        .as_ref()
        .is_some_and(|broken| broken.invariant == tine_sim::invariants::Broken::HALTED && broken.what.contains(words))
}

/// Keeps assertions that a run is meant to trip over from being printed.
pub(crate) fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|at| at.file().starts_with("core/") || at.file().contains("trident/")) {
                usual(panic);
            }
        }));
    });
}
