//! From components to tasks: numbers, inboxes, streams; then the engine starts them.

use std::sync::Arc;

use super::{
    check::{Resolved, check},
    node::{Arena, Node, Place, Way},
    settings::Settings,
};
use crate::{
    component::Context,
    engine::{
        RunError, Running,
        acks::{AckBox, AckLines},
        bell::Bell,
        inbox::{Bounds, Inbox},
        links::Links,
        running::Crew,
        shared::Shared,
    },
    id::TaskId,
    metrics::{StreamMeter, TaskMeter},
};

/// A task without its component.
struct Seat {
    task: TaskId,
    bell: Arc<Bell>,
    inbox: Option<Arc<Inbox>>,
    feedback: Option<Arc<Inbox>>,
    /// Spouts: where reports arrive, and the number among all spout tasks.
    reports: Option<(Arc<AckBox>, u16)>,
}

/// Checks a topology, makes its tasks and starts them.
pub(crate) fn build(arena: &Arc<Arena>, settings: &Settings) -> Result<Running, RunError> {
    let nodes = arena.nodes();
    let edges = check(arena, &nodes)?;
    let seats = seats(&nodes, settings);
    let boxes: Vec<Arc<AckBox>> =
        seats.iter().flatten().filter_map(|seat| Some(Arc::clone(&seat.reports.as_ref()?.0))).collect();
    let topology: Arc<str> = arena.topology.as_str().into();
    let names: Vec<Arc<str>> = nodes.iter().map(|node| node.name.as_str().into()).collect();
    let components =
        names.iter().zip(&nodes[..]).flat_map(|(name, node)| std::iter::repeat_n(Arc::clone(name), node.tasks));
    let bells = seats.iter().flatten().map(|seat| Arc::clone(&seat.bell)).collect();
    let spouts: usize = nodes.iter().filter(|node| node.is_spout).map(|node| node.tasks).sum();
    let bolts: usize = nodes.iter().map(|node| node.tasks).sum::<usize>() - spouts;
    let shared =
        Arc::new(Shared::new(Arc::clone(&topology), settings.clone(), components.collect(), bells, (bolts, spouts)));
    let (mut meters, mut crews) = (Vec::new(), Vec::new());
    for (index, node) in nodes.iter().enumerate() {
        let mut tasks = Vec::new();
        for (number, seat) in seats[index].iter().enumerate() {
            let streams: Vec<_> =
                node.streams.iter().map(|stream| Arc::new(StreamMeter::new(stream.name.to_owned()))).collect();
            let meter = Arc::new(TaskMeter::new(Arc::clone(&names[index]), seat.task, node.is_spout, streams));
            meter.reads(seat.inbox.iter().chain(&seat.feedback).cloned().collect());
            let context = Context {
                topology: Arc::clone(&topology),
                component: Arc::clone(&names[index]),
                task: seat.task,
                index: number,
                tasks: node.tasks,
                targets: targets(&nodes, &edges, &seats, index),
                bell: Arc::clone(&seat.bell),
            };
            let links =
                Links::new(AckLines::new(&boxes), Arc::clone(&seat.bell), Arc::clone(&shared), Arc::clone(&meter));
            let output = |(stream, meter): (usize, &Arc<StreamMeter>)| {
                let outlets = outlets(&nodes, &edges, &seats, settings, (index, stream), seat.task);
                (node.streams[stream].output)(outlets, Arc::clone(meter))
            };
            let outputs = meter.streams.iter().enumerate().map(|(stream, meter)| output((stream, meter))).collect();
            meters.push(meter);
            tasks.push((node.make)(Place {
                context,
                links,
                outputs,
                inbox: seat.inbox.clone(),
                feedback: seat.feedback.clone(),
                tick_every: node.tick_every,
                reports: seat.reports.clone(),
                max_pending: node.max_pending.unwrap_or(settings.max_pending),
                settings: settings.clone(),
            }));
        }
        crews.push(Crew { component: node.name.clone(), tasks, executors: node.executors.unwrap_or(node.tasks) });
    }
    drop(nodes);
    Running::start(shared, meters, crews)
}

/// By component and task.
fn seats(nodes: &[Node], settings: &Settings) -> Vec<Vec<Seat>> {
    let (mut task, mut owner) = (0, 0);
    let mut seat = |node: &Node| {
        let bell = Arc::new(Bell::default());
        let bounds = Bounds { tuples: settings.queue_tuples, bytes: settings.queue_bytes };
        let inbox = |bounds| Arc::new(Inbox::new(bounds, Arc::clone(&bell)));
        let back = node.inputs.iter().filter_map(|edge| edge.feedback).max();
        let reports = node.is_spout.then(|| {
            owner += 1;
            (Arc::new(AckBox::new(Arc::clone(&bell))), owner - 1)
        });
        task += 1;
        Seat {
            task: TaskId(task - 1),
            inbox: (!node.is_spout).then(|| inbox(bounds)),
            feedback: back.map(|tuples| inbox(Bounds { tuples, ..bounds })),
            reports,
            bell,
        }
    };
    nodes.iter().map(|node| (0..node.tasks).map(|_| seat(node)).collect()).collect()
}

/// The tasks that each stream of a component leads to.
fn targets(nodes: &[Node], edges: &[Resolved], seats: &[Vec<Seat>], index: usize) -> Arc<[(String, Vec<TaskId>)]> {
    let of_edge = |edge: &Resolved| {
        let name = nodes[index].streams[edge.stream].name.to_owned();
        (name, seats[edge.bolt].iter().map(|seat| seat.task).collect())
    };
    edges.iter().filter(|edge| edge.from == index).map(of_edge).collect()
}

/// The outlets of one stream of one sending task.
fn outlets(
    nodes: &[Node],
    edges: &[Resolved],
    seats: &[Vec<Seat>],
    settings: &Settings,
    (component, stream): (usize, usize),
    from: TaskId,
) -> Vec<Box<dyn std::any::Any + Send>> {
    let outlet = |resolved: &Resolved| {
        let edge = &nodes[resolved.bolt].inputs[resolved.input];
        let target = |seat: &Seat| {
            let inbox = if edge.feedback.is_some() { &seat.feedback } else { &seat.inbox };
            (seat.task, Arc::clone(inbox.as_ref().expect("bolts have an inbox for each kind of edge they have")))
        };
        (edge.outlet)(Way {
            from,
            input: resolved.input as u32,
            targets: seats[resolved.bolt].iter().map(target).collect(),
            feedback: edge.feedback.is_some(),
            chunk_tuples: settings.chunk_tuples.max(1),
            weigh: nodes[component].weighs.get(nodes[component].streams[stream].name).cloned(),
        })
    };
    edges.iter().filter(|edge| edge.from == component && edge.stream == stream).map(outlet).collect()
}
