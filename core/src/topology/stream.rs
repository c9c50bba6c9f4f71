//! A stream of a component, typed by its tuples: what bolts subscribe to.

use std::{fmt, marker::PhantomData};

use super::node::End;
use crate::component::Data;

/// A stream of a component, with the type of its tuples.
///
/// ```
/// use tine_core::component::Emit;
/// use tine_core::topology::{Emits, Stream, Topology};
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
/// /// A part of a topology that several topologies have: whoever has numbers gets their squares.
/// fn squares(topology: &Topology, numbers: &Stream<u64>) -> Stream<u64> {
///     let square = |number: u64, out: &mut Emit<'_, u64>| Ok(out.emit(number * number));
///     topology.each("square", square).shuffle(numbers).tasks(2).stream()
/// }
///
/// let topology = Topology::new("sum of squares");
/// let numbers = topology.spout("numbers", || Items(0..10u64));
/// let squares = squares(&topology, &numbers.stream());
/// topology.each("sum", |_: u64, _: &mut Emit<'_, ()>| Ok(())).global(&squares);
/// assert_eq!(topology.run()?.acked(), 10);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct Stream<T> {
    pub(super) end: End,
    tuples: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    pub(super) fn new(end: End) -> Self {
        Stream { end, tuples: PhantomData }
    }
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Stream::new(self.end.clone())
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::Handle { component, stream, .. } => write!(f, "Stream({stream:?} of component {component})"),
            End::Named { component, stream } => write!(f, "Stream({stream:?} of {component:?})"),
        }
    }
}

impl<T: Data> Stream<T> {
    /// A stream by names: of a component that is added later, for edges that lead back, or for topologies put together from
    /// configuration. Whether it is there, and whether its tuples are of this type, is checked when the topology is built.
    ///
    /// ```
    /// use tine_core::component::{DEFAULT_STREAM, Emit};
    /// use tine_core::topology::{BuildError, Stream, Topology};
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
    /// let topology = Topology::new("configured");
    /// let lines = Stream::<String>::named("lines", DEFAULT_STREAM);
    /// topology.each("count", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&lines);
    ///
    /// // What it names is added later, and here by mistake with another type:
    /// topology.spout("lines", || Items(0..10u64));
    /// assert!(matches!(topology.check(), Err(BuildError::TypeMismatch { sent: "u64", .. })));
    /// ```
    pub fn named(component: impl Into<String>, stream: impl Into<String>) -> Stream<T> {
        Stream::new(End::Named { component: component.into(), stream: stream.into() })
    }
}

/// What has a stream to subscribe to: components (their default stream) and streams.
///
/// ```
/// use tine_core::component::{Data, Emit};
/// use tine_core::topology::{Emits, Topology};
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
/// /// Counts what a spout, a bolt or a stream emits, whatever it is.
/// fn count<E: Emits>(topology: &Topology, name: &str, from: &E) {
///     topology.each(name, |_: E::Tuple, _: &mut Emit<'_, ()>| Ok(())).shuffle(&from.stream());
/// }
///
/// let topology = Topology::new("counted");
/// let numbers = topology.spout("numbers", || Items(0..10u64));
/// let texts = topology.each("text", |number: u64, out: &mut Emit<'_, String>| Ok(out.emit(number.to_string())));
/// let texts = texts.shuffle(&numbers);
/// count(&topology, "numbers seen", &numbers);
/// count(&topology, "texts seen", &texts);
/// let summary = topology.run()?;
/// assert!(summary.tasks.iter().filter(|task| task.component.ends_with("seen")).all(|task| task.executed == 10));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub trait Emits {
    /// The type of the tuples.
    type Tuple: Data;

    /// The stream.
    fn stream(&self) -> Stream<Self::Tuple>;
}

impl<T: Data> Emits for Stream<T> {
    type Tuple = T;

    fn stream(&self) -> Stream<T> {
        self.clone()
    }
}
