//! The rows of one chunk inside a stage, and the operators on them.

use std::fmt;

use super::{grouped::Grouped, scratch::Scratch};
use crate::key::Key;

/// The rows of one chunk inside a stage closure; `'b` is the fetch buffer that they may borrow from.
///
/// `T` is any type that can be shown to people (`Debug`): `&'b str`, a struct of borrowed fields, an owned value. Operators
/// keep the order of rows and must be pure: a batch that is replayed runs them again, and must find the same. A test can look
/// whether they are (`tine::sim`, `deterministic`); that is what rows are `Debug` for.
///
/// ```
/// use tine_trident::stage::Rows;
///
/// // Helpers are ordinary functions.
/// fn words<'b>(lines: Rows<'b, &'b str>) -> Rows<'b, &'b str> {
///     lines.flat_map(|line| line.split_whitespace()).filter(|word| word.len() > 2)
/// }
/// ```
pub struct Rows<'b, T> {
    rows: Vec<T>,
    scratch: &'b Scratch,
}

impl<'b, T> Rows<'b, T> {
    pub(crate) fn new(rows: Vec<T>, scratch: &'b Scratch) -> Rows<'b, T> {
        Rows { rows, scratch }
    }

    /// What an operator has made.
    fn made(step: usize, rows: Vec<T>, scratch: &'b Scratch) -> Rows<'b, T>
    where
        T: fmt::Debug,
    {
        scratch.made(step, &rows);
        Rows { rows, scratch }
    }

    /// Each row becomes another.
    pub fn map<U: fmt::Debug>(self, f: impl Fn(T) -> U) -> Rows<'b, U> {
        let step = self.scratch.enter("map");
        Rows::made(step, self.rows.into_iter().map(f).collect(), self.scratch)
    }

    /// Each row becomes any number of rows.
    pub fn flat_map<I: IntoIterator<Item: fmt::Debug>>(self, f: impl Fn(T) -> I) -> Rows<'b, I::Item> {
        let step = self.scratch.enter("flat_map");
        let mut rows = Vec::with_capacity(self.scratch.widest(step, 0));
        self.rows.into_iter().for_each(|row| rows.extend(f(row)));
        self.scratch.widest(step, rows.len());
        Rows::made(step, rows, self.scratch)
    }

    /// Keeps the rows that `f` accepts.
    pub fn filter(mut self, f: impl Fn(&T) -> bool) -> Rows<'b, T>
    where
        T: fmt::Debug,
    {
        let step = self.scratch.enter("filter");
        self.rows.retain(f);
        Rows::made(step, self.rows, self.scratch)
    }

    /// Each row becomes another, or its record is an error: the stream's policy decides
    /// ([`Stream::on_error`](crate::stream::Stream::on_error)).
    ///
    /// ```
    /// use tine_trident::stage::Rows;
    ///
    /// fn cents<'b>(lines: Rows<'b, &'b str>) -> Rows<'b, i64> {
    ///     lines.try_map(|line| line.parse())
    /// }
    /// ```
    pub fn try_map<U: fmt::Debug, E: fmt::Display>(self, f: impl Fn(T) -> Result<U, E>) -> Rows<'b, U> {
        let step = self.scratch.enter("try_map");
        let rows: Result<Vec<U>, E> = self.rows.into_iter().map(f).collect();
        Rows::made(step, self.scratch.or_failed(rows), self.scratch)
    }

    /// Each row becomes any number of rows, or its record is an error: the stream's policy decides.
    pub fn try_flat_map<I, E>(self, f: impl Fn(T) -> Result<I, E>) -> Rows<'b, I::Item>
    where
        I: IntoIterator<Item: fmt::Debug>,
        E: fmt::Display,
    {
        let step = self.scratch.enter("try_flat_map");
        let mut rows = Vec::with_capacity(self.scratch.widest(step, 0));
        let outcome = self.rows.into_iter().try_for_each(|row| f(row).map(|more| rows.extend(more)));
        self.scratch.widest(step, rows.len());
        Rows::made(step, self.scratch.or_failed(outcome.map(|()| rows)), self.scratch)
    }

    /// Groups rows by a key; what follows aggregates each group. Trident's `groupBy`.
    ///
    /// The key may borrow from the row's buffer: it is owned only when it is new in the batch. A key that no column can
    /// hold (a NUL in a text, more than [`KEY_BYTES_MAX`](crate::key::KEY_BYTES_MAX) bytes) makes its record an error.
    pub fn group_by<K: Key, F: Fn(T) -> K>(self, key: F) -> Grouped<'b, T, F> {
        self.scratch.enter("group_by");
        Grouped::new(self.rows, key, self.scratch)
    }
}

impl<T> fmt::Debug for Rows<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows({})", self.rows.len())
    }
}
