//! Where everything stands in ZooKeeper's tree.
//!
//! Names of topologies and groups become one path segment each: letters, digits, `_` and `-` stay, a `.` stays unless it
//! is first, every other byte becomes `%XX`.

use tine_core::{
    failure::Failure,
    id::{Nonce, TxId, WorkerId},
};

/// Digits of a txid in a node's name: as many as the largest has, so that names sort as numbers.
const TXID_DIGITS: usize = 20;

/// The paths of one topology.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    topology: String,
}

/// The paths of one group.
#[derive(Clone, Debug)]
pub(crate) struct GroupPaths {
    /// The group node itself.
    pub(crate) node: String,
    /// The folder of its plans.
    pub(crate) plans: String,
}

impl Layout {
    pub(crate) fn new(chroot: &str, topology: &str) -> Result<Layout, Failure> {
        if topology.is_empty() {
            return Err(Failure::fatal("a topology without a name cannot be coordinated"));
        }
        Ok(Layout { topology: format!("{chroot}/tine/{}", segment(topology)) })
    }

    pub(crate) fn topology(&self) -> &str {
        &self.topology
    }

    pub(crate) fn leader(&self) -> String {
        format!("{}/leader", self.topology)
    }

    /// The folder of the registered workers.
    pub(crate) fn workers(&self) -> String {
        format!("{}/workers", self.topology)
    }

    pub(crate) fn worker(&self, id: WorkerId) -> String {
        format!("{}/{:016x}", self.workers(), id.0)
    }

    /// Who runs which tasks.
    pub(crate) fn assignment(&self) -> String {
        format!("{}/assignment", self.topology)
    }

    pub(crate) fn groups(&self) -> String {
        format!("{}/groups", self.topology)
    }

    pub(crate) fn group(&self, group: &str) -> Result<GroupPaths, Failure> {
        if group.is_empty() {
            return Err(Failure::fatal("a group without a name cannot be coordinated"));
        }
        let node = format!("{}/{}", self.groups(), segment(group));
        let plans = format!("{node}/plans");
        Ok(GroupPaths { node, plans })
    }
}

impl GroupPaths {
    pub(crate) fn plan(&self, txid: TxId) -> String {
        format!("{}/{:0TXID_DIGITS$}", self.plans, txid.0)
    }

    pub(crate) fn reign(&self, nonce: Nonce) -> String {
        format!("{}/reign-{:016x}", self.node, nonce.0)
    }
}

/// The txid that a plan's node is named after.
pub(crate) fn plan_of(name: &str) -> Option<TxId> {
    let exact = name.len() == TXID_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|&txid| exact && txid > 0).map(TxId)
}

/// The nonce that a reign's node is named after.
pub(crate) fn reign_of(name: &str) -> Option<Nonce> {
    let nonce = u64::from_str_radix(name.strip_prefix("reign-")?, 16).ok().map(Nonce)?;
    (name == format!("reign-{:016x}", nonce.0)).then_some(nonce)
}

fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => segment.push(byte.into()),
            b'.' if at > 0 => segment.push('.'),
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_this() {
        let layout = Layout::new("/apps", "word count").unwrap();
        let group = layout.group("words/1").unwrap();
        assert_eq!(layout.leader(), "/apps/tine/word%20count/leader");
        assert_eq!(layout.worker(WorkerId(255)), "/apps/tine/word%20count/workers/00000000000000ff");
        assert_eq!(layout.assignment(), "/apps/tine/word%20count/assignment");
        assert_eq!(group.node, "/apps/tine/word%20count/groups/words%2F1");
        assert_eq!(group.reign(Nonce(255)), "/apps/tine/word%20count/groups/words%2F1/reign-00000000000000ff");
        assert_eq!(group.plan(TxId(7)), "/apps/tine/word%20count/groups/words%2F1/plans/00000000000000000007");
    }

    #[test]
    fn names_that_zookeeper_reserves_are_escaped() {
        assert_eq!((segment(".."), segment("a.b"), segment("ü")), ("%2E.".into(), "a.b".into(), "%C3%BC".into()));
    }

    #[test]
    fn only_exact_names_are_plans_and_reigns() {
        assert_eq!(plan_of("00000000000000000007"), Some(TxId(7)));
        for wrong in ["", "7", "+0000000000000000007", "00000000000000000000", "99999999999999999999"] {
            assert_eq!(plan_of(wrong), None, "{wrong}");
        }
        assert_eq!(reign_of("reign-00000000000000ff"), Some(Nonce(255)));
        for wrong in ["reign-ff", "reign-+0000000000000ff", "reign-00000000000000FF", "plans"] {
            assert_eq!(reign_of(wrong), None, "{wrong}");
        }
    }
}
