//! What one task is linked to: its bell, the owners of trees, random edges, the running topology, its figures.

use std::sync::Arc;

use rand::{SeedableRng, rngs::SmallRng};

use super::{
    acks::{AckLines, Word},
    bell::Bell,
    lineage::Lineage,
    shared::Shared,
};
use crate::{component::Receipt, failure::Failure, metrics::TaskMeter};

pub(crate) struct Links {
    pub(crate) bell: Arc<Bell>,
    pub(crate) acks: AckLines,
    pub(crate) random: SmallRng,
    pub(crate) shared: Arc<Shared>,
    pub(crate) meter: Arc<TaskMeter>,
    /// Figures of this task since it began; published by [`publish`](Links::publish).
    pub(crate) count: Count,
}

/// What a task has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) executed: u64,
    pub(crate) acked: u64,
    pub(crate) failed: u64,
}

impl Links {
    pub(crate) fn new(acks: AckLines, bell: Arc<Bell>, shared: Arc<Shared>, meter: Arc<TaskMeter>) -> Links {
        Links { bell, acks, random: SmallRng::from_os_rng(), shared, meter, count: Count::default() }
    }

    /// A held tuple is done.
    #[inline]
    pub(crate) fn ack(&mut self, receipt: Receipt) {
        self.count.acked += 1;
        for anchor in receipt.lineage.into_inner().as_slice() {
            self.acks.ack(anchor.root, anchor.edge);
        }
        if let Some(began_us) = receipt.timed {
            self.meter.processed(self.shared.now_us().wrapping_sub(u64::from(began_us.get())));
        }
    }

    /// A tuple has failed.
    pub(crate) fn fail(&mut self, lineage: &Lineage, failure: &Failure) {
        self.count.failed += 1;
        for root in lineage.roots() {
            self.acks.word(root, Word::Failed(root, failure.clone()));
        }
    }

    /// Work on a tuple goes on.
    pub(crate) fn keep_alive(&mut self, lineage: &Lineage) {
        for root in lineage.roots() {
            self.acks.word(root, Word::Alive(root));
        }
    }

    /// Makes an error visible.
    pub(crate) fn report(&self, failure: &Failure) {
        self.shared.report(&self.meter, failure);
    }

    /// Makes the figures visible.
    pub(crate) fn publish(&self) {
        self.meter.publish(self.count.executed, self.count.acked, self.count.failed);
    }
}
