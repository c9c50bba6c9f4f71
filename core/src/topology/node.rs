//! The components of a topology while it is being built: types are erased behind closures that know them.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{encoding::Encodings, grouping::Grouping, settings::Settings};
use crate::{
    component::{Bolt, Collector, Context, Data, Declared, Spout, SpoutCollector, Streams, TypeOf},
    engine::{
        acks::AckBox,
        bolt_task::{Adapter, BoltTask},
        inbox::Inbox,
        links::Links,
        outlet::{AnyOutput, Lane, Outlet, Output, Weigh},
        spout_task::SpoutTask,
        task::Task,
    },
    id::TaskId,
    metrics::StreamMeter,
    trees::Trees,
};

/// All components, in the order in which they were added.
pub(crate) struct Arena {
    pub(crate) topology: String,
    pub(crate) nodes: Mutex<Vec<Node>>,
    pub(crate) encodings: Mutex<Encodings>,
}

impl Arena {
    pub(crate) fn nodes(&self) -> MutexGuard<'_, Vec<Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn encodings(&self) -> MutexGuard<'_, Encodings> {
        self.encodings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One component.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) is_spout: bool,
    pub(crate) tasks: usize,
    /// As many as tasks if it is not said.
    pub(crate) executors: Option<usize>,
    pub(crate) tick_every: Option<Duration>,
    pub(crate) max_pending: Option<usize>,
    /// The default stream first.
    pub(crate) streams: Vec<Declared>,
    /// By stream: its `Weigh<T>`.
    pub(crate) weighs: HashMap<String, Arc<dyn Any + Send + Sync>>,
    pub(crate) inputs: Vec<Edge>,
    pub(crate) make: Box<dyn Fn(Place) -> Box<dyn Task> + Send>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        is_spout: bool,
        streams: Vec<Declared>,
        make: Box<dyn Fn(Place) -> Box<dyn Task> + Send>,
    ) -> Node {
        let (executors, tick_every, max_pending, weighs, inputs) = Default::default();
        Node { name, is_spout, tasks: 1, executors, tick_every, max_pending, streams, weighs, inputs, make }
    }
}

/// A subscription of a bolt.
pub(crate) struct Edge {
    pub(crate) from: End,
    pub(crate) expected: TypeOf,
    /// The bound of an edge that leads back.
    pub(crate) feedback: Option<usize>,
    /// The grouping's name.
    pub(crate) rule: String,
    pub(crate) missing_field: Option<(String, &'static [&'static str])>,
    /// Makes the `Outlet<T>` of one sending task.
    pub(crate) outlet: Box<dyn Fn(Way) -> Box<dyn Any + Send> + Send>,
}

/// The sending end of a subscription.
#[derive(Clone)]
pub(crate) enum End {
    Handle { arena: Arc<Arena>, component: usize, stream: String },
    Named { component: String, stream: String },
}

/// From one sending task to all tasks of a subscriber.
pub(crate) struct Way {
    pub(crate) from: TaskId,
    pub(crate) input: u32,
    pub(crate) targets: Vec<(TaskId, Arc<Inbox>)>,
    pub(crate) feedback: bool,
    pub(crate) chunk_tuples: usize,
    pub(crate) weigh: Option<Arc<dyn Any + Send + Sync>>,
}

impl Edge {
    pub(crate) fn new<T: Data>(from: End, grouping: Grouping<T>, feedback: Option<usize>) -> Edge {
        let missing_field = grouping.missing_field().map(|(name, known)| (name.to_owned(), known));
        let rule = format!("{grouping:?}");
        let outlet = move |way: Way| -> Box<dyn Any + Send> {
            let ids: Vec<_> = way.targets.iter().map(|(id, _)| *id).collect();
            let lane = |(_, inbox)| Lane::new(way.input, way.from, inbox, way.feedback, way.chunk_tuples);
            Box::new(Outlet::<T> {
                chooser: grouping.chooser(&ids),
                weigh: way.weigh.and_then(|weigh| weigh.downcast_ref::<Weigh<T>>().cloned()),
                lanes: way.targets.into_iter().map(lane).collect(),
            })
        };
        Edge { from, expected: TypeOf::of::<T>(), feedback, rule, missing_field, outlet: Box::new(outlet) }
    }
}

/// Everything around one task that is about to be made.
pub(crate) struct Place {
    pub(crate) context: Context,
    pub(crate) links: Links,
    /// For each stream of the component.
    pub(crate) outputs: Vec<Box<dyn AnyOutput>>,
    /// Bolts: where tuples arrive; and those of edges that lead back.
    pub(crate) inbox: Option<Arc<Inbox>>,
    pub(crate) feedback: Option<Arc<Inbox>>,
    pub(crate) tick_every: Option<Duration>,
    /// Spouts: where reports arrive, and the number among all spout tasks.
    pub(crate) reports: Option<(Arc<AckBox>, u16)>,
    pub(crate) max_pending: usize,
    pub(crate) settings: Settings,
}

/// The declared streams with the default one.
pub(crate) fn streams_of<T: Data>(declared: Vec<Declared>) -> Vec<Declared> {
    std::iter::once(Declared::new::<T>(crate::component::DEFAULT_STREAM)).chain(declared).collect()
}

fn streams<T: Data>(outputs: Vec<Box<dyn AnyOutput>>) -> Streams<T> {
    let mut outputs = outputs.into_iter();
    let default = outputs.next().and_then(|mut output| {
        let output: &mut Output<T> = output.as_any().downcast_mut()?;
        Some(std::mem::replace(output, Output::of(Vec::new(), Arc::new(StreamMeter::new(String::new())))))
    });
    Streams { default: default.expect("the default stream comes first"), ports: outputs.collect() }
}

pub(crate) fn bolt_task<B: Bolt>(bolt: B, adapters: Vec<Adapter<B::In>>, place: Place) -> Box<dyn Task> {
    let Place { context, links, outputs, inbox, feedback, tick_every, .. } = place;
    let out = Collector { streams: streams(outputs), links };
    let inbox = inbox.expect("bolts have an inbox");
    Box::new(BoltTask { bolt, out, context, inbox, feedback, adapters, tick_every, progress: Default::default() })
}

pub(crate) fn spout_task<S: Spout>(spout: S, place: Place) -> Box<dyn Task> {
    let Place { context, links, outputs, reports, max_pending, settings, .. } = place;
    let (reports, owner) = reports.expect("spouts hear of their trees");
    let trees = settings.acking.then(|| Trees::new(owner, rand::random()));
    let out = SpoutCollector { streams: streams(outputs), links, trees, ended: Vec::new(), now_us: 0 };
    Box::new(SpoutTask { spout, out, context, reports, max_pending, progress: Default::default() })
}
