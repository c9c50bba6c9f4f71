//! What a spout or bolt writes its wishes into; its task makes [`Effect`](super::Effect)s of them.

use super::{StreamIndex, Token};
use crate::{failure::Failure, tuple::Flow};

/// What a spout or bolt wants done, in order.
///
/// ```
/// use tine_core::task::{Bolt, Output, Token};
/// use tine_core::{failure::Failure, id::TaskId, tuple::Flow};
///
/// struct Orders;
///
/// impl Flow for Orders {
///     type Message = u64;
///     type Note = &'static str; // what an ack tells the spout
///     type Id = u64;
/// }
///
/// /// Small orders are booked at once; larger ones are asked about, and go to the task that books them.
/// struct Book;
///
/// impl Bolt<Orders> for Book {
///     type Call = Token;
///     type Reply = (Token, bool);
///
///     fn execute(&mut self, token: Token, _: TaskId, cents: u64, out: &mut Output<Orders, Token>) {
///         match cents {
///             0 => out.ignore(token),
///             1..=999 => out.ack_with(token, "booked"),
///             _ => {
///                 out.call(token);
///                 out.keep_alive(token); // the answer may take its time
///             }
///         }
///     }
///
///     fn reply(&mut self, (token, allowed): (Token, bool), out: &mut Output<Orders, Token>) {
///         match allowed {
///             true => {
///                 out.emit_direct(0, 1, token, out.now_ms());
///                 out.ack(token);
///             }
///             false => out.fail(token, Failure::poison("nobody allows this order")),
///         }
///     }
/// }
///
/// # use tine_core::acker::AckerEvent;
/// # use tine_core::task::{BoltTask, Effect, Grouping, Route};
/// # use tine_core::tuple::{Anchor, Root, Tuple};
/// # let routes = vec![Route { grouping: Grouping::Direct, targets: vec![TaskId(2), TaskId(3)] }];
/// # let mut task = BoltTask::new(TaskId(1), routes, 7, Book);
/// # let order = |message| {
/// #     let anchors = [Anchor { root: Root(message), edge: 5 }].into_iter().collect();
/// #     Tuple { anchors, from: TaskId(0), message }
/// # };
/// assert!(task.tuple(0, order(0)).is_empty());
/// assert!(matches!(task.tuple(0, order(1))[..], [Effect::Acker(AckerEvent::Ack { note: Some("booked"), .. })]));
/// let asked = task.tuple(0, order(1000));
/// let [Effect::Call(token), Effect::Acker(AckerEvent::Alive { .. })] = asked[..] else { panic!("it asks") };
/// assert!(matches!(task.reply(5, (token, true))[0], Effect::Send { to: TaskId(3), .. }));
/// ```
#[derive(Debug)]
pub struct Output<F: Flow, C> {
    now_ms: u64,
    pub(super) steps: Vec<Wish<F, C>>,
}

#[derive(Debug)]
pub(super) enum Wish<F: Flow, C> {
    Root { id: F::Id, sends: Vec<(StreamIndex, F::Message)> },
    Emit { stream: StreamIndex, target: Option<usize>, anchor: Token, message: F::Message },
    Ack { token: Token, note: Option<F::Note> },
    Fail { token: Token, failure: Failure },
    Alive { token: Token },
    Drop { token: Token },
    Call(C),
}

impl<F: Flow, C> Output<F, C> {
    pub(super) fn new(now_ms: u64) -> Self {
        Output { now_ms, steps: Vec::new() }
    }

    /// The driver's monotonic clock, in milliseconds: for pacing only, never for deciding what is true.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Spouts: starts a tree under a name, with these messages on these streams as its first tuples.
    pub fn start_tree(&mut self, id: F::Id, sends: Vec<(StreamIndex, F::Message)>) {
        self.steps.push(Wish::Root { id, sends });
    }

    /// Bolts: emits along a stream, anchored to a held tuple.
    pub fn emit(&mut self, stream: StreamIndex, anchor: Token, message: F::Message) {
        self.steps.push(Wish::Emit { stream, target: None, anchor, message });
    }

    /// Bolts: emits to one task of a `Direct` stream, by its index among the targets.
    pub fn emit_direct(&mut self, stream: StreamIndex, target: usize, anchor: Token, message: F::Message) {
        self.steps.push(Wish::Emit { stream, target: Some(target), anchor, message });
    }

    /// The tuple is done.
    pub fn ack(&mut self, token: Token) {
        self.steps.push(Wish::Ack { token, note: None });
    }

    /// The tuple is done, and this is for the spout.
    pub fn ack_with(&mut self, token: Token, note: F::Note) {
        self.steps.push(Wish::Ack { token, note: Some(note) });
    }

    /// The tuple failed, and so did its trees.
    pub fn fail(&mut self, token: Token, failure: Failure) {
        self.steps.push(Wish::Fail { token, failure });
    }

    /// Work on the tuple goes on: its trees do not time out meanwhile.
    pub fn keep_alive(&mut self, token: Token) {
        self.steps.push(Wish::Alive { token });
    }

    /// The tuple is of no interest to anybody any more: a stale message, neither acked nor failed.
    pub fn ignore(&mut self, token: Token) {
        self.steps.push(Wish::Drop { token });
    }

    /// Asks the outside world for something.
    pub fn call(&mut self, call: C) {
        self.steps.push(Wish::Call(call));
    }
}
