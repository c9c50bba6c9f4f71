//! SIGKILL under load, aimed at each phase of a transaction; afterwards the table holds what was written.
//!
//! The job writes its phases to standard error, one line each, and cannot write a line before the one before was seen: a kill
//! hits it in the phase its last line tells. A kill in `COMMIT sent` is triggered by the bytes of the COMMIT, which pass a
//! proxy: they reach the server and its reply does not come back, or they never reach it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;

use tine_tests::job::{Hit, Job, Life, Phase, Scene};
use tine_tests::proxy::{Proxy, Verdict};
use tine_tests::services::shared;
use tine_tests::{count, eventually, report};

/// A machine that compiles at the same time is slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// Rows of a commit are more than this; a plan that is prepared is less.
const ROWS_BYTES: usize = 3_000;

/// The last committed transaction.
const LEDGER: &str = "select min(txid) from tine_ledger";

/// A way to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aim {
    At(Phase),
    /// COMMIT reached the server, its reply did not reach the job.
    CommitForwarded,
    /// COMMIT left the job and did not reach the server.
    CommitHeldBack,
}

impl Aim {
    const ALL: [Aim; 6] = [
        Aim::At(Phase::Planned),
        Aim::CommitForwarded,
        Aim::At(Phase::Emitting),
        Aim::At(Phase::Acknowledged),
        Aim::CommitHeldBack,
        Aim::At(Phase::Processed),
    ];

    fn phase(self) -> Phase {
        match self {
            Aim::At(phase) => phase,
            Aim::CommitForwarded | Aim::CommitHeldBack => Phase::CommitSent,
        }
    }

    async fn kill(self, life: &mut Life, proxy: &Proxy) -> anyhow::Result<Hit> {
        let hits = proxy.hits();
        match self {
            Aim::At(phase) => return life.kill_in(phase, DEADLINE),
            Aim::CommitForwarded => at_next_commit(proxy, Verdict::SwallowReplies, || {}),
            Aim::CommitHeldBack => at_next_commit(proxy, Verdict::CutBefore, life.process.killer()),
        }
        anyhow::ensure!(proxy.await_hits(hits + 1, DEADLINE).await, "no COMMIT:\n{}", life.said());
        life.process.killer()();
        life.killed_in_commit(DEADLINE)
    }

    /// What the database says of a transaction that was hit.
    async fn check(self, hit: &Hit, database: &str) {
        let txid = i64::try_from(hit.txid).unwrap();
        let committed = || async { count::number(database, LEDGER).await.unwrap() >= txid };
        match self {
            Aim::At(Phase::Planned | Phase::Emitting | Phase::Processed | Phase::Prepared) | Aim::CommitHeldBack => {
                assert!(!committed().await, "{self:?}: {hit} is committed");
            }
            // The server may still be at it.
            Aim::CommitForwarded => assert!(eventually(DEADLINE, committed).await, "{self:?}: {hit} was not committed"),
            Aim::At(_) => assert!(committed().await, "{self:?}: {hit} was acknowledged and is not committed"),
        }
    }
}

/// Acts when the bytes of the next COMMIT of rows pass, before they are forwarded, then gives `verdict` on them.
fn at_next_commit(proxy: &Proxy, verdict: Verdict, act: impl FnOnce() + Send + 'static) {
    let (mut sent, mut act) = (HashMap::<u64, usize>::new(), Some(act));
    proxy.hook(move |connection, bytes| {
        let sent = sent.entry(connection).or_default();
        *sent += bytes.len();
        if !bytes.windows(11).any(|window| window == b"tine_commit") || std::mem::take(sent) < ROWS_BYTES {
            return Verdict::Pass;
        }
        act.take().map_or(Verdict::Pass, |act| {
            act();
            verdict
        })
    });
}

/// What the kills of one job came to.
#[derive(Debug, Default)]
struct Kills {
    hits: Vec<(Aim, Hit)>,
}

impl Kills {
    fn by_phase(&self) -> BTreeMap<Phase, usize> {
        let mut phases = BTreeMap::new();
        self.hits.iter().for_each(|(_, hit)| *phases.entry(hit.phase).or_default() += 1);
        phases
    }

    fn table(&self, title: &str, transactions: i64, words: i64) -> String {
        let mut table = format!("{title}\n  phase           kills\n");
        for (phase, kills) in self.by_phase() {
            writeln!(table, "  {phase:<14} {kills:>6}").unwrap();
        }
        let of = |aim| self.hits.iter().filter(|(other, _)| *other == aim).count();
        let (forwarded, held_back) = (of(Aim::CommitForwarded), of(Aim::CommitHeldBack));
        writeln!(table, "  COMMIT forwarded, reply swallowed: {forwarded}; COMMIT never forwarded: {held_back}")
            .unwrap();
        let kills = self.hits.len();
        write!(table, "  {kills} kills, {transactions} transactions, {words} words, difference 0").unwrap();
        table
    }
}

/// Kills a job `rounds` times in each phase while its topic is written, and lets it catch up.
async fn killed_in_every_phase(title: &str, rounds: usize, zookeeper: bool) {
    let Some(scene) = Scene::new("kills").await.unwrap() else { return };
    let proxy = Proxy::start(scene.database_address()).await.unwrap();
    let mut job: Job = scene.job().with("--postgres", &proxy.url(&scene.database)).with("--commit-interval-ms", "100");
    if zookeeper {
        let Some(address) = shared::zookeeper() else { return };
        job = job.zookeeper(&address);
    }
    let feed = scene.feed();
    let mut kills = Kills::default();
    for round in 0..rounds {
        for (nth, aim) in Aim::ALL.into_iter().enumerate() {
            let mut life = job.start().unwrap();
            // Never before the first commit, and each time at another distance from the start.
            life.completes(3 + (5 * nth + 7 * round) % 30, DEADLINE).unwrap();
            let hit = aim.kill(&mut life, &proxy).await.unwrap();
            assert_eq!(hit.phase, aim.phase(), "{aim:?} hit {hit}:\n{}", life.said());
            report(format_args!("  killed in {hit}"));
            proxy.hook(|_, _| Verdict::Pass);
            aim.check(&hit, &scene.database).await;
            kills.hits.push((aim, hit));
        }
    }
    // So that the last kill was not after the last commit.
    let mut life = job.start().unwrap();
    life.completes(10, DEADLINE).unwrap();
    life.process.kill().unwrap();
    let expected = feed.end().unwrap();
    job.catch_up(&expected, DEADLINE).await.unwrap();
    let last = count::number(&scene.database, LEDGER).await.unwrap();
    let newest = kills.hits.iter().map(|(_, hit)| hit.txid).max().unwrap();
    assert!(i64::try_from(newest).unwrap() < last, "a kill hit the last transaction: {newest} of {last}");
    assert!(kills.by_phase().values().all(|kills| *kills >= 3));
    report(kills.table(title, last, expected.values().sum()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_g1_killed_in_every_phase_with_the_databases_lock() {
    killed_in_every_phase("kills, leadership by the database's lock", 4, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_g1_killed_in_every_phase_with_zookeeper() {
    killed_in_every_phase("kills, leadership and plans in ZooKeeper", 3, true).await;
}
