//! The memory of one stage during one batch: its tables, and where in the stage closure it is.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};
use tine_core::{hash::hash64, id::Shard};

use crate::{
    aggregate::Combiner,
    columns::Columns,
    fold::{Batch, BatchRow, Output, TypedOutput},
    key::{Key, check_key},
    pipeline,
};

/// Tables that are much larger than what the last batch filled are given back.
const KEEP_FACTOR: usize = 8;
/// … unless they are small anyway.
const KEEP_ENTRIES: usize = 4096;

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

    /// Empties a table: its rows with their shards. `None` when nothing fell into it.
    pub(super) fn take(&self, table: usize, shards: u16) -> Option<Box<dyn pipeline::Rows>> {
        self.tables.borrow_mut().get_mut(table).and_then(|table| table.take(shards))
    }

    /// Forgets all rows, and keeps the memory.
    pub(super) fn clear(&self) {
        self.tables.borrow_mut().iter_mut().for_each(|table| table.clear());
        self.begin();
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scratch").field(&self.operator_names()).finish()
    }
}

/// A table whose types are forgotten, once per chunk.
trait Table: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn output(&self) -> Arc<dyn Output>;
    fn take(&mut self, shards: u16) -> Option<Box<dyn pipeline::Rows>>;
    fn clear(&mut self);
}

struct TypedTable<K, C: Combiner> {
    entries: HashTable<(K, C::Held)>,
    hasher: DefaultHashBuilder,
    combiner: C,
}

impl<K: Columns, C: Combiner> TypedTable<K, C> {
    fn new(combiner: C) -> TypedTable<K, C> {
        TypedTable { entries: HashTable::new(), hasher: DefaultHashBuilder::default(), combiner }
    }

    /// Errors when a new key cannot be stored; pairs before it have contributed.
    fn add<Q: Key<Owned = K>>(&mut self, pairs: Vec<(Q, C::Input)>) -> Result<(), crate::columns::Unfit> {
        let TypedTable { entries, hasher, combiner } = self;
        for (key, input) in pairs {
            let mut state = hasher.build_hasher();
            key.feed(&mut state);
            match entries.entry(state.finish(), |entry| key.same(&entry.0), |entry| hash_owned(hasher, &entry.0)) {
                Entry::Occupied(mut entry) => combiner.add(&mut entry.get_mut().1, input),
                Entry::Vacant(entry) => {
                    check_key(&key)?;
                    entry.insert((key.own(), combiner.lift(input)));
                }
            }
        }
        Ok(())
    }
}

fn hash_owned(hasher: &DefaultHashBuilder, key: &impl Columns) -> u64 {
    let mut state = hasher.build_hasher();
    key.feed(&mut state);
    state.finish()
}

impl<K: Columns, C: Combiner> Table for TypedTable<K, C> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn output(&self) -> Arc<dyn Output> {
        Arc::new(TypedOutput::<K, C>::new(self.combiner.clone()))
    }

    fn take(&mut self, shards: u16) -> Option<Box<dyn pipeline::Rows>> {
        let count = self.entries.len();
        if count == 0 {
            return None;
        }
        let mut bytes = Vec::new();
        let mut row = |(key, held): (K, C::Held)| {
            bytes.clear();
            key.encode(&mut bytes);
            BatchRow { shard: Shard::of(hash64(&bytes), shards), key, held }
        };
        let rows = self.entries.drain().map(&mut row).collect();
        if self.entries.capacity() > KEEP_ENTRIES.max(KEEP_FACTOR * count) {
            self.entries = HashTable::with_capacity(count);
        }
        Some(Box::new(Batch { rows }))
    }

    fn clear(&mut self) {
        self.entries.clear();
    }
}
