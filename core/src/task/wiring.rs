//! Where a task's tuples go, and the numbers that their edges get.

use super::Effect;
use crate::{
    hash::hash64,
    id::TaskId,
    tuple::{Anchor, Anchors, Flow, Root, Tuple},
};

/// An output stream of a component, by its number.
pub type StreamIndex = usize;

/// How a stream's tuples find their tasks.
///
/// ```
/// use tine_core::{id::TaskId, task::{Grouping, Route}};
///
/// let players = vec![TaskId(2), TaskId(3)];
/// let rules = Route { grouping: Grouping::All, targets: players.clone() }; // stream 0
/// let cards = Route { grouping: Grouping::Direct, targets: players }; // stream 1, by `Output::emit_direct`
/// assert_ne!(rules, cards);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Every task gets every tuple.
    All,
    /// The sender names the task by its index.
    Direct,
}

/// Where a stream goes.
///
/// ```
/// use tine_core::{id::TaskId, task::{Grouping, Route}};
///
/// let to_all = |targets| Route { grouping: Grouping::All, targets };
/// let (sorted, errors) = (to_all(vec![TaskId(4), TaskId(5)]), to_all(vec![])); // nobody subscribes to errors
/// assert_eq!((sorted.targets.len(), errors.targets.len()), (2, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// How.
    pub grouping: Grouping,
    /// To whom.
    pub targets: Vec<TaskId>,
}

/// Routing and edge numbers, common to spouts and bolts.
#[derive(Clone, Debug)]
pub(super) struct Wiring {
    pub(super) id: TaskId,
    routes: Vec<Route>,
    /// Random per start of the process, so that edges and roots never repeat across restarts.
    seed: u64,
    count: u64,
}

impl Wiring {
    pub(super) fn new(id: TaskId, routes: Vec<Route>, seed: u64) -> Self {
        Wiring { id, routes, seed, count: 0 }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.count += 1;
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..].copy_from_slice(&self.id.0.to_le_bytes());
        hash64(&bytes)
    }

    /// Sends a message along a stream with a fresh edge per target and root; answers with the XOR of the edges per root.
    pub(super) fn send<F: Flow, C>(
        &mut self,
        stream: StreamIndex,
        target: Option<usize>,
        roots: &[Root],
        message: F::Message,
        effects: &mut Vec<Effect<F, C>>,
    ) -> Vec<u64> {
        let route = self.routes.get(stream).cloned().unwrap_or(Route { grouping: Grouping::All, targets: Vec::new() });
        let targets = match (route.grouping, target) {
            (Grouping::All, None) => &route.targets[..],
            (Grouping::Direct, Some(index)) => std::slice::from_ref(&route.targets[index]),
            (grouping, target) => unreachable!("stream {stream} is grouped {grouping:?} and was given {target:?}"),
        };
        let mut values = vec![0; roots.len()];
        for (index, to) in targets.iter().enumerate() {
            let mut anchors = Anchors::new();
            for (root, value) in roots.iter().zip(&mut values) {
                let edge = self.number();
                *value ^= edge;
                anchors.push(Anchor { root: *root, edge });
            }
            // The last target takes the message itself; the others get clones.
            if index + 1 == targets.len() {
                effects.push(Effect::Send { to: *to, tuple: Tuple { anchors, from: self.id, message } });
                break;
            }
            effects.push(Effect::Send { to: *to, tuple: Tuple { anchors, from: self.id, message: message.clone() } });
        }
        values
    }
}
