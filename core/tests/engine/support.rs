//! A spout that emits numbers until each is acked and keeps a log; a bolt that collects.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tine_core::{
    component::{Next, Spout, SpoutCollector},
    failure::{Failure, FailureKind},
};

/// What spouts and bolts did, for the test to look at.
#[derive(Clone, Default, Debug)]
pub(crate) struct Log(pub(crate) Arc<Inner>);

#[derive(Default, Debug)]
pub(crate) struct Inner {
    pub(crate) emitted: AtomicU64,
    pub(crate) acked: Mutex<Vec<u64>>,
    pub(crate) failed: Mutex<Vec<(u64, FailureKind, Duration)>>,
    pub(crate) seen: Mutex<Vec<(usize, u64)>>,
    pub(crate) words: Mutex<Vec<String>>,
}

impl Log {
    pub(crate) fn acked(&self) -> Vec<u64> {
        let mut acked = self.0.acked.lock().unwrap().clone();
        acked.sort_unstable();
        acked
    }

    pub(crate) fn failed(&self) -> Vec<(u64, FailureKind, Duration)> {
        self.0.failed.lock().unwrap().clone()
    }

    pub(crate) fn seen(&self) -> Vec<(usize, u64)> {
        self.0.seen.lock().unwrap().clone()
    }

    /// The values seen, sorted.
    pub(crate) fn values(&self) -> Vec<u64> {
        let mut values: Vec<_> = self.seen().into_iter().map(|(_, value)| value).collect();
        values.sort_unstable();
        values
    }

    pub(crate) fn see(&self, task: usize, value: u64) {
        self.0.seen.lock().unwrap().push((task, value));
    }

    pub(crate) fn word(&self, word: impl Into<String>) {
        self.0.words.lock().unwrap().push(word.into());
    }

    pub(crate) fn words(&self) -> Vec<String> {
        self.0.words.lock().unwrap().clone()
    }

    pub(crate) fn emitted(&self) -> u64 {
        self.0.emitted.load(Ordering::SeqCst)
    }
}

/// Emits each number until it is acked (or until it failed once, without `again`).
pub(crate) struct Numbers {
    todo: VecDeque<u64>,
    pending: usize,
    again: bool,
    /// Emits without end, and is never done.
    endless: bool,
    acking: bool,
    log: Log,
}

impl Numbers {
    pub(crate) fn below(count: u64, log: &Log) -> Numbers {
        let (todo, log) = ((0..count).collect(), log.clone());
        Numbers { todo, pending: 0, again: true, endless: false, acking: true, log }
    }

    pub(crate) fn endless(log: &Log) -> Numbers {
        Numbers { endless: true, ..Numbers::below(0, log) }
    }

    pub(crate) fn once(self) -> Numbers {
        Numbers { again: false, ..self }
    }

    pub(crate) fn without_acks(self) -> Numbers {
        Numbers { acking: false, ..self }
    }
}

impl Spout for Numbers {
    type Out = u64;
    type Id = (u64, Instant);

    fn next(&mut self, out: &mut SpoutCollector<u64, (u64, Instant)>) -> Result<Next, Failure> {
        let endless = self.endless.then(|| self.log.emitted());
        match self.todo.pop_front().or(endless) {
            Some(number) => {
                self.pending += usize::from(self.acking);
                self.log.0.emitted.fetch_add(1, Ordering::SeqCst);
                out.emit(number, (number, Instant::now()));
                Ok(Next::More)
            }
            None if self.pending == 0 => Ok(Next::Done),
            None => Ok(Next::Idle),
        }
    }

    fn ack(&mut self, (number, _): (u64, Instant)) {
        self.pending -= 1;
        self.log.0.acked.lock().unwrap().push(number);
    }

    fn fail(&mut self, (number, emitted): (u64, Instant), failure: Failure) {
        self.pending -= 1;
        self.log.0.failed.lock().unwrap().push((number, failure.kind, emitted.elapsed()));
        if self.again {
            self.todo.push_back(number);
        }
    }

    fn activate(&mut self) {
        self.log.word("activate");
    }

    fn deactivate(&mut self) {
        self.log.word("deactivate");
    }

    fn close(&mut self) {
        self.log.word("close");
    }
}

/// Longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Waits for a condition; a test that waits in vain fails with its name.
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(LONG, what, holds);
}

/// The same, for as long as that at most.
pub(crate) fn until_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
