//! Drives one task: what arrives goes in, and the effects that come out are performed in order.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{Inbound, Links, Perform};
use crate::{
    acker::AckerEvent,
    task::{Bolt, BoltTask, Spout, SpoutTask},
    tuple::Flow,
};

/// Runs a bolt's task until its inbox closes.
///
/// It goes on taking tuples while what it emitted waits for room: two bolts that send to each other, in one process or over
/// links, would otherwise wait for each other. What waits is bounded by whoever starts trees: a bolt that holds whole batches
/// emits no more than the transactions under way come to.
pub async fn run_bolt<F: Flow, B: Bolt<F>>(
    mut task: BoltTask<F, B>,
    links: Arc<Links<F>>,
    inbox: mpsc::Sender<Inbound<F, B::Reply>>,
    mut arrivals: mpsc::Receiver<Inbound<F, B::Reply>>,
    mut calls: impl Perform<F, B::Call, B::Reply>,
) {
    let (mut outbox, mut open) = (VecDeque::new(), true);
    let mut performing = pin!(None);
    while open || performing.is_some() || !outbox.is_empty() {
        if performing.is_none() {
            performing.set(outbox.pop_front().map(|effect| links.perform(effect)));
        }
        let performed = async {
            match performing.as_mut().as_pin_mut() {
                Some(performing) => performing.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            call = performed => {
                performing.set(None);
                if let Some(call) = call {
                    calls.perform(call, &inbox);
                }
            }
            inbound = arrivals.recv(), if open => {
                let now_ms = links.now_ms();
                match inbound {
                    Some(Inbound::Tuple(tuple)) => outbox.extend(task.tuple(now_ms, tuple)),
                    Some(Inbound::Reply(reply)) => outbox.extend(task.reply(now_ms, reply)),
                    Some(Inbound::Ended(..)) => {}
                    None => open = false,
                }
            }
        }
    }
}

/// Runs a spout's task until its inbox closes.
pub async fn run_spout<F: Flow, S: Spout<F>>(
    mut task: SpoutTask<F, S>,
    links: Arc<Links<F>>,
    inbox: mpsc::Sender<Inbound<F, S::Reply>>,
    mut arrivals: mpsc::Receiver<Inbound<F, S::Reply>>,
    mut calls: impl Perform<F, S::Call, S::Reply>,
) {
    let mut effects = task.open(links.now_ms());
    loop {
        for effect in effects {
            if let Some(call) = links.perform(effect).await {
                calls.perform(call, &inbox);
            }
        }
        let Some(inbound) = arrivals.recv().await else { return };
        let now_ms = links.now_ms();
        effects = match inbound {
            Inbound::Reply(reply) => task.reply(now_ms, reply),
            Inbound::Ended(root, end) => task.ended(now_ms, root, end),
            Inbound::Tuple(_) => Vec::new(),
        };
    }
}

/// Drives the acker's clock: a tree without a report for `timeout` fails between 1 and 1.25 timeouts.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use tine_core::acker::{AckerEvent, TreeEnd};
/// use tine_core::runtime::{Inbound, Links, run_acker_clock};
/// use tine_core::{id::TaskId, tuple::{Flow, Root}};
///
/// # #[derive(Debug)]
/// # struct Numbers;
/// # impl Flow for Numbers {
/// #     type Message = u64;
/// #     type Note = ();
/// #     type Id = ();
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let mut links = Links::<Numbers>::new();
/// let (_inbox, mut arrivals) = links.add_spout::<()>(TaskId(0));
/// let links = Arc::new(links);
/// tokio::spawn(run_acker_clock(links.clone(), Duration::from_millis(4)));
/// links.report(AckerEvent::Start { root: Root(1), spout: TaskId(0), value: 5 }).await; // and nobody acks edge 5
/// assert!(matches!(arrivals.recv().await, Some(Inbound::Ended(Root(1), TreeEnd::Failed(_)))));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn run_acker_clock<F: Flow>(links: Arc<Links<F>>, timeout: Duration) {
    let mut ticks = tokio::time::interval(timeout / 4);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        links.report(AckerEvent::Tick).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::TaskId,
        runtime::INBOX,
        task::{Grouping, Output, Route, Token},
        tuple::Tuple,
    };

    #[derive(Debug)]
    struct Numbers;

    impl Flow for Numbers {
        type Message = u32;
        type Note = ();
        type Id = ();
    }

    /// Sends many tuples for the first that comes, and counts the others.
    struct Chatty {
        to_come: u32,
    }

    const MANY: u32 = 10 * INBOX as u32;

    impl Bolt<Numbers> for Chatty {
        type Call = ();
        type Reply = ();

        fn execute(&mut self, token: Token, _: TaskId, number: u32, out: &mut Output<Numbers, ()>) {
            if number == 0 {
                (1..=MANY).for_each(|number| out.emit(0, token, number));
            } else {
                self.to_come -= 1;
            }
            out.ack(token);
            if self.to_come == 0 {
                out.call(());
            }
        }

        fn reply(&mut self, (): (), _: &mut Output<Numbers, ()>) {}
    }

    /// Says that the last tuple has come.
    struct Say(mpsc::Sender<()>);

    impl Perform<Numbers, (), ()> for Say {
        fn perform(&mut self, (): (), _: &mpsc::Sender<Inbound<Numbers, ()>>) {
            let _ = self.0.try_send(());
        }
    }

    #[tokio::test]
    async fn two_bolts_that_send_each_other_more_than_their_inboxes_hold_do_not_wait_for_each_other() {
        let (done, mut ended) = mpsc::channel(2);
        let mut links = Links::<Numbers>::new();
        let ids = [TaskId(1), TaskId(2)];
        let inboxes = ids.map(|id| links.add_bolt::<()>(id));
        let first = inboxes.each_ref().map(|(inbox, _)| inbox.clone());
        let links = Arc::new(links);
        for ((id, (inbox, arrivals)), other) in ids.into_iter().zip(inboxes).zip([TaskId(2), TaskId(1)]) {
            let (bolt, say) = (Chatty { to_come: MANY }, Say(done.clone()));
            let routes = vec![Route { grouping: Grouping::All, targets: vec![other] }];
            tokio::spawn(run_bolt(BoltTask::new(id, routes, 7, bolt), links.clone(), inbox, arrivals, say));
        }
        for inbox in first {
            let tuple = Tuple { anchors: Default::default(), from: TaskId(0), message: 0 };
            inbox.send(Inbound::Tuple(tuple)).await.unwrap();
        }
        for _ in ids {
            tokio::time::timeout(Duration::from_secs(20), ended.recv()).await.expect("they wait for each other");
        }
    }
}
