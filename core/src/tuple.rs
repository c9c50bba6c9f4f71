//! What travels between tasks: a message, and the tuple trees it belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::id::TaskId;

/// The types that flow through one topology.
///
/// ```
/// use tine_core::tuple::{Flow, Tuple};
///
/// /// Lines of files: a tree is named by the offset of its line, and an ack may say how many words that had.
/// struct Lines;
///
/// impl Flow for Lines {
///     type Message = String;
///     type Note = usize;
///     type Id = u64;
/// }
///
/// let tuple: Tuple<<Lines as Flow>::Message> =
///     Tuple { anchors: Default::default(), from: Default::default(), message: "to be or not to be".to_owned() };
/// assert_eq!(tuple.message.split(' ').count(), 6);
/// ```
pub trait Flow: 'static {
    /// What tuples carry; cloned when a grouping sends it to several tasks.
    type Message: Clone + fmt::Debug + Send + 'static;
    /// What an ack may carry to the spout, delivered with the completion of the tree.
    type Note: Clone + fmt::Debug + Send + 'static;
    /// How a spout names the trees it starts.
    type Id: Clone + fmt::Debug + Send + 'static;
}

/// A tuple tree, named by a number that no other tree of the topology's life has, restarts included.
///
/// ```
/// use tine_core::{acker::{Acker, AckerEvent}, id::TaskId, tuple::Root};
///
/// let mut acker = Acker::<()>::default();
/// for root in [Root(1), Root(2)] {
///     acker.step(AckerEvent::Start { root, spout: TaskId(0), value: 5 });
/// }
/// assert_eq!(acker.len(), 2, "two trees, although their edges are the same");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Root(pub u64);

/// One edge of one tree: the random number that is XORed into the tree's value when the edge appears and when it is done.
///
/// ```
/// use tine_core::tuple::{Anchor, Anchors, Root};
///
/// // What became of two tuples of two trees belongs to both.
/// let anchors: Anchors = [Anchor { root: Root(1), edge: 5 }, Anchor { root: Root(2), edge: 9 }].into_iter().collect();
/// assert_eq!(anchors.iter().map(|anchor| anchor.root).collect::<Vec<_>>(), [Root(1), Root(2)]);
/// ```
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
///
/// ```
/// use tine_core::{id::TaskId, tuple::{Anchor, Root, Tuple}};
///
/// let anchors = [Anchor { root: Root(1), edge: 5 }].into_iter().collect();
/// let line = Tuple { anchors, from: TaskId(0), message: "to be".to_owned() };
/// let copy = line.clone();
/// assert_eq!((copy.anchors, copy.message), (line.anchors, line.message));
/// ```
#[derive(Clone, Debug)]
pub struct Tuple<M> {
    /// The trees it belongs to.
    pub anchors: Anchors,
    /// Who sent it.
    pub from: TaskId,
    /// What it says.
    pub message: M,
}
