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
