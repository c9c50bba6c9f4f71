//! Puts spouts and bolts together: components, streams, groupings, parallelism.
//!
//! ```
//! use tine_core::component::{Emit, Next, Spout, SpoutCollector};
//! use tine_core::failure::Failure;
//! use tine_core::topology::Topology;
//!
//! struct Lines(std::vec::IntoIter<&'static str>);
//!
//! impl Spout for Lines {
//!     type Out = String;
//!     type Id = ();
//!
//!     fn next(&mut self, out: &mut SpoutCollector<String, ()>) -> Result<Next, Failure> {
//!         let Some(line) = self.0.next() else { return Ok(Next::Done) };
//!         out.emit(line.to_owned(), ());
//!         Ok(Next::More)
//!     }
//! }
//!
//! let topology = Topology::new("words");
//! let lines = topology.spout("lines", || Lines(vec!["a b", "b"].into_iter()));
//! let words = topology
//!     .each("split", |line: String, out: &mut Emit<'_, String>| {
//!         line.split(' ').for_each(|word| out.emit(word.to_owned()));
//!         Ok(())
//!     })
//!     .shuffle(&lines)
//!     .tasks(2);
//! topology.each("count", |_word: String, _: &mut Emit<'_, ()>| Ok(())).fields(&words, |word| word.as_str());
//! let summary = topology.run()?;
//! assert_eq!(summary.acked(), 2);
//! # Ok::<(), tine_core::engine::RunError>(())
//! ```
//!
//! What is wired by handle is checked by the compiler: a bolt that takes numbers cannot subscribe to texts.
//!
//! ```compile_fail,E0277
//! # use tine_core::{component::Emit, topology::Topology};
//! let topology = Topology::new("wrong");
//! let texts = topology.each("texts", |_: u64, _: &mut Emit<'_, String>| Ok(()));
//! topology.each("numbers", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&texts);
//! ```
//!
//! Read in this order: here, `stream` and `handle` (wiring), [`grouping`], [`settings`], then `node` (erasure), `check` and `build`.

pub(crate) mod build;
mod check;
pub(crate) mod encoding;
mod error;
pub mod grouping;
mod handle;
pub(crate) mod node;
pub mod settings;
mod stream;

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    error::BuildError,
    grouping::{Choose, Grouping},
    handle::{BoltHandle, SpoutHandle},
    settings::Settings,
    stream::{Emits, Stream},
};
use self::{
    handle::NodeRef,
    node::{Arena, Node, bolt_task, spout_task, streams_of},
};
use crate::{
    cluster::{self, Cluster},
    component::{Basic, Bolt, Data, Declaration, Each, Emit, Spout, each},
    engine::{RunError, Running, Summary},
    failure::Failure,
};

/// A topology that is being put together.
///
/// ```
/// use tine_core::component::Emit;
/// use tine_core::topology::Topology;
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
/// let (total, totals) = std::sync::mpsc::sync_channel(100);
/// let mut topology = Topology::new("squares");
/// topology.configure(|settings| settings.max_pending = 100);
/// let numbers = topology.spout("numbers", || Items(1..=10u64));
/// let squares = topology
///     .each("square", |number: u64, out: &mut Emit<'_, u64>| Ok(out.emit(number * number)))
///     .shuffle(&numbers)
///     .tasks(2);
/// let mut sum = 0;
/// let add = move |square: u64, _: &mut Emit<'_, ()>| {
///     sum += square;
///     Ok(drop(total.send(sum)))
/// };
/// topology.each("sum", add).global(&squares);
/// assert_eq!(topology.run()?.acked(), 10);
/// assert_eq!(totals.try_iter().last(), Some(385));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct Topology {
    arena: Arc<Arena>,
    settings: Settings,
}

impl Topology {
    /// An empty topology.
    pub fn new(name: impl Into<String>) -> Topology {
        let arena = Arena { topology: name.into(), nodes: Default::default(), encodings: encoding::plain().into() };
        Topology { arena: Arc::new(arena), settings: Settings::default() }
    }

    /// Changes the settings.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut topology = tine_core::topology::Topology::new("words");
    /// topology
    ///     .configure(|settings| settings.max_pending = 1000)
    ///     .configure(|settings| settings.message_timeout = Duration::from_secs(5));
    /// ```
    pub fn configure(&mut self, change: impl FnOnce(&mut Settings)) -> &mut Self {
        change(&mut self.settings);
        self
    }

    /// Adds a spout; `make` is called once for each of its tasks.
    ///
    /// ```
    /// use tine_core::component::{Emit, Next, Spout, SpoutCollector};
    /// use tine_core::{failure::Failure, topology::Topology};
    ///
    /// struct Countdown(u32);
    ///
    /// impl Spout for Countdown {
    ///     type Out = u32;
    ///     type Id = ();
    ///
    ///     fn next(&mut self, out: &mut SpoutCollector<u32, ()>) -> Result<Next, Failure> {
    ///         let Some(left) = self.0.checked_sub(1) else { return Ok(Next::Done) };
    ///         self.0 = left;
    ///         out.emit(left, ());
    ///         Ok(Next::More)
    ///     }
    /// }
    ///
    /// let topology = Topology::new("countdowns");
    /// let numbers = topology.spout("countdown", || Countdown(10)).tasks(3);
    /// topology.each("say", |_: u32, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    /// assert_eq!(topology.run()?.acked(), 3 * 10, "each task has a countdown of its own");
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn spout<S: Spout>(&self, name: impl Into<String>, make: impl Fn() -> S + Send + 'static) -> SpoutHandle<S> {
        let mut declaration = Declaration::default();
        S::declare(&mut declaration);
        let streams = streams_of::<S::Out>(declaration.streams);
        let make = Box::new(move |place| spout_task(make(), place));
        SpoutHandle::new(self.add(Node::new(name.into(), true, streams, make)))
    }

    /// Adds a bolt; `make` is called once for each of its tasks.
    ///
    /// ```
    /// use tine_core::component::{Basic, BasicBolt, Emit};
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
    /// /// Its inputs are of two types.
    /// enum Input {
    ///     Price(f64),
    ///     Name(&'static str),
    /// }
    ///
    /// impl From<f64> for Input {
    ///     fn from(price: f64) -> Input {
    ///         Input::Price(price)
    ///     }
    /// }
    ///
    /// impl From<&'static str> for Input {
    ///     fn from(name: &'static str) -> Input {
    ///         Input::Name(name)
    ///     }
    /// }
    ///
    /// struct Show;
    ///
    /// impl BasicBolt for Show {
    ///     type In = Input;
    ///     type Out = String;
    ///
    ///     fn execute(&mut self, input: Input, out: &mut Emit<'_, String>) -> Result<(), Failure> {
    ///         out.emit(match input {
    ///             Input::Price(price) => format!("{price:.2}"),
    ///             Input::Name(name) => name.to_uppercase(),
    ///         });
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let topology = Topology::new("show");
    /// let prices = topology.spout("prices", || Items([1.5, 2.25].into_iter()));
    /// let names = topology.spout("names", || Items(["tea"].into_iter()));
    /// topology.bolt("show", || Basic(Show)).shuffle(&prices).shuffle(&names);
    /// assert_eq!(topology.run()?.acked(), 3);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn bolt<B: Bolt>(&self, name: impl Into<String>, make: impl Fn() -> B + Send + 'static) -> BoltHandle<B> {
        let mut declaration = Declaration::default();
        B::declare(&mut declaration);
        let streams = streams_of::<B::Out>(declaration.streams);
        let adapters = handle::Adapters::<B::In>::default();
        let of_tasks = adapters.clone();
        let make = Box::new(move |place| bolt_task(make(), of_tasks.all(), place));
        BoltHandle::new(self.add(Node::new(name.into(), false, streams, make)), adapters)
    }

    /// Adds a bolt that is a closure; each task has a clone of it. See [`each`].
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use tine_core::component::Emit;
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
    /// let (count, counts) = std::sync::mpsc::sync_channel(100);
    /// let mut seen = HashMap::<&str, u32>::new();
    /// let topology = Topology::new("counts");
    /// let words = topology.spout("words", || Items(["to", "be", "or", "not", "to", "be"].into_iter()));
    /// topology
    ///     .each("count", move |word: &'static str, _: &mut Emit<'_, ()>| {
    ///         *seen.entry(word).or_default() += 1;
    ///         Ok(drop(count.send((word, seen[word]))))
    ///     })
    ///     .fields(&words, |word| *word)
    ///     .tasks(2);
    /// topology.run()?;
    /// let counts: HashMap<_, _> = counts.try_iter().collect();
    /// assert_eq!((counts["to"], counts["or"]), (2, 1));
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    pub fn each<I, O, F>(&self, name: impl Into<String>, closure: F) -> BoltHandle<Basic<Each<F, I, O>>>
    where
        I: Send + 'static,
        O: Data,
        F: FnMut(I, &mut Emit<'_, O>) -> Result<(), Failure> + Clone + Send + 'static,
    {
        self.bolt(name, move || each(closure.clone()))
    }

    fn add(&self, node: Node) -> NodeRef {
        let mut nodes = self.arena.nodes();
        nodes.push(node);
        NodeRef { arena: Arc::clone(&self.arena), index: nodes.len() - 1 }
    }

    /// Says that tuples of this type may travel between workers, encoded by their `Serialize` and `Deserialize`. Needed for every tuple
    /// type when a topology [joins](Topology::join) others, but for numbers, `bool`, `char`, `String` and `Vec<u8>`; Storm's
    /// `registerSerialization`.
    ///
    /// ```
    /// #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// struct Sale { shop: u32, cents: u64 }
    ///
    /// let topology = tine_core::topology::Topology::new("sales");
    /// topology.register_type::<Sale>();
    /// ```
    pub fn register_type<T: Data + Serialize + DeserializeOwned>(&self) -> &Self {
        encoding::register::<T>(&mut self.arena.encodings());
        self
    }

    /// Checks the topology without starting it.
    ///
    /// ```
    /// use tine_core::{component::Emit, topology::{BuildError, Topology}};
    ///
    /// let topology = Topology::new("words");
    /// assert_eq!(topology.check(), Err(BuildError::NoSpout { topology: "words".to_owned() }));
    /// topology.each("count", |_: String, _: &mut Emit<'_, ()>| Ok(()));
    /// assert!(topology.check().is_err());
    /// ```
    ///
    /// # Errors
    /// The first thing that makes no sense, with both ends.
    pub fn check(&self) -> Result<(), BuildError> {
        check::check(&self.arena, &self.arena.nodes()).map(|_| ())
    }

    /// Starts it in this process, and returns when its bolts are prepared. It runs until all spouts are done or somebody stops
    /// it.
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
    /// let topology = Topology::new("numbers");
    /// let numbers = topology.spout("numbers", || Items(0..u64::MAX));
    /// topology.each("sink", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
    /// let running = topology.start()?;
    /// // … it goes on until it is told to stop.
    /// let summary = running.stop()?;
    /// assert!(summary.drained);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    ///
    /// # Errors
    /// If it makes no sense, or the system refuses a thread. An error of a component comes out of [`Running::wait`].
    pub fn start(self) -> Result<Running, RunError> {
        build::build(&self.arena, &self.settings)
    }

    /// Starts this process as one of the topology's workers; the others are started the same way, anywhere. Each runs its share of the
    /// tasks, and the shares follow whoever comes and goes. Returns as soon as the port is open; what goes wrong later comes out of
    /// [`Running::wait`]. See [`cluster`].
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use tine_core::{cluster::Cluster, coordination::Coordination, topology::Topology, transport::Listen};
    ///
    /// # fn words() -> Topology { Topology::new("words") }
    /// fn worker(zookeeper: Arc<dyn Coordination>, address: &str) -> Result<(), Box<dyn std::error::Error>> {
    ///     let topology = words(); // the same on every worker
    ///     topology.register_type::<(String, u64)>();
    ///     topology.join(Cluster::new(zookeeper, Listen::on(address)?))?.wait()?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// If it makes no sense, a tuple type is not [registered](Topology::register_type), or the port cannot be opened.
    pub fn join(self, cluster: Cluster) -> Result<Running, RunError> {
        cluster::start(&self.arena, &self.settings, cluster)
    }

    /// Starts it, and waits for the end.
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
    /// let topology = Topology::new("odd");
    /// let numbers = topology.spout("numbers", || Items(0..10u64));
    /// let refuse_even = |number: u64, _: &mut Emit<'_, ()>| match number % 2 {
    ///     0 => Err(Failure::poison(format!("{number} is even"))),
    ///     _ => Ok(()),
    /// };
    /// topology.each("odd", refuse_even).shuffle(&numbers);
    /// let summary = topology.run()?;
    /// assert_eq!((summary.acked(), summary.failed()), (5, 5));
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    ///
    /// # Errors
    /// As [`start`](Topology::start) and [`Running::wait`].
    pub fn run(self) -> Result<Summary, RunError> {
        self.start()?.wait()
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let components: Vec<_> = self.arena.nodes().iter().map(|node| node.name.clone()).collect();
        f.debug_struct("Topology").field("name", &self.arena.topology).field("components", &components).finish()
    }
}
