//! Stages after a repartition, run by the real driver: words are counted, then summed up by letter, in one transaction.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

mod letters;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::{Connection, SqliteConnection};
use tine::{Options, Phase, RunError, Shutdown, Sqlite, Topology, files};
use tine_tests::count::{self, Counts};
use tine_tests::{eventually, produce};

use self::letters::{ending, parity, regrouped};

const DEADLINE: Duration = Duration::from_secs(60);

fn topology(folder: &Path) -> Topology {
    let database = Sqlite::open(folder.join("stages.db"));
    letters::topology(folder, |name| database.table(name))
}

/// Small batches and a number of tasks that differs from run to run.
fn options(tasks: usize) -> Options {
    Options { emitters: tasks, stage_tasks: 5 - tasks, batch_units_max: 20_000, ..Options::default() }
}

async fn table(folder: &Path, table: &'static str) -> Counts {
    let address = format!("sqlite://{}?mode=ro", folder.join("stages.db").display());
    let mut connection = SqliteConnection::connect(&address).await.unwrap();
    let query = match table {
        "words" => "select word, n from words",
        "endings" => "select ending, n from endings",
        _ => "select parity, n from parities",
    };
    sqlx::query_as::<_, (String, i64)>(query).fetch_all(&mut connection).await.unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_after_stages_are_exact_through_dropped_runs_and_other_numbers_of_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lines: Vec<_> = ["a.txt", "b.txt", "c.txt"]
        .iter()
        .enumerate()
        .flat_map(|(seed, name)| {
            let lines = produce::text(seed as u64, 4_000, 10, 3_000);
            fs::write(folder.join(name), lines.join("\n")).unwrap();
            lines
        })
        .collect();
    // Each run is dropped in the middle of a transaction, which is like a crash.
    for (tasks, phase) in [(1, Phase::CommitSent), (2, Phase::Processed), (3, Phase::Emitting), (4, Phase::Complete)] {
        let seen = Arc::new(AtomicU64::new(0));
        let counter = seen.clone();
        let on_phase = move |_, entered| {
            counter.fetch_add(u64::from(entered == phase), Ordering::Relaxed);
        };
        let options = Options { on_phase: Some(Arc::new(on_phase)), ..options(tasks) };
        let run = tokio::spawn(topology(folder).run_with(options, Shutdown::new()));
        assert!(eventually(DEADLINE, || async { seen.load(Ordering::Relaxed) >= 3 || run.is_finished() }).await);
        run.abort();
        let _ = run.await;
    }
    let rest = Options { until_end: true, ..options(2) };
    topology(folder).run_with(rest, Shutdown::new()).await.unwrap();
    let words = count::words(&lines);
    assert_eq!(count::difference(&words, &table(folder, "words").await), None);
    assert_eq!(count::difference(&regrouped(&words, ending), &table(folder, "endings").await), None);
    let parities = regrouped(&words, |word| parity(ending(word)));
    assert_eq!(count::difference(&parities, &table(folder, "parities").await), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_later_stage_that_panics_halts_and_names_its_key() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "one two\nthree two\n").unwrap();
    let topology = Topology::new("panics");
    topology
        .source(files([folder.path().join("a.txt")]).text())
        .stage(|lines| lines.flat_map(|line| line.split_ascii_whitespace()).group_by(|word| word).count())
        .stage(|words| {
            words
                .map(|(word, n)| {
                    assert!(n < 2, "not twice");
                    (word.len() as u32, n)
                })
                .group_by(|(length, _)| length)
                .sum(|(_, n)| *n)
        })
        .persist(Sqlite::open(folder.path().join("panics.db")).table("lengths").key("length").value("n"));
    match topology.run_with(Options { until_end: true, ..Options::default() }, Shutdown::new()).await {
        Err(RunError::Halted(failure)) => {
            let expected = "key \"two\" with 2: stage 1.1 after source 1 ";
            assert!(failure.message.starts_with(expected), "{failure}");
            assert!(failure.message.contains("operator 1 (map): a panic: not twice"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}
