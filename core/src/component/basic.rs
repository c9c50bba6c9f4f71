//! Bolts that anchor and ack by themselves: [`BasicBolt`], and closures.

use std::{fmt, marker::PhantomData};

use super::{Bolt, Collector, Context, Data, Declaration, Input, Port, Receipt};
use crate::failure::Failure;

/// A bolt that is done with a tuple when `execute` returns: what it emits is anchored to the tuple, which is then acked,
/// or failed on `Err`. What is emitted with `Emit::emit` is handed on when the next tuple is emitted or `execute` returns `Ok`.
///
/// ```
/// use tine_core::component::{Basic, BasicBolt, Emit};
/// use tine_core::failure::Failure;
///
/// /// Numbers words in the order in which they come.
/// #[derive(Default)]
/// struct Number(u64);
///
/// impl BasicBolt for Number {
///     type In = String;
///     type Out = (u64, String);
///
///     fn execute(&mut self, word: String, out: &mut Emit<'_, (u64, String)>) -> Result<(), Failure> {
///         if word.is_empty() {
///             return Err(Failure::poison("an empty word"));
///         }
///         self.0 += 1;
///         out.emit((self.0, word));
///         Ok(())
///     }
/// }
///
/// let topology = tine_core::topology::Topology::new("numbered");
/// topology.bolt("number", || Basic(Number::default()));
/// ```
///
/// With a stream of its own, something to begin and something to end with, and a clock:
///
/// ```
/// use std::time::Duration;
/// use tine_core::component::{Basic, BasicBolt, Context, Declaration, Emit, Next, Port, Spout, SpoutCollector};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// const EMPTY: Port<()> = Port::new("empty");
///
/// /// Says now and then how many letters there were.
/// #[derive(Default)]
/// struct Letters {
///     name: String,
///     count: usize,
/// }
///
/// impl BasicBolt for Letters {
///     type In = &'static str;
///     type Out = usize;
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(EMPTY);
///     }
///
///     fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
///         self.name = format!("{} {}", context.component(), context.index());
///         Ok(())
///     }
///
///     fn execute(&mut self, line: &'static str, out: &mut Emit<'_, usize>) -> Result<(), Failure> {
///         self.count += line.len();
///         if line.is_empty() { out.emit_to(EMPTY, ()) } else { Ok(()) }
///     }
///
///     fn tick(&mut self, out: &mut Emit<'_, usize>) -> Result<(), Failure> {
///         out.emit(self.count);
///         Ok(())
///     }
///
///     fn cleanup(&mut self) {
///         tracing::info!("{}: {} letters", self.name, self.count);
///     }
/// }
///
/// # struct Words(std::array::IntoIter<&'static str, 3>);
/// # impl Spout for Words {
/// #     type Out = &'static str;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<&'static str, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Idle, |word| { out.emit(word, ()); Next::More }))
/// #     }
/// # }
/// let (told, counts) = std::sync::mpsc::sync_channel(100);
/// let topology = Topology::new("letters");
/// let words = topology.spout("words", || Words(["to", "be", ""].into_iter())); // and then it waits for more
/// let letters = topology.bolt("letters", || Basic(Letters::default())).tick_every(Duration::from_millis(1));
/// let letters = letters.shuffle(&words);
/// topology.each("tell", move |count: usize, _: &mut Emit<'_, ()>| Ok(drop(told.try_send(count)))).global(&letters);
/// let running = topology.start()?;
/// assert!(counts.iter().any(|count| count == 4));
/// # running.kill()?;
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub trait BasicBolt: Send + 'static {
    /// What it consumes.
    type In: Send + 'static;
    /// What it emits into its default stream; `()` if it emits nothing.
    type Out: Data;

    /// Declares further output streams.
    fn declare(_streams: &mut Declaration)
    where
        Self: Sized,
    {
    }

    /// Before the first tuple. An error ends the topology.
    fn prepare(&mut self, _context: &Context) -> Result<(), Failure> {
        Ok(())
    }

    /// A tuple has come. `Err` fails it and reports the error; a `Fatal` one ends the topology.
    fn execute(&mut self, value: Self::In, out: &mut Emit<'_, Self::Out>) -> Result<(), Failure>;

    /// The component's tick is due; what is emitted is not anchored.
    fn tick(&mut self, _out: &mut Emit<'_, Self::Out>) -> Result<(), Failure> {
        Ok(())
    }

    /// The topology ends.
    fn cleanup(&mut self) {}
}

/// Emits, anchored to the tuple that is being executed.
///
/// ```
/// use tine_core::component::{Basic, BasicBolt, Declaration, Emit, Port};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// const LATE: Port<u64> = Port::new("late");
///
/// /// Separates what comes in order of time from what does not.
/// #[derive(Default)]
/// struct InOrder(u64);
///
/// impl BasicBolt for InOrder {
///     type In = u64;
///     type Out = u64;
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(LATE);
///     }
///
///     fn execute(&mut self, time: u64, out: &mut Emit<'_, u64>) -> Result<(), Failure> {
///         if time < self.0 {
///             out.report(&Failure::poison(format!("{time} comes after {}", self.0)));
///             return out.emit_to(LATE, time);
///         }
///         self.0 = time;
///         out.emit(time);
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
/// let topology = Topology::new("times");
/// let times = topology.spout("times", || Items([3, 1, 4u64].into_iter()));
/// let in_order = topology.bolt("in order", || Basic(InOrder::default())).shuffle(&times);
/// topology.each("good", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&in_order);
/// topology.each("late", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&in_order.port(LATE));
/// let summary = topology.run()?;
/// let executed = |bolt| summary.tasks.iter().find(|task| task.component == bolt).map(|task| task.executed);
/// assert_eq!((executed("good"), executed("late")), (Some(2), Some(1)));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct Emit<'a, O> {
    out: &'a mut Collector<O>,
    anchor: Option<&'a Receipt>,
    /// Emitted last, and held until the next one or the end: the very last takes the place of the input in its trees.
    last: Option<O>,
}

impl<O: Data> Emit<'_, O> {
    /// Emits into the default stream.
    #[inline]
    pub fn emit(&mut self, value: O) {
        match self.anchor {
            Some(receipt) => {
                if let Some(before) = self.last.replace(value) {
                    self.out.emit(receipt, before);
                }
            }
            None => self.out.emit_unanchored(value),
        }
    }

    /// Emits into another stream.
    ///
    /// # Errors
    /// If the component does not declare the stream.
    pub fn emit_to<T: Data>(&mut self, port: Port<T>, value: T) -> Result<(), Failure> {
        self.out.emit_to(port, self.anchor.as_slice(), value)
    }

    /// Makes an error visible, with time and task.
    pub fn report(&mut self, failure: &Failure) {
        self.out.report(failure);
    }
}

impl<O> fmt::Debug for Emit<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emit").field("anchor", &self.anchor).finish_non_exhaustive()
    }
}

/// A [`BasicBolt`] as a [`Bolt`].
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
/// struct Positive;
///
/// impl BasicBolt for Positive {
///     type In = i64;
///     type Out = i64;
///
///     fn execute(&mut self, number: i64, out: &mut Emit<'_, i64>) -> Result<(), Failure> {
///         if number > 0 {
///             out.emit(number);
///         }
///         Ok(())
///     }
/// }
///
/// let topology = Topology::new("filter");
/// let numbers = topology.spout("numbers", || Items(-5..5i64));
/// topology.bolt("positive", || Basic(Positive)).shuffle(&numbers);
/// assert_eq!(topology.run()?.acked(), 10);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Basic<B>(pub B);

impl<B: BasicBolt> Bolt for Basic<B> {
    type In = B::In;
    type Out = B::Out;

    fn declare(streams: &mut Declaration) {
        B::declare(streams);
    }

    fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
        self.0.prepare(context)
    }

    #[inline]
    fn execute(&mut self, input: Input<B::In>, out: &mut Collector<B::Out>) -> Result<(), Failure> {
        let Input { value, receipt } = input;
        let mut emit = Emit { out, anchor: Some(&receipt), last: None };
        let executed = self.0.execute(value, &mut emit);
        let last = emit.last;
        executed?;
        match last {
            Some(value) => out.emit_and_ack(receipt, value),
            None => out.ack(receipt),
        }
        Ok(())
    }

    fn tick(&mut self, out: &mut Collector<B::Out>) -> Result<(), Failure> {
        self.0.tick(&mut Emit { out, anchor: None, last: None })
    }

    fn cleanup(&mut self) {
        self.0.cleanup();
    }
}

/// A closure as a [`BasicBolt`]; see [`each`].
///
/// ```
/// use tine_core::component::{Basic, Each, Emit, each};
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
/// /// A bolt that a library can offer, although nobody can name the closure's type.
/// fn divide_by(divisor: u64) -> Basic<Each<impl FnMut(u64, &mut Emit<'_, u64>) -> Result<(), Failure>, u64, u64>> {
///     each(move |number: u64, out: &mut Emit<'_, u64>| {
///         out.emit(number.checked_div(divisor).ok_or_else(|| Failure::fatal("division by zero"))?);
///         Ok(())
///     })
/// }
///
/// let topology = Topology::new("divide");
/// let numbers = topology.spout("numbers", || Items(0..10u64));
/// topology.bolt("divide", || divide_by(3)).shuffle(&numbers);
/// assert_eq!(topology.run()?.acked(), 10);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub struct Each<F, I, O> {
    closure: F,
    types: PhantomData<fn(I) -> O>,
}

/// Makes a bolt of a closure: called for each tuple, which is acked when it returns `Ok`.
///
/// ```
/// use tine_core::component::{Emit, each};
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
/// let words = || each(|line: String, out: &mut Emit<'_, String>| {
///     line.split_whitespace().for_each(|word| out.emit(word.to_owned()));
///     Ok(())
/// });
///
/// let topology = Topology::new("words");
/// let lines = topology.spout("lines", || Items(["to be", "or not"].into_iter().map(str::to_owned)));
/// topology.bolt("words", words).shuffle(&lines);
/// assert_eq!(topology.run()?.acked(), 2);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
pub fn each<I, O, F>(closure: F) -> Basic<Each<F, I, O>>
where
    I: Send + 'static,
    O: Data,
    F: FnMut(I, &mut Emit<'_, O>) -> Result<(), Failure> + Send + 'static,
{
    Basic(Each { closure, types: PhantomData })
}

impl<I, O, F> BasicBolt for Each<F, I, O>
where
    I: Send + 'static,
    O: Data,
    F: FnMut(I, &mut Emit<'_, O>) -> Result<(), Failure> + Send + 'static,
{
    type In = I;
    type Out = O;

    #[inline]
    fn execute(&mut self, value: I, out: &mut Emit<'_, O>) -> Result<(), Failure> {
        (self.closure)(value, out)
    }
}

impl<F, I, O> fmt::Debug for Each<F, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Each")
    }
}
