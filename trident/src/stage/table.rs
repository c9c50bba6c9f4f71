//! A batch's aggregates of one stage: by key, in the order in which the keys were met.
//!
//! The rows lie in a vector, and beside it a hash table of their places: the order of rows follows from the order of records,
//! not from a hasher's seed. A look-up touches a place and a row, so rows are kept small; hashes, which only growing needs, lie
//! apart.

use std::{
    any::Any,
    hash::{BuildHasher, Hasher},
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
    rows: Vec<(K, C::Held)>,
    /// Of each row, by this process's hasher.
    hashes: Vec<u64>,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    combiner: C,
}

impl<K: Columns, C: Combiner> TypedTable<K, C> {
    pub(super) fn new(combiner: C) -> TypedTable<K, C> {
        TypedTable {
            rows: Vec::new(),
            hashes: Vec::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            combiner,
        }
    }

    /// Errors when a new key cannot be stored; pairs before it have contributed.
    pub(super) fn add<Q: Key<Owned = K>>(&mut self, pairs: Vec<(Q, C::Input)>) -> Result<(), Unfit> {
        for (key, input) in pairs {
            let mut state = self.hasher.build_hasher();
            key.feed(&mut state);
            let hash = state.finish();
            match self.places.find(hash, |at| key.same(&self.rows[*at as usize].0)) {
                Some(at) => self.combiner.add(&mut self.rows[*at as usize].1, input),
                None => self.insert(hash, key, input)?,
            }
        }
        Ok(())
    }

    /// Adds a key that is not there. Apart from the loop, which is short without it.
    #[cold]
    #[inline(never)]
    fn insert<Q: Key<Owned = K>>(&mut self, hash: u64, key: Q, input: C::Input) -> Result<(), Unfit> {
        check_key(&key)?;
        // The user's function may panic: nothing names the row before it is there.
        self.rows.push((key.own(), self.combiner.lift(input)));
        let place = u32::try_from(self.hashes.len()).expect("a batch has fewer than 2^32 rows");
        self.hashes.push(hash);
        self.places.insert_unique(hash, place, |at| self.hashes[*at as usize]);
        Ok(())
    }
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
        let mut bytes = Vec::new();
        let rows = self.rows.drain(..).map(|(key, held)| {
            bytes.clear();
            key.encode(&mut bytes);
            BatchRow { hash: hash64(&bytes), key, held }
        });
        let rows = rows.collect();
        self.clear();
        let kept = KEEP_ENTRIES.max(KEEP_FACTOR * count);
        if self.places.capacity() > kept {
            (self.rows, self.hashes, self.places) =
                (Vec::with_capacity(count), Vec::with_capacity(count), HashTable::with_capacity(count));
        }
        Some(Box::new(Batch { rows }))
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.hashes.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Adds up, and panics at a 7.
    #[derive(Clone, Debug)]
    struct Fussy;

    impl Combiner for Fussy {
        type Input = i64;
        type Held = i64;
        type Value = i64;

        fn lift(&self, input: i64) -> i64 {
            assert_ne!(input, 7);
            input
        }

        fn combine(&self, held: &mut i64, other: i64) {
            *held += other;
        }

        fn store(&self, held: i64) -> Result<i64, String> {
            Ok(held)
        }

        fn load(&self, stored: i64) -> Result<i64, String> {
            Ok(stored)
        }
    }

    #[test]
    fn a_key_whose_first_record_makes_the_users_function_panic_is_met_for_the_first_time_by_the_next_one() {
        let mut table = TypedTable::<i64, Fussy>::new(Fussy);
        table.add(vec![(1i64, 3)]).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| table.add(vec![(2i64, 7)]))).is_err());
        table.add(vec![(2i64, 4), (1, 1), (2, 1)]).unwrap();
        let rows: Vec<String> = table.take().unwrap().shown();
        assert_eq!(rows, ["1: 4", "2: 5"]);
    }
}
