//! A topology in words: its shape, which is fingerprinted, and descriptions for people.
//!
//! The shape holds what must stay as it is for old results to keep their meaning: operators, states, shard counts, types
//! of keys and values, the user's version. It leaves out what an operator may change between two starts: which files or
//! brokers, policies, column names that the table itself is checked for.

use std::fmt::Write;

use tine_state::{Merge, StateSpec};

use super::{
    check,
    node::{Plan, kinds_in_words},
};
use crate::dead_letters;

/// What is fingerprinted. Part of the durable format: another text is another topology.
pub(crate) fn shape(name: &str, plan: &Plan, states: &[StateSpec]) -> String {
    let mut text = format!("topology {name}\n");
    if let Some(version) = &plan.version {
        let _ = writeln!(text, "version {version:?}");
    }
    for (number, source) in plan.sources.iter().enumerate() {
        let _ = writeln!(text, "source {}", number + 1);
        for (stage, learned) in source.stages().iter().enumerate() {
            let _ = writeln!(text, "  stage {}: {}", stage + 1, learned.operators.join(", "));
            let fed = plan.states.iter().zip(states).filter(|(node, _)| (node.source, node.stage) == (number, stage));
            for (_, state) in fed {
                let _ = writeln!(text, "    state {}: {}", state.name, columns(state));
            }
        }
    }
    text
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
    for (number, source) in plan.sources.iter().enumerate() {
        let _ = writeln!(text, "{}", source.place());
        for (stage, learned) in source.stages().iter().enumerate() {
            let _ = write!(text, "  stage {}: {}", stage + 1, learned.operators.join(" -> "));
            let fed = plan.states.iter().filter(|node| (node.source, node.stage) == (number, stage));
            fed.for_each(|node| {
                let (keys, values) = (node.table.keys.join(", "), node.table.values.join(", "));
                let _ = write!(text, " -> persist {} ({keys}; {values})", node.table.name);
            });
            text.push('\n');
        }
    }
    text
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
        let operators = plan.sources[node.source].stages().swap_remove(node.stage).operators.join(", ");
        let _ = writeln!(
            text,
            "  emitter of source {}: decode, {operators} (fused, combined per emitter)",
            node.source + 1
        );
        let _ = writeln!(text, "  shuffle by hash of key: {} shards", state.shards);
        let _ = writeln!(text, "  committer of {}: combine, {}", state.name, columns(state));
    }
    let (name, shards) = (dead_letters::NAME, dead_letters::SHARDS);
    let _ = writeln!(text, "  dead letters: {name} ({shards} shards by source partition)");
    text
}
