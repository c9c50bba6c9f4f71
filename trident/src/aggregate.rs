//! Aggregates that combine: counts, sums, extremes, and the user's own.
//!
//! The idea is Trident's `CombinerAggregator`: because the order of combining does not matter, every emitter combines
//! before rows are shuffled, every committer combines what emitters sent, and SQL combines that with what is stored.
//! So the database sees one row per distinct key and batch.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::{Serialize, de::DeserializeOwned};
use tine_core::failure::Failure;
use tine_state::{Column, Combine, Merge, TableRows};

use crate::columns::Columns;

/// How values of one key become one value: an **exactly** associative and commutative operation.
///
/// "Exactly" is the contract: records reach a combiner in an order that no one fixes, cut into parts that no one fixes, and
/// the outcome must be the same bit for bit, or replays differ and the group halts with "non-deterministic operator".
/// Integers, extremes and sets obey it; sums of floating-point numbers don't.
///
/// ```
/// use tine_trident::aggregate::Combiner;
///
/// /// Which of 63 flags a key has ever had.
/// #[derive(Clone, Debug)]
/// struct Flags;
///
/// impl Combiner for Flags {
///     type Input = u8;
///     type Held = i64;
///     type Value = i64;
///     fn lift(&self, flag: u8) -> i64 {
///         1 << flag.min(62)
///     }
///     fn combine(&self, held: &mut i64, other: i64) {
///         *held |= other;
///     }
///     fn store(&self, held: i64) -> Result<i64, String> {
///         Ok(held)
///     }
///     fn load(&self, stored: i64) -> Result<i64, String> {
///         Ok(stored)
///     }
/// }
/// let (mut a, b) = (Flags.lift(0), Flags.lift(2));
/// Flags.combine(&mut a, b);
/// assert_eq!(Flags.store(a), Ok(0b101));
/// ```
pub trait Combiner: Clone + fmt::Debug + Send + Sync + 'static {
    /// What one record contributes.
    type Input;
    /// What is held for a key while a batch is aggregated.
    ///
    /// `serde` takes it to other workers of the same program, so everything that `combine` and `store` look at must go through
    /// it: a field marked `#[serde(skip)]` arrives there as its default, and counts depend on how many workers there are.
    type Held: Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What the table stores: the value columns.
    type Value: Columns;

    /// The first record of a key (Trident's `init`).
    fn lift(&self, input: Self::Input) -> Self::Held;

    /// Two of them (Trident's `combine`).
    fn combine(&self, held: &mut Self::Held, other: Self::Held);

    /// One more record; by default lifted and combined.
    fn add(&self, held: &mut Self::Held, input: Self::Input) {
        self.combine(held, self.lift(input));
    }

    /// What the table gets. `Err` says why no column can hold it (a sum beyond 64 bits): the batch is then poison.
    fn store(&self, held: Self::Held) -> Result<Self::Value, String>;

    /// What was stored, to combine it with more. `Err` when it is nothing that `store` could have written.
    fn load(&self, stored: Self::Value) -> Result<Self::Held, String>;

    /// How SQL itself combines each value column, in order; `None` (the default) has rows read, combined here and
    /// written in one SQL transaction.
    fn merges(&self) -> Option<Vec<Merge>> {
        None
    }
}

/// Counts records.
#[derive(Clone, Copy, Debug)]
pub struct Count;

impl Combiner for Count {
    type Input = ();
    type Held = i64;
    type Value = i64;

    #[inline]
    fn lift(&self, (): ()) -> i64 {
        1
    }

    #[inline]
    fn combine(&self, held: &mut i64, other: i64) {
        *held += other; // no process reads 2^63 records in a batch
    }

    fn store(&self, held: i64) -> Result<i64, String> {
        Ok(held)
    }

    fn load(&self, stored: i64) -> Result<i64, String> {
        Ok(stored)
    }

    fn merges(&self) -> Option<Vec<Merge>> {
        Some(vec![Merge::Add])
    }
}

/// Adds integers up. Held in 128 bits, so that neither order nor parallelism decides whether it fits into 64 at last.
#[derive(Clone, Copy, Debug)]
pub struct Sum;

impl Combiner for Sum {
    type Input = i64;
    type Held = i128;
    type Value = i64;

    #[inline]
    fn lift(&self, input: i64) -> i128 {
        input.into()
    }

    #[inline]
    fn combine(&self, held: &mut i128, other: i128) {
        *held += other;
    }

    fn store(&self, held: i128) -> Result<i64, String> {
        i64::try_from(held).map_err(|_| format!("a sum of {held}, which does not fit into 64 bits"))
    }

    fn load(&self, stored: i64) -> Result<i128, String> {
        Ok(stored.into())
    }

    fn merges(&self) -> Option<Vec<Merge>> {
        Some(vec![Merge::Add])
    }
}

macro_rules! extreme {
    ($(#[$doc:meta])+ $name:ident, $method:ident) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Combiner for $name {
            type Input = i64;
            type Held = i64;
            type Value = i64;

            #[inline]
            fn lift(&self, input: i64) -> i64 {
                input
            }

            #[inline]
            fn combine(&self, held: &mut i64, other: i64) {
                *held = (*held).$method(other);
            }

            fn store(&self, held: i64) -> Result<i64, String> {
                Ok(held)
            }

            fn load(&self, stored: i64) -> Result<i64, String> {
                Ok(stored)
            }

            fn merges(&self) -> Option<Vec<Merge>> {
                Some(vec![Merge::$name])
            }
        }
    };
}

extreme!(
    /// The smallest.
    Min, min
);
extreme!(
    /// The largest.
    Max, max
);

macro_rules! combiners_side_by_side {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Combiner),+> Combiner for ($($name,)+) {
            type Input = ($($name::Input,)+);
            type Held = ($($name::Held,)+);
            type Value = ($($name::Value,)+);

            #[inline]
            fn lift(&self, input: Self::Input) -> Self::Held {
                ($(self.$index.lift(input.$index),)+)
            }

            #[inline]
            fn combine(&self, held: &mut Self::Held, other: Self::Held) {
                $(self.$index.combine(&mut held.$index, other.$index);)+
            }

            #[inline]
            fn add(&self, held: &mut Self::Held, input: Self::Input) {
                $(self.$index.add(&mut held.$index, input.$index);)+
            }

            fn store(&self, held: Self::Held) -> Result<Self::Value, String> {
                Ok(($(self.$index.store(held.$index)?,)+))
            }

            fn load(&self, stored: Self::Value) -> Result<Self::Held, String> {
                Ok(($(self.$index.load(stored.$index)?,)+))
            }

            fn merges(&self) -> Option<Vec<Merge>> {
                Some([$(self.$index.merges()?),+].concat())
            }
        }

        impl<T, $($name: CombinerAggregator<T>),+> CombinerAggregator<T> for ($($name,)+) {
            type Combiner = ($($name::Combiner,)+);

            fn combiner(&self) -> Self::Combiner {
                ($(self.$index.combiner(),)+)
            }

            #[inline]
            fn input(&self, row: &T) -> <Self::Combiner as Combiner>::Input {
                ($(self.$index.input(row),)+)
            }
        }
    };
}

/// A combiner and what each row gives it: what [`Aggregates`] makes and `aggregate` takes, alone or as a tuple of up to four.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate of these rows",
    note = "write `.aggregate(|rows| (rows.count(), rows.sum(|row| …)))`: one aggregate or a tuple of up to four"
)]
pub trait CombinerAggregator<T> {
    /// How contributions become one value.
    type Combiner: Combiner;

    /// The combiner.
    fn combiner(&self) -> Self::Combiner;

    /// What a row contributes.
    fn input(&self, row: &T) -> <Self::Combiner as Combiner>::Input;
}

combiners_side_by_side!(A 0, B 1);
combiners_side_by_side!(A 0, B 1, C 2);
combiners_side_by_side!(A 0, B 1, C 2, D 3);

/// Counts rows: what [`Aggregates::count`] makes.
#[derive(Clone, Copy, Debug)]
pub struct EachRow;

impl<T> CombinerAggregator<T> for EachRow {
    type Combiner = Count;

    fn combiner(&self) -> Count {
        Count
    }

    #[inline]
    fn input(&self, _: &T) {}
}

/// A combiner fed by a function of each row.
#[derive(Clone, Copy, Debug)]
pub struct Of<C, F>(C, F);

impl<T, C: Combiner, F: Fn(&T) -> C::Input> CombinerAggregator<T> for Of<C, F> {
    type Combiner = C;

    fn combiner(&self) -> C {
        self.0.clone()
    }

    #[inline]
    fn input(&self, row: &T) -> C::Input {
        (self.1)(row)
    }
}

/// Makes aggregates over rows of type `T`: what the closure of `aggregate` gets.
pub struct Aggregates<T>(std::marker::PhantomData<fn(&T)>);

impl<T> fmt::Debug for Aggregates<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aggregates")
    }
}

impl<T> Aggregates<T> {
    pub(crate) fn new() -> Aggregates<T> {
        Aggregates(std::marker::PhantomData)
    }

    /// How many rows.
    pub fn count(&self) -> EachRow {
        EachRow
    }

    /// The sum of a 64-bit or smaller integer of each row.
    pub fn sum<N: Into<i64>, F: Fn(&T) -> N>(&self, value: F) -> Of<Sum, impl Fn(&T) -> i64 + use<T, N, F>> {
        self.combine(Sum, move |row: &T| value(row).into())
    }

    /// The smallest.
    pub fn min<N: Into<i64>, F: Fn(&T) -> N>(&self, value: F) -> Of<Min, impl Fn(&T) -> i64 + use<T, N, F>> {
        self.combine(Min, move |row: &T| value(row).into())
    }

    /// The largest.
    pub fn max<N: Into<i64>, F: Fn(&T) -> N>(&self, value: F) -> Of<Max, impl Fn(&T) -> i64 + use<T, N, F>> {
        self.combine(Max, move |row: &T| value(row).into())
    }

    /// A combiner of the user's.
    pub fn combine<C: Combiner, F: Fn(&T) -> C::Input>(&self, combiner: C, input: F) -> Of<C, F> {
        Of(combiner, input)
    }
}

/// Combines new values with stored ones, for combiners that SQL does not know.
#[derive(Debug)]
pub(crate) struct Stored<C> {
    pub(crate) combiner: C,
    pub(crate) place: String,
}

impl<C: Combiner> Stored<C> {
    fn row(&self, rows: &TableRows, stored: Option<&[Column]>, row: usize) -> Result<C::Value, String> {
        let mistyped = || "columns of other types than the combiner's".to_string();
        let new = C::Value::read(&mut rows.values.iter(), row).ok_or_else(mistyped)?;
        let Some(stored) = stored else { return Ok(new) };
        let old = C::Value::read(&mut stored.iter(), row).ok_or_else(mistyped)?;
        let mut held = self.combiner.load(old)?;
        self.combiner.combine(&mut held, self.combiner.load(new)?);
        let value = self.combiner.store(held)?;
        value.check().map_err(|unfit| unfit.to_string())?;
        Ok(value)
    }
}

impl<C: Combiner> Combine for Stored<C> {
    fn combine(&self, rows: &TableRows, present: &[bool], stored: &[Column]) -> Result<Vec<Column>, Failure> {
        let mut build = C::Value::build(rows.len());
        for row in 0..rows.len() {
            let stored = present.get(row).copied().unwrap_or(false).then_some(stored);
            let outcome = catch_unwind(AssertUnwindSafe(|| self.row(rows, stored, row)))
                .unwrap_or_else(|panic| Err(format!("a panic: {}", crate::stage::panic_text(&*panic))));
            let failed = |why| Failure::fatal(format!("{}: key {}: {why}", self.place, rows.show_key(row)));
            outcome.map_err(failed)?.push(&mut build);
        }
        let mut columns = Vec::new();
        C::Value::finish(build, &mut columns);
        Ok(columns)
    }
}
