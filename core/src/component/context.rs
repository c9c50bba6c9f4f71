//! What a component is told about the place where it runs.

use std::{fmt, sync::Arc};

use crate::{engine::bell::Bell, id::TaskId};

/// Where a spout or bolt runs: given to `open` and `prepare`.
///
/// ```
/// use tine_core::component::{Context, Waker};
///
/// /// A bolt keeps this in `prepare`, and gives a clone to a thread that wants to wake it.
/// fn about(context: &Context) -> (String, Waker) {
///     let place = format!("{} {} of {}", context.component(), context.index(), context.tasks());
///     (place, context.waker())
/// }
/// ```
#[derive(Clone)]
pub struct Context {
    pub(crate) topology: Arc<str>,
    pub(crate) component: Arc<str>,
    pub(crate) task: TaskId,
    pub(crate) index: usize,
    pub(crate) tasks: usize,
    pub(crate) targets: Arc<[(String, Vec<TaskId>)]>,
    pub(crate) bell: Arc<Bell>,
}

impl Context {
    /// The topology's name.
    pub fn topology(&self) -> &str {
        &self.topology
    }

    /// The component's name.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// This task's number within the topology.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// This task's number within the component: `0..tasks()`.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many tasks the component has; fixed for the life of the topology.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// The tasks that one of the component's streams leads to, in the order in which `emit_direct` counts them.
    pub fn targets(&self, stream: &str) -> Vec<TaskId> {
        let of_stream = self.targets.iter().filter(|(name, _)| name == stream);
        of_stream.flat_map(|(_, tasks)| tasks.iter().copied()).collect()
    }

    /// Wakes the task from anywhere: a bolt is told by `woken`, a spout by its `next`.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.bell))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} of {}, {})", self.component, self.topology, self.task)
    }
}

/// Wakes one task; may be cloned, sent and used by any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

impl Waker {
    /// The task runs soon; several calls before it does count as one.
    pub fn wake(&self) {
        self.0.call();
    }
}
