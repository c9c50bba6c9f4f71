//! A running topology, as its owner sees it: pause, rebalance, figures, errors, and the end.

mod outcome;
mod supervisor;

use std::{
    fmt,
    sync::Arc,
    thread::{self, JoinHandle},
};

pub use self::outcome::{RunError, Summary};
use super::{
    crews::{Crew, Crews},
    shared::{ComponentError, Halted, Phase, Shared},
};
use crate::{
    cluster::{Order, Part, WorkerFigures},
    metrics::{TaskFigures, TaskMeter},
};

/// A topology that runs in this process. Dropped, it stops without waiting for anything; [`wait`](Running::wait) and
/// [`stop`](Running::stop) do better.
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
/// # let topology = Topology::new("counts");
/// # let numbers = topology.spout("numbers", || Items(0..1000u64));
/// # topology.each("count", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers).tasks(4);
/// let running = topology.start()?;
/// running.rebalance("count", 2)?; // its four tasks on two threads
/// for task in running.tasks() {
///     println!("{} {}: {} acked, p99 {:?}", task.component, task.task, task.acked, task.process.at(0.99));
/// }
/// for error in running.errors() {
///     eprintln!("{} {}: {}", error.component, error.task, error.failure);
/// }
/// let summary = running.wait()?;
/// assert!(summary.drained, "{summary:?}");
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct Running {
    shared: Arc<Shared>,
    meters: Arc<[Arc<TaskMeter>]>,
    crews: Arc<Crews>,
    supervisor: Option<JoinHandle<()>>,
    /// With other workers: this process's part, and the thread that plays it.
    part: Option<(Arc<Part>, Option<JoinHandle<()>>)>,
}

impl Running {
    /// Starts the supervisor, and spouts as soon as the bolts are prepared.
    pub(crate) fn new(
        shared: Arc<Shared>,
        meters: Vec<Arc<TaskMeter>>,
        crews: Arc<Crews>,
    ) -> Result<Running, RunError> {
        let meters: Arc<[_]> = meters.into();
        let supervised = (Arc::clone(&shared), Arc::clone(&meters));
        let supervisor = thread::Builder::new()
            .name("tine-supervisor".into())
            .spawn(move || supervisor::supervise(&supervised.0, &supervised.1));
        let thread = |source| RunError::Thread { component: "the supervisor".into(), source };
        let running = Running { shared, meters, crews, supervisor: Some(supervisor.map_err(thread)?), part: None };
        running.shared.begin();
        while running.shared.phase() == Phase::Preparing {
            running.shared.wait((Phase::Preparing, running.shared.live_spouts()), supervisor::LOOK_EVERY);
        }
        Ok(running)
    }

    /// The same, as one of several workers.
    pub(crate) fn joined(mut self, part: Arc<Part>, thread: JoinHandle<()>) -> Running {
        self.part = Some((part, Some(thread)));
        self
    }

    fn part(&self) -> Option<&Part> {
        self.part.as_ref().map(|(part, _)| &**part)
    }

    /// Spouts emit no more until [`activate`](Running::activate), on no worker; what is under way goes on.
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
    /// # let numbers = topology.spout("numbers", || Items(0..u64::MAX));
    /// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    /// # let running = topology.start()?;
    /// running.deactivate();
    /// // … whatever the spouts read from is away, and back …
    /// running.activate();
    /// assert!(running.stop()?.drained);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn deactivate(&self) {
        self.enter(Phase::Inactive, Order::Deactivate);
    }

    /// Spouts emit again.
    pub fn activate(&self) {
        self.enter(Phase::Active, Order::Activate);
    }

    fn enter(&self, phase: Phase, order: Order) {
        self.shared.enter(phase);
        self.part().inspect(|part| part.order(order));
    }

    /// Who runs what: all workers of the topology in the order in which they came, as they were when all of them were ready last. Empty
    /// when it runs in this process alone, and while this worker has no part in it.
    ///
    /// ```no_run
    /// # fn show(running: tine_core::engine::Running) {
    /// for worker in running.workers() {
    ///     let mark = if worker.is_here { "*" } else { "" };
    ///     println!("{}{mark} runs {} tasks", worker.address, worker.tasks.len());
    /// }
    /// # }
    /// ```
    pub fn workers(&self) -> Vec<WorkerFigures> {
        self.part().map(Part::workers).unwrap_or_default()
    }

    /// Gives this worker's tasks to the others and ends it, while the topology goes on; the last worker
    /// [`drain`](Running::drain)s. Returns at once; [`wait`](Running::wait) waits for the end.
    ///
    /// ```no_run
    /// # fn leave(running: tine_core::engine::Running) -> Result<(), tine_core::engine::RunError> {
    /// running.leave(); // before this machine is shut down
    /// running.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn leave(&self) {
        match self.part() {
            Some(part) => part.leave(),
            None => self.drain(),
        }
    }

    /// Spreads a component's tasks over another number of executors, while everything runs. A task ends its turn on its
    /// old thread and has the next on its new one; it keeps what it holds.
    ///
    /// ```
    /// # use tine_core::{engine::RunError, topology::Topology};
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
    /// # let numbers = topology.spout("numbers", || Items(0..u64::MAX));
    /// let sink = topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).tasks(4).executors(1);
    /// # sink.shuffle(&numbers);
    /// let running = topology.start()?;
    /// running.rebalance("sink", 4)?; // a thread for each task
    /// assert!(matches!(running.rebalance("sink", 5), Err(RunError::Executors { tasks: 4, .. })));
    /// # running.kill()?;
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
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
        let old = self.crews.executors(component);
        self.crews.change(component, |tasks| Crew { tasks, executors })?;
        tracing::info!(target: "tine::core", topology = %self.shared.topology, component, old, executors, "rebalanced");
        Ok(())
    }

    /// The figures of every task that this process runs.
    pub fn tasks(&self) -> Vec<TaskFigures> {
        let here = |meter: &&Arc<TaskMeter>| self.part().is_none_or(|part| part.runs(meter.task()));
        self.meters.iter().filter(here).map(|meter| meter.figures()).collect()
    }

    /// The topology's name and its figures, for whoever outlives this handle.
    #[cfg(feature = "prometheus")]
    pub(crate) fn observer(&self) -> impl Fn() -> (Arc<str>, Vec<TaskFigures>) + Send + 'static {
        let (topology, meters) = (Arc::clone(&self.shared.topology), Arc::clone(&self.meters));
        move || (Arc::clone(&topology), meters.iter().map(|meter| meter.figures()).collect())
    }

    /// The last errors of all components, oldest first.
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
    /// # let numbers = topology.spout("numbers", || Items(0..u64::MAX));
    /// topology.each("odd", |number: u64, out: &mut Emit<'_, ()>| {
    ///     if number == 2 {
    ///         out.report(&Failure::poison(format!("{number} is even")));
    ///     }
    ///     Ok(())
    /// })
    /// # .shuffle(&numbers);
    /// # let running = topology.start()?;
    /// # while running.errors().is_empty() { std::thread::yield_now() }
    /// let errors = running.errors();
    /// assert_eq!(&*errors[0].component, "odd");
    /// assert!(errors[0].failure.message.starts_with("2 is even"));
    /// # running.kill()?;
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn errors(&self) -> Vec<ComponentError> {
        self.shared.errors()
    }

    /// Whether it has ended.
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
    /// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    /// let running = topology.start()?;
    /// while !running.has_ended() {
    ///     std::thread::sleep(std::time::Duration::from_millis(1)); // or something of use
    /// }
    /// assert_eq!(running.wait()?.acked(), 10);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn has_ended(&self) -> bool {
        self.shared.phase() == Phase::Stopped
    }

    /// Tells the topology to stop, on all its workers: spouts emit no more, what is under way is worked off, for `drain_timeout` at
    /// most. Returns at once; [`wait`](Running::wait) waits for the end.
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
    /// # let numbers = topology.spout("numbers", || Items(0..u64::MAX));
    /// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    /// # let running = topology.start()?;
    /// let running = std::sync::Arc::new(running);
    /// let stopper = std::sync::Arc::clone(&running);
    /// std::thread::spawn(move || stopper.drain()).join().expect("it does not panic");
    /// let summary = std::sync::Arc::into_inner(running).expect("the other one is gone").wait()?;
    /// assert!(summary.drained);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn drain(&self) {
        self.enter(Phase::Draining, Order::Drain);
    }

    /// Waits for the end: until all spouts are done, or somebody has called [`drain`](Running::drain), or an error ended the
    /// topology. Blocks the thread: in async code call it inside `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// [`RunError::Halted`] with the error that ended it.
    pub fn wait(mut self) -> Result<Summary, RunError> {
        self.supervisor.take().map(JoinHandle::join);
        self.crews.join();
        self.part.as_mut().and_then(|(_, thread)| thread.take()).map(JoinHandle::join);
        match self.shared.halted() {
            Some(Halted::Component(error)) => Err(RunError::Halted(error)),
            Some(Halted::Worker(failure)) => Err(RunError::Worker(failure)),
            None => Ok(Summary { drained: self.shared.has_drained(), tasks: self.tasks() }),
        }
    }

    /// [`drain`](Running::drain) and [`wait`](Running::wait).
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
    /// # let numbers = topology.spout("numbers", || Items(0..u64::MAX));
    /// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    /// let running = topology.start()?;
    /// let summary = running.stop()?;
    /// assert!(summary.drained && summary.failed() == 0);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Running::wait).
    pub fn stop(self) -> Result<Summary, RunError> {
        self.drain();
        self.wait()
    }

    /// Ends it, on all its workers, without waiting for what is under way.
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
    /// # let numbers = topology.spout("numbers", || Items(0..u64::MAX));
    /// # topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    /// # let running = topology.start()?;
    /// let summary = running.kill()?;
    /// assert!(!summary.drained, "spouts that have a memory emit what they have not heard of again");
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Running::wait).
    pub fn kill(self) -> Result<Summary, RunError> {
        match self.part() {
            Some(part) => part.kill(),
            None => self.shared.enter(Phase::Stopped),
        }
        self.wait()
    }

    /// [`drain`](Running::drain)s when the process is told to end by SIGINT or SIGTERM; as one of several workers it
    /// [`leave`](Running::leave)s.
    ///
    /// ```no_run
    /// # fn run(topology: tine_core::topology::Topology) -> Result<(), Box<dyn std::error::Error>> {
    /// let running = topology.start()?;
    /// running.drain_on_signals()?;
    /// let summary = running.wait()?; // ended by Ctrl-C, or by `kill`
    /// assert!(summary.drained);
    /// # Ok(())
    /// # }
    /// ```
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
        let (shared, part) = (Arc::clone(&self.shared), self.part.as_ref().map(|(part, _)| Arc::clone(part)));
        thread::Builder::new().name("tine-signals".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            });
            match part {
                Some(part) => part.leave(),
                None => shared.enter(Phase::Draining),
            }
        })?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.enter(Phase::Stopped);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topology = &self.shared.topology;
        f.debug_struct("Running")
            .field("topology", topology)
            .field("phase", &self.shared.phase())
            .finish_non_exhaustive()
    }
}
