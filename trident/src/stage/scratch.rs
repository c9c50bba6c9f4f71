//! The memory of one stage during one batch: its tables, and where in the stage closure it is.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    sync::Arc,
};

use super::table::{Table, TypedTable};
use crate::{
    aggregate::Combiner,
    fold::Output,
    key::Key,
    pipeline::{self, Witness},
};

/// A batch's memory of one stage. Users see it only as the lifetime of [`Rows`](super::Rows).
#[derive(Default)]
pub(crate) struct Scratch {
    /// By order of aggregation in the closure.
    tables: RefCell<Vec<Box<dyn Table>>>,
    /// How many aggregations this run of the closure has done.
    aggregated: Cell<usize>,
    /// How many operators this run of the closure has entered.
    entered: Cell<usize>,
    operators: RefCell<Vec<Operator>>,
    /// The first error of this run, and the operator it happened in.
    error: RefCell<Option<StageError>>,
    /// Whether rows are reaching a table right now.
    contributing: Cell<bool>,
    /// Whether keys are checked before any row contributes, because the policy leaves records out.
    careful: Cell<bool>,
    /// Who sees what operators make, and the stage's place for it.
    witness: Option<(String, Arc<dyn Witness>)>,
}

struct Operator {
    name: &'static str,
    widest: usize,
}

/// What went wrong in a stage closure, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StageError {
    /// Such as `operator 2 (try_map)`.
    pub(crate) operator: String,
    /// The error's words.
    pub(crate) why: String,
    /// Whether rows had begun to reach a table: then the chunk cannot be taken back.
    pub(crate) half_done: bool,
}

impl Scratch {
    pub(crate) fn careful(self) -> Scratch {
        self.careful.set(true);
        self
    }

    /// From now on somebody sees what operators make.
    pub(crate) fn observe(&mut self, place: &str, witness: &Arc<dyn Witness>) {
        self.witness = Some((place.to_owned(), witness.clone()));
    }

    pub(super) fn is_observed(&self) -> bool {
        self.witness.is_some()
    }

    /// How many operators this run of the closure has entered.
    pub(super) fn steps(&self) -> usize {
        self.entered.get()
    }

    /// Shows what an operator made, by its index, if somebody looks.
    pub(super) fn made<'r, R: fmt::Debug + 'r>(&self, step: usize, rows: impl IntoIterator<Item = &'r R>) {
        if let Some((place, witness)) = &self.witness {
            let rows = rows.into_iter().map(|row| format!("{row:?}")).collect();
            witness.made(self.operator(place, step, false), rows);
        }
    }

    /// The same for what the aggregate leaves behind.
    fn left(&self, rows: Option<&dyn pipeline::Rows>) {
        if let Some((place, witness)) = &self.witness {
            let rows = rows.map(pipeline::Rows::shown).unwrap_or_default();
            witness.made(self.operator(place, self.steps().saturating_sub(1), true), rows);
        }
    }

    fn operator<'p>(&'p self, place: &'p str, step: usize, ends: bool) -> pipeline::Operator<'p> {
        let name = self.operators.borrow().get(step).map_or("?", |operator| operator.name);
        pipeline::Operator { place, number: step + 1, name, ends }
    }

    pub(super) fn is_careful(&self) -> bool {
        self.careful.get()
    }

    /// Before each run of the closure.
    pub(super) fn begin(&self) {
        self.aggregated.set(0);
        self.entered.set(0);
        self.contributing.set(false);
        self.error.take();
    }

    /// After a run that did not panic.
    pub(super) fn end(&self) -> Result<(), StageError> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// After a run that panicked.
    pub(super) fn panicked(&self, panic: &(dyn Any + Send)) -> StageError {
        let why = format!("a panic: {}", super::panic_text(panic));
        self.error.take().unwrap_or_else(|| self.error_here(why))
    }

    /// Enters an operator; its index.
    pub(super) fn enter(&self, name: &'static str) -> usize {
        let step = self.entered.get();
        self.entered.set(step + 1);
        let mut operators = self.operators.borrow_mut();
        if operators.len() == step {
            operators.push(Operator { name, widest: 0 });
        }
        step
    }

    /// Remembers how many rows an operator made of a chunk; the most so far.
    pub(super) fn widest(&self, step: usize, rows: usize) -> usize {
        let mut operators = self.operators.borrow_mut();
        operators.get_mut(step).map_or(0, |operator| {
            operator.widest = operator.widest.max(rows);
            operator.widest
        })
    }

    /// The rows, or none and the error noted.
    pub(super) fn or_failed<T, E: fmt::Display>(&self, rows: Result<Vec<T>, E>) -> Vec<T> {
        rows.unwrap_or_else(|error| {
            self.fail(&error);
            Vec::new()
        })
    }

    /// Notes an error of the operator entered last; the first one counts.
    pub(super) fn fail(&self, error: &impl fmt::Display) {
        let mut slot = self.error.borrow_mut();
        if slot.is_none() {
            *slot = Some(self.error_here(error.to_string()));
        }
    }

    fn error_here(&self, why: String) -> StageError {
        let operators = self.operators.borrow();
        let name = |step: usize| operators.get(step).map_or("?", |operator| operator.name);
        let operator = match self.entered.get() {
            0 => "before its first operator".to_string(),
            step if step > 1 && name(step - 2) == "group_by" => {
                format!("operators {} and {step} (group_by, {})", step - 1, name(step - 1))
            }
            step => format!("operator {step} ({})", name(step - 1)),
        };
        StageError { operator, why, half_done: self.contributing.get() }
    }

    /// The operators' names, once the closure has run.
    pub(crate) fn operator_names(&self) -> Vec<&'static str> {
        self.operators.borrow().iter().map(|operator| operator.name).collect()
    }

    /// Aggregates pairs into the next table; its index. Not after an error: then nothing contributes.
    pub(super) fn contribute<K: Key, C: Combiner>(&self, combiner: C, pairs: Vec<(K, C::Input)>) -> usize {
        let index = self.aggregated.get();
        self.aggregated.set(index + 1);
        let mut tables = self.tables.borrow_mut();
        if tables.len() == index {
            tables.push(Box::new(TypedTable::<K::Owned, C>::new(combiner)));
        }
        let table = tables.get_mut(index).and_then(|table| table.as_any().downcast_mut::<TypedTable<K::Owned, C>>());
        match table {
            Some(table) if self.error.borrow().is_none() => {
                self.contributing.set(true);
                if let Err(unfit) = table.add(pairs) {
                    self.fail(&unfit);
                }
                self.contributing.set(false);
            }
            Some(_) => {}
            None => self.fail(&"the stage calls other operators than before: its closure must not decide which"),
        }
        index
    }

    /// What a table is made into, for the planner.
    pub(crate) fn output(&self, table: usize) -> Option<Arc<dyn Output>> {
        self.tables.borrow().get(table).map(|table| table.output())
    }

    /// Empties a table: its rows with their stable hashes. `None` when nothing fell into it.
    pub(crate) fn take(&self, table: usize) -> Option<Box<dyn pipeline::Rows>> {
        let rows = self.tables.borrow_mut().get_mut(table).and_then(|table| table.take());
        self.left(rows.as_deref());
        rows
    }

    /// Forgets all rows, and keeps the memory.
    pub(crate) fn clear(&self) {
        self.tables.borrow_mut().iter_mut().for_each(|table| table.clear());
        self.begin();
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scratch").field(&self.operator_names()).finish()
    }
}
