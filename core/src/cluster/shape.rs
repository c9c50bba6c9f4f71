//! The shape of a topology in one number: workers with different ones are not workers of the same topology.

use crate::{
    hash::Hash128,
    topology::node::{Arena, Edge, End, Node},
};

/// What tasks there are, what tuples travel between them, and how.
pub(super) fn fingerprint(arena: &Arena) -> Hash128 {
    let nodes = arena.nodes();
    let mut words = vec![arena.topology.clone()];
    for node in &*nodes {
        words.push(format!("{} {:?} of {} tasks", if node.is_spout { "spout" } else { "bolt" }, node.name, node.tasks));
        words.extend(node.streams.iter().map(|stream| format!("stream {:?} of {}", stream.name, stream.tuples.name)));
        words.extend(node.inputs.iter().map(|edge| input(&nodes, edge)));
    }
    Hash128::of_parts(words.iter().map(String::as_bytes))
}

fn input(nodes: &[Node], edge: &Edge) -> String {
    let (component, stream) = match &edge.from {
        End::Handle { component, stream, .. } => (nodes[*component].name.as_str(), stream),
        End::Named { component, stream } => (component.as_str(), stream),
    };
    let back = edge.feedback.map_or(String::new(), |bound| format!(", back, at most {bound}"));
    format!("{} of {} from {component:?} {stream:?}{back}", edge.rule, edge.expected.name)
}
