//! A tuple as a bolt gets it: the value, and the receipt that says whom it came from and who waits for it.

use std::{cell::RefCell, fmt, num::NonZeroU32, ops::Deref};

use crate::{engine::lineage::Lineage, id::TaskId, tuple::Root};

/// A tuple that a bolt holds until it acks or fails it.
///
/// Both take it by value, so it cannot be acked twice. One that is dropped without either leaves its trees to time out.
pub struct Input<T> {
    /// What it says.
    pub value: T,
    /// Needed to anchor to it, and to ack or fail it; may be kept when the value is used up.
    pub receipt: Receipt,
}

impl<T> Deref for Input<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> AsRef<Receipt> for Input<T> {
    fn as_ref(&self) -> &Receipt {
        &self.receipt
    }
}

impl<T> From<Input<T>> for Receipt {
    fn from(input: Input<T>) -> Receipt {
        input.receipt
    }
}

impl<T: fmt::Debug> fmt::Debug for Input<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Input").field(&self.value).field(&self.receipt).finish()
    }
}

/// The acking side of a tuple.
pub struct Receipt {
    pub(crate) lineage: RefCell<Lineage>,
    pub(crate) from: TaskId,
    pub(crate) input: u32,
    /// When its execution began, if it is one of those whose time is taken.
    pub(crate) timed: Option<NonZeroU32>,
}

impl Receipt {
    /// The task that emitted the tuple.
    pub fn from(&self) -> TaskId {
        self.from
    }

    /// Through which of the bolt's inputs it came, in the order in which they were wired.
    pub fn input(&self) -> usize {
        self.input as usize
    }

    /// The trees it belongs to; empty when it is not anchored.
    pub fn roots(&self) -> Vec<Root> {
        self.lineage.borrow().roots().collect()
    }
}

impl AsRef<Receipt> for Receipt {
    fn as_ref(&self) -> &Receipt {
        self
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt(from {}, {} trees)", self.from, self.lineage.borrow().as_slice().len())
    }
}
