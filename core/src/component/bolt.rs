//! Bolts: consume tuples, and may emit others.

use super::{Collector, Context, Data, Declaration, Input};
use crate::failure::Failure;

/// Consumes tuples. Every method runs on the thread of the task's executor, one after the other; it may block.
///
/// Every input must be acked or failed once, now or later. Those who want that done for them write a
/// [`BasicBolt`](super::BasicBolt) or a closure.
///
/// ```
/// use tine_core::component::{Bolt, Collector, Input};
/// use tine_core::failure::Failure;
///
/// /// Joins two tuples; the sum belongs to the trees of both.
/// #[derive(Default)]
/// struct Pairs(Option<Input<u64>>);
///
/// impl Bolt for Pairs {
///     type In = u64;
///     type Out = u64;
///
///     fn execute(&mut self, right: Input<u64>, out: &mut Collector<u64>) -> Result<(), Failure> {
///         let Some(left) = self.0.take() else {
///             self.0 = Some(right);
///             return Ok(());
///         };
///         out.emit_joined(&[left.as_ref(), right.as_ref()], *left + *right);
///         out.ack(left);
///         out.ack(right);
///         Ok(())
///     }
/// }
/// ```
///
/// A whole life: it declares a stream, opens something, works, and acks what is safe:
///
/// ```
/// use std::{fs::File, io::Write, path::PathBuf};
/// use tine_core::component::{Bolt, Collector, Context, Declaration, Input, Port, Receipt};
/// use tine_core::failure::Failure;
///
/// const LONG: Port<usize> = Port::new("long");
///
/// /// Writes lines to a file of its own; they are acked when they are on disk.
/// struct Append {
///     directory: PathBuf,
///     file: Option<File>,
///     unsafe_yet: Vec<Receipt>,
/// }
///
/// fn failed(error: std::io::Error) -> Failure {
///     Failure::transient(format!("cannot write: {error}"))
/// }
///
/// impl Bolt for Append {
///     type In = String;
///     type Out = ();
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(LONG);
///     }
///
///     fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
///         let path = self.directory.join(format!("lines-{}", context.index()));
///         self.file = Some(File::create(path).map_err(failed)?);
///         Ok(())
///     }
///
///     fn execute(&mut self, line: Input<String>, out: &mut Collector<()>) -> Result<(), Failure> {
///         if line.len() > 80 {
///             out.emit_to(LONG, &[line.as_ref()], line.len())?;
///         }
///         let file = self.file.as_mut().ok_or_else(|| Failure::fatal("it was not prepared"))?;
///         writeln!(file, "{}", line.value).map_err(failed)?;
///         self.unsafe_yet.push(line.receipt);
///         Ok(())
///     }
///
///     fn tick(&mut self, out: &mut Collector<()>) -> Result<(), Failure> {
///         self.file.as_ref().map_or(Ok(()), File::sync_data).map_err(failed)?;
///         self.unsafe_yet.drain(..).for_each(|receipt| out.ack(receipt));
///         Ok(())
///     }
///
///     fn cleanup(&mut self) {
///         tracing::info!("{} lines are not acked", self.unsafe_yet.len());
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
/// # let scratch = tempfile::tempdir()?;
/// # let directory = scratch.path().to_owned();
/// let topology = Topology::new("lines");
/// let lines = topology.spout("lines", || Items(["to be", "or not"].into_iter().map(str::to_owned)));
/// # let path = directory.clone();
/// let make = move || Append { directory: directory.clone(), file: None, unsafe_yet: vec![] };
/// topology.bolt("append", make).tick_every(Duration::from_millis(1)).shuffle(&lines);
/// assert_eq!(topology.run()?.acked(), 2);
/// # assert_eq!(std::fs::read_to_string(path.join("lines-0"))?, "to be\nor not\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Bolt: Send + 'static {
    /// What it consumes. A bolt with inputs of several types takes an enum that is `From` each of them.
    type In: Send + 'static;
    /// What it emits into its default stream; `()` if it emits nothing.
    type Out: Data;

    /// Declares further output streams.
    fn declare(_streams: &mut Declaration)
    where
        Self: Sized,
    {
    }

    /// Before the first tuple, and before any spout is opened. An error ends the topology.
    fn prepare(&mut self, _context: &Context) -> Result<(), Failure> {
        Ok(())
    }

    /// A tuple has come. `Err` fails it and reports the error; a `Fatal` one ends the topology.
    fn execute(&mut self, input: Input<Self::In>, out: &mut Collector<Self::Out>) -> Result<(), Failure>;

    /// The component's tick (`tick_every`) is due. An error is reported.
    fn tick(&mut self, _out: &mut Collector<Self::Out>) -> Result<(), Failure> {
        Ok(())
    }

    /// Somebody used the [`Waker`](super::Waker) of the context. An error is reported.
    ///
    /// ```
    /// use std::{sync::mpsc::{Receiver, SyncSender, sync_channel}, thread};
    /// use tine_core::component::{Bolt, Collector, Context, Input, Receipt};
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
    /// /// Squares are worked out by a thread beside it. (What waits for services does that as an `AsyncBolt`.)
    /// #[derive(Default)]
    /// struct Square {
    ///     questions: Option<SyncSender<(Receipt, u64)>>,
    ///     answers: Option<Receiver<(Receipt, u64)>>,
    ///     pending: usize,
    /// }
    ///
    /// impl Bolt for Square {
    ///     type In = u64;
    ///     type Out = u64;
    ///
    ///     fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
    ///         let (questions, asked) = sync_channel::<(Receipt, u64)>(100);
    ///         let (answer, answers) = sync_channel(10_000);
    ///         (self.questions, self.answers) = (Some(questions), Some(answers));
    ///         let waker = context.waker();
    ///         thread::spawn(move || {
    ///             for (receipt, number) in asked {
    ///                 let _ = answer.send((receipt, number * number));
    ///                 waker.wake();
    ///             }
    ///         });
    ///         Ok(())
    ///     }
    ///
    ///     fn execute(&mut self, input: Input<u64>, _: &mut Collector<u64>) -> Result<(), Failure> {
    ///         let Input { value, receipt } = input;
    ///         let questions = self.questions.as_ref().ok_or_else(|| Failure::fatal("it was not prepared"))?;
    ///         questions.send((receipt, value)).map_err(|_| Failure::fatal("the thread is gone"))?;
    ///         self.pending += 1;
    ///         Ok(())
    ///     }
    ///
    ///     fn woken(&mut self, out: &mut Collector<u64>) -> Result<(), Failure> {
    ///         for (receipt, square) in self.answers.iter().flat_map(Receiver::try_iter) {
    ///             self.pending -= 1;
    ///             out.emit_and_ack(receipt, square);
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn pending(&self) -> usize {
    ///         self.pending // a topology that drains waits for them
    ///     }
    /// }
    ///
    /// let topology = Topology::new("squares");
    /// let numbers = topology.spout("numbers", || Items(0..10u64));
    /// topology.bolt("square", Square::default).shuffle(&numbers);
    /// assert_eq!(topology.run()?.acked(), 10);
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    fn woken(&mut self, _out: &mut Collector<Self::Out>) -> Result<(), Failure> {
        Ok(())
    }

    /// Tuples that are being worked on elsewhere, so that a topology that drains waits for them.
    fn pending(&self) -> usize {
        0
    }

    /// The topology ends. Not called when the process dies.
    fn cleanup(&mut self) {}
}
