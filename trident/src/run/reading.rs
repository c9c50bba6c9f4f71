//! Performs an emitter's reads: a thread with the sources' readers and the fused operators.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tine_core::{
    failure::{Failure, FailureKind},
    id::Attempt,
    runtime::{Inbound, Perform},
};
use tokio::sync::mpsc;

use crate::{
    emitter::{EmitterReply, ReadCall, ReadReply},
    message::Batches,
    outlet::Outlet,
    pipeline::{BatchRows, Built, Pipeline},
    source::{PartitionRange, Reader, Record, Sink, SourceIndex},
    stage::panic_text,
};

type Inbox = mpsc::Sender<Inbound<Batches, EmitterReply>>;

/// How often long work says that it goes on: far below any message timeout.
pub(super) const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);

/// Jobs that may wait for a thread: more than transactions are ever in flight, those of aborted attempts included.
pub(super) const WAITING: usize = 256;

/// The emitter's side of its reader thread.
pub(super) struct Reading {
    jobs: SyncSender<(u64, ReadCall, Inbox)>,
    attempt: Attempt,
    /// Counts the attempts; reads of another count than the newest are of no interest.
    newest: Arc<AtomicU64>,
}

impl Reading {
    pub(super) fn start(built: Arc<Built>, outlet: Outlet, index: usize) -> Reading {
        let (jobs, waiting) = sync_channel(WAITING);
        let newest = Arc::new(AtomicU64::new(0));
        let seen = newest.clone();
        let spawned = thread::Builder::new()
            .name(format!("tine-emitter-{index}"))
            .spawn(move || work(&built, &outlet, &waiting, &seen));
        if let Err(error) = spawned {
            tracing::error!("cannot start the thread of emitter {index}: {error}");
        }
        Reading { jobs, attempt: Attempt::NONE, newest }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.newest.store(u64::MAX, Ordering::Release);
    }
}

impl Perform<Batches, ReadCall, EmitterReply> for Reading {
    fn perform(&mut self, call: ReadCall, inbox: &Inbox) {
        if call.attempt != self.attempt {
            self.attempt = call.attempt;
            self.newest.fetch_add(1, Ordering::AcqRel);
        }
        let count = self.newest.load(Ordering::Acquire);
        let (attempt, txid) = (call.attempt, call.txid);
        if self.jobs.try_send((count, call, inbox.clone())).is_err() {
            let result = Err(Failure::transient("the emitter's thread is gone or does not keep up"));
            let inbox = inbox.clone();
            let reply = EmitterReply::Read(ReadReply { attempt, txid, result });
            tokio::spawn(async move { inbox.send(Inbound::Reply(reply)).await });
        }
    }
}

fn work(built: &Built, outlet: &Outlet, waiting: &Receiver<(u64, ReadCall, Inbox)>, newest: &AtomicU64) {
    let mut sides: Vec<Side> =
        built.sources.iter().map(|source| Side { reader: None, pipeline: (source.pipeline)() }).collect();
    while let Ok((count, call, inbox)) = waiting.recv() {
        let cancelled = || newest.load(Ordering::Acquire) != count;
        let said = Cell::new(Instant::now());
        let alive = || {
            if said.get().elapsed() >= SIGN_OF_LIFE_EVERY {
                said.set(Instant::now());
                // A full inbox has more urgent news.
                let _ = inbox.try_send(Inbound::Reply(EmitterReply::Reading(call.attempt)));
            }
        };
        let talk = Talk { cancelled: &cancelled, alive: &alive };
        let read = catch_unwind(AssertUnwindSafe(|| {
            let done = read_all(built, &mut sides, &call.ranges, talk)?;
            Ok(BatchRows { rows: outlet.part(done.rows)?, ..done })
        }));
        let result = read.unwrap_or_else(|panic| {
            sides = built.sources.iter().map(|source| Side { reader: None, pipeline: (source.pipeline)() }).collect();
            Err(bug("a reader", &*panic))
        });
        let reply = EmitterReply::Read(ReadReply { attempt: call.attempt, txid: call.txid, result });
        if inbox.blocking_send(Inbound::Reply(reply)).is_err() {
            return;
        }
    }
}

/// What a read in progress says and hears between its chunks.
#[derive(Clone, Copy)]
struct Talk<'a> {
    /// Whether a newer attempt has begun.
    cancelled: &'a dyn Fn() -> bool,
    /// Says now and then that work goes on: a slow function of the user's is no dead task.
    alive: &'a dyn Fn(),
}

impl Talk<'_> {
    fn go_on(&self) -> Result<(), Failure> {
        (self.alive)();
        match (self.cancelled)() {
            true => Err(Failure::new(FailureKind::Superseded, "a newer attempt has begun")),
            false => Ok(()),
        }
    }
}

/// One source as this thread sees it.
struct Side {
    reader: Option<Box<dyn Reader>>,
    pipeline: Box<dyn Pipeline>,
}

fn read_all(
    built: &Built,
    sides: &mut [Side],
    ranges: &[PartitionRange],
    talk: Talk<'_>,
) -> Result<BatchRows, Failure> {
    let read = ranges.iter().try_for_each(|range| read_one(built, sides, range, talk));
    if let Err(failure) = read {
        sides.iter_mut().for_each(|side| side.pipeline.reset());
        return Err(failure);
    }
    let mut all = BatchRows::default();
    for side in sides {
        let rows = side.pipeline.finish()?;
        all.absorb(rows);
    }
    Ok(all)
}

fn read_one(built: &Built, sides: &mut [Side], range: &PartitionRange, talk: Talk<'_>) -> Result<(), Failure> {
    talk.go_on()?;
    let SourceIndex(index) = range.source;
    let side = &mut sides[usize::from(index)];
    let reader = match &mut side.reader {
        Some(reader) => reader,
        none => none.insert(built.sources[usize::from(index)].source.reader()?),
    };
    let mut sink = Lending { partition: &range.partition, pipeline: &mut *side.pipeline, talk };
    let read = reader.read(range, &mut sink);
    if read.as_ref().is_err_and(|failure| failure.kind == FailureKind::Transient) {
        // Whatever state the reader is in: the next attempt starts with a new one.
        side.reader = None;
    }
    read
}

/// Lends what a reader reads to a pipeline.
struct Lending<'a> {
    partition: &'a str,
    pipeline: &'a mut dyn Pipeline,
    talk: Talk<'a>,
}

impl Sink for Lending<'_> {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        self.talk.go_on()?;
        self.pipeline.records(self.partition, chunk)
    }

    fn cancelled(&self) -> bool {
        (self.talk.cancelled)()
    }
}

/// Whose panic stays no panic.
pub(super) fn bug(whose: &str, panic: &(dyn std::any::Any + Send)) -> Failure {
    Failure::fatal(format!("{whose} panicked, which is a bug: {}", panic_text(panic)))
}
