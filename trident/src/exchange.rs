//! Repartitions a keyed stream between two stages: every key of a batch in one place, once, with its whole value.
//!
//! ```text
//!  Batch (emitter 1) ┐             keys,     ┌─► stage 1.1 ─► Batch for what it feeds
//!  Batch (emitter 2) ├─► combine ─► values ──┼─► stage 1.2 ─► Batch for what it feeds
//!  Batch (emitter 3) ┘             (lent)    └─► states that keep the stream itself
//! ```
//!
//! Rows come with the stable hash of their key and are moved, not copied. A chunk of one sender has each key once, so one
//! chunk alone needs no combining; with several, the rows of the second and later ones are looked up. What a closure sees is
//! borrowed from here: `(&str, i64)` for a count of words.

use std::{
    any::Any,
    fmt,
    hash::{BuildHasher, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};
use tine_core::failure::Failure;

use crate::{
    aggregate::Combiner,
    columns::{Columns, shown},
    fold::{Batch, BatchRow, typed},
    pipeline::{Exchange, ExchangeFactory, GoOn, Rows, Target, Targeted, Witness},
    stage::{
        fused::{Fused, attempt},
        panic_text,
        pipeline::send_to_all,
        scratch::{Scratch, StageError},
    },
};

/// How many rows a closure is given at a time.
const CHUNK: usize = 1024;

/// A stage after a repartition, as `K` and `V` are lent.
pub(crate) type Later<K, V> = Arc<dyn Fused<(<K as Columns>::Lent, <V as Columns>::Lent)>>;

/// What an exchange is made of, while the types of its rows are forgotten.
#[derive(Clone)]
pub(crate) struct ExchangeSpec {
    /// Such as ``stage 1 after source 1 `files` ``: what is repartitioned.
    pub(crate) place: String,
    /// The states that keep its rows.
    pub(crate) states: Vec<Target>,
    /// The stages after it.
    pub(crate) stages: Vec<LaterSpec>,
}

/// A stage after a repartition.
#[derive(Clone)]
pub(crate) struct LaterSpec {
    /// A [`Later`].
    pub(crate) closure: Arc<dyn Any + Send + Sync>,
    /// Such as ``stage 1.1 after source 1 `files` ``.
    pub(crate) place: String,
    /// Where its rows go.
    pub(crate) targets: Vec<Target>,
}

impl ExchangeSpec {
    /// With its types; `None` when a stage was made for others.
    pub(crate) fn factory<K: Columns, C: Combiner>(self, combiner: C) -> Option<ExchangeFactory> {
        let make = move || {
            let slots: Option<Vec<_>> = self.stages.iter().map(LaterSpec::slot::<K, C::Value>).collect();
            Some(TypedExchange::<K, C> {
                place: self.place.clone(),
                combiner: combiner.clone(),
                states: self.states.clone(),
                slots: slots?,
                hasher: DefaultHashBuilder::default(),
            })
        };
        make()?;
        Some(Arc::new(move || Box::new(make().expect("it could be made before")) as Box<dyn Exchange>))
    }
}

impl LaterSpec {
    fn slot<K: Columns, V: Columns>(&self) -> Option<Slot<K, V>> {
        let fused = self.closure.downcast_ref::<Later<K, V>>()?.clone();
        let (place, targets) = (self.place.clone(), self.targets.clone());
        Some(Slot { fused, place, targets, scratch: Scratch::default(), table: None })
    }
}

/// A stage after the repartition, with its memory.
struct Slot<K: Columns, V: Columns> {
    fused: Later<K, V>,
    place: String,
    targets: Vec<Target>,
    scratch: Scratch,
    /// Which of the scratch's tables the stage ended in.
    table: Option<usize>,
}

/// An exchange with its types.
struct TypedExchange<K: Columns, C: Combiner> {
    place: String,
    combiner: C,
    states: Vec<Target>,
    slots: Vec<Slot<K, C::Value>>,
    hasher: DefaultHashBuilder,
}

impl<K: Columns, C: Combiner> fmt::Debug for TypedExchange<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({})", self.place)
    }
}

type BatchRows<K, C> = Vec<BatchRow<K, <C as Combiner>::Held>>;

impl<K: Columns, C: Combiner> Exchange for TypedExchange<K, C> {
    fn run(&mut self, parts: Vec<Box<dyn Rows>>, go_on: GoOn<'_>) -> Result<Targeted, Failure> {
        let outcome = self.combine_and_run(parts, go_on);
        if outcome.is_err() {
            self.slots.iter().for_each(|slot| slot.scratch.clear());
        }
        outcome
    }

    fn observe(&mut self, witness: &Arc<dyn Witness>) {
        self.slots.iter_mut().for_each(|slot| slot.scratch.observe(&slot.place, witness));
    }
}

impl<K: Columns, C: Combiner> TypedExchange<K, C> {
    fn combine_and_run(&mut self, parts: Vec<Box<dyn Rows>>, go_on: GoOn<'_>) -> Result<Targeted, Failure> {
        // Closures of stages catch their own panics; here it is the combiner's functions that may.
        let combined = catch_unwind(AssertUnwindSafe(|| {
            let rows = self.combine(parts, go_on)?;
            let values = self.values(&rows)?;
            Ok((rows, values))
        }));
        let (rows, values) = combined.unwrap_or_else(|panic| {
            Err(Failure::poison(format!("{}: a panic in its combiner: {}", self.place, panic_text(&*panic))))
        })?;
        let chunks = rows.chunks(CHUNK).zip(values.chunks(CHUNK));
        for (rows, values) in chunks {
            go_on()?;
            self.slots.iter_mut().try_for_each(|slot| slot.run(rows, values))?;
        }
        let mut out = Vec::new();
        for slot in &mut self.slots {
            if let Some(rows) = slot.table.and_then(|table| slot.scratch.take(table)) {
                send_to_all(&slot.targets, rows, &mut out);
            }
        }
        if !rows.is_empty() {
            send_to_all(&self.states, Box::new(Batch { rows }), &mut out);
        }
        Ok(out)
    }

    /// All rows, each key once, in the order in which the keys come in the parts.
    fn combine(&self, parts: Vec<Box<dyn Rows>>, go_on: GoOn<'_>) -> Result<BatchRows<K, C>, Failure> {
        let count = parts.iter().map(|part| part.count()).sum();
        let mut parts = parts.into_iter().map(|part| self.typed(part));
        let Some(first) = parts.next() else { return Ok(Vec::new()) };
        let mut rows = first?;
        if rows.len() == count {
            return Ok(rows);
        }
        let mut places = HashTable::with_capacity(count);
        for (place, row) in rows.iter().enumerate() {
            // The keys of one chunk differ: nothing to compare.
            places.insert_unique(self.hash(&row.key), narrow(place), |at| self.hash(&rows[*at as usize].key));
        }
        for part in parts {
            go_on()?;
            for row in part? {
                let same = |at: &u32| rows[*at as usize].hash == row.hash && rows[*at as usize].key == row.key;
                let hash = |at: &u32| self.hash(&rows[*at as usize].key);
                match places.entry(self.hash(&row.key), same, hash) {
                    Entry::Occupied(at) => self.combiner.combine(&mut rows[*at.get() as usize].held, row.held),
                    Entry::Vacant(place) => {
                        place.insert(narrow(rows.len()));
                        rows.push(row);
                    }
                }
            }
        }
        Ok(rows)
    }

    /// By a seed of this process: keys that share a stable hash, which anybody can make, must not share a place too.
    fn hash(&self, key: &K) -> u64 {
        let mut state = self.hasher.build_hasher();
        key.feed(&mut state);
        state.finish()
    }

    fn typed(&self, part: Box<dyn Rows>) -> Result<BatchRows<K, C>, Failure> {
        typed(part)?.ok_or_else(|| Failure::fatal(format!("{}: got rows of another exchange", self.place)))
    }

    /// The value of each row, as a table would store it.
    fn values(&self, rows: &[BatchRow<K, C::Held>]) -> Result<Vec<C::Value>, Failure> {
        let value = |row: &BatchRow<K, C::Held>| {
            let failed = |why| Failure::poison(format!("{}: key {}: {why}", self.place, shown(&row.key)));
            self.combiner.store(row.held.clone()).map_err(failed)
        };
        rows.iter().map(value).collect()
    }
}

fn narrow(place: usize) -> u32 {
    u32::try_from(place).expect("a batch has fewer than 2^32 rows")
}

impl<K: Columns, V: Columns> Slot<K, V> {
    fn run<H>(&mut self, rows: &[BatchRow<K, H>], values: &[V]) -> Result<(), Failure> {
        let lent = rows.iter().zip(values).map(|(row, value)| (row.key.lend(), value.lend())).collect();
        match attempt(&*self.fused, lent, &self.scratch) {
            Ok(table) => {
                self.table = Some(table);
                Ok(())
            }
            Err(error) => Err(self.offender(rows, values, error)),
        }
    }

    /// Runs the rows of a chunk that failed again, one by one against an empty memory, to name the offending one.
    fn offender<H>(&self, rows: &[BatchRow<K, H>], values: &[V], error: StageError) -> Failure {
        let probe = Scratch::default();
        for (row, value) in rows.iter().zip(values) {
            if let Err(error) = attempt(&*self.fused, vec![(row.key.lend(), value.lend())], &probe) {
                return self.poison(&format!("key {} with {}", shown(&row.key), shown(value)), &error);
            }
        }
        self.poison(&format!("one of {} keys", rows.len()), &error)
    }

    fn poison(&self, which: &str, StageError { operator, why, .. }: &StageError) -> Failure {
        Failure::poison(format!(
            "{which}: {}, {operator}: {why}; correct the function: the row is made of many records, so no policy can leave \
             it out",
            self.place
        ))
    }
}

#[cfg(test)]
mod tests;
