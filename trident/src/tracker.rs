//! Decides when a task has seen everything of an attempt: completeness is proved, not assumed.
//!
//! Every upstream task sends `Rows* End`, and `End` says how many chunks and rows it sent. Chunks are numbered, so one
//! that comes twice counts once, and one that is missing keeps the batch open until the attempt times out.

use std::collections::{BTreeMap, BTreeSet};

use tine_core::{
    failure::Failure,
    id::TaskId,
    mutant::{self, Mutant},
};

/// What one task has seen of one attempt of one transaction.
#[derive(Clone, Debug)]
pub struct BatchTracker {
    upstream: usize,
    senders: BTreeMap<TaskId, Sender>,
}

#[derive(Clone, Debug, Default)]
struct Sender {
    chunks: BTreeSet<u64>,
    rows: u64,
    /// Chunks and rows, as its `End` said.
    end: Option<(u64, u64)>,
}

impl BatchTracker {
    /// Waits for this many upstream tasks.
    pub fn new(upstream: usize) -> BatchTracker {
        BatchTracker { upstream, senders: BTreeMap::new() }
    }

    /// A chunk has come; whether it is new.
    pub fn rows(&mut self, from: TaskId, chunk: u64, rows: u64) -> bool {
        let sender = self.senders.entry(from).or_default();
        if !sender.chunks.insert(chunk) && !mutant::on(Mutant::NoDeduplication) {
            return false;
        }
        sender.rows += rows;
        true
    }

    /// An `End` has come; one that comes twice must say the same.
    pub fn end(&mut self, from: TaskId, chunks: u64, rows: u64) -> Result<(), Failure> {
        let sender = self.senders.entry(from).or_default();
        match sender.end.replace((chunks, rows)) {
            Some(before) if before != (chunks, rows) => Err(Failure::transient(format!(
                "{from} ended with {before:?} chunks and rows and again with {:?}",
                (chunks, rows)
            ))),
            _ => Ok(()),
        }
    }

    /// Whether everything of every upstream task is here. An error when the counts can never agree.
    pub fn complete(&self) -> Result<bool, Failure> {
        let mut ended = 0;
        for (from, sender) in &self.senders {
            let Some((chunks, rows)) = sender.end else { continue };
            let seen = sender.chunks.len() as u64;
            if seen == chunks && sender.rows == rows {
                ended += 1;
            } else if (seen >= chunks || sender.rows > rows) && !mutant::on(Mutant::NoDeduplication) {
                let found = format!("{seen} chunks with {} rows", sender.rows);
                return Err(Failure::transient(format!(
                    "{from} announced {chunks} chunks with {rows} rows, here are {found}"
                )));
            } else if mutant::on(Mutant::NoDeduplication) && seen >= chunks {
                ended += 1;
            }
        }
        Ok(ended == self.upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TaskId = TaskId(1);
    const B: TaskId = TaskId(2);

    #[test]
    fn complete_when_every_sender_ended_and_all_chunks_are_here_in_any_order() {
        let mut tracker = BatchTracker::new(2);
        tracker.end(A, 2, 5).unwrap();
        assert!(tracker.rows(A, 1, 2));
        tracker.end(B, 0, 0).unwrap();
        assert!(!tracker.complete().unwrap());
        assert!(tracker.rows(A, 0, 3));
        assert!(tracker.complete().unwrap());
    }

    #[test]
    fn a1_a_chunk_that_comes_twice_counts_once() {
        let mut tracker = BatchTracker::new(1);
        assert!(tracker.rows(A, 0, 3));
        assert!(!tracker.rows(A, 0, 3));
        tracker.end(A, 1, 3).unwrap();
        assert!(tracker.complete().unwrap());
    }

    #[test]
    fn counts_that_disagree_fail_the_attempt() {
        let mut tracker = BatchTracker::new(1);
        tracker.rows(A, 0, 3);
        tracker.end(A, 1, 4).unwrap();
        assert!(tracker.complete().is_err());
        assert!(tracker.end(A, 2, 4).is_err());
    }
}
