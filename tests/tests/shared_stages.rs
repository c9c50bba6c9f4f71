//! Stages after stages on three workers of different sizes: rows make their hops between them, one is dropped in the middle, and
//! three tables stay exact together.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

mod letters;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tine::{Listen, Options, Phase, Postgres, RunError, Shutdown, Summary, Topology, ZooKeeper};
use tine_tests::{
    count, eventually, produce, report,
    services::{shared, unique},
};
use tokio::task::JoinHandle;

use self::letters::{ending, parity, regrouped};

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(120);

fn topology(folder: &Path, database: &str) -> Topology {
    let database = Postgres::connect(database).unwrap();
    letters::topology(folder, |name| database.table(name))
}

/// One worker, in this process.
struct Worker {
    run: JoinHandle<Result<Summary, RunError>>,
    shutdown: Shutdown,
    /// How many commits it has sent.
    commits: Arc<AtomicU64>,
}

impl Worker {
    fn start(topology: &Topology, coordination: &str, tasks: usize) -> Worker {
        let (commits, shutdown) = (Arc::new(AtomicU64::new(0)), Shutdown::new());
        let counter = commits.clone();
        let on_phase = move |_, entered| {
            counter.fetch_add(u64::from(entered == Phase::CommitSent), Ordering::Relaxed);
        };
        let options = Options {
            coordination: Some(Arc::new(ZooKeeper::connect(coordination).unwrap())),
            listen: Some(Listen::on("127.0.0.1:0").unwrap()),
            emitters: tasks,
            stage_tasks: 4 - tasks,
            batch_units_max: 8_000,
            on_phase: Some(Arc::new(on_phase)),
            ..Options::default()
        };
        let run = tokio::spawn(topology.run_with(options, shutdown.clone()));
        Worker { run, shutdown, commits }
    }

    async fn commits(&self, more: u64) {
        let wanted = self.commits.load(Ordering::Relaxed) + more;
        let enough = || async { self.commits.load(Ordering::Relaxed) >= wanted || self.run.is_finished() };
        assert!(eventually(DEADLINE, enough).await && !self.run.is_finished(), "no {more} commits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_stages_after_stages_on_three_workers_are_exact_when_one_is_dropped() {
    let Some(address) = shared::zookeeper() else { return };
    let Some(database) = shared::postgres_database("shared_stages").await.unwrap() else { return };
    let coordination = format!("{address}/{}", unique("tine"));
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<_> = ["a.txt", "b.txt", "c.txt"]
        .iter()
        .enumerate()
        .flat_map(|(seed, name)| {
            let lines = produce::text(seed as u64, 20_000, 10, 3_000);
            fs::write(folder.path().join(name), lines.join("\n") + "\n").unwrap();
            lines
        })
        .collect();
    let topology = topology(folder.path(), &database);
    let first = Worker::start(&topology, &coordination, 1);
    first.commits(2).await;
    let second = Worker::start(&topology, &coordination, 2);
    second.commits(5).await;
    let third = Worker::start(&topology, &coordination, 3);
    third.commits(5).await;
    // Dropped in the middle of whatever it does, which is like a crash.
    second.run.abort();
    third.commits(5).await;
    first.commits(5).await;

    let words = count::words(&lines);
    let parities = regrouped(&words, |word| parity(ending(word)));
    let equal = || async {
        let counts = count::table(&database, "select parity, n from parities").await.unwrap_or_default();
        count::difference(&parities, &counts).is_none()
    };
    assert!(eventually(DEADLINE, equal).await, "{:?}", count::table(&database, "select parity, n from parities").await);
    for worker in [third, first] {
        report(format_args!("  a worker sent {} commits", worker.commits.load(Ordering::Relaxed)));
        worker.shutdown.stop();
        worker.run.await.unwrap().unwrap();
    }
    let table = |query| count::table(&database, query);
    assert_eq!(count::difference(&words, &table("select word, n from words").await.unwrap()), None);
    let endings = regrouped(&words, ending);
    assert_eq!(count::difference(&endings, &table("select ending, n from endings").await.unwrap()), None);
    assert_eq!(count::difference(&parities, &table("select parity, n from parities").await.unwrap()), None);
}
