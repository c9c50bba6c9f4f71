//! A stage closure, erased: one dynamic call for all records of a chunk.

use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    Partial, Rows,
    scratch::{Scratch, StageError},
};
use crate::{columns::Lends, fold::Output};

/// A stage whose closure and key and value types are forgotten.
pub(crate) trait Fused<T: Lends>: Send + Sync {
    /// Runs a chunk; the index of the table that the rows went to.
    fn run<'b>(&self, rows: Vec<T::At<'b>>, scratch: &'b Scratch) -> usize;
}

/// A stage closure with its types.
pub(crate) struct Stage<F, K, V>(F, PhantomData<fn() -> (K, V)>);

impl<F, K, V> Stage<F, K, V> {
    pub(crate) fn new(closure: F) -> Stage<F, K, V> {
        Stage(closure, PhantomData)
    }
}

impl<T: Lends, K, V, F> Fused<T> for Stage<F, K, V>
where
    F: for<'b> Fn(Rows<'b, T::At<'b>>) -> Partial<K, V> + Send + Sync,
{
    fn run<'b>(&self, rows: Vec<T::At<'b>>, scratch: &'b Scratch) -> usize {
        (self.0)(Rows::new(rows, scratch)).table
    }
}

/// Runs a chunk. On `Err` nothing of it contributed, unless the error says so.
pub(crate) fn attempt<'b, T: Lends>(
    fused: &dyn Fused<T>,
    rows: Vec<T::At<'b>>,
    scratch: &'b Scratch,
) -> Result<usize, StageError> {
    scratch.begin();
    match catch_unwind(AssertUnwindSafe(|| fused.run(rows, scratch))) {
        Ok(table) => scratch.end().map(|()| table),
        Err(panic) => Err(scratch.panicked(&*panic)),
    }
}

/// What a stage is, learned from one run without rows.
#[derive(Clone, Debug)]
pub(crate) struct Learned {
    /// Its operators' names, in order.
    pub(crate) operators: Vec<&'static str>,
    /// What it ends in, or why it cannot be used.
    pub(crate) output: Result<Arc<dyn Output>, String>,
}

/// Runs a stage without rows.
pub(crate) fn learn<T: Lends>(fused: &dyn Fused<T>) -> Learned {
    let scratch = Scratch::default();
    let output = match attempt(fused, Vec::new(), &scratch) {
        Ok(table) => scratch.output(table).ok_or_else(|| "it returns a `Partial` of another stage".to_string()),
        Err(error) => Err(format!("{}: {}", error.operator, error.why)),
    };
    Learned { operators: scratch.operator_names(), output }
}
