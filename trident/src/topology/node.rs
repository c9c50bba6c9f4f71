//! The arena: sources with their stages, stages after these, states with their tables, in the order in which they were added.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tine_state::{StateIndex, Table};

use super::BuildError;
use crate::{
    dead_letters::DeadLetters,
    fold::Output,
    input::{Input, Policy, Row},
    pipeline::{BatchRows, Pipeline, PipelineFactory, Target},
    source::Source,
    stage::{
        fused::{Fused, Learned, learn},
        pipeline::{FusedPipeline, Slot},
        scratch::Scratch,
    },
};

/// Everything that was added to a topology.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) version: Option<String>,
    pub(crate) sources: Vec<Arc<dyn SourceNode>>,
    /// Stages after other stages; each comes after the one that feeds it.
    pub(crate) later: Vec<LaterNode>,
    pub(crate) states: Vec<StateNode>,
}

/// Where a keyed stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A stage of a source.
    Source { source: usize, stage: usize },
    /// A stage after another stage, by its place in the arena.
    Later(usize),
}

/// A stage after another one.
pub(crate) struct LaterNode {
    pub(crate) after: Origin,
    /// An [`exchange::Later`](crate::exchange::Later).
    pub(crate) closure: Arc<dyn Any + Send + Sync>,
    pub(crate) learned: Learned,
}

/// A state: which stage feeds it, and its table.
pub(crate) struct StateNode {
    pub(crate) origin: Origin,
    pub(crate) table: Table,
}

impl Plan {
    pub(crate) fn learned(&self, origin: Origin) -> Learned {
        match origin {
            Origin::Source { source, stage } => self.sources[source].stages().swap_remove(stage),
            Origin::Later(at) => self.later[at].learned.clone(),
        }
    }

    pub(crate) fn output(&self, origin: Origin) -> Result<Arc<dyn Output>, BuildError> {
        let learned = self.learned(origin);
        learned.output.map_err(|why| BuildError::Stage { place: self.stage_place(origin), why })
    }

    /// A state's name for messages.
    pub(crate) fn place(&self, node: &StateNode) -> String {
        let after = match node.origin {
            Origin::Source { source, .. } => self.sources[source].place(),
            origin @ Origin::Later(_) => self.stage_place(origin),
        };
        format!("persist {:?} (after {after})", node.table.name)
    }

    /// Such as ``stage 2 after source 1 `files` ``, and for the first stage after that ``stage 2.1 after source 1 `files` ``.
    pub(crate) fn stage_place(&self, origin: Origin) -> String {
        stage_place(&self.number(origin), &self.sources[self.source(origin)].place())
    }

    /// A stage's number: its place among those after its source, and after a dot that among those after the same stage.
    pub(crate) fn number(&self, origin: Origin) -> String {
        match origin {
            Origin::Source { stage, .. } => (stage + 1).to_string(),
            Origin::Later(at) => {
                let after = self.later[at].after;
                let place = self.later[..=at].iter().filter(|node| node.after == after).count();
                format!("{}.{place}", self.number(after))
            }
        }
    }

    /// The stages after a stage.
    pub(crate) fn after(&self, origin: Origin) -> impl Iterator<Item = Origin> {
        let nodes = self.later.iter().enumerate().filter(move |(_, node)| node.after == origin);
        nodes.map(|(at, _)| Origin::Later(at))
    }

    /// The source that a stream comes from.
    pub(crate) fn source(&self, origin: Origin) -> usize {
        match origin {
            Origin::Source { source, .. } => source,
            Origin::Later(at) => self.source(self.later[at].after),
        }
    }

    /// How many stages lie between a stream's stage and the source.
    pub(crate) fn depth(&self, origin: Origin) -> usize {
        match origin {
            Origin::Source { .. } => 0,
            Origin::Later(at) => self.depth(self.later[at].after) + 1,
        }
    }
}

/// A stage of a source and where its rows go.
#[derive(Clone)]
pub(crate) struct SlotSpec {
    pub(crate) stage: usize,
    pub(crate) targets: Vec<Target>,
}

/// A source whose row type is forgotten.
pub(crate) trait SourceNode: Send + Sync {
    fn source(&self) -> Arc<dyn Source>;
    /// Such as ``source 1 `files` ``.
    fn place(&self) -> String;
    /// What is known of its stages.
    fn stages(&self) -> Vec<Learned>;
    /// Compiles its stages.
    fn pipelines(self: Arc<Self>, slots: Vec<SlotSpec>, letters: (Arc<str>, StateIndex)) -> PipelineFactory;
}

fn stage_place(number: &str, source: &str) -> String {
    format!("stage {number} after {source}")
}

/// A source with its row type.
pub(crate) struct TypedSource<T: Row> {
    index: usize,
    source: Arc<dyn Source>,
    on_invalid: Policy,
    on_null: Policy,
    stages: Mutex<Vec<TypedStage<T>>>,
}

struct TypedStage<T: Row> {
    fused: Arc<dyn Fused<T>>,
    on_error: Policy,
    learned: Learned,
}

impl<T: Row> TypedSource<T> {
    pub(crate) fn new<R>(index: usize, input: Input<T, R>) -> TypedSource<T> {
        let Input { source, on_invalid, on_null, .. } = input;
        TypedSource { index, source, on_invalid, on_null, stages: Mutex::default() }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Adds a stage; its place.
    pub(crate) fn add_stage(&self, fused: Arc<dyn Fused<T>>, on_error: Policy) -> usize {
        let learned = learn(&*fused); // the user's code runs before the lock is taken
        let mut stages = self.lock();
        stages.push(TypedStage { fused, on_error, learned });
        stages.len() - 1
    }

    pub(crate) fn place(&self) -> String {
        format!("source {} `{}`", self.index + 1, self.source.describe())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TypedStage<T>>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pipeline(&self, slots: &[SlotSpec], (topology, letters): &(Arc<str>, StateIndex)) -> FusedPipeline<T> {
        let stages = self.lock();
        let slot = |spec: &SlotSpec| {
            let TypedStage { fused, on_error, .. } = &stages[spec.stage];
            let scratch = Scratch::default();
            Slot {
                fused: fused.clone(),
                targets: spec.targets.clone(),
                on_error: *on_error,
                place: stage_place(&(spec.stage + 1).to_string(), &TypedSource::place(self)),
                scratch: if *on_error == Policy::Fail { scratch } else { scratch.careful() },
                table: None,
            }
        };
        FusedPipeline {
            unit: self.source.unit(),
            on_invalid: self.on_invalid,
            on_null: self.on_null,
            slots: slots.iter().map(slot).collect(),
            dead_letters: DeadLetters::new(topology, *letters),
            done: BatchRows::default(),
        }
    }
}

impl<T: Row> SourceNode for TypedSource<T> {
    fn source(&self) -> Arc<dyn Source> {
        self.source.clone()
    }

    fn place(&self) -> String {
        TypedSource::place(self)
    }

    fn stages(&self) -> Vec<Learned> {
        self.lock().iter().map(|stage| stage.learned.clone()).collect()
    }

    fn pipelines(self: Arc<Self>, slots: Vec<SlotSpec>, letters: (Arc<str>, StateIndex)) -> PipelineFactory {
        Arc::new(move || Box::new(self.pipeline(&slots, &letters)) as Box<dyn Pipeline>)
    }
}

/// Column types in words: `text, bigint`.
pub(crate) fn kinds_in_words(kinds: &[tine_state::ColumnType]) -> String {
    let words = kinds.iter().map(|kind| match kind {
        tine_state::ColumnType::Text => "text",
        tine_state::ColumnType::Bytes => "bytes",
        tine_state::ColumnType::BigInt => "bigint",
    });
    words.collect::<Vec<_>>().join(", ")
}
