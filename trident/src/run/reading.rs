//! Performs an emitter's reads: a thread with the sources' readers and the fused operators.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use tine_core::{
    failure::{Failure, FailureKind},
    id::Attempt,
    runtime::{Inbound, Perform},
};
use tokio::sync::mpsc;

use crate::{
    emitter::{ReadCall, ReadReply},
    message::Batches,
    pipeline::{BatchRows, Built, Pipeline},
    source::{PartitionRange, Reader, Record, Sink, SourceIndex},
};

type Inbox = mpsc::Sender<Inbound<Batches, ReadReply>>;

/// Reads that may wait for the thread: more than transactions are ever in flight, those of aborted attempts included.
const WAITING: usize = 256;

/// The emitter's side of its reader thread.
pub(super) struct Reading {
    jobs: SyncSender<(u64, ReadCall, Inbox)>,
    attempt: Attempt,
    /// Counts the attempts; reads of another count than the newest are of no interest.
    newest: Arc<AtomicU64>,
}

impl Reading {
    pub(super) fn start(built: Arc<Built>, index: usize) -> Reading {
        let (jobs, waiting) = sync_channel(WAITING);
        let newest = Arc::new(AtomicU64::new(0));
        let seen = newest.clone();
        let spawned =
            thread::Builder::new().name(format!("tine-emitter-{index}")).spawn(move || work(&built, &waiting, &seen));
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

impl Perform<Batches, ReadCall, ReadReply> for Reading {
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
            tokio::spawn(async move { inbox.send(Inbound::Reply(ReadReply { attempt, txid, result })).await });
        }
    }
}

fn work(built: &Built, waiting: &Receiver<(u64, ReadCall, Inbox)>, newest: &AtomicU64) {
    let mut sides: Vec<Side> =
        built.sources.iter().map(|source| Side { reader: None, pipeline: (source.pipeline)() }).collect();
    while let Ok((count, call, inbox)) = waiting.recv() {
        let cancelled = || newest.load(Ordering::Acquire) != count;
        let read = catch_unwind(AssertUnwindSafe(|| read_all(built, &mut sides, &call.ranges, &cancelled)));
        let result = read.unwrap_or_else(|panic| {
            sides = built.sources.iter().map(|source| Side { reader: None, pipeline: (source.pipeline)() }).collect();
            Err(Failure::fatal(format!("a reader panicked, which is a bug: {}", panic_message(&*panic))))
        });
        let reply = ReadReply { attempt: call.attempt, txid: call.txid, result };
        if inbox.blocking_send(Inbound::Reply(reply)).is_err() {
            return;
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
    cancelled: &dyn Fn() -> bool,
) -> Result<BatchRows, Failure> {
    let read = ranges.iter().try_for_each(|range| read_one(built, sides, range, cancelled));
    if let Err(failure) = read {
        sides.iter_mut().for_each(|side| side.pipeline.reset());
        return Err(failure);
    }
    let mut all = BatchRows::default();
    for side in sides {
        let rows = side.pipeline.finish()?;
        all.rows.extend(rows.rows);
        all.records += rows.records;
        all.bytes += rows.bytes;
        all.skipped += rows.skipped;
        all.dead_letters += rows.dead_letters;
    }
    Ok(all)
}

fn read_one(
    built: &Built,
    sides: &mut [Side],
    range: &PartitionRange,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    if cancelled() {
        return Err(Failure::new(FailureKind::Superseded, "a newer attempt has begun"));
    }
    let SourceIndex(index) = range.source;
    let side = &mut sides[usize::from(index)];
    let reader = match &mut side.reader {
        Some(reader) => reader,
        none => none.insert(built.sources[usize::from(index)].source.reader()?),
    };
    let mut sink = Lending { partition: &range.partition, pipeline: &mut *side.pipeline, cancelled };
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
    cancelled: &'a dyn Fn() -> bool,
}

impl Sink for Lending<'_> {
    fn records(&mut self, chunk: &[Record<'_>]) -> Result<(), Failure> {
        self.pipeline.records(self.partition, chunk)
    }

    fn cancelled(&self) -> bool {
        (self.cancelled)()
    }
}

/// The words of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_string())
}
