//! When is everything worked off, on all workers together? Asked by the leader, in rounds. Pure.
//!
//! One round in which everybody is idle proves nothing: what one worker had sent may have arrived at another that had answered
//! before. Two rounds with the same answers do. Between its two answers a worker that has begun nothing was idle all the time, and
//! there is a moment that lies between both answers of everybody (Mattern's four counters, with one counter, since what is on its
//! way counts at its sender until the receiver has counted it).

use std::collections::BTreeMap;

use super::body::Standing;
use crate::id::WorkerId;

/// The questions, and what was answered.
#[derive(Debug, Default)]
pub(super) struct Ending {
    round: u64,
    answers: BTreeMap<WorkerId, Standing>,
    /// Of the round before, if everybody was idle.
    before: Option<BTreeMap<WorkerId, Standing>>,
}

impl Ending {
    /// The workers are others: everything is asked anew. Answers that are still on their way count for nothing.
    pub(super) fn begin(&mut self) {
        *self = Ending { round: self.round + 1, ..Ending::default() };
    }

    /// The next question, if the last one is answered by everybody or nobody has asked yet.
    pub(super) fn ask(&mut self, workers: usize) -> Option<u64> {
        if self.round > 0 && !self.answers.is_empty() && self.answers.len() < workers {
            return None;
        }
        let idle = self.answers.len() == workers && self.answers.values().all(|standing| standing.idle);
        let answers = std::mem::take(&mut self.answers);
        self.before = idle.then_some(answers);
        self.round += 1;
        Some(self.round)
    }

    /// An answer; whether with it everything is known to be worked off.
    pub(super) fn answer(&mut self, worker: WorkerId, round: u64, standing: Standing, workers: usize) -> bool {
        if round != self.round {
            return false;
        }
        self.answers.insert(worker, standing);
        let idle = self.answers.len() == workers && self.answers.values().all(|standing| standing.idle);
        idle && self.before.as_ref() == Some(&self.answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ending: &mut Ending, answers: &[(u64, bool, u64)]) -> bool {
        let round = ending.ask(answers.len()).expect("the last round is over");
        let mut ended = false;
        for (worker, idle, begun) in answers {
            let standing = Standing { idle: *idle, begun: *begun };
            ended |= ending.answer(WorkerId(*worker), round, standing, answers.len());
        }
        ended
    }

    #[test]
    fn the_end_takes_two_rounds_in_which_nothing_has_begun() {
        let mut ending = Ending::default();
        assert!(!round(&mut ending, &[(1, true, 10), (2, false, 20)]));
        assert!(!round(&mut ending, &[(1, true, 10), (2, true, 20)]));
        assert!(!round(&mut ending, &[(1, true, 11), (2, true, 20)]), "worker 1 had work in between");
        assert!(round(&mut ending, &[(1, true, 11), (2, true, 20)]));
    }

    #[test]
    fn answers_of_other_workers_or_other_rounds_count_for_nothing() {
        let mut ending = Ending::default();
        let idle = Standing { idle: true, begun: 1 };
        assert!(!round(&mut ending, &[(1, true, 1), (2, true, 1)]));
        ending.begin();
        assert!(!round(&mut ending, &[(1, true, 1), (3, true, 1)]), "other workers than in the round before");
        let now = ending.ask(2).unwrap();
        assert!(!ending.answer(WorkerId(1), now - 1, idle, 2));
        assert!(!ending.answer(WorkerId(1), now, idle, 2) && ending.ask(2).is_none(), "one answer is missing");
        assert!(ending.answer(WorkerId(3), now, idle, 2));
    }
}
