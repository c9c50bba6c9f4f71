//! The example `kafka_to_postgres` as a job: started, followed by its phases, hit by a signal in one of them, compared.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use tine_tests::{job::{Feed, Job, Phase}, services::kafka::Broker};
//! # async fn example(kafka: Broker, database: String) -> anyhow::Result<()> {
//! let job = Job::words(&kafka, "lines", &database);
//! let feed = Feed::start(kafka.address(), "lines");
//! let mut life = job.start()?;
//! life.completes(3, Duration::from_secs(60))?;
//! let hit = life.kill_in(Phase::Processed, Duration::from_secs(60))?;
//! job.catch_up(&feed.end()?, Duration::from_secs(60)).await?;
//! # Ok(()) }
//! ```
//!
//! [`Feed`] keeps a topic under load and remembers what it wrote.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;

use crate::count::{self, Counts};
use crate::process::{Program, Running, example_path};
use crate::produce;
use crate::proxy::{Proxy, Verdict};
use crate::services::kafka::Broker;
use crate::services::{shared, unique};

/// What the job is started with; the phases go to standard error.
const LOG: &str = "warn,tine=info,tine::phase=debug";

/// What programs break that were built with the feature `mutants`.
const BROKEN_RULES: &str = "TINE_BROKEN_RULES";

/// How long one may take to say what it breaks.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Cuts the connection of the next COMMIT of a job's rows as `verdict` says.
pub fn cut_next_commit(proxy: &Proxy, verdict: Verdict) {
    let (mut sent, mut armed) = (HashMap::<u64, usize>::new(), true);
    proxy.hook(move |connection, bytes| {
        let sent = sent.entry(connection).or_default();
        *sent += bytes.len();
        let commits = bytes.windows(11).any(|window| window == b"tine_commit") && std::mem::take(sent) > 3_000;
        if commits && std::mem::take(&mut armed) { verdict } else { Verdict::Pass }
    });
}

/// A phase of a transaction, as the job prints it, in the order in which a transaction goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its plan is fixed.
    Planned,
    /// It is being read.
    Emitting,
    /// It is processed; nothing is written yet.
    Processed,
    /// Its plan stands in the database (with ZooKeeper only).
    Prepared,
    /// COMMIT is on its way.
    CommitSent,
    /// The database has answered.
    Acknowledged,
    /// It is over.
    Complete,
}

impl Phase {
    const ALL: [(Phase, &'static str); 7] = [
        (Phase::Planned, "planned"),
        (Phase::Emitting, "emitting"),
        (Phase::Processed, "processed"),
        (Phase::Prepared, "prepared"),
        (Phase::CommitSent, "COMMIT sent"),
        (Phase::Acknowledged, "acknowledged"),
        (Phase::Complete, "complete"),
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::ALL[*self as usize];
        f.pad(name)
    }
}

/// The transaction and the phase that a line of the job tells, if it does.
pub fn phase(line: &str) -> Option<(u64, Phase)> {
    let (_, said) = line.split_once("txid=")?;
    let (txid, phase) = said.split_once(" phase=")?;
    let (phase, _) = Phase::ALL.into_iter().find(|(_, name)| *name == phase.trim_end())?;
    Some((txid.parse().ok()?, phase))
}

/// A job that can be started again and again: each time with the same arguments, as its user would.
#[derive(Debug, Clone)]
pub struct Job {
    database: String,
    count: &'static str,
    arguments: Vec<(&'static str, String)>,
    flags: Vec<&'static str>,
    broken: String,
}

impl Job {
    /// Counts the words of `topic` into the table `counts` of `database`, a database of its own.
    pub fn words(broker: &Broker, topic: &str, database: &str) -> Self {
        Self::new(broker.address(), topic, database, "words")
    }

    /// Counts the whole values of `topic`.
    pub fn values(broker: &Broker, topic: &str, database: &str) -> Self {
        Self::new(broker.address(), topic, database, "values")
    }

    fn new(brokers: &str, topic: &str, database: &str, count: &'static str) -> Self {
        let job = Self {
            database: database.to_owned(),
            count,
            arguments: Vec::new(),
            flags: Vec::new(),
            broken: String::new(),
        };
        job.with("--brokers", brokers)
            .with("--topic", topic)
            .with("--count", count)
            .with("--postgres", database)
            .with("--table", "counts")
            .with("--name", &unique("job"))
    }

    /// Gives an argument another value.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.arguments.retain(|(known, _)| *known != name);
        self.arguments.push((name, value.to_owned()));
        self
    }

    /// Adds a flag without a value.
    pub fn flag(mut self, name: &'static str) -> Self {
        self.flags.push(name);
        self
    }

    /// Breaks rules of the protocol on purpose: names of mutants in `core/src/mutant.rs`, separated by commas.
    pub fn breaking(mut self, rules: &str) -> Self {
        rules.clone_into(&mut self.broken);
        self
    }

    /// Waits until a copy says that it breaks what it was asked to; only programs that were built with the mutants can.
    pub fn await_broken(&self, running: &mut Running) -> anyhow::Result<()> {
        let rules: Vec<&str> = self.broken.split(',').filter(|rule| !rule.is_empty()).collect();
        if rules.is_empty() {
            return Ok(());
        }
        let said = running.line_where(|line| line.contains("rules broken on purpose: "), START_DEADLINE);
        let breaks_all = said.is_ok_and(|line| rules.iter().all(|rule| line.contains(rule)));
        ensure!(
            breaks_all,
            "the programs do not break {}: give names of core/src/mutant.rs, and build the programs with \
             `cargo build --release --workspace --all-features --bins --examples`",
            self.broken
        );
        Ok(())
    }

    /// Keeps leadership and plans in ZooKeeper, below a new folder there.
    pub fn zookeeper(self, address: &str) -> Self {
        let chroot = format!("{address}/{}", unique("tine"));
        self.with("--zookeeper", &chroot)
    }

    /// Shares the work with all other copies that listen.
    pub fn listening(self) -> Self {
        self.with("--listen", "127.0.0.1:0")
    }

    /// The topology's name.
    pub fn name(&self) -> &str {
        self.argument("--name")
    }

    /// What an argument was given.
    pub fn argument(&self, name: &str) -> &str {
        let given = self.arguments.iter().find(|(known, _)| *known == name);
        given.map_or("", |(_, value)| value)
    }

    /// The URL of its database, without a proxy.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Whether it counts words, or else whole values.
    pub fn counts_words(&self) -> bool {
        self.count == "words"
    }

    /// The program with its arguments.
    pub fn program(&self) -> anyhow::Result<Program> {
        let path = example_path("kafka_to_postgres");
        ensure!(
            path.is_file(),
            "{} is missing: cargo build --release -p tine --examples --all-features (tests/run does it)",
            path.display()
        );
        let arguments = self.arguments.iter().flat_map(|(name, value)| [name, value.as_str()]);
        Ok(Program::at(path).args(arguments).args(&self.flags).env("RUST_LOG", LOG).env(BROKEN_RULES, &self.broken))
    }

    /// Starts it; each of its lines is seen before it can write the next one.
    pub fn start(&self) -> anyhow::Result<Life> {
        let mut process = self.program()?.in_step().start()?;
        self.await_broken(&mut process)?;
        Ok(Life { process, read: 0 })
    }

    /// Runs it with `--until-end` and returns what it printed; fails when it does not end in time or not with success.
    pub fn run_to_end(&self, deadline: Duration) -> anyhow::Result<Life> {
        let mut life = self.clone().flag("--until-end").start()?;
        let status = life.process.wait(deadline)?;
        ensure!(status.success(), "--until-end ended with {status}:\n{}", life.said());
        Ok(life)
    }

    /// What the table holds.
    pub async fn counts(&self) -> anyhow::Result<Counts> {
        match self.count {
            "words" => count::table(&self.database, "select word, n from counts").await,
            _ => count::table(&self.database, "select value, n from counts").await,
        }
    }

    /// Runs it to the end of the topic and compares the table with `expected`.
    pub async fn catch_up(&self, expected: &Counts, deadline: Duration) -> anyhow::Result<Life> {
        let life = self.run_to_end(deadline)?;
        self.equals(expected).await.map(|()| life)
    }

    /// Compares the table with `expected`.
    pub async fn equals(&self, expected: &Counts) -> anyhow::Result<()> {
        match count::difference(expected, &self.counts().await?) {
            Some(difference) => bail!("the table is wrong: {difference}"),
            None => Ok(()),
        }
    }

    /// Waits until a running job has made the table equal to `expected`; the database may be away meanwhile.
    pub async fn comes_to(&self, expected: &Counts, deadline: Duration) -> anyhow::Result<()> {
        let last = std::sync::Mutex::new(String::new());
        let equal = crate::eventually(deadline, || async {
            match self.equals(expected).await {
                Ok(()) => true,
                Err(error) => {
                    *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = format!("{error:#}");
                    false
                }
            }
        });
        ensure!(equal.await, "after {deadline:?}: {}", last.into_inner().unwrap_or_default());
        Ok(())
    }
}

/// What most scenarios stand on: a topic on the shared broker, a database on the shared server.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The broker.
    pub broker: Broker,
    /// A new topic.
    pub topic: String,
    /// The URL of a new database.
    pub database: String,
}

impl Scene {
    /// A topic of four partitions and a database; `None` where a server is not installed.
    pub async fn new(name: &str) -> anyhow::Result<Option<Self>> {
        let Some(broker) = shared::kafka() else { return Ok(None) };
        let Some(database) = shared::postgres_database(name).await? else { return Ok(None) };
        let topic = unique(name);
        broker.create_topic(&topic, 4).await?;
        Ok(Some(Self { broker, topic, database }))
    }

    /// The job that counts the topic's words into the database.
    pub fn job(&self) -> Job {
        Job::words(&self.broker, &self.topic, &self.database)
    }

    /// Puts the topic under load.
    pub fn feed(&self) -> Feed {
        Feed::start(self.broker.address(), &self.topic)
    }

    /// `host:port` of the database server.
    pub fn database_address(&self) -> &str {
        address_of(&self.database)
    }
}

/// `host:port` of a URL of ours.
pub fn address_of(url: &str) -> &str {
    let host = url.split_once('@').map_or(url, |(_, host)| host);
    host.split('/').next().unwrap_or(host)
}

/// One process of a job, from its start to its end.
#[derive(Debug)]
pub struct Life {
    /// The process.
    pub process: Running,
    /// How many of its lines were looked at by [`Life::completes`].
    read: usize,
}

/// Where a process stood when it was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The transaction the signal was aimed at.
    pub txid: u64,
    /// The last phase of it that the process told before it was hit.
    pub phase: Phase,
    /// The same for the other transactions that were open.
    pub others: Vec<(u64, Phase)>,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of txid {}", self.phase, self.txid)?;
        self.others.iter().try_for_each(|(txid, phase)| write!(f, "; {txid} {phase}"))
    }
}

impl Life {
    /// Everything it printed.
    pub fn said(&self) -> String {
        self.process.lines().join("\n")
    }

    /// Lines that are no phases and no rates.
    pub fn remarks(&self) -> Vec<String> {
        let plain = |line: &String| phase(line).is_none() && !line.contains(" records/s, lag ");
        self.process.lines().into_iter().filter(plain).collect()
    }

    /// How many of its lines contain `text`.
    pub fn times(&self, text: &str) -> usize {
        self.process.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until it has completed `more` transactions since the last such call, and returns the last one's txid.
    pub fn completes(&mut self, more: usize, deadline: Duration) -> anyhow::Result<u64> {
        let mut last = 0;
        for _ in 0..more {
            let line = self.process.line_where(|line| matches!(phase(line), Some((_, Phase::Complete))), deadline);
            last = line.context("waited for a transaction").map(|line| phase(&line).map_or(0, |(txid, _)| txid))?;
            self.read += 1;
        }
        Ok(last)
    }

    /// Kills it when a transaction enters `wanted`, before it can say anything more.
    pub fn kill_in(&mut self, wanted: Phase, deadline: Duration) -> anyhow::Result<Hit> {
        self.process.signal_when(Signal::SIGKILL, move |line| phase(line).is_some_and(|(_, phase)| phase == wanted));
        self.killed(deadline)
    }

    /// Pauses it (SIGSTOP) when a transaction enters `wanted`, before it can say anything more.
    pub fn pause_in(&mut self, wanted: Phase, deadline: Duration) -> anyhow::Result<Hit> {
        self.process.signal_when(Signal::SIGSTOP, move |line| phase(line).is_some_and(|(_, phase)| phase == wanted));
        self.process.await_paused(deadline)?;
        self.hit()
    }

    /// Waits for the end of a process that was or is about to be killed, and says where it stood.
    pub fn killed(&mut self, deadline: Duration) -> anyhow::Result<Hit> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.process.wait(deadline)?;
        ensure!(status.signal() == Some(9), "it was to be killed and ended with {status}:\n{}", self.said());
        self.hit()
    }

    /// Waits until it ends, whatever the exit code.
    pub fn end(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.process.wait(deadline)
    }

    /// Like [`killed`](Self::killed), for a kill that was aimed at a commit: the oldest open transaction is the one it hit.
    pub fn killed_in_commit(&mut self, deadline: Duration) -> anyhow::Result<Hit> {
        let Hit { txid, phase, others } = self.killed(deadline)?;
        let mut open: BTreeMap<u64, Phase> = others.into_iter().chain([(txid, phase)]).collect();
        let (txid, phase) = open.pop_first().context("there is one at least")?;
        Ok(Hit { txid, phase, others: open.into_iter().collect() })
    }

    /// Where its transactions stand by its own words: the one it spoke of last, and the others that are open.
    fn hit(&self) -> anyhow::Result<Hit> {
        let (mut open, mut last) = (BTreeMap::new(), None);
        for (txid, phase) in self.process.lines().iter().filter_map(|line| phase(line)) {
            // A later attempt at the same transaction begins again.
            open.insert(txid, phase);
            last = Some(txid);
        }
        let txid = last.with_context(|| format!("it was hit before any transaction:\n{}", self.said()))?;
        let phase = open.remove(&txid).context("it was inserted above")?;
        let others = open.into_iter().filter(|(_, phase)| *phase != Phase::Complete).collect();
        Ok(Hit { txid, phase, others })
    }
}

/// How many lines a feed writes at a time, and how often: a few thousand a second, in many small transactions.
const FEED_LINES: usize = 200;
const FEED_EVERY: Duration = Duration::from_millis(25);

/// Writes lines of text into a topic, without an end, and remembers their words.
#[derive(Debug)]
pub struct Feed {
    stop: SyncSender<()>,
    writer: Option<JoinHandle<anyhow::Result<Counts>>>,
    written: Arc<AtomicU64>,
}

impl Feed {
    /// Starts to write; from now on the topic is under load.
    pub fn start(broker: &str, topic: &str) -> Self {
        // One word, spoken once.
        let (stop, stopped) = sync_channel(1);
        let written = Arc::new(AtomicU64::new(0));
        let (broker, topic, counter) = (broker.to_owned(), topic.to_owned(), written.clone());
        let writer = std::thread::spawn(move || {
            let (producer, mut counts) = (produce::Lines::new(&broker, &topic)?, Counts::new());
            for seed in 0.. {
                let lines = produce::text(seed, FEED_LINES, 8, 20_000);
                producer.write(&lines)?;
                counter.fetch_add(FEED_LINES as u64, Ordering::Relaxed);
                count::add(&mut counts, &count::words(&lines));
                // The pace of the load, and the ear for its end.
                match stopped.recv_timeout(FEED_EVERY) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            Ok(counts)
        });
        Self { stop, writer: Some(writer), written }
    }

    /// How many records were written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops and returns how often each word was written.
    pub fn end(mut self) -> anyhow::Result<Counts> {
        // It may have ended by itself, with an error that comes now.
        let _ = self.stop.send(());
        let writer = self.writer.take().context("it is taken here only")?;
        writer.join().map_err(|_| anyhow::anyhow!("the feed panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_as_they_are_printed() {
        assert_eq!(phase("DEBUG txid=7 phase=COMMIT sent"), Some((7, Phase::CommitSent)));
        assert_eq!(phase("DEBUG txid=12 phase=planned"), Some((12, Phase::Planned)));
        assert_eq!(phase(" INFO leads"), None);
        assert!(Phase::ALL.iter().enumerate().all(|(n, (phase, _))| *phase as usize == n));
    }
}
