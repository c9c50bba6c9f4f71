//! The yardsticks: what a strong engineer writes by hand for one job, on librdkafka or on tine's own reader, with sqlx.
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
//! - [`native`]: the same on tine's reader, ranges in turns
//! - [`tally`]: counts by key, the key looked up by reference, memory used again
//! - [`ledger`]: the SQL side

mod batch_queue;
mod ledger;
mod native;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use self::batch_queue::BatchQueue;
use self::ledger::Ledger;
use self::native::Native;
use self::tally::Tally;
use crate::side::{Assignment, System, Until, until_dismissed};
use crate::tine_side::live;
use crate::workload::{Job, Sale};

/// How long one call waits for a full batch; it bounds how late a commit may begin.
const BATCH_TIMEOUT: Duration = Duration::from_millis(20);

/// The same where every record is to be committed as soon as possible.
const BATCH_TIMEOUT_LIVE: Duration = Duration::from_millis(1);

/// Without a single record for this long, something is broken that librdkafka keeps retrying.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Where the loop's records come from.
trait Feed {
    /// The next offset to come, by partition.
    fn positions(&self) -> &[i64];

    /// Whether everything that was to be read was delivered.
    fn is_at_end(&self) -> bool;

    /// Lends the next records to `each`, partition and value, waiting for `timeout` at most. Returns how many.
    fn consume(&mut self, timeout: Duration, each: impl FnMut(usize, &[u8])) -> Result<usize>;
}

/// Does the whole job. After `Ok` everything that was read is committed; after `Err` a prefix of it, from which the next
/// run goes on.
pub(crate) fn run(assignment: &Assignment) -> Result<()> {
    let ledger = Ledger::open(assignment)?;
    let (brokers, topic, endless) = (&assignment.brokers, &assignment.topic, assignment.until == Until::Dismissed);
    match assignment.system {
        System::HandNative => {
            ensure!(!endless, "the loop on tine's reader reads topics that are there");
            let feed = Native::open(brokers, topic, assignment.commit_records, |partition| ledger.position(partition))?;
            read_and_commit(assignment, feed, ledger)
        }
        _ => {
            let feed = BatchQueue::open(brokers, topic, endless, |partition| ledger.position(partition))?;
            read_and_commit(assignment, feed, ledger)
        }
    }
}

fn read_and_commit(assignment: &Assignment, feed: impl Feed, mut ledger: Ledger) -> Result<()> {
    // Capacity 0: a tally is handed over only to an idle committer, so there are never more than two.
    let (hand_over, handed) = sync_channel(0);
    let (give_back, spare) = sync_channel(1);
    let committer = thread::Builder::new()
        .name("commit".to_owned())
        .spawn(move || commit_all(&mut ledger, &handed, &give_back))
        .context("cannot start the commit thread")?;
    let dismissed = Arc::new(AtomicBool::new(false));
    if assignment.until == Until::Dismissed {
        let dismissed = dismissed.clone();
        thread::spawn(move || {
            until_dismissed();
            dismissed.store(true, Ordering::Relaxed);
        });
    }
    let mut reader = Reader {
        feed,
        commit_age: assignment.commit_age(),
        commit_records: assignment.commit_records,
        dismissed,
        hand_over,
        spare,
    };
    let partitions: Vec<String> =
        (0..reader.feed.positions().len()).map(|partition| format!("{}/{partition}", assignment.topic)).collect();
    let read = match assignment.job {
        Job::Values => reader.read_all(|tally, _, value| {
            tally.add(value);
            Ok(())
        }),
        Job::Letters => Err(anyhow!("the loop by hand has one stage")),
        Job::Words => reader.read_all(|tally, _, line| {
            add_words(tally, line);
            Ok(())
        }),
        Job::Json => reader.read_all(|tally, _, value| add_sale(tally, value)),
        Job::Live => reader.read_all(|tally, partition, value| add_live(tally, &partitions[partition], value)),
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

fn add_sale(tally: &mut Tally, value: &[u8]) -> Result<()> {
    let sale: Sale<'_> = serde_json::from_slice(value)?;
    tally.add_with(sale.user.as_bytes(), sale.cents, |sum, cents| sum + cents);
    Ok(())
}

fn add_live(tally: &mut Tally, partition: &str, value: &[u8]) -> Result<()> {
    let (name, seq) = live(value).context("not a name and a number")?;
    tally.add_with(name.as_bytes(), 0, i64::max);
    tally.add_with(partition.as_bytes(), seq, i64::max);
    Ok(())
}

/// The reader thread's own: what it reads from, and when and to whom it hands over.
struct Reader<F> {
    feed: F,
    commit_age: Duration,
    commit_records: u64,
    dismissed: Arc<AtomicBool>,
    hand_over: SyncSender<Tally>,
    spare: Receiver<Tally>,
}

impl<F: Feed> Reader<F> {
    fn read_all(&mut self, add: impl Fn(&mut Tally, usize, &[u8]) -> Result<()>) -> Result<()> {
        let timeout = if self.commit_age.is_zero() { BATCH_TIMEOUT_LIVE } else { BATCH_TIMEOUT };
        let mut tally = Tally::starting_at(self.feed.positions());
        let mut records = 0;
        let mut last_commit = Instant::now();
        let mut last_record = Instant::now();
        while !self.feed.is_at_end() && !self.dismissed.load(Ordering::Relaxed) {
            let mut added = Ok(());
            let delivered = self.feed.consume(timeout, |partition, value| {
                if added.is_ok() {
                    added = add(&mut tally, partition, value);
                }
            })?;
            added?;
            records += delivered as u64;
            let now = Instant::now();
            if delivered > 0 {
                last_record = now;
            }
            ensure!(now - last_record < STALLED_AFTER, "no record for {STALLED_AFTER:?}: is the broker reachable?");
            let full = records >= self.commit_records || tally.is_full();
            if records > 0 && (full || now - last_commit >= self.commit_age) {
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
        tally.end_at(self.feed.positions());
        match self.hand_over.try_send(tally) {
            Ok(()) => {}
            Err(TrySendError::Full(tally)) if wait => self.hand_over.send(tally).map_err(|_| committer_ended())?,
            Err(TrySendError::Full(tally)) => return Ok((tally, false)),
            Err(TrySendError::Disconnected(_)) => return Err(committer_ended()),
        }
        let mut next = self.spare.try_recv().unwrap_or_default();
        next.start_at(self.feed.positions());
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
