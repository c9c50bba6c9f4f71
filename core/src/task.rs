//! Receive → execute → emit → ack, for one spout or bolt: the bookkeeping around user logic, as a pure machine.
//!
//! A [`Bolt`] decides and never waits. What it wants from the outside world it asks for by a *call*; the driver performs
//! it and comes back with the *reply*. The task gives tuples their edges, routes them, and works out what to tell the
//! acker. The same tasks run under tokio ([`runtime`](crate::runtime)) and in the simulator.

use std::collections::BTreeMap;

use crate::{
    acker::{AckerEvent, TreeEnd},
    failure::Failure,
    hash::hash64,
    id::TaskId,
    tuple::{Anchor, Anchors, Flow, Root, Tuple},
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

/// An output stream of a component, by its number.
pub type StreamIndex = usize;

/// How a stream's tuples find their tasks.
///
/// ```
/// use tine_core::{id::TaskId, task::{Grouping, Route}};
///
/// let players = vec![TaskId(2), TaskId(3)];
/// let rules = Route { grouping: Grouping::All, targets: players.clone() }; // stream 0
/// let cards = Route { grouping: Grouping::Direct, targets: players }; // stream 1, by `Output::emit_direct`
/// assert_ne!(rules, cards);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Every task gets every tuple.
    All,
    /// The sender names the task by its index.
    Direct,
}

/// Where a stream goes.
///
/// ```
/// use tine_core::{id::TaskId, task::{Grouping, Route}};
///
/// let to_all = |targets| Route { grouping: Grouping::All, targets };
/// let (sorted, errors) = (to_all(vec![TaskId(4), TaskId(5)]), to_all(vec![])); // nobody subscribes to errors
/// assert_eq!((sorted.targets.len(), errors.targets.len()), (2, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// How.
    pub grouping: Grouping,
    /// To whom.
    pub targets: Vec<TaskId>,
}

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

/// Starts tuple trees. Storm's spout, without threads: methods return at once.
///
/// ```
/// use tine_core::acker::{AckerEvent, TreeEnd};
/// use tine_core::task::{Effect, Grouping, Output, Route, Spout, SpoutTask};
/// use tine_core::{failure::Failure, id::TaskId, tuple::Flow};
///
/// struct Numbers;
///
/// impl Flow for Numbers {
///     type Message = u64;
///     type Note = ();
///     type Id = u64;
/// }
///
/// /// Emits one number, until it is acked.
/// #[derive(Default)]
/// struct Seven {
///     acked: bool,
/// }
///
/// impl Spout<Numbers> for Seven {
///     type Call = ();
///     type Reply = ();
///
///     fn open(&mut self, out: &mut Output<Numbers, ()>) {
///         out.start_tree(7, vec![(0, 7)]); // named 7, one tuple on stream 0
///     }
///
///     fn reply(&mut self, (): (), _: &mut Output<Numbers, ()>) {}
///
///     fn ack(&mut self, _: u64, _: Vec<()>, _: &mut Output<Numbers, ()>) {
///         self.acked = true;
///     }
///
///     fn fail(&mut self, number: u64, _: Failure, out: &mut Output<Numbers, ()>) {
///         out.start_tree(number, vec![(0, number)]);
///     }
/// }
///
/// let routes = vec![Route { grouping: Grouping::All, targets: vec![TaskId(1)] }];
/// let mut task = SpoutTask::new(TaskId(0), routes, 7, Seven::default());
/// let root = |effects: Vec<_>| match &effects[..] {
///     [Effect::Send { .. }, Effect::Acker(AckerEvent::Start { root, .. })] => *root,
///     other => panic!("{} effects", other.len()),
/// };
/// let first = root(task.open(0));
/// let second = root(task.ended(10, first, TreeEnd::Failed(Failure::transient("a worker is gone"))));
/// task.ended(20, second, TreeEnd::Complete(vec![]));
/// assert!(task.spout().acked && task.into_spout().acked);
/// ```
pub trait Spout<F: Flow>: Send {
    /// What it asks of the outside world.
    type Call: Send;
    /// What comes back.
    type Reply: Send;

    /// The topology starts.
    fn open(&mut self, out: &mut Output<F, Self::Call>);

    /// A call has been answered.
    fn reply(&mut self, reply: Self::Reply, out: &mut Output<F, Self::Call>);

    /// A tree is complete: everything was acked.
    fn ack(&mut self, id: F::Id, notes: Vec<F::Note>, out: &mut Output<F, Self::Call>);

    /// A tree has failed or timed out.
    fn fail(&mut self, id: F::Id, failure: Failure, out: &mut Output<F, Self::Call>);
}

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
    steps: Vec<Wish<F, C>>,
}

#[derive(Debug)]
enum Wish<F: Flow, C> {
    Root { id: F::Id, sends: Vec<(StreamIndex, F::Message)> },
    Emit { stream: StreamIndex, target: Option<usize>, anchor: Token, message: F::Message },
    Ack { token: Token, note: Option<F::Note> },
    Fail { token: Token, failure: Failure },
    Alive { token: Token },
    Drop { token: Token },
    Call(C),
}

impl<F: Flow, C> Output<F, C> {
    fn new(now_ms: u64) -> Self {
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

/// Routing and edge numbers, common to spouts and bolts.
#[derive(Clone, Debug)]
struct Wiring {
    id: TaskId,
    routes: Vec<Route>,
    /// Random per start of the process, so that edges and roots never repeat across restarts.
    seed: u64,
    count: u64,
}

impl Wiring {
    fn number(&mut self) -> u64 {
        self.count += 1;
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..].copy_from_slice(&self.id.0.to_le_bytes());
        hash64(&bytes)
    }

    /// Sends a message along a stream with a fresh edge per target and root; answers with the XOR of the edges per root.
    fn send<F: Flow, C>(
        &mut self,
        stream: StreamIndex,
        target: Option<usize>,
        roots: &[Root],
        message: F::Message,
        effects: &mut Vec<Effect<F, C>>,
    ) -> Vec<u64> {
        let route = self.routes.get(stream).cloned().unwrap_or(Route { grouping: Grouping::All, targets: Vec::new() });
        let targets = match (route.grouping, target) {
            (Grouping::All, None) => &route.targets[..],
            (Grouping::Direct, Some(index)) => std::slice::from_ref(&route.targets[index]),
            (grouping, target) => unreachable!("stream {stream} is grouped {grouping:?} and was given {target:?}"),
        };
        let mut values = vec![0; roots.len()];
        for (index, to) in targets.iter().enumerate() {
            let mut anchors = Anchors::new();
            for (root, value) in roots.iter().zip(&mut values) {
                let edge = self.number();
                *value ^= edge;
                anchors.push(Anchor { root: *root, edge });
            }
            // The last target takes the message itself; the others get clones.
            if index + 1 == targets.len() {
                effects.push(Effect::Send { to: *to, tuple: Tuple { anchors, from: self.id, message } });
                break;
            }
            effects.push(Effect::Send { to: *to, tuple: Tuple { anchors, from: self.id, message: message.clone() } });
        }
        values
    }
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
    flow: std::marker::PhantomData<fn() -> F>,
}

impl<F: Flow, B: Bolt<F>> BoltTask<F, B> {
    /// A task for a bolt. `seed` is random per start of the process.
    pub fn new(id: TaskId, routes: Vec<Route>, seed: u64, bolt: B) -> Self {
        let wiring = Wiring { id, routes, seed, count: 0 };
        BoltTask { bolt, wiring, held: BTreeMap::new(), tokens: 0, flow: std::marker::PhantomData }
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

/// One spout with its bookkeeping.
///
/// ```
/// use tine_core::acker::TreeEnd;
/// use tine_core::task::{Effect, Output, Spout, SpoutTask};
/// use tine_core::{failure::Failure, id::TaskId, tuple::{Flow, Root}};
///
/// # struct Words;
/// # impl Flow for Words {
/// #     type Message = String;
/// #     type Note = ();
/// #     type Id = u64;
/// # }
/// /// Asks for lines, and emits each that comes.
/// #[derive(Default)]
/// struct Lines {
///     offset: u64,
/// }
///
/// impl Spout<Words> for Lines {
///     type Call = u64;
///     type Reply = String;
///
///     fn open(&mut self, out: &mut Output<Words, u64>) {
///         out.call(self.offset);
///     }
///
///     fn reply(&mut self, line: String, out: &mut Output<Words, u64>) {
///         let at = self.offset;
///         self.offset += line.len() as u64;
///         out.start_tree(at, vec![(0, line)]);
///         out.call(self.offset);
///     }
///
///     fn ack(&mut self, _: u64, _: Vec<()>, _: &mut Output<Words, u64>) {}
///     fn fail(&mut self, at: u64, _: Failure, out: &mut Output<Words, u64>) {
///         out.call(at);
///     }
/// }
///
/// let mut task = SpoutTask::new(TaskId(0), vec![], 7, Lines::default());
/// assert!(matches!(task.open(0)[..], [Effect::Call(0)]));
/// assert!(matches!(task.reply(0, "to be\n".to_owned())[..], [Effect::Acker(_), Effect::Call(6)]));
/// assert!(task.ended(5, Root(1), TreeEnd::Complete(vec![])).is_empty(), "a tree of an earlier life");
/// assert_eq!(task.spout().offset, 6);
/// let lines = task.into_spout(); // to be wired anew
/// assert_eq!(lines.offset, 6);
/// ```
#[derive(Clone, Debug)]
pub struct SpoutTask<F: Flow, S: Spout<F>> {
    spout: S,
    wiring: Wiring,
    trees: BTreeMap<Root, F::Id>,
}

impl<F: Flow, S: Spout<F>> SpoutTask<F, S> {
    /// A task for a spout. `seed` is random per start of the process.
    pub fn new(id: TaskId, routes: Vec<Route>, seed: u64, spout: S) -> Self {
        SpoutTask { spout, wiring: Wiring { id, routes, seed, count: 0 }, trees: BTreeMap::new() }
    }

    /// Its spout.
    pub fn spout(&self) -> &S {
        &self.spout
    }

    /// Gives the spout back, to be wired anew; its trees are forgotten.
    pub fn into_spout(self) -> S {
        self.spout
    }

    /// The topology starts.
    pub fn open(&mut self, now_ms: u64) -> Vec<Effect<F, S::Call>> {
        let mut out = Output::new(now_ms);
        self.spout.open(&mut out);
        self.effects(out)
    }

    /// A call has been answered.
    pub fn reply(&mut self, now_ms: u64, reply: S::Reply) -> Vec<Effect<F, S::Call>> {
        let mut out = Output::new(now_ms);
        self.spout.reply(reply, &mut out);
        self.effects(out)
    }

    /// The acker says that a tree has ended. Trees that this task does not know are of an earlier life and ignored.
    pub fn ended(&mut self, now_ms: u64, root: Root, end: TreeEnd<F::Note>) -> Vec<Effect<F, S::Call>> {
        let Some(id) = self.trees.remove(&root) else { return Vec::new() };
        let mut out = Output::new(now_ms);
        match end {
            TreeEnd::Complete(notes) => self.spout.ack(id, notes, &mut out),
            TreeEnd::Failed(failure) => self.spout.fail(id, failure, &mut out),
        }
        self.effects(out)
    }

    fn effects(&mut self, out: Output<F, S::Call>) -> Vec<Effect<F, S::Call>> {
        let mut effects = Vec::with_capacity(out.steps.len());
        for wish in out.steps {
            match wish {
                Wish::Root { id, sends } => self.start_tree(id, sends, &mut effects),
                Wish::Call(call) => effects.push(Effect::Call(call)),
                _ => unreachable!("only bolts hold tuples"),
            }
        }
        effects
    }

    fn start_tree(&mut self, id: F::Id, sends: Vec<(StreamIndex, F::Message)>, effects: &mut Vec<Effect<F, S::Call>>) {
        let root = Root(self.wiring.number());
        self.trees.insert(root, id);
        let mut value = 0;
        for (stream, message) in sends {
            value ^= self.wiring.send(stream, None, &[root], message, effects)[0];
        }
        effects.push(Effect::Acker(AckerEvent::Start { root, spout: self.wiring.id, value }));
    }
}
