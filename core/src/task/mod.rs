//! Receive → execute → emit → ack, for one spout or bolt: the bookkeeping around user logic, as a pure machine.
//!
//! A [`Bolt`] decides and never waits. What it wants from the outside world it asks for by a *call*; the driver performs
//! it and comes back with the *reply*. The task gives tuples their edges, routes them, and works out what to tell the
//! acker. The same tasks run under tokio ([`runtime`](crate::runtime)) and in the simulator.
//!
//! Read in this order: [`Bolt`] and [`Spout`], what they write into an [`Output`], and the [`Effect`]s that their
//! [`BoltTask`] and [`SpoutTask`] make of it.

mod bolt;
mod output;
mod spout;
mod wiring;

pub use self::{
    bolt::{Bolt, BoltTask},
    output::Output,
    spout::{Spout, SpoutTask},
    wiring::{Grouping, Route, StreamIndex},
};
use crate::{
    acker::AckerEvent,
    id::TaskId,
    tuple::{Flow, Tuple},
};

/// A tuple that a bolt holds until it acks or fails it.
///
/// ```
/// use std::collections::BTreeMap;
/// use tine_core::task::{Bolt, Output, Token};
/// use tine_core::{id::TaskId, tuple::Flow};
///
/// struct Rows;
///
/// impl Flow for Rows {
///     type Message = String;
///     type Note = ();
///     type Id = ();
/// }
///
/// /// Holds rows until they are written.
/// #[derive(Default)]
/// struct Write(BTreeMap<Token, String>);
///
/// impl Bolt<Rows> for Write {
///     type Call = (Token, String);
///     type Reply = Token;
///
///     fn execute(&mut self, token: Token, _: TaskId, row: String, out: &mut Output<Rows, (Token, String)>) {
///         self.0.insert(token, row.clone());
///         out.call((token, row));
///     }
///
///     fn reply(&mut self, written: Token, out: &mut Output<Rows, (Token, String)>) {
///         self.0.remove(&written);
///         out.ack(written);
///     }
/// }
///
/// # use tine_core::{task::{BoltTask, Effect}, tuple::Tuple};
/// let mut task = BoltTask::new(TaskId(1), vec![], 7, Write::default());
/// let row = Tuple { anchors: Default::default(), from: TaskId(0), message: "ann, 7".to_owned() };
/// let [Effect::Call((token, _))] = &task.tuple(0, row)[..] else { panic!("it asks for a write") };
/// task.reply(0, *token);
/// assert!(task.bolt().0.is_empty());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// What the driver of a task has to do, in this order.
///
/// ```
/// use tine_core::{task::Effect, tuple::Flow};
///
/// /// What a driver writes into its log.
/// fn told<F: Flow, C: std::fmt::Debug>(effect: &Effect<F, C>) -> String {
///     match effect {
///         Effect::Send { to, tuple } => format!("{:?} for {to}", tuple.message),
///         Effect::Acker(event) => format!("{event:?} for the acker"),
///         Effect::Call(call) => format!("{call:?} for the world outside"),
///     }
/// }
///
/// # #[derive(Debug)]
/// # struct Numbers;
/// # impl Flow for Numbers {
/// #     type Message = u64;
/// #     type Note = ();
/// #     type Id = ();
/// # }
/// assert_eq!(told(&Effect::<Numbers, _>::Call("read")), r#""read" for the world outside"#);
/// ```
#[derive(Debug)]
pub enum Effect<F: Flow, C> {
    /// Send a tuple.
    Send {
        /// To this task.
        to: TaskId,
        /// This.
        tuple: Tuple<F::Message>,
    },
    /// Tell the acker.
    Acker(AckerEvent<F::Note>),
    /// Perform a call; its reply comes back into the task.
    Call(C),
}
