//! What a worker owes its peers: word of the tuples that it has taken out of its queues, so that more may be sent.
//!
//! Credit is counted for each sending worker and each queue of a receiving task. Whatever a worker sends has room at the other end, so
//! taking in never waits, and one slow task holds back nobody but its own senders (Flink counts alike, for each channel).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::id::TaskId;

/// One of a task's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) task: TaskId,
    /// Whether it is that of edges that lead back.
    pub(crate) feedback: bool,
}

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
    owed: Mutex<BTreeMap<(u64, Door), Room>>,
}

/// The debt for one chunk, paid when it is dropped.
#[derive(Debug)]
pub(crate) struct Credit {
    arrears: Arc<Arrears>,
    /// Which of the peer's sessions counts it.
    session: u64,
    door: Door,
    room: Room,
}

impl Arrears {
    pub(crate) fn new(courier: Arc<Notify>) -> Arrears {
        Arrears { courier, owed: Mutex::default() }
    }

    /// What the peer will get back for a chunk.
    pub(crate) fn credit(self: &Arc<Arrears>, session: u64, door: Door, room: Room) -> Credit {
        Credit { arrears: Arc::clone(self), session, door, room }
    }

    /// Everything that is owed, by session and queue.
    pub(crate) fn take(&self) -> BTreeMap<(u64, Door), Room> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether anything is owed.
    pub(crate) fn are_there(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, Door), Room>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        let mut owed = self.arrears.lock();
        let room = owed.entry((self.session, self.door)).or_default();
        room.tuples += self.room.tuples;
        room.bytes += self.room.bytes;
        drop(owed);
        self.arrears.courier.notify_one();
    }
}
