//! Stages: what happens to borrowed rows between a source and the first repartition, or between two repartitions.
//!
//! A stage is a closure over [`Rows`]: it is called once for each chunk of records, so its operators are loops over a
//! chunk, compiled together with the user's closures, and rows borrow from the fetch buffer. The closure ends in a
//! [`Partial`]: which table of the batch's memory the rows were aggregated into. No row can leave it.
//!
//! ```text
//!  records ──decode──► Rows ──map, flat_map, filter──► Rows ──group_by──► Grouped ──count, sum, …──► Partial
//! ```
//!
//! A chunk either contributes wholly or not at all: the closures of `group_by` and of the aggregate run for all rows of a
//! chunk before the first one reaches the table. So when a user's function fails, the chunk can be run again without
//! the offending record ([`pipeline`]).

pub(crate) mod fused;
mod grouped;
pub(crate) mod pipeline;
mod rows;
pub(crate) mod scratch;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use grouped::{Grouped, Partial};
pub use rows::Rows;

use std::any::Any;

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
