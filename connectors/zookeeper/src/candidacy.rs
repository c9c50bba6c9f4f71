//! Waits for leadership: whoever creates the ephemeral leader node leads.
//!
//! Each candidacy is a session of its own. When the session ends a new one begins; a leader node that an older session of
//! this very process left behind is waited out like anybody else's.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tine_core::{
    coordination::{Coordination, Reign},
    failure::Failure,
    id::Nonce,
};
use zookeeper_client::{Client, CreateMode, Error};

use crate::{
    ZooKeeper, content,
    layout::Layout,
    outcome::{Trouble, judge},
    reign::ZooKeeperReign,
    session::Session,
};

/// First pause between two attempts to reach the ensemble; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Waits until this process leads.
pub(crate) async fn campaign(zookeeper: &ZooKeeper, layout: Layout, nonce: Nonce) -> Result<Box<dyn Reign>, Failure> {
    loop {
        let client = reach(zookeeper).await?;
        let session_id = client.session_id();
        match stand(zookeeper, &client, &layout, nonce).await {
            Ok(contact) => {
                tracing::info!("{}: leads {} (session {session_id})", zookeeper.describe(), layout.topology());
                let session = Arc::new(Session::new(client, zookeeper.describe(), contact));
                return Ok(Box::new(ZooKeeperReign::new(session, layout, nonce, zookeeper.acls())));
            }
            Err(Trouble::Refused(error)) => return Err(judge(layout.topology(), &error)),
            Err(Trouble::Lost(failure)) => return Err(failure),
            Err(Trouble::Over(error) | Trouble::Unknown(error)) => {
                tracing::info!("{}: the session ended: {error}; beginning another", zookeeper.describe());
                tokio::time::sleep(PAUSE_FIRST).await;
            }
        }
    }
}

/// A new session. The first one must be had within the start timeout; later the ensemble may be away for any time.
pub(crate) async fn reach(zookeeper: &ZooKeeper) -> Result<Client, Failure> {
    let (began, mut pause, mut told) = (Instant::now(), PAUSE_FIRST, false);
    let cluster = zookeeper.address.cluster();
    loop {
        let mut connector = Client::connector().with_session_timeout(zookeeper.session_timeout).with_fail_eagerly();
        if let Some(digest) = &zookeeper.digest {
            connector = connector.with_auth("digest", digest.as_bytes());
        }
        let attempt = connector.connect(&cluster);
        let error = match tokio::time::timeout(zookeeper.session_timeout, attempt).await {
            Ok(Ok(client)) => {
                let first = !zookeeper.told.contacted.swap(true, Ordering::Relaxed);
                let (asked, granted) = (zookeeper.session_timeout, client.session_timeout());
                if first && asked != granted {
                    tracing::warn!("{}: a session timeout of {asked:?} became {granted:?}", zookeeper.describe());
                }
                return Ok(client);
            }
            Ok(Err(error @ (Error::AuthFailed | Error::BadArguments(_)))) => {
                return Err(Failure::fatal(format!("{}: {error}", zookeeper.describe())));
            }
            Ok(Err(error)) => error,
            Err(_) => Error::Timeout,
        };
        let starting = !zookeeper.told.contacted.load(Ordering::Relaxed);
        let left = zookeeper.start_timeout.saturating_sub(began.elapsed());
        if starting && left.is_zero() {
            return Err(Failure::fatal(format!(
                "{} was not reached within {:?} ({error}): is it running, and is the address right?",
                zookeeper.describe(),
                zookeeper.start_timeout
            )));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("{} is not reached ({error}); trying again", zookeeper.describe());
        }
        tokio::time::sleep(if starting { pause.min(left) } else { pause }).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Waits until the leader node is this session's; answers when the request was sent that proved it.
async fn stand(zookeeper: &ZooKeeper, client: &Client, layout: &Layout, nonce: Nonce) -> Result<Instant, Trouble> {
    let (leader, content) = (layout.leader(), content::leader(nonce));
    let options = CreateMode::Ephemeral.with_acls(zookeeper.acls());
    let poll = (client.session_timeout() / 4).min(PAUSE_MAX);
    let mut told = false;
    folders(zookeeper, client, &layout.groups()).await?;
    loop {
        let sent = Instant::now();
        match client.create(&leader, &content, &options).await.map_err(Trouble::from) {
            Ok(_) => return Ok(sent),
            Err(Trouble::Refused(Error::NodeExists) | Trouble::Unknown(_)) => {}
            Err(Trouble::Refused(Error::NoNode)) => {
                folders(zookeeper, client, &layout.groups()).await?;
                continue;
            }
            Err(trouble) => return Err(trouble),
        }
        let sent = Instant::now();
        match client.get_and_watch_data(&leader).await.map_err(Trouble::from) {
            Ok((found, stat, _)) if stat.ephemeral_owner == client.session_id().0 && found == content => {
                return Ok(sent);
            }
            Ok((_, stat, _)) if stat.ephemeral_owner == 0 => {
                return Err(Trouble::Lost(content::corrupt(
                    &leader,
                    "it is not ephemeral, so its leader would never end",
                )));
            }
            Ok((_, stat, watcher)) => {
                if !std::mem::replace(&mut told, true) {
                    let owner = stat.ephemeral_owner;
                    tracing::info!("{}: standby, session {owner:#x} leads {}", zookeeper.describe(), layout.topology());
                }
                // The watch is a hint that may come late or never.
                let _ = tokio::time::timeout(poll, watcher.changed()).await;
            }
            Err(Trouble::Refused(Error::NoNode)) => {}
            Err(Trouble::Unknown(_)) => tokio::time::sleep(PAUSE_FIRST).await,
            Err(trouble) => return Err(trouble),
        }
    }
}

/// Makes the folders that are missing, chroot included.
pub(crate) async fn folders(zookeeper: &ZooKeeper, client: &Client, folder: &str) -> Result<(), Trouble> {
    let options = CreateMode::Persistent.with_acls(zookeeper.acls());
    loop {
        match client.mkdir(folder, &options).await.map_err(Trouble::from) {
            Ok(()) => return Ok(()),
            Err(Trouble::Unknown(_)) => tokio::time::sleep(PAUSE_FIRST).await,
            Err(trouble) => return Err(trouble),
        }
    }
}
