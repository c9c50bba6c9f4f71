//! The arena: sources with their stages, states with their tables, in the order in which they were added.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tine_state::{StateIndex, StateSpec, Table};

use super::{BuildError, index};
use crate::{
    dead_letters::DeadLetters,
    fold::Output,
    input::{Input, Policy, Row},
    pipeline::{BatchRows, Pipeline, PipelineFactory},
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
    pub(crate) states: Vec<StateNode>,
}

/// A state: which stage feeds it, and its table.
pub(crate) struct StateNode {
    pub(crate) source: usize,
    pub(crate) stage: usize,
    pub(crate) table: Table,
}

impl Plan {
    pub(crate) fn output(&self, node: &StateNode) -> Result<Arc<dyn Output>, BuildError> {
        let learned = self.sources[node.source].stages().swap_remove(node.stage);
        learned
            .output
            .map_err(|why| BuildError::Stage { place: stage_place(&*self.sources[node.source], node.stage), why })
    }

    /// A state's name for messages.
    pub(crate) fn place(&self, node: &StateNode) -> String {
        format!("persist {:?} (after {})", node.table.name, self.sources[node.source].place())
    }

    /// What a source feeds.
    pub(crate) fn slots(&self, source: usize, states: &[StateSpec]) -> Vec<SlotSpec> {
        let nodes = self.states.iter().zip(states).enumerate().filter(|(_, (node, _))| node.source == source);
        let slot = |(at, (node, state)): (usize, (&StateNode, &StateSpec))| SlotSpec {
            stage: node.stage,
            state: index(at),
            shards: state.shards,
        };
        nodes.map(slot).collect()
    }
}

/// A stage of a source that feeds a state.
#[derive(Clone, Copy)]
pub(crate) struct SlotSpec {
    stage: usize,
    state: StateIndex,
    shards: u16,
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

/// Such as ``stage 2 after source 1 `files` ``.
pub(crate) fn stage_place(source: &dyn SourceNode, stage: usize) -> String {
    format!("stage {} after {}", stage + 1, source.place())
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
                state: spec.state,
                shards: spec.shards,
                on_error: *on_error,
                place: stage_place(self, spec.stage),
                scratch: if *on_error == Policy::Fail { scratch } else { scratch.careful() },
                table: None,
            }
        };
        FusedPipeline {
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
