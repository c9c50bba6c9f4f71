//! Runs any number of schedules of a word count: `cargo run --release -p tine-sim --example campaign -- 100000 1`
//! (how many, from which seed). Prints the coverage, the slowest recovery, and the first failure, shrunk.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::{sync::Arc, time::Instant};

use tine_sim::{Mode, World, exact_counts, simulate};
use tine_trident::topology::Topology;

fn word_count(world: &World, lines: &[Arc<str>]) -> Topology {
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

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().unwrap_or(1));
    let (count, from) = (arguments.next().unwrap_or(20_000), arguments.next().unwrap_or(1));
    let lines: Arc<[Arc<str>]> =
        (0..72_usize).map(|n| -> Arc<str> { format!("w{} w{} w{}", n % 7, n * n % 11, n % 3).into() }).collect();
    for mode in [Mode::Cluster(2), Mode::Cluster(3), Mode::Embedded] {
        let lines = lines.clone();
        let simulation = simulate(move |world| word_count(world, &lines))
            .mode(mode)
            .expect(exact_counts("counts", |line| line.split_whitespace().collect()));
        let began = Instant::now();
        let (coverage, failed) = simulation.campaign(from, count, 2);
        println!(
            "{mode:?}: {:.0} schedules a second; {coverage}\n",
            coverage.runs as f64 / began.elapsed().as_secs_f64()
        );
        if let Some(report) = failed {
            println!("{report}");
            std::process::exit(1);
        }
    }
}
