//! Runs tasks under tokio: a thin driver that performs their effects in order and feeds back what happened.
//!
//! One tokio task owns one spout or bolt; others reach it through its inbox, a bounded channel, so backpressure travels
//! upstream. The acker is shared by all tasks of the process and never waits. Tasks and acker of other processes are reached
//! through what [`Links::add_remote`] and [`Links::report_to`] are given.

//!
//! Read in this order: what arrives at a task ([`Inbound`]) and how its calls are answered ([`Perform`]), [`Links`] between
//! tasks, then [`run_spout`], [`run_bolt`] and [`run_acker_clock`].

mod drive;
mod links;

use tokio::sync::mpsc;

pub use self::{
    drive::{run_acker_clock, run_bolt, run_spout},
    links::{Links, Sending},
};
use crate::{
    acker::TreeEnd,
    tuple::{Flow, Root, Tuple},
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
