//! Which batches of a response belong to aborted transactions: the rule of Kafka's own consumer.
//!
//! The broker lists the aborted transactions of what it sends, each as a producer and the first offset. From there on,
//! that producer's transactional batches are aborted, up to its next abort marker.

use std::{cmp::Reverse, collections::BTreeSet};

use super::batch::Batch;

/// A transaction aborted in the fetched span (Fetch's `aborted_transactions`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
}

/// The aborted transactions of one response, as far as its batches have been passed.
#[derive(Debug, Default)]
pub(super) struct AbortedProducers {
    /// Not reached yet; the next one last.
    ahead: Vec<Aborted>,
    /// Those inside an aborted transaction.
    inside: BTreeSet<i64>,
}

impl AbortedProducers {
    pub(super) fn new(mut aborted: Vec<Aborted>) -> AbortedProducers {
        aborted.sort_by_key(|aborted| Reverse(aborted.first_offset));
        AbortedProducers { ahead: aborted, inside: BTreeSet::new() }
    }

    /// Moves up to `batch`; whether it is aborted. `abort` says that it is an abort marker. The same batch may come twice.
    pub(super) fn pass(&mut self, batch: &Batch<'_>, abort: bool) -> bool {
        if batch.producer_id < 0 {
            return false;
        }
        while let Some(aborted) = self.ahead.pop_if(|aborted| aborted.first_offset < batch.next as i64) {
            self.inside.insert(aborted.producer_id);
        }
        if abort {
            self.inside.remove(&batch.producer_id);
            return false;
        }
        batch.transactional && self.inside.contains(&batch.producer_id)
    }
}
