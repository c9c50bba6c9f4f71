//! Wakes whoever works for a task at the moment: the thread that runs it, or the courier that carries its tuples elsewhere.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
};

use tokio::sync::Notify;

/// One task's bell. The thread that runs the task looks for work before it sleeps, and a ring that comes in between is
/// not lost: it makes the next `park` return at once.
///
/// A task may move to another worker while user code has it in its hands, and may even be back before that returns. So
/// the bell counts the moves away, and an instance that was made before the last of them has [moved](Bell::moves).
#[derive(Debug, Default)]
pub(crate) struct Bell {
    hearer: Mutex<Hearer>,
    called: AtomicBool,
    moves: AtomicU64,
}

#[derive(Debug, Default)]
enum Hearer {
    #[default]
    Nobody,
    Thread(Thread),
    Courier(Arc<Notify>),
}

impl Bell {
    /// The calling thread runs the task from now on; unless it runs an instance that has moved meanwhile.
    pub(crate) fn attach(&self, moves: u64) {
        let mut hearer = self.lock();
        if self.moves() == moves {
            *hearer = Hearer::Thread(std::thread::current());
        }
    }

    /// How often the task has moved away from this worker.
    #[inline]
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// The task moves to another worker: the instance that runs here hears it, and ends when its turn does.
    pub(crate) fn move_away(&self) {
        let mut hearer = self.lock();
        self.moves.fetch_add(1, Ordering::AcqRel);
        if let Hearer::Thread(thread) = std::mem::take(&mut *hearer) {
            thread.unpark();
        }
    }

    /// The task runs on another worker: a courier takes what comes for it from now on, and whatever waits already.
    pub(crate) fn attach_courier(&self, courier: &Arc<Notify>) {
        *self.lock() = Hearer::Courier(Arc::clone(courier));
        courier.notify_one();
    }

    /// There may be work.
    pub(crate) fn ring(&self) {
        match &*self.lock() {
            Hearer::Nobody => {}
            Hearer::Thread(thread) => thread.unpark(),
            Hearer::Courier(courier) => courier.notify_one(),
        }
    }

    /// The component itself asked to be woken.
    pub(crate) fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.ring();
    }

    /// Whether it did, since the last time.
    pub(crate) fn was_called(&self) -> bool {
        self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Hearer> {
        self.hearer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
