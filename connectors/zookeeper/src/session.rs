//! A session while its owner leads: every request goes through here, and the local lease with it.
//!
//! The lease is two thirds of the session timeout, counted on the monotonic clock from the *sending* of the last request
//! that was answered. The server counts from a later moment and three thirds, so a leader that was cut off or paused
//! stops before another one can begin. The lease only makes stopping prompt; writes are safe without it.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tine_core::failure::{Failure, FailureKind};
use tokio::sync::watch;
use zookeeper_client::{Client, Error, OneshotWatcher};

use crate::outcome::Trouble;

/// A session with its lease.
pub(crate) struct Session {
    client: Client,
    describe: String,
    lease: Duration,
    contact: Mutex<Instant>,
    lost: watch::Sender<Option<Failure>>,
}

impl Session {
    /// A session whose last answered request was sent at `contact`.
    pub(crate) fn new(client: Client, describe: String, contact: Instant) -> Session {
        let lease = client.session_timeout() * 2 / 3;
        Session { client, describe, lease, contact: Mutex::new(contact), lost: watch::Sender::new(None) }
    }

    /// Sends a request and waits for its answer, as long as the lease lasts. Requests are sent in the order of calls.
    pub(crate) async fn call<'a, T, E, F>(&'a self, request: impl FnOnce(&'a Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, E>>,
        Trouble: From<E>,
    {
        self.check().map_err(Trouble::Lost)?;
        let sent = Instant::now();
        let answer = tokio::select! {
            answer = request(&self.client) => answer.map_err(Trouble::from),
            failure = self.ended() => return Err(Trouble::Lost(failure)),
        };
        match answer {
            Ok(_) | Err(Trouble::Refused(_)) => self.extend(sent),
            Err(Trouble::Over(error)) => {
                let failure = Failure::transient(format!("{}: {error}", self.describe));
                return Err(Trouble::Lost(self.lose(failure)));
            }
            Err(Trouble::Unknown(_) | Trouble::Lost(_)) => {}
        }
        answer
    }

    /// Whether this session still may act.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let Some(failure) = self.lost.borrow().clone() {
            return Err(failure);
        }
        match self.remaining().is_zero() {
            true => Err(self.lose(self.out_of_lease())),
            false => Ok(()),
        }
    }

    /// Waits until the session or its lease is gone.
    pub(crate) async fn ended(&self) -> Failure {
        let mut lost = self.lost.subscribe();
        loop {
            if let Err(failure) = self.check() {
                return failure;
            }
            tokio::select! {
                _ = lost.changed() => {}
                () = tokio::time::sleep(self.remaining()) => {}
            }
        }
    }

    /// Looks after an ephemeral node of this session until it is gone, or holds something else than it should: by its
    /// watch, and by a timer for watches that do not come. `content` is `None` where it may change.
    pub(crate) async fn guard(&self, node: &str, content: Option<&[u8]>) {
        let watcher = self.call(|client| client.get_and_watch_data(node)).await.ok().map(|(_, _, watcher)| watcher);
        let mut hint = Box::pin(changed(watcher));
        let mut hinted = false;
        let mut states = self.client.state_watcher();
        loop {
            let same = |found: &[u8]| content.is_none_or(|content| content == found);
            match self.call(|client| client.get_data(node)).await {
                Ok((found, stat)) if stat.ephemeral_owner == self.client.session_id().0 && same(&found) => {}
                Ok(_) => return self.dethroned(node, "is somebody else's"),
                Err(Trouble::Refused(Error::NoNode)) => return self.dethroned(node, "is gone"),
                Err(Trouble::Lost(_)) => return,
                Err(error) => tracing::debug!("{}: looking at {node}: {error:?}", self.describe),
            }
            tokio::select! {
                () = &mut hint, if !hinted => hinted = true,
                _ = states.changed() => {}
                _ = self.ended() => return,
                () = tokio::time::sleep(self.lease / 4) => {}
            }
        }
    }

    fn dethroned(&self, node: &str, how: &str) {
        let message = format!("{}: fenced: the node {node} {how}", self.describe);
        self.lose(Failure::new(FailureKind::Fenced, message));
    }

    fn remaining(&self) -> Duration {
        let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        self.lease.saturating_sub(contact.elapsed())
    }

    fn extend(&self, sent: Instant) {
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        *contact = sent.max(*contact);
    }

    fn out_of_lease(&self) -> Failure {
        let lease = self.lease;
        Failure::transient(format!("{}: no answer for {lease:?}, so another leader may begin soon", self.describe))
    }

    /// Ends this session's right to act; the first reason stays.
    fn lose(&self, failure: Failure) -> Failure {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(failure.clone());
            first
        });
        self.lost.borrow().clone().unwrap_or(failure)
    }
}

async fn changed(watcher: Option<OneshotWatcher>) {
    if let Some(watcher) = watcher {
        watcher.changed().await;
    }
}
