//! A [`Spout`], and the task that keeps its books: which trees it has started, under which names.

use std::collections::BTreeMap;

use super::{Effect, Output, Route, StreamIndex, output::Wish, wiring::Wiring};
use crate::{
    acker::{AckerEvent, TreeEnd},
    failure::Failure,
    id::TaskId,
    tuple::{Flow, Root},
};

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
        SpoutTask { spout, wiring: Wiring::new(id, routes, seed), trees: BTreeMap::new() }
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
