//! Relaxed commits: the server is killed and loses transactions that it had acknowledged; the same records are read again,
//! and the table holds what was written.
//!
//! The process of the server that writes down what nobody waits for can be paused before a kill, so that there is more to
//! lose than the last transaction. The job stands still between the kill and the look at what is left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tine_tests::count;
use tine_tests::job::{Feed, Job, Life};
use tine_tests::report;
use tine_tests::services::{Error, Postgres, shared, unique};

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// How long transactions are waited for while the process that writes down the log is paused, and how often it is.
const PAUSED_DEADLINE: Duration = Duration::from_secs(15);
const PAUSES_MAX: usize = 8;
const KILLS: usize = 6;
/// The last committed transaction.
const LEDGER: &str = "select min(txid) from tine_ledger";

/// A server with room in memory for its log; `None` where it is not installed.
fn roomy() -> Option<Postgres> {
    match Postgres::start_with(&[("wal_buffers", "64MB")]) {
        Ok(server) => Some(server),
        Err(error @ Error::NotInstalled { .. }) => {
            shared::skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The server's process that brings the log to the disk when no commit waits for it.
fn log_writer(postgres: &Postgres) -> Pid {
    let parent = format!("PPid:\t{}\n", postgres.pid().unwrap());
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
    let is_it = |path: &std::path::PathBuf| {
        let read = |file| fs::read_to_string(path.join(file)).unwrap_or_default();
        read("status").contains(&parent) && read("cmdline").contains("walwriter")
    };
    let found = processes.into_iter().find(is_it).expect("a server that runs has a process called walwriter");
    Pid::from_raw(found.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

/// Lets the job commit, kills the server, and answers how many acknowledged transactions it has forgotten. With `pause`
/// nothing brings the log to the disk meanwhile; what waits for the disk would wait for ever.
async fn lost_by_a_kill(postgres: &mut Postgres, life: &mut Life, pause: bool) -> i64 {
    let (url, writer) = (postgres.url(), log_writer(postgres));
    if pause {
        kill(writer, Signal::SIGSTOP).unwrap();
    }
    let mut tries = 0;
    while let Err(error) = life.completes(12, if pause { PAUSED_DEADLINE } else { DEADLINE }) {
        tries += 1;
        assert!(pause && tries < PAUSES_MAX, "{error:#}");
        // Stopped with a lock of the log in its hands it holds up everybody: it puts that down, and is stopped again.
        kill(writer, Signal::SIGCONT).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        kill(writer, Signal::SIGSTOP).unwrap();
    }
    life.process.pause().unwrap();
    let seen = count::number(&url, LEDGER).await.unwrap();
    if pause {
        // A paused process would outlive its server.
        kill(writer, Signal::SIGKILL).unwrap();
    }
    postgres.kill().unwrap();
    postgres.restart().unwrap();
    let left = count::number(&url, LEDGER).await.unwrap();
    life.process.resume().unwrap();
    // One more may have been on its way.
    (seen - left).max(0)
}

/// What each kill cost, in transactions.
async fn killed_again_and_again(job: impl FnOnce(Job) -> Job, durability: &'static str, pause: bool) -> Vec<i64> {
    let (Some(broker), Some(mut postgres)) = (shared::kafka(), roomy()) else { return Vec::new() };
    let topic = unique("relaxed");
    broker.create_topic(&topic, 4).await.unwrap();
    let job = job(Job::words(&broker, &topic, &postgres.url()).with("--durability", durability));
    let job = job.with("--commit-interval-ms", "100");
    let feed = Feed::start(broker.address(), &topic);
    let (mut life, mut lost) = (job.start().unwrap(), Vec::new());
    for kill in 0..KILLS {
        life.completes(3, DEADLINE).unwrap();
        lost.push(lost_by_a_kill(&mut postgres, &mut life, pause).await);
        life.completes(3, DEADLINE).unwrap();
        if kill % 2 == 1 {
            // What the job remembers must not matter either.
            life.process.kill().unwrap();
            life = job.start().unwrap();
        }
    }
    let expected = feed.end().unwrap();
    job.comes_to(&expected, DEADLINE).await.unwrap_or_else(|error| panic!("{error:#}\n{}", life.said()));
    life.process.terminate().unwrap();
    assert!(life.end(DEADLINE).unwrap().success(), "{}", life.said());
    // It ended well: now nothing may be lost any more.
    postgres.kill().unwrap();
    postgres.restart().unwrap();
    job.equals(&expected).await.unwrap();
    let words = expected.values().sum::<i64>();
    report(format_args!(
        "  {durability}: {KILLS} kills lost {lost:?} acknowledged transactions, {words} words, difference 0"
    ));
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_relaxed_commits_that_a_crash_of_the_server_loses_are_made_again() {
    let lost = killed_again_and_again(|job| job, "relaxed", true).await;
    assert!(lost.is_empty() || lost.iter().any(|lost| *lost > 1), "no kill lost several: {lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_the_same_with_zookeeper() {
    let Some(zookeeper) = shared::zookeeper() else { return };
    // Each prepared plan is synchronous and brings the commits before it to the disk: one or two may be lost.
    killed_again_and_again(|job| job.zookeeper(&zookeeper), "relaxed", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn synchronous_commits_survive_every_crash_of_the_server() {
    let lost = killed_again_and_again(|job| job, "synchronous", false).await;
    assert!(lost.iter().all(|lost| *lost == 0), "acknowledged transactions are gone: {lost:?}");
}
