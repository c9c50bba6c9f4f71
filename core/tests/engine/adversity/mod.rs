//! Several workers in bad circumstances: calls that do not return, tasks that move to and fro, values that cannot
//! travel, orders that cross, links that break, ends that meet beginnings. Whatever happens, nothing is lost in
//! silence and nobody hangs.
//!
//! Trees time out after a minute here, and every wait is shorter: what would come right by a timeout fails a test.

mod ends;
mod held;
mod links;
mod loops;
mod missed;
mod orders;
mod stuck;
mod values;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use tine_core::{
    component::{Bolt, Collector, Data, Emit, Input, Next, Spout, SpoutCollector},
    engine::{RunError, Running},
    failure::{Failure, FailureKind},
    topology::{Emits, Grouping, Stream, Topology},
};

use crate::{
    proxy::Proxy,
    registry::Registry,
    scene::{Gated, Scene, ended, join, join_behind, share, share_within, within, workers},
    support::{Log, Numbers, until_within},
};

/// Longer than a move takes on a busy machine, and shorter than any timeout of the engine's that could stand in for it.
const SOON: Duration = Duration::from_secs(20);

/// As long as that for a topology to end.
const END: Duration = Duration::from_secs(30);

fn patient(name: &str) -> Topology {
    let mut topology = Topology::new(name);
    topology.configure(|settings| {
        settings.message_timeout = Duration::from_secs(60);
        settings.drain_timeout = Duration::from_secs(60);
    });
    topology
}

fn sleep(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

/// Numbers without end, each emitted once in its life: if one is acked, it was by that one tree.
fn once(scene: &Scene, topology: &Topology) -> impl Emits<Tuple = u64> + use<> {
    let Scene { log, open } = scene.clone();
    topology.spout("numbers", move || Gated(Numbers::endless(&log).once(), Arc::clone(&open))).max_pending(2000)
}

/// Numbers, each once, passed on, seen by their remainder.
fn pipeline(scene: &Scene) -> Topology {
    let topology = patient("pipeline");
    let passed = topology
        .each("pass", |number: u64, out: &mut Emit<'_, u64>| {
            out.emit(number);
            Ok(())
        })
        .shuffle(&once(scene, &topology))
        .tasks(3);
    see(scene, &topology, &passed);
    topology
}

fn see(scene: &Scene, topology: &Topology, from: &impl Emits<Tuple = u64>) {
    let log = scene.log.clone();
    topology
        .each("see", move |number: u64, _: &mut Emit<'_, ()>| {
            log.see(0, number);
            Ok(())
        })
        .input(from, Grouping::fields_by(|number: &u64| number % 7))
        .tasks(4);
}

/// Everything that was acked was seen, and nothing has come to its end by a timeout.
fn nothing_is_lost(scene: &Scene) {
    let (acked, seen) = (scene.acked(), scene.seen());
    let unseen: Vec<_> = acked.difference(&seen).take(10).collect();
    assert!(unseen.is_empty(), "acked, and never executed to the end: {unseen:?}");
    let late = scene.log.failed().into_iter().filter(|(_, kind, _)| *kind == FailureKind::TimedOut).count();
    assert_eq!(late, 0, "trees that nobody spoke of");
}

fn all_drain(what: &str, workers: impl IntoIterator<Item = Running>) {
    for summary in ended(END, what, workers) {
        assert!(summary.unwrap().drained, "{what}: not worked off");
    }
}

/// What makes calls of user code wait.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    stuck: AtomicUsize,
}

impl Gate {
    /// Returns when the gate opens, or when any test has long ended.
    fn wait(&self) {
        self.stuck.fetch_add(1, Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(40);
        while !self.open.load(Ordering::SeqCst) && Instant::now() < deadline {
            sleep(5);
        }
    }

    fn stuck(&self) -> usize {
        self.stuck.load(Ordering::SeqCst)
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

/// Holds its tuples until its next tick, passes them on, and acks them.
struct Holder {
    held: Vec<Input<u64>>,
    /// While closed nothing is passed on.
    release: Arc<AtomicBool>,
    /// The next tick does not return before it opens.
    gate: Option<Arc<Gate>>,
}

impl Bolt for Holder {
    type In = u64;
    type Out = u64;

    fn execute(&mut self, input: Input<u64>, _: &mut Collector<u64>) -> Result<(), Failure> {
        self.held.push(input);
        Ok(())
    }

    fn tick(&mut self, out: &mut Collector<u64>) -> Result<(), Failure> {
        if !self.held.is_empty()
            && let Some(gate) = self.gate.take().filter(|gate| !gate.open.load(Ordering::SeqCst) && gate.stuck() < 4)
        {
            gate.wait();
        }
        if self.release.load(Ordering::SeqCst) {
            for input in self.held.drain(..) {
                out.emit(&input, *input);
                out.ack(input);
            }
        }
        Ok(())
    }
}

fn holding(scene: &Scene, gate: Option<&Arc<Gate>>) -> Topology {
    let topology = patient("holding");
    let (release, gate) = (Arc::new(AtomicBool::new(true)), gate.cloned());
    let held = topology
        .bolt("hold", move || Holder { held: Vec::new(), release: Arc::clone(&release), gate: gate.clone() })
        .shuffle(&once(scene, &topology))
        .tick_every(Duration::from_millis(10))
        .tasks(4);
    see(scene, &topology, &held);
    topology
}

/// Deletes the assignment; another one is made.
fn forget_assignment(registry: &Registry, delay: u64) {
    registry.slow_writes(Duration::from_millis(delay));
    // Whoever leads has seen what it wrote.
    sleep(50);
    registry.forget_assignment();
    until_within(SOON, "another is made", || registry.assigned() == 2);
    registry.slow_writes(Duration::ZERO);
}
