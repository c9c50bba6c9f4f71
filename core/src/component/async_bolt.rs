//! Bolts that wait for services: many calls at once, on a tokio runtime, never more than a bound.

use std::{
    fmt,
    future::Future,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use tokio::runtime::Handle;

use super::{Bolt, Collector, Context, Data, Input, Receipt, Waker};
use crate::failure::Failure;

/// A bolt whose work is a future: a call of a service, a query.
///
/// What a call answers with is emitted anchored to its tuple, which is then acked; `Err` fails it. Calls overtake one
/// another, so the order of tuples is not kept.
///
/// ```
/// use tine_core::{component::AsyncBolt, failure::Failure};
///
/// /// Asks a service for the price of a thing.
/// struct Price { service: std::sync::Arc<str> }
///
/// impl AsyncBolt for Price {
///     type In = String;
///     type Out = u64;
///
///     fn call(&mut self, thing: String) -> impl Future<Output = Result<Vec<u64>, Failure>> + Send + 'static {
///         let service = self.service.clone();
///         async move {
///             match thing.as_str() {
///                 "" => Err(Failure::poison(format!("{service} knows no thing without a name"))),
///                 _ => Ok(vec![700]),
///             }
///         }
///     }
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let mut price = Price { service: "prices.example".into() };
/// assert_eq!(runtime.block_on(price.call("tea".into())), Ok(vec![700]));
/// assert!(runtime.block_on(price.call("".into())).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait AsyncBolt: Send + 'static {
    /// What it consumes.
    type In: Send + 'static;
    /// What it emits into its default stream; `()` if it emits nothing.
    type Out: Data;

    /// Before the first tuple. An error ends the topology.
    ///
    /// ```
    /// # use tine_core::component::{Async, AsyncBolt, Context};
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
    /// /// Says who asks.
    /// #[derive(Default)]
    /// struct Greet {
    ///     name: String,
    /// }
    ///
    /// impl AsyncBolt for Greet {
    ///     type In = u64;
    ///     type Out = String;
    ///
    ///     fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
    ///         self.name = format!("{} {}", context.component(), context.index());
    ///         Ok(())
    ///     }
    ///
    ///     fn call(&mut self, user: u64) -> impl Future<Output = Result<Vec<String>, Failure>> + Send + 'static {
    ///         let greeting = format!("{} greets user {user}", self.name);
    ///         async move { Ok(vec![greeting]) }
    ///     }
    /// }
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let handle = runtime.handle().clone();
    /// # let (told, greetings) = std::sync::mpsc::sync_channel(100);
    /// # let topology = Topology::new("users");
    /// # let users = topology.spout("users", || Items(7..8u64));
    /// # let greet = topology.bolt("greet", move || Async::new(Greet::default(), 1, handle.clone())).shuffle(&users);
    /// # topology.each("tell", move |it: String, _: &mut Emit<'_, ()>| Ok(drop(told.send(it)))).shuffle(&greet);
    /// # topology.run()?;
    /// # assert_eq!(greetings.try_iter().collect::<Vec<_>>(), ["greet 0 greets user 7"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn prepare(&mut self, _context: &Context) -> Result<(), Failure> {
        Ok(())
    }

    /// Begins the call for one tuple. It runs on the runtime; clone into it what it needs.
    fn call(&mut self, value: Self::In) -> impl Future<Output = Result<Vec<Self::Out>, Failure>> + Send + 'static;
}

/// An [`AsyncBolt`] as a [`Bolt`].
///
/// ```
/// use tine_core::component::{Async, AsyncBolt};
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
/// struct Lookup;
///
/// impl AsyncBolt for Lookup {
///     type In = u64;
///     type Out = String;
///
///     fn call(&mut self, user: u64) -> impl Future<Output = Result<Vec<String>, Failure>> + Send + 'static {
///         async move { Ok(vec![format!("user {user}")]) }
///     }
/// }
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let handle = runtime.handle().clone();
/// let topology = Topology::new("users");
/// let users = topology.spout("users", || Items(0..10u64));
/// topology.bolt("lookup", move || Async::new(Lookup, 100, handle.clone())).shuffle(&users);
/// assert_eq!(topology.run()?.acked(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Async<B: AsyncBolt> {
    bolt: B,
    /// Calls under way at most.
    limit: usize,
    runtime: Handle,
    under_way: usize,
    waker: Option<Waker>,
    sender: SyncSender<Answer<B::Out>>,
    answers: Receiver<Answer<B::Out>>,
}

struct Answer<O> {
    receipt: Receipt,
    result: Result<Vec<O>, Failure>,
}

impl<B: AsyncBolt> Async<B> {
    /// Runs the bolt's calls on `runtime`, at most `limit` at once (at least one) for each task. When as many are under way, the
    /// task waits for one of them, and backpressure reaches the spout.
    pub fn new(bolt: B, limit: usize, runtime: Handle) -> Self {
        let limit = limit.max(1);
        // Room for every call that can be under way: answering never waits.
        let (sender, answers) = sync_channel(limit);
        Async { bolt, limit, runtime, under_way: 0, waker: None, sender, answers }
    }

    fn settle(&mut self, answer: Answer<B::Out>, out: &mut Collector<B::Out>) {
        self.under_way -= 1;
        let Answer { receipt, result } = answer;
        match result {
            Ok(values) => {
                values.into_iter().for_each(|value| out.emit(&receipt, value));
                out.ack(receipt);
            }
            Err(failure) => {
                out.report(&failure);
                out.fail(receipt, &failure);
            }
        }
    }
}

impl<B: AsyncBolt> Bolt for Async<B> {
    type In = B::In;
    type Out = B::Out;

    fn prepare(&mut self, context: &Context) -> Result<(), Failure> {
        self.waker = Some(context.waker());
        self.bolt.prepare(context)
    }

    fn execute(&mut self, input: Input<B::In>, out: &mut Collector<B::Out>) -> Result<(), Failure> {
        if self.under_way == self.limit
            && let Ok(answer) = self.answers.recv()
        {
            self.settle(answer, out);
        }
        let Input { value, receipt } = input;
        let call = self.bolt.call(value);
        self.under_way += 1;
        let (sender, waker) = (self.sender.clone(), self.waker.clone());
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            // In a task of its own, so that a panic is an answer too.
            let result = match runtime.spawn(call).await {
                Ok(result) => result,
                Err(error) => Err(Failure::poison(format!("the call ended without an answer: {error}"))),
            };
            // If nobody listens any more the topology has ended.
            let _ = sender.try_send(Answer { receipt, result });
            waker.iter().for_each(Waker::wake);
        });
        Ok(())
    }

    fn woken(&mut self, out: &mut Collector<B::Out>) -> Result<(), Failure> {
        while let Ok(answer) = self.answers.try_recv() {
            self.settle(answer, out);
        }
        Ok(())
    }

    fn pending(&self) -> usize {
        self.under_way
    }
}

impl<B: AsyncBolt> fmt::Debug for Async<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Async").field("limit", &self.limit).field("under_way", &self.under_way).finish_non_exhaustive()
    }
}
