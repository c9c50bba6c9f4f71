//! How a topology ends: well, with a [`Summary`], or with a [`RunError`].

use std::fmt;

use super::super::shared::ComponentError;
use crate::{failure::Failure, metrics::TaskFigures};

/// How a topology ended.
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
/// # let topology = Topology::new("words");
/// # let words = topology.spout("words", || Items(["a", "b", ""].into_iter()));
/// # let count = topology.each("count", |word: &str, _: &mut Emit<'_, ()>| match word {
/// #     "" => Err(Failure::poison("an empty word")),
/// #     _ => Ok(()),
/// # });
/// # count.shuffle(&words);
/// let summary = topology.run()?; // of the words "a", "b" and "", which is refused
/// assert!(summary.drained);
/// assert_eq!((summary.acked(), summary.failed()), (2, 1));
/// let executed: u64 = summary.tasks.iter().filter(|task| task.component == "count").map(|task| task.executed).sum();
/// assert_eq!(executed, 3);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
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
///
/// ```
/// use tine_core::{component::Emit, engine::RunError, failure::Failure, topology::Topology};
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
///
/// let topology = Topology::new("words");
/// let words = topology.spout("words", || Items(["a", "b"].into_iter()));
/// let count = |_: &'static str, _: &mut Emit<'_, ()>| Err(Failure::fatal("the disk is full"));
/// topology.each("count", count).shuffle(&words);
/// match topology.run() {
///     Err(RunError::Halted(error)) => {
///         assert_eq!((&*error.component, &*error.failure.message), ("count", "the disk is full"));
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
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
    /// This process cannot be one of the topology's workers.
    #[error("{0}")]
    Worker(Failure),
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
