//! Topologies for rules that a word count cannot show.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tine_sim::{Mode, Report, Simulation, World, exact_counts, holds, simulate};
use tine_trident::{dead_letters, input::Policy, topology::Topology};

use crate::common;

/// Every second line is a dead letter.
fn is_bad(line: &str) -> bool {
    line.parse().is_ok_and(|number: usize| number.is_multiple_of(2))
}

/// Where the function that counts all lines fails, once each.
const STUMBLES: [&str; 2] = ["31", "55"];

/// One stage makes dead letters of bad lines; another one, of the same source, counts all and fails in the middle of a batch.
fn letters(world: &World, lines: &[Arc<str>]) -> Topology {
    let topology = Topology::new("letters");
    let stumbled = STUMBLES.map(|line| (line, Arc::new(AtomicBool::new(false))));
    let lines = topology.source(world.source("lines", lines));
    lines
        .clone()
        .on_error(Policy::DeadLetter)
        .stage(|lines| {
            let good = |line| if is_bad(line) { Err("bad") } else { Ok(line) };
            lines.try_map(good).group_by(|line: &str| line).count()
        })
        .persist(world.table("good").key("line").value("n"));
    lines
        .stage(move |lines| {
            let stumbled = stumbled.clone();
            let steps = move |line| match stumbled.iter().find(|(at, _)| *at == line) {
                Some((_, before)) if !before.swap(true, Ordering::Relaxed) => Err("stumbled"),
                _ => Ok(line),
            };
            lines.try_map(steps).group_by(|line: &str| line).count()
        })
        .persist(world.table("counts").key("line").value("n"));
    topology
}

fn all_letters(report: &Report) -> Result<(), String> {
    let bad = report.records().iter().filter(|line| is_bad(line)).count();
    let found = report.table(dead_letters::NAME).map_or(0, |table| table.len());
    if found == bad { Ok(()) } else { Err(format!("{found} dead letters of {bad} bad lines")) }
}

/// Dead letters beside counts.
pub(super) fn dead_letters(mode: Mode) -> Simulation {
    let lines: Vec<Arc<str>> = (0..72).map(|n| n.to_string().into()).collect();
    simulate(move |world| letters(world, &lines))
        .mode(mode)
        .expect(exact_counts("counts", |line| vec![line]))
        .expect(exact_counts("good", |line| if is_bad(line) { vec![] } else { vec![line] }))
        .expect(holds(all_letters))
}

/// A later stage that says which word of a batch it was shown first: only the order of rows decides.
pub(super) fn first_shown(mode: Mode) -> Simulation {
    let lines = common::lines(72);
    simulate(move |world| {
        let topology = Topology::new("first");
        topology
            .source(world.source("lines", &lines))
            .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
            .stage(|words| {
                let shown = std::cell::Cell::new(false);
                words.filter(|_| !shown.replace(true)).group_by(|(word, _)| word).count()
            })
            .persist(world.table("first").key("word").value("n"));
        topology
    })
    .mode(mode)
}
