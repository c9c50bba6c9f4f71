//! What a worker owes its peers: word of the tuples that it has taken out of its queues, so that more may be sent.
//!
//! Credit is counted for each sending worker and each receiving task. Whatever a worker sends has room at the other end, so
//! taking in never waits, and one slow task holds back nobody but its own senders (Flink counts alike, for each channel).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::id::TaskId;

/// How much of a queue is taken, or free again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) tuples: usize,
    pub(crate) bytes: usize,
}

/// What is owed to one peer.
#[derive(Debug)]
pub(crate) struct Arrears {
    courier: Arc<Notify>,
    owed: Mutex<BTreeMap<(u64, TaskId), Room>>,
}

/// The debt for one chunk, paid when it is dropped.
#[derive(Debug)]
pub(crate) struct Credit {
    arrears: Arc<Arrears>,
    /// Which of the peer's sessions counts it.
    session: u64,
    task: TaskId,
    room: Room,
}

impl Arrears {
    pub(crate) fn new(courier: Arc<Notify>) -> Arrears {
        Arrears { courier, owed: Mutex::default() }
    }

    /// What the peer will get back for a chunk.
    pub(crate) fn credit(self: &Arc<Arrears>, session: u64, task: TaskId, room: Room) -> Credit {
        Credit { arrears: Arc::clone(self), session, task, room }
    }

    /// Everything that is owed, by session and task.
    pub(crate) fn take(&self) -> BTreeMap<(u64, TaskId), Room> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether anything is owed.
    pub(crate) fn are_there(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, TaskId), Room>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let mut owed = self.arrears.lock();
        let room = owed.entry((self.session, self.task)).or_default();
        room.tuples += self.room.tuples;
        room.bytes += self.room.bytes;
        drop(owed);
        self.arrears.courier.notify_one();
    }
}
