//! Chunks that fail, what the policies make of them, and that the rest is exact.

use tine_core::failure::FailureKind;
use tine_state::{Column, StateIndex};

use crate::{
    input::{Input, Policy, Row, Text, Transactional},
    pipeline::{BatchRows, Built, Folded, Target},
    source::{Record, files::files},
    stream::Stream,
    topology::{Topology, tests::table},
};

pub(crate) fn record(position: u64, value: &[u8]) -> Record<'_> {
    Record { position, timestamp_ms: -1, key: None, value: Some(value), headers: &[] }
}

fn records<'a>(values: &[&'a str]) -> Vec<Record<'a>> {
    values.iter().enumerate().map(|(position, value)| record(position as u64 + 10, value.as_bytes())).collect()
}

/// The failure, or the counters and what the first state and the dead letters get.
struct Ran {
    done: BatchRows,
    built: Built,
}

fn run(built: Built, chunk: &[Record<'_>]) -> Result<Ran, String> {
    let mut pipeline = (built.sources[0].pipeline)();
    pipeline.records("p/0", chunk).map_err(|failure| {
        assert_eq!(failure.kind, FailureKind::Poison);
        failure.message
    })?;
    Ok(Ran { done: pipeline.finish().unwrap(), built })
}

impl Ran {
    fn fold(&mut self, state: usize) -> Folded {
        let at = |(target, _): &(Target, _)| *target == Target::State(StateIndex(state as u16));
        let parts = self.done.rows.extract_if(.., |part| at(part)).map(|(_, rows)| rows).collect();
        self.built.folds[state].fold(parts).unwrap()
    }
}

fn input<T: Row>(input: Input<T>) -> (Topology, Stream<T, Transactional>) {
    let topology = Topology::new("t");
    let stream = topology.source(input);
    (topology, stream)
}

fn text() -> Input<Text> {
    files(["a"]).text()
}

/// Sums `key value` lines; fails by error at `x`, by panic at `!`, by key at `""`.
fn sums(policy: Policy) -> Built {
    let (topology, stream) = input(text());
    let stage = stream.on_error(policy).stage(|lines| {
        lines
            .flat_map(|line| line.split(','))
            .try_map(|pair| {
                let (key, value) = pair.split_once(' ').ok_or("no blank")?;
                value.parse().map(|value: i64| (key, value)).map_err(|_| "no number")
            })
            .group_by(|(key, _)| {
                assert!(key != "!", "an exclamation");
                if key == "long" { "k".repeat(2000) } else { key.to_string() }
            })
            .sum(|(_, value)| *value)
    });
    stage.persist(table("sums").key("k").value("v"));
    topology.build().unwrap()
}

fn texts(column: &Column) -> Vec<String> {
    (0..column.len()).map(|row| column.show(row).trim_matches('"').to_string()).collect()
}

#[test]
fn a_failing_function_names_operator_partition_and_position() {
    let failure = run(sums(Policy::Fail), &records(&["a 1", "a 2,b x", "c x"])).err().unwrap();
    assert!(
        failure.starts_with("record p/0 byte 11: stage 1 after source 1 `file a`, operator 2 (try_map): no number; "),
        "{failure}"
    );
    let failure = run(sums(Policy::Fail), &records(&["a 1", "! 2"])).err().unwrap();
    assert!(
        failure.contains("byte 11: ") && failure.contains("operators 3 and 4 (group_by, sum): a panic: an exclamation"),
        "{failure}"
    );
    let failure = run(sums(Policy::Fail), &records(&["long 1"])).err().unwrap();
    assert!(failure.contains("byte 10: ") && failure.contains("a key of 2000 bytes"), "{failure}");
}

#[test]
fn exactly_the_offending_records_are_left_out_wholly() {
    let chunk = records(&["a 1", "a 2,b x", "a 4", "b 8,! 1", "a 16,long 1", "b 32"]);
    let mut ran = run(sums(Policy::Skip), &chunk).ok().unwrap();
    assert_eq!((ran.done.records, ran.done.skipped, ran.done.dead_letters), (6, 3, 0));
    let folded = ran.fold(0);
    assert_eq!(texts(&folded.rows.keys[0]), ["a", "b"]);
    assert_eq!(folded.rows.values[0], Column::BigInt(vec![5, 32]));
}

#[test]
fn a_record_that_fails_in_two_stages_is_one_dead_letter() {
    let (topology, stream) = input(text());
    let stream = stream.on_error(Policy::DeadLetter);
    for name in ["one", "two"] {
        let stage = stream.clone().stage(|lines| lines.try_map(|line| line.parse::<i64>()).group_by(|n| n).count());
        stage.persist(table(name).key("k").value("n"));
    }
    let mut ran = run(topology.build().unwrap(), &records(&["1", "x\u{1}", "2"])).ok().unwrap();
    assert_eq!((ran.done.skipped, ran.done.dead_letters), (0, 1));
    assert_eq!((ran.fold(0).rows.len(), ran.fold(1).rows.len()), (2, 2));
    let letters = ran.fold(2).rows;
    assert_eq!(letters.keys.iter().map(|key| key.show(0)).collect::<Vec<_>>(), ["\"t\"", "\"p/0\"", "11"]);
    assert_eq!(letters.values[1], Column::Bytes(vec![b"x\x01".to_vec()]));
    let Column::Text(reasons) = &letters.values[0] else { unreachable!() };
    assert!(reasons[0].starts_with("stage 1 after") && reasons[0].contains("; stage 2 after"), "{reasons:?}");
}

#[test]
fn records_that_are_no_text_go_by_the_sources_policies() {
    let null = Record { value: None, ..record(12, b"") };
    let chunk = [record(10, b"a"), record(11, b"b\xff"), null, record(13, b"c\0")];
    let count = |input: Input<Text>| {
        let (topology, stream) = self::input(input);
        stream.stage(|lines| lines.group_by(|line| line).count()).persist(table("c").key("k").value("n"));
        topology.build().unwrap()
    };
    let failure = run(count(text()), &chunk).err().unwrap();
    assert!(failure.starts_with("record p/0 byte 11: the value is not UTF-8 at byte 1; "), "{failure}");
    let failure = run(count(text().on_invalid(Policy::Skip)), &chunk).err().unwrap();
    assert!(failure.starts_with("record p/0 byte 12: the value is null") && failure.contains(".on_null("), "{failure}");

    let mut ran = run(count(text().on_invalid(Policy::Skip).on_null(Policy::DeadLetter)), &chunk).ok().unwrap();
    assert_eq!((ran.done.records, ran.done.skipped, ran.done.dead_letters), (4, 2, 1));
    assert_eq!(ran.fold(0).rows.len(), 1);
    assert_eq!(ran.fold(1).rows.values[1], Column::Bytes(vec![Vec::new()]));
}

#[test]
fn a_pipeline_that_was_reset_begins_anew() {
    let built = sums(Policy::DeadLetter);
    let mut pipeline = (built.sources[0].pipeline)();
    pipeline.records("p", &records(&["a 1", "x"])).unwrap();
    pipeline.reset();
    pipeline.records("p", &records(&["a 2"])).unwrap();
    let mut ran = Ran { done: pipeline.finish().unwrap(), built };
    assert_eq!((ran.done.records, ran.done.bytes, ran.done.dead_letters), (1, 3, 0));
    assert_eq!(ran.fold(0).rows.values[0], Column::BigInt(vec![2]));
    assert!(pipeline.finish().unwrap().rows.is_empty());
}

#[test]
fn a_function_that_fails_only_in_company_still_fails() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let (topology, stream) = input(text());
    let calls = AtomicU32::new(0);
    let stage = stream.stage(move |lines| {
        lines
            .try_map(|line| if calls.fetch_add(1, Ordering::Relaxed) == 1 { Err("now") } else { Ok(line) })
            .group_by(|l| l)
            .count()
    });
    stage.persist(table("c").key("k").value("n"));
    let failure = run(topology.build().unwrap(), &records(&["a", "b"])).err().unwrap();
    assert!(failure.starts_with("records p/0 bytes 10 to 11: ") && failure.contains("now"), "{failure}");
}
