//! Runs tasks under tokio: a thin driver that performs their effects in order and feeds back what happened.
//!
//! One tokio task owns one spout or bolt; others reach it through its inbox, a bounded channel, so backpressure travels
//! upstream. The acker is shared by all tasks of the process and never waits. Tasks and acker of other processes are reached
//! through what [`Links::add_remote`] and [`Links::report_to`] are given.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    acker::{Acker, AckerEvent, Ended, TreeEnd},
    failure::Failure,
    id::TaskId,
    task::{Bolt, BoltTask, Effect, Spout, SpoutTask},
    tuple::{Anchor, Flow, Root, Tuple},
};

/// Tuples and replies that may wait in front of one task. Chunks hold thousands of rows, so this is plenty to keep a
/// task busy, and little enough to keep memory bounded.
pub const INBOX: usize = 64;

/// What arrives at a task.
///
/// ```
/// use tine_core::{runtime::Inbound, tuple::Flow};
///
/// /// What a driver writes into its log.
/// fn told<F: Flow, R>(inbound: &Inbound<F, R>) -> String {
///     match inbound {
///         Inbound::Tuple(tuple) => format!("a tuple from {}", tuple.from),
///         Inbound::Reply(_) => "an answer".to_owned(),
///         Inbound::Ended(root, _) => format!("the end of tree {}", root.0),
///     }
/// }
///
/// # struct Numbers;
/// # impl Flow for Numbers {
/// #     type Message = u64;
/// #     type Note = ();
/// #     type Id = ();
/// # }
/// assert_eq!(told(&Inbound::<Numbers, u64>::Reply(7)), "an answer");
/// ```
#[derive(Debug)]
pub enum Inbound<F: Flow, R> {
    /// A tuple.
    Tuple(Tuple<F::Message>),
    /// The answer to a call.
    Reply(R),
    /// A tree of this spout has ended.
    Ended(Root, TreeEnd<F::Note>),
}

/// The two ends of a task's inbox.
pub type Inbox<F, R> = (mpsc::Sender<Inbound<F, R>>, mpsc::Receiver<Inbound<F, R>>);

/// Performs a task's calls. `perform` must not wait: it starts the work and sends the reply to `inbox` when it is done.
///
/// ```
/// use tine_core::runtime::{Inbound, Perform};
/// use tine_core::tuple::Flow;
/// use tokio::sync::mpsc;
///
/// /// Answers each call of a task with its length, from a tokio task of its own.
/// struct Lengths;
///
/// impl<F: Flow> Perform<F, String, usize> for Lengths {
///     fn perform(&mut self, call: String, inbox: &mpsc::Sender<Inbound<F, usize>>) {
///         let inbox = inbox.clone();
///         tokio::spawn(async move { inbox.send(Inbound::Reply(call.len())).await });
///     }
/// }
///
/// # #[derive(Debug)]
/// # struct Texts;
/// # impl Flow for Texts {
/// #     type Message = String;
/// #     type Note = ();
/// #     type Id = ();
/// # }
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (inbox, mut arrivals) = mpsc::channel::<Inbound<Texts, usize>>(1);
/// Lengths.perform("words".to_owned(), &inbox);
/// assert!(matches!(arrivals.recv().await, Some(Inbound::Reply(5))));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Perform<F: Flow, C, R>: Send {
    /// Starts one call.
    fn perform(&mut self, call: C, inbox: &mpsc::Sender<Inbound<F, R>>);
}

/// A send under way; `false` when it cannot get there.
pub type Sending = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Where tuples for a task go, whatever its replies are.
type Deliver<M> = Box<dyn Fn(Tuple<M>) -> Sending + Send + Sync>;

type Notify<N> = Box<dyn Fn(Root, TreeEnd<N>) -> Sending + Send + Sync>;

type Report<N> = Box<dyn Fn(AckerEvent<N>) -> Sending + Send + Sync>;

/// The process's tasks and acker as they see one another.
///
/// ```
/// use std::sync::Arc;
/// use tine_core::acker::TreeEnd;
/// use tine_core::runtime::{Inbound, Links, Perform, run_acker_clock, run_bolt, run_spout};
/// use tine_core::task::{Bolt, BoltTask, Grouping, Output, Route, Spout, SpoutTask, Token};
/// use tine_core::{failure::Failure, id::TaskId, tuple::Flow};
/// use tokio::sync::mpsc;
///
/// # #[derive(Debug)]
/// struct Numbers;
///
/// impl Flow for Numbers {
///     type Message = u64;
///     type Note = u64;
///     type Id = ();
/// }
///
/// /// Asks a bolt to square 7, and tells the outside world.
/// struct Ask;
///
/// impl Spout<Numbers> for Ask {
///     type Call = u64;
///     type Reply = ();
///
///     fn open(&mut self, out: &mut Output<Numbers, u64>) {
///         out.start_tree((), vec![(0, 7)]);
///     }
///
///     fn ack(&mut self, _: (), notes: Vec<u64>, out: &mut Output<Numbers, u64>) {
///         out.call(notes[0]);
///     }
///
///     fn fail(&mut self, _: (), _: Failure, _: &mut Output<Numbers, u64>) {}
///     fn reply(&mut self, _: (), _: &mut Output<Numbers, u64>) {}
/// }
///
/// struct Square;
///
/// impl Bolt<Numbers> for Square {
///     type Call = u64;
///     type Reply = ();
///
///     fn execute(&mut self, token: Token, _: TaskId, number: u64, out: &mut Output<Numbers, u64>) {
///         out.ack_with(token, number * number);
///     }
///
///     fn reply(&mut self, _: (), _: &mut Output<Numbers, u64>) {}
/// }
///
/// struct Tell(mpsc::Sender<u64>);
///
/// impl Perform<Numbers, u64, ()> for Tell {
///     fn perform(&mut self, square: u64, _: &mpsc::Sender<Inbound<Numbers, ()>>) {
///         let _ = self.0.try_send(square);
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let mut links = Links::<Numbers>::new();
/// let (spout, bolt) = (links.add_spout::<()>(TaskId(0)), links.add_bolt::<()>(TaskId(1)));
/// let links = Arc::new(links);
/// let (told, mut squares) = mpsc::channel(1);
/// let to_bolt = Route { grouping: Grouping::All, targets: vec![TaskId(1)] };
/// let ask = SpoutTask::new(TaskId(0), vec![to_bolt], 7, Ask);
/// tokio::spawn(run_spout(ask, links.clone(), spout.0, spout.1, Tell(told.clone())));
/// let square = BoltTask::new(TaskId(1), vec![], 7, Square);
/// tokio::spawn(run_bolt(square, links.clone(), bolt.0, bolt.1, Tell(told)));
/// tokio::spawn(run_acker_clock(links, std::time::Duration::from_secs(30)));
/// assert_eq!(squares.recv().await, Some(49));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// With another process, which has task 1 and the acker:
///
/// ```
/// use tine_core::acker::AckerEvent;
/// use tine_core::{id::TaskId, runtime::Links, task::Effect, tuple::{Flow, Root, Tuple}};
/// use tokio::sync::mpsc;
///
/// # #[derive(Debug)]
/// # struct Numbers;
/// # impl Flow for Numbers {
/// #     type Message = u64;
/// #     type Note = ();
/// #     type Id = ();
/// # }
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (wire, mut over_there) = mpsc::channel::<String>(10);
/// let send = move |what: String| {
///     let wire = wire.clone();
///     Box::pin(async move { wire.send(what).await.is_ok() })
/// };
/// let mut links = Links::<Numbers>::new();
/// let report = send.clone();
/// links.add_remote(TaskId(1), move |tuple| send(format!("{} for task 1", tuple.message)));
/// links.report_to(move |event| report(format!("{event:?}")));
///
/// let seven = Tuple { anchors: Default::default(), from: TaskId(0), message: 7 };
/// assert!(links.deliver(TaskId(1), seven.clone()).await);
/// assert!(!links.deliver(TaskId(2), seven).await, "nobody knows task 2");
/// links.perform(Effect::<_, ()>::Acker(AckerEvent::Alive { root: Root(1) })).await;
/// assert_eq!(over_there.recv().await.as_deref(), Some("7 for task 1"));
/// assert_eq!(over_there.recv().await.as_deref(), Some("Alive { root: Root(1) }"));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Links<F: Flow> {
    deliver: Vec<Option<Deliver<F::Message>>>,
    notify: Vec<Option<Notify<F::Note>>>,
    acker: Mutex<Acker<F::Note>>,
    /// Where the acker is, when it is another process's.
    elsewhere: Option<Report<F::Note>>,
    /// Tests mute the acker's completions to show that nothing commits without them.
    mute: bool,
    started: Instant,
}

impl<F: Flow> std::fmt::Debug for Links<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("tasks", &self.deliver.len()).finish_non_exhaustive()
    }
}

impl<F: Flow> Default for Links<F> {
    fn default() -> Self {
        let acker = Mutex::new(Acker::default());
        let (deliver, notify, started) = (Vec::new(), Vec::new(), Instant::now());
        Links { deliver, notify, acker, elsewhere: None, mute: false, started }
    }
}

impl<F: Flow> Links<F> {
    /// Links without a task yet.
    pub fn new() -> Self {
        Links::default()
    }

    /// The same, with an acker that never tells anyone that a tree is complete.
    pub fn with_muted_acker() -> Self {
        Links { mute: true, ..Links::default() }
    }

    /// Adds a bolt's task; answers with its two ends of the inbox.
    pub fn add_bolt<R: Send + 'static>(&mut self, id: TaskId) -> Inbox<F, R> {
        let (sender, receiver) = mpsc::channel::<Inbound<F, R>>(INBOX);
        let inbox = sender.clone();
        let deliver: Deliver<F::Message> = Box::new(move |tuple| {
            let inbox = inbox.clone();
            Box::pin(async move { inbox.send(Inbound::Tuple(tuple)).await.is_ok() })
        });
        self.put(id, Some(deliver), None);
        (sender, receiver)
    }

    /// Adds a spout's task; answers with its two ends of the inbox.
    pub fn add_spout<R: Send + 'static>(&mut self, id: TaskId) -> Inbox<F, R> {
        let (sender, receiver) = mpsc::channel::<Inbound<F, R>>(INBOX);
        self.notify(id, sender.clone());
        (sender, receiver)
    }

    /// Adds a spout's task that has its inbox already.
    pub fn notify<R: Send + 'static>(&mut self, id: TaskId, inbox: mpsc::Sender<Inbound<F, R>>) {
        let notify: Notify<F::Note> = Box::new(move |root, end| {
            let inbox = inbox.clone();
            Box::pin(async move { inbox.send(Inbound::Ended(root, end)).await.is_ok() })
        });
        self.put(id, None, Some(notify));
    }

    /// Adds a task of another process: `send` takes its tuples there.
    pub fn add_remote(&mut self, id: TaskId, send: impl Fn(Tuple<F::Message>) -> Sending + Send + Sync + 'static) {
        self.put(id, Some(Box::new(send)), None);
    }

    /// The acker is another process's: `report` takes reports there.
    pub fn report_to(&mut self, report: impl Fn(AckerEvent<F::Note>) -> Sending + Send + Sync + 'static) {
        self.elsewhere = Some(Box::new(report));
    }

    fn put(&mut self, id: TaskId, deliver: Option<Deliver<F::Message>>, notify: Option<Notify<F::Note>>) {
        let index = id.0 as usize;
        let size = self.deliver.len().max(index + 1);
        self.deliver.resize_with(size, || None);
        self.notify.resize_with(size, || None);
        self.deliver[index] = deliver;
        self.notify[index] = notify;
    }

    /// Milliseconds since the links were made: the tasks' monotonic clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Performs an effect, unless it is a call, which is the driver's.
    pub async fn perform<C>(&self, effect: Effect<F, C>) -> Option<C> {
        match effect {
            Effect::Send { to, tuple } => {
                let anchors = tuple.anchors.clone();
                if !self.deliver(to, tuple).await {
                    for Anchor { root, .. } in anchors {
                        let failure = Failure::transient(format!("{to} is not reached"));
                        self.report(AckerEvent::Fail { root, failure }).await;
                    }
                }
                None
            }
            Effect::Acker(event) => {
                self.report(event).await;
                None
            }
            Effect::Call(call) => Some(call),
        }
    }

    /// Takes a tuple to a task; `false` when it cannot get there.
    pub async fn deliver(&self, to: TaskId, tuple: Tuple<F::Message>) -> bool {
        match self.deliver.get(to.0 as usize) {
            Some(Some(deliver)) => deliver(tuple).await,
            _ => false,
        }
    }

    /// Tells the acker, wherever it is, and the spouts whose trees have ended by that.
    pub async fn report(&self, event: AckerEvent<F::Note>) {
        if let Some(elsewhere) = &self.elsewhere {
            // Where it cannot be reached it knows so, and fails what was under way.
            elsewhere(event).await;
            return;
        }
        let ended = self.acker.lock().unwrap_or_else(PoisonError::into_inner).step(event);
        for Ended { spout, root, end } in ended {
            if self.mute && matches!(end, TreeEnd::Complete(_)) {
                continue;
            }
            if let Some(Some(notify)) = self.notify.get(spout.0 as usize) {
                notify(root, end).await;
            }
        }
    }
}

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
    use crate::task::{Grouping, Output, Route, Token};

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
