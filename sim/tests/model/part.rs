//! A part of a state: shared by all states in which it is the same, with a digest that is worked out once per change.
//!
//! The digest is that of the part's `Debug` text, so a field that a machine gets later is in it by itself.

use std::{
    cell::RefCell,
    fmt::{Debug, Write},
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use tine_core::hash::Hash128;

/// A value with its digest.
#[derive(Clone)]
pub(crate) struct Part<T> {
    value: Arc<T>,
    /// `None` while it is being changed.
    digest: Option<u128>,
}

impl<T: Clone + Debug> Part<T> {
    pub(crate) fn new(value: T) -> Part<T> {
        let mut part = Part { value: Arc::new(value), digest: None };
        part.settle();
        part
    }

    /// The value, to be changed; [`settle`](Part::settle) follows.
    pub(crate) fn change(&mut self) -> &mut T {
        self.digest = None;
        Arc::make_mut(&mut self.value)
    }

    /// Works the digest out anew if the value was changed.
    pub(crate) fn settle(&mut self) {
        thread_local! {
            static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
        }
        if self.digest.is_none() {
            self.digest = TEXT.with_borrow_mut(|text| {
                text.clear();
                write!(text, "{:?}", self.value).expect("writing to a string cannot fail");
                Some(Hash128::of(text.as_bytes()).0)
            });
        }
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl<T> PartialEq for Part<T> {
    fn eq(&self, other: &Part<T>) -> bool {
        self.digest == other.digest
    }
}

impl<T: Debug> Debug for Part<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value.fmt(f)
    }
}
