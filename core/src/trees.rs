//! The tuple trees of one spout task, as a pure machine: XOR acking in a slab.
//!
//! The rule is that of the [`acker`](crate::acker): a tree's value is the XOR of every edge that appeared and of every edge
//! that was acked; it is zero when nothing is outstanding. What differs is where a tree lives. A [`Root`] *names its place*:
//! the spout task that owns the tree, a slot in that task's slab, and a sequence number, so that a report finds its tree
//! by one index and no lock, and a report that comes too late finds another sequence number and changes nothing.
//! The start of a tree is no message: the owner plants it.
//!
//! ```
//! use tine_core::trees::Trees;
//!
//! let mut trees = Trees::new(0, 7);
//! let root = trees.plant("record 1", 0).expect("there is room");
//! assert!(trees.seal(root, 5).is_none(), "edge 5 is under way");
//! assert!(trees.ack(root, 5 ^ 9).is_none(), "acked, with one child on edge 9");
//! assert_eq!(trees.ack(root, 9).expect("complete").id, "record 1");
//! assert!(trees.ack(root, 9).is_none(), "too late, and without effect");
//! ```

use crate::{acker::TICKS_TO_LIVE, tuple::Root};

/// Trees that one spout task may have under way, whatever its settings say: as many slots as a root can name.
pub const TREES_MAX: usize = 1 << SLOT_BITS;

const SLOT_BITS: u32 = 20;
const SEQUENCE_BITS: u32 = 28;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

impl Root {
    /// The number among all spout tasks of the one that owns the tree; only of roots that [`Trees`] gave out.
    ///
    /// ```
    /// let mut trees = tine_core::trees::Trees::new(3, 7);
    /// assert_eq!(trees.plant("record 1", 0).map(|root| root.owner()), Some(3));
    /// ```
    pub fn owner(self) -> usize {
        (self.0 >> (SLOT_BITS + SEQUENCE_BITS)) as usize
    }

    fn slot(self) -> usize {
        (self.0 >> SEQUENCE_BITS) as usize & (TREES_MAX - 1)
    }
}

/// A tree that has ended.
///
/// ```
/// use tine_core::trees::{Settled, Trees};
///
/// let mut trees = Trees::new(0, 7);
/// let root = trees.plant("record 1", 1000).expect("there is room");
/// assert_eq!(trees.seal(root, 0), Some(Settled { id: "record 1", born: 1000 }), "no edge: complete at once");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled<I> {
    /// How the spout named it.
    pub id: I,
    /// The stamp it was planted with.
    pub born: u32,
}

/// All the trees of one spout task that are under way.
///
/// ```
/// use tine_core::trees::Trees;
///
/// let mut trees = Trees::new(3, 7); // of the fourth spout task
/// let [first, second] = ["record 1", "record 2"].map(|id| trees.plant(id, 0).expect("there is room"));
/// assert_eq!((first.owner(), trees.len()), (3, 2));
/// assert!(trees.seal(first, 5).is_none() && trees.seal(second, 6).is_none());
/// assert_eq!(trees.fail(second).expect("it was under way").id, "record 2");
///
/// trees.alive(first);
/// let mut expired = Vec::new();
/// (0..5).for_each(|_| trees.tick(|tree| expired.push(tree.id))); // five quarters of the message timeout
/// assert_eq!(expired, ["record 1"]);
/// assert!(trees.ack(first, 5).is_none() && trees.is_empty(), "the ack comes too late");
/// trees.clear(|_| unreachable!("none is left"));
/// ```
#[derive(Clone, Debug)]
pub struct Trees<I> {
    /// Already in its place within a root.
    owner: u64,
    /// Where the sequence numbers of new slots begin.
    sequence: u64,
    slots: Vec<Slot<I>>,
    free: Vec<u32>,
    /// Ticks so far; wraps.
    now: u32,
}

#[derive(Clone, Debug)]
struct Slot<I> {
    root: Root,
    value: u64,
    /// The tick of its last report.
    since: u32,
    born: u32,
    /// `None` while the slot is free.
    id: Option<I>,
}

impl<I> Trees<I> {
    /// No tree yet. `owner` is the spout task's number among all spout tasks; `seed` is random per start of the process, so
    /// that reports from an earlier life find other sequence numbers.
    pub fn new(owner: u16, seed: u64) -> Self {
        let owner = u64::from(owner) << (SLOT_BITS + SEQUENCE_BITS);
        Trees { owner, sequence: seed & SEQUENCE_MASK, slots: Vec::new(), free: Vec::new(), now: 0 }
    }

    /// Starts a tree; `born` is the caller's time stamp, given back at the end. `None` when [`TREES_MAX`] are under way.
    #[inline]
    pub fn plant(&mut self, id: I, born: u32) -> Option<Root> {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            let sequence = (slot.root.0 + 1) & SEQUENCE_MASK;
            slot.root = Root(slot.root.0 & !SEQUENCE_MASK | sequence);
            (slot.value, slot.since, slot.born, slot.id) = (0, self.now, born, Some(id));
            return Some(slot.root);
        }
        if self.slots.len() == TREES_MAX {
            return None;
        }
        let root = Root(self.owner | (self.slots.len() as u64) << SEQUENCE_BITS | self.sequence);
        self.slots.push(Slot { root, value: 0, since: self.now, born, id: Some(id) });
        Some(root)
    }

    /// Says which edges the tree began with: their XOR. A tree without any is complete at once.
    #[inline]
    pub fn seal(&mut self, root: Root, value: u64) -> Option<Settled<I>> {
        self.ack(root, value)
    }

    /// A tuple of the tree was acked: its edge XOR the edges of its children. Answers with the tree if it is complete now.
    #[inline]
    pub fn ack(&mut self, root: Root, value: u64) -> Option<Settled<I>> {
        let slot = self.slots.get_mut(root.slot())?;
        if slot.root != root || slot.id.is_none() {
            return None;
        }
        slot.value ^= value;
        slot.since = self.now;
        if slot.value != 0 { None } else { self.remove(root) }
    }

    /// A tuple of the tree failed, and so has the tree, unless it had ended before.
    pub fn fail(&mut self, root: Root) -> Option<Settled<I>> {
        let slot = self.slots.get(root.slot())?;
        if slot.root == root { self.remove(root) } else { None }
    }

    /// Work on a tuple of the tree goes on: it does not time out meanwhile.
    pub fn alive(&mut self, root: Root) {
        let now = self.now;
        if let Some(slot) = self.slots.get_mut(root.slot()).filter(|slot| slot.root == root) {
            slot.since = now;
        }
    }

    /// A quarter of the message timeout has passed: hands over the trees that nobody has spoken of for one to 1.25
    /// timeouts.
    pub fn tick(&mut self, mut expired: impl FnMut(Settled<I>)) {
        self.now = self.now.wrapping_add(1);
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.id.is_some() && u64::from(self.now.wrapping_sub(slot.since)) >= TICKS_TO_LIVE {
                let root = slot.root;
                self.remove(root).into_iter().for_each(&mut expired);
            }
        }
    }

    /// Ends every tree: the task is closing.
    pub fn clear(&mut self, mut ended: impl FnMut(Settled<I>)) {
        for index in 0..self.slots.len() {
            let root = self.slots[index].root;
            self.remove(root).into_iter().for_each(&mut ended);
        }
    }

    /// How many trees are under way.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn remove(&mut self, root: Root) -> Option<Settled<I>> {
        let slot = &mut self.slots[root.slot()];
        let id = slot.id.take()?;
        self.free.push(root.slot() as u32);
        Some(Settled { id, born: slot.born })
    }
}
