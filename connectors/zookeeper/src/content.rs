//! What the nodes hold: [`tine_core::codec`], read strictly and never beyond a limit.
//!
//! Anybody may have written what we read: a content that cannot be understood is an error that names the node.

use serde::{Deserialize, Serialize};
use tine_core::{
    codec,
    failure::Failure,
    id::{Epoch, Nonce, TxId},
};

/// A group node takes under 60 bytes.
const GROUP_BYTES_MAX: usize = 256;

/// No epoch or txid ever gets near: databases count with 63 bits, and there must be one after it.
const NUMBER_MAX: u64 = 1 << 62;

/// The content of a group node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupNode {
    /// The epoch last claimed.
    pub(crate) epoch: Epoch,
    /// The leader that claimed it.
    pub(crate) nonce: Nonce,
    /// The lineage of the group.
    pub(crate) lineage: Option<u128>,
    /// The last transaction known to be complete.
    pub(crate) complete: TxId,
    /// The transaction whose plan comes next; `NONE` when any may (nothing is known here yet).
    pub(crate) next: TxId,
}

impl GroupNode {
    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(crate) fn decode(path: &str, bytes: &[u8]) -> Result<GroupNode, Failure> {
        if bytes.len() > GROUP_BYTES_MAX {
            return Err(corrupt(path, format!("{} bytes where at most {GROUP_BYTES_MAX} belong", bytes.len())));
        }
        let node: GroupNode = codec::decode(bytes).map_err(|error| corrupt(path, error))?;
        if [node.epoch.0, node.complete.0, node.next.0].into_iter().any(|number| number > NUMBER_MAX) {
            return Err(corrupt(path, format!("a number above {NUMBER_MAX} stands there")));
        }
        match node.next != TxId::NONE && node.next <= node.complete {
            true => Err(corrupt(path, format!("next txid {} is not above the complete {}", node.next, node.complete))),
            false => Ok(node),
        }
    }
}

/// The content of the leader node.
pub(crate) fn leader(nonce: Nonce) -> Vec<u8> {
    codec::encode(&nonce)
}

/// Content of a node that tine cannot have written so.
pub(crate) fn corrupt(path: &str, why: impl std::fmt::Display) -> Failure {
    Failure::fatal(format!(
        "zookeeper node {path}: {why}; if nobody needs it any more, delete the node with everything below: the plans \
         are found again in the database"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> GroupNode {
        let lineage = Some(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        GroupNode {
            epoch: Epoch(3),
            nonce: Nonce(0x1122_3344_5566_7788),
            lineage,
            complete: TxId(250),
            next: TxId(300),
        }
    }

    #[test]
    fn golden_bytes() {
        let golden = [
            &[1, 3, 253, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11][..],
            &[1, 254, 0x10, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8, 7, 6, 5, 4, 3, 2, 1],
            &[250, 251, 0x2c, 0x01],
        ];
        assert_eq!(node().encode(), golden.concat());
        assert_eq!(GroupNode::decode("/g", &golden.concat()).unwrap(), node());
        assert_eq!(GroupNode::default().encode(), [1, 0, 0, 0, 0, 0]);
        assert_eq!(leader(Nonce(7)), [1, 7]);
    }

    #[test]
    fn a_large_or_contradictory_node_is_refused_by_name() {
        let backwards = GroupNode { next: TxId(250), ..node() };
        let endless = GroupNode { complete: TxId(u64::MAX), next: TxId::NONE, ..node() };
        for wrong in [vec![1; 300], backwards.encode(), endless.encode(), vec![], vec![9, 0, 0, 0, 0, 0]] {
            assert!(GroupNode::decode("/a/node", &wrong).unwrap_err().message.contains("/a/node"));
        }
    }

    proptest! {
        #[test]
        fn hostile_content_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..80), flip in any::<(usize, u8)>()) {
            let _ = GroupNode::decode("/g", &bytes);
            bytes = node().encode();
            let at = flip.0 % bytes.len();
            bytes[at] = flip.1;
            let _ = GroupNode::decode("/g", &bytes);
        }
    }
}
