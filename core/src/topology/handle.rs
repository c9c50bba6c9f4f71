//! Handles of components: what wiring is done with, and what the compiler checks it by.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    grouping::Grouping,
    node::{Arena, Edge, End, Node},
    stream::{Emits, Stream},
};
use crate::{
    component::{Bolt, DEFAULT_STREAM, Data, GroupKey, Port, Spout},
    engine::{bolt_task::Adapter, outlet::Weigh},
};

/// A component within its topology.
#[derive(Clone)]
pub(crate) struct NodeRef {
    pub(crate) arena: Arc<Arena>,
    pub(crate) index: usize,
}

impl NodeRef {
    fn change(&self, change: impl FnOnce(&mut Node)) {
        change(&mut self.arena.nodes()[self.index]);
    }

    fn stream<T>(&self, name: &str) -> Stream<T> {
        let (arena, component) = (Arc::clone(&self.arena), self.index);
        Stream::new(End::Handle { arena, component, stream: name.to_owned() })
    }

    fn weigh<T: Data>(&self, stream: &str, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) {
        let weigh: Weigh<T> = Arc::new(weigh);
        self.change(|node| drop(node.weighs.insert(stream.to_owned(), Arc::new(weigh))));
    }
}

/// A spout of a topology.
///
/// ```
/// use tine_core::component::{Declaration, Emit, Next, Port, Spout, SpoutCollector};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// const TITLES: Port<String> = Port::new("titles");
///
/// struct Book(std::str::Lines<'static>);
///
/// impl Spout for Book {
///     type Out = String;
///     type Id = ();
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(TITLES);
///     }
///
///     fn next(&mut self, out: &mut SpoutCollector<String, ()>) -> Result<Next, Failure> {
///         let Some(line) = self.0.next() else { return Ok(Next::Done) };
///         match line.strip_prefix("# ") {
///             Some(title) => out.emit_to(TITLES, title.to_owned(), ())?,
///             None => out.emit(line.to_owned(), ()),
///         }
///         Ok(Next::More)
///     }
/// }
///
/// let topology = Topology::new("book");
/// let book = topology
///     .spout("book", || Book("# One\nonce\n# Two\ntwice".lines()))
///     .tasks(4)
///     .executors(2) // two tasks on each thread
///     .max_pending(500) // of each task
///     .weigh(|line| line.len()); // beyond the 24 bytes of every String
/// topology.each("lines", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&book);
/// topology.each("titles", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&book.port(TITLES));
/// let summary = topology.run()?;
/// let titles = summary.tasks.iter().find(|task| task.component == "titles");
/// assert_eq!((summary.acked(), titles.map(|task| task.executed)), (16, Some(8)));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct SpoutHandle<S> {
    node: NodeRef,
    spout: PhantomData<fn() -> S>,
}

impl<S: Spout> SpoutHandle<S> {
    pub(crate) fn new(node: NodeRef) -> Self {
        SpoutHandle { node, spout: PhantomData }
    }

    /// How many tasks it has; 1 if it is not said.
    pub fn tasks(self, tasks: usize) -> Self {
        self.node.change(|node| node.tasks = tasks);
        self
    }

    /// How many threads they share; as many as tasks if it is not said.
    pub fn executors(self, executors: usize) -> Self {
        self.node.change(|node| node.executors = Some(executors));
        self
    }

    /// Trees that each task may have under way, instead of the topology's setting.
    pub fn max_pending(self, trees: usize) -> Self {
        self.node.change(|node| node.max_pending = Some(trees));
        self
    }

    /// How many bytes a tuple of the default stream takes beyond its own size, for the bounds of queues.
    pub fn weigh(self, weigh: impl Fn(&S::Out) -> usize + Send + Sync + 'static) -> Self {
        self.node.weigh(DEFAULT_STREAM, weigh);
        self
    }

    /// Another output stream.
    pub fn port<T: Data>(&self, port: Port<T>) -> Stream<T> {
        self.node.stream(port.name())
    }
}

impl<S: Spout> Emits for SpoutHandle<S> {
    type Tuple = S::Out;

    fn stream(&self) -> Stream<S::Out> {
        self.node.stream(DEFAULT_STREAM)
    }
}

impl<S> fmt::Debug for SpoutHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpoutHandle({:?})", self.node.arena.nodes()[self.node.index].name)
    }
}

/// How a bolt makes its own type of each input's tuples, in the order of the inputs.
pub(crate) struct Adapters<I>(Arc<Mutex<Vec<Adapter<I>>>>);

impl<I> Default for Adapters<I> {
    fn default() -> Self {
        Adapters(Arc::default())
    }
}

impl<I> Clone for Adapters<I> {
    fn clone(&self) -> Self {
        Adapters(Arc::clone(&self.0))
    }
}

impl<I: 'static> Adapters<I> {
    pub(crate) fn all(&self) -> Vec<Adapter<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add<T: Data>(&self)
    where
        I: From<T>,
    {
        let adapter = |values: Box<dyn Any + Send>| {
            let values = values.downcast::<Vec<T>>().expect("build time compares the types of both ends");
            values.into_iter().map(I::from).collect()
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(adapter));
    }
}

/// A bolt of a topology.
///
/// ```
/// use std::time::Duration;
/// use tine_core::component::{Basic, BasicBolt, Declaration, Emit, Port};
/// use tine_core::topology::{Grouping, Topology};
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
/// const LONG: Port<String> = Port::new("long");
///
/// /// Counts letters; long words go into a stream of their own as well.
/// struct Letters;
///
/// impl BasicBolt for Letters {
///     type In = String;
///     type Out = usize;
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(LONG);
///     }
///
///     fn execute(&mut self, word: String, out: &mut Emit<'_, usize>) -> Result<(), Failure> {
///         out.emit(word.len());
///         if word.len() > 8 { out.emit_to(LONG, word) } else { Ok(()) }
///     }
///
///     fn tick(&mut self, _: &mut Emit<'_, usize>) -> Result<(), Failure> {
///         Ok(tracing::info!("still here"))
///     }
/// }
///
/// let topology = Topology::new("letters");
/// let words = topology.spout("words", || Items(["to", "be", "or", "forgotten"].into_iter().map(str::to_owned)));
/// let letters = topology
///     .bolt("letters", || Basic(Letters))
///     .tasks(4)
///     .executors(2) // two tasks on each thread
///     .tick_every(Duration::from_secs(60))
///     .weigh(|_| 0) // a number takes nothing beyond its own size
///     .fields(&words, |word| word.as_str());
/// let sink = || |_: usize, _: &mut Emit<'_, ()>| Ok(());
/// topology.each("sum", sink()).global(&letters);
/// topology.each("every task", sink()).all(&letters).tasks(3);
/// topology.each("nearest task", sink()).input(&letters, Grouping::local_or_shuffle()).tasks(3);
/// topology.each("named task", sink()).direct(&letters); // gets what is emitted with `emit_direct`
/// topology.each("long", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&letters.port(LONG));
///
/// let summary = topology.run()?;
/// let executed = |bolt| summary.tasks.iter().filter(|task| task.component == bolt).map(|task| task.executed).sum();
/// let executed: [u64; 5] = ["sum", "every task", "nearest task", "named task", "long"].map(executed);
/// assert_eq!(executed, [4, 12, 4, 0, 1]);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct BoltHandle<B: Bolt> {
    node: NodeRef,
    adapters: Adapters<B::In>,
}

impl<B: Bolt> BoltHandle<B> {
    pub(crate) fn new(node: NodeRef, adapters: Adapters<B::In>) -> Self {
        BoltHandle { node, adapters }
    }

    /// How many tasks it has; 1 if it is not said.
    pub fn tasks(self, tasks: usize) -> Self {
        self.node.change(|node| node.tasks = tasks);
        self
    }

    /// How many threads they share; as many as tasks if it is not said.
    pub fn executors(self, executors: usize) -> Self {
        self.node.change(|node| node.executors = Some(executors));
        self
    }

    /// Calls `tick` of each task this often.
    pub fn tick_every(self, period: Duration) -> Self {
        self.node.change(|node| node.tick_every = Some(period));
        self
    }

    /// How many bytes a tuple of the default stream takes beyond its own size, for the bounds of queues.
    pub fn weigh(self, weigh: impl Fn(&B::Out) -> usize + Send + Sync + 'static) -> Self {
        self.node.weigh(DEFAULT_STREAM, weigh);
        self
    }

    /// Another output stream.
    pub fn port<T: Data>(&self, port: Port<T>) -> Stream<T> {
        self.node.stream(port.name())
    }

    /// Subscribes to a stream.
    pub fn input<E: Emits>(self, from: &E, grouping: Grouping<E::Tuple>) -> Self
    where
        B::In: From<E::Tuple>,
    {
        self.subscribe(from.stream(), grouping, None)
    }

    /// Subscribes to a stream that leads back to this bolt, or to one before it. At most `bound` tuples wait on such an edge,
    /// in front of each task; what would be one more *fails*, because waiting would be a deadlock. Tuples from outside the
    /// loop are let in only while the edge is less than half full. With a bound of twice the trees that may be pending times the
    /// tuples of each in the loop, nothing fails.
    ///
    /// ```
    /// use tine_core::component::{DEFAULT_STREAM, Emit};
    /// use tine_core::topology::{Grouping, Stream, Topology};
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
    /// // Halves numbers until they are odd.
    /// let topology = Topology::new("halves");
    /// let numbers = topology.spout("numbers", || Items([24, 7, 64u64].into_iter()));
    /// let even = Stream::<u64>::named("even", DEFAULT_STREAM);
    /// let halves = topology
    ///     .each("halve", |number: u64, out: &mut Emit<'_, u64>| Ok(out.emit(number / 2)))
    ///     .shuffle(&numbers)
    ///     .feedback(&even, Grouping::shuffle(), 10_000);
    /// let pass_even = |number: u64, out: &mut Emit<'_, u64>| {
    ///     if number.is_multiple_of(2) {
    ///         out.emit(number);
    ///     }
    ///     Ok(())
    /// };
    /// topology.each("even", pass_even).shuffle(&halves);
    /// assert_eq!(topology.run()?.acked(), 3);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn feedback<E: Emits>(self, from: &E, grouping: Grouping<E::Tuple>, bound: usize) -> Self
    where
        B::In: From<E::Tuple>,
    {
        self.subscribe(from.stream(), grouping, Some(bound))
    }

    fn subscribe<T: Data>(self, from: Stream<T>, grouping: Grouping<T>, feedback: Option<usize>) -> Self
    where
        B::In: From<T>,
    {
        self.adapters.add::<T>();
        self.node.change(|node| node.inputs.push(Edge::new(from.end, grouping, feedback)));
        self
    }

    /// Subscribes: tuples go to the tasks in turn.
    pub fn shuffle<E: Emits>(self, from: &E) -> Self
    where
        B::In: From<E::Tuple>,
    {
        self.input(from, Grouping::shuffle())
    }

    /// Subscribes: equal keys go to the same task.
    pub fn fields<E: Emits, K: GroupKey + ?Sized>(
        self,
        from: &E,
        key: impl Fn(&E::Tuple) -> &K + Send + Sync + 'static,
    ) -> Self
    where
        B::In: From<E::Tuple>,
    {
        self.input(from, Grouping::fields(key))
    }

    /// Subscribes: every task gets every tuple.
    pub fn all<E: Emits>(self, from: &E) -> Self
    where
        B::In: From<E::Tuple>,
    {
        self.input(from, Grouping::all())
    }

    /// Subscribes: the first task gets every tuple.
    pub fn global<E: Emits>(self, from: &E) -> Self
    where
        B::In: From<E::Tuple>,
    {
        self.input(from, Grouping::global())
    }

    /// Subscribes: the emitter names the task.
    pub fn direct<E: Emits>(self, from: &E) -> Self
    where
        B::In: From<E::Tuple>,
    {
        self.input(from, Grouping::direct())
    }
}

impl<B: Bolt> Emits for BoltHandle<B> {
    type Tuple = B::Out;

    fn stream(&self) -> Stream<B::Out> {
        self.node.stream(DEFAULT_STREAM)
    }
}

impl<B: Bolt> fmt::Debug for BoltHandle<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoltHandle({:?})", self.node.arena.nodes()[self.node.index].name)
    }
}
