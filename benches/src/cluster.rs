//! `cluster`: tuples of 100 bytes across two worker processes on loopback, acked and not; and their latency at a steady rate.
//!
//! This process is the first worker and has the spout; it starts itself again as the second one, which has the bolt that
//! the tuples go to. Both find one another through a real ZooKeeper. What was emitted is compared with what the second process
//! counted, and with the acks.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tine::ZooKeeper;
use tine::core::cluster::Cluster;
use tine::core::component::{Emit, Next, Spout, SpoutCollector};
use tine::core::engine::Running;
use tine::core::failure::Failure;
use tine::core::topology::{Emits, Topology};
use tine::core::transport::Listen;
use tine_tests::services;
use tine_tests::wait_until;

use crate::goal::{Bound, Goal};
use crate::procfs;
use crate::report::{self, Reporting, Table, say};
use crate::spread::Spread;

/// What it measures, for `list` and `--help`.
pub(crate) const ABOUT: &str = "the tuple engine across two processes: tuples a second, and latency";

/// How the second worker is started.
pub(crate) const WORKER: &str = "cluster-worker";

/// Bytes of a tuple.
const TUPLE_BYTES: usize = 100;

/// Not counted in latencies.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long two workers may take to find one another.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// In front of what the second worker has counted.
const COUNTED: &str = "counted ";

/// Flags of this benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    /// How long each run emits.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Tuples a second while latency is taken.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// An existing ZooKeeper. Without it, one is started.
    #[arg(long, value_name = "HOST:PORT")]
    zookeeper: Option<String>,
}

/// What both workers must agree on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    zookeeper: String,
    name: String,
    acking: bool,
    /// Tuples a second; as many as can be without.
    rate: Option<u32>,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    case: &'static str,
    tuple_bytes: usize,
    runs: usize,
    exact: bool,
    tuples_per_s: Option<Spread>,
    cpu_ns_per_tuple: Option<Spread>,
    p50_us: Option<Spread>,
    p99_us: Option<Spread>,
}

/// What the spout and its observer share.
#[derive(Debug, Default)]
struct Ends {
    open: AtomicBool,
    emitted: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    latencies: Mutex<Option<Histogram<u64>>>,
}

/// Emits tuples of the same size, as fast as it may or whenever one is due.
struct Lines {
    every_us: f64,
    lasts: Duration,
    /// When the gate was opened.
    began: Option<Instant>,
    line: String,
    emitted: u64,
    acked: u64,
    latencies: Histogram<u64>,
    ends: Arc<Ends>,
}

impl Spout for Lines {
    type Out = String;
    type Id = u64;

    fn next(&mut self, out: &mut SpoutCollector<String, u64>) -> Result<Next, Failure> {
        if self.began.is_none() {
            if !self.ends.open.load(Ordering::Acquire) {
                return Ok(Next::Idle);
            }
            self.began = Some(Instant::now());
        }
        let Some(began) = self.began else { return Ok(Next::Idle) };
        let mut due_us = 0;
        // A look at the clock costs as much as a tuple.
        if self.every_us > 0.0 || self.emitted.is_multiple_of(1024) {
            let age = began.elapsed();
            if age >= self.lasts {
                self.ends.emitted.store(self.emitted, Ordering::Relaxed);
                return Ok(Next::Done);
            }
            due_us = (self.every_us * self.emitted as f64) as u64;
            let now_us = age.as_micros() as u64;
            if due_us > now_us {
                return Ok(Next::In(Duration::from_micros(due_us - now_us)));
            }
        }
        self.emitted += 1;
        out.emit(self.line.clone(), due_us);
        Ok(Next::More)
    }

    fn ack(&mut self, due_us: u64) {
        self.acked += 1;
        if let (Some(began), true) = (self.began, self.every_us > 0.0 && due_us >= WARM_UP.as_micros() as u64) {
            self.latencies.saturating_record((began.elapsed().as_micros() as u64).saturating_sub(due_us));
        }
    }

    fn fail(&mut self, _: u64, _: Failure) {
        self.ends.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn close(&mut self) {
        self.ends.acked.store(self.acked, Ordering::Relaxed);
        if let Ok(mut latencies) = self.ends.latencies.lock() {
            *latencies = Some(self.latencies.clone());
        }
    }
}

/// The same on both workers: to the second one, and for latency from there back to the first.
fn topology(task: &Task, seconds: u64, ends: &Arc<Ends>, counted: &Arc<AtomicU64>) -> Result<Topology> {
    let mut topology = Topology::new(&task.name);
    topology.configure(|settings| settings.acking = task.acking);
    let every_us = task.rate.map_or(0.0, |rate| 1e6 / f64::from(rate));
    let (latencies, ends) = (Histogram::new(3)?, Arc::clone(ends));
    let source = topology.spout("source", move || Lines {
        every_us,
        lasts: Duration::from_secs(seconds),
        began: None,
        line: "x".repeat(TUPLE_BYTES),
        emitted: 0,
        acked: 0,
        latencies: latencies.clone(),
        ends: Arc::clone(&ends),
    });
    let counted = Arc::clone(counted);
    let passes = task.rate.is_some();
    let count = topology
        .each("count", move |line: String, out: &mut Emit<'_, String>| {
            counted.fetch_add(1, Ordering::Relaxed);
            if passes {
                out.emit(line);
            }
            Ok(())
        })
        .shuffle(&source);
    if passes {
        topology.each("back", |_: String, _: &mut Emit<'_, ()>| Ok(())).fields(&count.stream(), |line| line.as_str());
    }
    Ok(topology)
}

fn join(topology: Topology, zookeeper: &str) -> Result<Running> {
    Ok(topology.join(Cluster::new(Arc::new(ZooKeeper::connect(zookeeper)?), Listen::on("127.0.0.1:0")?))?)
}

/// The second worker: says at the end what it has counted.
pub(crate) fn work(task: &Task) -> Result<()> {
    let counted = Arc::new(AtomicU64::new(0));
    let running = join(topology(task, 0, &Arc::default(), &counted)?, &task.zookeeper)?;
    ensure!(running.wait()?.drained, "the second worker ended before everything was worked off");
    report::print(format_args!("{COUNTED}{}", counted.load(Ordering::Relaxed)))
}

/// Tuples a second, CPU time of both processes for each in nanoseconds, latencies.
struct Outcome {
    per_s: f64,
    cpu_ns: f64,
    latencies: Histogram<u64>,
}

fn one(task: &Task, seconds: u64) -> Result<Outcome> {
    let (ends, here) = (Arc::new(Ends::default()), Arc::new(AtomicU64::new(0)));
    let running = join(topology(task, seconds, &ends, &here)?, &task.zookeeper)?;
    ensure!(wait_until(JOIN_TIMEOUT, || running.workers().len() == 1), "this worker found no part");
    let mut second = std::process::Command::new(std::env::current_exe()?)
        .arg(WORKER)
        .arg(serde_json::to_string(task)?)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a child process")?;
    let together = wait_until(JOIN_TIMEOUT, || running.workers().len() == 2);
    if !together {
        let _ = second.kill();
    }
    ensure!(together, "the second worker did not come");
    let used = |second: u32| anyhow::Ok(procfs::cpu_time(std::process::id())? + procfs::cpu_time(second)?);
    let (began, cpu) = (Instant::now(), used(second.id())?);
    ends.open.store(true, Ordering::Release);
    let emitted = || ends.emitted.load(Ordering::Relaxed);
    // The second process takes its CPU time along when it ends.
    let (mut took, mut spent) = (Duration::ZERO, Duration::ZERO);
    while !running.has_ended() {
        if let Ok(now) = used(second.id()) {
            (took, spent) = (began.elapsed(), now.saturating_sub(cpu));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let summary = running.wait()?;
    let output = second.wait_with_output()?;
    ensure!(output.status.success() && summary.drained, "{}: {summary:?}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let counted: u64 = said.trim().strip_prefix(COUNTED).context("the second worker said nothing")?.parse()?;
    let (acked, failed) = (ends.acked.load(Ordering::Relaxed), ends.failed.load(Ordering::Relaxed));
    ensure!(failed == 0, "{failed} trees failed");
    ensure!(here.load(Ordering::Relaxed) == 0, "the counting task was not on the second worker");
    ensure!(counted == emitted(), "{} tuples were emitted and {counted} counted", emitted());
    ensure!(acked == if task.acking { emitted() } else { 0 }, "{} trees began and {acked} were acked", emitted());
    let latencies = ends.latencies.lock().map_err(|_| anyhow!("the spout panicked"))?.take();
    Ok(Outcome {
        per_s: emitted() as f64 / took.as_secs_f64(),
        cpu_ns: spent.as_nanos() as f64 / emitted() as f64,
        latencies: latencies.context("the spout was not closed")?,
    })
}

/// After `Ok` every run counted exactly what was emitted.
pub(crate) fn run(options: &Options) -> Result<()> {
    let _started;
    let zookeeper = match &options.zookeeper {
        Some(address) => address.clone(),
        None => {
            say(format_args!("starting ZooKeeper"));
            let server = services::ZooKeeper::start().context("no ZooKeeper; name one with --zookeeper HOST:PORT")?;
            let address = server.address();
            _started = server;
            address
        }
    };
    let cases = [("acking on", true, None), ("acking off", false, None), ("at a rate", true, Some(options.rate))];
    let mut outcomes: [Vec<Outcome>; 3] = Default::default();
    for run in 1..=options.reporting.runs {
        for ((case, acking, rate), outcomes) in cases.iter().zip(&mut outcomes) {
            let name = format!("bench-{}-{run}-{}", std::process::id(), case.replace(' ', "-"));
            let task = Task { zookeeper: zookeeper.clone(), name, acking: *acking, rate: *rate };
            let outcome = one(&task, options.seconds)?;
            let at = |quantile| outcome.latencies.value_at_quantile(quantile);
            let (p50, p99) = (at(0.5), at(0.99));
            let (per_s, cpu) = (outcome.per_s / 1e6, outcome.cpu_ns);
            let latency = rate.map_or(String::new(), |_| format!(", p50 {p50} p99 {p99} us"));
            let runs = options.reporting.runs;
            say(format_args!(
                "cluster run {run}/{runs}: {case} {per_s:.2} M/s, {cpu:.0} ns CPU a tuple{latency}, exact"
            ));
            outcomes.push(outcome);
        }
    }
    let mut table = Table::with_head(&["", "M tuples/s", "CPU ns/tuple", "p50 us", "p99 us"]);
    let mut lines = Vec::new();
    for ((case, _, rate), outcomes) in cases.iter().zip(&outcomes) {
        let of = |figure: &dyn Fn(&Outcome) -> f64| Spread::of(outcomes.iter().map(figure));
        let at = |quantile: f64| rate.and(of(&|outcome| outcome.latencies.value_at_quantile(quantile) as f64));
        let line = Line {
            name: "cluster",
            case,
            tuple_bytes: TUPLE_BYTES,
            runs: outcomes.len(),
            exact: true,
            tuples_per_s: of(&|outcome| outcome.per_s),
            cpu_ns_per_tuple: of(&|outcome| outcome.cpu_ns),
            p50_us: at(0.5),
            p99_us: at(0.99),
        };
        table.row(vec![
            (*case).to_owned(),
            Spread::show(of(&|outcome| outcome.per_s / 1e6), 2),
            Spread::show(line.cpu_ns_per_tuple, 0),
            Spread::show(line.p50_us, 0),
            Spread::show(line.p99_us, 0),
        ]);
        lines.push(line);
    }
    let goals = [
        Goal::new("cluster", "tuples/s with acking", Bound::AtLeast(1e6), lines[0].tuples_per_s),
        Goal::new("cluster", "p99 us at a rate", Bound::AtMost(5000.0), lines[2].p99_us),
    ];
    if options.reporting.json {
        lines.iter().try_for_each(report::print_json)?;
    } else {
        report::print(format_args!(
            "\ncluster: tuples of {TUPLE_BYTES} bytes to another process, {} s a run; at {} tuples/s there and back",
            options.seconds, options.rate
        ))?;
        table.print()?;
    }
    goals.iter().try_for_each(|goal| goal.print(options.reporting.json))
}
