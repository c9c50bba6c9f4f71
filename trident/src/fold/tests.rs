//! The outcome of a fold is a function of the set of records, and of nothing else.

use proptest::prelude::*;
use tine_core::failure::FailureKind;
use tine_state::Column;

use super::{Batch, BatchRow, Output, TypedOutput};
use crate::{
    aggregate::{Combiner, Count},
    key::KEY_BYTES_MAX,
    pipeline::{Built, Folded, Rows},
    source::{Record, files::files},
    stage::tests::record,
    topology::{Topology, tests::table},
};

/// Unites sets of bytes: a combiner that SQL does not know.
#[derive(Clone, Debug)]
struct Union;

impl Combiner for Union {
    type Input = Vec<u8>;
    type Held = Vec<u8>;
    type Value = Vec<u8>;
    fn lift(&self, mut input: Vec<u8>) -> Vec<u8> {
        input.sort_unstable();
        input.dedup();
        input
    }
    fn combine(&self, held: &mut Vec<u8>, other: Vec<u8>) {
        held.extend(other);
        *held = self.lift(std::mem::take(held));
    }
    fn store(&self, held: Vec<u8>) -> Result<Vec<u8>, String> {
        if held.contains(&b'?') { Err("a question".into()) } else { Ok(held) }
    }
    fn load(&self, stored: Vec<u8>) -> Result<Vec<u8>, String> {
        if stored.contains(&b'!') { panic!("not stored by this") } else { Ok(stored) }
    }
}

/// Records `key:number`; keys of text and bytes, values by every combiner there is.
fn built() -> Built {
    let topology = Topology::new("t");
    let stage = topology.source(files(["a"]).text()).stage(|lines| {
        lines
            .map(|line| line.split_once(':').unwrap_or((line, "0")))
            .map(|(key, n)| (key, n.parse::<i64>().unwrap_or(i64::MAX)))
            .group_by(|(key, n)| (key, key.as_bytes(), n % 3))
            .aggregate(|rows| {
                let numbers = (rows.sum(|row| row.1), rows.min(|row| row.1), rows.max(|row| row.1));
                (rows.count(), numbers, rows.combine(Union, |row| row.0.as_bytes().to_vec()))
            })
    });
    let table = table("t").key("a").key("b").key("c").value("d").value("e").value("f").value("g").value("h");
    stage.persist(table.shards(5));
    topology.build().unwrap()
}

/// Runs `records` through as many pipelines as `cuts` has places, and folds.
fn fold(built: &Built, records: &[Record<'_>], cuts: &[(usize, usize)], reverse: bool) -> Result<Folded, String> {
    let mut parts = Vec::new();
    let emitters = cuts.iter().map(|cut| cut.0 % 3).max().unwrap_or(0) + 1;
    let mut pipelines: Vec<_> = (0..emitters).map(|_| (built.sources[0].pipeline)()).collect();
    let mut rest = records;
    for (emitter, length) in cuts.iter().copied().chain([(0, usize::MAX)]) {
        let (chunk, more) = rest.split_at(length.min(rest.len()));
        pipelines[emitter % 3].records("p", chunk).map_err(|failure| failure.message)?;
        rest = more;
    }
    for pipeline in &mut pipelines {
        parts.extend(pipeline.finish().unwrap().rows.into_iter().map(|(_, rows)| rows));
    }
    if reverse {
        parts.reverse();
    }
    built.folds[0].fold(parts).map_err(|failure| failure.message)
}

proptest! {
    #[test]
    fn p9_any_cutting_into_chunks_and_emitters_gives_the_same_rows_and_digests(
        lines in prop::collection::vec("[ab\u{e4}]{0,12}:[0-9]{1,3}", 0..60),
        cuts in prop::collection::vec((0usize..3, 0usize..9), 0..12),
        reverse: bool,
    ) {
        let built = built();
        let records: Vec<_> = lines.iter().enumerate().map(|(at, line)| record(at as u64, line.as_bytes())).collect();
        let whole = fold(&built, &records, &[], false).unwrap();
        let mut shuffled = records.clone();
        shuffled.reverse();
        for other in [fold(&built, &records, &cuts, reverse), fold(&built, &shuffled, &cuts, reverse)] {
            let other = other.unwrap();
            prop_assert_eq!(&whole.digests, &other.digests);
            prop_assert_eq!(&whole.rows.keys, &other.rows.keys);
            prop_assert_eq!(&whole.rows.values, &other.rows.values);
            prop_assert_eq!(&whole.rows.shards, &other.rows.shards);
        }
        let Column::Text(keys) = &whole.rows.keys[0] else { unreachable!() };
        prop_assert!(keys.is_sorted());
    }

    /// The parts that tasks own, folded apart, are the whole.
    #[test]
    fn p11_splitting_among_tasks_loses_nothing(keys in prop::collection::vec("[a-d]{1,3}", 1..50), tasks in 1usize..4) {
        let built = built();
        let records: Vec<_> = keys.iter().enumerate().map(|(at, key)| record(at as u64, key.as_bytes())).collect();
        let whole = fold(&built, &records, &[], false).unwrap();
        let mut pipeline = (built.sources[0].pipeline)();
        pipeline.records("p", &records).unwrap();
        let owner: Vec<usize> = (0..5).map(|shard| shard % tasks).collect();
        let rows: Vec<Box<dyn Rows>> = pipeline.finish().unwrap().rows.into_iter().map(|(_, rows)| rows).collect();
        let mut digests = Vec::new();
        let mut count = 0;
        for part in rows.into_iter().flat_map(|rows| rows.split(&owner, tasks)) {
            let folded = built.folds[0].fold(vec![part]).unwrap();
            count += folded.rows.len();
            digests.extend(folded.digests);
        }
        digests.sort_by_key(|(shard, _)| *shard);
        prop_assert_eq!(digests, whole.digests);
        prop_assert_eq!(count, whole.rows.len());
    }

    #[test]
    fn keys_sort_by_their_bytes(keys in prop::collection::btree_set("(aaaaaaaa){0,3}[a-c]{0,3}", 1..100)) {
        let topology = Topology::new("t");
        let stage = topology.source(files(["a"]).text()).stage(|lines| lines.group_by(|line| line.as_bytes()).count());
        stage.persist(table("t").key("k").value("n"));
        let built = topology.build().unwrap();
        let records: Vec<_> = keys.iter().rev().map(|key| record(0, key.as_bytes())).collect();
        let folded = fold(&built, &records, &[(1, 7), (2, 5)], false).unwrap();
        let expected = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        prop_assert_eq!(&folded.rows.keys[0], &Column::Bytes(expected));
    }
}

#[test]
fn a_sum_beyond_64_bits_is_poison_with_operator_and_key_whatever_the_order() {
    let max = format!("k:{}", i64::MAX - i64::MAX % 3);
    let (more, less) = ("k:3".to_string(), "k:-3".to_string());
    let fold = |lines: &[&String]| {
        let built = built();
        let records: Vec<_> = lines.iter().map(|line| record(0, line.as_bytes())).collect();
        self::fold(&built, &records, &[(1, 1), (2, 1)], false)
    };
    fold(&[&max, &more, &less]).unwrap();
    fold(&[&less, &more, &max]).unwrap();
    let error = fold(&[&max, &more]).unwrap_err();
    assert!(error.starts_with("persist \"t\" (after source 1 `file a`): key (\"k\", "), "{error}");
    assert!(error.contains("does not fit into 64 bits"), "{error}");
}

#[test]
fn a_combiner_that_sql_does_not_know_reads_and_writes() {
    let built = built();
    let text = |line: &'static str| fold(&built, &[record(0, line.as_bytes())], &[], false);
    let folded = text("k:6").unwrap();
    let combine = folded.rows.combine.clone().unwrap();
    let stored = |union: &[u8]| {
        let number = |n| Column::BigInt(vec![n]);
        [number(2), number(10), number(5), number(5), Column::Bytes(vec![union.to_vec()])]
    };
    let merged = combine.combine(&folded.rows, &[true], &stored(b"az")).unwrap();
    let number = |n| Column::BigInt(vec![n]);
    assert_eq!(merged, [number(3), number(16), number(5), number(6), Column::Bytes(vec![b"akz".to_vec()])]);
    assert_eq!(combine.combine(&folded.rows, &[false], &stored(b"az")).unwrap(), folded.rows.values);
    let failure = combine.combine(&folded.rows, &[true], &stored(b"!")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Fatal);
    assert!(failure.message.contains("\"k\"") && failure.message.contains("not stored by this"), "{}", failure.message);
    assert!(text("?:6").unwrap_err().contains("a question"));
}

#[test]
fn an_empty_transaction_has_no_digests() {
    let folded = built().folds[0].fold(Vec::new()).unwrap();
    assert!(folded.rows.is_empty() && folded.digests.is_empty());
    assert_eq!((folded.rows.keys.len(), folded.rows.values.len()), (3, 5));
}

/// Rows are checked where they leave and where they arrive: the fold does not trust its parts.
#[test]
fn rows_that_no_column_can_hold_are_refused_on_arrival() {
    let fold = TypedOutput::<String, Count>::new(Count).fold("persist \"t\"", 4);
    let refused = |key: String| {
        let rows = vec![BatchRow { hash: 0, key, held: 1i64 }];
        fold.fold(vec![Box::new(Batch { rows })]).unwrap_err()
    };
    assert!(
        fold.fold(vec![Box::new(Batch {
            rows: vec![BatchRow { hash: u64::MAX, key: "k".repeat(KEY_BYTES_MAX), held: 1i64 }]
        })])
        .is_ok()
    );
    let nul = refused("a\0".into());
    assert_eq!(
        (nul.kind, nul.message.as_str()),
        (FailureKind::Poison, "persist \"t\": key \"a\\0\": a text with a NUL at byte 1, which SQL text cannot hold")
    );
    let long = refused("k".repeat(KEY_BYTES_MAX + 1));
    assert!(long.kind == FailureKind::Poison && long.message.contains("a key of 1025 bytes"), "{}", long.message);
    let other = Batch { rows: vec![BatchRow { hash: 0, key: 1i64, held: 1i64 }] };
    assert_eq!(fold.fold(vec![Box::new(other)]).unwrap_err().kind, FailureKind::Fatal);
}
