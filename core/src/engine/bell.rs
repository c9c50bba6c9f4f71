//! Wakes the thread that runs a task, whichever that is at the moment.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
};

/// One task's bell. The thread that runs the task looks for work before it sleeps, and a ring that comes in between is
/// not lost: it makes the next `park` return at once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    thread: Mutex<Option<Thread>>,
    called: AtomicBool,
}

impl Bell {
    /// The calling thread runs the task from now on.
    pub(crate) fn attach(&self) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }

    /// There may be work.
    pub(crate) fn ring(&self) {
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
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
}
