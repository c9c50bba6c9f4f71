//! What users write: spouts, bolts, and what they emit.
//!
//! Read in this order: [`Spout`] and [`Bolt`], then [`BasicBolt`] and [`each`] for bolts that are done with a tuple when they
//! return, [`AsyncBolt`] for those that wait for services, [`Port`] for further streams, [`GroupKey`] and [`Named`](trait@Named) for groupings.

mod async_bolt;
mod basic;
mod bolt;
mod collector;
mod context;
mod input;
mod key;
mod port;
mod spout;

pub use self::{
    async_bolt::{Async, AsyncBolt},
    basic::{Basic, BasicBolt, Each, Emit, each},
    bolt::Bolt,
    collector::{Collector, SpoutCollector},
    context::{Context, Waker},
    input::{Input, Receipt},
    key::GroupKey,
    port::{DEFAULT_STREAM, Data, Declaration, Named, Port},
    spout::{Next, Spout},
};
pub(crate) use self::{
    collector::Streams,
    key::combined,
    port::{Declared, TypeOf},
};
