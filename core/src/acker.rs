//! Decides when a tuple tree is complete, has failed or has timed out: Storm's XOR acking as a pure machine.
//!
//! Every edge of a tree has a random 64-bit number. The tree's value is the XOR of everything reported: an edge is
//! XORed in once when it appears and once when its tuple is acked, so the value is zero when, and (but for one chance
//! in 2^64) only when, nothing is outstanding. Memory per tree does not depend on the tree's size. Reports may come in
//! any order, the start last. Unlike Storm's acker this one takes explicit failures with their reason, and hands the
//! *notes* that acks carry to the spout, together with the completion.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, FailureKind},
    id::TaskId,
    tuple::Root,
};

/// What tasks report about a tree.
///
/// ```
/// use tine_core::acker::{Acker, AckerEvent, TreeEnd};
/// use tine_core::{failure::{Failure, FailureKind}, id::TaskId, tuple::Root};
///
/// let mut acker = Acker::<()>::default();
/// for root in [Root(1), Root(2)] {
///     acker.step(AckerEvent::Start { root, spout: TaskId(0), value: 5 });
/// }
/// let failed = acker.step(AckerEvent::Fail { root: Root(1), failure: Failure::poison("an empty line") });
/// assert!(matches!(&failed[0].end, TreeEnd::Failed(failure) if failure.kind == FailureKind::Poison));
///
/// for _ in 0..4 {
///     assert!(acker.step(AckerEvent::Tick).is_empty());
///     acker.step(AckerEvent::Alive { root: Root(2) });
/// }
/// let late: Vec<_> = (0..5).flat_map(|_| acker.step(AckerEvent::Tick)).collect();
/// assert!(matches!(&late[0].end, TreeEnd::Failed(failure) if failure.kind == FailureKind::TimedOut));
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AckerEvent<N> {
    /// A spout started the tree; `value` is the XOR of its first edges.
    Start {
        /// The tree.
        root: Root,
        /// The spout that wants to know.
        spout: TaskId,
        /// XOR of the edges sent.
        value: u64,
    },
    /// A tuple was acked; `value` is its edge XOR the edges of the tuples anchored to it.
    Ack {
        /// The tree.
        root: Root,
        /// What to XOR in.
        value: u64,
        /// For the spout.
        note: Option<N>,
    },
    /// A tuple failed, and so did the tree.
    Fail {
        /// The tree.
        root: Root,
        /// Why.
        failure: Failure,
    },
    /// Work on a tuple goes on: the tree does not time out meanwhile. Storm's `resetTimeout`.
    Alive {
        /// The tree.
        root: Root,
    },
    /// A quarter of the message timeout has passed.
    Tick,
}

/// How a tree ended, for its spout.
///
/// ```
/// use tine_core::{acker::TreeEnd, failure::Failure};
///
/// /// What a spout that counts bytes makes of the end of a tree.
/// fn written(end: TreeEnd<u64>) -> Result<u64, Failure> {
///     match end {
///         TreeEnd::Complete(notes) => Ok(notes.iter().sum()),
///         TreeEnd::Failed(failure) => Err(failure),
///     }
/// }
///
/// assert_eq!(written(TreeEnd::Complete(vec![100, 20])), Ok(120));
/// assert!(written(TreeEnd::Failed(Failure::transient("the disk is away"))).is_err());
/// ```
#[derive(Clone, Debug)]
pub enum TreeEnd<N> {
    /// Everything was acked; the notes in the order in which they came.
    Complete(Vec<N>),
    /// Something failed, or nobody spoke in time.
    Failed(Failure),
}

/// Tells a spout that a tree has ended. Comes once per tree.
///
/// ```
/// use tine_core::acker::{Acker, AckerEvent, Ended};
/// use tine_core::{id::TaskId, tuple::Root};
///
/// let mut acker = Acker::<()>::default();
/// acker.step(AckerEvent::Start { root: Root(1), spout: TaskId(4), value: 5 });
/// let ended = acker.step(AckerEvent::Ack { root: Root(1), value: 5, note: None });
/// assert!(matches!(&ended[..], [Ended { spout: TaskId(4), root: Root(1), .. }]));
/// ```
#[derive(Clone, Debug)]
pub struct Ended<N> {
    /// The spout's task.
    pub spout: TaskId,
    /// The tree.
    pub root: Root,
    /// How.
    pub end: TreeEnd<N>,
}

/// The acker: all the trees that are under way.
///
/// ```
/// use tine_core::acker::{Acker, AckerEvent, Ended, TreeEnd};
/// use tine_core::{id::TaskId, tuple::Root};
///
/// let (mut acker, root) = (Acker::default(), Root(1));
/// acker.step(AckerEvent::Start { root, spout: TaskId(0), value: 5 }); // one tuple, on edge 5
/// acker.step(AckerEvent::Ack { root, value: 5 ^ 9, note: Some("one row") }); // acked, with a child on edge 9
/// assert_eq!(acker.len(), 1);
/// let ended = acker.step(AckerEvent::Ack { root, value: 9, note: Some("another") });
/// assert!(matches!(&ended[..], [Ended { end: TreeEnd::Complete(notes), .. }] if *notes == ["one row", "another"]));
/// assert!(acker.is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Acker<N> {
    trees: BTreeMap<Root, Tree<N>>,
    /// Ticks so far.
    now: u64,
}

/// A tree that has seen no report for this many ticks has timed out: between 1 and 1.25 timeouts.
pub(crate) const TICKS_TO_LIVE: u64 = 5;

#[derive(Clone, Debug)]
struct Tree<N> {
    value: u64,
    spout: Option<TaskId>,
    failure: Option<Failure>,
    notes: Vec<N>,
    /// The tick of its last report.
    since: u64,
}

impl<N> Default for Acker<N> {
    fn default() -> Self {
        Acker { trees: BTreeMap::new(), now: 0 }
    }
}

impl<N> Acker<N> {
    /// Takes one report; answers with the trees that ended by it.
    pub fn step(&mut self, event: AckerEvent<N>) -> Vec<Ended<N>> {
        match event {
            AckerEvent::Start { root, spout, value } => {
                let tree = self.tree(root);
                tree.spout = Some(spout);
                tree.value ^= value;
                self.settle(root)
            }
            AckerEvent::Ack { root, value, note } => {
                let tree = self.tree(root);
                tree.value ^= value;
                tree.notes.extend(note);
                self.settle(root)
            }
            AckerEvent::Fail { root, failure } => {
                self.tree(root).failure.get_or_insert(failure);
                self.settle(root)
            }
            AckerEvent::Alive { root } => {
                if let Some(tree) = self.trees.get_mut(&root) {
                    tree.since = self.now;
                }
                Vec::new()
            }
            AckerEvent::Tick => self.tick(),
        }
    }

    /// How many trees are under way.
    pub fn len(&self) -> usize {
        self.trees.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    fn tree(&mut self, root: Root) -> &mut Tree<N> {
        let empty = || Tree { value: 0, spout: None, failure: None, notes: Vec::new(), since: 0 };
        let tree = self.trees.entry(root).or_insert_with(empty);
        tree.since = self.now;
        tree
    }

    fn settle(&mut self, root: Root) -> Vec<Ended<N>> {
        let tree = &self.trees[&root];
        let Some(spout) = tree.spout else { return Vec::new() };
        if tree.failure.is_none() && tree.value != 0 {
            return Vec::new();
        }
        let tree = self.trees.remove(&root).expect("the tree was just looked at");
        let end = match tree.failure {
            Some(failure) => TreeEnd::Failed(failure),
            None => TreeEnd::Complete(tree.notes),
        };
        vec![Ended { spout, root, end }]
    }

    /// Also forgets reports about trees whose start never came: late ones, of trees that had ended already.
    fn tick(&mut self) -> Vec<Ended<N>> {
        self.now += 1;
        let (now, mut ended) = (self.now, Vec::new());
        self.trees.retain(|root, tree| {
            let lives = now - tree.since < TICKS_TO_LIVE;
            if let (false, Some(spout)) = (lives, tree.spout) {
                let failure = Failure::new(FailureKind::TimedOut, "no answer within the message timeout");
                ended.push(Ended { spout, root: *root, end: TreeEnd::Failed(failure) });
            }
            lives
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOT: Root = Root(1);

    fn start(value: u64) -> AckerEvent<u8> {
        AckerEvent::Start { root: ROOT, spout: TaskId(0), value }
    }

    fn ack(value: u64) -> AckerEvent<u8> {
        AckerEvent::Ack { root: ROOT, value, note: None }
    }

    /// The reports of a random tree: edge by edge, every tuple is acked with the edges of its children.
    fn reports(parents: &[prop::sample::Index]) -> Vec<AckerEvent<u8>> {
        let edge = |tuple: usize| crate::hash::hash64(&tuple.to_le_bytes());
        let mut values: Vec<u64> = (0..=parents.len()).map(edge).collect();
        for (child, parent) in parents.iter().enumerate() {
            values[parent.index(child + 1)] ^= edge(child + 1);
        }
        std::iter::once(start(edge(0))).chain(values.into_iter().map(ack)).collect()
    }

    proptest! {
        #[test]
        fn every_tree_completes_exactly_at_its_last_report_in_any_order(
            (parents, order) in prop::collection::vec(any::<prop::sample::Index>(), 0..20)
                .prop_flat_map(|parents| {
                    let order: Vec<usize> = (0..parents.len() + 2).collect();
                    (Just(parents), Just(order).prop_shuffle())
                })
        ) {
            let (reports, mut acker) = (reports(&parents), Acker::default());
            for (sent, index) in order.iter().enumerate() {
                let ended = acker.step(reports[*index].clone());
                prop_assert_eq!(ended.len(), usize::from(sent + 1 == order.len()));
            }
            prop_assert!(acker.is_empty());
        }

        #[test]
        fn a_tree_with_a_lost_report_never_completes_and_times_out_once(
            parents in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            lost in any::<prop::sample::Index>(),
        ) {
            let (mut reports, mut acker) = (reports(&parents), Acker::default());
            reports.remove(1 + lost.index(parents.len() + 1));
            for report in reports {
                prop_assert!(acker.step(report).is_empty());
            }
            let ended: Vec<_> = (0..10).flat_map(|_| acker.step(AckerEvent::Tick)).collect();
            let timed_out = |ended: &Ended<u8>| match &ended.end {
                TreeEnd::Failed(failure) => failure.kind == FailureKind::TimedOut,
                TreeEnd::Complete(_) => false,
            };
            prop_assert_eq!(ended.len(), 1);
            prop_assert!(timed_out(&ended[0]));
            prop_assert!(acker.is_empty());
        }
    }

    #[test]
    fn an_explicit_failure_reaches_the_spout_at_once_and_only_once() {
        let mut acker = Acker::default();
        acker.step(start(5));
        let fail = || AckerEvent::Fail { root: ROOT, failure: Failure::transient("x") };
        assert_eq!(acker.step(fail()).len(), 1);
        assert!(acker.step(fail()).is_empty(), "a late failure finds no tree");
        (0..5).for_each(|_| assert!(acker.step(AckerEvent::Tick).is_empty()));
        assert!(acker.is_empty(), "and leaves nothing behind");
    }

    #[test]
    fn a_tree_that_makes_progress_does_not_time_out() {
        let mut acker = Acker::default();
        acker.step(start(1));
        for edge in 2..20 {
            acker.step(if edge % 2 == 0 { ack(1 << edge) } else { AckerEvent::Alive { root: ROOT } });
            (0..4).for_each(|_| assert!(acker.step(AckerEvent::Tick).is_empty()));
        }
        assert_eq!(acker.step(AckerEvent::Tick).len(), 1);
    }

    #[test]
    fn notes_arrive_with_the_completion() {
        let mut acker = Acker::default();
        acker.step(AckerEvent::Ack { root: ROOT, value: 6, note: Some(1) });
        acker.step(start(7));
        let ended = acker.step(AckerEvent::Ack { root: ROOT, value: 1, note: Some(2) });
        assert!(matches!(&ended[..], [Ended { end: TreeEnd::Complete(notes), .. }] if notes == &[1, 2]));
    }
}
