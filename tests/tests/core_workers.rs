//! A topology of tuples on several processes and a real ZooKeeper: they are killed, put to sleep and added. Delivery is at
//! least once, so nothing may be missing at the end; that something comes twice is allowed.
//!
//! The workers are this program again: [`worker`] runs one when it is told to by its environment, and is an empty test otherwise.
//! What a bolt executes it writes to a file before it acks, so whoever is killed leaves behind what it had done.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of tests fail like tests")]

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tine::{
    ZooKeeper,
    core::{
        cluster::Cluster,
        component::{Basic, BasicBolt, Context, Emit, Next, Spout, SpoutCollector},
        failure::{Failure, FailureKind},
        topology::Topology,
        transport::Listen,
    },
};
use tine_tests::{
    process::{Program, Running},
    proxy::Proxy,
    report,
    services::{free_port, shared},
    wait_until,
};

const FOLDER: &str = "TINE_TEST_CORE_FOLDER";
const ZOOKEEPER: &str = "TINE_TEST_CORE_ZOOKEEPER";
const LISTEN: &str = "TINE_TEST_CORE_LISTEN";
const ADVERTISE: &str = "TINE_TEST_CORE_ADVERTISE";
const DEADLINE: Duration = Duration::from_secs(90);

/// Written by a spout one of whose trees has timed out.
const TIMED_OUT: &str = "timed-out";

/// How many numbers there are, and how fast they come: for ten seconds.
const NUMBERS: u64 = 100_000;
const PER_SECOND: u64 = 10_000;

/// The servers allow no shorter one.
const SESSION: Duration = Duration::from_secs(4);

/// A source that can be read again: the numbers below an end, from a position that is kept in a file.
struct Numbers {
    folder: PathBuf,
    next: u64,
    /// Emitted, and not acked.
    open: BTreeSet<u64>,
    again: Vec<u64>,
    began: Instant,
    first: u64,
    kept: u64,
}

impl Numbers {
    /// Everything before it is acked.
    fn position(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }

    fn keep(&mut self) {
        let position = self.position();
        if position >= self.kept + 1000 || position == NUMBERS {
            self.kept = position;
            // Whole or not at all: a killed process leaves no half of a number.
            let new = self.folder.join("position.new");
            fs::write(&new, position.to_string()).unwrap();
            fs::rename(new, self.folder.join("position")).unwrap();
        }
    }
}

impl Spout for Numbers {
    type Out = u64;
    type Id = u64;

    fn open(&mut self, _: &Context) -> Result<(), Failure> {
        let position = fs::read_to_string(self.folder.join("position")).ok().and_then(|text| text.parse().ok());
        (self.first, self.began) = (position.unwrap_or(0), Instant::now());
        (self.next, self.kept) = (self.first, self.first);
        Ok(())
    }

    fn next(&mut self, out: &mut SpoutCollector<u64, u64>) -> Result<Next, Failure> {
        if let Some(number) = self.again.pop() {
            out.emit(number, number);
            return Ok(Next::More);
        }
        let due = self.first + self.began.elapsed().as_millis() as u64 * PER_SECOND / 1000;
        if self.next < NUMBERS.min(due) {
            self.open.insert(self.next);
            out.emit(self.next, self.next);
            self.next += 1;
            return Ok(Next::More);
        }
        Ok(if self.next == NUMBERS && self.open.is_empty() { Next::Done } else { Next::Idle })
    }

    fn ack(&mut self, number: u64) {
        self.open.remove(&number);
        self.keep();
    }

    /// Nothing may wait for the timeout: whatever is lost is known to be.
    fn fail(&mut self, number: u64, failure: Failure) {
        if failure.kind == FailureKind::TimedOut {
            fs::write(self.folder.join(TIMED_OUT), number.to_string()).unwrap();
        }
        self.again.push(number);
    }
}

/// Writes down what it gets.
struct Writer {
    folder: PathBuf,
    file: Option<File>,
}

impl BasicBolt for Writer {
    type In = u64;
    type Out = ();

    fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
        let path = self.folder.join(format!("seen-{}-{}", std::process::id(), context.task().0));
        self.file = Some(OpenOptions::new().append(true).create(true).open(path).unwrap());
        Ok(())
    }

    fn execute(&mut self, number: u64, _: &mut Emit<'_, ()>) -> Result<(), Failure> {
        self.file.as_mut().unwrap().write_all(&number.to_le_bytes()).unwrap();
        Ok(())
    }
}

/// Run by the tests below, in processes of their own.
#[test]
fn worker() {
    let (Ok(folder), Ok(zookeeper)) = (std::env::var(FOLDER), std::env::var(ZOOKEEPER)) else { return };
    let folder = PathBuf::from(folder);
    let topology = Topology::new(folder.file_name().unwrap().to_string_lossy());
    let of_spout = folder.clone();
    let numbers = topology.spout("numbers", move || Numbers {
        folder: of_spout.clone(),
        next: 0,
        open: BTreeSet::new(),
        again: Vec::new(),
        began: Instant::now(),
        first: 0,
        kept: 0,
    });
    let passed = topology
        .each("pass", |number: u64, out: &mut Emit<'_, u64>| {
            out.emit(number);
            Ok(())
        })
        .shuffle(&numbers)
        .tasks(3);
    topology
        .bolt("write", move || Basic(Writer { folder: folder.clone(), file: None }))
        .fields(&passed, |number| number)
        .tasks(4);
    let zookeeper = ZooKeeper::connect(&zookeeper).unwrap().session_timeout(SESSION);
    let mut listen = Listen::on(&std::env::var(LISTEN).unwrap_or("127.0.0.1:0".to_owned())).unwrap();
    if let Ok(address) = std::env::var(ADVERTISE) {
        listen = listen.advertise(&address).unwrap();
    }
    let cluster = Cluster::new(Arc::new(zookeeper), listen);
    let running = topology.join(cluster).unwrap();
    running.drain_on_signals().unwrap();
    let mut before = Vec::new();
    let deadline = Instant::now() + 4 * DEADLINE;
    while !running.has_ended() && Instant::now() < deadline {
        let tasks: Vec<usize> = running.workers().iter().map(|worker| worker.tasks.len()).collect();
        if tasks != before {
            report(format_args!("WORKERS {tasks:?}"));
            before = tasks;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    report(format_args!("ENDED {}", running.wait().unwrap().drained));
}

struct Scene {
    folder: tempfile::TempDir,
    zookeeper: String,
}

impl Scene {
    fn new() -> Option<Scene> {
        let folder = tempfile::Builder::new().prefix("core-").tempdir().unwrap();
        Some(Scene { folder, zookeeper: shared::zookeeper()? })
    }

    fn program(&self) -> Program {
        Program::at(std::env::current_exe().unwrap())
            .args(["--exact", "worker", "--nocapture"])
            .env(FOLDER, self.folder.path())
            .env(ZOOKEEPER, &self.zookeeper)
    }

    fn start(&self) -> Running {
        self.program().start().unwrap()
    }

    /// A worker whom its peers reach through a proxy alone.
    fn start_behind(&self, proxy: &Proxy) -> Running {
        let listen = format!("127.0.0.1:{}", free_port().unwrap());
        proxy.forward_to(&listen);
        self.program().env(LISTEN, &listen).env(ADVERTISE, proxy.address()).start().unwrap()
    }

    /// Workers that came one after the other and share the work.
    fn workers<const N: usize>(&self, start: [&dyn Fn(&Scene) -> Running; N]) -> [Running; N] {
        let mut count = 0;
        start.map(|start| {
            let worker = start(self);
            count += 1;
            share(&worker, count);
            worker
        })
    }

    fn position(&self) -> u64 {
        fs::read_to_string(self.folder.path().join("position")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Waits until so many more numbers are acked.
    fn goes_on(&self, workers: &[&Running]) {
        let before = self.position();
        assert!(wait_until(DEADLINE, || self.position() >= (before + 5000).min(NUMBERS)), "{}", said(workers));
    }

    /// Waits for the end, and answers how many came more than once.
    fn finish(&self, mut workers: Vec<Running>) -> u64 {
        for worker in &mut workers {
            assert!(worker.wait(DEADLINE).unwrap().success(), "{}", said(&[worker]));
        }
        for worker in &workers {
            assert!(worker.lines().iter().any(|line| line.contains("ENDED true")), "{}", said(&[worker]));
        }
        let (mut seen, mut came) = (BTreeSet::new(), 0);
        for file in fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path()) {
            if is_seen(&file) {
                // A kill may have cut the last one: it was not acked then.
                for number in fs::read(&file).unwrap().chunks_exact(8) {
                    seen.insert(u64::from_le_bytes(number.try_into().unwrap()));
                    came += 1;
                }
            }
        }
        let missing: Vec<_> = (0..NUMBERS).filter(|number| !seen.contains(number)).take(10).collect();
        assert!(missing.is_empty(), "missing: {missing:?} …");
        assert_eq!(seen.len() as u64, NUMBERS);
        assert!(!self.folder.path().join(TIMED_OUT).exists(), "a tree has waited for its timeout");
        came - NUMBERS
    }
}

fn is_seen(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seen-"))
}

fn said(workers: &[&Running]) -> String {
    workers.iter().map(|worker| worker.lines().join("\n")).collect::<Vec<_>>().join("\n-----\n")
}

/// Waits until a worker has said that so many share the work.
fn share(worker: &Running, count: usize) {
    let last = || worker.lines().iter().rev().find(|line| line.contains("WORKERS")).cloned().unwrap_or_default();
    let shares = || last().split_once('[').map_or(0, |(_, tasks)| tasks.matches(',').count() + 1);
    assert!(wait_until(DEADLINE, || shares() == count), "{count} workers:\n{}", said(&[worker]));
}

#[test]
fn nothing_is_missing_when_workers_are_killed_and_added() {
    let Some(scene) = Scene::new() else { return };
    let [mut first, mut second, third] = scene.workers([&Scene::start; 3]);
    scene.goes_on(&[&first, &second, &third]);
    // The oldest one: it leads, and has the spout.
    let killed = Instant::now();
    first.kill().unwrap();
    share(&third, 2);
    let moved = killed.elapsed();
    scene.goes_on(&[&second, &third]);
    let fourth = scene.start();
    share(&fourth, 3);
    scene.goes_on(&[&second, &third, &fourth]);
    second.kill().unwrap();
    share(&fourth, 2);
    let twice = scene.finish(vec![third, fourth]);
    report(format_args!(
        "  2 kills, {NUMBERS} numbers, 0 missing, {twice} twice; the first one's tasks moved in {moved:?}"
    ));
}

#[test]
fn nothing_is_missing_when_a_worker_sleeps_longer_than_its_session_and_another_leaves() {
    let Some(scene) = Scene::new() else { return };
    let [mut first, mut second] = scene.workers([&Scene::start; 2]);
    scene.goes_on(&[&first, &second]);
    first.pause().unwrap();
    share(&second, 1);
    scene.goes_on(&[&second]);
    first.resume().unwrap();
    share(&second, 2);
    let third = scene.start();
    share(&third, 3);
    second.terminate().unwrap();
    assert!(second.wait(DEADLINE).unwrap().success(), "{}", said(&[&second]));
    share(&third, 2);
    let twice = scene.finish(vec![first, third]);
    report(format_args!("  a sleeper and one that left, {NUMBERS} numbers, 0 missing, {twice} twice"));
}

#[test]
fn nothing_is_missing_and_nothing_waits_for_its_timeout_when_links_are_cut_under_load() {
    let Some(scene) = Scene::new() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let [before_first, before_second] = [(); 2].map(|()| runtime.block_on(Proxy::start("127.0.0.1:1")).unwrap());
    let [first, second] = scene.workers([&|scene: &Scene| scene.start_behind(&before_first), &|scene: &Scene| {
        scene.start_behind(&before_second)
    }]);
    let mut cuts = 0;
    while cuts < 20 && scene.position() < NUMBERS {
        // One direction, or the other; and some of the time none for a while.
        let proxy = if cuts % 2 == 0 { &before_first } else { &before_second };
        proxy.cut();
        if cuts % 5 == 4 {
            proxy.refuse();
            std::thread::sleep(Duration::from_millis(500));
            proxy.pass();
        }
        cuts += 1;
        std::thread::sleep(Duration::from_millis(300));
    }
    let accepted = before_first.accepted() + before_second.accepted();
    assert!(accepted >= cuts, "{accepted} connections through the proxies");
    let twice = scene.finish(vec![first, second]);
    report(format_args!("  {cuts} cuts, {accepted} connections, {NUMBERS} numbers, 0 missing, {twice} twice"));
}
