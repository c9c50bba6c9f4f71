//! Where components emit: [`Collector`] for bolts, [`SpoutCollector`] for spouts.

use std::fmt;

use super::{Data, Port, Receipt};
use crate::{
    engine::{
        lineage::Lineage,
        links::Links,
        outlet::{AnyOutput, Output},
    },
    failure::Failure,
    trees::{Settled, TREES_MAX, Trees},
    tuple::Anchor,
};

/// All output streams of one task.
pub(crate) struct Streams<O> {
    pub(crate) default: Output<O>,
    pub(crate) ports: Vec<Box<dyn AnyOutput>>,
}

impl<O: Data> Streams<O> {
    /// Hands over what waits; answers whether nothing is kept back.
    pub(crate) fn flush(&mut self, partial: bool, links: &mut Links) -> bool {
        let free = self.default.flush(partial, links);
        self.ports.iter_mut().fold(free, |free, port| port.flush(partial, links) && free)
    }

    pub(crate) fn publish(&self) {
        self.default.publish();
        self.ports.iter().for_each(|port| port.publish());
    }

    fn port<T: Data>(&mut self, port: Port<T>) -> Result<&mut Output<T>, Failure> {
        let known = self.ports.iter_mut().find(|known| known.name() == port.name());
        known.and_then(|known| known.as_any().downcast_mut()).ok_or_else(|| {
            let name = port.name();
            Failure::poison(format!(
                "a tuple for stream {name:?}, which the component does not declare: declare({port:?})"
            ))
        })
    }
}

/// Where a bolt emits, acks and fails. Nothing here waits, but for a call that emits thousands of tuples at once.
pub struct Collector<O> {
    pub(crate) streams: Streams<O>,
    pub(crate) links: Links,
}

impl<O: Data> Collector<O> {
    /// Emits into the default stream, anchored to a tuple: its trees are complete only when this one is acked too.
    #[inline]
    pub fn emit(&mut self, anchor: &impl AsRef<Receipt>, value: O) {
        let mut parent = anchor.as_ref().lineage.borrow_mut();
        self.streams.default.emit(value, &mut self.links, |links| parent.child(&mut links.random));
    }

    /// Emits into the default stream, anchored to a tuple, and acks that one: cheaper than both one after the other, because the new
    /// tuple takes the place of the old one in its trees, and nobody needs to be told.
    #[inline]
    pub fn emit_and_ack(&mut self, held: impl Into<Receipt>, value: O) {
        let Receipt { lineage, from, input, timed } = held.into();
        let lineage = self.streams.default.pass_on(value, lineage.into_inner(), &mut self.links).into();
        self.links.ack(Receipt { lineage, from, input, timed });
    }

    /// Emits into the default stream, anchored to several tuples.
    pub fn emit_joined(&mut self, anchors: &[&Receipt], value: O) {
        self.streams.default.emit(value, &mut self.links, |links| child_of_all(anchors, links));
    }

    /// Emits into the default stream; nobody hears of the tuple's fate.
    #[inline]
    pub fn emit_unanchored(&mut self, value: O) {
        self.streams.default.emit(value, &mut self.links, |_| Lineage::None);
    }

    /// Emits into the default stream, to one task: `target` counts the tasks of the stream's subscribers in the order in which
    /// they were wired.
    ///
    /// # Errors
    /// If there is no such task.
    pub fn emit_direct(&mut self, target: usize, anchor: &impl AsRef<Receipt>, value: O) -> Result<(), Failure> {
        let mut parent = anchor.as_ref().lineage.borrow_mut();
        self.streams.default.emit_direct(target, value, &mut self.links, |links| parent.child(&mut links.random))
    }

    /// Emits into another stream, anchored to any number of tuples.
    ///
    /// # Errors
    /// If the component does not declare the stream; return it from `execute` with `?`.
    pub fn emit_to<T: Data>(&mut self, port: Port<T>, anchors: &[&Receipt], value: T) -> Result<(), Failure> {
        let stream = self.streams.port(port)?;
        stream.emit(value, &mut self.links, |links| child_of_all(anchors, links));
        Ok(())
    }

    /// Emits into another stream, to one task.
    ///
    /// # Errors
    /// If the component does not declare the stream, or there is no such task.
    pub fn emit_direct_to<T: Data>(
        &mut self,
        port: Port<T>,
        target: usize,
        anchors: &[&Receipt],
        value: T,
    ) -> Result<(), Failure> {
        let stream = self.streams.port(port)?;
        stream.emit_direct(target, value, &mut self.links, |links| child_of_all(anchors, links))
    }

    /// The tuple is done.
    #[inline]
    pub fn ack(&mut self, held: impl Into<Receipt>) {
        self.links.ack(held.into());
    }

    /// The tuple has failed, and so have its trees: their spouts hear of it at once.
    pub fn fail(&mut self, held: impl Into<Receipt>, failure: &Failure) {
        let receipt: Receipt = held.into();
        self.links.fail(&receipt.lineage.into_inner(), failure);
    }

    /// Work on the tuple goes on: its trees do not time out meanwhile. Storm's `resetTimeout`.
    pub fn keep_alive(&mut self, held: &impl AsRef<Receipt>) {
        let lineage = held.as_ref().lineage.borrow();
        self.links.keep_alive(&lineage);
    }

    /// Makes an error visible, with time and task; a `Fatal` one ends the topology.
    pub fn report(&mut self, failure: &Failure) {
        self.links.report(failure);
    }
}

fn child_of_all(anchors: &[&Receipt], links: &mut Links) -> Lineage {
    let children = anchors.iter().map(|parent| parent.lineage.borrow_mut().child(&mut links.random));
    children.fold(Lineage::None, Lineage::join)
}

impl<O> fmt::Debug for Collector<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("count", &self.links.count).finish_non_exhaustive()
    }
}

/// Where a spout emits.
pub struct SpoutCollector<O, I> {
    pub(crate) streams: Streams<O>,
    pub(crate) links: Links,
    /// `None` when acking is off.
    pub(crate) trees: Option<Trees<I>>,
    /// Trees that ended while they were being started.
    pub(crate) ended: Vec<(Settled<I>, Option<Failure>)>,
    /// The coarse clock that trees are stamped with.
    pub(crate) now_us: u32,
}

impl<O: Data, I: Send + 'static> SpoutCollector<O, I> {
    /// Emits into the default stream. The tuple is the root of a tree: the spout's `ack` or `fail` is called with `id`, once.
    /// With acking off neither is called.
    #[inline]
    pub fn emit(&mut self, value: O, id: I) {
        let Some(root) = self.plant(id) else { return self.emit_untracked(value) };
        let mut lineage = Lineage::One(root);
        self.streams.default.emit(value, &mut self.links, |links| lineage.child(&mut links.random));
        self.seal(&lineage);
    }

    /// Emits into the default stream; the spout hears nothing of the tuple's fate.
    #[inline]
    pub fn emit_untracked(&mut self, value: O) {
        self.streams.default.emit(value, &mut self.links, |_| Lineage::None);
    }

    /// Emits into the default stream, to one task; the root of a tree like [`emit`](SpoutCollector::emit).
    ///
    /// # Errors
    /// If there is no such task; the tree is not started then.
    pub fn emit_direct(&mut self, target: usize, value: O, id: I) -> Result<(), Failure> {
        let mut lineage = self.plant(id).map_or(Lineage::None, Lineage::One);
        let bear = |links: &mut Links| lineage.child(&mut links.random);
        let sent = self.streams.default.emit_direct(target, value, &mut self.links, bear);
        self.seal_or_forget(&lineage, sent)
    }

    /// Emits into another stream; the root of a tree like [`emit`](SpoutCollector::emit).
    ///
    /// # Errors
    /// If the component does not declare the stream; the tree is not started then.
    pub fn emit_to<T: Data>(&mut self, port: Port<T>, value: T, id: I) -> Result<(), Failure> {
        let mut lineage = self.plant(id).map_or(Lineage::None, Lineage::One);
        let sent = self.streams.port(port).map(|stream| {
            stream.emit(value, &mut self.links, |links| lineage.child(&mut links.random));
        });
        self.seal_or_forget(&lineage, sent)
    }

    /// Makes an error visible, with time and task; a `Fatal` one ends the topology.
    pub fn report(&mut self, failure: &Failure) {
        self.links.report(failure);
    }

    /// How many trees of this task are under way.
    pub fn pending(&self) -> usize {
        self.trees.as_ref().map_or(0, Trees::len)
    }

    /// `None` with acking off. More trees than can be under way fail at once.
    #[inline]
    fn plant(&mut self, id: I) -> Option<Anchor> {
        let trees = self.trees.as_mut()?;
        if trees.len() == TREES_MAX {
            let failure = Failure::transient(format!("{TREES_MAX} trees are under way: emit less in one call of next"));
            self.ended.push((Settled { id, born: self.now_us }, Some(failure)));
            return None;
        }
        let root = trees.plant(id, self.now_us)?;
        Some(Anchor { root, edge: 0 })
    }

    #[inline]
    fn seal(&mut self, lineage: &Lineage) {
        if let (Some(trees), Lineage::One(Anchor { root, edge })) = (&mut self.trees, lineage) {
            self.ended.extend(trees.seal(*root, *edge).map(|settled| (settled, None)));
        }
    }

    fn seal_or_forget(&mut self, lineage: &Lineage, sent: Result<(), Failure>) -> Result<(), Failure> {
        match (&sent, lineage, &mut self.trees) {
            (Ok(()), ..) => self.seal(lineage),
            (Err(_), Lineage::One(anchor), Some(trees)) => drop(trees.fail(anchor.root)),
            _ => {}
        }
        sent
    }
}

impl<O, I> fmt::Debug for SpoutCollector<O, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self.trees.as_ref().map(Trees::len);
        f.debug_struct("SpoutCollector").field("pending", &pending).finish_non_exhaustive()
    }
}
