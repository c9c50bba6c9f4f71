//! Lets people and programs watch a run.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tine_core::id::TxId;

use super::{Options, Phase, Progress};

/// Whoever watches: the callbacks of [`Options`], and `tracing`.
#[derive(Clone)]
pub(super) struct Watch {
    on_progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    on_phase: Option<Arc<dyn Fn(TxId, Phase) + Send + Sync>>,
}

impl Options {
    pub(super) fn watch(&self) -> Watch {
        Watch { on_progress: self.on_progress.clone(), on_phase: self.on_phase.clone() }
    }
}

impl Watch {
    pub(super) fn entered(&self, txid: TxId, phase: Phase) {
        tracing::debug!(target: "tine::phase", txid = txid.0, phase = %phase);
        if let Some(call) = &self.on_phase {
            call(txid, phase);
        }
    }

    pub(super) fn progress(&self, progress: Progress) {
        if let Some(call) = &self.on_progress {
            call(progress);
        }
    }
}

/// Sums up progress and says once a second how it goes: records per second, lag, last txid.
#[derive(Debug)]
pub struct Meter {
    every: Duration,
    since: Mutex<Since>,
}

#[derive(Debug)]
struct Since {
    said_at: Instant,
    records: u64,
    total: u64,
}

/// One line of a [`Meter`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Records per second since the last line.
    pub records_per_s: f64,
    /// Records since the start.
    pub records: u64,
    /// Positions of the sources that are not planned yet: offsets, or bytes for files.
    pub lag: u64,
    /// The last transaction that is complete.
    pub txid: TxId,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate { records_per_s, records, lag, txid } = self;
        write!(f, "{records} records, {records_per_s:.0} records/s, lag {lag}, last txid {txid}")
    }
}

impl Default for Meter {
    fn default() -> Self {
        Meter::new(Duration::from_secs(1))
    }
}

impl Meter {
    /// A meter that speaks at most this often.
    pub fn new(every: Duration) -> Meter {
        Meter { every, since: Mutex::new(Since { said_at: Instant::now(), records: 0, total: 0 }) }
    }

    /// Takes one transaction's progress; answers with a line when it is time for one.
    pub fn note(&self, progress: Progress) -> Option<Rate> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.records += progress.counts.records;
        since.total += progress.counts.records;
        let elapsed = since.said_at.elapsed();
        if elapsed < self.every {
            return None;
        }
        let records_per_s = since.records as f64 / elapsed.as_secs_f64();
        (since.said_at, since.records) = (Instant::now(), 0);
        Some(Rate { records_per_s, records: since.total, lag: progress.lag, txid: progress.txid })
    }

    /// A callback for [`Options::on_progress`] that hands each line to `say`.
    pub fn into_callback(self, say: impl Fn(Rate) + Send + Sync + 'static) -> Arc<dyn Fn(Progress) + Send + Sync> {
        Arc::new(move |progress| {
            if let Some(rate) = self.note(progress) {
                say(rate);
            }
        })
    }
}
