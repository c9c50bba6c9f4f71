//! Topologies that build, and those that don't and say why.

use std::sync::Arc;

use async_trait::async_trait;
use tine_core::failure::Failure;
use tine_state::{Database, GroupSpec, Lock, Session, StateIndex, Table};

use super::{BuildError, Topology};
use crate::{
    input::{Policy, Text, Transactional},
    key::CompactString,
    pipeline::Target,
    run::RunError,
    source::files::files,
    stream::{KeyedStream, Stream},
};

struct Nowhere(&'static str);

#[async_trait]
impl Database for Nowhere {
    fn describe(&self) -> String {
        self.0.to_string()
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

/// A table in a database that is nowhere.
pub(crate) fn table(name: &str) -> Table {
    Table::new(Arc::new(Nowhere("nowhere")), name)
}

fn lines(topology: &Topology) -> Stream<Text, Transactional> {
    topology.source(files(["a.txt"]).text())
}

fn words(lines: Stream<Text, Transactional>) -> KeyedStream<CompactString, i64, Transactional> {
    lines.stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
}

/// The error of a topology with one word count on `table`.
fn refused(table: Table) -> String {
    let topology = Topology::new("t");
    words(lines(&topology)).persist(table);
    topology.build().unwrap_err().to_string()
}

#[tokio::test]
async fn an_error_that_main_returns_is_printed_in_words() {
    let topology = Topology::new("a b");
    let said = "\"a b\" cannot name a topology: use 1 to 100 letters, digits, `_`, `-` and `.`, beginning with a letter or digit";
    assert_eq!(format!("{:?}", topology.build().unwrap_err()), said);
    assert_eq!(format!("{:?}", topology.run().await.unwrap_err()), said);
    let halted = RunError::Halted(Failure::fatal("a \"reason\""));
    assert_eq!(format!("{halted:?}"), "halted: a \"reason\"");
}

#[test]
fn a_word_count_builds_and_is_described() {
    let topology = Topology::new("word_count");
    topology.version("1");
    let stream = lines(&topology).on_error(Policy::DeadLetter);
    words(stream.clone()).persist(table("word_counts").key("word").value("n"));
    let by_length = stream.stage(|lines| {
        let lengths = lines.try_map(|line| line.parse::<i64>()).map(|n| (n % 2, n)).group_by(|row| row.0);
        lengths.aggregate(|rows| (rows.count(), rows.sum(|row| row.1), rows.max(|row| row.1)))
    });
    let state = by_length.persist(table("stats.lengths").key("odd").value("n").value("total").value("top").shards(4));
    assert_eq!(state.name(), "stats.lengths");

    let built = topology.build().unwrap();
    assert_eq!(
        built.group.shape,
        "topology word_count\nversion \"1\"\nsource 1\n  \
         stage 1: flat_map, group_by, count\n    \
         state word_counts: 32 shards, key (text), value (bigint add)\n  \
         stage 2: try_map, map, group_by, aggregate\n    \
         state stats.lengths: 4 shards, key (bigint), value (bigint add, bigint add, bigint max)\n"
    );
    let names: Vec<_> = built.group.states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["word_counts", "stats.lengths", "tine_dead_letters"]);
    assert_eq!((built.sources.len(), built.folds.len()), (1, 3));
    let explained = topology.explain();
    assert!(
        explained.contains("stage 1: flat_map -> group_by -> count -> persist word_counts (word; n)"),
        "{explained}"
    );
    assert!(explained.contains("dead letters"), "{explained}");
}

#[test]
fn a_policy_is_no_part_of_the_fingerprint_and_a_version_is() {
    let fingerprint = |policy, version: &str| {
        let topology = Topology::new("t");
        topology.version(version);
        words(lines(&topology).on_error(policy)).persist(table("c").key("word").value("n"));
        topology.build().unwrap().group.fingerprint
    };
    assert_eq!(fingerprint(Policy::Fail, "1"), fingerprint(Policy::DeadLetter, "1"));
    assert_ne!(fingerprint(Policy::Fail, "1"), fingerprint(Policy::Fail, "2"));
}

#[test]
fn a_stream_used_twice_is_used_twice() {
    let topology = Topology::new("t");
    let stream = lines(&topology);
    words(stream.clone()).persist(table("a").key("word").value("n"));
    words(stream).persist(table("b").key("word").value("n"));
    let built = topology.build().unwrap();
    let mut pipeline = (built.sources[0].pipeline)();
    let record = crate::stage::tests::record(0, b"x y x");
    pipeline.records("p", &[record]).unwrap();
    let rows: Vec<_> = pipeline.finish().unwrap().rows.into_iter().map(|(to, rows)| (to, rows.count())).collect();
    assert_eq!(rows, [(Target::State(StateIndex(0)), 2), (Target::State(StateIndex(1)), 2)]);
}

#[test]
fn a_wrong_table_is_refused_with_the_operators_name() {
    let good = || table("c").key("word").value("n");
    let place = |name: &str| format!("persist {name:?} (after source 1 `file a.txt`): ");
    assert_eq!(
        refused(table("c").value("n")),
        place("c") + "the key is (text), 1 column(s), but the table names 0: call .key(\"…\") 1 time(s), in this order"
    );
    assert!(refused(good().value("m")).contains("the value is (bigint), 1 column(s), but the table names 2"));
    assert!(refused(table("c").key("Word").value("n")).starts_with(&(place("c") + "\"Word\" is not a valid name")));
    assert!(refused(table("c d").key("word").value("n")).contains("\"c d\" is not a valid name"));
    assert!(refused(table("a.b.c").key("word").value("n")).contains("is not `table` or `schema.table`"));
    assert!(refused(table("tine_x").key("word").value("n")).contains("tine's own"));
    assert!(refused(table("c").key("n").value("n")).contains("the column \"n\" is named twice"));
    assert!(refused(good().shards(0)).contains("0 shards"));
    assert!(refused(good().shards(4097)).contains("1 <= n <= 4096"));
}

#[test]
fn a_topology_that_does_nothing_is_refused() {
    let topology = Topology::new("t");
    assert!(matches!(topology.build(), Err(BuildError::NoSource { .. })));
    let stream = lines(&topology);
    assert!(matches!(topology.build(), Err(BuildError::NoState { .. })));
    words(stream.clone()).persist(table("c").key("word").value("n"));
    topology.build().unwrap();
    let _forgotten = words(stream);
    assert_eq!(
        topology.build().unwrap_err().to_string(),
        "stage 2 after source 1 `file a.txt` leads nowhere: give it a .stage(…) and .persist(…), or remove it"
    );
    let _unused = lines(&topology);
    assert!(topology.explain().contains("nothing: stage 2"));
    assert!(matches!(Topology::new("a/b").build(), Err(BuildError::TopologyName { .. })));
}

#[test]
fn two_states_on_one_table_and_two_databases_are_refused() {
    let topology = Topology::new("t");
    let stream = lines(&topology);
    words(stream.clone()).persist(table("c").key("word").value("n"));
    words(stream).persist(table("c").key("word").value("n"));
    assert!(topology.build().unwrap_err().to_string().contains("two states in one table"));

    let topology = Topology::new("t");
    let stream = lines(&topology);
    words(stream.clone()).persist(table("c").key("word").value("n"));
    words(stream).persist(Table::new(Arc::new(Nowhere("elsewhere")), "d").key("word").value("n"));
    let error = topology.build().unwrap_err().to_string();
    assert!(error.contains("is in elsewhere") && error.contains("not supported yet"), "{error}");
}

#[test]
fn a_stage_that_panics_without_rows_is_refused() {
    let topology = Topology::new("t");
    let stage = lines(&topology).stage(|lines| {
        assert!(std::hint::black_box(false), "not today");
        lines.group_by(|line| line).count()
    });
    stage.persist(table("c").key("word").value("n"));
    let error = topology.build().unwrap_err().to_string();
    assert!(
        error.contains(
            "stage 1 after source 1 `file a.txt` cannot be used: before its first operator: a panic: not today"
        ),
        "{error}"
    );
}

fn letters(words: KeyedStream<CompactString, i64, Transactional>) -> KeyedStream<i64, i64, Transactional> {
    words.stage(|words| words.group_by(|(word, _)| word.len() as u32).sum(|(_, n)| *n))
}

#[test]
fn stages_after_a_stage_are_numbered_under_it_and_described() {
    let topology = Topology::new("t");
    let counts = words(lines(&topology));
    counts.clone().persist(table("words").key("word").value("n").shards(4));
    let by_letter = letters(counts.clone());
    by_letter.clone().persist(table("letters").key("letter").value("n").shards(2));
    by_letter
        .stage(|rows| rows.map(|(_, n)| n).group_by(|n| n % 2).count())
        .persist(table("odd").key("odd").value("n"));
    letters(counts).persist(table("again").key("letter").value("n").shards(1));

    let built = topology.build().unwrap();
    assert_eq!(
        built.group.shape,
        "topology t\nsource 1\n  \
         stage 1: flat_map, group_by, count\n    \
         state words: 4 shards, key (text), value (bigint add)\n    \
         stage 1.1 over (text; bigint): group_by, sum\n      \
         state letters: 2 shards, key (bigint), value (bigint add)\n      \
         stage 1.1.1 over (bigint; bigint): map, group_by, count\n        \
         state odd: 32 shards, key (bigint), value (bigint add)\n    \
         stage 1.2 over (text; bigint): group_by, sum\n      \
         state again: 1 shards, key (bigint), value (bigint add)\n"
    );
    let levels: Vec<usize> = built.exchanges.iter().map(|exchange| exchange.level).collect();
    assert_eq!((built.levels(), levels), (2, vec![0, 1]), "words and letters are repartitioned once each");
    let explained = topology.explain();
    for line in [
        "    stage 1.1: group_by -> sum -> persist letters (letter; n)\n      stage 1.1.1: map -> group_by -> count",
        "  stage task, stage 1.1: combine, group_by, sum (fused, combined per task)\n  exchange by hash of key: ranges of",
    ] {
        assert!(explained.contains(line), "{explained}");
    }
}

#[test]
fn a_later_stage_that_leads_nowhere_or_cannot_be_used_is_named() {
    let topology = Topology::new("t");
    let counts = words(lines(&topology));
    counts.clone().persist(table("words").key("word").value("n"));
    let _forgotten = letters(counts);
    assert_eq!(
        topology.build().unwrap_err().to_string(),
        "stage 1.1 after source 1 `file a.txt` leads nowhere: give it a .stage(…) and .persist(…), or remove it"
    );
    let topology = Topology::new("t");
    let panics = words(lines(&topology)).stage(|rows| {
        assert!(std::hint::black_box(false), "not today");
        rows.group_by(|(word, _)| word).count()
    });
    panics.persist(table("c").key("word").value("n"));
    let error = topology.build().unwrap_err().to_string();
    assert!(error.starts_with("stage 1.1 after source 1 `file a.txt` cannot be used: before its first"), "{error}");
    let topology = Topology::new("t");
    letters(words(lines(&topology))).persist(table("c").key("letter"));
    let error = topology.build().unwrap_err().to_string();
    assert!(error.starts_with("persist \"c\" (after stage 1.1 after source 1 `file a.txt`): the value is"), "{error}");
}
