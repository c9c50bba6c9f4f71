//! Spouts: where tuples come from.

use std::time::Duration;

use super::{Context, Data, Declaration, SpoutCollector};
use crate::failure::Failure;

/// What a spout says after a call of [`next`](Spout::next).
///
/// ```
/// use std::time::Duration;
/// use tine_core::component::{Emit, Next, Spout, SpoutCollector};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// /// Counts down, one number each millisecond.
/// struct Countdown(u64);
///
/// impl Spout for Countdown {
///     type Out = u64;
///     type Id = ();
///
///     fn next(&mut self, out: &mut SpoutCollector<u64, ()>) -> Result<Next, Failure> {
///         out.emit(self.0, ());
///         if self.0 == 0 {
///             return Ok(Next::Done);
///         }
///         self.0 -= 1;
///         Ok(Next::In(Duration::from_millis(1)))
///     }
/// }
///
/// let topology = Topology::new("countdown");
/// let numbers = topology.spout("countdown", || Countdown(3));
/// topology.each("say", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&numbers);
/// assert_eq!(topology.run()?.acked(), 4);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There may be more: call again.
    More,
    /// Nothing at the moment: call again soon. The wait grows with every idle call, up to a millisecond.
    Idle,
    /// Nothing for so long, unless a tree ends before.
    In(Duration),
    /// There will never be more: `next` is not called again, not even when a tree fails afterwards. So a spout that emits failed
    /// tuples again says this once [`pending`](SpoutCollector::pending) is 0. When all spouts have said it and everything is
    /// worked off, the topology ends.
    Done,
}

/// Starts tuple trees. Every method runs on the thread of the task's executor, one after the other.
///
/// ```
/// use tine_core::component::{Next, Spout, SpoutCollector};
/// use tine_core::failure::Failure;
///
/// /// Emits the numbers below ten, and each again until it is acked.
/// struct Numbers { todo: Vec<u64>, pending: usize }
///
/// impl Spout for Numbers {
///     type Out = u64;
///     type Id = u64;
///
///     fn next(&mut self, out: &mut SpoutCollector<u64, u64>) -> Result<Next, Failure> {
///         match self.todo.pop() {
///             Some(number) => {
///                 self.pending += 1;
///                 out.emit(number, number);
///                 Ok(Next::More)
///             }
///             None if self.pending == 0 => Ok(Next::Done),
///             None => Ok(Next::Idle),
///         }
///     }
///
///     fn ack(&mut self, _: u64) {
///         self.pending -= 1;
///     }
///
///     fn fail(&mut self, number: u64, _: Failure) {
///         self.pending -= 1;
///         self.todo.push(number);
///     }
/// }
/// ```
///
/// A whole life, with a pause:
///
/// ```
/// use std::sync::mpsc::SyncSender;
/// use tine_core::component::{Context, Declaration, Emit, Next, Port, Spout, SpoutCollector};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// const NEWS: Port<String> = Port::new("news");
///
/// /// Would subscribe to something; here it says what it would do.
/// struct Feed(SyncSender<&'static str>);
///
/// impl Feed {
///     fn say(&self, what: &'static str) {
///         let _ = self.0.try_send(what);
///     }
/// }
///
/// impl Spout for Feed {
///     type Out = u64;
///     type Id = ();
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(NEWS);
///     }
///
///     fn open(&mut self, context: &Context) -> Result<(), Failure> {
///         tracing::info!("{} of {}", context.component(), context.topology());
///         self.say("subscribe");
///         Ok(())
///     }
///
///     fn deactivate(&mut self) {
///         self.say("pause");
///     }
///
///     fn activate(&mut self) {
///         self.say("go on");
///     }
///
///     fn next(&mut self, _: &mut SpoutCollector<u64, ()>) -> Result<Next, Failure> {
///         Ok(Next::Idle) // nothing has come
///     }
///
///     fn close(&mut self) {
///         self.say("unsubscribe");
///     }
/// }
///
/// let (say, said) = std::sync::mpsc::sync_channel(100);
/// let topology = Topology::new("feed");
/// let feed = topology.spout("feed", move || Feed(say.clone()));
/// topology.each("news", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&feed.port(NEWS));
/// let running = topology.start()?;
/// assert_eq!(said.recv()?, "subscribe");
/// running.deactivate();
/// assert_eq!(said.recv()?, "pause");
/// running.activate();
/// assert_eq!(said.recv()?, "go on");
/// running.stop()?;
/// assert_eq!(said.try_iter().last(), Some("unsubscribe"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Spout: Send + 'static {
    /// What it emits into its default stream.
    type Out: Data;
    /// How it names the trees that it wants to hear of again.
    type Id: Send + 'static;

    /// Declares further output streams.
    fn declare(_streams: &mut Declaration)
    where
        Self: Sized,
    {
    }

    /// Before anything else, when all bolts are prepared. An error ends the topology.
    fn open(&mut self, _context: &Context) -> Result<(), Failure> {
        Ok(())
    }

    /// The topology goes on after a [`deactivate`](Spout::deactivate).
    fn activate(&mut self) {}

    /// The topology pauses: `next` is not called for a while; trees still end.
    fn deactivate(&mut self) {}

    /// Emits what there is and returns; it should emit one tuple or a few, and should not wait for long, because trees end
    /// only in between. Not called while `max_pending` trees are under way or a queue is full. An error is reported; a
    /// `Fatal` one ends the topology.
    fn next(&mut self, out: &mut SpoutCollector<Self::Out, Self::Id>) -> Result<Next, Failure>;

    /// Everything that came of a tuple was acked.
    fn ack(&mut self, _id: Self::Id) {}

    /// Something that came of a tuple failed, or nobody spoke of it within the message timeout.
    fn fail(&mut self, _id: Self::Id, _failure: Failure) {}

    /// The topology ends. Not called when the process dies.
    fn close(&mut self) {}
}
