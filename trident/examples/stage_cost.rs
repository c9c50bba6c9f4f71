//! What a stage and a fold cost per record, beside the same loops by hand.
//!
//! `cargo run --release -p tine-trident --example stage_cost` [-- CHUNK [ROUNDS]] prints nanoseconds and ratios, the fastest of
//! several interleaved rounds. Words: lines of ten words out of 100,000, skewed; values: short records, as many distinct
//! ones. Hop: words counted, then summed up by first letters through a repartition, beside the words alone.
//!
//! Instructions instead of nanoseconds: `valgrind --tool=callgrind target/release/examples/stage_cost 512 1`, and of
//! `callgrind_annotate --inclusive=yes` the lines of `…_by_hand`, `records`, `finish`, `run` and `fold`.

#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::{hint::black_box, sync::Arc, time::Instant};

use async_trait::async_trait;
use hashbrown::HashMap;
use tine_core::failure::Failure;
use tine_state::{Database, GroupSpec, Lock, Session, Table};
use tine_trident::{
    committer::{self, Parts},
    pipeline::{Built, Target},
    source::{Record, files::files},
    topology::Topology,
};

/// How many rounds unless told otherwise.
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

/// Words, then their first two letters: two stages with a repartition between them. The words may be kept too.
fn letters(keep_words: bool) -> Built {
    let topology = Topology::new("letters");
    let counts = topology
        .source(files(["a"]).text())
        .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count());
    if keep_words {
        counts.clone().persist(Table::new(Arc::new(Nowhere), "words").key("word").value("n"));
    }
    counts
        .stage(|words| words.group_by(|(word, _)| word.get(..2).unwrap_or(word)).sum(|(_, n)| *n))
        .persist(Table::new(Arc::new(Nowhere), "letters").key("letters").value("n"));
    topology.build().expect("a good topology")
}

/// A number below [`DISTINCT`], small ones more often.
fn skewed(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let unit = (*state >> 11) as f64 / (1u64 << 53) as f64;
    ((DISTINCT as f64).powf(unit) - 1.0) as u64
}

fn checked(value: &str) {
    assert!(memchr::memchr(0, value.as_bytes()).is_none() && std::str::from_utf8(value.as_bytes()).is_ok());
}

/// A loop over records that counts what it finds.
type ByHand = fn(&[String], &mut HashMap<String, i64>);

#[inline(never)]
fn words_by_hand(lines: &[String], counts: &mut HashMap<String, i64>) {
    for line in lines {
        checked(line);
        line.split_whitespace().for_each(|word| *counts.entry_ref(word).or_insert(0) += 1);
    }
}

#[inline(never)]
fn values_by_hand(values: &[String], counts: &mut HashMap<String, i64>) {
    for value in values {
        checked(value);
        *counts.entry_ref(value.as_str()).or_insert(0) += 1;
    }
}

fn nanoseconds(per: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / per as f64
}

fn records(input: &[String]) -> Vec<Record<'_>> {
    (input.iter().enumerate())
        .map(|(at, value)| Record {
            position: at as u64,
            timestamp_ms: -1,
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        })
        .collect()
}

/// What one batch costs from the records to the folded rows, in nanoseconds: pipeline, exchange if there is one, fold.
fn batch(built: &Built, records: &[Record<'_>], chunk_size: usize, rounds: usize) -> Result<[f64; 3], Failure> {
    let mut pipeline = (built.sources[0].pipeline)();
    let mut exchange = built.exchanges.first().map(|exchange| (exchange.exchange)());
    let mut best = [f64::MAX; 3];
    for _ in 0..rounds {
        let mut rows = Err(Failure::fatal("not run"));
        let read = nanoseconds(1, || {
            let read = records.chunks(chunk_size).try_for_each(|chunk| pipeline.records("p", chunk));
            rows = read.and_then(|()| pipeline.finish()).map(|done| done.rows);
        });
        let (mut rows, mut hop) = (rows?, 0.0);
        if let Some(exchange) = &mut exchange {
            let mut out = Err(Failure::fatal("not run"));
            let parts = rows.into_iter().map(|(_, rows)| rows).collect();
            hop = nanoseconds(1, || out = exchange.run(parts, &|| Ok(())));
            rows = out?;
        }
        let mut parts = Parts::new();
        for (target, rows) in rows {
            if let Target::State(state) = target {
                parts.entry(state).or_default().push(rows);
            }
        }
        let mut folded = Err(Failure::fatal("not run"));
        let fold = nanoseconds(1, || folded = committer::fold(&built.folds, parts));
        folded?;
        best.iter_mut().zip([read, hop, fold]).for_each(|(best, now)| *best = best.min(now));
    }
    Ok(best)
}

fn argument(place: usize, otherwise: usize) -> usize {
    std::env::args().nth(place).and_then(|size| size.parse().ok()).unwrap_or(otherwise)
}

fn main() -> Result<(), Failure> {
    let (chunk_size, rounds) = (argument(1, 512), argument(2, ROUNDS));
    let mut state = 1;
    let lines: Vec<String> = (0..100_000)
        .map(|_| (0..10).map(|_| format!("w{}", skewed(&mut state))).collect::<Vec<_>>().join(" "))
        .collect();
    let short: Vec<String> = (0..1_000_000).map(|_| format!("value-{:06}", skewed(&mut state))).collect();
    for (name, built, input, per, by_hand) in [
        ("words", words(), &lines, lines.len() * 10, words_by_hand as ByHand),
        ("values", values(), &short, short.len(), values_by_hand),
    ] {
        let records = records(input);
        let (mut hand, mut stage, mut finish, mut fold) = (f64::MAX, f64::MAX, f64::MAX, f64::MAX);
        let mut counts = HashMap::new();
        let mut pipeline = (built.sources[0].pipeline)();
        let mut distinct = 0;
        for _ in 0..rounds {
            counts.clear();
            hand = hand.min(nanoseconds(per, || by_hand(input, &mut counts)));
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
    let records = records(&lines);
    let mut alone = 0.0;
    for (name, built) in
        [("words", words()), ("letters of words", letters(false)), ("words and their letters", letters(true))]
    {
        let [read, hop, fold] = batch(&built, &records, chunk_size, rounds)?.map(|nanoseconds| nanoseconds / 1e6);
        let whole = read + hop + fold;
        alone = if alone == 0.0 { whole } else { alone };
        println!(
            "a batch of {name}: {whole:.1} ms (stage {read:.1}, hop {hop:.1}, fold {fold:.1}), rate {:.2} of words alone",
            alone / whole
        );
    }
    Ok(())
}
