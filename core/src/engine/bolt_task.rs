//! One bolt at work: takes chunks, executes tuple by tuple, hands over acks and output.

use std::{
    any::Any,
    num::NonZeroU32,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    inbox::{Chunk, Inbox},
    lineage::Lineage,
    shared::Phase,
    task::{Step, Task, guarded, panicked, said},
};
use crate::{
    component::{Bolt, Collector, Context, Input, Receipt},
    failure::{Failure, FailureKind},
};

/// Chunks in one turn, so that the other tasks of an executor get theirs.
const CHUNKS_PER_TURN: usize = 4;

/// A task that always has something to do hands over chunks that are not full when they are this old.
pub(crate) const FLUSH_EVERY_US: u64 = 1000;

/// Makes what a bolt consumes of the values of one of its inputs.
pub(crate) type Adapter<I> = Arc<dyn Fn(Box<dyn Any + Send>) -> Vec<I> + Send + Sync>;

pub(crate) struct BoltTask<B: Bolt> {
    pub(crate) bolt: B,
    pub(crate) out: Collector<B::Out>,
    pub(crate) context: Context,
    pub(crate) inbox: Arc<Inbox>,
    /// Of edges that lead back: goes before everything else, so that loops empty themselves.
    pub(crate) feedback: Option<Arc<Inbox>>,
    pub(crate) adapters: Vec<Adapter<B::In>>,
    pub(crate) tick_every: Option<Duration>,
    pub(crate) progress: Progress,
}

/// Where a [`BoltTask`] stands.
#[derive(Default)]
pub(crate) struct Progress {
    prepared: bool,
    tick_at_us: u64,
    flushed_at_us: u64,
    /// Tuples that were executed, and whose output may not be handed over yet.
    unsettled: usize,
    chunks: usize,
}

impl<B: Bolt> Task for BoltTask<B> {
    fn has_moved(&self) -> bool {
        self.out.links.has_moved()
    }

    fn attach(&self) {
        self.out.links.attach();
    }

    fn step(&mut self) -> Step {
        if self.out.links.shared.phase() == Phase::Stopped {
            return Step::Idle(None);
        }
        let now_us = self.out.links.shared.now_us();
        if !self.progress.prepared {
            self.prepare(now_us);
        }
        if self.out.links.has_moved() {
            return Step::Worked;
        }
        let mut worked = self.ticks(now_us);
        self.out.streams.flush(false, &mut self.out.links);
        if self.out.streams.has_room() {
            for _ in 0..CHUNKS_PER_TURN {
                let Some(chunk) = self.next_chunk() else { break };
                worked = true;
                self.execute(chunk);
                self.out.links.acks.flush();
                self.out.streams.flush(false, &mut self.out.links);
                if !self.out.streams.has_room() {
                    break;
                }
            }
        }
        if !worked || now_us >= self.progress.flushed_at_us + FLUSH_EVERY_US {
            self.flush(now_us);
        }
        match (worked, self.tick_every) {
            (true, _) => Step::Worked,
            (false, None) => Step::Idle(None),
            (false, Some(_)) => {
                Step::Idle(Some(Duration::from_micros(self.progress.tick_at_us.saturating_sub(now_us))))
            }
        }
    }

    fn close(&mut self) {
        let Self { bolt, out, .. } = self;
        let _ = guarded(&out.links, "cleanup", || {
            bolt.cleanup();
            Ok(())
        });
        self.flush(0);
    }

    fn leave(&mut self) {
        let shared = &self.out.links.shared;
        shared.done(std::mem::take(&mut self.progress.unsettled));
        if !self.progress.prepared {
            shared.prepared();
        }
    }

    fn broke(&self, panic: Box<dyn Any + Send>) {
        self.out.links.report(&Failure::fatal(format!("the engine panicked: {}", said(&*panic))));
    }
}

impl<B: Bolt> BoltTask<B> {
    fn prepare(&mut self, now_us: u64) {
        let Self { bolt, out, context, .. } = self;
        self.progress.prepared = true;
        self.progress.tick_at_us = now_us + self.tick_every.map_or(0, |every| every.as_micros() as u64);
        match guarded(&out.links, "prepare", || bolt.prepare(context)) {
            Ok(()) => out.links.shared.prepared(),
            Err(failure) => out.links.report(&Failure::fatal(format!("cannot be prepared: {failure}"))),
        }
    }

    /// Calls `woken` and `tick` if they are due.
    fn ticks(&mut self, now_us: u64) -> bool {
        let called = self.out.links.bell.was_called();
        if called {
            self.call("woken", |bolt, out| bolt.woken(out));
        }
        let Some(every) = self.tick_every else { return called };
        if now_us < self.progress.tick_at_us {
            return called;
        }
        // From now, so that a task that was late does not tick twice in a row.
        self.progress.tick_at_us = now_us + every.as_micros() as u64;
        self.call("tick", |bolt, out| bolt.tick(out));
        true
    }

    fn call(&mut self, what: &str, call: impl FnOnce(&mut B, &mut Collector<B::Out>) -> Result<(), Failure>) {
        let Self { bolt, out, .. } = self;
        out.links.meter.enter(out.links.shared.now_us());
        match catch_unwind(AssertUnwindSafe(|| call(bolt, out))) {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => out.links.report(&failure),
            Err(panic) => drop(panicked(&out.links, what, panic)),
        }
        out.links.meter.leave();
        out.links.acks.flush();
    }

    /// What an instance that has moved takes is another's.
    fn next_chunk(&self) -> Option<Chunk> {
        let (inbox, chunk) = self.take_chunk()?;
        if self.out.links.has_moved() {
            inbox.put_back(chunk);
            return None;
        }
        Some(chunk)
    }

    /// While a loop is half full nothing new gets into it.
    fn take_chunk(&self) -> Option<(&Inbox, Chunk)> {
        let new = || Some((&*self.inbox, self.inbox.pop()?));
        let Some(feedback) = &self.feedback else { return new() };
        match feedback.pop() {
            Some(chunk) => Some((feedback, chunk)),
            None if feedback.is_half_full() => None,
            None => new(),
        }
    }

    fn execute(&mut self, chunk: Chunk) {
        // The credit is given back when this returns.
        let Chunk { input, from, values, mut lineages, tuples, credit: _credit, .. } = chunk;
        let Self { bolt, out, progress, adapters, .. } = self;
        let adapted = match values.downcast::<Vec<B::In>>() {
            Ok(values) => Ok(*values),
            // `From` is the user's too.
            Err(values) => catch_unwind(AssertUnwindSafe(|| adapters[input as usize](values))),
        };
        let values = adapted.unwrap_or_else(|panic| {
            let failure = panicked(&out.links, "the input's From", panic);
            lineages.iter().for_each(|lineage| out.links.fail(lineage, &failure));
            Vec::new()
        });
        progress.chunks += 1;
        progress.unsettled += tuples;
        out.links.count.executed += tuples as u64;
        out.links.meter.enter(out.links.shared.now_us());
        // The time of one tuple of each chunk is taken, each time of another.
        let timed = progress.chunks % tuples;
        let (mut values, mut at) = (values.into_iter(), 0);
        // The trees of the tuple that is being executed.
        let mut current = Lineage::None;
        while at < tuples {
            let executed = catch_unwind(AssertUnwindSafe(|| {
                for value in values.by_ref() {
                    let lineage = lineages.get_mut(at).map_or(Lineage::None, std::mem::take);
                    current.clone_from(&lineage);
                    let began = (at == timed).then(|| out.links.shared.now_us());
                    at += 1;
                    let timed = began.and_then(|began| NonZeroU32::new(began as u32));
                    let receipt = Receipt { lineage: lineage.into(), from, input, timed };
                    let done = bolt.execute(Input { value, receipt }, out);
                    if let Some(began) = began {
                        out.links.meter.executed(out.links.shared.now_us() - began);
                    }
                    if let Err(failure) = done {
                        out.links.fail(&current, &failure);
                        out.links.report(&failure);
                    }
                }
            }));
            if let Err(panic) = executed {
                let failure = panicked(&out.links, "execute", panic);
                out.links.fail(&current, &failure);
            } else {
                break;
            }
        }
        out.links.meter.leave();
    }

    /// Hands over everything there is.
    fn flush(&mut self, now_us: u64) {
        let Self { bolt, out, progress, .. } = self;
        progress.flushed_at_us = now_us;
        out.links.acks.flush();
        let free = out.streams.flush(true, &mut out.links);
        if free && progress.unsettled != 0 && bolt.pending() == 0 {
            out.links.shared.done(std::mem::take(&mut progress.unsettled));
        }
        // The figures of an instance that has moved are another's.
        if !out.links.has_moved() {
            out.streams.publish();
            out.links.publish();
        }
    }
}

impl Failure {
    /// Nobody spoke of a tree in time.
    pub(crate) fn timed_out() -> Failure {
        Failure::new(FailureKind::TimedOut, "no answer within the message timeout")
    }
}
