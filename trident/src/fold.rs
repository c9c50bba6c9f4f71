//! Merges what the pipelines of all emitters made of a transaction: typed rows behind the erased seam.
//!
//! ```text
//!  Batch (emitter 1) ┐
//!  Batch (emitter 2) ├─► canonical bytes ─► sort ─► combine equal keys ─► check ─► digests and columns
//!  Batch (emitter 3) ┘
//! ```
//!
//! The outcome is a function of the *set* of records: keys come out in the order of their canonical bytes, equal keys
//! are combined by an associative and commutative combiner, and digests are sums. Cutting the same records into other
//! chunks, or giving them to more emitters, changes nothing.

mod sort;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use tine_core::{failure::Failure, hash::Hash128, id::Shard};
use tine_state::{ColumnType, Digest, Merge, TableRows};

use crate::{
    aggregate::{Combiner, Stored},
    columns::{Columns, Unfit, kinds, shown},
    exchange::ExchangeSpec,
    key::KEY_BYTES_MAX,
    packed::Packed,
    pipeline::{ExchangeFactory, Fold, Folded, Rows},
};

/// A row on its way between tasks.
#[derive(Clone, Debug)]
pub(crate) struct BatchRow<K, H> {
    /// The stable hash that routes it: of the key's canonical bytes, worked out once.
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) held: H,
}

/// A chunk of them: what a task made of its part of a batch, or the part of that which another task owns.
#[derive(Clone)]
pub(crate) struct Batch<K, H> {
    pub(crate) rows: Vec<BatchRow<K, H>>,
}

impl<K, H> fmt::Debug for Batch<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} rows)", self.rows.len())
    }
}

/// The rows of a chunk, out of its bytes if it comes from another process; `None` when they are of other types.
pub(crate) fn typed<K: Columns, H: DeserializeOwned + Send + 'static>(
    part: Box<dyn Rows>,
) -> Result<Option<Vec<BatchRow<K, H>>>, Failure> {
    let part = match part.into_any().downcast::<Batch<K, H>>() {
        Ok(batch) => return Ok(Some(batch.rows)),
        Err(other) => other,
    };
    part.downcast::<Packed>().ok().map(|packed| packed.unpack()).transpose()
}

impl<K: Columns, H: Clone + fmt::Debug + Serialize + Send + Sync + 'static> Rows for Batch<K, H> {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn split(self: Box<Self>, owner: &[usize], tasks: usize) -> Vec<Box<dyn Rows>> {
        if tasks == 1 {
            return vec![self];
        }
        let shards = u16::try_from(owner.len()).expect("no state has more than 4,096 shards");
        let task_of = |row: &BatchRow<K, H>| owner[usize::from(Shard::of(row.hash, shards).0)];
        let mut counts = vec![0; tasks];
        self.rows.iter().for_each(|row| counts[task_of(row)] += 1);
        let mut parts: Vec<Vec<BatchRow<K, H>>> = counts.into_iter().map(Vec::with_capacity).collect();
        for row in self.rows {
            let task = task_of(&row);
            parts[task].push(row);
        }
        parts.into_iter().map(|rows| Box::new(Batch { rows }) as Box<dyn Rows>).collect()
    }

    fn pack(&self) -> Result<Vec<Packed>, Failure> {
        Packed::pack(&self.rows)
    }

    fn boxed_clone(&self) -> Box<dyn Rows> {
        Box::new(self.clone())
    }

    fn shown(&self) -> Vec<String> {
        self.rows.iter().map(|row| format!("{:?}: {:?}", row.key, row.held)).collect()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// What a stage ends in, for the planner: columns, and how to merge them.
pub(crate) trait Output: fmt::Debug + Send + Sync {
    /// Types of the key columns.
    fn keys(&self) -> Vec<ColumnType>;
    /// Types of the value columns.
    fn values(&self) -> Vec<ColumnType>;
    /// How SQL combines each value column; `None` when it cannot.
    fn merges(&self) -> Option<Vec<Merge>>;
    /// The fold of a state; `place` names it in messages.
    fn fold(&self, place: &str, shards: u16) -> Arc<dyn Fold>;
    /// What repartitions it; `None` when a stage after it was made for rows of other types.
    fn exchange(&self, exchange: ExchangeSpec) -> Option<ExchangeFactory>;
}

/// An [`Output`] with its types.
pub(crate) struct TypedOutput<K, C> {
    combiner: C,
    types: PhantomData<fn() -> K>,
}

impl<K, C> TypedOutput<K, C> {
    pub(crate) fn new(combiner: C) -> TypedOutput<K, C> {
        TypedOutput { combiner, types: PhantomData }
    }
}

impl<K, C: fmt::Debug> fmt::Debug for TypedOutput<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({:?})", self.combiner)
    }
}

impl<K: Columns, C: Combiner> Output for TypedOutput<K, C> {
    fn keys(&self) -> Vec<ColumnType> {
        kinds::<K>()
    }

    fn values(&self) -> Vec<ColumnType> {
        kinds::<C::Value>()
    }

    fn merges(&self) -> Option<Vec<Merge>> {
        self.combiner.merges()
    }

    fn fold(&self, place: &str, shards: u16) -> Arc<dyn Fold> {
        let stored = || Stored { combiner: self.combiner.clone(), place: place.to_string() };
        let combine = match self.combiner.merges() {
            Some(_) => None,
            None => Some(Arc::new(stored()) as Arc<dyn tine_state::Combine>),
        };
        let combiner = self.combiner.clone();
        Arc::new(TypedFold::<K, C> { place: place.to_string(), shards, combiner, combine, types: PhantomData })
    }

    fn exchange(&self, exchange: ExchangeSpec) -> Option<ExchangeFactory> {
        exchange.factory::<K, C>(self.combiner.clone())
    }
}

/// A fold with its types.
struct TypedFold<K, C> {
    place: String,
    shards: u16,
    combiner: C,
    combine: Option<Arc<dyn tine_state::Combine>>,
    types: PhantomData<fn() -> K>,
}

impl<K, C> fmt::Debug for TypedFold<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fold({})", self.place)
    }
}

impl<K: Columns, C: Combiner> Fold for TypedFold<K, C> {
    fn fold(&self, parts: Vec<Box<dyn Rows>>) -> Result<Folded, Failure> {
        let rows = self.concatenate(parts)?;
        match catch_unwind(AssertUnwindSafe(|| self.merge(rows))) {
            Ok(outcome) => outcome,
            Err(panic) => Err(Failure::poison(format!(
                "{}: a panic in its combiner: {}",
                self.place,
                crate::stage::panic_text(&*panic)
            ))),
        }
    }
}

/// The key columns, value columns and digests of a fold as they grow.
struct Columnar<K: Columns, V: Columns> {
    keys: K::Build,
    values: V::Build,
    shards: Vec<Shard>,
    digests: Vec<Digest>,
    /// Canonical bytes of one row, to be hashed.
    bytes: Vec<u8>,
}

impl<K: Columns, C: Combiner> TypedFold<K, C> {
    fn concatenate(&self, parts: Vec<Box<dyn Rows>>) -> Result<Vec<BatchRow<K, C::Held>>, Failure> {
        let count: usize = parts.iter().map(|part| part.count()).sum();
        let mut all: Vec<BatchRow<K, C::Held>> = Vec::new();
        for part in parts {
            let other = || Failure::fatal(format!("{}: got rows of another state", self.place));
            let mut rows = typed(part)?.ok_or_else(other)?;
            match all.is_empty() {
                true => all = rows,
                false => all.append(&mut rows),
            }
            all.reserve_exact(count - all.len());
        }
        Ok(all)
    }

    /// Sorts, combines, checks, digests and lays out.
    fn merge(&self, rows: Vec<BatchRow<K, C::Held>>) -> Result<Folded, Failure> {
        let keys = self.canonical(&rows)?;
        let sorted = keys.sorted();
        let groups = sorted.groups();
        // `Some` until a row is taken; rows are taken in the order of their keys.
        let mut rows: Vec<Option<BatchRow<K, C::Held>>> = rows.into_iter().map(Some).collect();
        let mut out = Columnar::<K, C::Value> {
            keys: K::build(groups.len()),
            values: C::Value::build(groups.len()),
            shards: Vec::with_capacity(groups.len()),
            digests: vec![Digest::default(); usize::from(self.shards)],
            bytes: Vec::new(),
        };
        for group in groups {
            let mut taken = group.iter().map(|index| rows[*index as usize].take().expect("each row is in one group"));
            let mut row = taken.next().expect("no group is empty");
            taken.for_each(|other| self.combiner.combine(&mut row.held, other.held));
            self.lay_out(row, keys.get(group[0]), &mut out)?;
        }
        Ok(self.folded(out))
    }

    /// Canonical bytes of all keys, checked.
    fn canonical(&self, rows: &[BatchRow<K, C::Held>]) -> Result<sort::Keys, Failure> {
        let mut keys = sort::Keys::with_capacity(rows.len());
        for row in rows {
            let bytes = keys.push(|arena| row.key.encode(arena));
            // Canonical bytes are never fewer than the key's own.
            let too_long = bytes > KEY_BYTES_MAX && row.key.size() > KEY_BYTES_MAX;
            let unfit = if too_long { Err(Unfit::TooLong { bytes: row.key.size() }) } else { row.key.check() };
            unfit.map_err(|unfit| self.poison(&row.key, &unfit))?;
        }
        Ok(keys)
    }

    fn lay_out(&self, row: BatchRow<K, C::Held>, key: &[u8], out: &mut Columnar<K, C::Value>) -> Result<(), Failure> {
        let value = self.combiner.store(row.held).map_err(|why| self.poison(&row.key, &why))?;
        value.check().map_err(|unfit| self.poison(&row.key, &unfit))?;
        out.bytes.clear();
        out.bytes.extend_from_slice(key);
        value.encode(&mut out.bytes);
        let shard = Shard::of(row.hash, self.shards);
        out.digests[usize::from(shard.0)].add(Hash128::of(&out.bytes));
        out.shards.push(shard);
        row.key.push(&mut out.keys);
        value.push(&mut out.values);
        Ok(())
    }

    fn folded(&self, out: Columnar<K, C::Value>) -> Folded {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        K::finish(out.keys, &mut keys);
        C::Value::finish(out.values, &mut values);
        let shards = (0..self.shards).map(Shard);
        let digests = shards.zip(out.digests).filter(|(_, digest)| digest.count > 0).collect();
        Folded { rows: TableRows { keys, values, shards: out.shards, combine: self.combine.clone() }, digests }
    }

    fn poison(&self, key: &K, why: &impl fmt::Display) -> Failure {
        Failure::poison(format!("{}: key {}: {why}", self.place, shown(key)))
    }
}
