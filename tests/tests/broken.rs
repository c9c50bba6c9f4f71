//! Rules of the protocol broken on purpose (`core/src/mutant.rs`), in a real process: what the tests look at shows it. The same story
//! with the rules in force is `g1_g2_the_connection_is_cut_inside_commit_sixty_times`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::time::Duration;

use tine_tests::chaos::Chaos;
use tine_tests::chaos::plan::{Fault, Missing, Step, Target, plan};
use tine_tests::job::{Feed, Job, Life, Scene, cut_next_commit};
use tine_tests::proxy::{Proxy, Verdict};
use tine_tests::report;

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// With the rule in force the next transaction is complete within a second.
const STILL: Duration = Duration::from_secs(30);
/// How long everything breaks, unless it is found out before.
const LENGTH: Duration = Duration::from_secs(180);
/// A commit whose outcome is unknown is taken for done, and nothing compares what a commit builds upon.
const LOSES: &str = "OutcomeAssumedDone,TxidNotCompared,ChainNotCompared";

/// A job that breaks rules, and has lost the connection amid a COMMIT.
struct Broken {
    job: Job,
    life: Life,
    feed: Feed,
    _proxy: Proxy,
}

impl Broken {
    /// `None` where a server is not installed.
    async fn cut_amid_commit(name: &str, rules: &str, verdict: Verdict) -> Option<Broken> {
        let scene = Scene::new(name).await.unwrap()?;
        let proxy = Proxy::start(scene.database_address()).await.unwrap();
        let job = scene.job().with("--commit-interval-ms", "100").with("--postgres", &proxy.url(&scene.database));
        let job = job.breaking(rules);
        let feed = scene.feed();
        let mut life = job.start().unwrap();
        life.completes(5, DEADLINE).unwrap();
        let hits = proxy.hits();
        cut_next_commit(&proxy, verdict);
        assert!(proxy.await_hits(hits + 1, DEADLINE).await, "no COMMIT:\n{}", life.said());
        Some(Broken { job, life, feed, _proxy: proxy })
    }

    /// What the counts differ in from what was written.
    async fn difference(self, within: Duration) -> String {
        let expected = self.feed.end().unwrap();
        let difference = self.job.comes_to(&expected, within).await.expect_err("the counts are exact");
        format!("{difference:#}").lines().next().unwrap_or_default().to_owned()
    }
}

/// The database has committed and could not say so. Who takes that for a failure, and does not raise the fence, never gets on.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_that_is_taken_for_a_failure_stops_the_job() {
    let broken = Broken::cut_amid_commit("broken_outcome", "OutcomeAssumedFailed", Verdict::CutBeforeReply);
    let Some(mut broken) = broken.await else { return };
    let went_on = broken.life.completes(3, STILL);
    assert!(went_on.is_err(), "an outcome assumed is harmless, up to {went_on:?}:\n{}", broken.life.said());
    let difference = broken.difference(Duration::from_secs(5)).await;
    report(format_args!("  an outcome assumed: nothing is complete for {STILL:?}; {difference}"));
}

/// A COMMIT that never reached the database is taken for one that did. As long as each commit compares number and chain of its
/// rows, the next one notices; without that the transaction is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_that_is_taken_for_done_is_lost_when_nothing_is_compared() {
    let Some(mut broken) = Broken::cut_amid_commit("broken_ledger", LOSES, Verdict::CutBefore).await else { return };
    broken.life.completes(3, DEADLINE).unwrap();
    let difference = broken.difference(Duration::from_secs(10)).await;
    report(format_args!("  a lost commit taken for done: {difference}"));
}

/// Whether chaos keeps three COMMITs at least from the database, with time enough that somebody commits, and one of them soon, whatever
/// cannot be broken on this machine: no other fault shows what [`LOSES`] does.
fn keeps_commits(seed: u64) -> bool {
    let keeps = |step: &&Step| step.fault == Fault::CutCommit(Verdict::CutBefore) && step.hold.as_secs() >= 8;
    [(false, false), (false, true), (true, false), (true, true)].into_iter().all(|(disk, clock)| {
        let steps = plan(seed, Target::Postgres, LENGTH, Missing { disk, clock });
        let kept: Vec<_> = steps.iter().filter(keeps).collect();
        kept.len() >= 3 && kept[0].at < LENGTH / 3
    })
}

/// The same mistake, and everything breaks at once by plans that know nothing of it: an audit finds it out. Whether somebody commits
/// just when the COMMIT is kept from the database is a matter of chance, since everything else is broken, too: a second plan and a
/// third one may have to look.
#[tokio::test(flavor = "multi_thread")]
async fn chaos_finds_a_broken_tine() {
    let mut passed = String::new();
    let seeds: Vec<u64> = (11..100_000).filter(|seed| keeps_commits(*seed)).take(3).collect();
    assert_eq!(seeds.len(), 3, "plans are drawn otherwise than when this was written");
    for seed in seeds {
        let chaos = Chaos { seed, length: LENGTH, workers: 3, broken: LOSES.to_owned() };
        match chaos.run().await {
            Ok(None) => return,
            Ok(Some(outcome)) => passed.push_str(&format!("\n{outcome}")),
            Err(found) => {
                let found = format!("{found:#}");
                assert!(found.contains("NOT exact"), "something else failed: {found}");
                report(found);
                return;
            }
        }
    }
    panic!("passed for exact: {passed}");
}
