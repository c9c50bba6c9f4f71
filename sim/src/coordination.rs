//! Coordination in memory, with ZooKeeper's habits: sessions that the server ends, one ephemeral leader, versioned
//! records, versions that repeat after a restore, and news that comes late.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tine_core::{
    coordination::{Claim, GroupRecord},
    failure::{Failure, FailureKind},
    id::{Epoch, Nonce, TxId},
    mutant::{self, Mutant},
};

/// A session, never reused.
pub(crate) type SessionId = usize;

/// A group as it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// `None` while the record does not exist. Repeats after a restore.
    pub(crate) version: Option<u32>,
    pub(crate) epoch: Epoch,
    pub(crate) nonce: Nonce,
    lineage: Option<u128>,
    next: TxId,
    pub(crate) complete: TxId,
    plans: BTreeMap<TxId, Arc<[u8]>>,
    /// The reign nodes that exist.
    reign: Option<Nonce>,
}

/// What a leader writes.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Claim(Claim),
    Plan(TxId, Arc<[u8]>),
    Forget(TxId),
    Complete(TxId),
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Claim(claim) => write!(f, "claim of epoch {}", claim.epoch.0),
            Write::Plan(txid, _) => write!(f, "plan of transaction {txid}"),
            Write::Forget(txid) => write!(f, "forget transaction {txid} and above"),
            Write::Complete(txid) => write!(f, "complete up to {txid}"),
        }
    }
}

/// A session as the server sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) nonce: Nonce,
    pub(crate) alive: bool,
    /// What this client knows of the record.
    pub(crate) known: Option<Standing>,
}

/// The service.
#[derive(Debug, Default)]
pub(crate) struct Coordination {
    pub(crate) standing: Standing,
    /// Copies, oldest first, for restores.
    copies: Vec<Standing>,
    keep_copies: bool,
    pub(crate) sessions: Vec<Session>,
    /// Who leads, by session.
    pub(crate) leader: Option<SessionId>,
}

/// How many copies are kept.
const COPIES: usize = 16;

impl Coordination {
    /// A new one; `keep_copies` when it will be restored.
    pub(crate) fn new(keep_copies: bool) -> Coordination {
        Coordination { keep_copies, ..Coordination::default() }
    }

    /// Opens a session that stands for election.
    pub(crate) fn open(&mut self, node: usize, life: u32, nonce: Nonce) -> SessionId {
        self.sessions.push(Session { node, life, nonce, alive: true, known: None });
        self.sessions.len() - 1
    }

    /// Ends a session; whether it was alive.
    pub(crate) fn end(&mut self, session: SessionId) -> bool {
        let was = std::mem::replace(&mut self.sessions[session].alive, false);
        if self.leader == Some(session) {
            self.leader = None;
        }
        was
    }

    /// Elects the candidate that waits longest, if nobody leads.
    pub(crate) fn elect(&mut self) -> Option<SessionId> {
        if self.leader.is_some() {
            return None;
        }
        self.leader = self.sessions.iter().position(|session| session.alive);
        self.leader
    }

    /// Reads the record, up to date.
    pub(crate) fn read(&mut self, session: SessionId) -> Result<GroupRecord, Failure> {
        if !self.sessions[session].alive {
            return Err(Failure::transient("the session is gone"));
        }
        let standing = self.standing.clone();
        let record = GroupRecord {
            epoch: standing.epoch,
            nonce: standing.nonce,
            lineage: standing.lineage,
            complete: standing.complete,
            plans: standing.plans.iter().map(|(txid, plan)| (*txid, plan.to_vec())).collect(),
        };
        self.sessions[session].known = Some(standing);
        Ok(record)
    }

    /// Writes, conditional on what the session last knew. `Ok` is durable.
    pub(crate) fn write(&mut self, session: SessionId, write: &Write) -> Result<(), Failure> {
        let writer = &self.sessions[session];
        let blind = mutant::on(Mutant::UnversionedCoordination);
        if !writer.alive && !blind {
            return Err(Failure::transient("the session is gone"));
        }
        let before = match (&writer.known, blind) {
            (_, true) => self.standing.clone(),
            (Some(known), false) => known.clone(),
            (None, false) => return Err(Failure::fatal("written before it was read")),
        };
        let after = before.changed(writer.nonce, write)?;
        let stands = self.standing.version == before.version
            && (matches!(write, Write::Claim(_)) || self.standing.reign == Some(writer.nonce));
        if !stands && !blind {
            return Err(fenced(format!("version {:?} stands there", self.standing.version)));
        }
        if self.keep_copies {
            self.copies.push(std::mem::replace(&mut self.standing, after.clone()));
            if self.copies.len() > COPIES {
                self.copies.remove(0);
            }
        } else {
            self.standing = after.clone();
        }
        self.sessions[session].known = Some(after);
        Ok(())
    }

    /// Whether what the session wrote last stands: reads back and compares content, the writer's nonce included.
    pub(crate) fn settle(&self, session: SessionId) -> Result<(), Failure> {
        let writer = &self.sessions[session];
        if !writer.alive {
            return Err(Failure::transient("the session is gone, and whether the write stands is not known"));
        }
        let of =
            |standing: &Standing| (standing.version, standing.epoch, standing.nonce, standing.next, standing.complete);
        match writer.known.as_ref().is_some_and(|known| of(known) == of(&self.standing)) {
            true => Ok(()),
            false => Err(fenced("something else stands there")),
        }
    }

    /// Everything is gone, sessions included.
    pub(crate) fn wipe(&mut self) {
        self.standing = Standing::default();
        self.copies.clear();
    }

    /// Goes back by so many writes; whether anything changed.
    pub(crate) fn restore(&mut self, writes: usize) -> bool {
        let Some(place) = self.copies.len().checked_sub(writes.clamp(1, self.copies.len().max(1))) else {
            return false;
        };
        let Some(copy) = self.copies.get(place).cloned() else { return false };
        self.copies.truncate(place);
        self.standing = copy;
        true
    }
}

impl Standing {
    /// The plan of a transaction, if it is there.
    pub(crate) fn plan(&self, txid: TxId) -> Option<&[u8]> {
        self.plans.get(&txid).map(|plan| &**plan)
    }

    fn changed(&self, nonce: Nonce, write: &Write) -> Result<Standing, Failure> {
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
        }
        Ok(after)
    }
}

fn fenced(why: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Fenced, format!("coordination: {why}"))
}
