//! Coordination in ZooKeeper: who leads a topology, and the leader's open plans.
//!
//! ```
//! use std::time::Duration;
//! use tine_zookeeper::ZooKeeper;
//!
//! # fn main() -> Result<(), tine_core::failure::Failure> {
//! let coordination = ZooKeeper::connect("zk1:2181,zk2:2181/apps")?.session_timeout(Duration::from_secs(10));
//! # let _ = coordination;
//! # Ok(())
//! # }
//! ```
//!
//! Below the chroot, with names escaped as [`layout`] says and contents as [`content`] says:
//!
//! ```text
//! /tine/<topology>/leader                          ephemeral; the nonce of who leads
//! /tine/<topology>/workers/<id>                    ephemeral; a worker: address, fingerprint, token, capacity
//! /tine/<topology>/assignment                      which worker runs which tasks
//! /tine/<topology>/groups/<group>                  epoch, nonce, lineage, complete txid, next txid
//! /tine/<topology>/groups/<group>/reign-<nonce>    empty; whose claim stands
//! /tine/<topology>/groups/<group>/plans/<txid>     a plan
//! ```
//!
//! Every write is one `multi` that changes the group node at the version this leader last saw and needs its own
//! `reign-<nonce>` node. The version refuses whoever did not see the last write; the name of the reign node, unlike a
//! version, does not come again after a restore from a backup. There are no sequential nodes, so nothing is created twice.
//!
//! In reading order: [`address`], [`layout`], [`content`]; [`candidacy`] waits for leadership; [`session`] keeps the lease;
//! [`reign`] is leadership, [`standing`] what it knows of a group, and [`write`] settles replies that were lost; [`workers`]
//! registers workers and shows them to one another.

mod address;
mod candidacy;
mod content;
mod layout;
mod outcome;
mod reign;
mod session;
mod standing;
mod workers;
mod write;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tine_core::{
    coordination::{Coordination, Reign},
    failure::Failure,
    id::Nonce,
    membership::{Member, Members, Registration},
};
use zookeeper_client::Acls;

use crate::{address::Address, layout::Layout};

/// Default of [`ZooKeeper::session_timeout`].
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Default of [`ZooKeeper::start_timeout`].
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest plan that is written: ZooKeeper drops connections that send more than 1 MiB (`jute.maxbuffer`).
pub const PLAN_BYTES_MAX: usize = 900_000;

/// A ZooKeeper ensemble as [`Coordination`]. Each campaign has a session of its own, which ends with its reign.
#[derive(Clone)]
pub struct ZooKeeper {
    address: Address,
    session_timeout: Duration,
    start_timeout: Duration,
    digest: Option<Arc<str>>,
    told: Arc<Told>,
}

/// What this handle has met or said before.
#[derive(Default)]
struct Told {
    contacted: AtomicBool,
    world_writable: AtomicBool,
}

impl ZooKeeper {
    /// A handle on the ensemble at `host:port,host:port/chroot`. Nothing is contacted before the first campaign.
    ///
    /// Errors: `Fatal` when the address cannot be understood.
    pub fn connect(address: &str) -> Result<ZooKeeper, Failure> {
        Ok(ZooKeeper {
            address: Address::parse(address)?,
            session_timeout: SESSION_TIMEOUT,
            start_timeout: START_TIMEOUT,
            digest: None,
            told: Arc::default(),
        })
    }

    /// How long the ensemble waits for a silent leader before another one may lead. A leader stops by itself after two
    /// thirds of it. The servers may allow only a narrower range.
    pub fn session_timeout(mut self, timeout: Duration) -> ZooKeeper {
        self.session_timeout = timeout;
        self
    }

    /// How long the first campaign tries to reach the ensemble before it fails. Later ones try for ever.
    pub fn start_timeout(mut self, timeout: Duration) -> ZooKeeper {
        self.start_timeout = timeout;
        self
    }

    /// Authenticates with scheme `digest`; nodes are then created for this user alone.
    pub fn digest_auth(mut self, user: &str, password: &str) -> ZooKeeper {
        self.digest = Some(format!("{user}:{password}").into());
        self
    }

    /// Who may touch the nodes that we create.
    fn acls(&self) -> Acls<'static> {
        match self.digest {
            Some(_) => Acls::creator_all(),
            None => Acls::anyone_all(),
        }
    }

    fn warn_when_world_writable(&self, layout: &Layout) {
        if self.digest.is_none() && !self.told.world_writable.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: everybody who reaches {} can write {}; set digest_auth unless the network is trusted",
                self.describe(),
                self.address.hosts,
                layout.topology()
            );
        }
    }
}

#[async_trait]
impl Coordination for ZooKeeper {
    fn describe(&self) -> String {
        format!("zookeeper {}{}", self.address.hosts, self.address.chroot)
    }

    async fn campaign(&self, topology: &str, nonce: Nonce) -> Result<Box<dyn Reign>, Failure> {
        let layout = Layout::new(&self.address.chroot, topology)?;
        self.warn_when_world_writable(&layout);
        candidacy::campaign(self, layout, nonce).await
    }

    fn members(&self) -> Option<&dyn Members> {
        Some(self)
    }
}

#[async_trait]
impl Members for ZooKeeper {
    async fn register(&self, topology: &str, member: &Member) -> Result<Box<dyn Registration>, Failure> {
        let layout = Layout::new(&self.address.chroot, topology)?;
        self.warn_when_world_writable(&layout);
        workers::register(self, layout, member).await
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZooKeeper({})", self.describe())
    }
}
