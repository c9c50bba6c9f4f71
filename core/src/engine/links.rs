//! What one task is linked to: its bell, the owners of trees, random edges, the running topology, its figures.

use std::{num::NonZeroU32, sync::Arc};

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
    /// How often the task had moved away when this instance of it was made.
    moves: u64,
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
        let (random, moves) = (SmallRng::from_os_rng(), bell.moves());
        Links { bell, acks, random, shared, meter, moves, count: Count::default() }
    }

    /// The calling thread runs the task from now on.
    pub(crate) fn attach(&self) {
        self.bell.attach(self.moves);
    }

    /// Whether the task runs on another worker now, or here again as another instance: this one takes nothing any more.
    #[inline]
    pub(crate) fn has_moved(&self) -> bool {
        self.bell.moves() != self.moves
    }

    /// A held tuple is done.
    #[inline]
    pub(crate) fn ack(&mut self, receipt: Receipt) {
        self.count.acked += 1;
        for anchor in receipt.lineage.into_inner().as_slice() {
            self.acks.ack(anchor.root, anchor.edge);
        }
        if let Some(began_us) = receipt.timed {
            self.meter.processed(elapsed_us(self.shared.now_us(), began_us));
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

/// Microseconds since a stamp, which keeps the clock's lower half: right for whatever takes less than 71 minutes, however long
/// the process runs.
fn elapsed_us(now_us: u64, began_us: NonZeroU32) -> u64 {
    u64::from((now_us as u32).wrapping_sub(began_us.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_right_after_the_clocks_lower_half_has_wrapped() {
        let hours = 5 * 3_600_000_000;
        for now_us in [40, u64::from(u32::MAX) + 10, hours] {
            let began = NonZeroU32::new((now_us - 30) as u32).unwrap();
            assert_eq!(elapsed_us(now_us, began), 30);
        }
    }
}
