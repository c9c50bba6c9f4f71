//! What users write: spouts, bolts, and what they emit.
//!
//! Read in this order: [`Spout`] and [`Bolt`], then [`BasicBolt`] and [`each`] for bolts that are done with a tuple when they
//! return, [`AsyncBolt`] for those that wait for services, [`Port`] for further streams, [`GroupKey`] and [`Named`](trait@Named) for groupings.
//!
//! Where the examples need tuples they have this spout, which emits what an iterator gives:
//!
//! ```
//! use tine_core::component::{Data, Emit, Next, Spout, SpoutCollector};
//! use tine_core::{failure::Failure, topology::Topology};
//!
//! struct Items<I>(I);
//!
//! impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
//!     type Out = I::Item;
//!     type Id = ();
//!
//!     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
//!         let Some(item) = self.0.next() else { return Ok(Next::Done) };
//!         out.emit(item, ());
//!         Ok(Next::More)
//!     }
//! }
//!
//! let topology = Topology::new("numbers");
//! let numbers = topology.spout("numbers", || Items(0..10u64));
//! topology.each("print", |number: u64, _: &mut Emit<'_, ()>| Ok(println!("{number}"))).shuffle(&numbers);
//! assert_eq!(topology.run()?.acked(), 10);
//! # Ok::<(), tine_core::engine::RunError>(())
//! ```

mod async_bolt;
mod basic;
mod bolt;
mod collector;
mod context;
mod input;
mod key;
mod port;
mod spout;
mod spout_collector;
mod streams;

pub use self::{
    async_bolt::{Async, AsyncBolt},
    basic::{Basic, BasicBolt, Each, Emit, each},
    bolt::Bolt,
    collector::Collector,
    context::{Context, Waker},
    input::{Input, Receipt},
    key::GroupKey,
    port::{DEFAULT_STREAM, Data, Declaration, Named, Port},
    spout::{Next, Spout},
    spout_collector::SpoutCollector,
};
pub(crate) use self::{
    key::combined,
    port::{Declared, TypeOf},
    streams::Streams,
};
