//! The tasks and the acker of a process, as they see one another and those of other processes.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::mpsc;

use super::{INBOX, Inbound, Inbox};
use crate::{
    acker::{Acker, AckerEvent, Ended, TreeEnd},
    failure::Failure,
    id::TaskId,
    task::Effect,
    tuple::{Anchor, Flow, Root, Tuple},
};

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
