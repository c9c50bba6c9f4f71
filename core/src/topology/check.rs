//! What a topology must be before it can run; and which bolts each stream leads to.

use std::collections::HashSet;

use super::{
    error::BuildError,
    node::{Arena, Edge, End, Node},
};
use crate::trees::TREES_MAX;

/// Tasks that spouts may have together: as many as a root can name.
const SPOUT_TASKS_MAX: usize = 1 << 16;

/// An edge whose sending end is known: `nodes[bolt].inputs[input]` comes from stream `stream` of `nodes[from]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved {
    pub(crate) bolt: usize,
    pub(crate) input: usize,
    pub(crate) from: usize,
    pub(crate) stream: usize,
}

/// Checks everything, and finds the ends of all edges.
pub(crate) fn check(arena: &Arena, nodes: &[Node]) -> Result<Vec<Resolved>, BuildError> {
    let mut names = HashSet::new();
    if let Some(node) = nodes.iter().find(|node| !names.insert(&node.name)) {
        return Err(BuildError::DuplicateName { name: node.name.clone() });
    }
    if !nodes.iter().any(|node| node.is_spout) {
        return Err(BuildError::NoSpout { topology: arena.topology.clone() });
    }
    nodes.iter().try_for_each(check_node)?;
    let tasks: usize = nodes.iter().filter(|node| node.is_spout).map(|node| node.tasks).sum();
    if let (true, Some(node)) = (tasks > SPOUT_TASKS_MAX, nodes.iter().rfind(|node| node.is_spout)) {
        return Err(number(node, "tasks", node.tasks, "all spouts together may have 65536"));
    }
    let mut edges = Vec::new();
    for (bolt, node) in nodes.iter().enumerate() {
        for (input, edge) in node.inputs.iter().enumerate() {
            let (from, stream) = resolve(arena, nodes, node, edge)?;
            edges.push(Resolved { bolt, input, from, stream });
        }
    }
    match circle(nodes, &edges) {
        Some(components) => Err(BuildError::Cycle { components }),
        None => Ok(edges),
    }
}

fn number(node: &Node, what: &'static str, value: usize, fix: &'static str) -> BuildError {
    BuildError::Number { component: node.name.clone(), what, value, fix }
}

fn check_node(node: &Node) -> Result<(), BuildError> {
    if node.tasks == 0 {
        return Err(number(node, "tasks", 0, "at least 1"));
    }
    match node.executors {
        Some(0) => return Err(number(node, "executors", 0, "at least 1")),
        Some(executors) if executors > node.tasks => {
            return Err(number(node, "executors", executors, "not more than tasks"));
        }
        _ => {}
    }
    match node.max_pending {
        Some(0) => return Err(number(node, "max_pending", 0, "at least 1")),
        Some(pending) if pending > TREES_MAX => {
            return Err(number(node, "max_pending", pending, "at most 1048576"));
        }
        _ => {}
    }
    if node.inputs.iter().any(|edge| edge.feedback == Some(0)) {
        return Err(number(node, "a feedback bound", 0, "at least 1"));
    }
    let mut streams = HashSet::new();
    if let Some(stream) = node.streams.iter().find(|stream| !streams.insert(stream.name)) {
        return Err(BuildError::DuplicateStream { component: node.name.clone(), stream: stream.name.to_owned() });
    }
    if !node.is_spout && node.inputs.is_empty() {
        return Err(BuildError::NoInput { bolt: node.name.clone() });
    }
    Ok(())
}

/// The component and stream that an edge comes from.
fn resolve(arena: &Arena, nodes: &[Node], bolt: &Node, edge: &Edge) -> Result<(usize, usize), BuildError> {
    let (from, stream) = match &edge.from {
        End::Handle { arena: other, component, stream } => {
            if !std::ptr::eq(other.as_ref(), arena) {
                let (topology, other) = (arena.topology.clone(), other.topology.clone());
                return Err(BuildError::ForeignStream { bolt: bolt.name.clone(), topology, other });
            }
            (*component, stream)
        }
        End::Named { component, stream } => {
            let from = nodes.iter().position(|node| node.name == *component);
            let missing = || BuildError::NoSuchComponent {
                bolt: bolt.name.clone(),
                component: component.clone(),
                topology: arena.topology.clone(),
            };
            (from.ok_or_else(missing)?, stream)
        }
    };
    let sender = &nodes[from];
    let Some(index) = sender.streams.iter().position(|known| known.name == stream) else {
        return Err(BuildError::NoSuchStream {
            bolt: bolt.name.clone(),
            component: sender.name.clone(),
            stream: stream.clone(),
            known: sender.streams.iter().map(|stream| stream.name.to_owned()).collect(),
        });
    };
    let sent = sender.streams[index].tuples;
    if sent.id != edge.expected.id {
        return Err(BuildError::TypeMismatch {
            component: sender.name.clone(),
            stream: stream.clone(),
            sent: sent.name,
            bolt: bolt.name.clone(),
            expected: edge.expected.name,
        });
    }
    if let Some((field, known)) = &edge.missing_field {
        return Err(BuildError::NoSuchField {
            bolt: bolt.name.clone(),
            component: sender.name.as_str().into(),
            stream: stream.as_str().into(),
            field: field.as_str().into(),
            tuple: sent.name,
            known,
        });
    }
    Ok((from, index))
}

/// A circle of edges that do not lead back, as names.
fn circle(nodes: &[Node], edges: &[Resolved]) -> Option<Vec<String>> {
    // Components that nothing leads into are taken away until none is left; what remains has a circle.
    let forward: Vec<_> = edges.iter().filter(|edge| nodes[edge.bolt].inputs[edge.input].feedback.is_none()).collect();
    let mut left: HashSet<usize> = (0..nodes.len()).collect();
    loop {
        let into = |node: usize| forward.iter().any(|edge| edge.bolt == node && left.contains(&edge.from));
        let Some(free) = left.iter().copied().find(|node| !into(*node)) else { break };
        left.remove(&free);
    }
    // Backwards along the edges that remain, until a component comes again.
    let mut walk = vec![*left.iter().min()?];
    loop {
        let at = *walk.last()?;
        let before = forward.iter().find(|edge| edge.bolt == at && left.contains(&edge.from))?.from;
        let first = walk.iter().position(|known| *known == before);
        walk.push(before);
        if let Some(first) = first {
            return Some(walk[first..].iter().rev().map(|node| nodes[*node].name.clone()).collect());
        }
    }
}
