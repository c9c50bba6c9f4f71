//! A mistake that no ordinary test finds, found by simulation: `cargo run --release --features sim --example simulate`.
//!
//! The topology counts orders by user, and its author was careful: an order that comes twice shall count once, so an
//! operator remembers which orders it has seen. Every test passes. Then, in production, a transaction is tried again after
//! a crash, its orders have all been seen before, and they are lost.
//!
//! The simulator finds it in two ways: it crashes the topology until a count is wrong, and shrinks that to the one fault
//! that it takes; and it looks at the operators, and says which one does not make the same of the same.

#![allow(clippy::print_stdout, reason = "a program that tells what it found")]

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use tine::{Input, Text, Topology, sim::prelude::*, state::Table};

/// Lines such as `order-17 bob`.
fn orders() -> Vec<String> {
    const USERS: [&str; 5] = ["ann", "bob", "cy", "dee", "eve"];
    (0..90_usize).map(|n| format!("order-{n} {}", USERS[(n * n + n / 3) % USERS.len()])).collect()
}

fn user(order: &str) -> &str {
    order.split_once(' ').map_or(order, |(_, user)| user)
}

/// What was written first: an operator with a memory of its own.
fn remembering(orders: Input<Text>, table: Table) -> Topology {
    let topology = Topology::new("orders");
    let seen: Mutex<HashSet<String>> = Mutex::default();
    let is_new = move |order: &str| seen.lock().unwrap_or_else(PoisonError::into_inner).insert(order.to_owned());
    topology
        .source(orders)
        .stage(move |orders| orders.filter(|order| is_new(order)).group_by(user).count())
        .persist(table.key("user").value("n"));
    topology
}

/// The way out: nothing is remembered. That a record counts once is what tine is for.
fn pure(orders: Input<Text>, table: Table) -> Topology {
    let topology = Topology::new("orders");
    topology.source(orders).stage(|orders| orders.group_by(user).count()).persist(table.key("user").value("n"));
    topology
}

/// The simulation of either, with exact counts expected.
fn simulation(build: fn(Input<Text>, Table) -> Topology) -> Simulation {
    simulate(move |world| build(world.source("orders", orders()), world.table("orders_by_user")))
        .expect(exact_counts("orders_by_user", |order| vec![user(order)]))
}

fn main() {
    println!("1. An ordinary test: one run, in which nothing goes wrong.\n");
    let quiet = simulation(remembering).run(1, &FaultPlan::default());
    println!("{} transactions, and every count is exact.\n", quiet.txids);

    println!("2. The same under faults, until a count is wrong:\n");
    let (coverage, failed) = simulation(remembering).campaign(1, 10_000, 2);
    match failed {
        Some(report) => println!("{report}\n\nfound after {} schedules, and shrunk.\n", coverage.runs),
        None => println!("nothing found in {} schedules\n", coverage.runs),
    }

    println!("3. A look at the operators:\n");
    let looked_at = simulation(remembering).expect(deterministic()).run(1, &FaultPlan::default());
    println!("{}\n", looked_at.broken.map_or_else(String::new, |broken| broken.what));

    println!("4. Without the memory:\n");
    let began = Instant::now();
    let (coverage, failed) = simulation(pure).expect(deterministic()).campaign(1, 2_000, 2);
    let rate = coverage.runs as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} schedules a second; {coverage}");
    if let Some(report) = failed {
        println!("{report}");
        std::process::exit(1);
    }
    println!("\nevery count of every schedule is exact");
}
