//! What a leader knows of a group in ZooKeeper, and what each of its writes makes of it: pure.

use std::collections::BTreeSet;

use tine_core::{
    coordination::Claim,
    failure::{Failure, FailureKind},
    id::{Nonce, TxId},
};

use crate::{PLAN_BYTES_MAX, content::GroupNode, layout::GroupPaths};

/// A group as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The group node's version; `None` while it does not exist.
    pub(crate) version: Option<i32>,
    /// Its content.
    pub(crate) node: GroupNode,
    /// The plans that exist.
    pub(crate) plans: BTreeSet<TxId>,
    /// The reign nodes that exist: one, unless somebody else was here.
    pub(crate) reigns: Vec<Nonce>,
}

/// A part of a multi besides the group node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The node must exist.
    Require(String),
    /// The node must not exist, and does then.
    Create(String, Vec<u8>),
    /// The node must exist, and holds this then.
    Set(String, Vec<u8>),
    /// The node must exist, and does not then.
    Delete(String),
}

/// A write: how the group stands afterwards, and the steps that go with the group node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) after: Standing,
    pub(crate) steps: Vec<Step>,
}

impl Standing {
    /// Writes epoch, nonce and lineage, and makes the reign node the only one.
    pub(crate) fn claim(&self, paths: &GroupPaths, claim: &Claim) -> Result<Change, Failure> {
        let (known, new) = ((self.node.epoch, self.node.nonce), (claim.epoch, claim.nonce));
        if new.0 < known.0 || (new.0 == known.0 && new.1 != known.1) {
            return Err(fenced(paths, format!("epoch {} is known already, {} is not above it", known.0.0, new.0.0)));
        }
        let mut after = self.changed();
        (after.node.epoch, after.node.nonce, after.node.lineage) = (claim.epoch, claim.nonce, Some(claim.lineage));
        after.reigns = vec![claim.nonce];
        let mut steps = Vec::new();
        if self.version.is_none() {
            steps.push(Step::Create(paths.plans.clone(), Vec::new()));
        }
        let others = self.reigns.iter().filter(|&&nonce| nonce != claim.nonce);
        steps.extend(others.map(|&nonce| Step::Delete(paths.reign(nonce))));
        match self.reigns.contains(&claim.nonce) {
            true => steps.push(Step::Require(paths.reign(claim.nonce))),
            false => steps.push(Step::Create(paths.reign(claim.nonce), Vec::new())),
        }
        Ok(Change { after, steps })
    }

    /// Adds the plan of `txid`, which must be the next.
    pub(crate) fn write_plan(
        &self,
        paths: &GroupPaths,
        nonce: Nonce,
        txid: TxId,
        plan: &[u8],
    ) -> Result<Change, Failure> {
        self.require_claim(paths, nonce)?;
        if plan.len() > PLAN_BYTES_MAX {
            return Err(Failure::fatal(format!(
                "the plan of txid {txid} has {} bytes and zookeeper takes {PLAN_BYTES_MAX}: read fewer partitions in one \
                 topology (a plan of 2,000 takes about 100 kB)",
                plan.len()
            )));
        }
        let next = self.node.next;
        if txid == TxId::NONE || txid <= self.node.complete || (next != TxId::NONE && next != txid) {
            return Err(Failure::fatal(format!(
                "zookeeper node {}: the plan of txid {txid} does not follow: complete is {}, next is {next}",
                paths.node, self.node.complete
            )));
        }
        let mut after = self.changed();
        after.node.next = txid.next();
        after.plans.insert(txid);
        let steps = vec![Step::Require(paths.reign(nonce)), Step::Create(paths.plan(txid), plan.to_vec())];
        Ok(Change { after, steps })
    }

    /// Takes away the plans of `txid` and above.
    pub(crate) fn forget_from(&self, paths: &GroupPaths, nonce: Nonce, txid: TxId) -> Result<Change, Failure> {
        self.require_claim(paths, nonce)?;
        let mut after = self.changed();
        let gone = after.plans.split_off(&txid);
        after.node.complete = after.node.complete.min(txid.previous());
        if after.node.next != TxId::NONE {
            after.node.next = after.node.next.min(txid.max(TxId::NONE.next()));
        }
        Ok(Change { after, steps: deletes(paths, nonce, gone) })
    }

    /// Notes that everything up to `txid` is complete; of those plans only the last stays. A lower one than noted
    /// before changes nothing.
    pub(crate) fn complete(&self, paths: &GroupPaths, nonce: Nonce, txid: TxId) -> Result<Change, Failure> {
        self.require_claim(paths, nonce)?;
        let mut after = self.changed();
        after.node.complete = after.node.complete.max(txid);
        after.node.next = after.node.next.max(after.node.complete.next());
        let kept = after.plans.split_off(&after.node.complete);
        let gone = std::mem::replace(&mut after.plans, kept);
        Ok(Change { after, steps: deletes(paths, nonce, gone) })
    }

    /// Writes who runs which tasks into a node that exists.
    pub(crate) fn assign(
        &self,
        paths: &GroupPaths,
        nonce: Nonce,
        (node, content): (String, Vec<u8>),
    ) -> Result<Change, Failure> {
        self.require_claim(paths, nonce)?;
        if content.len() > PLAN_BYTES_MAX {
            let bytes = content.len();
            return Err(Failure::fatal(format!(
                "an assignment of {bytes} bytes, and zookeeper takes {PLAN_BYTES_MAX}"
            )));
        }
        Ok(Change { after: self.changed(), steps: vec![Step::Require(paths.reign(nonce)), Step::Set(node, content)] })
    }

    /// This standing at the version that the next write makes.
    fn changed(&self) -> Standing {
        let version = self.version.map_or(0, |version| version.wrapping_add(1));
        Standing { version: Some(version), ..self.clone() }
    }

    fn require_claim(&self, paths: &GroupPaths, nonce: Nonce) -> Result<(), Failure> {
        match self.version.is_some() && self.node.nonce == nonce && self.reigns == [nonce] {
            true => Ok(()),
            false => Err(fenced(paths, "its claim is not this leader's")),
        }
    }
}

fn deletes(paths: &GroupPaths, nonce: Nonce, plans: BTreeSet<TxId>) -> Vec<Step> {
    let mut steps = vec![Step::Require(paths.reign(nonce))];
    steps.extend(plans.into_iter().map(|txid| Step::Delete(paths.plan(txid))));
    steps
}

/// Somebody else writes this group.
pub(crate) fn fenced(paths: &GroupPaths, why: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Fenced, format!("fenced: zookeeper node {}: {why}", paths.node))
}

#[cfg(test)]
mod tests {
    use tine_core::id::Epoch;

    use super::*;
    use crate::layout::Layout;

    const ME: Nonce = Nonce(7);

    fn paths() -> GroupPaths {
        Layout::new("", "t").unwrap().group("g").unwrap()
    }

    fn claimed() -> Standing {
        let claim = Claim { epoch: Epoch(1), nonce: ME, lineage: 9 };
        Standing::default().claim(&paths(), &claim).unwrap().after
    }

    fn with_plans(from: u64, to: u64) -> Standing {
        let mut standing = claimed();
        for txid in from..=to {
            standing = standing.write_plan(&paths(), ME, TxId(txid), b"").unwrap().after;
        }
        standing
    }

    fn kept(standing: &Standing) -> Vec<u64> {
        standing.plans.iter().map(|txid| txid.0).collect()
    }

    #[test]
    fn plans_follow_without_a_gap_and_complete_keeps_the_last() {
        let standing = with_plans(58, 61);
        assert!(standing.write_plan(&paths(), ME, TxId(63), b"").is_err());
        assert!(standing.write_plan(&paths(), ME, TxId(61), b"").is_err());
        let done = standing.complete(&paths(), ME, TxId(60)).unwrap().after;
        assert_eq!((kept(&done), done.node.complete, done.node.next), (vec![60, 61], TxId(60), TxId(62)));
        let back = done.complete(&paths(), ME, TxId(59)).unwrap().after;
        assert_eq!((kept(&back), back.node), (vec![60, 61], done.node));
    }

    #[test]
    fn forgetting_makes_room_and_takes_complete_back_with_it() {
        let standing = with_plans(1, 4).complete(&paths(), ME, TxId(2)).unwrap().after;
        let shorter = standing.forget_from(&paths(), ME, TxId(4)).unwrap().after;
        assert_eq!((kept(&shorter), shorter.node.complete, shorter.node.next), (vec![2, 3], TxId(2), TxId(4)));
        let all = standing.forget_from(&paths(), ME, TxId(1)).unwrap().after;
        assert_eq!((kept(&all), all.node.complete, all.node.next), (vec![], TxId(0), TxId(1)));
        assert!(all.write_plan(&paths(), ME, TxId(1), b"").is_ok());
    }

    #[test]
    fn a_database_that_is_ahead_moves_next_by_complete() {
        let ahead = with_plans(1, 2).complete(&paths(), ME, TxId(57)).unwrap().after;
        assert_eq!((kept(&ahead), ahead.node.next), (vec![], TxId(58)));
    }

    #[test]
    fn an_epoch_is_claimed_once_and_only_the_claimant_writes() {
        let standing = claimed();
        let claim = |epoch, nonce| Claim { epoch: Epoch(epoch), nonce: Nonce(nonce), lineage: 9 };
        assert!(standing.claim(&paths(), &claim(1, 8)).is_err());
        assert!(standing.claim(&paths(), &claim(1, 7)).is_ok());
        let other = standing.claim(&paths(), &claim(2, 8)).unwrap();
        assert!(other.steps.contains(&Step::Delete(paths().reign(ME))));
        assert!(other.after.write_plan(&paths(), ME, TxId(1), b"").is_err());
        assert!(Standing::default().write_plan(&paths(), Nonce(0), TxId(1), b"").is_err());
    }

    #[test]
    fn only_the_claimant_assigns() {
        let change = claimed().assign(&paths(), ME, ("/a".to_owned(), vec![1])).unwrap();
        assert_eq!(change.steps, [Step::Require(paths().reign(ME)), Step::Set("/a".to_owned(), vec![1])]);
        assert!(claimed().assign(&paths(), Nonce(8), ("/a".to_owned(), vec![1])).is_err());
    }

    #[test]
    fn z7_a_plan_that_is_too_large_is_refused_with_advice() {
        let failure = claimed().write_plan(&paths(), ME, TxId(1), &vec![0; PLAN_BYTES_MAX + 1]).unwrap_err();
        assert!(failure.message.contains("fewer partitions"), "{failure}");
    }
}
