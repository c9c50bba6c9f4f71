//! Where the time of tine's transactions goes: what lies between the phases that a run reports.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;
use tine::Phase;
use tine::core::id::TxId;

/// Shared with the run's callback.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phases(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// The last phase of each transaction under way.
    at: BTreeMap<TxId, (Phase, Instant)>,
    /// In the order of a transaction's life: from which phase to which, and the microseconds between them.
    steps: Vec<(Phase, Phase, Histogram<u64>)>,
}

impl Phases {
    /// For `Options::on_phase`.
    pub(crate) fn callback(&self) -> Arc<dyn Fn(TxId, Phase) + Send + Sync> {
        let seen = self.0.clone();
        Arc::new(move |txid, phase| seen.lock().unwrap_or_else(PoisonError::into_inner).enter(txid, phase))
    }

    /// Medians and 99th percentiles of each step, in one line.
    pub(crate) fn in_words(&self) -> String {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = |step: &Histogram<u64>, quantile| step.value_at_quantile(quantile) as f64 / 1e3;
        let mut words = String::new();
        for (from, to, step) in &seen.steps {
            let _ = write!(words, "{from} to {to} {:.2} ({:.2}); ", ms(step, 0.5), ms(step, 0.99));
        }
        words.trim_end_matches("; ").to_owned()
    }
}

impl Seen {
    fn enter(&mut self, txid: TxId, phase: Phase) {
        let now = Instant::now();
        if let Some((from, since)) = self.at.insert(txid, (phase, now)) {
            self.note(from, phase, u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX));
        }
        if phase == Phase::Complete {
            self.at.remove(&txid);
        }
    }

    fn note(&mut self, from: Phase, to: Phase, us: u64) {
        let known = self.steps.iter().position(|(known, next, _)| (*known, *next) == (from, to));
        let index = known.unwrap_or_else(|| {
            self.steps.push((from, to, Histogram::new(3).expect("three digits are a precision")));
            self.steps.len() - 1
        });
        // It grows with what it is given; a duration that it cannot hold is longer than any run.
        let _ = self.steps[index].2.record(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_is_as_long_as_it_was() {
        let phases = Phases::default();
        let mut seen = phases.0.lock().unwrap();
        seen.note(Phase::Planned, Phase::Emitting, 100);
        seen.note(Phase::Planned, Phase::Emitting, 250_000);
        drop(seen);
        assert!(phases.in_words().starts_with("planned to emitting 0.10 (250."), "{}", phases.in_words());
    }
}
