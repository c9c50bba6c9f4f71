//! Where spouts emit: each tuple may be the root of a tree, which is planted before and sealed after it is sent.

use std::fmt;

use super::{Data, Port, Streams};
use crate::{
    engine::{lineage::Lineage, links::Links},
    failure::Failure,
    trees::{Settled, TREES_MAX, Trees},
    tuple::Anchor,
};

/// Where a spout emits.
///
/// ```
/// use tine_core::component::{Declaration, Emit, Next, Port, Spout, SpoutCollector};
/// use tine_core::{failure::Failure, topology::Topology};
///
/// const REMARKS: Port<String> = Port::new("remarks");
///
/// /// Reads a text; a tree is named by its line.
/// struct Lines {
///     text: std::iter::Enumerate<std::str::Lines<'static>>,
///     acked: std::sync::mpsc::SyncSender<usize>,
/// }
///
/// impl Spout for Lines {
///     type Out = u64;
///     type Id = usize;
///
///     fn declare(streams: &mut Declaration) {
///         streams.stream(REMARKS);
///     }
///
///     fn next(&mut self, out: &mut SpoutCollector<u64, usize>) -> Result<Next, Failure> {
///         let Some((line, text)) = self.text.next() else {
///             return Ok(if out.pending() == 0 { Next::Done } else { Next::Idle });
///         };
///         match (text.strip_prefix('#'), text.parse()) {
///             (Some(remark), _) => out.emit_to(REMARKS, remark.to_owned(), line)?,
///             (None, Ok(number)) => out.emit(number, line),
///             (None, Err(error)) => out.report(&Failure::poison(format!("line {line}: {error}"))),
///         }
///         Ok(Next::More)
///     }
///
///     fn ack(&mut self, line: usize) {
///         let _ = self.acked.send(line);
///     }
/// }
///
/// let (acked, lines_acked) = std::sync::mpsc::sync_channel(100);
/// let topology = Topology::new("numbers");
/// let make = move || Lines { text: "#primes\n2\nthree".lines().enumerate(), acked: acked.clone() };
/// let lines = topology.spout("lines", make);
/// topology.each("primes", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&lines);
/// topology.each("remarks", |_: String, _: &mut Emit<'_, ()>| Ok(())).shuffle(&lines.port(REMARKS));
/// topology.run()?;
/// let mut lines_acked: Vec<_> = lines_acked.try_iter().collect();
/// lines_acked.sort();
/// assert_eq!(lines_acked, [0, 1]);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
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
    ///
    /// ```
    /// # use tine_core::{component::{Emit, Next, Spout, SpoutCollector}, failure::Failure, topology::Topology};
    /// /// Beats without asking who hears it.
    /// struct Heart(u64);
    ///
    /// impl Spout for Heart {
    ///     type Out = u64;
    ///     type Id = ();
    ///
    ///     fn next(&mut self, out: &mut SpoutCollector<u64, ()>) -> Result<Next, Failure> {
    ///         self.0 += 1;
    ///         out.emit_untracked(self.0);
    ///         assert_eq!(out.pending(), 0, "no tree was started");
    ///         Ok(if self.0 < 3 { Next::More } else { Next::Done })
    ///     }
    /// }
    /// # let topology = Topology::new("heart");
    /// # let heart = topology.spout("heart", || Heart(0));
    /// # topology.each("beats", |_: u64, _: &mut Emit<'_, ()>| Ok(())).shuffle(&heart);
    /// # let summary = topology.run()?;
    /// # let beats = summary.tasks.iter().find(|task| task.component == "beats");
    /// # assert_eq!((summary.acked(), beats.map(|task| task.executed)), (0, Some(3)));
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
    #[inline]
    pub fn emit_untracked(&mut self, value: O) {
        self.streams.default.emit(value, &mut self.links, |_| Lineage::None);
    }

    /// Emits into the default stream, to one task; the root of a tree like [`emit`](SpoutCollector::emit).
    ///
    /// ```
    /// # use tine_core::{component::{Emit, Next, Spout, SpoutCollector}, failure::Failure, topology::Topology};
    /// /// Deals cards to the players, who are the tasks of a bolt.
    /// struct Dealer(std::ops::Range<u64>);
    ///
    /// impl Spout for Dealer {
    ///     type Out = u64;
    ///     type Id = u64;
    ///
    ///     fn next(&mut self, out: &mut SpoutCollector<u64, u64>) -> Result<Next, Failure> {
    ///         let Some(card) = self.0.next() else { return Ok(Next::Done) };
    ///         out.emit_direct(card as usize % 4, card, card)?;
    ///         Ok(Next::More)
    ///     }
    /// }
    ///
    /// let topology = Topology::new("cards");
    /// let dealer = topology.spout("dealer", || Dealer(0..32));
    /// topology.each("players", |_card: u64, _: &mut Emit<'_, ()>| Ok(())).direct(&dealer).tasks(4);
    /// let summary = topology.run()?;
    /// assert!(summary.tasks.iter().filter(|task| task.component == "players").all(|task| task.executed == 8));
    /// # Ok::<(), tine_core::engine::RunError>(())
    /// ```
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
