//! A tuple as a bolt gets it: the value, and the receipt that says whom it came from and who waits for it.

use std::{cell::RefCell, fmt, num::NonZeroU32, ops::Deref};

use crate::{engine::lineage::Lineage, id::TaskId, tuple::Root};

/// A tuple that a bolt holds until it acks or fails it.
///
/// Both take it by value, so it cannot be acked twice. One that is dropped without either leaves its trees to time out.
///
/// ```
/// use tine_core::component::{Bolt, Collector, Input, Receipt};
/// # use tine_core::topology::Topology;
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
///
/// /// Makes a page of every 20 letters; keeps the receipts of the words that are used up.
/// #[derive(Default)]
/// struct Pages {
///     page: String,
///     receipts: Vec<Receipt>,
/// }
///
/// impl Bolt for Pages {
///     type In = String;
///     type Out = String;
///
///     fn execute(&mut self, word: Input<String>, out: &mut Collector<String>) -> Result<(), Failure> {
///         if word.is_empty() {
///             out.ack(word);
///             return Ok(());
///         }
///         let Input { value, receipt } = word;
///         self.page.push_str(&value);
///         self.receipts.push(receipt);
///         if self.page.len() >= 20 {
///             let anchors: Vec<&Receipt> = self.receipts.iter().collect();
///             out.emit_joined(&anchors, std::mem::take(&mut self.page));
///             self.receipts.drain(..).for_each(|receipt| out.ack(receipt));
///         }
///         Ok(())
///     }
/// }
///
/// let topology = Topology::new("pages");
/// let words = topology.spout("words", || Items(["wonderful", "", "unforgettable"].into_iter().map(str::to_owned)));
/// topology.bolt("pages", Pages::default).shuffle(&words);
/// assert_eq!(topology.run()?.acked(), 3);
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
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
///
/// ```
/// use tine_core::component::{Bolt, Collector, Input};
/// # use tine_core::topology::Topology;
/// # use tine_core::{component::*, failure::*};
/// # struct Items<I>(I);
/// # impl<I: Iterator<Item: Data> + Send + 'static> Spout for Items<I> {
/// #     type Out = I::Item;
/// #     type Id = ();
/// #     fn next(&mut self, out: &mut SpoutCollector<I::Item, ()>) -> Result<Next, Failure> {
/// #         Ok(self.0.next().map_or(Next::Done, |item| { out.emit(item, ()); Next::More }))
/// #     }
/// # }
///
/// /// Its first input are numbers to add, its second one numbers to take away.
/// #[derive(Default)]
/// struct Balance(i64);
///
/// impl Bolt for Balance {
///     type In = i64;
///     type Out = i64;
///
///     fn execute(&mut self, number: Input<i64>, out: &mut Collector<i64>) -> Result<(), Failure> {
///         let receipt = &number.receipt;
///         tracing::debug!("from {}, of {} trees", receipt.from(), receipt.roots().len());
///         self.0 += if receipt.input() == 0 { *number } else { -*number };
///         out.emit(&number, self.0);
///         out.ack(number);
///         Ok(())
///     }
/// }
///
/// let (seen, balances) = std::sync::mpsc::sync_channel(100);
/// let topology = Topology::new("balance");
/// let come = topology.spout("come", || Items(0..10i64));
/// let gone = topology.spout("gone", || Items(0..5i64));
/// let balance = topology.bolt("balance", Balance::default).shuffle(&come).shuffle(&gone);
/// topology.each("seen", move |it: i64, _: &mut Emit<'_, ()>| Ok(drop(seen.send(it)))).shuffle(&balance);
/// assert_eq!(topology.run()?.acked(), 15);
/// assert_eq!(balances.try_iter().last(), Some(45 - 10));
/// # Ok::<(), tine_core::engine::RunError>(())
/// ```
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
