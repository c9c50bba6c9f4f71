//! What waits in front of one task: chunks of tuples, bounded in tuples and in bytes.
//!
//! A sender never waits inside an inbox. It is told that there is no room, keeps its chunk, and its bell rings when
//! there is. Traffic is per chunk, so a lock is cheap.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{bell::Bell, credit::Credit, lineage::Lineage};
use crate::id::TaskId;

/// Tuples of one stream on their way from one task to another.
pub(crate) struct Chunk {
    /// Which of the receiver's inputs.
    pub(crate) input: u32,
    /// The sending task.
    pub(crate) from: TaskId,
    /// A `Vec<T>`.
    pub(crate) values: Box<dyn Any + Send>,
    /// One for each value, or none at all when no tuple is anchored.
    pub(crate) lineages: Vec<Lineage>,
    pub(crate) tuples: usize,
    pub(crate) bytes: usize,
    /// What the worker that it came from gets back when the chunk is worked off.
    pub(crate) credit: Option<Credit>,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) tuples: usize,
    pub(crate) bytes: usize,
}

pub(crate) struct Inbox {
    bounds: Bounds,
    /// Of the task that reads it.
    bell: Arc<Bell>,
    /// Whether that task runs on this worker; otherwise a courier reads.
    here: AtomicBool,
    /// Tuples waiting: a hint for readers, exact under the lock.
    depth: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    tuples: usize,
    bytes: usize,
    /// Senders that found no room.
    waiting: Vec<Arc<Bell>>,
}

impl Inbox {
    pub(crate) fn new(bounds: Bounds, bell: Arc<Bell>) -> Inbox {
        Inbox { bounds, bell, here: AtomicBool::new(true), depth: AtomicUsize::new(0), state: Mutex::default() }
    }

    /// Takes a chunk if there is room; otherwise gives it back, and rings `sender` when there is room again. Room means
    /// that the bounds are not reached yet, so that a chunk of any size gets through; they are exceeded by one chunk at most.
    pub(crate) fn push(&self, chunk: Chunk, sender: &Arc<Bell>) -> Result<(), Chunk> {
        let state = self.lock();
        if state.tuples >= self.bounds.tuples || state.bytes >= self.bounds.bytes {
            let mut state = state;
            if !state.waiting.iter().any(|bell| Arc::ptr_eq(bell, sender)) {
                state.waiting.push(Arc::clone(sender));
            }
            return Err(chunk);
        }
        self.add(state, chunk);
        Ok(())
    }

    /// Takes a chunk from another worker, always: that worker has credit for it.
    pub(crate) fn put(&self, chunk: Chunk) {
        self.add(self.lock(), chunk);
    }

    /// Takes back what was not for whoever took it: it is the next one again.
    pub(crate) fn put_back(&self, chunk: Chunk) {
        let mut state = self.lock();
        state.tuples += chunk.tuples;
        state.bytes += chunk.bytes;
        state.chunks.push_front(chunk);
        self.depth.store(state.tuples, Ordering::Release);
        drop(state);
        self.bell.ring();
    }

    fn add(&self, mut state: MutexGuard<'_, State>, chunk: Chunk) {
        let was_empty = state.chunks.is_empty();
        state.tuples += chunk.tuples;
        state.bytes += chunk.bytes;
        state.chunks.push_back(chunk);
        self.depth.store(state.tuples, Ordering::Release);
        drop(state);
        if was_empty {
            self.bell.ring();
        }
    }

    /// The next chunk.
    pub(crate) fn pop(&self) -> Option<Chunk> {
        if self.depth.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut state = self.lock();
        let chunk = state.chunks.pop_front()?;
        state.tuples -= chunk.tuples;
        state.bytes -= chunk.bytes;
        self.depth.store(state.tuples, Ordering::Release);
        // Half empty, so that senders are woken for more than one chunk.
        let roomy = state.tuples <= self.bounds.tuples / 2 && state.bytes <= self.bounds.bytes / 2;
        let woken = if roomy { std::mem::take(&mut state.waiting) } else { Vec::new() };
        drop(state);
        woken.iter().for_each(|bell| bell.ring());
        Some(chunk)
    }

    /// How much may wait.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Whether the task that it stands in front of runs on this worker.
    pub(crate) fn is_here(&self) -> bool {
        self.here.load(Ordering::Relaxed)
    }

    /// The task has come to this worker, or has left it.
    pub(crate) fn move_here(&self, here: bool) {
        self.here.store(here, Ordering::Relaxed);
    }

    /// Tuples waiting.
    pub(crate) fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Whether more than half of the bound is taken.
    pub(crate) fn is_half_full(&self) -> bool {
        self.depth() > self.bounds.tuples / 2
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
