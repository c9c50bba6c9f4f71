//! Coordination in memory: who is registered, who leads, what is assigned. It can be away, and it can forget a worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tine_core::{
    coordination::{Claim, Coordination, GroupRecord, Reign},
    failure::{Failure, FailureKind},
    id::{Nonce, TxId, WorkerId},
    membership::{Assignment, Intent, Member, Members, Registration, Sight},
};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    next: u64,
    members: BTreeMap<u64, Member>,
    leader: Option<u64>,
    record: GroupRecord,
    assignment: Option<Assignment>,
    away: bool,
    /// How long registering and looking take.
    slow: Duration,
    /// How long writing an assignment takes.
    slow_writes: Duration,
    /// Single registrations that are known to be gone.
    ended: BTreeSet<u64>,
    /// When members said that the topology ends.
    enders: BTreeMap<u64, u64>,
    /// They stay registered though they are gone.
    keeps_enders: bool,
    /// Registrations are counted from here: those before are known to be gone.
    expired: u64,
}

impl Registry {
    pub(crate) fn new() -> Registry {
        Registry(Arc::new(Inner { state: Mutex::default(), changes: watch::Sender::new(0) }))
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.0.changes.send_modify(|count| *count += 1);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers nobody, until it is back.
    pub(crate) fn go_away(&self, away: bool) {
        self.change(|state| state.away = away);
    }

    /// Ends every session, and tells their owners so.
    pub(crate) fn expire_all(&self) {
        self.change(|state| {
            state.expired = state.next;
            state.members.clear();
            state.leader = None;
        });
    }

    /// Ends the leader's reign, but not its registration.
    pub(crate) fn depose(&self) {
        self.change(|state| state.leader = None);
    }

    /// Ends the session of the worker at an address, and tells it so.
    pub(crate) fn expire(&self, address: &str) {
        self.change(|state| {
            let at = state.members.iter().find(|(_, member)| member.peer.address == address).map(|(at, _)| *at);
            if let Some(ticket) = at {
                state.members.remove(&ticket);
                state.ended.insert(ticket);
            }
        });
    }

    /// Somebody deletes the assignment.
    pub(crate) fn forget_assignment(&self) {
        self.change(|state| state.assignment = None);
    }

    /// From now on registering and looking take so long.
    pub(crate) fn slow(&self, delay: Duration) {
        self.change(|state| state.slow = delay);
    }

    /// From now on writing an assignment takes so long.
    pub(crate) fn slow_writes(&self, delay: Duration) {
        self.change(|state| state.slow_writes = delay);
    }

    /// From now on workers that say that the topology ends are as good as killed while they do: their sessions do not end.
    pub(crate) fn keep_enders(&self) {
        self.change(|state| state.keeps_enders = true);
    }

    /// Registers a worker that is never there: nobody listens at its address. Dropped, it is gone again.
    pub(crate) fn phantom(&self) -> Phantom {
        let ticket = self.change(|state| {
            state.next += 1;
            let mut member = state.members.values().next().expect("a worker to be like").clone();
            member.peer.id = WorkerId(u64::MAX - state.next);
            member.peer.address = "127.0.0.1:1".to_owned();
            state.members.insert(state.next, member);
            state.next
        });
        Phantom(self.clone(), ticket)
    }

    /// How many workers the assignment gives tasks to.
    pub(crate) fn assigned(&self) -> usize {
        self.state().assignment.as_ref().map_or(0, |assignment| assignment.shares.len())
    }

    /// Whether anybody leads.
    pub(crate) fn is_led(&self) -> bool {
        self.state().leader.is_some()
    }

    async fn dawdle(&self) {
        let delay = self.state().slow;
        tokio::time::sleep(delay).await;
    }

    pub(crate) fn members(&self) -> usize {
        self.state().members.len()
    }

    /// Waits until the service answers and something holds.
    async fn when<R>(&self, mut holds: impl FnMut(&mut State) -> Option<R>) -> R {
        let mut changes = self.0.changes.subscribe();
        loop {
            {
                let mut state = self.state();
                if !state.away
                    && let Some(found) = holds(&mut state)
                {
                    return found;
                }
            }
            let _ = changes.changed().await;
        }
    }
}

/// A worker that is only registered.
pub(crate) struct Phantom(Registry, u64);

impl Drop for Phantom {
    fn drop(&mut self) {
        self.0.change(|state| state.members.remove(&self.1));
    }
}

#[async_trait]
impl Coordination for Registry {
    fn describe(&self) -> String {
        "a registry in memory".to_owned()
    }

    async fn campaign(&self, _: &str, nonce: Nonce) -> Result<Box<dyn Reign>, Failure> {
        let ticket = self
            .when(|state| {
                state.leader.is_none().then(|| {
                    state.next += 1;
                    state.leader = Some(state.next);
                    state.next
                })
            })
            .await;
        Ok(Box::new(Leading { registry: self.clone(), ticket, nonce }))
    }

    fn members(&self) -> Option<&dyn Members> {
        Some(self)
    }
}

#[async_trait]
impl Members for Registry {
    async fn register(&self, _: &str, member: &Member) -> Result<Box<dyn Registration>, Failure> {
        self.dawdle().await;
        let ticket = self
            .when(|state| {
                state.next += 1;
                state.members.insert(state.next, member.clone());
                Some(state.next)
            })
            .await;
        self.0.changes.send_modify(|count| *count += 1);
        Ok(Box::new(Registered { registry: self.clone(), ticket, seen: Mutex::new(0) }))
    }
}

struct Registered {
    registry: Registry,
    ticket: u64,
    seen: Mutex<u64>,
}

#[async_trait]
impl Registration for Registered {
    async fn look(&self) -> Result<Sight, Failure> {
        self.registry.dawdle().await;
        *self.seen.lock().unwrap() = *self.registry.0.changes.borrow();
        let state = self.registry.state();
        match state.away {
            true => Err(Failure::transient("nobody answers")),
            false => {
                let is_past = |(at, _): &(&u64, &Member)| state.enders.get(at).is_some_and(|end| *end < self.ticket);
                let past = state.members.iter().filter(is_past).map(|(_, member)| member.peer.id).collect();
                let members = state.members.values().cloned().collect();
                Ok(Sight { members, past, assignment: state.assignment.clone() })
            }
        }
    }

    async fn changed(&self) {
        let seen = *self.seen.lock().unwrap();
        let mut changes = self.registry.0.changes.subscribe();
        let _ = changes.wait_for(|count| *count != seen).await;
    }

    async fn update(&self, member: &Member) -> Result<(), Failure> {
        self.registry.change(|state| {
            if let Some(known) = state.members.get_mut(&self.ticket) {
                *known = member.clone();
                if matches!(member.intent, Intent::End { .. }) {
                    state.next += 1;
                    state.enders.insert(self.ticket, state.next);
                }
            }
        });
        Ok(())
    }

    /// A registration cannot reach a service that is away, and then does not know; a service that is there says what it knows.
    async fn lost(&self) -> Failure {
        let mut changes = self.registry.0.changes.subscribe();
        loop {
            {
                let state = self.registry.state();
                if state.away {
                    return Failure::transient("no answer within the lease");
                }
                if state.expired >= self.ticket || state.ended.contains(&self.ticket) {
                    return Failure::new(FailureKind::Fenced, "the session has expired");
                }
            }
            let _ = changes.changed().await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.change(|state| {
            if !state.keeps_enders || !state.enders.contains_key(&self.ticket) {
                state.members.remove(&self.ticket);
            }
        });
    }
}

struct Leading {
    registry: Registry,
    ticket: u64,
    nonce: Nonce,
}

#[async_trait]
impl Reign for Leading {
    async fn read(&self, _: &str) -> Result<GroupRecord, Failure> {
        Ok(self.registry.state().record.clone())
    }

    async fn claim(&self, _: &str, claim: &Claim) -> Result<(), Failure> {
        self.registry.change(|state| {
            let Claim { epoch, nonce, lineage } = claim.clone();
            state.record = GroupRecord { epoch, nonce, lineage: Some(lineage), ..state.record.clone() };
        });
        Ok(())
    }

    async fn write_plan(&self, _: &str, _: TxId, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    async fn forget_from(&self, _: &str, _: TxId) -> Result<(), Failure> {
        Ok(())
    }

    async fn complete(&self, _: &str, _: TxId) -> Result<(), Failure> {
        Ok(())
    }

    async fn assign(&self, _: &str, assignment: &Assignment) -> Result<(), Failure> {
        let delay = self.registry.state().slow_writes;
        tokio::time::sleep(delay).await;
        self.registry.change(|state| match state.record.nonce == self.nonce && !state.away {
            true => {
                state.assignment = Some(assignment.clone());
                Ok(())
            }
            false => Err(Failure::new(FailureKind::Fenced, "another leader's claim stands")),
        })
    }

    async fn lost(&self) -> Failure {
        let mut changes = self.registry.0.changes.subscribe();
        while self.registry.state().leader == Some(self.ticket) {
            let _ = changes.changed().await;
        }
        Failure::new(FailureKind::Fenced, "the reign is over")
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.registry.change(|state| {
            if state.leader == Some(self.ticket) {
                state.leader = None;
            }
        });
    }
}
