//! SIGTERM, SIGINT and `--until-end`: what was begun is committed, the exit code is 0, and the next start goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::{Duration, Instant};

use tine_tests::count;
use tine_tests::job::{Job, Phase, Scene};
use tine_tests::produce::{self, Outcome, Record, Transactions};
use tine_tests::report;
use tine_tests::services::shared;

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// How long a clean stop may take where others compile.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// Stops a job under load with both signals, again and again.
async fn stopped_under_load(scene: &Scene, job: &Job) {
    let feed = scene.feed();
    for interrupt in [false, true, false, true] {
        let mut life = job.start().unwrap();
        life.completes(15, DEADLINE).unwrap();
        let asked = Instant::now();
        if interrupt { life.process.interrupt() } else { life.process.terminate() }.unwrap();
        let status = life.end(STOPS_WITHIN).unwrap();
        assert_eq!(status.code(), Some(0), "{}", life.said());
        assert_eq!(life.times(" transactions, last txid "), 1, "{}", life.said());
        report(format_args!("  stopped within {:.2} s", asked.elapsed().as_secs_f64()));
    }
    let expected = feed.end().unwrap();
    job.catch_up(&expected, DEADLINE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_job_that_is_asked_to_stop_commits_and_ends_with_success() {
    let Some(scene) = Scene::new("stopped").await.unwrap() else { return };
    stopped_under_load(&scene, &scene.job()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_the_same_with_zookeeper_and_the_next_start_need_not_wait() {
    let (Some(scene), Some(zookeeper)) = (Scene::new("stopped").await.unwrap(), shared::zookeeper()) else { return };
    let began = Instant::now();
    stopped_under_load(&scene, &scene.job().zookeeper(&zookeeper)).await;
    report(format_args!("  five starts and stops with ZooKeeper took {:.1} s", began.elapsed().as_secs_f64()));
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_kill_while_it_drains_harms_nothing() {
    let Some(scene) = Scene::new("drained").await.unwrap() else { return };
    let job = scene.job();
    let feed = scene.feed();
    for phase in [Phase::Processed, Phase::CommitSent, Phase::Acknowledged] {
        let mut life = job.start().unwrap();
        life.completes(5, DEADLINE).unwrap();
        // The signal waits while it stands still, and is the first thing it meets when it goes on.
        life.pause_in(Phase::Emitting, DEADLINE).unwrap();
        life.process.terminate().unwrap();
        life.process.resume().unwrap();
        let hit = life.kill_in(phase, DEADLINE).unwrap();
        assert_eq!(hit.phase, phase);
        report(format_args!("  killed while it drained, in {hit}"));
    }
    let expected = feed.end().unwrap();
    job.catch_up(&expected, DEADLINE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_anything_was_reached_is_a_success_too() {
    let Some(scene) = Scene::new("early").await.unwrap() else { return };
    let url = format!("postgres://x@127.0.0.1:{}/x", tine_tests::services::free_port().unwrap());
    let mut life = scene.job().with("--postgres", &url).start().unwrap();
    life.process.line("trying", DEADLINE).unwrap();
    life.process.terminate().unwrap();
    assert_eq!(life.end(STOPS_WITHIN).unwrap().code(), Some(0), "{}", life.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_k7_until_end_takes_what_is_committed_below_an_open_transaction() {
    let Some(scene) = Scene::new("open").await.unwrap() else { return };
    let (broker, topic) = (scene.broker.address(), scene.topic.as_str());
    let job = Job::values(&scene.broker, topic, &scene.database);
    let to = |partition: i32, value: &'static str, times: usize| (0..times).map(move |_| Record::to(partition, value));
    let all = |value: &'static str, times: usize| (0..4).flat_map(move |partition| to(partition, value, times));
    let writer = Transactions::new(broker, topic, topic).unwrap();
    writer.write(all("committed", 50), Outcome::Commit).unwrap();
    writer.write(all("aborted", 50), Outcome::Abort).unwrap();
    let open = Transactions::new(broker, topic, &format!("{topic}-open")).unwrap();
    open.begin(to(0, "open", 30)).unwrap();
    // Above the open transaction in partition 0, readable in partition 1.
    produce::records(broker, topic, to(0, "above", 20).chain(to(1, "beside", 20))).unwrap();
    // The last records of partition 2 are aborted ones: its end is beyond its last record.
    writer.write(to(2, "aborted", 10), Outcome::Abort).unwrap();

    let mut expected = count::values((0..200).map(|_| "committed").chain((0..20).map(|_| "beside")));
    job.catch_up(&expected, DEADLINE).await.unwrap();
    open.end(Outcome::Commit).unwrap();
    count::add(&mut expected, &count::values((0..30).map(|_| "open").chain((0..20).map(|_| "above"))));
    job.catch_up(&expected, DEADLINE).await.unwrap();
    // Nothing is left: it ends at once, again.
    job.catch_up(&expected, DEADLINE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn until_end_of_an_empty_topic_ends() {
    let Some(scene) = Scene::new("empty").await.unwrap() else { return };
    scene.job().catch_up(&count::Counts::new(), DEADLINE).await.unwrap();
}
