//! A group as it stands in coordination, what a write makes of it, and what a client refuses by itself.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tine_core::{
    coordination::Claim,
    failure::{Failure, FailureKind},
    id::{Epoch, Nonce, TxId},
    membership::Assignment,
    mutant::{self, Mutant},
};

/// The largest plan that is written, as in `tine-zookeeper`.
const PLAN_BYTES_MAX: usize = 900_000;

/// A group as it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// `None` while the record does not exist. Repeats after a restore.
    pub(crate) version: Option<u32>,
    pub(crate) epoch: Epoch,
    pub(crate) nonce: Nonce,
    pub(super) lineage: Option<u128>,
    pub(super) next: TxId,
    pub(crate) complete: TxId,
    pub(super) plans: BTreeMap<TxId, Arc<[u8]>>,
    /// The reign nodes that exist.
    pub(super) reign: Option<Nonce>,
    /// Who runs which tasks: a node beside the group's, of which a look at that one shows nothing.
    pub(super) assignment: Option<Arc<Assignment>>,
}

/// What a leader writes.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Claim(Claim),
    Plan(TxId, Arc<[u8]>),
    Forget(TxId),
    Complete(TxId),
    Assign(Arc<Assignment>),
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Claim(claim) => write!(f, "claim of epoch {}", claim.epoch.0),
            Write::Plan(txid, _) => write!(f, "plan of transaction {txid}"),
            Write::Forget(txid) => write!(f, "forget transaction {txid} and above"),
            Write::Complete(txid) => write!(f, "complete up to {txid}"),
            Write::Assign(made) => write!(f, "assignment of {} to {} workers", made.era, made.shares.len()),
        }
    }
}

impl Standing {
    /// The plan of a transaction, if it is there.
    pub(crate) fn plan(&self, txid: TxId) -> Option<&[u8]> {
        self.plans.get(&txid).map(|plan| &**plan)
    }

    /// The number of the next plan; the lineage; whose reign node there is.
    #[cfg(feature = "fakes")]
    pub(crate) fn parts(&self) -> (TxId, Option<u128>, Option<Nonce>) {
        (self.next, self.lineage, self.reign)
    }

    /// Who runs which tasks.
    #[cfg(feature = "fakes")]
    pub(crate) fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_deref()
    }

    /// The plans that are there.
    #[cfg(feature = "fakes")]
    pub(crate) fn plans(&self) -> Vec<(TxId, Vec<u8>)> {
        self.plans.iter().map(|(txid, plan)| (*txid, plan.to_vec())).collect()
    }

    /// Whether the group node's version and content are the same: all that a look at it shows.
    pub(super) fn looks_as(&self, other: &Standing) -> bool {
        let content = |one: &Standing| (one.version, one.epoch, one.nonce, one.lineage, one.next, one.complete);
        content(self) == content(other)
    }

    /// What a look at the group node shows, for people.
    pub(super) fn sight(&self) -> String {
        match self.version {
            Some(version) => {
                format!("epoch {} of leader {:016x} stands there (version {version})", self.epoch.0, self.nonce.0)
            }
            None => "it is gone".to_owned(),
        }
    }

    /// What a write makes of it, and what the client refuses by itself.
    pub(super) fn changed(&self, nonce: Nonce, write: &Write) -> Result<Standing, Failure> {
        let blind = mutant::on(Mutant::UnversionedCoordination);
        let mut after = self.clone();
        after.version = Some(self.version.map_or(0, |version| version + 1));
        let claimed = self.version.is_some() && self.nonce == nonce && self.reign == Some(nonce);
        if !claimed && !matches!(write, Write::Claim(_)) && !blind {
            return Err(fenced("its claim is not this leader's"));
        }
        match write {
            Write::Claim(claim) => {
                if (claim.epoch < self.epoch || (claim.epoch == self.epoch && claim.nonce != self.nonce)) && !blind {
                    return Err(fenced(format!("epoch {} is known already", self.epoch.0)));
                }
                (after.epoch, after.nonce, after.lineage) = (claim.epoch, claim.nonce, Some(claim.lineage));
                after.reign = Some(claim.nonce);
            }
            Write::Plan(txid, plan) => {
                if plan.len() > PLAN_BYTES_MAX {
                    return Err(Failure::fatal(format!(
                        "the plan of txid {txid} has {} bytes and coordination takes {PLAN_BYTES_MAX}",
                        plan.len()
                    )));
                }
                let follows = *txid > self.complete && (self.next == TxId::NONE || self.next == *txid);
                if !follows && !blind {
                    return Err(Failure::fatal(format!(
                        "the plan of txid {txid} does not follow: complete is {}, next is {}",
                        self.complete, self.next
                    )));
                }
                after.next = txid.next();
                after.plans.insert(*txid, plan.clone());
            }
            Write::Forget(txid) => {
                after.plans.split_off(txid);
                after.complete = after.complete.min(txid.previous());
                if after.next != TxId::NONE {
                    after.next = after.next.min((*txid).max(TxId::NONE.next()));
                }
            }
            Write::Complete(txid) => {
                after.complete = after.complete.max(*txid);
                after.next = after.next.max(after.complete.next());
                after.plans = after.plans.split_off(&after.complete);
            }
            Write::Assign(made) => after.assignment = Some(made.clone()),
        }
        Ok(after)
    }
}

pub(super) fn fenced(why: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Fenced, format!("coordination: {why}"))
}
