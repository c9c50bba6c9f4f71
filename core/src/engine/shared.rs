//! What all tasks of a running topology share: its phase, what is in flight, its errors.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering},
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

pub(crate) struct Shared {
    pub(crate) topology: Arc<str>,
    worker: Arc<str>,
    pub(crate) settings: Settings,
    started: Instant,
    phase: AtomicU8,
    /// Bolts not yet prepared.
    unprepared: AtomicUsize,
    /// Spout tasks that may still emit.
    live_spouts: AtomicUsize,
    /// Trees and tuples under way: tuples in inboxes and in the hands of tasks.
    in_flight: AtomicI64,
    components: Vec<Arc<str>>,
    bells: Vec<Arc<Bell>>,
    notes: Mutex<Notes>,
    changed: Condvar,
}

#[derive(Default)]
struct Notes {
    errors: VecDeque<ComponentError>,
    panics: HashMap<Arc<str>, VecDeque<Instant>>,
    halted: Option<ComponentError>,
}

impl Shared {
    pub(crate) fn new(
        topology: Arc<str>,
        settings: Settings,
        components: Vec<Arc<str>>,
        bells: Vec<Arc<Bell>>,
        (bolts, spouts): (usize, usize),
    ) -> Shared {
        Shared {
            topology,
            worker: format!("process {}", std::process::id()).into(),
            settings,
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Preparing as u8),
            unprepared: AtomicUsize::new(bolts),
            live_spouts: AtomicUsize::new(spouts),
            in_flight: AtomicI64::new(0),
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

    fn ring_all(&self) {
        self.bells.iter().for_each(|bell| bell.ring());
        self.tell();
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

    /// Tuples go into an inbox, or trees begin.
    #[inline]
    pub(crate) fn sent(&self, tuples: usize) {
        self.in_flight.fetch_add(tuples as i64, Ordering::AcqRel);
    }

    /// Tuples are worked off, and all that came of them was sent before; or trees have ended.
    #[inline]
    pub(crate) fn done(&self, tuples: usize) {
        self.in_flight.fetch_sub(tuples as i64, Ordering::AcqRel);
    }

    pub(crate) fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Acquire)
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
        let (task, worker) = (meter.task(), Arc::clone(&self.worker));
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
        self.notes().halted.get_or_insert(error);
        self.enter(Phase::Stopped);
    }

    pub(crate) fn halted(&self) -> Option<ComponentError> {
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
