//! Checks a topology and turns its tables' handles into specifications.

use std::{
    collections::{BTreeMap, BTreeSet},
    ptr,
    sync::Arc,
};

use tine_state::{ColumnType, Database, Ident, KeyColumn, Merge, StateSpec, TableSpec, ValueColumn};

use super::{
    BuildError,
    node::{Origin, Plan, StateNode, kinds_in_words},
};

/// No state has more shards: each is a row of the ledger, moved with every transaction.
pub(crate) const SHARDS_MAX: u16 = 4096;
/// Sources and states are numbered in 16 bits, and nobody has this many.
const NODES_MAX: usize = 1000;

/// Its name and its nodes.
pub(crate) fn topology(name: &str, plan: &Plan) -> Result<(), BuildError> {
    let topology = || name.to_string();
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if !letters || name.len() > 100 || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(BuildError::TopologyName { name: name.to_string() });
    }
    if plan.sources.is_empty() {
        return Err(BuildError::NoSource { topology: topology() });
    }
    for (what, count) in
        [("sources", plan.sources.len()), ("states", plan.states.len()), ("later stages", plan.later.len())]
    {
        if count > NODES_MAX {
            return Err(BuildError::TooMany { topology: topology(), what, count, max: NODES_MAX });
        }
    }
    if plan.states.is_empty() {
        return Err(BuildError::NoState { topology: topology() });
    }
    leads_somewhere(plan)
}

/// Every source has a stage, and every stage a state or a later stage.
fn leads_somewhere(plan: &Plan) -> Result<(), BuildError> {
    let kept = plan.states.iter().map(|node| node.origin);
    let used: BTreeSet<_> = kept.chain(plan.later.iter().map(|node| node.after)).collect();
    let unused = |origin: &Origin| !used.contains(origin);
    for (source, node) in plan.sources.iter().enumerate() {
        let stages = node.stages().len();
        if stages == 0 {
            return Err(BuildError::LeadsNowhere { place: node.place() });
        }
        if let Some(origin) = (0..stages).map(|stage| Origin::Source { source, stage }).find(unused) {
            return Err(BuildError::LeadsNowhere { place: plan.stage_place(origin) });
        }
    }
    match (0..plan.later.len()).map(Origin::Later).find(unused) {
        Some(origin) => Err(BuildError::LeadsNowhere { place: plan.stage_place(origin) }),
        None => Ok(()),
    }
}

/// The states, in the order of their `persist`.
pub(crate) fn states(plan: &Plan) -> Result<Vec<StateSpec>, BuildError> {
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    let mut states = Vec::with_capacity(plan.states.len());
    for node in &plan.states {
        let state = state(plan, node)?;
        let place = plan.place(node);
        if let Some(other) = tables.insert(state.name.clone(), place.clone()) {
            return Err(BuildError::TableTwice { place, other });
        }
        states.push(state);
    }
    Ok(states)
}

fn state(plan: &Plan, node: &StateNode) -> Result<StateSpec, BuildError> {
    let (place, table) = (plan.place(node), &node.table);
    let output = plan.output(node.origin)?;
    if !(1..=SHARDS_MAX).contains(&table.shards) {
        return Err(BuildError::Shards { place, shards: table.shards });
    }
    let (schema, name) = table_name(&place, &table.name)?;
    let keys = columns(&place, "key", &table.keys, output.keys())?;
    let values = columns(&place, "value", &table.values, output.values())?;
    let mut names = BTreeSet::new();
    if let Some((twice, _)) = keys.iter().chain(&values).find(|(name, _)| !names.insert(name.clone())) {
        return Err(BuildError::ColumnTwice { place, column: twice.as_str().to_string() });
    }
    let merges = output.merges().unwrap_or_else(|| vec![Merge::Replace; values.len()]);
    if merges.len() != values.len() {
        let why = format!("its combiner names {} merges for {} value columns", merges.len(), values.len());
        return Err(BuildError::Stage { place, why });
    }
    let table = TableSpec {
        schema,
        name,
        keys: keys.into_iter().map(|(name, kind)| KeyColumn { name, kind }).collect(),
        values: values.into_iter().zip(merges).map(|((name, kind), merge)| ValueColumn { name, kind, merge }).collect(),
        adopt: table.adopt,
        shared: false,
    };
    Ok(StateSpec { name: table.to_string(), shards: node.table.shards, table })
}

fn table_name(place: &str, name: &str) -> Result<(Option<Ident>, Ident), BuildError> {
    let ident = |name| Ident::new(name).map_err(|why| BuildError::Name { place: place.to_string(), why });
    let (schema, table) = match name.split_once('.') {
        Some((_, table)) if table.contains('.') => {
            return Err(BuildError::TableName { place: place.to_string(), name: name.to_string() });
        }
        Some((schema, table)) => (Some(ident(schema)?), ident(table)?),
        None => (None, ident(name)?),
    };
    match table.as_str().starts_with("tine_") {
        true => Err(BuildError::ReservedTable { place: place.to_string() }),
        false => Ok((schema, table)),
    }
}

fn columns(
    place: &str,
    part: &'static str,
    named: &[String],
    kinds: Vec<ColumnType>,
) -> Result<Vec<(Ident, ColumnType)>, BuildError> {
    if named.len() != kinds.len() {
        let types = kinds_in_words(&kinds);
        let (expected, named) = (kinds.len(), named.len());
        return Err(BuildError::ColumnCount { place: place.to_string(), part, types, expected, named });
    }
    let ident = |name: &String| Ident::new(name).map_err(|why| BuildError::Name { place: place.to_string(), why });
    named.iter().zip(kinds).map(|(name, kind)| Ok((ident(name)?, kind))).collect()
}

/// The one database of all states.
pub(crate) fn database(plan: &Plan) -> Result<Arc<dyn Database>, BuildError> {
    let Some((first, others)) = plan.states.split_first() else {
        return Err(BuildError::NoState { topology: String::new() });
    };
    let mine = &first.table.database;
    let elsewhere = others.iter().find(|node| {
        let theirs = &node.table.database;
        !ptr::addr_eq(Arc::as_ptr(mine), Arc::as_ptr(theirs)) && mine.describe() != theirs.describe()
    });
    match elsewhere {
        None => Ok(mine.clone()),
        Some(other) => Err(BuildError::TwoDatabases {
            place: plan.place(other),
            database: other.table.database.describe(),
            other: plan.place(first),
            other_database: mine.describe(),
        }),
    }
}
