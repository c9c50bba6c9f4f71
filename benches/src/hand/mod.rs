//! The yardstick: what a strong engineer writes by hand for this one job, with rdkafka and sqlx.
//!
//! ```text
//! reader thread      batches of messages ─► Tally (key, count) ──┐ at most every `commit_age`
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
    let mut queue = BatchQueue::open(&assignment.brokers, &assignment.topic, |partition| ledger.position(partition))?;
    // Capacity 0: a tally is handed over only to an idle committer, so there are never more than two.
    let (hand_over, handed) = sync_channel(0);
    let (give_back, spare) = sync_channel(1);
    let committer = thread::Builder::new()
        .name("commit".to_owned())
        .spawn(move || commit_all(&mut ledger, &handed, &give_back))
        .context("cannot start the commit thread")?;
    let read = match assignment.job {
        Job::Values => {
            read_all(&mut queue, assignment.commit_age(), &hand_over, &spare, |tally, value| tally.add(value))
        }
        Job::Words => read_all(&mut queue, assignment.commit_age(), &hand_over, &spare, add_words),
    };
    drop(hand_over);
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

fn read_all(
    queue: &mut BatchQueue,
    commit_age: Duration,
    hand_over: &SyncSender<Tally>,
    spare: &Receiver<Tally>,
    add: impl Fn(&mut Tally, &[u8]),
) -> Result<()> {
    let mut tally = Tally::starting_at(queue.positions());
    let mut last_commit = Instant::now();
    let mut last_record = Instant::now();
    while !queue.is_at_end() {
        let records = queue.consume(BATCH_TIMEOUT, |value| add(&mut tally, value))?;
        let now = Instant::now();
        if records > 0 {
            last_record = now;
        }
        ensure!(now - last_record < STALLED_AFTER, "no record for {STALLED_AFTER:?}: is the broker reachable?");
        if now - last_commit < commit_age && !tally.is_full() {
            continue;
        }
        tally.end_at(queue.positions());
        let full = tally.is_full();
        match hand_over.try_send(tally) {
            Ok(()) => {
                tally = next_tally(spare, queue);
                last_commit = now;
            }
            // The last commit is still under way: wait for it only when there is no room to go on.
            Err(TrySendError::Full(busy)) if full => {
                hand_over.send(busy).map_err(|_| committer_ended())?;
                tally = next_tally(spare, queue);
                last_commit = Instant::now();
            }
            Err(TrySendError::Full(busy)) => tally = busy,
            Err(TrySendError::Disconnected(_)) => return Err(committer_ended()),
        }
    }
    tally.end_at(queue.positions());
    hand_over.send(tally).map_err(|_| committer_ended())
}

fn next_tally(spare: &Receiver<Tally>, queue: &BatchQueue) -> Tally {
    let mut tally = spare.try_recv().unwrap_or_default();
    tally.start_at(queue.positions());
    tally
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
