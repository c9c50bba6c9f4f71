//! A rule of the protocol broken on purpose (`core/src/mutant.rs`), in a real process: what the tests look at shows it. The same story
//! with the rule in force is `g1_g2_the_connection_is_cut_inside_commit_sixty_times`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::Duration;

use tine_tests::job::{Scene, cut_next_commit};
use tine_tests::proxy::{Proxy, Verdict};
use tine_tests::report;

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// With the rule in force the next transaction is complete within a second.
const STILL: Duration = Duration::from_secs(30);

/// The database has committed and could not say so. Who takes that for a failure, and does not raise the fence, never gets on.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_that_is_taken_for_a_failure_stops_the_job() {
    let Some(scene) = Scene::new("broken_outcome").await.unwrap() else { return };
    let proxy = Proxy::start(scene.database_address()).await.unwrap();
    let job = scene.job().with("--commit-interval-ms", "100").with("--postgres", &proxy.url(&scene.database));
    let job = job.breaking("OutcomeAssumedFailed");
    let feed = scene.feed();
    let mut life = job.start().unwrap();
    life.completes(5, DEADLINE).unwrap();
    let hits = proxy.hits();
    cut_next_commit(&proxy, Verdict::CutBeforeReply);
    assert!(proxy.await_hits(hits + 1, DEADLINE).await, "no COMMIT:\n{}", life.said());
    let went_on = life.completes(3, STILL);
    assert!(went_on.is_err(), "an outcome assumed is harmless, up to {went_on:?}:\n{}", life.said());
    let expected = feed.end().unwrap();
    let missing = job.comes_to(&expected, Duration::from_secs(5)).await.expect_err("the counts are complete");
    let said = format!("{missing:#}");
    let first = said.lines().next().unwrap_or_default();
    report(format_args!("  an outcome assumed: nothing is complete for {STILL:?}; {first}"));
}
