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
    engine::credit::{Arrears, Credit, Door, Room},
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
    /// Sent in this session and not worked off, by the queue that it is for.
    out: BTreeMap<Door, Room>,
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

    /// The peer is one no longer: its courier puts down what it has in its hands, and ends. Answers how many tuples were sent and
    /// not worked off.
    pub(super) fn close(&self) -> usize {
        let tuples = {
            // Under the lock, so that nothing is charged afterwards.
            let mut account = self.lock();
            self.closed.store(true, Ordering::Release);
            account.reset()
        };
        self.bell.notify_one();
        tuples
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether more may be sent to a queue. As with any inbox, the bounds are exceeded by one chunk at most.
    pub(super) fn has_credit(&self, door: Door, window: Room) -> bool {
        let account = self.lock();
        let out = account.out.get(&door).copied().unwrap_or_default();
        out.tuples < window.tuples && out.bytes < window.bytes
    }

    /// Something is sent; answers with the session that counts it. `None` when the peer is one no longer.
    pub(super) fn charge(&self, door: Door, room: Room) -> Option<u64> {
        let mut account = self.lock();
        if self.is_closed() {
            return None;
        }
        let out = account.out.entry(door).or_default();
        out.tuples += room.tuples;
        out.bytes += room.bytes;
        Some(account.session)
    }

    /// Something was worked off, or not sent after all; answers how many tuples of this session that makes.
    pub(super) fn refund(&self, session: u64, door: Door, room: Room) -> usize {
        let mut account = self.lock();
        if account.session != session {
            return 0;
        }
        let Some(out) = account.out.get_mut(&door) else { return 0 };
        // A peer that gives back more than it got gives back what it got.
        let tuples = room.tuples.min(out.tuples);
        out.tuples -= tuples;
        out.bytes = out.bytes.saturating_sub(room.bytes);
        if *out == Room::default() || out.tuples == 0 {
            account.out.remove(&door);
        }
        tuples
    }

    /// The connection broke, in whichever direction: what was sent is nobody's, or the peer's own business. Answers how many
    /// tuples that were.
    pub(super) fn reset(&self) -> usize {
        self.lock().reset()
    }

    /// What the peer gets back for what it sent.
    pub(super) fn credit(&self, session: u64, door: Door, room: Room) -> Credit {
        self.arrears.credit(session, door, room)
    }

    /// Everything that is owed to the peer.
    pub(super) fn owed(&self) -> BTreeMap<(u64, Door), Room> {
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

impl Account {
    /// Another session, in which nothing was sent yet; answers how many tuples of the last one are out.
    fn reset(&mut self) -> usize {
        self.session = self.session.wrapping_add(1);
        std::mem::take(&mut self.out).into_values().map(|room| room.tuples).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: Door = Door { task: TaskId(3), feedback: false };
    const BACK: Door = Door { feedback: true, ..DOOR };

    fn room(tuples: usize) -> Room {
        Room { tuples, bytes: tuples * 10 }
    }

    #[test]
    fn what_was_sent_counts_until_it_is_worked_off() {
        let desk = Desk::new(7);
        let session = desk.charge(DOOR, room(60)).unwrap();
        assert!(desk.has_credit(DOOR, room(100)) && !desk.has_credit(DOOR, room(60)));
        desk.charge(DOOR, room(60));
        assert!(!desk.has_credit(DOOR, room(100)) && desk.has_credit(BACK, room(100)));
        assert_eq!(desk.refund(session, DOOR, room(60)), 60);
        assert!(desk.has_credit(DOOR, room(100)));
        assert_eq!(desk.refund(session, DOOR, room(1000)), 60, "not more than was sent");
    }

    #[test]
    fn after_a_break_credit_of_the_session_before_counts_for_nothing() {
        let desk = Desk::new(u64::MAX);
        let before = desk.charge(DOOR, room(60)).unwrap();
        assert_eq!(desk.reset(), 60);
        let after = desk.charge(DOOR, room(5)).unwrap();
        assert_ne!(before, after);
        assert_eq!(desk.refund(before, DOOR, room(60)), 0);
        assert_eq!(desk.refund(after, DOOR, room(5)), 5);
        desk.charge(DOOR, room(7));
        assert_eq!(desk.close(), 7);
        assert_eq!(desk.charge(DOOR, room(5)), None);
    }

    #[test]
    fn what_a_peer_sent_is_owed_when_it_is_dropped() {
        let desk = Desk::new(0);
        let credits = [desk.credit(9, DOOR, room(2)), desk.credit(9, DOOR, room(3)), desk.credit(8, DOOR, room(4))];
        assert!(desk.owed().is_empty());
        drop(credits);
        assert_eq!(desk.owed(), BTreeMap::from([((9, DOOR), room(5)), ((8, DOOR), room(4))]));
        assert!(desk.owed().is_empty());
    }
}
