//! Operators that do not make the same of the same are found, and named, with the rows that differ.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]
#![allow(clippy::print_stdout, reason = "a test prints what it found")]

mod common;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicI64, Ordering},
    time::SystemTime,
};

use proptest::prelude::*;
use tine_sim::{FaultPlan, Mode, Regressions, Simulation, World, deterministic, simulate};
use tine_trident::{
    aggregate::Combiner,
    input::{Input, Policy, Text},
    stream::Stream,
    topology::Topology,
};

/// A topology over lines of words, with determinism expected.
fn looked_at(
    build: impl Fn(Stream<Text, tine_trident::input::Transactional>, &World) + Send + Sync + 'static,
) -> Simulation {
    let lines = common::lines(72);
    simulate(move |world| {
        let topology = Topology::new("looked_at");
        let input: Input<Text> = world.source("lines", &lines);
        build(topology.source(input), world);
        topology
    })
    .expect(deterministic())
}

/// What is found, or nothing.
fn found(simulation: &Simulation) -> Option<String> {
    let report = simulation.run(1, &FaultPlan::default());
    let broken = report.broken?;
    assert_eq!(broken.invariant, "deterministic", "{}", broken.what);
    println!("{}\n", broken.what);
    Some(broken.what)
}

fn named(simulation: &Simulation, operator: &str) -> String {
    let what = found(simulation).unwrap_or_else(|| panic!("{operator} was not found"));
    let name =
        format!("stage 1 after source 1 `simulated lines`, operator {operator} does not make the same of the same");
    assert!(what.starts_with(&name), "{what}");
    what
}

#[test]
fn the_order_of_a_hash_map_is_found_where_it_decides_what_there_is() {
    let first_of_a_set = looked_at(|lines, world| {
        lines
            .stage(|lines| {
                lines
                    .flat_map(|line| {
                        let words: HashSet<&str> = line.split_whitespace().collect();
                        words.into_iter().next()
                    })
                    .group_by(|word| word)
                    .count()
            })
            .persist(world.table("counts").key("word").value("n"));
    });
    let what = named(&first_of_a_set, "1 (flat_map)");
    assert!(what.contains("of record lines/") && what.contains("position"), "{what}");
}

/// A hash map whose order decides nothing is nobody's fault.
#[test]
fn a_hash_map_inside_a_function_is_fine_where_its_order_decides_nothing() {
    let words = looked_at(|lines, world| {
        lines
            .stage(|lines| {
                lines
                    .flat_map(|line| {
                        let mut counts: HashMap<&str, i64> = HashMap::new();
                        line.split_whitespace().for_each(|word| *counts.entry(word).or_default() += 1);
                        counts
                    })
                    .group_by(|(word, _)| word)
                    .count()
            })
            .persist(world.table("counts").key("word").value("n"));
    });
    assert_eq!(found(&words), None);
}

#[test]
fn a_clock_is_found() {
    let stamped = looked_at(|lines, world| {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        lines
            .stage(move |lines| {
                lines
                    .filter(|line| !line.is_empty())
                    .map(move |line| (line, now()))
                    .group_by(|(line, at)| format!("{line} {at}"))
                    .count()
            })
            .persist(world.table("counts").key("stamp").value("n"));
    });
    let what = named(&stamped, "2 (map)");
    assert!(what.contains("in a fresh process, a little later") || what.contains("in a replay"), "{what}");
}

#[test]
fn random_numbers_are_found_also_in_a_key_and_in_a_sum() {
    // The hasher's seed is the random number that the standard library has.
    let roll = || i64::try_from(RandomState::new().hash_one(1) % 6).unwrap();
    let salted = looked_at(move |lines, world| {
        lines
            .stage(move |lines| lines.map(str::len).group_by(move |_| roll()).count())
            .persist(world.table("counts").key("side").value("n"));
    });
    named(&salted, "2 (group_by)");
    let weighed = looked_at(move |lines, world| {
        lines
            .stage(move |lines| lines.group_by(|line: &str| line.to_owned()).sum(move |_| roll()))
            .persist(world.table("counts").key("line").value("n"));
    });
    named(&weighed, "2 (sum)");
}

#[test]
fn counters_of_ones_own_and_outside_are_found() {
    static OUTSIDE: AtomicI64 = AtomicI64::new(0);
    let numbered = looked_at(|lines, world| {
        lines
            .stage(|lines| {
                lines.map(|line| (line, OUTSIDE.fetch_add(1, Ordering::Relaxed))).group_by(|(_, n)| n % 5).count()
            })
            .persist(world.table("counts").key("n").value("count"));
    });
    named(&numbered, "1 (map)");
    let own = looked_at(|lines, world| {
        let seen = AtomicI64::new(0);
        lines
            .stage(move |lines| {
                let every_other = lines.filter(|_| seen.fetch_add(1, Ordering::Relaxed) % 2 == 0);
                every_other.group_by(|line: &str| line.to_owned()).count()
            })
            .persist(world.table("counts").key("line").value("n"));
    });
    let what = found(&own).unwrap();
    assert!(what.contains("operator 1 (filter)"), "{what}");
}

/// The first of a batch that comes: order decides.
#[derive(Clone, Copy, Debug)]
struct First;

impl Combiner for First {
    type Input = i64;
    type Held = i64;
    type Value = i64;

    fn lift(&self, input: i64) -> i64 {
        input
    }

    fn combine(&self, _: &mut i64, _: i64) {}

    fn store(&self, held: i64) -> Result<i64, String> {
        Ok(held)
    }

    fn load(&self, stored: i64) -> Result<i64, String> {
        Ok(stored)
    }
}

#[test]
fn a_combiner_that_looks_at_the_order_is_found_by_its_table() {
    let first = looked_at(|lines, world| {
        let length = |line: &&str| i64::try_from(line.len()).unwrap();
        lines
            .stage(move |lines| {
                lines.group_by(|line: &str| line[..1].to_owned()).combine(First, move |line| length(line))
            })
            .persist(world.table("firsts").key("letter").value("length"));
    });
    let what = found(&first).unwrap();
    assert!(what.starts_with("the aggregate of table firsts does not make the same of the same"), "{what}");
    assert!(what.contains("shared out among several tasks"), "{what}");
}

#[test]
fn later_stages_are_looked_at_too() {
    let later = looked_at(|lines, world| {
        let roll = || i64::try_from(RandomState::new().hash_one(1) % 6).unwrap();
        let words = lines.stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count());
        words.clone().persist(world.table("words").key("word").value("n"));
        words
            .stage(move |words| {
                words.map(move |(word, n)| (word, n + roll())).group_by(|(word, _)| word).sum(|(_, n)| *n)
            })
            .persist(world.table("sums").key("word").value("n"));
    });
    let what = found(&later).unwrap();
    assert!(what.starts_with("stage 1.1 after source 1 `simulated lines`, operator 1 (map)"), "{what}");
}

#[test]
fn pure_topologies_pass_with_policies_and_stages() {
    let plain = looked_at(|lines, world| {
        lines
            .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
            .persist(world.table("counts").key("word").value("n"));
    });
    assert_eq!(found(&plain), None);
    let dropping = looked_at(|lines, world| {
        let words = lines.on_error(Policy::DeadLetter).stage(|lines| {
            let whole = lines.try_map(|line| if line.contains("gnu") { Err("no gnus") } else { Ok(line) });
            whole.flat_map(|line| line.split_whitespace()).group_by(|word| word).count()
        });
        words.clone().persist(world.table("words").key("word").value("n"));
        words
            .stage(|words| words.filter(|(_, n)| *n > 0).group_by(|(word, _)| &word[..1]).sum(|(_, n)| *n))
            .persist(world.table("letters").key("letter").value("n"));
    });
    assert_eq!(found(&dropping), None);
}

/// A clock that ticks slowly is found at the end of a check, after its cases have run.
#[test]
#[should_panic(expected = "operator 1 (map) does not make the same of the same")]
fn a_check_fails_by_the_operators_name() {
    let tenths = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() / 100;
    looked_at(move |lines, world| {
        lines
            .stage(move |lines| lines.map(move |line| (line, tenths())).group_by(|(_, at)| at.to_string()).count())
            .persist(world.table("counts").key("at").value("n"));
    })
    .mode(Mode::Embedded)
    .with_faults(Just(FaultPlan::default()))
    .regressions(Regressions::Forgotten)
    .cases(1_000)
    .check(tine_sim::holds(|_| Ok(())));
}
