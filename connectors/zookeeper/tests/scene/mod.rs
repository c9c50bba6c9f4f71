//! What the tests share: the server they run against, a chroot of their own, a proxy that cuts, and shorthands.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests are tests")]

use std::{
    env,
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tine_core::{
    codec,
    coordination::{Claim, Coordination, Reign},
    id::{Epoch, Nonce, TxId},
};
use tine_zookeeper::ZooKeeper;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use zookeeper_client::{Client, Error};

pub(crate) const TOPOLOGY: &str = "counts";
pub(crate) const GROUP: &str = "g";
pub(crate) const LEADER: &str = "/tine/counts/leader";
pub(crate) const NODE: &str = "/tine/counts/groups/g";

/// What must come, comes by then, also where others compile.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A chroot of its own on the real server.
pub(crate) struct Scene {
    pub(crate) server: String,
    pub(crate) chroot: String,
}

impl Scene {
    /// `None`, with the reason on stderr, when there is no server; in CI that is a failure.
    pub(crate) fn new() -> Option<Scene> {
        let Ok(server) = env::var("TINE_TEST_ZOOKEEPER") else {
            assert!(env::var_os("CI").is_none(), "TINE_TEST_ZOOKEEPER is not set, and in CI nothing is skipped");
            eprintln!("skipped: set TINE_TEST_ZOOKEEPER=host:port to a running ZooKeeper");
            return None;
        };
        let server = server.split_once('/').map_or(server.as_str(), |(hosts, _)| hosts).to_owned();
        Some(Scene { server, chroot: format!("/tine-test-{:016x}", rand::random::<u64>()) })
    }

    pub(crate) fn zookeeper(&self) -> ZooKeeper {
        self.through(&self.server)
    }

    pub(crate) fn through(&self, address: &str) -> ZooKeeper {
        self.with_session_timeout(address, Duration::from_secs(4))
    }

    pub(crate) fn with_session_timeout(&self, address: &str, timeout: Duration) -> ZooKeeper {
        ZooKeeper::connect(&format!("{address}{}", self.chroot)).unwrap().session_timeout(timeout)
    }

    /// A client of the test's own, below the chroot.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.server).await.unwrap().chroot(self.chroot.clone()).unwrap()
    }

    /// Deletes a node with everything below it.
    pub(crate) async fn wipe(&self, path: &str) {
        let client = self.client().await;
        let mut below = vec![path.to_owned()];
        let mut at = 0;
        while at < below.len() {
            let parent = below[at].clone();
            let names = client.list_children(&parent).await.unwrap_or_default();
            below.extend(names.iter().map(|name| format!("{parent}/{name}")));
            at += 1;
        }
        for path in below.iter().rev() {
            match client.delete(path, None).await {
                Ok(()) | Err(Error::NoNode) => {}
                Err(error) => panic!("deleting {path}: {error}"),
            }
        }
    }
}

pub(crate) async fn campaign(zookeeper: &ZooKeeper, nonce: u64) -> Box<dyn Reign> {
    soon("leadership", zookeeper.campaign(TOPOLOGY, Nonce(nonce))).await.unwrap()
}

/// A reign whose claim stands.
pub(crate) async fn reign(zookeeper: &ZooKeeper, nonce: u64, epoch: u64) -> Box<dyn Reign> {
    let reign = campaign(zookeeper, nonce).await;
    reign.read(GROUP).await.unwrap();
    reign.claim(GROUP, &claim(nonce, epoch)).await.unwrap();
    reign
}

pub(crate) fn claim(nonce: u64, epoch: u64) -> Claim {
    Claim { epoch: Epoch(epoch), nonce: Nonce(nonce), lineage: 5 }
}

/// The bytes of a group node, spelt out.
pub(crate) fn content(epoch: u64, nonce: u64, complete: u64, next: u64) -> Vec<u8> {
    codec::encode(&(epoch, nonce, Some(5u128), complete, next))
}

pub(crate) fn plans(txids: impl IntoIterator<Item = u64>) -> Vec<(TxId, Vec<u8>)> {
    txids.into_iter().map(|txid| (TxId(txid), plan(txid))).collect()
}

pub(crate) fn plan(txid: u64) -> Vec<u8> {
    format!("plan of {txid}").into_bytes()
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// Asks again until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} did not come in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What happens to the request that contains the needle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never gets it.
    Before,
    /// The server answers it, and the answer is thrown away.
    BeforeReply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    Down,
}

/// The needle, the cut, and the line afterwards.
type Trap = (Vec<u8>, Cut, Line);

/// A TCP proxy that cuts connections.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: String,
    line: watch::Sender<Line>,
    trap: Arc<Mutex<Option<Trap>>>,
    refused: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(server: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy =
            Proxy { address, line: watch::Sender::new(Line::Open), trap: Arc::default(), refused: Arc::default() };
        let (serving, server) = (proxy.clone(), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, server) = (serving.clone(), server.clone());
                tokio::spawn(async move { proxy.carry(client, &server).await });
            }
        });
        proxy
    }

    /// Cuts every connection and refuses new ones.
    pub(crate) fn down(&self) {
        self.line.send_replace(Line::Down);
    }

    pub(crate) fn up(&self) {
        self.line.send_replace(Line::Open);
    }

    /// Cuts the connection at the next request that contains `needle`; `stay_down` refuses new ones afterwards.
    pub(crate) fn cut_once(&self, needle: &[u8], cut: Cut, stay_down: bool) {
        let then = if stay_down { Line::Down } else { Line::Open };
        *self.trap.lock().unwrap() = Some((needle.to_vec(), cut, then));
    }

    /// Waits until somebody tried to connect in vain, `times` times.
    pub(crate) async fn has_refused(&self, times: usize) {
        let before = self.refused.load(Ordering::Relaxed);
        until("an attempt", || async { self.refused.load(Ordering::Relaxed) >= before + times }).await;
    }

    /// Whether the trap was sprung.
    pub(crate) fn has_cut(&self) -> bool {
        self.trap.lock().unwrap().is_none()
    }

    async fn carry(&self, client: TcpStream, server: &str) -> io::Result<()> {
        let mut line = self.line.subscribe();
        if *line.borrow_and_update() == Line::Down {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
        let (mut asked, mut answered) = (vec![0; 1 << 21], vec![0; 1 << 21]);
        loop {
            tokio::select! {
                read = from_client.read(&mut asked) => match read? {
                    0 => return Ok(()),
                    got => match self.sprung(&asked[..got]) {
                        None => to_server.write_all(&asked[..got]).await?,
                        Some((Cut::Before, then)) => {
                            self.line.send_replace(then);
                            return Ok(());
                        }
                        Some((Cut::BeforeReply, then)) => {
                            to_server.write_all(&asked[..got]).await?;
                            let _ = from_server.read(&mut answered).await?;
                            self.line.send_replace(then);
                            return Ok(());
                        }
                    },
                },
                read = from_server.read(&mut answered) => match read? {
                    0 => return Ok(()),
                    got => to_client.write_all(&answered[..got]).await?,
                },
                _ = line.changed() => if *line.borrow_and_update() == Line::Down {
                    return Ok(());
                },
            }
        }
    }

    fn sprung(&self, request: &[u8]) -> Option<(Cut, Line)> {
        let mut trap = self.trap.lock().unwrap();
        let (needle, _, _) = trap.as_ref()?;
        request
            .windows(needle.len())
            .any(|bytes| bytes == needle)
            .then(|| trap.take().map(|(_, cut, then)| (cut, then)))?
    }
}
