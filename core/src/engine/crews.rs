//! The executors of every component of this process, and the tasks that they give their turns.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{executor::Executor, running::RunError, shared::Shared, task::Task};

/// How long is waited for tasks to end their turn before they get another executor.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Crews {
    shared: Arc<Shared>,
    /// By component.
    crews: Mutex<HashMap<String, Vec<Executor>>>,
}

/// Tasks of one component, and how many executors they are to share.
pub(crate) struct Crew {
    pub(crate) tasks: Vec<Box<dyn Task>>,
    pub(crate) executors: usize,
}

impl Crews {
    pub(crate) fn new(shared: Arc<Shared>) -> Crews {
        Crews { shared, crews: Mutex::default() }
    }

    /// How many executors a component has here.
    pub(crate) fn executors(&self, component: &str) -> usize {
        self.lock().get(component).map_or(0, Vec::len)
    }

    /// Ends a component's executors when their turns end, and starts those that `change` makes of their tasks.
    ///
    /// # Errors
    /// When a task does not return from user code: then nothing has changed. When the system refuses a thread.
    pub(crate) fn change(
        &self,
        component: &str,
        change: impl FnOnce(Vec<Box<dyn Task>>) -> Crew,
    ) -> Result<(), RunError> {
        // Not under the lock: tasks that come to this worker meanwhile do not wait.
        let crew = self.lock().remove(component).unwrap_or_default();
        crew.iter().for_each(Executor::retire);
        let deadline = Instant::now() + RETIRE_TIMEOUT;
        while !crew.iter().all(Executor::has_ended) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        // Those that give back their tasks start again, in any case.
        let (kept, retired): (Vec<_>, Vec<_>) = crew.into_iter().partition(Executor::keep);
        let before = retired.len();
        let tasks: Vec<_> = retired.into_iter().flat_map(Executor::join).collect();
        let stuck = !kept.is_empty();
        let next = if stuck { Crew { tasks, executors: before } } else { change(tasks) };
        self.lock().entry(component.to_owned()).or_default().extend(kept);
        self.add(component, next)?;
        if stuck { Err(RunError::Stuck(component.to_owned())) } else { Ok(()) }
    }

    /// Gives a component tasks that have come to this worker. Waits for nobody: they have executors of their own, and one whose
    /// tasks have all moved away ends.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn add(&self, component: &str, come: Crew) -> Result<(), RunError> {
        let started = self.start(component, come)?;
        let mut crews = self.lock();
        let crew = crews.entry(component.to_owned()).or_default();
        crew.retain(|executor| !executor.has_ended());
        crew.extend(started);
        Ok(())
    }

    /// Spreads tasks over executors, evenly.
    fn start(&self, component: &str, Crew { tasks, executors }: Crew) -> Result<Vec<Executor>, RunError> {
        let executors = executors.clamp(1, tasks.len().max(1));
        let mut crews: Vec<Vec<Box<dyn Task>>> = (0..executors).map(|_| Vec::new()).collect();
        for (index, task) in tasks.into_iter().enumerate() {
            crews[index % executors].push(task);
        }
        let start = |(index, tasks)| {
            let started = Executor::start(format!("{component}-{index}"), tasks, Arc::clone(&self.shared));
            started.map_err(|source| RunError::Thread { component: component.to_owned(), source })
        };
        crews.into_iter().filter(|tasks| !tasks.is_empty()).enumerate().map(start).collect()
    }

    /// Waits until every executor has ended.
    pub(crate) fn join(&self) {
        let crews = std::mem::take(&mut *self.lock());
        crews.into_values().flatten().for_each(|executor| drop(executor.join()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Executor>>> {
        self.crews.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
