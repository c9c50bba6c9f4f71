//! Where one task publishes its figures, and the figures as they are read.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{engine::inbox::Inbox, id::TaskId};

/// Longest latency that is told apart: beyond a day it is "a day".
const LATENCY_MAX_US: u64 = 86_400_000_000;

/// Figures of one output stream of one task.
///
/// ```
/// # use tine_core::{metrics::StreamFigures, topology::Topology};
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
/// # let topology = Topology::new("numbers");
/// let numbers = topology.spout("numbers", || Items(0..10u64));
/// topology.each("one", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
/// topology.each("another", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
/// let summary = topology.run()?;
/// let numbers = summary.tasks.iter().find(|task| task.component == "numbers");
/// let stream = StreamFigures { name: "default".to_owned(), emitted: 10, transferred: 20 };
/// assert_eq!(numbers.map(|task| &task.streams[..]), Some(&[stream][..]));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFigures {
    /// Its name.
    pub name: String,
    /// Tuples emitted into it.
    pub emitted: u64,
    /// Tuples handed over to tasks: more than `emitted` with several subscribers or `all`, less without any.
    pub transferred: u64,
}

/// Figures of one task since it began.
///
/// ```
/// # use tine_core::topology::Topology;
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
/// # let topology = Topology::new("numbers");
/// # let numbers = topology.spout("numbers", || Items(0..10u64));
/// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers).tasks(2);
/// let summary = topology.run()?;
/// let (spouts, bolts): (Vec<_>, Vec<_>) = summary.tasks.iter().partition(|task| task.is_spout);
/// assert_eq!(spouts.iter().map(|task| task.acked).sum::<u64>(), 10);
/// assert_eq!(bolts.iter().map(|task| task.executed).sum::<u64>(), 10);
/// assert!(summary.tasks.iter().all(|task| task.depth == 0 && task.failed == 0));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TaskFigures {
    /// Its component.
    pub component: String,
    /// Its number.
    pub task: TaskId,
    /// Whether it is a spout's.
    pub is_spout: bool,
    /// By output stream.
    pub streams: Vec<StreamFigures>,
    /// Bolts: tuples executed.
    pub executed: u64,
    /// Bolts: tuples acked. Spouts: trees completed.
    pub acked: u64,
    /// Bolts: tuples failed. Spouts: trees failed, those timed out included.
    pub failed: u64,
    /// Bolts: tuples waiting in front of it. Spouts: trees under way.
    pub depth: u64,
    /// Bolts: how long `execute` takes; of a sample.
    pub execute: Latency,
    /// Bolts: from execution to ack, of a sample. Spouts: from emission to completion, of every tree.
    pub process: Latency,
}

/// A distribution of latencies.
///
/// ```
/// # use tine_core::topology::Topology;
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
/// # let topology = Topology::new("numbers");
/// # let numbers = topology.spout("numbers", || Items(0..10u64)).tasks(2);
/// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
/// let summary = topology.run()?; // two spout tasks, ten trees of each
/// let mut spouts = summary.tasks.iter().filter(|task| task.is_spout).map(|task| task.process.clone());
/// let mut latency = spouts.next().expect("there are two");
/// spouts.for_each(|other| latency.add(&other));
/// assert_eq!(latency.count(), 20);
/// assert!(latency.at(0.5) <= latency.at(0.99) && latency.at(0.99) <= latency.max());
/// println!("{:?} on average", latency.mean());
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
#[derive(Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    fn new() -> Latency {
        Latency(Histogram::new_with_bounds(1, LATENCY_MAX_US, 2).expect("these bounds are possible"))
    }

    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that the share `quantile` (between 0 and 1) does not exceed, to two digits.
    pub fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.0.mean() as u64)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// Adds another distribution, of another task.
    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("all latencies have the same bounds");
    }

    fn record(&mut self, us: u64, count: u64) {
        self.0.saturating_record_n(us, count);
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            0 => write!(f, "Latency(none measured)"),
            count => {
                let (half, most, longest) = (self.at(0.5), self.at(0.99), self.max());
                write!(f, "Latency(of {count}: median {half:?}, 99 % {most:?}, longest {longest:?})")
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct StreamMeter {
    name: String,
    emitted: AtomicU64,
    transferred: AtomicU64,
}

impl StreamMeter {
    pub(crate) fn new(name: String) -> StreamMeter {
        StreamMeter { name, emitted: AtomicU64::new(0), transferred: AtomicU64::new(0) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn publish(&self, emitted: u64, transferred: u64) {
        self.emitted.store(emitted, Ordering::Relaxed);
        self.transferred.store(transferred, Ordering::Relaxed);
    }

    fn figures(&self) -> StreamFigures {
        let emitted = self.emitted.load(Ordering::Relaxed);
        StreamFigures { name: self.name.clone(), emitted, transferred: self.transferred.load(Ordering::Relaxed) }
    }
}

pub(crate) struct TaskMeter {
    component: Arc<str>,
    task: TaskId,
    is_spout: bool,
    pub(crate) streams: Vec<Arc<StreamMeter>>,
    /// In front of a bolt.
    inboxes: OnceLock<Vec<Arc<Inbox>>>,
    executed: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    pending: AtomicU64,
    /// When the call of user code that it is in began, in microseconds since the start; 0 when it is in none.
    busy_since: AtomicU64,
    latencies: Mutex<Latencies>,
}

struct Latencies {
    execute: Latency,
    process: Latency,
}

impl TaskMeter {
    pub(crate) fn new(component: Arc<str>, task: TaskId, is_spout: bool, streams: Vec<Arc<StreamMeter>>) -> TaskMeter {
        let (executed, acked, failed, pending) = Default::default();
        let latencies = Mutex::new(Latencies { execute: Latency::new(), process: Latency::new() });
        let (inboxes, busy_since) = (OnceLock::new(), AtomicU64::new(0));
        TaskMeter {
            component,
            task,
            is_spout,
            streams,
            inboxes,
            executed,
            acked,
            failed,
            pending,
            busy_since,
            latencies,
        }
    }

    pub(crate) fn component_name(&self) -> &Arc<str> {
        &self.component
    }

    pub(crate) fn task(&self) -> TaskId {
        self.task
    }

    pub(crate) fn reads(&self, inboxes: Vec<Arc<Inbox>>) {
        let _ = self.inboxes.set(inboxes);
    }

    pub(crate) fn publish(&self, executed: u64, acked: u64, failed: u64) {
        self.executed.store(executed, Ordering::Relaxed);
        self.acked.store(acked, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }

    pub(crate) fn pending(&self, trees: usize) {
        self.pending.store(trees as u64, Ordering::Relaxed);
    }

    pub(crate) fn pending_now(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    pub(crate) fn is_spout(&self) -> bool {
        self.is_spout
    }

    /// User code is about to be called.
    pub(crate) fn enter(&self, now_us: u64) {
        self.busy_since.store(now_us.max(1), Ordering::Relaxed);
    }

    /// User code has returned.
    pub(crate) fn leave(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// Since when user code has not returned.
    pub(crate) fn busy_since(&self) -> Option<u64> {
        Some(self.busy_since.load(Ordering::Relaxed)).filter(|since| *since != 0)
    }

    pub(crate) fn executed(&self, us: u64) {
        self.latencies().execute.record(us, 1);
    }

    pub(crate) fn processed(&self, us: u64) {
        self.latencies().process.record(us, 1);
    }

    /// Several trees that took equally long.
    pub(crate) fn completed(&self, runs: &[(u64, u64)]) {
        let mut latencies = self.latencies();
        runs.iter().for_each(|(us, count)| latencies.process.record(*us, *count));
    }

    pub(crate) fn figures(&self) -> TaskFigures {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.inboxes.get().into_iter().flatten().map(|inbox| inbox.depth() as u64).sum::<u64>();
        let latencies = self.latencies();
        TaskFigures {
            component: self.component.to_string(),
            task: self.task,
            is_spout: self.is_spout,
            streams: self.streams.iter().map(|stream| stream.figures()).collect(),
            executed: load(&self.executed),
            acked: load(&self.acked),
            failed: load(&self.failed),
            depth: waiting + load(&self.pending),
            execute: latencies.execute.clone(),
            process: latencies.process.clone(),
        }
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
