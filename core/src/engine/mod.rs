//! Runs a topology in this process: executors (threads) give tasks their turns, chunks of tuples move between bounded inboxes.
//!
//! ```text
//!  executor                        executor                        executor
//!  ┌──────────────────┐  chunks   ┌──────────────────┐  chunks   ┌──────────────────┐
//!  │ SpoutTask        │──────────►│ BoltTask         │──────────►│ BoltTask         │
//!  │  Trees           │  Inbox    │                  │  Inbox    │                  │
//!  └──▲───────────────┘           └───────┬──────────┘           └───────┬──────────┘
//!     └──────────── AckBox ◄──────────────┴───────── acks, failures ─────┘
//! ```
//!
//! **Nothing waits for anybody in a circle.** A task that finds no room keeps its chunk and takes no more input until
//! there is room (behind a shuffle: at one of its receivers); acks and edges that lead back never wait; the other edges form no circle (`topology::check`). So whoever is
//! at the end of the longest chain can always work, and then the one before it.
//!
//! Read in this order: [`lineage`], [`inbox`], [`outlet`], [`acks`]; [`links`] and [`shared`]; [`task`], [`bolt_task`],
//! [`spout_task`], [`executor`], [`crews`]; then [`running`]. [`credit`] belongs to several workers ([`cluster`](crate::cluster)).

pub(crate) mod acks;
pub(crate) mod bell;
pub(crate) mod bolt_task;
pub(crate) mod credit;
pub(crate) mod crews;
pub(crate) mod executor;
pub(crate) mod inbox;
pub(crate) mod lineage;
pub(crate) mod links;
pub(crate) mod outlet;
pub(crate) mod running;
pub(crate) mod shared;
pub(crate) mod spout_task;
pub(crate) mod task;

pub use self::{
    running::{RunError, Running, Summary},
    shared::ComponentError,
};
