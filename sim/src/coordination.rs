//! Coordination in memory, with ZooKeeper's habits: sessions that the server ends, one ephemeral leader, registered workers
//! with their assignment, versioned records, versions that repeat after a restore, and news that comes late.
//!
//! A session is a client and its server in one: what the client refuses by itself never travels, and a write is one
//! multi that needs the version the client last saw, its own reign node, and every plan that it adds to be missing and
//! every plan that it takes away to be there. Refusals say in ZooKeeper's words which of these it was.

mod standing;

use tine_core::{
    coordination::GroupRecord,
    failure::Failure,
    id::{Nonce, TxId, WorkerId},
    membership::{Member, Sight},
    mutant::{self, Mutant},
};

use self::standing::fenced;
pub(crate) use self::standing::{Standing, Write};

/// A session, never reused.
pub(crate) type SessionId = usize;

/// A session as the server sees it, and what its client knows.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) node: usize,
    pub(crate) life: u32,
    /// A candidate's nonce; none of a worker's registration.
    pub(crate) nonce: Option<Nonce>,
    pub(crate) alive: bool,
    /// Whether its client is to be told that something has changed since it looked at the workers.
    pub(crate) stirred: bool,
    /// When the answer to its last look arrives: later ones come after it.
    pub(crate) seen_us: u64,
    /// What this client knows of the record.
    pub(crate) known: Option<Standing>,
    /// How the record stands if a write was done that was answered with a refusal; looked at before the next one.
    doubt: Option<Standing>,
    /// What the client refused by itself last, if that was its last write.
    refused: Option<Failure>,
}

/// Why the server does none of a multi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoNode,
    BadVersion,
    NodeExists,
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
    /// The registered workers, the oldest registration first.
    members: Vec<(SessionId, Member)>,
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
        self.session(node, life, Some(nonce))
    }

    fn session(&mut self, node: usize, life: u32, nonce: Option<Nonce>) -> SessionId {
        let (known, doubt, refused) = (None, None, None);
        let (alive, stirred, seen_us) = (true, false, 0);
        self.sessions.push(Session { node, life, nonce, alive, stirred, seen_us, known, doubt, refused });
        self.sessions.len() - 1
    }

    /// Registers a worker, in a session of its own; once, however often it is asked for.
    pub(crate) fn register(&mut self, node: usize, life: u32, member: Member) -> SessionId {
        if let Some((session, _)) = self.members.iter().find(|(_, known)| known.peer.id == member.peer.id) {
            return *session;
        }
        let session = self.session(node, life, None);
        self.members.push((session, member));
        session
    }

    /// A worker says something else of itself; whether it is still registered.
    pub(crate) fn update(&mut self, member: &Member) -> bool {
        let mine = self.members.iter_mut().find(|(_, known)| known.peer.id == member.peer.id);
        mine.map(|(_, known)| known.clone_from(member)).is_some()
    }

    /// What a look at the workers shows.
    pub(crate) fn sight(&self) -> Sight {
        let members = self.members.iter().map(|(_, member)| member.clone()).collect();
        Sight { members, assignment: self.standing.assignment.as_deref().cloned(), ..Sight::default() }
    }

    /// The sessions of the registered workers.
    pub(crate) fn registered(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.members.iter().map(|(session, _)| *session)
    }

    /// Whether a worker is registered.
    pub(crate) fn knows(&self, worker: WorkerId) -> bool {
        self.members.iter().any(|(_, member)| member.peer.id == worker)
    }

    /// Ends a session; whether it was alive.
    pub(crate) fn end(&mut self, session: SessionId) -> bool {
        let was = std::mem::replace(&mut self.sessions[session].alive, false);
        if self.leader == Some(session) {
            self.leader = None;
        }
        self.members.retain(|(of, _)| *of != session);
        was
    }

    /// Elects the candidate that waits longest, if nobody leads.
    pub(crate) fn elect(&mut self) -> Option<SessionId> {
        if self.leader.is_some() {
            return None;
        }
        self.leader = self.sessions.iter().position(|session| session.alive && session.nonce.is_some());
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
        let reader = &mut self.sessions[session];
        (reader.known, reader.doubt) = (Some(standing), None);
        Ok(record)
    }

    /// Writes, conditional on what the session last knew. `Ok` is durable.
    pub(crate) fn write(&mut self, session: SessionId, write: &Write) -> Result<(), Failure> {
        // Its node is made first, so the service is asked before the client judges.
        if matches!(write, Write::Assign(_)) && !self.sessions[session].alive {
            return Err(Failure::transient("the session is gone"));
        }
        let nonce = self.nonce(session);
        if mutant::on(Mutant::UnversionedCoordination) {
            let after = self.standing.changed(nonce, write)?;
            self.put(after.clone());
            self.sessions[session].known = Some(after);
            return Ok(());
        }
        let judged = self.judge(session, write);
        self.sessions[session].refused = judged.as_ref().err().cloned();
        let (before, after) = judged?;
        let refusal = self.multi(&before, &after, write).err();
        // Looked at afterwards, as the client does: it may be what this write, or an earlier one like it, has made of it.
        let stands = refusal.is_none() || self.standing.looks_as(&after);
        if !stands {
            if !self.standing.looks_as(&before) {
                self.sessions[session].doubt = Some(after);
                return Err(fenced(self.standing.sight()));
            }
            self.sessions[session].doubt = None;
            return Err(match refusal {
                Some(Refusal::NodeExists) => Failure::fatal("coordination: a node that must not exist yet is there"),
                _ => fenced("a part of this leader's claim is gone"),
            });
        }
        let writer = &mut self.sessions[session];
        (writer.known, writer.doubt) = (Some(after), None);
        Ok(())
    }

    /// The nonce of a candidate.
    pub(crate) fn nonce(&self, session: SessionId) -> Nonce {
        self.sessions[session].nonce.unwrap_or_default()
    }

    /// What a client makes of a write before it sends it: how the record stands for it, and how it shall stand.
    fn judge(&mut self, session: SessionId, write: &Write) -> Result<(Standing, Standing), Failure> {
        let nonce = self.nonce(session);
        if let Write::Claim(claim) = write
            && claim.nonce != nonce
        {
            return Err(Failure::fatal("a leader claims with the nonce it was elected with"));
        }
        let before = self.stands(session)?;
        let after = before.changed(nonce, write)?;
        match self.sessions[session].alive {
            true => Ok((before, after)),
            false => Err(Failure::transient("the session is gone")),
        }
    }

    /// How the record stands for a client; a write that it is in doubt about is settled first.
    fn stands(&mut self, session: SessionId) -> Result<Standing, Failure> {
        let writer = &self.sessions[session];
        let Some(before) = writer.known.clone() else { return Err(Failure::fatal("written before it was read")) };
        let Some(after) = writer.doubt.clone() else { return Ok(before) };
        if !writer.alive {
            return Err(Failure::transient("the session is gone, and whether the write stands is not known"));
        }
        let stands = match (self.standing.looks_as(&after), self.standing.looks_as(&before)) {
            (true, _) => after,
            (_, true) => before,
            _ => return Err(fenced(self.standing.sight())),
        };
        let writer = &mut self.sessions[session];
        (writer.known, writer.doubt) = (Some(stands.clone()), None);
        Ok(stands)
    }

    /// Does all parts of a write, or none.
    fn multi(&mut self, before: &Standing, after: &Standing, write: &Write) -> Result<(), Refusal> {
        let found = &self.standing;
        match (found.version, before.version) {
            (found, expected) if found == expected => {}
            (None, _) => return Err(Refusal::NoNode),
            (_, None) => return Err(Refusal::NodeExists),
            _ => return Err(Refusal::BadVersion),
        }
        // What is there goes or must stay; what is not there comes.
        if before.reign != found.reign {
            return Err(if before.reign.is_none() { Refusal::NodeExists } else { Refusal::NoNode });
        }
        let gone: Vec<TxId> = before.plans.keys().filter(|txid| !after.plans.contains_key(txid)).copied().collect();
        if !gone.iter().all(|txid| found.plans.contains_key(txid)) {
            return Err(Refusal::NoNode);
        }
        let come = after.plans.iter().filter(|(txid, _)| !before.plans.contains_key(txid));
        let mut plans = found.plans.clone();
        gone.iter().for_each(|txid| drop(plans.remove(txid)));
        for (txid, plan) in come {
            if plans.insert(*txid, plan.clone()).is_some() {
                return Err(Refusal::NodeExists);
            }
        }
        let assignment = match write {
            Write::Assign(made) => Some(made.clone()),
            _ => found.assignment.clone(),
        };
        self.put(Standing { plans, assignment, ..after.clone() });
        Ok(())
    }

    /// The record stands so from now on.
    fn put(&mut self, after: Standing) {
        let before = std::mem::replace(&mut self.standing, after);
        if self.keep_copies {
            self.copies.push(before);
            if self.copies.len() > COPIES {
                self.copies.remove(0);
            }
        }
    }

    /// Whether what the session wrote last stands, after its answer was lost: reads back and compares content, the
    /// writer's nonce included. What the client refused by itself was never sent.
    pub(crate) fn settle(&mut self, session: SessionId) -> Result<(), Failure> {
        let writer = &self.sessions[session];
        if let Some(failure) = &writer.refused {
            return Err(failure.clone());
        }
        if !writer.alive {
            return Err(Failure::transient("the session is gone, and whether the write stands is not known"));
        }
        let wrote = writer.doubt.as_ref().or(writer.known.as_ref());
        if !wrote.is_some_and(|wrote| self.standing.looks_as(wrote)) {
            return Err(fenced(self.standing.sight()));
        }
        let writer = &mut self.sessions[session];
        writer.known = writer.doubt.take().or(writer.known.take());
        Ok(())
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
