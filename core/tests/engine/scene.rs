//! What tests with several workers have in common: a topology whose spout waits for all of them, and waits that end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use tine_core::{
    cluster::Cluster,
    component::{Emit, Next, Spout, SpoutCollector},
    engine::{RunError, Running, Summary},
    failure::Failure,
    topology::{Emits, Grouping, Topology},
    transport::Listen,
};

use crate::{
    proxy::Proxy,
    registry::Registry,
    support::{LONG, Log, Numbers, until_within},
};

/// How long `wait` may take when the topology has ended.
const FAREWELL: Duration = Duration::from_secs(8);

pub(crate) fn join(topology: Topology, registry: &Registry) -> Running {
    let cluster = Cluster::new(Arc::new(registry.clone()), Listen::on("127.0.0.1:0").unwrap());
    topology.join(cluster).unwrap()
}

/// The same, behind a network that can be cut.
pub(crate) fn join_behind(topology: Topology, registry: &Registry, proxy: &Proxy) -> Running {
    let listen = Listen::on(&proxy.target).unwrap().advertise(&proxy.address).unwrap();
    topology.join(Cluster::new(Arc::new(registry.clone()), listen)).unwrap()
}

/// Numbers, but none before everybody is there.
pub(crate) struct Gated(pub(crate) Numbers, pub(crate) Arc<AtomicBool>);

impl Spout for Gated {
    type Out = u64;
    type Id = <Numbers as Spout>::Id;

    fn next(&mut self, out: &mut SpoutCollector<u64, Self::Id>) -> Result<Next, Failure> {
        if self.1.load(Ordering::Acquire) { self.0.next(out) } else { Ok(Next::Idle) }
    }

    fn ack(&mut self, id: Self::Id) {
        self.0.ack(id);
    }

    fn fail(&mut self, id: Self::Id, failure: Failure) {
        self.0.fail(id, failure);
    }

    fn close(&mut self) {
        self.0.close();
    }
}

/// What a test has in its hands.
#[derive(Clone, Default)]
pub(crate) struct Scene {
    pub(crate) log: Log,
    pub(crate) open: Arc<AtomicBool>,
}

impl Scene {
    pub(crate) fn spout(&self, topology: &Topology, count: u64) -> impl Emits<Tuple = u64> + use<> {
        let Scene { log, open } = self.clone();
        topology.spout("numbers", move || {
            let numbers = if count == 0 { Numbers::endless(&log) } else { Numbers::below(count, &log) };
            Gated(numbers, Arc::clone(&open))
        })
    }

    /// Numbers, shuffled, passed on, seen by their remainder: spouts and bolts on all workers.
    pub(crate) fn pipeline(&self, count: u64) -> Topology {
        let topology = Topology::new("pipeline");
        let numbers = self.spout(&topology, count);
        let passed = topology
            .each("pass", |number: u64, out: &mut Emit<'_, u64>| {
                out.emit(number);
                Ok(())
            })
            .shuffle(&numbers)
            .tasks(3);
        let log = self.log.clone();
        topology
            .each("see", move |number: u64, _: &mut Emit<'_, ()>| {
                log.see(0, number);
                Ok(())
            })
            .input(&passed, Grouping::fields_by(|number: &u64| number % 7))
            .tasks(4);
        topology
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// From now on many trees complete, of every task that numbers are grouped by.
    pub(crate) fn goes_on(&self, what: &str) {
        self.goes_on_within(LONG, what);
    }

    pub(crate) fn goes_on_within(&self, limit: Duration, what: &str) {
        let before = self.log.0.acked.lock().unwrap().len();
        until_within(limit, what, || {
            let acked = self.log.0.acked.lock().unwrap();
            let rests: BTreeSet<u64> = acked[before..].iter().map(|number| number % 7).collect();
            acked.len() > before + 1000 && rests.len() == 7
        });
    }

    pub(crate) fn seen(&self) -> BTreeSet<u64> {
        self.log.values().into_iter().collect()
    }

    pub(crate) fn acked(&self) -> BTreeSet<u64> {
        self.log.acked().into_iter().collect()
    }
}

/// So many workers that share the work.
pub(crate) fn workers<const N: usize>(registry: &Registry, build: impl Fn() -> Topology) -> [Running; N] {
    let workers = [(); N].map(|()| join(build(), registry));
    share(&workers.each_ref(), N);
    workers
}

/// Waits until each of these workers runs tasks beside so many others.
pub(crate) fn share(workers: &[&Running], count: usize) {
    share_within(LONG, "all workers share the work", workers, count);
}

pub(crate) fn share_within(limit: Duration, what: &str, workers: &[&Running], count: usize) {
    let deadline = Instant::now() + limit;
    let shares = |worker: &&Running| {
        let all = worker.workers();
        all.len() == count && all.iter().any(|one| one.is_here) && all.iter().all(|one| !one.tasks.is_empty())
    };
    while !workers.iter().all(shares) {
        let given_up = workers.iter().any(|worker| worker.has_ended());
        if given_up || Instant::now() > deadline {
            panic!("{what}: not after {limit:?}, or a worker has ended: {:#?}", states(workers));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the workers say of themselves, in a few words.
fn states(workers: &[&Running]) -> Vec<String> {
    let state = |worker: &&Running| {
        let shares = worker.workers();
        let shares: Vec<_> = shares.iter().map(|one| (&one.address, one.is_here, one.tasks.len())).collect();
        let here = worker.tasks();
        let here: Vec<_> = here.iter().map(|task| (task.task.0, task.depth)).collect();
        let last = worker.errors().pop().map(|error| error.failure.message.chars().take(200).collect::<String>());
        format!("{worker:?} shows {shares:?}, runs (task, depth) {here:?}, last error {last:?}")
    };
    workers.iter().map(state).collect()
}

/// Waits until all of these have ended, and says how. Those that do not are stopped, and the test fails.
pub(crate) fn ended(
    limit: Duration,
    what: &str,
    workers: impl IntoIterator<Item = Running>,
) -> Vec<Result<Summary, RunError>> {
    let workers: Vec<Running> = workers.into_iter().collect();
    let deadline = Instant::now() + limit;
    while !workers.iter().all(Running::has_ended) {
        if Instant::now() >= deadline {
            let states = states(&workers.iter().collect::<Vec<_>>());
            panic!("{what}: not all have ended after {limit:?}: {states:#?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let waiting = workers.into_iter().map(|worker| within(FAREWELL, what, move || worker.wait()));
    waiting.collect()
}

/// Does something that blocks, and waits for it no longer than that.
pub(crate) fn within<R: Send + 'static>(limit: Duration, what: &str, blocks: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, wait) = mpsc::sync_channel(1);
    std::thread::spawn(move || done.send(blocks()));
    match wait.recv_timeout(limit) {
        Ok(result) => result,
        Err(error) => panic!("{what}: did not return within {limit:?} ({error})"),
    }
}
