//! What travels between tasks: a message, and the tuple trees it belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::id::TaskId;

/// The types that flow through one topology.
pub trait Flow: 'static {
    /// What tuples carry; cloned when a grouping sends it to several tasks.
    type Message: Clone + fmt::Debug + Send + 'static;
    /// What an ack may carry to the spout, delivered with the completion of the tree.
    type Note: Clone + fmt::Debug + Send + 'static;
    /// How a spout names the trees it starts.
    type Id: Clone + fmt::Debug + Send + 'static;
}

/// A tuple tree, named by a number that no other tree of the topology's life has, restarts included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root(pub u64);

/// One edge of one tree: the random number that is XORed into the tree's value when the edge appears and when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The tree.
    pub root: Root,
    /// The edge.
    pub edge: u64,
}

/// The trees that a tuple belongs to: none when it is not anchored, usually one.
pub type Anchors = SmallVec<[Anchor; 1]>;

/// A message on its way from one task to another.
#[derive(Clone, Debug)]
pub struct Tuple<M> {
    /// The trees it belongs to.
    pub anchors: Anchors,
    /// Who sent it.
    pub from: TaskId,
    /// What it says.
    pub message: M,
}
