//! Pause, rebalance, drain, kill, figures.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tine_core::{
    component::{Basic, BasicBolt, Context, Emit},
    engine::{RunError, Running},
    failure::Failure,
    topology::Topology,
};

use crate::support::{Log, Numbers, until};

/// Counts what it is asked to do.
#[derive(Clone, Default)]
struct Calls {
    prepared: Arc<AtomicUsize>,
    cleaned: Arc<AtomicUsize>,
}

struct Sink(Calls);

impl BasicBolt for Sink {
    type In = u64;
    type Out = ();

    fn prepare(&mut self, _: &Context) -> Result<(), Failure> {
        self.0.prepared.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn execute(&mut self, _: u64, _: &mut Emit<'_, ()>) -> Result<(), Failure> {
        Ok(())
    }

    fn cleanup(&mut self) {
        self.0.cleaned.fetch_add(1, Ordering::SeqCst);
    }
}

fn endless(log: &Log, calls: &Calls) -> Running {
    let (log, calls) = (log.clone(), calls.clone());
    let topology = Topology::new("endless");
    let numbers = topology.spout("numbers", move || Numbers::endless(&log)).max_pending(1000);
    let passed = topology
        .each("pass", |number: u64, out: &mut Emit<'_, u64>| {
            out.emit(number);
            Ok(())
        })
        .shuffle(&numbers)
        .tasks(4);
    topology.bolt("sink", move || Basic(Sink(calls.clone()))).fields(&passed, |number| number).tasks(4).executors(1);
    topology.start().unwrap()
}

#[test]
fn a_drained_topology_has_completed_every_tree_and_closed_every_task() {
    let (log, calls) = (Log::default(), Calls::default());
    let running = endless(&log, &calls);
    assert_eq!(calls.prepared.load(Ordering::SeqCst), 4, "started means prepared");
    until("it runs", || log.emitted() > 100_000);
    let summary = running.stop().unwrap();
    assert!(summary.drained);
    let shown = format!("{:?}", summary.tasks[0]);
    assert!(shown.len() < 1000 && shown.contains("median"), "for people, without the buckets: {shown}");
    assert_eq!(log.acked().len() as u64, log.emitted());
    assert_eq!(summary.acked(), log.emitted());
    let of = |component: &'static str| summary.tasks.iter().filter(move |task| task.component == component);
    assert_eq!(of("numbers").map(|task| task.streams[0].emitted).sum::<u64>(), log.emitted());
    assert_eq!(of("pass").map(|task| task.executed).sum::<u64>(), log.emitted());
    assert_eq!(of("pass").map(|task| task.streams[0].transferred).sum::<u64>(), log.emitted());
    assert_eq!(of("sink").map(|task| task.acked).sum::<u64>(), log.emitted());
    assert!(summary.tasks.iter().all(|task| task.depth == 0), "nothing waits, no tree is left");
    assert!(of("numbers").all(|task| task.process.count() == log.emitted() && task.process.at(0.5) > Duration::ZERO));
    assert!(of("sink").all(|task| task.execute.count() > 0 && task.process.count() > 0));
    assert_eq!(calls.cleaned.load(Ordering::SeqCst), 4);
    assert!(log.words().last().unwrap().starts_with("close"));
}

#[test]
fn a_killed_topology_ends_at_once_and_closes_its_tasks() {
    let (log, calls) = (Log::default(), Calls::default());
    let running = endless(&log, &calls);
    until("it runs", || log.emitted() > 1000);
    running.kill().unwrap();
    assert_eq!(calls.cleaned.load(Ordering::SeqCst), 4);
    assert!(log.words().last().unwrap().starts_with("close"), "the spout does nothing after it was closed");
}

#[test]
fn a_deactivated_topology_emits_nothing_until_it_is_activated() {
    let (log, calls) = (Log::default(), Calls::default());
    let running = endless(&log, &calls);
    until("it runs", || log.emitted() > 1000);
    running.deactivate();
    until("the spout hears of it", || log.words().contains(&"deactivate".to_owned()));
    let emitted = log.emitted();
    until("what is under way goes on", || log.acked().len() as u64 == emitted);
    assert_eq!(log.emitted(), emitted);
    running.activate();
    until("it goes on", || log.emitted() > emitted + 1000);
    assert!(log.words().contains(&"activate".to_owned()));
    assert!(running.stop().unwrap().drained);
}

#[test]
fn executors_change_while_everything_runs_and_nothing_is_lost() {
    let (log, calls) = (Log::default(), Calls::default());
    let running = endless(&log, &calls);
    for executors in [1, 4, 2, 3, 1] {
        for component in ["pass", "sink"] {
            let before = log.emitted();
            running.rebalance(component, executors).unwrap();
            until("it goes on", || log.emitted() > before + 5000);
        }
    }
    running.rebalance("numbers", 1).unwrap();
    assert!(matches!(running.rebalance("pass", 5), Err(RunError::Executors { tasks: 4, executors: 5, .. })));
    assert!(matches!(running.rebalance("pass", 0), Err(RunError::Executors { .. })));
    assert!(matches!(running.rebalance("nobody", 1), Err(RunError::NoSuchComponent(_))));
    let summary = running.stop().unwrap();
    assert!(summary.drained);
    assert_eq!((summary.acked(), summary.failed()), (log.emitted(), 0));
    assert_eq!(calls.prepared.load(Ordering::SeqCst), 4, "tasks move, they are not made again");
}

#[test]
fn a_topology_ends_by_itself_when_its_spouts_are_done() {
    let log = Log::default();
    let topology = Topology::new("finite");
    let of_spout = log.clone();
    let numbers = topology.spout("numbers", move || Numbers::below(10, &of_spout)).tasks(3).executors(2);
    topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    let summary = topology.run().unwrap();
    assert!(summary.drained);
    assert_eq!(log.acked().len(), 30);
}

#[test]
fn a_drain_gives_up_after_its_timeout() {
    let (log, mut topology) = (Log::default(), Topology::new("lossy"));
    topology.configure(|settings| settings.drain_timeout = Duration::from_millis(200));
    let of_spout = log.clone();
    let numbers = topology.spout("numbers", move || Numbers::endless(&of_spout));
    struct Keep(Vec<tine_core::component::Input<u64>>);
    impl tine_core::component::Bolt for Keep {
        type In = u64;
        type Out = ();
        fn execute(
            &mut self,
            input: tine_core::component::Input<u64>,
            _: &mut tine_core::component::Collector<()>,
        ) -> Result<(), Failure> {
            self.0.push(input);
            Ok(())
        }
    }
    topology.bolt("keep", || Keep(Vec::new())).shuffle(&numbers);
    let running = topology.start().unwrap();
    until("something is under way", || log.emitted() > 0);
    assert!(!running.stop().unwrap().drained);
}

#[test]
fn a_process_that_is_told_to_end_drains_first() {
    const CHILD: &str = "TINE_TEST_IS_TOLD_TO_END";
    if std::env::var_os(CHILD).is_some() {
        let (log, calls) = (Log::default(), Calls::default());
        let running = endless(&log, &calls);
        running.drain_on_signals().unwrap();
        until("it runs", || log.emitted() > 1000);
        println!("it runs");
        let summary = running.wait().unwrap();
        println!("drained: {}, all acked: {}", summary.drained, summary.acked() == log.emitted());
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "lifecycle::a_process_that_is_told_to_end_drains_first"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("it runs")));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(lines.any(|line| line == "drained: true, all acked: true"));
    assert!(child.wait().unwrap().success());
}
