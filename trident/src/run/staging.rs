//! Performs a stage task's calls: a thread that combines rows and runs the users' closures on them.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Instant,
};

use tine_core::{
    failure::{Failure, FailureKind},
    id::Attempt,
    runtime::{Inbound, Perform},
};
use tokio::sync::mpsc;

use super::reading::{SIGN_OF_LIFE_EVERY, WAITING, bug};
use crate::{
    message::Batches,
    outlet::Outlet,
    pipeline::{Built, Exchange, GoOn, Targeted},
    stage_bolt::{StageCall, StageParts, StageReply},
};

type Inbox = mpsc::Sender<Inbound<Batches, StageReply>>;

/// The stage task's side of its thread.
pub(super) struct Staging {
    jobs: SyncSender<(u64, StageCall, Inbox)>,
    attempt: Attempt,
    /// Counts the attempts; work of another count than the newest is of no interest.
    newest: Arc<AtomicU64>,
}

impl Staging {
    /// Starts the thread of one stage task of a level.
    pub(super) fn start(built: Arc<Built>, outlet: Outlet, (level, index): (usize, usize)) -> Staging {
        let (jobs, waiting) = sync_channel(WAITING);
        let newest = Arc::new(AtomicU64::new(0));
        let seen = newest.clone();
        let name = format!("tine-stage-{level}-{index}");
        if let Err(error) = thread::Builder::new().name(name).spawn(move || work(&built, &outlet, &waiting, &seen)) {
            tracing::error!("cannot start the thread of stage task {index} of level {level}: {error}");
        }
        Staging { jobs, attempt: Attempt::NONE, newest }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.newest.store(u64::MAX, Ordering::Release);
    }
}

impl Perform<Batches, StageCall, StageReply> for Staging {
    fn perform(&mut self, call: StageCall, inbox: &Inbox) {
        if call.attempt != self.attempt {
            self.attempt = call.attempt;
            self.newest.fetch_add(1, Ordering::AcqRel);
        }
        let count = self.newest.load(Ordering::Acquire);
        let (attempt, txid) = (call.attempt, call.txid);
        if self.jobs.try_send((count, call, inbox.clone())).is_err() {
            let result = Err(Failure::transient("the stage task's thread is gone or does not keep up"));
            let inbox = inbox.clone();
            let reply = StageReply::Ran { attempt, txid, result };
            tokio::spawn(async move { inbox.send(Inbound::Reply(reply)).await });
        }
    }
}

fn work(built: &Built, outlet: &Outlet, waiting: &Receiver<(u64, StageCall, Inbox)>, newest: &AtomicU64) {
    let exchanges = || built.exchanges.iter().map(|exchange| (exchange.exchange)()).collect::<Vec<_>>();
    let mut mine = exchanges();
    while let Ok((count, StageCall { attempt, txid, parts }, inbox)) = waiting.recv() {
        let said = Cell::new(Instant::now());
        let go_on = || {
            if said.get().elapsed() >= SIGN_OF_LIFE_EVERY {
                said.set(Instant::now());
                // A full inbox has more urgent news.
                let _ = inbox.try_send(Inbound::Reply(StageReply::Running(attempt)));
            }
            match newest.load(Ordering::Acquire) == count {
                true => Ok(()),
                false => Err(Failure::new(FailureKind::Superseded, "a newer attempt has begun")),
            }
        };
        let ran =
            catch_unwind(AssertUnwindSafe(|| run_all(&mut mine, parts, &go_on).and_then(|rows| outlet.part(rows))));
        let result = ran.unwrap_or_else(|panic| {
            mine = exchanges();
            Err(bug("an exchange", &*panic))
        });
        if inbox.blocking_send(Inbound::Reply(StageReply::Ran { attempt, txid, result })).is_err() {
            return;
        }
    }
}

/// Runs the exchanges that got rows.
fn run_all(exchanges: &mut [Box<dyn Exchange>], parts: StageParts, go_on: GoOn<'_>) -> Result<Targeted, Failure> {
    let mut all = Vec::new();
    for (index, parts) in parts {
        go_on()?;
        all.append(&mut exchanges[usize::from(index.0)].run(parts, go_on)?);
    }
    Ok(all)
}
