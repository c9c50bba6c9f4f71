//! The topology: where sources are added, and where what was composed is checked and compiled.
//!
//! ```text
//!  Stream methods ──► nodes in an arena ──► build(): check, name, fuse ──► Built: pipelines and folds, types erased
//! ```
//!
//! A [`Topology`] is a cheap handle; streams hold one too. [`node`] is the arena, [`check`] turns states into table
//! specifications or says what is wrong, [`flow`] decides where rows are repartitioned, [`shape`] puts the whole into words.

mod check;
mod error;
mod flow;
pub(crate) mod node;
mod shape;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tine_core::hash::Hash128;
use tine_state::{GroupSpec, StateIndex};

pub use error::BuildError;

use crate::{
    dead_letters,
    input::{Input, Policy, Row},
    pipeline::{Built, BuiltSource},
    stream::Stream,
};
use flow::Flow;
use node::{LaterNode, Origin, Plan, StateNode, TypedSource};

/// The name of the only batch group: one holds the whole topology.
pub const GROUP: &str = "main";

/// A topology under construction: sources, stages and states, under a name that its tables remember.
///
/// ```
/// use tine_state::Table;
/// use tine_trident::{pipeline::Built, source::files::files, topology::{BuildError, Topology}};
///
/// fn word_count(word_counts: Table) -> Result<Built, BuildError> {
///     let topology = Topology::new("word_count");
///     topology
///         .source(files(["a.txt"]).text())
///         .stage(|lines| lines.flat_map(|line| line.split_whitespace()).group_by(|word| word).count())
///         .persist(word_counts.key("word").value("n"));
///     topology.build()
/// }
/// ```
///
/// Trident's `TridentTopology`. Clones are handles to the same topology.
#[derive(Clone)]
pub struct Topology {
    name: Arc<str>,
    plan: Arc<Mutex<Plan>>,
}

/// A state that a topology keeps: what `persist` returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persisted {
    state: String,
}

impl Persisted {
    /// The state's name: its table's, with the schema if one was given.
    pub fn name(&self) -> &str {
        &self.state
    }
}

impl Topology {
    /// An empty topology. The name is the identity of its states: under the same name and on the same tables it goes on
    /// where it stopped. Letters, digits, `_`, `-` and `.`, at most 100.
    pub fn new(name: impl Into<Arc<str>>) -> Topology {
        Topology { name: name.into(), plan: Arc::default() }
    }

    /// The user's word for what the operators compute. A topology that starts again with another version is refused,
    /// like one of another shape: change it when a closure changes what its old results would mean.
    pub fn version(&self, version: impl Into<String>) -> &Topology {
        self.plan().version = Some(version.into());
        self
    }

    /// Adds a source. Each call is a source of its own, even of the same input.
    pub fn source<T: Row, R>(&self, input: Input<T, R>) -> Stream<T, R> {
        let mut plan = self.plan();
        let source = Arc::new(TypedSource::new(plan.sources.len(), input));
        plan.sources.push(source.clone());
        Stream::new(self.clone(), source, Policy::Fail)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks and compiles. Errors name the operator and say what to do.
    pub fn build(&self) -> Result<Built, BuildError> {
        let plan = self.plan();
        check::topology(&self.name, &plan)?;
        let mut states = check::states(&plan)?;
        let database = check::database(&plan)?;
        let shape = shape::shape(&self.name, &plan, &states);
        let mut folds = Vec::with_capacity(states.len() + 1);
        for (node, state) in plan.states.iter().zip(&states) {
            folds.push(plan.output(node.origin)?.fold(&plan.place(node), state.shards));
        }
        let flow = Flow::new(&plan);
        let exchanges = flow.exchanges(&plan)?;
        // Every topology has the state for dead letters, and the shape leaves policies out: a policy is what one changes
        // after a halt, and the states of a group are fixed.
        let letters = index(states.len());
        folds.push(dead_letters::output().fold(dead_letters::NAME, dead_letters::SHARDS));
        states.push(dead_letters::spec(states[0].table.schema.clone()));
        let sources = plan.sources.iter().enumerate().map(|(number, source)| BuiltSource {
            source: source.source(),
            pipeline: source.clone().pipelines(flow.slots(&plan, number), (self.name.clone(), letters)),
        });
        let sources = sources.collect();
        let group = GroupSpec {
            topology: self.name.to_string(),
            group: GROUP.to_string(),
            states,
            fingerprint: Hash128::of(shape.as_bytes()),
            shape,
            lineage: rand::random(),
        };
        Ok(Built { group, database, sources, exchanges, folds })
    }

    /// What was composed, in words: sources, operators, tables.
    pub fn describe(&self) -> String {
        shape::describe(&self.name, &self.plan())
    }

    /// What will run, in words: which operators are fused, what is shuffled how, what SQL does. A topology that cannot be
    /// built is described, with the reason.
    pub fn explain(&self) -> String {
        shape::explain(&self.name, &self.plan())
    }

    pub(crate) fn add_state(&self, node: StateNode) -> Persisted {
        let state = node.table.name.clone();
        self.plan().states.push(node);
        Persisted { state }
    }

    pub(crate) fn add_later(&self, node: LaterNode) -> Origin {
        let mut plan = self.plan();
        plan.later.push(node);
        Origin::Later(plan.later.len() - 1)
    }

    /// No code of the user's runs under this lock, so a poisoned one holds a whole plan.
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topology({})", self.name)
    }
}

/// A state's place in the group; `check` has made sure that there are few.
fn index(state: usize) -> StateIndex {
    StateIndex(u16::try_from(state).expect("a topology has at most a thousand states"))
}
