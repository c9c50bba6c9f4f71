//! Performs a committer's calls: folds on the blocking pool, commits on a connection of its own, one after the other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use async_trait::async_trait;
use tine_core::{
    failure::Failure,
    id::{Attempt, TxId},
    runtime::{Inbound, Perform},
};
use tine_state::{CommitOrder, CommitOutcome, Committer, Reply, Session, Statement};
use tokio::{sync::mpsc, task::JoinSet};

use super::{reading::bug, watch::Watch};
use crate::{
    committer::{CommitterCall, CommitterReply, Parts, fold},
    coordinator::event::Phase,
    message::Batches,
    pipeline::Built,
};

type Inbox = mpsc::Sender<Inbound<Batches, CommitterReply>>;

/// Commits that may wait for the connection: one per attempt at most, since a committer is told one at a time.
const WAITING: usize = 64;

/// The committer's side of its connection.
pub(super) struct Committing {
    built: Arc<Built>,
    orders: mpsc::Sender<(CommitOrder, Inbox)>,
}

impl Committing {
    pub(super) fn start(built: Arc<Built>, watch: Watch, tasks: &mut JoinSet<()>) -> Committing {
        let (orders, waiting) = mpsc::channel(WAITING);
        tasks.spawn(commit_all(built.clone(), watch, waiting));
        Committing { built, orders }
    }

    fn fold(&self, attempt: Attempt, txid: TxId, parts: Parts, inbox: Inbox) {
        let built = self.built.clone();
        tokio::task::spawn_blocking(move || {
            let folded = catch_unwind(AssertUnwindSafe(|| fold(&built.folds, parts)));
            let result = folded.unwrap_or_else(|panic| Err(bug("a fold", &*panic)));
            // A closed inbox means that the run is over.
            let _ = inbox.blocking_send(Inbound::Reply(CommitterReply::Folded { attempt, txid, result }));
        });
    }
}

impl Perform<Batches, CommitterCall, CommitterReply> for Committing {
    fn perform(&mut self, call: CommitterCall, inbox: &Inbox) {
        match call {
            CommitterCall::Fold { attempt, txid, parts } => self.fold(attempt, txid, parts, inbox.clone()),
            CommitterCall::Commit(order) => {
                let (attempt, txid) = (order.attempt, order.txid);
                if self.orders.try_send((*order, inbox.clone())).is_err() {
                    let outcome = CommitOutcome::Failed(Failure::transient("older commits are still under way"));
                    let inbox = inbox.clone();
                    tokio::spawn(async move {
                        inbox.send(Inbound::Reply(CommitterReply::Committed { attempt, txid, outcome })).await
                    });
                }
            }
        }
    }
}

async fn commit_all(built: Arc<Built>, watch: Watch, mut waiting: mpsc::Receiver<(CommitOrder, Inbox)>) {
    let (mut session, mut next) = (None, None);
    loop {
        let (order, inbox): (CommitOrder, Inbox) = match next.take() {
            Some(newer) => newer,
            None => match waiting.recv().await {
                Some(order) => order,
                None => return,
            },
        };
        let (attempt, txid) = (order.attempt, order.txid);
        let alive = || drop(inbox.try_send(Inbound::Reply(CommitterReply::Committing(attempt, txid))));
        let outcome = tokio::select! {
            biased;
            outcome = commit(&built, &watch, &alive, &mut session, order) => outcome,
            // The fence has been raised over the commit under way: it can do nothing any more, whatever it waits for.
            Some(newer) = newer_than(attempt, &mut waiting) => {
                next = Some(newer);
                session = None;
                continue;
            }
        };
        let reply = CommitterReply::Committed { attempt, txid, outcome };
        if inbox.send(Inbound::Reply(reply)).await.is_err() {
            return;
        }
    }
}

/// The next order of another attempt; a second one of the same attempt is a duplicate and dropped.
async fn newer_than(
    attempt: Attempt,
    waiting: &mut mpsc::Receiver<(CommitOrder, Inbox)>,
) -> Option<(CommitOrder, Inbox)> {
    loop {
        let order = waiting.recv().await?;
        if order.0.attempt != attempt {
            return Some(order);
        }
    }
}

async fn commit(
    built: &Built,
    watch: &Watch,
    alive: &(dyn Fn() + Sync),
    session: &mut Option<Box<dyn Session>>,
    order: CommitOrder,
) -> CommitOutcome {
    let open = match session {
        Some(open) => open,
        none => match built.database.session(&built.group).await {
            Ok(opened) => none.insert(opened),
            Err(failure) => return CommitOutcome::Failed(failure),
        },
    };
    let mut watched = WatchedSession { session: open.as_mut(), watch, alive, txid: order.txid };
    tine_state::run(Committer::new(order), &mut watched).await
}

/// A session that says when a COMMIT goes out, when it is acknowledged, and that work goes on.
struct WatchedSession<'a> {
    session: &'a mut dyn Session,
    watch: &'a Watch,
    /// Says that the commit goes on.
    alive: &'a (dyn Fn() + Sync),
    txid: TxId,
}

#[async_trait]
impl Session for WatchedSession<'_> {
    async fn execute(&mut self, statement: &Statement) -> Result<Reply, Failure> {
        let commits = matches!(statement, Statement::Commit);
        if commits {
            self.watch.entered(self.txid, Phase::CommitSent);
        }
        let answer = self.session.execute(statement).await;
        (self.alive)();
        if commits && answer.is_ok() {
            self.watch.entered(self.txid, Phase::Acknowledged);
        }
        answer
    }
}
