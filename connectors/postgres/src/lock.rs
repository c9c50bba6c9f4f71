//! The exclusive lock of a topology: a session-level advisory lock on a connection of its own.
//!
//! Its holder speaks every two seconds. The server ends a session that has been silent for ten, so the lock of a
//! *paused* process goes to a standby as surely as that of a dead one; when the process wakes, its next heartbeat
//! fails and [`lost`](Lock::lost) says so. What it writes in between is turned away by the fence: the lock decides who
//! works, never what is correct.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use tine_core::failure::Failure;
use tine_state::Lock;
use tokio::sync::{oneshot, watch};

use crate::{
    errors,
    link::{Link, lock_key},
    settings::{LOCK_HEARTBEAT, LOCK_IDLE_TIMEOUT},
};

/// How long a heartbeat may take: an answer that comes later comes after a standby may have taken over.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// `idle_session_timeout` appeared in PostgreSQL 14.
const IDLE_SESSION_TIMEOUT_SINCE: u32 = 140_000;

/// A held lock; dropping it gives it back.
pub(crate) struct AdvisoryLock {
    lost: watch::Receiver<Option<Failure>>,
    /// Dropped with the lock: the heartbeat then says goodbye to the server.
    _give_back: oneshot::Sender<()>,
}

impl AdvisoryLock {
    /// Tries once; `None` while another session holds it.
    pub(crate) async fn take(mut link: Link, topology: &str) -> Result<Option<AdvisoryLock>, Failure> {
        link.connect("lock").await?;
        let taken = try_take(&mut link, topology).await;
        let taken =
            taken.map_err(|error| errors::before_commit("taking the topology's lock", &link.address, &error))?;
        if !taken {
            link.close().await;
            return Ok(None);
        }
        let (tell, lost) = watch::channel(None);
        let (give_back, given_back) = oneshot::channel();
        tokio::spawn(beat(link, topology.to_string(), tell, given_back));
        Ok(Some(AdvisoryLock { lost, _give_back: give_back }))
    }
}

async fn try_take(link: &mut Link, topology: &str) -> Result<bool, sqlx::Error> {
    let idle_ms = LOCK_IDLE_TIMEOUT.as_millis();
    let setup = match link.version() >= IDLE_SESSION_TIMEOUT_SINCE {
        true => format!("set idle_session_timeout = {idle_ms}"),
        // A transaction that reads nothing holds no snapshot, so it may lie open.
        false => format!("set idle_in_transaction_session_timeout = {idle_ms}; begin isolation level read committed"),
    };
    link.message(&setup.into(), HEARTBEAT_TIMEOUT).await?;
    let rows = link.rows(sqlx::query("select pg_try_advisory_lock($1) as taken").bind(lock_key(topology))).await?;
    rows.first().map_or(Ok(false), |row| row.try_get("taken"))
}

async fn beat(
    mut link: Link,
    topology: String,
    tell: watch::Sender<Option<Failure>>,
    mut given_back: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            _ = &mut given_back => {
                link.close().await;
                return;
            }
            () = tokio::time::sleep(LOCK_HEARTBEAT) => {}
        }
        if let Err(error) = link.message(&"select 1".into(), HEARTBEAT_TIMEOUT).await {
            let doing = format!("keeping the lock of topology {topology}");
            let _ = tell.send(Some(errors::before_commit(&doing, &link.address, &error)));
            return;
        }
    }
}

#[async_trait]
impl Lock for AdvisoryLock {
    async fn lost(&mut self) -> Failure {
        let told = self.lost.wait_for(Option::is_some).await;
        let gone = || Failure::transient("the task that kept the topology's lock has ended");
        told.ok().and_then(|failure| failure.clone()).unwrap_or_else(gone)
    }
}
