//! A [`Bolt`], and the task that keeps its books: which tuples it holds, and what the acker has to know of them.

use std::{collections::BTreeMap, marker::PhantomData};

use super::{Effect, Output, Route, Token, output::Wish, wiring::Wiring};
use crate::{
    acker::AckerEvent,
    id::TaskId,
    tuple::{Anchor, Anchors, Flow, Root, Tuple},
};

/// Consumes tuples. Storm's bolt, without threads: methods return at once.
///
/// ```
/// use tine_core::acker::AckerEvent;
/// use tine_core::task::{Bolt, BoltTask, Effect, Grouping, Output, Route, Token};
/// use tine_core::{id::TaskId, tuple::{Anchor, Flow, Root, Tuple}};
///
/// struct Numbers;
///
/// impl Flow for Numbers {
///     type Message = u64;
///     type Note = ();
///     type Id = u64;
/// }
///
/// struct Square;
///
/// impl Bolt<Numbers> for Square {
///     type Call = ();
///     type Reply = ();
///
///     fn execute(&mut self, token: Token, _from: TaskId, number: u64, out: &mut Output<Numbers, ()>) {
///         out.emit(0, token, number * number);
///         out.ack(token);
///     }
///
///     fn reply(&mut self, (): (), _: &mut Output<Numbers, ()>) {}
/// }
///
/// let routes = vec![Route { grouping: Grouping::All, targets: vec![TaskId(2)] }];
/// let mut task = BoltTask::new(TaskId(1), routes, 7, Square);
/// let anchors = [Anchor { root: Root(1), edge: 5 }].into_iter().collect();
/// let effects = task.tuple(0, Tuple { anchors, from: TaskId(0), message: 3 });
/// assert!(matches!(&effects[0], Effect::Send { to: TaskId(2), tuple } if tuple.message == 9));
/// assert!(matches!(&effects[1], Effect::Acker(AckerEvent::Ack { root: Root(1), .. })));
/// ```
pub trait Bolt<F: Flow>: Send {
    /// What it asks of the outside world.
    type Call: Send;
    /// What comes back.
    type Reply: Send;

    /// A tuple has come. It must be acked or failed, now or later, or its tree times out.
    fn execute(&mut self, token: Token, from: TaskId, message: F::Message, out: &mut Output<F, Self::Call>);

    /// A call has been answered.
    fn reply(&mut self, reply: Self::Reply, out: &mut Output<F, Self::Call>);
}

/// One bolt with its bookkeeping.
///
/// ```
/// use tine_core::acker::AckerEvent;
/// use tine_core::task::{Bolt, BoltTask, Effect, Grouping, Output, Route, Token};
/// use tine_core::{id::TaskId, tuple::{Anchor, Flow, Root, Tuple}};
///
/// # struct Words;
/// # impl Flow for Words {
/// #     type Message = &'static str;
/// #     type Note = ();
/// #     type Id = ();
/// # }
/// # #[derive(Default)]
/// # struct Pass { known: usize }
/// # impl Bolt<Words> for Pass {
/// #     type Call = ();
/// #     type Reply = usize;
/// #     fn execute(&mut self, token: Token, _: TaskId, word: &'static str, out: &mut Output<Words, ()>) {
/// #         out.emit(0, token, word);
/// #         out.ack(token);
/// #     }
/// #     fn reply(&mut self, known: usize, _: &mut Output<Words, ()>) {
/// #         self.known = known;
/// #     }
/// # }
/// // `Pass` emits what comes, and acks it. The new edge goes to the acker together with the old one.
/// let routes = vec![Route { grouping: Grouping::All, targets: vec![TaskId(2)] }];
/// let mut task = BoltTask::new(TaskId(1), routes, 7, Pass::default());
/// let anchors = [Anchor { root: Root(1), edge: 5 }].into_iter().collect();
/// let effects = task.tuple(0, Tuple { anchors, from: TaskId(0), message: "tine" });
/// let [Effect::Send { tuple, .. }, Effect::Acker(AckerEvent::Ack { value, .. })] = &effects[..] else { panic!() };
/// assert_eq!(*value, 5 ^ tuple.anchors[0].edge);
///
/// task.reply(10, 42); // the answer to a call
/// assert_eq!(task.bolt().known, 42);
/// ```
#[derive(Clone, Debug)]
pub struct BoltTask<F: Flow, B: Bolt<F>> {
    bolt: B,
    wiring: Wiring,
    held: BTreeMap<Token, Anchors>,
    tokens: u64,
    flow: PhantomData<fn() -> F>,
}

impl<F: Flow, B: Bolt<F>> BoltTask<F, B> {
    /// A task for a bolt. `seed` is random per start of the process.
    pub fn new(id: TaskId, routes: Vec<Route>, seed: u64, bolt: B) -> Self {
        BoltTask { bolt, wiring: Wiring::new(id, routes, seed), held: BTreeMap::new(), tokens: 0, flow: PhantomData }
    }

    /// Its bolt.
    pub fn bolt(&self) -> &B {
        &self.bolt
    }

    /// A tuple has come.
    pub fn tuple(&mut self, now_ms: u64, tuple: Tuple<F::Message>) -> Vec<Effect<F, B::Call>> {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.held.insert(token, tuple.anchors);
        let mut out = Output::new(now_ms);
        self.bolt.execute(token, tuple.from, tuple.message, &mut out);
        self.effects(out)
    }

    /// A call has been answered.
    pub fn reply(&mut self, now_ms: u64, reply: B::Reply) -> Vec<Effect<F, B::Call>> {
        let mut out = Output::new(now_ms);
        self.bolt.reply(reply, &mut out);
        self.effects(out)
    }

    fn effects(&mut self, out: Output<F, B::Call>) -> Vec<Effect<F, B::Call>> {
        let mut effects = Vec::with_capacity(out.steps.len());
        for wish in out.steps {
            match wish {
                Wish::Emit { stream, target, anchor, message } => {
                    let held = self.held.get_mut(&anchor).expect("a bolt anchors only to tuples that it still holds");
                    let roots: Vec<Root> = held.iter().map(|anchor| anchor.root).collect();
                    let values = self.wiring.send(stream, target, &roots, message, &mut effects);
                    held.iter_mut().zip(values).for_each(|(anchor, value)| anchor.edge ^= value);
                }
                Wish::Ack { token, note } => {
                    for Anchor { root, edge } in self.take(token) {
                        effects.push(Effect::Acker(AckerEvent::Ack { root, value: edge, note: note.clone() }));
                    }
                }
                Wish::Fail { token, failure } => {
                    for Anchor { root, .. } in self.take(token) {
                        effects.push(Effect::Acker(AckerEvent::Fail { root, failure: failure.clone() }));
                    }
                }
                Wish::Alive { token } => {
                    for Anchor { root, .. } in self.held.get(&token).into_iter().flatten() {
                        effects.push(Effect::Acker(AckerEvent::Alive { root: *root }));
                    }
                }
                Wish::Drop { token } => {
                    self.take(token);
                }
                Wish::Call(call) => effects.push(Effect::Call(call)),
                Wish::Root { .. } => unreachable!("only spouts start trees"),
            }
        }
        effects
    }

    fn take(&mut self, token: Token) -> Anchors {
        self.held.remove(&token).expect("a bolt acks, fails or ignores a tuple once")
    }
}
