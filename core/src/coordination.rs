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
///
/// ```
/// use tine_core::{coordination::{Claim, GroupRecord}, id::{Epoch, Nonce}};
///
/// // What a new leader claims, when the ledger's fence stands at epoch 9.
/// let (read, fence) = (GroupRecord { epoch: Epoch(7), ..GroupRecord::default() }, Epoch(9));
/// let claim = Claim { epoch: Epoch(read.epoch.max(fence).0 + 1), nonce: Nonce(0x5eed), lineage: 42 };
/// assert_eq!(claim.epoch, Epoch(10));
/// assert!(read.lineage.is_none_or(|lineage| lineage == claim.lineage), "else it is another database");
/// ```
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
///
/// ```
/// use tine_core::{coordination::{Claim, GroupRecord}, id::{Epoch, Nonce}};
///
/// /// What stands after a claim.
/// fn claimed(record: GroupRecord, claim: &Claim) -> GroupRecord {
///     GroupRecord { epoch: claim.epoch, nonce: claim.nonce, lineage: Some(claim.lineage), ..record }
/// }
///
/// let claim = Claim { epoch: Epoch(1), nonce: Nonce(0x5eed), lineage: 42 };
/// assert_eq!(claimed(GroupRecord::default(), &claim).lineage, Some(42));
/// ```
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
///
/// ```
/// use std::sync::Mutex;
/// use tine_core::coordination::{Claim, Coordination, GroupRecord, Reign};
/// use tine_core::{failure::Failure, id::{Epoch, Nonce, TxId}};
///
/// /// For a topology that never has more than one process: that one leads, and forgets everything when it ends.
/// struct Alone;
///
/// struct Reigning(Mutex<GroupRecord>);
///
/// #[async_trait::async_trait]
/// impl Coordination for Alone {
///     fn describe(&self) -> String {
///         "this process alone".to_owned()
///     }
///
///     async fn campaign(&self, _topology: &str, _: Nonce) -> Result<Box<dyn Reign>, Failure> {
///         Ok(Box::new(Reigning(Mutex::default())))
///     }
/// }
///
/// #[async_trait::async_trait]
/// impl Reign for Reigning {
///     async fn read(&self, _group: &str) -> Result<GroupRecord, Failure> {
///         Ok(self.0.lock().unwrap().clone())
///     }
///
///     async fn claim(&self, _group: &str, claim: &Claim) -> Result<(), Failure> {
///         let mut record = self.0.lock().unwrap();
///         (record.epoch, record.nonce, record.lineage) = (claim.epoch, claim.nonce, Some(claim.lineage));
///         Ok(())
///     }
///
///     async fn write_plan(&self, _group: &str, txid: TxId, plan: &[u8]) -> Result<(), Failure> {
///         self.0.lock().unwrap().plans.push((txid, plan.to_vec()));
///         Ok(())
///     }
///
///     async fn forget_from(&self, _group: &str, txid: TxId) -> Result<(), Failure> {
///         self.0.lock().unwrap().plans.retain(|(planned, _)| *planned < txid);
///         Ok(())
///     }
///
///     async fn complete(&self, _group: &str, txid: TxId) -> Result<(), Failure> {
///         let mut record = self.0.lock().unwrap();
///         record.complete = txid;
///         record.plans.retain(|(planned, _)| *planned >= txid);
///         Ok(())
///     }
///
///     async fn lost(&self) -> Failure {
///         std::future::pending().await
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let reign = Alone.campaign("words", Nonce(7)).await?;
/// reign.claim("main", &Claim { epoch: Epoch(1), nonce: Nonce(7), lineage: 42 }).await?;
/// for txid in 1..=3 {
///     reign.write_plan("main", TxId(txid), b"offsets").await?;
/// }
/// reign.complete("main", TxId(2)).await?;
/// let record = reign.read("main").await?;
/// assert_eq!(record.plans.iter().map(|(txid, _)| *txid).collect::<Vec<_>>(), [TxId(2), TxId(3)]);
/// assert!(Alone.members().is_none(), "it knows no workers");
/// # Ok::<(), Failure>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```no_run
/// use tine_core::coordination::Reign;
/// use tine_core::{failure::Failure, id::TxId};
///
/// /// Plans transactions until the reign is over.
/// async fn lead(reign: &dyn Reign, group: &str) -> Result<(), Failure> {
///     let mut txid = reign.read(group).await?.complete;
///     loop {
///         txid = txid.next();
///         tokio::select! {
///             written = reign.write_plan(group, txid, b"offsets") => written?,
///             reason = reign.lost() => return Err(reason),
///         }
///         reign.complete(group, txid).await?;
///     }
/// }
/// ```
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
