//! Several sources and states at once: aggregates that SQL combines, and one that is read, combined and written.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use tine_sim::{Cell, Mode, Report, Simulation, World, exact_counts, holds, simulate};
use tine_trident::{aggregate::Combiner, topology::Topology};

/// Which numbers modulo 60 were met: a set of bits, which SQL cannot merge here.
#[derive(Clone, Copy, Debug)]
struct Met;

impl Combiner for Met {
    type Input = i64;
    type Held = i64;
    type Value = i64;

    fn lift(&self, input: i64) -> i64 {
        1 << (input % 60)
    }

    fn combine(&self, held: &mut i64, other: i64) {
        *held |= other;
    }

    fn store(&self, held: i64) -> Result<i64, String> {
        Ok(held)
    }

    fn load(&self, stored: i64) -> Result<i64, String> {
        Ok(stored)
    }
}

fn number(line: &str) -> i64 {
    line.bytes().map(i64::from).sum()
}

fn letter(line: &str) -> String {
    line[..1].to_owned()
}

fn states(world: &World, lines: &[Arc<str>]) -> Topology {
    let topology = Topology::new("states");
    let all = topology.source(world.source("lines", lines));
    all.clone()
        .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
        .persist(world.table("counts").key("word").value("n"));
    all.clone()
        .stage(|lines| {
            lines.group_by(|line: &str| letter(line)).aggregate(|lines| {
                (lines.min(|line| number(line)), lines.max(|line| number(line)), lines.sum(|line| number(line)))
            })
        })
        .persist(world.table("spans").key("letter").value("low").value("high").value("total"));
    all.stage(|lines| lines.group_by(|line: &str| letter(line)).combine(Met, |line| number(line)))
        .persist(world.table("met").key("letter").value("bits"));
    topology
}

/// What the tables must hold in the end, from the records alone.
fn as_recounted(report: &Report) -> Result<(), String> {
    let (mut spans, mut met) = (BTreeMap::<String, [i64; 3]>::new(), BTreeMap::<String, [i64; 1]>::new());
    for line in report.records() {
        let (letter, number) = (letter(&line), number(&line));
        let [low, high, total] = spans.entry(letter.clone()).or_insert([i64::MAX, i64::MIN, 0]);
        (*low, *high, *total) = ((*low).min(number), (*high).max(number), *total + number);
        met.entry(letter).or_default()[0] |= 1 << (number % 60);
    }
    same(report, "spans", &spans)?;
    same(report, "met", &met)
}

fn same<const N: usize>(report: &Report, state: &str, expected: &BTreeMap<String, [i64; N]>) -> Result<(), String> {
    let table = report.table(state).unwrap();
    let of = |key: &str| Cell::Text(key.to_owned());
    let should: BTreeMap<_, _> = expected
        .iter()
        .map(|(key, values)| (Box::from([of(key)]), values.iter().map(|value| Cell::BigInt(*value)).collect()))
        .collect();
    match *table == should {
        true => Ok(()),
        false => Err(format!("{state}: {table:?} should be {should:?}")),
    }
}

fn simulation(mode: Mode) -> Simulation {
    let lines = common::lines(60);
    simulate(move |world| states(world, &lines))
        .mode(mode)
        .expect(exact_counts("counts", |line| line.split_whitespace().collect()))
        .expect(holds(as_recounted))
}

#[test]
fn several_states_stay_exact_together() {
    for mode in [Mode::Cluster(2), Mode::Embedded] {
        let (coverage, failed) = simulation(mode).campaign(1, 3_000, 2);
        println!("{mode:?}: {coverage}");
        if let Some(report) = failed {
            panic!("{report}");
        }
    }
}
