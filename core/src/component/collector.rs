//! Where bolts emit, ack and fail.

use std::fmt;

use super::{Data, Port, Receipt, Streams};
use crate::{
    engine::{lineage::Lineage, links::Links},
    failure::Failure,
};

/// Where a bolt emits, acks and fails. Nothing here waits, but for a call that emits thousands of tuples at once.
///
/// ```
/// use tine_core::component::{Bolt, Collector, Declaration, Emit, Input, Port};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// const WRONG: Port<String> = Port::new("wrong");
///
/// /// Reads numbers. What is none goes into a stream of its own; an empty line fails, and its spout hears of that.
/// struct Read;
///
/// impl Bolt for Read {
///     type In = String;
///     type Out = u64;
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(WRONG);
///     }
///
///     fn execute(&mut self, line: Input<String>, out: &mut Collector<u64>) -> Result<(), Failure> {
///         match line.parse() {
///             Ok(number) => out.emit(&line, number),
///             Err(_) if line.is_empty() => {
///                 out.fail(line, &Failure::poison("an empty line"));
///                 return Ok(());
///             }
///             Err(error) => {
///                 out.report(&Failure::poison(format!("{:?}: {error}", line.value)));
///                 out.emit_to(WRONG, &[line.as_ref()], line.value.clone())?;
///             }
///         }
///         out.ack(line);
///         Ok(())
///     }
/// }
///
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
/// # let text = || ["7", "seven", ""].into_iter().map(str::to_owned);
/// let topology = Topology::new("numbers");
/// let lines = topology.spout("lines", move || Items(text()));
/// let read = topology.bolt("read", || Read).shuffle(&lines);
/// topology.each("numbers", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&read);
/// topology.each("wrong", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&read.port(WRONG));
/// let summary = topology.run()?;
/// assert_eq!((summary.acked(), summary.failed()), (2, 1));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
///
/// What works on several tuples at a time holds them, and acks them when their result is emitted:
///
/// ```
/// use tine_core::component::{Bolt, Collector, Input, Receipt};
/// use tine_core::failure::Failure;
///
/// /// Sums up three numbers at a time.
/// #[derive(Default)]
/// struct Threes(Vec<Input<u64>>);
///
/// impl Bolt for Threes {
///     type In = u64;
///     type Out = u64;
///
///     fn execute(&mut self, number: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
///         self.0.push(number);
///         if self.0.len() == 3 {
///             let anchors: Vec<&Receipt> = self.0.iter().map(AsRef::as_ref).collect();
///             out.emit_joined(&anchors, self.0.iter().map(|number| number.value).sum());
///             self.0.drain(..).for_each(|number| out.ack(number));
///         }
///         Ok(())
///     }
///
///     fn tick(&mut self, out: &mut Collector<u64>) -> Result<(), Failure> {
///         self.0.iter().for_each(|number| out.keep_alive(number)); // they wait, and do not time out
///         Ok(())
///     }
/// }
///
/// # use std::time::Duration;
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
/// let (seen, sums) = std::sync::mpsc::sync_channel(100);
/// let topology = Topology::new("threes");
/// let numbers = topology.spout("numbers", || Items(0..6u64));
/// let threes = topology.bolt("threes", Threes::default).tick_every(Duration::from_secs(5)).shuffle(&numbers);
/// topology.each("sums", move |sum: u64, _: &mut Emit<'_, ()>| Ok(drop(seen.send(sum)))).shuffle(&threes);
/// assert_eq!(topology.run()?.acked(), 6);
/// assert_eq!(sums.try_iter().collect::<Vec<_>>(), [0 + 1 + 2, 3 + 4 + 5]);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct Collector<O> {
    pub(crate) streams: Streams<O>,
    pub(crate) links: Links,
}

impl<O: Data> Collector<O> {
    /// Emits into the default stream, anchored to a tuple: its trees are complete only when this one is acked too.
    #[inline]
    pub fn emit(&mut self, anchor: &impl AsRef<Receipt>, value: O) {
        let mut parent = anchor.as_ref().lineage.borrow_mut();
        self.streams.default.emit(value, &mut self.links, |links| parent.child(&mut links.random));
    }

    /// Emits into the default stream, anchored to a tuple, and acks that one: cheaper than both one after the other, because the new
    /// tuple takes the place of the old one in its trees, and nobody needs to be told.
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
    /// struct Double;
    ///
    /// impl Bolt for Double {
    ///     type In = u64;
    ///     type Out = u64;
    ///
    ///     fn execute(&mut self, input: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
    ///         let Input { value, receipt } = input;
    ///         out.emit_and_ack(receipt, 2 * value);
    ///         Ok(())
    ///     }
    /// }
    /// # let topology = Topology::new("doubles");
    /// # let numbers = topology.spout("numbers", || Items(0..10u64));
    /// # let doubles = topology.bolt("double", || Double).shuffle(&numbers);
    /// # let (seen, all) = std::sync::mpsc::sync_channel(100);
    /// # topology.each("seen", move |it: u64, _: &mut Emit<'_, ()>| Ok(drop(seen.send(it)))).shuffle(&doubles);
    /// # assert_eq!(topology.run()?.acked(), 10);
    /// # assert_eq!(all.try_iter().sum::<u64>(), 90);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    #[inline]
    pub fn emit_and_ack(&mut self, held: impl Into<Receipt>, value: O) {
        let Receipt { lineage, from, input, timed } = held.into();
        let lineage = self.streams.default.pass_on(value, lineage.into_inner(), &mut self.links).into();
        self.links.ack(Receipt { lineage, from, input, timed });
    }

    /// Emits into the default stream, anchored to several tuples.
    pub fn emit_joined(&mut self, anchors: &[&Receipt], value: O) {
        self.streams.default.emit(value, &mut self.links, |links| child_of_all(anchors, links));
    }

    /// Emits into the default stream; nobody hears of the tuple's fate.
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
    /// /// Passes on every hundredth number, to a log that nobody waits for.
    /// struct Sample;
    ///
    /// impl Bolt for Sample {
    ///     type In = u64;
    ///     type Out = u64;
    ///
    ///     fn execute(&mut self, number: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
    ///         if *number % 100 == 0 {
    ///             out.emit_unanchored(*number);
    ///         }
    ///         out.ack(number);
    ///         Ok(())
    ///     }
    /// }
    /// # let topology = Topology::new("samples");
    /// # let numbers = topology.spout("numbers", || Items(0..300u64));
    /// # let samples = topology.bolt("sample", || Sample).shuffle(&numbers);
    /// # let (seen, all) = std::sync::mpsc::sync_channel(100);
    /// # topology.each("log", move |it: u64, _: &mut Emit<'_, ()>| Ok(drop(seen.send(it)))).shuffle(&samples);
    /// # assert_eq!(topology.run()?.acked(), 300);
    /// # assert_eq!(all.try_iter().collect::<Vec<_>>(), [0, 100, 200]);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    #[inline]
    pub fn emit_unanchored(&mut self, value: O) {
        self.streams.default.emit(value, &mut self.links, |_| Lineage::None);
    }

    /// Emits into the default stream, to one task: `target` counts the tasks of the stream's subscribers in the order in which
    /// they were wired.
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
    /// /// Small numbers go to the first task, large ones to the last.
    /// #[derive(Default)]
    /// struct BySize {
    ///     last: usize,
    /// }
    ///
    /// impl Bolt for BySize {
    ///     type In = u64;
    ///     type Out = u64;
    ///
    ///     fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
    ///         self.last = context.targets(DEFAULT_STREAM).len() - 1;
    ///         Ok(())
    ///     }
    ///
    ///     fn execute(&mut self, number: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
    ///         let target = if *number < 100 { 0 } else { self.last };
    ///         out.emit_direct(target, &number, *number)?;
    ///         out.ack(number);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let topology = Topology::new("sizes");
    /// let numbers = topology.spout("numbers", || Items(90..103u64));
    /// let by_size = topology.bolt("by size", BySize::default).shuffle(&numbers);
    /// topology.each("sizes", |_: u64, _: &mut Emit<'_, ()>| Ok(())).direct(&by_size).tasks(2);
    /// let summary = topology.run()?;
    /// let sizes = summary.tasks.iter().filter(|task| task.component == "sizes");
    /// assert_eq!(sizes.map(|task| task.executed).collect::<Vec<_>>(), [10, 3]);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such task.
    pub fn emit_direct(&mut self, target: usize, anchor: &impl AsRef<Receipt>, value: O) -> Result<(), Failure> {
        let mut parent = anchor.as_ref().lineage.borrow_mut();
        self.streams.default.emit_direct(target, value, &mut self.links, |links| parent.child(&mut links.random))
    }

    /// Emits into another stream, anchored to any number of tuples.
    ///
    /// # Errors
    /// If the component does not declare the stream; return it from `execute` with `?`.
    pub fn emit_to<T: Data>(&mut self, port: Port<T>, anchors: &[&Receipt], value: T) -> Result<(), Failure> {
        let stream = self.streams.port(port)?;
        stream.emit(value, &mut self.links, |links| child_of_all(anchors, links));
        Ok(())
    }

    /// Emits into another stream, to one task.
    ///
    /// ```
    /// # use tine_core::{engine::Summary, topology::Topology};
    /// # use tine_core::{component::*, failure::*};
    /// # struct Items<I>(I);
    /// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
    /// #     type Out = I::Item;
    /// #     type Id = ();
    /// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
    /// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
    /// #     }
    /// # }
    /// const LATE: Port<u64> = Port::new("late");
    /// # struct Watch { newest: u64 }
    /// # impl Bolt for Watch {
    /// #     type In = u64;
    /// #     type Out = u64;
    /// #     fn declare(streams: &mut Declaration) {
    /// #         streams.stream(LATE);
    /// #     }
    ///
    /// // In a bolt that declares `LATE`: late ones all go to one task, whatever their key.
    /// fn execute(&mut self, time: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
    ///     if *time < self.newest {
    ///         out.emit_direct_to(LATE, 0, &[time.as_ref()], *time)?;
    ///     } else {
    ///         self.newest = *time;
    ///         out.emit(&time, *time);
    ///     }
    ///     out.ack(time);
    ///     Ok(())
    /// }
    /// # }
    /// # let topology = Topology::new("times");
    /// # let times = topology.spout("times", || Items([3, 1, 4u64].into_iter()));
    /// # let watch = topology.bolt("watch", || Watch { newest: 0 }).shuffle(&times);
    /// # topology.each("late", |_: u64, _: &mut Emit<'_, ()>| Ok(())).direct(&watch.port(LATE)).tasks(2);
    /// # let summary: Summary = topology.run()?;
    /// # let late = summary.tasks.iter().filter(|task| task.component == "late");
    /// # assert_eq!(late.map(|task| task.executed).collect::<Vec<_>>(), [1, 0]);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    ///
    /// # Errors
    /// If the component does not declare the stream, or there is no such task.
    pub fn emit_direct_to<T: Data>(
        &mut self,
        port: Port<T>,
        target: usize,
        anchors: &[&Receipt],
        value: T,
    ) -> Result<(), Failure> {
        let stream = self.streams.port(port)?;
        stream.emit_direct(target, value, &mut self.links, |links| child_of_all(anchors, links))
    }

    /// The tuple is done.
    #[inline]
    pub fn ack(&mut self, held: impl Into<Receipt>) {
        self.links.ack(held.into());
    }

    /// The tuple has failed, and so have its trees: their spouts hear of it at once.
    pub fn fail(&mut self, held: impl Into<Receipt>, failure: &Failure) {
        let receipt: Receipt = held.into();
        self.links.fail(&receipt.lineage.into_inner(), failure);
    }

    /// Work on the tuple goes on: its trees do not time out meanwhile. Storm's `resetTimeout`.
    pub fn keep_alive(&mut self, held: &impl AsRef<Receipt>) {
        let lineage = held.as_ref().lineage.borrow();
        self.links.keep_alive(&lineage);
    }

    /// Makes an error visible, with time and task; a `Fatal` one ends the topology.
    pub fn report(&mut self, failure: &Failure) {
        self.links.report(failure);
    }
}

fn child_of_all(anchors: &[&Receipt], links: &mut Links) -> Lineage {
    let children = anchors.iter().map(|parent| parent.lineage.borrow_mut().child(&mut links.random));
    children.fold(Lineage::None, Lineage::join)
}

impl<O> fmt::Debug for Collector<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("count", &self.links.count).finish_non_exhaustive()
    }
}
