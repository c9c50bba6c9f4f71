//! Workers that register, say what they want, look at one another and at the assignment, and go.

use std::time::Duration;

use tine_core::{
    hash::Hash128,
    id::WorkerId,
    membership::{Common, Intent, Member, Members, Registration, Sight, record::Capacity},
    transport::{Peer, Token},
};
use tine_tests::eventually;

use super::Scene;
use crate::agree::soon;

/// Registered at a time at most.
const WORKERS_MAX: usize = 4;
/// How long an end may take to be seen by others.
const DEADLINE: Duration = Duration::from_secs(20);

/// A registration on both sides.
pub(super) struct Worker {
    session: usize,
    member: Member,
    registration: Box<dyn Registration>,
}

pub(super) fn member(id: u64) -> Member {
    let peer = Peer { id: WorkerId(id), address: format!("h:{id}"), token: Token(77) };
    let common = Common { fingerprint: Hash128(7), lineage: 5 };
    Member { peer, common, capacity: Capacity { readers: 1, stages: 1 }, intent: Intent::Stay, rival: None }
}

impl Scene {
    pub(super) async fn register(&mut self) -> Result<(), String> {
        if self.workers.len() == WORKERS_MAX {
            return Ok(());
        }
        let id = self.nonce().0;
        let member = member(id);
        let real = soon("a registration", self.zookeeper.register(&self.topology, &member)).await?;
        let registration = real.map_err(|failure| failure.to_string())?;
        let session = self.fake.register(&member);
        self.transcript.note(format_args!("worker {id} registers"));
        self.workers.push(Worker { session, member, registration });
        self.sight(self.workers.len() - 1).await
    }

    pub(super) async fn update(&mut self, which: usize, leaves: bool) -> Result<(), String> {
        let Some(worker) = self.workers.get_mut(which) else { return Ok(()) };
        worker.member.intent = if leaves { Intent::Leave } else { Intent::Stay };
        let real = soon("an update", worker.registration.update(&worker.member)).await?;
        real.map_err(|failure| failure.to_string())?;
        self.fake.update(&worker.member);
        self.transcript.note(format_args!("{} wants to {:?}", worker.member.peer.id, worker.member.intent));
        Ok(())
    }

    pub(super) async fn unregister(&mut self, which: usize) -> Result<(), String> {
        if which >= self.workers.len() {
            return Ok(());
        }
        let worker = self.workers.remove(which);
        self.fake.end(worker.session);
        self.transcript.note(format_args!("{} goes", worker.member.peer.id));
        Ok(())
    }

    pub(super) async fn sight(&mut self, which: usize) -> Result<(), String> {
        let Some(worker) = self.workers.get(which) else { return Ok(()) };
        let expected = self.fake.look();
        // A session that was closed is seen by others until the server has heard of it.
        let same = async || worker.registration.look().await.is_ok_and(|sight| alike(&sight, &expected));
        eventually(DEADLINE, same).await;
        let real = worker.registration.look().await.map_err(|failure| failure.to_string())?;
        let id = worker.member.peer.id;
        self.transcript.agree(format_args!("{id} sees"), &shown(&expected), &shown(&real))
    }
}

fn alike(one: &Sight, other: &Sight) -> bool {
    shown(one) == shown(other)
}

fn shown(sight: &Sight) -> String {
    format!("{sight:?}")
}
