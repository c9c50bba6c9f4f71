//! Who runs: leadership with an epoch, and the versioned records in which a leader keeps its open plans.
//!
//! Coordination decides who *may act*, never what is true: what is committed stands in the state's database. It can be
//! wiped or restored from yesterday at any moment without a wrong count. Watches, leases and clocks are hints; every
//! write is conditional on the writer's own reign.

use async_trait::async_trait;

use crate::{
    failure::Failure,
    id::{Epoch, Nonce, TxId},
    membership::{Assignment, Members},
};

/// What coordination holds of a batch group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// The epoch last claimed; 0 when nobody ever led (or coordination was wiped).
    pub epoch: Epoch,
    /// The leader that claimed it.
    pub nonce: Nonce,
    /// The lineage of the group, once a leader has written it; absence is not a mismatch.
    pub lineage: Option<u128>,
    /// The last transaction known to be complete everywhere.
    pub complete: TxId,
    /// The plans above `complete` that are open, and the last complete one if it is still kept: encoded, in txid order.
    pub plans: Vec<(TxId, Vec<u8>)>,
}

/// What a new leader writes, conditional on nothing having changed since it read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its epoch, above every epoch known anywhere.
    pub epoch: Epoch,
    /// Its nonce.
    pub nonce: Nonce,
    /// The lineage that the database holds.
    pub lineage: u128,
}

/// A coordination service.
#[async_trait]
pub trait Coordination: Send + Sync {
    /// A name for messages, without secrets: addresses and path.
    fn describe(&self) -> String;

    /// Waits until this process leads `topology`; everyone else is a standby meanwhile. Retries by itself while the
    /// service is away; `Fatal` when trying again cannot help (a path without rights, an unknown format version).
    async fn campaign(&self, topology: &str, nonce: Nonce) -> Result<Box<dyn Reign>, Failure>;

    /// The workers that it knows; `None` when it keeps leadership alone, and topologies run in one process.
    fn members(&self) -> Option<&dyn Members> {
        None
    }
}

/// Leadership, as long as it lasts; resigns when dropped. Methods may be called concurrently.
///
/// Errors: `Fenced` when another leader's claim stands or the record is not what this leader last wrote; `Transient`
/// when the service could not be reached *and* it is certain that nothing was written, or when a lost reply could not be
/// settled by reading back. A lost reply is settled by reading back and comparing content, the writer's nonce included.
#[async_trait]
pub trait Reign: Send + Sync {
    /// Reads the group's record, up to date (`sync` first). The claim and all writes are conditional on this read.
    async fn read(&self, group: &str) -> Result<GroupRecord, Failure>;

    /// Writes epoch, nonce and lineage: `Ok` means durable, and that no older leader can write any more.
    async fn claim(&self, group: &str, claim: &Claim) -> Result<(), Failure>;

    /// Writes the plan of `txid`, the next without a gap, conditional on this reign. Plans that this leader has
    /// written before are replaced only through [`forget_from`](Reign::forget_from).
    async fn write_plan(&self, group: &str, txid: TxId, plan: &[u8]) -> Result<(), Failure>;

    /// Deletes the plans of `txid` and above, conditional on this reign: they do not stand.
    async fn forget_from(&self, group: &str, txid: TxId) -> Result<(), Failure>;

    /// Notes that everything up to `txid` is complete, and deletes the plans below it, conditional on this reign.
    async fn complete(&self, group: &str, txid: TxId) -> Result<(), Failure>;

    /// Writes who runs which tasks, conditional on this reign.
    async fn assign(&self, group: &str, assignment: &Assignment) -> Result<(), Failure> {
        let _ = (group, assignment);
        Err(Failure::fatal("this coordination service keeps no assignments"))
    }

    /// Returns when the session or the local lease is gone, with the reason; a leader stops acting then.
    async fn lost(&self) -> Failure;
}
