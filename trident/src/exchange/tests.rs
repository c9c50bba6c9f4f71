//! What comes out of stages after a repartition is a function of the records, and of nothing else.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tine_core::failure::{Failure, FailureKind};
use tine_state::Column;

use crate::{
    key::CompactString,
    pipeline::{Built, Exchange, Folded, Target, Targeted},
    source::{Record, files::files},
    stage::tests::record,
    stream::KeyedStream,
    topology::{Topology, tests::table},
};

/// The number of records of each `word number` line, and the sum and extremes of the numbers.
type Numbers = KeyedStream<CompactString, (i64, i64, i64, i64), crate::input::Transactional>;

fn numbers(topology: &Topology) -> Numbers {
    topology.source(files(["a"]).text()).stage(|lines| {
        lines
            .filter_map_pairs()
            .group_by(|(word, _)| word)
            .aggregate(|all| (all.count(), all.sum(|row| row.1), all.min(|row| row.1), all.max(|row| row.1)))
    })
}

/// A short way to say it in tests.
trait Pairs<'b> {
    fn filter_map_pairs(self) -> crate::stage::Rows<'b, (&'b str, i64)>;
}

impl<'b> Pairs<'b> for crate::stage::Rows<'b, &'b str> {
    fn filter_map_pairs(self) -> crate::stage::Rows<'b, (&'b str, i64)> {
        self.flat_map(|line| line.split_once(' ').map(|(word, n)| (word, n.parse().unwrap_or(i64::MAX))))
    }
}

fn letter(word: &str) -> i64 {
    word.chars().next().map_or(0, |letter| i64::from(u32::from(letter)))
}

/// Words (kept), their letters (kept, and repartitioned again), letters by parity (two stages of the same stream).
fn built() -> Built {
    let topology = Topology::new("t");
    let words = numbers(&topology);
    words.clone().persist(table("words").key("word").value("n").value("total").value("low").value("high").shards(7));
    let letters = words.stage(|words| {
        words
            .group_by(|(word, _)| (letter(word), word.len() as i64))
            .aggregate(|all| (all.count(), all.sum(|row| row.1.0), all.max(|row| row.1.3), all.min(|row| row.1.2)))
    });
    let letters_table = table("letters").key("letter").key("length").value("words").value("n");
    letters.clone().persist(letters_table.value("high").value("low"));
    let by_length = |letters: KeyedStream<_, _, _>| {
        letters.stage(|rows| rows.group_by(|((_, length), _): ((i64, i64), (i64, i64, i64, i64))| length).count())
    };
    by_length(letters.clone()).persist(table("lengths").key("length").value("letters").shards(3));
    by_length(letters.clone()).persist(table("lengths_again").key("length").value("letters").shards(5));
    letters
        .stage(|rows| {
            rows.flat_map(|(key, value): (_, (i64, i64, i64, i64))| [(key, value.1), (key, 1)])
                .group_by(|((letter, _), _)| if letter % 2 == 0 { "even" } else { "odd" })
                .sum(|(_, n)| *n)
        })
        .persist(table("parity").key("parity").value("n"));
    topology.build().unwrap()
}

/// How the same records are dealt out.
#[derive(Clone, Debug)]
struct Cut {
    emitters: usize,
    tasks: usize,
    chunks: Vec<(usize, usize)>,
    reverse: bool,
}

const WHOLE: Cut = Cut { emitters: 1, tasks: 1, chunks: Vec::new(), reverse: false };

/// Runs the pipelines of all emitters, every level of stage tasks, and the folds.
fn run(built: &Built, records: &[Record<'_>], cut: &Cut) -> Result<Vec<Folded>, Failure> {
    let mut pipelines: Vec<_> = (0..cut.emitters).map(|_| (built.sources[0].pipeline)()).collect();
    let mut rest = records;
    for (emitter, length) in cut.chunks.iter().copied().chain([(0, usize::MAX)]) {
        let (chunk, more) = rest.split_at(length.min(rest.len()));
        pipelines[emitter % cut.emitters].records("p", chunk)?;
        rest = more;
    }
    let mut sent: Targeted = Vec::new();
    for pipeline in &mut pipelines {
        sent.extend(pipeline.finish()?.rows);
    }
    for level in 0..built.levels() {
        let (mut here, on) = sent.into_iter().partition::<Targeted, _>(|(target, _)| is_at(built, *target, level));
        sent = on;
        if cut.reverse {
            here.reverse();
        }
        for task in 0..cut.tasks {
            sent.extend(run_task(built, (task, cut.tasks), here.clone())?);
        }
    }
    let fold = |(state, fold): (usize, &std::sync::Arc<dyn crate::pipeline::Fold>)| {
        let of = |target: &Target| matches!(target, Target::State(index) if usize::from(index.0) == state);
        fold.fold(sent.iter().filter(|(target, _)| of(target)).map(|(_, rows)| rows.clone()).collect())
    };
    built.folds.iter().enumerate().map(fold).collect()
}

fn is_at(built: &Built, target: Target, level: usize) -> bool {
    matches!(target, Target::Exchange(index) if built.exchanges[usize::from(index.0)].level == level)
}

fn run_task(built: &Built, (task, tasks): (usize, usize), rows: Targeted) -> Result<Targeted, Failure> {
    let mut exchanges: Vec<Box<dyn Exchange>> = built.exchanges.iter().map(|exchange| (exchange.exchange)()).collect();
    let owner: Vec<usize> = (0..tasks).collect();
    let mut parts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (target, rows) in rows {
        let Target::Exchange(index) = target else { continue };
        let mine = rows.split(&owner, tasks).swap_remove(task);
        parts.entry(index).or_default().push(mine);
    }
    let mut out = Vec::new();
    for (index, parts) in parts {
        out.extend(exchanges[usize::from(index.0)].run(parts, &|| Ok(()))?);
    }
    Ok(out)
}

fn records(lines: &[String]) -> Vec<Record<'_>> {
    lines.iter().enumerate().map(|(at, line)| record(at as u64, line.as_bytes())).collect()
}

/// What the table of lengths must be, by hand.
fn lengths(lines: &[String]) -> BTreeMap<i64, i64> {
    let mut letters: BTreeMap<(i64, i64), ()> = BTreeMap::new();
    for line in lines {
        let (word, _) = line.split_once(' ').unwrap();
        letters.insert((letter(word), word.len() as i64), ());
    }
    let mut lengths = BTreeMap::new();
    letters.keys().for_each(|(_, length)| *lengths.entry(*length).or_default() += 1);
    lengths
}

fn as_map(folded: &Folded) -> BTreeMap<i64, i64> {
    match (&folded.rows.keys[0], &folded.rows.values[0]) {
        (Column::BigInt(keys), Column::BigInt(values)) => keys.iter().copied().zip(values.iter().copied()).collect(),
        other => unreachable!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn p9_any_emitters_stage_tasks_and_chunks_give_the_same_rows_and_digests(
        lines in prop::collection::vec("[ab\u{e4}z]{1,3} [0-9]{1,3}", 0..60),
        (emitters, tasks) in (1usize..4, 1usize..5),
        chunks in prop::collection::vec((0usize..3, 0usize..9), 0..12),
        reverse: bool,
    ) {
        let built = built();
        let whole = run(&built, &records(&lines), &WHOLE).unwrap();
        prop_assert_eq!(as_map(&whole[2]), lengths(&lines));
        let mut shuffled = lines.clone();
        shuffled.reverse();
        let cut = Cut { emitters, tasks, chunks, reverse };
        for lines in [lines, shuffled] {
            let other = run(&built, &records(&lines), &cut).unwrap();
            for (whole, other) in whole.iter().zip(&other) {
                prop_assert_eq!(&whole.digests, &other.digests);
                prop_assert_eq!(&whole.rows.keys, &other.rows.keys);
                prop_assert_eq!(&whole.rows.values, &other.rows.values);
                prop_assert_eq!(&whole.rows.shards, &other.rows.shards);
            }
        }
    }
}

#[test]
fn a_key_that_every_emitter_met_reaches_the_closure_once_with_its_whole_value() {
    let lines: Vec<String> = (0..30).map(|n| format!("w{} 1", n % 3)).collect();
    let cut = Cut { emitters: 3, tasks: 2, chunks: (0..29).map(|n| (n, 1)).collect(), reverse: true };
    let folded = run(&built(), &records(&lines), &cut).unwrap();
    // Letters of length 2: three words, thirty records.
    assert_eq!(folded[1].rows.values[0], Column::BigInt(vec![3]));
    assert_eq!(folded[1].rows.values[1], Column::BigInt(vec![30]));
    assert_eq!(folded[0].rows.values[0], Column::BigInt(vec![10, 10, 10]));
}

/// One stage after another; the second fails as `second` does.
fn failing(second: impl Fn(&str, i64) -> Result<i64, &'static str> + Copy + Send + Sync + 'static) -> Built {
    let topology = Topology::new("t");
    numbers(&topology)
        .stage(move |words| words.try_map(move |(word, (_, sum, ..))| second(word, sum)).group_by(|n| n).count())
        .persist(table("t").key("n").value("words"));
    topology.build().unwrap()
}

fn failure(built: &Built, lines: &[&str]) -> Failure {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_string()).collect();
    let failure = run(built, &records(&lines), &WHOLE).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Poison);
    failure
}

#[test]
fn a_failing_function_names_key_operator_and_stage() {
    let built = failing(|word, n| if word == "b" { Err("no b, please") } else { Ok(n) });
    assert_eq!(
        failure(&built, &["a 1", "b 2", "b 3"]).message,
        "key \"b\" with (2, 5, 2, 3): stage 1.1 after source 1 `file a`, operator 1 (try_map): no b, please; correct the \
         function: the row is made of many records, so no policy can leave it out"
    );
    let built = failing(|word, n| {
        assert!(word != "c", "not c");
        Ok(n)
    });
    let message = failure(&built, &["a 1", "c 2"]).message;
    assert!(message.starts_with("key \"c\" with ") && message.contains("(try_map): a panic: not c; "), "{message}");
}

#[test]
fn a_sum_that_does_not_fit_fails_before_a_closure_sees_it() {
    let max = format!("a {}", i64::MAX);
    let message = failure(&failing(|_, n| Ok(n)), &[&max, "a 1"]).message;
    assert!(message.starts_with("stage 1 after source 1 `file a`: key \"a\": a sum of "), "{message}");
}

/// A batch that was cut short leaves nothing to the next one.
#[test]
fn an_exchange_that_failed_or_was_ended_begins_anew() {
    let built = failing(|word, n| if word == "b" { Err("no b, please") } else { Ok(n) });
    let mut exchange = (built.exchanges[0].exchange)();
    let parts = |lines: &[&str]| {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_string()).collect();
        let mut pipeline = (built.sources[0].pipeline)();
        pipeline.records("p", &records(&lines)).unwrap();
        pipeline.finish().unwrap().rows.into_iter().map(|(_, rows)| rows).collect::<Vec<_>>()
    };
    let words: Vec<String> = (0..1500).map(|n| format!("w{n} {n}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    exchange.run(parts(&[&words[..], &["b 1"]].concat()), &|| Ok(())).unwrap_err();
    let asked = std::cell::Cell::new(0);
    let twice = || {
        asked.set(asked.get() + 1);
        if asked.get() > 1 { Err(Failure::new(FailureKind::Superseded, "enough")) } else { Ok(()) }
    };
    assert_eq!(exchange.run(parts(&words), &twice).unwrap_err().kind, FailureKind::Superseded);
    let rows = exchange.run(parts(&["a 7"]), &|| Ok(())).unwrap();
    let folded = built.folds[0].fold(rows.into_iter().map(|(_, rows)| rows).collect()).unwrap();
    assert_eq!(folded.rows.keys[0], Column::BigInt(vec![7]));
    assert!(exchange.run(Vec::new(), &|| Ok(())).unwrap().is_empty());
}

#[test]
fn rows_of_another_exchange_are_refused() {
    let (built, other) = (failing(|_, n| Ok(n)), built());
    let mut pipeline = (built.sources[0].pipeline)();
    pipeline.records("p", &records(&["a 1".to_string()])).unwrap();
    let rows = pipeline.finish().unwrap().rows.swap_remove(0).1;
    let mut exchange = (other.exchanges[1].exchange)();
    let failure = exchange.run(vec![rows], &|| Ok(())).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fatal);
    assert!(failure.message.contains("got rows of another exchange"), "{failure}");
}

/// Keys of up to 24 bytes lie in the row itself, longer ones beside it, and they are sorted eight bytes at a time: those at
/// the edges, and those that share all but their last byte, are counted apart like any others.
#[test]
fn keys_at_the_edges_of_their_forms_stay_apart() {
    let lengths = [0, 1, 7, 8, 9, 15, 16, 17, 22, 23, 24, 25, 26, 32, 33, 1023, 1024];
    let plain = lengths.iter().map(|length| "a".repeat(*length));
    // The last byte of the longest texts that lie in the row is the largest there is in UTF-8, or the smallest.
    let ends = ["\u{10ffff}", "\u{7f}", "\u{1}", "z", "\u{bf}"];
    let others = lengths.iter().flat_map(|length| {
        ends.map(|end| "a".repeat(length.saturating_sub(end.len())) + end).into_iter().filter(|key| key.len() <= 1024)
    });
    let mut keys: Vec<String> = plain.chain(others).collect();
    keys.sort();
    keys.dedup();
    let lines: Vec<String> = (0..3).flat_map(|n| keys.iter().map(move |key| format!("{key} {n}"))).collect();
    for (emitters, tasks, size) in [(1, 1, usize::MAX), (3, 4, 1), (2, 3, 7), (4, 2, 50)] {
        let chunks = (0..lines.len().div_ceil(size)).map(|at| (at, size.min(lines.len()))).collect();
        let cut = Cut { emitters, tasks, chunks, reverse: tasks % 2 == 0 };
        let folded = run(&built(), &records(&lines), &cut).unwrap();
        assert_eq!(folded[0].rows.keys[0], Column::Text(keys.clone()));
        for (column, expected) in [(0, 3), (1, 3), (2, 0), (3, 2)] {
            assert_eq!(folded[0].rows.values[column], Column::BigInt(vec![expected; keys.len()]));
        }
    }
}
