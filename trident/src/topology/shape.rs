//! A topology in words: its shape, which is fingerprinted, and descriptions for people.
//!
//! The shape holds what must stay as it is for old results to keep their meaning: operators, states, shard counts, types
//! of keys and values, the user's version. It leaves out what an operator may change between two starts: which files or
//! brokers, policies, column names that the table itself is checked for.

use std::fmt::Write;

use tine_state::{Merge, StateSpec};

use super::{
    check,
    node::{Origin, Plan, kinds_in_words},
};
use crate::dead_letters;

/// What is fingerprinted. Part of the durable format: another text is another topology.
pub(crate) fn shape(name: &str, plan: &Plan, states: &[StateSpec]) -> String {
    let mut text = format!("topology {name}\n");
    if let Some(version) = &plan.version {
        let _ = writeln!(text, "version {version:?}");
    }
    for (source, node) in plan.sources.iter().enumerate() {
        let _ = writeln!(text, "source {}", source + 1);
        for stage in 0..node.stages().len() {
            shape_of_stage(plan, states, (Origin::Source { source, stage }, 1), &mut text);
        }
    }
    text
}

/// A stage with its states, then the stages after it, each two places further in.
fn shape_of_stage(plan: &Plan, states: &[StateSpec], (origin, depth): (Origin, usize), text: &mut String) {
    let (indent, operators) = (2 * depth, plan.learned(origin).operators.join(", "));
    let _ = writeln!(text, "{:indent$}stage {}{}: {operators}", "", plan.number(origin), over(plan, origin));
    for (_, state) in plan.states.iter().zip(states).filter(|(node, _)| node.origin == origin) {
        let _ = writeln!(text, "{:indent$}  state {}: {}", "", state.name, columns(state));
    }
    for later in plan.after(origin) {
        shape_of_stage(plan, states, (later, depth + 1), text);
    }
}

/// What a later stage sees: the columns of key and value, which no state may have named.
fn over(plan: &Plan, origin: Origin) -> String {
    let Origin::Later(at) = origin else { return String::new() };
    match plan.output(plan.later[at].after) {
        Ok(output) => format!(" over ({}; {})", kinds_in_words(&output.keys()), kinds_in_words(&output.values())),
        Err(_) => String::new(),
    }
}

fn columns(state: &StateSpec) -> String {
    let keys: Vec<_> = state.table.keys.iter().map(|column| column.kind).collect();
    let values = state.table.values.iter().map(|column| {
        let merge = match column.merge {
            Merge::Add => "add",
            Merge::Min => "min",
            Merge::Max => "max",
            Merge::Replace => "replace",
        };
        format!("{} {merge}", kinds_in_words(&[column.kind]))
    });
    let values = values.collect::<Vec<_>>().join(", ");
    format!("{} shards, key ({}), value ({values})", state.shards, kinds_in_words(&keys))
}

/// What was composed.
pub(crate) fn describe(name: &str, plan: &Plan) -> String {
    let mut text = format!("topology {name}\n");
    for (source, node) in plan.sources.iter().enumerate() {
        let _ = writeln!(text, "{}", node.place());
        for stage in 0..node.stages().len() {
            describe_stage(plan, (Origin::Source { source, stage }, 1), &mut text);
        }
    }
    text
}

fn describe_stage(plan: &Plan, (origin, depth): (Origin, usize), text: &mut String) {
    let (indent, operators) = (2 * depth, plan.learned(origin).operators.join(" -> "));
    let _ = write!(text, "{:indent$}stage {}: {operators}", "", plan.number(origin));
    for node in plan.states.iter().filter(|node| node.origin == origin) {
        let (keys, values) = (node.table.keys.join(", "), node.table.values.join(", "));
        let _ = write!(text, " -> persist {} ({keys}; {values})", node.table.name);
    }
    text.push('\n');
    for later in plan.after(origin) {
        describe_stage(plan, (later, depth + 1), text);
    }
}

/// What will run.
pub(crate) fn explain(name: &str, plan: &Plan) -> String {
    let mut text = describe(name, plan);
    text.push_str("runs as\n");
    let states = match check::topology(name, plan).and_then(|()| check::states(plan)) {
        Ok(states) => states,
        Err(error) => {
            let _ = writeln!(text, "  nothing: {error}");
            return text;
        }
    };
    for (node, state) in plan.states.iter().zip(&states) {
        explain_way(plan, node.origin, &mut text);
        let _ = writeln!(text, "  shuffle by hash of key: {} shards", state.shards);
        let _ = writeln!(text, "  committer of {}: combine, {}", state.name, columns(state));
    }
    let (name, shards) = (dead_letters::NAME, dead_letters::SHARDS);
    let _ = writeln!(text, "  dead letters: {name} ({shards} shards by source partition)");
    text
}

/// What runs between the source and a stream's rows, in order.
fn explain_way(plan: &Plan, origin: Origin, text: &mut String) {
    let operators = plan.learned(origin).operators.join(", ");
    let _ = match origin {
        Origin::Source { source, .. } => {
            writeln!(text, "  emitter of source {}: decode, {operators} (fused, combined per emitter)", source + 1)
        }
        Origin::Later(at) => {
            explain_way(plan, plan.later[at].after, text);
            let number = plan.number(origin);
            let _ = writeln!(text, "  exchange by hash of key: ranges of stage tasks");
            writeln!(text, "  stage task, stage {number}: combine, {operators} (fused, combined per task)")
        }
    };
}
