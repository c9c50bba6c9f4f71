//! Several copies that share one topology: they come and go, are killed and put to sleep, and the counts stay exact.
//!
//! A worker says how many emitters and shards it has whenever that changes, and `COMMIT sent` for each commit of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::{Duration, Instant};

use tine_tests::job::{Feed, Job, Life, Phase, Scene, phase};
use tine_tests::services::{free_port, shared};
use tine_tests::{count, report, wait_until};

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);

/// How long a copy is put to sleep without being missed: a fifth of its session.
const SHORT_SLEEP: Duration = Duration::from_secs(2);

/// Emitters and shards of a copy with two of them, or three.
const SHARES: &str = " emitters, ";

async fn scene() -> Option<(Scene, Job)> {
    let scene = Scene::new("workers").await.unwrap()?;
    let address = shared::zookeeper()?;
    let job = scene.job().zookeeper(&address).listening().with("--commit-interval-ms", "100");
    Some((scene, job))
}

/// Two copies that share the work of a topic under load.
struct Pair {
    _scene: Scene,
    job: Job,
    feed: Feed,
    first: Life,
    second: Life,
}

/// Starts one copy, and another one when the first has committed.
async fn pair() -> Option<Pair> {
    let (scene, job) = scene().await?;
    let feed = scene.feed();
    let first = job.start().unwrap();
    says(&first, "1 workers share the work", 1);
    commit(&[&first], 3);
    let second = job.start().unwrap();
    says(&first, "2 workers share the work", 1);
    commit(&[&first, &second], 10);
    Some(Pair { _scene: scene, job, feed, first, second })
}

/// Waits until a copy has said `text`, `times` times in all.
fn says(life: &Life, text: &str, times: usize) {
    assert!(wait_until(DEADLINE, || life.times(text) >= times), "no {text:?} came {times} times:\n{}", life.said());
}

/// How many commits a copy has sent.
fn commits(life: &Life) -> usize {
    let sent = |line: &String| matches!(phase(line), Some((_, Phase::CommitSent)));
    life.process.lines().iter().filter(|line| sent(line)).count()
}

/// Waits until each of these copies has sent `more` commits.
fn commit(lives: &[&Life], more: usize) {
    for life in lives {
        let before = commits(life);
        assert!(wait_until(DEADLINE, || commits(life) >= before + more), "no {more} commits:\n{}", life.said());
    }
}

/// What a copy last said of its part.
fn part(life: &Life) -> String {
    let lines = life.process.lines();
    let last = lines.iter().rev().find(|line| line.contains(SHARES));
    last.map_or_else(
        || "nothing".to_owned(),
        |line| line.split_once("worker ").map_or(line.clone(), |(_, part)| part.to_owned()),
    )
}

/// How many shards it said that it has.
fn shards(life: &Life) -> u64 {
    let part = part(life);
    let count = part.split_once(SHARES).and_then(|(_, shards)| shards.split(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no shards: {part}"))
}

/// How many attempts have failed.
fn failed_attempts(life: &Life) -> usize {
    life.process.lines().iter().filter(|line| line.contains("attempt ") && line.contains(" ended: ")).count()
}

/// The line with a text.
fn line(life: &Life, text: &str) -> String {
    let lines = life.process.lines();
    lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text:?}:\n{}", life.said())).clone()
}

/// The fingerprints that a line names.
fn fingerprints(line: &str) -> Vec<&str> {
    let hex = |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    line.split(|c: char| !c.is_ascii_alphanumeric()).filter(hex).collect()
}

/// Ends the load, waits until everything is counted, and ends the copies in good order.
async fn finish(job: &Job, feed: Feed, lives: Vec<Life>) {
    let expected = feed.end().unwrap();
    let said = || lives.iter().map(Life::said).collect::<Vec<_>>().join("\n-----\n");
    job.comes_to(&expected, DEADLINE).await.unwrap_or_else(|error| panic!("{error:#}\n{}", said()));
    for mut life in lives {
        life.process.terminate().unwrap();
        assert!(life.end(DEADLINE).unwrap().success(), "{}", life.said());
    }
    job.equals(&expected).await.unwrap();
    report(format_args!("  {} words, difference 0", expected.values().sum::<i64>()));
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_copies_are_added_and_taken_away_and_share_the_work_without_a_failed_attempt() {
    let Some(Pair { _scene, job, feed, first, second }) = pair().await else { return };
    let mut third = job.start().unwrap();
    says(&first, "3 workers share the work", 1);
    commit(&[&first, &second, &third], 10);
    for life in [&first, &second, &third] {
        report(format_args!("  worker {}; {} commits", part(life), commits(life)));
        assert!((11..=13).contains(&shards(life)), "{}", part(life));
    }
    // One leaves in good order: its part is taken over at a boundary.
    third.process.terminate().unwrap();
    assert!(third.end(DEADLINE).unwrap().success(), "{}", third.said());
    says(&first, "2 workers share the work", 2);
    commit(&[&first, &second], 10);
    assert_eq!(failed_attempts(&first), 0, "{}", first.said());
    finish(&job, feed, vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_killed_worker_and_a_killed_leader_are_replaced_and_the_counts_stay_exact() {
    let Some(Pair { _scene, job, feed, mut first, mut second }) = pair().await else { return };
    let third = job.start().unwrap();
    says(&first, "3 workers share the work", 1);
    commit(&[&first, &second, &third], 10);

    // A worker dies in the middle of its commit: the open attempt fails at once, and its part moves.
    let hit = second.kill_in(Phase::CommitSent, DEADLINE).unwrap();
    let died = Instant::now();
    says(&first, " broke: ", 1);
    let noticed = died.elapsed();
    says(&first, "2 workers share the work", 2);
    let moved = died.elapsed();
    commit(&[&first, &third], 10);
    report(format_args!("  worker killed in {hit}: noticed after {noticed:.1?}, its tasks moved after {moved:.1?}"));

    // It comes back, and is used again.
    let second = job.start().unwrap();
    says(&first, "3 workers share the work", 2);
    commit(&[&first, &second, &third], 10);

    // The leader dies: another one leads, with whoever is there.
    let hit = first.kill_in(Phase::CommitSent, DEADLINE).unwrap();
    let died = Instant::now();
    let leads = || [&second, &third].into_iter().any(|life| life.times("2 workers share the work") > 0);
    assert!(wait_until(DEADLINE, leads), "{}\n{}", second.said(), third.said());
    report(format_args!("  leader killed in {hit}: another one leads two workers after {:.1?}", died.elapsed()));
    commit(&[&second, &third], 10);
    finish(&job, feed, vec![second, third]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_worker_that_slept_through_its_session_harms_nothing_and_is_used_again() {
    let Some(Pair { _scene, job, feed, first, mut second }) = pair().await else { return };

    let hit = second.pause_in(Phase::CommitSent, DEADLINE).unwrap();
    let slept = Instant::now();
    says(&first, "1 workers share the work", 2);
    report(format_args!("  asleep in {hit}: its tasks moved after {:.1?}", slept.elapsed()));
    commit(&[&first], 10);
    second.process.resume().unwrap();
    says(&second, "registering again", 1);
    says(&first, "2 workers share the work", 2);
    commit(&[&first, &second], 10);
    report(format_args!("  awake: {}", part(&second)));
    finish(&job, feed, vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_leader_that_slept_through_its_reign_becomes_a_worker_of_the_next_one() {
    let Some(Pair { _scene, job, feed, mut first, second }) = pair().await else { return };

    let hit = first.pause_in(Phase::Prepared, DEADLINE).unwrap();
    let slept = Instant::now();
    says(&second, "1 workers share the work", 1);
    report(format_args!("  leader asleep in {hit}: the other one leads alone after {:.1?}", slept.elapsed()));
    commit(&[&second], 10);
    first.process.resume().unwrap();
    says(&second, "2 workers share the work", 1);
    commit(&[&first, &second], 10);
    finish(&job, feed, vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn z6_an_assignment_that_was_deleted_by_hand_is_written_again() {
    let Some(Pair { _scene, job, feed, first, second }) = pair().await else { return };
    let zookeeper = zookeeper_client::Client::connect(job.argument("--zookeeper")).await.unwrap();
    let node = format!("/tine/{}/assignment", job.argument("--name"));
    zookeeper.delete(&node, None).await.unwrap();
    says(&first, "deleted or set back by somebody else: writing another", 1);
    says(&first, "2 workers share the work", 2);
    commit(&[&first, &second], 10);
    assert!(!zookeeper.get_data(&node).await.unwrap().0.is_empty());
    // Whoever comes now finds it.
    let third = job.start().unwrap();
    says(&first, "3 workers share the work", 1);
    commit(&[&first, &second, &third], 3);
    finish(&job, feed, vec![first, second, third]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_copy_that_was_given_another_database_is_refused_and_both_ledgers_are_named() {
    let Some((scene, job)) = scene().await else { return };
    let Some(elsewhere) = shared::postgres_database("elsewhere").await.unwrap() else { return };
    let feed = scene.feed();
    let first = job.start().unwrap();
    commit(&[&first], 3);
    let mut astray = job.clone().with("--postgres", &elsewhere).start().unwrap();
    assert!(!astray.end(DEADLINE).unwrap().success(), "{}", astray.said());
    let refusal = line(&astray, "write to a ledger of lineage");
    report(format_args!("  {refusal}"));
    assert!(refusal.contains("cannot start"), "{refusal}");
    for database in [&scene.database, &elsewhere] {
        let lineages =
            count::table(database, "select encode(lineage, 'hex'), 1::bigint from tine_groups").await.unwrap();
        assert!(lineages.keys().all(|lineage| refusal.contains(lineage)), "{lineages:?}: {refusal}");
    }
    assert_eq!(failed_attempts(&first), 0, "{}", first.said());
    finish(&job, feed, vec![first]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_copies_that_advertise_one_address_the_later_one_is_refused_by_name() {
    let Some((scene, job)) = scene().await else { return };
    let feed = scene.feed();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let job = job.with("--advertise", &address);
    let first = job.start().unwrap();
    commit(&[&first], 3);
    let mut second = job.start().unwrap();
    assert!(!second.end(DEADLINE).unwrap().success(), "{}", second.said());
    let refusal = line(&second, "and is alive");
    report(format_args!("  {refusal}"));
    assert!(refusal.contains(&address), "{refusal}");
    commit(&[&first], 3);
    finish(&job, feed, vec![first]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_a_short_sleep_fails_nothing() {
    let Some(Pair { _scene, job, feed, first, mut second }) = pair().await else { return };
    second.process.pause().unwrap();
    std::thread::sleep(SHORT_SLEEP);
    second.process.resume().unwrap();
    commit(&[&first, &second], 10);
    assert_eq!(failed_attempts(&first), 0, "{}", first.said());
    finish(&job, feed, vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_a_copy_of_another_topology_is_refused_and_a_port_for_everybody_too() {
    let Some((scene, job)) = scene().await else { return };
    let feed = scene.feed();
    let first = job.start().unwrap();
    commit(&[&first], 3);
    let mut other_job = Job::values(&scene.broker, &scene.topic, &scene.database);
    for name in ["--name", "--zookeeper", "--listen"] {
        other_job = other_job.with(name, job.argument(name));
    }
    let mut other = other_job.start().unwrap();
    assert!(!other.end(DEADLINE).unwrap().success(), "{}", other.said());
    assert!(other.said().contains("another shape"), "{}", other.said());
    // With a database of its own nothing but the workers themselves could notice.
    let Some(database) = shared::postgres_database("other").await.unwrap() else { return };
    let mut other = other_job.with("--postgres", &database).start().unwrap();
    assert!(!other.end(DEADLINE).unwrap().success(), "{}", other.said());
    report(format_args!("  {}", other.said()));
    // Both are named: the workers', and its own. (The leader may not even have seen it.)
    let refusal = line(&other, "run fingerprint");
    let both = fingerprints(&refusal);
    assert!(both.len() == 2 && both[0] != both[1], "{refusal}");
    let mut open = job.clone().with("--listen", "0.0.0.0:0").start().unwrap();
    assert!(!open.end(DEADLINE).unwrap().success() && open.said().contains("beyond loopback"), "{}", open.said());
    commit(&[&first], 3);
    finish(&job, feed, vec![first]).await;
}
