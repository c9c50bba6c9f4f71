//! The yardstick: what a strong engineer writes by hand for this one job, with rdkafka and sqlx.
//!
//! ```text
//! reader thread      batches of messages ─► Tally (key, count) ──┐ every `commit_age` or `commit_records`
//! commit thread      one SQL transaction: counts and offsets  ◄──┘ while the reader goes on with another Tally
//! ```
//!
//! It is exact for the same reason tine is: the offsets move in the transaction that adds the counts, and only from where
//! the transaction began. It leaves out everything a framework is for: one process, one hop, one operator, no retries.
//!
//! - [`batch_queue`]: librdkafka's batch consumption, the only unsafe code here
//! - [`tally`]: counts by key, the key looked up by reference, memory used again
//! - [`ledger`]: the SQL side

mod batch_queue;
mod ledger;
mod tally;

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use self::batch_queue::BatchQueue;
use self::ledger::Ledger;
use self::tally::Tally;
use crate::kafka_to_postgres::Job;
use crate::side::Assignment;

/// How long one call waits for a full batch; it bounds how late a commit may begin.
const BATCH_TIMEOUT: Duration = Duration::from_millis(20);

/// Without a single record for this long, something is broken that librdkafka keeps retrying.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Counts everything below the topic's end offsets of this moment. After `Ok` all of it is committed; after `Err` a
/// prefix of it, from which the next run goes on.
pub(crate) fn run(assignment: &Assignment) -> Result<()> {
    let mut ledger = Ledger::open(assignment)?;
    let queue = BatchQueue::open(&assignment.brokers, &assignment.topic, |partition| ledger.position(partition))?;
    // Capacity 0: a tally is handed over only to an idle committer, so there are never more than two.
    let (hand_over, handed) = sync_channel(0);
    let (give_back, spare) = sync_channel(1);
    let committer = thread::Builder::new()
        .name("commit".to_owned())
        .spawn(move || commit_all(&mut ledger, &handed, &give_back))
        .context("cannot start the commit thread")?;
    let mut reader = Reader {
        queue,
        commit_age: assignment.commit_age(),
        commit_records: assignment.commit_records,
        hand_over,
        spare,
    };
    let read = match assignment.job {
        Job::Values => reader.read_all(|tally, value| tally.add(value)),
        Job::Words => reader.read_all(add_words),
    };
    drop(reader);
    // The committer's error explains a reader that found its channel closed.
    committer.join().map_err(|_| anyhow!("the commit thread panicked"))??;
    read
}

fn add_words(tally: &mut Tally, line: &[u8]) {
    for word in line.split(u8::is_ascii_whitespace) {
        if !word.is_empty() {
            tally.add(word);
        }
    }
}

/// The reader thread's own: what it reads from, and when and to whom it hands over.
struct Reader {
    queue: BatchQueue,
    commit_age: Duration,
    commit_records: u64,
    hand_over: SyncSender<Tally>,
    spare: Receiver<Tally>,
}

impl Reader {
    fn read_all(&mut self, add: impl Fn(&mut Tally, &[u8])) -> Result<()> {
        let mut tally = Tally::starting_at(self.queue.positions());
        let mut records = 0;
        let mut last_commit = Instant::now();
        let mut last_record = Instant::now();
        while !self.queue.is_at_end() {
            let delivered = self.queue.consume(BATCH_TIMEOUT, |value| add(&mut tally, value))?;
            records += delivered as u64;
            let now = Instant::now();
            if delivered > 0 {
                last_record = now;
            }
            ensure!(now - last_record < STALLED_AFTER, "no record for {STALLED_AFTER:?}: is the broker reachable?");
            let full = records >= self.commit_records || tally.is_full();
            if full || now - last_commit >= self.commit_age {
                let handed_over;
                (tally, handed_over) = self.hand_over(tally, full)?;
                if handed_over {
                    (records, last_commit) = (0, Instant::now());
                }
            }
        }
        self.hand_over(tally, true)?;
        Ok(())
    }

    /// Returns the tally to go on with: an empty one, or the same one while the last commit is still under way and there
    /// is no need to `wait` for it.
    fn hand_over(&self, mut tally: Tally, wait: bool) -> Result<(Tally, bool)> {
        tally.end_at(self.queue.positions());
        match self.hand_over.try_send(tally) {
            Ok(()) => {}
            Err(TrySendError::Full(tally)) if wait => self.hand_over.send(tally).map_err(|_| committer_ended())?,
            Err(TrySendError::Full(tally)) => return Ok((tally, false)),
            Err(TrySendError::Disconnected(_)) => return Err(committer_ended()),
        }
        let mut next = self.spare.try_recv().unwrap_or_default();
        next.start_at(self.queue.positions());
        Ok((next, true))
    }
}

fn committer_ended() -> anyhow::Error {
    anyhow!("the commit thread ended early")
}

fn commit_all(ledger: &mut Ledger, handed: &Receiver<Tally>, give_back: &SyncSender<Tally>) -> Result<()> {
    for mut tally in handed {
        ledger.commit(&tally)?;
        tally.clear();
        // Nobody takes the last one back.
        let _ = give_back.try_send(tally);
    }
    Ok(())
}
