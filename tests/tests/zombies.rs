//! A leader that sleeps (SIGSTOP) while another one takes over, and wakes up: it harms nothing, says so once, stands by, and
//! leads again when the other one dies. And a second copy that does nothing while the first one lives.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::{Duration, Instant};

use tine_tests::count;
use tine_tests::job::{Feed, Job, Life, Phase, Scene, phase};
use tine_tests::report;
use tine_tests::services::shared;

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
const LEDGER: &str = "select min(txid) from tine_ledger";

/// Where leadership is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Lock,
    ZooKeeper,
}

async fn scene(by: By) -> Option<(Scene, Job)> {
    let scene = Scene::new("zombie").await.unwrap()?;
    let job = scene.job().with("--commit-interval-ms", "100");
    match by {
        By::Lock => Some((scene, job)),
        By::ZooKeeper => shared::zookeeper().map(|address| (scene, job.zookeeper(&address))),
    }
}

/// What a standby says.
fn stands_by(line: &str) -> bool {
    line.contains("standing by") || line.contains("standby")
}

/// Lines that tell of the end of a leadership.
fn farewells(life: &Life) -> Vec<String> {
    let tells = |line: &String| line.contains("fenced: ") || line.contains("leadership lost");
    life.process.lines().into_iter().filter(tells).collect()
}

/// Ends the load, waits until `life` has counted it all, and stops it in good order.
async fn finish(job: &Job, feed: Feed, mut life: Life) {
    let expected = feed.end().unwrap();
    job.comes_to(&expected, DEADLINE).await.unwrap_or_else(|error| panic!("{error:#}\n{}", life.said()));
    life.process.terminate().unwrap();
    assert!(life.end(DEADLINE).unwrap().success(), "{}", life.said());
    job.equals(&expected).await.unwrap();
}

/// Puts a leader to sleep in a phase of a transaction, and wakes it up when another one leads.
async fn a_leader_sleeps(by: By, at: Phase) {
    let Some((scene, job)) = scene(by).await else { return };
    let feed = scene.feed();
    let mut first = job.start().unwrap();
    first.completes(5, DEADLINE).unwrap();
    let hit = first.pause_in(at, DEADLINE).unwrap();
    assert_eq!(hit.phase, at);

    let slept = Instant::now();
    let mut second = job.start().unwrap();
    let taken_over_at = second.completes(1, DEADLINE).unwrap();
    let takeover = slept.elapsed();
    assert!(taken_over_at >= hit.txid, "{taken_over_at} was committed again, the sleeper stood in {hit}");
    second.completes(5, DEADLINE).unwrap();

    first.process.resume().unwrap();
    let said = first.process.line_where(|line| line.contains("fenced: ") || line.contains("leadership lost"), DEADLINE);
    let said = said.unwrap();
    // The reign of the second goes on, and the first does nothing any more.
    second.completes(20, DEADLINE).unwrap();
    assert!(second.process.runs() && first.process.runs(), "{}\n{}", first.said(), second.said());
    assert!(farewells(&second).is_empty(), "{}", second.said());
    first.process.line_where(stands_by, DEADLINE).unwrap();

    second.process.kill().unwrap();
    first.completes(5, DEADLINE).unwrap();
    assert_eq!(farewells(&first).len(), 1, "{}", first.said());
    report(format_args!("  {by:?}, asleep in {hit}: takeover after {:.1} s; awake: {said}", takeover.as_secs_f64()));
    finish(&job, feed, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a4_a_sleeper_that_had_processed_is_fenced_by_zookeeper() {
    a_leader_sleeps(By::ZooKeeper, Phase::Processed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a4_a_sleeper_in_commit_is_fenced_by_zookeeper() {
    a_leader_sleeps(By::ZooKeeper, Phase::CommitSent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a4_a_sleeper_that_had_processed_is_fenced_by_the_databases_lock() {
    a_leader_sleeps(By::Lock, Phase::Processed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a4_a_sleeper_in_commit_is_fenced_by_the_databases_lock() {
    a_leader_sleeps(By::Lock, Phase::CommitSent).await;
}

/// A second copy waits for the death of the first.
async fn a_second_copy_waits(by: By) {
    let Some((scene, job)) = scene(by).await else { return };
    let feed = scene.feed();
    let mut first = job.start().unwrap();
    first.completes(3, DEADLINE).unwrap();
    let mut second = job.start().unwrap();
    second.process.line_where(stands_by, DEADLINE).unwrap();
    first.completes(100, DEADLINE).unwrap();
    assert!(second.process.lines().iter().all(|line| phase(line).is_none()), "{}", second.said());
    first.process.kill().unwrap();
    let last = count::number(&scene.database, LEDGER).await.unwrap();
    let died = Instant::now();
    let next = second.completes(1, DEADLINE).unwrap();
    report(format_args!(
        "  {by:?}: the standby commits {:.1} s after the leader's death",
        died.elapsed().as_secs_f64()
    ));
    assert!(i64::try_from(next).unwrap() > last, "{next} after {last}");
    finish(&job, feed, second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_second_copy_waits_for_the_databases_lock() {
    a_second_copy_waits(By::Lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_second_copy_waits_for_zookeeper() {
    a_second_copy_waits(By::ZooKeeper).await;
}
