//! A running topology, as its owner sees it: pause, rebalance, figures, errors, and the end.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    executor::Executor,
    shared::{ComponentError, Phase, Shared},
    task::Task,
};
use crate::{
    failure::Failure,
    metrics::{TaskFigures, TaskMeter},
};

/// How often stuck tasks are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often is looked whether everything is worked off, while a topology drains.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(2);

/// How long a rebalance waits for tasks to end their turn.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// A topology that runs in this process. Dropped, it stops without waiting for anything; [`wait`](Running::wait) and
/// [`stop`](Running::stop) do better.
///
/// ```no_run
/// # fn run(topology: tine_core::topology::Topology) -> Result<(), Box<dyn std::error::Error>> {
/// let running = topology.start()?;
/// running.drain_on_signals()?;
/// running.rebalance("count", 2)?;
/// for task in running.tasks() {
///     println!("{} {}: {} acked, p99 {:?}", task.component, task.task, task.acked, task.process.at(0.99));
/// }
/// let summary = running.wait()?;
/// assert!(summary.drained, "{:?}", summary);
/// # Ok(())
/// # }
/// ```
pub struct Running {
    shared: Arc<Shared>,
    meters: Arc<[Arc<TaskMeter>]>,
    /// By component.
    executors: Mutex<HashMap<String, Vec<Executor>>>,
    supervisor: Option<JoinHandle<bool>>,
}

/// How a topology ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether everything under way was worked off. If not, the spouts did not hear of some trees.
    pub drained: bool,
    /// The figures at the end.
    pub tasks: Vec<TaskFigures>,
}

impl Summary {
    /// Trees that were completed.
    pub fn acked(&self) -> u64 {
        self.tasks.iter().filter(|task| task.is_spout).map(|task| task.acked).sum()
    }

    /// Trees that failed or timed out.
    pub fn failed(&self) -> u64 {
        self.tasks.iter().filter(|task| task.is_spout).map(|task| task.failed).sum()
    }
}

/// Why a topology cannot be started, did not end well, or cannot be changed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It makes no sense.
    #[error(transparent)]
    Build(#[from] crate::topology::BuildError),
    /// The system refuses a thread.
    #[error("cannot start a thread for {component:?}: give the topology fewer executors")]
    Thread {
        /// Of which component.
        component: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An error of a component ended it.
    #[error("{} of {:?} ended the topology: {}", .0.task, .0.component, .0.failure)]
    Halted(ComponentError),
    /// No such component.
    #[error("the topology has no component {0:?}")]
    NoSuchComponent(String),
    /// More executors than tasks, or none.
    #[error("{executors} executors for {component:?}, which has {tasks} tasks: choose between 1 and {tasks}")]
    Executors {
        /// Of which component.
        component: String,
        /// How many were asked for.
        executors: usize,
        /// How many tasks there are.
        tasks: usize,
    },
    /// A task of the component does not return from user code.
    #[error("a task of {0:?} does not return from a call: nothing was changed, try again later")]
    Stuck(String),
}

/// As people read it: a `main` that returns an error prints its `Debug`.
impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The tasks of a component, on their way to their executors.
pub(crate) struct Crew {
    pub(crate) component: String,
    pub(crate) tasks: Vec<Box<dyn Task>>,
    pub(crate) executors: usize,
}

impl Running {
    /// Starts the executors, and waits until the bolts are prepared.
    pub(crate) fn start(
        shared: Arc<Shared>,
        meters: Vec<Arc<TaskMeter>>,
        crews: Vec<Crew>,
    ) -> Result<Running, RunError> {
        let meters: Arc<[_]> = meters.into();
        let executors = Mutex::default();
        let mut running = Running { shared, meters, executors, supervisor: None };
        for Crew { component, tasks, executors } in crews {
            let started = running.crew(&component, tasks, executors)?;
            running.executors().insert(component, started);
        }
        let (shared, meters) = (Arc::clone(&running.shared), Arc::clone(&running.meters));
        let supervisor =
            thread::Builder::new().name("tine-supervisor".into()).spawn(move || supervise(&shared, &meters));
        let thread = |source| RunError::Thread { component: "the supervisor".into(), source };
        running.supervisor = Some(supervisor.map_err(thread)?);
        running.shared.begin();
        while running.shared.phase() == Phase::Preparing {
            running.shared.wait((Phase::Preparing, running.shared.live_spouts()), LOOK_EVERY);
        }
        Ok(running)
    }

    /// Spreads tasks over executors, evenly.
    fn crew(&self, component: &str, tasks: Vec<Box<dyn Task>>, executors: usize) -> Result<Vec<Executor>, RunError> {
        let mut crews: Vec<Vec<Box<dyn Task>>> = (0..executors).map(|_| Vec::new()).collect();
        for (index, task) in tasks.into_iter().enumerate() {
            crews[index % executors].push(task);
        }
        let start = |(index, tasks)| {
            let started = Executor::start(format!("{component}-{index}"), tasks, Arc::clone(&self.shared));
            started.map_err(|source| RunError::Thread { component: component.to_owned(), source })
        };
        crews.into_iter().enumerate().map(start).collect()
    }

    /// Spouts emit no more until [`activate`](Running::activate); what is under way goes on.
    pub fn deactivate(&self) {
        self.shared.enter(Phase::Inactive);
    }

    /// Spouts emit again.
    pub fn activate(&self) {
        self.shared.enter(Phase::Active);
    }

    /// Spreads a component's tasks over another number of executors, while everything runs. A task ends its turn on its
    /// old thread and has the next on its new one; it keeps what it holds.
    ///
    /// # Errors
    /// If there is no such component, or not that many tasks, or a task does not return from user code: then nothing changes.
    pub fn rebalance(&self, component: &str, executors: usize) -> Result<(), RunError> {
        let of_component = |meter: &&Arc<TaskMeter>| **meter.component_name() == *component;
        let tasks = self.meters.iter().filter(of_component).count();
        if tasks == 0 {
            return Err(RunError::NoSuchComponent(component.to_owned()));
        }
        if executors == 0 || executors > tasks {
            return Err(RunError::Executors { component: component.to_owned(), executors, tasks });
        }
        let mut all = self.executors();
        let Some(crew) = all.get_mut(component) else { return Err(RunError::NoSuchComponent(component.to_owned())) };
        let old = crew.len();
        crew.iter().for_each(Executor::retire);
        let deadline = Instant::now() + RETIRE_TIMEOUT;
        while !crew.iter().all(Executor::has_ended) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let stuck = !crew.iter().all(Executor::has_ended);
        if stuck {
            crew.iter().for_each(Executor::keep);
        }
        // Those that have ended start again, in any case.
        let (ended, kept): (Vec<_>, Vec<_>) = std::mem::take(crew).into_iter().partition(Executor::has_ended);
        let wanted = if stuck { ended.len() } else { executors };
        let tasks: Vec<_> = ended.into_iter().flat_map(Executor::join).collect();
        *crew = kept;
        if !tasks.is_empty() {
            crew.extend(self.crew(component, tasks, wanted.max(1))?);
        }
        if stuck {
            return Err(RunError::Stuck(component.to_owned()));
        }
        tracing::info!(target: "tine::core", topology = %self.shared.topology, component, old, executors, "rebalanced");
        Ok(())
    }

    /// The figures of every task.
    pub fn tasks(&self) -> Vec<TaskFigures> {
        self.meters.iter().map(|meter| meter.figures()).collect()
    }

    /// The topology's name and its figures, for whoever outlives this handle.
    #[cfg(feature = "prometheus")]
    pub(crate) fn observer(&self) -> impl Fn() -> (Arc<str>, Vec<TaskFigures>) + Send + 'static {
        let (topology, meters) = (Arc::clone(&self.shared.topology), Arc::clone(&self.meters));
        move || (Arc::clone(&topology), meters.iter().map(|meter| meter.figures()).collect())
    }

    /// The last errors of all components, oldest first.
    pub fn errors(&self) -> Vec<ComponentError> {
        self.shared.errors()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.shared.phase() == Phase::Stopped
    }

    /// Tells the topology to stop: spouts emit no more, what is under way is worked off, for `drain_timeout` at most. Returns at
    /// once; [`wait`](Running::wait) waits for the end.
    pub fn drain(&self) {
        self.shared.enter(Phase::Draining);
    }

    /// Waits for the end: until all spouts are done, or somebody has called [`drain`](Running::drain), or an error ended the
    /// topology. Blocks the thread: in async code call it inside `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// [`RunError::Halted`] with the error that ended it.
    pub fn wait(mut self) -> Result<Summary, RunError> {
        let drained = self.supervisor.take().and_then(|supervisor| supervisor.join().ok()).unwrap_or(false);
        let executors = std::mem::take(&mut *self.executors());
        executors.into_values().flatten().for_each(|executor| drop(executor.join()));
        match self.shared.halted() {
            Some(error) => Err(RunError::Halted(error)),
            None => Ok(Summary { drained, tasks: self.tasks() }),
        }
    }

    /// [`drain`](Running::drain) and [`wait`](Running::wait).
    ///
    /// # Errors
    /// As [`wait`](Running::wait).
    pub fn stop(self) -> Result<Summary, RunError> {
        self.drain();
        self.wait()
    }

    /// Ends it without waiting for what is under way.
    ///
    /// # Errors
    /// As [`wait`](Running::wait).
    pub fn kill(self) -> Result<Summary, RunError> {
        self.shared.enter(Phase::Stopped);
        self.wait()
    }

    /// [`drain`](Running::drain)s when the process is told to end by SIGINT or SIGTERM.
    ///
    /// # Errors
    /// If the system refuses a thread or the signals.
    pub fn drain_on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name("tine-signals".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            });
            shared.enter(Phase::Draining);
        })?;
        Ok(())
    }

    fn executors(&self) -> MutexGuard<'_, HashMap<String, Vec<Executor>>> {
        self.executors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.enter(Phase::Stopped);
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topology = &self.shared.topology;
        f.debug_struct("Running")
            .field("topology", topology)
            .field("phase", &self.shared.phase())
            .finish_non_exhaustive()
    }
}

/// Watches until the topology has stopped; answers whether everything was worked off.
fn supervise(shared: &Shared, meters: &[Arc<TaskMeter>]) -> bool {
    let mut reported: HashMap<u32, u64> = HashMap::new();
    let mut deadline = None;
    loop {
        let (phase, live) = (shared.phase(), shared.live_spouts());
        if phase == Phase::Stopped {
            return false;
        }
        // Pending trees first: one that ends in between leaves tuples, if anything, that are counted after it.
        let idle = live == 0 && meters.iter().all(|meter| meter.pending_now() == 0);
        if idle && shared.in_flight() == 0 {
            shared.enter(Phase::Stopped);
            return true;
        }
        if phase == Phase::Draining {
            let until = *deadline.get_or_insert_with(|| Instant::now() + shared.settings.drain_timeout);
            if Instant::now() >= until {
                shared.enter(Phase::Stopped);
                return false;
            }
        }
        look_for_stuck(shared, meters, &mut reported);
        let ending = phase == Phase::Draining || live == 0;
        shared.wait((phase, live), if ending { DRAIN_LOOK_EVERY } else { LOOK_EVERY });
    }
}

/// Reports each call of user code that takes too long, once.
fn look_for_stuck(shared: &Shared, meters: &[Arc<TaskMeter>], reported: &mut HashMap<u32, u64>) {
    let stuck_after = shared.settings.stuck_after;
    for meter in meters {
        let Some(since) = meter.busy_since() else { continue };
        let busy = Duration::from_micros(shared.now_us().saturating_sub(since));
        if busy > stuck_after && reported.insert(meter.task().0, since) != Some(since) {
            let of = if meter.is_spout() { "next, ack or fail" } else { "execute, tick or woken" };
            let secs = busy.as_secs_f32();
            let message = format!("has not returned from {of} for {secs:.1} s: it must not wait that long");
            shared.report(meter, &Failure::poison(message));
        }
    }
}
