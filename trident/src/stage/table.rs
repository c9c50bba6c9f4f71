//! A batch's aggregates of one stage: by key, in the order in which the keys were met.
//!
//! The rows lie in a vector that leaves by pointer when the batch ends; beside it a hash table of their places. So nothing is
//! moved per row, and the order of rows follows from the order of records, not from a hasher's seed.

use std::{
    any::Any,
    hash::{BuildHasher, Hasher},
    mem,
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashTable};
use tine_core::hash::hash64;

use crate::{
    aggregate::Combiner,
    columns::{Columns, Unfit},
    fold::{Batch, BatchRow, Output, TypedOutput},
    key::{Key, check_key},
    pipeline,
};

/// Tables that are much larger than what the last batch filled are given back.
const KEEP_FACTOR: usize = 8;
/// … unless they are small anyway.
const KEEP_ENTRIES: usize = 4096;

/// A table whose types are forgotten, once per chunk.
pub(super) trait Table: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn output(&self) -> Arc<dyn Output>;
    /// Empties it: the rows with their stable hashes; `None` when there are none.
    fn take(&mut self) -> Option<Box<dyn pipeline::Rows>>;
    fn clear(&mut self);
}

pub(super) struct TypedTable<K, C: Combiner> {
    /// While a row lies here, its hash is that of this process's hasher.
    rows: Vec<BatchRow<K, C::Held>>,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    combiner: C,
}

impl<K: Columns, C: Combiner> TypedTable<K, C> {
    pub(super) fn new(combiner: C) -> TypedTable<K, C> {
        TypedTable { rows: Vec::new(), places: HashTable::new(), hasher: DefaultHashBuilder::default(), combiner }
    }

    /// Errors when a new key cannot be stored; pairs before it have contributed.
    pub(super) fn add<Q: Key<Owned = K>>(&mut self, pairs: Vec<(Q, C::Input)>) -> Result<(), Unfit> {
        let TypedTable { rows, places, hasher, combiner } = self;
        for (key, input) in pairs {
            let mut state = hasher.build_hasher();
            key.feed(&mut state);
            let hash = state.finish();
            match places.find(hash, |at| key.same(&rows[*at as usize].key)) {
                Some(at) => combiner.add(&mut rows[*at as usize].held, input),
                None => insert(rows, places, hash, key, combiner.lift(input))?,
            }
        }
        Ok(())
    }
}

/// Adds a key that is not there. Apart from the loop, which is short without it.
#[cold]
#[inline(never)]
fn insert<Q: Key, H>(
    rows: &mut Vec<BatchRow<Q::Owned, H>>,
    places: &mut HashTable<u32>,
    hash: u64,
    key: Q,
    held: H,
) -> Result<(), Unfit> {
    check_key(&key)?;
    let place = u32::try_from(rows.len()).expect("a batch has fewer than 2^32 rows");
    places.insert_unique(hash, place, |at| rows[*at as usize].hash);
    rows.push(BatchRow { hash, key: key.own(), held });
    Ok(())
}

impl<K: Columns, C: Combiner> Table for TypedTable<K, C> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn output(&self) -> Arc<dyn Output> {
        Arc::new(TypedOutput::<K, C>::new(self.combiner.clone()))
    }

    fn take(&mut self) -> Option<Box<dyn pipeline::Rows>> {
        let count = self.rows.len();
        if count == 0 {
            return None;
        }
        self.places.clear();
        if self.places.capacity() > KEEP_ENTRIES.max(KEEP_FACTOR * count) {
            self.places = HashTable::with_capacity(count);
        }
        let mut rows = mem::replace(&mut self.rows, Vec::with_capacity(count));
        let mut bytes = Vec::new();
        for row in &mut rows {
            bytes.clear();
            row.key.encode(&mut bytes);
            row.hash = hash64(&bytes);
        }
        Some(Box::new(Batch { rows }))
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.places.clear();
    }
}
