//! Coordination of the models: one leader by session, one record, conditional writes; it may be wiped or restored.

use std::collections::BTreeMap;

use tine_core::{
    coordination::{Claim, GroupRecord},
    failure::{Failure, FailureKind},
    id::{Epoch, Nonce, TxId},
    mutant::{self, Mutant},
};

/// What it holds of the group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    epoch: Epoch,
    nonce: Nonce,
    next: TxId,
    complete: TxId,
    plans: BTreeMap<TxId, Vec<u8>>,
}

/// The service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coordination {
    pub(crate) record: Record,
    /// What it held before the last claim: what a restore brings back.
    yesterday: Record,
    /// Who leads: process, its life, and the nonce of its session.
    pub(crate) leader: Option<(usize, u32, Nonce)>,
    elections: u64,
}

/// What a leader writes.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Claim(Claim),
    Plan(TxId, Vec<u8>),
    Forget(TxId),
    Complete(TxId),
}

impl Coordination {
    /// Elects a process; the nonce of its session.
    pub(crate) fn elect(&mut self, process: usize, life: u32) -> Nonce {
        self.elections += 1;
        let nonce = Nonce(self.elections);
        self.leader = Some((process, life, nonce));
        nonce
    }

    pub(crate) fn is_led_by(&self, process: usize, nonce: Nonce) -> bool {
        self.leader.is_some_and(|(leader, _, its)| (leader, its) == (process, nonce))
    }

    pub(crate) fn read(&self) -> GroupRecord {
        let Record { epoch, nonce, complete, .. } = self.record;
        let plans = self.record.plans.iter().map(|(txid, plan)| (*txid, plan.clone())).collect();
        GroupRecord { epoch, nonce, lineage: None, complete, plans }
    }

    /// Everything is gone, or as it was yesterday; sessions end.
    pub(crate) fn lose(&mut self, everything: bool) {
        self.record = if everything { Record::default() } else { self.yesterday.clone() };
        self.leader = None;
    }

    /// Writes, conditional on the writer's session and claim.
    pub(crate) fn write(&mut self, process: usize, nonce: Nonce, write: &Write) -> Result<(), Failure> {
        let blind = mutant::on(Mutant::UnversionedCoordination);
        if !self.is_led_by(process, nonce) && !blind {
            return Err(Failure::transient("the session is gone"));
        }
        if let Write::Claim(claim) = write {
            if (claim.epoch < self.record.epoch
                || (claim.epoch == self.record.epoch && claim.nonce != self.record.nonce))
                && !blind
            {
                return Err(Failure::new(FailureKind::Fenced, "that epoch is known already"));
            }
            self.yesterday = self.record.clone();
            (self.record.epoch, self.record.nonce) = (claim.epoch, claim.nonce);
            return Ok(());
        }
        if self.record.nonce != nonce && !blind {
            return Err(Failure::new(FailureKind::Fenced, "the claim is not this leader's"));
        }
        self.record.change(write, blind)
    }
}

impl Record {
    fn change(&mut self, write: &Write, blind: bool) -> Result<(), Failure> {
        match write {
            Write::Claim(_) => {}
            Write::Plan(txid, plan) => {
                let follows = *txid > self.complete && (self.next == TxId::NONE || self.next == *txid);
                if !follows && !blind {
                    return Err(Failure::fatal(format!("the plan of txid {txid} does not follow")));
                }
                self.next = txid.next();
                self.plans.insert(*txid, plan.clone());
            }
            Write::Forget(txid) => {
                self.plans.split_off(txid);
                self.complete = self.complete.min(txid.previous());
                if self.next != TxId::NONE {
                    self.next = self.next.min((*txid).max(TxId::NONE.next()));
                }
            }
            Write::Complete(txid) => {
                self.complete = self.complete.max(*txid);
                self.next = self.next.max(self.complete.next());
                self.plans = self.plans.split_off(&self.complete);
            }
        }
        Ok(())
    }
}
