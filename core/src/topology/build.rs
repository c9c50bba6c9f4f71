//! From components to tasks: numbers, inboxes, streams. A [`Layout`] knows them all; whoever runs a task makes it from there.

use std::sync::Arc;

use super::{
    check::{Resolved, check},
    encoding::Encoding,
    node::{Arena, Node, Place, Way},
    settings::Settings,
};
use crate::{
    component::Context,
    engine::{
        RunError, Running,
        acks::{AckBox, AckLines},
        bell::Bell,
        crews::{Crew, Crews},
        inbox::{Bounds, Inbox},
        links::Links,
        shared::{Shared, Worker},
        task::Task,
    },
    id::TaskId,
    metrics::{StreamMeter, TaskMeter},
};

/// A task as its neighbours know it, wherever it runs: what is for it is put here, and a courier takes it from here when the
/// task runs on another worker.
pub(crate) struct Seat {
    pub(crate) component: usize,
    /// Which of the component's tasks.
    pub(crate) index: usize,
    pub(crate) bell: Arc<Bell>,
    pub(crate) inbox: Option<Arc<Inbox>>,
    pub(crate) feedback: Option<Arc<Inbox>>,
    /// Spouts: where reports arrive, and the number among all spout tasks.
    pub(crate) reports: Option<(Arc<AckBox>, u16)>,
    pub(crate) meter: Arc<TaskMeter>,
}

/// An input of a bolt, as far as a courier has to know it.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) feedback: bool,
    /// How its tuples become bytes; all have one when there are several workers.
    pub(crate) encoding: Option<Encoding>,
}

/// A component, as far as placing it goes.
#[derive(Clone)]
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) is_spout: bool,
    pub(crate) tasks: usize,
    /// How many executors its tasks have on all workers together.
    pub(crate) executors: usize,
    pub(crate) inputs: Vec<Entry>,
}

/// Every task of a topology, by number.
pub(crate) struct Layout {
    pub(crate) shared: Arc<Shared>,
    pub(crate) components: Vec<Component>,
    pub(crate) seats: Vec<Seat>,
    /// Of the spout tasks, by their number among them.
    pub(crate) boxes: Vec<Arc<AckBox>>,
    arena: Arc<Arena>,
    edges: Vec<Resolved>,
}

/// Checks a topology, makes its tasks and starts them, all of them here.
pub(crate) fn build(arena: &Arc<Arena>, settings: &Settings) -> Result<Running, RunError> {
    let layout = Layout::new(arena, settings, Worker::Alone)?;
    let crews = Arc::new(Crews::new(Arc::clone(&layout.shared)));
    // Before the first is started: spouts begin when all bolts are prepared.
    layout.components.iter().for_each(|component| layout.shared.expect(component.is_spout, component.tasks));
    let mut next = 0;
    for component in &layout.components {
        let tasks = (next..next + component.tasks).map(|task| layout.make(TaskId(task as u32))).collect();
        next += component.tasks;
        crews.change(&component.name, |_| Crew { tasks, executors: component.executors })?;
    }
    Running::new(Arc::clone(&layout.shared), layout.meters(), crews)
}

impl Layout {
    /// Checks a topology and numbers its tasks, of which none is made yet.
    pub(crate) fn new(arena: &Arc<Arena>, settings: &Settings, worker: Worker) -> Result<Layout, RunError> {
        let nodes = arena.nodes();
        let edges = check(arena, &nodes)?;
        let seats = seats(&nodes, settings);
        let boxes = seats.iter().filter_map(|seat| Some(Arc::clone(&seat.reports.as_ref()?.0))).collect();
        let names: Vec<Arc<str>> = nodes.iter().map(|node| node.name.as_str().into()).collect();
        let name_of_task = seats.iter().map(|seat| Arc::clone(&names[seat.component])).collect();
        let bells = seats.iter().map(|seat| Arc::clone(&seat.bell)).collect();
        let topology = arena.topology.as_str().into();
        let shared = Arc::new(Shared::new(topology, worker, settings.clone(), name_of_task, bells));
        let components = nodes.iter().map(|node| component(arena, node)).collect();
        drop(nodes);
        Ok(Layout { shared, components, seats, boxes, arena: Arc::clone(arena), edges })
    }

    pub(crate) fn meters(&self) -> Vec<Arc<TaskMeter>> {
        self.seats.iter().map(|seat| Arc::clone(&seat.meter)).collect()
    }

    /// A new instance of a task.
    pub(crate) fn make(&self, task: TaskId) -> Box<dyn Task> {
        let nodes = self.arena.nodes();
        let seat = &self.seats[task.0 as usize];
        let (node, settings) = (&nodes[seat.component], &self.shared.settings);
        let context = Context {
            topology: Arc::clone(&self.shared.topology),
            component: Arc::clone(seat.meter.component_name()),
            task,
            index: seat.index,
            tasks: node.tasks,
            targets: self.targets(&nodes, seat.component),
            bell: Arc::clone(&seat.bell),
        };
        let (bell, shared, meter) = (Arc::clone(&seat.bell), Arc::clone(&self.shared), Arc::clone(&seat.meter));
        let links = Links::new(AckLines::new(&self.boxes), bell, shared, meter);
        let output = |(stream, meter): (usize, &Arc<StreamMeter>)| {
            (node.streams[stream].output)(self.outlets(&nodes, (seat.component, stream), task), Arc::clone(meter))
        };
        (node.make)(Place {
            context,
            links,
            outputs: seat.meter.streams.iter().enumerate().map(output).collect(),
            inbox: seat.inbox.clone(),
            feedback: seat.feedback.clone(),
            tick_every: node.tick_every,
            reports: seat.reports.clone(),
            max_pending: node.max_pending.unwrap_or(settings.max_pending),
            settings: settings.clone(),
        })
    }

    fn seats_of(&self, component: usize) -> impl Iterator<Item = (TaskId, &Seat)> {
        let numbered = self.seats.iter().enumerate().map(|(task, seat)| (TaskId(task as u32), seat));
        numbered.filter(move |(_, seat)| seat.component == component)
    }

    /// The tasks that each stream of a component leads to.
    fn targets(&self, nodes: &[Node], component: usize) -> Arc<[(String, Vec<TaskId>)]> {
        let of_edge = |edge: &Resolved| {
            let name = nodes[component].streams[edge.stream].name.to_owned();
            (name, self.seats_of(edge.bolt).map(|(task, _)| task).collect())
        };
        self.edges.iter().filter(|edge| edge.from == component).map(of_edge).collect()
    }

    /// The outlets of one stream of one sending task.
    fn outlets(
        &self,
        nodes: &[Node],
        (component, stream): (usize, usize),
        from: TaskId,
    ) -> Vec<Box<dyn std::any::Any + Send>> {
        let outlet = |resolved: &Resolved| {
            let edge = &nodes[resolved.bolt].inputs[resolved.input];
            let target = |(task, seat): (TaskId, &Seat)| {
                let inbox = if edge.feedback.is_some() { &seat.feedback } else { &seat.inbox };
                (task, Arc::clone(inbox.as_ref().expect("bolts have an inbox for each kind of edge they have")))
            };
            (edge.outlet)(Way {
                from,
                input: resolved.input as u32,
                targets: self.seats_of(resolved.bolt).map(target).collect(),
                feedback: edge.feedback.is_some(),
                chunk_tuples: self.shared.settings.chunk_tuples.max(1),
                weigh: nodes[component].weighs.get(nodes[component].streams[stream].name).cloned(),
            })
        };
        self.edges.iter().filter(|edge| edge.from == component && edge.stream == stream).map(outlet).collect()
    }
}

fn component(arena: &Arena, node: &Node) -> Component {
    let entry = |edge: &super::node::Edge| Entry {
        feedback: edge.feedback.is_some(),
        encoding: arena.encodings().get(&edge.expected.id).copied(),
    };
    Component {
        name: node.name.clone(),
        is_spout: node.is_spout,
        tasks: node.tasks,
        executors: node.executors.unwrap_or(node.tasks),
        inputs: node.inputs.iter().map(entry).collect(),
    }
}

/// By number of the task.
fn seats(nodes: &[Node], settings: &Settings) -> Vec<Seat> {
    let (mut task, mut owner) = (0, 0);
    let mut seat = |component: usize, index: usize| {
        let (node, bell) = (&nodes[component], Arc::new(Bell::default()));
        let bounds = Bounds { tuples: settings.queue_tuples, bytes: settings.queue_bytes };
        let inbox = |bounds| Arc::new(Inbox::new(bounds, Arc::clone(&bell)));
        let back = node.inputs.iter().filter_map(|edge| edge.feedback).max();
        let (inbox, feedback) =
            ((!node.is_spout).then(|| inbox(bounds)), back.map(|tuples| inbox(Bounds { tuples, ..bounds })));
        let reports = node.is_spout.then(|| {
            owner += 1;
            (Arc::new(AckBox::new(Arc::clone(&bell))), owner - 1)
        });
        let streams = node.streams.iter().map(|stream| Arc::new(StreamMeter::new(stream.name.to_owned()))).collect();
        let meter = TaskMeter::new(node.name.as_str().into(), TaskId(task), node.is_spout, streams);
        meter.reads(inbox.iter().chain(&feedback).cloned().collect());
        task += 1;
        Seat { component, index, bell, inbox, feedback, reports, meter: Arc::new(meter) }
    };
    nodes
        .iter()
        .enumerate()
        .flat_map(|(at, node)| (0..node.tasks).map(move |index| (at, index)))
        .map(|(at, index)| seat(at, index))
        .collect()
}
