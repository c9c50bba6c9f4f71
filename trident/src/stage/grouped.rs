//! Grouped rows, and the aggregates that end a stage.

use std::{fmt, marker::PhantomData};

use super::scratch::Scratch;
use crate::{
    aggregate::{Aggregates, Combiner, CombinerAggregator},
    key::{Key, check_key},
};

/// The rows of a chunk, grouped by a key. `T` are the rows, `F` the function that takes the key out of them.
pub struct Grouped<'b, T, F> {
    rows: Vec<T>,
    key: F,
    scratch: &'b Scratch,
}

/// What a stage ends in: values of type `V` by keys of type `K`, in the batch's memory. Free of the fetch buffer.
#[must_use = "a stage closure returns what it aggregated"]
pub struct Partial<K, V> {
    pub(crate) table: usize,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> fmt::Debug for Partial<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partial({})", self.table)
    }
}

impl<'b, T, F> Grouped<'b, T, F> {
    pub(crate) fn new(rows: Vec<T>, key: F, scratch: &'b Scratch) -> Grouped<'b, T, F> {
        Grouped { rows, key, scratch }
    }

    /// How many rows each key has.
    pub fn count<K: Key>(self) -> Partial<K::Owned, i64>
    where
        F: Fn(T) -> K,
    {
        self.scratch.enter("count");
        let aggregator = Aggregates::<T>::new().count();
        self.into_table(&aggregator)
    }

    /// The sum of an integer of each row. Sums of a batch are held in 128 bits; one that does not fit into 64 is an
    /// error that names the key, never a wrap.
    pub fn sum<K: Key, N: Into<i64>>(self, value: impl Fn(&T) -> N) -> Partial<K::Owned, i64>
    where
        F: Fn(T) -> K,
    {
        self.scratch.enter("sum");
        let aggregator = Aggregates::<T>::new().sum(value);
        self.into_table(&aggregator)
    }

    /// The smallest integer of each group.
    pub fn min<K: Key, N: Into<i64>>(self, value: impl Fn(&T) -> N) -> Partial<K::Owned, i64>
    where
        F: Fn(T) -> K,
    {
        self.scratch.enter("min");
        let aggregator = Aggregates::<T>::new().min(value);
        self.into_table(&aggregator)
    }

    /// The largest integer of each group.
    pub fn max<K: Key, N: Into<i64>>(self, value: impl Fn(&T) -> N) -> Partial<K::Owned, i64>
    where
        F: Fn(T) -> K,
    {
        self.scratch.enter("max");
        let aggregator = Aggregates::<T>::new().max(value);
        self.into_table(&aggregator)
    }

    /// A [`Combiner`] of the user's, fed by a function of each row.
    pub fn combine<K: Key, C: Combiner>(
        self,
        combiner: C,
        input: impl Fn(&T) -> C::Input,
    ) -> Partial<K::Owned, C::Value>
    where
        F: Fn(T) -> K,
    {
        self.scratch.enter("combine");
        let aggregator = Aggregates::<T>::new().combine(combiner, input);
        self.into_table(&aggregator)
    }

    /// One aggregate, or several side by side: each becomes a value column. Trident's `chainedAgg`.
    ///
    /// ```
    /// use tine_trident::{
    ///     key::CompactString,
    ///     stage::{Partial, Rows},
    /// };
    ///
    /// #[derive(Debug)]
    /// struct Sale<'b> {
    ///     user: &'b str,
    ///     cents: i64,
    /// }
    ///
    /// fn by_user<'b>(sales: Rows<'b, Sale<'b>>) -> Partial<CompactString, (i64, i64)> {
    ///     sales.group_by(|sale| sale.user).aggregate(|sales| (sales.count(), sales.sum(|sale| sale.cents)))
    /// }
    /// ```
    pub fn aggregate<K: Key, A: CombinerAggregator<T>>(
        self,
        aggregates: impl Fn(Aggregates<T>) -> A,
    ) -> Partial<K::Owned, <A::Combiner as Combiner>::Value>
    where
        F: Fn(T) -> K,
    {
        self.scratch.enter("aggregate");
        let aggregator = aggregates(Aggregates::new());
        self.into_table(&aggregator)
    }

    /// Runs all closures of the user's for all rows, then aggregates: nothing of the user's can fail in between.
    fn into_table<K: Key, A: CombinerAggregator<T>>(
        self,
        aggregator: &A,
    ) -> Partial<K::Owned, <A::Combiner as Combiner>::Value>
    where
        F: Fn(T) -> K,
    {
        let key = self.key;
        // The input is read first, so that the key may consume the row.
        let pair = |row: T| {
            let input = aggregator.input(&row);
            (key(row), input)
        };
        let pairs: Vec<_> = self.rows.into_iter().map(pair).collect();
        if self.scratch.is_observed() {
            // The aggregate was entered last; the grouping came before it.
            self.scratch.made(self.scratch.steps().saturating_sub(2), pairs.iter().map(|(key, _)| key));
        }
        if self.scratch.is_careful()
            && let Some(unfit) = pairs.iter().find_map(|(key, _)| check_key(key).err())
        {
            self.scratch.fail(&unfit);
        }
        Partial { table: self.scratch.contribute(aggregator.combiner(), pairs), types: PhantomData }
    }
}

impl<T, F> fmt::Debug for Grouped<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grouped({})", self.rows.len())
    }
}
