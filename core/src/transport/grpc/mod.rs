//! Links over gRPC: one ordered stream per ordered pair of workers, opened by the sender.
//!
//! ```text
//!  POST /tine.Workers/Link       tine-hello-bin: who calls whom, in which topology            (a header)
//!    ──► frames, numbered 1, 2, 3 …                                                            (the request stream)
//!    ◄── the number of the last frame taken, eight bytes                                       (the response stream)
//! ```
//!
//! A caller is judged by its [`hello`] before anything of its stream is read; a frame's length is judged before memory is
//! set aside for it. [`line`] keeps what was sent and not taken yet; [`dial`] connects and connects again, [`accept`]
//! serves the port. The messages are our own frames, so there is no `.proto` and no generated code.

mod accept;
mod codec;
mod dial;
mod hello;
mod line;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tonic::transport::{Certificate, Identity as Pem};

use self::{hello::Roster, line::Line};
use super::{Identity, Link, Listen, Peer, Receive, Transport, WINDOW};
use crate::{failure::Failure, id::WorkerId};

/// The path of the one method.
const PATH: &str = "/tine.Workers/Link";

/// The header that a caller introduces itself with.
const HELLO: &str = "tine-hello-bin";

/// HTTP/2's own windows: as large as ours, so that they never hold back what we have credit for.
const HTTP_WINDOW: u32 = WINDOW as u32 + (1 << 20);

/// A peer that answers no ping for this long is gone: a cut line is noticed without traffic …
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// … when it is pinged this often.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Longest wait for a connection and its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The gRPC transport of one worker.
pub(super) struct Grpc {
    shared: Arc<Shared>,
    address: String,
    /// Dropped with the transport: the server then closes its port and its connections.
    _close: oneshot::Sender<()>,
}

/// What dialers and the server share.
struct Shared {
    listen: Listen,
    /// The authority, and this worker's certificate and key.
    pem: Option<(Certificate, Pem)>,
    identity: Identity,
    receive: Arc<dyn Receive>,
    roster: watch::Sender<Roster>,
    /// Who is taking in the frames of which caller.
    callers: Mutex<BTreeMap<WorkerId, JoinHandle<()>>>,
    /// The links to the peers, and who keeps them up.
    lines: Mutex<BTreeMap<WorkerId, (Arc<Line>, Dialer)>>,
}

impl Shared {
    fn line(&self, peer: WorkerId) -> Option<Arc<Line>> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(&peer).map(|(line, _)| line.clone())
    }
}

/// A dialer's task, ended with this handle.
struct Dialer(JoinHandle<()>);

impl Drop for Dialer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Grpc {
    pub(super) async fn start(listen: &Listen, identity: Identity, receive: Arc<dyn Receive>) -> Result<Grpc, Failure> {
        let cannot = |error: &dyn std::fmt::Display| Failure::fatal(format!("cannot listen on {listen}: {error}"));
        let bound: Vec<SocketAddr> =
            tokio::net::lookup_host(&listen.bind).await.map_err(|error| cannot(&error))?.collect();
        listen.check(&bound)?;
        let pem = listen.tls.as_ref().map(read_pem).transpose()?;
        let port = tokio::net::TcpListener::bind(&bound[..]).await.map_err(|error| cannot(&error))?;
        let address = listen.advertised(port.local_addr().map_err(|error| cannot(&error))?)?;
        let roster = watch::Sender::new(Roster::default());
        let (listen_on, callers, lines) = (listen.clone(), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { listen: listen_on, pem, identity, receive, roster, callers, lines });
        let (close, closed) = oneshot::channel();
        accept::serve(shared.clone(), port, closed)?;
        tracing::info!("listens on {listen} for other workers, who reach it at {address}");
        Ok(Grpc { shared, address, _close: close })
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        // Nobody is a peer any more: what still takes in frames ends by that.
        self.shared.roster.send_replace(Roster::default());
        // Dialers hold what they are held by.
        self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Reads the PEM files. Their contents never get into a message.
fn read_pem(tls: &super::Tls) -> Result<(Certificate, Pem), Failure> {
    let read = |path: &std::path::Path| {
        let text =
            std::fs::read(path).map_err(|error| Failure::fatal(format!("reading {}: {error}", path.display())))?;
        match text.windows(11).any(|bytes| bytes == b"-----BEGIN ") {
            true => Ok(text),
            false => Err(Failure::fatal(format!("{} is no PEM file", path.display()))),
        }
    };
    let (authority, certificate, key) = (read(&tls.authority)?, read(&tls.certificate)?, read(&tls.key)?);
    Ok((Certificate::from_pem(authority), Pem::from_pem(certificate, key)))
}

impl Transport for Grpc {
    fn follow(&self, me: &Peer, peers: &[Peer]) {
        let others = || peers.iter().filter(|peer| peer.id != me.id);
        self.shared.roster.send_replace(Roster { me: Some(me.clone()), peers: others().map(|peer| peer.id).collect() });
        let mut lines = self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|id, (line, _)| {
            let stays = others().any(|peer| peer.id == *id) && line.caller() == me.id;
            if !stays {
                line.end();
            }
            stays
        });
        for peer in others() {
            lines.entry(peer.id).or_insert_with(|| {
                let line = Arc::new(Line::new(me.id, peer.id));
                let dialing = dial::keep_up(self.shared.clone(), peer.clone(), line.clone());
                (line, Dialer(tokio::spawn(dialing)))
            });
        }
    }

    fn link(&self, peer: WorkerId) -> Option<Arc<dyn Link>> {
        self.shared.line(peer).map(|line| line as Arc<dyn Link>)
    }

    fn address(&self) -> &str {
        &self.address
    }
}
