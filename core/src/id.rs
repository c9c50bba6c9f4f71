//! The numbers of the protocol, each with a type of its own, so that a rule reads as code.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

use crate::mutant::{self, Mutant};

/// Transaction id: 1, 2, 3 … per batch group, without gaps. `TxId::NONE` (0) stands before the first.
///
/// ```
/// use tine_core::id::TxId;
///
/// let first = TxId::NONE.next();
/// assert_eq!((first, first.previous()), (TxId(1), TxId::NONE));
/// assert_eq!(TxId::NONE.previous(), TxId::NONE);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxId(pub u64);

impl TxId {
    /// What a shard carries before its first transaction.
    pub const NONE: TxId = TxId(0);

    /// The transaction after this one.
    pub fn next(self) -> TxId {
        TxId(self.0 + 1)
    }

    /// The transaction before this one; `NONE` has none before it and stays itself.
    pub fn previous(self) -> TxId {
        TxId(self.0.saturating_sub(1))
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A leader's reign: strictly larger than every epoch known anywhere.
///
/// ```
/// use tine_core::id::Epoch;
///
/// let (claimed, in_the_ledger) = (Epoch(7), Epoch(9));
/// let next = Epoch(claimed.max(in_the_ledger).0 + 1);
/// assert_eq!(next, Epoch(10));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Random number of one leader: epochs repeat when coordination is restored from a backup, nonces don't.
///
/// ```
/// use tine_core::id::{Attempt, Epoch, Generation, Nonce};
///
/// let before = Attempt::new(Epoch(3), Nonce(0x5eed), Generation(1));
/// let restored = Attempt::new(Epoch(3), Nonce(0xfeed), Generation(1)); // the same epoch, claimed a second time
/// assert_ne!(before, restored);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nonce(pub u64);

/// Counts the tries within one reign; every abort and every change of owners starts the next.
///
/// ```
/// use tine_core::id::{Attempt, Generation};
///
/// assert_eq!(Attempt::NONE.next_generation().generation, Generation(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// One try of a group's open transactions, and the fence that a group and its ledger rows admit.
///
/// Ordered by epoch and generation; equal only with the same nonce. Two attempts of the same epoch and different
/// nonces are therefore *not comparable*: `a < b`, `a > b` and `a == b` are all false.
///
/// ```
/// use tine_core::id::{Attempt, Epoch, Generation, Nonce};
///
/// let first = Attempt::new(Epoch(3), Nonce(7), Generation(0));
/// let second = first.next_generation();
/// assert!(Attempt::NONE < first && first < second && first.same_reign(second));
///
/// let rival = Attempt::new(Epoch(3), Nonce(8), Generation(5));
/// assert_eq!(first.partial_cmp(&rival), None);
/// assert!(!first.same_reign(rival));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The reign it belongs to.
    pub epoch: Epoch,
    /// The leader of that reign.
    pub nonce: Nonce,
    /// Which try within the reign.
    pub generation: Generation,
}

impl Attempt {
    /// The fence of a group that nobody has led yet.
    pub const NONE: Attempt = Attempt { epoch: Epoch(0), nonce: Nonce(0), generation: Generation(0) };

    /// An attempt from its three numbers.
    pub fn new(epoch: Epoch, nonce: Nonce, generation: Generation) -> Attempt {
        Attempt { epoch, nonce, generation }
    }

    /// The next try of the same reign.
    pub fn next_generation(self) -> Attempt {
        Attempt { generation: Generation(self.generation.0 + 1), ..self }
    }

    /// Whether both belong to the same leader's reign.
    pub fn same_reign(self, other: Attempt) -> bool {
        self.epoch == other.epoch && self.nonce == other.nonce
    }
}

impl PartialOrd for Attempt {
    fn partial_cmp(&self, other: &Attempt) -> Option<Ordering> {
        match self.epoch.cmp(&other.epoch) {
            Ordering::Equal if self.nonce == other.nonce => Some(self.generation.cmp(&other.generation)),
            Ordering::Equal => None,
            order => Some(order),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{:016x}", self.epoch.0, self.generation.0, self.nonce.0)
    }
}

/// A slice of a state's key space: what a task owns and a ledger row stands for.
///
/// ```
/// use tine_core::id::Shard;
///
/// assert_eq!(Shard::of(0, 32), Shard(0));
/// assert_eq!(Shard::of(1 << 63, 32), Shard(16));
/// assert_eq!(Shard::of(u64::MAX, 32), Shard(31));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of a key by its stable hash: the high bits scaled to `0..shards`. Part of the format.
    pub fn of(hash: u64, shards: u16) -> Shard {
        let scaled = (u128::from(hash) * u128::from(shards)) >> 64;
        Shard(u16::try_from(scaled).expect("a product scaled below `shards` fits"))
    }
}

/// One spout or bolt instance in a running topology.
///
/// ```
/// assert_eq!(tine_core::id::TaskId(7).to_string(), "task 7");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub u32);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.0)
    }
}

/// One process of a topology, from its registration to its end: random, so that a process that comes back is another worker.
///
/// ```
/// assert_eq!(tine_core::id::WorkerId(0x5eed).to_string(), "worker 0000000000005eed");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {:016x}", self.0)
    }
}

/// Which assignment of tasks to workers something belongs to: unique, compared for equality alone.
///
/// ```
/// use tine_core::id::Era;
///
/// let (sent_under, now) = (Era(4), Era(9));
/// assert_ne!(sent_under, now, "the tasks that it was sent to have moved since");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Era(pub u64);

impl Era {
    /// Whether tasks of this era take a frame of that one: those of another are for tasks that are gone.
    ///
    /// ```
    /// # use tine_core::id::Era;
    /// assert!(Era(9).hears(Era(9)) && !Era(9).hears(Era(4)));
    /// ```
    pub fn hears(self, frame: Era) -> bool {
        self == frame || mutant::on(Mutant::EraIgnored)
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "era {:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(epoch: u64, nonce: u64, generation: u64) -> Attempt {
        Attempt::new(Epoch(epoch), Nonce(nonce), Generation(generation))
    }

    #[test]
    fn attempts_order_by_epoch_then_generation() {
        assert!(attempt(1, 7, 9) < attempt(2, 5, 1));
        assert!(attempt(2, 5, 1) < attempt(2, 5, 2));
    }

    #[test]
    fn attempts_of_two_leaders_with_one_epoch_are_not_comparable() {
        let (a, b) = (attempt(3, 1, 1), attempt(3, 2, 5));
        assert!(a != b && a.partial_cmp(&b).is_none());
    }

    #[test]
    fn shards_cover_the_range_evenly() {
        assert_eq!(Shard::of(0, 32), Shard(0));
        assert_eq!(Shard::of(u64::MAX, 32), Shard(31));
        assert_eq!(Shard::of(1 << 63, 32), Shard(16));
    }
}
