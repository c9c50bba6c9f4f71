//! What a stage and a fold cost per record, beside the same loops by hand.
//!
//! `cargo run --release -p tine-trident --example stage_cost` [-- CHUNK] prints nanoseconds and ratios, the fastest of several
//! interleaved rounds. Words: lines of ten words out of 100,000, skewed; values: short records, as many distinct ones.

#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::{hint::black_box, sync::Arc, time::Instant};

use async_trait::async_trait;
use hashbrown::HashMap;
use tine_core::failure::Failure;
use tine_state::{Database, GroupSpec, Lock, Session, Table};
use tine_trident::{
    pipeline::Built,
    source::{Record, files::files},
    topology::Topology,
};

const ROUNDS: usize = 7;
const DISTINCT: u64 = 100_000;

/// A database that nothing is asked of.
struct Nowhere;

#[async_trait]
impl Database for Nowhere {
    fn describe(&self) -> String {
        "nowhere".into()
    }
    async fn create(&self, _: &GroupSpec) -> Result<(), Failure> {
        Ok(())
    }
    async fn session(&self, _: &GroupSpec) -> Result<Box<dyn Session>, Failure> {
        Err(Failure::fatal("nowhere"))
    }
    async fn try_lock(&self, _: &str) -> Result<Option<Box<dyn Lock>>, Failure> {
        Ok(None)
    }
}

fn words() -> Built {
    let topology = Topology::new("words");
    let stage = topology
        .source(files(["a"]).text())
        .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count());
    stage.persist(Table::new(Arc::new(Nowhere), "words").key("word").value("n"));
    topology.build().expect("a good topology")
}

fn values() -> Built {
    let topology = Topology::new("values");
    let stage = topology.source(files(["a"]).text()).stage(|values| values.group_by(|value| value).count());
    stage.persist(Table::new(Arc::new(Nowhere), "values").key("value").value("n"));
    topology.build().expect("a good topology")
}

/// A number below [`DISTINCT`], small ones more often.
fn skewed(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let unit = (*state >> 11) as f64 / (1u64 << 53) as f64;
    ((DISTINCT as f64).powf(unit) - 1.0) as u64
}

fn by_hand(values: &[String], counts: &mut HashMap<String, i64>, split: bool) {
    let text = |value: &[u8]| memchr::memchr(0, value).is_none() && std::str::from_utf8(value).is_ok();
    for value in values {
        assert!(text(value.as_bytes()));
        if split {
            value.split_whitespace().for_each(|word| *counts.entry_ref(word).or_insert(0) += 1);
        } else {
            *counts.entry_ref(value.as_str()).or_insert(0) += 1;
        }
    }
}

fn nanoseconds(per: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / per as f64
}

fn main() -> Result<(), Failure> {
    let chunk_size = std::env::args().nth(1).and_then(|size| size.parse().ok()).unwrap_or(512);
    let mut state = 1;
    let lines: Vec<String> = (0..100_000)
        .map(|_| (0..10).map(|_| format!("w{}", skewed(&mut state))).collect::<Vec<_>>().join(" "))
        .collect();
    let short: Vec<String> = (0..1_000_000).map(|_| format!("value-{:06}", skewed(&mut state))).collect();
    for (name, built, input, per, split) in
        [("words", words(), &lines, lines.len() * 10, true), ("values", values(), &short, short.len(), false)]
    {
        let records: Vec<Record<'_>> = (input.iter().enumerate())
            .map(|(at, value)| Record {
                position: at as u64,
                timestamp_ms: -1,
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            })
            .collect();
        let (mut hand, mut stage, mut finish, mut fold) = (f64::MAX, f64::MAX, f64::MAX, f64::MAX);
        let mut counts = HashMap::new();
        let mut pipeline = (built.sources[0].pipeline)();
        let mut distinct = 0;
        for _ in 0..ROUNDS {
            counts.clear();
            hand = hand.min(nanoseconds(per, || by_hand(input, &mut counts, split)));
            distinct = black_box(&counts).len();
            let mut outcome = Ok(());
            stage = stage.min(nanoseconds(per, || {
                outcome = records.chunks(chunk_size).try_for_each(|chunk| pipeline.records("p", chunk))
            }));
            outcome?;
            let mut rows = Err(Failure::fatal("not run"));
            finish = finish.min(nanoseconds(distinct, || rows = pipeline.finish()));
            let parts = rows?.rows.into_iter().map(|(_, rows)| rows).collect();
            let mut folded = Err(Failure::fatal("not run"));
            fold = fold.min(nanoseconds(distinct, || folded = built.folds[0].fold(parts)));
            assert_eq!(folded?.rows.len(), distinct);
        }
        println!(
            "{name}: by hand {hand:.1} ns, stage {stage:.1} ns per item: ratio {:.2}; {distinct} distinct: \
             finish {finish:.0} ns, fold {fold:.0} ns per row",
            stage / hand
        );
    }
    Ok(())
}
