//! What stands between this worker and one peer: what was sent and not worked off yet, and what is owed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    engine::credit::{Arrears, Credit, Room},
    id::TaskId,
};

/// One peer's desk. It outlives connections: each break begins a new session, and credit of an older one counts for nothing.
#[derive(Debug)]
pub(super) struct Desk {
    /// Rings when something is to be carried to the peer.
    pub(super) bell: Arc<Notify>,
    arrears: Arc<Arrears>,
    account: Mutex<Account>,
    /// Whether nobody carries for it yet.
    new: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Account {
    session: u64,
    /// Sent in this session and not worked off, by the task that it is for.
    out: BTreeMap<TaskId, Room>,
    /// What this worker's courier carries.
    load: Arc<Load>,
}

/// The tasks and spouts that run on a peer.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) tasks: Vec<TaskId>,
    /// By number among the spout tasks.
    pub(super) owners: Vec<usize>,
}

impl Desk {
    /// `session` is random: a peer may remember an earlier life of this worker.
    pub(super) fn new(session: u64) -> Desk {
        let (bell, account) = (Arc::new(Notify::new()), Account { session, ..Account::default() });
        let (new, closed) = (AtomicBool::new(true), AtomicBool::new(false));
        Desk { arrears: Arc::new(Arrears::new(Arc::clone(&bell))), bell, account: Mutex::new(account), new, closed }
    }

    /// Whether it has no courier yet; whoever asks gives it one.
    pub(super) fn is_new(&self) -> bool {
        self.new.swap(false, Ordering::AcqRel)
    }

    /// The peer is one no longer: its courier puts down what it has in its hands, and ends.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether more may be sent to a task. As with any inbox, the bounds are exceeded by one chunk at most.
    pub(super) fn has_credit(&self, task: TaskId, window: Room) -> bool {
        let account = self.lock();
        let out = account.out.get(&task).copied().unwrap_or_default();
        out.tuples < window.tuples && out.bytes < window.bytes
    }

    /// Something is sent; answers with the session that counts it.
    pub(super) fn charge(&self, task: TaskId, room: Room) -> u64 {
        let mut account = self.lock();
        let out = account.out.entry(task).or_default();
        out.tuples += room.tuples;
        out.bytes += room.bytes;
        account.session
    }

    /// Something was worked off, or not sent after all; answers how many tuples of this session that makes.
    pub(super) fn refund(&self, session: u64, task: TaskId, room: Room) -> usize {
        let mut account = self.lock();
        if account.session != session {
            return 0;
        }
        let Some(out) = account.out.get_mut(&task) else { return 0 };
        // A peer that gives back more than it got gives back what it got.
        let tuples = room.tuples.min(out.tuples);
        out.tuples -= tuples;
        out.bytes = out.bytes.saturating_sub(room.bytes);
        if *out == Room::default() || out.tuples == 0 {
            account.out.remove(&task);
        }
        tuples
    }

    /// The connection broke, in whichever direction: what was sent is nobody's, or the peer's own business. Answers how many
    /// tuples that were.
    pub(super) fn reset(&self) -> usize {
        let mut account = self.lock();
        account.session = account.session.wrapping_add(1);
        std::mem::take(&mut account.out).into_values().map(|room| room.tuples).sum()
    }

    /// What the peer gets back for what it sent.
    pub(super) fn credit(&self, session: u64, task: TaskId, room: Room) -> Credit {
        self.arrears.credit(session, task, room)
    }

    /// Everything that is owed to the peer.
    pub(super) fn owed(&self) -> BTreeMap<(u64, TaskId), Room> {
        self.arrears.take()
    }

    /// Whether anything is.
    pub(super) fn is_in_debt(&self) -> bool {
        self.arrears.are_there()
    }

    pub(super) fn load(&self) -> Arc<Load> {
        Arc::clone(&self.lock().load)
    }

    pub(super) fn carry(&self, load: Load) {
        self.lock().load = Arc::new(load);
        self.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId(3);

    fn room(tuples: usize) -> Room {
        Room { tuples, bytes: tuples * 10 }
    }

    #[test]
    fn what_was_sent_counts_until_it_is_worked_off() {
        let desk = Desk::new(7);
        let session = desk.charge(TASK, room(60));
        assert!(desk.has_credit(TASK, room(100)) && !desk.has_credit(TASK, room(60)));
        desk.charge(TASK, room(60));
        assert!(!desk.has_credit(TASK, room(100)) && desk.has_credit(TaskId(4), room(100)));
        assert_eq!(desk.refund(session, TASK, room(60)), 60);
        assert!(desk.has_credit(TASK, room(100)));
        assert_eq!(desk.refund(session, TASK, room(1000)), 60, "not more than was sent");
    }

    #[test]
    fn after_a_break_credit_of_the_session_before_counts_for_nothing() {
        let desk = Desk::new(u64::MAX);
        let before = desk.charge(TASK, room(60));
        assert_eq!(desk.reset(), 60);
        let after = desk.charge(TASK, room(5));
        assert_ne!(before, after);
        assert_eq!(desk.refund(before, TASK, room(60)), 0);
        assert_eq!(desk.refund(after, TASK, room(5)), 5);
    }

    #[test]
    fn what_a_peer_sent_is_owed_when_it_is_dropped() {
        let desk = Desk::new(0);
        let credits = [desk.credit(9, TASK, room(2)), desk.credit(9, TASK, room(3)), desk.credit(8, TASK, room(4))];
        assert!(desk.owed().is_empty());
        drop(credits);
        assert_eq!(desk.owed(), BTreeMap::from([((9, TASK), room(5)), ((8, TASK), room(4))]));
        assert!(desk.owed().is_empty());
    }
}
