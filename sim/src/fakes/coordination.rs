//! Coordination without a network: sessions are told apart by number, and every request is answered at once.

use std::sync::Arc;

use tine_core::{
    coordination::{Claim, GroupRecord},
    failure::Failure,
    id::{Epoch, Nonce, TxId},
    membership::{Assignment, Member, Sight},
};

use crate::coordination::{Coordination, SessionId, Write};

/// The service with one group in it.
#[derive(Debug)]
pub struct FakeCoordination(Coordination);

/// A group as it lies in the service, node by node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stood {
    /// The group node's version.
    pub version: u32,
    /// The epoch last claimed.
    pub epoch: Epoch,
    /// Who claimed it.
    pub nonce: Nonce,
    /// The lineage.
    pub lineage: Option<u128>,
    /// The last transaction known to be complete.
    pub complete: TxId,
    /// The transaction whose plan comes next.
    pub next: TxId,
    /// The plans that are there.
    pub plans: Vec<(TxId, Vec<u8>)>,
    /// Whose reign node there is.
    pub reign: Option<Nonce>,
    /// Who runs which tasks, as it is written; `None` while nobody has said so.
    pub assignment: Option<Vec<u8>>,
}

impl Default for FakeCoordination {
    fn default() -> Self {
        FakeCoordination(Coordination::new(true))
    }
}

impl FakeCoordination {
    /// Opens a session that stands for election.
    pub fn open(&mut self, nonce: Nonce) -> SessionId {
        self.0.open(0, 0, nonce)
    }

    /// Ends a session, whoever wants it to.
    pub fn end(&mut self, session: SessionId) {
        self.0.end(session);
    }

    /// Elects the candidate that has waited longest, if nobody leads; who leads now.
    pub fn elect(&mut self) -> Option<SessionId> {
        self.0.elect().or(self.0.leader)
    }

    /// `Reign::read`.
    pub fn read(&mut self, session: SessionId) -> Result<GroupRecord, Failure> {
        self.0.read(session)
    }

    /// `Reign::claim`.
    pub fn claim(&mut self, session: SessionId, claim: &Claim) -> Result<(), Failure> {
        self.0.write(session, &Write::Claim(claim.clone()))
    }

    /// `Reign::write_plan`.
    pub fn write_plan(&mut self, session: SessionId, txid: TxId, plan: &[u8]) -> Result<(), Failure> {
        self.0.write(session, &Write::Plan(txid, plan.into()))
    }

    /// `Reign::forget_from`.
    pub fn forget_from(&mut self, session: SessionId, txid: TxId) -> Result<(), Failure> {
        self.0.write(session, &Write::Forget(txid))
    }

    /// `Reign::complete`.
    pub fn complete(&mut self, session: SessionId, txid: TxId) -> Result<(), Failure> {
        self.0.write(session, &Write::Complete(txid))
    }

    /// `Members::register`: a session of the worker's own.
    pub fn register(&mut self, member: &Member) -> SessionId {
        self.0.register(0, 0, member.clone())
    }

    /// `Registration::update`.
    pub fn update(&mut self, member: &Member) {
        self.0.update(member);
    }

    /// `Registration::look`.
    pub fn look(&self) -> Sight {
        self.0.sight()
    }

    /// `Reign::assign`.
    pub fn assign(&mut self, session: SessionId, assignment: &Assignment) -> Result<(), Failure> {
        self.0.write(session, &Write::Assign(Arc::new(assignment.clone())))
    }

    /// What the last write of a session comes to when its answer was lost.
    pub fn settle(&mut self, session: SessionId) -> Result<(), Failure> {
        self.0.settle(session)
    }

    /// Deletes everything; sessions stay.
    pub fn wipe(&mut self) {
        self.0.wipe();
    }

    /// Goes back by so many writes; whether there was anything to go back to. Sessions stay.
    pub fn restore(&mut self, writes: usize) -> bool {
        self.0.restore(writes)
    }

    /// What lies there; `None` while there is no group node.
    pub fn stood(&self) -> Option<Stood> {
        let standing = &self.0.standing;
        let (next, lineage, reign) = standing.parts();
        Some(Stood {
            version: standing.version?,
            epoch: standing.epoch,
            nonce: standing.nonce,
            lineage,
            complete: standing.complete,
            next,
            plans: standing.plans(),
            reign,
            assignment: standing.assignment().map(Assignment::encode),
        })
    }
}
