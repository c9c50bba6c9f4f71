//! What a component is told about the place where it runs.

use std::{fmt, sync::Arc};

use crate::{engine::bell::Bell, id::TaskId};

/// Where a spout or bolt runs: given to `open` and `prepare`.
///
/// ```
/// use tine_core::component::{Bolt, Collector, Context, DEFAULT_STREAM, Input};
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
///
/// /// Keeps a file for each of its tasks.
/// #[derive(Default)]
/// struct Files {
///     path: String,
/// }
///
/// impl Bolt for Files {
///     type In = u64;
///     type Out = ();
///
///     fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
///         let (number, of) = (context.index(), context.tasks());
///         self.path = format!("{}/{}-{number}-of-{of}.log", context.topology(), context.component());
///         assert!(context.targets(DEFAULT_STREAM).is_empty(), "nobody subscribes to it");
///         tracing::info!("{} writes {}", context.task(), self.path);
///         Ok(())
///     }
///
///     fn execute(&mut self, input: Input<u64>, out: &mut Collector<()>) -> Result<(), Failure> {
///         assert!(self.path.starts_with("numbers/files-") && self.path.ends_with("-of-2.log"));
///         out.ack(input);
///         Ok(())
///     }
/// }
///
/// let topology = Topology::new("numbers");
/// let numbers = topology.spout("numbers", || Items(0..10u64));
/// topology.bolt("files", Files::default).shuffle(&numbers).tasks(2);
/// assert_eq!(topology.run()?.acked(), 10);
/// # Ok::<(), tine_core::engine::RunError>(())
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

    /// Wakes the task from anywhere: a bolt is told by [`woken`](super::Bolt::woken), a spout by its [`next`](super::Spout::next).
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
///
/// ```
/// use std::{sync::mpsc::{Receiver, TryRecvError, sync_channel}, thread, time::Duration};
/// use tine_core::component::{Context, Emit, Next, Spout, SpoutCollector};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// /// Emits what a thread of its own finds out, as soon as it does.
/// struct Sensor(Option<Receiver<u64>>);
///
/// impl Spout for Sensor {
///     type Out = u64;
///     type Id = ();
///
///     fn open(&mut self, context: &Context) -> Result<(), Failure> {
///         let ((sender, receiver), waker) = (sync_channel(100), context.waker());
///         self.0 = Some(receiver);
///         thread::spawn(move || {
///             for value in 0..3 {
///                 let _ = sender.send(value);
///                 waker.wake();
///             }
///             drop(sender);
///             waker.wake();
///         });
///         Ok(())
///     }
///
///     fn next(&mut self, out: &mut SpoutCollector<u64, ()>) -> Result<Next, Failure> {
///         match self.0.as_ref().map(Receiver::try_recv) {
///             Some(Ok(value)) => {
///                 out.emit(value, ());
///                 Ok(Next::More)
///             }
///             Some(Err(TryRecvError::Empty)) => Ok(Next::In(Duration::from_secs(3600))), // until it is woken
///             _ => Ok(Next::Done),
///         }
///     }
/// }
///
/// let topology = Topology::new("sensor");
/// let sensor = topology.spout("sensor", || Sensor(None));
/// topology.each("values", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&sensor);
/// assert_eq!(topology.run()?.acked(), 3);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

impl Waker {
    /// The task runs soon; several calls before it does count as one.
    pub fn wake(&self) {
        self.0.call();
    }
}
