//! The trees a tuple belongs to, in the form that costs nothing for the usual cases: none, and one.

use rand::{RngCore, rngs::SmallRng};

use crate::tuple::{Anchor, Root};

/// A tuple's anchors. While a bolt holds the tuple, the edges of its children are XORed in.
#[derive(Clone, Debug, Default)]
pub(crate) enum Lineage {
    /// Not anchored: nobody waits for it.
    #[default]
    None,
    /// One tree.
    One(Anchor),
    /// Several trees, each once.
    Many(Box<[Anchor]>),
}

impl Lineage {
    /// The lineage of a child, with fresh edges, which are XORed into this one.
    #[inline]
    pub(crate) fn child(&mut self, random: &mut SmallRng) -> Lineage {
        match self {
            Lineage::None => Lineage::None,
            Lineage::One(anchor) => Lineage::One(bear(anchor, random)),
            Lineage::Many(anchors) => Lineage::Many(anchors.iter_mut().map(|anchor| bear(anchor, random)).collect()),
        }
    }

    /// Adds another lineage's trees; a tree of both keeps one anchor with the XOR of the edges.
    pub(crate) fn join(self, other: Lineage) -> Lineage {
        match (self, other) {
            (Lineage::None, one) | (one, Lineage::None) => one,
            (one, other) => {
                let mut anchors = one.as_slice().to_vec();
                for anchor in other.as_slice() {
                    match anchors.iter_mut().find(|known| known.root == anchor.root) {
                        Some(known) => known.edge ^= anchor.edge,
                        None => anchors.push(*anchor),
                    }
                }
                match &anchors[..] {
                    [anchor] => Lineage::One(*anchor),
                    _ => Lineage::Many(anchors.into()),
                }
            }
        }
    }

    /// The anchors.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[Anchor] {
        match self {
            Lineage::None => &[],
            Lineage::One(anchor) => std::slice::from_ref(anchor),
            Lineage::Many(anchors) => anchors,
        }
    }

    /// The trees.
    pub(crate) fn roots(&self) -> impl Iterator<Item = Root> {
        self.as_slice().iter().map(|anchor| anchor.root)
    }
}

#[inline]
fn bear(parent: &mut Anchor, random: &mut SmallRng) -> Anchor {
    let edge = random.next_u64();
    parent.edge ^= edge;
    Anchor { root: parent.root, edge }
}
