//! Every oracle passes where it should, and a wrong topology or expectation trips it, by its name.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test prints figures and fails loudly")]

mod common;

use std::collections::BTreeMap;

use tine_sim::{
    Fault, FaultPlan, Kind, Mode, Oracle, Simulation, World, always, dead_letters_complete, exact, exact_counts,
    exact_table, holds, never_goes_back, no_replay_storm, order_per_key, simulate,
};
use tine_trident::{
    aggregate::Combiner,
    input::{Input, Policy, Text},
    source::files::files,
    topology::Topology,
};

/// Runs fifty seeds; all must hold.
fn holds_always(simulation: &Simulation) {
    for seed in 1..50 {
        simulation.run_seed(seed).assert_held();
    }
}

/// Runs seeds until one breaks under this name, and none under another; answers with what it says.
fn trips(simulation: &Simulation, name: &str) -> String {
    for seed in 1..50 {
        let report = simulation.run_seed(seed);
        if let Some(broken) = &report.broken {
            assert_eq!(broken.invariant, name, "{report}");
            println!("{name}: {}", broken.what);
            return broken.what.clone();
        }
    }
    panic!("{name} was never broken")
}

/// Lines such as `ann 17`: some users, and numbers that rise.
fn purchases() -> Vec<String> {
    const USERS: [&str; 5] = ["ann", "bob", "cy", "dee", "eve"];
    (0..72_usize).map(|n| format!("{} {}", USERS[(n * n + n / 4) % 5], n * 3 + 1)).collect()
}

fn user(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn cents(line: &str) -> i64 {
    line.split(' ').nth(1).and_then(|cents| cents.parse().ok()).unwrap_or(0)
}

fn sales(world: &World) -> Topology {
    let topology = Topology::new("sales");
    topology
        .source(world.source("purchases", purchases()))
        .stage(|lines| {
            lines.group_by(|line: &str| user(line).to_owned()).aggregate(|lines| {
                let (low, high) = (lines.min(|line| cents(line)), lines.max(|line| cents(line)));
                (lines.count(), lines.sum(|line| cents(line)), low, high)
            })
        })
        .persist(world.table("sales").key("user").value("n").value("total").value("low").value("high"));
    topology
}

#[test]
fn exact_knows_counts_sums_and_extremes() {
    let row = |line: &str| vec![(user(line).to_owned(), (1_i64, cents(line), cents(line), cents(line)))];
    holds_always(&simulate(sales).expect(exact("sales", row)));
    let wrong = |line: &str| vec![(user(line).to_owned(), (1_i64, cents(line), cents(line), 1_i64))];
    let what = trips(&simulate(sales).expect(exact("sales", wrong)), "exact");
    assert!(what.contains("and should be"), "{what}");
    let what = trips(&simulate(sales).expect(exact("sale", row)), "exact");
    assert_eq!(what, "there is no table \"sale\"; there are sales, tine_dead_letters");
    let counted = exact_counts("sale", |line| vec![user(line)]);
    assert!(trips(&simulate(sales).expect(counted), "exact_counts").contains("there is no table"));
}

/// The longest line of a user: no column can merge texts.
#[derive(Clone, Copy, Debug)]
struct Longest;

impl Combiner for Longest {
    type Input = String;
    type Held = String;
    type Value = String;

    fn lift(&self, input: String) -> String {
        input
    }

    fn combine(&self, held: &mut String, other: String) {
        if (held.len(), &*held) < (other.len(), &other) {
            *held = other;
        }
    }

    fn store(&self, held: String) -> Result<String, String> {
        Ok(held)
    }

    fn load(&self, stored: String) -> Result<String, String> {
        Ok(stored)
    }
}

#[test]
fn exact_table_knows_aggregates_of_ones_own() {
    let topology = |world: &World| {
        let topology = Topology::new("longest");
        topology
            .source(world.source("purchases", purchases()))
            .stage(|lines| {
                lines.group_by(|line: &str| user(line).to_owned()).combine(Longest, |line| (*line).to_owned())
            })
            .persist(world.table("longest").key("user").value("line"));
        topology
    };
    let longest = |lines: &[&str]| {
        let mut longest: BTreeMap<String, String> = BTreeMap::new();
        for line in lines {
            let held = longest.entry(user(line).to_owned()).or_default();
            if (held.len(), &**held) < (line.len(), *line) {
                *held = (*line).to_owned();
            }
        }
        longest
    };
    holds_always(&simulate(topology).expect(exact_table("longest", longest)));
    let first =
        |lines: &[&str]| lines.iter().map(|line| (user(line).to_owned(), (*line).to_owned())).collect::<Vec<_>>();
    trips(&simulate(topology).expect(exact_table("longest", first)), "exact_table");
    let merged = exact("longest", |line: &str| vec![(user(line).to_owned(), line.to_owned())]);
    assert!(trips(&simulate(topology).expect(merged), "exact").contains("use exact_table"));
}

#[test]
fn never_goes_back_notices_sums_of_what_may_be_negative() {
    holds_always(&common::simulation(Mode::Cluster(2)).expect(never_goes_back("counts")));
    let balance = |world: &World| {
        let topology = Topology::new("balance");
        topology
            .source(world.source("purchases", purchases()))
            .stage(|lines| lines.group_by(|line: &str| user(line).to_owned()).sum(|line| 100 - cents(line)))
            .persist(world.table("balance").key("user").value("cents"));
        topology
    };
    let what = trips(&simulate(balance).expect(never_goes_back("balance")), "never_goes_back");
    assert!(what.contains("back to"), "{what}");
}

/// What a user bought last: by a number that rises, or, wrongly, the cheapest.
fn last_purchase(world: &World, keyed: bool, largest: bool) -> Topology {
    let topology = Topology::new("last");
    let topic = world.topic("purchases", purchases());
    let topic = if keyed { topic.keyed(|line| user(line).to_owned()) } else { topic };
    let lines = topology.source(topic.text());
    let stream = match largest {
        true => lines.stage(|lines| lines.group_by(|line: &str| user(line).to_owned()).max(|line| cents(line))),
        false => lines.stage(|lines| lines.group_by(|line: &str| user(line).to_owned()).min(|line| cents(line))),
    };
    stream.persist(world.table("last").key("user").value("cents"));
    topology
}

#[test]
fn order_per_key_notices_what_is_not_the_last_and_what_has_no_order() {
    let last = || order_per_key("last", |line| (user(line).to_owned(), cents(line)));
    holds_always(&simulate(|world| last_purchase(world, true, true)).expect(last()));
    let what = trips(&simulate(|world| last_purchase(world, true, false)).expect(last()), "order_per_key");
    assert!(what.contains("should be"), "{what}");
    let what = trips(&simulate(|world| last_purchase(world, false, true)).expect(last()), "order_per_key");
    assert!(what.contains("between partitions there is no order"), "{what}");
}

fn with_letters(world: &World, policy: Policy) -> Topology {
    let topology = Topology::new("letters");
    topology
        .source(world.source("purchases", purchases()))
        .on_error(policy)
        .stage(|lines| {
            let refuse = |line: &str| line.starts_with("bob");
            lines
                .try_map(move |line| if refuse(line) { Err("nothing for bob") } else { Ok(line) })
                .group_by(|line: &str| user(line).to_owned())
                .count()
        })
        .persist(world.table("counts").key("user").value("n"));
    topology
}

#[test]
fn dead_letters_complete_notices_what_is_missing_and_what_is_too_much() {
    let letters = |world: &World| with_letters(world, Policy::DeadLetter);
    holds_always(&simulate(letters).expect(dead_letters_complete(|line| user(line) == "bob")));
    holds_always(&simulate(letters).mode(Mode::Embedded).expect(dead_letters_complete(|line| user(line) == "bob")));
    let more = dead_letters_complete(|line| user(line) == "bob" || user(line) == "ann");
    assert!(trips(&simulate(letters).expect(more), "dead_letters_complete").contains("missing"));
    let fewer = dead_letters_complete(|line| user(line) == "nobody");
    assert!(trips(&simulate(letters).expect(fewer), "dead_letters_complete").contains("should be none"));
    let skipped = |world: &World| with_letters(world, Policy::Skip);
    let all = dead_letters_complete(|line| user(line) == "bob");
    assert!(trips(&simulate(skipped).expect(all), "dead_letters_complete").contains("missing"));
}

/// A message timeout that is shorter than what a transaction takes: replays without end, once everything is slow.
#[test]
fn no_replay_storm_notices_a_timeout_that_is_too_short() {
    let simulation = common::simulation(Mode::Cluster(2)).expect(no_replay_storm(3));
    let plan = FaultPlan::from([Fault::at(50, Kind::Crash(0)).lasting(100)]);
    simulation.run(1, &plan).assert_held();
    let mut storms = 0;
    for timeout_ms in [3, 4, 5, 6] {
        let hasty = simulation.clone().settings(|settings| settings.message_timeout_ms = timeout_ms);
        for seed in 1..20 {
            let report = hasty.run(seed, &plan);
            match report.broken.as_ref().map(|broken| broken.invariant) {
                None => {}
                Some("no_replay_storm" | "invariant_no_replay_storm") => storms += 1,
                // So hasty that nothing is ever done.
                Some("invariant_the_lowest_open_transaction_can_proceed") => {}
                Some(_) => panic!("{report}"),
            }
        }
    }
    println!("{storms} of 76 runs stormed");
    assert!(storms > 10, "{storms}");
}

#[test]
fn ones_own_expectations_are_looked_at_at_every_transaction_and_at_the_end() {
    let counts = || common::simulation(Mode::Cluster(2));
    let few: fn(usize) -> Oracle = |most| {
        always(move |seen| match seen.table("counts")?.len() {
            keys if keys <= most => Ok(()),
            keys => Err(format!("{keys} keys in transaction {} of {} records", seen.txid(), seen.records().len())),
        })
    };
    holds_always(&counts().expect(few(11)));
    assert!(trips(&counts().expect(few(5)), "the user's expectation (always)").contains("keys in transaction"));
    let fresh = always(|seen| match seen.new_records().is_empty() && !seen.changed("counts")?.is_empty() {
        true => Err("rows changed, and no record came".to_owned()),
        false => Ok(()),
    });
    holds_always(&counts().expect(fresh));
    let end =
        holds(|report| if report.count("counts", "ant") == Some(1) { Ok(()) } else { Err("more ants".to_owned()) });
    assert_eq!(trips(&counts().expect(end), "the user's expectation"), "more ants");
}

#[test]
fn columns_of_other_kinds_than_expected_are_named_with_their_table() {
    let sales = || simulate(sales);
    let by_number = exact("sales", |line: &str| vec![(cents(line), (1_i64, 1_i64, 1_i64, 1_i64))]);
    let said = trips(&sales().expect(by_number), "exact");
    assert_eq!(said, "sales: its key columns are (text), and are expected to be (integer)");
    let one = exact_table("sales", |lines: &[&str]| vec![(user(lines[0]).to_owned(), 1_i64)]);
    let said = trips(&sales().expect(one), "exact_table");
    assert_eq!(
        said,
        "sales: its value columns are (integer, integer, integer, integer), and are expected to be (integer)"
    );
    let text = exact("sales", |line: &str| vec![(user(line).to_owned(), ("1", "1", "1", "1"))]);
    let said = trips(&sales().expect(text), "exact");
    assert_eq!(said, "sales: text cannot be merged into text by Add: say an integer, or use exact_table");
    let counted = exact_counts("sales", |line| vec![user(line)]);
    let said = trips(&sales().expect(counted), "invariant_the_table_is_exact");
    assert!(said.starts_with("no count of one column, which exact_counts is for, but "), "{said}");
}

#[test]
fn two_sources_of_one_name_are_refused() {
    let twins = simulate(|world| {
        let topology = Topology::new("twins");
        let (one, other) = (world.source("lines", ["a"]), world.source("lines", ["b"]));
        topology
            .source(one)
            .stage(|lines| lines.group_by(|line| line).count())
            .persist(world.table("ones").key("k").value("n"));
        topology
            .source(other)
            .stage(|lines| lines.group_by(|line| line).count())
            .persist(world.table("others").key("k").value("n"));
        topology
    });
    let said = trips(&twins, "the world can be built");
    assert_eq!(said, "two sources are called \"lines\": give each a name of its own");
}

#[test]
fn a_world_without_records_is_refused_and_one_empty_source_among_others_is_not() {
    let counts = |world: &World, lines: &[&str]| {
        let topology = Topology::new("lines");
        for (source, table, records) in [("first", "ones", lines), ("second", "others", &[])] {
            topology
                .source(world.source(source, records))
                .stage(|lines| lines.group_by(|line| line).count())
                .persist(world.table(table).key("k").value("n"));
        }
        topology
    };
    let said = trips(&simulate(move |world| counts(world, &[])), "the world can be built");
    assert_eq!(said, r#"no records in {"first", "second"}, so nothing would be tested: give the sources some"#);
    holds_always(&simulate(move |world| counts(world, &["a", "b"])));
}

#[test]
fn sources_that_are_not_of_the_world_or_not_read_are_refused() {
    let of = |world: &World, input: Input<Text>| {
        let topology = Topology::new("lines");
        topology
            .source(input)
            .stage(|lines| lines.group_by(|line| line).count())
            .persist(world.table("counts").key("k").value("n"));
        topology
    };
    let fix = "take each of them from world.source or world.topic, and use it once";
    let said = trips(&simulate(move |world| of(world, files(["access.log"]).text())), "the world can be built");
    assert_eq!(said, format!("sources: the topology reads 1, and 0 are of this world: {fix}"));
    let forgotten = simulate(move |world| {
        drop(world.source("more", ["b"]));
        of(world, world.source("lines", ["a"]))
    });
    let said = trips(&forgotten, "the world can be built");
    assert_eq!(said, format!("sources: the topology reads 1, and 2 are of this world: {fix}"));
}
