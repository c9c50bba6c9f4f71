//! Servers that are killed, restarted or wiped and connections that break while a job runs: it goes on by itself, the same
//! process, without a word too many, and the table holds what was written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::{Duration, Instant};

use tine_tests::job::{Feed, Job, Life, Scene, cut_next_commit};
use tine_tests::proxy::{Proxy, Verdict};
use tine_tests::services::{Error, Guard, Kafka, Postgres, Service, ZooKeeper, shared, unique};
use tine_tests::{disk, report, wait_until};

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// How many lines of one outage are enough.
const REMARKS_MAX: usize = 40;

/// A server of the test's own, or `None` where it is not installed.
fn own<S: Service>() -> Option<Guard<S>> {
    match Guard::start() {
        Ok(server) => Some(server),
        Err(error @ Error::NotInstalled { .. }) => {
            shared::skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Ends the load, waits until the job has counted it all, stops it, and looks at what it said.
async fn finish(title: &str, outages: usize, job: &Job, feed: Feed, mut life: Life) {
    let expected = feed.end().unwrap();
    job.comes_to(&expected, DEADLINE).await.unwrap_or_else(|error| panic!("{error:#}\n{}", life.said()));
    life.process.terminate().unwrap();
    assert!(life.end(DEADLINE).unwrap().success(), "{}", life.said());
    job.equals(&expected).await.unwrap();
    let remarks = life.remarks();
    let said = remarks.join("\n");
    report(format_args!(
        "  {title}: {outages} outages, {} words, difference 0; {} remarks",
        expected.values().sum::<i64>(),
        remarks.len()
    ));
    assert!(!said.contains("panicked"), "{said}");
    assert!(remarks.len() <= REMARKS_MAX * outages, "{} remarks:\n{said}", remarks.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g3_postgres_is_killed_and_restarted_under_load() {
    let (Some(broker), Some(mut postgres)) = (shared::kafka(), own()) else { return };
    let postgres: &mut Postgres = &mut postgres;
    let topic = unique("postgres_killed");
    broker.create_topic(&topic, 4).await.unwrap();
    let job = Job::words(&broker, &topic, &postgres.url()).with("--commit-interval-ms", "100");
    let feed = Feed::start(broker.address(), &topic);
    let mut life = job.start().unwrap();
    for _ in 0..3 {
        life.completes(20, DEADLINE).unwrap();
        postgres.kill().unwrap();
        life.process.line("WARN", DEADLINE).unwrap();
        postgres.restart().unwrap();
        life.completes(5, DEADLINE).unwrap_or_else(|error| panic!("{error:#}"));
    }
    // In good order, too: the server tells its clients.
    postgres.restart().unwrap();
    life.completes(5, DEADLINE).unwrap();
    finish("postgres killed or restarted", 4, &job, feed, life).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g2_the_connection_is_cut_inside_commit_sixty_times() {
    const CUTS: usize = 60;
    let Some(scene) = Scene::new("commit_cut").await.unwrap() else { return };
    let proxy = Proxy::start(scene.database_address()).await.unwrap();
    let job = scene.job().with("--commit-interval-ms", "100").with("--postgres", &proxy.url(&scene.database));
    let feed = scene.feed();
    let mut life = job.start().unwrap();
    for nth in 0..CUTS {
        life.completes(2, DEADLINE).unwrap();
        let hits = proxy.hits();
        cut_next_commit(&proxy, [Verdict::CutBefore, Verdict::CutBeforeReply, Verdict::CutAfter][nth % 3]);
        assert!(proxy.await_hits(hits + 1, DEADLINE).await, "no COMMIT:\n{}", life.said());
    }
    life.completes(5, DEADLINE).unwrap();
    finish("connection cut inside COMMIT", CUTS, &job, feed, life).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_connections_go_silent_and_come_back_or_never() {
    let Some(scene) = Scene::new("half_open").await.unwrap() else { return };
    let proxy = Proxy::start(scene.database_address()).await.unwrap();
    let job = scene.job().with("--commit-interval-ms", "100").with("--postgres", &proxy.url(&scene.database));
    let feed = scene.feed();
    let mut life = job.start().unwrap();
    life.completes(10, DEADLINE).unwrap();
    // A pulled cable, until the job has noticed.
    proxy.half_open();
    life.process.line("WARN", Duration::from_secs(150)).unwrap();
    proxy.pass();
    let back = Instant::now();
    life.completes(10, Duration::from_secs(150)).unwrap();
    report(format_args!("  a pulled cable was put back: goes on after {:.1} s", back.elapsed().as_secs_f64()));
    // Connections that stay mute for ever, while new ones work: every one that is used while replies are swallowed.
    let (accepted, mute) = (proxy.accepted(), Instant::now());
    proxy.swallow_replies();
    life.process.line("WARN", Duration::from_secs(150)).unwrap();
    proxy.pass();
    life.completes(10, Duration::from_secs(150)).unwrap();
    report(format_args!("  old connections stay mute: goes on after {:.1} s", mute.elapsed().as_secs_f64()));
    assert!(proxy.accepted() > accepted, "it went on over new connections");
    finish("silent connections", 2, &job, feed, life).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z5_z6_zookeeper_is_killed_stopped_for_long_and_wiped_under_load() {
    let (Some(scene), Some(mut zookeeper)) = (Scene::new("zookeeper_out").await.unwrap(), own()) else { return };
    let zookeeper: &mut ZooKeeper = &mut zookeeper;
    let job = scene.job().with("--commit-interval-ms", "100").zookeeper(&zookeeper.address());
    let feed = scene.feed();
    let mut life = job.start().unwrap();
    life.completes(10, DEADLINE).unwrap();
    zookeeper.kill().unwrap();
    zookeeper.restart().unwrap();
    life.completes(10, DEADLINE).unwrap();
    // Down for longer than the session.
    zookeeper.kill().unwrap();
    life.process.line("leadership lost", DEADLINE).unwrap();
    zookeeper.restart().unwrap();
    life.completes(10, DEADLINE).unwrap();
    // Wiped under way: what is known stands in the database.
    let before = life.completes(10, DEADLINE).unwrap();
    zookeeper.wipe().unwrap();
    let after = life.completes(30, DEADLINE).unwrap();
    assert!(after > before);
    // Wiped while nobody runs.
    life.process.kill().unwrap();
    zookeeper.wipe().unwrap();
    let mut life = job.start().unwrap();
    let next = life.completes(5, DEADLINE).unwrap();
    assert!(next > after, "txids begin anew at {next} after {after}");
    finish("zookeeper killed, away, wiped twice", 4, &job, feed, life).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z8_zookeepers_disk_is_full_under_load() {
    let (Some(scene), Some(mut zookeeper)) = (Scene::new("zookeeper_full").await.unwrap(), own()) else { return };
    let zookeeper: &mut ZooKeeper = &mut zookeeper;
    let disk = match disk::of_log(zookeeper) {
        Ok(disk) => disk,
        Err(error) => return shared::skip(format_args!("no disk that fills up: {error:#}")),
    };
    let job = scene.job().with("--commit-interval-ms", "100").zookeeper(&zookeeper.address());
    let feed = scene.feed();
    let mut life = job.start().unwrap();
    life.completes(10, DEADLINE).unwrap();
    disk.fill().unwrap();
    // Each plan is a write, and the first that does not fit ends the server.
    let full = Instant::now();
    let stopped = wait_until(DEADLINE, || !zookeeper.serves());
    assert!(stopped, "a server without room serves:\n{}", life.said());
    life.process.line("leadership lost", DEADLINE).unwrap();
    report(format_args!(
        "  ZooKeeper's disk is full: its job leads no more after {:.1} s",
        full.elapsed().as_secs_f64()
    ));
    disk.free().unwrap();
    zookeeper.restart_with_room().unwrap();
    life.completes(10, DEADLINE).unwrap();
    finish("zookeeper's disk full", 1, &job, feed, life).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_the_broker_is_killed_and_restarted_under_load() {
    let Some(mut kafka) = own() else { return };
    let kafka: &mut Kafka = &mut kafka;
    let Some(database) = shared::postgres_database("broker_out").await.unwrap() else { return };
    kafka.create_topic("lines", 4).await.unwrap();
    let job = Job::words(&kafka.broker(), "lines", &database).with("--commit-interval-ms", "100");
    let feed = Feed::start(&kafka.address(), "lines");
    let mut life = job.start().unwrap();
    for _ in 0..3 {
        life.completes(20, DEADLINE).unwrap();
        kafka.kill().unwrap();
        // What was read already is committed meanwhile.
        kafka.restart().unwrap();
        life.completes(5, DEADLINE).unwrap();
    }
    finish("broker killed", 3, &job, feed, life).await;
}
