//! What all tasks of a running topology share: its phase, what is in flight, its errors.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::bell::Bell;
use crate::{
    failure::{Failure, FailureKind},
    id::TaskId,
    metrics::TaskMeter,
    topology::settings::Settings,
};

/// Errors that are kept for whoever asks.
const ERRORS_KEPT: usize = 100;

/// Within which panics of one component are counted.
const PANIC_WINDOW: Duration = Duration::from_secs(60);

/// Where a topology stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Bolts are being prepared.
    Preparing,
    Active,
    /// Spouts pause.
    Inactive,
    /// Spouts pause for good; what is under way is worked off.
    Draining,
    Stopped,
}

impl Phase {
    const ALL: [Phase; 5] = [Phase::Preparing, Phase::Active, Phase::Inactive, Phase::Draining, Phase::Stopped];
}

/// An error of a component.
///
/// ```
/// # use tine_core::topology::Topology;
/// use tine_core::engine::{ComponentError, RunError};
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
/// topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Err(Failure::fatal("no disk"))).shuffle(&numbers);
/// # let Err(RunError::Halted(error)) = topology.run() else { panic!("it ends well") };
/// let ComponentError { at, component, task, worker, failure } = error;
/// println!("{at:?}: {component} ({task} on {worker}): {failure}");
/// assert_eq!((&*component, &*failure.message), ("sink", "no disk"));
/// ```
#[derive(Clone, Debug)]
pub struct ComponentError {
    /// When.
    pub at: SystemTime,
    /// Whose.
    pub component: Arc<str>,
    /// In which task.
    pub task: TaskId,
    /// On which worker.
    pub worker: Arc<str>,
    /// What happened.
    pub failure: Failure,
}

/// The process that a topology, or its share of one, runs in.
pub(crate) enum Worker {
    /// The only one: it knows by itself when everything is worked off.
    Alone,
    /// One of several, which hear of the end from one another.
    Member(OnceLock<Arc<str>>),
}

pub(crate) struct Shared {
    pub(crate) topology: Arc<str>,
    pub(crate) worker: Worker,
    pub(crate) settings: Settings,
    started: Instant,
    phase: AtomicU8,
    /// Bolts not yet prepared.
    unprepared: AtomicUsize,
    /// Spout tasks that may still emit.
    live_spouts: AtomicUsize,
    /// Tuples under way: in inboxes, in the hands of tasks, and at other workers that have not worked them off.
    in_flight: AtomicI64,
    /// Whether everything was worked off when it ended.
    drained: AtomicBool,
    /// Everything that was ever under way.
    begun: AtomicU64,
    components: Vec<Arc<str>>,
    bells: Vec<Arc<Bell>>,
    notes: Mutex<Notes>,
    changed: Condvar,
}

#[derive(Default)]
struct Notes {
    errors: VecDeque<ComponentError>,
    panics: HashMap<Arc<str>, VecDeque<Instant>>,
    halted: Option<Halted>,
}

/// What ended a topology before its time.
#[derive(Clone)]
pub(crate) enum Halted {
    Component(ComponentError),
    Worker(Failure),
}

impl Worker {
    fn name(&self) -> Arc<str> {
        match self {
            Worker::Alone => format!("process {}", std::process::id()).into(),
            Worker::Member(address) => address.get().map_or_else(|| "a worker".into(), Arc::clone),
        }
    }

    /// Where a member's peers reach it: known once its port is open.
    pub(crate) fn is_at(&self, address: &str) {
        if let Worker::Member(known) = self {
            let _ = known.set(address.into());
        }
    }
}

impl Shared {
    pub(crate) fn new(
        topology: Arc<str>,
        worker: Worker,
        settings: Settings,
        components: Vec<Arc<str>>,
        bells: Vec<Arc<Bell>>,
    ) -> Shared {
        Shared {
            topology,
            worker,
            settings,
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Preparing as u8),
            unprepared: AtomicUsize::new(0),
            live_spouts: AtomicUsize::new(0),
            in_flight: AtomicI64::new(0),
            drained: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            components,
            bells,
            notes: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Microseconds since the topology started.
    #[inline]
    pub(crate) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Goes to another phase, but never back from one that ends the topology.
    pub(crate) fn enter(&self, phase: Phase) {
        let _ = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            let ending = now >= Phase::Draining as u8;
            (!ending || phase as u8 > now).then_some(phase as u8)
        });
        self.ring_all();
    }

    /// Ends the topology.
    pub(crate) fn end(&self, drained: bool) {
        self.drained.store(drained, Ordering::Release);
        self.enter(Phase::Stopped);
    }

    /// Whether it has ended after everything was worked off.
    pub(crate) fn has_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    fn ring_all(&self) {
        self.bells.iter().for_each(|bell| bell.ring());
        self.tell();
    }

    /// Tasks are about to be started here.
    pub(crate) fn expect(&self, is_spout: bool, tasks: usize) {
        let count = if is_spout { &self.live_spouts } else { &self.unprepared };
        count.fetch_add(tasks, Ordering::AcqRel);
    }

    /// A bolt is prepared; the last one lets the spouts begin.
    pub(crate) fn prepared(&self) {
        if self.unprepared.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.begin();
        }
    }

    /// Begins if every bolt is prepared and nobody has told otherwise meanwhile.
    pub(crate) fn begin(&self) {
        if self.unprepared.load(Ordering::Acquire) == 0 {
            let (from, to) = (Phase::Preparing as u8, Phase::Active as u8);
            if self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.ring_all();
            }
        }
    }

    /// A spout task will emit no more.
    pub(crate) fn spout_done(&self) {
        self.live_spouts.fetch_sub(1, Ordering::AcqRel);
        self.tell();
    }

    pub(crate) fn live_spouts(&self) -> usize {
        self.live_spouts.load(Ordering::Acquire)
    }

    /// Tuples go into an inbox.
    #[inline]
    pub(crate) fn sent(&self, tuples: usize) {
        self.begun.fetch_add(tuples as u64, Ordering::AcqRel);
        self.in_flight.fetch_add(tuples as i64, Ordering::AcqRel);
    }

    /// Tuples are worked off, and all that came of them was sent before.
    #[inline]
    pub(crate) fn done(&self, tuples: usize) {
        self.in_flight.fetch_sub(tuples as i64, Ordering::AcqRel);
    }

    pub(crate) fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// How many tuples were ever under way here: while this stays, nothing happens.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    pub(crate) fn name_of_task(&self, task: TaskId) -> &str {
        self.components.get(task.0 as usize).map_or("?", |name| name)
    }

    /// Notes an error; a fatal one ends the topology.
    pub(crate) fn report(&self, meter: &TaskMeter, failure: &Failure) {
        let error = self.note(meter, failure);
        if failure.kind == FailureKind::Fatal {
            self.halt(error);
        }
    }

    /// Notes a panic; too many within a minute end the topology.
    pub(crate) fn panicked(&self, meter: &TaskMeter, failure: &Failure) {
        let error = self.note(meter, failure);
        let now = Instant::now();
        let mut notes = self.notes();
        let panics = notes.panics.entry(Arc::clone(meter.component_name())).or_default();
        panics.push_back(now);
        while panics.front().is_some_and(|first| now - *first > PANIC_WINDOW) {
            panics.pop_front();
        }
        let too_many = panics.len() >= self.settings.panics_max as usize;
        drop(notes);
        if too_many {
            self.halt(error);
        }
    }

    fn note(&self, meter: &TaskMeter, failure: &Failure) -> ComponentError {
        let component = Arc::clone(meter.component_name());
        tracing::warn!(
            target: "tine::core", topology = %self.topology, component = %component, task = meter.task().0, "{failure}"
        );
        let (task, worker) = (meter.task(), self.worker.name());
        let error = ComponentError { at: SystemTime::now(), component, task, worker, failure: failure.clone() };
        let mut notes = self.notes();
        if notes.errors.len() == ERRORS_KEPT {
            notes.errors.pop_front();
        }
        notes.errors.push_back(error.clone());
        error
    }

    /// Ends the topology at once because of an error; the first one is what it ends with.
    fn halt(&self, error: ComponentError) {
        self.notes().halted.get_or_insert(Halted::Component(error));
        self.enter(Phase::Stopped);
    }

    /// Ends this worker's part at once: it cannot be one of the topology's workers.
    pub(crate) fn refuse(&self, failure: Failure) {
        self.notes().halted.get_or_insert(Halted::Worker(failure));
        self.enter(Phase::Stopped);
    }

    pub(crate) fn halted(&self) -> Option<Halted> {
        self.notes().halted.clone()
    }

    pub(crate) fn errors(&self) -> Vec<ComponentError> {
        self.notes().errors.iter().cloned().collect()
    }

    /// Waits until the phase or the number of spouts that may emit is another one than the caller saw, or for `timeout`.
    pub(crate) fn wait(&self, seen: (Phase, usize), timeout: Duration) {
        let notes = self.notes();
        let same = |_: &mut Notes| (self.phase(), self.live_spouts()) == seen;
        drop(self.changed.wait_timeout_while(notes, timeout, same).unwrap_or_else(PoisonError::into_inner));
    }

    /// Tells those who [`wait`](Shared::wait). Under the lock, so that nobody looks before and sleeps after.
    fn tell(&self) {
        let _notes = self.notes();
        self.changed.notify_all();
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
